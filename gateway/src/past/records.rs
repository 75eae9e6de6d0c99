//! Single records of the log, found by what names them.

use crate::problem::Problem;
use postern_history::Attempt;
use postern_history::attempt::State;
use postern_proto::now::Wall;
use postern_spool::query::{Filter, Kind, Segments, Unreadable};
use postern_spool::{Hash, Lines, Reader};
use serde::Deserialize;
use serde_json::Value;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::path::Path;

/// What names an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Key {
    /// A flow, by its number in a run; without a run, the newest.
    Flow(u64, Option<String>),
    /// A record by its place: worker, run, number.
    Seq(u8, String, u64),
    /// A line of the log.
    Line(u64),
}

/// A record.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The number of its line.
    pub n: u64,
    /// The hash of its line.
    pub hash: Hash,
    /// What it says.
    pub attempt: Attempt,
    /// All that it says.
    pub record: Value,
}

/// The records of one attempt, oldest first, and the other runs that have such a flow.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// At most the open and the closed one.
    pub records: Vec<Recorded>,
    /// Newest last.
    pub other_boots: Vec<String>,
}

/// The fields of a line that name a record.
#[derive(Deserialize)]
struct Place<'a> {
    #[serde(borrow)]
    boot: Cow<'a, str>,
    #[serde(default)]
    worker: u8,
    #[serde(default)]
    seq: u64,
}

/// Finds the records of an attempt.
///
/// # Errors
/// There are none, or the log cannot be read.
pub fn find(folder: &Path, segments: &Segments, key: &Key) -> Result<Found, Problem> {
    let (numbers, other_boots) = match key {
        Key::Line(n) => (vec![*n], Vec::new()),
        Key::Seq(worker, boot, seq) => {
            let n = by_seq(segments, *worker, boot, *seq).map_err(unreadable)?;
            (n.into_iter().collect(), Vec::new())
        }
        Key::Flow(flow, boot) => by_flow(segments, *flow, boot.as_deref()).map_err(unreadable)?,
    };
    let mut records = Vec::new();
    for n in numbers {
        records.extend(line(folder, n)?);
    }
    if records.is_empty() {
        return Err(Problem::absent(
            format!("the log has no {}", key.words()),
            "`postern-gateway flows list --all -o json` shows flow, boot, worker, seq and n of \
             records; what retention removed is gone",
        ));
    }
    Ok(Found {
        records,
        other_boots,
    })
}

/// Numbers of lines, and runs that have a flow of that number too.
fn by_flow(
    segments: &Segments,
    flow: u64,
    boot: Option<&str>,
) -> Result<(Vec<u64>, Vec<String>), Unreadable> {
    let (found, _) = segments.fold(&flows(), |found: &mut Vec<(u64, String)>, fields| {
        if fields.flow == Some(flow)
            && let Some(of) = fields.boot.as_deref()
            && boot.is_none_or(|boot| boot == of)
        {
            found.push((fields.n, of.to_owned()));
        }
    })?;
    let mut runs: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for (n, boot) in found.into_iter().flatten() {
        runs.entry(boot).or_default().push(n);
    }
    let mut runs: Vec<(String, Vec<u64>)> = runs.into_iter().collect();
    runs.sort_by_key(|(_, numbers)| numbers.iter().min().copied());
    let mut newest = runs.pop().map(|(_, numbers)| numbers).unwrap_or_default();
    newest.sort_unstable();
    Ok((newest, runs.into_iter().map(|(boot, _)| boot).collect()))
}

fn by_seq(
    segments: &Segments,
    worker: u8,
    boot: &str,
    seq: u64,
) -> Result<Option<u64>, Unreadable> {
    let mut found = None;
    segments.each(&flows(), 0, |line, fields| {
        if fields.boot.as_deref() == Some(boot)
            && serde_json::from_slice::<Place<'_>>(line)
                .is_ok_and(|place| place.boot == boot && place.worker == worker && place.seq == seq)
        {
            found = Some(fields.n);
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    })?;
    Ok(found)
}

/// One line, if it is a record.
fn line(folder: &Path, n: u64) -> Result<Option<Recorded>, Problem> {
    let damaged = |error: postern_spool::ReadError| {
        Problem::unable(error.to_string(), "`flows verify` says what is wrong")
    };
    let mut lines = Lines::default();
    let mut reader = Reader::open(folder, n).map_err(damaged)?;
    reader.read(n, 1, usize::MAX, &mut lines).map_err(damaged)?;
    Ok(lines.iter().find_map(|line| {
        Some(Recorded {
            n: line.n,
            hash: line.hash(),
            attempt: Attempt::read(line.bytes)?,
            record: serde_json::from_slice(line.bytes).ok()?,
        })
    }))
}

/// Where a device was on the Internet, as the newest record of it by `at` says; and when that
/// record was written.
///
/// # Errors
/// The log cannot be read.
pub fn outer_at(
    segments: &Segments,
    device: &str,
    at: Wall,
) -> Result<Option<(IpAddr, Wall)>, Problem> {
    let filter = Filter {
        device: Some(device.to_owned()),
        until: Some(at.millis().saturating_add(1)),
        ..flows()
    };
    let (found, _) = segments.newest(&filter, 1).map_err(unreadable)?;
    let record = found.first().and_then(|found| Attempt::read(&found.line));
    Ok(record.and_then(|record| Some((record.outer?, record.start))))
}

/// Where every device was on the Internet, by the records of the day before `at`.
///
/// # Errors
/// The log cannot be read.
pub fn outers_at(segments: &Segments, at: Wall) -> Result<HashMap<String, IpAddr>, Problem> {
    const DAY: u64 = 86_400_000;
    let filter = Filter {
        since: Some(at.millis().saturating_sub(DAY)),
        until: Some(at.millis().saturating_add(1)),
        ..flows()
    };
    let mut outers = HashMap::new();
    segments
        .each(&filter, 0, |line, _| {
            if let Some(attempt) = Attempt::read(line)
                && let (Some(device), Some(outer)) = (attempt.device, attempt.outer)
            {
                outers.insert(device, outer);
            }
            ControlFlow::Continue(())
        })
        .map_err(unreadable)?;
    Ok(outers)
}

fn flows() -> Filter {
    Filter {
        kind: Some(Kind::Flow),
        ..Filter::default()
    }
}

pub(super) fn unreadable(error: Unreadable) -> Problem {
    Problem::unable(error.to_string(), "name the folder with --dir")
}

impl Key {
    fn words(&self) -> String {
        match self {
            Key::Flow(flow, None) => format!("flow {flow}"),
            Key::Flow(flow, Some(boot)) => format!("flow {flow} of run {boot}"),
            Key::Seq(worker, boot, seq) => {
                format!("record {seq} of worker {worker} in run {boot}")
            }
            Key::Line(n) => format!("record at line {n}"),
        }
    }
}

impl Found {
    /// The record whose verdict is about the first packet: the open or the denied one, or, where
    /// retention has taken that, the closed one.
    #[must_use]
    pub fn first(&self) -> Option<&Recorded> {
        let opening = |one: &&Recorded| one.attempt.state != State::Closed;
        self.records.iter().find(opening).or(self.records.first())
    }

    /// How it ended.
    #[must_use]
    pub fn end(&self) -> Option<&Recorded> {
        let closed = |one: &&Recorded| one.attempt.state == State::Closed;
        self.records.iter().find(closed)
    }
}
