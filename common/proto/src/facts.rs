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

/// The most characters of one word in a report.
pub const MAX_WORD: usize = 255;

/// The most characters of a path in a report.
pub const MAX_PATH: usize = 1024;

/// Why a report is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadFacts {
    /// A word is too long, or holds control characters.
    #[error("{field} is no single line of at most {MAX_WORD} characters")]
    Word {
        /// Which.
        field: &'static str,
    },
    /// More processes or files than a policy may ask for.
    #[error("{field} holds more than {MAX_WATCHED} entries")]
    TooMany {
        /// Which.
        field: &'static str,
    },
    /// A process's name is no word, or a path too long.
    #[error("{field} holds a name that is too long or has control characters")]
    Name {
        /// Which.
        field: &'static str,
    },
    /// Not a SHA-256 in hex.
    #[error("files holds what is no SHA-256: 64 digits of lower-case hex")]
    Hash,
}

impl Facts {
    /// What of the report counts: words of one line, and of processes and files those that were
    /// `watched` for.
    ///
    /// # Errors
    /// The first thing that no client reports.
    pub fn accept(mut self, watched: &Watched) -> Result<Facts, BadFacts> {
        let words = [
            ("os", &self.os),
            ("os_version", &self.os_version),
            ("kernel", &self.kernel),
            ("client_version", &self.client_version),
            ("hostname", &self.hostname),
            ("serial", &self.serial),
        ];
        for (field, word) in words {
            if word.as_ref().is_some_and(|word| !is_line(word, MAX_WORD)) {
                return Err(BadFacts::Word { field });
            }
        }
        check_names("processes", self.processes.keys(), MAX_WORD)?;
        check_names("files", self.files.keys(), MAX_PATH)?;
        if !self.files.values().flatten().all(|hash| is_sha256(hash)) {
            return Err(BadFacts::Hash);
        }
        self.processes
            .retain(|name, _| watched.processes.contains(name));
        self.files.retain(|path, _| watched.files.contains(path));
        Ok(self)
    }
}

fn check_names<'a>(
    field: &'static str,
    names: impl ExactSizeIterator<Item = &'a String>,
    most: usize,
) -> Result<(), BadFacts> {
    if names.len() > MAX_WATCHED {
        return Err(BadFacts::TooMany { field });
    }
    let mut names = names;
    if names.all(|name| is_line(name, most)) {
        Ok(())
    } else {
        Err(BadFacts::Name { field })
    }
}

fn is_line(text: &str, most: usize) -> bool {
    text.chars().count() <= most && !text.chars().any(char::is_control)
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Facts {
        Facts {
            hostname: Some(name.to_owned()),
            ..Facts::default()
        }
    }

    #[test]
    fn only_what_was_asked_for_counts() {
        let watched = Watched {
            processes: ["sshd".to_owned()].into(),
            files: ["/etc/ca.pem".to_owned()].into(),
        };
        let hash = Some("0f".repeat(32));
        let mut report = named("laptop");
        report.processes = [("sshd".to_owned(), true), ("other".to_owned(), true)].into();
        report.files = [
            ("/etc/ca.pem".to_owned(), hash.clone()),
            ("/etc/passwd".to_owned(), None),
        ]
        .into();
        let accepted = report.accept(&watched).expect("a good report");
        assert_eq!(accepted.hostname.as_deref(), Some("laptop"));
        assert_eq!(accepted.processes, [("sshd".to_owned(), true)].into());
        assert_eq!(accepted.files, [("/etc/ca.pem".to_owned(), hash)].into());
    }

    #[test]
    fn what_no_client_reports_is_refused() {
        let refused = |facts: Facts| facts.accept(&Watched::default()).expect_err("refused");
        for word in ["a\nb", "\u{1b}[31m", "\u{85}", &"x".repeat(MAX_WORD + 1)] {
            assert_eq!(refused(named(word)), BadFacts::Word { field: "hostname" });
        }
        let mut many = Facts::default();
        for number in 0..=MAX_WATCHED {
            many.processes.insert(number.to_string(), true);
        }
        assert_eq!(refused(many), BadFacts::TooMany { field: "processes" });
        let file = |path: &str, hash: &str| Facts {
            files: [(path.to_owned(), Some(hash.to_owned()))].into(),
            ..Facts::default()
        };
        let good = "0".repeat(64);
        assert_eq!(
            refused(file("/a\0", &good)),
            BadFacts::Name { field: "files" }
        );
        for hash in ["", "0f", &"0F".repeat(32), &"g".repeat(64)] {
            assert_eq!(refused(file("/a", hash)), BadFacts::Hash);
        }
        let longest = "é".repeat(MAX_WORD);
        assert!(named(&longest).accept(&Watched::default()).is_ok());
    }
}
