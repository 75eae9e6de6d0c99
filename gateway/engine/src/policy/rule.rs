//! A rule, and the one predicate that says whether it applies.

use super::address::AddressSet;
use super::port::PortSet;
use super::posture::CheckId;
use super::subject::SubjectIndex;
use super::when::Window;
use super::{TargetId, Tuple};
use ipnet::IpNet;
use postern_proto::now::Wall;
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    Deny,
}

/// Whether a rule decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It does.
    #[default]
    Enforce,
    /// It is judged and recorded, and decides nothing.
    Shadow,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    /// Line of the rule's name in the file.
    pub(super) line: usize,
    pub(super) action: Action,
    pub(super) mode: Mode,
    pub(super) from: From,
    pub(super) to: Vec<DestinationId>,
}

/// Who a rule is for. A dimension without names is not asked; of each of the others one must hold,
/// and of the checks all. Names and checks are sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct From {
    pub(super) users: Vec<NameId>,
    pub(super) groups: Vec<NameId>,
    pub(super) devices: Vec<NameId>,
    pub(super) labels: Vec<NameId>,
    pub(super) machines: Vec<NameId>,
    /// Of the login, while it lives.
    pub(super) issuers: Vec<NameId>,
    pub(super) amr: Vec<NameId>,
    pub(super) acr: Vec<NameId>,
    /// Where the device is on the Internet; empty: anywhere.
    pub(super) outer: AddressSet,
    pub(super) posture: Vec<CheckId>,
    /// The login must be younger.
    pub(super) session_age: Option<Duration>,
    /// The window must be open. Shared by the rules that name the same.
    pub(super) when: Option<Arc<Window>>,
}

/// Where a rule leads: a target, or addresses and ports that stand in the rule itself.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) target: Option<TargetId>,
    /// Host names that the file has beside addresses. Lower case.
    pub(super) names: Vec<String>,
    /// How many of the addresses the file has; the others are what the names mean now.
    pub(super) literal: usize,
    pub(super) addresses: AddressSet,
    pub(super) ports: PortSet,
}

/// Position in the policy's list of destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct DestinationId(pub(super) u32);

/// A user, group, device and so on that some rule names. Zero is everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct NameId(pub(super) u32);

impl NameId {
    pub(super) const ANYONE: NameId = NameId(0);
}

/// What a rule asks for; a rule that does not apply fails at least one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Condition {
    /// An earlier rule denied it; the rule was not reached.
    DeniedFirst,
    /// The device has none of the groups.
    Group,
    /// The device belongs to none of the users.
    User,
    /// It is none of the devices.
    Device,
    /// It has none of the labels.
    Label,
    /// It has a user, or is none of the machines.
    Machine,
    /// There is no login by one of the issuers.
    Issuer,
    /// There is no login that was proved in one of the ways (RFC 8176).
    Amr,
    /// There is no login of one of the context classes.
    Acr,
    /// The device is not where it must be on the Internet.
    Outer,
    /// A posture check fails.
    Posture,
    /// There is no login that is young enough.
    SessionAge,
    /// Now is outside the window.
    When,
    /// The grant is over.
    Grant,
    /// The port or protocol is not among those of the target.
    Port,
    /// The address is not among those of the rule's targets.
    Address,
}

impl From {
    /// What fails for `who`; nothing if the rule is for them.
    pub(super) fn failing(&self, who: &SubjectIndex, now: Wall) -> Conditions {
        Conditions::OF_FROM.without(|one| self.meets(one, who, now))
    }

    /// The conditions that it asks for: of the others none can fail.
    pub(super) fn asks(&self) -> Conditions {
        Conditions::OF_FROM.without(|one| match one {
            Condition::User => self.users.is_empty(),
            Condition::Group => self.groups.is_empty(),
            Condition::Device => self.devices.is_empty(),
            Condition::Label => self.labels.is_empty(),
            Condition::Machine => self.machines.is_empty(),
            Condition::Issuer => self.issuers.is_empty(),
            Condition::Amr => self.amr.is_empty(),
            Condition::Acr => self.acr.is_empty(),
            Condition::Outer => !self.asks_outer(),
            Condition::Posture => self.posture.is_empty(),
            Condition::SessionAge => self.session_age.is_none(),
            Condition::When => self.when.is_none(),
            Condition::DeniedFirst | Condition::Grant | Condition::Port | Condition::Address => {
                true
            }
        })
    }

    /// The same, but for the names of one dimension.
    pub(super) fn without(&self, dimension: Option<Condition>) -> From {
        let mut rest = self.clone();
        let names = match dimension {
            Some(Condition::User) => &mut rest.users,
            Some(Condition::Group) => &mut rest.groups,
            Some(Condition::Device) => &mut rest.devices,
            Some(Condition::Label) => &mut rest.labels,
            Some(Condition::Machine) => &mut rest.machines,
            Some(_) | None => return rest,
        };
        *names = Vec::new();
        rest
    }

