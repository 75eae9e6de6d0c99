//! One shard of the gateway: its peers, their flows, their records.
//!
//! | file | what it does |
//! |---|---|
//! | `gateway.rs` | state, commands, time |
//! | `gateway/road_in.rs` | a datagram from a laptop, to a verdict, to the target |
//! | `gateway/road_back.rs` | a packet from a target, back to the laptop |
//! | `gateway/control_road.rs` | packets from and to the control API, which open no flow |
//! | `gateway/path_mtu.rs` | what the path to each device carries |
//! | `gateway/judge.rs` | a verdict for a new flow; refusals and their answers |
//! | `gateway/rejudge.rs` | facts changed: live flows are judged again and cut |
//! | `gateway/due.rs` | facts that end by themselves: their moments |
//! | `gateway/roam.rs` | where a device is, and what follows when it moves |
//! | `gateway/rotation.rs` | a device's next key, until it is the device's |
//! | `gateway/log.rs` | records and their numbers |
//!
//! Every command and every packet comes with the time and with an [`Outbox`]; nothing is kept
//! for later but flows, windows and records.

mod control_road;
mod due;
mod judge;
mod log;
mod path_mtu;
mod rejudge;
mod road_back;
mod road_in;
mod roam;
mod rotation;

pub use control_road::{CONTROL_QUEUE, ControlPacket};
pub use rejudge::Cut;

use crate::counters::Counters;
use crate::denials::Denials;
use crate::flow::{Flow, FlowTable, Slot, TCP_IDLE};
use crate::hint::Watches;
use crate::identity::{Device, DeviceState, Devices};
use crate::policy::{Policy, PolicyHash};
use crate::record::{CloseReason, Record};
use crate::rule_counts::RuleCounts;
use crate::settings::{Settings, Shard};
use postern_proto::keys::{PresharedKey, PrivateKey, PublicKey};
use postern_proto::now::{Mono, Now, Wall};
use postern_proto::outbox::{Endpoint, Outbox};
use postern_proto::peers::{AddError, PeerId, Peers};
use postern_proto::reply::REPLY_ROOM;
use postern_proto::tunnel::Settings as Tunnel;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Flows closed in one go: well under a millisecond, so that a large table never
/// stops the packets of others.
const SLICE: usize = 2048;

/// One shard of the gateway.
pub struct Gateway {
    settings: Settings,
    peers: Peers,
    devices: Devices,
    flows: FlowTable,
    hints: Watches,
    denials: Denials,
    policy: Arc<Policy>,
    policy_hash: Arc<str>,
    /// The policy asks where devices are.
    asks_outer: bool,
    /// Rises with every policy; a flow judged before is judged again.
    policy_generation: u64,
    sweep: Option<rejudge::Sweep>,
    /// When time alone changes a fact about a device; one entry for each at most.
    due: BTreeSet<(Wall, PeerId)>,
    /// When a window of the policy opens or closes next; of which policy, and since when that holds.
    window: (u64, Wall, Option<Wall>),
    /// Both clocks, when the next of those was last compared with them.
    clocks: Now,
    /// Keys that are not used yet, and whose they will be.
    next: BTreeMap<PeerId, PeerId>,
    /// The last key that each device had before its own: whoever has not heard of the change may
    /// still name the device by it. It decrypts nothing.
    former: BTreeMap<PublicKey, PeerId>,
    /// Keys that came into use, for [`Gateway::take_rotated`].
    rotated: Vec<(PublicKey, PublicKey)>,
    /// Cut flows whose device had no session, and is being asked for one: each flow once.
    untold: BTreeMap<PeerId, Vec<Slot>>,
    /// Until then, segments without a flow may resume one: the gateway was restarted under them.
    resume_until: Mono,
    log_writable: bool,
    log: log::Log,
    /// Packets to the control API that nobody took yet.
    control: Vec<ControlPacket>,
    counters: Counters,
    /// Verdicts by rule of the policy in force.
    rule_counts: RuleCounts,
    /// Flows opened, to number the next one.
    opened: u64,
    /// The smallest MTU that any device ever had here: what is smaller needs no look-up.
    least_mtu: usize,
    /// An answer is made here while the packet that it answers is still being looked at.
    answer: [u8; REPLY_ROOM],
}

