//! The words of the control API: HTTP and JSON inside the tunnel, on [`PORT`] of the gateway's
//! tunnel addresses (and of [`enrolment::GATEWAY`](crate::invitation::GATEWAY) for throw-away
//! keys). Who asks is the key that decrypted the packet; nothing in a request says it. Version 1:
//! paths begin with `/v1/`. `docs/control-api.yaml` describes the same for machines.

pub mod grants;

pub use grants::{DecideGrant, GrantState, GrantView, Grants, LiveGrant, RequestGrant};

use crate::facts::{Facts, Watched};
use crate::keys::PublicKey;
use crate::profile::{HostPort, ProfileGateway};
use ipnet::IpNet;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeOwned, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;

/// TCP port of the control API inside the tunnel; the UDP notices use the same number.
pub const PORT: u16 = crate::control::PORT;

/// The longest request body that is read, bytes.
pub const MAX_BODY: usize = 64 << 10;

/// Characters of a parser's complaint that are repeated: it may quote what was sent.
const QUOTED: usize = 200;

/// A body that is none of these words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request does not read: {0}")]
pub struct BadBody(pub String);

/// Reads a body: JSON of exactly the fields that there are.
///
/// # Errors
/// It is none, in the parser's words.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, BadBody> {
    serde_json::from_slice::<Members<T>>(body)
        .map(|members| members.0)
        .map_err(|error| BadBody(error.to_string().chars().take(QUOTED).collect()))
}

/// What is written by name. Left to itself serde takes a list as well, by place.
struct Members<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Members<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(MembersVisitor(PhantomData))
    }
}

struct MembersVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for MembersVisitor<T> {
    type Value = Members<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Members<T>, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map)).map(Members)
    }
}

fn by_name<'de, T: Deserialize<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    Members::deserialize(from).map(|members| members.0)
}

/// Writes a body. Empty only if the value cannot be JSON, which none of these words is.
#[must_use]
pub fn write(body: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(body).unwrap_or_default()
}

/// A refusal, in words and for programs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// For programs.
    pub code: ErrorCode,
    /// What went wrong.
    pub error: String,
    /// What to do about it.
    pub help: String,
}

/// Why the control API refuses: a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// The request is malformed, has unknown fields or values that cannot be. 400.
    BadRequest,
    /// This key may not ask that: a throw-away key beyond enrolment, or enrolment by a device. 403.
    Forbidden,
    /// No such path or thing. 404.
    NotFound,
    /// The path is there, the method is not. 405.
    BadMethod,
    /// The body is longer than [`MAX_BODY`]. 413.
    TooLarge,
    /// Too many attempts; come back later. 429.
    TooMany,
    /// The gateway cannot do it now. 503.
    Unavailable,
    /// The invitation was redeemed by another key. 409.
    InvitationUsed,
    /// The invitation is too old. 410.
    InvitationExpired,
    /// An admin took the invitation back. 410.
    InvitationRevoked,
    /// The name or the key belongs to another device. 409.
    Taken,
    /// The login is not the device's user, or the IdP's answer does not hold. 403.
    LoginRefused,
    /// The one-time code is wrong, used or too old. 403.
    WrongCode,
    /// The login was not finished at the IdP yet; ask again. 425.
    LoginPending,
    /// The login took too long, or is unknown. 410.
    LoginExpired,
    /// The policy does not let who asks have this grant, or decide about it. 403.
    GrantRefused,
    /// The request was decided, or the grant has ended, before. 409.
    GrantDecided,
}

/// `GET /v1/hello`: the gateway answers. Also through a throw-away key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// The version of this API: 1.
    pub api: u32,
}

/// `POST /v1/join`, through a throw-away key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JoinRequest {
    /// The device's own key. Its private half never leaves the device.
    pub public_key: PublicKey,
    /// ML-KEM-768 encapsulation key in base64 (FIPS 203: 1184 bytes); absent for no pre-shared key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kem_key: Option<String>,
    /// What to call the device; the gateway makes a name where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Who asks, for the listings and the record.
    #[serde(default, deserialize_with = "by_name")]
    pub facts: Facts,
}

