//! How a user proves who they are: OpenID Connect, or a code by e-mail. ADR 016 says why so.
//!
//! A login is begun and ended by the same device; what is under way is bounded, is over after ten
//! minutes, and can be ended once. The gateway asks the provider itself: what passes through the
//! device is a code that is worth nothing without the verifier, which stays here.

pub mod address;
mod claims;
mod code;
mod http;
mod mail;
mod pending;
mod provider;

use crate::audit::{Action, Actor, Audit, AuditEvent, Object, Outcome};
use crate::config::{EmailConfig, LoginConfig, ProviderConfig};
use crate::device_api::DeviceProblem;
use crate::key_file;
use crate::live_config::LiveConfig;
use address::Address;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use code::{Admitted, Asked, Attempt, Code};
use pending::{LIFETIME, Pending, after};
use postern_proto::device_api::{ErrorCode, LoginFinish, LoginMethod, LoginStart, LoginStarted};
use postern_proto::now::Wall;
use provider::{BrowserFlow, DeviceFlow, Polled, Provider, ProviderError};
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use subtle::ConstantTimeEq;

/// A user who has proved who they are. Made by this module only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proven {
    /// The user's name, as policy and records have it: the claim that the provider's `user_claim`
    /// names, or the e-mail address. In lower case.
    pub user: String,
    /// The issuer's URL; `email` for a code by e-mail.
    pub issuer: String,
    /// The issuer's own name for the user; the address for a code by e-mail.
    pub subject: String,
    /// `oidc` or `email`.
    pub method: &'static str,
    /// What the groups claim says; none where it says nothing, and then former groups of this
    /// user's logins are gone.
    pub groups: Vec<String>,
    /// RFC 8176. Sorted.
    pub amr: Vec<String>,
    /// The authentication context class.
    pub acr: Option<String>,
    /// When the user authenticated: `auth_time`, or now.
    pub at: Wall,
}

/// Who logs in: a device, and what the log should know of it.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// Its name.
    pub device: &'a str,
    /// Its user, if it has one.
    pub user: Option<&'a str>,
    /// Where it is.
    pub from: Option<SocketAddr>,
}

/// The logins under way. It writes the audit lines of what begins and of what fails; who lets the
/// user in, or does not, writes what came of a proof. Clones see the same.
#[derive(Clone, Debug)]
pub struct Logins(Arc<Inner>);

struct Inner {
    config: LiveConfig,
    audit: Audit,
    trusted: Mutex<Arc<Trusted>>,
    pending: Mutex<Pending<Way>>,
    asked: Mutex<Asked>,
    /// What fails now, by what it is.
    failing: Mutex<BTreeMap<String, String>>,
}

/// Whom gateway.yaml trusts, as far as it has been read.
struct Trusted {
    config: LoginConfig,
    providers: Vec<Arc<Provider>>,
}

/// How somebody is logging in.
enum Way {
    Browser(Arc<Provider>, BrowserFlow),
    DeviceCode {
        provider: Arc<Provider>,
        flow: Arc<DeviceFlow>,
        /// Seconds.
        interval: u64,
        not_before: Wall,
    },
    Email {
        address: Address,
        code: Code,
        /// Whether the address may log in. If not, no code is right.
        allowed: bool,
    },
}

impl Logins {
    /// Reaches for no provider yet: one that is down is no reason not to start.
    #[must_use]
    pub fn new(config: LiveConfig, audit: Audit) -> Logins {
        let trusted = Arc::new(Trusted::new(&config.get().login, None));
        Logins(Arc::new(Inner {
            config,
            audit,
            trusted: Mutex::new(trusted),
            pending: Mutex::new(Pending::new()),
            asked: Mutex::default(),
            failing: Mutex::default(),
        }))
    }

    /// How one can log in here. Of a provider that was not asked yet it is not known whether it has
    /// a device-code flow, and it is said to have one.
    #[must_use]
    pub fn methods(&self) -> Vec<LoginMethod> {
        let trusted = self.0.trusted();
        let email = trusted.config.email.as_ref().map(|_| LoginMethod {
            name: "email".into(),
            kind: "email".into(),
            device_code: false,
        });
        let providers = trusted.providers.iter().map(|provider| LoginMethod {
            name: provider.config.name.clone(),
            kind: "oidc".into(),
            device_code: provider.has_device_code().unwrap_or(true),
        });
        providers.chain(email).collect()
    }

