//! What the names of targets meant, from when until when: by the last of it a restarted gateway
//! judges at once, and by all of it the past is explained.

use super::{Store, StoreError, rows};
use postern_engine::policy::Answers;
use postern_proto::now::Wall;
use sqlx::sqlite::SqliteRow;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The most answers of one name that are kept; the oldest go first. At 64 addresses each it is
/// 2.5 MB of disk for a name that means something else every few seconds.
pub const MAX_ANSWERS: i64 = 1000;

/// What a name meant for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredName {
    /// Lower case, without the dot at the end.
    pub name: String,
    /// Sorted.
    pub addresses: Vec<IpAddr>,
    /// From when.
    pub since: Wall,
    /// Until when; none: still.
    pub until: Option<Wall>,
    /// When it was heard last; to a minute.
    pub checked: Wall,
    /// How long the answer may be kept, seconds.
    pub ttl: u32,
}

impl Store {
    /// Notes what names mean from now on, and that what they mean was heard again.
    ///
    /// # Errors
    /// The database failed; nothing was noted.
    pub async fn note_names(&self, answers: &[StoredName]) -> Result<(), StoreError> {
        if answers.is_empty() {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        for answer in answers {
            let addresses = addresses_text(&answer.addresses);
            let same = sqlx::query(
                "UPDATE names SET checked = $3, ttl = $4
                 WHERE name = $1 AND until IS NULL AND addresses = $2",
            )
            .bind(&answer.name)
            .bind(&addresses)
            .bind(rows::signed(answer.checked.seconds()))
            .bind(answer.ttl)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.failed(e))?;
            if same.rows_affected() > 0 {
                continue;
            }
            sqlx::query(
                "UPDATE names SET until = max(since, $2) WHERE name = $1 AND until IS NULL",
            )
            .bind(&answer.name)
            .bind(rows::signed(answer.since.0))
            .execute(&mut *tx)
            .await
            .map_err(|e| self.failed(e))?;
            sqlx::query(
                "INSERT INTO names (name, addresses, since, checked, ttl)
                 VALUES ($1, $2, $3, $4, $5)",
            )
            .bind(&answer.name)
            .bind(&addresses)
            .bind(rows::signed(answer.since.0))
            .bind(rows::signed(answer.checked.seconds()))
            .bind(answer.ttl)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.failed(e))?;
            sqlx::query(
                "DELETE FROM names WHERE name = $1 AND number <= (
                     SELECT number FROM names WHERE name = $1
                     ORDER BY number DESC LIMIT 1 OFFSET $2)",
            )
            .bind(&answer.name)
            .bind(MAX_ANSWERS)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.failed(e))?;
        }
        self.commit(tx).await
    }

    /// Names that mean nothing any more.
    ///
    /// # Errors
    /// The database failed.
    pub async fn end_names(&self, names: &[String], now: Wall) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for name in names {
            sqlx::query(
                "UPDATE names SET until = max(since, $2) WHERE name = $1 AND until IS NULL",
            )
            .bind(name)
            .bind(rows::signed(now.0))
            .execute(&mut *tx)
            .await
            .map_err(|e| self.failed(e))?;
        }
        self.commit(tx).await
    }

    /// What names mean, as far as it is known, by name.
    ///
    /// # Errors
    /// The database failed.
    pub async fn names_now(&self) -> Result<Vec<StoredName>, StoreError> {
        let found = sqlx::query("SELECT * FROM names WHERE until IS NULL ORDER BY name")
            .fetch_all(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        found.iter().map(|row| self.read_name(row)).collect()
    }

    /// What names meant at a moment.
    ///
    /// # Errors
    /// The database failed.
    pub async fn names_at(&self, at: Wall) -> Result<Answers, StoreError> {
        let meant = self.names_between(at, at).await?;
        Ok(meant
            .into_iter()
            .map(|one| (one.name, one.addresses))
            .collect())
    }

    /// What names meant at any moment from `from` until `to`, by name, oldest first.
    ///
    /// # Errors
    /// The database failed.
    pub async fn names_between(&self, from: Wall, to: Wall) -> Result<Vec<StoredName>, StoreError> {
        let found = sqlx::query(
            "SELECT * FROM names WHERE since <= $2 AND (until IS NULL OR until > $1)
             ORDER BY name, since, number",
        )
        .bind(rows::signed(from.0))
        .bind(rows::signed(to.0))
        .fetch_all(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        found.iter().map(|row| self.read_name(row)).collect()
    }

    /// Names of whose answers the oldest were let go, so that what they meant at a moment is not
    /// known any more.
    ///
    /// # Errors
    /// The database failed.
    pub async fn names_forgotten(&self, at: Wall) -> Result<BTreeSet<String>, StoreError> {
        let found = sqlx::query(
            "SELECT name FROM names GROUP BY name HAVING min(since) > $1 AND count(*) >= $2",
        )
        .bind(rows::signed(at.0))
        .bind(MAX_ANSWERS)
        .fetch_all(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        found.iter().map(|row| self.column(row, "name")).collect()
    }

    fn read_name(&self, row: &SqliteRow) -> Result<StoredName, StoreError> {
        let addresses = self
            .list(row, "addresses")?
            .iter()
            .map(|text| {
                text.parse()
                    .map_err(|_| self.damaged("names.addresses", text))
            })
            .collect::<Result<_, _>>()?;
        let checked = self.time(row, "checked")?.unwrap_or(0);
        Ok(StoredName {
            name: self.column(row, "name")?,
            addresses,
            since: Wall(self.time(row, "since")?.unwrap_or(0)),
            until: self.time(row, "until")?.map(Wall),
            checked: Wall(checked.saturating_mul(rows::NANOS)),
            ttl: self.column(row, "ttl")?,
        })
    }
}

/// A JSON array.
fn addresses_text(addresses: &[IpAddr]) -> String {
    let quoted: Vec<String> = addresses.iter().map(|one| format!("\"{one}\"")).collect();
    format!("[{}]", quoted.join(","))
}
