//! One record of every attempt: when it opens, when it ends, and when it is refused.
//!
//! The closing record stands by itself. Fields are stable: schema 4.

use crate::flow::tcp::TcpState;
use crate::identity::Who;
use crate::words::Words;
use postern_proto::flow_key::Protocol;
use postern_proto::now::Wall;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Version of the record's fields.
pub const SCHEMA: u32 = 4;

/// One line of the flow log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Record {
    /// Version of the fields: rises when one changes its name, its type or its meaning.
    pub schema: u32,
    /// What the line is about.
    pub kind: Kind,
    /// The gateway's name.
    pub gateway: Arc<str>,
    /// Which run of the gateway.
    pub boot: Arc<str>,
    /// Which of its workers made the record, from 0. A device keeps its worker through a run.
    pub worker: u8,
    /// Counts from 1 for each worker in each run, without gaps: a missing number is a missing
    /// record.
    pub seq: u64,
    /// When the record was made.
    #[serde(serialize_with = "rfc3339")]
    #[schemars(schema_with = "date_time")]
    pub time: Wall,
    /// Which moment of the attempt this is.
    pub state: State,
    /// What was decided.
    pub verdict: Decision,
    /// The rule that decided; `default` when none matched.
    pub rule: String,
    /// SHA-256 of the text of the policy that decided.
    pub policy: Arc<str>,
    /// What rules that are not in force would have decided.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
    /// The grant that allows it.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub grant: Option<Arc<Granted>>,
    /// Who asked.
    #[serde(flatten)]
    pub who: Arc<Who>,
    /// Seconds since that login.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "when a login is in force"))]
    pub session_age_s: Option<u64>,
    /// The posture checks of the rule that decided, or of the one that would have allowed: `pass`
    /// or `fail` at this moment, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "when that rule asks for some"))]
    pub posture: Option<Box<Posture>>,
    /// Where the device was on the Internet at this moment: address and port, or a pseudonym of the
    /// address.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "once the device was heard, unless `privacy` drops it"))]
    pub client_outer: Option<Outer>,
    /// TCP, UDP or ICMP.
    #[schemars(schema_with = "protocol")]
    pub protocol: Protocol,
    /// The device's inner address (the claimed one, for `spoofed-source`).
    pub src_address: IpAddr,
    /// The device's port, or the echo id.
    pub src_port: u16,
    /// The address that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "unless `scan`"))]
    pub dst_address: Option<IpAddr>,
    /// The port that was asked for; zero for ICMP.
    pub dst_port: u16,
    /// The policy's name for the destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "when a target of the policy has this address and port"))]
    pub target: Option<String>,
    /// What the target saw as the source. Only the kernel that translates knows it, so the engine
    /// leaves it to whoever writes the record.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// What depends on the state.
    #[serde(flatten)]
    pub detail: Detail,
}

/// What the policy would have decided with its rules in `mode: shadow` in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Shadow {
    /// What the rule in `shadow_rule` would have decided, were it in force.
    #[serde(rename = "shadow_verdict")]
    #[schemars(extend("x-present" = "when a rule in `mode: shadow` would have decided"))]
    pub verdict: Decision,
    /// The rule in `mode: shadow` that would have decided.
    #[serde(rename = "shadow_rule")]
    #[schemars(extend("x-present" = "with `shadow_verdict`"))]
    pub rule: String,
}

/// A grant: `rule` is the entry of `grants:` that it rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Granted {
    /// Names the grant that allows it, as in `grant list`.
    #[serde(rename = "grant")]
    #[schemars(extend("x-present" = "open, closed; when a grant allows it"))]
    pub id: Arc<str>,
    /// Why it was asked for, in the words of who asked.
    #[serde(rename = "grant_reason", skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "with `grant`, while `privacy` keeps users"))]
    pub reason: Option<Arc<str>>,
    /// Nobody approved the grant.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("x-present" = "with `grant`, when true"))]
    pub break_glass: bool,
    /// What it is for. Not in the record: for the words when it ends.
    #[serde(skip)]
    pub target: Arc<str>,
    /// When it ends by time. Not in the record either.
    #[serde(skip)]
    pub until: Wall,
}