/// Answer to [`JoinRequest`]: what a profile needs besides the private key. Durable before it is
/// given; the same request gets the same answer again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinAnswer {
    /// The device's name.
    pub name: String,
    /// The device's addresses inside the tunnel.
    pub addresses: Vec<IpAddr>,
    /// The other end.
    pub gateway: ProfileGateway,
    /// What changes over time.
    pub config: ClientConfig,
    /// How the device stands.
    pub state: State,
    /// ML-KEM-768 ciphertext in base64 (1088 bytes), if a key was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kem_ciphertext: Option<String>,
}

/// How a device stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Policy decides what it reaches.
    Active,
    /// It reaches nothing until an admin approves it.
    WaitsForApproval,
    /// An admin said no. It reaches nothing.
    Denied,
    /// It reaches nothing until its user logs in.
    NeedsLogin,
    /// Its user is disabled. It reaches nothing.
    UserDisabled,
}

/// `GET /v1/config`: what a client applies without a restart. It asks again when a notice
/// ([`crate::control::Message::Changed`]) says so, and with every posture report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientConfig {
    /// Changes when anything below does.
    pub version: String,
    /// Inner MTU, bytes.
    pub mtu: u16,
    /// What goes into the tunnel.
    pub include: Vec<IpNet>,
    /// Where the gateway is.
    pub endpoints: Vec<HostPort>,
    /// Seconds between keepalives; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<u16>,
    /// Seconds between posture reports.
    pub report_every: u32,
    /// What to look at for them.
    pub watched: Watched,
    /// Age in seconds at which the client makes itself a new key; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotate_after: Option<u64>,
    /// How long before the end of a session the user is warned, seconds.
    pub warn_before: u32,
}

/// `GET /v1/device`: how the device that asks stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceStatus {
    /// Its name.
    pub name: String,
    /// Whose it is; absent for a machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// What policy sees.
    pub groups: Vec<String>,
    /// How it stands.
    pub state: State,
    /// The login in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionView>,
    /// The posture checks of the policy in force.
    pub posture: Vec<CheckView>,
    /// Whether the handshake has a second secret, and a post-quantum one.
    pub preshared_key: bool,
    /// When the key came into use, seconds since 1970.
    pub key_since: u64,
    /// The grants that live.
    #[serde(default)]
    pub grants: Vec<LiveGrant>,
}

/// A login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// Names it in records and commands.
    pub id: String,
    /// `oidc`, `email`, `invitation`.
    pub method: String,
    /// The issuer, for OIDC.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// When, seconds since 1970.
    pub since: u64,
    /// When it ends by age, seconds since 1970; absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// One posture check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckView {
    /// Its name in the policy.
    pub name: String,
    /// Whether it holds now.
    pub holds: bool,
    /// What the policy expects, in words.
    pub expected: String,
    /// What the device reported, in words: `not reported`, `reported 5 min ago`.
    pub received: String,
}

/// `POST /v1/posture`. Answer: the checks, as a list of [`CheckView`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostureReport {
    /// What the device found.
    #[serde(deserialize_with = "by_name")]
    pub facts: Facts,
}

/// `GET /v1/login`: how one can log in here. A list of these.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginMethod {
    /// What to send as `provider`: a provider's name, or `email`.
    pub name: String,
    /// `oidc` or `email`.
    pub kind: String,
    /// Whether the device-code flow works there.
    pub device_code: bool,
}

/// `POST /v1/login`: begins one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "flow", rename_all = "kebab-case", deny_unknown_fields)]
pub enum LoginStart {
    /// Authorisation code with PKCE; the browser returns to http://127.0.0.1:`port`/callback.
    Browser {
        /// From [`LoginMethod`]; absent where there is one only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        provider: Option<String>,
        /// The loopback port on which the client listens.
        port: u16,
    },
    /// Device code (RFC 8628).
    DeviceCode {
        /// From [`LoginMethod`]; absent where there is one only.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        provider: Option<String>,
    },
    /// A code by e-mail.
    Email {
        /// Where to send it.
        address: String,
    },
}

/// Answer to [`LoginStart`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LoginStarted {
    /// Names this login in [`LoginFinish`].
    pub id: String,
    /// Where to send the browser, or the person with the device code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// What to type there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_code: Option<String>,
    /// Seconds between two asks with the device code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<u32>,
    /// Seconds until it is over.
    pub expires_in: u32,
}

