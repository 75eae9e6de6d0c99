//! The configuration of a running gateway: fields that may change do, the others say that they
//! wait for a restart.

use crate::audit::{Action, Actor, Audit, AuditEvent, Object, Outcome};
use crate::config::Config;
use crate::file_stamp::Watched;
use arc_swap::ArcSwap;
use serde_json::json;
use std::sync::Arc;

/// The configuration in force and what became of the file since. Clones see the same.
#[derive(Clone, Debug)]
pub struct LiveConfig {
    running: Arc<ArcSwap<Config>>,
    state: Arc<ArcSwap<FileState>>,
}

/// What became of gateway.yaml since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileState {
    /// Changed fields that wait for a restart.
    pub needs_restart: Vec<String>,
    /// Why the file was refused, if it was.
    pub errors: Vec<String>,
}

impl LiveConfig {
    /// Starts with the configuration that the gateway started with.
    #[must_use]
    pub fn new(config: Config) -> Self {
        LiveConfig {
            running: Arc::new(ArcSwap::from_pointee(config)),
            state: Arc::new(ArcSwap::from_pointee(FileState::default())),
        }
    }

    /// What is in force now.
    #[must_use]
    pub fn get(&self) -> Arc<Config> {
        self.running.load_full()
    }

    /// What became of the file.
    #[must_use]
    pub fn file_state(&self) -> Arc<FileState> {
        self.state.load_full()
    }

    /// Reads the file again. Errors are logged and kept for `status`; nothing changes then.
    /// What came of it: nothing, or an event for the audit log.
    pub fn reload(&self) -> Option<AuditEvent> {
        let running = self.get();
        let newer = match Config::load(&running.path) {
            Ok(newer) => newer,
            Err(error) => {
                tracing::warn!("gateway.yaml is refused, the old settings stay:\n{error}");
                let before = self.state.load();
                let errors = error.lines();
                // The same faults again are no news.
                let news = before.errors != errors;
                self.state.store(Arc::new(FileState {
                    needs_restart: before.needs_restart.clone(),
                    errors,
                }));
                let refused = event(&running, Outcome::Refused);
                return news.then(|| AuditEvent {
                    reason: Some(error.summary()),
                    ..refused
                });
            }
        };
        let changes = running.changes(&newer);
        if !changes.live.is_empty() {
            tracing::info!(fields = changes.live.join(", "), "gateway.yaml changed");
            self.running
                .store(Arc::new(running.with_live_fields(&newer)));
        }
        if !changes.restart.is_empty() {
            tracing::warn!(
                fields = changes.restart.join(", "),
                "changed, but need a restart"
            );
        }
        let needs_restart = changes
            .restart
            .iter()
            .map(|&field| field.to_owned())
            .collect();
        self.state.store(Arc::new(FileState {
            needs_restart,
            errors: Vec::new(),
        }));
        (!changes.live.is_empty()).then(|| AuditEvent {
            // Names only: values may be the paths of secrets, and are in the file.
            after: Some(json!({ "fields": changes.live })),
            ..event(&running, Outcome::Done)
        })
    }

    /// The same for `actor`, with a line in the audit log if it made a difference.
    pub async fn reload_by(&self, actor: Actor, audit: &Audit) {
        if let Some(event) = self.reload() {
            audit.record(AuditEvent { actor, ..event }).await;
        }
    }

    /// Reloads whenever the file changes. Never returns; drop it to stop.
    pub async fn watch(&self, audit: &Audit) {
        let mut file = Watched::new(&self.get().path);
        loop {
            // Once at the beginning: it may have changed since it was loaded.
            self.reload_by(Actor::Gateway, audit).await;
            file.changed().await;
        }
    }
}

fn event(running: &Config, outcome: Outcome) -> AuditEvent {
    AuditEvent {
        action: Action::ConfigLoad,
        outcome,
        actor: Actor::Gateway,
        object: Object {
            kind: "config",
            name: running.path.display().to_string(),
        },
        reason: None,
        before: None,
        after: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    const LEAST: &str = "pool_v6: fd6a:3c1e:9d20:1::/64\n";

    #[test]
    fn live_fields_change_and_the_others_wait() {
        let folder = Scratch::new();
        let path = folder.path("gateway.yaml");
        std::fs::write(&path, LEAST).expect("written");
        let live = LiveConfig::new(Config::load(&path).expect("good"));
        std::fs::write(&path, format!("{LEAST}keepalive: off\nmtu: 1300\n")).expect("written");
        live.reload();
        assert_eq!((live.get().keepalive, live.get().mtu), (None, 1420));
        assert_eq!(live.file_state().needs_restart, ["mtu"]);

        std::fs::write(&path, "keepalive: never ever\n").expect("written");
        live.reload();
        assert_eq!(live.get().keepalive, None, "a bad file changes nothing");
        assert_eq!(
            live.file_state().errors.len(),
            2,
            "{:?}",
            live.file_state().errors
        );

        std::fs::write(&path, LEAST).expect("written");
        live.reload();
        assert_eq!(*live.file_state(), FileState::default());
        assert_eq!(live.get().keepalive, Some(25));
    }

    #[test]
    fn a_change_of_who_may_what_is_told_once_and_without_values() {
        let folder = Scratch::new();
        let path = folder.path("gateway.yaml");
        let write = |text: &str| std::fs::write(&path, format!("{LEAST}{text}")).expect("written");
        write("");
        let live = LiveConfig::new(Config::load(&path).expect("good"));
        assert!(live.reload().is_none(), "nothing new");

        let wanted = "require_approval: true\nsession: { required: true }\nmtu: 1300\n";
        write(wanted);
        let told = live.reload().expect("a change");
        assert_eq!(
            (told.action.as_str(), told.outcome),
            ("config-load", Outcome::Done)
        );
        let fields = json!({ "fields": ["require_approval", "session"] });
        assert_eq!(told.after, Some(fields), "and no word of what waits");
        assert!(live.reload().is_none());

        for (bad, why) in [
            ("keepalive: hunter2\n", "keepalive"),
            ("login: { hunter2: hunter2 }\n", "not a gateway.yaml"),
        ] {
            write(bad);
            let told = live.reload().expect("a refusal");
            assert_eq!(told.outcome, Outcome::Refused);
            let reason = told.reason.expect("why");
            assert!(
                reason.contains(why) && !reason.contains("hunter2"),
                "{reason}"
            );
            assert!(live.reload().is_none(), "the same fault is no news");
        }
    }
}
