//! Names of targets.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// What a name of the policy in force means.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameView {
    /// As in the policy.
    pub name: String,
    /// Its addresses that targets have now.
    pub addresses: Vec<IpAddr>,
    /// Since when it means these, seconds since 1970; none: it was never answered, and means
    /// nothing.
    pub since: Option<u64>,
    /// Seconds since the last good answer.
    pub age: Option<u64>,
    /// How long that answer may be kept, seconds.
    pub ttl: u64,
    /// Why there is no good answer now.
    pub failing: Option<String>,
    /// Addresses of the last answer that are not used, and why.
    pub refused: Vec<String>,
    /// How often it was asked for in vain, since the start.
    pub failures: u64,
}
