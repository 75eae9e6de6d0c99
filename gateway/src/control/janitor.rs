//! What time alone changes: logins and grants end, and clients hear of another configuration or policy.

use super::Control;
use super::login::session_end;
use super::refresh::NotInForce;
use crate::audit::Actor;
use crate::config::Config;
use crate::store::{Session, StoreError, Terms};
use postern_engine::policy::Policy;
use postern_io::clock::Clock;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// How often it is looked. The data plane needs no janitor to cut at the moment itself; this is
/// for what a session brought besides, its groups.
const TICK: Duration = Duration::from_millis(500);

/// Clients that are told of a change in one tick: they all ask at once then.
const TOLD_AT_ONCE: usize = 64;

/// What is still to be done, and what was in force when it was looked last.
struct Duties {
    /// What the next two were made of: while it is the same, they are.
    seen: (Arc<Config>, Arc<Policy>),
    terms: Terms,
    told: (String, String),
    /// Devices whose standing the data plane may not have yet.
    owed: BTreeSet<String>,
    /// Devices whose clients were not told yet.
    untold: BTreeSet<String>,
}

impl Control {
    /// Does what time demands. Never returns.
    pub async fn keep_time(&self) {
        let mut duties = Duties {
            seen: (self.config.get(), self.policy.current()),
            terms: Terms::of(&self.config.get()),
            told: self.what_clients_know(),
            owed: BTreeSet::new(),
            untold: BTreeSet::new(),
        };
        loop {
            tokio::time::sleep(TICK).await;
            if let Err(error) = self.tick(&mut duties).await {
                tracing::warn!(%error, "what time demands is late; it is tried again");
            }
        }
    }

    async fn tick(&self, duties: &mut Duties) -> Result<(), NotInForce> {
        self.finish_rotations().await;
        let now = Clock::now().wall.seconds();
        for session in self.store.sessions_due(now).await? {
            self.end_by_age(&session, now, duties).await?;
        }
        self.end_grants_by_time().await?;
        self.look_for_changes(duties, now).await?;
        while let Some(name) = duties.owed.first().cloned() {
            let _alone = self.changing.lock().await;
            match self.put_in_force(&name).await {
                Ok(_) | Err(NotInForce::Store(StoreError::NoDevice { .. })) => {}
                Err(error) => return Err(error),
            }
            duties.owed.remove(&name);
        }
        for _ in 0..TOLD_AT_ONCE {
            let Some(name) = duties.untold.pop_first() else {
                break;
            };
            match self.as_it_stands(&name).await {
                Ok(record) => self.tell_changed(&record),
                Err(StoreError::NoDevice { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Notes whom another configuration or policy concerns.
    async fn look_for_changes(&self, duties: &mut Duties, now: u64) -> Result<(), StoreError> {
        let seen = (self.config.get(), self.policy.current());
        if Arc::ptr_eq(&seen.0, &duties.seen.0) && Arc::ptr_eq(&seen.1, &duties.seen.1) {
            return Ok(());
        }
        let (terms, told) = (Terms::of(&self.config.get()), self.what_clients_know());
        if (terms, &told) != (duties.terms, &duties.told) {
            let active = self.store.active_devices(now, &terms).await?;
            let names = || active.iter().map(|device| device.name.clone());
            if terms != duties.terms {
                duties.owed.extend(names());
            }
            duties.untold.extend(names());
            (duties.terms, duties.told) = (terms, told);
        }
        duties.seen = seen;
        Ok(())
    }

    async fn end_by_age(
        &self,
        session: &Session,
        now: u64,
        duties: &mut Duties,
    ) -> Result<(), NotInForce> {
        let _alone = self.changing.lock().await;
        let Some(ended) = self.store.end_session(&session.id, "age", now).await? else {
            return Ok(());
        };
        duties.owed.insert(ended.device.clone());
        let (record, cut) = self.put_in_force(&ended.device).await?;
        duties.owed.remove(&ended.device);
        let event = session_end(Actor::Gateway, &ended, &record, cut.flows);
        self.note(event).await;
        self.tell_changed(&record);
        Ok(())
    }

    /// Changes when a client should look again.
    fn what_clients_know(&self) -> (String, String) {
        let policy = self.policy.current().hash().full();
        (self.client_config().version, policy)
    }
}
