//! People: named by an invitation, by `device add --user` or by their first login.

use super::{Store, StoreError, refused, rows};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// As policy and records have it; upper and lower case name the same user.
    pub name: String,
    /// Seconds since 1970.
    pub created: u64,
    /// Since when they are disabled, seconds since 1970.
    pub disabled: Option<u64>,
    /// Who vouches for them: `issuer|sub`, sorted.
    pub identities: Vec<String>,
    /// Their devices that may connect.
    pub devices: u64,
}

impl Store {
    /// Every user, by name.
    ///
    /// # Errors
    /// The database failed.
    pub async fn users(&self) -> Result<Vec<User>, StoreError> {
        self.select_users(None).await
    }

    /// One user.
    ///
    /// # Errors
    /// There is none of that name, or the database failed.
    pub async fn user(&self, name: &str) -> Result<User, StoreError> {
        let found = self.select_users(Some(name)).await?.pop();
        found.ok_or_else(|| no_user(name))
    }

    /// Disables a user, or enables them again. Doing it twice keeps the first time.
    ///
    /// # Errors
    /// There is none of that name, or the database failed.
    pub async fn set_user_disabled(
        &self,
        name: &str,
        disabled: bool,
        now: u64,
    ) -> Result<User, StoreError> {
        sqlx::query(
            "UPDATE users SET disabled = CASE WHEN $2 THEN coalesce(disabled, $3) END
             WHERE name = $1",
        )
        .bind(name)
        .bind(disabled)
        .bind(rows::signed(now))
        .execute(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        self.user(name).await
    }

    /// The user that this identity (`issuer|sub`) is linked to.
    ///
    /// # Errors
    /// The database failed.
    pub async fn user_of(&self, subject: &str) -> Result<Option<String>, StoreError> {
        let row = sqlx::query("SELECT user FROM identities WHERE subject = $1")
            .bind(subject)
            .fetch_optional(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        row.map(|row| self.column(&row, "user")).transpose()
    }

    /// Links an identity to a user for ever; the user is made if there is none. Doing it twice
    /// changes nothing.
    ///
    /// # Errors
    /// The identity is another user's, the user has another identity of the same issuer, or the
    /// database failed.
    pub async fn link_identity(
        &self,
        issuer: &str,
        sub: &str,
        user: &str,
        now: u64,
    ) -> Result<(), StoreError> {
        let subject = format!("{issuer}|{sub}");
        let mut tx = self.begin().await?;
        self.know_user(&mut tx, user, now).await?;
        sqlx::query(
            "INSERT OR IGNORE INTO identities (subject, issuer, user, since)
             VALUES ($1, $2, $3, $4)",
        )
        .bind(&subject)
        .bind(issuer)
        .bind(user)
        .bind(rows::signed(now))
        .execute(&mut *tx)
        .await
        .map_err(|e| self.failed(e))?;
        let linked = sqlx::query("SELECT 1 FROM identities WHERE subject = $1 AND user = $2")
            .bind(&subject)
            .bind(user)
            .fetch_optional(&mut *tx)
            .await
            .map_err(|e| self.failed(e))?;
        if linked.is_none() {
            return Err(refused(
                format!("{issuer} vouches for somebody else as '{user}'"),
                "one account of an issuer is one user; an admin can look with `user show`".into(),
            ));
        }
        self.commit(tx).await
    }

    /// Makes a user if there is none of that name.
    pub(super) async fn know_user(
        &self,
        tx: &mut SqliteConnection,
        name: &str,
        now: u64,
    ) -> Result<(), StoreError> {
        sqlx::query("INSERT OR IGNORE INTO users (name, created) VALUES ($1, $2)")
            .bind(name)
            .bind(rows::signed(now))
            .execute(tx)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    async fn select_users(&self, name: Option<&str>) -> Result<Vec<User>, StoreError> {
        let rows = sqlx::query(
            "SELECT users.*,
                    (SELECT json_group_array(subject) FROM identities
                     WHERE identities.user = users.name) AS identities,
                    (SELECT count(*) FROM devices
                     WHERE devices.user = users.name COLLATE NOCASE AND revoked IS NULL) AS devices
             FROM users WHERE $1 IS NULL OR name = $1 ORDER BY name",
        )
        .bind(name)
        .fetch_all(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.read_user(row)).collect()
    }

    fn read_user(&self, row: &SqliteRow) -> Result<User, StoreError> {
        let mut identities = self.list(row, "identities")?;
        identities.sort();
        Ok(User {
            name: self.column(row, "name")?,
            created: self.time(row, "created")?.unwrap_or(0),
            disabled: self.time(row, "disabled")?,
            identities,
            devices: self.time(row, "devices")?.unwrap_or(0),
        })
    }
}

fn no_user(name: &str) -> StoreError {
    StoreError::Absent {
        what: "user",
        name: name.to_owned(),
    }
}
