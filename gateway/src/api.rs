//! The words of the admin API: what travels as JSON over the admin socket. Version 1.
//!
//! Directions are those of the records: `out` went from the device to the target, `in` came back.

mod identity;
mod select;

pub use identity::{
    AttributeView, InvitationView, Invite, Invited, LoginView, SetAttribute, UserView,
};
pub use select::{BadDestination, Destination, FlowFilter};

use ipnet::IpNet;
use postern_io::offload::Offloads;
use postern_proto::device_api::{CheckView, SessionView};
use postern_proto::flow_key::Protocol;
use postern_proto::keys::PublicKey;
use postern_proto::profile::ProfileGateway;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

/// The most flows that one listing returns.
pub const MAX_FLOWS_LISTED: usize = 10_000;

/// A refusal by the admin API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// What went wrong.
    pub error: String,
    /// What to do about it.
    pub help: String,
}

/// `POST /v1/devices`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDevice {
    /// Unique for ever.
    pub name: String,
    /// Who uses it; none for a machine.
    #[serde(default)]
    pub user: Option<String>,
    /// What policy sees.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The public half of the device's key. The private half never reaches the daemon.
    pub public_key: PublicKey,
    /// A pre-shared key in base64, made by the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preshared_key: Option<String>,
}

/// Answer to [`NewDevice`]: what a profile needs besides the private key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceAdded {
    /// As it was stored.
    pub device: DeviceView,
    /// Inner MTU.
    pub mtu: u16,
    /// The other end.
    pub gateway: ProfileGateway,
    /// What goes into the tunnel.
    pub include: Vec<IpNet>,
    /// Seconds between keepalives; none for never.
    pub keepalive: Option<u16>,
    /// What the operator should know: an address left out of the include list, and why.
    pub notes: Vec<String>,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceView {
    /// Unique for ever.
    pub name: String,
    /// Who uses it.
    pub user: Option<String>,
    /// What policy sees.
    pub groups: Vec<String>,
    /// Its identity.
    pub public_key: PublicKey,
    /// Whether a pre-shared key is set. The key itself is never shown.
    pub preshared_key: bool,
    /// Addresses inside the tunnel, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// How it stands.
    pub state: DeviceState,
    /// Seconds since 1970.
    pub created: u64,
    /// The invitation that it joined by.
    pub invitation: Option<String>,
    /// Seconds since 1970.
    pub approved: Option<u64>,
    /// Seconds since 1970.
    pub denied: Option<u64>,
    /// Seconds since 1970.
    pub revoked: Option<u64>,
    /// When its key came into use, seconds since 1970.
    pub key_since: u64,
    /// The key that takes over once it has been used.
    pub next_key: Option<PublicKey>,
    /// The login in force.
    pub session: Option<SessionView>,
    /// The posture checks of the policy in force.
    pub posture: Vec<CheckView>,
    /// What admins say of it.
    pub attributes: Vec<AttributeView>,
    /// Where it was last seen.
    pub last_endpoint: Option<SocketAddr>,
    /// Seconds since 1970.
    pub last_handshake: Option<u64>,
}

/// Whether a device may connect, and may reach anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceState {
    /// Policy decides what it reaches.
    Active,
    /// It reaches nothing until an admin approves it.
    WaitsForApproval,
    /// An admin said no: it reaches nothing.
    Denied,
    /// It reaches nothing until its user logs in.
    NeedsLogin,
    /// Its user is disabled: it reaches nothing.
    UserDisabled,
    /// Never again.
    Revoked,
}

/// Answer to a revocation, a policy change or a kill: durable and in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutView {
    /// Flows that were cut on both sides.
    pub flows: u64,
}

/// One live flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowView {
    /// Unique within one run of the gateway.
    pub id: u64,
    /// The flow's furthest state: `syn`, `established`, `closing`; `open` where there are none.
    pub state: String,
    /// Whose.
    pub device: String,
    /// Whose.
    pub user: Option<String>,
    /// `tcp`, `udp`, `icmp`.
    pub protocol: Protocol,
    /// The device's end.
    pub source: SocketAddr,
    /// The target's end.
    pub destination: SocketAddr,
    /// The policy's name for the target's end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The rule that allows it.
    pub rule: String,
    /// The policy generation that judged it last.
    pub generation: u64,
    /// Milliseconds since 1970.
    pub opened_ms: u64,
    /// Milliseconds since the last packet.
    pub idle_ms: u64,
    /// Device to target.
    pub bytes_out: u64,
    /// Device to target.
    pub packets_out: u64,
    /// Target to device.
    pub bytes_in: u64,
    /// Target to device.
    pub packets_in: u64,
}

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

