//! Devices.

use super::AttributeView;
use ipnet::IpNet;
use postern_proto::device_api::{CheckView, SessionView};
use postern_proto::keys::PublicKey;
use postern_proto::profile::ProfileGateway;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

/// `POST /v1/devices`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewDevice {
    /// Unique for ever.
    pub name: String,
    /// Who uses it; none for a machine.
    #[serde(default)]
    pub user: Option<String>,
    /// What policy sees.
    #[serde(default)]
    pub groups: Vec<String>,
    /// The same: `env=prod`.
    #[serde(default)]
    pub labels: Vec<String>,
    /// The public half of the device's key. The private half never reaches the daemon.
    pub public_key: PublicKey,
    /// A pre-shared key in base64, made by the caller.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preshared_key: Option<String>,
}

impl fmt::Debug for NewDevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewDevice")
            .field("name", &self.name)
            .field("user", &self.user)
            .field("groups", &self.groups)
            .field("labels", &self.labels)
            .field("public_key", &self.public_key)
            .finish_non_exhaustive()
    }
}

/// Answer to [`NewDevice`]: what a profile needs besides the private key.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct DeviceAdded {
    /// As it was stored.
    pub device: DeviceView,
    /// Inner MTU.
    pub mtu: u16,
    /// The other end.
    pub gateway: ProfileGateway,
    /// What goes into the tunnel.
    pub include: Vec<IpNet>,
    /// Seconds between keepalives; none for never.
    pub keepalive: Option<u16>,
    /// What the operator should know: an address left out of the include list, and why.
    pub notes: Vec<String>,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceView {
    /// Unique for ever.
    pub name: String,
    /// Who uses it.
    pub user: Option<String>,
    /// What policy sees.
    pub groups: Vec<String>,
    /// The same: `env=prod`. Sorted.
    #[serde(default)]
    pub labels: Vec<String>,
    /// Its identity.
    pub public_key: PublicKey,
    /// Whether a pre-shared key is set. The key itself is never shown.
    pub preshared_key: bool,
    /// Addresses inside the tunnel, IPv4 first.
    pub addresses: Vec<IpAddr>,
    /// How it stands.
    pub state: DeviceState,
    /// Seconds since 1970.
    pub created: u64,
    /// The invitation that it joined by.
    pub invitation: Option<String>,
    /// Seconds since 1970.
    pub approved: Option<u64>,
    /// Seconds since 1970.
    pub denied: Option<u64>,
    /// Seconds since 1970.
    pub revoked: Option<u64>,
    /// When its key came into use, seconds since 1970.
    pub key_since: u64,
    /// The key that takes over once it has been used.
    pub next_key: Option<PublicKey>,
    /// The login in force.
    pub session: Option<SessionView>,
    /// The posture checks of the policy in force.
    pub posture: Vec<CheckView>,
    /// What admins say of it.
    pub attributes: Vec<AttributeView>,
    /// Where it was last seen.
    pub last_endpoint: Option<SocketAddr>,
    /// Seconds since 1970.
    pub last_handshake: Option<u64>,
}

/// `POST /v1/devices/{name}/labels`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChangeLabels {
    /// `env=prod`, instead of what the key had before.
    #[serde(default)]
    pub set: Vec<String>,
    /// `env`, whatever its value, or `env=prod`.
    #[serde(default)]
    pub unset: Vec<String>,
}

/// Whether a device may connect, and may reach anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DeviceState {
    /// Policy decides what it reaches.
    Active,
    /// It reaches nothing until an admin approves it.
    WaitsForApproval,
    /// An admin said no: it reaches nothing.
    Denied,
    /// It reaches nothing until its user logs in.
    NeedsLogin,
    /// Its user is disabled: it reaches nothing.
    UserDisabled,
    /// Never again.
    Revoked,
}
