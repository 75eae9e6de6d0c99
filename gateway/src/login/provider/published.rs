//! What a provider publishes, its metadata (OpenID Connect Discovery) and its keys. It is kept for
//! an hour and asked for when it is needed; one that is down is asked again a few seconds later.

use super::{Provider, ProviderError, said};
use crate::https;
use crate::login::http::Http;
use crate::login::pending::after;
use openidconnect::core::{
    CoreAuthDisplay, CoreClaimName, CoreClaimType, CoreClientAuthMethod, CoreGrantType,
    CoreJsonWebKey, CoreJsonWebKeySet, CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm, CoreResponseMode, CoreResponseType, CoreSubjectIdentifierType,
};
use openidconnect::url::Url;
use openidconnect::{
    AdditionalProviderMetadata, DeviceAuthorizationUrl, IssuerUrl, ProviderMetadata,
};
use postern_proto::now::Wall;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// How long what a provider publishes is believed.
const KEPT: Duration = Duration::from_secs(3600);
/// A provider that could not be reached is not asked again before.
const RETRY: Duration = Duration::from_secs(5);
/// Keys are not fetched again before, whatever tokens say.
const KEYS_PAUSE: Duration = Duration::from_secs(10);

/// What it publishes.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) http: Arc<Http>,
    pub(super) metadata: Metadata,
    pub(super) keys: CoreJsonWebKeySet,
    since: Wall,
    keys_since: Wall,
}

/// What Postern reads beyond OpenID Connect Discovery: RFC 8628 and RFC 9207.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(super) struct More {
    pub(super) device_authorization_endpoint: Option<DeviceAuthorizationUrl>,
    #[serde(default)]
    pub(super) authorization_response_iss_parameter_supported: bool,
}

impl AdditionalProviderMetadata for More {}

type Metadata = ProviderMetadata<
    More,
    CoreAuthDisplay,
    CoreClientAuthMethod,
    CoreClaimName,
    CoreClaimType,
    CoreGrantType,
    CoreJweContentEncryptionAlgorithm,
    CoreJweKeyManagementAlgorithm,
    CoreJsonWebKey,
    CoreResponseMode,
    CoreResponseType,
    CoreSubjectIdentifierType,
>;

impl Provider {
    pub(super) async fn known(&self, now: Wall) -> Result<Arc<Known>, ProviderError> {
        let fresh = |known: &Arc<Known>| now.0.abs_diff(known.since.0) < nanos(KEPT);
        if let Some(known) = self.known.load_full().filter(fresh) {
            return Ok(known);
        }
        let mut last = self.fetching.lock().await;
        if let Some(known) = self.known.load_full().filter(fresh) {
            return Ok(known);
        }
        if let Some((at, error)) = &*last
            && now.0.abs_diff(at.0) < nanos(RETRY)
        {
            return Err(error.clone());
        }
        match self.fetch(now).await {
            Ok(known) => {
                *last = None;
                let known = Arc::new(known);
                self.known.store(Some(known.clone()));
                Ok(known)
            }
            Err(error) => {
                *last = Some((now, error.clone()));
                Err(error)
            }
        }
    }

    pub(super) async fn newer_keys(
        &self,
        old: &Arc<Known>,
        now: Wall,
    ) -> Result<Arc<Known>, ProviderError> {
        let _one_at_a_time = self.fetching.lock().await;
        let current = self.known.load_full().unwrap_or_else(|| old.clone());
        let changed = current.keys_since != old.keys_since;
        if changed || now < after(current.keys_since, KEYS_PAUSE) {
            return Ok(current);
        }
        let keys = CoreJsonWebKeySet::fetch_async(current.metadata.jwks_uri(), &*current.http);
        let keys = keys.await.map_err(|error| down(&error))?;
        let newer = Arc::new(Known {
            http: current.http.clone(),
            metadata: current.metadata.clone(),
            keys,
            since: current.since,
            keys_since: now,
        });
        self.known.store(Some(newer.clone()));
        Ok(newer)
    }

    async fn fetch(&self, now: Wall) -> Result<Known, ProviderError> {
        let http = match self.known.load_full() {
            Some(known) => known.http.clone(),
            None => {
                let http = Http::new(&self.config);
                Arc::new(http.map_err(|error| ProviderError::NotConfigured(error.to_string()))?)
            }
        };
        let issuer = IssuerUrl::new(self.config.issuer.clone())
            .map_err(|error| ProviderError::Down(error.to_string()))?;
        let metadata = Metadata::discover_async(issuer, &*http)
            .await
            .map_err(|error| down(&error))?;
        self.reachable(metadata.authorization_endpoint().url())?;
        let keys = metadata.jwks().clone();
        Ok(Known {
            http,
            metadata,
            keys,
            since: now,
            keys_since: now,
        })
    }

    /// Where a user is sent must be a web page, as well protected as the issuer. All other
    /// addresses are asked by [`Http`], which looks itself.
    pub(super) fn reachable(&self, url: &Url) -> Result<(), ProviderError> {
        let plain = self.config.issuer.starts_with("http://");
        if url.scheme() == "https" || plain && url.scheme() == "http" {
            return Ok(());
        }
        let problem = format!(
            "it sends users to {}, which is not https",
            said(url.as_str())
        );
        Err(ProviderError::Down(problem))
    }
}

fn down(error: &dyn std::error::Error) -> ProviderError {
    ProviderError::Down(said(&https::chain(error)))
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
