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

/// What was shown so far, and how to show more. `show` returns false if nobody reads any more.
struct Shown<S> {
    filter: Filter,
    show: S,
    /// The number of the first line that is not dealt with yet; none before the first one.
    next: Option<u64>,
}

impl Tail {
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        let mut lines = Lines::new();
        let mut shown = Shown {
            filter: self.select.filter(&Until::default())?,
            show: |line: Option<&[u8]>| match (line, self.output) {
                (Some(line), Output::Json) => lines.put(line),
                (Some(line), Output::Table) => lines.put(sentence(line).as_bytes()),
                (None, _) => lines.flush(),
            },
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

/// `show` is given a line, or nothing where what was shown must be visible.
impl<S: FnMut(Option<&[u8]>) -> Result<bool, Failure>> Shown<S> {
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
        if self.filter.matches(&fields) && !(self.show)(Some(line))? {
            return Ok(false);
        }
        (self.show)(None)
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
                reads = (self.show)(Some(line));
                match reads {
                    Ok(true) => ControlFlow::Continue(()),
                    Ok(false) | Err(_) => ControlFlow::Break(()),
                }
            })
            .map_err(Failure::failed)?;
        note(&report);
        self.next = Some(next.max(head.saturating_add(1)).min(end));
        Ok(reads? && (self.show)(None)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use postern_spool::line::{Hash, seal};
    use postern_spool::segment::name;
    use std::io::Write;

    /// A log of two users in turn, and its lines.
    struct Log {
        folder: Scratch,
        lines: Vec<Vec<u8>>,
        prev: Hash,
    }

    impl Log {
        fn new() -> Log {
            Log {
                folder: Scratch::new(),
                lines: Vec::new(),
                prev: Hash::ZERO,
            }
        }

        fn write(&mut self, count: usize) {
            let path = self.folder.path(&name(1));
            let file = std::fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(path);
            let mut file = file.expect("a segment");
            for _ in 0..count {
                let n = u64::try_from(self.lines.len()).expect("small") + 1;
                let user = ["ana", "bob"][usize::from(n % 2 == 0)];
                let body = format!(r#"{{"kind":"flow","user":"{user}"}}"#);
                let mut line = Vec::new();
                self.prev = seal(body.as_bytes(), n, self.prev, &mut line);
                file.write_all(&line).expect("written");
                line.pop();
                self.lines.push(line);
            }
        }
    }

    #[test]
    fn between_the_backlog_and_what_follows_is_no_gap_and_nothing_twice() {
        for user in [None, Some("ana")] {
            let mut seen = Vec::new();
            let mut log = Log::new();
            let mut shown = Shown {
                filter: Filter {
                    user: user.map(str::to_owned),
                    ..Filter::default()
                },
                show: |line: Option<&[u8]>| {
                    seen.extend(line.and_then(Fields::read).map(|fields| fields.n));
                    Ok(true)
                },
                next: None,
            };
            log.write(5);
            assert!(
                shown
                    .catch_up(&log.folder.path(""), u64::MAX)
                    .expect("read")
            );
            log.write(15);
            // Live lines: two that were in the backlog, then one after some that were missed.
            for n in [4, 5, 6, 7, 12, 13, 20] {
                let line = &log.lines[n - 1];
                assert!(shown.follow(&log.folder.path(""), line).expect("shown"));
            }
            let step = if user.is_some() { 2 } else { 1 };
            assert_eq!(seen, (1..=20).step_by(step).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn without_a_backlog_it_begins_with_the_first_line_that_comes() {
        let mut seen = Vec::new();
        let mut log = Log::new();
        log.write(9);
        let mut shown = Shown {
            filter: Filter::default(),
            show: |line: Option<&[u8]>| {
                seen.extend(line.and_then(Fields::read).map(|fields| fields.n));
                Ok(seen.len() < 3)
            },
            next: None,
        };
        let folder = &log.folder.path("");
        assert!(shown.follow(folder, &log.lines[5]).expect("shown"));
        // Nobody reads any more after the third.
        assert!(!shown.follow(folder, &log.lines[8]).expect("shown"));
        assert_eq!(seen, [6, 7, 8]);
    }
}
