//! The policy as the oracle understands it: a list of rules, scanned from the top. The text that
//! the engine reads is written from the same list.

use crate::dice::{Dice, Seeded};
use crate::packet::{Key, Proto};
use crate::state;
use ipnet::IpNet;
use postern_engine::policy::Subject;
use postern_engine::record::CloseReason;
use postern_engine::standing::Grant;
use postern_proto::now::Wall;
use std::collections::BTreeMap;
use std::net::IpAddr;

mod draw;
mod text;

/// Users, groups and devices that rules name. The last of each is nobody.
const USERS: [&str; 4] = ["ana", "ben", "eve", "nobody"];
/// Groups.
pub const GROUPS: [&str; 4] = ["platform", "sre", "guests", "empty"];
/// One policy.
#[derive(Clone, Debug)]
pub struct Rules {
    rules: Vec<Rule>,
    grants: Vec<Entry>,
}

/// What the rules say.
#[derive(Clone, Debug)]
pub struct Verdict<'r> {
    /// Is it allowed?
    pub allow: bool,
    /// By which rule or entry of `grants:`; `default` where nothing matches.
    pub rule: &'r str,
    /// The grant that allows it.
    pub grant: Option<Grant>,
}

#[derive(Clone, Debug, Default)]
struct Rule {
    name: String,
    allow: bool,
    /// It decides nothing.
    shadow: bool,
    /// Empty: anyone.
    users: Vec<&'static str>,
    groups: Vec<&'static str>,
    devices: Vec<String>,
    /// All must hold.
    posture: Vec<&'static str>,
    /// Seconds; the login must be younger.
    session_age: Option<u64>,
    /// Empty: anywhere on the Internet.
    outer: Vec<&'static str>,
    /// As text, and in minutes since midnight.
    hours: Option<(&'static str, u64, u64)>,
    /// Empty: anything.
    to: Vec<Place>,
}

/// An entry of `grants:`. Its rule says for whom, and where to.
#[derive(Clone, Debug)]
struct Entry {
    rule: Rule,
    /// Of the places of the rule.
    names: Vec<String>,
    /// Seconds.
    max: u64,
    break_glass: bool,
}

#[derive(Clone, Debug)]
struct Place {
    prefixes: Vec<&'static str>,
    ports: Vec<&'static str>,
}

impl Rules {
    /// What the first enforced rule says that matches; where none does, a grant that lives.
    #[must_use]
    pub fn judge(&self, who: &Subject, key: &Key, now: Wall) -> Verdict<'_> {
        let rule = |rule: &&Rule| !rule.shadow && rule.matches(who, key, now);
        if let Some(rule) = self.rules.iter().find(rule) {
            return Verdict {
                allow: rule.allow,
                rule: &rule.name,
                grant: None,
            };
        }
        for grant in &who.standing.grants {
            let entry = self.grants.iter().find(|one| one.gives(grant, key, now));
            if let Some(entry) = entry.filter(|entry| entry.rule.is_for(who, now)) {
                return Verdict {
                    allow: true,
                    rule: &entry.rule.name,
                    grant: Some(grant.clone()),
                };
            }
        }
        Verdict {
            allow: false,
            rule: "default",
            grant: None,
        }
    }

    /// What a rule in shadow would decide, if one is the first of all that match.
    #[must_use]
    pub fn shadow(&self, who: &Subject, key: &Key, now: Wall) -> Option<(bool, String)> {
        let first = self.rules.iter().find(|rule| rule.matches(who, key, now))?;
        first.shadow.then(|| (first.allow, first.name.clone()))
    }

    /// The checks that a rule asks for, and how each does.
    #[must_use]
    pub fn posture(&self, rule: &str, who: &Subject, now: Wall) -> BTreeMap<String, bool> {
        let asked = self.named(rule).map_or(&[][..], |rule| &rule.posture);
        let shown = |check: &&str| {
            let holds = state::shows(check, &who.standing, now);
            ((*check).to_owned(), holds)
        };
        asked.iter().map(shown).collect()
    }

    /// Does it matter where a device is on the Internet?
    #[must_use]
    pub fn asks_outer(&self) -> bool {
        let grants = self.grants.iter().map(|entry| &entry.rule);
        self.rules
            .iter()
            .chain(grants)
            .any(|rule| !rule.outer.is_empty())
    }

    /// Why a rule that was for `who` is so no longer: the age of the login, posture, the end of
    /// the grant, or who it is.
    #[must_use]
    pub fn lost(&self, rule: &str, who: &Subject, key: &Key, now: Wall) -> Option<CloseReason> {
        let entry = self.grants.iter().find(|one| one.rule.name == rule);
        let given = |entry: &Entry| {
            let mut grants = who.standing.grants.iter();
            grants.any(|grant| entry.gives(grant, key, now))
        };
        let rule = self.named(rule)?;
        if !rule.is_young(who, now) {
            Some(CloseReason::Session)
        } else if !rule.is_shown(who, now) {
            Some(CloseReason::Posture)
        } else if !entry.is_none_or(given) {
            Some(CloseReason::GrantEnded)
        } else {
            None
        }
    }

