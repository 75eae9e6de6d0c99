//! Grants.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// `POST /v1/grants/{id}/approve`, `/deny` and `/revoke`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DecideAs {
    /// Who decides, by their own word.
    #[serde(default)]
    pub user: Option<String>,
    /// Where they came from, by sshd's word (`SSH_CONNECTION`): the address of a device is that
    /// device.
    #[serde(default)]
    pub from: Option<IpAddr>,
    /// A word to who asked.
    #[serde(default)]
    pub reason: Option<String>,
}
