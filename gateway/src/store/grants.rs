//! Grants: access for a while, from the request to its end.

use super::{Store, StoreError, rows};
use postern_proto::device_api::GrantState;
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

/// Requests that wait and grants that live, of one device.
pub(super) const MAX_OPEN_OF_DEVICE: i64 = 8;

/// Requests that wait, of all devices.
pub(super) const MAX_WAITING: i64 = 1000;

/// Seconds after which a request that nobody decided is over.
pub(super) const DECIDE_WITHIN: u64 = 24 * 3600;

/// How many of one device are remembered after their end.
const PAST_GRANTS: i64 = 64;

/// A request to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewGrant {
    /// Random, from who asks: the same request again is no other.
    pub id: String,
    /// For which device.
    pub device: String,
    /// Whose it is; none for a machine.
    pub user: Option<String>,
    /// The entry of the policy's `grants:` that lets them ask.
    pub entry: String,
    /// The name of a target, or `192.0.2.10:22/tcp`.
    pub target: String,
    /// How long.
    pub seconds: u64,
    /// Why.
    pub reason: String,
    /// It lives at once: nobody approves it.
    pub break_glass: bool,
}

/// A request, and what became of it. Times are seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredGrant {
    /// What was asked.
    pub new: NewGrant,
    /// When.
    pub asked: u64,
    /// When it was decided, by whom or by time.
    pub decided: Option<u64>,
    /// By whom; none: by time, or break-glass.
    pub decided_by: Option<String>,
    /// How.
    pub approved: Option<bool>,
    /// What was said to it.
    pub word: Option<String>,
    /// From when it lived.
    pub since: Option<u64>,
    /// Until when.
    pub until: Option<u64>,
    /// When it was over, taken back or withdrawn.
    pub ended: Option<u64>,
    /// By whom; none: by time, or with the denial.
    pub ended_by: Option<String>,
}

/// What was not done, because the grant is not in the state for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unchanged;

impl StoredGrant {
    /// How it stands at `now`.
    #[must_use]
    pub fn state(&self, now: u64) -> GrantState {
        match (self.approved, self.ended) {
            (None, Some(_)) => GrantState::Withdrawn,
            (None, None) if now < self.decide_by() => GrantState::Waits,
            (None, None) => GrantState::Expired,
            (Some(false), _) if self.decided_by.is_some() => GrantState::Denied,
            (Some(false), _) => GrantState::Expired,
            (Some(true), Some(ended)) if self.until.is_some_and(|until| ended < until) => {
                GrantState::Revoked
            }
            (Some(true), None) if self.until.is_some_and(|until| now < until) => GrantState::Live,
            (Some(true), _) => GrantState::Over,
        }
    }

    /// When the request is over if nobody decides.
    #[must_use]
    pub fn decide_by(&self) -> u64 {
        self.asked.saturating_add(DECIDE_WITHIN)
    }
}

