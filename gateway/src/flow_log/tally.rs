//! Everything that the flow log counts. Two units: records (lines), and flows (the attempts that
//! records stand for: one for each opened, `count` for each denied, none for a closed one).
//!
//! For each unit, at rest: made = written + lost + waiting. A scrape in the middle of work may see
//! a record in two places, or in neither, for a moment.

use super::audited::AuditTally;
use super::egress::EgressCounts;
use super::lock;
use crate::api::{FlowLogStatus, FlowsWaiting, HistogramView};
use crate::export::{ExportersHandle, SyncedHead};
use postern_engine::record::Record;
use postern_proto::now::Wall;
use postern_spool::{Head, Size};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Instant;

/// Upper bounds of the histogram of syncs, seconds.
const SYNC_BOUNDS: [f64; 9] = [0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0];

/// What a worker says of itself, since the start of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Records made: the last `seq`.
    pub made: u64,
    /// Attempts seen, opened and refused.
    pub flows: u64,
    /// Attempts that wait in denial windows now.
    pub in_windows: u64,
    /// Attempts that wait for the channel now; [`super::Outgoing`] knows.
    pub in_worker: u64,
}

/// Records that a worker threw away and the log has not stated yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    pub(super) records: u64,
    pub(super) flows: u64,
    pub(super) first_seq: u64,
    pub(super) last_seq: u64,
    pub(super) from: Wall,
    pub(super) to: Wall,
}

/// Records and the flows that they stand for.
#[derive(Debug, Default)]
pub(super) struct Tally {
    pub(super) records: AtomicU64,
    pub(super) flows: AtomicU64,
}

/// What workers, writer and control plane share.
#[derive(Debug)]
pub(super) struct Shared {
    workers: Vec<Worker>,
    pub(super) offered: Tally,
    pub(super) written: Tally,
    pub(super) lost: Tally,
    pub(super) queued: AtomicU64,
    /// Told to exporters.
    pub(super) synced: SyncedHead,
    pub(super) exporters: OnceLock<ExportersHandle>,
    pub(super) removed_unacknowledged: AtomicU64,
    pub(super) repaired_bytes: AtomicU64,
    pub(super) crash_lost: AtomicU64,
    pub(super) egress: Mutex<EgressCounts>,
    pub(super) broken: AtomicBool,
    pub(super) failing: Mutex<Option<String>>,
    pub(super) stop_at: Mutex<Option<Instant>>,
    pub(super) losses: Mutex<BTreeMap<u8, Loss>>,
    pub(super) audit: Mutex<AuditTally>,
    /// Where the spool stands.
    pub(super) stand: Mutex<(Head, Size)>,
    pub(super) syncs: Mutex<HistogramView>,
    in_order: AtomicBool,
}

#[derive(Debug, Default)]
struct Worker {
    made: AtomicU64,
    flows: AtomicU64,
    in_windows: AtomicU64,
    in_worker: AtomicU64,
    written: AtomicU64,
    lost: AtomicU64,
}

/// How many records, and how many flows they stand for.
pub(super) fn of(records: &[Record]) -> (u64, u64) {
    (
        count(records.len()),
        records.iter().map(Record::attempts).sum(),
    )
}

impl Tally {
    pub(super) fn add(&self, records: u64, flows: u64) {
        self.records.fetch_add(records, Ordering::Relaxed);
        self.flows.fetch_add(flows, Ordering::Relaxed);
    }

    pub(super) fn take_back(&self, records: u64, flows: u64) {
        self.records.fetch_sub(records, Ordering::Relaxed);
        self.flows.fetch_sub(flows, Ordering::Relaxed);
    }

    fn get(&self) -> (u64, u64) {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        (get(&self.records), get(&self.flows))
    }
}

impl Shared {
    pub(super) fn new(workers: usize) -> Shared {
        Shared {
            workers: (0..workers).map(|_| Worker::default()).collect(),
            offered: Tally::default(),
            written: Tally::default(),
            lost: Tally::default(),
            queued: AtomicU64::new(0),
            synced: SyncedHead::default(),
            exporters: OnceLock::new(),
            removed_unacknowledged: AtomicU64::new(0),
            repaired_bytes: AtomicU64::new(0),
            crash_lost: AtomicU64::new(0),
            egress: Mutex::default(),
            broken: AtomicBool::new(false),
            failing: Mutex::default(),
            stop_at: Mutex::default(),
            losses: Mutex::default(),
            audit: Mutex::default(),
            stand: Mutex::default(),
            syncs: Mutex::new(HistogramView::with_bounds(&SYNC_BOUNDS)),
            in_order: AtomicBool::new(false),
        }
    }

