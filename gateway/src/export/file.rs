//! A file that is begun anew by size and age; the older ones get numbers: `flows.jsonl.1` is the
//! newest of them.

use super::batch::Lines;
use super::driver::{Failure, Sink, Taken};
use crate::config::FileConfig;
use postern_spool::{Cursor, Line};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// Readable for the group, so that a log agent needs no root.
const MODE: u32 = 0o640;

/// How often it is checked that the file is still the one behind its name.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// No line is longer, bytes. At the start a half line and a whole one are looked for.
const LOOK_BACK: u64 = postern_spool::MAX_LINE as u64;

pub(super) struct RotatingFile {
    path: PathBuf,
    max_size: u64,
    max_age: Duration,
    max_files: u32,
    open: Option<Open>,
    /// Bytes of the next lines that are written already, after a failure.
    done: usize,
    failed: bool,
}

struct Open {
    file: File,
    identity: (u64, u64),
    regular: bool,
    size: u64,
    begun: SystemTime,
    looked: Instant,
}

impl RotatingFile {
    pub(super) fn new(config: &FileConfig) -> Self {
        RotatingFile {
            path: config.path.clone(),
            max_size: config.max_size,
            max_age: config.max_age,
            max_files: config.max_files,
            open: None,
            done: 0,
            failed: false,
        }
    }

    /// Opens the file for the first time. A crash may have left a half line at its end; the whole
    /// line comes again, so the half is cut off. Returns the last line that is there, if it is one
    /// of a spool.
    ///
    /// # Errors
    /// The file cannot be opened. Later failures are retried.
    pub(super) fn begin(&mut self) -> io::Result<Option<Cursor>> {
        self.open()?;
        let mut last = None;
        if let Some(open) = self.open.as_mut().filter(|open| open.regular) {
            let file = OpenOptions::new().read(true).write(true).open(&self.path)?;
            let from = open.size.saturating_sub(2 * LOOK_BACK);
            let mut end = vec![0; usize::try_from(open.size - from).unwrap_or(0)];
            file.read_exact_at(&mut end, from)?;
            let whole = line_start(&end, end.len());
            if whole < end.len() {
                let cut = end.len() - whole;
                open.size -= u64::try_from(cut).unwrap_or(0);
                file.set_len(open.size)?;
                tracing::info!(path = %self.path.display(), cut, "a half line was cut off");
            }
            last = last_line(&end[..whole]);
            // The cursor may go behind it at once.
            self.sync()?;
        }
        Ok(last)
    }

    /// Opens the file behind the name, whichever it is now.
    fn open(&mut self) -> io::Result<()> {
        let named = |error: io::Error| {
            io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
        };
        let file = OpenOptions::new()
            .create(true)
            .append(true)
            .mode(MODE)
            .open(&self.path)
            .map_err(named)?;
        let facts = file.metadata().map_err(named)?;
        self.open = Some(Open {
            identity: (facts.dev(), facts.ino()),
            regular: facts.is_file(),
            size: facts.len(),
            begun: facts.created().unwrap_or_else(|_| SystemTime::now()),
            looked: Instant::now(),
            file,
        });
        Ok(())
    }

    /// Writes `bytes` from `done` on and moves `done`. After a failure the file is opened again:
    /// it may have been moved, or its folder made anew. A half line is continued in the same file
    /// and begun again in another.
    fn write(&mut self, bytes: &[u8], done: &mut usize, retry: bool) -> io::Result<()> {
        if retry || self.open.as_mut().is_none_or(|open| open.moved(&self.path)) {
            let before = self.open.take().map(|open| open.identity);
            self.open()?;
            if before != self.open.as_ref().map(|open| open.identity) {
                *done = line_start(bytes, *done);
            }
        }
        if *done == 0
            && self
                .open
                .as_ref()
                .is_some_and(|open| self.is_over(open, bytes.len()))
        {
            self.rotate()?;
        }
        let Some(open) = &mut self.open else {
            return Err(io::Error::other("the file is not open"));
        };
        while *done < bytes.len() {
            let written = open.file.write(&bytes[*done..]).map_err(|error| {
                io::Error::new(error.kind(), format!("{}: {error}", self.path.display()))
            })?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            *done += written;
            open.size += u64::try_from(written).unwrap_or(u64::MAX);
        }
        Ok(())
    }

    /// Forces what was written to disk.
    fn sync(&mut self) -> io::Result<()> {
        match &self.open {
            Some(open) if open.regular => open.file.sync_data(),
            _ => Ok(()),
        }
    }

    fn is_over(&self, open: &Open, more: usize) -> bool {
        let more = u64::try_from(more).unwrap_or(u64::MAX);
        let age = SystemTime::now()
            .duration_since(open.begun)
            .unwrap_or_default();
        open.regular
            && open.size > 0
            && (open.size.saturating_add(more) > self.max_size || age >= self.max_age)
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.sync()?;
        let oldest = self.max_files.saturating_sub(1);
        if oldest == 0 {
            std::fs::remove_file(&self.path)?;
        }
        for number in (0..oldest).rev() {
            match std::fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        self.open()
    }

    fn numbered(&self, number: u32) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }
}

impl Sink for RotatingFile {
    fn send(&mut self, lines: Lines<'_>) -> Result<Taken, Failure> {
        let mut done = self.done;
        let written = self.write(lines.bytes(), &mut done, self.failed);
        (self.done, self.failed) = match written {
            Ok(()) => (0, false),
            Err(_) => (done, true),
        };
        written
            .map(|()| Taken::default())
            .map_err(|error| Failure::Retry {
                after: None,
                error: error.to_string(),
            })
    }

    fn settle(&mut self) -> io::Result<()> {
        self.sync()
    }
}

impl Open {
    /// Whether somebody has put another file, or none, behind the name. Writing on would be a
    /// silent loss.
    fn moved(&mut self, path: &Path) -> bool {
        if self.looked.elapsed() < LOOK_EVERY {
            return false;
        }
        self.looked = Instant::now();
        std::fs::metadata(path).map_or(true, |facts| (facts.dev(), facts.ino()) != self.identity)
    }
}

/// The last of these whole lines.
fn last_line(bytes: &[u8]) -> Option<Cursor> {
    let text = bytes.strip_suffix(b"\n")?;
    let line = &text[line_start(text, text.len())..];
    Line::parse(line).ok().map(|line| Cursor::from(line.head()))
}

fn line_start(bytes: &[u8], place: usize) -> usize {
    bytes[..place]
        .iter()
        .rposition(|byte| *byte == b'\n')
        .map_or(0, |newline| newline + 1)
}
