//! Writes records: one thread, fed by a bounded channel, off the packet path. Loss is never
//! silent: while the log cannot be written it says so, and what is lost is counted.

pub mod event;
mod file;
pub mod privacy;

use crate::api::FlowLogStatus;
use crate::config::{FileConfig, FlowLogConfig};
use file::RotatingFile;
use serde::Serialize;
use std::io::{self, Write};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::broadcast;

/// Batches that may wait for the writer. With [`RECORD_BATCH`] records of under 1 KiB each: 16 MiB.
pub const RECORD_QUEUE: usize = 64;

/// Records that the worker puts into one batch, at most.
pub const RECORD_BATCH: usize = 256;

/// Lines that a slow `flows tail` may be behind before it misses some: about 1 MiB, shared.
pub const TAIL_BACKLOG: usize = 1024;

/// What was written is forced to disk no later than this.
const SYNC_EVERY: Duration = Duration::from_secs(1);
const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

/// A worker's end. Cheap to clone: one for each worker.
#[derive(Debug)]
pub struct RecordSender<R> {
    queue: SyncSender<Vec<R>>,
    shared: Arc<Shared>,
}

/// The control plane's end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FlowLogHandle {
    shared: Arc<Shared>,
    tail: broadcast::Sender<Arc<str>>,
}

/// The running writer.
#[derive(Debug)]
pub struct FlowLog {
    handle: FlowLogHandle,
    thread: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Shared {
    offered: AtomicU64,
    written: AtomicU64,
    lost: AtomicU64,
    queued: AtomicU64,
    broken: AtomicBool,
    failing: Mutex<Option<String>>,
    stop_at: Mutex<Option<Instant>>,
}

impl FlowLog {
    /// Opens the log and starts the writer.
    ///
    /// # Errors
    /// The file cannot be opened or the thread cannot be started. Later failures are retried.
    pub fn start<R: Serialize + Send + 'static>(
        config: &FlowLogConfig,
    ) -> io::Result<(RecordSender<R>, FlowLog)> {
        let mut sinks = Vec::new();
        let file = config.file.clone();
        let file = file.unwrap_or_else(|| FileConfig::at(config.dir.with_file_name("flows.jsonl")));
        let mut file = RotatingFile::new(&file);
        file.open()?;
        sinks.push(Sink::File(Box::new(file)));
        if config.stdout {
            sinks.push(Sink::Stdout);
        }
        let (queue, batches) = sync_channel(RECORD_QUEUE);
        let shared = Arc::new(Shared::default());
        let (tail, _) = broadcast::channel(TAIL_BACKLOG);
        let handle = FlowLogHandle {
            shared: shared.clone(),
            tail: tail.clone(),
        };
        let writer = Writer {
            sinks,
            shared: shared.clone(),
            tail,
            unsynced: false,
            synced: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("flow-log".into())
            .spawn(move || writer.run(&batches))?;
        Ok((RecordSender { queue, shared }, FlowLog { handle, thread }))
    }

    /// For status and `flows tail`.
    #[must_use]
    pub fn handle(&self) -> FlowLogHandle {
        self.handle.clone()
    }

    /// Writes what waits and ends the writer, after the worker has ended. What cannot be written
    /// within `patience` is counted as lost.
    #[must_use]
    pub fn finish(self, patience: Duration) -> FlowLogStatus {
        *lock(&self.handle.shared.stop_at) = Some(Instant::now() + patience);
        self.thread.thread().unpark();
        // A panicked writer has lost what it did not count as written; the status shows the lag.
        let _ = self.thread.join();
        self.handle.status()
    }
}

impl<R> Clone for RecordSender<R> {
    fn clone(&self) -> Self {
        RecordSender {
            queue: self.queue.clone(),
            shared: Arc::clone(&self.shared),
        }
    }
}

impl<R> RecordSender<R> {
    /// Hands records over without waiting.
    ///
    /// # Errors
    /// The queue is full: the records come back, to be offered again or counted by
    /// [`RecordSender::lose`].
    pub fn offer(&self, batch: Vec<R>) -> Result<(), Vec<R>> {
        if batch.is_empty() {
            return Ok(());
        }
        let records = count(batch.len());
        // Counted before the writer can see them, so that the lag is never negative.
        self.shared.offered.fetch_add(records, Ordering::Relaxed);
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        self.queue.try_send(batch).map_err(|error| {
            self.shared.offered.fetch_sub(records, Ordering::Relaxed);
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            match error {
                TrySendError::Full(batch) | TrySendError::Disconnected(batch) => batch,
            }
        })
    }

    /// Counts records that the worker had to throw away.
    pub fn lose(&self, records: u64) {
        self.shared.offered.fetch_add(records, Ordering::Relaxed);
        self.shared.lost.fetch_add(records, Ordering::Relaxed);
    }

    /// Whether records reach the log at this moment. One atomic load.
    #[must_use]
    pub fn writable(&self) -> bool {
        !self.shared.broken.load(Ordering::Acquire)
    }

    /// Batches that wait for the writer, of [`RECORD_QUEUE`].
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.shared.queued.load(Ordering::Relaxed)
    }
}

impl FlowLogHandle {
    /// Counters and health.
    #[must_use]
    pub fn status(&self) -> FlowLogStatus {
        let shared = &self.shared;
        // In this order, so that a record in between shows as lag, never as a negative one.
        let written = shared.written.load(Ordering::Relaxed);
        let lost = shared.lost.load(Ordering::Relaxed);
        let offered = shared.offered.load(Ordering::Relaxed);
        FlowLogStatus {
            offered,
            written,
            lost,
            lag: offered.saturating_sub(written).saturating_sub(lost),
            failing: lock(&shared.failing).clone(),
        }
    }

