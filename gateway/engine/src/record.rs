//! One record of every attempt: when it opens, when it ends, and when it is refused.
//!
//! The closing record stands by itself. Fields are stable: schema 2.

use crate::flow::tcp::TcpState;
use crate::identity::Who;
use crate::words::Words;
use postern_proto::flow_key::Protocol;
use postern_proto::now::Wall;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Version of the record's fields.
pub const SCHEMA: u32 = 2;

/// One line of the flow log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Record {
    /// [`SCHEMA`].
    pub schema: u32,
    /// A record about traffic; other lines of the log say other things.
    pub kind: Kind,
    /// The gateway's name.
    pub gateway: Arc<str>,
    /// This run of the gateway.
    pub boot: Arc<str>,
    /// The shard that made it, from 0.
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
    /// SHA-256 of the policy that decided.
    pub policy: Arc<str>,
    /// Who asked.
    #[serde(flatten)]
    pub who: Arc<Who>,
    /// Where the device was on the Internet at this moment; absent while nobody knows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_outer: Option<Outer>,
    /// TCP, UDP or ICMP.
    #[schemars(schema_with = "protocol")]
    pub protocol: Protocol,
    /// The device's inner address (the claimed one, for `spoofed-source`).
    pub src_address: IpAddr,
    /// The device's port, or the echo id.
    pub src_port: u16,
    /// The address that was asked for; none when one record stands for many (`scan`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dst_address: Option<IpAddr>,
    /// The port that was asked for; zero for ICMP.
    pub dst_port: u16,
    /// The policy's name for the destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// What the target saw as the source. Only the kernel that translates knows it, so the engine
    /// leaves it to whoever writes the record.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,
    /// What depends on the state.
    #[serde(flatten)]
    pub detail: Detail,
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
    /// The gateway's address where it masquerades, the device's where it routes.
    #[serde(rename = "egress_address")]
    pub address: IpAddr,
    /// The port that the kernel chose; the echo id for ICMP.
    #[serde(rename = "egress_port")]
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
    pub resumed: bool,
    /// Bytes from the device to the target, inner IP headers included.
    pub bytes_out: u64,
    /// Bytes from the target to the device.
    pub bytes_in: u64,
    /// Packets from the device to the target.
    pub packets_out: u64,
    /// Packets from the target to the device.
    pub packets_in: u64,
    /// The furthest state, for TCP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tcp_state: Option<TcpState>,
    /// How it ended.
    pub close_reason: CloseReason,
    /// For a flow that was cut: the condition that no longer holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_condition: Option<Words>,
    /// What the first bytes showed of the protocol; none for what is not TCP, shows nothing, or
    /// was taken up in the middle.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub hints: Option<Box<Hints>>,
}

/// What the first bytes of a TCP connection said in clear. Each end says what it likes: this is a
/// hint for whoever reads the record, and no proof of anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Hints {
    /// The protocol: `ssh` when either end says so, `tls` for a ClientHello, `http` for an HTTP/1
    /// request line. Example: `"ssh"`.
    pub app: App,
    /// The SSH client's identification string (RFC 4253, section 4.2), at most 253 characters of
    /// printable ASCII; `?` stands for any other byte. In closed records with `app` `ssh`, if the
    /// client sent one. Example: `"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_client: Option<Box<str>>,
    /// The SSH server's identification string, as `ssh_client`. Example: `"SSH-2.0-OpenSSH_9.6"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ssh_server: Option<Box<str>>,
    /// The host name that a TLS client asked for (RFC 6066, section 3), in lower case, at most 253
    /// characters; with Encrypted Client Hello the outer one. In closed records with `app` `tls`,
    /// if the client named one: none when it connects to an address. Example:
    /// `"kubernetes.example.com"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tls_sni: Option<Box<str>>,
}

/// A protocol that first bytes give away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum App {
    /// SSH.
    Ssh,
    /// TLS, whatever is inside.
    Tls,
    /// HTTP/1 in clear.
    Http,
}

/// What is known of a refusal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Denied {
    /// From the closed list of drop reasons.
    pub deny_reason: &'static str,
    /// The condition that failed, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_condition: Option<Words>,
    /// The rule that would have allowed, had that condition held.
    #[serde(skip_serializing_if = "Option::is_none")]
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
    /// The ports that were asked for, at most 16, when there were several.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub dst_ports: Vec<u16>,
    /// The record stands for attempts at many addresses.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
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
    /// The session became too old.
    Session,
    /// A posture check no longer holds.
    Posture,
    /// The device was revoked.
    Revoked,
    /// The grant ended.
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