    /// Returns the records made, if there are more than before.
    pub(super) fn tell(&self, worker: u8, told: Told) -> Option<u64> {
        let own = self.workers.get(usize::from(worker))?;
        own.flows.store(told.flows, Ordering::Relaxed);
        own.in_windows.store(told.in_windows, Ordering::Relaxed);
        own.in_worker.store(told.in_worker, Ordering::Relaxed);
        (own.made.swap(told.made, Ordering::Relaxed) != told.made).then_some(told.made)
    }

    /// Records that never reached the channel.
    pub(super) fn lose<'a>(
        &self,
        worker: u8,
        records: impl IntoIterator<Item = &'a Record>,
        at: Wall,
    ) {
        let mut losses = lock(&self.losses);
        for record in records {
            let flows = record.attempts();
            self.offered.add(1, flows);
            self.lost.add(1, flows);
            if let Some(own) = self.workers.get(usize::from(worker)) {
                own.lost.fetch_add(1, Ordering::Relaxed);
            }
            let loss = losses.entry(worker).or_insert(Loss {
                records: 0,
                flows: 0,
                first_seq: record.seq,
                last_seq: record.seq,
                from: at,
                to: at,
            });
            loss.records += 1;
            loss.flows += flows;
            loss.first_seq = loss.first_seq.min(record.seq);
            loss.last_seq = loss.last_seq.max(record.seq);
            loss.to = at;
        }
    }

    /// A record that the writer could not write.
    pub(super) fn lose_offered(&self, record: &Record, at: Wall) {
        self.offered.take_back(1, record.attempts());
        self.lose(record.worker, [record], at);
    }

    /// A record that is in the log.
    pub(super) fn count_written(&self, record: &Record) {
        self.written.add(1, record.attempts());
        if let Some(own) = self.workers.get(usize::from(record.worker)) {
            own.written.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Made, written and lost, by worker.
    pub(super) fn by_worker(&self) -> Vec<(u64, u64, u64)> {
        let get = |number: &AtomicU64| number.load(Ordering::Relaxed);
        self.workers
            .iter()
            .map(|own| (get(&own.made), get(&own.written), get(&own.lost)))
            .collect()
    }

    /// Records cannot be written. True if they could until now.
    pub(super) fn break_down(&self, why: &str) -> bool {
        *lock(&self.failing) = Some(why.to_owned());
        !self.broken.swap(true, Ordering::AcqRel)
    }

    /// The writer has said its last word, and it is on disk.
    pub(super) fn end_in_order(&self) {
        self.in_order.store(true, Ordering::Release);
    }

    pub(super) fn ended_in_order(&self) -> bool {
        self.in_order.load(Ordering::Acquire)
    }

    pub(super) fn status(&self) -> FlowLogStatus {
        let sum = |each: fn(&Worker) -> &AtomicU64| -> u64 {
            self.workers
                .iter()
                .map(|own| each(own).load(Ordering::Relaxed))
                .sum()
        };
        // In this order, so that a record in between shows as waiting, never as a negative.
        let (written, flows_written) = self.written.get();
        let (lost, flows_lost) = self.lost.get();
        let (offered, flows_offered) = self.offered.get();
        let made = sum(|own| &own.made).max(offered);
        let in_channel = |offered: u64, written: u64, lost: u64| {
            offered.saturating_sub(written).saturating_sub(lost)
        };
        let (head, size) = *lock(&self.stand);
        let egress = *lock(&self.egress);
        FlowLogStatus {
            made,
            written,
            lost,
            lag: in_channel(made, written, lost),
            flows_seen: sum(|own| &own.flows),
            flows_written,
            flows_lost,
            flows_waiting: FlowsWaiting {
                window: sum(|own| &own.in_windows),
                worker: sum(|own| &own.in_worker),
                channel: in_channel(flows_offered, flows_written, flows_lost),
            },
            head: head.n,
            head_hash: head.hash.to_string(),
            synced: self.synced.get(),
            bytes: size.bytes,
            segments: count(size.segments),
            oldest: size.oldest_n,
            oldest_ms: size.oldest_ms,
            removed_unacknowledged: self.removed_unacknowledged.load(Ordering::Relaxed),
            repaired_bytes: self.repaired_bytes.load(Ordering::Relaxed),
            crash_lost: self.crash_lost.load(Ordering::Relaxed),
            egress_found: egress.found,
            egress_missing: egress.missing,
            sync_seconds: lock(&self.syncs).clone(),
            failing: lock(&self.failing).clone(),
            audit: lock(&self.audit).status(),
            exporters: self
                .exporters
                .get()
                .map_or_else(Vec::new, |exporters| exporters.status(head.n)),
        }
    }
}

pub(super) fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}
