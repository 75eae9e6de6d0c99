//! Policies by their hash, which of them was in force when, and the change that waits for its
//! confirmation.

use super::{Store, StoreError, refused, rows};
use postern_proto::now::Wall;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use std::fmt;

/// So many changes are remembered, however old; beyond them, those that a record may rest on.
pub const CHANGES_KEPT: i64 = 1000;

/// How a policy came into force.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// The gateway started with it.
    Start,
    /// The file was edited.
    File,
    /// `policy apply`.
    Apply,
    /// `policy rollback`.
    Rollback,
    /// Nobody confirmed the change in time.
    Revert,
}

/// A policy comes into force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewChange {
    /// 64 hex digits; kept by [`Store::keep_policy`].
    pub hash: String,
    /// When.
    pub at: Wall,
    /// How.
    pub how: How,
    /// Who did it, in the words of the audit log.
    pub made_by: String,
    /// Why it was forced.
    pub reason: Option<String>,
    /// Flows that it cut.
    pub cut: u64,
}

/// One line of the history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyChange {
    /// Counts the changes.
    pub id: i64,
    /// What happened.
    pub change: NewChange,
}

/// The change that waits for its confirmation.
#[derive(Clone, PartialEq, Eq)]
pub struct Pending {
    /// The policy that was put in force.
    pub hash: String,
    /// The one before: it comes back.
    pub previous: String,
    /// When.
    pub deadline: Wall,
    /// SHA-256 of what confirms it, in hex.
    pub token: String,
    /// Who began it.
    pub made_by: String,
}