    fn named(&self, name: &str) -> Option<&Rule> {
        let grants = self.grants.iter().map(|entry| &entry.rule);
        let mut all = self.rules.iter().chain(grants);
        all.find(|rule| rule.name == name)
    }
}

impl Entry {
    /// Does a grant live that rests on this entry and leads there?
    fn gives(&self, grant: &Grant, key: &Key, now: Wall) -> bool {
        let until = grant.until.0.min(grant.since.0 + self.max * 1_000_000_000);
        let lives = grant.since <= now && now.0 < until;
        let mut named = self.places();
        let there = match named.find(|(name, _)| **name == *grant.target) {
            Some((_, place)) => place.holds(key),
            None => *grant.target == tuple(key) && self.rule.leads_to(key),
        };
        *grant.entry == self.rule.name && (self.break_glass || !grant.break_glass) && lives && there
    }

    /// By name. A name means something else in each policy, and to each entry.
    fn places(&self) -> impl Iterator<Item = (&str, &Place)> {
        self.names.iter().map(String::as_str).zip(&self.rule.to)
    }
}

impl Rule {
    fn matches(&self, who: &Subject, key: &Key, now: Wall) -> bool {
        self.is_for(who, now) && self.leads_to(key)
    }

    fn is_for(&self, who: &Subject, now: Wall) -> bool {
        let user = who.user.as_deref().unwrap_or("");
        (self.users.is_empty() || self.users.contains(&user))
            && (self.groups.is_empty()
                || who
                    .groups
                    .iter()
                    .any(|group| self.groups.contains(&group.as_str())))
            && (self.devices.is_empty() || self.devices.contains(&who.device))
            && self.is_shown(who, now)
            && self.is_young(who, now)
            && self.is_near(who)
            && self.is_open(now)
    }

    fn is_shown(&self, who: &Subject, now: Wall) -> bool {
        let standing = &who.standing;
        self.posture
            .iter()
            .all(|check| state::shows(check, standing, now))
    }

    fn is_young(&self, who: &Subject, now: Wall) -> bool {
        self.session_age.is_none_or(|age| {
            state::login(&who.standing, now)
                .is_some_and(|since| now.0 - since.0 < age * 1_000_000_000)
        })
    }

    fn is_near(&self, who: &Subject) -> bool {
        let at = who.standing.outer;
        self.outer.is_empty()
            || at.is_some_and(|at| self.outer.iter().any(|prefix| covers(prefix, at)))
    }

    /// By the clock in UTC.
    fn is_open(&self, now: Wall) -> bool {
        let minute = now.0 / 60_000_000_000 % 1440;
        self.hours.is_none_or(|(_, from, to)| {
            if from < to {
                from <= minute && minute < to
            } else {
                from <= minute || minute < to
            }
        })
    }

    fn leads_to(&self, key: &Key) -> bool {
        self.to.is_empty() || self.to.iter().any(|place| place.holds(key))
    }
}

impl Place {
    fn holds(&self, key: &Key) -> bool {
        self.prefixes
            .iter()
            .any(|prefix| covers(prefix, key.target.0))
            && self.ports.iter().any(|ports| names(ports, key))
    }
}

fn tuple(key: &Key) -> String {
    let (address, port) = key.target;
    let proto = match key.proto {
        Proto::Tcp => "tcp",
        Proto::Udp => "udp",
        Proto::Icmp => return format!("{address}/icmp"),
    };
    format!("{}/{proto}", std::net::SocketAddr::from((address, port)))
}

fn covers(prefix: &str, address: IpAddr) -> bool {
    prefix
        .parse::<IpNet>()
        .is_ok_and(|prefix| prefix.contains(&address))
}

fn names(ports: &str, key: &Key) -> bool {
    let Some((range, proto)) = ports.split_once('/') else {
        return ports == "icmp" && key.proto == Proto::Icmp;
    };
    let (low, high) = range.split_once('-').unwrap_or((range, range));
    let within = |low: u16, high: u16| (low..=high).contains(&key.target.1);
    let (Ok(low), Ok(high)) = (low.parse(), high.parse()) else {
        return false;
    };
    match proto {
        "tcp" => key.proto == Proto::Tcp && within(low, high),
        _ => key.proto == Proto::Udp && within(low, high),
    }
}

/// Who the laptop with this number belongs to.
#[must_use]
pub fn subject(laptop: usize, seed: u64, now: Wall) -> Subject {
    let mut dice = Seeded::new(seed ^ (laptop as u64) << 32);
    let mut groups: Vec<String> = GROUPS[..3]
        .iter()
        .filter(|_| dice.one_in(2))
        .map(|group| (*group).to_owned())
        .collect();
    groups.sort();
    Subject {
        user: (laptop != 3).then(|| USERS[laptop % 3].to_owned()),
        groups,
        device: format!("laptop{laptop}"),
        standing: state::first(dice.bits(), now),
    }
}
