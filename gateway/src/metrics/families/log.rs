//! The flow log and its exporters. Counts are of this run: made = written + lost + lag (records),
//! seen = written + lost + waiting (attempts), head = position + lag (lines, for each exporter).

use super::{Sample, counter, gauge, histogram, one, seconds};
use crate::api::{ExporterStatus, FlowLogStatus};
use prometheus::proto::MetricFamily;

pub(super) fn of(log: &FlowLogStatus) -> Vec<MetricFamily> {
    let waiting = log.flows_waiting;
    vec![
        counter(
            "postern_flows_seen_total",
            "Attempts: flows opened, and every one refused.",
            one(log.flows_seen),
        ),
        counter(
            "postern_flows_written_total",
            "Attempts that records in the log stand for.",
            one(log.flows_written),
        ),
        counter(
            "postern_flows_lost_total",
            "Attempts whose records were lost.",
            one(log.flows_lost),
        ),
        gauge(
            "postern_flows_waiting",
            "Attempts whose record is on its way, by where it is.",
            vec![
                (vec![("where", "window")], waiting.window),
                (vec![("where", "worker")], waiting.worker),
                (vec![("where", "channel")], waiting.channel),
            ],
        ),
        counter("postern_records_made_total", "Records made.", one(log.made)),
        counter(
            "postern_records_written_total",
            "Records in the log.",
            one(log.written),
        ),
        counter(
            "postern_records_lost_total",
            "Records that were lost.",
            one(log.lost),
        ),
        counter(
            "postern_audit_events_total",
            "Changes and tries of one, by what was done and what came of it.",
            log.audit
                .events
                .iter()
                .map(|one| {
                    let labels = vec![
                        ("action", one.action.as_str()),
                        ("outcome", one.outcome.as_str()),
                    ];
                    (labels, one.count)
                })
                .collect(),
        ),
        counter(
            "postern_audit_written_total",
            "Audit events in the log.",
            one(log.audit.written),
        ),
        counter(
            "postern_audit_lost_total",
            "Audit events that were lost.",
            one(log.audit.lost),
        ),
        gauge(
            "postern_log_head",
            "Number of the log's last line.",
            one(log.head),
        ),
        gauge(
            "postern_log_synced",
            "Number of the last line that a power cut cannot take.",
            one(log.synced),
        ),
        gauge(
            "postern_log_writable",
            "0 while records cannot be written.",
            one(u64::from(log.failing.is_none())),
        ),
        gauge(
            "postern_log_bytes",
            "Size of the log on disk.",
            one(log.bytes),
        ),
        gauge(
            "postern_log_segments",
            "Files of the log.",
            one(log.segments),
        ),
        seconds(
            "postern_log_oldest_timestamp_seconds",
            "When the oldest line was written; 0 for none.",
            vec![(Vec::new(), log.oldest_ms as f64 / 1e3)],
        ),
        histogram(
            "postern_log_sync_seconds",
            "Time to force records to disk.",
            &log.sync_seconds,
        ),
        counter(
            "postern_log_removed_unacknowledged_total",
            "Lines that retention removed before every exporter had them.",
            one(log.removed_unacknowledged),
        ),
        counter(
            "postern_log_repaired_bytes_total",
            "Bytes of a torn end that were cut off at the start.",
            one(log.repaired_bytes),
        ),
        counter(
            "postern_records_lost_in_crashes_total",
            "Records of earlier runs that this run found to be lost.",
            one(log.crash_lost),
        ),
        counter(
            "postern_egress_total",
            "Opening and closing records, by whether they say what the target saw as the source.",
            vec![
                (vec![("result", "found")], log.egress_found),
                (vec![("result", "missing")], log.egress_missing),
            ],
        ),
        gauge(
            "postern_export_up",
            "0 while an exporter cannot deliver.",
            each(log, |one| u64::from(one.failing.is_none())),
        ),
        gauge(
            "postern_export_position",
            "Number of the last line that an exporter has delivered.",
            each(log, |one| one.position),
        ),
        counter(
            "postern_export_acknowledged_total",
            "Lines of this run that an exporter has delivered.",
            each(log, |one| one.acknowledged),
        ),
        gauge(
            "postern_export_lag_records",
            "Lines that an exporter has not delivered.",
            each(log, |one| one.lag_records),
        ),
        gauge(
            "postern_export_lag_seconds",
            "Age of the oldest line that an exporter has not delivered.",
            each(log, |one| one.lag_seconds),
        ),
        counter(
            "postern_export_retries_total",
            "Deliveries that were tried again.",
            each(log, |one| one.retries),
        ),
        counter(
            "postern_export_parked_total",
            "Lines that a server refuses for ever, and that were put aside.",
            each(log, |one| one.parked),
        ),
        counter(
            "postern_export_missed_total",
            "Lines that retention removed before an exporter could deliver them.",
            each(log, |one| one.missed),
        ),
    ]
}

fn each(log: &FlowLogStatus, count: fn(&ExporterStatus) -> u64) -> Vec<Sample<'_>> {
    log.exporters
        .iter()
        .map(|one| (vec![("exporter", one.name.as_str())], count(one)))
        .collect()
}
