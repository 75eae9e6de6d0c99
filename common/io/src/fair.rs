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
use std::hash::{BuildHasher as _, RandomState};
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
/// Bytes of a turn.
const QUANTUM: i64 = 16 * 1024;
/// Bytes of a turn of a flow whose host has very many.
const LEAST_QUANTUM: i64 = 1024;

/// A seed for [`Class`]: random, so that nobody outside can aim at one place.
#[must_use]
pub fn seed() -> u64 {
    RandomState::new().hash_one(0u8)
}

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

/// Packets that found no room so far, by how many entries were thrown out for others.
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
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    const BULK: usize = 60_000;

    fn class(host: u64, flow: u64) -> Class {
        Class { host, flow }
    }

    fn at(micros: u64) -> Mono {
        Mono(micros * 1000)
    }

    fn push(fair: &mut Fair<u32>, class: Class, len: usize, number: u32) {
        let mut buffer = Fair::<u32>::spare();
        buffer[..len].fill(number as u8);
        fair.push(class, &mut buffer, len, number);
        // As the caller would: the buffer that came back is its next one.
        assert_eq!(buffer.len(), LARGE_BYTES);
    }

    fn pop(fair: &mut Fair<u32>, now: Mono) -> Option<(u32, usize, bool)> {
        let popped = fair.pop(now)?;
        let number = popped.about as u8;
        let bytes = &popped.buffer[..popped.len];
        assert!(bytes.iter().all(|byte| *byte == number));
        fair.recycle(popped.buffer);
        Some((popped.about, popped.len, popped.congested))
    }

    #[test]
    fn a_keystroke_passes_a_standing_queue() {
        let mut fair = Fair::default();
        for number in 0..LARGE as u32 {
            push(&mut fair, class(1, 1), BULK, number);
        }
        assert_eq!(pop(&mut fair, at(0)).map(|popped| popped.0), Some(0));
        push(&mut fair, class(1, 2), 100, 99);
        assert_eq!(pop(&mut fair, at(0)).map(|popped| popped.0), Some(99));
        assert_eq!(pop(&mut fair, at(0)).map(|popped| popped.0), Some(1));
    }

    #[test]
    fn hosts_share_evenly_whatever_their_flows() {
        let mut fair = Fair::default();
        // Host 0 has eight flows, host 1 has one; both always have something waiting.
        for _ in 0..25 {
            for flow in 0..8 {
                push(&mut fair, class(0, flow), 1500, 0);
                push(&mut fair, class(1, 100), 1500, 1);
            }
        }
        let mut served = [0; 2];
        for _ in 0..200 {
            let (host, len, _) = pop(&mut fair, at(0)).unwrap();
            served[host as usize] += len;
        }
        let share = served[1] as f64 / (served[0] + served[1]) as f64;
        assert!((0.4..0.6).contains(&share), "{share}");
    }

    #[test]
    fn a_burst_is_left_to_the_kernel_and_a_flood_hurts_itself() {
        let mut fair = Fair::default();
        push(&mut fair, class(2, 2), BULK, 100);
        for number in 1..LARGE as u32 {
            push(&mut fair, class(1, 1), BULK, number);
        }
        assert_eq!(fair.room(at(0)), 0, "no more is to be read");
        fair.kernel_has_more(true, at(0));
        let late = Mono(0) + PATIENCE;
        assert_eq!(fair.room(late), usize::MAX, "it is no burst");
        for number in 20..30 {
            push(&mut fair, class(1, 1), BULK, number);
        }
        assert_eq!((fair.stats().overflowed, fair.len()), (10, LARGE));
        fair.kernel_has_more(false, late);
        assert_eq!(fair.room(late), 0);
        let mut left = Vec::new();
        while let Some((number, ..)) = pop(&mut fair, late) {
            left.push(number);
        }
        assert!(left.contains(&100), "who does not flood loses nothing");
        left.retain(|number| *number != 100);
        // The oldest went; what is left is in order.
        assert_eq!(left, [23, 24, 25, 26, 27, 28, 29]);
        assert_eq!((fair.room(late), fair.bytes()), (LARGE, 0));
    }

    #[test]
    fn only_a_queue_that_stands_is_told_to_slow_down() {
        let mut fair = Fair::default();
        let mut told = Vec::new();
        fair.kernel_has_more(true, at(0));
        push(&mut fair, class(1, 1), BULK, 1);
        for step in 0..500u64 {
            push(&mut fair, class(1, 1), BULK, 1);
            if pop(&mut fair, at(step * 1000)).unwrap().2 {
                told.push(step);
            }
        }
        assert_eq!(u128::from(told[0]), INTERVAL.as_millis());
        // More and more often, while it does not help.
        let gaps: Vec<u64> = told.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(gaps.is_sorted_by(|a, b| a + 1 >= *b), "{gaps:?}");
        assert!(gaps[0] > 2 * gaps[gaps.len() - 1], "{gaps:?}");
        assert_eq!(fair.stats().congested, told.len() as u64);

        // Nobody is told whose last packet it is, or while the kernel's queue is empty in between.
        assert!(!pop(&mut fair, at(500_000)).unwrap().2);
        for step in 500..1000u64 {
            fair.kernel_has_more(step % 10 != 0, at(step * 1000));
            push(&mut fair, class(1, 1), BULK, 1);
            push(&mut fair, class(1, 1), BULK, 1);
            for _ in 0..2 {
                assert!(!pop(&mut fair, at(step * 1000)).unwrap().2);
            }
        }
    }

    proptest! {
        /// Whatever comes goes out once and in the order of its flow, or is counted.
        #[test]
        fn nothing_is_lost_unseen_or_reordered(
            steps in prop::collection::vec((0u64..4, 0u64..3, prop_oneof![Just(40usize), Just(1400), Just(BULK)], any::<bool>()), 0..200)
        ) {
            let mut fair = Fair::default();
            let mut last: HashMap<u32, u32> = HashMap::new();
            let (mut pushed, mut popped) = (0u32, 0u64);
            let mut check = |fair: &mut Fair<(u32, u32)>, now| {
                let Some(out) = fair.pop(now) else { return false };
                let (flow, number) = out.about;
                assert!(last.insert(flow, number).is_none_or(|before| before < number));
                fair.recycle(out.buffer);
                popped += 1;
                true
            };
            for (step, (host, flow, len, take)) in steps.into_iter().enumerate() {
                let now = at(step as u64 * 100);
                let mut buffer = Fair::<(u32, u32)>::spare();
                let of = class(host, host * 8 + flow);
                fair.push(of, &mut buffer, len, (of.flow as u32, pushed));
                pushed += 1;
                if take {
                    check(&mut fair, now);
                }
            }
            while check(&mut fair, at(1_000_000)) {}
            prop_assert_eq!(popped + fair.stats().overflowed, u64::from(pushed));
            prop_assert_eq!((fair.len(), fair.bytes()), (0, 0));
        }
    }
}
