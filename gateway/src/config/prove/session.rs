//! `session`.

use super::super::identity::SessionConfig;
use super::super::raw::{Field, RawSession};
use super::super::{Problem, units};
use super::{line_of, say, within};
use std::time::Duration;

const MAX_AGE: Duration = Duration::from_secs(12 * 3600);
const WARN_BEFORE: Duration = Duration::from_secs(600);

pub(super) fn session(p: &mut Vec<Problem>, raw: RawSession) -> SessionConfig {
    let max_age = age(p, "session.max_age", raw.max_age, MAX_AGE, "12h");
    let line = raw.warn_before.as_ref().map_or(0, line_of);
    // Of a short age the default would leave nothing.
    let default = max_age.map_or(WARN_BEFORE, |age| WARN_BEFORE.min(age / 2));
    let warn_before = within(
        p,
        "session.warn_before",
        raw.warn_before,
        default,
        "10m",
        units::duration,
        |_| None,
    );
    if let Some(age) = max_age.filter(|age| warn_before >= *age) {
        let problem = format!(
            "{} s is not shorter than session.max_age, {} s",
            warn_before.as_secs(),
            age.as_secs()
        );
        let help = "write a shorter time, or remove the line";
        say(p, line, "session.warn_before", problem, help);
    }
    SessionConfig {
        required: raw.required.unwrap_or(false),
        max_age,
        warn_before,
    }
}

/// An age of at least a second, or `never`.
pub(super) fn age(
    p: &mut Vec<Problem>,
    field: &str,
    raw: Field<String>,
    default: Duration,
    example: &str,
) -> Option<Duration> {
    let Some(raw) = raw else { return Some(default) };
    if raw.value == "never" {
        return None;
    }
    let wrong = |age: Duration| {
        (age < Duration::from_secs(1)).then(|| "is shorter than a second".to_owned())
    };
    let example = format!("{example}, or never");
    Some(within(
        p,
        field,
        Some(raw),
        default,
        &example,
        units::duration,
        wrong,
    ))
}
