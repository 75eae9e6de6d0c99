//! The worker's state in the words of the admin API.

use crate::api::{
    FlowView, HistogramView, PeerView, QueueView, ShadowCount, Traffic, VerdictCount,
    WorkerSnapshot, WorkerView,
};
use crate::front_door::HANDED_QUEUE;
use crate::worker::records_waiting;
use postern_engine::counters::{Counters, Histogram};
use postern_engine::denials::WINDOWS;
use postern_engine::flow::Flow;
use postern_engine::flow::tcp::TcpState;
use postern_engine::gateway::{CONTROL_QUEUE, Gateway};
use postern_engine::hint::WATCHES;
use postern_engine::identity::DeviceState;
use postern_engine::rule_counts::{RuleCount, RuleCounts};
use postern_io::road::{Inputs, Outputs};
use postern_io::{fair, offload};
use postern_proto::fate::DropReason;
use postern_proto::now::Now;
use postern_proto::peers::PeerId;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// One live flow.
#[must_use]
pub fn flow(flow: &Flow, device: &DeviceState, now: Now) -> FlowView {
    FlowView {
        id: flow.id,
        state: state(flow).to_owned(),
        device: device.device.name.clone(),
        user: device.device.user.clone(),
        protocol: flow.key.protocol,
        outer: device.subject.standing.outer,
        facts: device.device.standing.facts.as_deref().map(str::to_owned),
        source: SocketAddr::new(flow.key.client(), flow.key.client_port),
        destination: SocketAddr::new(flow.key.target(), flow.key.target_port),
        target: flow
            .target
            .map(|target| flow.policy.target_name(target).to_owned()),
        rule: flow.policy.rule_name(flow.rule).to_owned(),
        generation: flow.judged_at,
        opened_ms: flow.started.wall.millis(),
        idle_ms: u64::try_from(now.mono.since(flow.last.mono).as_millis()).unwrap_or(u64::MAX),
        bytes_out: flow.bytes_out,
        packets_out: flow.packets_out,
        bytes_in: flow.bytes_in,
        packets_in: flow.packets_in,
    }
}

/// What a worker counts beside its engine and its road.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// How often it looked for work.
    pub turns: u64,
    /// Records that the log has not taken.
    pub records_waiting: usize,
    /// Initiations that the front door has let in.
    pub handshakes_waiting: usize,
}

/// Everything that metrics and `status` show of one worker.
#[must_use]
pub fn snapshot(
    gateway: &Gateway,
    inputs: &Inputs,
    outputs: &Outputs,
    own: Own,
    now: Now,
) -> WorkerSnapshot {
    let counters = gateway.counters();
    let half_open: usize = gateway
        .devices()
        .iter()
        .map(|(_, device)| device.half_open)
        .sum();
    let live = gateway
        .flows()
        .iter()
        .filter(|(_, flow)| flow.cut.is_none())
        .count();
    WorkerSnapshot {
        taken_ms: now.wall.millis(),
        generation: gateway.policy_generation(),
        verdicts: verdicts(gateway.rule_counts()),
        shadows: shadows(gateway.rule_counts()),
        break_glass_flows: counters.break_glass_flows,
        traffic: Traffic {
            bytes_out: counters.bytes_out,
            packets_out: counters.packets_out,
            bytes_in: counters.bytes_in,
            packets_in: counters.packets_in,
        },
        drops: drops(&counters, inputs, outputs),
        handshakes: handshakes(gateway),
        open_flows: live as u64,
        half_open_flows: half_open as u64,
        peers: peers(gateway, now),
        queues: vec![
            queue("flows", gateway.flows().len(), gateway.flows().capacity()),
            queue("denial-windows", gateway.denial_windows(), WINDOWS),
            queue("control-packets", gateway.control_waiting(), CONTROL_QUEUE),
            queue("hint-watches", gateway.hints().len(), WATCHES),
            queue(
                "records-waiting",
                own.records_waiting,
                records_waiting(gateway),
            ),
            queue("handshakes-waiting", own.handshakes_waiting, HANDED_QUEUE),
            queue("udp-bytes", inputs.udp.waiting().bytes(), fair::MEMORY),
            queue(
                "tun-bytes",
                inputs.tun.as_ref().map_or(0, |tun| tun.waiting().bytes()),
                fair::MEMORY,
            ),
        ],
        hints_displaced: gateway.hints().displaced(),
        offload: offload::offloads(inputs, outputs),
        verdict_seconds: histogram(&counters.verdict, 1e-9),
        change_to_cut_seconds: histogram(&counters.change_to_cut, 1e-6),
        workers: vec![WorkerView {
            worker: gateway.shard().index,
            devices: enrolled(gateway).count() as u64,
            flows: live as u64,
            packets: counters.packets_out + counters.packets_in,
            turns: own.turns,
        }],
    }
}

