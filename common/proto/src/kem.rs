//! The post-quantum part of a tunnel's keys: one ML-KEM-768 exchange (FIPS 203) inside a tunnel
//! gives both ends a WireGuard pre-shared key. Stub.

use crate::keys::PresharedKey;

/// The client's half. Its secret never leaves it.
pub struct KemSecret {}

/// Text that is no encapsulation key or no ciphertext of ML-KEM-768.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not what ML-KEM-768 gives: wrong length, wrong base64, or values out of range")]
pub struct BadKem;

impl KemSecret {
    /// From 64 random bytes.
    #[must_use]
    pub fn from_random(random: [u8; 64]) -> KemSecret {
        let _ = random;
        KemSecret {}
    }

    /// What the other end needs, base64.
    #[must_use]
    pub fn encapsulation_key(&self) -> String {
        String::new()
    }

    /// The key that the other end made, out of its ciphertext.
    ///
    /// # Errors
    /// It is none.
    pub fn open(&self, ciphertext: &str) -> Result<PresharedKey, BadKem> {
        let _ = ciphertext;
        Err(BadKem)
    }
}

/// The gateway's half: the ciphertext for the client (base64), and the key. `random` is 32 random
/// bytes.
///
/// # Errors
/// The key is none.
pub fn seal(encapsulation_key: &str, random: [u8; 32]) -> Result<(String, PresharedKey), BadKem> {
    let _ = (encapsulation_key, random);
    Err(BadKem)
}
