//! One OpenID provider, and the two flows.

mod published;

use super::Proven;
use super::claims::{Refusal, Rest, Token, Verified};
use super::http::{Http, HttpError};
use crate::config::ProviderConfig;
use crate::https;
use crate::key_file;
use arc_swap::ArcSwapOption;
use hyper::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use openidconnect::core::{
    CoreAuthDisplay, CoreAuthPrompt, CoreClientAuthMethod, CoreErrorResponseType, CoreGenderClaim,
    CoreJsonWebKey, CoreJsonWebKeySet, CoreJweContentEncryptionAlgorithm, CoreJwsSigningAlgorithm,
    CoreResponseType, CoreRevocableToken, CoreRevocationErrorResponse,
    CoreTokenIntrospectionResponse, CoreTokenType,
};
use openidconnect::url::Url;
use openidconnect::{
    AccessToken, AuthType, AuthenticationFlow, AuthorizationCode, Client, ClientId, ClientSecret,
    CsrfToken, DeviceAuthorizationResponse, EmptyExtraDeviceAuthorizationFields,
    EmptyExtraTokenFields, EndpointMaybeSet, EndpointNotSet, EndpointSet, HttpRequest,
    IdTokenFields, Nonce, OAuth2TokenResponse, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl,
    RequestTokenError, Scope, StandardErrorResponse, StandardTokenResponse,
};
use postern_proto::now::Wall;
use published::Known;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{Mutex, Notify};

/// A provider that asks for a longer pause waits for this one.
const LONGEST_INTERVAL: u64 = 60;

/// Why a provider does not say who the user is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProviderError {
    /// It cannot be reached, or what it publishes makes no sense.
    #[error("{0}")]
    Down(String),
    /// What it needs here is missing. For the admin alone: it may hold a path.
    #[error("{0}")]
    NotConfigured(String),
    /// It cannot do that.
    #[error("{0}")]
    CannotDo(&'static str),
    /// It says no, or its word does not hold.
    #[error("{0}")]
    Refused(String),
}

/// What was sent with a browser and must come back.
#[derive(Clone)]
pub(super) struct BrowserFlow {
    pub(super) state: CsrfToken,
    nonce: Nonce,
    verifier: String,
    redirect: RedirectUrl,
}

/// A device code.
#[derive(Debug)]
pub(super) struct DeviceFlow(DeviceAuthorizationResponse<EmptyExtraDeviceAuthorizationFields>);

/// What the provider said to a device code.
pub(super) enum Polled {
    /// The user has not finished. Ask again, and wait longer from now on if it says so.
    NotYet { slow_down: bool },
    /// This user.
    Proven(Box<Proven>),
}

/// One provider.
#[derive(Debug)]
pub(super) struct Provider {
    pub(super) config: ProviderConfig,
    known: ArcSwapOption<Known>,
    /// Who fetches, and what came of the last time if it was nothing.
    fetching: Mutex<Option<(Wall, ProviderError)>>,
}

type Tokens = StandardTokenResponse<
    IdTokenFields<
        Rest,
        EmptyExtraTokenFields,
        CoreGenderClaim,
        CoreJweContentEncryptionAlgorithm,
        CoreJwsSigningAlgorithm,
    >,
    CoreTokenType,
>;

type Oidc = Client<
    Rest,
    CoreAuthDisplay,
    CoreGenderClaim,
    CoreJweContentEncryptionAlgorithm,
    CoreJsonWebKey,
    CoreAuthPrompt,
    StandardErrorResponse<CoreErrorResponseType>,
    Tokens,
    CoreTokenIntrospectionResponse,
    CoreRevocableToken,
    CoreRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointMaybeSet,
    EndpointMaybeSet,
>;

impl Provider {
    pub(super) fn new(config: ProviderConfig) -> Provider {
        Provider {
            config,
            known: ArcSwapOption::empty(),
            fetching: Mutex::new(None),
        }
    }

    /// Whether it has a device-code flow, if it was asked yet.
    pub(super) fn has_device_code(&self) -> Option<bool> {
        let known = self.known.load();
        let known = known.as_ref()?;
        let more = known.metadata.additional_metadata();
        Some(more.device_authorization_endpoint.is_some())
    }

