//! Devices: enrolled, found, seen, revoked. None is ever deleted.

use super::labels::labels;
use super::{Store, StoreError, list_text, refused, rows, sorted, word};
use crate::api::DeviceState;
use crate::pool::FIRST_DEVICE;
use crate::worker_api::DeviceRecord;
use postern_engine::standing::Held;
use postern_proto::keys::{PresharedKey, PublicKey};
use sqlx::{Row, SqliteConnection};
use std::net::SocketAddr;

/// A device with its history.
#[derive(Clone, Debug)]
pub struct Device {
    /// What the worker needs, but for the groups of its session and its standing, of which only
    /// the labels are here ([`Store::record`] knows the rest).
    pub record: DeviceRecord,
    /// Seconds since 1970; none while it is active.
    pub revoked: Option<u64>,
    /// Seconds since 1970.
    pub last_handshake: Option<u64>,
    /// The invitation that it joined by; none if it was added by hand.
    pub invitation: Option<String>,
    /// When it was approved, seconds since 1970.
    pub approved: Option<u64>,
    /// When it was denied approval, seconds since 1970.
    pub denied: Option<u64>,
    /// Nobody has logged in on it yet, and somebody must.
    pub needs_login: bool,
    /// Without a session it reaches nothing, whatever gateway.yaml says.
    pub session_required: bool,
    /// Its user is disabled.
    pub user_disabled: bool,
    /// When its key came into use, seconds since 1970.
    pub key_since: u64,
    /// The key that takes over once it has completed a handshake.
    pub next_key: Option<PublicKey>,
}

/// What is needed to enrol a device. Proved: names are clean, groups and labels sorted.
#[derive(Clone, Debug)]
pub struct Enrolment {
    pub(super) name: String,
    pub(super) user: Option<String>,
    pub(super) groups: Vec<String>,
    pub(super) labels: Vec<String>,
    pub(super) key: PublicKey,
    pub(super) preshared_key: Option<PresharedKey>,
}

/// Where a device was seen, to be remembered over a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sighting {
    /// Which device.
    pub key: PublicKey,
    /// Where.
    pub endpoint: Option<SocketAddr>,
    /// Seconds since 1970.
    pub handshake: Option<u64>,
}

/// How a device begins, besides what [`Enrolment`] says.
#[derive(Clone, Debug, Default)]
pub(super) struct Beginning {
    pub(super) invitation: Option<String>,
    pub(super) approved: bool,
    pub(super) needs_login: bool,
}

impl Store {
    /// Enrols a device under the lowest host number that nobody ever had; when all were used, the
    /// lowest that is free. It is approved, and needs no login.
    ///
    /// # Errors
    /// Name or key are taken (for ever: also by revoked devices), or the pool is full.
    pub async fn add_device(&self, new: Enrolment, now: u64) -> Result<Device, StoreError> {
        let mut tx = self.begin().await?;
        self.free_key(&mut tx, &new.key).await?;
        if let Some(gone) = self.name_taken(&mut tx, &new.name).await? {
            return Err(name_taken(&new.name, gone));
        }
        let approved = Beginning {
            approved: true,
            ..Beginning::default()
        };
        self.insert_device(&mut tx, &new, &approved, now).await?;
        self.commit(tx).await?;
        self.device(&new.name).await
    }

    /// Takes back an enrolment that nobody has been told of.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forget_new_device(&self, name: &str) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM devices WHERE name = $1 AND last_handshake IS NULL")
            .bind(name)
            .execute(&self.db)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    /// Every device, revoked ones included, by name.
    ///
    /// # Errors
    /// The database failed.
    pub async fn devices(&self) -> Result<Vec<Device>, StoreError> {
        let rows = sqlx::query("SELECT * FROM devices_now ORDER BY name")
            .fetch_all(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.read(row)).collect()
    }

