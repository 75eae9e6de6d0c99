//! Notices that a file has changed, by looking. Tolerates an atomic rename, a file that is away
//! for a moment, and a writer that is not done yet.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often it looks. A change is seen after two looks that agree.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Device, inode, size, time of change (seconds, nanoseconds); none while the file is away.
type Stamp = Option<(u64, u64, u64, i64, i64)>;

/// A file and how it looked last.
#[derive(Debug)]
pub struct Watched {
    path: PathBuf,
    settled: Stamp,
    seen: Stamp,
}

impl Watched {
    /// From how the file looks now.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        let stamp = stamp(path);
        Watched {
            path: path.to_owned(),
            settled: stamp,
            seen: stamp,
        }
    }

    /// Waits until the file has changed and has stayed so for one look.
    pub async fn changed(&mut self) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.look() {
                return;
            }
        }
    }

    fn look(&mut self) -> bool {
        let now = stamp(&self.path);
        let quiet = now == self.seen;
        self.seen = now;
        if quiet && now != self.settled {
            self.settled = now;
            return true;
        }
        false
    }
}

fn stamp(path: &Path) -> Stamp {
    let facts = std::fs::metadata(path).ok()?;
    Some((
        facts.dev(),
        facts.ino(),
        facts.size(),
        facts.ctime(),
        facts.ctime_nsec(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;

    #[test]
    fn a_change_counts_when_it_has_settled() {
        let folder = Scratch::new();
        let path = folder.path("file");
        std::fs::write(&path, "one").expect("written");
        let mut file = Watched::new(&path);
        assert!(!file.look());
        std::fs::write(&path, "one and more").expect("written");
        assert!(!file.look(), "the writer may not be done");
        assert!(file.look());
        assert!(!file.look(), "said once");
    }

    #[test]
    fn a_rename_over_it_is_one_change_and_a_moment_away_is_none() {
        let folder = Scratch::new();
        let (path, other) = (folder.path("file"), folder.path("other"));
        std::fs::write(&path, "one").expect("written");
        let mut file = Watched::new(&path);
        std::fs::write(&other, "two").expect("written");
        std::fs::rename(&other, &path).expect("renamed");
        assert_eq!(
            [file.look(), file.look(), file.look()],
            [false, true, false]
        );

        std::fs::rename(&path, &other).expect("renamed");
        assert!(!file.look());
        std::fs::rename(&other, &path).expect("renamed back");
        assert!(!file.look());
    }
}
