//! What must survive, in SQLite: devices and how they stand and stood, invitations, users,
//! sessions, policies, and the gateway's own facts. A change is on disk before its function returns (WAL with
//! synchronous=FULL).

mod devices;
mod facts;
mod grants;
mod invitations;
mod join;
mod known;
mod labels;
mod names;
mod past;
mod policies;
mod rotation;
mod rows;
mod sessions;
mod standing;
mod users;

pub use devices::{Device, Enrolment, Sighting};
pub use facts::{MAX_ATTRIBUTES, StoredAttribute};
pub use grants::{AddGrantError, NewGrant, StoredGrant, Unchanged};
pub use invitations::{Guest, Invitation, InvitationState, Kind, NewInvitation, Require};
pub use join::{Join, JoinError, Joined, Kem};
pub use labels::MAX_LABELS;
pub use names::{MAX_ANSWERS, StoredName};
pub use past::{FactsRow, MAX_FACTS_ROWS, Noted};
pub use policies::{CHANGES_KEPT, How, NewChange, Pending, PolicyChange};
pub use sessions::{NewSession, Session};
pub use standing::Terms;
pub use users::User;

use crate::key_file;
use crate::pool::Pool;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Row, SqlSafeStr, Sqlite, Transaction};
use std::fmt;
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
    /// No such invitation, user, session or attribute.
    #[error("there is no {what} '{name}'")]
    Absent {
        /// What kind of thing.
        what: &'static str,
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

    /// Opens the database to read from it, beside a gateway that runs or where none does. No
    /// database is made, and its schema stays as it is.
    ///
    /// # Errors
    /// There is none, or it cannot be opened.
    pub async fn open_to_read(path: &Path, pool: Pool) -> Result<Store, StoreError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .read_only(true)
            .busy_timeout(BUSY_TIMEOUT);
        let db = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .map_err(|source| StoreError::Database {
                path: path.to_owned(),
                source,
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

    /// A transaction that writes: it has the database for itself from its beginning.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>, StoreError> {
        let begun = self.db.begin_with("BEGIN IMMEDIATE").await;
        begun.map_err(|e| self.failed(e))
    }

    async fn commit(&self, tx: Transaction<'static, Sqlite>) -> Result<(), StoreError> {
        tx.commit().await.map_err(|e| self.failed(e))
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

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Store({})", self.path.display())
    }
}

fn migrations() -> Migrator {
    let one = |version, name: &'static str, text: &'static str| {
        let kind = MigrationType::Simple;
        Migration::new(version, name.into(), kind, text.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![
        one(1, "devices", include_str!("../migrations/0001_devices.sql")),
        one(
            2,
            "identity",
            include_str!("../migrations/0002_identity.sql"),
        ),
        one(
            3,
            "policy life",
            include_str!("../migrations/0003_policy_life.sql"),
        ),
        one(
            4,
            "facts in time",
            include_str!("../migrations/0004_facts_in_time.sql"),
        ),
    ])
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

fn list_text(list: &[String]) -> Result<String, StoreError> {
    serde_json::to_string(list).map_err(|_| {
        let help = "use plain names".into();
        refused("the list cannot be stored".into(), help)
    })
}

/// Sorted, each once.
fn sorted(list: &[String]) -> Vec<String> {
    let mut list = list.to_vec();
    list.sort();
    list.dedup();
    list
}

/// A random name of `N` characters that are not taken for each other; 5 bits each.
fn random_name<const N: usize>() -> Result<String, StoreError> {
    const LETTERS: &[u8; 32] = b"23456789abcdefghijkmnpqrstuvwxyz";
    let random: [u8; N] = key_file::random().map_err(|error| {
        let help = "try again".into();
        refused(format!("the kernel gives no random numbers: {error}"), help)
    })?;
    let letters = random.map(|byte| LETTERS[usize::from(byte & 31)]);
    Ok(letters.iter().map(|&letter| char::from(letter)).collect())
}

fn refused(problem: String, help: String) -> StoreError {
    StoreError::Refused { problem, help }
}

#[cfg(test)]
mod tests;
