//! The flow table: bounded, one entry for both directions, every entry with a deadline.
//!
//! Entries live in a slab, found through a seeded hash map. Deadlines are lazy: a packet moves
//! only `last_seen`; an entry of the timer heap that fires early is put back where it belongs.
//! So a packet of a known flow costs one look-up and no allocation.

pub mod tcp;

use crate::hint::Hint;
use crate::identity::Who;
use crate::policy::{Policy, RuleId, TargetId};
use crate::record::{CloseReason, Granted};
use hashbrown::HashMap;
use postern_proto::flow_key::{FlowKey, Protocol};
use postern_proto::now::{Mono, Now, Wall};
use postern_proto::peers::PeerId;
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tcp::{TcpState, TcpTrack};

/// TCP between established ends: an idle `kubectl logs -f` must live (RFC 5382, REQ-5).
pub const TCP_IDLE: Duration = Duration::from_secs(2 * 3600 + 4 * 60);
/// TCP before the handshake is complete, or after one FIN (RFC 5382, REQ-5: transitory).
pub const TCP_TRANSITORY: Duration = Duration::from_secs(240);
/// TCP that no target has answered: SYNs are sent again after 1, 3, 7, 15 and 31 s.
pub const TCP_UNANSWERED: Duration = Duration::from_secs(35);
/// TCP after both FINs: the last acknowledgments are still counted.
pub const TCP_LINGER: Duration = Duration::from_secs(2);
/// UDP and ICMP without an answer.
pub const UNANSWERED: Duration = Duration::from_secs(30);
/// UDP with an answer (RFC 4787, REQ-5).
pub const UDP_IDLE: Duration = Duration::from_secs(120);
/// ICMP echo with an answer (RFC 5508, REQ-1: at least 60 s).
pub const ICMP_IDLE: Duration = Duration::from_secs(60);
/// A cut flow is remembered at least so long, so that late segments of either end are answered
/// with a reset.
pub const CUT_MEMORY: Duration = Duration::from_secs(60);

/// A place in the table. Reused; the generation tells the tenants apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    at: u32,
    generation: u32,
}

/// What a rule in `mode: shadow` would have decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// Which.
    pub rule: RuleId,
    /// What.
    pub allow: bool,
}

/// One flow, both directions.
#[derive(Debug)]
pub struct Flow {
    /// The 5-tuple as the device sees it.
    pub key: FlowKey,
    /// Counts from 1 in each run of the gateway.
    pub id: u64,
    /// The device.
    pub peer: PeerId,
    /// The rule that allows it.
    pub rule: RuleId,
    /// What the policy calls its destination.
    pub target: Option<TargetId>,
    /// The policy that `rule` and `target` belong to.
    pub policy: Arc<Policy>,
    /// Its hash, as records name it.
    pub policy_hash: Arc<str>,
    /// Who it was allowed to, as they stood then.
    pub who: Arc<Who>,
    /// What its rules in `mode: shadow` would have decided.
    pub shadow: Option<Shadowed>,
    /// The grant that allows it.
    pub grant: Option<Arc<Granted>>,
    /// The policy that the verdict rests on.
    pub judged_at: u64,
    /// First packet.
    pub started: Now,
    /// Last packet.
    pub last: Now,
    /// Bytes from the device.
    pub bytes_out: u64,
    /// Bytes from the target.
    pub bytes_in: u64,
    /// Packets from the device.
    pub packets_out: u64,
    /// Packets from the target.
    pub packets_in: u64,
    /// TCP only.
    pub tcp: Option<TcpTrack>,
    /// Taken up in the middle after a restart.
    pub resumed: bool,
    /// What its first bytes say of its protocol.
    pub hint: Hint,
    /// Cut, and remembered until then: its record is written, its packets are refused.
    pub cut: Option<Mono>,
}

impl Flow {
    /// When it is over if nothing more happens.
    #[must_use]
    pub fn deadline(&self) -> Mono {
        if let Some(until) = self.cut {
            return until;
        }
        self.last.mono + self.patience()
    }

    /// Why it is over once the deadline has passed.
    #[must_use]
    pub fn end_reason(&self) -> CloseReason {
        match self.tcp.map(|tcp| tcp.state) {
            Some(TcpState::Closed) => CloseReason::Fin,
            Some(TcpState::Reset) => CloseReason::Rst,
            Some(TcpState::SynSent) => CloseReason::Unanswered,
            Some(TcpState::SynReceived | TcpState::Established | TcpState::HalfClosed) => {
                CloseReason::Idle
            }
            None if self.packets_in == 0 => CloseReason::Unanswered,
            None => CloseReason::Idle,
        }
    }

