//! How an exporter does: written by its thread, read by status and retention.

use crate::api::ExporterStatus;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

#[derive(Debug)]
pub(super) struct Standing {
    name: &'static str,
    /// Lines that were there before this run.
    before: u64,
    position: AtomicU64,
    saved: AtomicU64,
    retries: AtomicU64,
    parked: AtomicU64,
    missed: AtomicU64,
    /// Milliseconds since 1970 of the oldest line that waits; 0 if it is not known.
    oldest: AtomicU64,
    failing: Mutex<Option<String>>,
}

impl Standing {
    pub(super) fn new(name: &'static str, before: u64, position: u64) -> Self {
        Standing {
            name,
            before,
            position: AtomicU64::new(position),
            saved: AtomicU64::new(position),
            retries: AtomicU64::new(0),
            parked: AtomicU64::new(0),
            missed: AtomicU64::new(0),
            oldest: AtomicU64::new(0),
            failing: Mutex::new(None),
        }
    }

    /// The last line that is done with.
    pub(super) fn position(&self) -> u64 {
        self.position.load(Ordering::Acquire)
    }

    /// The line that a restart would go on behind.
    pub(super) fn saved_position(&self) -> u64 {
        self.saved.load(Ordering::Acquire)
    }

    pub(super) fn status(&self, head: u64, now_millis: u64) -> ExporterStatus {
        let position = self.position();
        let oldest = self.oldest.load(Ordering::Relaxed);
        let waits = position < head && oldest > 0;
        ExporterStatus {
            name: self.name.to_owned(),
            position,
            acknowledged: position.saturating_sub(self.before),
            lag_records: head.saturating_sub(position),
            lag_seconds: if waits {
                now_millis.saturating_sub(oldest) / 1000
            } else {
                0
            },
            retries: self.retries.load(Ordering::Relaxed),
            parked: self.parked.load(Ordering::Relaxed),
            missed: self.missed.load(Ordering::Relaxed),
            failing: self.lock().clone(),
        }
    }

    pub(super) fn advance(&self, n: u64) {
        self.position.fetch_max(n, Ordering::AcqRel);
    }

    pub(super) fn saved(&self, n: u64) {
        self.saved.fetch_max(n, Ordering::AcqRel);
    }

    pub(super) fn parked(&self, lines: u64) {
        self.parked.fetch_add(lines, Ordering::Relaxed);
    }

    pub(super) fn missed(&self, lines: u64) {
        self.missed.fetch_add(lines, Ordering::Relaxed);
    }

    pub(super) fn oldest(&self, millis: Option<u64>) {
        self.oldest.store(millis.unwrap_or(0), Ordering::Relaxed);
    }

    pub(super) fn failing(&self, error: String) {
        self.retries.fetch_add(1, Ordering::Relaxed);
        *self.lock() = Some(error);
    }

    pub(super) fn well(&self) {
        *self.lock() = None;
    }

    /// The value is whole at every moment, so a panic elsewhere spoils nothing.
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<String>> {
        self.failing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
