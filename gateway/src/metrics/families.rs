//! From facts to metric families. The one list of names.

mod asked;
mod inside;
mod log;
mod names;

use super::Facts;
use crate::api::{HistogramView, WorkerView};
use crate::inside::PACKET_QUEUE;
use postern_stack::limits::MAX_CONNECTIONS;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType,
};

type Labels<'a> = Vec<(&'static str, &'a str)>;

/// One sample: labels and value.
type Sample<'a> = (Labels<'a>, u64);

pub(super) fn of(facts: &Facts) -> Vec<MetricFamily> {
    let (worker, policy, log) = (&facts.worker, &facts.policy, &facts.log);
    let traffic = worker.traffic;
    let connected = worker.peers.iter().filter(|peer| peer.connected).count() as u64;
    let both_ways = |out: u64, back: u64| {
        vec![
            (vec![("direction", "to-target")], out),
            (vec![("direction", "from-target")], back),
        ]
    };
    let mut queues: Vec<(&str, u64, u64)> = worker
        .queues
        .iter()
        .map(|q| (q.queue.as_str(), q.depth, q.capacity))
        .collect();
    let each: Vec<(String, WorkerView)> = worker
        .workers
        .iter()
        .map(|one| (one.worker.to_string(), *one))
        .collect();
    let by_worker = |count: fn(&WorkerView) -> u64| {
        each.iter()
            .map(|(name, one)| (vec![("worker", name.as_str())], count(one)))
            .collect()
    };
    queues.push(("flow-log", facts.log_queue.0, facts.log_queue.1));
    queues.push(("control-packets", facts.inside.packets, PACKET_QUEUE as u64));
    queues.push((
        "control-connections",
        facts.inside.stack.connections as u64,
        MAX_CONNECTIONS as u64,
    ));

    let mut families = vec![
        counter(
            "postern_flows_total",
            "Attempts by verdict and by the rule that decided.",
            worker
                .verdicts
                .iter()
                .map(|v| {
                    (
                        vec![("verdict", v.verdict.as_str()), ("rule", v.rule.as_str())],
                        v.flows,
                    )
                })
                .collect(),
        ),
        counter(
            "postern_shadow_verdicts_total",
            "Attempts that a rule in `mode: shadow` would have decided: how, and what happened.",
            worker
                .shadows
                .iter()
                .map(|s| {
                    let labels = vec![
                        ("rule", s.rule.as_str()),
                        ("verdict", s.verdict.as_str()),
                        ("live", s.live.as_str()),
                    ];
                    (labels, s.attempts)
                })
                .collect(),
        ),
        counter(
            "postern_break_glass_flows_total",
            "Flows opened under a grant that nobody had approved.",
            vec![(Vec::new(), worker.break_glass_flows)],
        ),
        counter(
            "postern_bytes_total",
            "Inner bytes forwarded.",
            both_ways(traffic.bytes_out, traffic.bytes_in),
        ),
        counter(
            "postern_packets_total",
            "Inner packets forwarded.",
            both_ways(traffic.packets_out, traffic.packets_in),
        ),
        counter(
            "postern_packets_dropped_total",
            "Packets that went no further, by reason.",
            worker
                .drops
                .iter()
                .map(|(reason, n)| (vec![("reason", reason.as_str())], *n))
                .collect(),
        ),
        counter(
            "postern_handshakes_total",
            "WireGuard handshakes by outcome.",
            worker
                .handshakes
                .iter()
                .map(|(o, n)| (vec![("outcome", o.as_str())], *n))
                .collect(),
        ),
        gauge("postern_flows_open", "Live flows.", one(worker.open_flows)),
        gauge(
            "postern_flows_half_open",
            "Live TCP flows whose target has not answered.",
            one(worker.half_open_flows),
        ),
        gauge(
            "postern_devices",
            "Devices that may connect.",
            one(facts.devices),
        ),
        gauge(
            "postern_devices_connected",
            "Devices with an established session.",
            one(connected),
        ),
        gauge(
            "postern_policy_generation",
            "Counts up with each policy put in force.",
            one(policy.generation),
        ),
        gauge(
            "postern_policy_reload_success",
            "1 if the last attempt to load the policy succeeded.",
            one(u64::from(policy.ok)),
        ),
        gauge(
            "postern_policy_loaded_timestamp_seconds",
            "When the policy was put in force.",
            one(policy.loaded),
        ),
        gauge(
            "postern_policy_file_differs",
            "1 while the policy file on disk is not what is in force.",
            one(u64::from(!policy.file_in_force)),
        ),
        gauge(
            "postern_policy_pending_deadline_timestamp_seconds",
            "When a change of the policy is taken back, unless it is confirmed; 0: none waits.",
            one(policy
                .pending
                .as_ref()
                .map_or(0, |pending| pending.deadline)),
        ),
        counter(
            "postern_policy_reloads_total",
            "Attempts to load a policy by result.",
            vec![
                (vec![("result", "ok")], policy.reloads_ok),
                (vec![("result", "refused")], policy.reloads_failed),
            ],
        ),
        gauge(
            "postern_queue_depth",
            "Entries of each bounded queue or table.",
            queues
                .iter()
                .map(|(name, depth, _)| (vec![("queue", *name)], *depth))
                .collect(),
        ),
        gauge(
            "postern_queue_capacity",
            "Bound of each queue or table.",
            queues
                .iter()
                .map(|(name, _, bound)| (vec![("queue", *name)], *bound))
                .collect(),
        ),
        counter(
            "postern_hints_displaced_total",
            "Flows without a hint, because a newer one took their place among those watched.",
            one(worker.hints_displaced),
        ),
        gauge(
            "postern_offload",
            "1 while packets go together in this half.",
            worker
                .offload
                .iter()
                .map(|(half, state)| (vec![("half", half.as_str())], u64::from(state.on)))
                .collect(),
        ),
        counter(
            "postern_offload_fallbacks_total",
            "Refusals by the kernel of packets together, which then went one by one.",
            worker
                .offload
                .iter()
                .map(|(half, state)| (vec![("half", half.as_str())], state.fallbacks))
                .collect(),
        ),
        histogram(
            "postern_verdict_seconds",
            "Time to judge a new flow.",
            &worker.verdict_seconds,
        ),
        histogram(
            "postern_change_to_cut_seconds",
            "Time from a change to the cut of each flow that it ended.",
            &worker.change_to_cut_seconds,
        ),
        gauge(
            "postern_workers",
            "Threads that carry packets.",
            one(worker.workers.len() as u64),
        ),
        gauge(
            "postern_worker_devices",
            "Devices that may connect, by the worker that serves them.",
            by_worker(|worker| worker.devices),
        ),
        counter(
            "postern_worker_packets_total",
            "Inner packets forwarded, both ways, by worker.",
            by_worker(|worker| worker.packets),
        ),
        counter(
            "postern_worker_turns_total",
            "How often each worker looked for work.",
            by_worker(|worker| worker.turns),
        ),
        gauge(
            "postern_build_info",
            "1, with the version as label.",
            vec![(vec![("version", env!("CARGO_PKG_VERSION"))], 1)],
        ),
    ];
    families.extend(log::of(log));
    families.extend(inside::of(&facts.inside));
    families.extend(asked::of(facts));
    families.extend(names::of(facts));
    // A family without samples is malformed: nothing of its kind was seen yet.
    families.retain(|family| !family.get_metric().is_empty());
    families
}

