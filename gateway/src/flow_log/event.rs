//! What the log says about itself: lines with `kind: log`, made by the flow-log thread.
//!
//! Together with the records they make the log complete. Within a run (`boot`) every worker
//! numbers its records `seq` from 1 without gaps, and the control plane its audit events `audit`,
//! so that for each worker
//!
//! - a number between two records may miss only if a [`Lost`] of the same `boot` covers it;
//! - after the last record nothing is missing if [`Event::Stopped`] says so (`made` is its `seq`);
//! - a run without `stopped` is explained by a [`CrashedRun`] of a later run, which names it in
//!   `crashed_boot`.
//!
//! For audit events the same holds, with [`AuditLost`] and the counts beside those of the workers.
//!
//! Numbers, times and words of closed lists only: nothing here names a person. The one free text
//! is `error`, as the operating system words it.

use postern_engine::record::{SCHEMA, date_time, rfc3339};
use postern_proto::now::Wall;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;

/// One line of the log about the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct LogEvent {
    /// Version of the fields, as in records.
    pub schema: u32,
    /// What the line is about.
    pub kind: LogKind,
    /// The gateway's name.
    pub gateway: Arc<str>,
    /// The run of the gateway that says it.
    pub boot: Arc<str>,
    /// When it was said.
    #[serde(serialize_with = "rfc3339")]
    #[schemars(schema_with = "date_time")]
    pub time: Wall,
    /// What happened.
    #[serde(flatten)]
    pub event: Event,
}

/// The kind of a [`LogEvent`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LogKind {
    /// About the log itself.
    #[default]
    Log,
}

/// What happened to the log; its name is in `event`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub enum Event {
    /// The gateway started: the first line of a run.
    Started(Started),
    /// The end of the log was torn, as a power cut leaves it, and was cut off.
    Repaired(Repaired),
    /// Bytes in the log are not what was written. They stay where they are, for `flows verify`.
    Damaged(Damaged),
    /// The run before ended without a word.
    CrashedRun(CrashedRun),
    /// Records were made and could not be written.
    Lost(Lost),
    /// Audit events were made and could not be written.
    AuditLost(AuditLost),
    /// The log could not be written for a while. Said when it can be again.
    Unwritable(Unwritable),
    /// The clock was set: times before and after do not compare.
    ClockStepped(ClockStepped),
    /// A segment was removed, as the configuration says.
    Removed(Removed),
    /// The gateway stopped in order: the last line of a run.
    Stopped(Stopped),
}

/// See [`Event::Started`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Started {
    /// The program's version.
    pub version: Arc<str>,
    /// How the run before ended.
    pub previous: Previous,
    /// The run before, if there was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "unless there was none"))]
    pub previous_boot: Option<Arc<str>>,
    /// How many workers make records in this run, numbered from 0.
    #[serde(rename = "worker_count")]
    pub workers: u8,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Previous {
    /// There was none: the log begins.
    None,
    /// In order: it said `stopped`.
    Clean,
    /// Without a word; a `crashed-run` follows.
    Crashed,
}

/// See [`Event::Repaired`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Repaired {
    /// `n` of the first line of the segment: its file's name.
    pub segment: u64,
    /// How many bytes were cut off. They were no whole line.
    pub cut_bytes: u64,
}

/// See [`Event::Damaged`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Damaged {
    /// `n` of the first line of the segment: its file's name.
    pub segment: u64,
    /// Where in the file it begins.
    pub offset: u64,
    /// How many bytes are in doubt: up to the end of the file.
    pub bytes: u64,
}

/// See [`Event::CrashedRun`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CrashedRun {
    /// The run that ended without a word (`boot` is the run that says so).
    pub crashed_boot: Arc<str>,
    /// What is known of its workers, in their order. A worker that is not here wrote nothing.
    pub workers: Vec<WorkerCounts>,
    /// Flows that were open, and got a closing record with `close_reason: crashed`.
    pub flows_closed: u64,
    /// What became of its audit events.
    #[serde(flatten)]
    pub audit: AuditCounts,
}

