//! The thread that writes. One turn, in this order:
//!
//! 1. a group of records from the channel, as many as wait, up to [`GROUP`];
//! 2. what the log has to say of itself: losses, a stepped clock, the past of a crashed run;
//! 3. both sealed into the chain and written in one piece, again and again until it succeeds;
//! 4. forced to disk when it is time; only then exporters see it;
//! 5. segments that are too old or too many removed.

use super::egress::Egresses;
use super::event::{
    ClockStepped, Damaged, Event, LogEvent, Lost, Previous, Removal, Removed, Repaired, Started,
    Stopped, Unwritable, WorkerCounts,
};
use super::history::{self, Found, Head, Past};
use super::made::Left;
use super::privacy::Redactor;
use super::tally::{Shared, Stand, count};
use super::{FlowLogError, lock};
use crate::config::{Config, FlowLogConfig, Sync};
use crate::export::ExportersHandle;
use postern_engine::record::Record;
use postern_io::clock::Clock;
use postern_proto::now::{Now, Wall};
use postern_spool::spool::{MAX_STAGED, Settings, Spool, Why};
use postern_spool::storage::Storage;
use serde::Serialize;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};
use tokio::sync::broadcast;

/// Records written together, at most: at under 1 KiB each, 4 MiB.
const GROUP: usize = 4096;

/// How often retention, losses and the clock are looked at when nothing happens.
const IDLE: Duration = Duration::from_secs(1);

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
    past: Option<Receiver<Found>>,
    /// The group that is staged.
    records: Vec<Record>,
    body: Vec<u8>,
    /// When the oldest byte that is not on disk for sure was written.
    unsynced: Option<Instant>,
    /// The disk did not take what was written.
    sync_failed: bool,
    /// Since when it cannot be written, and why.
    unwritable: Option<(Wall, String)>,
    clock: Now,
    retained: Instant,
    /// The last line of earlier runs.
    before: u64,
}

impl<S: Storage> Writer<S> {
    /// Opens the spool, repairs its end, and says how the last run ended.
    pub(super) fn open(
        storage: S,
        config: &Config,
        boot: u64,
        left: Option<Left>,
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
            records: Vec::new(),
            body: Vec::new(),
            unsynced: None,
            sync_failed: false,
            unwritable: None,
            clock: now,
            retained: Instant::now(),
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
        // A log that cannot even be begun is found at the start, not by the first flow.
        writer.spool.commit().map_err(|error| FlowLogError::Begin {
            folder: writer.config.dir.clone(),
            error,
        })?;
        writer.wrote();
        Ok(writer)
    }

    /// `n` of the last line that was there before this run; 0 if there was none.
    pub(super) fn before(&self) -> u64 {
        self.before
    }

    pub(super) fn run(mut self, batches: &Receiver<Vec<Record>>) {
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
        let Some(unsynced) = self.unsynced else {
            return IDLE;
        };
        self.sync_every()
            .saturating_sub(unsynced.elapsed())
            .min(IDLE)
    }

    /// Stages what waits in the channel, up to [`GROUP`] records.
    fn gather(&mut self, batch: Vec<Record>, batches: &Receiver<Vec<Record>>) {
        let mut next = Some(batch);
        while let Some(mut batch) = next.take() {
            self.shared.queued.fetch_sub(1, Ordering::Relaxed);
            self.egresses.fill(&mut batch);
            *lock(&self.shared.egress) = self.egresses.counts();
            for record in batch {
                self.stage_record(record);
            }
            if self.records.len() < GROUP {
                next = batches.try_recv().ok();
            }
        }
    }

    fn stage_record(&mut self, mut record: Record) {
        self.redactor.apply(&mut record);
        // Long records fill a group before their number does.
        if self.spool.staged_bytes() > MAX_STAGED / 2 {
            self.write();
        }
        if self.stage(&record) {
            self.records.push(record);
        } else {
            self.shared.lose_offered(&record, Clock::now().wall);
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
        let mut pause = FIRST_RETRY;
        while let Err(error) = self.spool.commit() {
            self.fail(&error);
            let left = self
                .stopping()
                .map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                self.give_up();
                return;
            }
            std::thread::park_timeout(left.map_or(pause, |left| pause.min(left)));
            pause = (pause * 2).min(LAST_RETRY);
        }
        self.wrote();
        self.recover();
    }

    /// What was staged is on its way to the disk: counted, and shown to whoever listens.
    fn wrote(&mut self) {
        for record in self.records.drain(..) {
            self.shared.written.add(1, record.attempts());
            self.shared.count_written(record.worker, 1);
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
    }

    fn sync_every(&self) -> Duration {
        match self.config.sync {
            Sync::Always => Duration::ZERO,
            Sync::Every(time) => time,
        }
    }

    fn sync_if_due(&mut self) {
        if self
            .unsynced
            .is_some_and(|since| since.elapsed() >= self.sync_every())
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
        self.shared.synced.publish(self.spool.synced());
        true
    }

    fn retain(&mut self, now: Wall) {
        if self.retained.elapsed() < RETAIN_EVERY {
            return;
        }
        self.retained = Instant::now();
        let keep_age = u64::try_from(self.config.keep_age.as_millis()).unwrap_or(u64::MAX);
        let exporters = self.shared.exporters.get();
        let acknowledged = exporters.and_then(ExportersHandle::acknowledged);
        loop {
            let removed =
                self.spool
                    .retain(self.config.keep_size, keep_age, acknowledged, now.millis());
            match removed {
                Ok(Some(removed)) => {
                    let lost = removed.unacknowledged;
                    self.shared
                        .removed_unacknowledged
                        .fetch_add(lost, Ordering::Relaxed);
                    if lost > 0 {
                        tracing::error!(
                            records = lost,
                            "the flow log reached keep_size: records \
                            were removed that an exporter had not delivered"
                        );
                    }
                    self.say(
                        now,
                        Event::Removed(Removed {
                            from_n: removed.from_n,
                            to_n: removed.to_n,
                            why: match removed.why {
                                Why::Size => Removal::Size,
                                Why::Age => Removal::Age,
                            },
                            unacknowledged: lost,
                        }),
                    );
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "an old segment of the flow log cannot be removed");
                    break;
                }
            }
        }
        self.stand();
    }

