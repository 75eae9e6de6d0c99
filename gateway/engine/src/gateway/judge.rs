//! A verdict for a new flow, and what a refusal brings with it: its record, its answer, its
//! notice to the client.

use super::road_in::Fate;
use super::{Gateway, log};
use crate::denials::{Attempt, Noted, Why};
use crate::flow::tcp::{TcpState, TcpTrack};
use crate::flow::{Flow, Shadowed, Slot};
use crate::hint::Hint;
use crate::identity::DeviceState;
use crate::policy::{DEFAULT_RULE, Policy, RuleId, Subject, SubjectIndex, Tuple, Verdict};
use crate::record::{CheckResult, CloseReason, Granted, Posture};
use crate::settings::OnLogFailure;
use crate::standing::Session;
use crate::words::{Name, Words};
use postern_proto::control::Message;
use postern_proto::fate::DropReason;
use postern_proto::flow_key::FlowKey;
use postern_proto::invitation;
use postern_proto::now::{Now, Wall};
use postern_proto::outbox::Outbox;
use postern_proto::packet::PacketView;
use postern_proto::peers::PeerId;
use postern_proto::reply;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;

/// Answers to refused packets, for each device: as many at once, then one in each interval. A
/// port scan at full speed is not worth more of our time.
pub(super) const ANSWER_BURST: u32 = 512;
pub(super) const ANSWER_INTERVAL: Duration = Duration::from_millis(2);

/// Why a new flow is not allowed.
pub(super) struct Refusal {
    pub(super) reason: DropReason,
    pub(super) notice: Option<Box<Message>>,
}

impl Gateway {
    /// Judges a new flow and remembers it. Verdict before SYN: nothing was forwarded yet.
    pub(super) fn open_flow(
        &mut self,
        peer: PeerId,
        key: FlowKey,
        tcp: Option<TcpTrack>,
        resumed: bool,
        now: Now,
    ) -> Result<Slot, Refusal> {
        let start = (self.settings.stopwatch)();
        let verdict = self.judge(peer, &key, now);
        self.counters
            .verdict
            .observe((self.settings.stopwatch)().saturating_sub(start));
        self.watch(peer, now);
        let who = self.devices.get(peer).map(|device| device.who.clone());
        let obstacle = self.obstacle(peer, &key, &verdict, tcp.as_ref(), now);
        let shadow = self.would_decide(peer, &key, obstacle, now);
        self.count_verdict(&verdict, shadow, obstacle.is_none());
        let reason = match obstacle {
            None => {
                let who = who.unwrap_or_default();
                let slot = self.flows.insert(Flow {
                    key,
                    id: self.settings.shard.flow_id(self.opened),
                    peer,
                    rule: verdict.rule(),
                    target: verdict.target(),
                    policy: Arc::clone(&self.policy),
                    policy_hash: Arc::clone(&self.policy_hash),
                    shadow,
                    grant: self.granted(peer, &verdict),
                    who,
                    judged_at: self.policy_generation,
                    started: now,
                    last: now,
                    bytes_out: 0,
                    bytes_in: 0,
                    packets_out: 0,
                    packets_in: 0,
                    tcp,
                    resumed,
                    hint: Hint::default(),
                    cut: None,
                });
                self.opened += 1;
                self.counters.flows_opened += 1;
                self.counters.break_glass_flows += u64::from(
                    self.flows
                        .get(slot)
                        .and_then(|flow| flow.grant.as_ref())
                        .is_some_and(|grant| grant.break_glass),
                );
                if let Some(device) = self.devices.get_mut(peer) {
                    device.flows += 1;
                    device.half_open += usize::from(is_half_open(tcp.as_ref()));
                }
                return Ok(slot);
            }
            // A segment that would resume a flow, and may not: there is no flow.
            Some(DropReason::Policy) if resumed => DropReason::NoFlow,
            Some(reason) => reason,
        };
        let attempt = Attempt {
            shadow,
            ..Attempt::of(peer, &key, reason)
        };
        let notice = self.deny(attempt, now);
        Err(Refusal { reason, notice })
    }

