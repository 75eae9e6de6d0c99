//! How many records each worker has made, and how many audit events there were, kept where a killed process leaves it: in shared memory.
//! The next run compares it with what is on disk, and states to the record what was lost.
//!
//! A worker stores its count before it hands records over, in one `pwrite` to memory: under a
//! microsecond, and never a disk to wait for. After a power cut the count is unknown.

use rustix::fs::{Mode, OFlags};
use rustix::process::geteuid;
use std::fs::File;
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Every Linux has it, in memory (shm_overview(7)).
const SHARED_MEMORY: &str = "/dev/shm";

/// Workers that a file has room for.
const WORKERS: usize = postern_io::steer::MAX_WORKERS;

/// One count for each worker and one of audit events, 8 bytes each, little-endian.
const LEN: usize = 8 * WORKERS + 8;

/// Runs that may have died one after the other before any was explained.
const MOST_LEFT: usize = 64;

/// The counts of this run. Cheap to clone: one for each worker.
#[derive(Clone, Debug)]
pub(super) struct Made {
    file: Option<Arc<File>>,
    folder: PathBuf,
    stem: Arc<str>,
    boot: u64,
}

/// What a run that ended without a word had made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// Which run.
    pub(super) boot: u64,
    /// Records made, by worker.
    pub(super) made: [u64; WORKERS],
    /// Audit events made.
    pub(super) audit: u64,
}

impl Made {
    /// Begins to count for run `boot` of the gateway with this data, and returns what earlier runs
    /// left that nobody has explained. Without shared memory nothing is counted.
    #[must_use]
    pub(super) fn begin(data_dir: &Path, boot: u64) -> (Vec<Left>, Made) {
        // A test leaves nothing outside its own folder.
        let folder = if cfg!(test) {
            data_dir
        } else {
            Path::new(SHARED_MEMORY)
        };
        Made::begin_in(folder, data_dir, boot)
    }

    fn begin_in(folder: &Path, data_dir: &Path, boot: u64) -> (Vec<Left>, Made) {
        let stem = stem(data_dir);
        let left = boots(folder, &stem)
            .into_iter()
            .filter(|other| *other < boot)
            .filter_map(|other| read(&open(&folder.join(name(&stem, other))).ok()?, other))
            .collect();
        let path = folder.join(name(&stem, boot));
        let file = match open(&path).and_then(|file| clear(&file).map(|()| file)) {
            Ok(file) => Some(Arc::new(file)),
            Err(error) => {
                tracing::info!(path = %path.display(), %error,
                    "records are not counted in shared memory: what a crash loses will not be known");
                None
            }
        };
        let (folder, stem) = (folder.to_owned(), Arc::from(stem));
        let made = Made {
            file,
            folder,
            stem,
            boot,
        };
        (left, made)
    }

    /// Stores how many records a worker has made. What cannot be stored is not known later.
    pub(super) fn set(&self, worker: u8, made: u64) {
        if let Some(file) = self.file.as_ref().filter(|_| usize::from(worker) < WORKERS) {
            let _ = file.write_all_at(&made.to_le_bytes(), 8 * u64::from(worker));
        }
    }

    /// Stores how many audit events were made.
    pub(super) fn set_audit(&self, made: u64) {
        if let Some(file) = &self.file {
            let _ = file.write_all_at(&made.to_le_bytes(), 8 * WORKERS as u64);
        }
    }

    /// Nothing is left to state of that run.
    pub(super) fn forget(&self, boot: &str) {
        if let Ok(boot) = boot.parse() {
            // What stays is explained once more by nobody: the log says that it was.
            let _ = std::fs::remove_file(self.folder.join(name(&self.stem, boot)));
        }
    }

    /// This run ended in order.
    pub(super) fn end(&self) {
        self.forget(&self.boot.to_string());
    }
}

/// Ours, or none.
fn open(path: &Path) -> io::Result<File> {
    // Shared memory is open to all: a link there must not make us write elsewhere.
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
    let facts = file.metadata()?;
    if !facts.is_file() || facts.nlink() != 1 || facts.uid() != geteuid().as_raw() {
        return Err(io::Error::other("somebody else's file stands there"));
    }
    Ok(file)
}

fn clear(file: &File) -> io::Result<()> {
    file.set_len(0)?;
    file.write_all_at(&[0; LEN], 0)
}

fn read(file: &File, boot: u64) -> Option<Left> {
    let mut bytes = [0; LEN];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let mut made = [0; WORKERS];
    for (count, eight) in made.iter_mut().zip(bytes.chunks_exact(8)) {
        *count = u64::from_le_bytes(eight.try_into().ok()?);
    }
    let audit = u64::from_le_bytes(*bytes.last_chunk()?);
    Some(Left { boot, made, audit })
}

/// The runs that have a file, at most [`MOST_LEFT`].
fn boots(folder: &Path, stem: &str) -> Vec<u64> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            let middle = name.strip_prefix(stem)?.strip_suffix(".made")?;
            middle.strip_prefix('.')?.parse().ok()
        })
        .take(MOST_LEFT)
        .collect()
}

/// The same for each data folder of this machine.
fn stem(data_dir: &Path) -> String {
    let whole = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    format!("postern{}", whole.to_string_lossy().replace('/', "_"))
}

fn name(stem: &str, boot: u64) -> String {
    format!("{stem}.{boot}.made")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn runs_that_end_without_a_word_leave_their_counts_until_they_are_explained() {
        let folder = Scratch::new();
        let place = folder.path("");
        let begin = |boot| Made::begin_in(&place, Path::new("/data"), boot);
        let (left, made) = begin(1);
        assert_eq!(left, []);
        made.set(0, 41);
        made.set(7, 3);
        made.set(200, 9);
        let (_, made) = begin(2);
        made.set(1, 5);
        let (mut left, made) = begin(3);
        left.sort_by_key(|left| left.boot);
        let first = [41, 0, 0, 0, 0, 0, 0, 3];
        let second = [0, 5, 0, 0, 0, 0, 0, 0];
        let counts: Vec<_> = left.iter().map(|left| (left.boot, left.made)).collect();
        assert_eq!(counts, [(1, first), (2, second)]);
        made.forget("1");
        made.forget("2");
        made.end();
        assert_eq!(begin(4).0, []);
    }

    #[test]
    fn another_gateways_counts_are_not_ours() {
        let folder = Scratch::new();
        let place = folder.path("");
        let (_, made) = Made::begin_in(&place, Path::new("/data"), 1);
        made.set(0, 7);
        assert_eq!(Made::begin_in(&place, Path::new("/data2"), 2).0, []);
        assert_eq!(Made::begin_in(&place, Path::new("/dat"), 2).0, []);
    }

    #[test]
    fn what_somebody_else_put_there_is_not_touched() {
        let folder = Scratch::new();
        let (place, victim) = (folder.path(""), folder.path("victim"));
        std::fs::write(&victim, "precious").expect("written");
        let link = place.join(name(&stem(Path::new("/data")), 1));
        std::os::unix::fs::symlink(&victim, link).expect("linked");
        let (left, made) = Made::begin_in(&place, Path::new("/data"), 1);
        made.set(0, 1);
        assert_eq!(left, []);
        assert_eq!(std::fs::read(&victim).expect("there"), b"precious");
    }
}
