//! What a query needs of a line, borrowed from it.

mod quick;

use serde::Deserialize;
use std::borrow::Cow;
use std::net::IpAddr;
use std::ops::Deref;

/// The fields of a line that filters and sums look at. What a line does not have is `None` or zero.
#[derive(Debug, Default, Deserialize)]
pub struct Fields<'a> {
    /// `flow`, `log`, `audit`.
    #[serde(borrow)]
    pub kind: Option<Text<'a>>,
    /// When it was written, RFC 3339 in UTC with milliseconds.
    #[serde(borrow)]
    pub time: Option<Text<'a>>,
    /// The run of the gateway.
    #[serde(borrow)]
    pub boot: Option<Text<'a>>,
    /// Joins open and closed within a run.
    pub flow: Option<u64>,
    /// `open`, `closed`, `denied`.
    #[serde(borrow)]
    pub state: Option<Text<'a>>,
    /// `allow`, `deny`.
    #[serde(borrow)]
    pub verdict: Option<Text<'a>>,
    /// The rule that decided.
    #[serde(borrow)]
    pub rule: Option<Text<'a>>,
    /// Who.
    #[serde(borrow)]
    pub user: Option<Text<'a>>,
    /// With which device.
    #[serde(borrow)]
    pub device: Option<Text<'a>>,
    /// `tcp`, `udp`, `icmp`.
    #[serde(borrow)]
    pub protocol: Option<Text<'a>>,
    /// Where to; none when one record stands for many addresses.
    #[serde(borrow)]
    pub dst_address: Option<Text<'a>>,
    /// Where to.
    #[serde(default)]
    pub dst_port: u16,
    /// Further ports of a summed-up refusal.
    #[serde(default)]
    pub dst_ports: Vec<u16>,
    /// The policy's name for where to.
    #[serde(borrow)]
    pub target: Option<Text<'a>>,
    /// How a flow ended.
    #[serde(borrow)]
    pub close_reason: Option<Text<'a>>,
    /// Attempts that a refusal stands for.
    #[serde(default)]
    pub count: u64,
    /// Device to target.
    #[serde(default)]
    pub bytes_out: u64,
    /// Target to device.
    #[serde(default)]
    pub bytes_in: u64,
    /// Device to target.
    #[serde(default)]
    pub packets_out: u64,
    /// Target to device.
    #[serde(default)]
    pub packets_in: u64,
    /// The number of the line.
    #[serde(default)]
    pub n: u64,
}

/// A text of a line, without a copy unless it has escapes.
#[derive(Debug, Deserialize)]
#[serde(transparent)]
pub struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'a> Fields<'a> {
    /// Of a line without its line end; none if it is no such line.
    #[must_use]
    pub fn read(line: &'a [u8]) -> Option<Self> {
        quick::read(line).or_else(|| serde_json::from_slice(line).ok())
    }

    /// The address that was asked for.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.dst_address.as_deref()?.parse().ok()
    }

    /// How many attempts the line stands for: as in the gateway's metrics, the sum over all lines
    /// is the number of attempts.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        match self.state.as_deref() {
            Some("open") => 1,
            Some("denied") => self.count,
            _ => 0,
        }
    }
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}
