//! The thread that writes. One turn, in this order:
//!
//! 1. a group of records from the channel, as many as wait, up to [`GROUP`];
//! 2. what the log has to say of itself: losses, a stepped clock, the past of a crashed run;
//! 3. both sealed into the chain and written in one piece, again and again until it succeeds;
//! 4. forced to disk when it is time; only then exporters see it;
//! 5. segments that are too old or too many removed.

mod words;

use super::audited::Audited;
use super::egress::Egresses;
use super::event::{Damaged, Event, LogEvent, Previous, Repaired, Started, Unwritable};
use super::history::{self, Found, Past};
use super::made::{Left, Made};
use super::privacy::Redactor;
use super::tally::Shared;
use super::{Batch, FlowLogError, lock};
use crate::config::{Config, FlowLogConfig, Sync};
use postern_engine::record::Record;
use postern_io::clock::Clock;
use postern_proto::now::{Now, Wall};
use postern_spool::spool::{MAX_STAGED, Settings, Spool};
use postern_spool::storage::Storage;
use serde::Serialize;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tokio::sync::{broadcast, oneshot};
use words::how_it_ended;

/// Records written together, at most: at under 1 KiB each, 4 MiB.
const GROUP: usize = 4096;

/// How often retention, losses and the clock are looked at when nothing happens.
const IDLE: Duration = Duration::from_secs(1);

/// How often it is looked whether there is more to say of a run that crashed.
const PAST_EVERY: Duration = Duration::from_millis(20);

/// How often it is looked for segments to remove.
const RETAIN_EVERY: Duration = Duration::from_secs(30);

/// A wall clock that runs away from the steady one by more than this was set, not slewed.
const STEP: Duration = Duration::from_secs(2);

const FIRST_RETRY: Duration = Duration::from_millis(100);
const LAST_RETRY: Duration = Duration::from_secs(5);

pub(super) struct Writer<S: Storage> {
    spool: Spool<S>,
    config: FlowLogConfig,
    gateway: Arc<str>,
    boot: Arc<str>,
    shared: Arc<Shared>,
    tail: broadcast::Sender<Arc<str>>,
    egresses: Egresses,
    redactor: Redactor,
    /// What is being found out of runs that ended without a word.
    past: Option<Receiver<Found>>,
    /// Counts of those runs, to be forgotten when all is told.
    left: Vec<u64>,
    made: Made,
    /// The group that is staged.
    records: Vec<Record>,
    events: Vec<Staged>,
    /// Told at the next sync.
    awaited: Vec<oneshot::Sender<()>>,
    body: Vec<u8>,
    /// When the oldest byte that is not on disk for sure was written.
    unsynced: Option<Instant>,
    /// The disk did not take what was written.
    sync_failed: bool,
    /// Since when it cannot be written, and why.
    unwritable: Option<(Wall, String)>,
    clock: Now,
    retained: Instant,
    /// Builds indexes of finished segments.
    indexer: Option<JoinHandle<()>>,
    /// Number of segments and oldest line when it began.
    indexed: Option<(usize, u64)>,
    /// The last line of earlier runs.
    before: u64,
}

/// An audit event that is staged.
struct Staged {
    number: u64,
    synced: oneshot::Sender<()>,
}

