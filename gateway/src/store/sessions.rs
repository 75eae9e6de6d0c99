//! Logins, in force and past.

use super::devices::no_device;
use super::{Store, StoreError, list_text, random_name, refused, rows, sorted};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

/// How many sessions of one device are remembered after their end.
const PAST_SESSIONS: i64 = 16;

/// A login to be.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// On which device.
    pub device: String,
    /// Of whom. A device without a user is theirs from now on.
    pub user: String,
    /// `oidc`, `email`, `invitation`.
    pub method: String,
    /// Who vouched.
    pub issuer: Option<String>,
    /// The issuer's own name for the user.
    pub subject: Option<String>,
    /// What the issuer says of the user's groups.
    pub groups: Vec<String>,
    /// RFC 8176.
    pub amr: Vec<String>,
    /// The authentication context class.
    pub acr: Option<String>,
    /// Seconds since 1970.
    pub since: u64,
    /// When it ends by age; none: never.
    pub until: Option<u64>,
}

/// A login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// Names it in records and commands.
    pub id: String,
    /// On which device.
    pub device: String,
    /// Of whom.
    pub user: String,
    /// `oidc`, `email`, `invitation`.
    pub method: String,
    /// Who vouched.
    pub issuer: Option<String>,
    /// The issuer's own name for the user.
    pub subject: Option<String>,
    /// Sorted.
    pub groups: Vec<String>,
    /// Sorted.
    pub amr: Vec<String>,
    /// The authentication context class.
    pub acr: Option<String>,
    /// Seconds since 1970.
    pub since: u64,
    /// When it ends by age; none: never.
    pub until: Option<u64>,
    /// When it did, by age or otherwise.
    pub ended: Option<u64>,
    /// Why.
    pub end_reason: Option<String>,
}

impl Store {
    /// Begins a session; the device's earlier one ends (`renewed`). The device needs no first
    /// login any more, and if it had no user it has one now, for ever.
    ///
    /// # Errors
    /// There is no such device that may connect, it is another user's, or the database failed.
    pub async fn begin_session(&self, new: &NewSession, now: u64) -> Result<Session, StoreError> {
        let mut tx = self.begin().await?;
        let id = self.insert_session(&mut tx, new, now).await?;
        self.commit(tx).await?;
        self.session(&id).await
    }

    /// Ends a session. Nothing if it has ended before.
    ///
    /// # Errors
    /// There is none of that id, or the database failed.
    pub async fn end_session(
        &self,
        id: &str,
        reason: &str,
        now: u64,
    ) -> Result<Option<Session>, StoreError> {
        let ended = sqlx::query(
            "UPDATE sessions SET ended = $2, end_reason = $3 WHERE id = $1 AND ended IS NULL",
        )
        .bind(id)
        .bind(rows::signed(now))
        .bind(reason)
        .execute(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        let session = self.session(id).await?;
        Ok((ended.rows_affected() > 0).then_some(session))
    }

    /// One session, in force or past.
    ///
    /// # Errors
    /// There is none of that id, or the database failed.
    pub async fn session(&self, id: &str) -> Result<Session, StoreError> {
        let row = sqlx::query("SELECT * FROM sessions WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        let row = row.ok_or_else(|| StoreError::Absent {
            what: "session",
            name: id.to_owned(),
        })?;
        self.read_session(&row)
    }

