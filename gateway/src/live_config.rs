//! The configuration of a running gateway: fields that may change do, the others say that they
//! wait for a restart.

use crate::config::Config;
use crate::file_stamp::Watched;
use arc_swap::ArcSwap;
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
    pub fn reload(&self) {
        let running = self.get();
        let newer = match Config::load(&running.path) {
            Ok(newer) => newer,
            Err(error) => {
                tracing::warn!("gateway.yaml is refused, the old settings stay:\n{error}");
                let needs_restart = self.state.load().needs_restart.clone();
                self.state.store(Arc::new(FileState {
                    needs_restart,
                    errors: error.lines(),
                }));
                return;
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
    }

    /// Reloads whenever the file changes. Never returns; drop it to stop.
    pub async fn watch(&self) {
        let mut file = Watched::new(&self.get().path);
        loop {
            // Once at the beginning: it may have changed since it was loaded.
            self.reload();
            file.changed().await;
        }
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
}
