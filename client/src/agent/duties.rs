//! What a running tunnel owes the gateway and its user, and when. Pure: time comes in.

use postern_proto::device_api::{ClientConfig, DeviceStatus};
use postern_proto::facts::Facts;
use postern_proto::now::{Mono, Now, Wall};
use std::time::Duration;

/// Looks at the facts between two reports: a change is reported at once.
const LOOKS: u32 = 4;
/// But not more often than this.
const LEAST_LOOK: Duration = Duration::from_secs(5);
/// The pauses after calls that failed: the first, and the longest.
const RETRY: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(300));
/// A rotation that failed is tried again after so long.
const ROTATE_AGAIN: Duration = Duration::from_secs(3600);

/// When what is due.
#[derive(Debug)]
pub(super) struct Duties {
    report_every: Duration,
    rotate_after: Option<Duration>,
    warn_before: Duration,
    last: Option<Facts>,
    next_look: Mono,
    next_report: Mono,
    retry: Duration,
    rotate_not_before: Mono,
    session_end: Option<(String, Wall)>,
    warned: Option<String>,
}

impl Duties {
    /// Nothing is due before the first configuration.
    pub(super) fn new() -> Duties {
        Duties {
            report_every: Duration::from_secs(60),
            rotate_after: None,
            warn_before: Duration::ZERO,
            last: None,
            next_look: Mono::NEVER,
            next_report: Mono::NEVER,
            retry: RETRY.0,
            rotate_not_before: Mono(0),
            session_end: None,
            warned: None,
        }
    }

    /// What the gateway wants. `look`: at other things than before, so look at once.
    pub(super) fn configured(&mut self, config: &ClientConfig, look: bool, now: Mono) {
        self.retry = RETRY.0;
        let every = Duration::from_secs(u64::from(config.report_every).max(1));
        if look || every != self.report_every || self.next_report == Mono::NEVER {
            self.report_every = every;
            self.next_look = now;
            self.next_report = now;
        }
        self.rotate_after = config.rotate_after.map(Duration::from_secs);
        self.warn_before = Duration::from_secs(config.warn_before.into());
    }

    /// How the device stands; what it says of the login sets the time of the warning.
    pub(super) fn stands(&mut self, status: &DeviceStatus) {
        self.session_end = status.session.as_ref().and_then(|session| {
            let until = session.until?;
            Some((
                session.id.clone(),
                Wall(until.saturating_mul(1_000_000_000)),
            ))
        });
    }

    /// When something is due, at the latest.
    pub(super) fn deadline(&self, now: Now) -> Mono {
        let warning = match &self.session_end {
            Some((id, _)) if self.warned.as_ref() == Some(id) => Mono::NEVER,
            Some((_, until)) if *until <= now.wall => Mono::NEVER,
            Some((_, until)) => {
                let left = Duration::from_nanos(until.0.saturating_sub(now.wall.0));
                now.mono + left.saturating_sub(self.warn_before)
            }
            None => Mono::NEVER,
        };
        self.next_look.min(warning)
    }

    /// The facts are to be looked at.
    pub(super) fn look_due(&self, now: Mono) -> bool {
        self.next_look <= now
    }

    /// Whether these facts are to be reported: they changed, or it is time.
    pub(super) fn report_due(&mut self, facts: &Facts, now: Mono) -> bool {
        let pause = (self.report_every / LOOKS).max(LEAST_LOOK);
        self.next_look = now + pause.min(self.report_every);
        self.next_report <= now || self.last.as_ref() != Some(facts)
    }

    /// They were.
    pub(super) fn reported(&mut self, facts: Facts, now: Mono) {
        self.last = Some(facts);
        self.retry = RETRY.0;
        self.next_report = now + self.report_every;
    }

    /// A call brought nothing: again soon, and less and less soon.
    pub(super) fn failed(&mut self, now: Mono) {
        self.next_look = now + self.retry;
        self.next_report = now;
        self.retry = (self.retry * 2).min(RETRY.1);
    }

    /// Once for each login: how long it still lives, when that is little.
    pub(super) fn warning(&mut self, now: Wall) -> Option<Duration> {
        let (id, until) = self.session_end.as_ref()?;
        let left = Duration::from_nanos(until.0.saturating_sub(now.0));
        if left.is_zero() || left > self.warn_before || self.warned.as_ref() == Some(id) {
            return None;
        }
        self.warned = Some(id.clone());
        Some(left)
    }

