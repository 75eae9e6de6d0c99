//! Durations as people write and read them.

use std::time::Duration;

/// From large to small, in milliseconds.
const UNITS: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1000),
    ("ms", 1),
];

/// `250ms`, `90s`, `30m`, `24h`, `7d`; none for anything else.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit())?;
    let (number, unit) = text.split_at(end);
    let (_, millis) = UNITS.iter().find(|(name, _)| *name == unit.trim())?;
    let number: u64 = number.parse().ok()?;
    number.checked_mul(*millis).map(Duration::from_millis)
}

/// As [`parse`] reads it, in the largest unit that says all of it; to the millisecond.
#[must_use]
pub fn written(duration: Duration) -> String {
    let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    let whole = UNITS
        .iter()
        .find(|(_, size)| millis > 0 && millis % size == 0);
    let (unit, size) = whole.unwrap_or(&("ms", 1));
    format!("{}{unit}", millis / size)
}

/// For a sentence, in one unit and never more than it is: `3 d`, `47 h`, `12 min`, `40 s`.
#[must_use]
pub fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs();
    // Small numbers keep the smaller unit: `36 h` says more than `1 d`.
    for (unit, size) in [("d", 86_400), ("h", 3600), ("min", 60)] {
        if seconds >= 2 * size || seconds == size {
            return format!("{} {unit}", seconds / size);
        }
    }
    format!("{seconds} s")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_a_unit() {
        assert_eq!(parse("24h"), Some(Duration::from_secs(86_400)));
        assert_eq!(parse("250ms"), Some(Duration::from_millis(250)));
        assert_eq!(parse("7 d"), Some(Duration::from_secs(7 * 86_400)));
        for bad in [
            "",
            "10",
            "h",
            "1w",
            "1.5h",
            "-1h",
            "99999999999999999999s",
            "99999999999999999d",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_duration_is_written_as_it_is_read() {
        for text in ["24h", "36h", "90s", "30m", "7d", "250ms", "1500ms"] {
            let duration = parse(text).unwrap_or_default();
            assert_eq!(parse(&written(duration)), Some(duration), "{text}");
        }
        assert_eq!(written(Duration::from_secs(43_200)), "12h");
        assert_eq!(written(Duration::from_secs(5400)), "90m");
    }

    #[test]
    fn a_duration_is_said_in_one_unit() {
        for (seconds, said) in [
            (0, "0 s"),
            (60, "1 min"),
            (119, "119 s"),
            (12 * 60 + 59, "12 min"),
            (3600, "1 h"),
            (36 * 3600, "36 h"),
            (13 * 3600 + 59, "13 h"),
            (3 * 86_400, "3 d"),
        ] {
            assert_eq!(shown(Duration::from_secs(seconds)), said);
        }
    }
}
