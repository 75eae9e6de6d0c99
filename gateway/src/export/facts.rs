//! What exporters tell their servers about a line beside the line itself.

use serde::Deserialize;
use std::borrow::Cow;

/// The fields of a line that become labels or attributes.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Facts<'a> {
    #[serde(borrow, default)]
    pub(super) time: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) gateway: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) verdict: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    event: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    user: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    device: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    rule: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    state: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    target: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    close_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    deny_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    shadow_verdict: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    grant: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    action: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) outcome: Option<Cow<'a, str>>,
}

impl<'a> Facts<'a> {
    /// Reads a line; nothing is known of one that says something else than records do.
    pub(super) fn of(line: &'a [u8]) -> Facts<'a> {
        serde_json::from_slice(line).unwrap_or_default()
    }

    /// Milliseconds since 1970.
    pub(super) fn millis(&self) -> Option<u64> {
        self.time.as_deref().and_then(postern_spool::time::millis)
    }

    /// What happened, of a line about the log itself.
    pub(super) fn event(&self) -> Option<&str> {
        self.event.as_deref()
    }

    /// Name and value of what is present, without the labels and the number.
    pub(super) fn metadata(&self) -> impl Iterator<Item = (&'static str, &str)> {
        [
            ("user", &self.user),
            ("device", &self.device),
            ("rule", &self.rule),
            ("state", &self.state),
            ("target", &self.target),
            ("close_reason", &self.close_reason),
            ("deny_reason", &self.deny_reason),
            ("shadow_verdict", &self.shadow_verdict),
            ("grant", &self.grant),
            ("action", &self.action),
            ("outcome", &self.outcome),
        ]
        .into_iter()
        .filter_map(|(name, value)| value.as_deref().map(|value| (name, value)))
    }
}
