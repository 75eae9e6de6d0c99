//! What a condition asks for and what there is instead, in words.

use super::address::Shown;
use super::rule::{DestinationId, From, NameId};
use super::{Condition, Failed, Policy, Subject, Tuple};
use crate::duration;
use crate::standing::{Session, Standing};
use crate::words::{Name, Words};
use postern_proto::flow_key::Protocol;
use postern_proto::now::Wall;
use std::fmt;

/// Longer lists are cut in sentences.
const SHOWN: usize = 6;

impl Policy {
    /// A condition of `from` that fails for `who`.
    pub(super) fn unmet(
        &self,
        condition: Condition,
        from: &From,
        who: &Subject,
        now: Wall,
    ) -> Failed {
        let checks = match condition == Condition::Posture {
            true => self.failing_checks(from, &who.standing, now),
            false => Vec::new(),
        };
        let standing = &who.standing;
        let sentence = match condition {
            Condition::User => self.user(from, who),
            Condition::Group => {
                let mut words = self.required("group", None, &from.groups);
                words.say("; ");
                match (&who.user, who.device.as_str()) {
                    (Some(user), _) => words.name(Name::User, user),
                    (None, "") => words.say("the device"),
                    (None, device) => words.name(Name::Device, device),
                };
                let has = listed(who.groups.iter(), "no group");
                words.say(" has ").append(&has);
                words
            }
            Condition::Device => {
                let mut words = self.required("device", Some(Name::Device), &from.devices);
                this_one(words.say("; "), who);
                words
            }
            Condition::Label => {
                let has = listed(standing.labels.iter(), "no label");
                let mut words = self.required("label", None, &from.labels);
                words.say("; the device has ").append(&has);
                words
            }
            Condition::Machine => self.machine(from, who),
            Condition::Issuer => {
                let asked = self.any_of(&from.issuers, "", "one of the issuers ");
                let got = login_at(standing, now, |login| match &login.issuer {
                    Some(issuer) => format!("it is by {issuer}"),
                    None => format!("it is by no issuer, but by {}", login.method),
                });
                format!("the login must be by {asked}; {got}").into()
            }
            Condition::Amr => {
                let asked = self.any_of(&from.amr, "", "one of ");
                let got = login_at(standing, now, |login| {
                    format!("it shows {}", listed(login.amr.iter(), "nothing"))
                });
                format!("the login must show {asked}; {got}").into()
            }
            Condition::Acr => {
                let asked = self.any_of(&from.acr, "class ", "one of the classes ");
                let got = login_at(standing, now, |login| match &login.acr {
                    Some(acr) => format!("it is of class {acr}"),
                    None => "it is of no class".to_owned(),
                });
                format!("the login must be of {asked}; {got}").into()
            }
            Condition::Outer => {
                let nets = from.outer.written().iter().map(|net| Shown(*net));
                let nets = listed(nets, "nowhere");
                let got = match standing.outer {
                    Some(at) => format!("it is at {}", at.to_canonical()),
                    None => "where it is, is not known".to_owned(),
                };
                format!("the device must be on the Internet at {nets}; {got}").into()
            }
            Condition::Posture => {
                let said = checks.iter().map(|check| {
                    format!(
                        "check {} fails: expected {}, received {}",
                        check.name, check.expected, check.received
                    )
                });
                said.collect::<Vec<_>>().join("; ").into()
            }
            Condition::SessionAge => {
                let age = duration::shown(from.session_age.unwrap_or_default());
                let got = match login(standing, now) {
                    Ok(login) => {
                        let age = now.since(login.since);
                        format!("this one is {} old", duration::shown(age))
                    }
                    Err(none) => none,
                };
                format!("a login younger than {age} is required; {got}").into()
            }
            Condition::When => {
                let window = from.when.as_ref();
                window.map_or(Words::default(), |window| window.sentence(now).into())
            }
            Condition::Grant => "the grant is over".into(),
            Condition::DeniedFirst | Condition::Port | Condition::Address => Words::default(),
        };
        Failed {
            condition,
            sentence,
            checks,
        }
    }

