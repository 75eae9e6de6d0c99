//! A part of the chain for an auditor, with what it takes to check it on another machine.
//!
//! A bundle is a folder with `records.jsonl`, the lines byte for byte, and `proof.json`, a
//! [`Proof`]. The lines are contiguous, those about other things and of other times between them
//! included: a line left out would break the chain.

use crate::blocks::{Blocks, Piece};
use crate::index::time_of;
use crate::line::{Hash, Head, Line};
use crate::reader::{Lines, ReadError, Reader};
use crate::segment::{SegmentFile, segments};
use crate::time::rfc3339;
use crate::verify::{self, Verified, VerifyError};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file with the lines.
pub const RECORDS: &str = "records.jsonl";

/// The file that says what they are.
pub const PROOF: &str = "proof.json";

/// Bytes of one read.
const BLOCK: usize = 1 << 20;

/// What a bundle's lines are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// Version of this file: 1.
    pub proof: u32,
    /// The gateway that wrote the first line; none if it does not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gateway: Option<String>,
    /// Records from this time on were asked for (RFC 3339).
    pub since: String,
    /// Records before this time were asked for.
    pub until: String,
    /// The first line.
    pub first_n: u64,
    /// The last line.
    pub last_n: u64,
    /// How many lines.
    pub count: u64,
    /// What the first line says of the line before it.
    pub prev_of_first: Hash,
    /// Hash of the last line.
    pub hash_of_last: Hash,
    /// SHA-256 of `records.jsonl`.
    pub sha256: Hash,
    /// The last line of the whole log when this was made.
    pub head: Head,
    /// When this was made.
    pub exported: String,
}

/// Why there is no bundle, or why it proves nothing.
#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// No line is of that time.
    #[error("no record from {since} to {until}")]
    Empty {
        /// From here.
        since: String,
        /// To here.
        until: String,
    },
    /// The log cannot be read there.
    #[error("{0}: see what `verify` says")]
    Read(#[from] ReadError),
    /// The chain is broken there.
    #[error(transparent)]
    Chain(#[from] VerifyError),
    /// A file of the bundle is of no use.
    #[error("{}: {source}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        source: io::Error,
    },
    /// `proof.json` and `records.jsonl` do not fit together.
    #[error("{PROOF} says {field} {said}, and {RECORDS} has {found}")]
    Differs {
        /// The member of `proof.json`.
        field: &'static str,
        /// Its value.
        said: String,
        /// What it should be.
        found: String,
    },
}

/// Writes a bundle into `out`, a new folder: all lines from the first to the last whose `time` is
/// in `since..until`, milliseconds since 1970. The copy is verified.
///
/// # Errors
/// There is nothing to export, the chain is broken, or `out` exists or cannot be written.
pub fn export(
    dir: &Path,
    since: u64,
    until: u64,
    out: &Path,
    exported: u64,
) -> Result<Proof, ProofError> {
    let all = segments(dir).map_err(ReadError::Io)?;
    let Some((first_n, last_n)) = range(&all, since, until).map_err(ReadError::Io)? else {
        return Err(ProofError::Empty {
            since: rfc3339(since),
            until: rfc3339(until),
        });
    };
    let head = head(&all).map_err(ReadError::Io)?;
    let at = |file: &Path| {
        let file = file.to_owned();
        move |source| ProofError::File { file, source }
    };
    // As in the spool: who did what is not for everybody.
    fs::DirBuilder::new()
        .mode(0o750)
        .create(out)
        .map_err(at(out))?;
    let fill = || -> Result<Proof, ProofError> {
        let records = out.join(RECORDS);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(&records)
            .map_err(at(&records))?;
        let mut reader = Reader::open(dir, first_n)?;
        let mut lines = Lines::default();
        let mut sha256 = Sha256::new();
        while reader.next_n() <= last_n {
            reader.read(last_n, usize::MAX, BLOCK, &mut lines)?;
            if lines.is_empty() {
                break;
            }
            sha256.update(lines.bytes());
            file.write_all(lines.bytes()).map_err(at(&records))?;
        }
        file.sync_all().map_err(at(&records))?;
        let verified = verify::file(&records, None, &mut |_| {})?;
        let proof = Proof {
            proof: 1,
            gateway: gateway_of(&records).map_err(at(&records))?,
            since: rfc3339(since),
            until: rfc3339(until),
            first_n,
            last_n,
            count: verified.lines,
            prev_of_first: verified.prev_of_first,
            hash_of_last: verified.head.hash,
            sha256: Hash(sha256.finalize().into()),
            head: head.unwrap_or(verified.head),
            exported: rfc3339(exported),
        };
        same(&proof, &verified)?;
        let path = out.join(PROOF);
        let mut text = serde_json::to_vec_pretty(&proof)
            .map_err(io::Error::from)
            .map_err(at(&path))?;
        text.push(b'\n');
        fs::write(&path, text).map_err(at(&path))?;
        Ok(proof)
    };
    // Half a bundle would only be in the way of the next try.
    fill().inspect_err(|_| drop(fs::remove_dir_all(out)))
}

