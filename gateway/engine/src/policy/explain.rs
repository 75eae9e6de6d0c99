//! The verdict in words, and the nearest rule that would have allowed.

use super::address::Shown;
use super::rule::{Action, Failing, Kind, NameId, Rule};
use super::{Check, Condition, Policy, PolicyHash, RuleId, Subject, SubjectIndex, Tuple, Verdict};
use crate::duration;
use crate::standing::Standing;
use crate::words::{Name, Words};
use postern_proto::flow_key::Protocol;
use postern_proto::now::Wall;
use serde::Serialize;
use std::fmt;

/// Longer lists are cut in sentences.
const SHOWN: usize = 6;
/// Destinations that the search for the nearest rule looks at, those with the longest prefix first.
/// A device that scans must not make its own denials expensive: 1024 take some 50 µs.
const SEARCH: usize = 1024;

/// Why a verdict is what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The verdict itself.
    #[serde(skip)]
    pub verdict: Verdict,
    /// May the flow be opened?
    pub allow: bool,
    /// The rule that decided.
    pub rule: String,
    /// The line of that rule; none for the default.
    pub line: Option<usize>,
    /// The target of that rule.
    pub target: Option<String>,
    /// The policy that judged.
    pub policy: PolicyHash,
    /// Who asked.
    pub subject: Subject,
    /// Where to.
    pub to: Tuple,
    /// For a denial, the allowing rule that fails the least; none if no rule allows anything.
    pub nearest: Option<Nearest>,
}

/// A rule that would have allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Nearest {
    /// Its name.
    pub rule: String,
    /// Its line.
    pub line: usize,
    /// Its place.
    #[serde(skip)]
    pub id: RuleId,
    /// What failed, at least one.
    pub failed: Vec<Failed>,
}

/// A condition that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// For programs.
    pub condition: Condition,
    /// For people: `group sre is required; ana@example.com has platform`.
    pub sentence: Words,
    /// For posture, the checks that fail.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
}

impl Nearest {
    /// What failed, in one line.
    #[must_use]
    pub fn sentence(&self) -> Words {
        let mut all = Words::default();
        for (place, one) in self.failed.iter().enumerate() {
            all.say(if place > 0 { "; " } else { "" })
                .append(&one.sentence);
        }
        all
    }
}

impl Policy {
    /// The verdict of [`Policy::judge`] and why. Slower than that, yet bounded: where more than
    /// some thousand destinations hold the address, the nearest rule is the nearest of those.
    #[must_use]
    pub fn explain(&self, who: &Subject, to: &Tuple, now: Wall) -> Explanation {
        let index = self.index(who);
        let verdict = self.judge(&index, to, now);
        let nearest = if verdict.allows() {
            None
        } else {
            self.nearest(&index, who, to, verdict, now)
        };
        Explanation {
            verdict,
            allow: verdict.allows(),
            rule: self.rule_name(verdict.rule()).to_owned(),
            line: self.rule_line(verdict.rule()),
            target: verdict.target().map(|id| self.target_name(id).to_owned()),
            policy: self.hash(),
            subject: who.clone(),
            to: *to,
            nearest,
        }
    }

    fn nearest(
        &self,
        index: &SubjectIndex,
        who: &Subject,
        to: &Tuple,
        verdict: Verdict,
        now: Wall,
    ) -> Option<Nearest> {
        let to = to.canonical();
        let (_, id, failing) =
            match self.nearest_of(self.index.allowing(to.address), index, &to, verdict, now) {
                Some(found) => found,
                // No rule allows anything at this address.
                None => {
                    let all = (0u32..).take(self.rules.len());
                    self.nearest_of(all, index, &to, verdict, now)?
                }
            };
        let rule = self.rule(RuleId::Rule(id))?;
        let denied_by = self.rule_name(verdict.rule());
        let failed = failing
            .iter()
            .map(|condition| Failed {
                condition,
                sentence: self.sentence(condition, rule, who, &to, denied_by, now),
                checks: if condition == Condition::Posture {
                    self.failing_checks(rule, &who.standing, now)
                } else {
                    Vec::new()
                },
            })
            .collect();
        Some(Nearest {
            rule: rule.name.clone(),
            line: rule.line,
            id: RuleId::Rule(id),
            failed,
        })
    }

    /// Cost, number and failing conditions of the rule that fails the least.
    fn nearest_of(
        &self,
        ids: impl Iterator<Item = u32>,
        who: &SubjectIndex,
        to: &Tuple,
        verdict: Verdict,
        now: Wall,
    ) -> Option<(u32, u32, Failing)> {
        let mut looked_at = 0;
        let mut best: Option<(u32, u32, Failing)> = None;
        for id in ids {
            let Some(rule) = self.rule(RuleId::Rule(id)) else {
                continue;
            };
            if rule.action == Action::Deny {
                looked_at += 1;
                continue;
            }
            let reached = RuleId::Rule(id) < verdict.rule();
            let failing = self
                .failing(rule, who, to, now)
                .unless(reached, Condition::DeniedFirst);
            let cost = failing.iter().map(cost).sum::<u32>();
            if best.is_none_or(|(least, first, _)| (cost, id) < (least, first)) {
                best = Some((cost, id, failing));
            }
            looked_at += rule.to.len();
            if looked_at > SEARCH {
                break;
            }
        }
        best
    }

