//! A policy as it was written, for those who compare it, search it and show it.

use super::port::Ports;
use super::rule::{Action, Destination, From, Mode, NameId, Rule};
use super::{Policy, RuleId};
use crate::duration;
use ipnet::IpNet;
use postern_proto::flow_key::Protocol;
use serde::{Serialize, Serializer};
use std::fmt;
use std::time::Duration;

/// A rule.
#[derive(Clone, Copy)]
pub struct RuleView<'p> {
    policy: &'p Policy,
    rule: &'p Rule,
    id: RuleId,
}

/// A target, or addresses and ports that stand in a rule itself.
#[derive(Clone, Copy)]
pub struct DestinationView<'p> {
    policy: &'p Policy,
    destination: &'p Destination,
}

/// First and last port of one protocol; ICMP has port 0 alone. Displays as `8000-8010/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PortRange {
    /// TCP, UDP or ICMP.
    pub protocol: Protocol,
    /// The first.
    pub low: u16,
    /// The last.
    pub high: u16,
}

/// Whom a rule is for, field by field as in the file. What is empty is not asked. Serialized it is
/// what stands below `from`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Who<'p> {
    /// Any of these users.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<&'p str>,
    /// Any of these groups.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<&'p str>,
    /// Any of these devices.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<&'p str>,
    /// Any of these labels.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub labels: Vec<&'p str>,
    /// Only devices without a user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machines: Option<Machines<'p>>,
    /// A login by any of these issuers.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<&'p str>,
    /// A login proved in any of these ways (RFC 8176).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub amr: Vec<&'p str>,
    /// A login of any of these context classes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub acr: Vec<&'p str>,
    /// Anywhere in these on the Internet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub outer: Vec<IpNet>,
    /// All of these checks.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub posture: Vec<&'p str>,
    /// A login younger than this.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_written")]
    pub session_age: Option<Duration>,
}

/// Which devices without a user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", untagged)]
pub enum Machines<'p> {
    /// Every one: the word `any`.
    Any(&'static str),
    /// These.
    Named(Vec<&'p str>),
}

impl Policy {
    /// Every rule in the order of the file, the default not among them.
    pub fn rules(&self) -> impl Iterator<Item = RuleView<'_>> {
        (0u32..).zip(&self.rules).map(|(id, rule)| RuleView {
            policy: self,
            rule,
            id: RuleId::Rule(id),
        })
    }

    /// Every named target in the order of the file.
    pub fn targets(&self) -> impl Iterator<Item = DestinationView<'_>> {
        self.targets
            .iter()
            .filter_map(|target| self.destination_view(target.destination))
    }

    pub(super) fn destination_view(&self, id: super::DestinationId) -> Option<DestinationView<'_>> {
        let destination = self.destination(id)?;
        Some(DestinationView {
            policy: self,
            destination,
        })
    }

    pub(super) fn who<'p>(&'p self, from: &'p From) -> Who<'p> {
        let shown = |names: &'p [NameId]| -> Vec<&'p str> {
            names.iter().map(|id| self.names.shown(*id)).collect()
        };
        let machines = match from.machines.as_slice() {
            [] => None,
            [id] if self.names.is_any_machine(*id) => Some(Machines::Any("any")),
            names => Some(Machines::Named(shown(names))),
        };
        let checks = from.posture.iter().filter_map(|id| self.checks.get(*id));
        Who {
            users: shown(&from.users),
            groups: shown(&from.groups),
            devices: shown(&from.devices),
            labels: shown(&from.labels),
            machines,
            issuers: shown(&from.issuers),
            amr: shown(&from.amr),
            acr: shown(&from.acr),
            outer: from.outer.written().to_vec(),
            posture: checks.map(|check| check.name.as_str()).collect(),
            session_age: from.session_age,
        }
    }
}