    /// True if `who` meets each of `asked`. Looks at nothing else of the rule.
    pub(super) fn meets_all(&self, asked: Conditions, who: &SubjectIndex, now: Wall) -> bool {
        asked.without(|one| self.meets(one, who, now)).is_none()
    }

    fn meets(&self, condition: Condition, who: &SubjectIndex, now: Wall) -> bool {
        match condition {
            Condition::User => who.has_any(&self.users),
            Condition::Group => who.has_any(&self.groups),
            Condition::Device => who.has_any(&self.devices),
            Condition::Label => who.has_any(&self.labels),
            Condition::Machine => who.has_any(&self.machines),
            Condition::Issuer => who.logged_in_with_any(&self.issuers, now),
            Condition::Amr => who.logged_in_with_any(&self.amr, now),
            Condition::Acr => who.logged_in_with_any(&self.acr, now),
            Condition::Outer => self.is_for_outer(who),
            Condition::Posture => self.posture.iter().all(|check| who.shows(*check, now)),
            Condition::SessionAge => self.session_age.is_none_or(|age| who.is_younger(age, now)),
            Condition::When => {
                let window = self.when.as_ref();
                window.is_none_or(|window| !who.timeless && window.is_open(now))
            }
            Condition::DeniedFirst | Condition::Grant | Condition::Port | Condition::Address => {
                true
            }
        }
    }

    /// The dimensions that are asked, the narrowest kind first.
    pub(super) fn asked(&self) -> impl Iterator<Item = &[NameId]> {
        self.dimensions().map(|(_, names)| names)
    }

    /// The same, each with its condition.
    pub(super) fn dimensions(&self) -> impl Iterator<Item = (Condition, &[NameId])> {
        let dimensions = [
            (Condition::Device, &self.devices),
            (Condition::Machine, &self.machines),
            (Condition::User, &self.users),
            (Condition::Label, &self.labels),
            (Condition::Group, &self.groups),
        ];
        dimensions
            .into_iter()
            .map(|(condition, names)| (condition, names.as_slice()))
            .filter(|(_, names)| !names.is_empty())
    }

    /// The name decides nothing by itself: how the device stands, or the time, is asked as well.
    pub(super) fn asks_state(&self) -> bool {
        let names = self.dimensions().map(|(condition, _)| condition);
        let names = names.fold(Conditions::default(), |all, one| all.unless(false, one));
        self.asks() != names
    }

    /// Where the device is on the Internet.
    pub(super) fn asks_outer(&self) -> bool {
        !self.outer.written().is_empty()
    }

    fn is_for_outer(&self, who: &SubjectIndex) -> bool {
        !self.asks_outer() || who.outer.is_some_and(|at| self.outer.contains(at))
    }
}

impl Destination {
    /// The word `anything`, or as much.
    pub(super) fn is_anything(&self) -> bool {
        self.addresses.is_anything() && self.ports.is_anything()
    }

    /// The prefixes that the file has, whatever its names mean.
    pub(super) fn literal(&self) -> &[IpNet] {
        let written = self.addresses.written();
        written.get(..self.literal).unwrap_or(written)
    }

    /// What fails for `to`; nothing if it is here.
    pub(super) fn failing(&self, to: &Tuple) -> Conditions {
        Conditions::default()
            .unless(self.addresses.contains(to.address), Condition::Address)
            .unless(self.ports.contains(to.protocol, to.port), Condition::Port)
    }
}

/// A set of conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Conditions(u32);

impl Conditions {
    /// In the order of their bits.
    const ALL: [Condition; 16] = [
        Condition::DeniedFirst,
        Condition::Group,
        Condition::User,
        Condition::Device,
        Condition::Label,
        Condition::Machine,
        Condition::Issuer,
        Condition::Amr,
        Condition::Acr,
        Condition::Outer,
        Condition::Posture,
        Condition::SessionAge,
        Condition::When,
        Condition::Grant,
        Condition::Port,
        Condition::Address,
    ];

    /// Those that a `from` can ask for.
    const OF_FROM: Conditions = {
        let first = 1u32 << Condition::Group as u8;
        let end = 1u32 << Condition::Grant as u8;
        Conditions(end - first)
    };

    pub(super) fn unless(self, holds: bool, condition: Condition) -> Conditions {
        Conditions(self.0 | (u32::from(!holds) << condition as u8))
    }

    pub(super) fn and(self, other: Conditions) -> Conditions {
        Conditions(self.0 | other.0)
    }

    pub(super) fn is_none(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has(self, condition: Condition) -> bool {
        self.0 & (1 << condition as u8) != 0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Condition> {
        let mut left = self.0;
        std::iter::from_fn(move || {
            let next = Self::ALL.get(left.trailing_zeros() as usize)?;
            left &= left - 1;
            Some(*next)
        })
    }

    /// Those for which `gone` does not hold.
    fn without(self, gone: impl Fn(Condition) -> bool) -> Conditions {
        let left = self.iter().filter(|one| !gone(*one));
        left.fold(Conditions::default(), |all, one| all.unless(false, one))
    }
}
