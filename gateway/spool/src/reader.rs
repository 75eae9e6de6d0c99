//! Lines in order, from any number on, while the writer goes on writing.
//!
//! A reader takes no lock and writes nothing. It never gives out a part of a line, and whoever
//! reads only up to what is synced never sees a line that a power cut could take back.

use crate::line::{Line, MAX_LINE};
use crate::segment::segments;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of one read of the disk. A reader holds at most this and one line.
const BLOCK: usize = 256 * 1024;

/// Reads a folder's lines in order.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    next: u64,
    file: Option<File>,
    /// The number in the name of `file`.
    first: u64,
    /// No line of `file` was given out yet, and lines before the next one may come first.
    seeking: bool,
    /// Where in the file `buffer` begins.
    offset: u64,
    buffer: Vec<u8>,
    /// How much of `buffer` was used up.
    used: usize,
    /// What is in `buffer` counts up to this line: the writer may write later ones anew.
    until: u64,
}

/// Whole lines, in one buffer that is used again and again.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    bytes: Vec<u8>,
    /// Where each line ends, before its `\n`.
    ends: Vec<usize>,
}

/// Why there is no next line. None of them goes away by waiting, except perhaps an [`io::Error`].
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Retention was faster.
    #[error("the lines before {oldest} were removed")]
    Removed {
        /// The oldest line that is there: read on from it.
        oldest: u64,
    },
    /// The chain is broken here. [`Reader::skip`] goes on behind it.
    #[error("line {n} is damaged: {what}")]
    Damaged {
        /// The line that should be there.
        n: u64,
        /// What is there.
        what: String,
    },
    /// The disk failed.
    #[error("cannot read the log: {0}")]
    Io(#[from] io::Error),
}

impl Reader {
    /// A reader whose next line is `next` (from 1). The line need not be there yet.
    ///
    /// # Errors
    /// [`ReadError::Removed`], or the folder cannot be read.
    pub fn open(dir: &Path, next: u64) -> Result<Reader, ReadError> {
        let mut reader = Reader {
            dir: dir.to_owned(),
            next: next.max(1),
            file: None,
            first: 0,
            seeking: false,
            offset: 0,
            buffer: Vec::new(),
            used: 0,
            until: 0,
        };
        reader.enter()?;
        Ok(reader)
    }

    /// The number of the next line.
    #[must_use]
    pub fn next_n(&self) -> u64 {
        self.next
    }

    /// Replaces `lines` by the next ones: up to line `upto`, at most `max_lines`, and at most
    /// `max_bytes` unless the first one alone is longer. None are there yet if `lines` is empty
    /// afterwards.
    ///
    /// # Errors
    /// There is something else where the next line should be. Lines before it are given out
    /// first, without an error.
    pub fn read(
        &mut self,
        upto: u64,
        max_lines: usize,
        max_bytes: usize,
        lines: &mut Lines,
    ) -> Result<(), ReadError> {
        lines.clear();
        // The first fault while seeking: it counts only if the next line does not come.
        let mut doubt = None;
        while self.next <= upto && lines.len() < max_lines {
            if self.next > self.until {
                self.forget();
            }
            let Some(end) = self.whole_line(upto).or_else(|error| after(lines, error))? else {
                return doubt.map_or(Ok(()), |what: String| {
                    self.rewind(0);
                    Err(self.damaged(&what))
                });
            };
            let bytes = &self.buffer[self.used..end];
            let line = match Line::parse(bytes) {
                Ok(line) if line.n == self.next => line,
                // Of an older position: the reader was opened in the middle of a segment.
                Ok(line) if line.n < self.next && lines.is_empty() => {
                    self.used = end + 1;
                    continue;
                }
                Ok(line) => {
                    let what = format!("line {} stands in its place", line.n);
                    return after(lines, self.damaged(&what)).map(|_: Option<()>| ());
                }
                Err(fault) if self.seeking => {
                    doubt.get_or_insert_with(|| fault.to_string());
                    self.used = end + 1;
                    continue;
                }
                Err(fault) => {
                    return after(lines, self.damaged(&fault.to_string())).map(|_: Option<()>| ());
                }
            };
            if !lines.is_empty() && lines.bytes().len() + line.bytes.len() + 1 > max_bytes {
                break;
            }
            lines.push(line.bytes);
            doubt = None;
            self.seeking = false;
            self.next += 1;
            self.used = end + 1;
        }
        Ok(())
    }

