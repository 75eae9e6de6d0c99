//! A policy put in force by a command: for good, or until a deadline by which somebody confirms
//! it. Nobody does: the one before comes back by itself, and into the file as well.
//!
//! What is written when, so that a crash at any moment leaves the old policy, or the new one with
//! its deadline: the deadline, the file, the workers, the history; and on the way back: the
//! deadline is over, the workers, the history, the file, no deadline any more.

use super::begin::Unsaid;
use super::file;
use super::{PolicyKeeper, State, begin, short};
use crate::api::{PendingView, PolicyStatus};
use crate::audit::{Action, Actor, AuditEvent, Outcome};
use crate::key_file;
use crate::store::{How, Pending, StoreError};
use postern_engine::policy::Policy;
use postern_io::clock::Clock;
use postern_proto::now::{Mono, Now};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How often one device may try a wrong token for one change. A token has 60 bits.
pub const CONFIRM_TRIES: u32 = 5;

/// The most devices whose wrong tries are counted; further ones may not try. About 1 MiB.
const MAX_COUNTED: usize = 8192;

const NOT_IN_TIME: &str = "nobody confirmed the change in time";

/// A policy that is to be put in force.
#[derive(Debug)]
pub struct Change {
    /// From [`PolicyKeeper::prepare`].
    pub policy: Arc<Policy>,
    /// Its text.
    pub source: String,
    /// [`How::Apply`] or [`How::Rollback`].
    pub how: How,
    /// Who does it.
    pub made_by: String,
    /// Why it was forced.
    pub reason: Option<String>,
    /// How long it waits for its confirmation; none: it is for good.
    pub confirm_within: Option<Duration>,
}

/// What came of a [`Change`].
pub struct Changed {
    /// False if it was in force already.
    pub changed: bool,
    /// The policy before.
    pub previous: String,
    /// Flows that it cut.
    pub cut: u64,
    /// What confirms it. Only its hash is kept.
    pub token: Option<String>,
}

impl fmt::Debug for Changed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Changed")
            .field("changed", &self.changed)
            .field("previous", &self.previous)
            .field("cut", &self.cut)
            .finish_non_exhaustive()
    }
}

/// Why the policy in force stays.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// One change at a time.
    #[error("{0}")]
    Waits(String),
    /// Nothing waits, or nothing was in force before.
    #[error("no change of the policy waits for a confirmation")]
    NothingWaits,
    /// There is nothing to go back to.
    #[error("there is no earlier policy to go back to")]
    NothingBefore,
    /// Somebody else's token, or a slip of the pen.
    #[error("the token is wrong")]
    WrongToken,
    /// Too many wrong tokens.
    #[error("too many wrong tokens from this device")]
    TooManyTries,
    /// File and policy would disagree.
    #[error("{0}")]
    Unwritable(String),
    /// A policy that is kept, and that this program does not take.
    #[error("policy {0} is not kept, or is none for this version")]
    Unknown(String),
    /// The data plane did not take it.
    #[error("{0}")]
    NotInForce(String),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A change that waits for its confirmation.
#[derive(Debug)]
pub(super) struct Waiting {
    change: Pending,
    /// The deadline again, by a clock that nobody sets back.
    due: Mono,
    /// Wrong tokens by device.
    wrong: HashMap<String, u32>,
    /// Why it cannot be taken back although its time is over.
    stuck: Option<String>,
}

/// A change that was taken back, and that the file holds still.
#[derive(Clone, Debug)]
pub(super) struct Unwritten {
    change: Pending,
    /// What the file held when it was taken back.
    left: Option<String>,
}

impl PolicyKeeper {
    /// Puts a policy in force and into the file. What it no longer allows is cut when this
    /// returns.
    ///
    /// # Errors
    /// Then file and policy are as before.
    pub async fn change(&self, change: Change) -> Result<Changed, ChangeError> {
        let mut state = self.state.lock().await;
        let mut status = PolicyStatus::clone(&self.status.load());
        if let Some(waiting) = &state.waiting {
            if waiting.stuck.is_none() {
                return Err(ChangeError::Waits(waiting.keeps_change_out()));
            }
            // It cannot come back; another one is the only way out.
            self.store.end_pending().await?;
            (state.waiting, status.pending) = (None, None);
        }
        if let Some(taken_back) = state.unwritten.clone() {
            self.write_back(&mut state, &mut status, taken_back).await;
            if let Some(why) = &status.unwritten {
                return Err(ChangeError::Unwritable(why.clone()));
            }
        }
        let previous = status.hash.clone();
        let done = self.begin_change(&mut state, &mut status, change).await;
        if done.is_ok() {
            status.ok = true;
            status.errors.clear();
        }
        self.publish(status);
        done.map(|(cut, token, changed)| Changed {
            changed,
            previous,
            cut,
            token,
        })
    }

