//! Which tunnels run on this host: one lock, one state file and one control socket each, in a
//! folder that a reboot empties. Network namespaces that share the folder are told apart by what
//! the lock file says.

use crate::owner::Owner;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

/// Where the files are, unless `POSTERN_RUN_DIR` says otherwise.
pub const RUN_DIR: &str = "/run/postern";

/// Why a tunnel cannot be started, or found.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// Not a name that can be part of a file name.
    #[error("tunnel name `{0}`: use letters, digits, `-`, `_` and `.`, or give one with --name")]
    Name(String),
    /// The folder or the lock cannot be made.
    #[error("{}: {source}; run as root, or set POSTERN_RUN_DIR to a folder of your own", path.display())]
    Folder {
        /// Which.
        path: PathBuf,
        /// What the file system answered.
        source: io::Error,
    },
    /// It runs already.
    #[error("`{0}` is up already; `postern down {0}` stops it")]
    Running(String),
    /// Nothing runs.
    #[error("no tunnel is up")]
    NoneRunning,
    /// This one does not run.
    #[error("`{0}` is not up")]
    NotRunning(String),
    /// Several run, and none was named.
    #[error("several tunnels are up: name one of {0}")]
    Several(String),
}

/// The files of one tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    folder: PathBuf,
    name: String,
}

/// Held as long as the tunnel runs; the kernel releases it, however the process ends.
#[derive(Debug)]
pub struct Lock(#[expect(dead_code, reason = "the lock is the open file")] File);

impl Instance {
    /// The tunnel `name` in `folder`.
    ///
    /// # Errors
    /// The name cannot be part of a file name.
    pub fn new(folder: &Path, name: &str) -> Result<Instance, InstanceError> {
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.chars().all(good) {
            return Err(InstanceError::Name(name.to_owned()));
        }
        Ok(Instance {
            folder: folder.to_owned(),
            name: name.to_owned(),
        })
    }

    /// The named tunnel, or the only one that runs.
    ///
    /// # Errors
    /// It does not run, or none was named and not exactly one runs.
    pub fn running(folder: &Path, name: Option<&str>) -> Result<Instance, InstanceError> {
        let Some(name) = name else {
            let mut all = all_running(folder);
            return match (all.pop(), all.is_empty()) {
                (None, _) => Err(InstanceError::NoneRunning),
                (Some(only), true) => Ok(only),
                (Some(last), false) => {
                    all.push(last);
                    let names: Vec<_> = all.iter().map(Instance::name).collect();
                    Err(InstanceError::Several(names.join(", ")))
                }
            };
        };
        let instance = Instance::new(folder, name)?;
        if instance.is_running() {
            Ok(instance)
        } else {
            Err(InstanceError::NotRunning(name.to_owned()))
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it changed on the host.
    #[must_use]
    pub fn state_file(&self) -> PathBuf {
        self.file("json")
    }

    /// Where it listens for `status` and `down`.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.file("sock")
    }

    /// Takes the lock, making the folder (0700) if need be. An `owner` who is somebody else may
    /// then find the tunnel: the lock is theirs to read, and the folder open to look into (0755).
    ///
    /// # Errors
    /// It runs already, or the folder is not ours to write to.
    pub fn lock(&self, owner: &Owner) -> Result<Lock, InstanceError> {
        let failed = |source| InstanceError::Folder {
            path: self.folder.clone(),
            source,
        };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.folder)
            .map_err(failed)?;
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(self.file("lock"))
            .map_err(failed)?;
        if owner.is_another() {
            fs::set_permissions(&self.folder, fs::Permissions::from_mode(0o755))
                .and_then(|()| fchown(&file, Some(owner.uid), Some(owner.gid)))
                .map_err(failed)?;
        }
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                file.set_len(0)
                    .and_then(|()| (&file).write_all(namespace().as_bytes()))
                    .map_err(failed)?;
                Ok(Lock(file))
            }
            Err(rustix::io::Errno::WOULDBLOCK) => Err(InstanceError::Running(self.name.clone())),
            Err(error) => Err(failed(error.into())),
        }
    }

    /// Somebody holds the lock. The lock file itself stays for ever: removing it would let two
    /// hold "the" lock.
    #[must_use]
    pub fn is_running(&self) -> bool {
        File::open(self.file("lock")).is_ok_and(|file| {
            flock(&file, FlockOperation::NonBlockingLockShared)
                == Err(rustix::io::Errno::WOULDBLOCK)
        })
    }

    fn is_here(&self) -> bool {
        fs::read_to_string(self.file("lock")).is_ok_and(|of| of == namespace())
    }

    fn file(&self, kind: &str) -> PathBuf {
        self.folder.join(format!("{}.{kind}", self.name))
    }
}

fn all_running(folder: &Path) -> Vec<Instance> {
    let mut running: Vec<Instance> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            Instance::new(folder, name.strip_suffix(".lock")?).ok()
        })
        .filter(|instance| instance.is_running() && instance.is_here())
        .collect();
    running.sort_by(|a, b| a.name.cmp(&b.name));
    running
}

/// This process's network namespace, as the kernel names it.
fn namespace() -> String {
    fs::read_link("/proc/self/ns/net")
        .map(|link| link.to_string_lossy().into_owned())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_process_holds_a_name_and_the_only_one_needs_no_name() {
        let folder = std::env::temp_dir().join(format!("postern-run-{}", std::process::id()));
        let me = Owner::invoking();
        let running = |name| Instance::running(&folder, name).map_err(|error| error.to_string());
        assert_eq!(running(None), Err("no tunnel is up".to_owned()));

        let ana = Instance::new(&folder, "ana-laptop").expect("a name");
        let lock = ana.lock(&me).expect("free");
        let again = ana.lock(&me).expect_err("held").to_string();
        assert!(again.contains("postern down ana-laptop"), "{again}");
        assert_eq!(running(None), Ok(ana.clone()));
        assert_eq!(running(Some("ben")), Err("`ben` is not up".to_owned()));

        let ben = Instance::new(&folder, "ben").expect("a name");
        let second = ben.lock(&me).expect("free");
        let error = running(None).expect_err("two run");
        assert!(error.contains("ana-laptop, ben"), "{error}");
        fs::write(ben.file("lock"), "net:[1]").expect("written");
        assert_eq!(
            running(None),
            Ok(ana.clone()),
            "ben is in another namespace"
        );
        assert_eq!(running(Some("ben")), Ok(ben), "and found by name");
        drop(second);
        assert_eq!(running(None), Ok(ana.clone()));
        drop(lock);
        assert!(!ana.is_running());
        ana.lock(&me).expect("free again");
        fs::remove_dir_all(&folder).expect("removed");
    }

    #[test]
    fn a_name_stays_in_its_folder() {
        for bad in ["", "../etc", "a/b", ".hidden", "a b", "ä"] {
            assert!(Instance::new(Path::new(RUN_DIR), bad).is_err(), "{bad}");
        }
    }
}