    /// The address for the browser, which comes back to `port` of its own machine.
    pub(super) async fn browser(
        &self,
        port: u16,
        now: Wall,
    ) -> Result<(BrowserFlow, String), ProviderError> {
        let known = self.known(now).await?;
        let redirect = RedirectUrl::new(format!("http://127.0.0.1:{port}/callback"))
            .map_err(|error| ProviderError::Refused(error.to_string()))?;
        let verifier = super::token()?;
        let flow = BrowserFlow {
            state: CsrfToken::new(super::token()?),
            nonce: Nonce::new(super::token()?),
            verifier: verifier.clone(),
            redirect: redirect.clone(),
        };
        let challenge =
            PkceCodeChallenge::from_code_verifier_sha256(&PkceCodeVerifier::new(verifier));
        let client = self.client(&known)?.set_redirect_uri(redirect);
        let (state, nonce) = (flow.state.clone(), flow.nonce.clone());
        let (url, _, _) = client
            .authorize_url(
                AuthenticationFlow::<CoreResponseType>::AuthorizationCode,
                move || state,
                move || nonce,
            )
            .add_scopes(self.scopes())
            // A session age counts from here: an old login at the provider is not one now.
            .add_prompt(CoreAuthPrompt::Login)
            .set_pkce_challenge(challenge)
            .url();
        Ok((flow, url.into()))
    }

    /// Exchanges the code that the browser brought back.
    pub(super) async fn finish_browser(
        &self,
        flow: BrowserFlow,
        code: &str,
        iss: Option<&str>,
        now: Wall,
    ) -> Result<Proven, ProviderError> {
        let known = self.known(now).await?;
        let more = known.metadata.additional_metadata();
        // RFC 9207: the code of another provider is not shown to this one.
        let from_here = match iss {
            Some(iss) => iss == self.config.issuer,
            None => !more.authorization_response_iss_parameter_supported,
        };
        if !from_here {
            let problem = "the answer in the browser is not this provider's".to_owned();
            return Err(ProviderError::Refused(problem));
        }
        let client = self.client(&known)?;
        let tokens = client
            .exchange_code(AuthorizationCode::new(code.to_owned()))
            .map_err(|_| ProviderError::CannotDo("the provider has no token endpoint"))?
            .set_redirect_uri(std::borrow::Cow::Owned(flow.redirect))
            .set_pkce_verifier(PkceCodeVerifier::new(flow.verifier))
            .request_async(&*known.http)
            .await
            .map_err(asked)?;
        self.proven(&known, &tokens, Some(&flow.nonce), now).await
    }

    /// Begins a device-code login: the flow, where to go, what to type there, pause and end in
    /// seconds.
    pub(super) async fn device_code(&self, now: Wall) -> Result<DeviceFlow, ProviderError> {
        const NONE: ProviderError =
            ProviderError::CannotDo("the provider has no device-code flow: use a browser");
        let known = self.known(now).await?;
        let more = known.metadata.additional_metadata();
        let at = more.device_authorization_endpoint.clone().ok_or(NONE)?;
        let client = self.client(&known)?.set_device_authorization_url(at);
        let told: DeviceAuthorizationResponse<EmptyExtraDeviceAuthorizationFields> = client
            .exchange_device_code()
            .add_scopes(self.scopes())
            .request_async(&*known.http)
            .await
            .map_err(asked)?;
        self.reachable(told.verification_uri().url())?;
        if told.user_code().secret().len() > 64 {
            return Err(ProviderError::Down("its user code is too long".into()));
        }
        Ok(DeviceFlow(told))
    }

    /// Asks once whether the user has finished.
    pub(super) async fn poll(&self, flow: &DeviceFlow, now: Wall) -> Result<Polled, ProviderError> {
        let known = self.known(now).await?;
        let client = self.client(&known)?;
        let request = client
            .exchange_device_access_token(&flow.0)
            .map_err(|_| ProviderError::CannotDo("the provider has no token endpoint"))?;
        // The library would wait and ask again by itself. Who asks here is the client, so the
        // first wait is the answer.
        let (waits, pause) = (Notify::new(), AtomicU64::new(0));
        let answer = request.request_async(
            &*known.http,
            |wait: Duration| {
                pause.store(wait.as_secs(), Ordering::Relaxed);
                waits.notify_one();
                std::future::pending()
            },
            None,
        );
        let tokens = tokio::select! {
            biased;
            () = waits.notified() => {
                let slow_down = pause.load(Ordering::Relaxed) > flow.0.interval().as_secs();
                return Ok(Polled::NotYet { slow_down });
            }
            answer = answer => answer.map_err(asked)?,
        };
        let proven = self.proven(&known, &tokens, None, now).await?;
        Ok(Polled::Proven(Box::new(proven)))
    }

    async fn proven(
        &self,
        known: &Arc<Known>,
        tokens: &Tokens,
        nonce: Option<&Nonce>,
        now: Wall,
    ) -> Result<Proven, ProviderError> {
        let token = tokens.extra_fields().id_token();
        let token = token.ok_or(ProviderError::Refused("it gives no ID token".into()))?;
        let mut verified = self.verified(known, token, nonce, now).await?;
        if !verified.says_all(&self.config)
            && let Some(url) = known.metadata.userinfo_endpoint()
        {
            let info = userinfo(&known.http, url.url(), tokens.access_token()).await?;
            verified.add(info).map_err(refused)?;
        }
        verified.proven(&self.config).map_err(refused)
    }