fn verdicts(rules: &RuleCounts) -> Vec<VerdictCount> {
    let one = |verdict: &str, rule: &str, flows| VerdictCount {
        verdict: verdict.to_owned(),
        rule: rule.to_owned(),
        flows,
    };
    rules
        .iter()
        .flat_map(|(rule, count)| {
            [
                one("allow", rule, count.allowed),
                one("deny", rule, count.denied),
            ]
        })
        .filter(|count| count.flows > 0)
        .collect()
}

fn shadows(rules: &RuleCounts) -> Vec<ShadowCount> {
    let each = |rule: &str, verdict: &str, count: RuleCount| {
        [("allow", count.allowed), ("deny", count.denied)].map(|(live, attempts)| ShadowCount {
            rule: rule.to_owned(),
            verdict: verdict.to_owned(),
            live: live.to_owned(),
            attempts,
        })
    };
    rules
        .shadows()
        .flat_map(|(rule, count)| {
            [
                each(rule, "allow", count.allow),
                each(rule, "deny", count.deny),
            ]
            .concat()
        })
        .filter(|count| count.attempts > 0)
        .collect()
}

fn drops(counters: &Counters, inputs: &Inputs, outputs: &Outputs) -> BTreeMap<String, u64> {
    let mut drops: BTreeMap<String, u64> = counters
        .drops
        .iter()
        .map(|(reason, count)| (reason.as_str().to_owned(), count))
        .collect();
    let mut add = |reason: DropReason, count: u64| {
        *drops.entry(reason.as_str().to_owned()).or_default() += count;
    };
    add(DropReason::KernelRefused, outputs.refused());
    add(
        DropReason::BadLength,
        inputs.tun.as_ref().map_or(0, |tun| tun.stats().bad),
    );
    let tun_shed = inputs.tun.as_ref().map_or(0, |tun| tun.stats().shed);
    add(DropReason::QueueStands, inputs.udp.stats().shed + tun_shed);
    drops
}

fn handshakes(gateway: &Gateway) -> BTreeMap<String, u64> {
    let counts = gateway.peers().handshakes();
    [
        ("initiated", counts.initiated),
        ("answered", counts.answered),
        ("established", counts.established),
        ("gave-up", counts.gave_up),
        ("cookie", counts.cookies_sent),
    ]
    .map(|(outcome, count)| (outcome.to_owned(), count))
    .into()
}

/// Throw-away keys are no devices.
fn enrolled(gateway: &Gateway) -> impl Iterator<Item = (PeerId, &DeviceState)> {
    gateway
        .devices()
        .iter()
        .filter(|(_, device)| !device.device.standing.guest)
}

fn peers(gateway: &Gateway, now: Now) -> Vec<PeerView> {
    enrolled(gateway)
        .filter_map(|(id, device)| Some((gateway.peers().peer(id)?, device)))
        .map(|(peer, device)| PeerView {
            device: device.device.name.clone(),
            public_key: device.device.key,
            endpoint: peer.endpoint().map(|endpoint| endpoint.remote),
            last_handshake: peer.last_handshake().map(|at| at.wall.seconds()),
            connected: peer.is_established(now),
            bytes_out: peer.received().bytes,
            bytes_in: peer.sent().bytes,
            flows: device.flows as u64,
            mtu: gateway.path_mtu(device, now),
        })
        .collect()
}

fn queue(name: &str, depth: usize, capacity: usize) -> QueueView {
    QueueView {
        queue: name.to_owned(),
        depth: depth as u64,
        capacity: capacity as u64,
    }
}

fn histogram(from: &Histogram, unit: f64) -> HistogramView {
    HistogramView {
        bounds: from
            .bounds()
            .iter()
            .map(|bound| *bound as f64 * unit)
            .collect(),
        counts: from.counts.clone(),
        sum: from.sum as f64 * unit,
    }
}

fn state(flow: &Flow) -> &'static str {
    match flow.tcp.map(|tcp| tcp.state) {
        None => "open",
        Some(TcpState::SynSent | TcpState::SynReceived) => "syn",
        Some(TcpState::Established) => "established",
        Some(TcpState::HalfClosed | TcpState::Closed | TcpState::Reset) => "closing",
    }
}
