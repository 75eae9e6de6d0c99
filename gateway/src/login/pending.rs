//! Logins that are under way: bounded, each bound to its device, and over after ten minutes.

use super::Who;
use postern_proto::now::Wall;
use std::collections::HashMap;
use std::time::Duration;

/// Logins under way of all devices together; about 2 KiB each.
pub(super) const MAX_PENDING: usize = 256;

/// Of the devices together that have no user yet: whoever holds an open invitation can make many
/// of those, and keeps no user out.
const MAX_WITHOUT_USER: usize = MAX_PENDING / 2;

/// Of one device. One more ends its oldest: a closed browser locks nobody out.
pub(super) const MAX_PER_DEVICE: usize = 3;

/// How long a login may take.
pub(super) const LIFETIME: Duration = Duration::from_secs(600);

/// What is known of each login under way, by its id.
#[derive(Debug)]
pub(super) struct Pending<T>(HashMap<String, Entry<T>>);

#[derive(Debug)]
struct Entry<T> {
    device: String,
    has_user: bool,
    since: Wall,
    until: Wall,
    what: T,
}

/// There is no room for one more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

impl<T> Pending<T> {
    pub(super) fn new() -> Self {
        Pending(HashMap::new())
    }

    /// Remembers a login for `lifetime`, at most [`LIFETIME`].
    ///
    /// # Errors
    /// The table is full.
    pub(super) fn insert(
        &mut self,
        id: String,
        who: Who<'_>,
        what: T,
        lifetime: Duration,
        now: Wall,
    ) -> Result<(), Full> {
        self.0.retain(|_, entry| entry.lives(now));
        let own = self
            .0
            .iter()
            .filter(|(_, entry)| entry.device == who.device);
        if own.clone().count() >= MAX_PER_DEVICE
            && let Some(oldest) = own.min_by_key(|(_, entry)| entry.since)
        {
            let oldest = oldest.0.clone();
            self.0.remove(&oldest);
        }
        let without = self.0.values().filter(|entry| !entry.has_user).count();
        if self.0.len() >= MAX_PENDING || who.user.is_none() && without >= MAX_WITHOUT_USER {
            return Err(Full);
        }
        let entry = Entry {
            device: who.device.to_owned(),
            has_user: who.user.is_some(),
            since: now,
            until: after(now, lifetime.min(LIFETIME)),
            what,
        };
        self.0.insert(id, entry);
        Ok(())
    }

    /// The login, if it is this device's and not over.
    pub(super) fn get(&mut self, id: &str, device: &str, now: Wall) -> Option<&mut T> {
        let entry = self.0.get_mut(id)?;
        (entry.device == device && entry.lives(now)).then_some(&mut entry.what)
    }

    /// Ends it. None if it was not there any more: somebody else has ended it.
    pub(super) fn remove(&mut self, id: &str) -> Option<T> {
        self.0.remove(id).map(|entry| entry.what)
    }
}

impl<T> Entry<T> {
    /// A clock that was set back does not make it live longer than a whole lifetime.
    fn lives(&self, now: Wall) -> bool {
        now < self.until && after(now, LIFETIME) >= self.since
    }
}

/// `step` later.
pub(super) fn after(now: Wall, step: Duration) -> Wall {
    let step = u64::try_from(step.as_nanos()).unwrap_or(u64::MAX);
    Wall(now.0.saturating_add(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Wall = Wall(1_795_323_643_000_000_000);

    fn fill(table: &mut Pending<u32>, id: &str, device: &str, now: Wall) -> Result<(), Full> {
        let who = Who {
            device,
            user: Some("ana"),
            from: None,
        };
        table.insert(id.into(), who, 7, LIFETIME, now)
    }

    #[test]
    fn it_belongs_to_its_device_and_ends_after_ten_minutes() {
        let mut table = Pending::new();
        fill(&mut table, "a", "laptop", START).expect("room");
        assert!(table.get("a", "laptop", START).is_some());
        assert!(table.get("a", "other", START).is_none());
        assert!(table.get("b", "laptop", START).is_none());
        let last = Wall(after(START, LIFETIME).0 - 1);
        assert!(table.get("a", "laptop", last).is_some());
        assert!(table.get("a", "laptop", after(START, LIFETIME)).is_none());
        assert!(table.remove("a").is_some());
        assert!(table.remove("a").is_none());
    }

    #[test]
    fn one_device_has_three_and_all_have_a_bound() {
        let mut table = Pending::new();
        for (at, id) in ["a", "b", "c", "d"].into_iter().enumerate() {
            let now = Wall(START.0 + at as u64);
            fill(&mut table, id, "laptop", now).expect("room");
        }
        let now = Wall(START.0 + 9);
        assert!(table.get("a", "laptop", now).is_none(), "the oldest went");
        assert!(table.get("d", "laptop", now).is_some());

        for n in 0..MAX_PENDING - 3 {
            fill(&mut table, &format!("x{n}"), &format!("device{n}"), now).expect("room");
        }
        assert_eq!(fill(&mut table, "y", "one more", now), Err(Full));
        let later = after(now, LIFETIME);
        assert_eq!(fill(&mut table, "y", "one more", later), Ok(()));
        assert_eq!(table.0.len(), 1, "what is over is gone");
    }

    #[test]
    fn devices_without_a_user_leave_room_for_users() {
        let mut table = Pending::new();
        let stranger = |table: &mut Pending<u32>, n| {
            let device = format!("stranger{n}");
            let who = Who {
                device: &device,
                user: None,
                from: None,
            };
            table.insert(device.clone(), who, 7, LIFETIME, START)
        };
        for n in 0..MAX_PENDING / 2 {
            assert_eq!(stranger(&mut table, n), Ok(()));
        }
        assert_eq!(stranger(&mut table, MAX_PENDING), Err(Full));
        for n in 0..MAX_PENDING / 2 {
            let device = format!("device{n}");
            assert_eq!(fill(&mut table, &device, &device, START), Ok(()));
        }
    }
}