/// One bounded queue or table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueView {
    /// Its name, as the metric label.
    pub queue: String,
    /// In it now.
    pub depth: u64,
    /// Its bound.
    pub capacity: u64,
}

/// A histogram with fixed bounds; the worker adds to plain numbers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct HistogramView {
    /// Upper bounds in seconds, ascending.
    pub bounds: Vec<f64>,
    /// Observations at or under each bound but over the one before; one more for the rest.
    pub counts: Vec<u64>,
    /// Sum of all, seconds.
    pub sum: f64,
}

/// `GET /v1/status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Status {
    /// Of the daemon.
    pub version: String,
    /// How often the gateway has started; part of every record.
    pub boot: u64,
    /// Since the daemon started.
    pub uptime_seconds: u64,
    /// Who the gateway is.
    pub public_key: PublicKey,
    /// UDP port.
    pub listen_port: u16,
    /// Name of the TUN.
    pub interface: String,
    /// `ready`, or why not.
    pub state: String,
    /// Enrolled and not revoked.
    pub devices: u64,
    /// With an established session.
    pub devices_connected: u64,
    /// Live flows.
    pub open_flows: u64,
    /// What judges.
    pub policy: PolicyStatus,
    /// Where records go.
    pub flow_log: FlowLogStatus,
    /// Fields of gateway.yaml that were changed on disk and wait for a restart.
    pub needs_restart: Vec<String>,
    /// Why gateway.yaml on disk was refused, if it was.
    pub config_errors: Vec<String>,
    /// Ways to log in that do not work now, and why.
    #[serde(default)]
    pub login_errors: Vec<String>,
    /// Counters and peers.
    pub worker: WorkerSnapshot,
}

/// What judges, and whether the file on disk is what judges.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Content hash of the policy in force.
    pub hash: String,
    /// Counts up with each policy put in force.
    pub generation: u64,
    /// Seconds since 1970, when it was put in force.
    pub loaded: u64,
    /// Whether the last attempt to load succeeded.
    pub ok: bool,
    /// Why the file on disk was refused, if it was. The older policy stays in force.
    pub errors: Vec<String>,
    /// Loads that succeeded since start.
    pub reloads_ok: u64,
    /// Loads that were refused since start.
    pub reloads_failed: u64,
}

/// Answer to `POST /v1/policy/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// False if the file is what was in force already.
    pub changed: bool,
    /// Flows that the change cut.
    pub cut: u64,
    /// After the attempt.
    pub policy: PolicyStatus,
}

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

/// `POST /v1/policy/explain`: who asks for what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExplainRequest {
    /// A stored device; its user and groups are taken from the store.
    #[serde(default)]
    pub device: Option<String>,
    /// Instead of, or over, the device's user.
    #[serde(default)]
    pub user: Option<String>,
    /// Instead of, or over, the device's groups.
    #[serde(default)]
    pub groups: Vec<String>,
    /// `192.0.2.10:22/tcp`.
    pub to: String,
}

/// Answer to [`ExplainRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explained {
    /// May the flow be opened?
    pub allow: bool,
    /// For people.
    pub text: String,
    /// For programs: rule, target, nearest rule, failed conditions.
    pub explanation: serde_json::Value,
}

/// A line of `flows tail` that is no record: the listener was too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// Records that were not sent to this listener. They are in the log.
    pub missed: u64,
}

impl HistogramView {
    /// Empty, with these upper bounds in seconds, ascending.
    #[must_use]
    pub fn with_bounds(bounds: &[f64]) -> Self {
        HistogramView {
            bounds: bounds.to_vec(),
            counts: vec![0; bounds.len() + 1],
            sum: 0.0,
        }
    }

    /// Counts one observation.
    pub fn observe(&mut self, seconds: f64) {
        let place = self.bounds.partition_point(|bound| *bound < seconds);
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
        self.sum += seconds;
    }

    /// How many observations.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn histograms_count_each_observation_once() {
        let mut histogram = HistogramView::with_bounds(&[0.1, 1.0]);
        for seconds in [0.05, 0.1, 0.5, 3.0] {
            histogram.observe(seconds);
        }
        assert_eq!(histogram.counts, [2, 1, 1]);
        assert_eq!(histogram.count(), 4);
    }
}
