//! Facts changed: live flows are judged again, and those no longer allowed are cut on both
//! sides. Facts about one device: its flows at once. Another policy: a flow that carries packets
//! is judged with its next one; a sweep in slices reaches the silent ones, so that a large table
//! never stops the packets of others.

use super::Gateway;
use super::judge::{granted, own_words, shadowed, tuple};
use crate::flow::{CUT_MEMORY, Flow, Slot};
use crate::identity::{Device, DeviceState};
use crate::policy::{Condition, Policy, typed};
use crate::record::{CloseReason, Granted};
use crate::words::Words;
use postern_proto::control::Message;
use postern_proto::fate::DropReason;
use postern_proto::flow_key::{FlowKey, Protocol};
use postern_proto::now::{Mono, Now};
use postern_proto::outbox::Outbox;
use postern_proto::peers::PeerId;
use postern_proto::reply::{self, REPLY_ROOM};
use std::sync::Arc;

/// Flows judged again in one go, each a few microseconds where the device's place in the policy must
/// be found too: at most some two milliseconds.
pub(super) const JUDGED_AT_ONCE: usize = 512;
/// What a cut costs, in such flows: it is explained, answered to both ends, and recorded. So a turn
/// cuts eight, of some 0.2 ms each where thousands of rules are looked at for the nearest.
pub(super) const CUT_WORK: usize = 63;

/// What a command cut at once; a sweep goes on after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Flows cut.
    pub flows: u64,
}

/// A walk over all flows, judging again those that stand on old facts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweep {
    cursor: u32,
    changed: Mono,
}

impl Gateway {
    /// Puts another policy in force. `changed` is when the change was noticed: the time from
    /// there to the last forwarded byte of a flow that it ends is measured.
    pub fn set_policy(&mut self, policy: Arc<Policy>, changed: Mono) {
        self.rule_counts.follow(Arc::clone(&policy));
        self.policy_hash = policy.hash().full().into();
        self.asks_outer = policy.asks_outer();
        self.policy = policy;
        self.policy_generation += 1;
        self.sweep = Some(Sweep { cursor: 0, changed });
    }

    /// Whether a sweep is under way.
    #[must_use]
    pub fn is_sweeping(&self) -> bool {
        self.sweep.is_some()
    }

    /// Other facts about a device, which is found by its key: its user, its groups, how it stands.
    /// Its live flows are judged again before this returns. Its name and addresses stay. A key
    /// that belongs to no device is no error.
    pub fn update_device(
        &mut self,
        device: Device,
        changed: Mono,
        out: &mut impl Outbox,
        now: Now,
    ) -> Cut {
        let Some(peer) = self.find_device(&device.key) else {
            return Cut::default();
        };
        if let Some(state) = self.devices.get_mut(peer) {
            state.update(device, now.wall);
        }
        self.judge_device(peer, changed, out, now)
    }

    /// Judges every live flow of a device again.
    pub(super) fn judge_device(
        &mut self,
        peer: PeerId,
        changed: Mono,
        out: &mut impl Outbox,
        now: Now,
    ) -> Cut {
        let mut cut = Cut::default();
        for slot in self.flows.of(peer) {
            if self.flows.get(slot).is_none_or(|flow| flow.cut.is_some()) {
                continue;
            }
            if let Err(reason) = self.judge_again(slot, now) {
                let reason = self.cause(slot, reason, now);
                self.cut_since(slot, reason, changed, out, now);
                cut.flows += 1;
            }
        }
        self.watch(peer, now);
        cut
    }

    /// Judges the flow in `slot` again if the policy changed since.
    pub(super) fn still_allowed(&mut self, slot: Slot, now: Now) -> Result<(), CloseReason> {
        match self.flows.get(slot) {
            Some(flow) if flow.judged_at < self.policy_generation => {
                let peer = flow.peer;
                self.watch(peer, now);
                self.judge_again(slot, now)
            }
            Some(_) | None => Ok(()),
        }
    }

    fn judge_again(&mut self, slot: Slot, now: Now) -> Result<(), CloseReason> {
        let Some(flow) = self.flows.get_mut(slot) else {
            return Ok(());
        };
        let Some(device) = self.devices.get_mut(flow.peer) else {
            return Err(CloseReason::Revoked);
        };
        if let Some(reason) = device.device.standing.obstacle(now.wall) {
            return Err(if reason == DropReason::LoginRequired {
                CloseReason::Session
            } else {
                CloseReason::Revoked
            });
        }
        let to = tuple(&flow.key);
        let index = device.index(&self.policy, self.policy_generation);
        let verdict = self.policy.judge(index, &to, now.wall);
        let shadow = shadowed(&self.policy, index, &to, now.wall);
        if !verdict.allows() {
            return Err(CloseReason::Policy);
        }
        flow.rule = verdict.rule();
        flow.target = verdict.target();
        flow.policy = Arc::clone(&self.policy);
        flow.policy_hash = Arc::clone(&self.policy_hash);
        flow.shadow = shadow;
        flow.grant = granted(&self.policy, device, &verdict);
        flow.who = Arc::clone(&device.who);
        flow.judged_at = self.policy_generation;
        Ok(())
    }

