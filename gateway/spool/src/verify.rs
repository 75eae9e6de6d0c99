//! Walks a chain, and names the first place where it is not what was written.
//!
//! It needs nothing but the lines: a spool's folder, a copy of it on another machine, or one file
//! of lines. What it cannot see: lines missing at the very end, or before the first one, unless
//! it is given a line that it must find (an anchor, kept elsewhere); and a chain that somebody
//! with write access made anew from some line on, which only an anchor finds as well.

mod chain;
mod losses;
mod seen;

use crate::blocks::{Blocks, Piece};
use crate::line::{Hash, Head, Line, LineFault};
use crate::segment::{SegmentFile, first_of, segments};
use crate::storage::ReadAt;
use chain::{Chain, Step};
use losses::Losses;
pub use seen::MAX_SEEN;
use serde::Serialize;
use std::fmt::{self, Display};
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// A chain without a fault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Its first line; 0 if there is none.
    pub first_n: u64,
    /// Its last line; 0 if there is none.
    pub last_n: u64,
    /// How many lines, each counted once.
    pub lines: u64,
    /// Lines of a copy that came again, byte for byte: exporters deliver at least once.
    pub repeated: u64,
    /// The last line by number and hash. Kept elsewhere, it is an anchor for later.
    pub head: Head,
    /// What the first line says of the line before it.
    pub prev_of_first: Hash,
    /// Bytes of all lines, those that came again included.
    pub bytes: u64,
    /// Records and audit events that the log itself says were lost.
    pub stated_losses: u64,
    /// Records and audit events that are missing and that no line explains. Of a whole spool that is a fault; a
    /// part of one may end before the line that explains it.
    pub unstated_losses: u64,
    /// Bytes of a last line without an end: it is being written at this moment, or the writer
    /// crashed and its next start will cut it off and say so.
    pub unfinished: u64,
}

/// The first place where a chain is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The file.
    pub file: PathBuf,
    /// The line in it, from 1; 0 for the file as a whole.
    pub line: u64,
    /// The number of the line that is there or should be there.
    pub n: u64,
    /// What is wrong.
    pub what: What,
}

/// What is wrong with a chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "fault")]
pub enum What {
    /// A line without the end of one.
    Torn,
    /// Something that is no line.
    NotALine,
    /// A line whose bytes are not those that were written.
    Checksum,
    /// Lines are gone.
    Missing {
        /// The last of them.
        to: u64,
    },
    /// Lines are there, in another order.
    Reordered,
    /// A line is there twice.
    Duplicated,
    /// A line of a copy came again, with other bytes.
    Differs,
    /// A line is not the one that the next line was sealed after.
    Changed,
    /// The file has another segment's name.
    Misnamed,
    /// A worker's records are missing, and no line of the log says that they were lost.
    Unstated {
        /// The run of the gateway.
        boot: String,
        /// The worker in that run.
        worker: u64,
        /// The first `seq` that is missing before this line.
        from: u64,
        /// The last of them.
        to: u64,
    },
    /// Audit events are missing, and no line of the log says that they were lost.
    UnstatedAudit {
        /// The run of the gateway.
        boot: String,
        /// The first `audit` that is missing before this line.
        from: u64,
        /// The last of them.
        to: u64,
    },
    /// An audit event is there twice, or out of order.
    RepeatedAudit {
        /// The run of the gateway.
        boot: String,
        /// The `audit` that came before or should have come before.
        audit: u64,
    },
    /// A worker's record is there twice, or out of order.
    Repeated {
        /// The run of the gateway.
        boot: String,
        /// The worker in that run.
        worker: u64,
        /// The `seq` that came before or should have come before.
        seq: u64,
    },
    /// The line of the anchor is another one.
    NotTheAnchor,
    /// The log ends before the line of the anchor.
    Shortened {
        /// The last line that is there.
        last: u64,
    },
    /// The log begins after the line of the anchor, which therefore proves nothing.
    AnchorRemoved {
        /// The first line that is there.
        first: u64,
    },
}

/// Why a chain is not verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// It is not what was written.
    #[error("{0}")]
    Fault(Box<Fault>),
    /// There is nothing to verify.
    #[error("{} holds no segment of a flow log (*.jsonl)", .0.display())]
    Nothing(PathBuf),
    /// It cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Io {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Verifies a spool's folder, or a copy of one. `anchor` is a line that must be there. `progress`
/// is told how many bytes were read, now and then.
///
/// # Errors
/// The first fault, or what cannot be read.
pub fn folder(
    dir: &Path,
    anchor: Option<Head>,
    progress: &mut dyn FnMut(u64),
) -> Result<Verified, VerifyError> {
    let files = segments(dir).map_err(|source| VerifyError::Io {
        file: dir.to_owned(),
        source,
    })?;
    if files.is_empty() {
        return Err(VerifyError::Nothing(dir.to_owned()));
    }
    walk(&files, anchor, progress)
}

