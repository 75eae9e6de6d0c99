//! What devices ask of the control API.

use super::{counter, gauge, one};
use crate::metrics::Facts;
use prometheus::proto::MetricFamily;

pub(super) fn of(facts: &Facts) -> Vec<MetricFamily> {
    let asked = &facts.asked;
    vec![
        counter(
            "postern_control_requests_total",
            "Requests to the control API, by path and outcome: ok or the code of the refusal.",
            asked
                .requests
                .iter()
                .map(|((path, code), n)| (vec![("path", *path), ("code", code.as_str())], *n))
                .collect(),
        ),
        counter(
            "postern_control_forbidden_unrecorded_total",
            "Requests that a key may not make, and that have no audit line because it made many.",
            one(asked.forbidden_unrecorded),
        ),
        counter(
            "postern_logins_total",
            "Logins that came to an end, by outcome: done or the code of the refusal.",
            asked
                .logins
                .iter()
                .map(|(outcome, n)| (vec![("outcome", outcome.as_str())], *n))
                .collect(),
        ),
        counter(
            "postern_posture_reports_total",
            "Posture reports that were taken.",
            one(asked.reports),
        ),
        counter(
            "postern_break_glass_total",
            "Accesses that somebody took without approval, by the entry of the policy's grants.",
            asked
                .break_glass
                .iter()
                .map(|(entry, n)| (vec![("entry", entry.as_str())], *n))
                .collect(),
        ),
        gauge(
            "postern_grants",
            "Requests for grants that wait, and grants that live.",
            facts
                .grants
                .into_iter()
                .flat_map(|(waiting, live)| [("waits", waiting), ("live", live)])
                .map(|(state, n)| (vec![("state", state)], n))
                .collect(),
        ),
        gauge(
            "postern_sessions",
            "Logins in force.",
            facts
                .sessions
                .into_iter()
                .map(|n| (Vec::new(), n))
                .collect(),
        ),
    ]
}
