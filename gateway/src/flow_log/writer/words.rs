//! What the log says of itself: removed segments, a clock that was set, losses, runs that died, and
//! the last word.

use super::{Found, RETAIN_EVERY, STEP, Writer};
use crate::export;
use crate::flow_log::event::{
    AuditCounts, AuditLost, ClockStepped, Event, Lost, Previous, Removal, Removed, Stopped,
    WorkerCounts,
};
use crate::flow_log::history::Head;
use crate::flow_log::lock;
use postern_io::clock::Clock;
use postern_proto::now::{Now, Wall};
use postern_spool::index::build_missing;
use postern_spool::spool::{Removed as SpoolRemoved, Why};
use postern_spool::storage::Storage;
use std::sync::atomic::Ordering;
use std::sync::mpsc::TryRecvError;
use std::time::{Duration, Instant};

impl<S: Storage> Writer<S> {
    pub(super) fn retain(&mut self, now: Wall) {
        if self.retained.elapsed() < RETAIN_EVERY {
            return;
        }
        self.index();
        self.retained = Instant::now();
        self.remove_old(now);
    }

    /// Removes what `keep_size` and `keep_age` no longer allow.
    pub(in crate::flow_log) fn remove_old(&mut self, now: Wall) {
        let keep_age = u64::try_from(self.config.keep_age.as_millis()).unwrap_or(u64::MAX);
        let acknowledged = match self.shared.exporters.get() {
            Some(exporters) => exporters.acknowledged(),
            None => export::acknowledged(&self.config),
        };
        loop {
            let keep_size = self.config.keep_size;
            match self
                .spool
                .due(keep_size, keep_age, acknowledged, now.millis())
            {
                Ok(Some(due)) => {
                    self.announce(now, &due);
                    if let Err(error) = self.spool.remove(&due) {
                        tracing::warn!(%error, "an old segment of the flow log cannot be removed");
                        break;
                    }
                }
                Ok(None) => break,
                Err(error) => {
                    tracing::warn!(%error, "an old segment of the flow log cannot be read");
                    break;
                }
            }
        }
        self.stand();
    }

    /// Said before it is done, and on disk, so that a kill in between leaves no gap without a word.
    /// Where nothing can be written, the room is worth more than the order.
    fn announce(&mut self, now: Wall, due: &SpoolRemoved) {
        let unacknowledged = due.unacknowledged;
        self.shared
            .removed_unacknowledged
            .fetch_add(unacknowledged, Ordering::Relaxed);
        if unacknowledged > 0 {
            tracing::error!(
                records = unacknowledged,
                "the flow log reached keep_size: records were removed that an exporter had not \
                delivered"
            );
        }
        let removed = Removed {
            from_n: due.from_n,
            to_n: due.to_n,
            why: match due.why {
                Why::Size => Removal::Size,
                Why::Age => Removal::Age,
            },
            unacknowledged,
        };
        self.say(now, Event::Removed(removed));
        if self.unwritable.is_none() && self.spool.commit().is_ok() {
            self.wrote();
            self.sync();
        }
    }

    /// Lets a thread of its own build the indexes of segments that are finished: only searches want
    /// them, so nobody waits.
    fn index(&mut self) {
        let size = self.spool.size();
        let now = Some((size.segments, size.oldest_n));
        let busy = self.indexer.as_ref().is_some_and(|it| !it.is_finished());
        if busy || self.indexed == now {
            return;
        }
        self.indexed = now;
        let folder = self.config.dir.clone();
        let build = move || {
            if let Err(error) = build_missing(&folder) {
                tracing::warn!(%error, "no index of the flow log: searches read all of it");
            }
        };
        let thread = std::thread::Builder::new().name("flow-log-index".into());
        self.indexer = thread.spawn(build).ok();
    }

    pub(in crate::flow_log) fn look_at_the_clock(&mut self, now: Now) {
        let passed = now.mono.since(self.clock.mono);
        let from = Wall(self.clock.wall.0.saturating_add(nanos(passed)));
        self.clock = now;
        if from.0.abs_diff(now.wall.0) > nanos(STEP) {
            let to = now.wall;
            self.say(to, Event::ClockStepped(ClockStepped { from, to }));
        }
    }