    async fn begin_change(
        &self,
        state: &mut State,
        status: &mut PolicyStatus,
        change: Change,
    ) -> Result<(u64, Option<String>, bool), ChangeError> {
        let hash = change.policy.hash().full();
        let unwritable = |error| ChangeError::Unwritable(file::unwritable(&self.path, &error));
        if hash == status.hash {
            // The file may have been edited since.
            if !self.file_is(&hash) {
                self.replace(&change.source, &[&hash]).map_err(unwritable)?;
            }
            return Ok((0, None, false));
        }
        let before_source = self.source();
        let in_force = status.hash.clone();
        let known = [hash.as_str(), in_force.as_str()];
        let now = Clock::now();
        let mut token = None;
        let mut waiting = None;
        if let Some(within) = change.confirm_within {
            let secret = token_text()?;
            let pending = Pending {
                hash: hash.clone(),
                previous: status.hash.clone(),
                deadline: now.wall + within,
                token: hash_of(&secret),
                made_by: change.made_by.clone(),
            };
            let begun = self.store.begin_pending(&pending, &change.source, now.wall);
            begun.await?;
            waiting = Some(Waiting::new(pending, now.mono + within));
            token = Some(secret);
        }
        if let Err(error) = self.replace(&change.source, &known) {
            self.store.end_pending().await?;
            return Err(unwritable(error));
        }
        let put = self
            .put(
                status,
                change.policy,
                change.source,
                change.how,
                change.made_by,
                change.reason,
            )
            .await;
        match put {
            Ok(cut) => {
                status.pending = waiting.as_ref().map(Waiting::view);
                state.waiting = waiting;
                Ok((cut, token, true))
            }
            Err(why) => {
                self.replace(&before_source, &known).map_err(unwritable)?;
                self.store.end_pending().await?;
                Err(ChangeError::NotInForce(why))
            }
        }
    }

    /// The change that waits is for good. `token` none: whoever asks stands at the gateway.
    /// `device`: whose tries are counted.
    ///
    /// # Errors
    /// Nothing waits, or the token is wrong.
    pub async fn confirm(
        &self,
        token: Option<&str>,
        device: Option<&str>,
    ) -> Result<PendingView, ChangeError> {
        let mut state = self.state.lock().await;
        let waiting = state.waiting.as_mut().ok_or(ChangeError::NothingWaits)?;
        // One that cannot come back is kept by whoever stands at the gateway.
        let kept = token.is_none() && waiting.stuck.is_some();
        if waiting.is_due(Clock::now()) && !kept {
            return Err(ChangeError::NothingWaits);
        }
        if let Some(token) = token {
            waiting.test(token, device)?;
        }
        let confirmed = waiting.view();
        self.store.end_pending().await?;
        let mut status = PolicyStatus::clone(&self.status.load());
        (state.waiting, status.pending) = (None, None);
        self.publish(status);
        tracing::info!(policy = short(&confirmed.hash), "the policy is confirmed");
        // An edit that was refused meanwhile is judged as any other.
        if !self.file_is(&confirmed.hash) {
            self.look(&mut state, Actor::Gateway).await;
        }
        Ok(confirmed)
    }

    /// Takes back the change that waits, before its time. Flows cut, and what it was.
    ///
    /// # Errors
    /// Nothing waits, or the policy before it is not to be had.
    pub async fn take_back(
        &self,
        made_by: String,
        reason: Option<String>,
    ) -> Result<(PendingView, u64), ChangeError> {
        let mut state = self.state.lock().await;
        let done = self
            .revert(&mut state, How::Rollback, made_by, reason)
            .await;
        if let (Err(error @ ChangeError::Unknown(_)), Some(waiting)) = (&done, &mut state.waiting) {
            waiting.stuck = Some(error.to_string());
        }
        done
    }

