//! Who asks, in the numbers of one policy.

use super::grants::Given;
use super::posture::CheckId;
use super::rule::NameId;
use super::{PolicyHash, Subject};
use crate::standing::Session;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use postern_proto::now::Wall;
use std::net::IpAddr;
use std::time::Duration;

/// A [`Subject`] in the numbers of one policy. Made by [`Policy::index`](super::Policy::index);
/// another policy denies it everything. The default is nobody, who is denied everything.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SubjectIndex {
    pub(super) policy: PolicyHash,
    /// Everybody, and the names that some rule knows; sorted.
    pub(super) names: Vec<NameId>,
    /// What the issuer said of the login, as far as some rule knows it; while the login lives.
    pub(super) login: Vec<NameId>,
    /// For every check of the policy from when on it fails; zero: it fails already.
    pub(super) checks: Vec<Wall>,
    /// When the login was, and when it ends.
    pub(super) session: Option<(Wall, Wall)>,
    /// Where the device is on the Internet; IPv4-mapped ones are IPv4.
    pub(super) outer: Option<IpAddr>,
    /// Access for a while, as far as the policy still knows it.
    pub(super) grants: Vec<Given>,
    /// No moment is meant: every window is closed.
    pub(super) timeless: bool,
}

impl SubjectIndex {
    /// Nothing asked, or one of them is theirs.
    pub(super) fn has_any(&self, asked: &[NameId]) -> bool {
        asked.is_empty() || any_of(&self.names, asked)
    }

    /// Nothing asked, or a login lives of which the issuer said one of them.
    pub(super) fn logged_in_with_any(&self, asked: &[NameId], now: Wall) -> bool {
        asked.is_empty() || (self.is_logged_in(now) && any_of(&self.login, asked))
    }

    /// The check holds now.
    pub(super) fn shows(&self, check: CheckId, now: Wall) -> bool {
        let until = usize::try_from(check.0)
            .ok()
            .and_then(|n| self.checks.get(n));
        until.is_some_and(|until| now < *until)
    }

    /// There is a login that lives, and it is younger than `age`.
    pub(super) fn is_younger(&self, age: Duration, now: Wall) -> bool {
        self.is_logged_in(now) && self.session.is_some_and(|(since, _)| now < since + age)
    }

    fn is_logged_in(&self, now: Wall) -> bool {
        self.session.is_some_and(|(_, until)| now < until)
    }
}

fn any_of(names: &[NameId], asked: &[NameId]) -> bool {
    names.iter().any(|name| asked.binary_search(name).is_ok())
}

/// Numbers for the names that the rules use. Names of different kinds never share a number.
#[derive(Debug, Default)]
pub(super) struct Names {
    numbers: [HashMap<String, NameId, FixedState>; KINDS],
    /// Whatever has no user, once a rule asks for that.
    machine: Option<NameId>,
    shown: Vec<String>,
}

/// What a name is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Group,
    Device,
    Label,
    /// The device, where nobody is its user.
    Machine,
    Issuer,
    Amr,
    Acr,
}

const KINDS: usize = 8;

impl Names {
    pub(super) fn intern(&mut self, kind: Kind, name: &str) -> NameId {
        let next = self.next();
        let numbers = &mut self.numbers[kind as usize];
        if let Some(id) = numbers.get(name) {
            return *id;
        }
        numbers.insert(name.to_owned(), next);
        self.shown.push(name.to_owned());
        next
    }

    /// The number of whatever has no user.
    pub(super) fn any_machine(&mut self) -> NameId {
        let next = self.next();
        *self.machine.get_or_insert_with(|| {
            self.shown.push("any".to_owned());
            next
        })
    }

    /// True for the number that [`Names::any_machine`] gave.
    pub(super) fn is_any_machine(&self, id: NameId) -> bool {
        self.machine == Some(id)
    }

    /// True for the name of a machine, and for whatever has no user.
    pub(super) fn is_of_machines(&self, id: NameId) -> bool {
        self.machine == Some(id)
            || self.numbers[Kind::Machine as usize]
                .values()
                .any(|name| *name == id)
    }

    /// Everybody, and the names of `who` that some rule knows. Sorted.
    pub(super) fn of(&self, who: &Subject) -> Vec<NameId> {
        let labels = who.standing.labels.iter();
        let mut names = vec![NameId::ANYONE];
        names.extend(
            who.user
                .as_deref()
                .and_then(|user| self.get(Kind::User, user)),
        );
        names.extend(
            who.groups
                .iter()
                .filter_map(|group| self.get(Kind::Group, group)),
        );
        names.extend(self.get(Kind::Device, &who.device));
        names.extend(labels.filter_map(|label| self.get(Kind::Label, label)));
        if who.user.is_none() {
            names.extend(self.machine);
            names.extend(self.get(Kind::Machine, &who.device));
        }
        names.sort_unstable();
        names.dedup();
        names
    }

    /// What an issuer said of a login that some rule knows.
    pub(super) fn of_login(&self, login: &Session) -> Vec<NameId> {
        let issuer = login.issuer.as_deref();
        let issuer = issuer.and_then(|issuer| self.get(Kind::Issuer, issuer));
        let acr = login
            .acr
            .as_deref()
            .and_then(|acr| self.get(Kind::Acr, acr));
        let amr = login.amr.iter().filter_map(|amr| self.get(Kind::Amr, amr));
        issuer.into_iter().chain(acr).chain(amr).collect()
    }

    pub(super) fn shown(&self, id: NameId) -> &str {
        let at = usize::try_from(id.0).ok().and_then(|n| n.checked_sub(1));
        at.and_then(|at| self.shown.get(at))
            .map_or("anyone", String::as_str)
    }

    pub(super) fn len(&self) -> usize {
        self.shown.len()
    }

    fn get(&self, kind: Kind, name: &str) -> Option<NameId> {
        self.numbers[kind as usize].get(name).copied()
    }

    /// Bounded by the nodes of a file.
    fn next(&self) -> NameId {
        NameId(u32::try_from(self.shown.len() + 1).unwrap_or(u32::MAX))
    }
}