    /// After [`ReadError::Damaged`]: goes to the next line that is one, and returns its number;
    /// none if there is none yet.
    ///
    /// # Errors
    /// The disk failed.
    pub fn skip(&mut self) -> Result<Option<u64>, ReadError> {
        let (file, begin) = (self.first, self.offset + self.used as u64);
        loop {
            match self.whole_line(u64::MAX) {
                Ok(Some(end)) => {
                    if let Ok(line) = Line::parse(&self.buffer[self.used..end])
                        && line.n >= self.next
                    {
                        self.next = line.n;
                        self.seeking = false;
                        self.until = 0;
                        return Ok(Some(line.n));
                    }
                    self.used = end + 1;
                }
                Ok(None) => {
                    // It is damage until a line follows.
                    if self.first == file {
                        self.rewind(begin);
                    }
                    return Ok(None);
                }
                // No end of a line as far as was read: on to where there is one.
                Err(ReadError::Damaged { .. }) if self.buffer.len() - self.used >= MAX_LINE => {
                    self.used = self.buffer.len();
                }
                Err(ReadError::Damaged { .. }) => {
                    let later = segments(&self.dir)?
                        .into_iter()
                        .find(|s| s.first > self.next);
                    let Some(segment) = later else {
                        return Ok(None);
                    };
                    self.next = segment.first;
                    self.file = None;
                    self.enter()?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The end, in the buffer, of the next whole line; none if it is not there yet.
    fn whole_line(&mut self, upto: u64) -> Result<Option<usize>, ReadError> {
        let mut searched = 0;
        loop {
            let unread = &self.buffer[self.used..];
            if let Some(at) = memchr::memchr(b'\n', &unread[searched..]) {
                return Ok(Some(self.used + searched + at));
            }
            searched = unread.len();
            if searched >= MAX_LINE {
                return Err(self.damaged("it has no end"));
            }
            if self.fill(upto)? || self.follow(upto)? {
                if self.buffer.len() < searched {
                    searched = 0;
                }
                continue;
            }
            // Half a line may become another one until it is whole.
            self.forget();
            return Ok(None);
        }
    }

    /// Reads on in the same file. False at its end.
    fn fill(&mut self, upto: u64) -> io::Result<bool> {
        let Some(file) = &self.file else {
            return Ok(false);
        };
        self.buffer.drain(..self.used);
        self.offset += self.used as u64;
        self.used = 0;
        let have = self.buffer.len();
        if have == 0 {
            self.until = upto;
        }
        self.until = self.until.min(upto);
        self.buffer.resize(have + BLOCK, 0);
        let read = loop {
            match file.read_at(&mut self.buffer[have..], self.offset + have as u64) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer
            .truncate(have + read.as_ref().copied().unwrap_or(0));
        Ok(read? > 0)
    }

    /// At the end of a file: goes on in the next segment, if there is one.
    fn follow(&mut self, upto: u64) -> Result<bool, ReadError> {
        if self.file.is_none() {
            self.enter()?;
            return Ok(self.file.is_some());
        }
        let all = segments(&self.dir)?;
        let mut later = all.iter().map(|segment| segment.first);
        let Some(later) = later.find(|first| *first > self.first) else {
            return Ok(false);
        };
        // The file was finished before the next one began; so now all of it can be seen.
        if self.fill(upto)? {
            return Ok(true);
        }
        let whole = self.buffer.is_empty();
        if whole && later <= self.next {
            self.enter()?;
            return Ok(true);
        }
        if later > self.next && all.first().is_some_and(|oldest| oldest.first == later) {
            return Err(ReadError::Removed { oldest: later });
        }
        Err(if whole {
            self.damaged(&format!("the log goes on with line {later}"))
        } else {
            self.damaged("a part of a line")
        })
    }

    /// Opens the segment that holds, or will hold, the next line.
    fn enter(&mut self) -> Result<(), ReadError> {
        let all = segments(&self.dir)?;
        let Some(oldest) = all.first() else {
            return Ok(());
        };
        let Some(segment) = all.iter().rev().find(|segment| segment.first <= self.next) else {
            return Err(ReadError::Removed {
                oldest: oldest.first,
            });
        };
        match File::open(&segment.path) {
            Ok(file) => {
                self.start(file, segment.first);
                Ok(())
            }
            // Removed since it was listed: what follows is the oldest now.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(ReadError::Removed {
                oldest: all
                    .iter()
                    .map(|later| later.first)
                    .find(|first| *first > segment.first)
                    .unwrap_or(self.next),
            }),
            Err(error) => Err(error.into()),
        }
    }

    fn start(&mut self, file: File, first: u64) {
        self.file = Some(file);
        self.first = first;
        self.seeking = self.next > first;
        self.rewind(0);
    }

    /// Reads again what is in the buffer.
    fn forget(&mut self) {
        self.rewind(self.offset + self.used as u64);
    }

    /// Reads on from this place in the file.
    fn rewind(&mut self, to: u64) {
        self.offset = to;
        self.buffer.clear();
        self.used = 0;
        self.until = 0;
    }

    fn damaged(&self, what: &str) -> ReadError {
        ReadError::Damaged {
            n: self.next,
            what: what.to_owned(),
        }
    }
}

/// An error counts once the lines before it have been given out.
fn after<T>(lines: &Lines, error: ReadError) -> Result<Option<T>, ReadError> {
    if lines.is_empty() {
        Err(error)
    } else {
        Ok(None)
    }
}

impl Lines {
    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All of them, each with its `\n`.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// One after the other.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Line<'_>> {
        (0..self.ends.len()).filter_map(|i| {
            let begin = i.checked_sub(1).map_or(0, |before| self.ends[before] + 1);
            Line::unchecked(&self.bytes[begin..self.ends[i]]).ok()
        })
    }

    /// The last one.
    #[must_use]
    pub fn last(&self) -> Option<Line<'_>> {
        self.iter().next_back()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.ends.clear();
    }

    fn push(&mut self, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        self.ends.push(self.bytes.len());
        self.bytes.push(b'\n');
    }
}

#[cfg(test)]
mod tests;