    /// What fails of a rule at the one of its destinations that comes closest.
    fn failing(&self, rule: &Rule, who: &SubjectIndex, to: &Tuple, now: Wall) -> Failing {
        let there = rule
            .to
            .iter()
            .filter_map(|id| self.destination(*id))
            .map(|destination| destination.failing(to))
            .min_by_key(|failing| failing.iter().map(cost).sum::<u32>());
        rule.from.failing(who, now).and(there.unwrap_or_default())
    }

    fn sentence(
        &self,
        condition: Condition,
        rule: &Rule,
        who: &Subject,
        to: &Tuple,
        denied_by: &str,
        now: Wall,
    ) -> Words {
        match condition {
            Condition::DeniedFirst => format!("denied first by rule \"{denied_by}\"").into(),
            Condition::Group => {
                let mut words = self.required(Kind::Group, &rule.from.groups);
                words.say("; ");
                match (&who.user, who.device.as_str()) {
                    (Some(user), _) => words.name(Name::User, user),
                    (None, "") => words.say("the device"),
                    (None, device) => words.name(Name::Device, device),
                };
                words
                    .say(" has ")
                    .append(&listed(who.groups.iter(), "no group"));
                words
            }
            Condition::User => {
                let mut words = self.required(Kind::User, &rule.from.users);
                words.say("; the device belongs to ");
                match &who.user {
                    Some(user) => words.name(Name::User, user),
                    None => words.say("nobody: it is a machine"),
                };
                words
            }
            Condition::Device => {
                let mut words = self.required(Kind::Device, &rule.from.devices);
                words.say("; this one is ");
                match who.device.as_str() {
                    "" => words.say("not named"),
                    device => words.name(Name::Device, device),
                };
                words
            }
            Condition::Posture => {
                let checks = self.failing_checks(rule, &who.standing, now);
                let said = checks.iter().map(|check| {
                    format!(
                        "check {} fails: expected {}, received {}",
                        check.name, check.expected, check.received
                    )
                });
                said.collect::<Vec<_>>().join("; ").into()
            }
            Condition::SessionAge => {
                let age = rule.from.session_age.unwrap_or_default();
                let age = duration::shown(age);
                let login = login(&who.standing, now);
                format!("a login younger than {age} is required; {login}").into()
            }
            Condition::Port => {
                let here = rule.to.iter().filter_map(|id| self.destination(*id));
                let (near, far): (Vec<_>, Vec<_>) =
                    here.partition(|at| at.addresses.contains(to.address));
                let of = if near.is_empty() { far } else { near };
                let ports = of.iter().flat_map(|at| at.ports.ranges());
                format!("{} is not among {}", port(to), listed(ports, "nothing")).into()
            }
            Condition::Address => {
                let here = rule.to.iter().filter_map(|id| self.destination(*id));
                let nets = here
                    .flat_map(|at| at.addresses.written())
                    .map(|net| Shown(*net));
                let nets = listed(nets, "nothing");
                format!("address {} is not among {nets}", to.address).into()
            }
        }
    }

    fn required(&self, kind: Kind, names: &[NameId]) -> Words {
        let (kind, of) = match kind {
            Kind::User => ("user", Some(Name::User)),
            Kind::Group => ("group", None),
            Kind::Device => ("device", Some(Name::Device)),
        };
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
}

/// How far away a rule is that fails `condition`. What the user can mend is nearest, the identity is nearer than the port, and any
/// rule for the address is nearer than a rule for another one.
fn cost(condition: Condition) -> u32 {
    match condition {
        Condition::DeniedFirst => 1,
        Condition::SessionAge => 3,
        Condition::Posture => 4,
        Condition::Group => 10,
        Condition::User => 11,
        Condition::Device => 12,
        Condition::Port => 15,
        Condition::Address => 100,
    }
}

/// `this one is 13 h old`
fn login(standing: &Standing, now: Wall) -> String {
    let Some(session) = &standing.session else {
        return "the device has none".to_owned();
    };
    match session.until.filter(|until| *until <= now) {
        Some(until) => format!(
            "the last one ended {} ago",
            duration::shown(now.since(until))
        ),
        None => format!(
            "this one is {} old",
            duration::shown(now.since(session.since))
        ),
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

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.user, self.device.as_str()) {
            (Some(user), "") => f.write_str(user)?,
            (Some(user), device) => write!(f, "{user} on {device}")?,
            (None, "") => f.write_str("a device without a user")?,
            (None, device) => f.write_str(device)?,
        }
        if !self.groups.is_empty() {
            write!(f, " ({})", self.groups.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = if self.allow { "allow" } else { "deny" };
        write!(f, "{action}: {} to {}", self.subject, self.to)?;
        write!(f, "\n  rule: {}", self.rule)?;
        if let Some(line) = self.line {
            write!(f, " (line {line})")?;
        }
        if let Some(target) = &self.target {
            write!(f, "\n  target: {target}")?;
        }
        write!(f, "\n  policy: {}", self.policy)?;
        if let Some(nearest) = &self.nearest {
            let Nearest { rule, line, .. } = nearest;
            write!(
                f,
                "\n  nearest rule that would have allowed: {rule} (line {line})"
            )?;
            for failed in &nearest.failed {
                write!(f, "\n    - {}", failed.sentence)?;
            }
        }
        Ok(())
    }
}