/// What became of the audit events of one run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AuditCounts {
    /// How many were made: the highest `audit`. Absent after a crash, when nobody knows.
    #[serde(rename = "audit_made", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "when known"))]
    pub made: Option<u64>,
    /// How many of them are in the log.
    #[serde(rename = "audit_written")]
    pub written: u64,
    /// How many of them are known not to be, those that an `audit-lost` line states included.
    #[serde(rename = "audit_lost")]
    pub lost: u64,
}

/// What became of the records of one worker in one run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct WorkerCounts {
    /// The worker.
    pub worker: u8,
    /// How many it made: the highest `seq`. Absent after a crash, when nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "when known"))]
    pub made: Option<u64>,
    /// How many of them are in the log.
    pub written: u64,
    /// How many of them are known not to be, those that a `lost` line states included. Where
    /// `made` is known, it is `made` less `written`.
    pub lost: u64,
}

/// See [`Event::Lost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Lost {
    /// The worker that made them, in this `boot`.
    pub worker: u8,
    /// How many records: that many of the worker's `seq` have no line.
    pub count: u64,
    /// How many attempts they stood for.
    pub flows: u64,
    /// The first `seq` that is missing, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "when known"))]
    pub first_seq: Option<u64>,
    /// The last `seq` that is missing, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "when known"))]
    pub last_seq: Option<u64>,
    /// When the first of them was lost.
    #[serde(serialize_with = "rfc3339")]
    #[schemars(schema_with = "date_time")]
    pub from: Wall,
    /// When the last of them was lost.
    #[serde(serialize_with = "rfc3339")]
    #[schemars(schema_with = "date_time")]
    pub to: Wall,
}

/// See [`Event::AuditLost`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct AuditLost {
    /// How many events of this `boot`.
    pub count: u64,
    /// The first `audit` that is missing.
    pub first_audit: u64,
    /// The last `audit` that is missing.
    pub last_audit: u64,
    /// When the first of them was lost.
    #[serde(serialize_with = "rfc3339")]
    #[schemars(schema_with = "date_time")]
    pub from: Wall,
    /// When the last of them was lost.
    #[serde(serialize_with = "rfc3339")]
    #[schemars(schema_with = "date_time")]
    pub to: Wall,
}

/// See [`Event::Unwritable`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Unwritable {
    /// When writing failed first.
    #[serde(serialize_with = "rfc3339")]
    #[schemars(schema_with = "date_time")]
    pub from: Wall,
    /// When it worked again.
    #[serde(serialize_with = "rfc3339")]
    #[schemars(schema_with = "date_time")]
    pub to: Wall,
    /// What the operating system said first.
    pub error: String,
}

/// See [`Event::ClockStepped`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ClockStepped {
    /// What the clock should have said, by the time that had passed.
    #[serde(serialize_with = "rfc3339")]
    #[schemars(schema_with = "date_time")]
    pub from: Wall,
    /// What it said.
    #[serde(serialize_with = "rfc3339")]
    #[schemars(schema_with = "date_time")]
    pub to: Wall,
}

/// See [`Event::Removed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Removed {
    /// `n` of the first line that is gone.
    pub from_n: u64,
    /// `n` of the last line that is gone.
    pub to_n: u64,
    /// Which limit asked for it.
    pub why: Removal,
    /// How many of the lines some exporter had not delivered yet.
    pub unacknowledged: u64,
}

/// Why a segment was removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Removal {
    /// All segments together were larger than `keep_size`.
    Size,
    /// It was older than `keep_age`, and every exporter had it.
    Age,
}

/// See [`Event::Stopped`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Stopped {
    /// Every worker of the run, in order.
    pub workers: Vec<WorkerCounts>,
    /// Attempts that the run saw: opened and refused.
    pub flows_seen: u64,
    /// Attempts that written records stand for.
    pub flows_written: u64,
    /// Attempts that lost records stood for.
    pub flows_lost: u64,
    /// The run's audit events.
    #[serde(flatten)]
    pub audit: AuditCounts,
}

impl LogEvent {
    /// `event`, said by this run at this time.
    #[must_use]
    pub fn new(gateway: &Arc<str>, boot: &Arc<str>, time: Wall, event: Event) -> LogEvent {
        LogEvent {
            schema: SCHEMA,
            kind: LogKind::Log,
            gateway: gateway.clone(),
            boot: boot.clone(),
            time,
            event,
        }
    }
}

#[cfg(test)]
mod tests;
