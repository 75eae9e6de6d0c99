//! The writer: stages lines, writes them in groups, forces them to disk.
//!
//! Written lines stay in memory until they are synced. A write that failed is done again at the
//! same place with the same bytes, and so is everything since the last sync when a sync fails,
//! since the kernel may have thrown those pages away. So whatever fails, and however often,
//! nothing is lost and nothing is there twice.

mod recover;
mod retain;

pub use recover::{Cut, Damage, Recovered};
pub use retain::{Removed, Why};

use crate::index::time_of;
use crate::line::{self, Head, MAX_LINE};
use crate::segment::name;
use crate::storage::{Disk, Storage, StorageFile, write_all};
use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::path::PathBuf;

/// Bytes that may be staged.
pub const MAX_STAGED: usize = 16 << 20;

/// Bytes that may be written and not synced; beyond that a commit syncs first. The writer's
/// memory is at most `MAX_STAGED + MAX_UNSYNCED` (32 MiB), and twice that when its buffer grows.
pub const MAX_UNSYNCED: usize = 16 << 20;

/// How a spool is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Bytes after which a new segment begins, between two groups.
    pub segment_size: u64,
}

/// The one writer of a folder.
#[derive(Debug)]
pub struct Spool<S: Storage = Disk> {
    storage: S,
    settings: Settings,
    /// Oldest first; the last one is written to. Their number is bounded by retention.
    segments: VecDeque<Segment>,
    active: S::File,
    /// Lines from `synced_to` of the active segment on: first those that were written, then those
    /// that are staged.
    kept: Vec<u8>,
    /// How many bytes of `kept` were written.
    written: usize,
    /// The last group, in `kept`.
    group: Range<usize>,
    /// Where in the active segment `kept` begins.
    synced_to: u64,
    head: Head,
    staged_head: Head,
    synced: u64,
    /// A write failed: bytes of it may lie behind the head.
    torn: bool,
    /// A sync failed: what was written since the last one may be gone.
    doubtful: bool,
    /// The active segment was created, and the folder was not synced since.
    unnamed: bool,
    oldest_ms: Option<u64>,
}

/// What the writer knows of a segment.
#[derive(Clone, Copy, Debug)]
struct Segment {
    first: u64,
    len: u64,
}

/// How large a spool is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Size {
    /// Bytes of all segments.
    pub bytes: u64,
    /// How many segments.
    pub segments: usize,
    /// Number of the oldest line; that of the next line when there is none.
    pub oldest_n: u64,
    /// The `time` of the oldest line, milliseconds since 1970; 0 if it has none.
    pub oldest_ms: u64,
}

/// Why a spool cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// It has a writer.
    #[error(
        "{} is being written to by another process: stop that one first, or use another folder",
        dir.display()
    )]
    Locked {
        /// The folder.
        dir: PathBuf,
    },
    /// The folder is of no use.
    #[error("cannot use the folder {}: {source}{}", dir.display(), advice(source))]
    Folder {
        /// The folder.
        dir: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of it is of no use.
    #[error("cannot {what} {file}: {source}{}", advice(source))]
    File {
        /// What was tried.
        what: &'static str,
        /// Its name in the folder.
        file: String,
        /// What the system said.
        source: io::Error,
    },
    /// The last segment holds lines that cannot be this spool's.
    #[error(
        "{file} holds line {n}, which cannot be in a segment of that name: move the file to \
         another folder, and keep it as evidence"
    )]
    Foreign {
        /// Its name in the folder.
        file: String,
        /// The line's number.
        n: u64,
    },
}

/// Why something cannot be a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// Longer than [`MAX_LINE`].
    #[error("a record of {0} bytes is too long for a line of {MAX_LINE}")]
    TooLong(usize),
    /// Not `{...}`, or with a line break inside.
    #[error("a record must be one JSON object without a line break")]
    NotAnObject,
    /// [`MAX_STAGED`] bytes wait already: commit, or drop them.
    #[error("{MAX_STAGED} bytes are staged already")]
    Full,
}

impl<S: Storage> Spool<S> {
    /// Opens a spool and repairs its end: see [`Recovered`]. All that is found is synced.
    ///
    /// # Errors
    /// The storage fails, or does not hold a spool.
    pub fn open(storage: S, settings: Settings) -> Result<(Spool<S>, Recovered), SpoolError> {
        recover::open(storage, settings)
    }

    /// Takes a JSON object `{...}` as the next line. Returns its number.
    ///
    /// # Errors
    /// It can never be a line, or too much is staged. Nothing was staged.
    pub fn stage(&mut self, body: &[u8]) -> Result<u64, Unfit> {
        let len = line::sealed_len(body.len());
        if len > MAX_LINE {
            return Err(Unfit::TooLong(body.len()));
        }
        if !line::is_body(body) {
            return Err(Unfit::NotAnObject);
        }
        if self.staged_bytes() + len > MAX_STAGED {
            return Err(Unfit::Full);
        }
        let n = self.staged_head.n + 1;
        let hash = line::seal(body, n, self.staged_head.hash, &mut self.kept);
        self.staged_head = Head { n, hash };
        Ok(n)
    }