    /// What does not work now, a line each: a provider that cannot be reached, a mail server that
    /// takes no mail.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let failing = lock(&self.0.failing);
        failing
            .iter()
            .map(|(what, problem)| format!("{what}: {problem}"))
            .collect()
    }

    /// Begins a login of a device. By e-mail the answer is the same whether or not the address may
    /// log in.
    ///
    /// # Errors
    /// In words for the user.
    pub async fn start(
        &self,
        who: Who<'_>,
        what: &LoginStart,
        now: Wall,
    ) -> Result<LoginStarted, DeviceProblem> {
        let device = who.device;
        let (way, begun) = match what {
            LoginStart::Browser { provider, port } => {
                let begun = self.browser(device, provider.as_deref(), *port, now).await;
                (json!({"flow": "browser", "provider": provider}), begun)
            }
            LoginStart::DeviceCode { provider } => {
                let begun = self.device_code(device, provider.as_deref(), now).await;
                (json!({"flow": "device-code", "provider": provider}), begun)
            }
            LoginStart::Email { address } => {
                let (mail, begun) = self.email(device, address, now);
                let address = Address::parse(address);
                let user = address.as_ref().map(Address::as_str);
                (json!({"flow": "email", "user": user, "mail": mail}), begun)
            }
        };
        let outcome = begun.as_ref().map(|_| ());
        self.write(Action::LoginStart, who, outcome, Some(way), now)
            .await;
        begun
    }

    /// Ends a login of a device: who is it?
    ///
    /// # Errors
    /// In words for the user. [`ErrorCode::LoginPending`]: ask again.
    pub async fn finish(
        &self,
        who: Who<'_>,
        what: &LoginFinish,
        now: Wall,
    ) -> Result<Proven, DeviceProblem> {
        let ended = self.end(who.device, what, now).await;
        if let Err(problem) = &ended
            && problem.code != ErrorCode::LoginPending
        {
            self.write(Action::Login, who, Err(problem), None, now)
                .await;
        }
        ended
    }

    async fn browser(
        &self,
        device: &str,
        provider: Option<&str>,
        port: u16,
        now: Wall,
    ) -> Result<LoginStarted, DeviceProblem> {
        if port == 0 {
            let help = "say on which port of 127.0.0.1 the client listens";
            return Err(bad_request("0 is no port", help));
        }
        let provider = self.0.trusted().provider(provider)?;
        let flow = provider.browser(port, now).await;
        let (flow, url) = self.0.told(&provider, flow)?;
        let way = Way::Browser(provider, flow);
        let id = self.0.remember(device, way, LIFETIME, now)?;
        Ok(LoginStarted {
            id,
            url: Some(url),
            user_code: None,
            interval: None,
            expires_in: whole_seconds(LIFETIME),
        })
    }

    async fn device_code(
        &self,
        device: &str,
        provider: Option<&str>,
        now: Wall,
    ) -> Result<LoginStarted, DeviceProblem> {
        let provider = self.0.trusted().provider(provider)?;
        let flow = provider.device_code(now).await;
        let flow = Arc::new(self.0.told(&provider, flow)?);
        let (interval, lifetime) = (flow.interval(), flow.lifetime().min(LIFETIME));
        let way = Way::DeviceCode {
            provider,
            flow: flow.clone(),
            interval,
            not_before: now,
        };
        let id = self.0.remember(device, way, lifetime, now)?;
        Ok(LoginStarted {
            id,
            url: Some(flow.url()),
            user_code: Some(flow.user_code()),
            interval: u32::try_from(interval).ok(),
            expires_in: whole_seconds(lifetime),
        })
    }

    /// Also what becomes of the mail, which only the log is told.
    fn email(
        &self,
        device: &str,
        address: &str,
        now: Wall,
    ) -> (&'static str, Result<LoginStarted, DeviceProblem>) {
        let trusted = self.0.trusted();
        let Some(config) = trusted.config.email.clone() else {
            let error = "nobody can log in by e-mail here";
            let problem = bad_request(error, "see `postern login --help` for other ways");
            return ("not-configured", Err(problem));
        };
        let Some(address) = Address::parse(address) else {
            let problem = bad_request(
                "this is no e-mail address that can log in",
                "write it as ana@example.com",
            );
            return ("no-address", Err(problem));
        };
        let allowed = is_allowed(&config, &address);
        let admitted = lock(&self.0.asked).admit(device, &address, now);
        let mail = match (admitted, allowed) {
            (Admitted::Yes, true) => "sent",
            (Admitted::Yes, false) => "not-allowed",
            (Admitted::NoMail, _) => "limit-of-address",
            (Admitted::NotThisDevice, _) => {
                let problem = too_many("this device has asked for too many codes", "an hour");
                return ("limit-of-device", Err(problem));
            }
            (Admitted::NotNow, _) => {
                let problem = too_many("too many codes are being asked for", "an hour");
                return ("limit-over-all", Err(problem));
            }
        };
        let begun = self.0.begin_email(device, address, allowed, now);
        let started = begun.map(|(started, letter)| {
            if mail == "sent" {
                self.post(config, letter);
            }
            started
        });
        (mail, started)
    }

    /// In the background: how long a mail takes would tell that there was one. At most as many at
    /// a time as [`Asked`] admits in an hour.
    fn post(&self, config: EmailConfig, letter: mail::Mail) {
        let inner = self.0.clone();
        tokio::spawn(async move {
            let sent = mail::send(&config, &letter).await;
            inner.note("mail", sent.err());
        });
    }

    async fn end(
        &self,
        device: &str,
        what: &LoginFinish,
        now: Wall,
    ) -> Result<Proven, DeviceProblem> {
        match self.0.step(device, what, now)? {
            Step::Email(address) => Ok(Proven {
                user: address.to_string(),
                issuer: "email".into(),
                subject: address.to_string(),
                method: "email",
                groups: Vec::new(),
                amr: Vec::new(),
                acr: None,
                at: now,
            }),
            Step::Browser(provider, flow, code) => {
                self.0.still_trusted(&provider)?;
                let iss = what.iss.as_deref();
                let proven = provider.finish_browser(flow, &code, iss, now).await;
                self.0.told(&provider, proven)
            }
            Step::Poll(provider, flow) => {
                self.0.still_trusted(&provider)?;
                let polled = provider.poll(&flow, now).await;
                match self.0.told(&provider, polled) {
                    Ok(Polled::NotYet { slow_down }) => {
                        if slow_down {
                            self.0.slow_down(device, &what.id, now);
                        }
                        Err(not_yet())
                    }
                    // Asked twice at the same time, it is answered once.
                    Ok(Polled::Proven(proven)) => match lock(&self.0.pending).remove(&what.id) {
                        Some(_) => Ok(*proven),
                        None => Err(expired()),
                    },
                    Err(problem) if problem.code == ErrorCode::Unavailable => Err(problem),
                    Err(problem) => {
                        lock(&self.0.pending).remove(&what.id);
                        Err(problem)
                    }
                }
            }
        }
    }

    async fn write(
        &self,
        action: Action,
        who: Who<'_>,
        outcome: Result<(), &DeviceProblem>,
        after: Option<serde_json::Value>,
        now: Wall,
    ) {
        let event = AuditEvent {
            action,
            outcome: match outcome {
                Ok(()) => Outcome::Done,
                Err(problem) if problem.code == ErrorCode::Unavailable => Outcome::Failed,
                Err(_) => Outcome::Refused,
            },
            actor: Actor::Device {
                name: who.device.to_owned(),
                user: who.user.map(str::to_owned),
                from: who.from,
            },
            object: Object {
                kind: "device",
                name: who.device.to_owned(),
            },
            reason: outcome.err().map(|problem| problem.error.clone()),
            before: None,
            after,
        };
        // Nobody gets access by this; what could not be written is counted there.
        let _ = self.0.audit.write(now, event).await;
    }
}

