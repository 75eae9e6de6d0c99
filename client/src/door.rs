//! Where a verb finds the control API: through the tunnel that is up, or, where none is, through
//! one of its own.

use crate::api::{Call, CallError};
use crate::control::{self, Answer, Request};
use crate::instance::{Instance, InstanceError};
use crate::owner::Owner;
use crate::profile::{self, ProfileError};
use crate::resolve;
use crate::state::Config;
use crate::userspace::Tunnel;
use postern_proto::profile::Profile;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A gateway that is there answers within this time.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// The way to the gateway.
#[derive(Debug)]
pub enum Door {
    /// Through the control socket of a tunnel that is up.
    Running(Instance),
    /// Through a tunnel of this program's own.
    Own(Tunnel),
}

/// Why there is none.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// No tunnel is up, and no profile has that name.
    #[error("{0}, and there is no profile of that name to do without")]
    Nothing(InstanceError),
    /// The profile.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// No socket, no thread, no addresses.
    #[error("cannot open a tunnel: {0}")]
    Tunnel(#[from] io::Error),
    /// Nothing came back.
    #[error(
        "the gateway does not answer at {0}; it is silent to those it does not know: is this device still enrolled, and does the network let UDP through?"
    )]
    Silent(String),
}

impl Door {
    /// The tunnel that is up, by name if one is given; else the profile of that name (or the only
    /// one there is).
    ///
    /// # Errors
    /// [`DoorError`].
    pub fn find(run_dir: &Path, name: Option<&str>) -> Result<Door, DoorError> {
        let missing = match Instance::running(run_dir, name) {
            Ok(instance) => return Ok(Door::Running(instance)),
            Err(error @ (InstanceError::NoneRunning | InstanceError::NotRunning(_))) => error,
            Err(error) => return Err(DoorError::Nothing(error)),
        };
        let owner = Owner::invoking();
        let path = match name {
            Some(name) => owner.profile(name).filter(|path| path.exists()),
            None => owner.folder.as_deref().and_then(only_profile),
        };
        let path = path.ok_or(DoorError::Nothing(missing))?;
        Ok(Door::Own(open(&profile::load(&path)?)?))
    }

    /// Makes a call.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<T, CallError> {
        match self {
            Door::Own(tunnel) => tunnel.ask(call),
            Door::Running(instance) => {
                let silent = |why: String| CallError::Silent(why);
                let answer = control::ask(
                    &instance.socket(),
                    &Request::Api {
                        call: Box::new(call),
                    },
                )
                .map_err(|error| silent(error.to_string()))?;
                match answer {
                    Answer::Api { value } => crate::api::read(value),
                    Answer::Refused { why } => Err(why),
                    Answer::Error { message } => Err(silent(message)),
                    Answer::Status(_) | Answer::Stopping | Answer::Done => {
                        Err(silent("the tunnel gave another answer".to_owned()))
                    }
                }
            }
        }
    }
}

/// A tunnel of a device's own key; it has connected.
///
/// # Errors
/// [`DoorError`].
pub fn open(profile: &Profile) -> Result<Tunnel, DoorError> {
    let version = env!("CARGO_PKG_VERSION");
    let config = Config::from_profile(profile, version)
        .ok_or_else(|| io::Error::other("the profile has no private key"))?;
    let resolved = resolve::resolve(&profile.gateway.endpoints);
    let at: Vec<String> = profile
        .gateway
        .endpoints
        .iter()
        .map(ToString::to_string)
        .collect();
    if resolved.endpoints.is_empty() {
        return Err(io::Error::other(resolved.failures.join("; ")).into());
    }
    let tunnel = Tunnel::open(config, resolved.endpoints, false)?;
    if tunnel.wait_connected(PATIENCE) {
        Ok(tunnel)
    } else {
        Err(DoorError::Silent(at.join(", ")))
    }
}

fn only_profile(folder: &Path) -> Option<PathBuf> {
    let mut profiles = std::fs::read_dir(folder)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|kind| kind == "yaml"));
    let only = profiles.next()?;
    profiles.next().is_none().then_some(only)
}
