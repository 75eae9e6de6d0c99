//! How far an exporter has come: the last line that its server has, durably.

use crate::line::{Hash, Head};
use crate::reader::{Lines, ReadError, Reader};
use crate::storage::replace;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::{Path, PathBuf};

/// The last line that was acknowledged; `n` is 0 before the first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Its number.
    pub n: u64,
    /// Its hash.
    pub hash: Hash,
}

/// How a cursor and a spool fit together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The line is there: go on with the next.
    Good,
    /// The line was removed; those from `oldest` on are there. What lies between is lost to this
    /// exporter.
    Removed {
        /// The oldest line that is there.
        oldest: u64,
    },
    /// The spool has no such line yet: it is not the one that the cursor was made for.
    Ahead,
    /// The line is another one: the spool was replaced.
    Replaced,
}

/// Why there is no cursor.
#[derive(Debug, thiserror::Error)]
pub enum CursorError {
    /// Not what a cursor looks like.
    #[error(
        "{} is not a cursor ({what}): remove it, and the exporter begins with the oldest line",
        path.display()
    )]
    Garbage {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// It cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl Cursor {
    /// The cursor of exporter `name` (lower case letters, digits and `-`); none if it has none.
    ///
    /// # Errors
    /// There is one, and it is unreadable.
    pub fn load(dir: &Path, name: &str) -> Result<Option<Cursor>, CursorError> {
        let path = path(dir, name);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let what = error.to_string();
                return Err(CursorError::Garbage { path, what });
            }
            Err(source) => return Err(CursorError::Io { path, source }),
        };
        serde_json::from_str(&text)
            .map(Some)
            .map_err(|error| CursorError::Garbage {
                path,
                what: error.to_string(),
            })
    }

    /// Replaces the cursor of exporter `name`. After a power cut it is the old or the new one.
    ///
    /// # Errors
    /// It was not replaced, or not durably.
    pub fn store(&self, dir: &Path, name: &str) -> io::Result<()> {
        let text = format!("{{\"n\":{},\"hash\":\"{}\"}}\n", self.n, self.hash);
        replace(&path(dir, name), text.as_bytes())
    }

    /// Whether this cursor belongs to the spool in `dir`, whose last line is `head`.
    ///
    /// # Errors
    /// The line of the cursor cannot be read.
    pub fn standing(&self, dir: &Path, head: u64) -> Result<Standing, ReadError> {
        if self.n > head {
            return Ok(Standing::Ahead);
        }
        let mut lines = Lines::default();
        let read = Reader::open(dir, self.n)
            .and_then(|mut reader| reader.read(self.n.max(1), 1, 0, &mut lines));
        match read {
            Err(ReadError::Removed { oldest }) if oldest == self.n + 1 => Ok(Standing::Good),
            Err(ReadError::Removed { oldest }) => Ok(Standing::Removed { oldest }),
            Err(error) => Err(error),
            Ok(()) if self.n == 0 => Ok(Standing::Good),
            Ok(()) => Ok(match lines.last() {
                Some(line) if line.hash() == self.hash => Standing::Good,
                Some(_) => Standing::Replaced,
                None => Standing::Ahead,
            }),
        }
    }
}

impl From<Head> for Cursor {
    fn from(head: Head) -> Cursor {
        Cursor {
            n: head.n,
            hash: head.hash,
        }
    }
}

fn path(dir: &Path, name: &str) -> PathBuf {
    debug_assert!(
        name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
        "names of exporters are ours"
    );
    dir.join(format!("cursor-{name}.json"))
}

#[cfg(test)]
mod tests;
