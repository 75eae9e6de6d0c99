//! The folder that a spool writes to, as a trait: a real one, and for tests one that fails.

use crate::spool::SpoolError;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The file that the one writer of a folder holds locked.
pub const LOCK: &str = "lock";

/// A folder with one writer.
pub trait Storage {
    /// An open file.
    type File: StorageFile;

    /// Names and lengths of all files, in no order.
    ///
    /// # Errors
    /// Those of the system, as everywhere here.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// Opens a file to read and write.
    #[allow(clippy::missing_errors_doc)]
    fn open(&self, name: &str) -> io::Result<Self::File>;

    /// As [`Storage::open`]; creates it empty if there is none.
    #[allow(clippy::missing_errors_doc)]
    fn create(&self, name: &str) -> io::Result<Self::File>;

    /// Removes a file; none to remove is no error.
    #[allow(clippy::missing_errors_doc)]
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes what was created and removed survive a power cut.
    #[allow(clippy::missing_errors_doc)]
    fn sync_folder(&self) -> io::Result<()>;
}

/// Something that can be read at any place.
pub trait ReadAt {
    /// Reads at an offset; less than asked at the end, or whenever it likes.
    ///
    /// # Errors
    /// Those of the system, as everywhere here.
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize>;
}

/// An open file of a [`Storage`].
pub trait StorageFile: ReadAt {
    /// Writes at an offset; may write less than given, but never nothing without an error.
    #[allow(clippy::missing_errors_doc)]
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;

    /// Cuts it to this length.
    #[allow(clippy::missing_errors_doc)]
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Makes its bytes and its length survive a power cut.
    #[allow(clippy::missing_errors_doc)]
    fn sync(&self) -> io::Result<()>;
}

/// A real folder, locked for as long as this lives.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    folder: File,
    _lock: File,
}

impl Disk {
    /// Creates the folder (0750) if there is none, and locks it.
    ///
    /// # Errors
    /// It cannot be created or written to, or another process holds it.
    pub fn open(dir: &Path) -> Result<Disk, SpoolError> {
        let cannot = |source| SpoolError::Folder {
            dir: dir.to_owned(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o750)
            .create(dir)
            .map_err(cannot)?;
        let lock = create(&dir.join(LOCK)).map_err(cannot)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(SpoolError::Locked {
                    dir: dir.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(cannot(source)),
        }
        // A disk without room for these few bytes has none for a record.
        let holder = std::process::id().to_string();
        lock.set_len(0)
            .and_then(|()| lock.write_all_at(holder.as_bytes(), 0))
            .map_err(cannot)?;
        Ok(Disk {
            dir: dir.to_owned(),
            folder: File::open(dir).map_err(cannot)?,
            _lock: lock,
        })
    }
}

impl Storage for Disk {
    type File = File;

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let is = entry.metadata()?;
            if let (true, Ok(name)) = (is.is_file(), entry.file_name().into_string()) {
                files.push((name, is.len()));
            }
        }
        Ok(files)
    }

    fn open(&self, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .open(self.dir.join(name))
    }

    fn create(&self, name: &str) -> io::Result<File> {
        create(&self.dir.join(name))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        match fs::remove_file(self.dir.join(name)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn sync_folder(&self) -> io::Result<()> {
        self.folder.sync_all()
    }
}

impl ReadAt for File {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        FileExt::read_at(self, into, offset)
    }
}

impl ReadAt for [u8] {
    fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let bytes = self.get(from..).unwrap_or_default();
        let some = bytes.len().min(into.len());
        into[..some].copy_from_slice(&bytes[..some]);
        Ok(some)
    }
}

impl StorageFile for File {
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        FileExt::write_at(self, bytes, offset)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o640)
        .open(path)
}

/// Writes all of `bytes` at `offset`.
///
/// # Errors
/// Some of them were not written; which ones is not known.
pub(crate) fn write_all(file: &impl StorageFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    let mut done = 0;
    while done < bytes.len() {
        match file.write_at(&bytes[done..], offset + done as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(some) => done += some,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Replaces a file so that a power cut leaves the old one or the new one.
///
/// # Errors
/// It was not replaced, or not durably.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let mut tmp = path.as_os_str().to_owned();
    tmp.push(".tmp");
    let file = create(Path::new(&tmp))?;
    file.set_len(0)?;
    file.write_all_at(bytes, 0)?;
    file.sync_all()?;
    fs::rename(&tmp, path)?;
    File::open(dir)?.sync_all()
}
