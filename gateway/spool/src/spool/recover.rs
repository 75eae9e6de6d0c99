//! What a crash or a power cut left: the end of the last segment, made whole again.
//!
//! Nothing is repaired in silence. A torn end, the bytes after the last whole line, is cut off.
//! Where whole lines follow bytes that are none, or follow in the wrong order, nothing is cut: the
//! segment stays as it is, for a verifier to name, and a new one goes on after its last line.

use super::{Segment, Settings, Spool, SpoolError};
use crate::blocks::{Blocks, Piece};
use crate::line::{Hash, Head, Line, MIN_LINE};
use crate::segment::{first_of, name};
use crate::storage::{ReadAt, Storage, StorageFile};
use std::collections::VecDeque;
use std::io;

/// What was found when a spool was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last whole line, without its `\n`.
    pub last: Option<Vec<u8>>,
    /// The number of the next line.
    pub next_n: u64,
    /// A torn end, now cut off.
    pub cut: Option<Cut>,
    /// Damage that is still there.
    pub damaged: Option<Damage>,
}

/// Bytes that were cut off, because no whole line followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut {
    /// The segment, by the number of its first line.
    pub segment: u64,
    /// The line that would have begun there.
    pub at_n: u64,
    /// How many bytes.
    pub bytes: u64,
}

/// A place in a segment where the chain is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment, by the number of its first line.
    pub segment: u64,
    /// Where in its file it begins.
    pub offset: u64,
    /// How many bytes are in doubt: up to the end of the file.
    pub bytes: u64,
    /// The first line in doubt.
    pub from_n: u64,
    /// The last line in doubt: the log goes on after it.
    pub to_n: u64,
}

/// What one pass over a segment found.
struct Scan {
    /// The last line of the unbroken chain.
    good: Option<Head>,
    /// The end of that line in the file.
    good_to: u64,
    /// The last whole line, of the chain or after it.
    last: Option<(Head, Vec<u8>)>,
    /// A whole line lies behind the end of that chain.
    stray: bool,
    /// The number of a line that cannot be in this segment.
    foreign: Option<u64>,
}

pub(super) fn open<S: Storage>(
    storage: S,
    settings: Settings,
) -> Result<(Spool<S>, Recovered), SpoolError> {
    let mut segments = list(&storage)?;
    if segments.is_empty() {
        segments.push_back(Segment { first: 1, len: 0 });
    }
    let newest = segments.len() - 1;
    let Segment { first, len } = segments[newest];
    let file = name(first);
    let cannot = |what| {
        let file = file.clone();
        move |source| SpoolError::File { what, file, source }
    };
    let mut active = storage.create(&file).map_err(cannot("open"))?;
    let scan = scan(&active, first, len).map_err(cannot("read"))?;
    let mut found = Recovered::default();
    let before = first - 1;
    let good_n = scan.good.map_or(before, |good| good.n);
    let broken = scan.good_to < len;
    let mut last = scan.last;
    let later = last.as_ref().is_some_and(|(last, _)| last.n > good_n);
    if broken && (later || scan.stray && scan.foreign.is_none()) {
        found.damaged = Some(Damage {
            segment: first,
            offset: scan.good_to,
            bytes: len - scan.good_to,
            from_n: good_n + 1,
            to_n: last.as_ref().map_or(good_n, |(last, _)| last.n),
        });
    } else if let Some(n) = scan.foreign {
        return Err(SpoolError::Foreign { file, n });
    } else if broken {
        active.truncate(scan.good_to).map_err(cannot("repair"))?;
        segments[newest].len = scan.good_to;
        found.cut = Some(Cut {
            segment: first,
            at_n: good_n + 1,
            bytes: len - scan.good_to,
        });
    }
    // The run before may have ended before it could.
    active.sync().map_err(cannot("sync"))?;
    if last.is_none() && newest > 0 {
        let older = segments[newest - 1];
        last = last_of(&storage, older, before)?;
        if last.is_none() {
            found.damaged.get_or_insert(Damage {
                segment: older.first,
                offset: 0,
                bytes: older.len,
                from_n: older.first,
                to_n: before,
            });
        }
    }
    let unknown = Head {
        n: before,
        hash: Hash::ZERO,
    };
    let head = last.as_ref().map_or(unknown, |(head, _)| *head);
    if found.damaged.is_some_and(|damage| damage.segment == first) {
        let next = name(head.n + 1);
        active = storage.create(&next).map_err(cannot("go on after"))?;
        segments.push_back(Segment {
            first: head.n + 1,
            len: 0,
        });
    }
    storage
        .sync_folder()
        .map_err(cannot("sync the folder of"))?;
    found.last = last.map(|(_, line)| line);
    found.next_n = head.n + 1;
    let mut spool = Spool {
        storage,
        settings,
        synced_to: segments.back().map_or(0, |segment| segment.len),
        segments,
        active,
        kept: Vec::new(),
        written: 0,
        group: 0..0,
        head,
        staged_head: head,
        synced: head.n,
        torn: false,
        doubtful: false,
        unnamed: false,
        oldest_ms: None,
    };
    spool.oldest_ms = spool.time_of_oldest();
    Ok((spool, found))
}

fn list<S: Storage>(storage: &S) -> Result<VecDeque<Segment>, SpoolError> {
    let files = storage.list().map_err(|source| SpoolError::File {
        what: "list",
        file: "the folder".into(),
        source,
    })?;
    let mut segments: Vec<Segment> = files
        .iter()
        .filter_map(|(name, len)| {
            let first = first_of(name)?;
            Some(Segment { first, len: *len })
        })
        .collect();
    segments.sort_by_key(|segment| segment.first);
    Ok(segments.into())
}

fn scan<F: ReadAt>(file: &F, first: u64, len: u64) -> io::Result<Scan> {
    // No line beyond this fits into the file, whatever it claims.
    let highest = first.saturating_add(len / MIN_LINE as u64);
    let mut scan = Scan {
        good: None,
        good_to: 0,
        last: None,
        stray: false,
        foreign: None,
    };
    let mut broken = false;
    let mut blocks = Blocks::new(file);
    while let Some(piece) = blocks.next()? {
        let line = match piece {
            Piece::Line(bytes) => Line::parse(bytes).ok(),
            Piece::Long | Piece::Rest(_) => None,
        };
        let Some(line) = line else {
            broken = true;
            continue;
        };
        let follows = match scan.good {
            Some(good) => line.n == good.n + 1 && line.prev == good.hash,
            None => line.n == first,
        };
        broken |= !follows;
        scan.stray |= broken;
        let after = scan.last.as_ref().map_or(first - 1, |(last, _)| last.n);
        if line.n > after && line.n <= highest {
            let head = line.head();
            let bytes = line.bytes.to_vec();
            scan.last = Some((head, bytes));
            if !broken {
                scan.good = Some(head);
                scan.good_to = blocks.position();
            }
        } else if line.n < first || line.n > highest {
            scan.foreign = Some(line.n);
        }
    }
    Ok(scan)
}

/// The last line of a finished segment, if it is line `n`.
fn last_of<S: Storage>(
    storage: &S,
    segment: Segment,
    n: u64,
) -> Result<Option<(Head, Vec<u8>)>, SpoolError> {
    let file = name(segment.first);
    storage
        .open(&file)
        .and_then(|open| scan(&open, segment.first, segment.len))
        .map(|scan| scan.last.filter(|(last, _)| last.n == n))
        .map_err(|source| SpoolError::File {
            what: "read",
            file,
            source,
        })
}