fn walk(
    files: &[SegmentFile],
    anchor: Option<Head>,
    progress: &mut dyn FnMut(u64),
) -> Result<Verified, VerifyError> {
    let chain = Chain::of_spool(files.first().map(|oldest| oldest.first));
    let mut walk = Walk::new(chain, anchor, progress);
    for (i, segment) in files.iter().enumerate() {
        match walk.file(&segment.path, Some(segment), i + 1 == files.len()) {
            // Retention took it, and all before it, since they were listed.
            Err(VerifyError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound
                    && files[..i].iter().all(|older| !older.path.exists()) =>
            {
                walk.chain = Chain::of_spool(files.get(i + 1).map(|next| next.first));
                walk.losses = Losses::default();
                walk.files.clear();
                walk.last = Place::default();
            }
            other => other?,
        }
    }
    let verified = walk.finish()?;
    match walk.losses.first_unstated() {
        Some((place, n, what)) => Err(walk.fault(place, n, what)),
        None => Ok(verified),
    }
}

/// Verifies one file of lines, which may be any part of a chain. Unless it has the name of a
/// segment, it is a copy: one of the last [`MAX_SEEN`] lines may come again, byte for byte.
///
/// # Errors
/// The first fault, or what cannot be read.
pub fn file(
    path: &Path,
    anchor: Option<Head>,
    progress: &mut dyn FnMut(u64),
) -> Result<Verified, VerifyError> {
    let chain = match path.file_name().and_then(|name| first_of(name.to_str()?)) {
        Some(first) => Chain::of_spool(Some(first)),
        None => Chain::of_copy(),
    };
    let mut walk = Walk::new(chain, anchor, progress);
    walk.file(path, None, true)?;
    walk.finish()
}

/// Verifies lines from anywhere, each with its `\n`: what an exporter's server gave back. A line
/// may come again, as in a [`file()`].
///
/// # Errors
/// The first fault. Its file has no name.
pub fn bytes(lines: &[u8], anchor: Option<Head>) -> Result<Verified, VerifyError> {
    let mut progress = |_| {};
    let mut walk = Walk::new(Chain::of_copy(), anchor, &mut progress);
    walk.lines(Path::new(""), lines, None, true)?;
    walk.finish()
}

/// A place in the files of a walk.
#[derive(Clone, Copy, Debug, Default)]
struct Place {
    file: usize,
    line: u64,
}

struct Walk<'p> {
    chain: Chain,
    losses: Losses,
    files: Vec<PathBuf>,
    anchor: Option<Head>,
    progress: &'p mut dyn FnMut(u64),
    /// Where the last good line was.
    last: Place,
    repeated: u64,
    unfinished: u64,
    before: u64,
}

impl<'p> Walk<'p> {
    fn new(chain: Chain, anchor: Option<Head>, progress: &'p mut dyn FnMut(u64)) -> Self {
        Walk {
            chain,
            losses: Losses::default(),
            files: Vec::new(),
            anchor,
            progress,
            last: Place::default(),
            repeated: 0,
            unfinished: 0,
            before: 0,
        }
    }

    fn file(
        &mut self,
        path: &Path,
        segment: Option<&SegmentFile>,
        newest: bool,
    ) -> Result<(), VerifyError> {
        let file = File::open(path).map_err(|source| VerifyError::Io {
            file: path.to_owned(),
            source,
        })?;
        self.lines(path, &file, segment, newest)
    }

    fn lines<F: ReadAt + ?Sized>(
        &mut self,
        path: &Path,
        file: &F,
        segment: Option<&SegmentFile>,
        newest: bool,
    ) -> Result<(), VerifyError> {
        self.files.push(path.to_owned());
        let mut place = Place {
            file: self.files.len() - 1,
            line: 0,
        };
        let cannot = |source| VerifyError::Io {
            file: path.to_owned(),
            source,
        };
        let mut blocks = Blocks::new(file);
        let mut told = 0;
        loop {
            if blocks.position() - told >= 1 << 24 {
                told = blocks.position();
                (self.progress)(self.before + told);
            }
            let Some(piece) = blocks.next().map_err(cannot)? else {
                break;
            };
            place.line += 1;
            let bytes = match piece {
                Piece::Line(bytes) => bytes,
                Piece::Rest(bytes) if newest => {
                    self.unfinished = bytes.len() as u64;
                    break;
                }
                Piece::Rest(_) => return Err(self.wrong(place, What::Torn)),
                Piece::Long => return Err(self.wrong(place, What::NotALine)),
            };
            let head = match self.chain.check(bytes) {
                Ok(Step::Next(head)) => head,
                Ok(Step::Again) => {
                    self.repeated += 1;
                    continue;
                }
                Err(What::Differs) => {
                    let n = Line::parse(bytes).map_or(0, |line| line.n);
                    return Err(self.fault(place, n, What::Differs));
                }
                Err(What::Duplicated) => {
                    return Err(self.fault(place, self.chain.head().n, What::Duplicated));
                }
                Err(What::Changed) if self.last.line > 0 => {
                    return Err(self.fault(self.last, self.chain.head().n, What::Changed));
                }
                // Gone, or only later?
                Err(What::Missing { .. }) if self.chain.follows(blocks.next().map_err(cannot)?) => {
                    return Err(self.wrong(place, What::Reordered));
                }
                Err(what) => return Err(self.wrong(place, what)),
            };
            if place.line == 1 && segment.is_some_and(|segment| segment.first != head.n) {
                return Err(self.fault(place, head.n, What::Misnamed));
            }
            if self
                .anchor
                .is_some_and(|anchor| anchor.n == head.n && anchor.hash != head.hash)
            {
                return Err(self.fault(place, head.n, What::NotTheAnchor));
            }
            if let Err(what) = self.losses.see(bytes, place, head.n) {
                return Err(self.fault(place, head.n, what));
            }
            self.last = place;
        }
        self.before += blocks.position();
        (self.progress)(self.before);
        Ok(())
    }