impl<S: Storage> Writer<S> {
    /// Opens the spool, repairs its end, and says how the last run ended.
    pub(super) fn open(
        storage: S,
        config: &Config,
        boot: u64,
        (left, made): (Vec<Left>, Made),
        shared: Arc<Shared>,
        tail: broadcast::Sender<Arc<str>>,
    ) -> Result<Writer<S>, FlowLogError> {
        let log = config.flow_log.clone();
        let settings = Settings {
            segment_size: log.segment_size,
        };
        let redactor = Redactor::open(log.privacy, &config.data_dir)?;
        let (spool, recovered) = Spool::open(storage, settings)?;
        shared.synced.publish(spool.synced());
        let now = Clock::now();
        let mut writer = Writer {
            gateway: Arc::from(config.name.as_str()),
            boot: Arc::from(boot.to_string()),
            egresses: Egresses::open(config.egress, config.limits.flows as usize),
            redactor,
            past: None,
            left: left.iter().map(|left| left.boot).collect(),
            made,
            records: Vec::new(),
            events: Vec::new(),
            awaited: Vec::new(),
            body: Vec::new(),
            unsynced: None,
            sync_failed: false,
            unwritable: None,
            clock: now,
            retained: Instant::now(),
            indexer: None,
            indexed: None,
            before: recovered.next_n - 1,
            config: log,
            spool,
            shared,
            tail,
        };
        let last = recovered.last.as_deref();
        let (previous, previous_boot) = how_it_ended(last);
        writer.say(
            now.wall,
            Event::Started(Started {
                version: env!("CARGO_PKG_VERSION").into(),
                previous,
                previous_boot: previous_boot.as_deref().map(Arc::from),
                workers: u8::try_from(writer.shared.by_worker().len()).unwrap_or(u8::MAX),
            }),
        );
        let stated = recovered.cut.is_some() || recovered.damaged.is_some();
        if let Some(cut) = recovered.cut {
            tracing::warn!(
                bytes = cut.bytes,
                segment = cut.segment,
                "the end of the flow log was torn and was cut off"
            );
            let cut_bytes = cut.bytes;
            writer
                .shared
                .repaired_bytes
                .store(cut_bytes, Ordering::Relaxed);
            let segment = cut.segment;
            writer.say(now.wall, Event::Repaired(Repaired { segment, cut_bytes }));
        }
        if let Some(damage) = recovered.damaged {
            tracing::error!(
                segment = damage.segment,
                offset = damage.offset,
                "the flow log is damaged: see `postern-gateway flows verify`"
            );
            writer.say(
                now.wall,
                Event::Damaged(Damaged {
                    segment: damage.segment,
                    offset: damage.offset,
                    bytes: damage.bytes,
                }),
            );
        }
        if let (Previous::Crashed, Some(boot)) = (previous, previous_boot) {
            let past = Past {
                folder: writer.config.dir.clone(),
                head: recovered.next_n - 1,
                boot,
                left,
                by: writer.boot.clone(),
                now: now.wall,
            };
            writer.past = Some(history::read(past).map_err(FlowLogError::Thread)?);
        }
        // A log that cannot even be begun is found at the start, not by the first flow. The room that
        // is missing may be what a lower keep_size gives back.
        let begun = writer.spool.commit().or_else(|_| {
            writer.remove_old(now.wall);
            writer.spool.commit()
        });
        begun.map_err(|error| FlowLogError::Begin {
            folder: writer.config.dir.clone(),
            error,
        })?;
        writer.wrote();
        if stated {
            // What was cut off must not be forgotten by the next power cut.
            writer.sync();
        }
        Ok(writer)
    }

    /// `n` of the last line that was there before this run; 0 if there was none.
    pub(super) fn before(&self) -> u64 {
        self.before
    }

    pub(super) fn run(mut self, batches: &Receiver<Batch>) {
        loop {
            match batches.recv_timeout(self.patience()) {
                Ok(batch) => self.gather(batch, batches),
                Err(RecvTimeoutError::Timeout) if self.stopping().is_none() => {}
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
            }
            self.turn();
        }
        self.turn();
        self.stop();
    }

    fn turn(&mut self) {
        let now = Clock::now();
        self.look_at_the_clock(now);
        self.tell_losses(now.wall);
        self.tell_the_past(now.wall);
        self.write();
        self.sync_if_due();
        self.retain(now.wall);
    }

    /// How long it may wait for records.
    fn patience(&self) -> Duration {
        if self.past.is_some() {
            return PAST_EVERY;
        }
        let Some(unsynced) = self.unsynced else {
            return IDLE;
        };
        self.sync_every()
            .saturating_sub(unsynced.elapsed())
            .min(IDLE)
    }

    /// Stages what waits in the channel, up to [`GROUP`] records.
    fn gather(&mut self, batch: Batch, batches: &Receiver<Batch>) {
        let mut next = Some(batch);
        while let Some(batch) = next.take() {
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            match batch {
                Batch::Records(mut batch) => {
                    self.egresses.fill(&mut batch);
                    *lock(&self.shared.egress) = self.egresses.counts();
                    for record in batch {
                        self.stage_record(record);
                    }
                }
                Batch::Audit(event) => self.stage_event(*event),
            }
            if self.records.len() < GROUP {
                next = batches.try_recv().ok();
            }
        }
    }

    fn stage_record(&mut self, mut record: Record) {
        self.redactor.apply(&mut record);
        self.make_room();
        if self.stage(&record) {
            self.records.push(record);
        } else {
            self.shared.lose_offered(&record, Clock::now().wall);
        }
    }

    fn stage_event(&mut self, Audited { mut line, synced }: Audited) {
        self.redactor.apply_to_audit(&mut line);
        self.make_room();
        let number = line.audit;
        if self.stage(&line) {
            self.events.push(Staged { number, synced });
        } else {
            lock(&self.shared.audit).lose(number, Clock::now().wall);
        }
    }

    /// Long lines fill a group before their number does.
    fn make_room(&mut self) {
        if self.spool.staged_bytes() > MAX_STAGED / 2 {
            // What was lost before these is stated before them.
            self.tell_losses(Clock::now().wall);
            self.write();
        }
    }

