//! How devices stand, put together from everything that is stored about them.

use super::devices::Device;
use super::{Store, StoreError, rows, sorted};
use crate::config::Config;
use crate::worker_api::DeviceRecord;
use postern_engine::standing::{Attribute, Grant, Reported, Session, Standing};
use postern_proto::now::Wall;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// What gateway.yaml says about standing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Devices with a user need a session that lives.
    pub session_required: bool,
    /// Seconds after which a posture report is stale.
    pub stale_after: u64,
}

impl Terms {
    /// Of the configuration in force.
    #[must_use]
    pub fn of(config: &Config) -> Terms {
        Terms {
            session_required: config.session.required,
            stale_after: config.posture.stale_after.as_secs(),
        }
    }
}

/// What is stored about devices besides the devices themselves, by name.
#[derive(Default)]
struct Stored {
    sessions: HashMap<String, super::Session>,
    reports: HashMap<String, Reported>,
    attributes: HashMap<String, BTreeMap<String, Attribute>>,
    grants: HashMap<String, Vec<Grant>>,
}

impl Store {
    /// How a device stands.
    ///
    /// # Errors
    /// There is none of that name, or the database failed.
    pub async fn standing(
        &self,
        device: &str,
        now: u64,
        terms: &Terms,
    ) -> Result<Standing, StoreError> {
        Ok(self.record(device, now, terms).await?.standing)
    }

    /// A device as the worker needs it: with its standing, and the groups of its session.
    ///
    /// # Errors
    /// There is none of that name, or the database failed.
    pub async fn record(
        &self,
        device: &str,
        now: u64,
        terms: &Terms,
    ) -> Result<DeviceRecord, StoreError> {
        let found = self.device(device).await?;
        let mut stored = self.stored(Some(device), now, terms).await?;
        Ok(stored.complete(found, terms))
    }

    /// The devices that may connect, as the workers need them, by name.
    ///
    /// # Errors
    /// The database failed.
    pub async fn active_devices(
        &self,
        now: u64,
        terms: &Terms,
    ) -> Result<Vec<DeviceRecord>, StoreError> {
        let mut stored = self.stored(None, now, terms).await?;
        let active = self.devices().await?.into_iter();
        Ok(active
            .filter(|device| device.revoked.is_none())
            .map(|device| stored.complete(device, terms))
            .collect())
    }

    async fn stored(
        &self,
        device: Option<&str>,
        now: u64,
        terms: &Terms,
    ) -> Result<Stored, StoreError> {
        let mut stored = Stored::default();
        for session in self.live_sessions(device).await? {
            stored.sessions.insert(session.device.clone(), session);
        }
        for (device, facts, at) in self.reports(device).await? {
            let reported = Reported {
                facts: Arc::new(facts),
                at: wall(at),
                fresh_until: wall(at.saturating_add(terms.stale_after)),
            };
            stored.reports.insert(device, reported);
        }
        for (device, one) in self.attributes_now(device, now).await? {
            let attribute = Attribute {
                value: one.value,
                until: one.until.map(wall),
            };
            let of_device = stored.attributes.entry(device).or_default();
            of_device.insert(one.name, attribute);
        }
        for grant in self.live_grants(device, now).await? {
            let of_device = stored.grants.entry(grant.new.device.clone()).or_default();
            of_device.push(Grant {
                since: wall(grant.since.unwrap_or(0)),
                until: wall(grant.until.unwrap_or(0)),
                id: grant.new.id.into(),
                entry: grant.new.entry.into(),
                target: grant.new.target.into(),
                reason: grant.new.reason.into(),
                break_glass: grant.new.break_glass,
            });
        }
        Ok(stored)
    }
}

impl Stored {
    fn complete(&mut self, device: Device, terms: &Terms) -> DeviceRecord {
        let held = device.held();
        let mut record = device.record;
        let session = self.sessions.remove(&record.name);
        if let Some(session) = &session {
            record.groups.extend_from_slice(&session.groups);
            record.groups = sorted(&record.groups);
        }
        record.standing = Standing {
            guest: false,
            held,
            session_required: device.session_required
                || (terms.session_required && record.user.is_some()),
            session: session.map(|session| Session {
                id: session.id.into(),
                method: session.method.into(),
                issuer: session.issuer.map(Into::into),
                amr: session.amr,
                acr: session.acr,
                since: wall(session.since),
                until: session.until.map(wall),
            }),
            reported: self.reports.remove(&record.name),
            attributes: self.attributes.remove(&record.name).unwrap_or_default(),
            labels: record.standing.labels,
            grants: self.grants.remove(&record.name).unwrap_or_default(),
            ..Standing::default()
        };
        record
    }
}

fn wall(seconds: u64) -> Wall {
    Wall(seconds.saturating_mul(rows::NANOS))
}
