//! Files that hold secrets: 0600 from the first byte, replaced whole, on the disk before anybody
//! is told.

use crate::random;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Replaces the file: a new one, synced, renamed, the folder synced. Missing folders are made
/// (0700).
///
/// # Errors
/// What the file system answered; the file is then what it was.
pub fn write(path: &Path, text: &str) -> io::Result<()> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let draft = draft_of(path)?;
    // Never into a file that somebody else made, or through a link.
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    let written = file
        .write_all(text.as_bytes())
        .and_then(|()| file.sync_all())
        .and_then(|()| fs::rename(&draft, path));
    if let Err(error) = written {
        let _ = fs::remove_file(&draft);
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

/// A name that no other writer of this file has.
fn draft_of(path: &Path) -> io::Result<PathBuf> {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{:016x}.new", random::seed()?));
    Ok(path.with_file_name(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_is_private_from_its_first_byte_and_no_draft_stays() {
        let folder = std::env::temp_dir().join(format!("postern-private-{}", std::process::id()));
        let path = folder.join("deep/ana.yaml");
        write(&path, "one").expect("written");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        write(&path, "two").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), "two");
        assert_eq!(fs::read_dir(folder.join("deep")).expect("there").count(), 1);
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn two_writers_at_once_never_publish_half_a_file() {
        let folder = std::env::temp_dir().join(format!("postern-writers-{}", std::process::id()));
        let path = folder.join("ana.yaml");
        let texts = ["a".repeat(20_000), "b".repeat(30_000)];
        std::thread::scope(|scope| {
            for text in &texts {
                let path = &path;
                scope.spawn(move || {
                    for _ in 0..100 {
                        write(path, text).expect("the other one is not in the way");
                        let read = fs::read_to_string(path).expect("there");
                        assert!(read.len() == 20_000 || read.len() == 30_000);
                    }
                });
            }
        });
        assert!(texts.contains(&fs::read_to_string(&path).expect("there")));
        assert_eq!(fs::read_dir(&folder).expect("there").count(), 1);
        fs::remove_dir_all(&folder).expect("removed");
    }
}