    /// What the rules in `mode: shadow` would have decided, where the policy has a say at all.
    fn would_decide(
        &mut self,
        peer: PeerId,
        key: &FlowKey,
        obstacle: Option<DropReason>,
        now: Now,
    ) -> Option<Shadowed> {
        if obstacle
            .is_some_and(|reason| is_standing(reason) || reason == DropReason::DeviceToDevice)
        {
            return None;
        }
        let index = self
            .devices
            .get_mut(peer)?
            .index(&self.policy, self.policy_generation);
        shadowed(&self.policy, index, &tuple(key), now.wall)
    }

    /// The grant that `verdict` rests on.
    fn granted(&self, peer: PeerId, verdict: &Verdict) -> Option<Arc<Granted>> {
        granted(&self.policy, self.devices.get(peer)?, verdict)
    }

    fn count_verdict(&mut self, verdict: &Verdict, shadow: Option<Shadowed>, opens: bool) {
        self.rule_counts.count(verdict.rule(), verdict.allows());
        if let Some(would) = shadow {
            self.rule_counts
                .count_shadow(would.rule, would.allow, opens);
        }
    }

    /// The verdict of the policy. Who is held is nobody to it.
    fn judge(&mut self, peer: PeerId, key: &FlowKey, now: Now) -> Verdict {
        let to = tuple(key);
        match self.devices.get_mut(peer) {
            Some(device) if device.device.standing.obstacle(now.wall).is_none() => {
                let index = device.index(&self.policy, self.policy_generation);
                self.policy.judge(index, &to, now.wall)
            }
            Some(_) | None => self.policy.judge(&SubjectIndex::default(), &to, now.wall),
        }
    }

    /// Whether a flow would be allowed, without any trace.
    pub(super) fn would_allow(&mut self, peer: PeerId, key: &FlowKey, now: Now) -> bool {
        let verdict = self.judge(peer, key, now);
        self.obstacle(peer, key, &verdict, None, now).is_none()
    }

    /// What stands against a new flow: how the device stands, then the verdict.
    fn obstacle(
        &self,
        peer: PeerId,
        key: &FlowKey,
        verdict: &Verdict,
        tcp: Option<&TcpTrack>,
        now: Now,
    ) -> Option<DropReason> {
        let limits = &self.settings.limits;
        let device = self.devices.get(peer)?;
        if let Some(held) = device.device.standing.obstacle(now.wall) {
            Some(held)
        } else if self.is_device_address(key) {
            Some(DropReason::DeviceToDevice)
        } else if !verdict.allows() {
            Some(DropReason::Policy)
        } else if !self.log_writable && self.settings.on_log_failure == OnLogFailure::DenyNew {
            Some(DropReason::LogUnavailable)
        } else if self.flows.is_full() {
            Some(DropReason::TableFull)
        } else if device.flows >= limits.flows_per_device
            || is_half_open(tcp) && device.half_open >= limits.half_open_per_device
        {
            Some(DropReason::DeviceQuota)
        } else {
            None
        }
    }

    /// An address of a pool that is not the gateway's own belongs, now or later, to a device.
    fn is_device_address(&self, key: &FlowKey) -> bool {
        let target = key.target();
        is_guest_address(target)
            || !self.settings.addresses.contains(&target)
                && self
                    .settings
                    .pools
                    .iter()
                    .any(|pool| pool.contains(&target))
    }

