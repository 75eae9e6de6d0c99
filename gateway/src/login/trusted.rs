//! Whom gateway.yaml trusts, as far as it has been read.

use super::problem::{bad_request, expired};
use super::provider::Provider;
use super::{Inner, lock};
use crate::config::{LoginConfig, ProviderConfig};
use crate::device_api::DeviceProblem;
use std::sync::Arc;

/// The section of the file, and those whom it names.
pub(super) struct Trusted {
    pub(super) config: LoginConfig,
    pub(super) providers: Vec<Arc<Provider>>,
}

impl Inner {
    /// Follows gateway.yaml. Providers that did not change keep what they know.
    pub(super) fn trusted(&self) -> Arc<Trusted> {
        let config = self.config.get();
        let mut trusted = lock(&self.trusted);
        if trusted.config != config.login {
            *trusted = Arc::new(Trusted::new(&config.login, Some(&trusted)));
            // What is gone does not fail any more; what is still there will say so again.
            lock(&self.failing).clear();
        }
        trusted.clone()
    }

    pub(super) fn still_trusted(&self, provider: &Arc<Provider>) -> Result<(), DeviceProblem> {
        let trusted = self.trusted();
        let mut all = trusted.providers.iter();
        if all.any(|other| Arc::ptr_eq(other, provider)) {
            return Ok(());
        }
        Err(expired())
    }
}

impl Trusted {
    pub(super) fn new(config: &LoginConfig, before: Option<&Trusted>) -> Trusted {
        let old = |config: &ProviderConfig| {
            let mut old = before?.providers.iter();
            old.find(|provider| provider.config == *config).cloned()
        };
        let providers = config
            .providers
            .iter()
            .map(|config| old(config).unwrap_or_else(|| Arc::new(Provider::new(config.clone()))));
        Trusted {
            providers: providers.collect(),
            config: config.clone(),
        }
    }

    /// The named one, or the only one.
    pub(super) fn provider(&self, name: Option<&str>) -> Result<Arc<Provider>, DeviceProblem> {
        let names: Vec<_> = self
            .providers
            .iter()
            .map(|provider| provider.config.name.as_str())
            .collect();
        let found = match name {
            Some(name) => names.iter().position(|other| *other == name),
            None => (names.len() == 1).then_some(0),
        };
        if let Some(provider) = found.and_then(|at| self.providers.get(at)) {
            return Ok(provider.clone());
        }
        let error = match name {
            Some(_) => "there is no such provider".to_owned(),
            None if names.is_empty() => "there is no provider here".to_owned(),
            None => format!("there are {} providers here", names.len()),
        };
        let help = match names.is_empty() {
            true => "see `postern login --help` for other ways".to_owned(),
            false => format!("choose one: {}", names.join(", ")),
        };
        Err(bad_request(&error, help))
    }
}
