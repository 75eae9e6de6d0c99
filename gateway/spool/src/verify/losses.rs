//! Records that never became a line: legal only if the log says so itself.
//!
//! In each run (`boot`) each worker numbers its records (`seq`) from 1, and the control plane its
//! audit events (`audit`). Where numbers are missing,
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
    makers: BTreeMap<Maker, Numbers>,
}

/// Who numbers its lines in a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Maker {
    Worker(u64),
    Audit,
}

/// The numbers of one of them.
#[derive(Debug, Default)]
struct Numbers {
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
    audit: Option<u64>,
    #[serde(borrow)]
    event: Option<Cow<'a, str>>,
    count: Option<u64>,
    #[serde(borrow)]
    crashed_boot: Option<Cow<'a, str>>,
    #[serde(default)]
    workers: Workers,
    audit_made: Option<u64>,
    #[serde(default)]
    audit_lost: u64,
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
            return self.line(boot, Maker::Worker(worker), seq, place, n);
        }
        let Ok(said) = serde_json::from_slice::<Said<'_>>(line) else {
            return Ok(());
        };
        let Some(boot) = said.boot.as_deref() else {
            return Ok(());
        };
        if said.kind.as_deref() != Some("log") {
            return match (said.worker, said.seq, said.audit) {
                (Some(worker), Some(seq), _) => {
                    self.line(boot, Maker::Worker(worker), seq, place, n)
                }
                (_, _, Some(number)) if said.kind.as_deref() == Some("audit") => {
                    self.line(boot, Maker::Audit, number, place, n)
                }
                _ => Ok(()),
            };
        }
        let count = said.count.unwrap_or(0);
        match (said.event.as_deref(), said.worker, said.workers) {
            (Some("started"), ..) => self.run(boot).started = true,
            (Some("lost"), Some(worker), _) => self.lose(boot, Maker::Worker(worker), count),
            (Some("audit-lost"), ..) => self.lose(boot, Maker::Audit, count),
            (Some("stopped" | "crashed-run"), _, Workers::Sums(sums)) => {
                let boot = said.crashed_boot.as_deref().unwrap_or(boot);
                for Sum { worker, made, lost } in sums {
                    self.sum_up(boot, Maker::Worker(worker), (made, lost), place, n);
                }
                let audit = (said.audit_made, said.audit_lost);
                self.sum_up(boot, Maker::Audit, audit, place, n);
            }
            _ => {}
        }
        Ok(())
    }

    fn lose(&mut self, boot: &str, maker: Maker, count: u64) {
        let numbers = self.run(boot).makers.entry(maker).or_default();
        numbers.lost = numbers.lost.saturating_add(count);
    }

    /// Records that the log says were lost.
    pub(super) fn stated(&self) -> u64 {
        self.makers()
            .map(|(.., numbers)| numbers.stated())
            .fold(0, u64::saturating_add)
    }

    /// Records that are missing and that no line explains.
    pub(super) fn unstated(&self) -> u64 {
        let missing = |numbers: &Numbers| numbers.missing.saturating_sub(numbers.stated());
        self.makers()
            .map(|(.., numbers)| missing(numbers))
            .fold(0, u64::saturating_add)
    }

    /// The first gap that no line explains.
    pub(super) fn first_unstated(&self) -> Option<(Place, u64, What)> {
        let first = |(boot, maker, numbers): (&str, Maker, &Numbers)| {
            let gap = numbers.first_unstated()?;
            let (boot, from, to) = (boot.to_owned(), gap.from, gap.to);
            let what = match maker {
                Maker::Worker(worker) => What::Unstated {
                    boot,
                    worker,
                    from,
                    to,
                },
                Maker::Audit => What::UnstatedAudit { boot, from, to },
            };
            Some((gap.place, gap.n, what))
        };
        self.makers().filter_map(first).min_by_key(|(_, n, _)| *n)
    }

    fn line(
        &mut self,
        boot: &str,
        maker: Maker,
        seq: u64,
        place: Place,
        n: u64,
    ) -> Result<(), What> {
        let (whole, full) = (self.whole, self.gaps >= MAX_GAPS);
        let run = self.run(boot);
        let whole = whole || run.started;
        let known = run.makers.contains_key(&maker);
        let numbers = run.makers.entry(maker).or_default();
        if seq <= numbers.seq {
            let (boot, last) = (boot.to_owned(), numbers.seq);
            return Err(match maker {
                Maker::Worker(worker) => What::Repeated {
                    boot,
                    worker,
                    seq: last,
                },
                Maker::Audit => What::RepeatedAudit { boot, audit: last },
            });
        }
        let gap = Gap {
            place,
            n,
            from: numbers.seq + 1,
            to: seq - 1,
        };
        let complete = whole || known && numbers.seq > 0;
        numbers.seq = seq;
        if complete && gap.from <= gap.to {
            let length = gap.to - gap.from + 1;
            numbers.missing = numbers.missing.saturating_add(length);
            // A loss is stated as soon as it happens, before what waits in the gateway is written:
            // retention may have taken that line, and not the gap.
            if !whole && place.file == 0 {
                numbers.excused = numbers.excused.saturating_add(length);
            }
            if !full || numbers.gaps.is_empty() {
                numbers.gaps.push(gap);
                self.gaps += 1;
            }
        }
        Ok(())
    }

    /// The line that sums a run up; it may say that there were records after the last one.
    fn sum_up(
        &mut self,
        boot: &str,
        maker: Maker,
        (made, lost): (Option<u64>, u64),
        place: Place,
        n: u64,
    ) {
        let (whole, full) = (self.whole, self.gaps >= MAX_GAPS);
        let run = self.run(boot);
        let whole = whole || run.started;
        let numbers = run.makers.entry(maker).or_default();
        numbers.summed_up = lost;
        let made = made.unwrap_or(0);
        if made > numbers.seq && (whole || numbers.seq > 0) {
            numbers.missing = numbers.missing.saturating_add(made - numbers.seq);
            let gap = Gap {
                place,
                n,
                from: numbers.seq + 1,
                to: made,
            };
            numbers.seq = made;
            if !full || numbers.gaps.is_empty() {
                numbers.gaps.push(gap);
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

    fn makers(&self) -> impl Iterator<Item = (&str, Maker, &Numbers)> {
        self.runs.iter().flat_map(|(boot, run)| {
            let one = move |(maker, numbers): (&Maker, _)| (boot.as_str(), *maker, numbers);
            run.makers.iter().map(one)
        })
    }
}

impl Numbers {
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
