//! Goes through a folder of segments: those that can hold a match, block by block, on every core.

use super::fields::Fields;
use super::filter::Filter;
use super::needles::{Damaged, Matcher};
use super::prune::may_hold;
use crate::index::Index;
use crate::line::{Line, MAX_LINE};
use crate::segment::{SegmentFile, segments};
use memchr::{memchr, memrchr};
use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Read};
use std::ops::ControlFlow;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Bytes that one read asks for. Each thread has one block and room for one line: 1.1 MiB.
const BLOCK: usize = 1 << 20;

/// Threads of one scan, at most: more would wait for the disk.
const MAX_THREADS: usize = 16;

/// The segments of a folder, as they were when it was opened.
#[derive(Debug)]
pub struct Segments {
    /// By number, oldest first.
    parts: Vec<SegmentFile>,
    /// What an index rules out is not read.
    indexed: bool,
}

/// How a scan went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Lines that were looked at and could not be read.
    pub damaged: u64,
    /// Segments read.
    pub read: u64,
    /// Segments that their index ruled out.
    pub skipped: u64,
}

/// A line that was selected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its number.
    pub n: u64,
    /// Without its line end.
    pub line: Box<[u8]>,
}

/// A folder or a segment that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{}: {source}", path.display())]
pub struct Unreadable {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

impl Segments {
    /// Lists the segments of a folder that nobody but its gateway writes to.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn open(folder: &Path) -> Result<Segments, Unreadable> {
        Segments::list(folder, true)
    }

    /// Those of a copy, whose indexes nobody vouches for: a forged one would hide what a segment
    /// has, and no chain covers it. So every segment is read.
    ///
    /// # Errors
    /// The folder cannot be read.
    pub fn of_copy(folder: &Path) -> Result<Segments, Unreadable> {
        Segments::list(folder, false)
    }

    fn list(folder: &Path, indexed: bool) -> Result<Segments, Unreadable> {
        let parts = segments(folder).map_err(|source| Unreadable {
            path: folder.to_owned(),
            source,
        })?;
        Ok(Segments { parts, indexed })
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The bytes of those that can hold what `filter` selects: what going through them reads.
    #[must_use]
    pub fn bytes(&self, filter: &Filter) -> u64 {
        let useful = self.useful(filter, &mut Report::default());
        useful.iter().map(|part| part.len).sum()
    }

    /// The number of the oldest line; none if there are no segments.
    #[must_use]
    pub fn first_n(&self) -> Option<u64> {
        self.parts.first().map(|part| part.first)
    }

    /// The number of the last whole line; none if there is none.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn last_n(&self) -> Result<Option<u64>, Unreadable> {
        for part in self.parts.iter().rev() {
            let last = last_n_of(&part.path).map_err(|source| Unreadable {
                path: part.path.clone(),
                source,
            })?;
            if last.is_some() {
                return Ok(last);
            }
        }
        Ok(None)
    }

    /// The newest `limit` lines that `filter` selects, newest first. Stops as soon as it has them.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn newest(
        &self,
        filter: &Filter,
        limit: usize,
    ) -> Result<(Vec<Found>, Report), Unreadable> {
        let matcher = Matcher::new(filter);
        let mut found = Vec::new();
        let mut report = Report::default();
        let parts = self.useful(filter, &mut report);
        for group in parts.rchunks(threads()) {
            if found.len() >= limit {
                break;
            }
            let wanted = limit - found.len();
            let lists = in_threads(group.len(), |which| {
                newest_of(group[which], &matcher, wanted)
            })?;
            for (list, of) in lists.into_iter().rev() {
                report.add(of);
                found.extend(list.into_iter().rev());
            }
        }
        found.truncate(limit);
        Ok((found, report))
    }

    /// Calls `each` for the lines numbered `from` and later that `filter` selects, oldest first,
    /// until it breaks.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn each(
        &self,
        filter: &Filter,
        from: u64,
        mut each: impl FnMut(&[u8], &Fields<'_>) -> ControlFlow<()>,
    ) -> Result<Report, Unreadable> {
        let matcher = Matcher::new(filter);
        let start = self
            .parts
            .partition_point(|part| part.first <= from)
            .saturating_sub(1);
        let mut report = Report::default();
        let later = self.useful_of(&self.parts[start..], filter, &mut report);
        for part in later {
            let mut over = ControlFlow::Continue(());
            report.add(lines_of(part, &matcher, |line, fields| {
                if fields.n < from {
                    return ControlFlow::Continue(());
                }
                over = each(line, fields);
                over
            })?);
            if over.is_break() {
                break;
            }
        }
        Ok(report)
    }

    /// Adds up all lines that `filter` selects, in no order, on every core: one sum for each thread.
    ///
    /// # Errors
    /// A segment cannot be read.
    pub fn fold<S: Default + Send>(
        &self,
        filter: &Filter,
        step: impl Fn(&mut S, &Fields<'_>) + Sync,
    ) -> Result<(Vec<S>, Report), Unreadable> {
        let matcher = Matcher::new(filter);
        let mut report = Report::default();
        let parts = self.useful(filter, &mut report);
        let next = AtomicUsize::new(0);
        let sums = in_threads(threads().min(parts.len()), |_| {
            let mut sum = S::default();
            let mut report = Report::default();
            while let Some(part) = parts.get(next.fetch_add(1, Ordering::Relaxed)) {
                report.add(lines_of(part, &matcher, |_, fields| {
                    step(&mut sum, fields);
                    ControlFlow::Continue(())
                })?);
            }
            Ok((sum, report))
        })?;
        let sums = sums.into_iter().map(|(sum, of)| {
            report.add(of);
            sum
        });
        Ok((sums.collect(), report))
    }

    fn useful(&self, filter: &Filter, report: &mut Report) -> Vec<&SegmentFile> {
        self.useful_of(&self.parts, filter, report)
    }

    fn useful_of<'a>(
        &self,
        parts: &'a [SegmentFile],
        filter: &Filter,
        report: &mut Report,
    ) -> Vec<&'a SegmentFile> {
        let may = |part: &SegmentFile| {
            !self.indexed || Index::load(part).is_none_or(|index| may_hold(&index, filter))
        };
        let useful: Vec<&SegmentFile> = parts.iter().filter(|part| may(part)).collect();
        report.skipped += count(parts.len() - useful.len());
        useful
    }
}

