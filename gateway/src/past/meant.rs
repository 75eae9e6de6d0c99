//! What names of targets meant, near a moment.

use crate::problem::Problem;
use crate::store::{Store, StoredName};
use postern_engine::policy::{Answers, Policy};
use postern_proto::now::Wall;
use std::collections::BTreeSet;
use std::time::Duration;

/// An answer is noted before a worker has it: so long a verdict may rest on the one before.
const NEAR: Duration = Duration::from_secs(10);

/// Moments at which names changed, of which so many are looked at, the newest.
const MAX_NEAR: usize = 32;

/// Names of the policy of which is not known any more what they meant.
pub(super) async fn forgotten(
    store: &Store,
    policy: &Policy,
    at: Wall,
) -> Result<Vec<String>, Problem> {
    if policy.names().is_empty() {
        return Ok(Vec::new());
    }
    let gone = store.names_forgotten(at).await?;
    let names = policy.names().into_iter();
    Ok(names
        .filter(|name| gone.contains(*name))
        .map(str::to_owned)
        .collect())
}

/// What names meant just before `at`, wherever it was something else; the newest first.
pub(super) async fn near(store: &Store, at: Wall) -> Result<Vec<Answers>, Problem> {
    let nanos = u64::try_from(NEAR.as_nanos()).unwrap_or(u64::MAX);
    let from = Wall(at.0.saturating_sub(nanos));
    let meant = store.names_between(from, at).await?;
    Ok(changes(&meant, from, at))
}

fn changes(meant: &[StoredName], from: Wall, to: Wall) -> Vec<Answers> {
    let begun = meant.iter().map(|one| one.since);
    let ended = meant.iter().filter_map(|one| one.until);
    let moments: BTreeSet<Wall> = begun
        .chain(ended)
        .filter(|at| *at > from && *at <= to)
        .chain([from])
        .collect();
    let mut all: Vec<Answers> = Vec::new();
    for at in moments.into_iter().rev().take(MAX_NEAR) {
        let then = meant
            .iter()
            .filter(|one| one.since <= at && one.until.is_none_or(|until| until > at));
        let then: Answers = then
            .map(|one| (one.name.clone(), one.addresses.clone()))
            .collect();
        if all.last() != Some(&then) {
            all.push(then);
        }
    }
    all
}

#[cfg(test)]
mod tests;
