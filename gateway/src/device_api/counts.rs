//! What the control API counts. Labels are closed lists, and names of the
//! policy: never another name, never what was sent.

use postern_proto::device_api::ErrorCode;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Counters since the start.
#[derive(Debug, Default)]
pub struct Counts(Mutex<CountsView>);

/// The same at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CountsView {
    /// Requests by path, `other` for what is none, and outcome: `ok` or the code of the refusal.
    pub requests: BTreeMap<(&'static str, String), u64>,
    /// Logins that came to an end, by outcome: `done` or the code of the refusal.
    pub logins: BTreeMap<String, u64>,
    /// Posture reports that were taken.
    pub reports: u64,
    /// Accesses without approval, by the policy's entry.
    pub break_glass: BTreeMap<String, u64>,
    /// What a key tried and may not, without an audit line, because that asker has many already.
    pub forbidden_unrecorded: u64,
}

impl Counts {
    /// The counters now. What may still happen is there with 0: a counter that begins at 1 hides
    /// its first step.
    #[must_use]
    pub fn view(&self) -> CountsView {
        let mut view = self.with(|counts| counts.clone());
        for (path, _) in super::PATHS {
            view.requests.entry((path, "ok".to_owned())).or_default();
        }
        view.logins.entry("done".to_owned()).or_default();
        view
    }

    pub(super) fn login(&self, refused: Option<ErrorCode>) {
        let outcome = refused.map_or_else(|| "done".to_owned(), code_name);
        self.with(|counts| *counts.logins.entry(outcome).or_default() += 1);
    }

    pub(crate) fn report(&self) {
        self.with(|counts| counts.reports += 1);
    }

    pub(crate) fn break_glass(&self, entry: &str) {
        self.with(|counts| *counts.break_glass.entry(entry.to_owned()).or_default() += 1);
    }

    pub(super) fn answered(&self, path: &'static str, code: Option<ErrorCode>) {
        let code = code.map_or_else(|| "ok".to_owned(), code_name);
        self.with(|counts| *counts.requests.entry((path, code)).or_default() += 1);
    }

    pub(super) fn forbidden_unrecorded(&self) {
        self.with(|counts| counts.forbidden_unrecorded += 1);
    }

    fn with<T>(&self, f: impl FnOnce(&mut CountsView) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// As JSON has it: `bad-request`.
pub(super) fn code_name(code: ErrorCode) -> String {
    match serde_json::to_value(code) {
        Ok(serde_json::Value::String(name)) => name,
        _ => "other".to_owned(),
    }
}
