//! A fair queue between the kernel and the worker.
//!
//! The kernel's queues in front of us, the TUN's and the socket's, are first in, first out: one
//! busy flow fills them, and a keystroke waits behind four megabytes. So each turn takes what is
//! there out of them into here, and takes out of here what is next:
//!
//! - **Fair**: flows take turns by bytes (deficit round robin, as in FQ-CoDel, RFC 8290), and the
//!   flows of one host share what one host gets. A flow that just begins, or that sends less than
//!   its share, goes first. Order within a flow is kept.
//! - **Short**: [`LARGE`] super-packets and [`SMALL`] packets, which stay in the cache. What finds
//!   no room is left in the kernel's queue: a burst loses nothing. If that goes on for an
//!   [`INTERVAL`], it is no burst, and flows that wait are told to slow down, more and more often
//!   until it ends (CoDel, RFC 8289): by a mark if they understand marks, by the loss of one
//!   packet if not.
//! - **Bounded**: if even that is of no use, everything is taken in, and the flow that holds the
//!   most loses its oldest: a flood hurts itself.

mod class;

use postern_proto::now::Mono;
use std::collections::VecDeque;
use std::time::Duration;

/// Super-packets that wait, at most: half a megabyte, a millisecond of encryption.
pub const LARGE: usize = 8;
/// Bytes of each: one GRO message, or one super-packet with its virtio header.
pub const LARGE_BYTES: usize = 65_536 + 64;
/// Packets of at most [`SMALL_BYTES`] that wait, at most.
pub const SMALL: usize = 512;
/// Bytes of each.
pub const SMALL_BYTES: usize = 2048;
/// Worst case of one queue. A buffer is made when it is first needed.
pub const MEMORY: usize = LARGE * LARGE_BYTES + SMALL * SMALL_BYTES;

/// How long the kernel's queue may hold what finds no room here: some round trips of the flows
/// that we carry.
pub const INTERVAL: Duration = Duration::from_millis(20);
/// How long until those who cannot be told are thrown out.
pub const PATIENCE: Duration = Duration::from_millis(200);

/// Places for flows; those that share one share their turn.
const FLOWS: usize = 256;
/// Entries that a place for a flow keeps room for, while nothing waits in it: half a megabyte for
/// all places.
const KEPT: usize = 32;
/// Bytes of a turn.
const QUANTUM: i64 = 16 * 1024;
/// Bytes of a turn of a flow whose host has very many.
const LEAST_QUANTUM: i64 = 1024;

/// Whose turn a packet takes: a hash of its host (who gets a share) and of its flow (what is kept
/// in order).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Flows of one host share its turn.
    pub host: u64,
    /// Packets of one flow stay in order.
    pub flow: u64,
}

/// What was put in, when it comes out.
#[derive(Debug)]
pub struct Popped<M> {
    /// The buffer; give it back with [`Fair::recycle`].
    pub buffer: Box<[u8]>,
    /// Bytes of it that count.
    pub len: usize,
    /// What was put in with it.
    pub about: M,
    /// The flow must slow down: mark this packet, or lose one of it.
    pub congested: bool,
}

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FairStats {
    /// Entries thrown out because there was no room.
    pub overflowed: u64,
    /// Entries that came out with the word to slow down.
    pub congested: u64,
}

/// The queue. `M` is what the caller wants to know about an entry.
#[derive(Debug)]
pub struct Fair<M> {
    large: Pool,
    small: Pool,
    flows: Vec<Flow<M>>,
    /// Flows that just began, served first.
    new: VecDeque<u16>,
    old: VecDeque<u16>,
    /// Flows in line, by place of their host.
    hosts: Vec<u16>,
    entries: usize,
    bytes: usize,
    /// Since when the kernel's queue has held what found no room here.
    full_since: Option<Mono>,
    stats: FairStats,
}

/// Buffers of one size: the one that was used last is used next, so that it is in the cache.
#[derive(Debug)]
struct Pool {
    free: Vec<Box<[u8]>>,
    /// How many more may be made.
    unmade: usize,
    bytes: usize,
}

