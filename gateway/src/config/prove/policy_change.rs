//! `policy_change`.

use super::super::raw::RawPolicyChange;
use super::super::{PolicyChangeConfig, Problem};
use super::number;

pub(super) fn policy_change(p: &mut Vec<Problem>, raw: RawPolicyChange) -> PolicyChangeConfig {
    let most = raw.max_newly_denied.map(|most| {
        let field = "policy_change.max_newly_denied";
        number(p, field, Some(most), 0_u64, 0..=1_000_000_000)
    });
    PolicyChangeConfig {
        watch: raw.watch.unwrap_or(true),
        require_tests: raw.require_tests.unwrap_or(false),
        max_newly_denied: most,
    }
}
