//! The spool, as one exporter sees it: lines behind its cursor, and a place for what is refused.

use super::batch::Batch;
use super::driver::{Source, Trouble};
use super::note::Notes;
use postern_spool::{Cursor, Hash, Lines, ReadError, Reader, Standing, segments};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Bytes of refused lines that are kept, for each exporter. Later ones are counted; they stay in
/// the spool as long as it holds them.
pub(super) const LARGEST_PARKED: u64 = 16 << 20;

/// Readable for the group, as the spool is.
const MODE: u32 = 0o640;

pub(super) struct SpoolSource {
    dir: PathBuf,
    name: &'static str,
    reader: Reader,
    lines: Lines,
    parked: Option<File>,
    notes: Option<Notes>,
    /// Where the cursor on disk stands, if it is there.
    stored: Option<u64>,
}

/// What may be newer than the cursor on disk.
#[derive(Default)]
pub(super) struct Newer {
    /// This boot of the kernel. Without it, nothing is.
    pub(super) boot: Option<String>,
    /// The last line that the sink itself has.
    pub(super) sink: Option<Cursor>,
}

impl SpoolSource {
    /// Goes behind the cursor of exporter `name`, or to the oldest line if it has none that fits.
    /// Returns the number of the last line that it leaves out, and how many it had to.
    ///
    /// # Errors
    /// The spool cannot be read.
    pub(super) fn open(
        dir: &Path,
        name: &'static str,
        head: u64,
        newer: Newer,
    ) -> Result<(SpoolSource, u64, u64), ReadError> {
        let oldest = segments(dir)?.first().map_or(1, |segment| segment.first);
        let cursor = match Cursor::load(dir, name) {
            Ok(cursor) => cursor,
            Err(error) => {
                tracing::warn!(exporter = name, %error, "the exporter begins with the oldest line");
                None
            }
        };
        let mut stored = cursor.map(|cursor| cursor.n);
        let notes = newer.boot.map(|boot| Notes::new(dir, name, boot));
        let cursor = cursor.map(|cursor| {
            let noted = notes.as_ref().and_then(|notes| notes.since(cursor.n));
            // What the sink has may be ahead of the note by what was under way.
            let sink = noted.and(newer.sink);
            let newest = [noted, sink]
                .into_iter()
                .flatten()
                .fold(cursor, |best, at| {
                    let follows =
                        at.n > best.n && matches!(at.standing(dir, head), Ok(Standing::Good));
                    if follows { at } else { best }
                });
            if newest != cursor && newest.store(dir, name).is_ok() {
                stored = Some(newest.n);
            }
            newest
        });
        let (next, missed) = match cursor {
            None => (oldest, 0),
            Some(cursor) => match cursor.standing(dir, head) {
                Ok(Standing::Good) => (cursor.n + 1, 0),
                Ok(Standing::Removed { oldest }) => {
                    let count = oldest - 1 - cursor.n;
                    let (from, to) = (cursor.n + 1, oldest - 1);
                    tracing::warn!(
                        exporter = name,
                        from,
                        to,
                        count,
                        "lines were removed before they were exported"
                    );
                    (oldest, count)
                }
                Ok(Standing::Ahead | Standing::Replaced) => {
                    tracing::warn!(
                        exporter = name,
                        cursor = cursor.n,
                        "the cursor is of another log; the exporter begins with the oldest line"
                    );
                    stored = None;
                    (oldest, 0)
                }
                // The line of the cursor was delivered; what follows is read, or not, in its turn.
                Err(ReadError::Damaged { .. }) => (cursor.n + 1, 0),
                Err(error) => return Err(error),
            },
        };
        if stored.is_none() && notes.is_some() {
            // Notes go on from a cursor. If it cannot be stored now, it will be with the first.
            let (n, hash) = (next - 1, Hash::ZERO);
            stored = Cursor { n, hash }.store(dir, name).is_ok().then_some(n);
        }
        let source = SpoolSource {
            reader: Reader::open(dir, next)?,
            dir: dir.to_owned(),
            name,
            lines: Lines::default(),
            parked: None,
            notes,
            stored,
        };
        Ok((source, next - 1, missed))
    }

    fn parked(&mut self) -> io::Result<&mut File> {
        let file = match self.parked.take() {
            Some(file) => file,
            None => OpenOptions::new()
                .create(true)
                .append(true)
                .mode(MODE)
                .open(self.dir.join(format!("parked-{}.jsonl", self.name)))?,
        };
        Ok(self.parked.insert(file))
    }
}

impl Source for SpoolSource {
    fn fill(&mut self, batch: &mut Batch, synced: u64, limit: usize) -> Result<(), Trouble> {
        let room = limit.saturating_sub(batch.size());
        let next = self.reader.next_n();
        match self.reader.read(synced, usize::MAX, room, &mut self.lines) {
            Ok(()) => {
                for line in self.lines.iter() {
                    batch.push(line.n, line.bytes);
                }
                Ok(())
            }
            Err(ReadError::Removed { oldest }) => {
                self.reader = Reader::open(&self.dir, oldest).map_err(as_io)?;
                Err(Trouble::Missed {
                    from: next,
                    to: oldest - 1,
                    why: "removed before they were exported".into(),
                })
            }
            Err(error @ ReadError::Damaged { .. }) => match self.reader.skip() {
                Ok(Some(good)) => Err(Trouble::Missed {
                    from: next,
                    to: good - 1,
                    why: error.to_string(),
                }),
                Ok(None) => Err(as_io(error)),
                Err(error) => Err(as_io(error)),
            },
            Err(ReadError::Io(error)) => Err(Trouble::Io(error)),
        }
    }

    fn note(&mut self, n: u64, line: &[u8]) -> io::Result<()> {
        let hash = Hash::of(line);
        match (&mut self.notes, self.stored) {
            (Some(notes), Some(cursor)) => notes.write(Cursor { n, hash }, cursor),
            _ => Ok(()),
        }
    }

    fn store(&mut self, n: u64, line: &[u8]) -> io::Result<()> {
        if let Some(parked) = &self.parked {
            parked.sync_data()?;
        }
        let hash = Hash::of(line);
        Cursor { n, hash }.store(&self.dir, self.name)?;
        self.stored = Some(n);
        self.note(n, line)
    }

    fn park(&mut self, line: &[u8]) -> io::Result<()> {
        let file = self.parked()?;
        let size = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if file.metadata()?.len().saturating_add(size) >= LARGEST_PARKED {
            return Ok(());
        }
        let mut whole = line.to_vec();
        whole.push(b'\n');
        file.write_all(&whole)
    }
}

fn as_io(error: ReadError) -> Trouble {
    Trouble::Io(match error {
        ReadError::Io(error) => error,
        error @ (ReadError::Removed { .. } | ReadError::Damaged { .. }) => {
            io::Error::new(io::ErrorKind::InvalidData, error.to_string())
        }
    })
}

#[cfg(test)]
mod tests;