    /// Counts a packet of the device. `bytes` are inner bytes, `segments` the packets they make.
    pub fn count_out(&mut self, bytes: u64, segments: u64, now: Now) {
        self.bytes_out += bytes;
        self.packets_out += segments;
        self.last = now;
    }

    /// Counts a packet of the target.
    pub fn count_in(&mut self, bytes: u64, segments: u64, now: Now) {
        self.bytes_in += bytes;
        self.packets_in += segments;
        self.last = now;
    }

    /// Milliseconds from the first to the last packet.
    #[must_use]
    pub fn duration_ms(&self) -> u64 {
        u64::try_from(self.last.mono.since(self.started.mono).as_millis()).unwrap_or(u64::MAX)
    }

    /// When the last packet passed; never before the first, whatever the wall clock did.
    #[must_use]
    pub fn ended(&self) -> Wall {
        Wall(
            self.started
                .wall
                .0
                .saturating_add(self.duration_ms() * 1_000_000),
        )
    }

    fn patience(&self) -> Duration {
        match self.tcp.map(|tcp| tcp.state) {
            Some(TcpState::SynSent) => TCP_UNANSWERED,
            Some(TcpState::SynReceived | TcpState::HalfClosed) => TCP_TRANSITORY,
            Some(TcpState::Established) => TCP_IDLE,
            Some(TcpState::Closed) => TCP_LINGER,
            Some(TcpState::Reset) => Duration::ZERO,
            None if self.packets_in == 0 => UNANSWERED,
            None if self.key.protocol == Protocol::Icmp => ICMP_IDLE,
            None => UDP_IDLE,
        }
    }
}

/// All flows of one shard.
#[derive(Debug)]
pub struct FlowTable {
    slots: Vec<(u32, Option<Flow>)>,
    free: Vec<u32>,
    by_key: HashMap<FlowKey, u32, foldhash::quality::FixedState>,
    by_peer: BTreeSet<(PeerId, u32)>,
    /// At most one live entry a flow, and one more for each time that its deadline came nearer.
    timers: BinaryHeap<Reverse<(Mono, Slot)>>,
    /// Cut flows, oldest first. They make room when the table is full.
    cut: VecDeque<Slot>,
    capacity: usize,
}

impl FlowTable {
    /// An empty table for at most `capacity` flows. Memory grows with use, up to that bound.
    #[must_use]
    pub fn new(capacity: usize, seed: u64) -> Self {
        FlowTable {
            slots: Vec::new(),
            free: Vec::new(),
            by_key: HashMap::with_hasher(foldhash::quality::FixedState::with_seed(seed)),
            by_peer: BTreeSet::new(),
            timers: BinaryHeap::new(),
            cut: VecDeque::new(),
            capacity,
        }
    }

    /// Where the flow with this 5-tuple is.
    #[must_use]
    pub fn find(&self, key: &FlowKey) -> Option<Slot> {
        let at = *self.by_key.get(key)?;
        self.slots.get(at as usize).map(|(generation, _)| Slot {
            at,
            generation: *generation,
        })
    }

    /// The flow in a place, if it is still the same.
    #[must_use]
    pub fn get(&self, slot: Slot) -> Option<&Flow> {
        let (generation, flow) = self.slots.get(slot.at as usize)?;
        flow.as_ref().filter(|_| *generation == slot.generation)
    }

    /// The flow in a place, if it is still the same.
    pub fn get_mut(&mut self, slot: Slot) -> Option<&mut Flow> {
        let (generation, flow) = self.slots.get_mut(slot.at as usize)?;
        flow.as_mut().filter(|_| *generation == slot.generation)
    }

