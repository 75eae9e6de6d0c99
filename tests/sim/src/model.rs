//! The oracle: what the gateway must do with each packet, written as naively as possible. A map
//! of flows, a scan over rules, and the numbers of the specification; no index, no laziness.

use crate::packet::{Key, Packet, Proto, RST, Segment, Socket, What};
use crate::policy::Rules;
use crate::state;
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
    /// The rule that allows it, and the policy that this rule is of.
    rule: (String, Arc<Rules>),
    /// It was judged with a login that lived.
    logged_in: bool,
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
}

/// A record, as far as the oracle foretells it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Note {
    /// A flow opens.
    Open {
        /// Which.
        key: Key,
        /// The rule that allows it.
        rule: String,
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
    pub fn add(&mut self, laptop: usize, device: Device) {
        self.devices.insert(laptop, device);
    }

    /// Other facts about a device: what it may not keep is cut at once.
    pub fn update(&mut self, laptop: usize, subject: Subject, now: Now) -> Expect {
        let mut expect = Expect::default();
        if let Some(device) = self.devices.get_mut(&laptop) {
            device.subject = subject;
        }
        self.judge_device(laptop, now, &mut expect);
        expect
    }

    fn judge_device(&mut self, laptop: usize, now: Now, expect: &mut Expect) {
        for key in self.live(|_, flow| flow.device == laptop) {
            if let Some(reason) = self.cause(key, now.wall) {
                self.cut(key, reason, now, expect);
            }
        }
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
    pub fn hand_over(&mut self) -> Expect {
        let mut expect = Expect::default();
        for key in self.live(|_, _| true) {
            self.close(key, CloseReason::Shutdown, &mut expect);
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
                    self.close(key, reason, &mut expect);
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

    fn obstacle(&self, laptop: usize, key: &Key, half_open: bool, now: Now) -> Option<DropReason> {
        let to = key.target.0;
        let in_pool = match to {
            IpAddr::V4(v4) => v4.octets()[..2] == [100, 96],
            IpAddr::V6(v6) => [0xfd00, 0xfd70].contains(&v6.segments()[0]),
        };
        let subject = &self.devices.get(&laptop)?.subject;
        if let Some((reason, _)) = state::held(&subject.standing, now.wall) {
            Some(reason)
        } else if in_pool && !self.own.contains(&to) {
            Some(DropReason::DeviceToDevice)
        } else if !self.rules.judge(subject, key, now.wall).0 {
            Some(DropReason::Policy)
        } else if !self.log_writable {
            Some(DropReason::LogUnavailable)
        } else if self.live(|_, _| true).len() >= self.limits.flows {
            Some(DropReason::TableFull)
        } else if self.live_of(laptop) >= self.limits.flows_per_device
            || half_open && self.half_open_of(laptop) >= self.limits.half_open_per_device
        {
            Some(DropReason::DeviceQuota)
        } else {
            None
        }
    }

    /// A packet of a flow makes the gateway look whether the policy has changed since.
    fn not_allowed_now(&mut self, key: Key, now: Wall) -> Option<CloseReason> {
        let flow = self.flows.get(&key)?;
        if flow.judged == self.generation {
            return None;
        }
        self.judge_again(key, now)
    }

    /// As what a flow ends, if the facts about its device no longer allow it.
    fn cause(&mut self, key: Key, now: Wall) -> Option<CloseReason> {
        let reason = self.judge_again(key, now)?;
        let flow = self.flows.get(&key)?;
        let who = &self.devices.get(&flow.device)?.subject;
        if reason != CloseReason::Policy {
            Some(reason)
        } else if flow.logged_in && state::login(&who.standing, now).is_none() {
            Some(CloseReason::Session)
        } else {
            let (rule, rules) = &flow.rule;
            rules.lost(rule, who, now).or(Some(reason))
        }
    }

    /// As what a flow ends, if the policy no longer allows it.
    fn judge_again(&mut self, key: Key, now: Wall) -> Option<CloseReason> {
        let flow = self.flows.get_mut(&key)?;
        let Some(device) = self.devices.get(&flow.device) else {
            return Some(CloseReason::Revoked);
        };
        let who = &device.subject;
        if let Some((_, reason)) = state::held(&who.standing, now) {
            return Some(reason);
        }
        let lives = state::login(&who.standing, now).is_some();
        let (allowed, rule) = self.rules.judge(who, &key, now);
        if allowed {
            flow.judged = self.generation;
            flow.rule = (rule.to_owned(), Arc::clone(&self.rules));
            flow.logged_in = lives;
            return None;
        }
        Some(CloseReason::Policy)
    }

    fn open(
        &mut self,
        laptop: usize,
        key: Key,
        tcp: Option<Track>,
        resumed: bool,
        now: Now,
        expect: &mut Expect,
    ) {
        let subject = self.devices.get(&laptop).map(|device| &device.subject);
        let judged_by = subject.map(|who| self.rules.judge(who, &key, now.wall).1.to_owned());
        let rule = judged_by.unwrap_or_default();
        let login = subject.and_then(|who| state::login(&who.standing, now.wall));
        let logged_in = login.is_some();
        let judged = self.generation;
        let flow = Flow {
            device: laptop,
            cut: None,
            remembered: now.mono,
            out: (0, 0),
            back: (0, 0),
            said: match tcp {
                Some(_) if !resumed => Said::nothing(),
                Some(_) | None => Said::default(),
            },
            tcp,
            last: now.mono,
            judged,
            rule: (rule.clone(), Arc::clone(&self.rules)),
            logged_in,
        };
        self.flows.insert(key, flow);
        expect.records.push(Note::Open { key, rule, resumed });
    }

    fn close(&mut self, key: Key, reason: CloseReason, expect: &mut Expect) {
        if let Some(flow) = self.flows.remove(&key) {
            expect.records.push(Note::Closed {
                key,
                reason,
                out: flow.out,
                back: flow.back,
                hints: flow.said.shows(),
            });
        }
    }

    fn cut(&mut self, key: Key, reason: CloseReason, now: Now, expect: &mut Expect) {
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

    fn follow(&mut self, key: Key, segment: Option<Segment>, out: bool, expect: &mut Expect) {
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
            self.close(key, CloseReason::Rst, expect);
        }
    }

    fn deny(&mut self, reason: DropReason) {
        *self.denied.entry(reason.as_str()).or_default() += 1;
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
