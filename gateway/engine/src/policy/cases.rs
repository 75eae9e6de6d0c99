//! The `tests:` of a policy file: who, where to, and what must come out.

use super::error::{Faults, Place};
use super::fields::{Fields, list, word};
use super::nearest::nearest;
use super::posture::{CheckId, Checks};
use super::read::{Draft, one_of};
use super::subject::SubjectIndex;
use super::when::parse_at;
use super::who::{age, label};
use super::yaml::Node;
use super::{DEFAULT_RULE, Policy, Subject, Tuple};
use crate::duration;
use crate::standing::{Grant, Session, Standing};
use postern_proto::now::Wall;
use serde::Serialize;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// One entry of `tests:`. What it does not say of who asks does not hold.
pub(super) struct Case {
    line: usize,
    /// With their login, if they have one, as old as it is at [`Case::now`].
    who: Subject,
    /// The device has no user. Without this, a test that names none is about some user.
    machine: bool,
    /// The checks that hold; the others fail.
    posture: Vec<CheckId>,
    to: Tuple,
    /// Without it every window is closed.
    at: Option<Wall>,
    allow: bool,
    rule: Option<String>,
}

/// How one entry of `tests:` went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TestOutcome {
    /// Line of the file.
    pub line: usize,
    /// Who and where to: `ana@example.com (platform) to 192.0.2.10:6443/tcp`.
    pub described: String,
    /// `deny`, or with a rule `allow by "kubectl to the API server"`.
    pub expected: String,
    /// In the same words, always with the rule.
    pub got: String,
    /// Did the expected come out?
    pub passed: bool,
}

impl Policy {
    /// Judges every entry of `tests:` as a packet would be, in the order of the file.
    #[must_use]
    pub fn run_tests(&self) -> Vec<TestOutcome> {
        self.cases.iter().map(|case| self.run(case)).collect()
    }

    fn run(&self, case: &Case) -> TestOutcome {
        let verdict = self.judge(&case.index(self), &case.to, case.now());
        let rule = self.rule_name(verdict.rule());
        let same_rule = case.rule.as_ref().is_none_or(|expected| expected == rule);
        TestOutcome {
            line: case.line,
            described: format!("{}{} to {}", case.who, case.state(&self.checks), case.to),
            expected: words(case.allow, case.rule.as_deref()),
            got: words(verdict.allows(), Some(rule)),
            passed: verdict.allows() == case.allow && same_rule,
        }
    }
}

/// When tests take place that do not say it: any age fits before it.
const NOW: Wall = Wall(u64::MAX / 2);

impl Case {
    fn now(&self) -> Wall {
        self.at.unwrap_or(NOW)
    }

    fn index(&self, policy: &Policy) -> SubjectIndex {
        let mut index = policy.index(&self.who);
        for (id, until) in (0u32..).map(CheckId).zip(&mut index.checks) {
            *until = match self.posture.contains(&id) {
                true => Wall::NEVER,
                false => Wall(0),
            };
        }
        if !self.machine {
            index
                .names
                .retain(|name| !policy.names.is_of_machines(*name));
        }
        index.timeless = self.at.is_none();
        index
    }

    /// `, team=infra, disk-encrypted, login 2 h ago, at 198.51.100.7`
    fn state(&self, checks: &Checks) -> String {
        let standing = &self.who.standing;
        let posture = self.posture.iter().filter_map(|id| checks.get(*id));
        let mut said: Vec<String> = standing.labels.clone();
        said.extend(posture.map(|check| check.name.clone()));
        if let Some(login) = &standing.session {
            let age = duration::shown(self.now().since(login.since));
            let by = login.issuer.iter().map(|issuer| format!(" by {issuer}"));
            let amr = login.amr.iter().map(|amr| format!(" {amr}"));
            let acr = login.acr.iter().map(|acr| format!(" class {acr}"));
            let how: String = by.chain(amr).chain(acr).collect();
            said.push(format!("login{how} {age} ago"));
        }
        said.extend(standing.outer.map(|at| format!("at {at}")));
        let grants = standing.grants.iter();
        said.extend(grants.map(|grant| format!("grant \"{}\"", grant.entry)));
        said.into_iter().map(|one| format!(", {one}")).collect()
    }
}

