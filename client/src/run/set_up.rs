//! The steps before the loop turns.

use super::UpOptions;
use super::error::{UpError, io};
use crate::resolve::{Resolved, Resolver, literals};
use crate::split_tunnel::{self, Plan};
use postern_io::clock::Clock;
use postern_io::host::{drop_privileges, routes};
use postern_io::poll::{Sources, Waker};
use postern_io::signal::{Signal, Signals};
use postern_io::tun::TunError;
use postern_proto::profile::Profile;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::time::Duration;

/// A start waits so long for the first look-up, then goes on without.
const FIRST_LOOK_UP: Duration = Duration::from_secs(8);
/// So long where some endpoints are addresses and need none.
const SHORT_LOOK_UP: Duration = Duration::from_secs(1);
/// Interfaces that are tried when none is named: postern0 to postern15.
const INTERFACES: usize = 16;

/// `None`: a signal came first.
pub(super) fn first_look_up(
    profile: &Profile,
    resolver: &Resolver,
    waker: &Waker,
    signals: &Signals,
) -> Result<Option<Resolved>, UpError> {
    resolver.ask();
    let literals = literals(&profile.gateway.endpoints);
    let patience = if literals.is_empty() {
        FIRST_LOOK_UP
    } else {
        SHORT_LOOK_UP
    };
    let deadline = Clock::now().mono + patience;
    loop {
        if let Ok(resolved) = resolver.results.try_recv() {
            return Ok(Some(resolved));
        }
        let now = Clock::now().mono;
        if deadline <= now {
            return Ok(Some(Resolved {
                endpoints: literals,
                failures: Vec::new(),
            }));
        }
        let sources = Sources {
            udp4: None,
            udp6: None,
            tun: None,
            waker,
            signals: Some(signals.as_fd()),
        };
        let ready = sources.wait(deadline, now).map_err(io("waiting"))?;
        if ready.signalled && asked_to_stop(signals) {
            return Ok(None);
        }
    }
}

pub(super) fn make_plan(
    profile: &Profile,
    interface: &str,
    endpoints: &[SocketAddr],
) -> Result<Plan, UpError> {
    let (routes, addresses) = (routes::routes()?, routes::addresses()?);
    split_tunnel::plan(profile, interface, endpoints, &routes, &addresses).map_err(UpError::Clash)
}

pub(super) fn free_interface() -> Result<String, UpError> {
    for number in 0..INTERFACES {
        let name = format!("postern{number}");
        if !routes::interface_exists(&name)? {
            return Ok(name);
        }
    }
    Err(TunError::Busy(format!("postern{}", INTERFACES - 1)).into())
}

/// Keeps CAP_NET_ADMIN only. Not where the folder belongs to somebody else: root alone could
/// write to it, by a capability that would be gone.
pub(super) fn give_up_privileges(options: &UpOptions) -> Result<(), UpError> {
    use std::os::unix::fs::MetadataExt as _;
    let owner = std::fs::metadata(&options.run_dir).map(|folder| folder.uid());
    if owner.is_ok_and(|owner| owner == rustix::process::geteuid().as_raw()) {
        drop_privileges()?;
    }
    Ok(())
}

pub(super) fn seed() -> Result<u64, UpError> {
    use std::io::Read as _;
    let mut seed = [0; 8];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut file| file.read_exact(&mut seed))
        .map_err(io("reading /dev/urandom"))?;
    Ok(u64::from_ne_bytes(seed))
}

/// SIGINT or SIGTERM came.
pub(super) fn asked_to_stop(signals: &Signals) -> bool {
    std::iter::from_fn(|| signals.next())
        .any(|signal| matches!(signal, Signal::Interrupt | Signal::Terminate))
}
