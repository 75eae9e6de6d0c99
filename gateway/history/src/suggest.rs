//! The tightest policy that keeps what was used: each rule for those who used it, to where they
//! went.
//!
//! Rules keep their names and their order. An allowing rule gets fewer names and destinations and
//! keeps its other conditions; one that nobody used is left out. Denying rules, rules in shadow and
//! grants stay as they are. So a use that a rule of the policy in force allows is allowed by the same rule here:
//! no rule before it matches more than it did.

mod from;
mod test;
mod to;

use crate::attempt::Attempt;
use crate::past::Past;
use crate::plan::{counts, verdict_of};
use from::Whom;
use postern_engine::policy::{Answers, Mode, Policy, RuleId, RuleView, Tree, Tuple};
use postern_proto::now::Wall;
use serde::{Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use test::{Sample, samples};

/// Destinations of one rule that are told apart, at under 100 bytes each: 1 MiB. A rule that is used
/// for more keeps its own.
const MAX_USED: usize = 10_000;

/// A policy has at least one rule. This one decides nothing, so that grants go on.
const NOTHING: &str =
    "  - { name: nothing was used, action: deny, mode: shadow, from: anyone, to: anything }";

/// Gathers what was used of one policy.
#[derive(Debug)]
pub struct Suggest<'p> {
    policy: &'p Policy,
    past: Past,
    since: Wall,
    uses: Vec<Use>,
    gathered: Gathered,
}

/// A policy, and what it rests on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Suggestion {
    /// The text of the policy.
    pub policy: String,
    /// Every rule of the policy in force, in its order.
    pub rules: Vec<RuleUse>,
    /// What was gone through.
    #[serde(flatten)]
    pub gathered: Gathered,
}

/// Attempts by what is made of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Gathered {
    /// Allowed then, and allowed by the policy in force: what the suggestion keeps.
    pub kept: u64,
    /// Of these, allowed by a grant.
    pub by_grant: u64,
    /// Allowed then, and no longer.
    pub no_longer: u64,
    /// Allowed then; too little is known of who it was.
    pub unknown: u64,
}

/// How a rule was used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuleUse {
    /// Its name.
    pub rule: String,
    /// It is in the suggestion.
    pub kept: bool,
    /// Allowed attempts.
    pub attempts: u64,
    /// The last of them; where there is none, whoever knows more of the past may fill it in.
    #[serde(serialize_with = "moment")]
    pub last: Option<Wall>,
    /// Different users, and devices without one.
    pub users: usize,
    /// Pairs of address and port that it allows. Those of several destinations are added up.
    pub width: u128,
    /// Pairs of address and port that were used.
    pub used: usize,
}

#[derive(Debug, Default)]
struct Use {
    attempts: u64,
    last: Option<Wall>,
    whom: Whom,
    to: BTreeSet<Tuple>,
    /// More destinations than are told apart.
    everywhere: bool,
    samples: Vec<Sample>,
}

