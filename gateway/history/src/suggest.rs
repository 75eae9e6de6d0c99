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
use crate::past::{NoFacts, Past, Stood};
use crate::plan::{counts, unsure, verdict_of};
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
    /// Why the policy does not compile, which is for its size: every rule is as it was where that
    /// is shorter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
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
    ///
    /// # Errors
    /// How the device stood cannot be looked up.
    pub fn attempt(&mut self, attempt: &Attempt) -> Result<(), NoFacts> {
        if !attempt.allow || !counts(attempt, self.since) {
            return Ok(());
        }
        let Some(to) = attempt.to else {
            return Ok(());
        };
        match self.past.stood(attempt, self.policy)? {
            Some(stood) => self.gather(attempt, to, &stood),
            None => self.gathered.unknown += 1,
        }
        Ok(())
    }

    fn gather(&mut self, attempt: &Attempt, to: Tuple, stood: &Stood) {
        let (verdict, at) = verdict_of(self.policy, &stood.index, &to, attempt);
        if !verdict.allows() {
            let gathered = &mut self.gathered;
            match unsure(self.policy, stood, &to, at) {
                true => gathered.unknown += 1,
                false => gathered.no_longer += 1,
            }
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
        used.whom.add(&stood.who, stood.facts);
        if used.to.len() < MAX_USED {
            if used.to.insert(to) {
                used.samples
                    .extend(samples(&used.samples, stood, self.policy, to, at));
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
        let targets = tree.get("targets");
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
                written.push(Written::new(&view, text, used, narrows, targets));
            }
        }
        let mut suggestion = Suggestion {
            policy: String::new(),
            rules,
            gathered: self.gathered,
            fault: None,
        };
        let text = |written: &[Written<'_>], tests: &[Tree]| {
            compose(&tree, written, &suggestion, &self, tests)
        };
        // Many addresses and names where there was one prefix and everybody may be too much.
        let fault = loop {
            match Policy::compile_for_the_past(&text(&written, &[]), answers) {
                Ok(_) => break None,
                Err(errors) if !widen(&mut written) => break Some(errors.to_string()),
                Err(_) => {}
            }
        };
        let rule_names = written.iter().filter_map(|one| one.rule.get("name"));
        let grants = tree.get("grants").map(Tree::items).unwrap_or_default();
        let grant_names = grants.iter().filter_map(|grant| grant.get("name"));
        let names: BTreeSet<&str> = rule_names
            .chain(grant_names)
            .filter_map(Tree::text)
            .chain(["default"])
            .collect();
        let known = |test: &&Tree| {
            let rule = test.get("rule").and_then(Tree::text);
            rule.is_none_or(|rule| names.contains(rule))
        };
        let own = tree.get("tests").map(Tree::items).unwrap_or_default();
        let own: Vec<Tree> = own.iter().filter(known).cloned().collect();
        let tests = test::that_hold(&own, &self.policy_tests(&tree), answers, |tests| {
            text(&written, tests)
        });
        let policy = text(&written, &tests);
        suggestion.policy = policy;
        suggestion.fault = fault;
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

/// A rule of the suggestion.
struct Written<'t> {
    rule: Tree,
    narrows: bool,
    /// As it stood.
    before: &'t Tree,
}

impl<'t> Written<'t> {
    fn new(
        view: &RuleView<'_>,
        before: &'t Tree,
        used: &Use,
        narrows: bool,
        targets: Option<&Tree>,
    ) -> Written<'t> {
        let rule = if narrows {
            narrowed(view, before, used, targets)
        } else {
            before.clone()
        };
        Written {
            rule,
            narrows,
            before,
        }
    }

    /// How much longer than before a field is.
    fn grown(&self, field: &str) -> usize {
        let length = |rule: &Tree| rule.get(field).map_or(0, |value| value.to_string().len());
        length(&self.rule).saturating_sub(length(self.before))
    }

    fn restore(&mut self, field: &str) {
        let (Tree::Map(entries), Some(before)) = (&mut self.rule, self.before.get(field)) else {
            return;
        };
        for (_, value) in entries.iter_mut().filter(|(key, _)| key == field) {
            *value = before.clone();
        }
    }
}

/// Gives the rule whose `to` grew most its own back; where none grew, the same of `from`. False if
/// nothing grew.
fn widen(written: &mut [Written<'_>]) -> bool {
    for field in ["to", "from"] {
        let most = written.iter_mut().max_by_key(|one| one.grown(field));
        if let Some(most) = most.filter(|one| one.grown(field) > 0) {
            most.restore(field);
            return true;
        }
    }
    false
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
    rules: &[Written<'_>],
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
        text.push_str(match source.get("tests") {
            Some(_) => "\n# Tests of before that pass, then somebody's use of each rule.\ntests:\n",
            None => "\n# Somebody's use of each rule.\ntests:\n",
        });
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

fn write_rules(text: &mut String, rules: &[Written<'_>], suggestion: &Suggestion) {
    let by_name: BTreeMap<&str, &RuleUse> = suggestion
        .rules
        .iter()
        .map(|used| (used.rule.as_str(), used))
        .collect();
    text.push_str("\nrules:\n");
    if rules.is_empty() {
        let _ = writeln!(text, "{NOTHING}");
    }
    for Written { rule, narrows, .. } in rules {
        let name = rule.get("name").and_then(Tree::text);
        if let Some(used) = name.and_then(|name| by_name.get(name)).filter(|_| *narrows) {
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
fn needed(source: &Tree, rules: &[Written<'_>], uses: &[Use], policy: &Policy) -> BTreeSet<String> {
    let grants = source.get("grants").map(Tree::items).unwrap_or_default();
    let named = rules.iter().map(|one| &one.rule).chain(grants);
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