/// Reads one entry; none if it has a fault.
pub(super) fn read(node: &Node, draft: &Draft, faults: &mut Faults<'_>) -> Option<Case> {
    let known = [
        "user",
        "groups",
        "device",
        "labels",
        "machine",
        "issuer",
        "amr",
        "acr",
        "outer",
        "posture",
        "session_age",
        "at",
        "grant",
        "to",
        "expect",
        "rule",
    ];
    let fields = Fields::read(node, "a test", &known, faults)?;
    let text = |field: &str, what, faults: &mut Faults<'_>| {
        let node = fields.get(field)?;
        word(node, what, faults).map(str::to_owned)
    };
    let user = text("user", "`user`", faults);
    let device = text("device", "`device`", faults);
    let groups = each_word(&fields, "groups", faults, |node, faults| {
        word(node, "a group", faults)
    });
    let labels = each_word(&fields, "labels", faults, label);
    let machine = fields.get("machine").and_then(|node| {
        let known = [("true", true), ("false", false)];
        let machine = one_of(node, "machine", &known, faults)?;
        if machine && user.is_some() {
            let help = "take out one of `user` and `machine`";
            faults.add(node.at, "a machine has no user", help);
        }
        Some(machine)
    });
    let posture = fields.get("posture").map_or(Vec::new(), |node| {
        let example = "the checks that hold, or take the field out";
        let items = list(node, "posture", example, faults).unwrap_or_default();
        draft.checks.named(items, faults)
    });
    let at = fields.get("at").and_then(|node| moment(node, faults));
    let session = login(&fields, at.unwrap_or(NOW), faults);
    let outer = fields.get("outer").and_then(|node| outer(node, faults));
    let to = fields
        .need("to", "write `to: \"192.0.2.10:22/tcp\"`", faults)
        .and_then(|node| tuple(node, faults));
    let allow = fields
        .need("expect", "write `expect: allow` or `expect: deny`", faults)
        .and_then(|node| one_of(node, "expect", &[("allow", true), ("deny", false)], faults));
    let rule = fields.get("rule").and_then(|node| {
        let name = word(node, "`rule`", faults)?;
        rule_is_known(name, node.at, draft, faults);
        Some(name.to_owned())
    });
    let grant = fields.get("grant").and_then(|node| {
        let name = word(node, "`grant`", faults)?;
        grant_is_known(name, node.at, draft, faults);
        Some(grant(name, &to?, at.unwrap_or(NOW)))
    });
    Some(Case {
        line: node.at.line,
        who: Subject {
            user,
            groups,
            device: device.unwrap_or_default(),
            standing: Standing {
                session,
                labels,
                outer,
                grants: grant.into_iter().collect(),
                ..Standing::default()
            },
        },
        machine: machine.unwrap_or_default(),
        posture,
        to: to?,
        at,
        allow: allow?,
        rule,
    })
}

/// The words of a list, sorted, each once.
fn each_word<'n>(
    fields: &Fields<'n>,
    field: &'static str,
    faults: &mut Faults<'_>,
    read: impl Fn(&'n Node, &mut Faults<'_>) -> Option<&'n str>,
) -> Vec<String> {
    let example = "at least one name, or take the field out";
    let items = fields
        .get(field)
        .and_then(|node| list(node, field, example, faults));
    let words = items.unwrap_or_default().iter();
    let words: BTreeSet<&str> = words.filter_map(|node| read(node, faults)).collect();
    words.into_iter().map(str::to_owned).collect()
}

/// What the issuer says is of a login that was just now, if no age is said.
fn login(fields: &Fields<'_>, now: Wall, faults: &mut Faults<'_>) -> Option<Session> {
    let age = fields.get("session_age").and_then(|node| age(node, faults));
    let text = |field, what, faults: &mut Faults<'_>| {
        let node: &Node = fields.get(field)?;
        word(node, what, faults)
    };
    let issuer = text("issuer", "`issuer`", faults);
    let acr = text("acr", "`acr`", faults);
    let amr = each_word(fields, "amr", faults, |node, faults| {
        word(node, "an item of `amr`", faults)
    });
    let any = age.is_some() || issuer.is_some() || acr.is_some() || !amr.is_empty();
    let age = Wall(0) + age.unwrap_or_default();
    any.then(|| Session {
        id: "test".into(),
        method: "test".into(),
        issuer: issuer.map(Into::into),
        amr,
        acr: acr.map(str::to_owned),
        since: Wall(now.0.saturating_sub(age.0)),
        until: None,
    })
}

fn moment(node: &Node, faults: &mut Faults<'_>) -> Option<Wall> {
    match parse_at(word(node, "`at`", faults)?) {
        Ok(moment) => Some(moment),
        Err((what, help)) => {
            faults.add(node.at, what, help);
            None
        }
    }
}

fn outer(node: &Node, faults: &mut Faults<'_>) -> Option<IpAddr> {
    let text = word(node, "`outer`", faults)?;
    let address = text.parse().ok();
    if address.is_none() {
        let help = "write where the device is, such as `198.51.100.7`";
        faults.add(node.at, format!("`{text}` is not an address"), help);
    }
    address
}

/// One that was approved just now, for the very place that the test asks for.
fn grant(entry: &str, to: &Tuple, now: Wall) -> Grant {
    Grant {
        id: "test".into(),
        entry: entry.into(),
        target: to.to_string().into(),
        reason: "test".into(),
        break_glass: false,
        since: now,
        until: Wall::NEVER,
    }
}

fn tuple(node: &Node, faults: &mut Faults<'_>) -> Option<Tuple> {
    match word(node, "`to`", faults)?.parse::<Tuple>() {
        Ok(tuple) => Some(tuple),
        Err(error) => {
            faults.add(node.at, error.what, error.help);
            None
        }
    }
}

fn rule_is_known(name: &str, at: Place, draft: &Draft, faults: &mut Faults<'_>) {
    let rules = draft.rules.iter().map(|rule| rule.name.as_str());
    let grants = draft.grants.iter().map(|grant| grant.name.as_str());
    let mut known = rules.chain(grants).chain([DEFAULT_RULE]);
    if known.clone().any(|known| known == name) {
        return;
    }
    let help = match nearest(name, &mut known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "name a rule of this file, or `default`, which denies the rest".to_owned(),
    };
    faults.add(at, format!("there is no rule `{name}`"), help);
}

fn grant_is_known(name: &str, at: Place, draft: &Draft, faults: &mut Faults<'_>) {
    let known = draft.grants.iter().map(|grant| grant.name.as_str());
    if known.clone().any(|known| known == name) {
        return;
    }
    let help = match nearest(name, known) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "name an entry of `grants:`".to_owned(),
    };
    faults.add(at, format!("there is no grant `{name}`"), help);
}

fn words(allow: bool, rule: Option<&str>) -> String {
    let action = if allow { "allow" } else { "deny" };
    rule.map_or(action.to_owned(), |rule| format!("{action} by \"{rule}\""))
}