    /// What, under the same policy, took away what it allowed.
    fn cause(&self, slot: Slot, reason: CloseReason, now: Now) -> CloseReason {
        let Some(flow) = self
            .flows
            .get(slot)
            .filter(|_| reason == CloseReason::Policy)
        else {
            return reason;
        };
        let Some(device) = self.devices.get(flow.peer) else {
            return reason;
        };
        let lives = device.device.standing.session_at(now.wall).is_some();
        if flow.who.session.is_some() && !lives {
            return CloseReason::Session;
        }
        if let Some(grant) = &flow.grant
            && device
                .device
                .standing
                .grant_at(&grant.id, now.wall)
                .is_none()
        {
            return CloseReason::GrantEnded;
        }
        let who = flow.policy.index(&device.subject);
        match flow
            .policy
            .lost(flow.rule, &who, &tuple(&flow.key), now.wall)
        {
            Some(Condition::SessionAge | Condition::Issuer | Condition::Amr | Condition::Acr) => {
                CloseReason::Session
            }
            Some(Condition::Posture) => CloseReason::Posture,
            Some(Condition::Grant) => CloseReason::GrantEnded,
            Some(
                Condition::DeniedFirst
                | Condition::Group
                | Condition::User
                | Condition::Device
                | Condition::Label
                | Condition::Machine
                | Condition::Outer
                | Condition::When
                | Condition::Port
                | Condition::Address,
            )
            | None => reason,
        }
    }

    /// The next slice of a sweep.
    pub(super) fn continue_sweep(&mut self, out: &mut impl Outbox, now: Now) {
        let Some(mut sweep) = self.sweep else { return };
        let mut work = 0;
        while work < JUDGED_AT_ONCE {
            let Some(slot) = self.flows.at_or_after(sweep.cursor) else {
                self.sweep = None;
                return;
            };
            sweep.cursor = slot.next();
            work += 1;
            if let Some(flow) = self.flows.get_mut(slot)
                && flow.cut.is_some()
            {
                // It shall not keep a former policy in memory; it needs none itself.
                flow.policy = Arc::clone(&self.policy);
                continue;
            }
            if let Err(reason) = self.still_allowed(slot, now) {
                self.cut_flow(slot, reason, out, now);
                work += CUT_WORK;
            }
        }
        self.sweep = Some(sweep);
    }

    /// Cuts every live flow that `select` picks.
    pub(super) fn cut_where(
        &mut self,
        reason: CloseReason,
        changed: Mono,
        out: &mut impl Outbox,
        now: Now,
        select: impl Fn(&Flow, &DeviceState) -> bool,
    ) -> Cut {
        let picked: Vec<Slot> = self
            .flows
            .iter()
            .filter(|(_, flow)| flow.cut.is_none())
            .filter(|(_, flow)| {
                self.devices
                    .get(flow.peer)
                    .is_some_and(|device| select(flow, device))
            })
            .map(|(slot, _)| slot)
            .collect();
        for slot in &picked {
            self.cut_since(*slot, reason, changed, out, now);
        }
        Cut {
            flows: picked.len() as u64,
        }
    }

    /// Cuts one flow because of the change that is being swept.
    pub(super) fn cut_flow(
        &mut self,
        slot: Slot,
        reason: CloseReason,
        out: &mut impl Outbox,
        now: Now,
    ) {
        let changed = self.sweep.map_or(now.mono, |sweep| sweep.changed);
        self.cut_since(slot, reason, changed, out, now);
    }

    /// Takes what is left of a device that is being forgotten out of the table.
    pub(super) fn forget_flows_of(&mut self, peer: PeerId) {
        for slot in self.flows.of(peer) {
            self.flows.remove(slot);
        }
    }

