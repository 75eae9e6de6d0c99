//! The flow log. Workers hand records over a bounded channel and never wait; one thread seals them
//! into the chain on disk. Loss is never silent: while the log cannot be written it says so, and
//! what is lost is counted, and stated in the log itself.
//!
//! Who owns what: a [`RecordSender`] is a worker's end, `writer` the thread, [`FlowLogHandle`] the
//! control plane's view. They share nothing but counters.

mod audited;
#[cfg(test)]
mod describe;
pub mod egress;
pub mod event;
mod history;
mod made;
mod outgoing;
pub mod privacy;
#[cfg(test)]
mod sample;
mod tally;
mod writer;

use crate::api::FlowLogStatus;
use crate::audit::Audit;
use crate::config::Config;
use crate::export::Exporters;
pub(crate) use audited::AuditEnd;
use made::Made;
pub use outgoing::Outgoing;
use postern_engine::record::Record;
use postern_io::clock::Clock;
use postern_spool::spool::SpoolError;
use postern_spool::storage::{Disk, Storage};
use privacy::PrivacyError;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tally::Shared;
pub use tally::Told;
use tokio::sync::broadcast;

/// Batches that may wait for the writer. With [`RECORD_BATCH`] records of under 1 KiB each: 16 MiB.
pub const RECORD_QUEUE: usize = 64;

/// Records that the worker puts into one batch, at most.
pub const RECORD_BATCH: usize = 256;

/// Lines that a slow `flows tail` may be behind before it misses some: about 1 MiB, shared.
pub const TAIL_BACKLOG: usize = 1024;

/// How long exporters may take to send what is left at the end. The next run sends the rest.
const EXPORT_PATIENCE: Duration = Duration::from_secs(2);

/// Why there is no flow log.
#[derive(Debug, thiserror::Error)]
pub enum FlowLogError {
    /// The folder cannot be used.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// Nothing can be written at all.
    #[error("{}: cannot be written: {error}; help: make room, or set flow_log.dir", folder.display())]
    Begin {
        /// The spool's folder.
        folder: PathBuf,
        /// The system's words.
        error: io::Error,
    },
    /// Names cannot be hidden.
    #[error(transparent)]
    Privacy(#[from] PrivacyError),
    /// A copy of the log cannot be begun.
    #[error("exporters: {0}")]
    Export(io::Error),
    /// The thread cannot be started.
    #[error("thread: {0}")]
    Thread(io::Error),
}

/// A worker's end.
#[derive(Debug)]
pub struct RecordSender {
    worker: u8,
    queue: SyncSender<Batch>,
    shared: Arc<Shared>,
    made: Made,
}

/// What goes over the channel.
#[derive(Debug)]
enum Batch {
    Records(Vec<Record>),
    Audit(Box<audited::Audited>),
}

/// The control plane's end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct FlowLogHandle {
    shared: Arc<Shared>,
    audit: Arc<AuditEnd>,
    tail: broadcast::Sender<Arc<str>>,
}

/// The running writer.
#[derive(Debug)]
pub struct FlowLog {
    handle: FlowLogHandle,
    queue: SyncSender<Batch>,
    made: Made,
    thread: JoinHandle<()>,
    exporters: Exporters,
}

impl FlowLog {
    /// Opens the log of run `boot`, repairs its end if it must, and starts the writer.
    ///
    /// # Errors
    /// The folder cannot be used or the thread cannot be started. Later failures are retried.
    pub fn start(config: &Config, boot: u64, workers: usize) -> Result<FlowLog, FlowLogError> {
        FlowLog::start_on(Disk::open(&config.flow_log.dir)?, config, boot, workers)
    }

