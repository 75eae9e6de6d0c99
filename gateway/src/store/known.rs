//! Whom the store knows, and how far back.

use super::{Store, StoreError};
use postern_engine::policy::Known;
use postern_proto::now::Wall;
use sqlx::Row;
use std::collections::BTreeSet;

/// What a policy may name. Who was invited and has not come yet counts; who was revoked does not.
const NAMES: &str = "
    SELECT 'user' AS kind, name AS name FROM users
    UNION SELECT 'user', user FROM invitations
        WHERE user IS NOT NULL AND revoked IS NULL AND expires > $1
    UNION SELECT 'device', name FROM devices WHERE revoked IS NULL
    UNION SELECT 'device', name FROM invitations
        WHERE name IS NOT NULL AND revoked IS NULL AND expires > $1
    UNION SELECT 'group', each.value FROM devices, json_each(devices.groups) AS each
        WHERE devices.revoked IS NULL
    UNION SELECT 'group', each.value FROM sessions, json_each(sessions.groups) AS each
    UNION SELECT 'group', each.value FROM invitations, json_each(invitations.groups) AS each
        WHERE revoked IS NULL AND expires > $1
    UNION SELECT 'label', each.value FROM devices, json_each(devices.labels) AS each
        WHERE devices.revoked IS NULL
    UNION SELECT 'label', each.value FROM invitations, json_each(invitations.labels) AS each
        WHERE revoked IS NULL AND expires > $1
    UNION SELECT 'issuer', issuer FROM identities";

impl Store {
    /// Who there is. A kind of which there is none is not known: nobody has begun with it.
    ///
    /// # Errors
    /// The database failed.
    pub async fn known(&self, now: u64) -> Result<Known, StoreError> {
        let rows = sqlx::query(NAMES)
            .bind(i64::try_from(now).unwrap_or(i64::MAX))
            .fetch_all(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        let mut known = Known::default();
        for row in rows {
            let text = |field| -> Result<String, StoreError> {
                row.try_get(field).map_err(|e| self.failed(e))
            };
            let kind = match text("kind")?.as_str() {
                "user" => &mut known.users,
                "device" => &mut known.devices,
                "group" => &mut known.groups,
                "label" => &mut known.labels,
                _ => &mut known.issuers,
            };
            let names = kind.get_or_insert_with(BTreeSet::new);
            names.insert(text("name")?);
        }
        Ok(known)
    }

    /// From when on, and until when, it is known how a device stood; without an end: still.
    ///
    /// # Errors
    /// The database failed.
    pub async fn known_of(&self, device: &str) -> Result<Option<(Wall, Option<Wall>)>, StoreError> {
        let row = sqlx::query(
            "SELECT min(since) AS since,
                    CASE WHEN count(until) = count(*) THEN max(until) END AS until
             FROM facts WHERE device = $1",
        )
        .bind(device)
        .fetch_one(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        let since = self.time(&row, "since")?.map(Wall);
        let until = self.time(&row, "until")?.map(Wall);
        Ok(since.map(|since| (since, until)))
    }

    /// From when on it is known how any device stood.
    ///
    /// # Errors
    /// The database failed.
    pub async fn known_since(&self) -> Result<Option<Wall>, StoreError> {
        let row = sqlx::query("SELECT min(since) AS since FROM facts")
            .fetch_one(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(self.time(&row, "since")?.map(Wall))
    }
}