/// `POST /v1/login/finish`. Answer: [`DeviceStatus`], or [`ErrorCode::LoginPending`].
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoginFinish {
    /// From [`LoginStarted`].
    pub id: String,
    /// The authorisation code or the code from the e-mail; absent with a device code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The browser's `state`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// The browser's `iss` (RFC 9207), where it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
}

impl fmt::Debug for LoginFinish {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Whoever has code and state could finish the login.
        f.debug_struct("LoginFinish")
            .field("id", &self.id)
            .field("iss", &self.iss)
            .finish_non_exhaustive()
    }
}

/// `POST /v1/logout`: ends the login in force, if there is one. No body. Answer:
/// [`DeviceStatus`].
pub const LOGOUT: &str = "/v1/logout";

/// `POST /v1/policy/confirm`: a change of the policy stays. That the request comes through the tunnel
/// shows that it leaves the tunnel whole.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmRequest {
    /// What `postern-gateway policy apply` printed.
    pub token: String,
}

impl std::fmt::Debug for ConfirmRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConfirmRequest")
    }
}

/// Answer to [`ConfirmRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmAnswer {
    /// The hash of the policy that stays, 64 hex digits.
    pub policy: String,
}

/// `POST /v1/why`: would this pass, for the device that asks, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WhyRequest {
    /// `192.0.2.10:22/tcp`.
    pub to: String,
}

/// Answer to [`WhyRequest`]. It is about the device that asks and what it may know of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhyAnswer {
    /// Whether it would pass.
    pub allow: bool,
    /// The whole answer for a person, several lines.
    pub text: String,
    /// The rule that decides; `default` when none matches; the entry of `grants:` for a grant.
    pub rule: String,
    /// The policy's name for the destination, where the rule names a target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Why the device reaches nothing at all, whatever the rules say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held: Option<String>,
    /// The nearest rule that would allow, if it is denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nearest_rule: Option<String>,
    /// The conditions of it that fail, a sentence each.
    pub failed: Vec<String>,
    /// The posture checks of the policy.
    pub posture: Vec<CheckView>,
    /// The login in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SessionView>,
    /// Where the gateway heard the device last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outer: Option<IpAddr>,
    /// The grants of the device that live.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub grants: Vec<LiveGrant>,
    /// How to ask for access for a while, where one may.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ask: Option<String>,
    /// When time alone may change something of it, at the earliest; seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

/// `POST /v1/keys`: a new key for the same device. The old one serves until the new one has
/// completed a handshake; asking again replaces the new one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotateRequest {
    /// The new key.
    pub public_key: PublicKey,
    /// ML-KEM-768 encapsulation key in base64.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kem_key: Option<String>,
}

/// Answer to [`RotateRequest`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RotateAnswer {
    /// ML-KEM-768 ciphertext in base64, if a key was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kem_ciphertext: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codes_of_a_login_are_not_shown() {
        let finish = LoginFinish {
            id: "one".into(),
            code: Some("secret-code".into()),
            state: Some("secret-state".into()),
            iss: None,
        };
        let shown = format!("{finish:?}");
        assert!(
            shown.contains("one") && !shown.contains("secret"),
            "{shown}"
        );
    }

    #[test]
    fn a_body_is_an_object_with_the_fields_that_there_are() {
        let why = |text: &str| read::<WhyRequest>(text.as_bytes());
        assert!(why("{\"to\":\"x\"}").is_ok());
        for bad in [
            "[\"x\"]",
            "\"x\"",
            "{}",
            "null",
            "{\"to\":\"x\",\"to\":\"y\"}",
            "{\"to\":\"x\",\"of\":\"y\"}",
            "{\"to\":\"x\"} {}",
        ] {
            assert!(why(bad).is_err(), "{bad}");
        }
        let report = |text: &str| read::<PostureReport>(text.as_bytes());
        assert!(report("{\"facts\":{}}").is_ok());
        assert!(report("{\"facts\":[null,null]}").is_err());
        assert!(report("{\"facts\":null}").is_err());
        let long = format!("{{\"{}\":1}}", "x".repeat(10_000));
        assert!(why(&long).expect_err("refused").to_string().len() < 300);
    }
}
