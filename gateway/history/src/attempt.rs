//! A line of the flow log, as what was asked, by whom, and what came of it.

use postern_engine::policy::Tuple;
use postern_proto::flow_key::Protocol;
use postern_proto::now::Wall;
use serde::Deserialize;
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What one record says of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it was judged: the first packet. To the millisecond, rounded down.
    pub start: Wall,
    /// Which moment of it the record is about.
    pub state: State,
    /// What was decided.
    pub allow: bool,
    /// The rule that decided.
    pub rule: String,
    /// SHA-256 of the policy that decided, 64 hex digits.
    pub policy: String,
    /// The user; none for a machine, or where privacy dropped it.
    pub user: Option<String>,
    /// The user's groups.
    pub groups: Vec<String>,
    /// The device; none where privacy dropped it.
    pub device: Option<String>,
    /// Names the facts that the verdict rests on; none in records of schema 3 and before.
    pub facts: Option<String>,
    /// The issuer of the login in force, where there was one.
    pub issuer: Option<String>,
    /// How old that login was, to the second, rounded down.
    pub session_age: Option<Duration>,
    /// Where the device was on the Internet.
    pub outer: Option<IpAddr>,
    /// Where to; none for a scan of many addresses.
    pub to: Option<Tuple>,
    /// Further ports that the record stands for.
    pub ports: Vec<u16>,
    /// How many attempts the record stands for.
    pub count: u64,
    /// Why not, where it was refused.
    pub deny_reason: Option<String>,
    /// The flow's number within a run; none for a refusal.
    pub flow: Option<u64>,
    /// A run took it up in the middle: the run before has its first record.
    pub resumed: bool,
    /// Which run.
    pub boot: String,
    /// The place of the record in that run: worker and number. The number is 0 in what a later run
    /// wrote for one that crashed.
    pub seq: (u8, u64),
}

/// Which moment of an attempt a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Allowed, and its first packet forwarded.
    Open,
    /// Over.
    Closed,
    /// Refused.
    Denied,
    /// Open at this moment, as the gateway itself says; no record is about that.
    Live,
}

/// The fields of a line that an attempt is made of, borrowed from it.
#[derive(Deserialize)]
struct Line<'a> {
    /// Lines of schema 1 are about nothing but flows.
    #[serde(borrow, default)]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    boot: Text<'a>,
    #[serde(default)]
    worker: u8,
    /// None in what a later run wrote for one that crashed.
    #[serde(default)]
    seq: u64,
    #[serde(borrow)]
    state: Text<'a>,
    #[serde(borrow)]
    verdict: Text<'a>,
    #[serde(borrow)]
    rule: Text<'a>,
    #[serde(borrow)]
    policy: Text<'a>,
    #[serde(borrow, default)]
    user: Option<Text<'a>>,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(borrow, default)]
    device: Option<Text<'a>>,
    #[serde(borrow, default)]
    facts: Option<Text<'a>>,
    #[serde(borrow, default)]
    issuer: Option<Text<'a>>,
    #[serde(default)]
    session_age_s: Option<u64>,
    #[serde(borrow, default)]
    client_outer: Option<Text<'a>>,
    #[serde(borrow)]
    protocol: Text<'a>,
    #[serde(borrow, default)]
    dst_address: Option<Text<'a>>,
    #[serde(default)]
    dst_port: u16,
    #[serde(default)]
    dst_ports: Vec<u16>,
    #[serde(borrow)]
    start: Text<'a>,
    #[serde(borrow, default)]
    deny_reason: Option<Text<'a>>,
    #[serde(default)]
    count: Option<u64>,
    #[serde(default)]
    scan: bool,
    #[serde(default)]
    flow: Option<u64>,
    #[serde(default)]
    resumed: bool,
}

/// A text of a line, without a copy unless it has escapes.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl Text<'_> {
    fn owned(self) -> String {
        self.0.into_owned()
    }
}

impl Attempt {
    /// Of a line of the log, with or without its end of line. None for what is no attempt (audit,
    /// the log about itself) and for what is no line.
    #[must_use]
    pub fn read(line: &[u8]) -> Option<Attempt> {
        let line: Line<'_> = serde_json::from_slice(line).ok()?;
        if line.kind.is_some_and(|kind| kind.0 != "flow") {
            return None;
        }
        let state = match line.state.0.as_ref() {
            "open" => State::Open,
            "closed" => State::Closed,
            "denied" => State::Denied,
            _ => return None,
        };
        let allow = match line.verdict.0.as_ref() {
            "allow" => true,
            "deny" => false,
            _ => return None,
        };
        let protocol = protocol(&line.protocol.0)?;
        let to = match line.dst_address.filter(|_| !line.scan) {
            None => None,
            Some(address) => Some(Tuple {
                address: address.0.parse().ok()?,
                port: line.dst_port,
                protocol,
            }),
        };
        Some(Attempt {
            start: moment(&line.start.0)?,
            state,
            allow,
            rule: line.rule.owned(),
            policy: line.policy.owned(),
            user: line.user.map(Text::owned),
            groups: line.groups,
            device: line.device.map(Text::owned),
            facts: line.facts.map(Text::owned),
            issuer: line.issuer.map(Text::owned),
            session_age: line.session_age_s.map(Duration::from_secs),
            outer: line.client_outer.and_then(|outer| address(&outer.0)),
            to,
            ports: line.dst_ports,
            count: line.count.unwrap_or(1),
            deny_reason: line.deny_reason.map(Text::owned),
            flow: line.flow,
            resumed: line.resumed,
            boot: line.boot.owned(),
            seq: (line.worker, line.seq),
        })
    }

    /// The facts as a number: 16 hex digits name them.
    pub(crate) fn facts_id(&self) -> Option<u64> {
        let name = self.facts.as_deref()?;
        let digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let hex = name.len() == 16 && name.bytes().all(digit);
        hex.then(|| u64::from_str_radix(name, 16).ok())?
    }

    /// Everything that was asked for: a refusal may stand for several ports of one address.
    pub fn tuples(&self) -> impl Iterator<Item = Tuple> {
        let first = self.to;
        let further = self.ports.iter().filter_map(move |port| {
            let to = Tuple {
                port: *port,
                ..first?
            };
            (Some(to) != first).then_some(to)
        });
        first.into_iter().chain(further)
    }
}

fn protocol(name: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Icmp]
        .into_iter()
        .find(|protocol| protocol.as_str() == name)
}

/// Of `198.51.100.7:51820`; none for a pseudonym.
fn address(outer: &str) -> Option<IpAddr> {
    outer.parse::<SocketAddr>().ok().map(|at| at.ip())
}

/// RFC 3339, no earlier than 1970.
fn moment(text: &str) -> Option<Wall> {
    let moment: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(moment.as_nanosecond()).ok().map(Wall)
}

#[cfg(test)]
mod tests;
