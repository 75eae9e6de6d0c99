//! `policy check`.

use super::super::output;
use super::super::{Failure, Where};
use crate::config::Config;
use crate::policy_watch;
use crate::store::{Store, StoreError, Terms};
use postern_engine::policy::{Known, Policy};
use postern_io::clock::Clock;
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Faults and failed tests are errors; what may not be what somebody meant is a warning.
pub(super) async fn check(file: Option<PathBuf>, place: &Where) -> Result<u8, Failure> {
    // A file alone is checked on any machine.
    let config = match &file {
        Some(_) => place.load().ok(),
        None => Some(place.load()?),
    };
    let path = match (file, &config) {
        (Some(file), _) => file,
        (None, Some(config)) => config.policy.clone(),
        (None, None) => return Err(Failure::usage("no policy is named")),
    };
    let policy = policy_watch::load(&path)?;
    let source = std::fs::read_to_string(&path)?;
    let known = match &config {
        Some(config) => known(config).await?,
        None => Known::default(),
    };
    for warning in Policy::lints(&source, &known, Clock::now().wall) {
        eprintln!("{warning}\n");
    }
    let tests = policy.run_tests().len();
    output::say(format_args!(
        "{} is good: {} rules, {tests} tests passed, hash {}",
        path.display(),
        policy.len(),
        policy.hash()
    ))?;
    if tests == 0 {
        eprintln!("note: it has no `tests:`; with them a slip of the pen is refused");
    }
    Ok(0)
}

/// Who there is, and who is invited. While there is nobody, nothing is known of them.
async fn known(config: &Config) -> Result<Known, StoreError> {
    let issuers = config.login.providers.iter().map(|one| one.issuer.clone());
    let mut known = Known {
        issuers: Some(issuers.collect()),
        ..Known::default()
    };
    if !config.store_path().exists() {
        return Ok(known);
    }
    let store = Store::open(&config.store_path(), config.pool).await?;
    let now = Clock::now().wall.seconds();
    let devices = store.active_devices(now, &Terms::of(config)).await?;
    let invitations = store.invitations().await?;
    if devices.is_empty() && invitations.is_empty() {
        return Ok(known);
    }
    let mut users: BTreeSet<_> = store.users().await?.into_iter().map(|u| u.name).collect();
    let (mut groups, mut labels, mut names) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for device in devices {
        users.extend(device.user);
        groups.extend(device.groups);
        labels.extend(device.standing.labels.iter().map(ToString::to_string));
        names.insert(device.name);
    }
    for invitation in invitations {
        users.extend(invitation.user);
        groups.extend(invitation.groups);
        labels.extend(invitation.labels);
        names.extend(invitation.name);
    }
    known.users = Some(users);
    known.groups = Some(groups);
    known.labels = Some(labels);
    known.devices = Some(names);
    Ok(known)
}
