//! Key newtypes. Text form is WireGuard's: 32 bytes in base64. Secrets never appear in `Debug`.

use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// A peer's Curve25519 public key: its identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

/// A Curve25519 private key. Zeroed when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PrivateKey([u8; 32]);

/// A WireGuard pre-shared key. Zeroed when dropped.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct PresharedKey(pub [u8; 32]);

/// Text that is not 32 bytes of base64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a WireGuard key: expected 44 characters of base64 (32 bytes)")]
pub struct BadKey;

impl PrivateKey {
    /// From 32 random bytes; clamped as Curve25519 demands (RFC 7748, section 5).
    #[must_use]
    pub fn from_random(mut random: [u8; 32]) -> Self {
        random[0] &= 248;
        random[31] &= 127;
        random[31] |= 64;
        PrivateKey(random)
    }

    /// The matching public key.
    #[must_use]
    pub fn public(&self) -> PublicKey {
        let secret = x25519_dalek::StaticSecret::from(self.0);
        PublicKey(x25519_dalek::PublicKey::from(&secret).to_bytes())
    }

    /// The bytes, for the cipher and for the key file only.
    #[must_use]
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    /// Base64, for the key file only.
    #[must_use]
    pub fn expose_base64(&self) -> String {
        BASE64_STANDARD.encode(self.0)
    }
}

impl PublicKey {
    /// The first 8 characters of the base64 form, as records and listings show it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.to_string().chars().take(8).collect()
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE64_STANDARD.encode(self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({}…)", self.fingerprint())
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateKey(redacted)")
    }
}

impl fmt::Debug for PresharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PresharedKey(redacted)")
    }
}

impl FromStr for PublicKey {
    type Err = BadKey;
    fn from_str(text: &str) -> Result<Self, BadKey> {
        decode(text).map(PublicKey)
    }
}

impl FromStr for PrivateKey {
    type Err = BadKey;
    fn from_str(text: &str) -> Result<Self, BadKey> {
        decode(text).map(PrivateKey)
    }
}

impl FromStr for PresharedKey {
    type Err = BadKey;
    fn from_str(text: &str) -> Result<Self, BadKey> {
        decode(text).map(PresharedKey)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl<'de> Deserialize<'de> for PrivateKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

fn decode(text: &str) -> Result<[u8; 32], BadKey> {
    BASE64_STANDARD
        .decode(text.trim())
        .ok()
        .and_then(|bytes| bytes.try_into().ok())
        .ok_or(BadKey)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_text_form() {
        let private = PrivateKey::from_random([7; 32]);
        let again: PrivateKey = private.expose_base64().parse().expect("own text form");
        assert_eq!(again.public(), private.public());
        assert_eq!(private.public().to_string().parse(), Ok(private.public()));
    }

    #[test]
    fn secrets_are_not_printed() {
        let private = PrivateKey::from_random([7; 32]);
        assert!(!format!("{private:?}").contains(&private.expose_base64()));
        assert_eq!(
            format!("{:?}", PresharedKey([1; 32])),
            "PresharedKey(redacted)"
        );
    }

    #[test]
    fn short_or_mangled_text_is_refused() {
        assert_eq!("abc".parse::<PublicKey>(), Err(BadKey));
        assert_eq!("AAAA".parse::<PublicKey>(), Err(BadKey));
    }
}