    /// Keys change. A token that names one we have not seen makes us look, now and then.
    async fn verified(
        &self,
        known: &Arc<Known>,
        token: &Token,
        nonce: Option<&Nonce>,
        now: Wall,
    ) -> Result<Verified, ProviderError> {
        let verify =
            |keys: &CoreJsonWebKeySet| Verified::new(token, &self.config, keys.clone(), nonce, now);
        match verify(&known.keys) {
            Err(Refusal::UnknownKey) => {}
            other => return other.map_err(refused),
        }
        let newer = self.newer_keys(known, now).await?;
        verify(&newer.keys).map_err(refused)
    }

    fn client(&self, known: &Known) -> Result<Oidc, ProviderError> {
        let secret = match &self.config.client_secret_file {
            Some(file) => {
                let secret = key_file::one_line(file);
                let secret =
                    secret.map_err(|error| ProviderError::NotConfigured(error.to_string()))?;
                Some(ClientSecret::new(secret.to_string()))
            }
            None => None,
        };
        let id = ClientId::new(self.config.client_id.clone());
        let methods = known.metadata.token_endpoint_auth_methods_supported();
        let auth = match methods {
            // OpenID Connect Discovery, section 3: this is the default.
            None => AuthType::BasicAuth,
            Some(methods) if methods.contains(&CoreClientAuthMethod::ClientSecretBasic) => {
                AuthType::BasicAuth
            }
            Some(_) => AuthType::RequestBody,
        };
        let client = Oidc::from_provider_metadata(known.metadata.clone(), id, secret);
        Ok(client.set_auth_type(auth))
    }

    /// The library adds `openid` itself.
    fn scopes(&self) -> impl Iterator<Item = Scope> {
        let scopes = self.config.scopes.iter();
        scopes
            .filter(|scope| *scope != "openid")
            .map(|scope| Scope::new(scope.clone()))
    }
}

impl DeviceFlow {
    pub(super) fn url(&self) -> String {
        self.0.verification_uri().to_string()
    }

    pub(super) fn user_code(&self) -> String {
        said(self.0.user_code().secret())
    }

    /// Seconds between two asks, 1 to 60.
    pub(super) fn interval(&self) -> u64 {
        self.0.interval().as_secs().clamp(1, LONGEST_INTERVAL)
    }

    pub(super) fn lifetime(&self) -> Duration {
        self.0.expires_in()
    }
}

async fn userinfo(
    http: &Http,
    url: &Url,
    token: &AccessToken,
) -> Result<serde_json::Map<String, serde_json::Value>, ProviderError> {
    let wrong = |problem: &str| ProviderError::Refused(format!("the userinfo endpoint {problem}"));
    let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.secret()))
        .map_err(|_| wrong("cannot be asked with such a token"))?;
    bearer.set_sensitive(true);
    let request: HttpRequest = hyper::Request::get(url.as_str())
        .header(ACCEPT, "application/json")
        .header(AUTHORIZATION, bearer)
        .body(Vec::new())
        .map_err(|_| wrong("has no address"))?;
    let answer = http.ask(request).await;
    let answer = answer.map_err(|error| ProviderError::Down(error.to_string()))?;
    if !answer.status().is_success() {
        return Err(wrong(&format!("answers {}", answer.status())));
    }
    serde_json::from_slice(answer.body()).map_err(|_| wrong("does not answer in JSON"))
}

/// What came of a question to the token endpoint.
fn asked<E: openidconnect::ErrorResponse + 'static>(
    error: RequestTokenError<HttpError, E>,
) -> ProviderError {
    match error {
        RequestTokenError::ServerResponse(says) => {
            ProviderError::Refused(format!("the provider says {}", said(&says.to_string())))
        }
        RequestTokenError::Request(error) => ProviderError::Down(error.to_string()),
        // The answer itself is not shown: there may be a token in it.
        RequestTokenError::Parse(error, _) => ProviderError::Refused(format!(
            "its answer makes no sense: {}",
            said(&https::chain(&error))
        )),
        RequestTokenError::Other(error) => ProviderError::Refused(said(&error)),
    }
}

fn refused(refusal: Refusal) -> ProviderError {
    ProviderError::Refused(said(&refusal.to_string()))
}

/// Others' words, as far as they fit a line.
fn said(text: &str) -> String {
    let text: String = text.chars().take(300).collect();
    text.escape_debug()
        .to_string()
        .replace("\\\"", "\"")
        .replace("\\'", "'")
}