#[derive(Debug)]
struct Flow<M> {
    waiting: VecDeque<Entry<M>>,
    /// How many of them are large.
    large: usize,
    deficit: i64,
    /// In `new` or `old`.
    in_line: bool,
    host: u16,
    codel: Codel,
}

#[derive(Debug)]
struct Entry<M> {
    buffer: Box<[u8]>,
    len: usize,
    about: M,
}

impl<M> Default for Fair<M> {
    fn default() -> Self {
        Fair {
            large: Pool::new(LARGE, LARGE_BYTES),
            small: Pool::new(SMALL, SMALL_BYTES),
            flows: (0..FLOWS).map(|_| Flow::default()).collect(),
            new: VecDeque::with_capacity(FLOWS),
            old: VecDeque::with_capacity(FLOWS),
            hosts: vec![0; FLOWS],
            entries: 0,
            bytes: 0,
            full_since: None,
            stats: FairStats::default(),
        }
    }
}

impl<M> Default for Flow<M> {
    fn default() -> Self {
        Flow {
            waiting: VecDeque::new(),
            large: 0,
            deficit: 0,
            in_line: false,
            host: 0,
            codel: Codel::default(),
        }
    }
}

impl<M> Fair<M> {
    /// A buffer of [`LARGE_BYTES`] to read into.
    #[must_use]
    pub fn spare() -> Box<[u8]> {
        vec![0; LARGE_BYTES].into_boxed_slice()
    }

    /// How many reads may be put in line now. What goes beyond is left in the kernel's queue,
    /// unless that has been of no use for long.
    #[must_use]
    pub fn room(&self, now: Mono) -> usize {
        if self.full_since.is_some_and(|since| now - since >= PATIENCE) {
            return usize::MAX;
        }
        self.large.left().min(self.small.left())
    }

    /// To be told what the last read said of the kernel's queue: whether there is more in it.
    pub fn kernel_has_more(&mut self, more: bool, now: Mono) {
        if more {
            self.full_since.get_or_insert(now);
        } else {
            self.full_since = None;
        }
    }

    /// Puts the first `len` bytes of `buffer` in line, and leaves another buffer in its place.
    /// Returns what was said about the entry that had to go for it, if one had to.
    pub fn push(
        &mut self,
        class: Class,
        buffer: &mut Box<[u8]>,
        len: usize,
        about: M,
    ) -> Option<M> {
        let len = len.min(buffer.len());
        let place = (class.flow % FLOWS as u64) as usize;
        let host = (class.host % FLOWS as u64) as u16;
        let is_large = len > SMALL_BYTES;
        let (mut kept, thrown_out) = self.free(is_large);
        if is_large {
            std::mem::swap(buffer, &mut kept);
        } else {
            kept[..len].copy_from_slice(&buffer[..len]);
        }
        let flow = &mut self.flows[place];
        flow.large += usize::from(is_large);
        flow.waiting.push_back(Entry {
            buffer: kept,
            len,
            about,
        });
        self.entries += 1;
        self.bytes += len;
        if !flow.in_line {
            flow.in_line = true;
            flow.host = host;
            self.hosts[usize::from(host)] += 1;
            flow.deficit = quantum(self.hosts[usize::from(host)]);
            self.new.push_back(place as u16);
        }
        thrown_out
    }

