//! Between rows and types.

use super::{Device, Store, StoreError};
use crate::worker_api::DeviceRecord;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use postern_engine::standing::Standing;
use postern_proto::keys::PresharedKey;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::str::FromStr;

/// In a second.
pub(super) const NANOS: u64 = 1_000_000_000;

impl Store {
    pub(super) fn read(&self, row: &SqliteRow) -> Result<Device, StoreError> {
        let host: i64 = self.column(row, "host")?;
        let (v4, v6) = u32::try_from(host)
            .ok()
            .and_then(|host| self.pool.device(host))
            .ok_or_else(|| self.outside_pool(row, host))?;
        Ok(Device {
            record: DeviceRecord {
                name: self.column(row, "name")?,
                user: self.column(row, "user")?,
                groups: self.list(row, "groups")?,
                key: self
                    .parsed(row, "public_key")?
                    .ok_or_else(|| self.damaged("devices.public_key", "nothing"))?,
                preshared_key: self.secret(row, "preshared_key")?,
                v4,
                v6,
                created: self.time(row, "created")?.unwrap_or(0),
                last_endpoint: self.parsed(row, "last_endpoint")?,
                standing: Standing {
                    labels: self.list(row, "labels")?,
                    ..Standing::default()
                },
            },
            revoked: self.time(row, "revoked")?,
            last_handshake: self.time(row, "last_handshake")?,
            invitation: self.column(row, "invitation")?,
            approved: self.time(row, "approved")?,
            denied: self.time(row, "denied")?,
            needs_login: self.column(row, "needs_login")?,
            session_required: self.column(row, "session_required")?,
            user_disabled: self.column(row, "user_disabled")?,
            key_since: self.time(row, "key_since")?.unwrap_or(0),
            next_key: self.parsed(row, "next_key")?,
        })
    }

    /// Seconds since 1970, or a count.
    pub(super) fn time(&self, row: &SqliteRow, name: &str) -> Result<Option<u64>, StoreError> {
        let value: Option<i64> = self.column(row, name)?;
        Ok(value.and_then(|value| u64::try_from(value).ok()))
    }

    /// A JSON array of texts.
    pub(super) fn list(&self, row: &SqliteRow, name: &str) -> Result<Vec<String>, StoreError> {
        let text: String = self.column(row, name)?;
        serde_json::from_str(&text).map_err(|_| self.damaged(name, &text))
    }

    pub(super) fn column<'r, T>(&self, row: &'r SqliteRow, name: &str) -> Result<T, StoreError>
    where
        T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        row.try_get(name).map_err(|source| self.failed(source))
    }

    pub(super) fn parsed<T: FromStr>(
        &self,
        row: &SqliteRow,
        name: &str,
    ) -> Result<Option<T>, StoreError> {
        let text: Option<String> = self.column(row, name)?;
        text.map(|text| text.parse().map_err(|_| self.damaged(name, &text)))
            .transpose()
    }

    /// Like [`Store::parsed`], but a damaged value is a secret and is not shown.
    pub(super) fn secret(
        &self,
        row: &SqliteRow,
        name: &str,
    ) -> Result<Option<PresharedKey>, StoreError> {
        let text: Option<String> = self.column(row, name)?;
        text.map(|text| text.parse().map_err(|_| self.damaged(name, "no key")))
            .transpose()
    }

    fn outside_pool(&self, row: &SqliteRow, host: i64) -> StoreError {
        let name: String = row.try_get("name").unwrap_or_default();
        StoreError::Schema {
            path: self.path.clone(),
            reason: format!(
                "device '{name}' has host number {host}, which lies outside pool_v4 {}; set \
                 pool_v4 in gateway.yaml back to the range that it was enrolled in, or a larger one",
                self.pool.v4
            ),
        }
    }
}

pub(super) fn preshared_text(key: &PresharedKey) -> String {
    BASE64_STANDARD.encode(key.0)
}

/// SQLite's integers are signed; times fit for ages.
pub(super) fn signed(seconds: u64) -> i64 {
    i64::try_from(seconds).unwrap_or(i64::MAX)
}
