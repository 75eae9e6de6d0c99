//! What a policy would have done to what was recorded: reads the log and the store, and lets
//! `postern-history` judge. Used by `policy plan`, by `policy suggest`, and before a change where
//! `policy_change.max_newly_denied` is set.

use crate::store::{Store, StoreError};
use postern_engine::policy::{Answers, Policy};
use postern_history::Attempt;
use postern_history::past::{Past, Row};
use postern_history::plan::{Plan, Replay};
use postern_proto::now::Wall;
use postern_spool::query::{Filter, Kind, Segments, Unreadable};
use std::collections::HashMap;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// Flows that began longer before the time that is asked for are judged by what their records say.
const EARLIER: Duration = Duration::from_secs(7 * 86_400);

/// Lines between two words of progress.
const STEP: u64 = 4096;

/// Why nothing can be said of the past.
#[derive(Debug, thiserror::Error)]
pub enum PastError {
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] Unreadable),
    /// The store cannot.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A fault of the program; it was logged.
    #[error("the records could not be gone through")]
    Broken,
}

/// How much of the log was read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// Records of flows.
    pub records: u64,
    /// Lines that could not be read.
    pub damaged: u64,
}

/// Judges under `policy` what was recorded in `folder` since `since`. What `in_force` has changed
/// already is no change of `policy`. Waits for as long as that
/// takes, some seconds for a million records, in a thread of its own. `progress` hears how many
/// bytes of how many were read.
///
/// # Errors
/// The store or the log cannot be read.
pub async fn run(
    store: &Store,
    folder: &Path,
    policy: Arc<Policy>,
    in_force: Option<Policy>,
    since: Wall,
    now: Wall,
    progress: impl FnMut(u64, u64) + Send + 'static,
) -> Result<(Plan, Read), PastError> {
    let past = past(store, since, now).await?;
    let folder = folder.to_owned();
    let judged = tokio::task::spawn_blocking(move || {
        judge(&folder, &policy, in_force.as_ref(), past, since, progress)
    });
    judged.await.map_err(|_| PastError::Broken)?
}

/// The same, in this thread, with the facts at hand.
///
/// # Errors
/// The log cannot be read.
pub fn judge(
    folder: &Path,
    policy: &Policy,
    in_force: Option<&Policy>,
    past: Past,
    since: Wall,
    progress: impl FnMut(u64, u64),
) -> Result<(Plan, Read), PastError> {
    let mut replay = Replay::new(policy, past, since);
    if let Some(in_force) = in_force {
        replay = replay.instead_of(in_force);
    }
    let read = attempts(folder, since, progress, |attempt| replay.attempt(&attempt))?;
    Ok((replay.finish(), read))
}

/// Every attempt that was recorded since `since`, in the order of the log.
///
/// # Errors
/// The log cannot be read.
pub fn attempts(
    folder: &Path,
    since: Wall,
    mut progress: impl FnMut(u64, u64),
    mut each: impl FnMut(Attempt),
) -> Result<Read, PastError> {
    let segments = Segments::open(folder)?;
    let filter = Filter {
        kind: Some(Kind::Flow),
        since: Some(since.millis()),
        ..Filter::default()
    };
    let all = segments.bytes(&filter);
    let (mut bytes, mut read) = (0, Read::default());
    let report = segments.each(&filter, 0, |line, _| {
        bytes += u64::try_from(line.len()).unwrap_or(u64::MAX) + 1;
        match Attempt::read(line) {
            Some(attempt) => each(attempt),
            None => read.damaged += 1,
        }
        read.records += 1;
        if read.records % STEP == 0 {
            progress(bytes.min(all), all);
        }
        ControlFlow::Continue(())
    })?;
    read.damaged += report.damaged;
    progress(all, all);
    Ok(read)
}

/// How devices stood since `since`.
///
/// # Errors
/// The store cannot be read.
pub async fn past(store: &Store, since: Wall, now: Wall) -> Result<Past, StoreError> {
    let from = Wall(since.0.saturating_sub((Wall(0) + EARLIER).0));
    // Most rows of a device say what another said already.
    let mut texts: HashMap<Arc<str>, Arc<str>> = HashMap::new();
    let rows = store.facts_between(from, now).await?.into_iter();
    let rows = rows.map(|row| {
        let text = texts
            .entry(row.id.clone())
            .or_insert_with(|| row.text.into())
            .clone();
        Row {
            id: row.id,
            text,
            since: row.since,
            reported: row.reported.zip(row.fresh_until),
        }
    });
    Ok(Past::new(rows))
}

/// All that names of targets meant at any time since `since`: what an attempt then could rest on.
///
/// # Errors
/// The store cannot be read.
pub async fn answers(store: &Store, since: Wall, now: Wall) -> Result<Answers, StoreError> {
    let mut all = Answers::new();
    for meant in store.names_between(since, now).await? {
        let addresses: &mut Vec<IpAddr> = all.entry(meant.name).or_default();
        addresses.extend(meant.addresses);
        addresses.sort_unstable();
        addresses.dedup();
    }
    Ok(all)
}
