//! How long a login, a posture report and a key last.

use std::time::Duration;

/// Logins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionConfig {
    /// Whether devices with a user reach nothing without a login that lives.
    pub required: bool,
    /// The age at which a login ends; never if none.
    pub max_age: Option<Duration>,
    /// How long before that the user is warned.
    pub warn_before: Duration,
}

/// Posture reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PostureConfig {
    /// Time between two reports of one device.
    pub report_every: Duration,
    /// The age at which a report counts as if it had never come.
    pub stale_after: Duration,
}

/// Keys of devices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeysConfig {
    /// The age at which a client makes itself a new key; never if none.
    pub rotate_after: Option<Duration>,
}
