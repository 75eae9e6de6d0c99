//! The policy in force: loaded, tested, watched, changed. A bad file never replaces a good one and
//! is loud, and file and policy never disagree silently.
//!
//! | module | what it knows |
//! |---|---|
//! | `file` | the policy file: read, checked, replaced as a whole |
//! | `begin` | what a gateway starts with |
//! | `lints` | what is good and yet may not be meant |
//! | `change` | apply, confirm, roll back, and what comes back by itself |

mod begin;
mod change;
mod file;
mod lints;

pub use begin::{Begun, NoPolicy, begin};
pub use change::{CONFIRM_TRIES, Change, ChangeError, Changed};
pub use file::{BadPolicy, check, load, load_with_text};
pub use lints::lints;

use crate::api::{PolicyStatus, Reloaded};
use crate::audit::{Action, Actor, Audit, AuditEvent, Object, Outcome};
use crate::file_stamp::Watched;
use crate::live_config::LiveConfig;
use crate::names::Names;
use crate::store::{How, NewChange, Store};
use crate::worker_api::WorkerError;
use crate::workers::Workers;
use arc_swap::ArcSwap;
use begin::Unsaid;
use change::{Unwritten, Waiting};
use postern_engine::policy::{Answers, Policy};
use postern_io::clock::Clock;
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Mutex;

/// How often it is looked whether a change is to be taken back.
const TICK: Duration = Duration::from_millis(200);

/// Keeps the policy in force.
#[derive(Debug)]
pub struct PolicyKeeper {
    path: PathBuf,
    config: LiveConfig,
    store: Store,
    workers: Workers,
    current: ArcSwap<Policy>,
    source: ArcSwap<Arc<str>>,
    status: ArcSwap<PolicyStatus>,
    /// Some worker may judge by another policy: `tick` asks until each says that it does not.
    owed: AtomicBool,
    /// One change at a time.
    state: Mutex<State>,
    audit: Audit,
    /// What the names of targets mean.
    names: Option<Names>,
}

/// What is not over yet.
#[derive(Debug, Default)]
struct State {
    /// The change that waits for its confirmation.
    waiting: Option<Waiting>,
    /// A change that was taken back, and that the file holds still.
    unwritten: Option<Unwritten>,
    /// What the start did, until the audit log has it.
    unsaid: Option<Unsaid>,
}

impl PolicyKeeper {
    /// Starts with the policy that the workers started with.
    #[must_use]
    pub fn new(begun: Begun, config: LiveConfig, store: Store, workers: Workers) -> Self {
        let now = Clock::now();
        let waiting = begun.pending.map(|one| Waiting::resumed(one, now));
        let status = PolicyStatus {
            hash: begun.policy.hash().full(),
            generation: 1,
            loaded: now.wall.seconds(),
            ok: true,
            pending: waiting.as_ref().map(Waiting::view),
            ..PolicyStatus::default()
        };
        let path = config.get().policy.clone();
        let keeper = PolicyKeeper {
            path,
            config,
            store,
            workers,
            current: ArcSwap::new(begun.policy),
            source: ArcSwap::from_pointee(begun.source),
            status: ArcSwap::from_pointee(PolicyStatus::default()),
            owed: AtomicBool::new(false),
            state: Mutex::new(State {
                waiting,
                unwritten: begun.unwritten,
                unsaid: begun.unsaid,
            }),
            audit: Audit::default(),
            names: None,
        };
        keeper.publish(status);
        keeper
    }

    /// Records changes there.
    #[must_use]
    pub fn with_audit(self, audit: Audit) -> Self {
        PolicyKeeper { audit, ..self }
    }

    /// Compiles with what names mean.
    #[must_use]
    pub fn with_names(self, names: Names) -> Self {
        let names = Some(names);
        PolicyKeeper { names, ..self }
    }

    /// The policy in force.
    #[must_use]
    pub fn current(&self) -> Arc<Policy> {
        self.current.load_full()
    }

    /// The text of the policy in force.
    #[must_use]
    pub fn source(&self) -> Arc<str> {
        Arc::clone(&self.source.load())
    }

