//! The files that were asked for, by their SHA-256.

use rustix::fs::{Mode, OFlags};
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;

/// A longer file is not hashed, and counts as absent. In bytes.
const MAX_FILE: u64 = 64 << 20;

/// Absent: no regular file that we may read and that is not too long.
pub(super) fn hashes(watched: &BTreeSet<String>) -> BTreeMap<String, Option<String>> {
    watched
        .iter()
        .map(|path| (path.clone(), hash(path)))
        .collect()
}

fn hash(path: &str) -> Option<String> {
    // A pipe must not keep us waiting, nor a terminal become ours.
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    let metadata = file.metadata().ok()?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return None;
    }
    let mut file = file.take(MAX_FILE + 1);
    let (mut hasher, mut buffer, mut total) = (Sha256::new(), vec![0; 64 << 10], 0);
    loop {
        let length = file.read(&mut buffer).ok()?;
        if length == 0 {
            break;
        }
        total += length as u64;
        hasher.update(buffer.get(..length)?);
    }
    (total <= MAX_FILE).then(|| hex(&hasher.finalize()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_file_has_a_hash_and_nothing_else_has() {
        let path = std::env::temp_dir().join(format!("postern-file-{}", std::process::id()));
        std::fs::write(&path, "abc").expect("written");
        let file = path.to_str().expect("a plain path").to_owned();
        let watched = [&file, "/dev/zero", "/tmp", "/nonexistent"].map(str::to_owned);
        let found = hashes(&watched.iter().cloned().collect());
        std::fs::remove_file(&path).expect("removed");
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(found[&file].as_deref(), Some(abc));
        assert_eq!(found.values().flatten().count(), 1);
        assert_eq!(found.len(), 4);
    }

    #[test]
    fn a_file_that_is_too_long_is_not_hashed() {
        let path = std::env::temp_dir().join(format!("postern-long-{}", std::process::id()));
        let file = File::create(&path).expect("made");
        file.set_len(MAX_FILE + 1).expect("sparse");
        assert_eq!(hash(path.to_str().expect("a plain path")), None);
        std::fs::remove_file(&path).expect("removed");
    }
}
