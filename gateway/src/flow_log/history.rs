//! What a run that ended without a word left behind: flows without a closing record, and records
//! that were made and never written. Found by reading the log backwards, segment by segment, in a
//! thread of its own, so that a start waits for nothing; said by the writer.

use super::event::{AuditCounts, CrashedRun, WorkerCounts};
use super::made::Left;
use postern_proto::now::Wall;
use postern_spool::reader::{Lines, ReadError, Reader};
use postern_spool::segment::{SegmentFile, segments};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Closing records handed over at once, under 1 KiB each.
const CHUNK: usize = 256;

/// Chunks that may wait for the writer: under 2 MiB.
const CHUNKS: usize = 8;

/// What one read takes in.
const READ: usize = 256 << 10;

/// What the writer is to say.
#[derive(Debug)]
pub(super) enum Found {
    /// Closing records, each a JSON object.
    Closings(Vec<Vec<u8>>),
    /// All of one run is known, and its closings have been handed over.
    Run(CrashedRun),
    /// It cannot be read; said once.
    Unreadable(String),
}

/// What is known of the log's end before the new run writes to it.
#[derive(Clone, Debug)]
pub(super) struct Past {
    pub(super) folder: PathBuf,
    /// Its last line.
    pub(super) head: u64,
    /// The run that ended without a word.
    pub(super) boot: String,
    /// What runs left in shared memory.
    pub(super) left: Vec<Left>,
    /// For the closing records: the run that writes them, and when it began.
    pub(super) by: Arc<str>,
    pub(super) now: Wall,
}

/// The fields of a line that tell the story.
#[derive(Debug, Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow)]
    pub(super) kind: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) boot: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) time: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) event: Option<Cow<'a, str>>,
    /// In a closing record for a run that crashed: the run that wrote it.
    #[serde(borrow)]
    pub(super) closed_by: Option<Cow<'a, str>>,
    #[serde(borrow)]
    state: Option<Cow<'a, str>>,
    worker: Option<u8>,
    seq: Option<u64>,
    audit: Option<u64>,
    flow: Option<u64>,
    #[serde(borrow)]
    previous: Option<Cow<'a, str>>,
    #[serde(borrow)]
    previous_boot: Option<Cow<'a, str>>,
    #[serde(borrow)]
    crashed_boot: Option<Cow<'a, str>>,
}

/// Reads in a thread of its own. The channel ends when everything has been said.
///
/// # Errors
/// No thread can be had.
pub(super) fn read(past: Past) -> std::io::Result<Receiver<Found>> {
    let (to, found) = sync_channel(CHUNKS);
    std::thread::Builder::new()
        .name("flow-log-past".into())
        .spawn(move || {
            if let Err(error) = tell(past, &to) {
                // Nobody listens any more when the gateway ends.
                let _ = to.send(Found::Unreadable(error.to_string()));
            }
        })?;
    Ok(found)
}

/// One run after the other, while the one before it was not explained either.
fn tell(mut past: Past, to: &SyncSender<Found>) -> Result<(), ReadError> {
    loop {
        let run = Run::read(&past)?;
        if !run.close(&past, to)? {
            return Ok(());
        }
        let crashed = Found::Run(run.crashed(&past));
        if to.send(crashed).is_err() {
            return Ok(());
        }
        match run.unexplained {
            Some(boot) => past = Past { boot, ..past },
            None => return Ok(()),
        }
    }
}

/// What the log says of one run.
#[derive(Debug, Default)]
struct Run {
    /// Open and never closed: flow to line.
    open: BTreeMap<u64, u64>,
    /// Closed in a later segment than the one being read.
    closed: BTreeSet<u64>,
    /// By worker: records in the log.
    workers: BTreeMap<u8, Written>,
    /// Audit events in the log.
    audit: Written,
    /// When it said something last.
    last_time: String,
    /// Runs that it explained.
    explained: BTreeSet<String>,
    /// The run before it, if that crashed and it did not come to explain it.
    unexplained: Option<String>,
    /// Its first line is there. Else retention has removed its oldest records.
    begun: bool,
}

/// What the log holds of one worker, or of the audit events.
#[derive(Clone, Copy, Debug, Default)]
struct Written {
    records: u64,
    /// Lowest and highest `seq` or `audit`.
    first: u64,
    last: u64,
}

impl Written {
    fn see(&mut self, number: u64) {
        self.first = if self.records == 0 {
            number
        } else {
            self.first.min(number)
        };
        self.last = self.last.max(number);
        self.records += 1;
    }
}

impl Run {
    fn read(past: &Past) -> Result<Run, ReadError> {
        let mut run = Run::default();
        let all = segments(&past.folder).map_err(ReadError::Io)?;
        for segment in all
            .iter()
            .rev()
            .filter(|segment| segment.first <= past.head)
        {
            match run.read_segment(segment, past) {
                // Retention was faster: what is older is gone as well.
                Err(ReadError::Removed { .. }) => break,
                read => read?,
            }
            if run.begun {
                break;
            }
        }
        Ok(run)
    }