    pub(super) fn look_at_the_clock(&mut self, now: Now) {
        let passed = now.mono.since(self.clock.mono);
        let from = Wall(self.clock.wall.0.saturating_add(nanos(passed)));
        self.clock = now;
        if from.0.abs_diff(now.wall.0) > nanos(STEP) {
            let to = now.wall;
            self.say(to, Event::ClockStepped(ClockStepped { from, to }));
        }
    }

    fn tell_losses(&mut self, now: Wall) {
        if self.unwritable.is_some() {
            return;
        }
        let losses = std::mem::take(&mut *lock(&self.shared.losses));
        for (worker, loss) in losses {
            self.say(
                now,
                Event::Lost(Lost {
                    worker,
                    count: loss.records,
                    flows: loss.flows,
                    first_seq: Some(loss.first_seq),
                    last_seq: Some(loss.last_seq),
                    from: loss.from,
                    to: loss.to,
                }),
            );
        }
    }

    fn tell_the_past(&mut self, now: Wall) {
        while let Some(past) = &self.past {
            match past.try_recv() {
                Ok(Found::Closings(closings)) => {
                    for closing in closings {
                        if let Err(error) = self.spool.stage(&closing) {
                            tracing::error!(%error, "a closing record is too long");
                        }
                    }
                    // One chunk a turn, so that live records do not wait.
                    return;
                }
                Ok(Found::Run(run)) => {
                    let lost: u64 = run.workers.iter().map(|worker| worker.lost).sum();
                    tracing::info!(boot = %run.crashed_boot, flows = run.flows_closed,
                        records_lost = lost, "the run before ended without a word");
                    self.say(now, Event::CrashedRun(run));
                }
                Ok(Found::Unreadable(error)) => {
                    tracing::warn!(
                        error,
                        "the last run's records cannot be read; \
                        see `postern-gateway flows verify`"
                    );
                }
                Err(TryRecvError::Empty) => return,
                Err(TryRecvError::Disconnected) => self.past = None,
            }
        }
    }

    /// The last word, and everything on disk.
    fn stop(&mut self) {
        let status = self.shared.status();
        let workers = self.shared.by_worker();
        let each = (0..u8::MAX)
            .zip(workers)
            .map(|(worker, (made, written, lost))| WorkerCounts {
                worker,
                made: Some(made),
                written,
                lost,
            });
        let event = Stopped {
            workers: each.collect(),
            flows_seen: status.flows_seen,
            flows_written: status.flows_written,
            flows_lost: status.flows_lost,
        };
        if !self.wait_for_the_past() {
            // This run ends unexplained, so that the next one reads further back.
            self.write();
            return;
        }
        self.say(Clock::now().wall, Event::Stopped(event));
        self.write();
        if self.unwritable.is_none() && self.sync() {
            self.shared.end_in_order();
        }
    }

    /// Whether all is told of the run before.
    fn wait_for_the_past(&mut self) -> bool {
        while self.past.is_some() && self.stopping().is_some_and(|by| Instant::now() < by) {
            self.tell_the_past(Clock::now().wall);
            self.write();
            std::thread::park_timeout(FIRST_RETRY / 10);
        }
        self.past.is_none()
    }

    fn fail(&mut self, error: &io::Error) {
        let words = format!("{}: {error}", self.config.dir.display());
        *lock(&self.shared.failing) = Some(words.clone());
        if !self.shared.broken.swap(true, Ordering::Release) {
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
        let (head, size) = (self.spool.head(), self.spool.size());
        *lock(&self.shared.stand) = Stand {
            head: head.n,
            head_hash: head.hash.0,
            bytes: size.bytes,
            segments: count(size.segments),
            oldest_n: size.oldest_n,
            oldest_ms: size.oldest_ms,
        };
    }

    fn stopping(&self) -> Option<Instant> {
        *lock(&self.shared.stop_at)
    }
}

/// What the last line says of the run that wrote it.
fn how_it_ended(last: Option<&[u8]>) -> (Previous, Option<String>) {
    let Some(last) = last else {
        return (Previous::None, None);
    };
    let Ok(head) = serde_json::from_slice::<Head<'_>>(last) else {
        return (Previous::Crashed, None);
    };
    let clean = head.kind == "log" && head.event.as_deref() == Some("stopped");
    let how = if clean {
        Previous::Clean
    } else {
        Previous::Crashed
    };
    (how, Some(head.closed_by.unwrap_or(head.boot).into_owned()))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
