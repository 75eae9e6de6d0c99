//! Attempts: the open and the closed record of a flow are one row.

use super::fields::Fields;
use super::filter::Filter;
use super::scan::{Found, Report, Segments, Unreadable};
use super::words::{Kind, State};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;

/// Flows that [`live`] follows at once; the gateway's own bound is far lower. Above it the oldest
/// are forgotten. At 1 KiB for each: 256 MiB at worst.
pub const MAX_LIVE: usize = 262_144;

/// One attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its newest record; an open one if the flow has no end.
    pub record: Found,
    /// No record says that it has ended.
    pub live: bool,
}

/// Attempts, and how they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rows {
    /// Oldest first.
    pub rows: Vec<Row>,
    /// There are older ones.
    pub cut: bool,
    /// How the scan went.
    pub report: Report,
}

/// What names a flow in a spool: the run of the gateway, and its number in it.
type Flow = (String, u64);

/// The newest `limit` attempts of which `filter` selects a record.
///
/// # Errors
/// A segment cannot be read.
pub fn rows(segments: &Segments, filter: &Filter, limit: usize) -> Result<Rows, Unreadable> {
    let filter = Filter {
        kind: filter.kind.or(Some(Kind::Flow)),
        ..filter.clone()
    };
    if filter.state == Some(State::Open) {
        return live(segments, &filter, limit);
    }
    // A row has at most two records, so twice the limit is enough; one more shows that it is cut.
    let wanted = limit.saturating_add(1);
    let (found, report) = segments.newest(&filter, wanted.saturating_mul(2))?;
    let mut over = HashSet::new();
    let mut rows = Vec::new();
    for record in found {
        let flow = Fields::read(&record.line).and_then(|fields| {
            let state = State::ALL
                .iter()
                .find(|state| fields.state.as_deref() == Some(state.as_str()));
            Some((*state?, flow_of(&fields)))
        });
        // Newest first: the end of a flow comes before its begin.
        let live = match flow {
            Some((State::Open, Some(flow))) if over.contains(&flow) => continue,
            Some((State::Open, _)) => true,
            Some((State::Closed, Some(flow))) => {
                over.insert(flow);
                false
            }
            _ => false,
        };
        rows.push(Row { record, live });
        if rows.len() == wanted {
            break;
        }
    }
    let cut = rows.len() > limit;
    rows.truncate(limit);
    rows.reverse();
    let mut rows = Rows { rows, cut, report };
    // Their ends may be where this filter did not look.
    if filter.until.is_some() || filter.rule.is_some() || filter.to.is_some() {
        find_ends(segments, &filter, &mut rows)?;
    }
    Ok(rows)
}

/// The newest `limit` flows that have no end: those of which `filter` selects the open record.
///
/// # Errors
/// A segment cannot be read.
pub fn live(segments: &Segments, filter: &Filter, limit: usize) -> Result<Rows, Unreadable> {
    let opens = Filter {
        state: Some(State::Open),
        ..filter.clone()
    };
    let both = Filter {
        state: None,
        since: filter.since,
        ..ends_of(filter)
    };
    let mut numbers: HashMap<Flow, u64> = HashMap::new();
    let mut records: BTreeMap<u64, (Flow, Box<[u8]>)> = BTreeMap::new();
    let report = segments.each(&both, 0, |line, fields| {
        let Some(flow) = flow_of(fields) else {
            return ControlFlow::Continue(());
        };
        if opens.matches(fields) {
            numbers.insert(flow.clone(), fields.n);
            records.insert(fields.n, (flow, line.into()));
            if records.len() > MAX_LIVE
                && let Some((_, (oldest, _))) = records.pop_first()
            {
                numbers.remove(&oldest);
            }
        } else if fields.state.as_deref() == Some(State::Closed.as_str())
            && let Some(n) = numbers.remove(&flow)
        {
            records.remove(&n);
        }
        ControlFlow::Continue(())
    })?;
    let older = records.len().saturating_sub(limit);
    let rows = records.into_iter().skip(older).map(|(n, (_, line))| Row {
        record: Found { n, line },
        live: true,
    });
    Ok(Rows {
        rows: rows.collect(),
        cut: older > 0,
        report,
    })
}

/// The records that end flows of `filter`, wherever they are: who it is stays the same.
fn ends_of(filter: &Filter) -> Filter {
    Filter {
        kind: Some(Kind::Flow),
        user: filter.user.clone(),
        device: filter.device.clone(),
        state: Some(State::Closed),
        ..Filter::default()
    }
}

fn find_ends(segments: &Segments, filter: &Filter, rows: &mut Rows) -> Result<(), Unreadable> {
    let mut open: BTreeMap<Flow, usize> = BTreeMap::new();
    let mut first = u64::MAX;
    for (at, row) in rows.rows.iter().enumerate().filter(|(_, row)| row.live) {
        if let Some(flow) = Fields::read(&row.record.line).as_ref().and_then(flow_of) {
            first = first.min(row.record.n);
            open.insert(flow, at);
        }
    }
    if open.is_empty() {
        return Ok(());
    }
    let ends = ends_of(filter);
    let report = segments.each(&ends, first, |line, fields| {
        if let Some(at) = flow_of(fields).and_then(|flow| open.remove(&flow)) {
            rows.rows[at] = Row {
                record: Found {
                    n: fields.n,
                    line: line.into(),
                },
                live: false,
            };
        }
        if open.is_empty() {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    })?;
    rows.report.damaged += report.damaged;
    Ok(())
}

fn flow_of(fields: &Fields<'_>) -> Option<Flow> {
    Some((fields.boot.as_deref()?.to_owned(), fields.flow?))
}
