//! What the client is made of and what it says about itself.

use postern_proto::control::Message;
use postern_proto::fate::{DropCounts, DropReason};
use postern_proto::keys::{PresharedKey, PrivateKey, PublicKey};
use postern_proto::now::{Now, Wall};
use postern_proto::path_mtu::Known;
use postern_proto::profile::Profile;
use postern_proto::tunnel::Traffic;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// What a client is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our key.
    pub private_key: PrivateKey,
    /// The gateway's.
    pub gateway_key: PublicKey,
    /// Mixed into the handshake if present.
    pub preshared_key: Option<PresharedKey>,
    /// Our addresses inside the tunnel.
    pub addresses: Vec<IpAddr>,
    /// The gateway's.
    pub gateway_addresses: Vec<IpAddr>,
    /// What enters the tunnel.
    pub include: Vec<ipnet::IpNet>,
    /// Inner MTU in bytes.
    pub mtu: u16,
    /// An empty packet after so long a silence.
    pub keepalive: Option<Duration>,
    /// Our version, for the gateway's listings.
    pub version: String,
}

impl Config {
    /// What a profile says; `None` if it has no private key, which [`Profile::check`] reports.
    #[must_use]
    pub fn from_profile(profile: &Profile, version: &str) -> Option<Config> {
        Some(Config {
            private_key: profile.private_key.clone()?,
            gateway_key: profile.gateway.public_key,
            preshared_key: profile.preshared_key.clone(),
            addresses: profile.addresses.clone(),
            gateway_addresses: profile.gateway.tunnel_addresses.clone(),
            include: profile.include.clone(),
            mtu: profile.mtu,
            keepalive: profile.keepalive,
            version: version.to_owned(),
        })
    }
}

/// What became of a datagram or a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Sealed towards the gateway, or committed to the TUN.
    Passed,
    /// Waits for the first key.
    Held,
    /// Meant for the client itself: a handshake, a keepalive, a control message.
    Consumed,
    /// Goes no further.
    Dropped(DropReason),
}

/// A refusal or a cut that the gateway told us of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// When it was last told.
    pub at: Wall,
    /// How often, in a row.
    pub count: u64,
    /// [`Message::Refused`] or [`Message::Cut`].
    pub message: Message,
}

/// How the client stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// A packet could be sent now.
    pub connected: bool,
    /// Where the gateway is, or is tried next.
    pub endpoint: Option<SocketAddr>,
    /// When the last key came into use.
    pub last_handshake: Option<Now>,
    /// Initiations since the gateway was last heard.
    pub unanswered: u64,
    /// Packets to the gateway, control messages included.
    pub sent: Traffic,
    /// Packets from it, control messages included.
    pub received: Traffic,
    /// Packets that wait for a key.
    pub held: usize,
    /// The inner MTU in use, bytes.
    pub mtu: u16,
    /// What stands behind it.
    pub path: Known,
    /// What went no further, by reason.
    pub drops: DropCounts,
    /// The last refusals, oldest first.
    pub refusals: Vec<Refusal>,
}
