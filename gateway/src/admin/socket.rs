//! The socket itself: 0600 from the moment it exists, and a stale one is removed only if nobody
//! answers on it.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A gateway answers on it.
    #[error("{}: a gateway is running on it; help: stop that one first, or give this one its own data_dir", .0.display())]
    Running(PathBuf),
    /// Something else has its name.
    #[error("{}: is no socket and is not removed; help: set another admin_socket in gateway.yaml", .0.display())]
    NoSocket(PathBuf),
    /// The system refused.
    #[error("{}: {reason}", path.display())]
    Io {
        /// The path.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
}

/// Listens at `path`. Must run inside a tokio runtime.
///
/// # Errors
/// See [`BindError`].
pub fn bind(path: &Path) -> Result<UnixListener, BindError> {
    let failed = |reason| BindError::Io {
        path: path.to_owned(),
        reason,
    };
    match std::fs::symlink_metadata(path) {
        Ok(facts) if !facts.file_type().is_socket() => {
            return Err(BindError::NoSocket(path.to_owned()));
        }
        Ok(_) => match UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                std::fs::remove_file(path).map_err(failed)?;
            }
            Ok(_) => return Err(BindError::Running(path.to_owned())),
            Err(error) => return Err(failed(error)),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
    }
    // The mask is the process's; meanwhile other files would only be born stricter.
    let mask = rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let listener = UnixListener::bind(path);
    rustix::process::umask(mask);
    let listener = listener.map_err(failed)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(failed)?;
    Ok(listener)
}