    /// The devices of a user that may connect, by name.
    ///
    /// # Errors
    /// The database failed.
    pub async fn devices_of(&self, user: &str) -> Result<Vec<Device>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM devices_now
             WHERE user = $1 COLLATE NOCASE AND revoked IS NULL ORDER BY name",
        )
        .bind(user)
        .fetch_all(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.read(row)).collect()
    }

    /// How many devices may connect.
    ///
    /// # Errors
    /// The database failed.
    pub async fn count_active(&self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT count(*) AS n FROM devices WHERE revoked IS NULL")
            .fetch_one(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        let count: i64 = row.try_get("n").map_err(|e| self.failed(e))?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// One device, revoked or not.
    ///
    /// # Errors
    /// There is none of that name, or the database failed.
    pub async fn device(&self, name: &str) -> Result<Device, StoreError> {
        let row = sqlx::query("SELECT * FROM devices_now WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        match row {
            Some(row) => self.read(&row),
            None => Err(no_device(name)),
        }
    }

    /// The device that has this key, or will have it, and may connect.
    ///
    /// # Errors
    /// The database failed.
    pub async fn device_by_key(&self, key: &PublicKey) -> Result<Option<Device>, StoreError> {
        let row = sqlx::query(
            "SELECT * FROM devices_now
             WHERE (public_key = $1 OR next_key = $1) AND revoked IS NULL",
        )
        .bind(key.to_string())
        .fetch_optional(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        row.as_ref().map(|row| self.read(row)).transpose()
    }

    /// Revokes a device for ever: its session ends, a key that was to come never does. Doing it
    /// twice keeps the first time.
    ///
    /// # Errors
    /// There is none of that name, or the database failed.
    pub async fn revoke_device(&self, name: &str, now: u64) -> Result<Device, StoreError> {
        let mut tx = self.begin().await?;
        let steps = [
            "INSERT OR IGNORE INTO old_keys (public_key, device, since, until)
             SELECT next_key, name, next_since, $2 FROM devices
             WHERE name = $1 AND next_key IS NOT NULL",
            "UPDATE devices
             SET revoked = coalesce(revoked, $2), next_key = NULL, next_preshared_key = NULL,
                 next_since = NULL
             WHERE name = $1",
            "UPDATE sessions SET ended = $2, end_reason = 'revoked'
             WHERE device = $1 AND ended IS NULL",
        ];
        for step in steps {
            sqlx::query(step)
                .bind(name)
                .bind(rows::signed(now))
                .execute(&mut *tx)
                .await
                .map_err(|e| self.failed(e))?;
        }
        self.commit(tx).await?;
        self.device(name).await
    }

    /// Approves a device, also one that was denied. Doing it twice keeps the first time.
    ///
    /// # Errors
    /// There is none of that name that may connect, or the database failed.
    pub async fn approve_device(&self, name: &str, now: u64) -> Result<Device, StoreError> {
        let sql = "UPDATE devices SET approved = coalesce(approved, $2), denied = NULL
                   WHERE name = $1 AND revoked IS NULL";
        self.change_device(sql, name, now).await
    }

    /// Denies a device, also one that was approved. Doing it twice keeps the first time.
    ///
    /// # Errors
    /// There is none of that name that may connect, or the database failed.
    pub async fn deny_device(&self, name: &str, now: u64) -> Result<Device, StoreError> {
        let sql = "UPDATE devices SET denied = coalesce(denied, $2), approved = NULL
                   WHERE name = $1 AND revoked IS NULL";
        self.change_device(sql, name, now).await
    }

    async fn change_device(
        &self,
        sql: &'static str,
        name: &str,
        now: u64,
    ) -> Result<Device, StoreError> {
        let changed = sqlx::query(sql)
            .bind(name)
            .bind(rows::signed(now))
            .execute(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        let device = self.device(name).await?;
        if changed.rows_affected() == 0 {
            return Err(refused(
                format!("'{name}' is revoked"),
                "a revoked device never comes back; invite it again".into(),
            ));
        }
        Ok(device)
    }

    /// Remembers where devices were seen, all in one transaction.
    ///
    /// # Errors
    /// The database failed; nothing was stored.
    pub async fn remember(&self, sightings: &[Sighting]) -> Result<(), StoreError> {
        if sightings.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        for seen in sightings {
            sqlx::query(
                "UPDATE devices SET last_endpoint = coalesce($2, last_endpoint),
                                    last_handshake = coalesce($3, last_handshake)
                 WHERE public_key = $1",
            )
            .bind(seen.key.to_string())
            .bind(seen.endpoint.map(|endpoint| endpoint.to_string()))
            .bind(seen.handshake.map(rows::signed))
            .execute(&mut *tx)
            .await
            .map_err(|e| self.failed(e))?;
        }
        self.commit(tx).await
    }

    /// Whether a key was never anybody's.
    pub(super) async fn free_key(
        &self,
        tx: &mut SqliteConnection,
        key: &PublicKey,
    ) -> Result<(), StoreError> {
        let row = sqlx::query(
            "SELECT name, CASE WHEN revoked IS NULL THEN 'device' ELSE 'gone' END AS whose
             FROM devices WHERE public_key = $1 OR next_key = $1
             UNION ALL SELECT device, 'old' FROM old_keys WHERE public_key = $1
             UNION ALL SELECT invitation, 'guest' FROM invitation_keys WHERE public_key = $1
             LIMIT 1",
        )
        .bind(key.to_string())
        .fetch_optional(tx)
        .await
        .map_err(|e| self.failed(e))?;
        let Some(row) = row else { return Ok(()) };
        let name: String = self.column(&row, "name")?;
        let whose: String = self.column(&row, "whose")?;
        Err(key_taken(&name, &whose))
    }

    /// Whether a device has or had this name, and if so whether it was revoked.
    pub(super) async fn name_taken(
        &self,
        tx: &mut SqliteConnection,
        name: &str,
    ) -> Result<Option<bool>, StoreError> {
        let row = sqlx::query("SELECT revoked IS NOT NULL AS gone FROM devices WHERE name = $1")
            .bind(name)
            .fetch_optional(tx)
            .await
            .map_err(|e| self.failed(e))?;
        row.map(|row| self.column(&row, "gone")).transpose()
    }

    pub(super) async fn insert_device(
        &self,
        tx: &mut SqliteConnection,
        new: &Enrolment,
        begins: &Beginning,
        now: u64,
    ) -> Result<(), StoreError> {
        let host = self.free_host(tx).await?;
        let groups = list_text(&new.groups)?;
        if let Some(user) = &new.user {
            self.know_user(tx, user, now).await?;
        }
        sqlx::query(
            "INSERT INTO devices (name, user, groups, public_key, preshared_key, host, created,
                                  key_since, invitation, approved, needs_login, session_required,
                                  labels)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $7, $8, $9, $10, $10, $11)",
        )
        .bind(&new.name)
        .bind(&new.user)
        .bind(groups)
        .bind(new.key.to_string())
        .bind(new.preshared_key.as_ref().map(rows::preshared_text))
        .bind(i64::from(host))
        .bind(rows::signed(now))
        .bind(&begins.invitation)
        .bind(begins.approved.then(|| rows::signed(now)))
        .bind(begins.needs_login)
        .bind(list_text(&new.labels)?)
        .execute(tx)
        .await
        .map(|_| ())
        .map_err(|e| self.failed(e))
    }

    /// The lowest number above every number ever given out, or the lowest free one.
    async fn free_host(&self, tx: &mut sqlx::SqliteConnection) -> Result<u32, StoreError> {
        let row = sqlx::query("SELECT coalesce(max(host), 0) AS top FROM devices")
            .fetch_one(&mut *tx)
            .await
            .map_err(|e| self.failed(e))?;
        let top: i64 = row.try_get("top").map_err(|e| self.failed(e))?;
        let next = u32::try_from(top)
            .unwrap_or(u32::MAX)
            .saturating_add(1)
            .max(FIRST_DEVICE);
        if next <= self.pool.last_device() {
            return Ok(next);
        }
        let rows = sqlx::query("SELECT host FROM devices WHERE revoked IS NULL ORDER BY host")
            .fetch_all(&mut *tx)
            .await
            .map_err(|e| self.failed(e))?;
        let mut free = FIRST_DEVICE;
        for row in rows {
            let host: i64 = row.try_get("host").map_err(|e| self.failed(e))?;
            if i64::from(free) < host {
                break;
            }
            if i64::from(free) == host {
                free += 1;
            }
        }
        if self.pool.device(free).is_some() {
            return Ok(free);
        }
        Err(refused(
            format!("every address of the pool {} is in use", self.pool.v4),
            "revoke devices that are gone, or set a larger pool_v4 in gateway.yaml".into(),
        ))
    }
}

impl Enrolment {
    /// Proves the words of a request.
    ///
    /// # Errors
    /// A name that cannot be read back from a log line, or an odd group.
    pub fn new(
        name: &str,
        user: Option<&str>,
        groups: &[String],
        key: PublicKey,
        preshared_key: Option<PresharedKey>,
    ) -> Result<Enrolment, StoreError> {
        word("device name", name, 63)?;
        if let Some(user) = user {
            word("user", user, 254)?;
        }
        for group in groups {
            word("group", group, 254)?;
        }
        let user = user.map(str::to_owned);
        Ok(Enrolment {
            name: name.to_owned(),
            user,
            groups: sorted(groups),
            labels: Vec::new(),
            key,
            preshared_key,
        })
    }

    /// The same with labels.
    ///
    /// # Errors
    /// One is no `key=value`, two have the same key, or there are more than
    /// [`MAX_LABELS`](super::MAX_LABELS).
    pub fn with_labels(self, given: &[String]) -> Result<Enrolment, StoreError> {
        let labels = labels(given)?;
        Ok(Enrolment { labels, ..self })
    }
}

impl Device {
    /// Why it reaches nothing, if so.
    #[must_use]
    pub fn held(&self) -> Option<Held> {
        match self.state() {
            DeviceState::Active | DeviceState::Revoked => None,
            DeviceState::Denied | DeviceState::WaitsForApproval => Some(Held::Approval),
            DeviceState::UserDisabled => Some(Held::UserDisabled),
            DeviceState::NeedsLogin => Some(Held::Login),
        }
    }

    /// Whether it may connect, and may reach anything.
    #[must_use]
    pub fn state(&self) -> DeviceState {
        if self.revoked.is_some() {
            DeviceState::Revoked
        } else if self.denied.is_some() {
            DeviceState::Denied
        } else if self.user_disabled {
            DeviceState::UserDisabled
        } else if self.approved.is_none() {
            DeviceState::WaitsForApproval
        } else if self.needs_login {
            DeviceState::NeedsLogin
        } else {
            DeviceState::Active
        }
    }
}

pub(super) fn no_device(name: &str) -> StoreError {
    StoreError::NoDevice {
        name: name.to_owned(),
    }
}

fn key_taken(name: &str, whose: &str) -> StoreError {
    match whose {
        "gone" => refused(
            format!("this key belongs to device '{name}', which was revoked"),
            "a revoked key never comes back; make a new key pair on the device".into(),
        ),
        "old" => refused(
            format!("this key was device '{name}'s once and has been replaced"),
            "a replaced key never comes back; make a new key pair on the device".into(),
        ),
        "guest" => refused(
            format!("this is a throw-away key of invitation {name}"),
            "every device has a key pair of its own".into(),
        ),
        _ => refused(
            format!("this key is enrolled as device '{name}'"),
            "one key is one device; make a new key pair for the other one".into(),
        ),
    }
}

pub(super) fn name_taken(name: &str, gone: bool) -> StoreError {
    if gone {
        refused(
            format!("'{name}' was the name of a revoked device"),
            "records name devices for ever; choose a new name".into(),
        )
    } else {
        refused(
            format!("there is a device '{name}' already"),
            format!("choose another name, or revoke it: postern-gateway device revoke {name}"),
        )
    }
}
