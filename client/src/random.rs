//! Random bytes from the kernel, for keys and seeds.

use std::io;

/// So many of them.
///
/// # Errors
/// The kernel has none to give.
pub fn bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    let mut filled = 0;
    while let Some(rest) = bytes.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        filled += rustix::rand::getrandom(rest, rustix::rand::GetRandomFlags::empty())?;
    }
    Ok(bytes)
}

/// A seed.
///
/// # Errors
/// As [`bytes`].
pub fn seed() -> io::Result<u64> {
    Ok(u64::from_ne_bytes(bytes()?))
}