    /// An address or a port that is not among the destinations.
    pub(super) fn elsewhere(
        &self,
        condition: Condition,
        places: &[DestinationId],
        to: &Tuple,
    ) -> Failed {
        let here = places.iter().filter_map(|id| self.destination(*id));
        let sentence = if condition == Condition::Port {
            let (near, far): (Vec<_>, Vec<_>) =
                here.partition(|at| at.addresses.contains(to.address));
            let of = if near.is_empty() { far } else { near };
            let ports = of.iter().flat_map(|at| at.ports.ranges());
            format!("{} is not among {}", port(to), listed(ports, "nothing"))
        } else {
            let nets = here.flat_map(|at| {
                let nets = at.literal().iter().map(|net| Shown(*net).to_string());
                nets.chain(at.names.iter().cloned())
            });
            let nets = listed(nets, "nothing");
            format!("address {} is not among {nets}", to.address)
        };
        Failed {
            condition,
            sentence: sentence.into(),
            checks: Vec::new(),
        }
    }

    fn user(&self, from: &From, who: &Subject) -> Words {
        let mut words = self.required("user", Some(Name::User), &from.users);
        words.say("; the device belongs to ");
        match &who.user {
            Some(user) => words.name(Name::User, user),
            None => words.say("nobody: it is a machine"),
        };
        words
    }

    fn machine(&self, from: &From, who: &Subject) -> Words {
        let mut words = match from.machines.as_slice() {
            [id] if self.names.is_any_machine(*id) => "a machine is required".into(),
            machines => self.required("machine", Some(Name::Device), machines),
        };
        match &who.user {
            Some(user) => words.say("; the device belongs to ").name(Name::User, user),
            None => this_one(words.say("; "), who),
        };
        words
    }

    /// `group sre is required`
    fn required(&self, kind: &str, of: Option<Name>, names: &[NameId]) -> Words {
        let names_of_all = names.iter().map(|id| self.names.shown(*id));
        let list = listed_as(names_of_all, "nobody", |words, name| match of {
            Some(of) => words.name(of, name),
            None => words.say(name),
        });
        let mut words = Words::from(match names {
            [_] => format!("{kind} "),
            _ => format!("one of the {kind}s "),
        });
        words.append(&list).say(" is required");
        words
    }

    /// The names, behind what stands before one of them or before several.
    fn any_of(&self, names: &[NameId], one: &str, several: &str) -> String {
        let before = if names.len() == 1 { one } else { several };
        let names = names.iter().map(|id| self.names.shown(*id));
        format!("{before}{}", listed(names, "nobody"))
    }
}

fn this_one<'w>(words: &'w mut Words, who: &Subject) -> &'w mut Words {
    match who.device.as_str() {
        "" => words.say("this one is not named"),
        device => words.say("this one is ").name(Name::Device, device),
    }
}

/// What `say` says of the login that lives, or why there is none.
fn login_at(standing: &Standing, now: Wall, say: impl Fn(&Session) -> String) -> String {
    login(standing, now).map_or_else(|none| none, say)
}

/// The login that lives, or why there is none.
fn login(standing: &Standing, now: Wall) -> Result<&Session, String> {
    let Some(session) = &standing.session else {
        return Err("the device has none".to_owned());
    };
    match session.until.filter(|until| *until <= now) {
        Some(until) => Err(format!(
            "the last one ended {} ago",
            duration::shown(now.since(until))
        )),
        None => Ok(session),
    }
}

fn port(to: &Tuple) -> String {
    match to.protocol {
        Protocol::Icmp => "icmp".to_owned(),
        Protocol::Tcp | Protocol::Udp => format!("port {}/{}", to.port, to.protocol),
    }
}

/// The first few, each once, and how many more there are.
fn listed<T: PartialEq + fmt::Display>(items: impl Iterator<Item = T>, none: &str) -> Words {
    listed_as(items, none, |words, item| words.say(&item.to_string()))
}

fn listed_as<T: PartialEq>(
    items: impl Iterator<Item = T>,
    none: &str,
    say: impl for<'a> Fn(&'a mut Words, &T) -> &'a mut Words,
) -> Words {
    let mut shown: Vec<T> = Vec::new();
    let mut more = 0usize;
    for item in items {
        if shown.contains(&item) {
            continue;
        }
        if shown.len() < SHOWN {
            shown.push(item);
        } else {
            more += 1;
        }
    }
    if shown.is_empty() {
        return none.into();
    }
    let mut words = Words::default();
    for (place, item) in shown.iter().enumerate() {
        words.say(if place > 0 { ", " } else { "" });
        say(&mut words, item);
    }
    if more > 0 {
        words.say(&format!(" and {more} more"));
    }
    words
}
