//! Sums of a replay, all of them bounded.

use super::{Example, Kind, Plan, RuleShare, SHOWN, ShadowShare, Share, Sums};
use crate::attempt::{Attempt, State};
use crate::past::Stood;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use postern_engine::policy::{Policy, Tuple};
use postern_proto::now::Wall;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Pairs of who and where to that are told apart, at under 1 KiB each: 20 MiB.
pub const MAX_PAIRS: usize = 20_000;

/// Memory for how those stood who are newly denied, bytes: usually 2 KiB a pair. Of pairs beyond
/// that the nearest rule is not told.
const MAX_STOOD: usize = 64 << 20;

/// Users, devices and pairs of rules that are told apart, at under 300 bytes each: 10 MiB.
const MAX_NAMES: usize = 10_000;

/// A name that is not there is empty.
type Names = HashMap<String, Sums, FixedState>;

#[derive(Debug, Default)]
pub(super) struct Tally {
    users: Names,
    devices: Names,
    rules: HashMap<String, Names, FixedState>,
    shadow: BTreeMap<(String, bool, bool), u64>,
    pairs: HashMap<Pair, Seen, FixedState>,
    /// Of who is kept in `pairs`, each as often as it is.
    weight: usize,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Pair {
    kind: Kind,
    who: String,
    to: Tuple,
}

#[derive(Debug)]
struct Seen {
    example: Example,
    /// Of a newly denied one.
    stood: Option<Arc<Stood>>,
    /// The moment that it was judged at.
    at: Wall,
}

impl Tally {
    pub(super) fn add(&mut self, attempt: &Attempt, rule: &str, kind: Option<Kind>, count: u64) {
        sum(&mut self.users, attempt.user.as_deref(), kind, count);
        sum(&mut self.devices, attempt.device.as_deref(), kind, count);
        if self.rules.len() < MAX_NAMES || self.rules.contains_key(&attempt.rule) {
            let to = self.rules.entry_ref(attempt.rule.as_str()).or_default();
            sum(to, Some(rule), kind, count);
        }
    }

    #[allow(clippy::too_many_arguments)]
    pub(super) fn change(
        &mut self,
        attempt: &Attempt,
        to: &Tuple,
        kind: Kind,
        rule: &str,
        at: Wall,
        stood: &Arc<Stood>,
        count: u64,
    ) {
        let who = attempt.user.as_ref().or(attempt.device.as_ref());
        let pair = Pair {
            kind,
            who: who.cloned().unwrap_or_default(),
            to: *to,
        };
        let open = if attempt.state == State::Live {
            count
        } else {
            0
        };
        if let Some(seen) = self.pairs.get_mut(&pair) {
            let sum = &mut seen.example.attempts;
            *sum = sum.saturating_add(count);
            seen.example.open = seen.example.open.saturating_add(open);
            seen.example.time = seen.example.time.max(attempt.start);
        } else if self.pairs.len() < MAX_PAIRS {
            let example = Example {
                change: kind,
                time: attempt.start,
                attempts: count,
                open,
                user: attempt.user.clone(),
                device: attempt.device.clone(),
                to: *to,
                was: attempt.rule.clone(),
                is: rule.to_owned(),
                nearest: None,
            };
            let weight = self.weight.saturating_add(stood.weight);
            let keep = kind == Kind::NewlyDenied && weight <= MAX_STOOD;
            let stood = keep.then(|| Arc::clone(stood));
            if keep {
                self.weight = weight;
            }
            self.pairs.insert(pair, Seen { example, stood, at });
        }
    }

    pub(super) fn shadow(&mut self, rule: &str, allow: bool, live: bool, count: u64) {
        let sum = self
            .shadow
            .entry((rule.to_owned(), allow, live))
            .or_default();
        *sum = sum.saturating_add(count);
    }

    pub(super) fn finish(self, policy: &Policy, mut plan: Plan) -> Plan {
        for pair in self.pairs.keys() {
            match pair.kind {
                Kind::NewlyDenied => plan.newly_denied.pairs += 1,
                Kind::NewlyAllowed => plan.newly_allowed.pairs += 1,
            }
        }
        plan.by_user = shares(self.users);
        plan.by_device = shares(self.devices);
        plan.by_rule = rules(self.rules);
        plan.shadow = self
            .shadow
            .into_iter()
            .map(|((rule, allow, live), attempts)| ShadowShare {
                rule,
                allow,
                live,
                attempts,
            })
            .collect();
        let mut seen: Vec<Seen> = self.pairs.into_values().collect();
        seen.sort_by(|a, b| order(&a.example).cmp(&order(&b.example)));
        seen.truncate(SHOWN);
        plan.examples = seen
            .into_iter()
            .map(|seen| seen.explained(policy))
            .collect();
        plan
    }
}

impl Seen {
    fn explained(self, policy: &Policy) -> Example {
        let mut example = self.example;
        let said = self
            .stood
            .map(|stood| policy.explain(&stood.who, &example.to, self.at));
        let nearest = said.and_then(|said| said.nearest);
        example.nearest = nearest.map(|near| format!("{}: {}", near.rule, near.sentence()));
        example
    }
}

/// The most frequent of each kind first.
fn order(example: &Example) -> impl Ord + '_ {
    (
        example.change,
        std::cmp::Reverse(example.attempts),
        example.user.as_deref(),
        example.device.as_deref(),
        example.to,
    )
}

fn sum(sums: &mut Names, name: Option<&str>, kind: Option<Kind>, count: u64) {
    let name = name.unwrap_or_default();
    if sums.len() >= MAX_NAMES && !sums.contains_key(name) {
        return;
    }
    let sums = sums.entry_ref(name).or_default();
    let sum = match kind {
        Some(Kind::NewlyDenied) => &mut sums.newly_denied,
        Some(Kind::NewlyAllowed) => &mut sums.newly_allowed,
        None => &mut sums.unchanged,
    };
    *sum = sum.saturating_add(count);
}

fn shares(names: Names) -> Vec<Share> {
    let mut shares: Vec<Share> = names
        .into_iter()
        .map(|(name, sums)| Share {
            name: (!name.is_empty()).then_some(name),
            sums,
        })
        .collect();
    shares.sort_by(|a, b| (weight(&a.sums), &a.name).cmp(&(weight(&b.sums), &b.name)));
    shares.truncate(SHOWN);
    shares
}

fn rules(rules: HashMap<String, Names, FixedState>) -> Vec<RuleShare> {
    let mut shares: Vec<RuleShare> = rules
        .into_iter()
        .flat_map(|(was, to)| {
            to.into_iter().map(move |(is, sums)| RuleShare {
                was: was.clone(),
                is,
                sums,
            })
        })
        .collect();
    shares.sort_by(|a, b| (weight(&a.sums), &a.was, &a.is).cmp(&(weight(&b.sums), &b.was, &b.is)));
    shares.truncate(SHOWN);
    shares
}

/// What changes the most comes first, and what breaks before what opens.
fn weight(sums: &Sums) -> impl Ord + use<> {
    std::cmp::Reverse((sums.newly_denied, sums.newly_allowed, sums.unchanged))
}
