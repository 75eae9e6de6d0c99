//! Where a flow stands in a table: quick, and with a random seed, so that nobody outside can aim
//! at one place.

use std::hash::{BuildHasher as _, RandomState};

/// What a hash starts from: random.
pub(crate) fn seed() -> u64 {
    RandomState::new().hash_one(0u8)
}

/// Takes another word in: a folded multiplication.
pub(crate) fn mix(hash: u64, word: u64) -> u64 {
    let wide = u128::from(hash ^ word ^ 0x9e37_79b9_7f4a_7c15) * 0xa076_1d64_78bd_642f;
    (wide >> 64) as u64 ^ wide as u64
}
