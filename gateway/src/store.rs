//! What must survive: devices and the gateway's own facts, in SQLite. A change is on disk before
//! its function returns (WAL with synchronous=FULL).

mod rows;

use crate::api::DeviceState;
use crate::pool::{FIRST_DEVICE, Pool};
use crate::worker_api::DeviceRecord;
use postern_proto::keys::{PresharedKey, PublicKey};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Row, SqlSafeStr};
use std::fmt;
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The store. Cheap to clone. One connection: one writer, and reads are few and short.
#[derive(Clone)]
pub struct Store {
    db: SqlitePool,
    path: PathBuf,
    pool: Pool,
}

/// A device with its history.
#[derive(Clone, Debug)]
pub struct Device {
    /// What the worker needs.
    pub record: DeviceRecord,
    /// Seconds since 1970; none while it is active.
    pub revoked: Option<u64>,
    /// Seconds since 1970.
    pub last_handshake: Option<u64>,
}

/// What is needed to enrol a device. Proved: names are clean, groups sorted.
#[derive(Clone, Debug)]
pub struct Enrolment {
    name: String,
    user: Option<String>,
    groups: Vec<String>,
    key: PublicKey,
    preshared_key: Option<PresharedKey>,
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

/// Why the store did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The words of a request that cannot be.
    #[error("{problem}")]
    Refused {
        /// What is wrong.
        problem: String,
        /// What to do instead.
        help: String,
    },
    /// No such device.
    #[error("there is no device '{name}'")]
    NoDevice {
        /// The name that was asked for.
        name: String,
    },
    /// The database is of a newer program, or is damaged.
    #[error("{}: {reason}", path.display())]
    Schema {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// SQLite's own words.
    #[error("{}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: sqlx::Error,
    },
}

