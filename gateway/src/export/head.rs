//! How far the spool is on disk for good: what the writer tells and exporters wait for.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// Number of the last line that a power cut cannot take back. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct SyncedHead(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    moved: Condvar,
}

#[derive(Debug, Default)]
struct State {
    synced: u64,
    stopping: bool,
}

impl SyncedHead {
    /// Lines up to `synced` are on disk.
    #[must_use]
    pub fn new(synced: u64) -> Self {
        let head = SyncedHead::default();
        head.publish(synced);
        head
    }

    /// Lines up to `synced` are on disk now. Never goes back.
    pub fn publish(&self, synced: u64) {
        let mut state = self.lock();
        if synced > state.synced {
            state.synced = synced;
            drop(state);
            self.0.moved.notify_all();
        }
    }

    /// Number of the last line that is on disk; 0 if there is none.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.lock().synced
    }

    /// Ends every wait, now and later.
    pub(super) fn stop(&self) {
        self.lock().stopping = true;
        self.0.moved.notify_all();
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Returns when there are lines beyond `n`, when it is `until`, or when all stops.
    pub(super) fn wait(&self, n: u64, until: Instant) {
        let mut state = self.lock();
        while state.synced <= n && !state.stopping {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            (state, _) = self
                .0
                .moved
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Both values are whole at every moment, so a panic elsewhere spoils nothing.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_wait_ends_with_news_and_with_the_end() {
        let head = SyncedHead::new(5);
        let far = Instant::now() + Duration::from_secs(3600);
        head.wait(4, far);
        head.wait(5, Instant::now());
        let waiter = std::thread::spawn({
            let head = head.clone();
            move || {
                head.wait(5, far);
                let seen = head.get();
                head.wait(u64::MAX, far);
                (seen, head.is_stopping())
            }
        });
        head.publish(3);
        assert_eq!(head.get(), 5, "never back");
        head.publish(6);
        while !waiter.is_finished() && head.get() < 6 {}
        head.stop();
        assert!(matches!(waiter.join().expect("no panic"), (6, true)));
    }
}
