//! A file that no longer grows, cut into lines, in large reads and bounded memory.

use crate::line::MAX_LINE;
use crate::storage::ReadAt;
use std::io;

/// Bytes of one read. With the rest of a line before it, a buffer holds at most `BLOCK + MAX_LINE`.
pub(crate) const BLOCK: usize = 256 * 1024;

/// Reads a file from one end to the other.
pub(crate) struct Blocks<'f, F: ?Sized> {
    file: &'f F,
    /// Where in the file the next read begins.
    offset: u64,
    buffer: Vec<u8>,
    begin: usize,
    end: usize,
    over: bool,
}

/// What lies between two `\n`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    /// A line without its `\n`.
    Line(&'a [u8]),
    /// A line that is longer than [`MAX_LINE`].
    Long,
    /// What comes after the last `\n`. Nothing follows.
    Rest(&'a [u8]),
}

impl<'f, F: ReadAt + ?Sized> Blocks<'f, F> {
    pub(crate) fn new(file: &'f F) -> Self {
        Blocks {
            file,
            offset: 0,
            buffer: vec![0; BLOCK + MAX_LINE],
            begin: 0,
            end: 0,
            over: false,
        }
    }

    /// Where in the file the next piece begins.
    pub(crate) fn position(&self) -> u64 {
        self.offset - (self.end - self.begin) as u64
    }

    /// The next piece; none at the end.
    pub(crate) fn next(&mut self) -> io::Result<Option<Piece<'_>>> {
        let mut searched = 0;
        let mut long = false;
        loop {
            let unread = &self.buffer[self.begin + searched..self.end];
            if let Some(at) = memchr::memchr(b'\n', unread) {
                let begin = self.begin;
                let end = begin + searched + at;
                self.begin = end + 1;
                let bytes = &self.buffer[begin..end];
                return Ok(Some(if long || bytes.len() >= MAX_LINE {
                    Piece::Long
                } else {
                    Piece::Line(bytes)
                }));
            }
            searched = self.end - self.begin;
            if searched >= MAX_LINE {
                long = true;
                self.begin = self.end;
                searched = 0;
            }
            if self.over {
                let rest = &self.buffer[self.begin..self.end];
                self.begin = self.end;
                return Ok(match (long, rest) {
                    (true, _) => Some(Piece::Long),
                    (false, []) => None,
                    (false, rest) => Some(Piece::Rest(rest)),
                });
            }
            self.fill()?;
        }
    }

    fn fill(&mut self) -> io::Result<()> {
        self.buffer.copy_within(self.begin..self.end, 0);
        self.end -= self.begin;
        self.begin = 0;
        match self.file.read_at(&mut self.buffer[self.end..], self.offset) {
            Ok(0) => self.over = true,
            Ok(some) => {
                self.end += some;
                self.offset += some as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}
