//! Audit events on their way into the log: numbered here, counted here, and handed to the writer
//! over the same bounded channel as records.

use super::made::Made;
use super::tally::Shared;
use super::{Batch, lock};
use crate::api::{AuditCount, AuditStatus};
use crate::audit::{Action, AuditEvent, AuditLine, Outcome};
use postern_proto::now::Wall;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::sync::{Arc, Mutex};
use tokio::sync::oneshot;

/// An event in the channel.
#[derive(Debug)]
pub(super) struct Audited {
    pub(super) line: AuditLine,
    /// Told when the line is on disk.
    pub(super) synced: oneshot::Sender<()>,
}

/// What is counted of a run's events. At rest, made = written + lost + waiting.
#[derive(Debug, Default)]
pub(super) struct AuditTally {
    made: u64,
    written: u64,
    lost: u64,
    /// At most one entry for each pair of words.
    by: BTreeMap<(Action, Outcome), u64>,
    /// Lost, and not stated in the log yet.
    pub(super) unstated: Option<AuditLoss>,
}

/// Events that never became a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AuditLoss {
    pub(super) count: u64,
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) from: Wall,
    pub(super) to: Wall,
}

/// The control plane's end.
#[derive(Debug)]
pub(crate) struct AuditEnd {
    gateway: Arc<str>,
    boot: Arc<str>,
    shared: Arc<Shared>,
    made: Made,
    /// None once the log is being finished. Numbers are given under this lock, so they stand in
    /// the channel in their order.
    queue: Mutex<Option<SyncSender<Batch>>>,
}

impl AuditEnd {
    pub(super) fn new(
        gateway: &str,
        boot: u64,
        shared: Arc<Shared>,
        made: Made,
        queue: SyncSender<Batch>,
    ) -> AuditEnd {
        AuditEnd {
            gateway: gateway.into(),
            boot: boot.to_string().into(),
            shared,
            made,
            queue: Mutex::new(Some(queue)),
        }
    }

    /// Hands an event over without waiting. What comes is told when the line is on disk, and
    /// dropped if it never will be.
    ///
    /// # Errors
    /// The channel is full or closed: the event comes back, without a number.
    pub(crate) fn offer(
        &self,
        at: Wall,
        event: Box<AuditEvent>,
    ) -> Result<oneshot::Receiver<()>, Box<AuditEvent>> {
        let queue = lock(&self.queue);
        let Some(to) = queue.as_ref() else {
            return Err(event);
        };
        let number = lock(&self.shared.audit).made + 1;
        // Before the writer has it: a killed process leaves a number too high, never too low.
        self.made.set_audit(number);
        let what = (event.action, event.outcome);
        let own = AuditEvent::clone(&event);
        let line = AuditLine::new(&self.gateway, &self.boot, number, at, own);
        let (synced, wait) = oneshot::channel();
        self.shared.queued.fetch_add(1, Ordering::Relaxed);
        match to.try_send(Batch::Audit(Box::new(Audited { line, synced }))) {
            Ok(()) => {
                lock(&self.shared.audit).make(what);
                Ok(wait)
            }
            Err(error) => {
                self.shared.queued.fetch_sub(1, Ordering::Relaxed);
                if let TrySendError::Disconnected(_) = error {
                    self.shared.break_down("the thread that writes has ended");
                }
                Err(event)
            }
        }
    }

    /// Gives up on an event: it gets a number, and that number is stated as lost.
    pub(crate) fn lose(&self, at: Wall, event: &AuditEvent) {
        let _in_order = lock(&self.queue);
        let mut audit = lock(&self.shared.audit);
        audit.make((event.action, event.outcome));
        let number = audit.made;
        self.made.set_audit(number);
        audit.lose(number, at);
        tracing::error!(?event, "an audit event is lost: the log does not take it");
    }

    /// Whether lines reach the log at this moment.
    pub(crate) fn writable(&self) -> bool {
        !self.shared.broken.load(Ordering::Acquire) && lock(&self.queue).is_some()
    }

    /// No event is taken from here on.
    pub(super) fn close(&self) {
        lock(&self.queue).take();
    }
}

impl AuditTally {
    fn make(&mut self, what: (Action, Outcome)) {
        self.made += 1;
        *self.by.entry(what).or_default() += 1;
    }

    pub(super) fn write(&mut self) {
        self.written += 1;
    }

    pub(super) fn lose(&mut self, number: u64, at: Wall) {
        self.lost += 1;
        let loss = self.unstated.get_or_insert(AuditLoss {
            count: 0,
            first: number,
            last: number,
            from: at,
            to: at,
        });
        loss.count += 1;
        loss.first = loss.first.min(number);
        loss.last = loss.last.max(number);
        loss.to = at;
    }

    pub(super) fn status(&self) -> AuditStatus {
        AuditStatus {
            made: self.made,
            written: self.written,
            lost: self.lost,
            events: self
                .by
                .iter()
                .map(|((action, outcome), count)| AuditCount {
                    action: action.as_str().to_owned(),
                    outcome: outcome.as_str().to_owned(),
                    count: *count,
                })
                .collect(),
        }
    }
}