    /// Batches that wait for the writer, of [`RECORD_QUEUE`].
    #[must_use]
    pub fn queued(&self) -> u64 {
        self.shared.queued.load(Ordering::Relaxed)
    }

    /// Every line from now on. A receiver that is more than [`TAIL_BACKLOG`] lines behind is told
    /// how many it missed.
    #[must_use]
    pub fn subscribe(&self) -> broadcast::Receiver<Arc<str>> {
        self.tail.subscribe()
    }
}

struct Writer {
    sinks: Vec<Sink>,
    shared: Arc<Shared>,
    tail: broadcast::Sender<Arc<str>>,
    unsynced: bool,
    synced: Instant,
}

enum Sink {
    File(Box<RotatingFile>),
    Stdout,
}

/// Whole lines of one batch.
#[derive(Default)]
struct Lines {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Writer {
    fn run<R: Serialize>(mut self, batches: &Receiver<Vec<R>>) {
        let mut lines = Lines::default();
        loop {
            match batches.recv_timeout(SYNC_EVERY) {
                Ok(batch) => {
                    self.shared.queued.fetch_sub(1, Ordering::Relaxed);
                    self.encode(&batch, &mut lines);
                    drop(batch);
                    self.write(&lines);
                }
                Err(RecvTimeoutError::Timeout) if self.stopping().is_none() => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
            if self.unsynced && self.synced.elapsed() >= SYNC_EVERY {
                self.sync();
            }
        }
        self.sync();
    }

    fn encode<R: Serialize>(&self, batch: &[R], lines: &mut Lines) {
        lines.bytes.clear();
        lines.ends.clear();
        for record in batch {
            let start = lines.bytes.len();
            if let Err(error) = serde_json::to_writer(&mut lines.bytes, record) {
                lines.bytes.truncate(start);
                self.shared.lost.fetch_add(1, Ordering::Relaxed);
                tracing::error!(%error, "a record cannot be encoded and is lost");
                continue;
            }
            lines.bytes.push(b'\n');
            lines.ends.push(lines.bytes.len());
        }
    }

    /// Writes every line to every sink, however long it takes, unless the gateway stops.
    fn write(&mut self, lines: &Lines) {
        let mut done = vec![0; self.sinks.len()];
        let mut pause = FIRST_RETRY;
        let mut tried = false;
        loop {
            let result = self
                .sinks
                .iter_mut()
                .zip(&mut done)
                .try_for_each(|(sink, done)| sink.write(lines, done, tried));
            let Err(error) = result else { break };
            tried = true;
            self.fail(&error);
            if self
                .stopping()
                .is_some_and(|deadline| Instant::now() >= deadline)
            {
                break;
            }
            let left = self
                .stopping()
                .map(|at| at.saturating_duration_since(Instant::now()));
            std::thread::park_timeout(left.map_or(pause, |left| pause.min(left)));
            pause = (pause * 2).min(LAST_RETRY);
        }
        let safe = done.iter().copied().min().unwrap_or(0);
        let written = lines.ends.partition_point(|end| *end <= safe);
        if written == lines.ends.len() {
            self.recover();
        }
        self.unsynced = true;
        self.shared
            .written
            .fetch_add(count(written), Ordering::Relaxed);
        self.shared
            .lost
            .fetch_add(count(lines.ends.len() - written), Ordering::Relaxed);
        if self.tail.receiver_count() > 0 {
            self.show(lines);
        }
    }

    fn show(&self, lines: &Lines) {
        let mut start = 0;
        for end in &lines.ends {
            let line = String::from_utf8_lossy(&lines.bytes[start..*end]);
            // An error only says that the last listener has left.
            let _ = self.tail.send(Arc::from(line.trim_end()));
            start = *end;
        }
    }

    fn sync(&mut self) {
        self.unsynced = false;
        self.synced = Instant::now();
        for sink in &mut self.sinks {
            if let Sink::File(file) = sink
                && let Err(error) = file.sync()
            {
                tracing::warn!(%error, "the flow log cannot be forced to disk");
            }
        }
    }

    fn fail(&self, error: &io::Error) {
        *lock(&self.shared.failing) = Some(error.to_string());
        if !self.shared.broken.swap(true, Ordering::Release) {
            tracing::warn!(%error, "records cannot be written; will be retried");
        }
    }

    fn recover(&self) {
        if self.shared.broken.load(Ordering::Relaxed) {
            *lock(&self.shared.failing) = None;
            self.shared.broken.store(false, Ordering::Release);
            tracing::info!("records are written again");
        }
    }

    fn stopping(&self) -> Option<Instant> {
        *lock(&self.shared.stop_at)
    }
}

impl Sink {
    /// Writes `lines` from `done` on and moves `done`. `retry`: the last attempt failed.
    fn write(&mut self, lines: &Lines, done: &mut usize, retry: bool) -> io::Result<()> {
        match self {
            Sink::File(file) => file.write(&lines.bytes, done, retry),
            Sink::Stdout => {
                let mut out = io::stdout().lock();
                while *done < lines.bytes.len() {
                    *done += out.write(&lines.bytes[*done..])?;
                }
                out.flush()
            }
        }
    }
}

fn count(records: usize) -> u64 {
    u64::try_from(records).unwrap_or(u64::MAX)
}

/// The values behind these locks are whole at every moment, so a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod sample;
#[cfg(test)]
mod tests;
