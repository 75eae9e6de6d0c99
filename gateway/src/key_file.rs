//! Randomness from the kernel, and files that hold secrets: 0600 from the moment they exist.

use postern_proto::keys::{PresharedKey, PrivateKey};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// No secret is longer, bytes.
const LONGEST: u64 = 64 << 10;

/// Why there is no private key.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("{}: {reason}; help: `postern-gateway init` makes one, or restore it from a backup", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's words.
        reason: io::Error,
    },
    /// Others can read or write it.
    #[error("{}: mode {mode:04o} lets others in; help: chmod 600 {}", path.display(), path.display())]
    Open {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// No key is in it.
    #[error("{}: holds no private key; help: one line of 44 characters of base64, as `wg genkey` prints", path.display())]
    NoKey {
        /// The file.
        path: PathBuf,
    },
}

/// Random bytes.
///
/// # Errors
/// The kernel gives none.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        filled +=
            rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

/// A new private key.
///
/// # Errors
/// The kernel gives no randomness.
pub fn new_private_key() -> io::Result<PrivateKey> {
    random().map(PrivateKey::from_random)
}

/// A new pre-shared key.
///
/// # Errors
/// The kernel gives no randomness.
pub fn new_preshared_key() -> io::Result<PresharedKey> {
    random().map(PresharedKey)
}

/// Reads the gateway's key. A file that others can read is refused: the key may be known.
///
/// # Errors
/// See [`KeyFileError`].
pub fn read(path: &Path) -> Result<PrivateKey, KeyFileError> {
    let unreadable = |reason| KeyFileError::Unreadable {
        path: path.to_owned(),
        reason,
    };
    let file = File::open(path).map_err(unreadable)?;
    if let Some(mode) = lets_others_in(&file).map_err(unreadable)? {
        return Err(KeyFileError::Open {
            path: path.to_owned(),
            mode,
        });
    }
    let text = io::read_to_string(file).map_err(unreadable)?;
    text.trim().parse().map_err(|_| KeyFileError::NoKey {
        path: path.to_owned(),
    })
}

/// The permission bits of a file that somebody besides its owner can read or write; none if nobody
/// can.
///
/// # Errors
/// The file cannot be asked.
pub fn lets_others_in(file: &File) -> io::Result<Option<u32>> {
    let mode = file.metadata()?.mode() & 0o7777;
    Ok((mode & 0o077 != 0).then_some(mode))
}

/// The secret of a file that holds one line. The error does not show it.
///
/// # Errors
/// As [`text`]; or it is empty, or more than a line.
pub fn one_line(path: &Path) -> io::Result<Zeroizing<String>> {
    let text = text(path)?;
    let line = text.trim_end_matches(['\r', '\n']);
    if line.is_empty() || line.contains(['\r', '\n']) {
        let problem = format!("{}: must hold one line, the secret", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, problem));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

/// What a file of secrets holds, 64 KiB at most.
///
/// # Errors
/// It cannot be read, is no text, or lets others in.
pub fn text(path: &Path) -> io::Result<Zeroizing<String>> {
    let at =
        |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
    let file = File::open(path).map_err(at)?;
    if let Some(mode) = lets_others_in(&file).map_err(at)? {
        let path = path.display();
        let problem = format!("{path}: mode {mode:04o} lets others in; help: chmod 600 {path}");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    let mut text = Zeroizing::new(String::new());
    file.take(LONGEST).read_to_string(&mut text).map_err(at)?;
    Ok(text)
}

/// Writes a new file that only its owner can read, from the first moment. Refuses to overwrite.
///
/// # Errors
/// The file exists or cannot be written.
pub fn create(path: &Path, text: &str) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::Scratch;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_secret_is_closed_from_the_first_moment_and_never_overwritten() {
        let folder = Scratch::new();
        let path = folder.path("gateway.key");
        let key = new_private_key().expect("random");
        create(&path, &key.expose_base64()).expect("written");
        let mode = std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o600);
        assert_eq!(read(&path).expect("own file").public(), key.public());
        let again = create(&path, "other").expect_err("exists");
        assert_eq!(again.kind(), io::ErrorKind::AlreadyExists);
    }

    #[test]
    fn a_key_that_others_can_read_is_refused() {
        let folder = Scratch::new();
        let path = folder.path("gateway.key");
        create(&path, &new_private_key().expect("random").expose_base64()).expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("chmod");
        let error = read(&path).expect_err("open to the group");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }

    #[test]
    fn what_is_no_key_is_not_shown() {
        let folder = Scratch::new();
        let path = folder.path("gateway.key");
        create(&path, "almost-a-secret").expect("written");
        let error = read(&path).expect_err("no key");
        assert!(!error.to_string().contains("almost"), "{error}");
    }
}