    pub(crate) fn start_on<S: Storage<File: Send> + Send + 'static>(
        storage: S,
        config: &Config,
        boot: u64,
        workers: usize,
    ) -> Result<FlowLog, FlowLogError> {
        let (left, made) = Made::begin(&config.data_dir, boot);
        let (tail, _) = broadcast::channel(TAIL_BACKLOG);
        let (queue, batches) = sync_channel(RECORD_QUEUE);
        let shared = Arc::new(Shared::new(workers));
        let writer = writer::Writer::open(
            storage,
            config,
            boot,
            (left, made.clone()),
            shared.clone(),
            tail.clone(),
        )?;
        let exporters = Exporters::start(&config.flow_log, shared.synced.clone(), writer.before())
            .map_err(FlowLogError::Export)?;
        // It is set once, here.
        let _ = shared.exporters.set(exporters.handle());
        let thread = std::thread::Builder::new()
            .name("flow-log".into())
            .spawn(move || writer.run(&batches))
            .map_err(FlowLogError::Thread)?;
        let audit = AuditEnd::new(
            &config.name,
            boot,
            shared.clone(),
            made.clone(),
            queue.clone(),
        );
        let handle = FlowLogHandle {
            shared,
            audit: Arc::new(audit),
            tail,
        };
        Ok(FlowLog {
            handle,
            queue,
            made,
            thread,
            exporters,
        })
    }

    /// The end of one worker.
    #[must_use]
    pub fn sender(&self, worker: u8) -> RecordSender {
        RecordSender {
            worker,
            queue: self.queue.clone(),
            shared: self.handle.shared.clone(),
            made: self.made.clone(),
        }
    }

    /// For status, metrics and `flows tail`.
    #[must_use]
    pub fn handle(&self) -> FlowLogHandle {
        self.handle.clone()
    }

    /// Whether the writer is at work: without it nothing is recorded.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Writes what waits and ends the writer, after the workers have ended. What cannot be written
    /// within `patience` is counted as lost.
    #[must_use]
    pub fn finish(self, patience: Duration) -> FlowLogStatus {
        *lock(&self.handle.shared.stop_at) = Some(Instant::now() + patience);
        drop(self.queue);
        self.handle.audit.close();
        self.thread.thread().unpark();
        // A panicked writer has lost what it did not count as written; the status shows the lag.
        if self.thread.join().is_ok() && self.handle.shared.ended_in_order() {
            self.made.end();
        }
        // After the last line is on disk: it goes out too, unless a server is slow.
        self.exporters.finish(EXPORT_PATIENCE);
        self.handle.status()
    }
}

impl RecordSender {
    /// Hands records over without waiting.
    ///
    /// # Errors
    /// The queue is full: the records come back, to be offered again or counted by
    /// [`RecordSender::lose`].
    pub fn offer(&self, batch: Vec<Record>) -> Result<(), Vec<Record>> {
        if batch.is_empty() {
            return Ok(());
        }
        // Counted before the writer can see them, so that what waits is never negative.
        let (records, flows) = tally::of(&batch);
        self.shared.offered.add(records, flows);
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        self.queue.try_send(Batch::Records(batch)).map_err(|error| {
            self.shared.offered.take_back(records, flows);
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            let back = match error {
                TrySendError::Full(back) => back,
                TrySendError::Disconnected(back) => {
                    self.shared.break_down("the thread that writes has ended");
                    back
                }
            };
            match back {
                Batch::Records(batch) => batch,
                // It was records that were offered.
                Batch::Audit(_) => Vec::new(),
            }
        })
    }

    /// Counts records that the worker has to throw away, so that the log can state it.
    pub fn lose<'a>(&self, records: impl IntoIterator<Item = &'a Record>) {
        self.shared.lose(self.worker, records, Clock::now().wall);
    }

    /// What the worker has done so far: records made, attempts seen, and how many of these wait in
    /// denial windows and for the channel. A few plain stores, once a turn.
    pub fn tell(&self, told: Told) {
        if let Some(made) = self.shared.tell(self.worker, told) {
            self.made.set(self.worker, made);
        }
    }

    /// Whether records reach the log at this moment. One atomic load.
    #[must_use]
    pub fn writable(&self) -> bool {
        !self.shared.broken.load(Ordering::Acquire)
    }
}

impl FlowLogHandle {
    /// Counters and health.
    #[must_use]
    pub fn status(&self) -> FlowLogStatus {
        self.shared.status()
    }

    /// What writes audit lines into this log.
    #[must_use]
    pub fn audit(&self) -> Audit {
        Audit::new(self.audit.clone())
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

/// The values behind these locks are whole at every moment, so a panic elsewhere spoils nothing.
fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
pub(crate) mod tests;
