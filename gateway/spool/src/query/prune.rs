//! Whether a segment can hold a match, by the index beside it. An index may rule a segment out;
//! what it lets through is looked at.

use super::filter::{Filter, To};
use super::words::Verdict;
use crate::index::Index;
use std::collections::BTreeSet;

/// Whether the segment of `index` can hold a line that `filter` selects.
pub(super) fn may_hold(index: &Index, filter: &Filter) -> bool {
    let target = match &filter.to {
        Some(To::Target(name)) => Some(name.as_str()),
        Some(To::Net { .. }) | None => None,
    };
    let holds = |set: &Option<BTreeSet<String>>, wanted: Option<&str>| match (set, wanted) {
        (Some(set), Some(wanted)) => set.contains(wanted),
        _ => true,
    };
    // Without a time in the segment nothing of it is in any span.
    filter
        .since
        .is_none_or(|since| index.max_time >= Some(since))
        && filter
            .until
            .is_none_or(|until| index.min_time.is_some_and(|min| min < until))
        && holds(&index.users, filter.user.as_deref())
        && holds(&index.devices, filter.device.as_deref())
        && holds(&index.rules, filter.rule.as_deref())
        && holds(&index.targets, target)
        && holds(&index.verdicts, filter.verdict.map(Verdict::as_str))
}
