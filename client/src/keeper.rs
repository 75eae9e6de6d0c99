//! Writes the profile while the tunnel is up. The rest of the process has given its privileges
//! away by then; this thread began before, and is the profile's owner and nothing more.

use crate::owner::Owner;
use crate::profile;
use postern_io::host::drop_privileges;
use postern_proto::profile::Profile;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

type Wanted = (Box<Profile>, SyncSender<io::Result<()>>);

/// The way to it. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Keeper(Option<SyncSender<Wanted>>);

impl Keeper {
    /// Starts the thread; to be called before privileges are dropped. A profile that came out of
    /// a pipe is kept nowhere.
    ///
    /// # Errors
    /// The thread cannot be started, or the file is gone.
    pub fn start(path: &Path) -> io::Result<Keeper> {
        // Links are followed now, so that the file is replaced and not the link to it.
        let path: PathBuf = path.canonicalize()?;
        let metadata = path.metadata()?;
        if !metadata.is_file() {
            return Ok(Keeper(None));
        }
        let owner = Owner {
            uid: metadata.uid(),
            gid: metadata.gid(),
            folder: None,
        };
        let (sender, wanted) = sync_channel::<Wanted>(1);
        std::thread::Builder::new()
            .name("keeper".to_owned())
            .spawn(move || {
                let owned = if owner.is_another() {
                    owner.become_owner()
                } else {
                    drop_privileges().map_err(io::Error::other)
                };
                for (profile, answer) in wanted {
                    let saved = match &owned {
                        Ok(()) => profile::save(&path, &profile),
                        Err(error) => Err(io::Error::new(error.kind(), error.to_string())),
                    };
                    let _ = answer.send(saved);
                }
            })?;
        Ok(Keeper(Some(sender)))
    }

    /// Whether there is a file at all.
    #[must_use]
    pub fn keeps(&self) -> bool {
        self.0.is_some()
    }

    /// Replaces the file; it is on the disk when this returns. Blocks for as long.
    ///
    /// # Errors
    /// What the file system answered, or that there is no file.
    pub fn save(&self, profile: &Profile) -> io::Result<()> {
        let none = || io::Error::other("the profile is not a file that can be written");
        let sender = self.0.as_ref().ok_or_else(none)?;
        let (answer, saved) = sync_channel(1);
        sender
            .send((Box::new(profile.clone()), answer))
            .map_err(|_| none())?;
        saved.recv().map_err(|_| none())?
    }
}
