//! What goes when there is too much, or when it is too old.

use super::{Segment, Spool};
use crate::blocks::{Blocks, Piece};
use crate::index::time_of;
use crate::line::{Line, MAX_LINE};
use crate::segment::{index_name, name};
use crate::storage::{ReadAt, Storage};
use std::io;

/// A segment that is, or was, removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Removed {
    /// The first line that is gone.
    pub from_n: u64,
    /// The last line that is gone.
    pub to_n: u64,
    /// Which limit asked for it.
    pub why: Why,
    /// How many of its lines some exporter had not acknowledged.
    pub unacknowledged: u64,
}

/// Which limit asked for a segment to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// All segments together are too large.
    Size,
    /// It is too old.
    Age,
}

impl<S: Storage> Spool<S> {
    /// Removes the segment that is [`Spool::due`], if one is. At most one: call again until none is.
    ///
    /// # Errors
    /// It cannot be read or removed; it still counts.
    pub fn retain(
        &mut self,
        keep_size: u64,
        keep_age: u64,
        acknowledged: Option<u64>,
        now_ms: u64,
    ) -> io::Result<Option<Removed>> {
        let due = self.due(keep_size, keep_age, acknowledged, now_ms)?;
        if let Some(due) = &due {
            self.remove(due)?;
        }
        Ok(due)
    }

    /// The oldest segment, if the spool is larger than `keep_size` bytes, or if all of the segment is
    /// older than `keep_age` milliseconds and `acknowledged`. That is the last line that every
    /// exporter has delivered; none when there are no exporters. Never the segment that holds the
    /// last line.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn due(
        &self,
        keep_size: u64,
        keep_age: u64,
        acknowledged: Option<u64>,
        now_ms: u64,
    ) -> io::Result<Option<Removed>> {
        let (Some(&oldest), Some(next)) = (self.segments.front(), self.segments.get(1)) else {
            return Ok(None);
        };
        let to_n = next.first - 1;
        if to_n >= self.head.n {
            return Ok(None);
        }
        let delivered = acknowledged.is_none_or(|n| n >= to_n);
        let why = if self.size().bytes > keep_size {
            Why::Size
        } else if delivered
            && self
                .newest_of(oldest, *next)?
                .is_some_and(|ms| older(ms, keep_age, now_ms))
        {
            Why::Age
        } else {
            return Ok(None);
        };
        let from_n = oldest.first;
        Ok(Some(Removed {
            from_n,
            to_n,
            why,
            unacknowledged: acknowledged.map_or(0, |n| to_n.saturating_sub(n.max(from_n - 1))),
        }))
    }

    /// Removes the segment that [`Spool::due`] named; nothing if it is not the oldest any more.
    ///
    /// # Errors
    /// It cannot be removed; it still counts.
    pub fn remove(&mut self, due: &Removed) -> io::Result<()> {
        if self.segments.len() < 2
            || self.segments.front().map(|oldest| oldest.first) != Some(due.from_n)
        {
            return Ok(());
        }
        self.storage.remove(&index_name(due.from_n))?;
        self.storage.remove(&name(due.from_n))?;
        self.storage.sync_folder()?;
        self.segments.pop_front();
        self.oldest_ms = self.time_of_oldest();
        Ok(())
    }

    /// The `time` of the oldest line.
    pub(super) fn time_of_oldest(&self) -> Option<u64> {
        let oldest = self.segments.front().filter(|oldest| oldest.len > 0)?;
        let file = self.storage.open(&name(oldest.first)).ok()?;
        match Blocks::new(&file).next() {
            Ok(Some(Piece::Line(line))) => time_of(line),
            _ => None,
        }
    }

    /// The time of the last line of `segment`; if it has none, that of the segment after it.
    fn newest_of(&self, segment: Segment, next: Segment) -> io::Result<Option<u64>> {
        match self.newest_ms(segment)? {
            None => self.newest_ms(next),
            some => Ok(some),
        }
    }

    /// The time of a segment's last line.
    fn newest_ms(&self, segment: Segment) -> io::Result<Option<u64>> {
        let file = match self.storage.open(&name(segment.first)) {
            Ok(file) => file,
            // It was removed, and the folder could not be synced.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(0)),
            Err(error) => return Err(error),
        };
        let mut end = vec![0; MAX_LINE];
        let from = segment.len.saturating_sub(MAX_LINE as u64);
        let mut have = 0;
        while have < end.len() {
            match file.read_at(&mut end[have..], from + have as u64)? {
                0 => break,
                some => have += some,
            }
        }
        end.truncate(have);
        Ok(end
            .rsplit(|byte| *byte == b'\n')
            .find_map(|bytes| Line::parse(bytes).ok().and_then(|line| time_of(line.bytes))))
    }
}

fn older(ms: u64, keep_age: u64, now_ms: u64) -> bool {
    now_ms.saturating_sub(ms) > keep_age
}