    /// Counts a refusal, writes its record if it is the first of its kind, and says what to tell
    /// the client then.
    pub(super) fn deny(&mut self, attempt: Attempt, now: Now) -> Option<Box<Message>> {
        let device = self.devices.get(attempt.peer)?;
        self.counters.attempts_denied += 1;
        let key = FlowKey::new(attempt.protocol, attempt.source, attempt.destination);
        let noted = self.denials.note(attempt, &device.who, now, || {
            let to = tuple(&key);
            let shadow = attempt.shadow.map(|would| log::shadow(&self.policy, would));
            let own = own_words(attempt.reason, device, now.wall);
            let outer = log::outer(&self.peers, attempt.peer);
            if is_standing(attempt.reason) {
                return Why {
                    rule: DEFAULT_RULE.to_owned(),
                    policy: Arc::clone(&self.policy_hash),
                    shadow,
                    condition: own,
                    nearest: None,
                    target: self.policy.target_at(&to).map(str::to_owned),
                    posture: None,
                    outer,
                    port: attempt.destination.1,
                };
            }
            let explained = self.policy.explain(&device.subject, &to, now.wall);
            let (condition, nearest) = match own {
                Some(words) => (Some(words), None),
                None => match &explained.nearest {
                    Some(nearest) => (Some(nearest.sentence()), Some(nearest.rule.clone())),
                    None => (Some("no rule allows anything".into()), None),
                },
            };
            let decided = explained.verdict.rule();
            let near = explained.nearest.as_ref().map_or(decided, |near| near.id);
            let posture = [decided, near]
                .into_iter()
                .find_map(|rule| posture(&self.policy, rule, &device.subject, now.wall));
            Why {
                posture,
                outer,
                rule: explained.rule,
                policy: Arc::clone(&self.policy_hash),
                shadow,
                condition,
                nearest,
                // A refusal has its target too, for whoever asks what was tried at it.
                target: explained
                    .target
                    .or_else(|| Some(self.policy.target_at(&to)?.to_owned())),
                port: attempt.destination.1,
            }
        });
        let window = match noted {
            Noted::First(window) => *window,
            Noted::Counted => return None,
        };
        let notice = device.client_version.is_some().then(|| {
            Box::new(Message::Refused {
                protocol: attempt.protocol.as_str().to_owned(),
                address: attempt.destination.0,
                port: attempt.destination.1,
                reason: attempt.reason.as_str().to_owned(),
                rule: window.why.rule.clone(),
                condition: window
                    .why
                    .condition
                    .as_ref()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
            })
        });
        self.record_denied(window, now);
        notice
    }

    /// A packet with somebody else's source: recorded, never answered.
    pub(super) fn refuse_spoofed(&mut self, peer: PeerId, view: &PacketView<'_>, now: Now) -> Fate {
        let reason = DropReason::SpoofedSource;
        if let Some(key) = view.key_from_device() {
            self.deny(Attempt::of(peer, &key, reason), now);
        }
        Fate::Refuse {
            reason,
            answer: None,
            notice: None,
        }
    }

    /// A throw-away key beyond the enrolment API: recorded and answered.
    pub(super) fn refuse_guest(&mut self, peer: PeerId, view: &PacketView<'_>, now: Now) -> Fate {
        let reason = DropReason::NotEnrolled;
        let notice = view
            .key_from_device()
            .and_then(|key| self.deny(Attempt::of(peer, &key, reason), now));
        Fate::Refuse {
            reason,
            answer: reply::refuse(view, &mut self.answer),
            notice,
        }
    }

    /// Sends the answer that stands ready, if the device has not had too many.
    pub(super) fn answer_device(
        &mut self,
        peer: PeerId,
        answer: Option<usize>,
        out: &mut impl Outbox,
        now: Now,
    ) {
        let Some(answer) = answer.and_then(|len| self.answer.get(..len)) else {
            return;
        };
        let Some(device) = self.devices.get_mut(peer) else {
            return;
        };
        if device.answers.take(now.mono, ANSWER_INTERVAL, ANSWER_BURST) {
            // Without a session there is nobody to tell, and the refusal itself was counted.
            let _ = self.peers.send(peer, answer, out, now);
        }
    }

