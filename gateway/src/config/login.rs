//! How users prove who they are: OpenID providers, and codes by e-mail.

use crate::login::address::{Address, Pattern};
use std::path::PathBuf;
use std::time::Duration;

/// The ways to log in. None: nobody can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoginConfig {
    /// OpenID providers, by their order in the file.
    pub providers: Vec<ProviderConfig>,
    /// Codes by e-mail.
    pub email: Option<EmailConfig>,
}

/// An OpenID provider that is trusted to say who somebody is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderConfig {
    /// What users call it.
    pub name: String,
    /// Its identifier, letter by letter as its tokens say it.
    pub issuer: String,
    /// What it calls this gateway.
    pub client_id: String,
    /// The secret that goes with it; none for a public client.
    pub client_secret_file: Option<PathBuf>,
    /// Which claim is the user's name.
    pub user_claim: UserClaim,
    /// Which claim lists groups; none: logins bring no groups.
    pub groups_claim: Option<String>,
    /// What is asked for, `openid` among them.
    pub scopes: Vec<String>,
    /// PEM; the system's certificates if none.
    pub ca_file: Option<PathBuf>,
    /// How far its clock may be off.
    pub clock_skew: Duration,
}

/// Which claim is the user's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UserClaim {
    /// `email`, and `email_verified` must be true.
    Email,
    /// `preferred_username`. The provider must not let users choose it.
    PreferredUsername,
    /// `sub`.
    Sub,
}

/// Codes by e-mail.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmailConfig {
    /// The mail server: a name or an address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the way to it is protected.
    pub tls: EmailTls,
    /// Name, and the file that holds the password.
    pub credentials: Option<(String, PathBuf)>,
    /// PEM; the system's certificates if none.
    pub ca_file: Option<PathBuf>,
    /// The sender.
    pub from: Address,
    /// Who may log in.
    pub allow: Vec<Pattern>,
}

/// How the way to the mail server is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmailTls {
    /// STARTTLS, and no mail without it.
    StartTls,
    /// TLS from the first byte.
    Tls,
    /// Not at all: on this machine only.
    None,
}
