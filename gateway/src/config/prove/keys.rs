//! `keys`.

use super::super::Problem;
use super::super::identity::KeysConfig;
use super::super::raw::RawKeys;
use super::session::age;
use std::time::Duration;

const ROTATE_AFTER: Duration = Duration::from_secs(30 * 86_400);

pub(super) fn keys(p: &mut Vec<Problem>, raw: RawKeys) -> KeysConfig {
    KeysConfig {
        rotate_after: age(
            p,
            "keys.rotate_after",
            raw.rotate_after,
            ROTATE_AFTER,
            "30d",
        ),
    }
}