    pub(super) fn tell_losses(&mut self, now: Wall) {
        if self.unwritable.is_some() {
            return;
        }
        self.tell_audit_losses(now);
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

    fn tell_audit_losses(&mut self, now: Wall) {
        let Some(loss) = lock(&self.shared.audit).unstated.take() else {
            return;
        };
        self.say(
            now,
            Event::AuditLost(AuditLost {
                count: loss.count,
                first_audit: loss.first,
                last_audit: loss.last,
                from: loss.from,
                to: loss.to,
            }),
        );
    }

    pub(super) fn tell_the_past(&mut self, now: Wall) {
        while let Some(past) = &self.past {
            match past.try_recv() {
                Ok(Found::Closings(closings)) => {
                    for closing in closings {
                        let closing = self.redactor.apply_again(closing);
                        if let Err(error) = self.spool.stage(&closing) {
                            tracing::error!(%error, "a closing record is too long");
                        }
                    }
                    // One chunk a turn, so that live records do not wait.
                    return;
                }
                Ok(Found::Run(run)) => {
                    let lost: u64 = run.workers.iter().map(|worker| worker.lost).sum();
                    self.shared.crash_lost.fetch_add(lost, Ordering::Relaxed);
                    tracing::info!(boot = %run.crashed_boot, flows = run.flows_closed,
                        records_lost = lost, audit_events_lost = run.audit.lost, "the run before ended without a word");
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
    pub(super) fn stop(&mut self) {
        let told = self.wait_for_the_past();
        // Behind the last word nothing may stand, so first what a disk that came back makes us say.
        if self.unwritable.is_some() && self.sync() {
            self.recover();
        }
        self.tell_losses(Clock::now().wall);
        if !told || self.owes_records() {
            // This run ends unexplained, so that the next one reads further back.
            self.write();
            return;
        }
        let status = self.shared.status();
        let each =
            (0..u8::MAX)
                .zip(self.shared.by_worker())
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
            audit: AuditCounts {
                made: Some(status.audit.made),
                written: status.audit.written,
                lost: status.audit.lost,
            },
        };
        self.say(Clock::now().wall, Event::Stopped(event));
        if self.commit() && self.sync() {
            self.shared.end_in_order();
        }
    }

    /// Whether a worker has ended, as by a panic, with records that nobody will hand over.
    fn owes_records(&self) -> bool {
        let workers = self.shared.by_worker();
        let audit = lock(&self.shared.audit).status();
        audit.made > audit.written + audit.lost
            || workers
                .iter()
                .any(|(made, written, lost)| *made > written + lost)
    }

    /// Whether all is told of the run before.
    fn wait_for_the_past(&mut self) -> bool {
        while self.past.is_some() && self.stopping().is_some_and(|by| Instant::now() < by) {
            self.tell_the_past(Clock::now().wall);
            self.write();
            std::thread::park_timeout(Duration::from_millis(10));
        }
        self.past.is_none()
    }
}

/// What the last line says of the run that wrote it.
pub(super) fn how_it_ended(last: Option<&[u8]>) -> (Previous, Option<String>) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow_log::made::Made;
    use crate::flow_log::tally::Shared;
    use crate::init::init;
    use crate::scratch::Scratch;
    use postern_spool::Disk;
    use std::sync::Arc;
    use tokio::sync::broadcast;

    #[test]
    fn finished_segments_get_an_index() {
        let folder = Scratch::new();
        let mut config = init(&folder.path("gw"), None).expect("made");
        config.flow_log.segment_size = 1000;
        let disk = Disk::open(&config.flow_log.dir).expect("a folder");
        let made = Made::begin(&config.data_dir, 1);
        let (tail, _) = broadcast::channel(1);
        let shared = Arc::new(Shared::new(1));
        let mut writer = Writer::open(disk, &config, 1, made, shared, tail).expect("a spool");
        for i in 0..8 {
            assert!(writer.stage(&serde_json::json!({ "i": i, "text": "x".repeat(400) })));
            writer.write();
        }
        writer.index();
        let indexer = writer.indexer.take().expect("begun");
        indexer.join().expect("ended");
        let all = postern_spool::segments(&config.flow_log.dir).expect("there");
        let (_, finished) = all.split_last().expect("several");
        assert!(finished.iter().all(|one| one.index_path().exists()));
    }
}