    /// Whether a change is over and cannot be taken back: then another may take its place.
    pub async fn is_stuck(&self) -> bool {
        let state = self.state.lock().await;
        let waiting = state.waiting.as_ref();
        waiting.is_some_and(|waiting| waiting.stuck.is_some())
    }

    /// Does what time demands.
    pub(super) async fn tick(&self) {
        let mut state = self.state.lock().await;
        if let Some(unsaid) = state.unsaid.take() {
            self.say(unsaid).await;
        }
        if let Some(taken_back) = state.unwritten.clone() {
            let mut status = PolicyStatus::clone(&self.status.load());
            self.write_back(&mut state, &mut status, taken_back).await;
            self.publish(status);
        }
        let now = Clock::now();
        if state.waiting.as_ref().is_none_or(|one| !one.is_due(now)) {
            self.repay().await;
            return;
        }
        let by = "gateway".to_owned();
        match self.revert(&mut state, How::Revert, by, None).await {
            Ok((was, cut)) => {
                self.audit
                    .record(AuditEvent {
                        action: Action::PolicyRevert,
                        outcome: Outcome::Done,
                        actor: Actor::Gateway,
                        object: self.object(),
                        reason: Some(NOT_IN_TIME.to_owned()),
                        before: Some(json!({ "policy": was.hash })),
                        after: Some(json!({ "policy": was.previous, "flows_cut": cut })),
                    })
                    .await;
            }
            Err(error) => {
                let why = error.to_string();
                if let Some(waiting) = &mut state.waiting
                    && waiting.stuck.as_ref() != Some(&why)
                {
                    tracing::error!(
                        error = why,
                        "an unconfirmed policy is still in force; it is tried again, until \
                         `policy apply`, `policy rollback --to` or `policy confirm --here`"
                    );
                    waiting.stuck = Some(why);
                }
            }
        }
        self.repay().await;
    }

    /// What a start did, in the audit log.
    async fn say(&self, done: Unsaid) {
        let (action, reason) = match done.how {
            How::Revert => (Action::PolicyRevert, NOT_IN_TIME),
            How::Start | How::File | How::Apply | How::Rollback => (
                Action::PolicyApply,
                "the gateway stopped while it was applied",
            ),
        };
        let event = AuditEvent {
            action,
            outcome: Outcome::Done,
            actor: Actor::Gateway,
            object: self.object(),
            reason: Some(reason.to_owned()),
            before: Some(json!({ "policy": done.before })),
            after: Some(json!({ "policy": done.after })),
        };
        self.audit.record(event).await;
    }

    async fn revert(
        &self,
        state: &mut State,
        how: How,
        made_by: String,
        reason: Option<String>,
    ) -> Result<(PendingView, u64), ChangeError> {
        let waiting = state.waiting.as_ref().ok_or(ChangeError::NothingWaits)?;
        let (pending, was) = (waiting.change.clone(), waiting.view());
        self.store.expire_pending(Clock::now().wall).await?;
        let stored = begin::stored(&self.store, &pending.previous).await?;
        let (source, policy) =
            stored.ok_or_else(|| ChangeError::Unknown(short(&pending.previous).to_owned()))?;
        let mut status = PolicyStatus::clone(&self.status.load());
        let policy = self.named(policy, &source).await;
        let policy = policy.map_err(ChangeError::NotInForce)?;
        let cut = self
            .put(&mut status, policy, source, how, made_by, reason)
            .await
            .map_err(ChangeError::NotInForce)?;
        (state.waiting, status.pending) = (None, None);
        // An edit that was refused is refused no longer: it is set aside.
        (status.ok, status.errors) = (true, Vec::new());
        let left = file::read(&self.path).ok().map(|text| file::hash(&text));
        let taken_back = Unwritten::new(pending, left);
        self.write_back(state, &mut status, taken_back).await;
        self.publish(status);
        tracing::warn!(
            policy = short(&was.previous),
            taken_back = short(&was.hash),
            how = how.as_str(),
            "the policy before is in force again"
        );
        Ok((was, cut))
    }

