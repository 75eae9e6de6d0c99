//! The post-quantum part of a tunnel's keys: one ML-KEM-768 exchange (FIPS 203) inside a tunnel
//! gives both ends a WireGuard pre-shared key. An attacker who records the tunnel today and breaks
//! Curve25519 later still lacks it, unless the tunnel that carried the exchange was broken as
//! well; `docs/adr/015-post-quantum-keys.md` says what that means.
//!
//! The key is HKDF-SHA256 (RFC 5869) of the shared secret, with a label of Postern's own and the
//! SHA-256 of the ciphertext as info. Randomness is an argument; whoever keeps it, as a client that
//! may have to ask again does, has the same secret again.

use crate::keys::PresharedKey;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use hkdf::Hkdf;
use ml_kem::kem::{Decapsulate, DecapsulationKey, EncapsulationKey};
use ml_kem::{
    B32, Ciphertext, EncapsulateDeterministic, Encoded, EncodedSizeUser, KemCore, MlKem768,
    MlKem768Params,
};
use sha2::{Digest, Sha256};
use std::fmt;
use zeroize::{Zeroize, Zeroizing};

/// Bytes of an encapsulation key (FIPS 203, table 3).
pub const ENCAPSULATION_KEY: usize = 1184;

/// Bytes of a ciphertext.
pub const CIPHERTEXT: usize = 1088;

const LABEL: &[u8] = b"postern ml-kem-768 preshared-key v1";

/// The client's half. Its secret never leaves it; zeroed when dropped.
pub struct KemSecret(Box<DecapsulationKey<MlKem768Params>>);

/// Text that is no encapsulation key or no ciphertext of ML-KEM-768.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not what ML-KEM-768 gives: wrong length, wrong base64, or values out of range")]
pub struct BadKem;

impl KemSecret {
    /// From 64 random bytes.
    #[must_use]
    pub fn from_random(random: [u8; 64]) -> KemSecret {
        let random = Zeroizing::new(random);
        let (first, second) = random.split_at(32);
        let (mut d, mut z) = (B32::default(), B32::default());
        d.copy_from_slice(first);
        z.copy_from_slice(second);
        let (secret, _) = MlKem768::generate_deterministic(&d, &z);
        d.as_mut_slice().zeroize();
        z.as_mut_slice().zeroize();
        KemSecret(Box::new(secret))
    }

    /// What the other end needs, base64.
    #[must_use]
    pub fn encapsulation_key(&self) -> String {
        BASE64_STANDARD.encode(self.0.encapsulation_key().as_bytes())
    }

    /// The key that the other end made, out of its ciphertext. A ciphertext for another key opens
    /// as well and gives a key that fits nobody's (FIPS 203, implicit rejection).
    ///
    /// # Errors
    /// It is none.
    pub fn open(&self, ciphertext: &str) -> Result<PresharedKey, BadKem> {
        let bytes = decode(ciphertext)?;
        let ciphertext = Ciphertext::<MlKem768>::try_from(bytes.as_slice()).map_err(|_| BadKem)?;
        let mut shared = self.0.decapsulate(&ciphertext).map_err(|()| BadKem)?;
        let key = preshared(&shared, &bytes);
        shared.as_mut_slice().zeroize();
        key
    }
}

impl fmt::Debug for KemSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KemSecret(redacted)")
    }
}

/// The gateway's half: the ciphertext for the client (base64), and the key. `random` is 32 random
/// bytes; the same bytes and key give the same answer.
///
/// # Errors
/// The key is none.
pub fn seal(encapsulation_key: &str, random: [u8; 32]) -> Result<(String, PresharedKey), BadKem> {
    let random = Zeroizing::new(random);
    let bytes = decode(encapsulation_key)?;
    let encoded = Encoded::<EncapsulationKey<MlKem768Params>>::try_from(bytes.as_slice())
        .map_err(|_| BadKem)?;
    let key = EncapsulationKey::<MlKem768Params>::from_bytes(&encoded);
    // The modulus check of FIPS 203, section 7.2: values out of range do not come back as written.
    if key.as_bytes() != encoded {
        return Err(BadKem);
    }
    let mut m = B32::default();
    m.copy_from_slice(random.as_slice());
    let sealed = key.encapsulate_deterministic(&m);
    m.as_mut_slice().zeroize();
    let (ciphertext, mut shared) = sealed.map_err(|()| BadKem)?;
    let preshared = preshared(&shared, &ciphertext);
    shared.as_mut_slice().zeroize();
    Ok((BASE64_STANDARD.encode(ciphertext), preshared?))
}