/// What a request to end a login comes to before anybody else is asked.
enum Step {
    Email(Address),
    Browser(Arc<Provider>, BrowserFlow, String),
    Poll(Arc<Provider>, Arc<DeviceFlow>),
}

impl Inner {
    /// Follows gateway.yaml. Providers that did not change keep what they know.
    fn trusted(&self) -> Arc<Trusted> {
        let config = self.config.get();
        let mut trusted = lock(&self.trusted);
        if trusted.config != config.login {
            *trusted = Arc::new(Trusted::new(&config.login, Some(&trusted)));
            // What is gone does not fail any more; what is still there will say so again.
            lock(&self.failing).clear();
        }
        trusted.clone()
    }

    fn still_trusted(&self, provider: &Arc<Provider>) -> Result<(), DeviceProblem> {
        let trusted = self.trusted();
        let mut all = trusted.providers.iter();
        if all.any(|other| Arc::ptr_eq(other, provider)) {
            return Ok(());
        }
        Err(expired())
    }

    fn remember(
        &self,
        device: &str,
        way: Way,
        lifetime: Duration,
        now: Wall,
    ) -> Result<String, DeviceProblem> {
        let id = token()?;
        let mut pending = lock(&self.pending);
        match pending.insert(id.clone(), device, way, lifetime, now) {
            Ok(()) => Ok(id),
            Err(pending::Full) => Err(too_many("too many logins are under way", "some minutes")),
        }
    }

