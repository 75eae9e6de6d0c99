//! Records that never became a line: legal only if the log says so itself.
//!
//! In each run (`boot`) each worker numbers its records (`seq`) from 1. Where numbers are missing,
//! a `lost` line of that run states how many, or the `crashed-run` or `stopped` line that sums
//! the run up. A line may state a loss after the next record, so it adds up only at the end.

use super::{Place, What};
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Gaps that are remembered, so that the first unexplained one can be named: 4 MiB at most.
const MAX_GAPS: usize = 65_536;

#[derive(Debug, Default)]
pub(super) struct Losses {
    /// By run; their number is that of restarts within the log.
    runs: BTreeMap<String, Run>,
    /// The walk begins with line 1, so each run is there from its first record on.
    whole: bool,
    gaps: usize,
}

#[derive(Debug, Default)]
struct Run {
    /// The log says when it started, so its records are there from the first one on.
    started: bool,
    workers: BTreeMap<u64, Worker>,
}

#[derive(Debug, Default)]
struct Worker {
    /// The last record.
    seq: u64,
    missing: u64,
    /// Those of them whose explanation may lie before the first line.
    excused: u64,
    /// The sum of all `lost` lines.
    lost: u64,
    /// What the line that sums up the run says.
    summed_up: u64,
    gaps: Vec<Gap>,
}

#[derive(Clone, Copy, Debug)]
struct Gap {
    place: Place,
    n: u64,
    from: u64,
    to: u64,
}

/// What a line says about records.
#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow)]
    boot: Option<Cow<'a, str>>,
    worker: Option<u64>,
    seq: Option<u64>,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    count: Option<u64>,
    #[serde(borrow)]
    crashed_boot: Option<Cow<'a, str>>,
    #[serde(default)]
    workers: Workers,
}