impl fmt::Debug for Pending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending")
            .field("hash", &self.hash)
            .field("previous", &self.previous)
            .field("deadline", &self.deadline)
            .field("made_by", &self.made_by)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Keeps the text of a policy, once.
    ///
    /// # Errors
    /// The database failed.
    pub async fn keep_policy(&self, source: &str, hash: &str, now: Wall) -> Result<(), StoreError> {
        sqlx::query("INSERT OR IGNORE INTO policies (hash, source, kept) VALUES ($1, $2, $3)")
            .bind(hash)
            .bind(source)
            .bind(rows::signed(now.seconds()))
            .execute(&self.db)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    /// Whole hash and text of the policy whose hash begins so.
    ///
    /// # Errors
    /// More than one begins so, or the database failed.
    pub async fn policy_source(
        &self,
        hash_or_prefix: &str,
    ) -> Result<Option<(String, String)>, StoreError> {
        if hash_or_prefix.is_empty() || !hash_or_prefix.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let found = sqlx::query("SELECT hash, source FROM policies WHERE hash GLOB $1 LIMIT 2")
            .bind(format!("{}*", hash_or_prefix.to_ascii_lowercase()))
            .fetch_all(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        match found.as_slice() {
            [] => Ok(None),
            [one] => Ok(Some((
                self.column(one, "hash")?,
                self.column(one, "source")?,
            ))),
            _ => Err(refused(
                format!("more than one policy begins with {hash_or_prefix}"),
                "write more digits of its hash".into(),
            )),
        }
    }

    /// Writes that a policy is in force.
    ///
    /// # Errors
    /// It is not kept, or the database failed.
    pub async fn log_policy_change(&self, change: &NewChange) -> Result<i64, StoreError> {
        let row = sqlx::query(
            "INSERT INTO policy_changes (hash, at, how, made_by, reason, cut)
             VALUES ($1, $2, $3, $4, $5, $6) RETURNING id",
        )
        .bind(&change.hash)
        .bind(rows::signed(change.at.0))
        .bind(change.how.as_str())
        .bind(&change.made_by)
        .bind(&change.reason)
        .bind(rows::signed(change.cut))
        .fetch_one(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        self.column(&row, "id")
    }

    /// Every change that is remembered, the newest first.
    ///
    /// # Errors
    /// The database failed.
    pub async fn policy_changes(&self) -> Result<Vec<PolicyChange>, StoreError> {
        let found = sqlx::query("SELECT * FROM policy_changes ORDER BY id DESC")
            .fetch_all(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        found.iter().map(|row| self.read_change(row)).collect()
    }

    /// The hash of the policy that was in force at a moment.
    ///
    /// # Errors
    /// The database failed.
    pub async fn policy_at(&self, at: Wall) -> Result<Option<String>, StoreError> {
        let found = sqlx::query(
            "SELECT hash FROM policy_changes WHERE at <= $1 ORDER BY at DESC, id DESC LIMIT 1",
        )
        .bind(rows::signed(at.0))
        .fetch_optional(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        found.map(|row| self.column(&row, "hash")).transpose()
    }

    /// Keeps the new policy and writes that it waits for its confirmation, both or neither.
    ///
    /// # Errors
    /// One waits already, or the database failed.
    pub async fn begin_pending(
        &self,
        pending: &Pending,
        source: &str,
        now: Wall,
    ) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        sqlx::query("INSERT OR IGNORE INTO policies (hash, source, kept) VALUES ($1, $2, $3)")
            .bind(&pending.hash)
            .bind(source)
            .bind(rows::signed(now.seconds()))
            .execute(&mut *tx)
            .await
            .map_err(|e| self.failed(e))?;
        sqlx::query(
            "INSERT INTO policy_pending (one, hash, previous, deadline, token, made_by)
             VALUES (1, $1, $2, $3, $4, $5)",
        )
        .bind(&pending.hash)
        .bind(&pending.previous)
        .bind(rows::signed(pending.deadline.0))
        .bind(&pending.token)
        .bind(&pending.made_by)
        .execute(&mut *tx)
        .await
        .map_err(|e| self.failed(e))?;
        self.commit(tx).await
    }

    /// The change that waits.
    ///
    /// # Errors
    /// The database failed.
    pub async fn pending(&self) -> Result<Option<Pending>, StoreError> {
        let found = sqlx::query("SELECT * FROM policy_pending")
            .fetch_optional(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        found.map(|row| self.read_pending(&row)).transpose()
    }

    /// The change that waits is over at `now`, whatever happens next: a gateway that starts takes
    /// it back.
    ///
    /// # Errors
    /// The database failed.
    pub async fn expire_pending(&self, now: Wall) -> Result<(), StoreError> {
        sqlx::query("UPDATE policy_pending SET deadline = min(deadline, $1)")
            .bind(rows::signed(now.0))
            .execute(&self.db)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    /// Nothing waits any more.
    ///
    /// # Errors
    /// The database failed.
    pub async fn end_pending(&self) -> Result<(), StoreError> {
        sqlx::query("DELETE FROM policy_pending")
            .execute(&self.db)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    /// Forgets what no record rests on that began at `before` or later: facts and meanings of
    /// names that had ended by then, and policies that were out of force, but for the last
    /// [`CHANGES_KEPT`] changes.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forget_past(&self, before: Wall) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        let (nanos, seconds) = (rows::signed(before.0), rows::signed(before.seconds()));
        let steps = [
            sqlx::query("DELETE FROM facts WHERE until < $1").bind(nanos),
            sqlx::query("DELETE FROM names WHERE until < $1").bind(nanos),
            sqlx::query(
                "DELETE FROM policy_changes
                 WHERE id < (SELECT max(id) FROM policy_changes WHERE at <= $1)
                   AND id <= (SELECT max(id) FROM policy_changes) - $2",
            )
            .bind(nanos)
            .bind(CHANGES_KEPT),
            sqlx::query(
                "DELETE FROM policies
                 WHERE kept < $1
                   AND hash NOT IN (SELECT hash FROM policy_changes)
                   AND hash NOT IN (SELECT hash FROM policy_pending)
                   AND hash NOT IN (SELECT previous FROM policy_pending)",
            )
            .bind(seconds),
        ];
        for step in steps {
            step.execute(&mut *tx).await.map_err(|e| self.failed(e))?;
        }
        self.commit(tx).await
    }

    fn read_change(&self, row: &SqliteRow) -> Result<PolicyChange, StoreError> {
        let how: String = self.column(row, "how")?;
        Ok(PolicyChange {
            id: self.column(row, "id")?,
            change: NewChange {
                hash: self.column(row, "hash")?,
                at: Wall(self.time(row, "at")?.unwrap_or(0)),
                how: How::of(&how).ok_or_else(|| self.damaged("policy_changes.how", &how))?,
                made_by: self.column(row, "made_by")?,
                reason: self.column(row, "reason")?,
                cut: self.time(row, "cut")?.unwrap_or(0),
            },
        })
    }

    fn read_pending(&self, row: &SqliteRow) -> Result<Pending, StoreError> {
        Ok(Pending {
            hash: self.column(row, "hash")?,
            previous: self.column(row, "previous")?,
            deadline: Wall(self.time(row, "deadline")?.unwrap_or(0)),
            token: self.column(row, "token")?,
            made_by: self.column(row, "made_by")?,
        })
    }
}

impl How {
    const ALL: [How; 5] = [
        How::Start,
        How::File,
        How::Apply,
        How::Rollback,
        How::Revert,
    ];

    /// As the store and the listings have it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            How::Start => "start",
            How::File => "file",
            How::Apply => "apply",
            How::Rollback => "rollback",
            How::Revert => "revert",
        }
    }

    fn of(text: &str) -> Option<How> {
        How::ALL.into_iter().find(|how| how.as_str() == text)
    }
}