    /// What is next.
    pub fn pop(&mut self, now: Mono) -> Option<Popped<M>> {
        loop {
            let is_new = !self.new.is_empty();
            let line = if is_new { &mut self.new } else { &mut self.old };
            let place = *line.front()?;
            let flow = &mut self.flows[usize::from(place)];
            if flow.deficit <= 0 {
                flow.deficit += quantum(self.hosts[usize::from(flow.host)]);
                line.pop_front();
                self.old.push_back(place);
                continue;
            }
            let Some(entry) = flow.waiting.pop_front() else {
                line.pop_front();
                // A flow that is new again and again must not overtake the others for ever.
                if is_new && !self.old.is_empty() {
                    self.old.push_back(place);
                } else {
                    flow.in_line = false;
                    flow.waiting.shrink_to(KEPT);
                    self.hosts[usize::from(flow.host)] -= 1;
                }
                continue;
            };
            flow.large -= usize::from(entry.is_large());
            flow.deficit -= entry.len as i64;
            self.entries -= 1;
            self.bytes -= entry.len;
            let alone = flow.waiting.is_empty();
            let congested = flow.codel.is_congested(self.full_since, alone, now);
            self.stats.congested += u64::from(congested);
            return Some(Popped {
                buffer: entry.buffer,
                len: entry.len,
                about: entry.about,
                congested,
            });
        }
    }

    /// Takes a buffer back.
    pub fn recycle(&mut self, buffer: Box<[u8]>) {
        let pool = if buffer.len() == SMALL_BYTES {
            &mut self.small
        } else {
            &mut self.large
        };
        pool.free.push(buffer);
    }

    /// Entries in line.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Bytes in line.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> FairStats {
        self.stats
    }

    /// A free buffer, and what was said about the entry that had it until now.
    fn free(&mut self, large: bool) -> (Box<[u8]>, Option<M>) {
        let pool = if large {
            &mut self.large
        } else {
            &mut self.small
        };
        if let Some(buffer) = pool.take() {
            return (buffer, None);
        }
        let count = |flow: &Flow<M>| {
            if large {
                flow.large
            } else {
                flow.waiting.len() - flow.large
            }
        };
        // The flow with the most of them loses the one that waited longest.
        let most = self.flows.iter_mut().max_by_key(|flow| count(flow));
        let entry = most.and_then(|flow| {
            let at = flow
                .waiting
                .iter()
                .position(|entry| entry.is_large() == large)?;
            flow.large -= usize::from(large);
            flow.waiting.remove(at)
        });
        match entry {
            Some(entry) => {
                self.entries -= 1;
                self.bytes -= entry.len;
                self.stats.overflowed += 1;
                (entry.buffer, Some(entry.about))
            }
            // Only while somebody holds what was popped.
            None => (pool.make(), None),
        }
    }
}

impl Pool {
    fn new(count: usize, bytes: usize) -> Pool {
        Pool {
            free: Vec::with_capacity(count),
            unmade: count,
            bytes,
        }
    }

    fn left(&self) -> usize {
        self.free.len() + self.unmade
    }

    fn take(&mut self) -> Option<Box<[u8]>> {
        self.free.pop().or_else(|| {
            self.unmade = self.unmade.checked_sub(1)?;
            Some(self.make())
        })
    }

    fn make(&self) -> Box<[u8]> {
        vec![0; self.bytes].into_boxed_slice()
    }
}

impl<M> Entry<M> {
    fn is_large(&self) -> bool {
        self.buffer.len() != SMALL_BYTES
    }
}

fn quantum(flows_of_host: u16) -> i64 {
    (QUANTUM / i64::from(flows_of_host.max(1))).max(LEAST_QUANTUM)
}

/// The control law of RFC 8289, section 5; that the queue stands is known from outside, and the
/// last packet of a flow is always let through.
#[derive(Debug, Default)]
struct Codel {
    /// When the next packet is told, while they are.
    next: Option<Mono>,
    last: Mono,
    count: u32,
}

impl Codel {
    fn is_congested(&mut self, full_since: Option<Mono>, alone: bool, now: Mono) -> bool {
        if alone || full_since.is_none_or(|since| now - since < INTERVAL) {
            self.next = None;
            return false;
        }
        match self.next {
            Some(next) if now < next => return false,
            Some(_) => self.count += 1,
            // Soon after the last time, it goes on nearly as it stopped.
            None if self.count > 2 && now - self.last < 16 * INTERVAL => self.count -= 2,
            None => self.count = 1,
        }
        self.last = now;
        self.next = Some(now + INTERVAL.div_f64(f64::from(self.count).sqrt()));
        true
    }
}

#[cfg(test)]
mod tests;