impl<'p> Suggest<'p> {
    /// Ready to hear what was used since `since` of the policy in force.
    #[must_use]
    pub fn new(policy: &'p Policy, past: Past, since: Wall) -> Suggest<'p> {
        let uses = policy.rules().map(|_| Use::default()).collect();
        Suggest {
            policy,
            past,
            since,
            uses,
            gathered: Gathered::default(),
        }
    }

    /// One record, in the order of the log.
    pub fn attempt(&mut self, attempt: &Attempt) {
        if !attempt.allow || !counts(attempt, self.since) {
            return;
        }
        let Some(to) = attempt.to else {
            return;
        };
        let Some(stood) = self.past.stood(attempt, self.policy) else {
            self.gathered.unknown += 1;
            return;
        };
        let (verdict, at) = verdict_of(self.policy, &stood, &to, attempt);
        if !verdict.allows() {
            self.gathered.no_longer += 1;
            return;
        }
        self.gathered.kept += 1;
        let id = match verdict.rule() {
            RuleId::Rule(id) => id,
            RuleId::Grant(_) | RuleId::Default => {
                self.gathered.by_grant += 1;
                return;
            }
        };
        let place = usize::try_from(id).unwrap_or(usize::MAX);
        let Some(used) = self.uses.get_mut(place) else {
            return;
        };
        used.attempts += 1;
        used.last = used.last.max(Some(attempt.start));
        used.whom.add(&stood.who, stood.exact);
        if used.to.len() < MAX_USED {
            if used.to.insert(to) {
                used.samples.extend(samples(&used.samples, &stood, to, at));
            }
        } else if !used.to.contains(&to) {
            used.everywhere = true;
        }
    }

    /// The suggestion. `source` is the text of the policy in force, and `answers` what its names
    /// mean. Empty if that is not its text.
    #[must_use]
    pub fn finish(self, source: &str, answers: &Answers) -> Suggestion {
        let Some(tree) = Tree::read(source) else {
            return Suggestion::default();
        };
        let mut rules = Vec::new();
        let mut written = Vec::new();
        let texts = tree.get("rules").map(Tree::items).unwrap_or_default();
        for ((view, text), used) in self.policy.rules().zip(texts).zip(&self.uses) {
            let narrows = view.allows() && view.mode() == Mode::Enforce;
            let kept = !narrows || used.attempts > 0;
            rules.push(RuleUse {
                rule: view.name().to_owned(),
                kept,
                attempts: used.attempts,
                last: used.last,
                users: used.whom.count(),
                width: to::width(&view),
                used: used.to.len(),
            });
            if kept {
                let rule = if narrows {
                    narrowed(&view, text, used, tree.get("targets"))
                } else {
                    text.clone()
                };
                written.push((rule, narrows));
            }
        }
        let mut suggestion = Suggestion {
            policy: String::new(),
            rules,
            gathered: self.gathered,
        };
        let text = |tests: &[Tree]| compose(&tree, &written, &suggestion, &self, tests);
        let tests = test::that_hold(&self.policy_tests(&tree), answers, text);
        let policy = text(&tests);
        suggestion.policy = policy;
        suggestion
    }

    fn policy_tests(&self, tree: &Tree) -> Vec<Tree> {
        let texts = tree.get("rules").map(Tree::items).unwrap_or_default();
        let rules = self.policy.rules().zip(texts).zip(&self.uses);
        let tests = rules.flat_map(|((view, text), used)| {
            let tests = used.samples.iter();
            tests.map(move |sample| sample.test(&view, text))
        });
        tests.take(test::MAX_TESTS).collect()
    }
}

/// The same rule for those who used it, to where they went.
fn narrowed(view: &RuleView<'_>, text: &Tree, used: &Use, targets: Option<&Tree>) -> Tree {
    let has_names = |target: &str| {
        let target = targets.and_then(|targets| targets.get(target));
        target.is_some_and(|target| target.get("names").is_some())
    };
    let entries = text.entries().iter().map(|(key, value)| {
        let value = match key.as_str() {
            "from" => used.whom.narrowed(value),
            "to" if !used.everywhere => to::narrowed(view, value, &used.to, has_names),
            _ => value.clone(),
        };
        (key.clone(), value)
    });
    Tree::Map(entries.collect())
}

/// The text of the suggestion.
fn compose(
    source: &Tree,
    rules: &[(Tree, bool)],
    suggestion: &Suggestion,
    from: &Suggest<'_>,
    tests: &[Tree],
) -> String {
    let mut text = String::new();
    // Writing to a text cannot fail.
    let _ = writeln!(
        text,
        "# What was used of policy {} since {}: {} attempts.",
        from.policy.hash(),
        from.since.rfc3339(),
        suggestion.gathered.kept
    );
    let needed = needed(source, rules, &from.uses, from.policy);
    for (section, value) in source.entries() {
        match section.as_str() {
            "rules" => write_rules(&mut text, rules, suggestion),
            "tests" => {}
            "targets" => {
                let targets = value.entries().iter();
                let kept: Vec<_> = targets
                    .filter(|(name, _)| needed.contains(name.as_str()))
                    .collect();
                if !kept.is_empty() {
                    write_section(&mut text, section, kept.into_iter());
                }
            }
            _ if !value.entries().is_empty() => {
                write_section(&mut text, section, value.entries().iter());
            }
            _ if !value.items().is_empty() => {
                let _ = writeln!(text, "\n{section}:");
                for item in value.items() {
                    let _ = writeln!(text, "  - {item}");
                }
            }
            _ => {
                let _ = writeln!(text, "{}: {value}", Tree::Text(section.clone()));
            }
        }
    }
    if !tests.is_empty() {
        text.push_str("\n# Somebody's use of each rule.\ntests:\n");
        for test in tests {
            let _ = writeln!(text, "  - {test}");
        }
    }
    text
}

fn write_section<'t>(
    text: &mut String,
    section: &str,
    entries: impl Iterator<Item = &'t (String, Tree)>,
) {
    let _ = writeln!(text, "\n{section}:");
    for (name, value) in entries {
        let _ = writeln!(text, "  {}: {value}", Tree::Text(name.clone()));
    }
}

fn write_rules(text: &mut String, rules: &[(Tree, bool)], suggestion: &Suggestion) {
    let by_name: BTreeMap<&str, &RuleUse> = suggestion
        .rules
        .iter()
        .map(|used| (used.rule.as_str(), used))
        .collect();
    text.push_str("\nrules:\n");
    if rules.is_empty() {
        let _ = writeln!(text, "{NOTHING}");
    }
    for (rule, narrowed) in rules {
        let name = rule.get("name").and_then(Tree::text);
        if let Some(used) = name
            .and_then(|name| by_name.get(name))
            .filter(|_| *narrowed)
        {
            let _ = writeln!(
                text,
                "  # {} attempts by {} users, the last {}; {} of the {} addresses and ports it had",
                used.attempts,
                used.users,
                used.last.unwrap_or_default().rfc3339(),
                used.used,
                used.width
            );
        }
        for (place, (key, value)) in rule.entries().iter().enumerate() {
            let mark = if place == 0 { "-" } else { " " };
            let _ = writeln!(text, "  {mark} {}: {value}", Tree::Text(key.clone()));
        }
    }
    let out = suggestion.rules.iter().filter(|used| !used.kept);
    for (place, used) in out.enumerate() {
        if place == 0 {
            text.push_str("  # Left out, because nobody used them:\n");
        }
        let _ = writeln!(text, "  #   {}", Tree::Text(used.rule.clone()));
    }
}

/// Targets that a rule or a grant names still, and those that were used: their names stand in
/// records, and what devices send to the gateway comes from them.
fn needed(
    source: &Tree,
    rules: &[(Tree, bool)],
    uses: &[Use],
    policy: &Policy,
) -> BTreeSet<String> {
    let grants = source.get("grants").map(Tree::items).unwrap_or_default();
    let named = rules.iter().map(|(rule, _)| rule).chain(grants);
    let named = named.filter_map(|one| one.get("to"));
    let named = named.flat_map(|to| to.items().iter().chain([to]));
    let named = named.filter_map(Tree::text).map(str::to_owned);
    let used = uses.iter().flat_map(|used| &used.to);
    let used = used
        .filter_map(|to| policy.target_at(to))
        .map(str::to_owned);
    named.chain(used).collect()
}

fn moment<S: Serializer>(time: &Option<Wall>, to: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => postern_engine::record::rfc3339(time, to),
        None => to.serialize_none(),
    }
}

#[cfg(test)]
mod tests;
