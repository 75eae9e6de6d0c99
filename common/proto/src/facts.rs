//! What a device reports about itself, for posture checks. Facts are claims: the gateway compares
//! them with what the policy expects and never trusts them with more.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// The most processes and files that a policy may ask for, each.
pub const MAX_WATCHED: usize = 64;

/// One report. What a device cannot find out is absent, and fails any check that needs it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Facts {
    /// `ID` of os-release(5): `debian`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os: Option<String>,
    /// `VERSION_ID` of os-release(5): `12`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// The kernel's release: `6.1.0-18-amd64`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kernel: Option<String>,
    /// The version of `postern`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_version: Option<String>,
    /// The host's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// The machine's serial number, where it can be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<String>,
    /// Whether the file system that holds `/` is encrypted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_encryption: Option<bool>,
    /// Whether a firewall filters what comes in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firewall: Option<bool>,
    /// Of the processes that were asked for: whether one of that name runs.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub processes: BTreeMap<String, bool>,
    /// Of the files that were asked for: the SHA-256 in hex, absent where there is none.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, Option<String>>,
}

/// What the policy in force asks devices to look at, beyond what each reports anyway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Watched {
    /// Names of processes, as in /proc/PID/comm.
    pub processes: BTreeSet<String>,
    /// Absolute paths.
    pub files: BTreeSet<String>,
}
