//! How often one asker may ask: a budget that refills at a steady pace. No clock: time is an
//! argument.

use postern_proto::now::Mono;
use std::collections::HashMap;
use std::time::Duration;

/// The most budgets that are remembered, together about 1 MiB. One that is full again is
/// forgotten first; while none is, whoever is new is refused.
pub(super) const MAX_BUDGETS: usize = 8192;

/// What a budget is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// Requests with the key of a device.
    Device,
    /// Requests with a throw-away key.
    Guest,
    /// Posture reports of a device.
    Report,
    /// New keys of a device.
    Rotation,
    /// Requests for grants, and decisions, of a device.
    Grant,
    /// Access that a device takes without approval.
    BreakGlass,
    /// Audit lines about what an asker may not.
    Forbidden,
}

/// At most `burst` at once, and one more `every` so often.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) burst: u32,
    pub(super) every: Duration,
}

impl Kind {
    /// Far above what a client does, far below what would keep the store busy.
    pub(super) const fn pace(self) -> Pace {
        let (burst, millis) = match self {
            Kind::Device => (40, 200),
            Kind::Guest => (10, 1000),
            Kind::Report => (10, 5000),
            Kind::Rotation => (5, 600_000),
            Kind::Grant => (20, 3000),
            Kind::BreakGlass => (3, 600_000),
            Kind::Forbidden => (5, 60_000),
        };
        Pace {
            burst,
            every: Duration::from_millis(millis),
        }
    }
}

/// The budgets of all askers.
#[derive(Debug, Default)]
pub(super) struct Limits {
    /// When each is full again (the generic cell rate algorithm, ITU-T I.371).
    full_at: HashMap<(Kind, String), Mono>,
}

impl Limits {
    /// Takes one from the budget of `who`.
    ///
    /// # Errors
    /// Nothing is left; how long until there is.
    pub(super) fn take(&mut self, kind: Kind, who: &str, now: Mono) -> Result<(), Duration> {
        let pace = kind.pace();
        let key = (kind, who.to_owned());
        let full_at = self.full_at.get(&key).map_or(now, |at| (*at).max(now));
        let next = full_at + pace.every;
        let most = pace.every * pace.burst;
        if next - now > most {
            return Err((next - now).saturating_sub(most));
        }
        if self.full_at.len() >= MAX_BUDGETS && !self.full_at.contains_key(&key) {
            self.full_at.retain(|_, at| *at > now);
            if self.full_at.len() >= MAX_BUDGETS {
                return Err(pace.every);
            }
        }
        self.full_at.insert(key, next);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(limits: &mut Limits, who: &str, now: Mono, tries: u32) -> u32 {
        (0..tries)
            .filter(|_| limits.take(Kind::Device, who, now).is_ok())
            .count()
            .try_into()
            .expect("few")
    }

    #[test]
    fn a_burst_passes_and_then_the_pace_holds() {
        let (mut limits, start) = (Limits::default(), Mono(5));
        let pace = Kind::Device.pace();
        assert_eq!(taken(&mut limits, "a", start, 1000), pace.burst);
        let wait = limits.take(Kind::Device, "a", start).expect_err("spent");
        assert_eq!(wait, pace.every, "it says when to come back");
        assert_eq!(taken(&mut limits, "a", start + wait, 1000), 1);
        let later = start + pace.every * 10_000;
        assert_eq!(taken(&mut limits, "a", later, 1000), pace.burst, "no more");
    }

    #[test]
    fn askers_and_purposes_do_not_share() {
        let (mut limits, now) = (Limits::default(), Mono(5));
        taken(&mut limits, "a", now, 1000);
        assert_eq!(taken(&mut limits, "b", now, 1), 1);
        assert!(limits.take(Kind::Report, "a", now).is_ok());
    }

    #[test]
    fn the_table_is_bounded_and_forgets_who_is_idle() {
        let (mut limits, now) = (Limits::default(), Mono(5));
        for who in 0..MAX_BUDGETS {
            assert_eq!(taken(&mut limits, &who.to_string(), now, 1), 1);
        }
        assert_eq!(taken(&mut limits, "one more", now, 1), 0);
        assert_eq!(taken(&mut limits, "7", now, 1), 1, "who is known goes on");
        let later = now + Kind::Device.pace().every * 3;
        assert_eq!(taken(&mut limits, "one more", later, 1), 1);
        assert_eq!(limits.full_at.len(), 1);
    }
}
