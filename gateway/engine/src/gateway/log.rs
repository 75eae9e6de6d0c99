//! Records and their numbers.

use super::Gateway;
use super::judge::posture;
use crate::denials::Window;
use crate::flow::{Flow, Shadowed, Slot};
use crate::identity::{Devices, Who};
use crate::policy::Policy;
use crate::record::{
    CloseReason, Closed, Decision, Denied, Detail, Kind, Opened, Outer, Record, SCHEMA, Shadow,
    State,
};
use crate::settings::Settings;
use crate::words::Words;
use postern_proto::fate::DropReason;
use postern_proto::now::Now;
use postern_proto::peers::{PeerId, Peers};
use std::sync::Arc;

/// Records made and not taken yet. The shell takes them at the end of each turn, so the bound is
/// what one turn can make.
#[derive(Debug)]
pub(super) struct Log {
    gateway: Arc<str>,
    boot: Arc<str>,
    worker: u8,
    seq: u64,
    waiting: Vec<Record>,
}

impl Log {
    pub(super) fn new(settings: &Settings) -> Self {
        Log {
            gateway: settings.name.clone(),
            boot: settings.boot.clone(),
            worker: settings.shard.index,
            seq: 0,
            waiting: Vec::new(),
        }
    }

    pub(super) fn take(&mut self) -> Vec<Record> {
        std::mem::take(&mut self.waiting)
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(super) fn made(&self) -> u64 {
        self.seq
    }

    fn next_seq(&mut self) -> u64 {
        self.seq += 1;
        self.seq
    }
}

impl Gateway {
    /// Writes the opening record of the flow in `slot`.
    pub(super) fn record_open(&mut self, slot: Slot, now: Now) {
        let Some(flow) = self.flows.get(slot) else {
            return;
        };
        let detail = Detail::Open(Opened {
            flow: flow.id,
            start: flow.started.wall,
            resumed: flow.resumed,
        });
        let record = flow_record(&mut self.log, &self.devices, &self.peers, flow, detail, now);
        self.log.waiting.push(record);
    }

    /// Writes the closing record of the flow in `slot`, which is still in the table.
    pub(super) fn record_closed(
        &mut self,
        slot: Slot,
        reason: CloseReason,
        failed_condition: Option<Words>,
        now: Now,
    ) {
        let Some(flow) = self.flows.get_mut(slot) else {
            return;
        };
        let detail = Detail::Closed(Closed {
            flow: flow.id,
            start: flow.started.wall,
            end: flow.ended(),
            duration_ms: flow.duration_ms(),
            resumed: flow.resumed,
            bytes_out: flow.bytes_out,
            bytes_in: flow.bytes_in,
            packets_out: flow.packets_out,
            packets_in: flow.packets_in,
            tcp_state: flow.tcp.map(|tcp| tcp.state),
            close_reason: reason,
            failed_condition,
            hints: self.hints.take(&mut flow.hint),
        });
        *self
            .counters
            .flows_closed
            .entry(reason.as_str())
            .or_default() += 1;
        let record = flow_record(&mut self.log, &self.devices, &self.peers, flow, detail, now);
        self.log.waiting.push(record);
    }

    /// Writes what a window of refusals holds.
    pub(super) fn record_denied(&mut self, window: Window, now: Now) {
        let attempt = window.attempt;
        let several = window.ports.len() > 1;
        let alike = !window.scan && !several && attempt.destination.1 == window.why.port;
        let record = Record {
            schema: SCHEMA,
            kind: Kind::Flow,
            gateway: self.log.gateway.clone(),
            boot: self.log.boot.clone(),
            worker: self.log.worker,
            seq: self.log.next_seq(),
            time: now.wall,
            state: State::Denied,
            verdict: Decision::Deny,
            rule: window.why.rule,
            policy: window.why.policy,
            shadow: window.why.shadow,
            grant: None,
            session_age_s: session_age(&window.who, now),
            posture: window.why.posture,
            who: window.who,
            client_outer: window.why.outer,
            protocol: attempt.protocol,
            src_address: attempt.source.0,
            src_port: attempt.source.1,
            dst_address: (!window.scan).then_some(attempt.destination.0),
            dst_port: attempt.destination.1,
            // Of the attempt that opened the window; others in it may have been at other ports.
            target: window.why.target.filter(|_| alike),
            egress: None,
            detail: Detail::Denied(Denied {
                deny_reason: attempt.reason.as_str(),
                failed_condition: window.why.condition,
                nearest_rule: window.why.nearest,
                count: window.count,
                start: window.first,
                end: window.last,
                dst_ports: if several { window.ports } else { Vec::new() },
                scan: window.scan,
            }),
        };
        self.log.waiting.push(record);
    }

    pub(super) fn close_windows_until(&mut self, now: Now) {
        let mut closed = Vec::new();
        self.denials.close(now.mono, |window| closed.push(window));
        for window in closed {
            self.record_denied(window, now);
        }
    }

    pub(super) fn close_windows(&mut self, now: Now) {
        let mut closed = Vec::new();
        self.denials.close_all(|window| closed.push(window));
        for window in closed {
            self.record_denied(window, now);
        }
    }

    /// Counts packets that went no further.
    pub(super) fn count_drop(&mut self, reason: DropReason) {
        self.counters.drops.add(reason, 1);
    }
}

/// A record about `flow`.
fn flow_record(
    log: &mut Log,
    devices: &Devices,
    peers: &Peers,
    flow: &Flow,
    detail: Detail,
    now: Now,
) -> Record {
    Record {
        schema: SCHEMA,
        kind: Kind::Flow,
        gateway: log.gateway.clone(),
        boot: log.boot.clone(),
        worker: log.worker,
        seq: log.next_seq(),
        time: now.wall,
        state: match detail {
            Detail::Open(_) => State::Open,
            Detail::Closed(_) => State::Closed,
            Detail::Denied(_) => State::Denied,
        },
        verdict: Decision::Allow,
        rule: flow.policy.rule_name(flow.rule).to_owned(),
        policy: flow.policy_hash.clone(),
        shadow: flow.shadow.map(|would| shadow(&flow.policy, would)),
        grant: flow.grant.clone(),
        session_age_s: session_age(&flow.who, now),
        posture: devices
            .get(flow.peer)
            .and_then(|device| posture(&flow.policy, flow.rule, &device.subject, now.wall)),
        who: flow.who.clone(),
        client_outer: outer(peers, flow.peer),
        protocol: flow.key.protocol,
        src_address: flow.key.client(),
        src_port: flow.key.client_port,
        dst_address: Some(flow.key.target()),
        dst_port: flow.key.target_port,
        target: flow
            .target
            .map(|target| flow.policy.target_name(target).to_owned()),
        egress: None,
        detail,
    }
}

pub(super) fn shadow(policy: &Policy, would: Shadowed) -> Shadow {
    Shadow {
        verdict: if would.allow {
            Decision::Allow
        } else {
            Decision::Deny
        },
        rule: policy.rule_name(would.rule).to_owned(),
    }
}

fn session_age(who: &Who, now: Now) -> Option<u64> {
    let since = who.session_since?;
    Some(now.wall.seconds().saturating_sub(since.seconds()))
}

pub(super) fn outer(peers: &Peers, peer: PeerId) -> Option<Outer> {
    let endpoint = peers.peer(peer)?.endpoint()?;
    Some(Outer::Address(endpoint.remote))
}
