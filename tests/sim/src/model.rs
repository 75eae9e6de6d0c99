//! The oracle: what the gateway must do with each packet, written as naively as possible. A map
//! of flows, a scan over rules, and the numbers of the specification; no index, no laziness.

use crate::packet::{Key, Packet, Proto, RST, Segment, Socket, What};
use crate::policy::Rules;
use crate::told::Told;
use postern_engine::policy::Subject;
use postern_engine::record::{CloseReason, Hints};
use postern_engine::settings::Limits;
use postern_proto::fate::DropReason;
use postern_proto::now::{Mono, Now, Wall};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

mod hints;
mod judge;
mod packets;
mod track;

use hints::Said;
use track::{State, Track};

/// What the gateway knows of the world, as the oracle sees it.
#[derive(Debug)]
pub struct Model {
    /// By laptop number; none: not enrolled.
    pub devices: BTreeMap<usize, Device>,
    /// Live flows, and cut ones that are still remembered.
    pub flows: BTreeMap<Key, Flow>,
    /// The policy in force.
    pub rules: Arc<Rules>,
    /// The gateway's own addresses.
    pub own: Vec<IpAddr>,
    /// Bounds.
    pub limits: Limits,
    /// Records can be written.
    pub log_writable: bool,
    /// Until then segments without a flow may resume one.
    pub resume_until: Mono,
    /// Denied attempts of this run, by reason.
    pub denied: BTreeMap<&'static str, u64>,
    /// Control messages taken in.
    pub control: u64,
    /// By laptop: the MTU that it uses, and until when that counts.
    pub mtus: BTreeMap<usize, (u16, Mono)>,
    /// A policy was put in force and not swept yet.
    pub unswept: bool,
    generation: u64,
}

/// An enrolled device.
#[derive(Clone, Debug)]
pub struct Device {
    /// Its inner addresses.
    pub addresses: Vec<IpAddr>,
    /// Who it belongs to.
    pub subject: Subject,
    /// The login in force when the facts were looked at last.
    login: Option<Login>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Login {
    session: String,
    issuer: Option<String>,
    since: Wall,
}

/// One flow.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Laptop number.
    pub device: usize,
    /// Cut then.
    pub cut: Option<Mono>,
    /// A cut flow is not forgotten before.
    remembered: Mono,
    /// Packets and bytes from the device.
    pub out: (u64, u64),
    /// Packets and bytes from the target.
    pub back: (u64, u64),
    tcp: Option<Track>,
    said: Said,
    last: Mono,
    judged: u64,
    /// What was said of it when it was judged last.
    told: Told,
    /// By which policy.
    rules: Arc<Rules>,
    /// It was judged with a login that lived.
    logged_in: bool,
    /// When the login was that its records name.
    login_since: Option<Wall>,
}

/// What must come of one input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expect {
    /// The packet goes on: to the target, or to this laptop.
    pub forward: bool,
    /// To which laptop, for packets from a target.
    pub to: Option<usize>,
    /// Counted drops.
    pub drops: Vec<(DropReason, u64)>,
    /// Opening and closing records.
    pub records: Vec<Note>,
    /// It goes to the control API.
    pub asks: bool,
    /// Flows of which the target is told that they are no more, by this input.
    pub target_told: Vec<Key>,
    /// Flows of which a laptop must be told.
    pub laptop_told: Vec<(usize, Key)>,
    /// What the record of a refusal says, if there is one at once.
    pub denied: Option<Denied>,
}

/// A refusal, as far as the oracle foretells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denied {
    /// Of which flow.
    pub key: Key,
    /// Why.
    pub reason: &'static str,
    /// What else the record says. Of posture nothing where the rule asks for none: the record may
    /// be about a rule that would have allowed.
    pub told: Told,
}

/// A record, as far as the oracle foretells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// A flow opens.
    Open {
        /// Which.
        key: Key,
        /// What it says beside that.
        told: Told,
        /// Taken up in the middle.
        resumed: bool,
    },
    /// A flow ended.
    Closed {
        /// Which.
        key: Key,
        /// Why.
        reason: CloseReason,
        /// Packets and bytes from the device.
        out: (u64, u64),
        /// Packets and bytes from the target.
        back: (u64, u64),
        /// What its first bytes showed.
        hints: Option<Hints>,
        /// What it says beside that.
        told: Told,
    },
}

const CUT_MEMORY: Duration = Duration::from_secs(60);
const RESUME: Duration = Duration::from_secs(7440);

impl Model {
    /// A gateway that has just started.
    #[must_use]
    pub fn new(rules: Arc<Rules>, own: Vec<IpAddr>, limits: Limits, now: Now) -> Self {
        Model {
            devices: BTreeMap::new(),
            flows: BTreeMap::new(),
            rules,
            own,
            limits,
            log_writable: true,
            resume_until: now.mono + RESUME,
            denied: BTreeMap::new(),
            control: 0,
            mtus: BTreeMap::new(),
            unswept: false,
            generation: 1,
        }
    }