    fn begin_email(
        &self,
        device: &str,
        address: Address,
        allowed: bool,
        now: Wall,
    ) -> Result<(LoginStarted, mail::Mail), DeviceProblem> {
        let id = token()?;
        let key = key_file::random().map_err(|_| no_randomness())?;
        let digits = key_file::random().map_err(|_| no_randomness())?;
        let (code, shown) = Code::new(key, u64::from_ne_bytes(digits));
        let way = Way::Email {
            address: address.clone(),
            code,
            allowed,
        };
        let full = |pending::Full| too_many("too many logins are under way", "some minutes");
        lock(&self.pending)
            .insert(id.clone(), device, way, LIFETIME, now)
            .map_err(full)?;
        let letter = mail::Mail {
            to: address,
            code: shown,
            device: device.to_owned(),
            gateway: self.config.get().name.clone(),
            reference: token()?,
            until: after(now, LIFETIME),
        };
        let started = LoginStarted {
            id,
            url: None,
            user_code: None,
            interval: None,
            expires_in: whole_seconds(LIFETIME),
        };
        Ok((started, letter))
    }

    /// Everything that needs no provider, under the lock: an attempt counts before anybody knows
    /// what it came to.
    fn step(&self, device: &str, what: &LoginFinish, now: Wall) -> Result<Step, DeviceProblem> {
        let email = self.trusted().config.email.clone();
        let mut pending = lock(&self.pending);
        match pending.get(&what.id, device, now).ok_or_else(expired)? {
            Way::Email {
                address,
                code,
                allowed,
            } => {
                let given = what.code.as_deref().unwrap_or_default();
                // gateway.yaml may have changed since the mail was sent.
                let allowed = *allowed && email.is_some_and(|config| is_allowed(&config, address));
                let address = address.clone();
                match code.attempt(given) {
                    Attempt::Right if allowed => {
                        pending.remove(&what.id);
                        Ok(Step::Email(address))
                    }
                    Attempt::Right | Attempt::Wrong(0) => {
                        pending.remove(&what.id);
                        Err(wrong_code("ask for a new one"))
                    }
                    Attempt::Wrong(left) => {
                        let plural = if left == 1 { "" } else { "s" };
                        Err(wrong_code(&format!("{left} attempt{plural} left")))
                    }
                }
            }
            Way::Browser(provider, flow) => {
                let (provider, flow) = (provider.clone(), flow.clone());
                // Whatever comes of it, the code was shown and the login is over.
                pending.remove(&what.id);
                let state = what.state.as_deref().unwrap_or_default();
                let same = state.as_bytes().ct_eq(flow.state.secret().as_bytes());
                if !bool::from(same) {
                    let error = "the answer in the browser belongs to another login";
                    return Err(login_refused(error, "begin again"));
                }
                let code = what.code.clone().filter(|code| !code.is_empty());
                let Some(code) = code else {
                    let error = "the provider gave the browser no code";
                    return Err(login_refused(error, "begin again"));
                };
                Ok(Step::Browser(provider, flow, code))
            }
            Way::DeviceCode {
                provider,
                flow,
                interval,
                not_before,
            } => {
                if now < *not_before {
                    return Err(not_yet());
                }
                *not_before = after(now, Duration::from_secs(*interval));
                Ok(Step::Poll(provider.clone(), flow.clone()))
            }
        }
    }

    /// RFC 8628, section 3.5: five seconds more from now on.
    fn slow_down(&self, device: &str, id: &str, now: Wall) {
        let mut pending = lock(&self.pending);
        if let Some(Way::DeviceCode {
            interval,
            not_before,
            ..
        }) = pending.get(id, device, now)
        {
            *interval += 5;
            *not_before = after(now, Duration::from_secs(*interval));
        }
    }

