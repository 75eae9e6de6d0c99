//! How a user proves who they are: OpenID Connect, or a code by e-mail. ADR 016 says why so.
//!
//! A login is begun and ended by the same device; what is under way is bounded, is over after ten
//! minutes, and can be ended once. The gateway asks the provider itself: what passes through the
//! device is a code that is worth nothing without the verifier, which stays here.

pub mod address;
mod begin;
mod claims;
mod code;
mod end;
mod failing;
mod http;
mod mail;
mod pending;
mod problem;
mod provider;
mod trusted;

use crate::audit::{Action, Actor, Audit, AuditEvent, Object, Outcome};
use crate::config::{EmailConfig, LoginConfig};
use crate::device_api::DeviceProblem;
use crate::key_file;
use crate::live_config::LiveConfig;
use crate::refusals::Refusals;
use address::Address;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use begin::Way;
use code::Asked;
use pending::Pending;
use postern_io::clock::Clock;
use postern_proto::device_api::{ErrorCode, LoginFinish, LoginMethod, LoginStart, LoginStarted};
use postern_proto::now::Wall;
use problem::NoRandomness;
use serde_json::json;
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use trusted::Trusted;

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
    /// By device.
    refused: Mutex<Refusals>,
    /// What fails now, by what it is.
    failing: Mutex<BTreeMap<String, String>>,
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
            refused: Mutex::default(),
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
        let (way, begun) = match what {
            LoginStart::Browser { provider, port } => {
                let begun = self.browser(who, provider.as_deref(), *port, now).await;
                (json!({"flow": "browser", "provider": provider}), begun)
            }
            LoginStart::DeviceCode { provider } => {
                let begun = self.device_code(who, provider.as_deref(), now).await;
                (json!({"flow": "device-code", "provider": provider}), begun)
            }
            LoginStart::Email { address } => {
                let (mail, begun) = self.email(who, address, now);
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

    /// Records how many refused tries had no line of their own. Once every few seconds.
    pub async fn tell_refusals(&self, now: Wall) {
        let counted = lock(&self.0.refused).counted(Clock::now().mono);
        for (device, tries) in counted {
            let reason = format!("{tries} more tries to log in within a minute");
            let who = Who {
                device: &device,
                user: None,
                from: None,
            };
            let event = event(Action::Login, who, Outcome::Refused, Some(reason), None);
            self.audit(event, now).await;
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
        if outcome.is_err() && !lock(&self.0.refused).try_by(who.device, Clock::now().mono) {
            return;
        }
        let reason = outcome.err().map(|problem| problem.error.clone());
        let outcome = match outcome {
            Ok(()) => Outcome::Done,
            Err(problem) if problem.code == ErrorCode::Unavailable => Outcome::Failed,
            Err(_) => Outcome::Refused,
        };
        self.audit(event(action, who, outcome, reason, after), now)
            .await;
    }

    async fn audit(&self, event: AuditEvent, now: Wall) {
        // Nobody gets access by this; what could not be written is counted there.
        let _ = self.0.audit.write(now, event).await;
    }
}

fn event(
    action: Action,
    who: Who<'_>,
    outcome: Outcome,
    reason: Option<String>,
    after: Option<serde_json::Value>,
) -> AuditEvent {
    AuditEvent {
        action,
        outcome,
        actor: Actor::Device {
            name: who.device.to_owned(),
            user: who.user.map(str::to_owned),
            from: who.from,
        },
        object: Object {
            kind: "device",
            name: who.device.to_owned(),
        },
        reason,
        before: None,
        after,
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

/// A panic elsewhere leaves these tables as they are: whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