    fn read_segment(&mut self, segment: &SegmentFile, past: &Past) -> Result<(), ReadError> {
        let mut open = BTreeMap::new();
        let mut last_time = None;
        let next = segments(&past.folder)
            .map_err(ReadError::Io)?
            .iter()
            .map(|other| other.first)
            .find(|first| *first > segment.first);
        let upto = next.map_or(past.head, |next| past.head.min(next - 1));
        each_line(&past.folder, segment.first, upto, |n, line| {
            let Ok(head) = serde_json::from_slice::<Head<'_>>(line) else {
                return true;
            };
            if head.boot != past.boot {
                return true;
            }
            // A closing record that a later run wrote for this one is none of its own words.
            if head.closed_by.is_none() {
                last_time = Some(head.time.to_string());
            }
            self.note(n, &head, &mut open);
            true
        })?;
        for (flow, n) in open {
            if !self.closed.remove(&flow) {
                self.open.insert(flow, n);
            }
        }
        if self.last_time.is_empty() {
            self.last_time = last_time.unwrap_or_default();
        }
        Ok(())
    }

    fn note(&mut self, n: u64, head: &Head<'_>, open: &mut BTreeMap<u64, u64>) {
        if let (Some(worker), Some(seq)) = (head.worker, head.seq) {
            self.workers.entry(worker).or_default().see(seq);
        }
        if let ("audit", Some(number)) = (head.kind.as_ref(), head.audit) {
            self.audit.see(number);
        }
        match (head.state.as_deref(), head.flow) {
            (Some("open"), Some(flow)) => {
                open.insert(flow, n);
            }
            (Some("closed"), Some(flow)) if open.remove(&flow).is_none() => {
                self.closed.insert(flow);
            }
            _ => {}
        }
        match head.event.as_deref() {
            Some("started") => {
                self.begun = true;
                if head.previous.as_deref() == Some("crashed") {
                    self.unexplained = head.previous_boot.as_deref().map(str::to_owned);
                }
            }
            Some("crashed-run") => {
                self.explained
                    .extend(head.crashed_boot.as_deref().map(str::to_owned));
            }
            _ => {}
        }
        if self
            .unexplained
            .as_ref()
            .is_some_and(|boot| self.explained.contains(boot))
        {
            self.unexplained = None;
        }
    }

    /// Hands over a closing record for each flow. False: nobody takes them any more.
    fn close(&self, past: &Past, to: &SyncSender<Found>) -> Result<bool, ReadError> {
        let lines: BTreeSet<u64> = self.open.values().copied().collect();
        let (Some(first), Some(last)) = (lines.first(), lines.last()) else {
            return Ok(true);
        };
        let mut chunk = Vec::with_capacity(CHUNK);
        let mut heard = true;
        each_line(&past.folder, *first, *last, |n, line| {
            if lines.contains(&n) {
                chunk.extend(closing(line, &self.last_time, &past.by, past.now));
            }
            if chunk.len() >= CHUNK {
                heard = to.send(Found::Closings(std::mem::take(&mut chunk))).is_ok();
            }
            heard
        })?;
        Ok(heard && (chunk.is_empty() || to.send(Found::Closings(chunk)).is_ok()))
    }

    fn crashed(&self, past: &Past) -> CrashedRun {
        let left = past
            .left
            .iter()
            .find(|left| left.boot.to_string() == past.boot);
        let made = |worker: u8| left.and_then(|left| left.made.get(usize::from(worker)).copied());
        let known = (0..u8::MAX).take_while(|worker| made(*worker).is_some());
        let names: BTreeSet<u8> = known
            .filter(|worker| made(*worker) > Some(0))
            .chain(self.workers.keys().copied())
            .collect();
        let workers = names.into_iter().map(|worker| {
            let seen = self.workers.get(&worker).copied();
            let own = seen.unwrap_or_default();
            let made = made(worker);
            WorkerCounts {
                worker,
                made,
                written: own.records,
                lost: self.lost(made, &own),
            }
        });
        let audit = left.map(|left| left.audit);
        CrashedRun {
            crashed_boot: Arc::from(past.boot.as_str()),
            workers: workers.collect(),
            flows_closed: self.open.len() as u64,
            audit: AuditCounts {
                made: audit,
                written: self.audit.records,
                lost: self.lost(audit, &self.audit),
            },
        }
    }

    /// How many of those that were made are not in the log.
    fn lost(&self, made: Option<u64>, written: &Written) -> u64 {
        let all = made.unwrap_or(written.last);
        // What retention has removed was written, and is not lost.
        let removed = match (self.begun, written.records) {
            (true, _) => 0,
            (false, 0) => all,
            (false, _) => written.first.saturating_sub(1),
        };
        all.saturating_sub(removed).saturating_sub(written.records)
    }
}

/// Calls `see` with each line from `first` to `last` until it returns false. Damaged lines are passed
/// over: they are no reason to say nothing of the others.
fn each_line(
    folder: &Path,
    first: u64,
    last: u64,
    mut see: impl FnMut(u64, &[u8]) -> bool,
) -> Result<(), ReadError> {
    let mut reader = Reader::open(folder, first)?;
    let mut lines = Lines::default();
    loop {
        match reader.read(last, usize::MAX, READ, &mut lines) {
            Err(ReadError::Damaged { .. }) => match reader.skip()? {
                Some(next) if next <= last => continue,
                Some(_) | None => return Ok(()),
            },
            read => read?,
        }
        let mut any = false;
        for line in lines.iter() {
            any = true;
            if !see(line.n, line.bytes) {
                return Ok(());
            }
        }
        if !any {
            return Ok(());
        }
    }
}

/// The closing record of a flow whose end nobody saw: its opening record, with what is known.
pub(super) fn closing(open: &[u8], last_time: &str, by: &str, now: Wall) -> Option<Vec<u8>> {
    let mut record: Map<String, Value> = serde_json::from_slice(open).ok()?;
    // These belong to the line; and the number, to a worker that is gone.
    for field in ["n", "prev", "crc", "seq"] {
        record.remove(field);
    }
    record.insert("time".into(), now.rfc3339().into());
    record.insert("state".into(), "closed".into());
    record.insert("end".into(), last_time.into());
    record.insert("close_reason".into(), "crashed".into());
    record.insert("closed_by".into(), by.into());
    serde_json::to_vec(&record).ok()
}

#[cfg(test)]
mod tests;