fn one(value: u64) -> Vec<Sample<'static>> {
    vec![(Vec::new(), value)]
}

fn exact(samples: Vec<Sample<'_>>) -> Vec<(Labels<'_>, f64)> {
    samples
        .into_iter()
        .map(|(labels, count)| (labels, count as f64))
        .collect()
}

fn counter(name: &str, help: &str, samples: Vec<Sample<'_>>) -> MetricFamily {
    let samples = exact(samples);
    family(name, help, MetricType::COUNTER, samples, |metric, value| {
        let mut counter = Counter::default();
        counter.set_value(value);
        metric.set_counter(counter);
    })
}

fn gauge(name: &str, help: &str, samples: Vec<Sample<'_>>) -> MetricFamily {
    seconds(name, help, exact(samples))
}

/// A gauge of what is not counted but measured.
fn seconds(name: &str, help: &str, samples: Vec<(Labels<'_>, f64)>) -> MetricFamily {
    family(name, help, MetricType::GAUGE, samples, |metric, value| {
        let mut gauge = Gauge::default();
        gauge.set_value(value);
        metric.set_gauge(gauge);
    })
}

fn histogram(name: &str, help: &str, from: &HistogramView) -> MetricFamily {
    let mut so_far = 0;
    let mut buckets = Vec::new();
    for (bound, count) in from.bounds.iter().zip(&from.counts) {
        so_far += count;
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(so_far);
        buckets.push(bucket);
    }
    let mut histogram = Histogram::default();
    histogram.set_sample_count(from.count());
    histogram.set_sample_sum(from.sum);
    histogram.set_bucket(buckets);
    let mut metric = Metric::default();
    metric.set_histogram(histogram);
    named(name, help, MetricType::HISTOGRAM, vec![metric])
}

fn family(
    name: &str,
    help: &str,
    kind: MetricType,
    samples: Vec<(Labels<'_>, f64)>,
    set: impl Fn(&mut Metric, f64),
) -> MetricFamily {
    let metrics = samples
        .into_iter()
        .map(|(labels, value)| {
            let mut metric = Metric::from_label(labels.into_iter().map(label).collect());
            set(&mut metric, value);
            metric
        })
        .collect();
    named(name, help, kind, metrics)
}

fn named(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn label((name, value): (&str, &str)) -> LabelPair {
    let mut label = LabelPair::default();
    label.set_name(name.to_owned());
    label.set_value(value.to_owned());
    label
}
