//! Tests made from use: somebody who used a rule is allowed by it.

use crate::past::Stood;
use postern_engine::policy::{Answers, Policy, RuleView, Subject, Tree, Tuple};
use postern_proto::now::Wall;

/// Of one rule.
const SAMPLES: usize = 2;

/// Of a policy.
pub(super) const MAX_TESTS: usize = 200;

/// A use of a rule.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    who: Subject,
    to: Tuple,
    at: Wall,
}

/// One more, if there are few yet and who it was is known.
pub(super) fn samples(
    have: &[Sample],
    stood: &Stood,
    policy: &Policy,
    to: Tuple,
    at: Wall,
) -> Option<Sample> {
    let new = have.iter().all(|one| one.who.user != stood.who.user);
    let room = have.is_empty() || have.len() < SAMPLES && new;
    (room && stood.exact(policy)).then(|| Sample {
        who: stood.who.clone(),
        to,
        at,
    })
}

impl Sample {
    /// An entry of `tests:`, with what the rule asks for and no more.
    pub(super) fn test(&self, rule: &RuleView<'_>, text: &Tree) -> Tree {
        let asked = rule.who();
        let standing = &self.who.standing;
        let mut fields: Vec<(String, Tree)> = Vec::new();
        let mut say = |field: &str, value: Tree| fields.push((field.to_owned(), value));
        if let Some(user) = &self.who.user {
            say("user", word(user));
        }
        if !self.who.groups.is_empty() {
            say("groups", words(&self.who.groups));
        }
        if !self.who.device.is_empty() {
            say("device", word(&self.who.device));
        }
        if asked.machines.is_some() {
            say("machine", word("true"));
        }
        if !asked.labels.is_empty() {
            say("labels", words(&standing.labels));
        }
        if !asked.posture.is_empty() {
            let names = asked.posture.iter().map(|name| word(name));
            say("posture", Tree::List(names.collect()));
        }
        let login = standing.session.as_ref();
        let asks_login =
            !asked.issuers.is_empty() || !asked.amr.is_empty() || !asked.acr.is_empty();
        if asked.session_age.is_some() || asks_login {
            say("session_age", word("1m"));
        }
        if let Some(login) = login.filter(|_| asks_login) {
            if let Some(issuer) = login
                .issuer
                .as_deref()
                .filter(|_| !asked.issuers.is_empty())
            {
                say("issuer", word(issuer));
            }
            if !asked.amr.is_empty() {
                say("amr", words(&login.amr));
            }
            if let Some(acr) = login.acr.as_deref().filter(|_| !asked.acr.is_empty()) {
                say("acr", word(acr));
            }
        }
        if let Some(outer) = standing.outer.filter(|_| !asked.outer.is_empty()) {
            say("outer", word(&outer.to_string()));
        }
        if text.get("when").is_some() || text.get("until").is_some() {
            let at = self.at.rfc3339();
            if let (Some(date), Some(time)) = (at.get(..10), at.get(11..16)) {
                say("at", word(&format!("{date} {time} UTC")));
            }
        }
        say("to", word(&self.to.to_string()));
        say("expect", word("allow"));
        say("rule", word(rule.name()));
        Tree::Map(fields)
    }
}

/// Fields that can say every user, group and check there is.
const PLAIN: [&str; 8] = [
    "user",
    "groups",
    "device",
    "posture",
    "session_age",
    "to",
    "expect",
    "rule",
];

/// Those of `own` and `made` with which `text` makes a policy, and which pass. Facts that no test
/// can state make some of those made fail; what is allowed no more, some of the policy's own.
pub(super) fn that_hold(
    own: &[Tree],
    made: &[Tree],
    answers: &Answers,
    text: impl Fn(&[Tree]) -> String,
) -> Vec<Tree> {
    let plain = |test: &&Tree| {
        test.entries()
            .iter()
            .all(|(field, _)| PLAIN.contains(&&**field))
    };
    let plain: Vec<Tree> = made.iter().filter(plain).cloned().collect();
    for tests in [
        [own, made].concat(),
        [own, &plain].concat(),
        own.to_vec(),
        made.to_vec(),
        plain,
    ] {
        if let Ok(policy) = Policy::compile_for_the_past(&text(&tests), answers) {
            let outcomes = policy.run_tests().into_iter();
            let held = tests.iter().zip(outcomes).filter(|(_, test)| test.passed);
            return held.map(|(test, _)| test.clone()).collect();
        }
    }
    Vec::new()
}

fn word(text: &str) -> Tree {
    Tree::Text(text.to_owned())
}

fn words(texts: &[String]) -> Tree {
    Tree::List(texts.iter().map(|text| word(text)).collect())
}
