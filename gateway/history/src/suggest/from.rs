//! Who used a rule, and its `from` with no more names than they need.

use postern_engine::policy::{Subject, Tree};
use std::collections::BTreeSet;

/// Names that are listed in one rule, and different sets of groups or labels that are told apart. A
/// rule that more used keeps its own.
const MAX_NAMES: usize = 1000;

/// Who used a rule.
#[derive(Debug, Default)]
pub(super) struct Whom {
    users: BTreeSet<String>,
    /// Every device, those with a user as well.
    devices: BTreeSet<String>,
    machines: BTreeSet<String>,
    groups: BTreeSet<Vec<String>>,
    labels: BTreeSet<Vec<String>>,
    /// Somebody is not known by all that a rule may ask for, or they are too many.
    unclear: bool,
}

impl Whom {
    pub(super) fn add(&mut self, who: &Subject, exact: bool) {
        // A record alone may name a pseudonym, and says nothing of labels.
        self.unclear |= !exact;
        let limits = [
            self.devices.len(),
            self.users.len(),
            self.groups.len(),
            self.labels.len(),
        ];
        if limits.into_iter().any(|len| len >= MAX_NAMES) {
            self.unclear = true;
            return;
        }
        match &who.user {
            Some(user) => note(&mut self.users, user),
            None => note(&mut self.machines, &who.device),
        }
        note(&mut self.devices, &who.device);
        note(&mut self.groups, &who.groups);
        note(&mut self.labels, &who.standing.labels);
    }

    /// Users, and devices without one.
    pub(super) fn count(&self) -> usize {
        self.users.len() + self.machines.len()
    }

    /// What a rule has as `from`, for these and, as far as its conditions go, nobody else.
    pub(super) fn narrowed(&self, from: &Tree) -> Tree {
        if self.unclear {
            return from.clone();
        }
        let mut names_somebody = false;
        let mut entries: Vec<(String, Tree)> = Vec::new();
        for (field, value) in from.entries() {
            let kept = match field.as_str() {
                "users" => only(value, &self.users),
                "devices" => only(value, &self.devices),
                "groups" => cover(value, &self.groups),
                "labels" => cover(value, &self.labels),
                // `any`, or a list.
                "machines" if value.items().is_empty() => Some(list(&self.machines)),
                "machines" => only(value, &self.machines),
                _ => {
                    entries.push((field.clone(), value.clone()));
                    continue;
                }
            };
            names_somebody = true;
            entries.push((field.clone(), kept.unwrap_or_else(|| value.clone())));
        }
        // It was for anyone: now for these.
        if !names_somebody {
            let (field, names) = match self.machines.is_empty() {
                true => ("users", &self.users),
                false => ("devices", &self.devices),
            };
            entries.insert(0, (field.to_owned(), list(names)));
        }
        Tree::Map(entries)
    }
}

fn note<T: Ord + Clone>(all: &mut BTreeSet<T>, one: &T) {
    if !all.contains(one) {
        all.insert(one.clone());
    }
}

fn list<'n>(names: impl IntoIterator<Item = &'n String>) -> Tree {
    Tree::List(names.into_iter().cloned().map(Tree::Text).collect())
}

/// The names of the rule that somebody has; none if that is none.
fn only(value: &Tree, used: &BTreeSet<String>) -> Option<Tree> {
    let items = value.items().iter();
    let items = items.filter(|item| item.text().is_some_and(|name| used.contains(name)));
    let items: Vec<Tree> = items.cloned().collect();
    (!items.is_empty()).then_some(Tree::List(items))
}

/// Few names of the rule of which everybody has one: again and again the one that most of the rest
/// have. In the order of the rule.
fn cover(value: &Tree, sets: &BTreeSet<Vec<String>>) -> Option<Tree> {
    let names: Vec<&str> = value.items().iter().filter_map(Tree::text).collect();
    let has = |set: &[String], name: &str| set.iter().any(|one| one == name);
    let mut rest: Vec<&Vec<String>> = sets.iter().collect();
    let mut picked = BTreeSet::new();
    while !rest.is_empty() {
        let count = |name: &str| rest.iter().filter(|set| has(set, name)).count();
        // The first of those that are equal.
        let best = names.iter().rev().max_by_key(|name| count(name))?;
        if count(best) == 0 {
            return None;
        }
        picked.insert(*best);
        rest.retain(|set| !has(set, best));
    }
    let kept = names.into_iter().filter(|name| picked.contains(name));
    let kept: Vec<Tree> = kept.map(|name| Tree::Text(name.to_owned())).collect();
    (!kept.is_empty()).then_some(Tree::List(kept))
}
