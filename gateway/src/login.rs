//! How a user proves who they are: OpenID Connect, or a code by e-mail.

pub mod address;

use crate::audit::Audit;
use crate::device_api::DeviceProblem;
use crate::live_config::LiveConfig;
use postern_proto::device_api::{ErrorCode, LoginFinish, LoginMethod, LoginStart, LoginStarted};
use postern_proto::now::Wall;

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

/// The logins under way. It writes the audit lines of what begins and of what fails; who lets the
/// user in, or does not, writes what came of a proof.
#[derive(Debug)]
pub struct Logins {
    config: LiveConfig,
    audit: Audit,
}

impl Logins {
    /// Reaches for no provider yet: one that is down is no reason not to start.
    #[must_use]
    pub fn new(config: LiveConfig, audit: Audit) -> Logins {
        Logins { config, audit }
    }

    /// How one can log in here.
    #[must_use]
    pub fn methods(&self) -> Vec<LoginMethod> {
        let config = self.config.get();
        let email = config.login.email.as_ref().map(|_| LoginMethod {
            name: "email".into(),
            kind: "email".into(),
            device_code: false,
        });
        let providers = config.login.providers.iter().map(|provider| LoginMethod {
            name: provider.name.clone(),
            kind: "oidc".into(),
            device_code: true,
        });
        providers.chain(email).collect()
    }

    /// Begins a login of a device.
    ///
    /// # Errors
    /// In words for the user.
    pub async fn start(
        &self,
        device: &str,
        what: &LoginStart,
        now: Wall,
    ) -> Result<LoginStarted, DeviceProblem> {
        let _ = (device, what, now, &self.audit);
        Err(DeviceProblem::new(
            ErrorCode::Unavailable,
            "nobody can log in here",
            "ask the admin",
        ))
    }

    /// Ends a login of a device: who is it?
    ///
    /// # Errors
    /// In words for the user. [`ErrorCode::LoginPending`]: ask again.
    pub async fn finish(
        &self,
        device: &str,
        what: &LoginFinish,
        now: Wall,
    ) -> Result<Proven, DeviceProblem> {
        let _ = (device, what, now);
        Err(DeviceProblem::new(
            ErrorCode::LoginExpired,
            "no such login is under way",
            "begin again",
        ))
    }
}
