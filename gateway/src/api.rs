//! The words of the admin API: what travels as JSON over the admin socket. Version 1.
//!
//! Directions are those of the records: `out` went from the device to the target, `in` came back.

mod devices;
mod grants;
mod identity;
mod log;
mod names;
mod policy;
mod select;
mod worker;

pub use devices::{ChangeLabels, DeviceAdded, DeviceState, DeviceView, NewDevice};
pub use grants::DecideAs;
pub use identity::{
    AttributeView, InvitationView, Invite, Invited, LoginView, SetAttribute, UserView,
};
pub use log::{AuditCount, AuditStatus, ExporterStatus, FlowLogStatus, FlowsWaiting};
pub use names::NameView;
pub use policy::{
    Applied, ApplyPolicy, ConfirmPolicy, Confirmed, Force, PendingView, PolicyChangeView,
    PolicySource, RollBack,
};
pub use select::{BadDestination, Destination, FlowFilter};
pub use worker::{PeerView, ShadowCount, Traffic, VerdictCount, WorkerSnapshot, WorkerView};

use postern_engine::policy::Tuple;
use postern_proto::flow_key::Protocol;
use postern_proto::keys::PublicKey;
use serde::{Deserialize, Serialize};
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
    /// Where the device is on the Internet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer: Option<IpAddr>,
    /// How the device stands, by the name that records have for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub facts: Option<String>,
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

impl FlowView {
    /// What it was judged by: where it goes.
    #[must_use]
    pub fn to(&self) -> Tuple {
        Tuple {
            address: self.destination.ip(),
            port: self.destination.port(),
            protocol: self.protocol,
        }
    }
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
    /// What the names of the policy mean.
    #[serde(default)]
    pub names: Vec<NameView>,
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
    /// Whether the file on disk is what is in force.
    #[serde(default)]
    pub file_in_force: bool,
    /// Why the file on disk could not be made what is in force; it is tried again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unwritten: Option<String>,
    /// The change that waits for its confirmation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingView>,
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
    fn what_is_told_once_is_not_shown() {
        let invited: Invited = serde_json::from_value(serde_json::json!({
            "invitation": {
                "id": "abcdefgh", "kind": "personal", "state": "open", "user": "ana",
                "groups": [], "require": "none", "uses": 1, "used": 0, "created": 1,
                "expires": 2, "made_by": "uid 0",
            },
            "text": "secret",
        }))
        .expect("an answer");
        let shown = format!("{invited:?}");
        assert!(
            shown.contains("abcdefgh") && !shown.contains("secret"),
            "{shown}"
        );
        let new = NewDevice {
            name: "ana-laptop".into(),
            user: None,
            labels: Vec::new(),
            groups: Vec::new(),
            public_key: postern_proto::keys::PublicKey([1; 32]),
            preshared_key: Some("secret".into()),
        };
        let shown = format!("{new:?}");
        assert!(
            shown.contains("ana-laptop") && !shown.contains("secret"),
            "{shown}"
        );
    }

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