    /// Lines that are staged.
    #[must_use]
    pub fn staged(&self) -> u64 {
        self.staged_head.n - self.head.n
    }

    /// Bytes that are staged, of [`MAX_STAGED`].
    #[must_use]
    pub fn staged_bytes(&self) -> usize {
        self.kept.len() - self.written
    }

    /// Writes what is staged, as one group.
    ///
    /// # Errors
    /// It is not written, or only in part. It is still staged: commit again, or drop it.
    pub fn commit(&mut self) -> io::Result<()> {
        if self.staged() == 0 {
            self.group = 0..0;
            return Ok(());
        }
        let full =
            self.end() > 0 && self.end() + self.staged_bytes() as u64 > self.settings.segment_size;
        if full {
            self.roll()?;
        } else if self.kept.len() > MAX_UNSYNCED {
            self.sync()?;
        }
        let begin = self.end();
        if self.torn {
            // What was dropped since may have been longer than what comes now.
            self.active.truncate(begin)?;
        }
        self.torn = true;
        write_all(&self.active, &self.kept[self.written..], begin)?;
        self.torn = false;
        self.group = self.written..self.kept.len();
        if self
            .segments
            .front()
            .is_some_and(|oldest| oldest.first == self.head.n + 1)
        {
            self.oldest_ms = self
                .committed()
                .split(|b| *b == b'\n')
                .next()
                .and_then(time_of);
        }
        self.written = self.kept.len();
        self.head = self.staged_head;
        if let Some(segment) = self.segments.back_mut() {
            segment.len = begin + self.group.len() as u64;
        }
        Ok(())
    }

    /// The lines of the last commit, each with its `\n`; empty once they are synced.
    #[must_use]
    pub fn committed(&self) -> &[u8] {
        &self.kept[self.group.clone()]
    }

    /// Forgets what is staged. Returns how many lines; their numbers go to the next ones.
    pub fn drop_staged(&mut self) -> u64 {
        let dropped = self.staged();
        self.kept.truncate(self.written);
        self.staged_head = self.head;
        // Else the next write does it.
        self.torn = self.torn && self.active.truncate(self.end()).is_err();
        dropped
    }

    /// Makes all that was committed survive a power cut.
    ///
    /// # Errors
    /// It may not survive. Sync again.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.synced == self.head.n && !self.doubtful {
            return Ok(());
        }
        if self.unnamed {
            self.storage.sync_folder()?;
            self.unnamed = false;
        }
        if self.doubtful {
            write_all(&self.active, &self.kept[..self.written], self.synced_to)?;
        }
        self.doubtful = true;
        self.active.sync()?;
        self.doubtful = false;
        self.synced = self.head.n;
        self.synced_to = self.end();
        self.kept.drain(..self.written);
        self.written = 0;
        self.group = 0..0;
        Ok(())
    }

    /// The last line that was written.
    #[must_use]
    pub fn head(&self) -> Head {
        self.head
    }

    /// The number of the last line that survives a power cut.
    #[must_use]
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// How large it is.
    #[must_use]
    pub fn size(&self) -> Size {
        Size {
            bytes: self.segments.iter().map(|segment| segment.len).sum(),
            segments: self.segments.len(),
            oldest_n: self.segments.front().map_or(1, |segment| segment.first),
            oldest_ms: self.oldest_ms.unwrap_or(0),
        }
    }

    /// Where in the active segment the next group goes.
    fn end(&self) -> u64 {
        self.synced_to + self.written as u64
    }

    /// Begins a new segment. The finished one is synced.
    fn roll(&mut self) -> io::Result<()> {
        self.sync()?;
        if self.torn {
            // Bytes of a failed write are of no segment.
            self.active.truncate(self.end())?;
            self.active.sync()?;
            self.torn = false;
        }
        let first = self.head.n + 1;
        // From here on it is the active one, whatever fails next: a line in the segment before
        // could not be told from one in this one.
        self.active = self.storage.create(&name(first))?;
        self.unnamed = true;
        self.synced_to = 0;
        self.segments.push_back(Segment { first, len: 0 });
        Ok(())
    }
}

/// What to do about an error of the system.
fn advice(error: &io::Error) -> &'static str {
    let is = |kinds: &[io::ErrorKind]| kinds.contains(&error.kind());
    if is(&[io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded]) {
        ": make room, or lower keep_size"
    } else if is(&[io::ErrorKind::ReadOnlyFilesystem]) {
        ": mount it writable, or name another folder"
    } else if is(&[io::ErrorKind::PermissionDenied]) {
        ": let the gateway's user write there"
    } else {
        ""
    }
}

#[cfg(test)]
mod faults;
#[cfg(test)]
mod tests;
