//! Which records.

use super::fields::Fields;
use super::words::{Kind, State, Verdict};
use crate::time::rfc3339;
use ipnet::IpNet;

/// Which records: those that match all that is given. Empty selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// What the line is about.
    pub kind: Option<Kind>,
    /// Of this user.
    pub user: Option<String>,
    /// Of this device.
    pub device: Option<String>,
    /// To this destination. A record that stands for a scan of many addresses has none.
    pub to: Option<To>,
    /// Decided by this rule.
    pub rule: Option<String>,
    /// Allowed or refused.
    pub verdict: Option<Verdict>,
    /// Which moment of an attempt.
    pub state: Option<State>,
    /// How the flow ended.
    pub close_reason: Option<String>,
    /// Written then or later; milliseconds since 1970.
    pub since: Option<u64>,
    /// Written before; milliseconds since 1970.
    pub until: Option<u64>,
}

/// A destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// By address.
    Net {
        /// An address or a range.
        net: IpNet,
        /// Any, if none.
        port: Option<u16>,
        /// `tcp`, `udp`, `icmp`; any, if none.
        protocol: Option<String>,
    },
    /// By the policy's name for it.
    Target(String),
}

impl Filter {
    /// Whether it selects a line with these fields.
    #[must_use]
    pub fn matches(&self, fields: &Fields<'_>) -> bool {
        let is = |wanted: Option<&str>, found: Option<&str>| {
            wanted.is_none_or(|wanted| found == Some(wanted))
        };
        let time = |within: &dyn Fn(&str) -> bool| fields.time.as_deref().is_some_and(within);
        is(self.kind.map(Kind::as_str), fields.kind.as_deref())
            && is(self.user.as_deref(), fields.user.as_deref())
            && is(self.device.as_deref(), fields.device.as_deref())
            && is(self.rule.as_deref(), fields.rule.as_deref())
            && is(self.verdict.map(Verdict::as_str), fields.verdict.as_deref())
            && is(self.state.map(State::as_str), fields.state.as_deref())
            && is(self.close_reason.as_deref(), fields.close_reason.as_deref())
            && self
                .since
                .is_none_or(|since| time(&|time| *time >= *rfc3339(since)))
            && self
                .until
                .is_none_or(|until| time(&|time| *time < *rfc3339(until)))
            && self.to.as_ref().is_none_or(|to| to.covers(fields))
    }
}

impl To {
    fn covers(&self, fields: &Fields<'_>) -> bool {
        match self {
            To::Target(name) => fields.target.as_deref() == Some(name),
            To::Net {
                net,
                port,
                protocol,
            } => {
                fields
                    .address()
                    .is_some_and(|address| net.contains(&address))
                    && port.is_none_or(|port| {
                        fields.dst_port == port || fields.dst_ports.contains(&port)
                    })
                    && protocol
                        .as_deref()
                        .is_none_or(|protocol| fields.protocol.as_deref() == Some(protocol))
            }
        }
    }
}