    /// Tells a Postern client something; a stock WireGuard peer never said hello.
    pub(super) fn tell_device(
        &mut self,
        peer: PeerId,
        message: &Message,
        out: &mut impl Outbox,
        now: Now,
    ) {
        let listens = |device: &DeviceState| device.client_version.is_some();
        if self.devices.get(peer).is_some_and(listens) {
            let mut packet = [0; postern_proto::mtu::MIN_MTU];
            self.send_message(peer, message, 0, &mut packet, out, now);
        }
    }

    /// Sends a message, made in `room`, padded to `len` bytes.
    pub(super) fn send_message(
        &mut self,
        peer: PeerId,
        message: &Message,
        len: usize,
        room: &mut [u8],
        out: &mut impl Outbox,
        now: Now,
    ) {
        let Some(device) = self.devices.get(peer) else {
            return;
        };
        let pair = device.device.addresses.iter().find_map(|to| {
            let from = self
                .settings
                .addresses
                .iter()
                .find(|own| own.is_ipv4() == to.is_ipv4())?;
            Some((*from, *to))
        });
        if let Some(len) = pair.and_then(|(from, to)| message.write_padded(from, to, len, room)) {
            let _ = self.peers.send(peer, &room[..len], out, now);
        }
    }

    /// Follows a change of a flow's TCP state.
    pub(super) fn tcp_state_changed(&mut self, slot: Slot, before: TcpState, now: Now) {
        let Some(flow) = self.flows.get(slot) else {
            return;
        };
        let Some(state) = flow.tcp.map(|tcp| tcp.state) else {
            return;
        };
        if before == TcpState::SynSent
            && let Some(device) = self.devices.get_mut(flow.peer)
        {
            device.half_open = device.half_open.saturating_sub(1);
        }
        match state {
            TcpState::Reset => self.close_counted_flow(slot, CloseReason::Rst, now),
            TcpState::Closed | TcpState::HalfClosed => self.flows.hasten(slot),
            TcpState::SynReceived => self.flows.hasten(slot),
            TcpState::SynSent | TcpState::Established => {}
        }
    }

    /// A flow is over: its record is written and its place is free.
    pub(super) fn close_flow(&mut self, slot: Slot, reason: CloseReason, now: Now) {
        if self
            .flows
            .get(slot)
            .is_some_and(|flow| is_half_open(flow.tcp.as_ref()))
        {
            let peer = self.flows.get(slot).map(|flow| flow.peer);
            if let Some(device) = peer.and_then(|peer| self.devices.get_mut(peer)) {
                device.half_open = device.half_open.saturating_sub(1);
            }
        }
        self.close_counted_flow(slot, reason, now);
    }

    fn close_counted_flow(&mut self, slot: Slot, reason: CloseReason, now: Now) {
        self.record_closed(slot, reason, None, now);
        let Some(flow) = self.flows.remove(slot) else {
            return;
        };
        if let Some(device) = self.devices.get_mut(flow.peer) {
            device.flows = device.flows.saturating_sub(1);
        }
    }

    /// A deadline has passed: the memory of a cut flow ends, a live flow is closed.
    pub(super) fn expire_flow(&mut self, slot: Slot, now: Now) {
        match self
            .flows
            .get(slot)
            .map(|flow| (flow.cut.is_some(), flow.end_reason()))
        {
            Some((true, _)) => {
                self.flows.remove(slot);
            }
            Some((false, reason)) => self.close_flow(slot, reason, now),
            None => {}
        }
    }
}

/// Reasons that say how the device stands; the policy was not asked.
fn is_standing(reason: DropReason) -> bool {
    [
        DropReason::NotEnrolled,
        DropReason::NotApproved,
        DropReason::LoginRequired,
        DropReason::UserDisabled,
    ]
    .contains(&reason)
}

