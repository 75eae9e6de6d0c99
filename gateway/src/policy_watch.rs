//! The policy in force: loaded, tested, watched. A bad file never replaces a good one and is loud.

use crate::api::{PolicyStatus, Reloaded};
use crate::audit::{Action, Actor, Audit, AuditEvent, Object, Outcome};
use crate::file_stamp::Watched;
use crate::key_file;
use crate::names::Names;
use crate::workers::Workers;
use arc_swap::ArcSwap;
use postern_engine::policy::{Answers, Policy};
use postern_io::clock::Clock;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::Mutex;

/// A copy of the last policy that was in force, in the data folder.
const LAST_GOOD: &str = "policy.last.yaml";

/// Keeps the policy in force.
#[derive(Debug)]
pub struct PolicyKeeper {
    path: PathBuf,
    last: PathBuf,
    workers: Workers,
    current: ArcSwap<Policy>,
    status: ArcSwap<PolicyStatus>,
    one_at_a_time: Mutex<()>,
    audit: Audit,
    /// What names mean, and the text that is in force.
    names: Option<(Names, ArcSwap<String>)>,
}

/// Why a policy file cannot be put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}:\n{}", path.display(), problems.join("\n\n"))]
pub struct BadPolicy {
    /// The file.
    pub path: PathBuf,
    /// Everything wrong with it, each with its place and what to write instead.
    pub problems: Vec<String>,
}

/// Reads, compiles and tests a policy file.
///
/// # Errors
/// It cannot be read, has faults, or one of its tests fails; all of that is listed.
pub fn load(path: &Path) -> Result<Policy, BadPolicy> {
    read(path).map(|(_, policy)| policy)
}

/// The policy to start with: the file, or, so that a reboot with a broken file locks nobody out,
/// the last one that was in force. That is loud, and `status` says it until the file is mended.
///
/// # Errors
/// The file is bad and there is no last one.
pub fn load_or_last(path: &Path, data_dir: &Path) -> Result<(String, Policy), BadPolicy> {
    let last = data_dir.join(LAST_GOOD);
    match read(path) {
        Ok((text, policy)) => {
            keep(&last, &text);
            Ok((text, policy))
        }
        Err(bad) => match read(&last) {
            Ok((text, policy)) => {
                tracing::warn!(
                    in_force = short(&policy.hash().full()),
                    "starting with the last policy that was in force, because the file is refused"
                );
                Ok((text, policy))
            }
            Err(_) => Err(bad),
        },
    }
}

/// Keeps a copy of what is in force. Failing to is no reason to refuse a good policy.
fn keep(last: &Path, text: &str) {
    let fresh = last.with_extension("new");
    // What a crash left half written.
    let _ = std::fs::remove_file(&fresh);
    let kept = key_file::create(&fresh, text).and_then(|()| std::fs::rename(&fresh, last));
    if let Err(error) = kept {
        tracing::warn!(path = %last.display(), %error, "no copy of the policy in force is kept");
    }
}

fn read(path: &Path) -> Result<(String, Policy), BadPolicy> {
    let bad = |problems| BadPolicy {
        path: path.to_owned(),
        problems,
    };
    let text = std::fs::read_to_string(path)
        .map_err(|error| bad(vec![format!("cannot be read: {error}")]))?;
    let policy = Policy::parse(&text)
        .map_err(|errors| bad(errors.0.iter().map(ToString::to_string).collect()))?;
    let failed: Vec<_> = policy
        .run_tests()
        .into_iter()
        .filter(|test| !test.passed)
        .map(|test| {
            let (line, what) = (test.line, test.described);
            format!(
                "line {line}: test failed: {what}: expected {}, got {}",
                test.expected, test.got
            )
        })
        .collect();
    if failed.is_empty() {
        Ok((text, policy))
    } else {
        Err(bad(failed))
    }
}

impl PolicyKeeper {
    /// Starts with the policy that the workers started with, loaded from `path`.
    #[must_use]
    pub fn new(path: &Path, data_dir: &Path, policy: Arc<Policy>, workers: Workers) -> Self {
        let status = PolicyStatus {
            hash: policy.hash().full(),
            generation: 1,
            loaded: now(),
            ok: true,
            errors: Vec::new(),
            reloads_ok: 0,
            reloads_failed: 0,
        };
        PolicyKeeper {
            path: path.to_owned(),
            last: data_dir.join(LAST_GOOD),
            workers,
            current: ArcSwap::new(policy),
            status: ArcSwap::from_pointee(status),
            one_at_a_time: Mutex::new(()),
            audit: Audit::default(),
            names: None,
        }
    }

