//! Which throw-away keys the data plane knows: those by which somebody can join, and for a while
//! those by which nobody can any more, so that whoever holds one hears why. Then silence.

use super::Control;
use crate::problem::Problem;
use crate::store::{Noted, Store, StoreError};
use crate::worker_api::{DeviceRecord, RemoveReason};
use postern_io::clock::Clock;
use postern_proto::keys::PublicKey;
use std::collections::BTreeMap;

/// The most throw-away keys that the data plane knows, about 10 MiB. The oldest of the dead go
/// first.
pub const MAX_GUEST_KEYS: usize = 4096;

/// How long a dead key is answered, seconds.
const DEAD_FOR: u64 = 7 * 86_400;

/// The throw-away keys that the data plane has to know now.
///
/// # Errors
/// The store failed.
pub async fn guests(store: &Store) -> Result<Vec<DeviceRecord>, StoreError> {
    let now = Clock::now().wall.seconds();
    let since = now.saturating_sub(DEAD_FOR);
    let guests = store.guests(now, since, MAX_GUEST_KEYS).await?.into_iter();
    Ok(guests.map(|guest| guest.record).collect())
}

/// By key.
pub(super) fn by_key(guests: Vec<DeviceRecord>) -> BTreeMap<PublicKey, DeviceRecord> {
    guests.into_iter().map(|guest| (guest.key, guest)).collect()
}

impl Control {
    /// Makes the data plane know what it has to, and forget the rest.
    pub(super) async fn sync_guests(&self) -> Result<(), Problem> {
        let mut known = self.guests.lock().await;
        let wanted = by_key(guests(&self.store).await?);
        let gone: Vec<DeviceRecord> = known
            .values()
            .filter(|guest| !wanted.contains_key(&guest.key))
            .cloned()
            .collect();
        for guest in gone {
            let reason = RemoveReason::Revoked;
            self.workers.remove_device(&guest, reason).await?;
            known.remove(&guest.key);
        }
        for (key, guest) in wanted {
            if known.contains_key(&key) {
                continue;
            }
            let accepted = self.workers.add_device(Noted::guest(guest.clone())).await?;
            accepted.map_err(|reason| {
                Problem::refused(reason, "revoke devices or invitations that are gone")
            })?;
            known.insert(key, guest);
        }
        Ok(())
    }

    /// How many keys an invitation may have now.
    pub(super) async fn room_for_guests(&self) -> Result<usize, Problem> {
        let now = Clock::now().wall.seconds();
        let living = self.store.guests(now, now, MAX_GUEST_KEYS).await?;
        let living = living.iter().filter(|guest| guest.dead.is_none()).count();
        Ok(MAX_GUEST_KEYS.saturating_sub(living))
    }
}
