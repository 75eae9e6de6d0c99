//! Posture: what a device says of itself, and an admin of it, held against what a check expects.
//!
//! A check holds for as long as what it rests on counts: a report until it is stale, an attribute
//! until its end. What was never said, cannot be found out, or counts no longer, fails.

mod version;

pub use version::Comparison;

use crate::duration;
use crate::standing::{Reported, Standing};
use postern_proto::facts::Facts;
use postern_proto::now::Wall;
use std::fmt;

/// What a check expects of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// The operating system, and perhaps its version.
    System {
        /// `ID` of os-release(5), compared exactly.
        id: String,
        /// Its version.
        version: Option<Comparison>,
    },
    /// The kernel's version.
    Kernel(Comparison),
    /// The version of `postern`.
    ClientVersion(Comparison),
    /// `/` is on an encrypted disk.
    DiskEncryption,
    /// A firewall filters what comes in.
    Firewall,
    /// A process of this name runs.
    Process(String),
    /// A file is there.
    File {
        /// Absolute.
        path: String,
        /// What it must hold: SHA-256 in 64 lower-case hex digits.
        sha256: Option<String>,
    },
    /// An admin set this attribute to this value.
    Attribute {
        /// Its name.
        name: String,
        /// Its value, compared exactly.
        value: String,
    },
}

/// Characters of a device's words that are shown.
const SHOWN: usize = 64;
/// Hex digits of a hash that are shown.
const SHOWN_HASH: usize = 12;

impl Expected {
    /// From when on the check fails if nothing else is said of the device; `Wall(0)` if it fails
    /// already, [`Wall::NEVER`] if it holds for ever.
    #[must_use]
    pub fn holds_until(&self, standing: &Standing) -> Wall {
        const FAILS: Wall = Wall(0);
        if let Expected::Attribute { name, value } = self {
            return match standing.attributes.get(name) {
                Some(set) if set.value == *value => set.until.unwrap_or(Wall::NEVER),
                Some(_) | None => FAILS,
            };
        }
        match &standing.reported {
            Some(reported) if self.agrees(&reported.facts) => reported.fresh_until,
            Some(_) | None => FAILS,
        }
    }

    /// What came instead, or as expected, in words: `off`, `debian 11`, `not reported`,
    /// `reported 12 min ago, too old`.
    #[must_use]
    pub fn received(&self, standing: &Standing, now: Wall) -> String {
        if let Expected::Attribute { name, .. } = self {
            return match standing.attributes.get(name) {
                None => "not set".to_owned(),
                Some(set) => match set.until.filter(|until| *until <= now) {
                    Some(until) => format!("ended {} ago", ago(until, now)),
                    None => printable(&set.value),
                },
            };
        }
        let said = match &standing.reported {
            None => None,
            Some(Reported {
                at, fresh_until, ..
            }) if *fresh_until <= now => {
                return format!("reported {} ago, too old", ago(*at, now));
            }
            Some(reported) => self.said(&reported.facts),
        };
        said.unwrap_or_else(|| "not reported".to_owned())
    }

    /// Whether the check rests on what the device reports.
    #[must_use]
    pub fn is_reported(&self) -> bool {
        !matches!(self, Expected::Attribute { .. })
    }

    fn agrees(&self, facts: &Facts) -> bool {
        let is = |version: &Comparison, reported: &Option<String>| {
            reported.as_ref().is_some_and(|text| version.holds(text))
        };
        match self {
            Expected::System { id, version } => {
                let version = version.as_ref();
                facts.os.as_ref() == Some(id) && version.is_none_or(|v| is(v, &facts.os_version))
            }
            Expected::Kernel(version) => is(version, &facts.kernel),
            Expected::ClientVersion(version) => is(version, &facts.client_version),
            Expected::DiskEncryption => facts.disk_encryption == Some(true),
            Expected::Firewall => facts.firewall == Some(true),
            Expected::Process(name) => facts.processes.get(name) == Some(&true),
            Expected::File { path, sha256 } => match facts.files.get(path) {
                Some(Some(found)) => sha256
                    .as_ref()
                    .is_none_or(|expected| expected.eq_ignore_ascii_case(found)),
                Some(None) | None => false,
            },
            // An admin says it, never the device.
            Expected::Attribute { .. } => false,
        }
    }

    /// What a report says of it; none where it says nothing.
    fn said(&self, facts: &Facts) -> Option<String> {
        let switch = |on: bool| if on { "on" } else { "off" }.to_owned();
        match self {
            Expected::System { version, .. } => {
                let id = printable(facts.os.as_ref()?);
                Some(match (version, &facts.os_version) {
                    (None, _) => id,
                    (Some(_), Some(version)) => format!("{id} {}", printable(version)),
                    (Some(_), None) => format!("{id}, version not reported"),
                })
            }
            Expected::Kernel(_) => facts.kernel.as_deref().map(printable),
            Expected::ClientVersion(_) => facts.client_version.as_deref().map(printable),
            Expected::DiskEncryption => facts.disk_encryption.map(switch),
            Expected::Firewall => facts.firewall.map(switch),
            Expected::Process(name) => facts
                .processes
                .get(name)
                .map(|runs| if *runs { "running" } else { "not running" }.to_owned()),
            Expected::File { path, sha256 } => {
                facts.files.get(path).map(|found| match (found, sha256) {
                    (None, _) => "no such file".to_owned(),
                    (Some(_), None) => "present".to_owned(),
                    (Some(found), Some(_)) => format!("SHA-256 {}", short(found)),
                })
            }
            Expected::Attribute { .. } => None,
        }
    }
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::System { id, version: None } => f.write_str(id),
            Expected::System {
                id,
                version: Some(version),
            } => write!(f, "{id} {version}"),
            Expected::Kernel(version) => write!(f, "kernel {version}"),
            Expected::ClientVersion(version) => write!(f, "postern {version}"),
            Expected::DiskEncryption => f.write_str("disk encryption on"),
            Expected::Firewall => f.write_str("firewall on"),
            Expected::Process(name) => write!(f, "process {name} running"),
            Expected::File { path, sha256: None } => write!(f, "file {path} present"),
            Expected::File {
                path,
                sha256: Some(hash),
            } => write!(f, "file {path} with SHA-256 {}", short(hash)),
            Expected::Attribute { name, value } => write!(f, "attribute {name} set to {value}"),
        }
    }
}

fn ago(then: Wall, now: Wall) -> String {
    duration::shown(now.since(then))
}

fn short(hash: &str) -> String {
    printable(hash).chars().take(SHOWN_HASH).collect::<String>() + "…"
}

/// A device chooses its words: they stay on one line, and short.
fn printable(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests;
