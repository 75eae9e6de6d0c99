//! `flows verify`.

use super::select::Source;
use super::{Failure, Output, output};
use clap::Args;
use postern_spool::Head;
use postern_spool::proof::{self, ProofError};
use postern_spool::verify::{self, Verified, VerifyError};
use serde_json::json;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Walks the chain of records, and names the first one that is missing or changed.
#[derive(Debug, Args)]
pub(in crate::cli) struct Verify {
    /// A folder of records, what `flows export` made, or one file, such as a copy in which lines may come again.
    /// [default: the gateway's]
    path: Option<PathBuf>,
    /// A line that must be there, as an earlier `flows verify` printed it and somebody kept it.
    #[arg(long, value_name = "N:HASH")]
    head: Option<Anchor>,
    #[command(flatten)]
    source: Source,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

#[derive(Clone, Copy, Debug)]
struct Anchor(Head);

/// Text that is no [`Anchor`].
#[derive(Debug, thiserror::Error)]
#[error("write N:HASH, as `flows verify` prints it: a line's number and its 64 hex digits")]
struct NotAnAnchor;

impl FromStr for Anchor {
    type Err = NotAnAnchor;

    fn from_str(text: &str) -> Result<Self, NotAnAnchor> {
        let (n, hash) = text.split_once(':').ok_or(NotAnAnchor)?;
        Ok(Anchor(Head {
            n: n.parse().map_err(|_| NotAnAnchor)?,
            hash: hash.parse().map_err(|_| NotAnAnchor)?,
        }))
    }
}

impl Verify {
    /// Exit code 1 when something is missing or changed.
    pub(super) fn obey(self) -> Result<u8, Failure> {
        let path = match &self.path {
            Some(path) => path.clone(),
            None => self.source.folder()?,
        };
        let anchor = self.head.map(|anchor| anchor.0);
        let mut progress = Progress::over(&path);
        let done = walk(&path, anchor, &mut |bytes| progress.show(bytes));
        progress.clear();
        match (done, self.output) {
            (Ok(verified), Output::Json) => output::json(&verified)?,
            (Ok(verified), Output::Table) => show(&verified)?,
            (Err(ProofError::Chain(VerifyError::Fault(fault))), Output::Json) => {
                output::json(&json!({ "fault": fault }))?;
                return Ok(1);
            }
            (Err(error), _) => return Err(Failure::failed(error)),
        }
        Ok(0)
    }
}

fn walk(
    path: &Path,
    anchor: Option<Head>,
    progress: &mut dyn FnMut(u64),
) -> Result<Verified, ProofError> {
    if proof::is_bundle(path) {
        return proof::verify(path, anchor, progress).map(|(_, verified)| verified);
    }
    let verified = if path.is_file() {
        verify::file(path, anchor, progress)
    } else {
        verify::folder(path, anchor, progress)
    };
    verified.map_err(ProofError::Chain)
}

fn show(verified: &Verified) -> Result<(), Failure> {
    let head = verified.head;
    let mut facts = vec![
        (
            "verified",
            format!(
                "lines {} to {}, {}; none is missing or changed",
                verified.first_n,
                verified.last_n,
                output::size(verified.bytes)
            ),
        ),
        ("head", format!("{}:{}", head.n, head.hash)),
        (
            "lost",
            format!("{} records, as the log itself says", verified.stated_losses),
        ),
    ];
    if verified.repeated > 0 {
        facts.push(("repeated", repeated(verified.repeated)));
    }
    if verified.unstated_losses > 0 {
        facts.push((
            "unexplained",
            format!(
                "{} records are not in this part; the line that explains it may be in another",
                verified.unstated_losses
            ),
        ));
    }
    if verified.unfinished > 0 {
        facts.push((
            "unfinished",
            format!(
                "{} bytes of a line that is being written",
                verified.unfinished
            ),
        ));
    }
    output::facts(&facts)
}

fn repeated(lines: u64) -> String {
    let them = if lines == 1 { "line" } else { "lines" };
    format!("{lines} {them} came again, byte for byte, as exporters may deliver them")
}

/// A bar on a terminal; nothing elsewhere.
struct Progress {
    total: Option<u64>,
}

impl Progress {
    fn over(path: &Path) -> Progress {
        let total = std::io::stderr().is_terminal().then(|| size(path));
        Progress { total }
    }

    fn show(&mut self, bytes: u64) {
        const WIDTH: u64 = 30;
        if let Some(total) = self.total {
            let total = total.max(bytes).max(1);
            // A file is never near the end of the range.
            let done = usize::try_from(bytes.saturating_mul(WIDTH) / total).unwrap_or(0);
            let bar = format!("{:<30}", "#".repeat(done));
            let (at, all) = (output::size(bytes), output::size(total));
            // A bar that cannot be drawn is no failure.
            let _ = write!(std::io::stderr(), "\r[{bar}] {at} of {all} ");
        }
    }

    fn clear(&mut self) {
        if self.total.is_some() {
            let _ = write!(std::io::stderr(), "\r{:70}\r", "");
        }
    }
}

fn size(path: &Path) -> u64 {
    if path.is_file() {
        return std::fs::metadata(path).map_or(0, |file| file.len());
    }
    postern_spool::segments(path).map_or(0, |all| all.iter().map(|segment| segment.len).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repeats_are_counted_in_words() {
        assert!(repeated(1).starts_with("1 line came again"));
        assert!(repeated(2).starts_with("2 lines came again"));
    }

    #[test]
    fn an_anchor_reads_as_it_is_printed() {
        let hash = "ab".repeat(32);
        let anchor: Anchor = format!("41:{hash}").parse().expect("an anchor");
        assert_eq!((anchor.0.n, anchor.0.hash.to_string()), (41, hash.clone()));
        for text in [
            "",
            "41",
            ":",
            "41:ab",
            &format!("x:{hash}"),
            &format!("41:{hash}0"),
        ] {
            let error = text.parse::<Anchor>().expect_err(text).to_string();
            assert!(error.contains("N:HASH"), "{error}");
        }
    }
}