    /// A device is enrolled.
    pub fn add(&mut self, laptop: usize, mut device: Device, now: Now) {
        device.login = Login::of(&device.subject, now.wall);
        self.devices.insert(laptop, device);
    }

    /// Other facts about a device: what it may not keep is cut at once.
    pub fn update(&mut self, laptop: usize, subject: Subject, now: Now) -> Expect {
        let mut expect = Expect::default();
        if let Some(device) = self.devices.get_mut(&laptop) {
            device.subject = subject;
            device.login = Login::of(&device.subject, now.wall);
        }
        self.judge_device(laptop, now, &mut expect);
        expect
    }

    /// A device is revoked.
    pub fn revoke(&mut self, laptop: usize, now: Now) -> Expect {
        let mut expect = Expect::default();
        for key in self.live(|_, flow| flow.device == laptop) {
            self.cut(key, CloseReason::Revoked, now, &mut expect);
        }
        self.flows.retain(|_, flow| flow.device != laptop);
        self.devices.remove(&laptop);
        self.mtus.remove(&laptop);
        expect
    }

    /// An admin cuts flows.
    pub fn kill(&mut self, reason: CloseReason, now: Now, select: impl Fn(&Key) -> bool) -> Expect {
        let mut expect = Expect::default();
        for key in self.live(|key, _| select(key)) {
            self.cut(key, reason, now, &mut expect);
        }
        expect
    }

    /// The gateway hands over: flows are recorded as closed, and nobody is told.
    pub fn hand_over(&mut self, now: Now) -> Expect {
        let mut expect = Expect::default();
        for key in self.live(|_, _| true) {
            self.close(key, CloseReason::Shutdown, now, &mut expect);
        }
        expect
    }

    /// Another policy.
    pub fn reload(&mut self, rules: Rules) {
        self.rules = Arc::new(rules);
        self.generation += 1;
        self.unswept = true;
    }

    /// Time alone.
    pub fn timeout(&mut self, now: Now) -> Expect {
        let mut expect = Expect::default();
        let over: Vec<Key> = self
            .flows
            .iter()
            .filter(|(key, flow)| flow.deadline(key) <= now.mono)
            .map(|(key, _)| *key)
            .collect();
        for key in over {
            match self.flows.get(&key) {
                Some(flow) if flow.cut.is_none() => {
                    let reason = flow.end();
                    self.close(key, reason, now, &mut expect);
                }
                Some(_) | None => {
                    self.flows.remove(&key);
                }
            }
        }
        if std::mem::take(&mut self.unswept) {
            for key in self.live(|_, _| true) {
                if let Some(reason) = self.not_allowed_now(key, now.wall) {
                    self.cut(key, reason, now, &mut expect);
                }
            }
        }
        let laptops: Vec<usize> = self.devices.keys().copied().collect();
        for laptop in laptops {
            if let Some(device) = self.devices.get_mut(&laptop) {
                device.login = Login::of(&device.subject, now.wall);
            }
            self.judge_device(laptop, now, &mut expect);
        }
        expect
    }

    /// When a flow next ends by itself.
    #[must_use]
    pub fn next_deadline(&self) -> Mono {
        self.flows
            .iter()
            .map(|(key, flow)| flow.deadline(key))
            .min()
            .unwrap_or(Mono::NEVER)
    }

    /// A newcomer took the place of the flow that was cut first. Of several cut at one moment the
    /// gateway may choose: `gone` says which it no longer has.
    pub fn make_room(&mut self, gone: impl Fn(&Key) -> bool) -> Result<(), String> {
        while self.flows.len() > self.limits.flows {
            let first = self.flows.values().filter_map(|flow| flow.cut).min();
            let oldest = self
                .flows
                .iter()
                .filter(|(_, flow)| flow.cut == first && first.is_some());
            let Some(key) = oldest.map(|(key, _)| *key).find(|key| gone(key)) else {
                return Err("the table is too full, or the wrong flow made room".into());
            };
            self.flows.remove(&key);
        }
        Ok(())
    }

    /// Flows that are alive, by device.
    #[must_use]
    pub fn live_of(&self, laptop: usize) -> usize {
        self.live(|_, flow| flow.device == laptop).len()
    }

    /// TCP flows of a device that no target has answered.
    #[must_use]
    pub fn half_open_of(&self, laptop: usize) -> usize {
        self.live(|_, flow| {
            flow.device == laptop && flow.tcp.is_some_and(|tcp| tcp.state == State::SynSent)
        })
        .len()
    }

    /// The keys of flows that are alive and picked.
    #[must_use]
    pub fn live(&self, pick: impl Fn(&Key, &Flow) -> bool) -> Vec<Key> {
        self.flows
            .iter()
            .filter(|(key, flow)| flow.cut.is_none() && pick(key, flow))
            .map(|(key, _)| *key)
            .collect()
    }

    /// The device has a throw-away key.
    #[must_use]
    pub fn is_guest(&self, laptop: usize) -> bool {
        self.devices
            .get(&laptop)
            .is_some_and(|device| device.subject.standing.guest)
    }

    fn is_live(&self, key: &Key) -> bool {
        self.flows.get(key).is_some_and(|flow| flow.cut.is_none())
    }