/// Checks by name, at most as many as a rule may ask for.
pub type Posture = BTreeMap<String, CheckResult>;

/// How a device did in a posture check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CheckResult {
    /// What was reported is what the policy expects.
    Pass,
    /// It is not, or it is stale, or nothing was reported.
    Fail,
}

/// What a line of the log is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An attempt to reach a target.
    #[default]
    Flow,
}

/// The outer end of a device's tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Outer {
    /// Address and port.
    Address(#[schemars(with = "String")] SocketAddr),
    /// What stands for the address in a log that must not keep it.
    Pseudonym(String),
}

/// The source that a target saw: what joins its own logs to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Egress {
    /// The source address that the target saw: the gateway's where it masquerades, the device's
    /// where it routes.
    #[serde(rename = "egress_address")]
    #[schemars(extend("x-present" = "open, closed; when known"))]
    pub address: IpAddr,
    /// The source port that the target saw; the echo id for ICMP.
    #[serde(rename = "egress_port")]
    #[schemars(extend("x-present" = "open, closed; when known"))]
    pub port: u16,
}

/// Which moment of an attempt a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Allowed, and its first packet forwarded.
    Open,
    /// Over; the record says everything.
    Closed,
    /// Refused.
    Denied,
}

/// Allowed or denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Decision {
    /// A rule permits it.
    Allow,
    /// A rule forbids it, or none permits it.
    Deny,
}

/// The part of a record that depends on its state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Detail {
    /// Of an open record.
    Open(Opened),
    /// Of a closed record.
    Closed(Closed),
    /// Of a denied record.
    Denied(Denied),
}

/// What is known when a flow opens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Opened {
    /// Joins the open record of a flow to its closing one within a run.
    pub flow: u64,
    /// When its first packet came.
    #[serde(serialize_with = "rfc3339")]
    #[schemars(schema_with = "date_time")]
    pub start: Wall,
    /// Taken up in the middle, after a restart of the gateway.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("x-present" = "when true"))]
    pub resumed: bool,
}

/// What is known when a flow is over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Closed {
    /// Joins the open record of a flow to its closing one within a run.
    pub flow: u64,
    /// When its first packet came.
    #[serde(serialize_with = "rfc3339")]
    #[schemars(schema_with = "date_time")]
    pub start: Wall,
    /// When its last packet passed.
    #[serde(serialize_with = "rfc3339")]
    #[schemars(schema_with = "date_time")]
    pub end: Wall,
    /// From first to last packet, milliseconds.
    pub duration_ms: u64,
    /// Taken up in the middle, after a restart of the gateway.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("x-present" = "when true"))]
    pub resumed: bool,
    /// Bytes from the device to the target, inner IP headers included.
    pub bytes_out: u64,
    /// Bytes from the target to the device.
    pub bytes_in: u64,
    /// Packets from the device to the target.
    pub packets_out: u64,
    /// Packets from the target to the device.
    pub packets_in: u64,
    /// The furthest state of the connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "TCP"))]
    pub tcp_state: Option<TcpState>,
    /// How it ended.
    pub close_reason: CloseReason,
    /// The rule that comes nearest now, and what it asks for; or why the device reaches nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "when a change of policy or facts cut it"))]
    pub failed_condition: Option<Words>,
    /// What the first bytes showed of the protocol; none for what is not TCP, shows nothing, or
    /// was taken up in the middle.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub hints: Option<Box<Hints>>,
}

/// What the first bytes of a TCP connection said in clear. Each end says what it likes: this is a
/// hint for whoever reads the record, and no proof of anything.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Hints {
    /// What the first bytes look like: a hint, no proof.
    #[schemars(extend("x-present" = "when they show it, unless `privacy` drops it"))]
    pub app: App,
    /// The SSH client's identification string (RFC 4253, section 4.2), at most 253 characters of
    /// printable ASCII; `?` stands for any other byte.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "`ssh`, when it said so"))]
    pub ssh_client: Option<Box<str>>,
    /// The SSH server's identification string, as `ssh_client`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "`ssh`, when it said so"))]
    pub ssh_server: Option<Box<str>>,
    /// The host name that a TLS client asked for (RFC 6066, section 3), in lower case, at most 253
    /// characters; with Encrypted Client Hello the outer one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "`tls`, when it said so"))]
    pub tls_sni: Option<Box<str>>,
}

