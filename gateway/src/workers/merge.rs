//! One state out of those of all threads. Every field is named, so that none is forgotten.

use crate::api::{HistogramView, QueueView, ShadowCount, Traffic, VerdictCount, WorkerSnapshot};
use crate::front_door::DoorCounts;
use postern_io::{fair, offload};
use postern_proto::fate::DropReason;
use std::collections::BTreeMap;

/// Sums of what the workers and the door count. Policies reach all workers before anybody is told
/// that they are in force, so the lowest generation is the one that all have.
pub(super) fn merge(snapshots: Vec<WorkerSnapshot>, door: &DoorCounts) -> WorkerSnapshot {
    let mut all = snapshots.into_iter().reduce(add).unwrap_or_default();
    for (reason, count) in door.drops.iter().filter(|(_, count)| *count > 0) {
        *all.drops.entry(reason.as_str().to_owned()).or_default() += count;
    }
    let sockets = door.sockets;
    for (reason, count) in [
        (DropReason::QueueStands, sockets.shed),
        (DropReason::KernelRefused, sockets.refused),
    ] {
        *all.drops.entry(reason.as_str().to_owned()).or_default() += count;
    }
    all.queues.push(QueueView {
        queue: "door-bytes".to_owned(),
        depth: sockets.waiting as u64,
        capacity: fair::MEMORY as u64,
    });
    for (outcome, count) in [("cookie", door.cookies), ("handed", door.handed)] {
        *all.handshakes.entry(outcome.to_owned()).or_default() += count;
    }
    all
}

fn add(left: WorkerSnapshot, right: WorkerSnapshot) -> WorkerSnapshot {
    let WorkerSnapshot {
        taken_ms,
        generation,
        verdicts,
        shadows,
        break_glass_flows,
        traffic,
        drops,
        handshakes,
        open_flows,
        half_open_flows,
        peers,
        queues,
        hints_displaced,
        offload,
        verdict_seconds,
        change_to_cut_seconds,
        workers,
    } = right;
    let mut offloads = left.offload;
    offload::merge(&mut offloads, &offload);
    WorkerSnapshot {
        taken_ms: left.taken_ms.max(taken_ms),
        generation: left.generation.min(generation),
        verdicts: add_verdicts(left.verdicts, verdicts),
        shadows: add_shadows(left.shadows, shadows),
        break_glass_flows: left.break_glass_flows + break_glass_flows,
        traffic: add_traffic(left.traffic, traffic),
        drops: add_counts(left.drops, drops),
        handshakes: add_counts(left.handshakes, handshakes),
        open_flows: left.open_flows + open_flows,
        half_open_flows: left.half_open_flows + half_open_flows,
        peers: [left.peers, peers].concat(),
        queues: add_queues(left.queues, queues),
        hints_displaced: left.hints_displaced + hints_displaced,
        offload: offloads,
        verdict_seconds: add_histogram(left.verdict_seconds, &verdict_seconds),
        change_to_cut_seconds: add_histogram(left.change_to_cut_seconds, &change_to_cut_seconds),
        workers: [left.workers, workers].concat(),
    }
}

/// Ordered by rule, `allow` before `deny`.
fn add_verdicts(left: Vec<VerdictCount>, right: Vec<VerdictCount>) -> Vec<VerdictCount> {
    let mut sums: BTreeMap<(String, String), u64> = BTreeMap::new();
    for count in left.into_iter().chain(right) {
        *sums.entry((count.rule, count.verdict)).or_default() += count.flows;
    }
    sums.into_iter()
        .map(|((rule, verdict), flows)| VerdictCount {
            verdict,
            rule,
            flows,
        })
        .collect()
}

/// Ordered by rule.
fn add_shadows(left: Vec<ShadowCount>, right: Vec<ShadowCount>) -> Vec<ShadowCount> {
    let mut sums: BTreeMap<(String, String, String), u64> = BTreeMap::new();
    for count in left.into_iter().chain(right) {
        let key = (count.rule, count.verdict, count.live);
        *sums.entry(key).or_default() += count.attempts;
    }
    sums.into_iter()
        .map(|((rule, verdict, live), attempts)| ShadowCount {
            rule,
            verdict,
            live,
            attempts,
        })
        .collect()
}

fn add_traffic(left: Traffic, right: Traffic) -> Traffic {
    Traffic {
        bytes_out: left.bytes_out + right.bytes_out,
        packets_out: left.packets_out + right.packets_out,
        bytes_in: left.bytes_in + right.bytes_in,
        packets_in: left.packets_in + right.packets_in,
    }
}

fn add_counts(
    mut left: BTreeMap<String, u64>,
    right: BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    for (name, count) in right {
        *left.entry(name).or_default() += count;
    }
    left
}

/// Queues of one name are one: depths and bounds add up.
fn add_queues(mut left: Vec<QueueView>, right: Vec<QueueView>) -> Vec<QueueView> {
    for queue in right {
        match left.iter_mut().find(|known| known.queue == queue.queue) {
            Some(known) => {
                known.depth += queue.depth;
                known.capacity += queue.capacity;
            }
            None => left.push(queue),
        }
    }
    left
}

/// All workers use the same bounds.
fn add_histogram(mut left: HistogramView, right: &HistogramView) -> HistogramView {
    for (sum, count) in left.counts.iter_mut().zip(&right.counts) {
        *sum += count;
    }
    left.sum += right.sum;
    left
}