    fn close(&mut self, key: Key, reason: CloseReason, now: Now, expect: &mut Expect) {
        let told = self.told_at_end(&key, now);
        if let Some(flow) = self.flows.remove(&key) {
            expect.records.push(Note::Closed {
                key,
                reason,
                out: flow.out,
                back: flow.back,
                hints: flow.said.shows(),
                told,
            });
        }
    }

    fn cut(&mut self, key: Key, reason: CloseReason, now: Now, expect: &mut Expect) {
        let told = self.told_at_end(&key, now);
        if let Some(flow) = self.flows.get_mut(&key) {
            flow.cut = Some(now.mono);
            flow.remembered = match key.proto {
                Proto::Tcp => (now.mono + CUT_MEMORY).max(self.resume_until),
                Proto::Udp | Proto::Icmp => now.mono + CUT_MEMORY,
            };
            expect.records.push(Note::Closed {
                key,
                reason,
                out: flow.out,
                back: flow.back,
                hints: flow.said.shows(),
                told,
            });
            expect.laptop_told.push((flow.device, key));
            if key.proto != Proto::Icmp {
                expect.target_told.push(key);
            }
        }
    }

    fn count(&mut self, key: Key, packet: &Packet, out: bool, segments: u64, now: Now) {
        let Some(flow) = self.flows.get_mut(&key) else {
            return;
        };
        let len = packet.bytes.len() as u64;
        let headers = len - crate::packet::payload(packet).len() as u64;
        let bytes = len + headers * (segments - 1);
        let sum = if out { &mut flow.out } else { &mut flow.back };
        *sum = (sum.0 + segments, sum.1 + bytes);
        flow.last = now.mono;
        flow.said.hear(packet, out);
    }

    fn follow(
        &mut self,
        key: Key,
        segment: Option<Segment>,
        out: bool,
        now: Now,
        expect: &mut Expect,
    ) {
        let Some(flow) = self.flows.get_mut(&key) else {
            return;
        };
        let (Some(track), Some(segment)) = (&mut flow.tcp, segment) else {
            return;
        };
        if out {
            track.sent(&segment)
        } else {
            track.answered(&segment)
        }
        if track.reset {
            self.close(key, CloseReason::Rst, now, expect);
        }
    }
}

impl Device {
    /// A device as it is enrolled.
    #[must_use]
    pub fn new(addresses: Vec<IpAddr>, subject: Subject) -> Device {
        Device {
            addresses,
            subject,
            login: None,
        }
    }
}

impl Flow {
    fn deadline(&self, key: &Key) -> Mono {
        let seconds = match (self.cut, self.tcp.map(|tcp| tcp.state), key.proto) {
            (Some(_), _, _) => return self.remembered,
            (None, Some(State::SynSent), _) => 35,
            (None, Some(State::SynReceived | State::HalfClosed), _) => 240,
            (None, Some(State::Established), _) => 7440,
            (None, Some(State::Closed), _) => 2,
            (None, None, _) if self.back.0 == 0 => 30,
            (None, None, Proto::Icmp) => 60,
            (None, None, Proto::Tcp | Proto::Udp) => 120,
        };
        self.last + Duration::from_secs(seconds)
    }

    fn end(&self) -> CloseReason {
        match self.tcp.map(|tcp| tcp.state) {
            Some(State::Closed) => CloseReason::Fin,
            Some(State::SynSent) => CloseReason::Unanswered,
            Some(State::SynReceived | State::Established | State::HalfClosed) => CloseReason::Idle,
            None if self.back.0 == 0 => CloseReason::Unanswered,
            None => CloseReason::Idle,
        }
    }
}

impl Expect {
    fn drop(self, reason: DropReason) -> Expect {
        self.drop_many(reason, 1)
    }

    fn drop_many(mut self, reason: DropReason, packets: u64) -> Expect {
        self.drops.push((reason, packets));
        self
    }

    /// A refused packet is answered, but never a reset.
    fn answer(&mut self, laptop: usize, key: Key, segment: Option<Segment>) {
        if segment.is_none_or(|segment| !segment.has(RST)) {
            self.laptop_told.push((laptop, key));
        }
    }
}

/// The flow that a packet belongs to, if it can belong to one.
#[must_use]
pub fn key_of(packet: &Packet, from_device: bool) -> Option<Key> {
    let (proto, from, to): (Proto, u16, u16) = match packet.what {
        What::Tcp(segment) => (Proto::Tcp, segment.from, segment.to),
        What::Udp { from, to } => (Proto::Udp, from, to),
        What::Echo { id, .. } if from_device => (Proto::Icmp, id, 0),
        What::Echo { id, .. } => (Proto::Icmp, 0, id),
        What::Error { .. } | What::Control(_) | What::Probe(_) | What::Broken(_) => return None,
    };
    let (from, to): (Socket, Socket) = ((packet.from, from), (packet.to, to));
    let (client, target) = if from_device { (from, to) } else { (to, from) };
    Some(Key {
        proto,
        client,
        target,
    })
}