impl Gateway {
    /// A gateway that knows no device yet.
    #[must_use]
    pub fn new(settings: Settings, key: &PrivateKey, policy: Arc<Policy>, now: Now) -> Self {
        Gateway {
            peers: Peers::new(
                key.clone(),
                settings.shard.index,
                settings.shard.bits,
                settings.seed,
            ),
            devices: Devices::new(settings.seed),
            flows: FlowTable::new(settings.limits.flows, settings.seed),
            hints: Watches::default(),
            denials: Denials::default(),
            policy_hash: policy.hash().full().into(),
            asks_outer: policy.asks_outer(),
            rule_counts: RuleCounts::new(Arc::clone(&policy)),
            policy,
            policy_generation: 1,
            sweep: None,
            due: BTreeSet::new(),
            window: (0, now.wall, None),
            clocks: now,
            next: BTreeMap::new(),
            former: BTreeMap::new(),
            rotated: Vec::new(),
            untold: BTreeMap::new(),
            resume_until: now.mono + TCP_IDLE,
            log_writable: true,
            log: log::Log::new(&settings),
            control: Vec::new(),
            counters: Counters::default(),
            opened: 0,
            least_mtu: settings.mtu,
            answer: [0; REPLY_ROOM],
            settings,
        }
    }

    /// Takes a device in. With an endpoint, where it was last seen, the gateway begins the
    /// handshake, so that a restart is over before the device has noticed.
    ///
    /// # Errors
    /// The key is enrolled already or is the gateway's own, or there are too many devices.
    pub fn add_device(
        &mut self,
        device: Device,
        preshared: Option<&PresharedKey>,
        endpoint: Option<Endpoint>,
        out: &mut impl Outbox,
        now: Now,
    ) -> Result<PeerId, AddError> {
        // The key before the one in force: who adds it has not heard of the change.
        if self.former.contains_key(&device.key) {
            return Err(AddError::Duplicate(device.key));
        }
        let peer = self
            .peers
            .add(device.key, &self.tunnel(preshared), endpoint)?;
        if device.standing.guest {
            self.peers.keep_to_one_place(peer);
        }
        self.devices.add(peer, device, now.wall);
        // Where it was last, until it is heard.
        self.note_place(peer);
        self.watch(peer, now);
        if endpoint.is_some() {
            self.peers.initiate(peer, out, now);
        }
        Ok(peer)
    }

    /// Forgets a device: its live flows are cut with `reason`, then its key means nothing.
    pub fn remove_device(
        &mut self,
        key: &PublicKey,
        reason: CloseReason,
        changed: Mono,
        out: &mut impl Outbox,
        now: Now,
    ) -> Option<Cut> {
        let peer = self.find_device(key)?;
        let cut = self.cut_where(reason, changed, out, now, |flow, _| flow.peer == peer);
        self.forget_flows_of(peer);
        self.untold.remove(&peer);
        self.peers.remove(peer);
        if let Some(device) = self.devices.remove(peer) {
            if let Some(due) = device.due {
                self.due.remove(&(due, peer));
            }
            self.forget_keys(device.next, device.former);
        }
        Some(cut)
    }

    /// Cuts the live flows that `select` picks.
    pub fn kill(
        &mut self,
        changed: Mono,
        out: &mut impl Outbox,
        now: Now,
        select: impl Fn(&Flow, &DeviceState) -> bool,
    ) -> Cut {
        self.cut_where(CloseReason::Killed, changed, out, now, select)
    }

    /// Cuts all flows and writes all that is still to be written: the gateway stops.
    pub fn shut_down(&mut self, out: &mut impl Outbox, now: Now) -> Cut {
        let cut = self.cut_where(CloseReason::Shutdown, now.mono, out, now, |_, _| true);
        self.close_windows(now);
        cut
    }

    /// Writes closing records and lets the flows be: a successor will take them up.
    pub fn hand_over(&mut self, now: Now) {
        let live: Vec<_> = self
            .flows
            .iter()
            .filter(|(_, flow)| flow.cut.is_none())
            .map(|(slot, _)| slot)
            .collect();
        for slot in live {
            self.close_flow(slot, CloseReason::Shutdown, now);
        }
        self.close_windows(now);
    }

