//! A rule, and the one predicate that says whether it applies.

use super::address::AddressSet;
use super::port::PortSet;
use super::posture::CheckId;
use super::{PolicyHash, Subject, TargetId, Tuple};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use postern_proto::now::Wall;
use serde::Serialize;
use std::time::Duration;

/// What a rule does with what it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Allow,
    Deny,
}

#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: String,
    /// Line of the rule's name in the file.
    pub(super) line: usize,
    pub(super) action: Action,
    pub(super) from: From,
    pub(super) to: Vec<DestinationId>,
}

/// Who a rule is for. A dimension without names is not asked; the others must all hold, and so
/// must every check. Names and checks are sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct From {
    pub(super) users: Vec<NameId>,
    pub(super) groups: Vec<NameId>,
    pub(super) devices: Vec<NameId>,
    pub(super) posture: Vec<CheckId>,
    /// The login must be younger.
    pub(super) session_age: Option<Duration>,
}

/// Where a rule leads: a target, or addresses and ports that stand in the rule itself.
#[derive(Debug)]
pub(super) struct Destination {
    pub(super) target: Option<TargetId>,
    pub(super) addresses: AddressSet,
    pub(super) ports: PortSet,
}

/// Position in the policy's list of destinations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct DestinationId(pub(super) u32);

/// A user, group or device that some rule names. Zero is everybody.
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
    /// A posture check fails.
    Posture,
    /// There is no login that is young enough.
    SessionAge,
    /// The port or protocol is not among those of the target.
    Port,
    /// The address is not among those of the rule's targets.
    Address,
}

impl From {
    /// What fails for `who`; nothing if the rule is for them.
    pub(super) fn failing(&self, who: &SubjectIndex, now: Wall) -> Failing {
        Failing::default()
            .unless(who.has_any(&self.users), Condition::User)
            .unless(who.has_any(&self.groups), Condition::Group)
            .unless(who.has_any(&self.devices), Condition::Device)
            .unless(
                self.posture.iter().all(|check| who.shows(*check, now)),
                Condition::Posture,
            )
            .unless(
                self.session_age.is_none_or(|age| who.is_younger(age, now)),
                Condition::SessionAge,
            )
    }

    /// The dimensions that are asked, the narrowest kind first.
    pub(super) fn asked(&self) -> impl Iterator<Item = &[NameId]> {
        [&self.devices, &self.users, &self.groups]
            .into_iter()
            .map(Vec::as_slice)
            .filter(|names| !names.is_empty())
    }

    /// The name decides nothing by itself: how the device stands is asked as well.
    pub(super) fn asks_state(&self) -> bool {
        !self.posture.is_empty() || self.session_age.is_some()
    }
}

impl Destination {
    /// What fails for `to`; nothing if it is here.
    pub(super) fn failing(&self, to: &Tuple) -> Failing {
        Failing::default()
            .unless(self.addresses.contains(to.address), Condition::Address)
            .unless(self.ports.contains(to.protocol, to.port), Condition::Port)
    }
}

/// A set of conditions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Failing(u8);

impl Failing {
    const ALL: [Condition; 8] = [
        Condition::DeniedFirst,
        Condition::Group,
        Condition::User,
        Condition::Device,
        Condition::Posture,
        Condition::SessionAge,
        Condition::Port,
        Condition::Address,
    ];

    pub(super) fn unless(self, holds: bool, condition: Condition) -> Failing {
        Failing(self.0 | (u8::from(!holds) << condition as u8))
    }

    pub(super) fn and(self, other: Failing) -> Failing {
        Failing(self.0 | other.0)
    }

    pub(super) fn is_none(self) -> bool {
        self.0 == 0
    }

    pub(super) fn iter(self) -> impl Iterator<Item = Condition> {
        Self::ALL
            .into_iter()
            .filter(move |c| self.0 & (1 << *c as u8) != 0)
    }
}

/// A [`Subject`] in the numbers of one policy. Made by [`Policy::index`](super::Policy::index);
/// another policy denies it everything. The default is nobody, who is denied everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectIndex {
    pub(super) policy: PolicyHash,
    /// Everybody, and the names that some rule knows; sorted.
    pub(super) names: Vec<NameId>,
    /// For every check of the policy from when on it fails; zero: it fails already.
    pub(super) checks: Vec<Wall>,
    /// When the login was, and when it ends.
    pub(super) session: Option<(Wall, Wall)>,
}

impl SubjectIndex {
    /// Nothing asked, or one of them is theirs.
    fn has_any(&self, asked: &[NameId]) -> bool {
        asked.is_empty()
            || self
                .names
                .iter()
                .any(|name| asked.binary_search(name).is_ok())
    }

    /// The check holds now.
    pub(super) fn shows(&self, check: CheckId, now: Wall) -> bool {
        let until = usize::try_from(check.0)
            .ok()
            .and_then(|n| self.checks.get(n));
        until.is_some_and(|until| now < *until)
    }

    /// There is a login that lives, and it is younger than `age`.
    fn is_younger(&self, age: Duration, now: Wall) -> bool {
        self.session
            .is_some_and(|(since, until)| now < until && now < since + age)
    }
}

/// Numbers for the names that the rules use. Users, groups and devices never share a number.
#[derive(Debug, Default)]
pub(super) struct Names {
    users: HashMap<String, NameId, FixedState>,
    groups: HashMap<String, NameId, FixedState>,
    devices: HashMap<String, NameId, FixedState>,
    shown: Vec<String>,
}

/// What a name is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Group,
    Device,
}

impl Names {
    pub(super) fn intern(&mut self, kind: Kind, name: &str) -> NameId {
        // Bounded by the nodes of a file.
        let next = NameId(u32::try_from(self.shown.len() + 1).unwrap_or(u32::MAX));
        let map = match kind {
            Kind::User => &mut self.users,
            Kind::Group => &mut self.groups,
            Kind::Device => &mut self.devices,
        };
        if let Some(id) = map.get(name) {
            return *id;
        }
        map.insert(name.to_owned(), next);
        self.shown.push(name.to_owned());
        next
    }

    /// Everybody, and the names of `who` that some rule knows. Sorted.
    pub(super) fn of(&self, who: &Subject) -> Vec<NameId> {
        let mut names = vec![NameId::ANYONE];
        names.extend(who.user.as_ref().and_then(|user| self.users.get(user)));
        names.extend(who.groups.iter().filter_map(|group| self.groups.get(group)));
        names.extend(self.devices.get(&who.device));
        names.sort_unstable();
        names.dedup();
        names
    }

    pub(super) fn shown(&self, id: NameId) -> &str {
        let at = usize::try_from(id.0).ok().and_then(|n| n.checked_sub(1));
        at.and_then(|at| self.shown.get(at))
            .map_or("anyone", String::as_str)
    }

    pub(super) fn len(&self) -> usize {
        self.shown.len()
    }
}
