//! What the data plane says of itself.

use super::{HistogramView, QueueView};
use postern_io::offload::Offloads;
use postern_proto::keys::PublicKey;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// One enrolled device, as the worker sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerView {
    /// Its name.
    pub device: String,
    /// Its identity.
    pub public_key: PublicKey,
    /// Where it is.
    pub endpoint: Option<SocketAddr>,
    /// Seconds since 1970.
    pub last_handshake: Option<u64>,
    /// Whether a session is established now.
    pub connected: bool,
    /// Inner bytes that it sent.
    pub bytes_out: u64,
    /// Inner bytes that it was sent.
    pub bytes_in: u64,
    /// Live flows.
    pub flows: u64,
    /// The inner MTU that its client found the path to carry, bytes; none: as configured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u16>,
}

/// The data plane's state at one moment: plain counters, read at scrape time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct WorkerSnapshot {
    /// Milliseconds since 1970.
    pub taken_ms: u64,
    /// Policy generation in force.
    pub generation: u64,
    /// Attempts by verdict and rule since start. Rules of former policies may be dropped.
    pub verdicts: Vec<VerdictCount>,
    /// Attempts that rules in `mode: shadow` would have decided, since start.
    #[serde(default)]
    pub shadows: Vec<ShadowCount>,
    /// Flows opened under grants that nobody had approved, since start.
    #[serde(default)]
    pub break_glass_flows: u64,
    /// Inner traffic that was forwarded.
    pub traffic: Traffic,
    /// Packets dropped, by [`postern_proto::fate::DropReason`] text.
    pub drops: BTreeMap<String, u64>,
    /// Handshakes by outcome; `handed`: initiations that passed the front door.
    pub handshakes: BTreeMap<String, u64>,
    /// Live flows.
    pub open_flows: u64,
    /// Live flows whose target has not answered.
    pub half_open_flows: u64,
    /// Every enrolled device.
    pub peers: Vec<PeerView>,
    /// Bounded queues and tables of the worker.
    pub queues: Vec<QueueView>,
    /// Flows without a hint, because a newer one took their place before they had said enough.
    #[serde(default)]
    pub hints_displaced: u64,
    /// How each half of the offloads stands.
    #[serde(default)]
    pub offload: Offloads,
    /// Time to judge one new flow.
    pub verdict_seconds: HistogramView,
    /// Time from a change to the last byte that it ended.
    pub change_to_cut_seconds: HistogramView,
    /// Each worker by itself; everything above is of all together.
    #[serde(default)]
    pub workers: Vec<WorkerView>,
}

/// One worker: a thread with devices of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerView {
    /// From 0; as in records.
    pub worker: u8,
    /// Enrolled devices that it serves.
    pub devices: u64,
    /// Live flows.
    pub flows: u64,
    /// Inner packets that it forwarded, both ways.
    pub packets: u64,
    /// How often it looked for work.
    pub turns: u64,
}

/// Attempts with one outcome.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerdictCount {
    /// `allow` or `deny`.
    pub verdict: String,
    /// Name of the rule, or `default`.
    pub rule: String,
    /// So many.
    pub flows: u64,
}

/// Attempts that a rule in `mode: shadow` would have decided, with one outcome.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShadowCount {
    /// Name of the rule.
    pub rule: String,
    /// What it would have decided: `allow` or `deny`.
    pub verdict: String,
    /// What happened: `allow` or `deny`.
    pub live: String,
    /// So many.
    pub attempts: u64,
}

/// Forwarded traffic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Device to target.
    pub bytes_out: u64,
    /// Device to target.
    pub packets_out: u64,
    /// Target to device.
    pub bytes_in: u64,
    /// Target to device.
    pub packets_in: u64,
}
