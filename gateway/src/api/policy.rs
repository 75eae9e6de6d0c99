//! The words of a change of the policy. Times are seconds since 1970.

use super::{FlowView, PolicyStatus};
use crate::store::How;
use serde::{Deserialize, Serialize};
use std::fmt;

/// `POST /v1/policy/apply`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApplyPolicy {
    /// The text of the policy.
    pub source: String,
    /// Seconds within which it must be confirmed; none: it is for good.
    #[serde(default)]
    pub confirm_within: Option<u64>,
    /// Who does it, and what may be overridden.
    #[serde(default)]
    pub with: Force,
}

/// `POST /v1/policy/rollback`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RollBack {
    /// How the hash of the wanted policy begins; none: the one before.
    #[serde(default)]
    pub to: Option<String>,
    /// Who does it, and what may be overridden.
    #[serde(default)]
    pub with: Force,
}

/// Who changes the policy, and what may be overridden.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Force {
    /// The user whose flows must live.
    #[serde(default)]
    pub user: Option<String>,
    /// `SSH_CONNECTION` of who asks: four words, the first two are where they come from.
    #[serde(default)]
    pub ssh: Option<String>,
    /// Why it is done although it cuts flows of who does it, or denies too much.
    #[serde(default)]
    pub reason: Option<String>,
}

/// Answer to [`ApplyPolicy`] and [`RollBack`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// False if it was in force already.
    pub changed: bool,
    /// The policy in force before.
    pub previous: String,
    /// Flows that the change cut.
    pub cut: u64,
    /// Those among them of who did it: it was forced.
    pub own_flows: Vec<FlowView>,
    /// The user or the device whose flows were looked at; none: nobody was named.
    pub checked: Option<String>,
    /// Recorded attempts that the policy newly denies, where `max_newly_denied` asks for them.
    pub newly_denied: Option<u64>,
    /// What was allowed and could not be judged, damaged lines included: `max_newly_denied` counts
    /// it as well.
    #[serde(default)]
    pub not_judged: Option<u64>,
    /// What confirms it. It is shown once.
    pub token: Option<String>,
    /// After the change.
    pub policy: PolicyStatus,
}

impl fmt::Debug for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Applied")
            .field("changed", &self.changed)
            .field("previous", &self.previous)
            .field("cut", &self.cut)
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}

/// `POST /v1/policy/confirm`, at the gateway itself.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmPolicy {
    /// What `apply` printed; none: whoever asks knows that nobody came through a tunnel.
    #[serde(default)]
    pub token: Option<String>,
}

impl fmt::Debug for ConfirmPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConfirmPolicy(redacted)")
    }
}

/// Answer to [`ConfirmPolicy`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Confirmed {
    /// The policy that stays.
    pub hash: String,
}

/// The change that waits for its confirmation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PendingView {
    /// The policy in force.
    pub hash: String,
    /// The one that comes back.
    pub previous: String,
    /// When.
    pub deadline: u64,
    /// Who began it.
    pub made_by: String,
}

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyChangeView {
    /// Counts the changes.
    pub id: i64,
    /// The policy that came into force.
    pub hash: String,
    /// When.
    pub at: u64,
    /// How.
    pub how: How,
    /// By whom.
    pub made_by: String,
    /// Why it was forced.
    pub reason: Option<String>,
    /// Flows that it cut.
    pub cut: u64,
}

/// A policy that is kept, or the file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicySource {
    /// 64 hex digits.
    pub hash: String,
    /// Its text.
    pub source: String,
}
