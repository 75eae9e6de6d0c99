//! A line of the flow log, as what was asked, by whom, and what came of it.

use postern_engine::policy::Tuple;
use postern_proto::now::Wall;
use std::net::IpAddr;

/// What one record says of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attempt {
    /// When it was judged: the first packet.
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
    /// Which run.
    pub boot: String,
    /// The place of the record in that run: worker and number.
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
}
