//! How many records each worker has made, kept where a killed process leaves it: in shared memory.
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

/// The run, then one count for each worker, 8 bytes each, little-endian.
const LEN: usize = 8 * (1 + WORKERS);

/// The counts of this run. Cheap to clone: one for each worker.
#[derive(Clone, Debug)]
pub(super) struct Made {
    file: Option<Arc<File>>,
    path: PathBuf,
}

/// What a run that ended without a word had made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Left {
    /// Which run.
    pub(super) boot: u64,
    /// Records made, by worker.
    pub(super) made: [u64; WORKERS],
}

impl Made {
    /// Takes what the last run of the gateway with this data left, if it did not end in order,
    /// and begins to count for this one. Without shared memory nothing is counted.
    #[must_use]
    pub(super) fn begin(data_dir: &Path, boot: u64) -> (Option<Left>, Made) {
        Made::begin_in(Path::new(SHARED_MEMORY), data_dir, boot)
    }

    fn begin_in(folder: &Path, data_dir: &Path, boot: u64) -> (Option<Left>, Made) {
        let path = folder.join(name(data_dir));
        match open(&path, boot) {
            Ok((left, file)) => {
                let file = Some(Arc::new(file));
                (left, Made { file, path })
            }
            Err(error) => {
                tracing::info!(path = %path.display(), %error,
                    "records are not counted in shared memory: what a crash loses will not be known");
                (None, Made { file: None, path })
            }
        }
    }

    /// Stores how many records a worker has made. What cannot be stored is not known later.
    pub(super) fn set(&self, worker: u8, made: u64) {
        let place = 8 * (1 + u64::from(worker));
        if let Some(file) = self.file.as_ref().filter(|_| usize::from(worker) < WORKERS) {
            let _ = file.write_all_at(&made.to_le_bytes(), place);
        }
    }

    /// The run ended in order: nothing is left to state.
    pub(super) fn end(&self) {
        if self.file.is_some() {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn open(path: &Path, boot: u64) -> io::Result<(Option<Left>, File)> {
    // Shared memory is open to all: a link there must not make us write elsewhere.
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)?);
    let facts = file.metadata()?;
    if !facts.is_file() || facts.nlink() != 1 || facts.uid() != geteuid().as_raw() {
        return Err(io::Error::other("somebody else's file stands there"));
    }
    let mut old = [0; LEN];
    let left = match file.read_exact_at(&mut old, 0) {
        Ok(()) => read(&old),
        Err(_) => None,
    };
    file.set_len(0)?;
    let mut new = [0; LEN];
    new[..8].copy_from_slice(&boot.to_le_bytes());
    file.write_all_at(&new, 0)?;
    Ok((left, file))
}

fn read(bytes: &[u8; LEN]) -> Option<Left> {
    let mut numbers = bytes.chunks_exact(8).map(|eight| {
        let mut number = [0; 8];
        number.copy_from_slice(eight);
        u64::from_le_bytes(number)
    });
    let boot = numbers.next()?;
    let mut made = [0; WORKERS];
    made.iter_mut()
        .zip(numbers)
        .for_each(|(to, from)| *to = from);
    Some(Left { boot, made })
}

/// One name for each data folder of this machine.
fn name(data_dir: &Path) -> String {
    let whole = std::path::absolute(data_dir).unwrap_or_else(|_| data_dir.to_owned());
    format!("postern{}.made", whole.to_string_lossy().replace('/', "_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_run_that_ends_without_a_word_leaves_its_counts() {
        let folder = Scratch::new();
        let place = folder.path("");
        let begin = |boot| Made::begin_in(&place, Path::new("/data"), boot);
        let (left, made) = begin(1);
        assert_eq!(left, None);
        made.set(0, 41);
        made.set(7, 3);
        made.set(200, 9);
        drop(made);
        let (left, made) = begin(2);
        let left = left.expect("the first run was killed");
        assert_eq!((left.boot, left.made), (1, [41, 0, 0, 0, 0, 0, 0, 3]));
        made.end();
        assert_eq!(begin(3).0, None);
    }

    #[test]
    fn what_somebody_else_put_there_is_not_touched() {
        let folder = Scratch::new();
        let (place, victim) = (folder.path(""), folder.path("victim"));
        std::fs::write(&victim, "precious").expect("written");
        std::os::unix::fs::symlink(&victim, place.join(name(Path::new("/data")))).expect("linked");
        let (left, made) = Made::begin_in(&place, Path::new("/data"), 1);
        made.set(0, 1);
        made.end();
        assert_eq!(left, None);
        assert_eq!(std::fs::read(&victim).expect("there"), b"precious");
    }
}
