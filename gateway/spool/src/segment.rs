//! Files of a spool's folder: a segment is named by the number of its first line.

use std::io;
use std::path::{Path, PathBuf};

/// One segment of a spool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SegmentFile {
    /// The number of its first line.
    pub first: u64,
    /// Where it is.
    pub path: PathBuf,
    /// Bytes in it when it was listed.
    pub len: u64,
}

/// The segments of a folder, oldest first. The last one may still grow.
///
/// # Errors
/// The folder cannot be read.
pub fn segments(dir: &Path) -> io::Result<Vec<SegmentFile>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let Some(first) = entry.file_name().to_str().and_then(first_of) else {
            continue;
        };
        let len = match entry.metadata() {
            Ok(is) if is.is_file() => is.len(),
            Ok(_) => continue,
            // Retention was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        found.push(SegmentFile {
            first,
            path: entry.path(),
            len,
        });
    }
    found.sort_by_key(|segment| segment.first);
    Ok(found)
}

impl SegmentFile {
    /// Where its index is, if it has one.
    #[must_use]
    pub fn index_path(&self) -> PathBuf {
        self.path.with_extension("index")
    }
}

/// The name of the segment whose first line is `first`.
#[must_use]
pub fn name(first: u64) -> String {
    format!("{first:020}.jsonl")
}

/// The name of that segment's index.
#[must_use]
pub fn index_name(first: u64) -> String {
    format!("{first:020}.index")
}

/// The number in a segment's name; none for any other file.
#[must_use]
pub fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".jsonl")?;
    let plain = digits.len() == 20 && digits.bytes().all(|b| b.is_ascii_digit());
    plain
        .then(|| digits.parse().ok())
        .flatten()
        // No log comes so far, and counting on from here stays a number.
        .filter(|n| (1..=i64::MAX.unsigned_abs()).contains(n))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_segments_have_a_segments_name() {
        assert_eq!(first_of(&name(41)), Some(41));
        let last = i64::MAX.unsigned_abs();
        assert_eq!(first_of(&name(last)), Some(last));
        assert_eq!(first_of(&name(last + 1)), None);
        for other in [
            "41.jsonl",
            "00000000000000000000.jsonl",
            "99999999999999999999.jsonl",
            "+0000000000000000041.jsonl",
            "00000000000000000041.index",
            "cursor-loki.json",
            "parked-loki.jsonl",
        ] {
            assert_eq!(first_of(other), None, "{other}");
        }
    }
}
