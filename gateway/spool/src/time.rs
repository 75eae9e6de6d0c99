//! The times in records: RFC 3339 in UTC, to and from milliseconds since 1970.

/// Milliseconds since 1970 of a time as records carry it (`2026-11-22T05:00:43.120Z`); none for
/// any other text, another zone included.
#[must_use]
pub fn millis(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let marks = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    if bytes.len() < 20 || marks.iter().any(|&(at, mark)| bytes[at] != mark) {
        return None;
    }
    let part = |from: usize, to: usize| {
        bytes[from..to].iter().try_fold(0_u64, |sum, b| {
            b.is_ascii_digit().then(|| sum * 10 + u64::from(b - b'0'))
        })
    };
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    let fraction = match &bytes[19..] {
        b"Z" => 0,
        [b'.', digits @ .., b'Z'] if !digits.is_empty() => {
            let mut thousandths = 0;
            for (i, digit) in digits.iter().enumerate() {
                digit.is_ascii_digit().then_some(())?;
                let worth = [100, 10, 1].get(i).copied().unwrap_or(0);
                thousandths += u64::from(digit - b'0') * worth;
            }
            thousandths
        }
        _ => return None,
    };
    let valid = year >= 1970
        && (1..=12).contains(&month)
        && (1..=days_of(year, month)).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    valid.then(|| {
        let seconds = days_before(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
        seconds * 1000 + fraction
    })
}

/// A time as records carry it. Years beyond 9999 do not fit the format and are not to be had.
#[must_use]
pub fn rfc3339(millis: u64) -> String {
    let (days, rest) = (millis / 86_400_000, millis % 86_400_000);
    let mut year = 1970 + days / 366;
    while days_before(year + 1, 1, 1) <= days {
        year += 1;
    }
    let mut month = 1;
    while month < 12 && days_before(year, month + 1, 1) <= days {
        month += 1;
    }
    let day = days - days_before(year, month, 1) + 1;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{:03}Z",
        rest / 3_600_000,
        rest / 60_000 % 60,
        rest / 1000 % 60,
        rest % 1000
    )
}

/// Days from 1970-01-01 to that day. `year` is at least 1970.
fn days_before(year: u64, month: u64, day: u64) -> u64 {
    let past = year - 1;
    let leap_days = past / 4 - past / 100 + past / 400 - 477;
    let months: u64 = (1..month).map(|m| days_of(year, m)).sum();
    (year - 1970) * 365 + leap_days + months + day - 1
}

fn days_of(year: u64, month: u64) -> u64 {
    let leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_times() {
        for (ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_323_643_120, "2026-11-22T05:00:43.120Z"),
            (4_107_542_399_999, "2100-02-28T23:59:59.999Z"),
        ] {
            assert_eq!(rfc3339(ms), text);
            assert_eq!(millis(text), Some(ms));
        }
        assert_eq!(millis("2026-11-22T05:00:43Z"), Some(1_795_323_643_000));
        assert_eq!(
            millis("2026-11-22T05:00:43.123456789Z"),
            Some(1_795_323_643_123)
        );
        for bad in [
            "",
            "2026-11-22",
            "2026-11-22T05:00:43+01:00",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "2026-11-22T05:00:43.Z",
            "2026-11-22T05:00:4\u{e9}Z",
        ] {
            assert_eq!(millis(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn there_and_back(ms in 0_u64..253_402_300_800_000) {
            prop_assert_eq!(millis(&rfc3339(ms)), Some(ms));
        }
    }
}
