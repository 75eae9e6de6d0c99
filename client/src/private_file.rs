//! Files that hold secrets: 0600 from the first byte, replaced whole, on the disk before anybody
//! is told.

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
    let draft = draft_of(path);
    match fs::remove_file(&draft) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
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

fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_file_is_private_from_its_first_byte_and_a_planted_draft_is_not_written_to() {
        let folder = std::env::temp_dir().join(format!("postern-private-{}", std::process::id()));
        let path = folder.join("deep/ana.yaml");
        write(&path, "one").expect("written");
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let planted = folder.join("planted");
        fs::write(&planted, "untouched").expect("written");
        std::os::unix::fs::symlink(&planted, draft_of(&path)).expect("linked");
        write(&path, "two").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), "two");
        assert_eq!(fs::read_to_string(&planted).expect("there"), "untouched");
        assert_eq!(fs::read_dir(folder.join("deep")).expect("there").count(), 1);
        fs::remove_dir_all(&folder).expect("removed");
    }
}
