//! Between rows and types.

use super::{Device, Store, StoreError};
use crate::worker_api::DeviceRecord;
use base64::prelude::{BASE64_STANDARD, Engine as _};
use postern_engine::standing::Standing;
use postern_proto::keys::PresharedKey;
use sqlx::Row;
use sqlx::sqlite::SqliteRow;
use std::str::FromStr;

impl Store {
    pub(super) fn read(&self, row: &SqliteRow) -> Result<Device, StoreError> {
        let groups: String = self.column(row, "groups")?;
        let host: i64 = self.column(row, "host")?;
        let (v4, v6) = u32::try_from(host)
            .ok()
            .and_then(|host| self.pool.device(host))
            .ok_or_else(|| self.outside_pool(row, host))?;
        let optional = |name: &str| -> Result<Option<u64>, StoreError> {
            let value: Option<i64> = self.column(row, name)?;
            Ok(value.and_then(|value| u64::try_from(value).ok()))
        };
        Ok(Device {
            record: DeviceRecord {
                name: self.column(row, "name")?,
                user: self.column(row, "user")?,
                groups: serde_json::from_str(&groups)
                    .map_err(|_| self.damaged("devices.groups", &groups))?,
                key: self
                    .parsed(row, "public_key")?
                    .ok_or_else(|| self.damaged("devices.public_key", "nothing"))?,
                preshared_key: self.secret(row)?,
                v4,
                v6,
                created: optional("created")?.unwrap_or(0),
                last_endpoint: self.parsed(row, "last_endpoint")?,
                standing: Standing::default(),
            },
            revoked: optional("revoked")?,
            last_handshake: optional("last_handshake")?,
        })
    }

    fn column<'r, T>(&self, row: &'r SqliteRow, name: &str) -> Result<T, StoreError>
    where
        T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
    {
        row.try_get(name).map_err(|source| self.failed(source))
    }

    fn parsed<T: FromStr>(&self, row: &SqliteRow, name: &str) -> Result<Option<T>, StoreError> {
        let text: Option<String> = self.column(row, name)?;
        text.map(|text| {
            text.parse()
                .map_err(|_| self.damaged(&format!("devices.{name}"), &text))
        })
        .transpose()
    }

    /// Like [`Store::parsed`], but a damaged value is a secret and is not shown.
    fn secret(&self, row: &SqliteRow) -> Result<Option<PresharedKey>, StoreError> {
        let text: Option<String> = self.column(row, "preshared_key")?;
        text.map(|text| {
            text.parse()
                .map_err(|_| self.damaged("devices.preshared_key", "no key"))
        })
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