    /// Whether records can be written; while not, [`crate::settings::OnLogFailure`] decides.
    pub fn set_log_writable(&mut self, writable: bool) {
        self.log_writable = writable;
    }

    /// Everything that time alone brings about: handshakes, keepalives, idle flows, windows that
    /// close, facts that end, the next slice of a sweep.
    pub fn timeout(&mut self, out: &mut impl Outbox, now: Now) {
        self.peers.timeout(out, now);
        // What is left over is due at once: the caller comes back after the packets that wait.
        for _ in 0..SLICE {
            let Some(slot) = self.flows.next_expired(now.mono) else {
                break;
            };
            self.expire_flow(slot, now);
        }
        if self.denials.next_deadline() <= now.mono {
            self.close_windows_until(now);
        }
        self.judge_due(out, now);
        self.continue_sweep(out, now);
    }

    /// When [`Gateway::timeout`] must be called at the latest.
    #[must_use]
    pub fn next_deadline(&self) -> Mono {
        if self.sweep.is_some() {
            return Mono(0);
        }
        self.peers
            .next_deadline()
            .min(self.flows.next_deadline())
            .min(self.denials.next_deadline())
            .min(self.next_due())
    }

    /// The records made since the last call, in order.
    pub fn take_records(&mut self) -> Vec<Record> {
        self.log.take()
    }

    /// Records made and not taken yet.
    #[must_use]
    pub fn records_waiting(&self) -> usize {
        self.log.waiting()
    }

    /// Records made in this run.
    #[must_use]
    pub fn records_made(&self) -> u64 {
        self.log.made()
    }

    /// All counters but those of rules.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters.clone()
    }

    /// What each rule decided.
    #[must_use]
    pub fn rule_counts(&self) -> &RuleCounts {
        &self.rule_counts
    }

    /// Flows that ended for `reason` so far.
    #[must_use]
    pub fn closed(&self, reason: CloseReason) -> u64 {
        let closed = &self.counters.flows_closed;
        closed.get(reason.as_str()).copied().unwrap_or(0)
    }

    /// The device that a key belongs to, or did before its present one.
    fn find_device(&self, key: &PublicKey) -> Option<PeerId> {
        self.peers
            .find(key)
            .filter(|peer| self.devices.get(*peer).is_some())
            .or_else(|| self.former.get(key).copied())
    }

    fn tunnel(&self, preshared: Option<&PresharedKey>) -> Tunnel {
        Tunnel {
            mtu: self.settings.mtu,
            psk: preshared.cloned(),
            keepalive: None,
        }
    }

    /// Which of the gateway's shards this is.
    #[must_use]
    pub fn shard(&self) -> Shard {
        self.settings.shard
    }

    /// The flow table.
    #[must_use]
    pub fn flows(&self) -> &FlowTable {
        &self.flows
    }

    /// The flows whose first bytes are being read.
    #[must_use]
    pub fn hints(&self) -> &Watches {
        &self.hints
    }

    /// The devices.
    #[must_use]
    pub fn devices(&self) -> &Devices {
        &self.devices
    }

    /// The tunnels.
    #[must_use]
    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// The policy in force.
    #[must_use]
    pub fn policy(&self) -> &Arc<Policy> {
        &self.policy
    }

    /// Its hash.
    #[must_use]
    pub fn policy_hash(&self) -> PolicyHash {
        self.policy.hash()
    }

    /// Counts policies put in force, the first one included.
    #[must_use]
    pub fn policy_generation(&self) -> u64 {
        self.policy_generation
    }

    /// Attempts seen in this run, of either outcome.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.counters.attempts()
    }

    /// Attempts that are counted in windows; their records follow within ten seconds.
    #[must_use]
    pub fn attempts_in_windows(&self) -> u64 {
        self.denials.unwritten()
    }

    /// Denial windows open.
    #[must_use]
    pub fn denial_windows(&self) -> usize {
        self.denials.len()
    }
}

#[cfg(test)]
mod tests;
