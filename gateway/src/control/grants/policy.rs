//! What the policy says about grants.

use super::refused;
use crate::device_api::DeviceProblem;
use crate::store::StoredGrant;
use postern_engine::policy::{Policy, Subject};
use postern_proto::device_api::RequestGrant;
use postern_proto::now::Wall;

/// The entry of `grants:` that lets `who` have what they ask for.
pub(super) fn entry(
    _policy: &Policy,
    _who: &Subject,
    request: &RequestGrant,
    _now: Wall,
) -> Result<String, DeviceProblem> {
    Err(refused(
        format!(
            "no entry of the policy's `grants:` is for you and '{}'",
            request.target
        ),
        "ask the gateway's admin",
    ))
}

/// Whether `who` may decide about grants that rest on `entry`.
pub(super) fn may_approve(_policy: &Policy, _who: &Subject, _entry: &str, _now: Wall) -> bool {
    false
}

/// Whether the policy still lets a grant come to life.
pub(super) fn still(
    _policy: &Policy,
    _who: &Subject,
    _grant: &StoredGrant,
    _now: Wall,
) -> Result<(), String> {
    Ok(())
}