    /// Records changes there.
    #[must_use]
    pub fn with_audit(self, audit: Audit) -> Self {
        PolicyKeeper { audit, ..self }
    }

    /// Compiles with what names mean. `source` is the text of the policy in force.
    #[must_use]
    pub fn with_names(self, names: Names, source: String) -> Self {
        let names = Some((names, ArcSwap::from_pointee(source)));
        PolicyKeeper { names, ..self }
    }

    /// The policy in force.
    #[must_use]
    pub fn current(&self) -> Arc<Policy> {
        self.current.load_full()
    }

    /// Whether the file on disk is in force, and if not, why.
    #[must_use]
    pub fn status(&self) -> Arc<PolicyStatus> {
        self.status.load_full()
    }

    /// Puts the file on disk in force, if it is good and new. What it no longer allows is cut when
    /// this returns.
    pub async fn reload(&self) -> Reloaded {
        self.reload_by(Actor::Gateway).await
    }

    /// The same, for somebody who asked for it.
    pub async fn reload_by(&self, actor: Actor) -> Reloaded {
        let _alone = self.one_at_a_time.lock().await;
        let mut status = PolicyStatus::clone(&self.status.load());
        let before = status.hash.clone();
        let mut refused = None;
        let (changed, cut) = match self.put_in_force(&mut status).await {
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
        self.status.store(Arc::new(status.clone()));
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
                    object: Object {
                        kind: "policy",
                        name: self.path.display().to_string(),
                    },
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

    /// Puts in force what names mean now. What is allowed no longer is cut when this returns.
    ///
    /// # Errors
    /// The workers give no answer, in words.
    pub async fn resolved(&self) -> Result<(), String> {
        let Some((names, source)) = &self.names else {
            return Ok(());
        };
        let _alone = self.one_at_a_time.lock().await;
        let policy = compile(source.load_full(), names.answers()).await?;
        let cut = self.workers.set_policy(policy.clone()).await;
        let cut = cut.map_err(|error| error.to_string())?;
        self.current.store(policy);
        tracing::info!(cut = cut.flows, "targets are where their names say now");
        Ok(())
    }

    /// Reloads whenever the file changes. Never returns; drop it to stop.
    pub async fn watch(&self) {
        let mut file = Watched::new(&self.path);
        loop {
            // Once at the beginning: it may have changed since it was loaded.
            self.reload().await;
            file.changed().await;
        }
    }

    async fn put_in_force(&self, status: &mut PolicyStatus) -> Result<(bool, u64), Vec<String>> {
        let (text, policy) = read(&self.path).map_err(|bad| bad.problems)?;
        let hash = policy.hash().full();
        if hash == status.hash {
            return Ok((false, 0));
        }
        let policy = match &self.names {
            Some((names, _)) if !policy.names().is_empty() => {
                names.prepare(&policy).await;
                let source = Arc::new(text.clone());
                compile(source, names.answers())
                    .await
                    .map_err(|error| vec![error])?
            }
            Some(_) | None => Arc::new(policy),
        };
        let cut = self
            .workers
            .set_policy(policy.clone())
            .await
            .map_err(|error| vec![error.to_string()])?;
        tracing::info!(
            policy = short(&hash),
            rules = policy.len(),
            cut = cut.flows,
            "policy in force"
        );
        keep(&self.last, &text);
        self.current.store(policy);
        if let Some((_, source)) = &self.names {
            source.store(Arc::new(text));
        }
        status.hash = hash;
        status.generation += 1;
        status.loaded = now();
        status.reloads_ok += 1;
        Ok((true, cut.flows))
    }
}

/// Away from the thread that serves everybody else.
pub(crate) async fn compile(source: Arc<String>, answers: Answers) -> Result<Arc<Policy>, String> {
    let compiled = tokio::task::spawn_blocking(move || Policy::compile(&source, &answers)).await;
    match compiled {
        Ok(Ok(policy)) => Ok(Arc::new(policy)),
        Ok(Err(errors)) => Err(errors.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

fn now() -> u64 {
    Clock::now().wall.seconds()
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake_worker::FakeWorker;
    use crate::init::FIRST_POLICY;
    use crate::scratch::Scratch;
    use std::os::unix::fs::PermissionsExt;

    fn keeper(folder: &Scratch) -> (PathBuf, PolicyKeeper, FakeWorker) {
        let path = folder.path("policy.yaml");
        std::fs::write(&path, FIRST_POLICY).expect("written");
        let (workers, fake) = FakeWorker::start();
        let policy = Arc::new(load(&path).expect("a good policy"));
        (
            path.clone(),
            PolicyKeeper::new(&path, path.parent().unwrap_or(&path), policy, workers),
            fake,
        )
    }

    #[tokio::test]
    async fn a_good_change_is_put_in_force_once() {
        let folder = Scratch::new();
        let (path, keeper, fake) = keeper(&folder);
        let before = keeper.status();
        assert!(!keeper.reload().await.changed, "nothing new");
        std::fs::write(&path, format!("{FIRST_POLICY}\n# a word\n")).expect("written");
        let after = keeper.reload().await;
        assert!(after.changed && after.policy.ok);
        assert_eq!(after.cut, 7, "as the worker says");
        assert_eq!((before.generation, after.policy.generation), (1, 2));
        assert_ne!(before.hash, after.policy.hash);
        assert_eq!(fake.policies(), std::slice::from_ref(&after.policy.hash));
        assert_eq!(keeper.current().hash().full(), after.policy.hash);
    }

    #[tokio::test]
    async fn a_bad_file_keeps_the_old_policy_and_says_why() {
        let folder = Scratch::new();
        let (path, keeper, fake) = keeper(&folder);
        let before = keeper.status();
        let failing = "tests:\n  - { user: x, to: \"192.0.2.99:1/tcp\", expect: allow }\n";
        let kept: String = FIRST_POLICY
            .lines()
            .take_while(|line| !line.starts_with("tests:"))
            .fold(String::new(), |text, line| text + line + "\n");
        for bad in [
            "rules: [",
            "version: 1\nruels: []\n",
            &format!("{kept}{failing}"),
        ] {
            std::fs::write(&path, bad).expect("written");
            let after = keeper.reload().await;
            assert!(
                !after.changed && !after.policy.ok && !after.policy.errors.is_empty(),
                "{bad}"
            );
            assert_eq!(after.policy.hash, before.hash, "{bad}");
        }
        std::fs::remove_file(&path).expect("removed");
        assert!(keeper.reload().await.policy.errors[0].contains("cannot be read"));
        assert!(fake.policies().is_empty(), "the worker never saw one");
        assert_eq!(keeper.status().reloads_failed, 4);

        std::fs::write(&path, FIRST_POLICY).expect("written");
        assert!(
            keeper.reload().await.policy.ok,
            "and it ends when the file is good again"
        );
    }

    #[test]
    fn a_broken_file_at_the_start_falls_back_on_the_last_good_one() {
        let folder = Scratch::new();
        let (path, data) = (folder.path("policy.yaml"), folder.path("data"));
        std::fs::create_dir(&data).expect("made");
        std::fs::write(&path, "rules: [").expect("written");
        assert!(
            load_or_last(&path, &data).is_err(),
            "there is no last one yet"
        );
        std::fs::write(&path, FIRST_POLICY).expect("written");
        let good = load_or_last(&path, &data).expect("good").1.hash();
        let mode = std::fs::metadata(data.join(LAST_GOOD))
            .expect("kept")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        std::fs::write(&path, "rules: [").expect("written");
        assert_eq!(
            load_or_last(&path, &data).expect("the last one").1.hash(),
            good
        );
    }

    #[tokio::test]
    async fn the_watch_sees_a_change_by_itself() {
        let folder = Scratch::new();
        let (path, keeper, fake) = keeper(&folder);
        let changed = async {
            let other = folder.path("new.yaml");
            std::fs::write(&other, format!("{FIRST_POLICY}\n# a word\n")).expect("written");
            std::fs::rename(&other, &path).expect("renamed");
            while fake.policies().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            () = keeper.watch() => unreachable!("never returns"),
            () = changed => {}
        }
    }
}
