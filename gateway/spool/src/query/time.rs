//! Moments as people write them and as records carry them. All in UTC.

use crate::time::{millis, rfc3339};

/// Text that is no moment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no time; write how long ago, such as 15m, 2h or 7d, or a time in UTC, such as \
     2026-11-22, 10:30 (today) or 2026-11-22T10:30:00Z"
)]
pub struct BadTime(String);

/// What `text` means at `now`, in milliseconds since 1970: `15m`, `2h`, `7d` (ago), `10:30`
/// (today), `2026-11-22`, `2026-11-22T10:30`, or RFC 3339, with or without a zone. Without: UTC.
///
/// # Errors
/// The text is none of these, or lies before 1970.
pub fn moment(text: &str, now: u64) -> Result<u64, BadTime> {
    let trimmed = text.trim();
    let read = match trimmed {
        "now" => Some(now),
        _ => ago(trimmed, now).or_else(|| date(trimmed, now)),
    };
    read.ok_or_else(|| BadTime(text.to_owned()))
}

/// `15m`: a number and the letter of a unit.
fn ago(text: &str, now: u64) -> Option<u64> {
    const SECOND: u64 = 1000;
    let unit = match text.chars().next_back()? {
        's' => SECOND,
        'm' => 60 * SECOND,
        'h' => 3600 * SECOND,
        'd' => 86_400 * SECOND,
        'w' => 7 * 86_400 * SECOND,
        _ => return None,
    };
    let number = text.get(..text.len() - 1)?.parse::<u64>().ok()?;
    now.checked_sub(number.checked_mul(unit)?)
}

fn date(text: &str, now: u64) -> Option<u64> {
    let (text, east, seconds) = zone(text)?;
    let today = rfc3339(now);
    let text = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        16 => format!("{text}:00Z"),
        5 => format!("{}T{text}:00Z", today.get(..10)?),
        8 => format!("{}T{text}Z", today.get(..10)?),
        _ => format!("{text}Z"),
    };
    let local = millis(&text.replacen(' ', "T", 1))?;
    if east {
        local.checked_sub(seconds * 1000)
    } else {
        local.checked_add(seconds * 1000)
    }
}

/// Splits `Z`, `+02:00` or nothing off: the rest, whether the zone lies in the east, and by how
/// many seconds.
fn zone(text: &str) -> Option<(&str, bool, u64)> {
    if let Some(rest) = text.strip_suffix('Z') {
        return Some((rest, true, 0));
    }
    // Before it stands a date and a time; the dashes of a date alone are no zone.
    let at = text.len().checked_sub(6).filter(|at| *at > 10);
    let Some((rest, zone)) = at.and_then(|at| text.split_at_checked(at)) else {
        return Some((text, true, 0));
    };
    let east = match zone.chars().next() {
        Some('+') => true,
        Some('-') => false,
        _ => return Some((text, true, 0)),
    };
    let (hours, minutes) = zone[1..].split_once(':')?;
    let number = |text: &str, most: u64| {
        let value = text.parse::<u64>().ok()?;
        (text.len() == 2 && value <= most).then_some(value)
    };
    let seconds = number(hours, 23)? * 3600 + number(minutes, 59)? * 60;
    Some((rest, east, seconds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(text: &str) -> u64 {
        millis(text).expect(text)
    }

    #[test]
    fn what_people_write() {
        let now = at("2026-11-22T12:00:00.5Z");
        for (text, means) in [
            ("now", "2026-11-22T12:00:00.500Z"),
            ("15m", "2026-11-22T11:45:00.500Z"),
            ("2h", "2026-11-22T10:00:00.500Z"),
            ("7d", "2026-11-15T12:00:00.500Z"),
            ("1w", "2026-11-15T12:00:00.500Z"),
            ("2026-11-21", "2026-11-21T00:00:00.000Z"),
            ("10:30", "2026-11-22T10:30:00.000Z"),
            ("10:30:05", "2026-11-22T10:30:05.000Z"),
            ("2026-11-21T10:30", "2026-11-21T10:30:00.000Z"),
            ("2026-11-21 10:30:01", "2026-11-21T10:30:01.000Z"),
            ("2026-11-21T10:30:01Z", "2026-11-21T10:30:01.000Z"),
            ("2026-11-21T10:30:01.25Z", "2026-11-21T10:30:01.250Z"),
            ("2026-11-21T10:30:01+02:00", "2026-11-21T08:30:01.000Z"),
            ("2026-11-21T22:30:01.5-05:30", "2026-11-22T04:00:01.500Z"),
            ("2024-02-29", "2024-02-29T00:00:00.000Z"),
        ] {
            let read = moment(text, now).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(rfc3339(read), means, "{text}");
        }
    }

    #[test]
    fn what_is_no_time_says_what_to_write() {
        let now = at("2026-11-22T12:00:00Z");
        for text in [
            "",
            "yesterday",
            "15",
            "25:00",
            "10:30Zx",
            "2026-13-01",
            "2026-02-29",
            "2026-11-22T10:30:00Zjunk",
            "2026-11-22T10:30:00+2:00",
            "2026-11-22T10:30:00+25:00",
            "100y",
            "99999999999999999w",
            "ü5:30",
        ] {
            let error = moment(text, now).expect_err(text).to_string();
            assert!(error.contains("15m, 2h or 7d"), "{error}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,30}") {
            let _ = moment(&text, 0);
        }
    }
}