    /// The key is as old as the gateway lets it become.
    pub(super) fn rotation_due(&self, key_since: Option<u64>, now: Now) -> bool {
        let (Some(since), Some(after)) = (key_since, self.rotate_after) else {
            return false;
        };
        let age = now.wall.seconds().saturating_sub(since);
        self.rotate_not_before <= now.mono && age >= after.as_secs()
    }

    /// It was tried and failed.
    pub(super) fn rotation_failed(&mut self, now: Mono) {
        self.rotate_not_before = now + ROTATE_AGAIN;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_proto::device_api::{SessionView, State};
    use postern_proto::facts::Watched;

    const START: Now = Now {
        mono: Mono(1_000_000_000_000),
        wall: Wall(1_800_000_000_000_000_000),
    };

    fn config() -> ClientConfig {
        ClientConfig {
            version: "1".to_owned(),
            mtu: 1420,
            include: Vec::new(),
            endpoints: Vec::new(),
            keepalive: None,
            report_every: 60,
            watched: Watched::default(),
            rotate_after: Some(3600),
            warn_before: 600,
        }
    }

    fn with_session(id: &str, until: u64) -> DeviceStatus {
        DeviceStatus {
            name: "ana".to_owned(),
            user: None,
            groups: Vec::new(),
            state: State::Active,
            session: Some(SessionView {
                id: id.to_owned(),
                method: "oidc".to_owned(),
                issuer: None,
                since: 0,
                until: Some(until),
            }),
            posture: Vec::new(),
            preshared_key: true,
            key_since: 0,
            grants: Vec::new(),
        }
    }

    #[test]
    fn a_report_goes_out_at_its_time_and_at_once_when_something_changes() {
        let mut duties = Duties::new();
        assert_eq!(duties.deadline(START), Mono::NEVER);
        duties.configured(&config(), true, START.mono);
        assert!(duties.look_due(START.mono));
        let facts = Facts::default();
        assert!(duties.report_due(&facts, START.mono), "the first");
        duties.reported(facts.clone(), START.mono);

        let looked = START.after(Duration::from_secs(15));
        assert_eq!(duties.deadline(START), looked.mono);
        assert!(!duties.report_due(&facts, looked.mono), "nothing changed");
        let changed = Facts {
            firewall: Some(false),
            ..facts.clone()
        };
        assert!(duties.report_due(&changed, looked.mono));
        let later = START.after(Duration::from_secs(60));
        assert!(duties.report_due(&facts, later.mono), "it is time");
    }

    #[test]
    fn failures_are_retried_less_and_less_often() {
        let mut duties = Duties::new();
        duties.configured(&config(), true, START.mono);
        let mut waits = Vec::new();
        for _ in 0..10 {
            duties.failed(START.mono);
            waits.push((duties.deadline(START) - START.mono).as_secs());
        }
        assert_eq!(waits, [2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        duties.configured(&config(), false, START.mono);
        duties.failed(START.mono);
        assert_eq!((duties.deadline(START) - START.mono).as_secs(), 2);
    }

    #[test]
    fn the_end_of_a_login_is_announced_once_and_a_new_login_again() {
        let mut duties = Duties::new();
        duties.configured(&config(), false, START.mono);
        duties.reported(Facts::default(), START.mono);
        duties.next_look = Mono::NEVER;
        let until = START.wall.seconds() + 3600;
        duties.stands(&with_session("s1", until));
        assert_eq!(duties.warning(START.wall), None);
        let wait = duties.deadline(START) - START.mono;
        assert_eq!(wait, Duration::from_secs(3000));
        let late = START.after(Duration::from_secs(3001));
        assert_eq!(duties.warning(late.wall), Some(Duration::from_secs(599)));
        assert_eq!(duties.warning(late.wall), None);
        assert_eq!(duties.deadline(late), Mono::NEVER);
        duties.stands(&with_session("s2", until + 60));
        let left = duties.warning(late.after(Duration::from_secs(60)).wall);
        assert_eq!(left, Some(Duration::from_secs(599)));
    }

    #[test]
    fn a_key_is_changed_by_age_and_a_failure_waits() {
        let mut duties = Duties::new();
        let since = Some(START.wall.seconds());
        let old = START.after(Duration::from_secs(3600));
        assert!(!duties.rotation_due(since, old), "nobody wants it");
        duties.configured(&config(), false, START.mono);
        assert!(!duties.rotation_due(since, START));
        assert!(!duties.rotation_due(None, old), "its age is not known");
        assert!(duties.rotation_due(since, old));
        duties.rotation_failed(old.mono);
        let soon = old.after(Duration::from_secs(60));
        assert!(!duties.rotation_due(since, soon));
        let later = old.after(Duration::from_secs(3600));
        assert!(duties.rotation_due(since, later));
    }
}