impl Store {
    /// Opens the database, makes it (0600) if there is none, and brings its schema up to date.
    ///
    /// # Errors
    /// The file cannot be opened, or its schema is newer than this program.
    pub async fn open(path: &Path, pool: Pool) -> Result<Store, StoreError> {
        let unreadable = |reason: String| StoreError::Schema {
            path: path.to_owned(),
            reason,
        };
        // SQLite gives its side files the mode of the database, so one create is enough.
        std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
            .map_err(|error| unreadable(format!("cannot be opened: {error}")))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true);
        let failed = |source| StoreError::Database {
            path: path.to_owned(),
            source,
        };
        let db = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .map_err(failed)?;
        migrations().run(&db).await.map_err(|error| {
            unreadable(format!(
                "the schema does not fit this program ({error}); use the version of \
                 postern-gateway that wrote it, or a newer one"
            ))
        })?;
        Ok(Store {
            db,
            path: path.to_owned(),
            pool,
        })
    }

    /// Closes the database; what is in the write-ahead log is folded in.
    pub async fn close(self) {
        self.db.close().await;
    }

    /// Counts this start and returns its number, from 1. Part of every record.
    ///
    /// # Errors
    /// The database failed.
    pub async fn next_boot(&self) -> Result<u64, StoreError> {
        let row = sqlx::query(
            "INSERT INTO gateway (name, value) VALUES ('boot', '1')
             ON CONFLICT (name) DO UPDATE SET value = CAST(value AS INTEGER) + 1
             RETURNING value",
        )
        .fetch_one(&self.db)
        .await
        .map_err(|source| self.failed(source))?;
        let text: String = row.try_get("value").map_err(|source| self.failed(source))?;
        text.parse()
            .map_err(|_| self.damaged("gateway.boot", &text))
    }

    /// Enrols a device under the lowest host number that nobody ever had; when all were used, the
    /// lowest that is free.
    ///
    /// # Errors
    /// Name or key are taken (for ever: also by revoked devices), or the pool is full.
    pub async fn add_device(&self, new: Enrolment, now: u64) -> Result<Device, StoreError> {
        let mut tx = self
            .db
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(|e| self.failed(e))?;
        let taken = sqlx::query(
            "SELECT name, public_key = $2 AS same_key, revoked IS NOT NULL AS gone
             FROM devices WHERE name = $1 OR public_key = $2 ORDER BY same_key DESC LIMIT 1",
        )
        .bind(&new.name)
        .bind(new.key.to_string())
        .fetch_optional(&mut *tx)
        .await
        .map_err(|e| self.failed(e))?;
        if let Some(row) = taken {
            let get = |e| self.failed(e);
            let name: String = row.try_get("name").map_err(get)?;
            let same_key: bool = row.try_get("same_key").map_err(get)?;
            let gone: bool = row.try_get("gone").map_err(get)?;
            return Err(already(&name, same_key, gone));
        }
        let host = self.free_host(&mut tx).await?;
        let groups = serde_json::to_string(&new.groups).map_err(|_| {
            refused(
                "the groups cannot be stored".into(),
                "use plain names".into(),
            )
        })?;
        sqlx::query(
            "INSERT INTO devices (name, user, groups, public_key, preshared_key, host, created)
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(&new.name)
        .bind(&new.user)
        .bind(groups)
        .bind(new.key.to_string())
        .bind(new.preshared_key.as_ref().map(rows::preshared_text))
        .bind(i64::from(host))
        .bind(rows::signed(now))
        .execute(&mut *tx)
        .await
        .map_err(|e| self.failed(e))?;
        tx.commit().await.map_err(|e| self.failed(e))?;
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
        let rows = sqlx::query("SELECT * FROM devices ORDER BY name")
            .fetch_all(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.read(row)).collect()
    }

    /// The devices that may connect, by name.
    ///
    /// # Errors
    /// The database failed.
    pub async fn active_devices(&self) -> Result<Vec<DeviceRecord>, StoreError> {
        let all = self.devices().await?;
        Ok(all
            .into_iter()
            .filter(|d| d.revoked.is_none())
            .map(|d| d.record)
            .collect())
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
        let row = sqlx::query("SELECT * FROM devices WHERE name = $1")
            .bind(name)
            .fetch_optional(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        match row {
            Some(row) => self.read(&row),
            None => Err(StoreError::NoDevice {
                name: name.to_owned(),
            }),
        }
    }

    /// Revokes a device for ever. Doing it twice keeps the first time.
    ///
    /// # Errors
    /// There is none of that name, or the database failed.
    pub async fn revoke_device(&self, name: &str, now: u64) -> Result<Device, StoreError> {
        sqlx::query("UPDATE devices SET revoked = $2 WHERE name = $1 AND revoked IS NULL")
            .bind(name)
            .bind(rows::signed(now))
            .execute(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        self.device(name).await
    }

    /// Remembers where devices were seen, all in one transaction.
    ///
    /// # Errors
    /// The database failed; nothing was stored.
    pub async fn remember(&self, sightings: &[Sighting]) -> Result<(), StoreError> {
        if sightings.is_empty() {
            return Ok(());
        }
        let mut tx = self
            .db
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(|e| self.failed(e))?;
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
        tx.commit().await.map_err(|e| self.failed(e))
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

    fn failed(&self, source: sqlx::Error) -> StoreError {
        StoreError::Database {
            path: self.path.clone(),
            source,
        }
    }

    fn damaged(&self, field: &str, value: &str) -> StoreError {
        let reason = format!("{field} holds {value:?}, which this program never writes");
        StoreError::Schema {
            path: self.path.clone(),
            reason,
        }
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
        let mut groups = groups.to_vec();
        groups.sort();
        groups.dedup();
        let user = user.map(str::to_owned);
        Ok(Enrolment {
            name: name.to_owned(),
            user,
            groups,
            key,
            preshared_key,
        })
    }
}

impl Device {
    /// Whether it may connect.
    #[must_use]
    pub fn state(&self) -> DeviceState {
        if self.revoked.is_some() {
            DeviceState::Revoked
        } else {
            DeviceState::Active
        }
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.path.display())
    }
}

fn migrations() -> Migrator {
    let devices = include_str!("../migrations/0001_devices.sql").into_sql_str();
    Migrator::with_migrations(vec![Migration::new(
        1,
        "devices".into(),
        MigrationType::Simple,
        devices,
        false,
    )])
}

fn word(what: &str, text: &str, most: usize) -> Result<(), StoreError> {
    let clean = !text.is_empty()
        && text.len() <= most
        && text.chars().all(|c| !c.is_whitespace() && !c.is_control());
    let plain = what != "device name"
        || text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-@".contains(&b));
    if clean && plain {
        return Ok(());
    }
    let help = if what == "device name" {
        format!("write 1 to {most} of A-Z a-z 0-9 . _ - @, such as ana-laptop")
    } else {
        format!("write 1 to {most} bytes without white space")
    };
    Err(refused(
        format!("'{}' is no {what}", text.escape_debug()),
        help,
    ))
}

fn already(name: &str, same_key: bool, gone: bool) -> StoreError {
    match (same_key, gone) {
        (true, true) => refused(
            format!("this key belongs to device '{name}', which was revoked"),
            "a revoked key never comes back; make a new key pair on the device".into(),
        ),
        (true, false) => refused(
            format!("this key is enrolled as device '{name}'"),
            "one key is one device; make a new key pair for the other one".into(),
        ),
        (false, true) => refused(
            format!("'{name}' was the name of a revoked device"),
            "records name devices for ever; choose a new name".into(),
        ),
        (false, false) => refused(
            format!("there is a device '{name}' already"),
            format!("choose another name, or revoke it: postern-gateway device revoke {name}"),
        ),
    }
}

fn refused(problem: String, help: String) -> StoreError {
    StoreError::Refused { problem, help }
}

#[cfg(test)]
mod tests;
