//! The `tests:` of a policy file: who, where to, and what must come out.

use super::error::{Faults, Place};
use super::fields::{Fields, list, word};
use super::nearest::nearest;
use super::posture::{CheckId, Checks};
use super::read::{Draft, one_of};
use super::rule::Rule;
use super::subject::SubjectIndex;
use super::who::age;
use super::yaml::Node;
use super::{DEFAULT_RULE, Policy, Subject, Tuple};
use crate::duration;
use postern_proto::now::Wall;
use serde::Serialize;
use std::time::Duration;

/// One entry of `tests:`.
pub(super) struct Case {
    line: usize,
    who: Subject,
    /// The checks that hold; the others fail.
    posture: Vec<CheckId>,
    /// How long ago the login was; none without a login.
    session_age: Option<Duration>,
    to: Tuple,
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
        let verdict = self.judge(&case.index(self), &case.to, NOW);
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

/// When the tests take place: any age fits before it.
const NOW: Wall = Wall(u64::MAX / 2);

impl Case {
    fn index(&self, policy: &Policy) -> SubjectIndex {
        let mut index = policy.index(&self.who);
        for (id, until) in (0u32..).map(CheckId).zip(&mut index.checks) {
            *until = match self.posture.contains(&id) {
                true => Wall::NEVER,
                false => Wall(0),
            };
        }
        let since = |age: Duration| Wall(NOW.0.saturating_sub((Wall(0) + age).0));
        index.session = self.session_age.map(|age| (since(age), Wall::NEVER));
        index
    }

    /// `, disk-encrypted, login 2 h ago`
    fn state(&self, checks: &Checks) -> String {
        let mut said = String::new();
        for check in self.posture.iter().filter_map(|id| checks.get(*id)) {
            said = said + ", " + &check.name;
        }
        match self.session_age {
            Some(age) => said + ", login " + &duration::shown(age) + " ago",
            None => said,
        }
    }
}

/// Reads one entry; none if it has a fault.
pub(super) fn read(node: &Node, draft: &Draft, faults: &mut Faults<'_>) -> Option<Case> {
    let known = [
        "user",
        "groups",
        "device",
        "posture",
        "session_age",
        "to",
        "expect",
        "rule",
    ];
    let fields = Fields::read(node, "a test", &known, faults)?;
    let user = fields
        .get("user")
        .and_then(|node| word(node, "`user`", faults));
    let device = fields
        .get("device")
        .and_then(|node| word(node, "`device`", faults));
    let groups = fields.get("groups").and_then(|node| {
        list(
            node,
            "groups",
            "at least one name, or take the field out",
            faults,
        )
    });
    let mut groups: Vec<String> = groups
        .unwrap_or_default()
        .iter()
        .filter_map(|node| word(node, "a group", faults))
        .map(str::to_owned)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    let posture = fields.get("posture").map_or(Vec::new(), |node| {
        let example = "the checks that hold, or take the field out";
        let items = list(node, "posture", example, faults).unwrap_or_default();
        draft.checks.named(items, faults)
    });
    let session_age = fields.get("session_age").and_then(|node| age(node, faults));
    let to = fields
        .need("to", "write `to: \"192.0.2.10:22/tcp\"`", faults)
        .and_then(|node| tuple(node, faults));
    let allow = fields
        .need("expect", "write `expect: allow` or `expect: deny`", faults)
        .and_then(|node| one_of(node, "expect", &[("allow", true), ("deny", false)], faults));
    let rule = fields.get("rule").and_then(|node| {
        let name = word(node, "`rule`", faults)?;
        rule_is_known(name, node.at, &draft.rules, faults);
        Some(name.to_owned())
    });
    Some(Case {
        line: node.at.line,
        who: Subject {
            user: user.map(str::to_owned),
            groups,
            device: device.unwrap_or_default().to_owned(),
            standing: Default::default(),
        },
        posture,
        session_age,
        to: to?,
        allow: allow?,
        rule,
    })
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

fn rule_is_known(name: &str, at: Place, rules: &[Rule], faults: &mut Faults<'_>) {
    if name == DEFAULT_RULE || rules.iter().any(|rule| rule.name == name) {
        return;
    }
    let known = rules.iter().map(|rule| rule.name.as_str());
    let help = match nearest(name, known.chain([DEFAULT_RULE])) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "name a rule of this file, or `default`, which denies the rest".to_owned(),
    };
    faults.add(at, format!("there is no rule `{name}`"), help);
}

fn words(allow: bool, rule: Option<&str>) -> String {
    let action = if allow { "allow" } else { "deny" };
    rule.map_or(action.to_owned(), |rule| format!("{action} by \"{rule}\""))
}
