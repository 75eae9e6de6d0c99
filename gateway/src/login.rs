//! How a user proves who they are: OpenID Connect, or a code by e-mail. Stub.

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
