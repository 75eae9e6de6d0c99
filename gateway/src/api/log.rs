//! How the flow log, its audit lines and its exporters do.

use super::HistogramView;
use serde::{Deserialize, Serialize};

/// How the flow log does. Counts are of this run. Made = written + lost + lag, and seen = written +
/// lost + waiting.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FlowLogStatus {
    /// Records made by the workers.
    pub made: u64,
    /// Records written.
    pub written: u64,
    /// Records that were lost, each counted.
    pub lost: u64,
    /// Made and neither written nor lost yet.
    pub lag: u64,
    /// Attempts seen: opened, and every one refused.
    pub flows_seen: u64,
    /// Attempts that written records stand for.
    pub flows_written: u64,
    /// Attempts that lost records stood for.
    pub flows_lost: u64,
    /// Attempts whose record is on its way.
    pub flows_waiting: FlowsWaiting,
    /// `n` of the last line.
    pub head: u64,
    /// Its hash. Written down elsewhere, it proves later that nothing before it was changed.
    pub head_hash: String,
    /// `n` of the last line that a power cut cannot take.
    pub synced: u64,
    /// Of all segments.
    pub bytes: u64,
    /// Files.
    pub segments: u64,
    /// `n` of the oldest line.
    pub oldest: u64,
    /// Its time, milliseconds since 1970; 0 for none.
    pub oldest_ms: u64,
    /// Lines that retention removed before every exporter had them.
    pub removed_unacknowledged: u64,
    /// Bytes of a torn end that were cut off at the start of this run.
    pub repaired_bytes: u64,
    /// Records of earlier runs that this run found to be lost, as it said in `crashed-run`.
    #[serde(default)]
    pub crash_lost: u64,
    /// Opening and closing records that say what the target saw as the source.
    pub egress_found: u64,
    /// Those that do not.
    pub egress_missing: u64,
    /// Time to force what was written to disk.
    pub sync_seconds: HistogramView,
    /// Why the log cannot be written now, if it cannot.
    pub failing: Option<String>,
    /// Who carries records on.
    pub exporters: Vec<ExporterStatus>,
    /// Who changed what.
    #[serde(default)]
    pub audit: AuditStatus,
}

/// Audit events of this run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditStatus {
    /// Events made: the highest `audit`.
    pub made: u64,
    /// Events in the log.
    pub written: u64,
    /// Events that were lost, each counted.
    pub lost: u64,
    /// Events made, by what was done and what came of it.
    pub events: Vec<AuditCount>,
}

/// Events of one sort.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditCount {
    /// What was done, or tried.
    pub action: String,
    /// What came of it.
    pub outcome: String,
    /// How often.
    pub count: u64,
}

/// Where attempts are whose record is not written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowsWaiting {
    /// Refusals that are counted together for up to ten seconds.
    pub window: u64,
    /// Records that the log's channel has not taken.
    pub worker: u64,
    /// Records in the channel, or being written.
    pub channel: u64,
}

/// How one exporter does. Lines written in this run = acknowledged + lag, once the exporter has
/// caught up with earlier runs; `position` + lag = head at every moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ExporterStatus {
    /// `loki`, `otlp`, `file` or `stdout`.
    pub name: String,
    /// `n` of the last line that it is done with: delivered, parked or missed.
    pub position: u64,
    /// Those of them that were written in this run.
    pub acknowledged: u64,
    /// Lines behind `position`.
    pub lag_records: u64,
    /// Age of the oldest of them, whole seconds.
    pub lag_seconds: u64,
    /// Attempts that failed in this run.
    pub retries: u64,
    /// Lines that the server refused for ever in this run.
    pub parked: u64,
    /// Lines that were gone or damaged in this run before they could be sent.
    pub missed: u64,
    /// Why nothing can be delivered now, if so.
    pub failing: Option<String>,
}