fn preshared(shared: &[u8], ciphertext: &[u8]) -> Result<PresharedKey, BadKem> {
    let mut key = PresharedKey([0; 32]);
    let sent = Sha256::digest(ciphertext);
    // 32 bytes are never too many for HKDF-SHA256.
    Hkdf::<Sha256>::new(None, shared)
        .expand_multi_info(&[LABEL, &sent], &mut key.0)
        .map_err(|_| BadKem)?;
    Ok(key)
}

fn decode(text: &str) -> Result<Vec<u8>, BadKem> {
    // Nothing longer than the longer of both is even looked at.
    if text.len() > ENCAPSULATION_KEY.div_ceil(3) * 4 {
        return Err(BadKem);
    }
    BASE64_STANDARD.decode(text).map_err(|_| BadKem)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(seed: u8) -> KemSecret {
        KemSecret::from_random([seed; 64])
    }

    #[test]
    fn both_ends_have_the_same_key_and_nobody_else() {
        let client = secret(1);
        let (ciphertext, ours) = seal(&client.encapsulation_key(), [2; 32]).expect("a good key");
        let theirs = client.open(&ciphertext).expect("a good ciphertext");
        assert_eq!(ours.0, theirs.0);
        assert_ne!(ours.0, [0; 32]);

        let stranger = secret(3).open(&ciphertext).expect("it opens, to nothing");
        assert_ne!(stranger.0, ours.0);
        let (other, another) = seal(&client.encapsulation_key(), [4; 32]).expect("a good key");
        assert_ne!(
            (other, another.0),
            (ciphertext, ours.0),
            "other randomness, other key"
        );
    }

    #[test]
    fn the_same_bytes_give_the_same_again() {
        let once = seal(&secret(1).encapsulation_key(), [2; 32]).expect("a good key");
        let twice = seal(&secret(1).encapsulation_key(), [2; 32]).expect("a good key");
        assert_eq!((once.0, once.1.0), (twice.0, twice.1.0));
    }

    #[test]
    fn a_changed_ciphertext_gives_another_key() {
        let client = secret(1);
        let (ciphertext, ours) = seal(&client.encapsulation_key(), [2; 32]).expect("a good key");
        let mut bytes = BASE64_STANDARD.decode(&ciphertext).expect("base64");
        bytes[0] ^= 1;
        let opened = client.open(&BASE64_STANDARD.encode(bytes)).expect("opens");
        assert_ne!(opened.0, ours.0);
    }

    #[test]
    fn lengths_are_those_of_the_standard_and_no_others() {
        let client = secret(1);
        let key = client.encapsulation_key();
        let (ciphertext, _) = seal(&key, [2; 32]).expect("a good key");
        let length = |text: &str| BASE64_STANDARD.decode(text).expect("base64").len();
        assert_eq!(
            (length(&key), length(&ciphertext)),
            (ENCAPSULATION_KEY, CIPHERTEXT)
        );
        for bytes in [0, 1, 32, 800, 1087, 1089, 1183, 1185, 1568] {
            let text = BASE64_STANDARD.encode(vec![1; bytes]);
            assert_eq!(seal(&text, [2; 32]).map(|_| ()), Err(BadKem), "{bytes}");
            assert_eq!(client.open(&text).map(|_| ()), Err(BadKem), "{bytes}");
        }
        assert_eq!(client.open(&key).map(|_| ()), Err(BadKem), "a key");
        assert_eq!(seal(&ciphertext, [2; 32]).map(|_| ()), Err(BadKem));
        for text in ["", "!", &"A".repeat(1 << 20), &format!("{key} ")] {
            assert_eq!(seal(text, [2; 32]).map(|_| ()), Err(BadKem));
            assert_eq!(client.open(text).map(|_| ()), Err(BadKem));
        }
    }

    #[test]
    fn a_key_with_values_out_of_range_is_refused() {
        let good = secret(1).encapsulation_key();
        let mut bytes = BASE64_STANDARD.decode(good).expect("base64");
        // The first coefficient, 12 bits: the modulus is 3329, so 4095 cannot be.
        bytes[0] = 0xff;
        bytes[1] |= 0x0f;
        let bad = BASE64_STANDARD.encode(&bytes);
        assert_eq!(seal(&bad, [2; 32]).map(|_| ()), Err(BadKem));
        let all = BASE64_STANDARD.encode([0xff; ENCAPSULATION_KEY]);
        assert_eq!(seal(&all, [2; 32]).map(|_| ()), Err(BadKem));
    }

    #[test]
    fn the_secret_is_not_printed() {
        assert_eq!(format!("{:?}", secret(1)), "KemSecret(redacted)");
    }
}