/// In `started`, how many; in `crashed-run` and `stopped`, what became of their records.
#[derive(Deserialize)]
#[serde(untagged)]
enum Workers {
    Sums(Vec<Sum>),
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
struct Sum {
    worker: u64,
    made: Option<u64>,
    lost: u64,
}

impl Default for Workers {
    fn default() -> Self {
        Workers::Sums(Vec::new())
    }
}

impl Losses {
    /// Takes the next line, which is `n`.
    pub(super) fn see(&mut self, line: &[u8], place: Place, n: u64) -> Result<(), What> {
        self.whole |= n == 1;
        if let Some((boot, worker, seq)) = flow(line) {
            return self.record(boot, worker, seq, place, n);
        }
        let Ok(said) = serde_json::from_slice::<Said<'_>>(line) else {
            return Ok(());
        };
        let Some(boot) = said.boot.as_deref() else {
            return Ok(());
        };
        if said.kind.as_deref() != Some("log") {
            return match (said.worker, said.seq) {
                (Some(worker), Some(seq)) => self.record(boot, worker, seq, place, n),
                _ => Ok(()),
            };
        }
        match (said.event.as_deref(), said.worker, said.workers) {
            (Some("started"), ..) => self.run(boot).started = true,
            (Some("lost"), Some(worker), _) => {
                let worker = self.run(boot).workers.entry(worker).or_default();
                worker.lost = worker.lost.saturating_add(said.count.unwrap_or(0));
            }
            (Some("stopped" | "crashed-run"), _, Workers::Sums(sums)) => {
                let boot = said.crashed_boot.as_deref().unwrap_or(boot);
                for sum in sums {
                    self.sum_up(boot, &sum, place, n);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// Records that the log says were lost.
    pub(super) fn stated(&self) -> u64 {
        self.workers()
            .map(|(.., worker)| worker.stated())
            .fold(0, u64::saturating_add)
    }

    /// Records that are missing and that no line explains.
    pub(super) fn unstated(&self) -> u64 {
        let missing = |worker: &Worker| worker.missing.saturating_sub(worker.stated());
        self.workers()
            .map(|(.., worker)| missing(worker))
            .fold(0, u64::saturating_add)
    }

    /// The first gap that no line explains.
    pub(super) fn first_unstated(&self) -> Option<(Place, u64, What)> {
        let first = |(boot, id, worker): (&str, u64, &Worker)| {
            let gap = worker.first_unstated()?;
            let what = What::Unstated {
                boot: boot.to_owned(),
                worker: id,
                from: gap.from,
                to: gap.to,
            };
            Some((gap.place, gap.n, what))
        };
        self.workers().filter_map(first).min_by_key(|(_, n, _)| *n)
    }

    fn record(&mut self, boot: &str, id: u64, seq: u64, place: Place, n: u64) -> Result<(), What> {
        let (whole, full) = (self.whole, self.gaps >= MAX_GAPS);
        let run = self.run(boot);
        let whole = whole || run.started;
        let known = run.workers.contains_key(&id);
        let worker = run.workers.entry(id).or_default();
        if seq <= worker.seq {
            return Err(What::Repeated {
                boot: boot.to_owned(),
                worker: id,
                seq: worker.seq,
            });
        }
        let gap = Gap {
            place,
            n,
            from: worker.seq + 1,
            to: seq - 1,
        };
        let complete = whole || known && worker.seq > 0;
        worker.seq = seq;
        if complete && gap.from <= gap.to {
            let length = gap.to - gap.from + 1;
            worker.missing = worker.missing.saturating_add(length);
            // A loss is stated as soon as it happens, before what waits in the gateway is written:
            // retention may have taken that line, and not the gap.
            if !whole && place.file == 0 {
                worker.excused = worker.excused.saturating_add(length);
            }
            if !full || worker.gaps.is_empty() {
                worker.gaps.push(gap);
                self.gaps += 1;
            }
        }
        Ok(())
    }

    /// The line that sums a run up; it may say that there were records after the last one.
    fn sum_up(&mut self, boot: &str, sum: &Sum, place: Place, n: u64) {
        let (whole, full) = (self.whole, self.gaps >= MAX_GAPS);
        let run = self.run(boot);
        let whole = whole || run.started;
        let worker = run.workers.entry(sum.worker).or_default();
        worker.summed_up = sum.lost;
        let made = sum.made.unwrap_or(0);
        if made > worker.seq && (whole || worker.seq > 0) {
            worker.missing = worker.missing.saturating_add(made - worker.seq);
            let gap = Gap {
                place,
                n,
                from: worker.seq + 1,
                to: made,
            };
            worker.seq = made;
            if !full || worker.gaps.is_empty() {
                worker.gaps.push(gap);
                self.gaps += 1;
            }
        }
    }

    fn run(&mut self, boot: &str) -> &mut Run {
        if !self.runs.contains_key(boot) {
            self.runs.insert(boot.to_owned(), Run::default());
        }
        self.runs.get_mut(boot).expect("inserted above")
    }

    fn workers(&self) -> impl Iterator<Item = (&str, u64, &Worker)> {
        self.runs.iter().flat_map(|(boot, run)| {
            let worker = move |(id, worker): (&u64, _)| (boot.as_str(), *id, worker);
            run.workers.iter().map(worker)
        })
    }
}

impl Worker {
    fn stated(&self) -> u64 {
        self.lost.max(self.summed_up)
    }

    fn first_unstated(&self) -> Option<Gap> {
        let mut stated = self.stated().saturating_add(self.excused);
        if self.missing <= stated {
            return None;
        }
        let unexplained = self.gaps.iter().find(|gap| {
            let length = gap.to - gap.from + 1;
            let explained = length <= stated;
            stated = stated.saturating_sub(length);
            !explained
        });
        unexplained.or(self.gaps.last()).copied()
    }
}

/// Run, worker and `seq` of a record, read from its first members without reading the rest; none
/// if they are not as we write them.
fn flow(line: &[u8]) -> Option<(&str, u64, u64)> {
    let mut rest = line.strip_prefix(b"{")?;
    let (mut boot, mut worker) = (None, None);
    loop {
        let (key, after) = text(rest)?;
        rest = after.strip_prefix(b":")?;
        if rest.first() == Some(&b'"') {
            let (value, after) = text(rest)?;
            match key {
                b"kind" if value != b"flow" => return None,
                b"boot" => boot = Some(std::str::from_utf8(value).ok()?),
                _ => {}
            }
            rest = after;
        } else {
            let (value, after) = number(rest)?;
            match key {
                b"worker" => worker = Some(value),
                b"seq" => return Some((boot?, worker?, value)),
                _ => {}
            }
            rest = after;
        }
        rest = rest.strip_prefix(b",")?;
    }
}

/// A string without escapes, and what follows it.
fn text(from: &[u8]) -> Option<(&[u8], &[u8])> {
    let inner = from.strip_prefix(b"\"")?;
    let (value, after) = inner.split_at(memchr::memchr(b'"', inner)?);
    memchr::memchr(b'\\', value)
        .is_none()
        .then_some((value, &after[1..]))
}

fn number(from: &[u8]) -> Option<(u64, &[u8])> {
    let digits = from.iter().take_while(|b| b.is_ascii_digit()).count();
    let (value, after) = from.split_at(digits);
    Some((std::str::from_utf8(value).ok()?.parse().ok()?, after))
}