    /// The text of the file on disk.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn file_text(&self) -> Result<String, BadPolicy> {
        file::read(&self.path).map_err(|why| BadPolicy {
            path: self.path.clone(),
            problems: vec![why],
        })
    }

    /// A policy that could be put in force now.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub async fn prepare(&self, text: &str) -> Result<Arc<Policy>, Vec<String>> {
        let wanted = self.config.get().policy_change.require_tests;
        let checked = text.to_owned();
        let policy = aside(move || check(&checked, wanted)).await;
        let policy = policy.map_err(|why| vec![why])??;
        if let Some(names) = &self.names
            && !policy.names().is_empty()
        {
            names.prepare(&policy).await;
        }
        self.named(policy, text).await.map_err(|why| vec![why])
    }

    /// Puts in force what names mean now, and says what is. What is allowed no longer is cut when
    /// this returns.
    ///
    /// # Errors
    /// The workers give no answer, in words.
    pub async fn resolved(&self) -> Result<Arc<Policy>, String> {
        let Some(names) = &self.names else {
            return Ok(self.current());
        };
        let _alone = self.state.lock().await;
        let policy = compile(self.source(), names.answers()).await?;
        let cut = self.push(&policy).await;
        let cut = cut.map_err(|error| error.to_string())?;
        self.current.store(policy.clone());
        tracing::debug!(cut, "targets are where their names say now");
        Ok(policy)
    }

    /// Whether the file on disk is in force, and if not, why.
    #[must_use]
    pub fn status(&self) -> Arc<PolicyStatus> {
        self.status.load_full()
    }

    /// Puts the file on disk in force, if it is good and new and may be. What it no longer allows
    /// is cut when this returns.
    pub async fn reload(&self) -> Reloaded {
        self.reload_by(Actor::Gateway).await
    }

    /// The same, for somebody who asked for it.
    pub async fn reload_by(&self, actor: Actor) -> Reloaded {
        let mut state = self.state.lock().await;
        self.look(&mut state, actor).await
    }

    /// Reloads whenever the file changes, and takes back what nobody confirms. Never returns; drop
    /// it to stop.
    pub async fn watch(&self) {
        // What a start left undone, before an edit is believed.
        self.tick().await;
        tokio::join!(self.watch_file(), self.watch_time());
    }

    async fn watch_file(&self) {
        self.warn();
        let mut file = Watched::new(&self.path);
        loop {
            // Once at the beginning: it may have changed since it was loaded.
            self.reload().await;
            file.changed().await;
        }
    }

    async fn watch_time(&self) {
        loop {
            tokio::time::sleep(TICK).await;
            self.tick().await;
        }
    }

    /// Looks at the file on disk.
    async fn look(&self, state: &mut State, actor: Actor) -> Reloaded {
        let mut status = PolicyStatus::clone(&self.status.load());
        let before = status.hash.clone();
        let mut refused = None;
        let (changed, cut) = match self.put_file_in_force(state, &mut status, &actor).await {
            Ok(done) => {
                status.ok = true;
                status.errors.clear();
                done
            }
            Err(problems) => {
                // The same faults again are no news.
                if status.errors != problems {
                    tracing::warn!(
                        path = %self.path.display(),
                        in_force = short(&status.hash),
                        "the policy is refused, the old one stays:\n{}",
                        problems.join("\n\n")
                    );
                    refused = Some(problems.join("; "));
                }
                status.ok = false;
                status.errors = problems;
                status.reloads_failed += 1;
                (false, 0)
            }
        };
        let status = self.publish(status);
        if changed || refused.is_some() {
            self.audit
                .record(AuditEvent {
                    action: Action::PolicyLoad,
                    outcome: if changed {
                        Outcome::Done
                    } else {
                        Outcome::Refused
                    },
                    actor,
                    object: self.object(),
                    reason: refused,
                    before: Some(json!({ "policy": before })),
                    after: changed.then(|| json!({ "policy": status.hash, "flows_cut": cut })),
                })
                .await;
        }
        Reloaded {
            changed,
            cut,
            policy: status,
        }
    }

    async fn put_file_in_force(
        &self,
        state: &mut State,
        status: &mut PolicyStatus,
        actor: &Actor,
    ) -> Result<(bool, u64), Vec<String>> {
        let text = file::read(&self.path).map_err(|why| vec![why])?;
        let hash = file::hash(&text);
        if let Some(taken_back) = &state.unwritten {
            if taken_back.was_there(&hash) {
                // No news: `tick` overwrites it.
                return Ok((false, 0));
            }
            self.forget_pending(state, status).await?;
        }
        if hash == status.hash {
            return Ok((false, 0));
        }
        if let Some(waiting) = &state.waiting {
            return Err(vec![waiting.keeps_edit_out()]);
        }
        let change = self.config.get().policy_change;
        let policy = self.prepare(&text).await?;
        if !change.watch {
            if status.file_in_force {
                tracing::warn!(
                    path = %self.path.display(),
                    in_force = short(&status.hash),
                    "the policy file was edited; `postern-gateway policy apply` puts it in force"
                );
            }
            return Ok((false, 0));
        }
        let by = made_by(actor);
        let cut = self
            .put(status, policy, text, How::File, by, None)
            .await
            .map_err(|why| vec![why])?;
        status.reloads_ok += 1;
        Ok((true, cut))
    }

    /// Makes the workers judge by a policy, and writes since when. Flows cut.
    async fn put(
        &self,
        status: &mut PolicyStatus,
        policy: Arc<Policy>,
        source: String,
        how: How,
        made_by: String,
        reason: Option<String>,
    ) -> Result<u64, String> {
        let (hash, at) = (policy.hash().full(), Clock::now().wall);
        // First: no record may name a policy that nobody can show.
        let kept = self.store.keep_policy(&source, &hash, at).await;
        kept.map_err(|error| error.to_string())?;
        let cut = match self.push(&policy).await {
            Ok(cut) => cut,
            // The way back waits for nobody.
            Err(error) if how == How::Revert => {
                tracing::error!(%error, "a worker may judge by a policy that was taken back");
                0
            }
            Err(error) => {
                // Some may judge by it already.
                self.repay().await;
                return Err(error.to_string());
            }
        };
        tracing::info!(
            policy = short(&hash),
            rules = policy.len(),
            cut,
            how = how.as_str(),
            "policy in force"
        );
        self.current.store(policy);
        self.source.store(Arc::new(source.into()));
        status.hash.clone_from(&hash);
        status.generation += 1;
        status.loaded = at.seconds();
        let change = NewChange {
            hash,
            at,
            how,
            made_by,
            reason,
            cut,
        };
        if let Err(error) = self.store.log_policy_change(&change).await {
            tracing::error!(%error, "a policy is in force, and the history does not say since when");
        }
        self.warn();
        Ok(cut)
    }

    /// Says what the policy in force is warned of. Nobody waits for it.
    fn warn(&self) {
        let (source, config, store) = (self.source(), self.config.get(), self.store.clone());
        tokio::spawn(async move {
            let warnings = lints(source, Some(&config), Some(&store)).await;
            if warnings.is_empty() {
                return;
            }
            let said: Vec<String> = warnings.iter().map(ToString::to_string).collect();
            // Whoever wrote it may have meant it: no fault of the gateway.
            tracing::info!(
                warnings = said.len(),
                "the policy is in force and may not say what was meant:\n{}",
                said.join("\n\n")
            );
        });
    }

    /// Makes the workers judge by a policy. Flows cut.
    async fn push(&self, policy: &Arc<Policy>) -> Result<u64, WorkerError> {
        let cut = self.workers.set_policy(policy.clone()).await;
        self.owed.store(cut.is_err(), Ordering::Relaxed);
        cut.map(|cut| cut.flows)
    }

    /// Makes the workers judge by the policy in force, if one of them may not.
    async fn repay(&self) {
        if self.owed.load(Ordering::Relaxed) && self.push(&self.current()).await.is_ok() {
            let hash = self.current().hash().full();
            tracing::info!(policy = short(&hash), "every worker judges by it again");
        }
    }

    /// With what the names of its targets mean, as far as that is known: nobody is asked.
    async fn named(&self, policy: Policy, text: &str) -> Result<Arc<Policy>, String> {
        match &self.names {
            Some(names) if !policy.names().is_empty() => {
                compile(text.into(), names.answers()).await
            }
            Some(_) | None => Ok(Arc::new(policy)),
        }
    }

    /// Nothing waits and nothing is to be written any more.
    async fn forget_pending(
        &self,
        state: &mut State,
        status: &mut PolicyStatus,
    ) -> Result<(), Vec<String>> {
        let ended = self.store.end_pending().await;
        ended.map_err(|error| vec![error.to_string()])?;
        (state.waiting, state.unwritten) = (None, None);
        (status.pending, status.unwritten) = (None, None);
        Ok(())
    }

    /// Shows a status, with what the file on disk is now.
    fn publish(&self, mut status: PolicyStatus) -> PolicyStatus {
        let text = file::read(&self.path);
        status.file_in_force = text.is_ok_and(|text| file::hash(&text) == status.hash);
        self.status.store(Arc::new(status.clone()));
        status
    }

    fn object(&self) -> Object {
        Object {
            kind: "policy",
            name: self.path.display().to_string(),
        }
    }
}

/// Who did it, in one word or two, for the history.
fn made_by(actor: &Actor) -> String {
    match actor {
        Actor::Admin { uid: Some(uid) } => format!("uid {uid}"),
        Actor::Admin { uid: None } => "unknown".to_owned(),
        Actor::Device { name, .. } => format!("device {name}"),
        Actor::Guest { invitation, .. } => format!("invitation {invitation}"),
        Actor::Gateway => "gateway".to_owned(),
    }
}

async fn compile(source: Arc<str>, answers: Answers) -> Result<Arc<Policy>, String> {
    let compiled = aside(move || Policy::compile(&source, &answers)).await?;
    compiled.map(Arc::new).map_err(|errors| errors.to_string())
}

/// Away from the thread that serves everybody else: ten thousand rules take a third of a second.
async fn aside<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| error.to_string())
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

#[cfg(test)]
mod tests;
