//! What each rule of the policy in force decided: one place for each, found by its number, so that
//! counting costs nothing and a reader needs no names until it writes them down.

use crate::policy::{Policy, RuleId};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use std::sync::Arc;

/// Allowed and denied attempts under one rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RuleCount {
    /// Flows opened.
    pub allowed: u64,
    /// Attempts denied.
    pub denied: u64,
}

/// Attempts that a rule in `mode: shadow` would have decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShadowCount {
    /// It would have allowed these: allowed, and denied, in truth.
    pub allow: RuleCount,
    /// It would have denied these.
    pub deny: RuleCount,
}

/// The counts of every rule, by the names that the policy in force has for them.
#[derive(Clone, Debug)]
pub struct RuleCounts {
    policy: Arc<Policy>,
    /// By rule, in the order of the file.
    rules: Vec<RuleCount>,
    /// By entry of `grants:`.
    grants: Vec<RuleCount>,
    default: RuleCount,
    /// By rule; only once one in `mode: shadow` decided something.
    shadow: Vec<ShadowCount>,
}

impl RuleCounts {
    /// Nothing counted.
    #[must_use]
    pub fn new(policy: Arc<Policy>) -> RuleCounts {
        let rules = policy.len();
        let beyond = policy.rule_names().skip(rules);
        let grants = beyond.filter(|(id, _)| *id != RuleId::Default).count();
        RuleCounts {
            policy,
            rules: vec![RuleCount::default(); rules],
            grants: vec![RuleCount::default(); grants],
            default: RuleCount::default(),
            shadow: Vec::new(),
        }
    }

    /// Counts on under another policy. A rule keeps its counts by its name; those of rules that are
    /// gone are dropped, so this is bounded by the policy.
    pub fn follow(&mut self, policy: Arc<Policy>) {
        let before = std::mem::replace(self, RuleCounts::new(policy));
        let after = Arc::clone(&self.policy);
        // By numbers, not by names: this is in the way of packets.
        let mut places: Option<HashMap<u64, RuleId, FixedState>> = None;
        for old in before.ids() {
            let (count, shadow) = (before.of(old), before.shadow_of(old));
            if count == RuleCount::default() && shadow == ShadowCount::default() {
                continue;
            }
            let Some(mark) = before.policy.rule_mark(old) else {
                continue;
            };
            // Most rules stay where they are.
            let new = if after.rule_mark(old) == Some(mark) {
                old
            } else {
                let places = places.get_or_insert_with(|| {
                    let marked = self.ids().map(|id| Some((after.rule_mark(id)?, id)));
                    marked.flatten().collect()
                });
                match places.get(&mark) {
                    Some(id) => *id,
                    None => continue,
                }
            };
            if let Some(place) = self.place(new) {
                *place = count;
            }
            if shadow != ShadowCount::default()
                && let Some(place) = self.shadow_place(new)
            {
                *place = shadow;
            }
        }
    }

    /// Counts an attempt.
    pub fn count(&mut self, rule: RuleId, allowed: bool) {
        if let Some(count) = self.place(rule) {
            count.add(allowed);
        }
    }

    /// Counts an attempt that the rule, in `mode: shadow`, would have decided so.
    pub fn count_shadow(&mut self, rule: RuleId, would_allow: bool, allowed: bool) {
        if let Some(count) = self.shadow_place(rule) {
            if would_allow {
                count.allow.add(allowed);
            } else {
                count.deny.add(allowed);
            }
        }
    }

    /// Every rule by its name, the default last.
    pub fn iter(&self) -> impl Iterator<Item = (&str, RuleCount)> {
        let names = self.policy.rule_names();
        names.map(|(id, name)| (name, self.of(id)))
    }

    /// The rules that would have decided something.
    pub fn shadows(&self) -> impl Iterator<Item = (&str, ShadowCount)> {
        let counts = (0u32..).zip(&self.shadow);
        counts
            .filter(|(_, count)| **count != ShadowCount::default())
            .map(|(id, count)| (self.policy.rule_name(RuleId::Rule(id)), *count))
    }

    /// The counts of the rule with this name.
    #[must_use]
    pub fn named(&self, name: &str) -> Option<RuleCount> {
        self.iter()
            .find(|(rule, _)| *rule == name)
            .map(|(_, count)| count)
    }

    fn ids(&self) -> impl Iterator<Item = RuleId> + use<> {
        let count = |list: &Vec<RuleCount>| u32::try_from(list.len()).unwrap_or(u32::MAX);
        let rules = (0..count(&self.rules)).map(RuleId::Rule);
        let grants = (0..count(&self.grants)).map(RuleId::Grant);
        rules.chain(grants).chain([RuleId::Default])
    }

    fn of(&self, rule: RuleId) -> RuleCount {
        let found = match rule {
            RuleId::Rule(id) => self.rules.get(id as usize),
            RuleId::Grant(id) => self.grants.get(id as usize),
            RuleId::Default => Some(&self.default),
        };
        found.copied().unwrap_or_default()
    }

    fn shadow_of(&self, rule: RuleId) -> ShadowCount {
        match rule {
            RuleId::Rule(id) => self.shadow.get(id as usize).copied().unwrap_or_default(),
            RuleId::Grant(_) | RuleId::Default => ShadowCount::default(),
        }
    }

    fn place(&mut self, rule: RuleId) -> Option<&mut RuleCount> {
        match rule {
            RuleId::Rule(id) => self.rules.get_mut(id as usize),
            RuleId::Grant(id) => self.grants.get_mut(id as usize),
            RuleId::Default => Some(&mut self.default),
        }
    }

    fn shadow_place(&mut self, rule: RuleId) -> Option<&mut ShadowCount> {
        let RuleId::Rule(id) = rule else { return None };
        if self.shadow.is_empty() {
            self.shadow.resize(self.rules.len(), ShadowCount::default());
        }
        self.shadow.get_mut(id as usize)
    }
}

impl RuleCount {
    fn add(&mut self, allowed: bool) {
        if allowed {
            self.allowed += 1;
        } else {
            self.denied += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(rules: &[&str]) -> Arc<Policy> {
        let mut text = "version: 1\nrules:\n".to_owned();
        for (n, name) in rules.iter().enumerate() {
            text += &format!(
                "  - {{ name: {name}, action: allow, from: {{ groups: [g] }}, \
                 to: {{ addresses: [192.0.2.{n}], ports: [22/tcp] }} }}\n"
            );
        }
        Arc::new(Policy::parse(&text).expect("valid"))
    }

    #[test]
    fn a_rule_keeps_its_counts_wherever_it_goes_and_one_that_is_gone_loses_them() {
        let mut counts = RuleCounts::new(policy(&["a", "b", "c"]));
        counts.count(RuleId::Rule(0), true);
        counts.count(RuleId::Rule(1), true);
        counts.count(RuleId::Rule(2), false);
        counts.count(RuleId::Default, false);
        counts.count_shadow(RuleId::Rule(2), false, true);
        counts.follow(policy(&["c", "b", "d"]));
        let all: Vec<(&str, u64, u64)> = counts
            .iter()
            .map(|(name, count)| (name, count.allowed, count.denied))
            .collect();
        assert_eq!(
            all,
            [("c", 0, 1), ("b", 1, 0), ("d", 0, 0), ("default", 0, 1)]
        );
        let shadows: Vec<_> = counts.shadows().collect();
        assert_eq!((shadows.len(), shadows[0].0), (1, "c"));
        assert_eq!(shadows[0].1.deny.allowed, 1);
        counts.follow(policy(&["a"]));
        assert_eq!(counts.named("a"), Some(RuleCount::default()));
    }
}