    /// Seals one object into the chain. False: it can never be written.
    fn stage(&mut self, object: &impl Serialize) -> bool {
        self.body.clear();
        if let Err(error) = serde_json::to_writer(&mut self.body, object) {
            tracing::error!(%error, "a record cannot be encoded and is lost");
            return false;
        }
        if let Err(error) = self.spool.stage(&self.body) {
            tracing::error!(%error, "a record cannot be a line and is lost");
            return false;
        }
        true
    }

    fn say(&mut self, at: Wall, event: Event) {
        let event = LogEvent::new(&self.gateway, &self.boot, at, event);
        self.stage(&event);
    }

    /// Writes what is staged, however long it takes, unless the gateway stops.
    pub(super) fn write(&mut self) {
        if self.commit() {
            self.recover();
        }
    }

    /// The same, without a word about how long it took. False: it was given up.
    fn commit(&mut self) -> bool {
        let mut pause = FIRST_RETRY;
        while let Err(error) = self.spool.commit() {
            self.fail(&error);
            let left = self
                .stopping()
                .map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                self.give_up();
                return false;
            }
            // What is too old may be the room that is missing.
            self.retain(Clock::now().wall);
            std::thread::park_timeout(left.map_or(pause, |left| pause.min(left)));
            pause = (pause * 2).min(LAST_RETRY);
        }
        self.wrote();
        true
    }

    /// What was staged is on its way to the disk: counted, and shown to whoever listens.
    fn wrote(&mut self) {
        for record in self.records.drain(..) {
            self.shared.count_written(&record);
        }
        for event in self.events.drain(..) {
            lock(&self.shared.audit).write();
            self.awaited.push(event.synced);
        }
        let committed = self.spool.committed();
        if committed.is_empty() {
            return;
        }
        self.unsynced.get_or_insert_with(Instant::now);
        if self.tail.receiver_count() > 0 {
            for line in committed
                .split(|byte| *byte == b'\n')
                .filter(|line| !line.is_empty())
            {
                // An error only says that the last listener has left.
                let _ = self.tail.send(Arc::from(String::from_utf8_lossy(line)));
            }
        }
        self.stand();
    }

    fn give_up(&mut self) {
        self.spool.drop_staged();
        let now = Clock::now().wall;
        for record in self.records.drain(..) {
            self.shared.lose_offered(&record, now);
        }
        for event in self.events.drain(..) {
            lock(&self.shared.audit).lose(event.number, now);
        }
    }

    fn sync_every(&self) -> Duration {
        match self.config.sync {
            Sync::Always => Duration::ZERO,
            Sync::Every(time) => time,
        }
    }

    fn sync_if_due(&mut self) {
        // Whoever changed something waits for this one.
        let awaited = !self.awaited.is_empty() && !self.sync_failed;
        if self
            .unsynced
            .is_some_and(|since| awaited || since.elapsed() >= self.sync_every())
        {
            self.sync();
        }
    }

    fn sync(&mut self) -> bool {
        let begun = Instant::now();
        if let Err(error) = self.spool.sync() {
            self.fail(&error);
            // Not at once again: a disk that fails needs a moment.
            self.unsynced = Some(begun);
            self.sync_failed = true;
            return false;
        }
        self.sync_failed = false;
        lock(&self.shared.syncs).observe(begun.elapsed().as_secs_f64());
        self.unsynced = None;
        if self.past.is_none() {
            for boot in std::mem::take(&mut self.left) {
                self.made.forget(&boot.to_string());
            }
        }
        self.shared.synced.publish(self.spool.synced());
        for synced in self.awaited.drain(..) {
            // Nobody may wait any more.
            let _ = synced.send(());
        }
        true
    }

    fn fail(&mut self, error: &io::Error) {
        let words = format!("{}: {error}", self.config.dir.display());
        if self.shared.break_down(&words) {
            tracing::warn!(error = words, "records cannot be written; will be retried");
            self.unwritable = Some((Clock::now().wall, error.to_string()));
        }
    }

    fn recover(&mut self) {
        if self.sync_failed {
            return;
        }
        let Some((from, error)) = self.unwritable.take() else {
            return;
        };
        *lock(&self.shared.failing) = None;
        self.shared.broken.store(false, Ordering::Release);
        tracing::info!("records are written again");
        let to = Clock::now().wall;
        self.say(to, Event::Unwritable(Unwritable { from, to, error }));
        self.write();
    }

    fn stand(&self) {
        *lock(&self.shared.stand) = (self.spool.head(), self.spool.size());
    }

    fn stopping(&self) -> Option<Instant> {
        *lock(&self.shared.stop_at)
    }
}
