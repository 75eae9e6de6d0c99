//! Time as a value. The shells read the clock and pass it in; everything pure receives it.

use serde::{Deserialize, Serialize};
use std::ops::{Add, Sub};
use std::time::Duration;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Never steps back; counts suspend. For ages and deadlines.
    pub mono: Mono,
    /// What a person would read. For records and time windows only.
    pub wall: Wall,
}

/// Nanoseconds since an arbitrary start (CLOCK_BOOTTIME on Linux).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mono(pub u64);

/// Nanoseconds since 1970-01-01 UTC.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Wall(pub u64);

impl Now {
    /// Both clocks moved on by `step`.
    #[must_use]
    pub fn after(self, step: Duration) -> Now {
        Now {
            mono: self.mono + step,
            wall: self.wall + step,
        }
    }
}

impl Mono {
    /// A deadline that never comes.
    pub const NEVER: Mono = Mono(u64::MAX);

    /// Time from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Mono) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Wall {
    /// A moment that never comes.
    pub const NEVER: Wall = Wall(u64::MAX);

    /// Time from `earlier` to here; zero if `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Wall) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// Whole seconds since 1970.
    #[must_use]
    pub fn seconds(self) -> u64 {
        self.0 / 1_000_000_000
    }

    /// Whole milliseconds since 1970.
    #[must_use]
    pub fn millis(self) -> u64 {
        self.0 / 1_000_000
    }

    /// RFC 3339 in UTC with milliseconds, as records carry it: `2026-11-22T05:00:43.120Z`.
    #[must_use]
    pub fn rfc3339(self) -> String {
        let millis = self.millis() % 1000;
        let (days, second_of_day) = (self.seconds() / 86_400, self.seconds() % 86_400);
        let (year, month, day) = civil(days);
        format!(
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{millis:03}Z",
            second_of_day / 3600,
            second_of_day / 60 % 60,
            second_of_day % 60
        )
    }
}

impl Add<Duration> for Mono {
    type Output = Mono;
    fn add(self, step: Duration) -> Mono {
        Mono(self.0.saturating_add(nanos(step)))
    }
}

impl Add<Duration> for Wall {
    type Output = Wall;
    fn add(self, step: Duration) -> Wall {
        Wall(self.0.saturating_add(nanos(step)))
    }
}

impl Sub<Mono> for Mono {
    type Output = Duration;
    fn sub(self, earlier: Mono) -> Duration {
        self.since(earlier)
    }
}

fn nanos(step: Duration) -> u64 {
    u64::try_from(step.as_nanos()).unwrap_or(u64::MAX)
}

/// Days since 1970-01-01 to a proleptic Gregorian date (Howard Hinnant, "chrono-Compatible
/// Low-Level Date Algorithms").
fn civil(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wall_time_reads_as_rfc3339() {
        assert_eq!(Wall(0).rfc3339(), "1970-01-01T00:00:00.000Z");
        assert_eq!(
            Wall(951_782_400_000_000_000).rfc3339(),
            "2000-02-29T00:00:00.000Z"
        );
        assert_eq!(
            Wall(1_795_323_643_120_000_000).rfc3339(),
            "2026-11-22T05:00:43.120Z"
        );
    }

    #[test]
    fn deadlines_saturate() {
        assert_eq!(Mono::NEVER + Duration::from_secs(1), Mono::NEVER);
        assert_eq!(Mono(5).since(Mono(9)), Duration::ZERO);
    }
}