/// A protocol that first bytes give away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum App {
    /// Either end says that it speaks SSH.
    Ssh,
    /// A ClientHello, whatever is inside.
    Tls,
    /// An HTTP/1 request line in clear.
    Http,
}

/// What is known of a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Denied {
    /// Why, from a closed list: `policy`, `not-enrolled`, `not-approved`, `login-required`,
    /// `user-disabled`, `device-to-device`, `spoofed-source`, `no-flow`, `table-full`,
    /// `device-quota`, `log-unavailable`.
    pub deny_reason: &'static str,
    /// The condition that failed, in words: of the rule that would have allowed, where the policy
    /// decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "when there is more to say than `deny_reason`"))]
    pub failed_condition: Option<Words>,
    /// The rule that would have allowed, had that condition held.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-present" = "when a rule would have"))]
    pub nearest_rule: Option<String>,
    /// How many attempts this record stands for. The sum over all records misses none.
    pub count: u64,
    /// The first of them.
    #[serde(serialize_with = "rfc3339")]
    #[schemars(schema_with = "date_time")]
    pub start: Wall,
    /// The last of them.
    #[serde(serialize_with = "rfc3339")]
    #[schemars(schema_with = "date_time")]
    pub end: Wall,
    /// The ports that were asked for, at most 16.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-present" = "when several"))]
    pub dst_ports: Vec<u16>,
    /// The record stands for attempts at many addresses.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schemars(extend("x-present" = "when true"))]
    pub scan: bool,
}

/// How a flow ended: a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum CloseReason {
    /// Both ends said so.
    Fin,
    /// One end aborted.
    Rst,
    /// Nothing passed for as long as its protocol allows.
    Idle,
    /// The policy no longer allows it.
    Policy,
    /// The login ended, or became too old for the rule.
    Session,
    /// A posture check no longer holds.
    Posture,
    /// The device was revoked, its approval was withdrawn, or its user was disabled.
    Revoked,
    /// The grant that allowed it ended or was revoked.
    GrantEnded,
    /// An admin cut it.
    Killed,
    /// The gateway stopped.
    Shutdown,
    /// The gateway ended without a word. Its next run wrote the record; what passed is not known.
    Crashed,
    /// The target never answered.
    Unanswered,
    /// The network said that the target cannot be reached.
    Error,
}

impl CloseReason {
    /// The metric label and the log field.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            CloseReason::Fin => "fin",
            CloseReason::Rst => "rst",
            CloseReason::Idle => "idle",
            CloseReason::Policy => "policy",
            CloseReason::Session => "session",
            CloseReason::Posture => "posture",
            CloseReason::Revoked => "revoked",
            CloseReason::GrantEnded => "grant-ended",
            CloseReason::Killed => "killed",
            CloseReason::Shutdown => "shutdown",
            CloseReason::Crashed => "crashed",
            CloseReason::Unanswered => "unanswered",
            CloseReason::Error => "error",
        }
    }
}

impl Record {
    /// How many attempts the record stands for: the sum over open and denied records is the
    /// number of attempts.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        match &self.detail {
            Detail::Open(_) => 1,
            Detail::Closed(_) => 0,
            Detail::Denied(denied) => denied.count,
        }
    }
}

/// Writes a time as all lines of the log do: [`Wall::rfc3339`].
///
/// # Errors
/// Those of the serializer.
pub fn rfc3339<S: Serializer>(time: &Wall, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&time.rfc3339())
}

/// The schema of what [`rfc3339`] writes.
pub fn date_time(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "format": "date-time" })
}

fn protocol(_: &mut SchemaGenerator) -> Schema {
    let all = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp].map(Protocol::as_str);
    json_schema!({ "type": "string", "enum": all })
}