    /// What a provider said, in words for the user; and remembered for `status` if it is down.
    fn told<T>(
        &self,
        provider: &Provider,
        result: Result<T, ProviderError>,
    ) -> Result<T, DeviceProblem> {
        let name = &provider.config.name;
        let what = format!("login by {name}");
        let error = match result {
            Ok(value) => {
                self.note(&what, None);
                return Ok(value);
            }
            Err(error) => error,
        };
        let problem = match &error {
            ProviderError::Down(problem) => {
                self.note(&what, Some(problem.clone()));
                DeviceProblem::new(
                    ErrorCode::Unavailable,
                    format!("{name} cannot be asked: {problem}"),
                    "try again in a minute; tell the admin if it stays so",
                )
            }
            ProviderError::CannotDo(problem) => {
                bad_request(&format!("{name}: {problem}"), "see `postern login --help`")
            }
            ProviderError::Refused(problem) => login_refused(
                &format!("{name}: {problem}"),
                "begin again, or ask the admin",
            ),
        };
        Err(problem)
    }

    /// Remembers what fails, and says so once.
    fn note(&self, what: &str, problem: Option<String>) {
        let mut failing = lock(&self.failing);
        match problem {
            Some(problem) => {
                let before = failing.insert(what.to_owned(), problem.clone());
                if before.as_ref() != Some(&problem) {
                    tracing::warn!(what, problem, "cannot be used");
                }
            }
            None => {
                if failing.remove(what).is_some() {
                    tracing::info!(what, "works again");
                }
            }
        }
    }
}

impl Trusted {
    fn new(config: &LoginConfig, before: Option<&Trusted>) -> Trusted {
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
    fn provider(&self, name: Option<&str>) -> Result<Arc<Provider>, DeviceProblem> {
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

/// What would keep users from logging in, one line each; for `check`. No provider is asked.
#[must_use]
pub fn problems(config: &LoginConfig) -> Vec<String> {
    let secrets = config.providers.iter().filter_map(|provider| {
        let file = provider.client_secret_file.as_ref()?;
        key_file::one_line(file)
            .err()
            .map(|error| error.to_string())
    });
    let certificates = config
        .providers
        .iter()
        .filter_map(|provider| http::Http::new(provider).err().map(|e| e.to_string()));
    let mail = config.email.as_ref();
    let mail = mail.and_then(|email| mail::check(email).err());
    secrets.chain(certificates).chain(mail).collect()
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Logins")
    }
}

fn is_allowed(config: &EmailConfig, address: &Address) -> bool {
    config.allow.iter().any(|pattern| pattern.matches(address))
}

/// 256 random bits for an address or a header.
fn token() -> Result<String, NoRandomness> {
    let bytes: [u8; 32] = key_file::random().map_err(|_| NoRandomness)?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// The kernel gives none.
struct NoRandomness;

impl From<NoRandomness> for DeviceProblem {
    fn from(_: NoRandomness) -> DeviceProblem {
        no_randomness()
    }
}

impl From<NoRandomness> for ProviderError {
    fn from(_: NoRandomness) -> ProviderError {
        ProviderError::Down("this machine gives no randomness".into())
    }
}

fn no_randomness() -> DeviceProblem {
    let error = "the gateway has no randomness";
    DeviceProblem::new(ErrorCode::Unavailable, error, "tell the admin")
}

fn bad_request(error: &str, help: impl Into<String>) -> DeviceProblem {
    DeviceProblem::new(ErrorCode::BadRequest, error, help)
}

fn login_refused(error: &str, help: &str) -> DeviceProblem {
    DeviceProblem::new(ErrorCode::LoginRefused, error, help)
}

fn too_many(error: &str, time: &str) -> DeviceProblem {
    DeviceProblem::new(ErrorCode::TooMany, error, format!("try again in {time}"))
}

fn wrong_code(help: &str) -> DeviceProblem {
    DeviceProblem::new(ErrorCode::WrongCode, "this is not the code", help)
}

fn not_yet() -> DeviceProblem {
    let error = "the login is not finished at the provider yet";
    DeviceProblem::new(ErrorCode::LoginPending, error, "ask again later")
}

fn expired() -> DeviceProblem {
    let error = "no such login is under way: it took too long, is over, or was never begun";
    DeviceProblem::new(ErrorCode::LoginExpired, error, "begin again")
}

fn whole_seconds(time: Duration) -> u32 {
    u32::try_from(time.as_secs()).unwrap_or(u32::MAX)
}

/// A panic elsewhere leaves these tables as they are: whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