impl<'p> RuleView<'p> {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> RuleId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'p str {
        &self.rule.name
    }

    /// The line of its name in the file.
    #[must_use]
    pub fn line(&self) -> usize {
        self.rule.line
    }

    /// Does it allow what it matches?
    #[must_use]
    pub fn allows(&self) -> bool {
        self.rule.action == Action::Allow
    }

    /// Does it decide?
    #[must_use]
    pub fn mode(&self) -> Mode {
        self.rule.mode
    }

    /// Whom it is for.
    #[must_use]
    pub fn who(&self) -> Who<'p> {
        self.policy.who(&self.rule.from)
    }

    /// When it applies, in words; none for always: `mon-fri 07:00-20:00 Europe/Berlin`.
    #[must_use]
    pub fn when(&self) -> Option<String> {
        self.rule
            .from
            .when
            .as_ref()
            .map(|window| window.to_string())
    }

    /// Where it leads, in the order of its `to`, targets first.
    pub fn to(&self) -> impl Iterator<Item = DestinationView<'p>> + use<'p> {
        let RuleView { policy, rule, .. } = *self;
        rule.to
            .iter()
            .filter_map(move |id| policy.destination_view(*id))
    }
}

impl<'p> DestinationView<'p> {
    /// The name of the target; none for what a rule names itself.
    #[must_use]
    pub fn target(&self) -> Option<&'p str> {
        let DestinationView {
            policy,
            destination,
        } = *self;
        destination.target.map(|id| policy.target_name(id))
    }

    /// Its prefixes: those of the file, then what its names mean.
    #[must_use]
    pub fn addresses(&self) -> &'p [IpNet] {
        self.destination.addresses.written()
    }

    /// The prefixes as the file has them, and what its names mean.
    #[must_use]
    pub fn meant(&self) -> &'p [IpNet] {
        self.destination.addresses.written()
    }

    /// The host names as the file has them, in lower case.
    #[must_use]
    pub fn names(&self) -> &'p [String] {
        &self.destination.names
    }

    /// Its ports: disjoint and sorted.
    pub fn ports(&self) -> impl Iterator<Item = PortRange> + use<'p> {
        self.destination.ports.ranges().iter().map(PortRange::from)
    }

    /// Does it hold this address and port?
    #[must_use]
    pub fn holds(&self, to: &super::Tuple) -> bool {
        self.destination.failing(&to.canonical()).is_none()
    }
}

impl std::convert::From<&Ports> for PortRange {
    fn from(ports: &Ports) -> PortRange {
        PortRange {
            protocol: ports.protocol,
            low: ports.low,
            high: ports.high,
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ports = Ports {
            protocol: self.protocol,
            low: self.low,
            high: self.high,
        };
        ports.fmt(f)
    }
}

impl Serialize for PortRange {
    /// As the file has it.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Who<'_> {
    /// `groups: sre, leads; posture: disk-encrypted; session_age: 12h`, or `anyone`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let any = |names: &[&str]| names.join(", ");
        let machines = self.machines.as_ref().map(|machines| match machines {
            Machines::Any(any) => (*any).to_owned(),
            Machines::Named(names) => any(names),
        });
        let nets = self
            .outer
            .iter()
            .map(|net| super::address::Shown(*net).to_string());
        let age = self.session_age.map(duration::written);
        let said = [
            ("users", any(&self.users)),
            ("groups", any(&self.groups)),
            ("devices", any(&self.devices)),
            ("labels", any(&self.labels)),
            ("machines", machines.unwrap_or_default()),
            ("issuers", any(&self.issuers)),
            ("amr", any(&self.amr)),
            ("acr", any(&self.acr)),
            ("outer", nets.collect::<Vec<_>>().join(", ")),
            ("posture", any(&self.posture)),
            ("session_age", age.unwrap_or_default()),
        ];
        let said = said.iter().filter(|(_, value)| !value.is_empty());
        let said: Vec<String> = said
            .map(|(field, value)| format!("{field}: {value}"))
            .collect();
        f.write_str(if said.is_empty() { "anyone" } else { "" })?;
        f.write_str(&said.join("; "))
    }
}

fn as_written<S: Serializer>(age: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    match age {
        Some(age) => serializer.serialize_str(&duration::written(*age)),
        None => serializer.serialize_none(),
    }
}