    /// No room for another flow, even without those that were cut.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.by_key.len() >= self.capacity + self.cut.len()
    }

    /// Remembers that the flow in `slot` was cut: it is only there so that late segments of its
    /// ends are answered, and gives its place to a newcomer when the table is full.
    pub fn remember_cut(&mut self, slot: Slot) {
        self.cut.push_back(slot);
    }

    /// Takes in a flow whose key is not in the table, when it is not full.
    pub fn insert(&mut self, flow: Flow) -> Slot {
        while self.by_key.len() >= self.capacity {
            let Some(oldest) = self.cut.front().copied() else {
                break;
            };
            self.remove(oldest);
        }
        let at = self.free.pop().unwrap_or_else(|| {
            self.slots.push((0, None));
            u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX)
        });
        let deadline = flow.deadline();
        self.by_key.insert(flow.key, at);
        self.by_peer.insert((flow.peer, at));
        let place = &mut self.slots[at as usize];
        place.1 = Some(flow);
        let slot = Slot {
            at,
            generation: place.0,
        };
        self.timers.push(Reverse((deadline, slot)));
        slot
    }

    /// Takes a flow out.
    pub fn remove(&mut self, slot: Slot) -> Option<Flow> {
        let place = self.slots.get_mut(slot.at as usize)?;
        if place.0 != slot.generation {
            return None;
        }
        let flow = place.1.take()?;
        place.0 = place.0.wrapping_add(1);
        self.free.push(slot.at);
        self.by_key.remove(&flow.key);
        self.by_peer.remove(&(flow.peer, slot.at));
        if flow.cut.is_some() {
            // It is nearly always the oldest that goes.
            if self.cut.front() == Some(&slot) {
                self.cut.pop_front();
            } else {
                self.cut.retain(|cut| *cut != slot);
            }
        }
        Some(flow)
    }

    /// To be called when a flow's deadline has come nearer than it was.
    pub fn hasten(&mut self, slot: Slot) {
        if let Some(deadline) = self.get(slot).map(Flow::deadline) {
            self.timers.push(Reverse((deadline, slot)));
        }
        // Hastening is rare (a FIN, a cut), but nothing may grow without bound.
        if self.timers.len() > 2 * self.capacity + 1024 {
            let slots: Vec<Slot> = self.iter().map(|(slot, _)| slot).collect();
            self.timers.clear();
            for slot in slots {
                if let Some(flow) = self.get(slot) {
                    self.timers.push(Reverse((flow.deadline(), slot)));
                }
            }
        }
    }

    /// The next flow whose deadline has passed.
    pub fn next_expired(&mut self, now: Mono) -> Option<Slot> {
        while let Some(Reverse((at, slot))) = self.timers.peek().copied() {
            if at > now {
                return None;
            }
            self.timers.pop();
            match self.get(slot).map(Flow::deadline) {
                None => {}
                Some(deadline) if deadline <= now => return Some(slot),
                Some(deadline) => self.timers.push(Reverse((deadline, slot))),
            }
        }
        None
    }

    /// When [`FlowTable::next_expired`] should be asked again.
    #[must_use]
    pub fn next_deadline(&self) -> Mono {
        self.timers
            .peek()
            .map_or(Mono::NEVER, |Reverse((at, _))| *at)
    }

    /// The next flow at or after place `cursor`, for walks in slices.
    #[must_use]
    pub fn at_or_after(&self, cursor: u32) -> Option<Slot> {
        let from = cursor as usize;
        let offset = self
            .slots
            .get(from..)?
            .iter()
            .position(|(_, flow)| flow.is_some())?;
        let at = u32::try_from(from + offset).ok()?;
        Some(Slot {
            at,
            generation: self.slots[from + offset].0,
        })
    }

    /// The flows of one device, cut ones that are still remembered included.
    #[must_use]
    pub fn of(&self, peer: PeerId) -> Vec<Slot> {
        self.by_peer
            .range((peer, 0)..=(peer, u32::MAX))
            .filter_map(|(_, at)| {
                let (generation, _) = self.slots.get(*at as usize)?;
                Some(Slot {
                    at: *at,
                    generation: *generation,
                })
            })
            .collect()
    }

    /// Gives all flows of one device to another.
    pub fn give(&mut self, from: PeerId, to: PeerId) {
        for slot in self.of(from) {
            self.by_peer.remove(&(from, slot.at));
            self.by_peer.insert((to, slot.at));
            if let Some(flow) = self.get_mut(slot) {
                flow.peer = to;
            }
        }
    }

    /// All flows in the order of their places.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &Flow)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(at, (generation, flow))| {
                let at = u32::try_from(at).ok()?;
                Some((
                    Slot {
                        at,
                        generation: *generation,
                    },
                    flow.as_ref()?,
                ))
            })
    }

    /// Flows in the table, cut ones that are still remembered included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// No flow at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The bound.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }
}

impl Slot {
    /// The place after this one, for walks in slices.
    #[must_use]
    pub fn next(self) -> u32 {
        self.at + 1
    }
}
