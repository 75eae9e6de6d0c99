//! A rate limit in one word: the generic cell rate algorithm (ITU-T I.371).

use postern_proto::now::Mono;
use std::time::Duration;

/// Allows `burst` at once, then one in `interval`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Rate {
    /// When the bucket would be full again.
    full_at: Mono,
}

impl Rate {
    /// Takes one if there is one.
    pub fn take(&mut self, now: Mono, interval: Duration, burst: u32) -> bool {
        let start = self.full_at.max(now);
        if start.since(now) >= interval * burst {
            return false;
        }
        self.full_at = start + interval;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_a_trickle() {
        let mut rate = Rate::default();
        let (start, tick) = (Mono(5_000_000_000), Duration::from_millis(100));
        let granted =
            |rate: &mut Rate, at: Mono| (0..100).filter(|_| rate.take(at, tick, 10)).count();
        assert_eq!(granted(&mut rate, start), 10);
        assert_eq!(granted(&mut rate, start + tick), 1);
        assert_eq!(granted(&mut rate, start + Duration::from_secs(60)), 10);
    }
}
