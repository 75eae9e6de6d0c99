//! What a device says of itself, and what admins say of it.

use super::{Store, StoreError, refused, rows, word};
use postern_proto::facts::Facts;
use sqlx::sqlite::SqliteRow;

/// The most attributes of one device.
pub const MAX_ATTRIBUTES: i64 = 64;

/// What an admin, or a program of theirs, says of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredAttribute {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
    /// When it ends, seconds since 1970; none: when it is unset.
    pub until: Option<u64>,
    /// Who set it.
    pub set_by: String,
}

impl Store {
    /// Remembers what a device reported; the report before is gone.
    ///
    /// # Errors
    /// The database failed.
    pub async fn save_report(
        &self,
        device: &str,
        facts: &Facts,
        now: u64,
    ) -> Result<(), StoreError> {
        let text = serde_json::to_string(facts).map_err(|error| {
            let help = "this is a fault of the program".into();
            refused(format!("the report cannot be stored: {error}"), help)
        })?;
        sqlx::query(
            "INSERT INTO reports (device, facts, at) VALUES ($1, $2, $3)
             ON CONFLICT (device) DO UPDATE SET facts = $2, at = $3",
        )
        .bind(device)
        .bind(text)
        .bind(rows::signed(now))
        .execute(&self.db)
        .await
        .map(|_| ())
        .map_err(|e| self.failed(e))
    }

    /// What a device reported last, and when.
    ///
    /// # Errors
    /// The database failed.
    pub async fn report(&self, device: &str) -> Result<Option<(Facts, u64)>, StoreError> {
        let found = self.reports(Some(device)).await?.pop();
        Ok(found.map(|(_, facts, at)| (facts, at)))
    }

    /// Says something of a device, instead of what was said before.
    ///
    /// # Errors
    /// The words are odd, there is no such device, it has [`MAX_ATTRIBUTES`], or the database
    /// failed.
    pub async fn set_attribute(
        &self,
        device: &str,
        attribute: &StoredAttribute,
    ) -> Result<(), StoreError> {
        word("attribute", &attribute.name, 63)?;
        word("value", &attribute.value, 254)?;
        self.device(device).await?;
        let mut tx = self.begin().await?;
        let set = sqlx::query(
            "INSERT INTO attributes (device, name, value, until, set_by)
             SELECT $1, $2, $3, $4, $5
             WHERE (SELECT count(*) FROM attributes WHERE device = $1 AND name != $2) < $6
             ON CONFLICT (device, name) DO UPDATE SET value = $3, until = $4, set_by = $5",
        )
        .bind(device)
        .bind(&attribute.name)
        .bind(&attribute.value)
        .bind(attribute.until.map(rows::signed))
        .bind(&attribute.set_by)
        .bind(MAX_ATTRIBUTES)
        .execute(&mut *tx)
        .await
        .map_err(|e| self.failed(e))?;
        if set.rows_affected() == 0 {
            return Err(refused(
                format!("device '{device}' has {MAX_ATTRIBUTES} attributes already"),
                "unset one that is not needed".into(),
            ));
        }
        self.commit(tx).await
    }

    /// Takes back what was said of a device. What it was.
    ///
    /// # Errors
    /// It has no such attribute, or the database failed.
    pub async fn unset_attribute(
        &self,
        device: &str,
        name: &str,
    ) -> Result<StoredAttribute, StoreError> {
        let row = sqlx::query("DELETE FROM attributes WHERE device = $1 AND name = $2 RETURNING *")
            .bind(device)
            .bind(name)
            .fetch_optional(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        let row = row.ok_or_else(|| StoreError::Absent {
            what: "attribute",
            name: name.to_owned(),
        })?;
        self.read_attribute(&row)
    }

    /// What is said of a device, by name; what has ended is not.
    ///
    /// # Errors
    /// The database failed.
    pub async fn attributes(
        &self,
        device: &str,
        now: u64,
    ) -> Result<Vec<StoredAttribute>, StoreError> {
        let found = self.attributes_now(Some(device), now).await?;
        Ok(found.into_iter().map(|(_, attribute)| attribute).collect())
    }

    pub(super) async fn attributes_now(
        &self,
        device: Option<&str>,
        now: u64,
    ) -> Result<Vec<(String, StoredAttribute)>, StoreError> {
        let rows = sqlx::query(
            "SELECT * FROM attributes
             WHERE ($1 IS NULL OR device = $1) AND (until IS NULL OR until > $2)
             ORDER BY device, name",
        )
        .bind(device)
        .bind(rows::signed(now))
        .fetch_all(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        rows.iter()
            .map(|row| Ok((self.column(row, "device")?, self.read_attribute(row)?)))
            .collect()
    }

    pub(super) async fn reports(
        &self,
        device: Option<&str>,
    ) -> Result<Vec<(String, Facts, u64)>, StoreError> {
        let rows = sqlx::query("SELECT * FROM reports WHERE $1 IS NULL OR device = $1")
            .bind(device)
            .fetch_all(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        rows.iter()
            .map(|row| {
                let text: String = self.column(row, "facts")?;
                // A later version may have known more facts: then nothing is known until the
                // device reports again, which fails the checks that need it.
                let facts = serde_json::from_str(&text).unwrap_or_default();
                let at = self.time(row, "at")?.unwrap_or(0);
                Ok((self.column(row, "device")?, facts, at))
            })
            .collect()
    }

    fn read_attribute(&self, row: &SqliteRow) -> Result<StoredAttribute, StoreError> {
        Ok(StoredAttribute {
            name: self.column(row, "name")?,
            value: self.column(row, "value")?,
            until: self.time(row, "until")?,
            set_by: self.column(row, "set_by")?,
        })
    }
}
