//! How far an exporter has come, noted after every batch without forcing it to disk. The kernel has
//! it, so a gateway that is killed repeats nothing. A power cut may have kept the note and lost what
//! it speaks of: it counts only within the boot of the kernel that it was made in. Otherwise the
//! cursor counts, which follows it once a second, behind all that is on disk.

use postern_spool::Cursor;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Bytes of the file. Always as many, so that one write at the same place replaces all of them.
const SIZE: usize = 256;

/// Readable for the group, as the spool is.
const MODE: u32 = 0o640;

/// Notes of one exporter.
pub(super) struct Notes {
    path: PathBuf,
    boot: String,
    file: Option<File>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Note {
    at: Cursor,
    /// The cursor that it goes on from: one that was set back or removed takes the note with it.
    cursor: u64,
    /// Of the kernel.
    boot: String,
}

impl Notes {
    /// In the spool in `dir`, for exporter `name`, in this boot of the kernel.
    pub(super) fn new(dir: &Path, name: &str, boot: String) -> Notes {
        Notes {
            path: dir.join(format!("note-{name}.json")),
            boot,
            file: None,
        }
    }

    /// What was noted in this boot since the cursor was stored behind line `cursor`.
    pub(super) fn since(&self, cursor: u64) -> Option<Cursor> {
        let note: Note = serde_json::from_slice(&std::fs::read(&self.path).ok()?).ok()?;
        (note.boot == self.boot && note.cursor == cursor).then_some(note.at)
    }

    /// Replaces the note.
    ///
    /// # Errors
    /// Those of the system. The old one may count on.
    pub(super) fn write(&mut self, at: Cursor, cursor: u64) -> io::Result<()> {
        let boot = self.boot.clone();
        let mut text = serde_json::to_vec(&Note { at, cursor, boot })?;
        text.resize(SIZE - 1, b' ');
        text.push(b'\n');
        let file = match self.file.take() {
            Some(file) => file,
            None => OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .mode(MODE)
                .open(&self.path)?,
        };
        self.file.insert(file).write_all_at(&text, 0)
    }
}

/// Which boot of the kernel this is.
///
/// # Errors
/// `/proc` is not there.
pub(super) fn boot() -> io::Result<String> {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(id.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use postern_spool::Hash;

    #[test]
    fn a_note_counts_in_its_boot_and_behind_its_cursor() {
        let folder = Scratch::new();
        std::fs::create_dir(folder.path("flows")).expect("made");
        let notes = |boot: &str| Notes::new(&folder.path("flows"), "loki", boot.into());
        assert_eq!(notes("a").since(0), None);
        let at = |n| Cursor {
            n,
            hash: Hash([7; 32]),
        };
        let mut writer = notes("a");
        for n in [u64::MAX, 7, 41] {
            writer.write(at(n), 3).expect("written");
            assert_eq!(notes("a").since(3), Some(at(n)));
        }
        assert_eq!(notes("a").since(2), None, "another cursor");
        assert_eq!(notes("b").since(3), None, "another boot");
        std::fs::write(folder.path("flows").join("note-loki.json"), "\0\0").expect("written");
        assert_eq!(notes("a").since(3), None);
        assert_eq!(boot().expect("there"), boot().expect("there"));
    }
}
