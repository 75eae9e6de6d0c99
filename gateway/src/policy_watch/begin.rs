//! What a gateway starts with: the file, or what the store says.

use super::change::Unwritten;
use super::file::{self, BadPolicy};
use crate::config::Config;
use crate::store::{How, NewChange, Pending, Store, StoreError};
use postern_engine::policy::{Answers, Policy};
use postern_proto::now::Wall;
use std::path::PathBuf;
use std::sync::Arc;

/// The policy that the workers start with.
#[derive(Debug)]
pub struct Begun {
    /// Compiled.
    pub policy: Arc<Policy>,
    pub(super) source: Arc<str>,
    /// Waits still.
    pub(super) pending: Option<Pending>,
    /// Is over, and the file holds it still.
    pub(super) unwritten: Option<Unwritten>,
    /// What the audit log does not know yet.
    pub(super) unsaid: Option<Unsaid>,
}

/// A change that a start made.
#[derive(Debug)]
pub(super) struct Unsaid {
    pub(super) how: How,
    pub(super) before: String,
    pub(super) after: String,
}

impl Begun {
    /// The same, with what the names of its targets mean.
    ///
    /// # Errors
    /// It does not compile any more.
    pub async fn with_answers(self, answers: Answers) -> Result<Begun, NoPolicy> {
        if self.policy.names().is_empty() {
            return Ok(self);
        }
        let policy = super::compile(self.source.clone(), answers).await;
        let policy = policy.map_err(|why| BadPolicy {
            path: PathBuf::new(),
            problems: vec![why],
        })?;
        Ok(Begun { policy, ..self })
    }
}

/// There is no policy to start with.
#[derive(Debug, thiserror::Error)]
pub enum NoPolicy {
    /// The file is bad, and no policy was ever in force.
    #[error(transparent)]
    Bad(#[from] BadPolicy),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Finds the policy to start with, and writes what is in force from `now` on.
///
/// The file, as a rule. But: while a change waits for its confirmation, what was applied; when
/// nobody confirmed it in time, the policy before it. With `watch: false`, and where the file is
/// bad, the last one that was in force, so that a reboot neither smuggles an edit in nor locks
/// anybody out. That is loud, and `status` says it until file and policy agree.
///
/// # Errors
/// The file is bad and no policy was ever in force; or the store failed.
pub async fn begin(config: &Config, store: &Store, now: Wall) -> Result<Begun, NoPolicy> {
    let text = file::read(&config.policy);
    let hash = text.as_ref().ok().map(|text| file::hash(text));
    let last = store.policy_changes().await?.into_iter().next();
    let last = last.map(|last| last.change.hash);
    let pending = match store.pending().await? {
        // It never came into force, or has been taken back: the file says so.
        Some(pending) if hash.as_ref() == Some(&pending.previous) => {
            store.end_pending().await?;
            None
        }
        other => other,
    };
    let kept = match &pending {
        Some(pending) if pending.deadline <= now => Some((pending.previous.clone(), How::Revert)),
        Some(pending) => Some((pending.hash.clone(), How::Apply)),
        None => None,
    };
    if let Some((chosen, how)) = kept
        && let Some((source, policy)) = stored(store, &chosen).await?
    {
        let by = match (how, &pending) {
            (How::Apply, Some(pending)) => pending.made_by.clone(),
            _ => "gateway".to_owned(),
        };
        if how == How::Revert {
            tracing::warn!(
                policy = super::short(&chosen),
                "nobody confirmed the policy in time: the one before is in force"
            );
        }
        let noted = note(store, &source, &policy, last, how, by, now).await?;
        let unsaid = pending.as_ref().filter(|_| noted).map(|pending| {
            let (new, old) = (pending.hash.clone(), pending.previous.clone());
            let (before, after) = match how {
                How::Revert => (new, old),
                How::Start | How::File | How::Apply | How::Rollback => (old, new),
            };
            Unsaid { how, before, after }
        });
        let (pending, unwritten) = match how {
            How::Revert => (None, pending.map(|pending| Unwritten::new(pending, hash))),
            How::Start | How::File | How::Apply | How::Rollback => (pending, None),
        };
        return Ok(Begun {
            policy: Arc::new(policy),
            source: source.into(),
            pending,
            unwritten,
            unsaid,
        });
    }
    if pending.is_some() {
        // What it would come back to is gone. That was loud.
        store.end_pending().await?;
    }
    let change = config.policy_change;
    let checked = match text {
        Ok(text) => file::check(&text, change.require_tests).map(|policy| (text, policy)),
        Err(why) => Err(vec![why]),
    };
    let unwatched = !change.watch && hash != last;
    let before = match (&checked, &last) {
        (Ok(_), Some(last)) if unwatched => stored(store, last).await?,
        (Err(_), Some(last)) => stored(store, last).await?,
        (Ok(_) | Err(_), _) => None,
    };
    let (source, policy) = match (before, checked) {
        (Some((source, policy)), checked) => {
            tracing::warn!(
                in_force = super::short(&policy.hash().full()),
                "starting with the last policy that was in force, because the file {}",
                match checked {
                    Ok(_) => "was edited and policy_change.watch is false",
                    Err(_) => "is refused",
                }
            );
            (source, policy)
        }
        (None, Ok(found)) => found,
        (None, Err(problems)) => {
            let path = config.policy.clone();
            return Err(BadPolicy { path, problems }.into());
        }
    };
    let by = "gateway".to_owned();
    note(store, &source, &policy, last, How::Start, by, now).await?;
    Ok(Begun {
        policy: Arc::new(policy),
        source: source.into(),
        pending: None,
        unwritten: None,
        unsaid: None,
    })
}

/// A policy that is kept. One that this program no longer takes is as good as none, and loud.
pub(super) async fn stored(
    store: &Store,
    hash: &str,
) -> Result<Option<(String, Policy)>, StoreError> {
    let Some((_, source)) = store.policy_source(hash).await? else {
        return Ok(None);
    };
    let text = source.clone();
    match super::aside(move || Policy::parse(&text)).await {
        Ok(Ok(policy)) => Ok(Some((source, policy))),
        Ok(Err(errors)) => {
            tracing::error!(
                policy = super::short(hash),
                "a kept policy is refused:\n{errors}"
            );
            Ok(None)
        }
        Err(why) => {
            tracing::error!(policy = super::short(hash), "a kept policy is lost: {why}");
            Ok(None)
        }
    }
}

/// Whether it is a change: a start with the policy that was in force last is none.
async fn note(
    store: &Store,
    source: &str,
    policy: &Policy,
    last: Option<String>,
    how: How,
    made_by: String,
    now: Wall,
) -> Result<bool, StoreError> {
    let hash = policy.hash().full();
    store.keep_policy(source, &hash, now).await?;
    if last.as_ref() == Some(&hash) {
        return Ok(false);
    }
    let change = NewChange {
        hash,
        at: now,
        how,
        made_by,
        reason: None,
        cut: 0,
    };
    store.log_policy_change(&change).await.map(|_| true)
}
