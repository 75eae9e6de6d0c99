//! `postern join`: one pasted string becomes a profile. No root, no TUN: a throw-away key, a
//! tunnel of this program's own, one request. Then it waits until the device may be used.
//!
//! The order is what makes it safe to repeat: the new key is on the disk before the gateway hears
//! of it, the gateway has stored the device before it answers, and the profile is on the disk
//! before anybody is told.

use crate::api::{Call, CallError};
use crate::door;
use crate::facts;
use crate::owner::Owner;
use crate::profile;
use crate::random;
use crate::resolve;
use crate::state::Config;
use crate::userspace::Tunnel;
use error::io;
use pending::Pending;
use postern_io::clock::Clock;
use postern_proto::device_api::{DeviceStatus, JoinAnswer, JoinRequest, State};
use postern_proto::invitation::{GATEWAY, Invitation, guest_address};
use postern_proto::keys::{PresharedKey, PrivateKey};
use postern_proto::mtu::MIN_MTU;
use postern_proto::profile::{PROFILE_VERSION, Profile};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

mod error;
mod pending;

pub use error::JoinError;

/// A throw-away key that is not answered for so long, at each endpoint, is in use elsewhere or
/// unknown.
const PLACE_PATIENCE: Duration = Duration::from_secs(6);
/// So many silent ones in a row, and it is the gateway that is silent.
const SILENT_PLACES: usize = 4;
/// No further place of an open invitation is tried after so long: somebody may be sitting on them.
const WALK: Duration = Duration::from_secs(90);
/// Pause between two looks at whether an admin has approved; a notice of the gateway ends it.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// A tunnel for a few requests needs no more, and every path carries it.
const MTU: u16 = MIN_MTU as u16;

/// What `postern join` was told.
pub struct JoinOptions {
    /// The invitation.
    pub text: Zeroizing<String>,
    /// What to call the device.
    pub name: Option<String>,
    /// Where to put the profile.
    pub profile: Option<PathBuf>,
}

/// The invitation is a secret.
impl std::fmt::Debug for JoinOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoinOptions")
            .field("name", &self.name)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// A device that has joined. Its profile is on the disk.
#[derive(Debug)]
pub struct Joined {
    /// Its profile.
    pub profile: Profile,
    /// Where that is.
    pub path: PathBuf,
    /// How it stands.
    pub state: State,
}

/// Redeems the invitation and writes the profile.
///
/// # Errors
/// [`JoinError`]; the same command may be given again.
pub fn join(options: &JoinOptions, say: &mut dyn FnMut(&str)) -> Result<Joined, JoinError> {
    let invitation: Invitation = options.text.trim().parse()?;
    let owner = Owner::invoking();
    owner
        .become_owner()
        .map_err(io("becoming the user who called sudo"))?;
    let folder = folder(&owner, options)?;
    let mut pending =
        Pending::begin(&folder, &invitation).map_err(io("keeping the device's new key"))?;
    let private = pending.private_key().map_err(io("reading the kept key"))?;
    if let Some(path) = path(&owner, options, options.name.as_deref()) {
        free(&path, &private)?;
    }

    let answer = match redeem(&invitation, options, &mut pending, &private, WALK, say) {
        Err(error) if error.is_final() => {
            let _ = pending.end();
            return Err(error);
        }
        result => result?,
    };
    let path = path(&owner, options, Some(&answer.name)).ok_or(JoinError::NoFolder)?;
    free(&path, &private)?;
    let preshared = match &answer.kem_ciphertext {
        Some(ciphertext) => {
            let kem = pending.kem().map_err(io("reading the kept key"))?;
            Some(kem.open(ciphertext).map_err(|_| JoinError::Kem)?)
        }
        None => None,
    };
    let state = answer.state;
    let profile = made_of(answer, private, preshared);
    profile::save(&path, &profile).map_err(io("writing the profile"))?;
    // Kept once more it would do no harm: the next join with the same string gets the same answer.
    let _ = pending.end();
    Ok(Joined {
        profile,
        path,
        state,
    })
}

