//! A new key for the same device. The old one serves until the new one has been used.

use super::devices::{Device, no_device};
use super::{Store, StoreError, rows};
use postern_proto::keys::{PresharedKey, PublicKey};

impl Store {
    /// Remembers the key that is to come, and its pre-shared key. One that was to come before is
    /// forgotten.
    ///
    /// # Errors
    /// The key was somebody's, there is no such device that may connect, or the database failed.
    pub async fn begin_rotation(
        &self,
        device: &str,
        next: &PublicKey,
        preshared: Option<&PresharedKey>,
        now: u64,
    ) -> Result<Device, StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE devices SET next_key = NULL WHERE name = $1")
            .bind(device)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.failed(e))?;
        self.free_key(&mut tx, next).await?;
        let begun = sqlx::query(
            "UPDATE devices SET next_key = $2, next_preshared_key = $3, next_since = $4
             WHERE name = $1 AND revoked IS NULL",
        )
        .bind(device)
        .bind(next.to_string())
        .bind(preshared.map(rows::preshared_text))
        .bind(rows::signed(now))
        .execute(&mut *tx)
        .await
        .map_err(|e| self.failed(e))?;
        if begun.rows_affected() == 0 {
            return Err(no_device(device));
        }
        self.commit(tx).await?;
        self.device(device).await
    }

    /// Forgets the key that is to come.
    ///
    /// # Errors
    /// There is no such device, or the database failed.
    pub async fn cancel_rotation(&self, device: &str) -> Result<Device, StoreError> {
        sqlx::query(
            "UPDATE devices SET next_key = NULL, next_preshared_key = NULL, next_since = NULL
             WHERE name = $1",
        )
        .bind(device)
        .execute(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        self.device(device).await
    }

    /// The new key has been used: it is the device's, and the old one never comes back. None if
    /// no device waits for this.
    ///
    /// # Errors
    /// The database failed.
    pub async fn finish_rotation(
        &self,
        old: &PublicKey,
        new: &PublicKey,
        now: u64,
    ) -> Result<Option<Device>, StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query(
            "INSERT OR IGNORE INTO old_keys (public_key, device, since, until)
             SELECT public_key, name, key_since, $3 FROM devices
             WHERE public_key = $1 AND next_key = $2 AND revoked IS NULL",
        )
        .bind(old.to_string())
        .bind(new.to_string())
        .bind(rows::signed(now))
        .execute(&mut *tx)
        .await
        .map_err(|e| self.failed(e))?;
        let finished = sqlx::query(
            "UPDATE devices
             SET public_key = next_key, preshared_key = next_preshared_key, key_since = $3,
                 next_key = NULL, next_preshared_key = NULL, next_since = NULL
             WHERE public_key = $1 AND next_key = $2 AND revoked IS NULL",
        )
        .bind(old.to_string())
        .bind(new.to_string())
        .bind(rows::signed(now))
        .execute(&mut *tx)
        .await
        .map_err(|e| self.failed(e))?;
        self.commit(tx).await?;
        if finished.rows_affected() == 0 {
            return Ok(None);
        }
        self.device_by_key(new).await
    }

    /// The pre-shared key of the key that is to come: what a restarted gateway needs to go on
    /// with a rotation.
    ///
    /// # Errors
    /// The database failed.
    pub async fn pending_rotations(
        &self,
    ) -> Result<Vec<(Device, PublicKey, Option<PresharedKey>)>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM devices_now WHERE next_key IS NOT NULL AND revoked IS NULL")
                .fetch_all(&self.db)
                .await
                .map_err(|e| self.failed(e))?;
        let mut pending = Vec::with_capacity(rows.len());
        for row in &rows {
            let device = self.read(row)?;
            if let Some(next) = device.next_key {
                pending.push((device, next, self.secret(row, "next_preshared_key")?));
            }
        }
        Ok(pending)
    }
}
