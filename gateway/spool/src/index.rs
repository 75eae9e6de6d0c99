//! What a finished segment holds, so that a search need not read it.
//!
//! An index is a convenience: it can be built again from its segment, and a verifier does not look
//! at it.

use crate::blocks::{Blocks, Piece};
use crate::line::Line;
use crate::segment::{SegmentFile, first_of, segments};
use crate::storage::replace;
use crate::time::millis;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;

/// Different values of one field that an index keeps; beyond that it does not know. With values
/// under 256 bytes: at most 1.3 MiB for all five fields.
pub const MAX_VALUES: usize = 1024;

/// Raised when an index says something else than before.
const VERSION: u32 = 1;

/// What a finished segment holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Index {
    version: u32,
    /// Its first line.
    pub first_n: u64,
    /// Its last line.
    pub last_n: u64,
    /// How many whole lines: `last_n - first_n + 1`, unless it is damaged.
    pub lines: u64,
    /// Its length in bytes.
    pub bytes: u64,
    /// The earliest `time` in it, milliseconds since 1970; none if no line has one.
    pub min_time: Option<u64>,
    /// The latest `time` in it. The clock may have stepped, so this is not always the last line's.
    pub max_time: Option<u64>,
    /// All values of `user`; none if there are more than [`MAX_VALUES`].
    pub users: Option<BTreeSet<String>>,
    /// All values of `device`.
    pub devices: Option<BTreeSet<String>>,
    /// All values of `rule`.
    pub rules: Option<BTreeSet<String>>,
    /// All values of `target`.
    pub targets: Option<BTreeSet<String>>,
    /// All values of `verdict`.
    pub verdicts: Option<BTreeSet<String>>,
}

/// The fields that are looked at.
#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    time: Option<Cow<'a, str>>,
    #[serde(borrow)]
    user: Option<Cow<'a, str>>,
    #[serde(borrow)]
    device: Option<Cow<'a, str>>,
    #[serde(borrow)]
    rule: Option<Cow<'a, str>>,
    #[serde(borrow)]
    target: Option<Cow<'a, str>>,
    #[serde(borrow)]
    verdict: Option<Cow<'a, str>>,
}

impl Index {
    /// The index of a finished segment: the one on disk if it fits, else a new one, which is
    /// stored if that is allowed.
    ///
    /// # Errors
    /// The segment cannot be read.
    pub fn load_or_build(segment: &SegmentFile) -> io::Result<Index> {
        if let Some(index) = Index::load(segment) {
            return Ok(index);
        }
        let index = Index::build(segment)?;
        // A reader may have no right to; then the next one builds it again.
        let _ = index.store(segment);
        Ok(index)
    }

    /// The index on disk, if there is one and it is of these bytes.
    #[must_use]
    pub fn load(segment: &SegmentFile) -> Option<Index> {
        let text = std::fs::read(segment.index_path()).ok()?;
        let index: Index = serde_json::from_slice(&text).ok()?;
        let fits = index.version == VERSION
            && index.first_n == segment.first
            && index.bytes == segment.len;
        fits.then_some(index)
    }

    /// Reads all of a segment.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn build(segment: &SegmentFile) -> io::Result<Index> {
        let file = File::open(&segment.path)?;
        let mut blocks = Blocks::new(&file);
        let mut index = Index {
            version: VERSION,
            first_n: segment.first,
            last_n: segment.first.saturating_sub(1),
            lines: 0,
            bytes: 0,
            min_time: None,
            max_time: None,
            users: Some(BTreeSet::new()),
            devices: Some(BTreeSet::new()),
            rules: Some(BTreeSet::new()),
            targets: Some(BTreeSet::new()),
            verdicts: Some(BTreeSet::new()),
        };
        while let Some(piece) = blocks.next()? {
            if let Piece::Line(bytes) = piece
                && let Ok(line) = Line::parse(bytes)
            {
                index.add(&line);
            }
        }
        index.bytes = blocks.position();
        Ok(index)
    }

    /// Writes it beside its segment.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn store(&self, segment: &SegmentFile) -> io::Result<()> {
        replace(&segment.index_path(), &serde_json::to_vec(self)?)
    }

    fn add(&mut self, line: &Line<'_>) {
        self.lines += 1;
        self.last_n = self.last_n.max(line.n);
        let Ok(fields) = serde_json::from_slice::<Fields<'_>>(line.bytes) else {
            return;
        };
        if let Some(time) = fields.time.as_deref().and_then(millis) {
            self.min_time = Some(self.min_time.map_or(time, |min| min.min(time)));
            self.max_time = self.max_time.max(Some(time));
        }
        for (values, value) in [
            (&mut self.users, fields.user),
            (&mut self.devices, fields.device),
            (&mut self.rules, fields.rule),
            (&mut self.targets, fields.target),
            (&mut self.verdicts, fields.verdict),
        ] {
            if let (Some(set), Some(value)) = (values.as_mut(), value)
                && !set.contains(value.as_ref())
            {
                set.insert(value.into_owned());
                if set.len() > MAX_VALUES {
                    *values = None;
                }
            }
        }
    }
}

/// Builds the index of each finished segment that has none. For a thread that nobody waits for.
/// Returns how many were built.
///
/// # Errors
/// A segment cannot be read, or an index not written.
pub fn build_missing(dir: &Path) -> io::Result<usize> {
    let mut all = segments(dir)?;
    all.pop();
    remove_orphans(dir)?;
    let mut built = 0;
    for segment in all {
        if Index::load(&segment).is_some() {
            continue;
        }
        match Index::build(&segment) {
            Ok(index) => index.store(&segment)?,
            // Retention was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        built += 1;
    }
    Ok(built)
}

/// Removes indexes whose segment is gone: retention may take it while its index is built.
fn remove_orphans(dir: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        let segment = path.with_extension("jsonl");
        let ours = path.extension().is_some_and(|kind| kind == "index")
            && segment
                .file_name()
                .and_then(|name| first_of(name.to_str()?))
                .is_some();
        if ours && !segment.exists() {
            // Retention may be doing the same.
            let _ = std::fs::remove_file(&path);
        }
    }
    Ok(())
}

/// The `time` of a line, milliseconds since 1970.
pub(crate) fn time_of(line: &[u8]) -> Option<u64> {
    let fields: Fields<'_> = serde_json::from_slice(line).ok()?;
    millis(&fields.time?)
}

#[cfg(test)]
mod tests;
