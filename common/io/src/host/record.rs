//! Small JSON files that outlive a crash: written whole, synced, 0600, before the thing that they
//! record is done.

use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// Replaces `path` with `value` as JSON: new file, synced, renamed, directory synced.
///
/// # Errors
/// What the file system answered.
pub fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(value)?;
    let draft = draft_of(path);
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&draft)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    sync_parent(path)
}

/// Reads what [`write()`] wrote; `None` if there is no such file.
///
/// # Errors
/// What the file system answered, or that the text is not what was written.
pub fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes the file if it is there.
///
/// # Errors
/// What the file system answered.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Ok(()) => sync_parent(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn draft_of(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}

fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    };
    if cfg!(unix) {
        File::open(parent)?.sync_all()
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_read_and_gone_after_removal() {
        let folder = std::env::temp_dir().join(format!("postern-record-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("temporary folder");
        let path = folder.join("state.json");
        assert_eq!(read::<Vec<u8>>(&path).expect("no file is no error"), None);
        write(&path, &vec![1u8, 2]).expect("written");
        write(&path, &vec![3u8]).expect("replaced");
        assert_eq!(read::<Vec<u8>>(&path).expect("readable"), Some(vec![3]));
        assert!(
            read::<String>(&path).is_err(),
            "another shape is an error, not a default"
        );
        remove(&path).expect("removed");
        remove(&path).expect("removing nothing is no error");
        assert_eq!(
            fs::read_dir(&folder).expect("folder").count(),
            0,
            "no draft is left"
        );
        fs::remove_dir(&folder).expect("empty folder");
    }
}