impl Store {
    /// Remembers a request; break-glass lives from now on. The same request again is the one that
    /// there is: true where it is new.
    ///
    /// # Errors
    /// The id is another request's, the device has `MAX_OPEN_OF_DEVICE`, `MAX_WAITING` wait,
    /// or the database failed.
    pub async fn add_grant(
        &self,
        new: &NewGrant,
        now: u64,
    ) -> Result<(StoredGrant, bool), AddGrantError> {
        let mut tx = self.begin().await?;
        if let Some(known) = self.find_grant(&mut tx, &new.id).await? {
            // Another policy may answer the same words with another entry.
            let same = NewGrant {
                entry: new.entry.clone(),
                ..known.new.clone()
            };
            return match same == *new {
                true => Ok((known, false)),
                false => Err(AddGrantError::Taken),
            };
        }
        let row = sqlx::query(
            "SELECT count(*) FILTER (WHERE device = $1) AS of_device,
                    count(*) - count(approved) AS waiting
             FROM grants WHERE ended IS NULL AND (approved = 1 OR asked > $2)",
        )
        .bind(&new.device)
        .bind(rows::signed(now.saturating_sub(DECIDE_WITHIN)))
        .fetch_one(&mut *tx)
        .await
        .map_err(|e| self.failed(e))?;
        if self.column::<i64>(&row, "of_device")? >= MAX_OPEN_OF_DEVICE {
            return Err(AddGrantError::TooManyOfDevice);
        }
        // Who is in an emergency does not wait in that queue.
        if !new.break_glass && self.column::<i64>(&row, "waiting")? >= MAX_WAITING {
            return Err(AddGrantError::TooMany);
        }
        sqlx::query(
            "DELETE FROM grants WHERE device = $1 AND ended IS NOT NULL AND id NOT IN
             (SELECT id FROM grants WHERE device = $1 AND ended IS NOT NULL
              ORDER BY asked DESC, rowid DESC LIMIT $2)",
        )
        .bind(&new.device)
        .bind(PAST_GRANTS)
        .execute(&mut *tx)
        .await
        .map_err(|e| self.failed(e))?;
        sqlx::query(
            "INSERT INTO grants (id, device, user, entry, target, seconds, reason, break_glass,
                                 asked, decided, approved, since, until)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        )
        .bind(&new.id)
        .bind(&new.device)
        .bind(&new.user)
        .bind(&new.entry)
        .bind(&new.target)
        .bind(rows::signed(new.seconds))
        .bind(&new.reason)
        .bind(new.break_glass)
        .bind(rows::signed(now))
        .bind(new.break_glass.then(|| rows::signed(now)))
        .bind(new.break_glass.then_some(true))
        .bind(new.break_glass.then(|| rows::signed(now)))
        .bind(
            new.break_glass
                .then(|| rows::signed(now.saturating_add(new.seconds))),
        )
        .execute(&mut *tx)
        .await
        .map_err(|e| self.failed(e))?;
        self.commit(tx).await?;
        Ok((self.grant(&new.id).await?, true))
    }

    /// One, whatever became of it.
    ///
    /// # Errors
    /// There is none of that id, or the database failed.
    pub async fn grant(&self, id: &str) -> Result<StoredGrant, StoreError> {
        let row = sqlx::query("SELECT * FROM grants WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        let row = row.ok_or_else(|| StoreError::Absent {
            what: "grant",
            name: id.to_owned(),
        })?;
        self.read_grant(&row)
    }

    /// Those that wait or live, oldest first; with `all` past ones too.
    ///
    /// # Errors
    /// The database failed.
    pub async fn grants(&self, all: bool) -> Result<Vec<StoredGrant>, StoreError> {
        let rows =
            sqlx::query("SELECT * FROM grants WHERE $1 OR ended IS NULL ORDER BY asked, rowid")
                .bind(all)
                .fetch_all(&self.db)
                .await
                .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.read_grant(row)).collect()
    }

    /// Those of a device and of its user's other devices, newest first, `most` of them.
    ///
    /// # Errors
    /// The database failed.
    pub async fn grants_of(
        &self,
        device: &str,
        user: Option<&str>,
        most: u32,
    ) -> Result<Vec<StoredGrant>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM grants WHERE device = $1 OR user = $2
             ORDER BY ended IS NULL DESC, asked DESC, rowid DESC LIMIT $3",
        )
        .bind(device)
        .bind(user)
        .bind(most)
        .fetch_all(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.read_grant(row)).collect()
    }

    /// Approves a request: it lives from now on. `entry` is what it rests on now.
    ///
    /// # Errors
    /// There is none of that id, or the database failed. [`Unchanged`]: it does not wait.
    pub async fn approve_grant(
        &self,
        id: &str,
        by: &str,
        word: Option<&str>,
        now: u64,
    ) -> Result<Result<StoredGrant, Unchanged>, StoreError> {
        let query = sqlx::query(
            "UPDATE grants SET decided = $2, decided_by = $3, approved = 1, word = $4,
                               since = $2, until = $2 + seconds
             WHERE id = $1 AND approved IS NULL AND ended IS NULL AND asked > $5",
        )
        .bind(id)
        .bind(rows::signed(now))
        .bind(by)
        .bind(word)
        .bind(rows::signed(now.saturating_sub(DECIDE_WITHIN)));
        self.change_grant(id, query).await
    }

    /// Denies a request.
    ///
    /// # Errors
    /// As [`Store::approve_grant`].
    pub async fn deny_grant(
        &self,
        id: &str,
        by: &str,
        word: Option<&str>,
        now: u64,
    ) -> Result<Result<StoredGrant, Unchanged>, StoreError> {
        let query = sqlx::query(
            "UPDATE grants SET decided = $2, decided_by = $3, approved = 0, word = $4, ended = $2
             WHERE id = $1 AND approved IS NULL AND ended IS NULL AND asked > $5",
        )
        .bind(id)
        .bind(rows::signed(now))
        .bind(by)
        .bind(word)
        .bind(rows::signed(now.saturating_sub(DECIDE_WITHIN)));
        self.change_grant(id, query).await
    }

    /// Ends what waits or lives.
    ///
    /// # Errors
    /// There is none of that id, or the database failed. [`Unchanged`]: it had ended.
    pub async fn end_grant(
        &self,
        id: &str,
        by: &str,
        word: Option<&str>,
        now: u64,
    ) -> Result<Result<StoredGrant, Unchanged>, StoreError> {
        let query = sqlx::query(
            "UPDATE grants SET ended = $2, ended_by = $3, word = coalesce($4, word)
             WHERE id = $1 AND ended IS NULL AND (until IS NULL OR until > $2)",
        )
        .bind(id)
        .bind(rows::signed(now))
        .bind(by)
        .bind(word);
        self.change_grant(id, query).await
    }

    /// Those whose time is over, live or undecided, and that nobody has put away.
    ///
    /// # Errors
    /// The database failed.
    pub async fn grants_due(&self, now: u64) -> Result<Vec<StoredGrant>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM grants
             WHERE ended IS NULL AND (until <= $1 OR (approved IS NULL AND asked <= $2))",
        )
        .bind(rows::signed(now))
        .bind(rows::signed(now.saturating_sub(DECIDE_WITHIN)))
        .fetch_all(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.read_grant(row)).collect()
    }

    /// Puts away what time has ended.
    ///
    /// # Errors
    /// There is none of that id, or the database failed. [`Unchanged`]: somebody was faster.
    pub async fn close_grant(
        &self,
        id: &str,
    ) -> Result<Result<StoredGrant, Unchanged>, StoreError> {
        let query = sqlx::query(
            "UPDATE grants
             SET ended = coalesce(until, asked + $2), approved = coalesce(approved, 0),
                 decided = coalesce(decided, asked + $2)
             WHERE id = $1 AND ended IS NULL",
        )
        .bind(id)
        .bind(rows::signed(DECIDE_WITHIN));
        self.change_grant(id, query).await
    }

    /// How many wait, and how many live.
    ///
    /// # Errors
    /// The database failed.
    pub async fn count_grants(&self) -> Result<(u64, u64), StoreError> {
        let row = sqlx::query(
            "SELECT count(*) - count(approved) AS waiting, count(approved) AS live
             FROM grants WHERE ended IS NULL",
        )
        .fetch_one(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        let waiting = self.time(&row, "waiting")?.unwrap_or(0);
        Ok((waiting, self.time(&row, "live")?.unwrap_or(0)))
    }

    /// The audit log tells of it as it stands.
    ///
    /// # Errors
    /// The database failed.
    pub async fn told_grant(&self, id: &str) -> Result<(), StoreError> {
        sqlx::query("UPDATE grants SET told = approved WHERE id = $1")
            .bind(id)
            .execute(&self.db)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    /// Those that live, and that the audit log may not tell of.
    ///
    /// # Errors
    /// The database failed.
    pub async fn untold_grants(&self, now: u64) -> Result<Vec<StoredGrant>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM grants
             WHERE ended IS NULL AND approved = 1 AND told IS NULL AND until > $1
             ORDER BY since, rowid",
        )
        .bind(rows::signed(now))
        .fetch_all(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.read_grant(row)).collect()
    }

    /// Those that live, of one device or of all.
    pub(super) async fn live_grants(
        &self,
        device: Option<&str>,
        now: u64,
    ) -> Result<Vec<StoredGrant>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM grants
             WHERE ended IS NULL AND approved = 1 AND until > $2 AND ($1 IS NULL OR device = $1)
             ORDER BY since, rowid",
        )
        .bind(device)
        .bind(rows::signed(now))
        .fetch_all(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.read_grant(row)).collect()
    }

    async fn change_grant(
        &self,
        id: &str,
        query: sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
    ) -> Result<Result<StoredGrant, Unchanged>, StoreError> {
        let changed = query.execute(&self.db).await.map_err(|e| self.failed(e))?;
        let grant = self.grant(id).await?;
        Ok(match changed.rows_affected() {
            0 => Err(Unchanged),
            _ => Ok(grant),
        })
    }

    async fn find_grant(
        &self,
        tx: &mut SqliteConnection,
        id: &str,
    ) -> Result<Option<StoredGrant>, StoreError> {
        let row = sqlx::query("SELECT * FROM grants WHERE id = $1")
            .bind(id)
            .fetch_optional(tx)
            .await
            .map_err(|e| self.failed(e))?;
        row.map(|row| self.read_grant(&row)).transpose()
    }

    fn read_grant(&self, row: &SqliteRow) -> Result<StoredGrant, StoreError> {
        Ok(StoredGrant {
            new: NewGrant {
                id: self.column(row, "id")?,
                device: self.column(row, "device")?,
                user: self.column(row, "user")?,
                entry: self.column(row, "entry")?,
                target: self.column(row, "target")?,
                seconds: self.time(row, "seconds")?.unwrap_or(0),
                reason: self.column(row, "reason")?,
                break_glass: self.column(row, "break_glass")?,
            },
            asked: self.time(row, "asked")?.unwrap_or(0),
            decided: self.time(row, "decided")?,
            decided_by: self.column(row, "decided_by")?,
            approved: self.column(row, "approved")?,
            word: self.column(row, "word")?,
            since: self.time(row, "since")?,
            until: self.time(row, "until")?,
            ended: self.time(row, "ended")?,
            ended_by: self.column(row, "ended_by")?,
        })
    }
}

/// Why a request is not taken.
#[derive(Debug, thiserror::Error)]
pub enum AddGrantError {
    /// The id is another request's.
    #[error("another request has this id")]
    Taken,
    /// `MAX_OPEN_OF_DEVICE`.
    #[error("{MAX_OPEN_OF_DEVICE} requests and grants of this device are open already")]
    TooManyOfDevice,
    /// `MAX_WAITING`.
    #[error("{MAX_WAITING} requests wait already")]
    TooMany,
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
}
