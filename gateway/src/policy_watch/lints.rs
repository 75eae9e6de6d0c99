//! What a policy is warned of, by what the gateway knows of users and devices.

use crate::config::Config;
use crate::store::Store;
use postern_engine::policy::{Known, Policy, PolicyWarning};
use postern_io::clock::Clock;
use postern_proto::now::Wall;
use std::sync::Arc;

/// The issuer of those who log in with a code by e-mail.
const EMAIL: &str = "email";

/// The warnings about `source`, in the order of the file. Without a store, or with one that gives
/// no answer, nothing is known of users and devices, and names are not looked at.
pub async fn lints(
    source: Arc<str>,
    config: Option<&Config>,
    store: Option<&Store>,
) -> Vec<PolicyWarning> {
    let now = Clock::now().wall;
    let known = match (config, store) {
        (Some(config), Some(store)) => known(config, store, now).await,
        (None, _) | (_, None) => Known::default(),
    };
    let warned = tokio::task::spawn_blocking(move || Policy::lints(&source, &known, now)).await;
    warned.unwrap_or_default()
}

async fn known(config: &Config, store: &Store, now: Wall) -> Known {
    let Ok(mut known) = store.known(now.seconds()).await else {
        return Known::default();
    };
    let login = &config.login;
    if login.providers.iter().any(|one| one.groups_claim.is_some()) {
        // Who is in a group is known to the provider alone until they log in.
        known.groups = None;
    }
    let mut issuers = known.issuers.unwrap_or_default();
    issuers.extend(login.providers.iter().map(|one| one.issuer.clone()));
    issuers.extend(login.email.iter().map(|_| EMAIL.to_owned()));
    known.issuers = (!issuers.is_empty()).then_some(issuers);
    known
}
