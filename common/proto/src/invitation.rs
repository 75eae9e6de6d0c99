//! The invitation: one string that holds where the gateway is, who it is, and the secret of a
//! throw-away key.
//!
//! Text: `postern1-` and base64url without padding (RFC 4648, section 5) of
//!
//! | bytes | |
//! |---|---|
//! | 1 | version: 1 |
//! | 2 | how many throw-away keys, big endian |
//! | 32 | the gateway's public key |
//! | 32 | the secret |
//! | 1 | how many endpoints; each is one byte of length and `host:port` |
//! | 4 | the first bytes of the SHA-256 of all before |

use crate::keys::{PrivateKey, PublicKey};
use crate::profile::HostPort;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine as _};
use hkdf::Hkdf;
use ipnet::Ipv6Net;
use sha2::{Digest, Sha256};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The gateway's address inside a throw-away tunnel (a ULA of Postern's own: "postern" in hex).
pub const GATEWAY: Ipv6Addr = Ipv6Addr::new(0xfd70, 0x6f73, 0x7465, 0x726e, 0, 0, 0, 1);

/// What throw-away addresses are made of; no pool and no target may lie in it.
pub const PREFIX_LEN: u8 = 64;

/// The range of throw-away addresses.
pub const GUESTS: Ipv6Net = Ipv6Net::new_assert(
    Ipv6Addr::new(0xfd70, 0x6f73, 0x7465, 0x726e, 0, 0, 0, 0),
    PREFIX_LEN,
);

/// The most throw-away keys of one open invitation.
pub const MAX_KEYS: u16 = 256;

/// The most endpoints of one invitation.
pub const MAX_ENDPOINTS: usize = 8;

/// What is read of a paste; more is no invitation. The longest one has 3200 characters.
const MAX_PASTE: usize = 16 << 10;

const PREFIX: &str = "postern1-";
const VERSION: u8 = 1;
const CHECKSUM: usize = 4;

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
    /// The throw-away key of this place, from 0 (HKDF-SHA256, RFC 5869).
    #[must_use]
    pub fn key(&self, place: u16) -> PrivateKey {
        let mut key = [0; 32];
        let info = [b"throw-away key ".as_slice(), &place.to_be_bytes()].concat();
        let made = Hkdf::<Sha256>::new(Some(b"postern invitation 1"), &self.0);
        let fits = made.expand(&info, &mut key);
        debug_assert!(fits.is_ok(), "HKDF gives up to 8160 bytes");
        let private = PrivateKey::from_random(key);
        key.zeroize();
        private
    }
}

/// The address that a throw-away key has inside its tunnel: of [`GUESTS`], and never
/// [`GATEWAY`].
#[must_use]
pub fn guest_address(key: &PublicKey) -> Ipv6Addr {
    let hash = Sha256::digest(key.0);
    let mut host = [0; 8];
    host.copy_from_slice(&hash[..8]);
    let mut host = u64::from_be_bytes(host);
    if host < 2 {
        host |= 1 << 63;
    }
    Ipv6Addr::from(u128::from(GUESTS.network()) | u128::from(host))
}

impl fmt::Display for Invitation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = vec![VERSION];
        bytes.extend(self.keys.to_be_bytes());
        bytes.extend(self.gateway.0);
        bytes.extend(self.secret.0);
        let endpoints = self.endpoints.iter().take(MAX_ENDPOINTS);
        bytes.push(u8::try_from(endpoints.len()).unwrap_or(u8::MAX));
        for endpoint in endpoints {
            let text = endpoint.to_string();
            // A DNS name has 253 bytes at most, but with its dot, colon and port it could be more
            // than a byte of length can say: such an endpoint is left empty, and reads as damaged.
            let length = u8::try_from(text.len()).unwrap_or(0);
            bytes.push(length);
            bytes.extend(text.bytes().take(usize::from(length)));
        }
        let sum = checksum(&bytes);
        bytes.extend(sum);
        let text = BASE64_URL_SAFE_NO_PAD.encode(&bytes);
        bytes.zeroize();
        write!(f, "{PREFIX}{text}")
    }
}

impl FromStr for Invitation {
    type Err = BadInvitation;

    /// Reads what was pasted: white space, line breaks, quotes, brackets, `>` and invisible
    /// characters of mail programs and chats do no harm.
    fn from_str(paste: &str) -> Result<Invitation, BadInvitation> {
        if paste.len() > MAX_PASTE {
            return Err(BadInvitation::Other);
        }
        let text: String = paste.chars().filter(|c| !is_decoration(*c)).collect();
        let Some(body) = text.strip_prefix(PREFIX) else {
            return Err(other_or_newer(&text));
        };
        let bytes = BASE64_URL_SAFE_NO_PAD
            .decode(body)
            .map_err(|_| BadInvitation::Damaged)?;
        let (bytes, sum) = bytes
            .split_last_chunk::<CHECKSUM>()
            .ok_or(BadInvitation::Damaged)?;
        if checksum(bytes) != *sum {
            return Err(BadInvitation::Damaged);
        }
        match bytes.split_first() {
            Some((&VERSION, rest)) => read(rest).ok_or(BadInvitation::Damaged),
            Some(_) => Err(BadInvitation::Newer),
            None => Err(BadInvitation::Damaged),
        }
    }
}

fn read(bytes: &[u8]) -> Option<Invitation> {
    let (keys, rest) = bytes.split_first_chunk::<2>()?;
    let (gateway, rest) = rest.split_first_chunk::<32>()?;
    let (secret, rest) = rest.split_first_chunk::<32>()?;
    let (&count, mut rest) = rest.split_first()?;
    let mut endpoints = Vec::new();
    for _ in 0..count {
        let (&length, after) = rest.split_first()?;
        let (text, after) = after.split_at_checked(usize::from(length))?;
        endpoints.push(std::str::from_utf8(text).ok()?.parse().ok()?);
        rest = after;
    }
    let keys = u16::from_be_bytes(*keys);
    let fits = (1..=MAX_KEYS).contains(&keys)
        && (1..=MAX_ENDPOINTS).contains(&endpoints.len())
        && rest.is_empty();
    fits.then(|| Invitation {
        endpoints,
        gateway: PublicKey(*gateway),
        keys,
        secret: InvitationSecret(*secret),
    })
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM] {
    let hash = Sha256::digest(bytes);
    let mut sum = [0; CHECKSUM];
    sum.copy_from_slice(&hash[..CHECKSUM]);
    sum
}

/// What gets into a text on its way and never belongs to it.
fn is_decoration(c: char) -> bool {
    c.is_whitespace()
        || c.is_control()
        || "\"'`<>()[]*\u{00ad}\u{2018}\u{2019}\u{201c}\u{201d}\u{ab}\u{bb}".contains(c)
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// `postern` and another number before the dash.
fn other_or_newer(text: &str) -> BadInvitation {
    let number = text
        .strip_prefix("postern")
        .and_then(|rest| rest.split_once('-'))
        .map(|(number, _)| number);
    match number {
        Some(number) if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) => {
            BadInvitation::Newer
        }
        Some(_) | None => BadInvitation::Other,
    }
}

impl fmt::Debug for InvitationSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InvitationSecret(redacted)")
    }
}

#[cfg(test)]
mod tests;
