//! Sizes and durations as people write them.

use postern_engine::duration;
use std::time::Duration;

/// `64MiB`, `1GiB`, `500KiB`, in bytes.
pub(super) fn size(text: &str) -> Result<u64, &'static str> {
    let (number, unit) = split(text);
    let unit = match unit {
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        _ => return Err("is no size"),
    };
    number
        .and_then(|number| number.checked_mul(unit))
        .ok_or("is no size")
}

/// `250ms`, `90s`, `30m`, `24h`, `7d`.
pub(crate) fn duration(text: &str) -> Result<Duration, &'static str> {
    duration::parse(text).ok_or("is no duration")
}

fn split(text: &str) -> (Option<u64>, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    (number.parse().ok(), unit.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_need_a_unit() {
        assert_eq!(size("64MiB"), Ok(64 << 20));
        assert_eq!(size("1 GiB"), Ok(1 << 30));
        assert_eq!(duration("24h"), Ok(Duration::from_secs(86_400)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "64", "MiB", "-1MiB", "64MB", "99999999999999GiB"] {
            assert!(size(bad).is_err(), "{bad}");
        }
        for bad in ["", "10", "h", "1w", "1.5h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