    /// Makes the file hold what is in force again. Where it cannot, that is said until it can.
    async fn write_back(
        &self,
        state: &mut State,
        status: &mut PolicyStatus,
        taken_back: Unwritten,
    ) {
        let known = [&taken_back.change.hash, &taken_back.change.previous];
        let written = if self.file_is(&status.hash) {
            Ok(())
        } else {
            self.replace(&self.source(), &known.map(String::as_str))
        };
        if let Err(error) = written {
            let why = file::unwritable(&self.path, &error);
            if status.unwritten.as_ref() != Some(&why) {
                tracing::error!("file and policy disagree: {why}");
            }
            status.unwritten = Some(why);
            state.unwritten = Some(taken_back);
            return;
        }
        state.unwritten = None;
        status.unwritten = None;
        if let Err(error) = self.store.end_pending().await {
            // The next start finds the file as it should be, and ends it.
            tracing::warn!(%error, "a change that was taken back is still noted as waiting");
        }
    }

    /// Writes the file. What it holds is set aside, unless it is one of the `known`.
    fn replace(&self, text: &str, known: &[&str]) -> io::Result<()> {
        let held = file::read(&self.path);
        if held.is_ok_and(|held| !known.contains(&file::hash(&held).as_str()))
            && let Some(aside) = file::set_aside(&self.path)?
        {
            tracing::warn!(path = %aside.display(), "an edit of the policy file is set aside");
        }
        file::replace(&self.path, text)
    }

    fn file_is(&self, hash: &str) -> bool {
        file::read(&self.path).is_ok_and(|text| file::hash(&text) == hash)
    }
}

impl Unwritten {
    pub(super) fn new(change: Pending, left: Option<String>) -> Unwritten {
        Unwritten { change, left }
    }

    /// Whether the file held this before it was taken back: it was refused then, and is now.
    pub(super) fn was_there(&self, hash: &str) -> bool {
        hash == self.change.hash || self.left.as_deref() == Some(hash)
    }
}

impl Waiting {
    fn new(change: Pending, due: Mono) -> Waiting {
        Waiting {
            change,
            due,
            wrong: HashMap::new(),
            stuck: None,
        }
    }

    /// After a restart.
    pub(super) fn resumed(change: Pending, now: Now) -> Waiting {
        let due = now.mono + change.deadline.since(now.wall);
        Waiting::new(change, due)
    }

    pub(super) fn view(&self) -> PendingView {
        PendingView {
            hash: self.change.hash.clone(),
            previous: self.change.previous.clone(),
            deadline: self.change.deadline.seconds(),
            made_by: self.change.made_by.clone(),
        }
    }

    pub(super) fn keeps_edit_out(&self) -> String {
        let hash = short(&self.change.hash);
        format!(
            "policy {hash} waits for its confirmation: edits of the file count once it is \
             confirmed or taken back"
        )
    }

    fn keeps_change_out(&self) -> String {
        let hash = short(&self.change.hash);
        format!("policy {hash} waits for its confirmation")
    }

    fn is_due(&self, now: Now) -> bool {
        now.mono >= self.due || now.wall >= self.change.deadline
    }

    fn test(&mut self, token: &str, device: Option<&str>) -> Result<(), ChangeError> {
        let counted = device.unwrap_or("");
        if self
            .wrong
            .get(counted)
            .is_some_and(|tries| *tries >= CONFIRM_TRIES)
        {
            return Err(ChangeError::TooManyTries);
        }
        // Of two hashes the time to compare says nothing about the token.
        if hash_of(token) == self.change.token {
            return Ok(());
        }
        if self.wrong.len() >= MAX_COUNTED && !self.wrong.contains_key(counted) {
            return Err(ChangeError::TooManyTries);
        }
        *self.wrong.entry(counted.to_owned()).or_default() += 1;
        Err(ChangeError::WrongToken)
    }
}

/// Twelve letters and digits of 5 bits each, in groups of four.
fn token_text() -> Result<String, ChangeError> {
    const LETTERS: &[u8; 32] = b"23456789abcdefghijkmnpqrstuvwxyz";
    let random: [u8; 12] = key_file::random()
        .map_err(|error| ChangeError::NotInForce(format!("no random numbers: {error}")))?;
    let letters = random.map(|byte| char::from(LETTERS[usize::from(byte & 31)]));
    let groups: Vec<String> = letters
        .chunks(4)
        .map(|four| four.iter().collect())
        .collect();
    Ok(groups.join("-"))
}

fn hash_of(token: &str) -> String {
    let token = token.trim().to_ascii_lowercase().replace('-', "");
    let mut hex = String::new();
    for byte in Sha256::digest(token) {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}