    fn finish(&mut self) -> Result<Verified, VerifyError> {
        let head = self.chain.head();
        let first_n = self.chain.first();
        if let Some(anchor) = self.anchor {
            let what = match anchor.n {
                n if n > head.n => Some(What::Shortened { last: head.n }),
                n if n < first_n => Some(What::AnchorRemoved { first: first_n }),
                _ => None,
            };
            if let Some(what) = what {
                return Err(self.fault(self.last, anchor.n, what));
            }
        }
        Ok(Verified {
            first_n,
            last_n: head.n,
            lines: self.chain.lines(),
            repeated: self.repeated,
            head,
            prev_of_first: self.chain.prev_of_first(),
            bytes: self.before - self.unfinished,
            stated_losses: self.losses.stated(),
            unstated_losses: self.losses.unstated(),
            unfinished: self.unfinished,
        })
    }

    /// A fault where the next line should be.
    fn wrong(&self, place: Place, what: What) -> VerifyError {
        self.fault(place, self.chain.expected(), what)
    }

    fn fault(&self, place: Place, n: u64, what: What) -> VerifyError {
        VerifyError::Fault(Box::new(Fault {
            file: self.files.get(place.file).cloned().unwrap_or_default(),
            line: place.line,
            n,
            what,
        }))
    }
}

impl From<LineFault> for What {
    fn from(fault: LineFault) -> What {
        match fault {
            LineFault::Torn => What::Torn,
            LineFault::NotALine => What::NotALine,
            LineFault::Checksum => What::Checksum,
        }
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fault {
            file,
            line,
            n,
            what,
        } = self;
        write!(f, "{} line {line}: ", file.display())?;
        match what {
            What::Torn => write!(f, "line {n} is torn: its end is missing"),
            What::NotALine => write!(f, "what stands in place of line {n} is no line of a log"),
            What::Checksum => write!(f, "line {n} was changed: its checksum does not match"),
            What::Missing { to } if to == n => write!(f, "line {n} is missing"),
            What::Missing { to } => write!(f, "lines {n} to {to} are missing"),
            What::Reordered => write!(f, "the lines from {n} on are in another order"),
            What::Duplicated => write!(f, "line {n} is there twice"),
            What::Differs => write!(f, "line {n} is there twice, and the two differ"),
            What::Changed => write!(
                f,
                "line {n} was changed: it is not the one that the next line was sealed after"
            ),
            What::Misnamed => write!(f, "it holds line {n} first, which is not its name"),
            What::Unstated {
                boot,
                worker,
                from,
                to,
            } => write!(
                f,
                "before line {n}, records {from} to {to} of worker {worker} in run {boot} are \
                 missing, and nothing says that they were lost"
            ),
            What::UnstatedAudit { boot, from, to } => write!(
                f,
                "before line {n}, audit events {from} to {to} of run {boot} are missing, and \
                 nothing says that they were lost"
            ),
            What::RepeatedAudit { boot, audit } => write!(
                f,
                "line {n} is out of order: run {boot} was at audit event {audit}"
            ),
            What::Repeated { boot, worker, seq } => write!(
                f,
                "line {n} is out of order: worker {worker} of run {boot} was at record {seq}"
            ),
            What::NotTheAnchor => write!(f, "line {n} is not the expected one: its hash differs"),
            What::Shortened { last } => {
                write!(
                    f,
                    "the log ends with line {last}, and line {n} was expected in it"
                )
            }
            What::AnchorRemoved { first } => {
                write!(
                    f,
                    "the log begins with line {first}; line {n} was removed before"
                )
            }
        }
    }
}

#[cfg(test)]
mod tests;