    fn cut_since(
        &mut self,
        slot: Slot,
        reason: CloseReason,
        changed: Mono,
        out: &mut impl Outbox,
        now: Now,
    ) {
        let Some(flow) = self.flows.get_mut(slot) else {
            return;
        };
        // While segments may resume flows, one that was cut must not be forgotten and resumed.
        let memory = now.mono + CUT_MEMORY;
        flow.cut = Some(match flow.key.protocol {
            Protocol::Tcp => memory.max(self.resume_until),
            Protocol::Udp | Protocol::Icmp => memory,
        });
        self.flows.remember_cut(slot);
        let Some(flow) = self.flows.get(slot) else {
            return;
        };
        let (key, peer, tcp) = (flow.key, flow.peer, flow.tcp);
        let half_open = tcp.is_some_and(|tcp| tcp.is_half_open());
        if let Some(device) = self.devices.get_mut(peer) {
            device.flows = device.flows.saturating_sub(1);
            device.half_open = device.half_open.saturating_sub(usize::from(half_open));
        }
        let rule = self.write_cut_record(slot, reason, now);
        if let Some(flow) = self.flows.get_mut(slot) {
            // Its record is final.
            flow.policy = Arc::clone(&self.policy);
        }
        self.flows.hasten(slot);

        if !self.tell_cut(slot, out, now) {
            // It has been silent for longer than its key lives. It shall hear of it now.
            self.peers.initiate(peer, out, now);
            self.untold.entry(peer).or_default().push(slot);
        }
        let (client, target) = (key.client_end(), key.target_end());
        let room = out.packet();
        let to_target = match tcp {
            Some(tcp) => reply::tcp_reset(client, target, tcp.next_out, None, room),
            None => reply::prohibit_flow(&key, true, room),
        };
        if let Some(len) = to_target {
            out.commit_packet(len);
        }
        let micros = u64::try_from(now.mono.since(changed).as_micros()).unwrap_or(u64::MAX);
        self.counters.change_to_cut.observe(micros);
        self.tell_device(peer, &notice(&key, reason, rule), out, now);
    }

    /// Tells the device that the flow in `slot` was cut. False without a session.
    fn tell_cut(&mut self, slot: Slot, out: &mut impl Outbox, now: Now) -> bool {
        let Some(flow) = self.flows.get(slot).filter(|flow| flow.cut.is_some()) else {
            return true;
        };
        let mut reset = [0; REPLY_ROOM];
        let (client, target) = (flow.key.client_end(), flow.key.target_end());
        let made = match flow.tcp {
            // With both numbers it is good in every state of the device, also while the SYN-ACK
            // that the gateway has seen is lost on its way (RFC 9293, section 3.10.7.3).
            Some(tcp) => {
                let (next_in, next_out) = (tcp.next_in.unwrap_or(0), tcp.next_out);
                reply::tcp_reset(target, client, next_in, Some(next_out), &mut reset)
            }
            None => reply::prohibit_flow(&flow.key, false, &mut reset),
        };
        match made {
            Some(len) => self.peers.send(flow.peer, &reset[..len], out, now).is_ok(),
            None => true,
        }
    }

    /// A device has a session again: it is told of the flows that were cut in the meantime.
    pub(super) fn tell_untold(&mut self, peer: PeerId, out: &mut impl Outbox, now: Now) {
        if self.untold.is_empty() || !self.can_reach(peer, now) {
            return;
        }
        for slot in self.untold.remove(&peer).unwrap_or_default() {
            self.tell_cut(slot, out, now);
        }
    }

    /// The flow stays in the table, so that late segments are answered; its record is final.
    /// Returns the rule that decided.
    fn write_cut_record(&mut self, slot: Slot, reason: CloseReason, now: Now) -> String {
        let Some(flow) = self.flows.get(slot) else {
            return String::new();
        };
        let (mut rule, mut condition) = (flow.policy.rule_name(flow.rule).to_owned(), None);
        if let Some(device) = self.devices.get(flow.peer) {
            let by_facts = match reason {
                CloseReason::Policy | CloseReason::Session | CloseReason::Posture => true,
                CloseReason::Revoked
                | CloseReason::Fin
                | CloseReason::Rst
                | CloseReason::Idle
                | CloseReason::GrantEnded
                | CloseReason::Killed
                | CloseReason::Shutdown
                | CloseReason::Crashed
                | CloseReason::Unanswered
                | CloseReason::Error => false,
            };
            if let Some(held) = device.device.standing.obstacle(now.wall) {
                condition = own_words(held, device, now.wall);
            } else if reason == CloseReason::GrantEnded {
                condition = flow.grant.as_ref().map(|grant| ended(grant, now));
            } else if by_facts {
                let explained = self
                    .policy
                    .explain(&device.subject, &tuple(&flow.key), now.wall);
                condition = explained.nearest.map(|nearest| {
                    let mut words = Words::from(format!("{}: ", nearest.rule));
                    words.append(&nearest.sentence());
                    words
                });
                rule = explained.rule;
            }
        }
        self.record_closed(slot, reason, condition, now);
        rule
    }
}

/// Time ends a grant here and in the control plane, whichever is first: it is its own time that
/// says which words are right.
fn ended(grant: &Granted, now: Now) -> Words {
    let mut words = Words::default();
    if grant.until <= now.wall {
        words.say(&format!(
            "the grant {} ended at {}; run `postern request {}`",
            grant.id,
            grant.until.rfc3339(),
            typed(&grant.target)
        ));
    } else {
        words.say(&format!("the grant {} was revoked", grant.id));
    }
    words
}

fn notice(key: &FlowKey, reason: CloseReason, rule: String) -> Message {
    Message::Cut {
        protocol: key.protocol.as_str().to_owned(),
        address: key.target(),
        port: key.target_port,
        reason: reason.as_str().to_owned(),
        rule,
    }
}