/// Waits until an admin has approved the device; says once that it does. What it returns is for
/// the caller to act on: the device is active, or wants a login.
///
/// # Errors
/// It was denied, or the gateway does not answer.
pub fn wait(
    joined: &Joined,
    say: &mut dyn FnMut(&str),
) -> Result<(Tunnel, DeviceStatus), JoinError> {
    let tunnel = door::open(&joined.profile)?;
    let mut told = false;
    loop {
        let status: DeviceStatus = match tunnel.ask(Call::Device) {
            Ok(status) => status,
            // It may be restarting; the approval stands in its store.
            Err(CallError::Silent(_)) if told => {
                tunnel.wait_changed(LOOK_AGAIN);
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match status.state {
            State::Active | State::NeedsLogin => return Ok((tunnel, status)),
            State::Denied => return Err(JoinError::Denied),
            State::UserDisabled => return Err(JoinError::UserDisabled),
            State::WaitsForApproval => {
                if !told {
                    say(&format!(
                        "{} waits for an admin's approval (key {}). Ctrl-C ends only the waiting: the profile is kept",
                        status.name,
                        joined
                            .profile
                            .private_key
                            .as_ref()
                            .map_or_else(String::new, |key| key.public().fingerprint()),
                    ));
                }
                told = true;
                tunnel.wait_changed(LOOK_AGAIN);
            }
        }
    }
}

fn redeem(
    invitation: &Invitation,
    options: &JoinOptions,
    pending: &mut Pending,
    private: &PrivateKey,
    walk: Duration,
    say: &mut dyn FnMut(&str),
) -> Result<JoinAnswer, JoinError> {
    let resolved = resolve::resolve(&invitation.endpoints);
    if resolved.endpoints.is_empty() {
        return Err(JoinError::LookUp(resolved.failures.join("; ")));
    }
    let kem = pending.kem().map_err(io("reading the kept key"))?;
    let call = Call::Join(JoinRequest {
        public_key: private.public(),
        kem_key: Some(kem.encapsulation_key()),
        name: options.name.clone(),
        facts: facts::who_am_i(),
    });
    let start = match pending.place() {
        Some(place) => place,
        None => u16::from_ne_bytes(random::bytes().map_err(io("asking for random bytes"))?),
    };
    let at: Vec<String> = invitation
        .endpoints
        .iter()
        .map(ToString::to_string)
        .collect();
    let (mut silent, mut used) = (0, 0);
    let end = Clock::now().mono + walk;
    for (tried, place) in places(start, invitation.keys).enumerate() {
        if tried > 0 && end <= Clock::now().mono {
            return Err(JoinError::Crowded {
                tried,
                of: invitation.keys,
            });
        }
        pending
            .try_place(place)
            .map_err(io("keeping the device's new key"))?;
        match redeem_at(invitation, place, &resolved.endpoints, &call)? {
            Place::Answered(answer) => return Ok(*answer),
            Place::Silent if invitation.keys > 1 && silent + 1 < SILENT_PLACES => {
                silent += 1;
                say("no answer yet; trying the next place of the invitation");
            }
            Place::Silent => return Err(JoinError::Silent(at.join(", "))),
            Place::Used => (silent, used) = (0, used + 1),
        }
    }
    Err(if used > 1 {
        JoinError::Full
    } else {
        JoinError::Used
    })
}

enum Place {
    Answered(Box<JoinAnswer>),
    Silent,
    Used,
}

fn redeem_at(
    invitation: &Invitation,
    place: u16,
    endpoints: &[SocketAddr],
    call: &Call,
) -> Result<Place, JoinError> {
    let key = invitation.secret.key(place);
    let config = Config {
        addresses: vec![guest_address(&key.public()).into()],
        private_key: key,
        gateway_key: invitation.gateway,
        preshared_key: None,
        gateway_addresses: vec![GATEWAY.into()],
        include: Vec::new(),
        mtu: MTU,
        keepalive: None,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    let tunnel = Tunnel::open(config, endpoints.to_vec(), true).map_err(io("opening a tunnel"))?;
    let tries = u32::try_from(endpoints.len()).unwrap_or(1).clamp(1, 4);
    if !tunnel.wait_connected(PLACE_PATIENCE * tries) {
        return Ok(Place::Silent);
    }
    // The answer may get lost: the same request gets the same answer.
    let answer = match tunnel.ask(call.clone()) {
        Err(CallError::Silent(_)) => tunnel.ask(call.clone()),
        answer => answer,
    };
    match answer.map_err(JoinError::from) {
        Ok(answer) => Ok(Place::Answered(answer)),
        Err(JoinError::Used) => Ok(Place::Used),
        Err(error) => Err(error),
    }
}

/// Every place of the invitation once, beginning somewhere.
fn places(start: u16, keys: u16) -> impl Iterator<Item = u16> {
    let keys = u32::from(keys.max(1));
    (0..keys).filter_map(move |step| u16::try_from((u32::from(start) % keys + step) % keys).ok())
}

fn made_of(answer: JoinAnswer, private: PrivateKey, preshared: Option<PresharedKey>) -> Profile {
    Profile {
        version: PROFILE_VERSION,
        name: answer.name,
        private_key: Some(private),
        addresses: answer.addresses,
        mtu: answer.config.mtu,
        gateway: answer.gateway,
        include: answer.config.include,
        keepalive: answer
            .config
            .keepalive
            .map(|seconds| Duration::from_secs(seconds.into())),
        preshared_key: preshared,
        key_since: Some(Clock::now().wall.seconds()),
        next_private_key: None,
        next_preshared_key: None,
    }
}

/// Where what is pending is kept: beside the profile.
fn folder(owner: &Owner, options: &JoinOptions) -> Result<PathBuf, JoinError> {
    match options.profile.as_deref().map(Path::parent) {
        Some(Some(parent)) if !parent.as_os_str().is_empty() => Ok(parent.to_owned()),
        Some(_) => Ok(PathBuf::from(".")),
        None => owner.folder.clone().ok_or(JoinError::NoFolder),
    }
}

fn path(owner: &Owner, options: &JoinOptions, name: Option<&str>) -> Option<PathBuf> {
    let given = options.profile.clone();
    // A name comes from the other end: it must not lead out of the folder.
    let good = |name: &&str| {
        !name.starts_with('.')
            && name
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    given.or_else(|| owner.profile(name.filter(good)?))
}

/// The path may be written to: nothing is there, or the same device.
fn free(path: &Path, private: &PrivateKey) -> Result<(), JoinError> {
    if !path.exists() {
        return Ok(());
    }
    let same = profile::load(path).is_ok_and(|profile| {
        profile
            .private_key
            .is_some_and(|key| key.public() == private.public())
    });
    if same {
        Ok(())
    } else {
        Err(JoinError::Exists(path.to_owned()))
    }
}

#[cfg(test)]
mod tests;