impl Report {
    fn add(&mut self, other: Report) {
        self.damaged += other.damaged;
        self.read += other.read;
        self.skipped += other.skipped;
    }
}

/// Calls `each` for the selected lines, in their order, until it breaks. A last line without an
/// end is still being written, or was torn; it is not looked at.
fn lines_of(
    part: &SegmentFile,
    matcher: &Matcher,
    mut each: impl FnMut(&[u8], &Fields<'_>) -> ControlFlow<()>,
) -> Result<Report, Unreadable> {
    let mut report = Report::default();
    let done = read_blocks(&part.path, &mut report.damaged, |block, damaged| {
        matcher.candidates(block, |line| match matcher.look(line) {
            Ok(Some(fields)) => each(line, &fields),
            Ok(None) => ControlFlow::Continue(()),
            Err(Damaged) => {
                *damaged += 1;
                ControlFlow::Continue(())
            }
        })
    });
    match done {
        Ok(()) => report.read = 1,
        // Its age was over while we read.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(source) => {
            return Err(Unreadable {
                path: part.path.clone(),
                source,
            });
        }
    }
    Ok(report)
}

/// The last `limit` selected lines, oldest first.
fn newest_of(
    part: &SegmentFile,
    matcher: &Matcher,
    limit: usize,
) -> Result<(VecDeque<Found>, Report), Unreadable> {
    let mut found = VecDeque::new();
    let report = lines_of(part, matcher, |line, fields| {
        if found.len() == limit {
            found.pop_front();
        }
        found.push_back(Found {
            n: fields.n,
            line: line.into(),
        });
        ControlFlow::Continue(())
    })?;
    Ok((found, report))
}

/// The number of the last good line among the last few of a file.
fn last_n_of(path: &Path) -> io::Result<Option<u64>> {
    let file = File::open(path)?;
    let len = file.metadata()?.len();
    let mut buffer = vec![0; 2 * MAX_LINE];
    let start = len.saturating_sub(count(buffer.len()));
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], start + count(filled)) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let whole = memrchr(b'\n', &buffer[..filled]).unwrap_or(0);
    let mut lines = buffer[..whole].rsplit(|byte| *byte == b'\n');
    Ok(lines
        .find_map(|line| Line::parse(line).ok())
        .map(|line| line.n))
}

/// Reads a file in blocks of whole lines. What is longer than a line may be is counted as damaged.
fn read_blocks(
    path: &Path,
    damaged: &mut u64,
    mut each: impl FnMut(&[u8], &mut u64) -> ControlFlow<()>,
) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; BLOCK + MAX_LINE];
    let mut filled = 0;
    let mut lost = false;
    loop {
        let read = match file.read(&mut buffer[filled..]) {
            Ok(0) => return Ok(()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let new = filled;
        filled += read;
        let mut start = 0;
        if lost {
            let Some(end) = memchr(b'\n', &buffer[..filled]) else {
                filled = 0;
                continue;
            };
            lost = false;
            start = end + 1;
        }
        let end = match memrchr(b'\n', &buffer[new.max(start)..filled]) {
            Some(end) => new.max(start) + end + 1,
            None if start > 0 || filled < buffer.len() => start,
            None => {
                *damaged += 1;
                lost = true;
                filled = 0;
                continue;
            }
        };
        if each(&buffer[start..end], damaged).is_break() {
            return Ok(());
        }
        buffer.copy_within(end..filled, 0);
        filled -= end;
    }
}

fn in_threads<T: Send>(
    count: usize,
    work: impl Fn(usize) -> Result<T, Unreadable> + Sync,
) -> Result<Vec<T>, Unreadable> {
    if count <= 1 {
        return (0..count).map(work).collect();
    }
    let work = &work;
    thread::scope(|scope| {
        let threads: Vec<_> = (0..count)
            .map(|which| scope.spawn(move || work(which)))
            .collect();
        threads
            .into_iter()
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            })
            .collect()
    })
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get().min(MAX_THREADS))
}

fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}
