//! The invitation: one string that holds where the gateway is, who it is, and the secret of a
//! throw-away key. Stub: the text form comes with the next commit.

use crate::keys::{PrivateKey, PublicKey};
use crate::profile::HostPort;
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The gateway's address inside a throw-away tunnel (a ULA of Postern's own: "postern" in hex).
pub const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfd70, 0x6f73, 0x7465, 0x726e, 0, 0, 0, 1);

/// What throw-away addresses are made of; no pool and no target may lie in it.
pub const PREFIX_LEN: u8 = 64;

/// The most throw-away keys of one open invitation.
pub const MAX_KEYS: u16 = 256;

/// One invitation, as its string says it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Where the gateway is, in the order in which to try: at most 8.
    pub endpoints: Vec<HostPort>,
    /// Who it is.
    pub gateway: PublicKey,
    /// How many throw-away keys the secret gives: 1 for a personal one.
    pub keys: u16,
    /// What they are derived from.
    pub secret: InvitationSecret,
}

/// 32 random bytes. Zeroed when dropped; never shown.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct InvitationSecret(pub [u8; 32]);

/// Text that is no invitation, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadInvitation {
    /// It does not begin as one does.
    #[error("this is no invitation: one begins with `postern1-`")]
    Other,
    /// Of a newer program.
    #[error("this invitation is of a newer kind; update postern")]
    Newer,
    /// Characters are missing, doubled or changed.
    #[error("the invitation is damaged (its checksum does not fit); copy all of it again")]
    Damaged,
}

impl InvitationSecret {
    /// The throw-away key of this place, from 0 (HKDF-SHA256).
    #[must_use]
    pub fn key(&self, place: u16) -> PrivateKey {
        let _ = place;
        PrivateKey::from_random(self.0)
    }
}

/// The address that a throw-away key has inside its tunnel.
#[must_use]
pub fn guest_address(key: &PublicKey) -> Ipv6Addr {
    let _ = key;
    GATEWAY
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("postern1-")
    }
}

impl FromStr for Invitation {
    type Err = BadInvitation;

    fn from_str(_: &str) -> Result<Invitation, BadInvitation> {
        Err(BadInvitation::Other)
    }
}

impl fmt::Debug for InvitationSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InvitationSecret(redacted)")
    }
}