    /// Sessions by device and age: those in force, or past ones too.
    ///
    /// # Errors
    /// The database failed.
    pub async fn sessions(&self, all: bool) -> Result<Vec<Session>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM sessions WHERE $1 OR ended IS NULL ORDER BY device, since, rowid",
        )
        .bind(all)
        .fetch_all(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.read_session(row)).collect()
    }

    /// The session of a device that is in force, or of all devices.
    ///
    /// # Errors
    /// The database failed.
    pub async fn live_sessions(&self, device: Option<&str>) -> Result<Vec<Session>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM sessions WHERE ended IS NULL AND ($1 IS NULL OR device = $1)",
        )
        .bind(device)
        .fetch_all(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.read_session(row)).collect()
    }

    /// How many are in force.
    ///
    /// # Errors
    /// The database failed.
    pub async fn count_sessions(&self) -> Result<u64, StoreError> {
        let row = sqlx::query("SELECT count(*) AS n FROM sessions WHERE ended IS NULL")
            .fetch_one(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        let count: i64 = self.column(&row, "n")?;
        Ok(u64::try_from(count).unwrap_or(0))
    }

    /// Sessions in force that should have ended by age.
    ///
    /// # Errors
    /// The database failed.
    pub async fn sessions_due(&self, now: u64) -> Result<Vec<Session>, StoreError> {
        let rows = sqlx::query("SELECT * FROM sessions WHERE ended IS NULL AND until <= $1")
            .bind(rows::signed(now))
            .fetch_all(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.read_session(row)).collect()
    }

    pub(super) async fn insert_session(
        &self,
        tx: &mut SqliteConnection,
        new: &NewSession,
        now: u64,
    ) -> Result<String, StoreError> {
        self.know_user(tx, &new.user, now).await?;
        let row = sqlx::query(
            "UPDATE devices SET user = coalesce(user, $2), needs_login = 0
             WHERE name = $1 AND revoked IS NULL RETURNING user = $2 COLLATE NOCASE AS same",
        )
        .bind(&new.device)
        .bind(&new.user)
        .fetch_optional(&mut *tx)
        .await
        .map_err(|e| self.failed(e))?;
        let row = row.ok_or_else(|| no_device(&new.device))?;
        if !self.column::<bool>(&row, "same")? {
            return Err(refused(
                format!("device '{}' is another user's", new.device),
                "a device has one user for ever; invite the other one".into(),
            ));
        }
        sqlx::query(
            "UPDATE sessions SET ended = $2, end_reason = 'renewed'
             WHERE device = $1 AND ended IS NULL",
        )
        .bind(&new.device)
        .bind(rows::signed(now))
        .execute(&mut *tx)
        .await
        .map_err(|e| self.failed(e))?;
        sqlx::query(
            "DELETE FROM sessions WHERE device = $1 AND id NOT IN
             (SELECT id FROM sessions WHERE device = $1 ORDER BY since DESC, rowid DESC LIMIT $2)",
        )
        .bind(&new.device)
        .bind(PAST_SESSIONS)
        .execute(&mut *tx)
        .await
        .map_err(|e| self.failed(e))?;
        let id = random_name::<12>()?;
        sqlx::query(
            "INSERT INTO sessions (id, device, user, method, issuer, subject, groups, amr, acr,
                                   since, until)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(&id)
        .bind(&new.device)
        .bind(&new.user)
        .bind(&new.method)
        .bind(&new.issuer)
        .bind(&new.subject)
        .bind(list_text(&sorted(&new.groups))?)
        .bind(list_text(&sorted(&new.amr))?)
        .bind(&new.acr)
        .bind(rows::signed(new.since))
        .bind(new.until.map(rows::signed))
        .execute(tx)
        .await
        .map_err(|e| self.failed(e))?;
        Ok(id)
    }

    fn read_session(&self, row: &SqliteRow) -> Result<Session, StoreError> {
        Ok(Session {
            id: self.column(row, "id")?,
            device: self.column(row, "device")?,
            user: self.column(row, "user")?,
            method: self.column(row, "method")?,
            issuer: self.column(row, "issuer")?,
            subject: self.column(row, "subject")?,
            groups: self.list(row, "groups")?,
            amr: self.list(row, "amr")?,
            acr: self.column(row, "acr")?,
            since: self.time(row, "since")?.unwrap_or(0),
            until: self.time(row, "until")?,
            ended: self.time(row, "ended")?,
            end_reason: self.column(row, "end_reason")?,
        })
    }
}
