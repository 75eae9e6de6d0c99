//! `flows tail`.

use super::select::{Select, Source, Until, note};
use super::sentence::{Lines, sentence};
use super::{Failure, Output};
use crate::api::Missed;
use clap::Args;
use postern_spool::query::{Fields, Filter, Segments};
use std::ops::ControlFlow;
use std::path::Path;

/// Follows the records that match all of it. With --since it begins with those that are there.
#[derive(Debug, Args)]
pub(in crate::cli) struct Tail {
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    source: Source,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// What was shown so far, and how to show more.
struct Shown {
    filter: Filter,
    output: Output,
    lines: Lines,
    /// The number of the first line that is not dealt with yet; none before the first one.
    next: Option<u64>,
}

impl Tail {
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        let mut shown = Shown {
            filter: self.select.filter(&Until::default())?,
            output: self.output,
            lines: Lines::new(),
            next: None,
        };
        let folder = self.source.folder()?;
        if self.source.dir.is_some() {
            // A copy does not grow.
            shown.catch_up(&folder, u64::MAX)?;
            return Ok(0);
        }
        let (_, client) = self.source.place.client()?;
        // First listen, then look back: so nothing falls in between.
        let mut live = client.follow("/v1/flows/tail").await?;
        if self.select.since.is_some() && !shown.catch_up(&folder, u64::MAX)? {
            return Ok(0);
        }
        while let Some(line) = live.next().await? {
            if let Ok(Missed { missed }) = serde_json::from_str(&line) {
                if shown.next.is_none() {
                    eprintln!(
                        "note: too slow, {missed} records were not shown; they are in the log"
                    );
                }
                continue;
            }
            if !shown.follow(&folder, line.as_bytes())? {
                break;
            }
        }
        Ok(0)
    }
}

impl Shown {
    /// Shows a line that was just written, after those before it that did not reach us. False if
    /// nobody reads any more.
    fn follow(&mut self, folder: &Path, line: &[u8]) -> Result<bool, Failure> {
        let Some(fields) = Fields::read(line) else {
            return Ok(true);
        };
        let next = self.next.unwrap_or(fields.n);
        if fields.n < next || fields.n > next && !self.catch_up(folder, fields.n)? {
            return Ok(fields.n < next);
        }
        self.next = Some(fields.n.saturating_add(1));
        if self.filter.matches(&fields) && !self.show(line)? {
            return Ok(false);
        }
        self.lines.flush()
    }

    /// Shows what is in the folder, from the next line up to line `end`. False as above.
    fn catch_up(&mut self, folder: &Path, end: u64) -> Result<bool, Failure> {
        let segments = Segments::open(folder).map_err(Failure::failed)?;
        // Of the lines up to here none is overlooked, whatever is written meanwhile.
        let head = segments.last_n().map_err(Failure::failed)?.unwrap_or(0);
        let mut reads = Ok(true);
        let mut next = self.next.unwrap_or(0);
        let filter = self.filter.clone();
        let report = segments
            .each(&filter, next, |line, fields| {
                if fields.n >= end {
                    return ControlFlow::Break(());
                }
                next = fields.n.saturating_add(1);
                reads = self.show(line);
                match reads {
                    Ok(true) => ControlFlow::Continue(()),
                    Ok(false) | Err(_) => ControlFlow::Break(()),
                }
            })
            .map_err(Failure::failed)?;
        note(&report);
        self.next = Some(next.max(head.saturating_add(1)).min(end));
        Ok(reads? && self.lines.flush()?)
    }

    fn show(&mut self, line: &[u8]) -> Result<bool, Failure> {
        match self.output {
            Output::Json => self.lines.put(line),
            Output::Table => self.lines.put(sentence(line).as_bytes()),
        }
    }
}
