//! What the names of targets mean. Names are the admin's own words, at most 256.

use super::{counter, gauge};
use crate::metrics::Facts;
use prometheus::proto::MetricFamily;

pub(super) fn of(facts: &Facts) -> Vec<MetricFamily> {
    let names = &facts.names;
    vec![
        gauge(
            "postern_target_name_age_seconds",
            "Time since a target's name was last resolved. What was never resolved has none.",
            names
                .iter()
                .filter_map(|one| Some((vec![("name", one.name.as_str())], one.age?)))
                .collect(),
        ),
        counter(
            "postern_target_name_failures_total",
            "How often a target's name was asked for in vain.",
            names
                .iter()
                .map(|one| (vec![("name", one.name.as_str())], one.failures))
                .collect(),
        ),
    ]
}
