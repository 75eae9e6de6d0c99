//! How far back the store knows somebody.

use super::{Store, StoreError};
use postern_proto::now::Wall;

impl Store {
    /// From when on, and until when, it is known how a device stood; without an end: still.
    ///
    /// # Errors
    /// The database failed.
    pub async fn known_of(&self, device: &str) -> Result<Option<(Wall, Option<Wall>)>, StoreError> {
        let row = sqlx::query(
            "SELECT min(since) AS since,
                    CASE WHEN count(until) = count(*) THEN max(until) END AS until
             FROM facts WHERE device = $1",
        )
        .bind(device)
        .fetch_one(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        let since = self.time(&row, "since")?.map(Wall);
        let until = self.time(&row, "until")?.map(Wall);
        Ok(since.map(|since| (since, until)))
    }

    /// From when on it is known how any device stood.
    ///
    /// # Errors
    /// The database failed.
    pub async fn known_since(&self) -> Result<Option<Wall>, StoreError> {
        let row = sqlx::query("SELECT min(since) AS since FROM facts")
            .fetch_one(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(self.time(&row, "since")?.map(Wall))
    }
}