/// Reasons that are not the policy's have words of their own.
const OWN_WORDS: [(DropReason, &str); 6] = [
    (
        DropReason::NotEnrolled,
        "a throw-away key reaches the enrolment API and nothing else; join first",
    ),
    (
        DropReason::SpoofedSource,
        "the source is not an address of this device",
    ),
    (
        DropReason::DeviceToDevice,
        "the address belongs to another device, never a target",
    ),
    (DropReason::TableFull, "the gateway's flow table is full"),
    (
        DropReason::DeviceQuota,
        "the device has as many flows as it may have",
    ),
    (
        DropReason::LogUnavailable,
        "records cannot be written, so nothing new is allowed",
    ),
];

pub(super) fn own_words(reason: DropReason, device: &DeviceState, now: Wall) -> Option<Words> {
    let mut words = Words::default();
    let device = &device.device;
    if reason == DropReason::NotApproved {
        words
            .say("the device is not approved; an admin approves it with `postern-gateway device approve ")
            .name(Name::Device, &device.name)
            .say("`");
    } else if reason == DropReason::UserDisabled {
        let user = device.user.as_deref().unwrap_or_default();
        words
            .say("the user is disabled; an admin lets them in again with `postern-gateway user enable ")
            .name(Name::User, user)
            .say("`");
    } else if reason == DropReason::LoginRequired {
        match &device.standing.session {
            Some(Session {
                until: Some(until), ..
            }) if *until <= now => {
                let ended = until.rfc3339();
                words.say(&format!("the login ended at {ended}; run `postern login`"));
            }
            Some(_) | None => {
                words.say("the user has to log in; run `postern login`");
            }
        }
    } else {
        let (_, own) = OWN_WORDS.into_iter().find(|(own, _)| *own == reason)?;
        words.say(own);
    }
    Some(words)
}

/// The checks that a rule asks for, as a record has them.
pub(super) fn posture(
    policy: &Policy,
    rule: RuleId,
    who: &Subject,
    now: Wall,
) -> Option<Box<Posture>> {
    // Most rules ask for none.
    policy
        .posture_of(rule, &SubjectIndex::default(), now)
        .next()?;
    let of = |(name, holds): (&str, bool)| {
        let result = if holds {
            CheckResult::Pass
        } else {
            CheckResult::Fail
        };
        (name.to_owned(), result)
    };
    let index = policy.index(who);
    Some(Box::new(
        policy.posture_of(rule, &index, now).map(of).collect(),
    ))
}

/// What the rules of `policy` in `mode: shadow` would have decided.
pub(super) fn shadowed(
    policy: &Policy,
    who: &SubjectIndex,
    to: &Tuple,
    now: Wall,
) -> Option<Shadowed> {
    let would = policy.shadow(who, to, now)?;
    Some(Shadowed {
        rule: would.rule(),
        allow: would.allows(),
    })
}

/// The grant that `verdict` rests on, as records name it.
pub(super) fn granted(
    policy: &Policy,
    device: &DeviceState,
    verdict: &Verdict,
) -> Option<Arc<Granted>> {
    let grant = device.subject.standing.grants.get(verdict.grant()?)?;
    Some(Arc::new(Granted {
        id: Arc::clone(&grant.id),
        reason: Some(Arc::clone(&grant.reason)),
        break_glass: grant.break_glass,
        target: Arc::clone(&grant.target),
        until: policy.grant_end(verdict, grant),
    }))
}

pub(super) fn tuple(key: &FlowKey) -> Tuple {
    Tuple {
        address: key.target(),
        port: key.target_port,
        protocol: key.protocol,
    }
}

/// No target lies where throw-away keys have their addresses.
fn is_guest_address(address: IpAddr) -> bool {
    let net = |v6: Ipv6Addr| v6.to_bits() >> (128 - u32::from(invitation::PREFIX_LEN));
    match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => net(v6) == net(invitation::GATEWAY),
    }
}

fn is_half_open(tcp: Option<&TcpTrack>) -> bool {
    tcp.is_some_and(TcpTrack::is_half_open)
}
