//! What a policy would have done to what was recorded: reads the log and the store, and lets
//! `postern-history` judge. Used by `policy plan`, by `policy suggest`, and before a change where
//! `policy_change.max_newly_denied` is set.

mod facts;
mod live;

pub use facts::with_past;
pub use live::{before, live};

use crate::store::{Store, StoreError};
use postern_engine::policy::{Answers, Policy};
use postern_history::past::Past;
use postern_history::plan::{Plan, Replay};
use postern_history::{Attempt, Live, NoFacts};
use postern_proto::now::Wall;
use postern_spool::query::{Filter, Kind, Segments, Unreadable};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::Path;

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
    Facts(#[from] NoFacts),
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

/// What is asked of the past.
#[derive(Debug)]
pub struct Question {
    /// Judges what was recorded.
    pub policy: Policy,
    /// What this one has changed already is no change of the other.
    pub in_force: Option<Policy>,
    /// From when on.
    pub since: Wall,
    /// The flows that began before and are open; none: nobody could be asked.
    pub live: Option<Live>,
}

/// What a policy would have done to what was recorded in `folder`. Waits for as long as that
/// takes, some seconds for a million records, in a thread of its own. `progress` hears how many
/// bytes of how many were read.
///
/// # Errors
/// The store or the log cannot be read.
pub async fn run(
    store: &Store,
    folder: &Path,
    question: Question,
    progress: impl FnMut(u64, u64) + Send + 'static,
) -> Result<(Plan, Read), PastError> {
    let folder = folder.to_owned();
    with_past(store, move |past| judge(&folder, &question, past, progress)).await
}

/// The same, in this thread, with the facts at hand.
///
/// # Errors
/// The log or the facts cannot be read.
pub fn judge(
    folder: &Path,
    question: &Question,
    past: Past,
    progress: impl FnMut(u64, u64),
) -> Result<(Plan, Read), PastError> {
    let since = question.since;
    let mut replay = Replay::new(&question.policy, past, since);
    if let Some(in_force) = &question.in_force {
        replay = replay.instead_of(in_force);
    }
    if let Some(live) = &question.live {
        replay.live(live)?;
    }
    let read = attempts(folder, since, progress, |attempt| replay.attempt(&attempt))?;
    Ok((replay.finish(), read))
}

/// Every attempt that was recorded since `since`, in the order of the log.
///
/// # Errors
/// The log cannot be read, or `each` fails.
pub fn attempts(
    folder: &Path,
    since: Wall,
    mut progress: impl FnMut(u64, u64),
    mut each: impl FnMut(Attempt) -> Result<(), NoFacts>,
) -> Result<Read, PastError> {
    let segments = Segments::open(folder)?;
    let filter = Filter {
        kind: Some(Kind::Flow),
        since: Some(since.millis()),
        ..Filter::default()
    };
    let all = segments.bytes(&filter);
    let (mut bytes, mut read, mut failed) = (0, Read::default(), None);
    let report = segments.each(&filter, 0, |line, _| {
        bytes += u64::try_from(line.len()).unwrap_or(u64::MAX) + 1;
        match Attempt::read(line) {
            Some(attempt) => {
                if let Err(error) = each(attempt) {
                    failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            None => read.damaged += 1,
        }
        read.records += 1;
        if read.records % STEP == 0 {
            progress(bytes.min(all), all);
        }
        ControlFlow::Continue(())
    })?;
    if let Some(error) = failed {
        return Err(error.into());
    }
    read.damaged += report.damaged;
    progress(all, all);
    Ok(read)
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
