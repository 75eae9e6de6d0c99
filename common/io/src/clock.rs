//! The only place that reads time.

use postern_proto::now::{Mono, Now, Wall};
use rustix::time::{ClockId, clock_gettime};

/// Both clocks of this machine.
pub struct Clock;

impl Clock {
    /// CLOCK_BOOTTIME (it counts suspend, so a session that slept is old when the lid opens) and
    /// CLOCK_REALTIME. A wall clock before 1970 reads as zero.
    #[must_use]
    pub fn now() -> Now {
        Now {
            mono: Mono(nanos(ClockId::Boottime)),
            wall: Wall(nanos(ClockId::Realtime)),
        }
    }
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let rest = u64::try_from(time.tv_nsec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_forward_and_the_calendar_is_plausible() {
        let before = Clock::now();
        let after = Clock::now();
        assert!(after.mono >= before.mono);
        assert!(before.mono.0 > 0);
        assert!(
            before.wall.rfc3339().as_str() > "2025-",
            "{}",
            before.wall.rfc3339()
        );
    }
}