/// Whether a folder is a bundle.
#[must_use]
pub fn is_bundle(dir: &Path) -> bool {
    dir.join(PROOF).is_file()
}

/// Verifies a bundle: its chain, and that `proof.json` says the truth about it. Whether the lines
/// are those of a certain gateway, only an anchor from that gateway tells.
///
/// # Errors
/// What is not as it says.
pub fn verify(
    dir: &Path,
    anchor: Option<Head>,
    progress: &mut dyn FnMut(u64),
) -> Result<(Proof, Verified), ProofError> {
    let path = dir.join(PROOF);
    let at = |file: PathBuf| move |source| ProofError::File { file, source };
    let text = fs::read(&path).map_err(at(path.clone()))?;
    let proof: Proof = serde_json::from_slice(&text)
        .map_err(io::Error::from)
        .map_err(at(path))?;
    let records = dir.join(RECORDS);
    let verified = verify::file(&records, anchor, progress)?;
    same(&proof, &verified)?;
    let gateway = gateway_of(&records).map_err(at(records.clone()))?;
    let name = |gateway: &Option<String>| gateway.clone().unwrap_or_default();
    check("gateway", &name(&proof.gateway), &name(&gateway))?;
    let sha256 = sha256_of(&records).map_err(at(records))?;
    check("sha256", &proof.sha256, &sha256)?;
    Ok((proof, verified))
}

fn same(proof: &Proof, verified: &Verified) -> Result<(), ProofError> {
    check("proof", &proof.proof, &1)?;
    check("first_n", &proof.first_n, &verified.first_n)?;
    check("last_n", &proof.last_n, &verified.last_n)?;
    check("count", &proof.count, &verified.lines)?;
    check("lines that came again", &0, &verified.repeated)?;
    check(
        "prev_of_first",
        &proof.prev_of_first,
        &verified.prev_of_first,
    )?;
    check("hash_of_last", &proof.hash_of_last, &verified.head.hash)?;
    check("bytes behind the last line", &0, &verified.unfinished)?;
    if proof.head.n <= verified.last_n {
        check("head.n", &proof.head.n, &verified.last_n)?;
        check("head.hash", &proof.head.hash, &verified.head.hash)?;
    }
    Ok(())
}

fn check<T: PartialEq + ToString>(
    field: &'static str,
    said: &T,
    found: &T,
) -> Result<(), ProofError> {
    if said == found {
        return Ok(());
    }
    Err(ProofError::Differs {
        field,
        said: said.to_string(),
        found: found.to_string(),
    })
}

/// The first and the last line of that time.
fn range(all: &[SegmentFile], since: u64, until: u64) -> io::Result<Option<(u64, u64)>> {
    let mut found: Option<(u64, u64)> = None;
    for segment in all {
        // Without a look at the index: it proves nothing.
        let read = each_line(segment, |line| {
            if time_of(line.bytes).is_some_and(|time| (since..until).contains(&time)) {
                found = Some((found.map_or(line.n, |(first, _)| first), line.n));
            }
        });
        match read {
            // Retention was faster.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other?,
        }
    }
    Ok(found)
}

/// The last line of a log.
fn head(all: &[SegmentFile]) -> io::Result<Option<Head>> {
    for segment in all.iter().rev() {
        let mut last = None;
        each_line(segment, |line| last = Some((line.n, line.bytes.to_vec())))?;
        if let Some((n, bytes)) = last {
            let hash = Hash::of(&bytes);
            return Ok(Some(Head { n, hash }));
        }
    }
    Ok(None)
}

fn each_line(segment: &SegmentFile, mut see: impl FnMut(&Line<'_>)) -> io::Result<()> {
    let file = File::open(&segment.path)?;
    let mut blocks = Blocks::new(&file);
    while let Some(piece) = blocks.next()? {
        if let Piece::Line(bytes) = piece
            && let Ok(line) = Line::parse(bytes)
        {
            see(&line);
        }
    }
    Ok(())
}

/// What the first line says of who wrote it.
fn gateway_of(records: &Path) -> io::Result<Option<String>> {
    #[derive(Deserialize)]
    struct Fields {
        gateway: Option<String>,
    }
    let file = File::open(records)?;
    let mut blocks = Blocks::new(&file);
    let fields = match blocks.next()? {
        Some(Piece::Line(line)) => serde_json::from_slice::<Fields>(line).ok(),
        _ => None,
    };
    Ok(fields.and_then(|fields| fields.gateway))
}

fn sha256_of(path: &Path) -> io::Result<Hash> {
    let mut file = File::open(path)?;
    let mut block = vec![0; BLOCK];
    let mut sha256 = Sha256::new();
    loop {
        match file.read(&mut block)? {
            0 => return Ok(Hash(sha256.finalize().into())),
            some => sha256.update(&block[..some]),
        }
    }
}

#[cfg(test)]
mod tests;
