//! How devices stood, from when until when. Nothing goes to a worker that is not noted here first,
//! so the `facts` of every record finds what its verdict rested on.

use super::{Store, StoreError, random_name, rows};
use crate::worker_api::DeviceRecord;
use postern_engine::policy::Subject;
use postern_history::facts::{BadFacts, FactsText};
use postern_proto::now::Wall;
use sqlx::sqlite::SqliteRow;
use sqlx::{Sqlite, Transaction};
use std::collections::HashMap;
use std::sync::Arc;

/// The most rows of one device; the oldest go first. A device that reports something else every
/// minute is known for a week.
pub const MAX_FACTS_ROWS: i64 = 10_000;

/// How a device stood for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FactsRow {
    /// What records name it by. The same facts at another time have the same.
    pub id: Arc<str>,
    /// The device's name.
    pub device: String,
    /// What [`FactsRow::subject`] reads.
    pub text: String,
    /// From when.
    pub since: Wall,
    /// Until when; none: still.
    pub until: Option<Wall>,
    /// When the device reported last, in this while.
    pub reported: Option<Wall>,
    /// Until when that report counts.
    pub fresh_until: Option<Wall>,
}

impl FactsRow {
    /// Who it was, as a policy sees it.
    ///
    /// # Errors
    /// The text is of a newer program, or is damaged.
    pub fn subject(&self) -> Result<Subject, BadFacts> {
        FactsText::read(&self.text, self.reported.zip(self.fresh_until))
    }
}

/// A device whose facts are noted: only such go to a worker.
#[derive(Clone, Debug)]
pub struct Noted(DeviceRecord);

impl Noted {
    /// A throw-away key. It reaches no target, whatever its facts, so it needs none.
    #[must_use]
    pub fn guest(mut guest: DeviceRecord) -> Noted {
        guest.standing.guest = true;
        Noted(guest)
    }

    /// The device, with `standing.facts`.
    #[must_use]
    pub fn into_record(self) -> DeviceRecord {
        self.0
    }

    /// The same, to look at.
    #[must_use]
    pub fn record(&self) -> &DeviceRecord {
        &self.0
    }

    #[cfg(test)]
    pub(crate) fn unkept(device: DeviceRecord) -> Noted {
        Noted(device)
    }
}

/// The row in force.
struct Now {
    number: i64,
    id: String,
    since: i64,
    fresh_until: Option<i64>,
}

impl Store {
    /// Notes how a device stands from now on, if that is new, and makes it fit for a worker.
    ///
    /// # Errors
    /// The database failed.
    pub async fn noted(&self, device: DeviceRecord, now: Wall) -> Result<Noted, StoreError> {
        let facts = self.note_facts(&device, now).await?;
        Ok(with(device, facts))
    }

    /// The same for every device that may connect: what else was noted ends. At a start.
    ///
    /// # Errors
    /// The database failed.
    pub async fn noted_all(
        &self,
        devices: Vec<DeviceRecord>,
        now: Wall,
    ) -> Result<Vec<Noted>, StoreError> {
        let mut tx = self.begin().await?;
        let found = sqlx::query("SELECT * FROM facts WHERE until IS NULL")
            .fetch_all(&mut *tx)
            .await
            .map_err(|e| self.failed(e))?;
        let mut in_force: HashMap<String, Now> = HashMap::with_capacity(found.len());
        for row in &found {
            in_force.insert(self.column(row, "device")?, self.read_now(row)?);
        }
        let mut noted = Vec::with_capacity(devices.len());
        for device in devices {
            let before = in_force.remove(&device.name);
            let facts = self.note(&mut tx, &device, before, now).await?;
            noted.push(with(device, facts));
        }
        for gone in in_force.values() {
            self.end(&mut tx, gone, now).await?;
        }
        self.commit(tx).await?;
        Ok(noted)
    }

    /// Notes how a device stands from now on, if that is new. What records name it by.
    ///
    /// # Errors
    /// The database failed.
    pub async fn note_facts(
        &self,
        device: &DeviceRecord,
        now: Wall,
    ) -> Result<Arc<str>, StoreError> {
        let mut tx = self.begin().await?;
        let found = sqlx::query("SELECT * FROM facts WHERE device = $1 AND until IS NULL")
            .bind(&device.name)
            .fetch_optional(&mut *tx)
            .await
            .map_err(|e| self.failed(e))?;
        let before = found.map(|row| self.read_now(&row)).transpose()?;
        let facts = self.note(&mut tx, device, before, now).await?;
        self.commit(tx).await?;
        Ok(facts)
    }

    /// The device is no more.
    ///
    /// # Errors
    /// The database failed.
    pub async fn end_facts(&self, device: &str, now: Wall) -> Result<(), StoreError> {
        sqlx::query("UPDATE facts SET until = max(since, $2) WHERE device = $1 AND until IS NULL")
            .bind(device)
            .bind(rows::signed(now.0))
            .execute(&self.db)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    /// When a device stood as `id` says, oldest first.
    ///
    /// # Errors
    /// The database failed.
    pub async fn facts_by_id(&self, id: &str) -> Result<Vec<FactsRow>, StoreError> {
        let found = sqlx::query("SELECT * FROM facts WHERE id = $1 ORDER BY number")
            .bind(id)
            .fetch_all(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        found.iter().map(|row| self.read_facts(row)).collect()
    }

    /// The last row of `id` that began by `at`, or else the first; and when the next one began.
    ///
    /// # Errors
    /// The database failed.
    pub async fn facts_of(
        &self,
        id: &str,
        at: Wall,
    ) -> Result<Option<(FactsRow, Option<Wall>)>, StoreError> {
        let found = sqlx::query(
            "SELECT *, (SELECT min(since) FROM facts AS later
                        WHERE later.id = facts.id AND later.since > facts.since) AS next
             FROM facts WHERE number = coalesce(
                 (SELECT number FROM facts WHERE id = $1 AND since <= $2
                  ORDER BY since DESC, number DESC LIMIT 1),
                 (SELECT number FROM facts WHERE id = $1 ORDER BY since, number LIMIT 1))",
        )
        .bind(id)
        .bind(rows::signed(at.0))
        .fetch_optional(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        let read = |row: SqliteRow| {
            let next = self.time(&row, "next")?.map(Wall);
            Ok((self.read_facts(&row)?, next))
        };
        found.map(read).transpose()
    }

    /// How a device stood at a moment; none: it was not enrolled, or nobody knows any more.
    ///
    /// # Errors
    /// The database failed.
    pub async fn facts_at(&self, device: &str, at: Wall) -> Result<Option<FactsRow>, StoreError> {
        let found = sqlx::query(
            "SELECT * FROM facts
             WHERE device = $1 AND since <= $2 AND (until IS NULL OR until > $2)
             ORDER BY since DESC, number DESC LIMIT 1",
        )
        .bind(device)
        .bind(rows::signed(at.0))
        .fetch_optional(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        found.map(|row| self.read_facts(&row)).transpose()
    }

    /// How all devices stood at any moment from `from` until `to`, by device, oldest first. With
    /// both the same: at that moment.
    ///
    /// # Errors
    /// The database failed.
    pub async fn facts_between(&self, from: Wall, to: Wall) -> Result<Vec<FactsRow>, StoreError> {
        let found = sqlx::query(
            "SELECT * FROM facts WHERE since <= $2 AND (until IS NULL OR until > $1)
             ORDER BY device, since, number",
        )
        .bind(rows::signed(from.0))
        .bind(rows::signed(to.0))
        .fetch_all(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        found.iter().map(|row| self.read_facts(row)).collect()
    }

    async fn note(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
        device: &DeviceRecord,
        before: Option<Now>,
        now: Wall,
    ) -> Result<Arc<str>, StoreError> {
        let who = Subject {
            user: device.user.clone(),
            groups: device.groups.clone(),
            device: device.name.clone(),
            standing: device.standing.clone(),
        };
        let facts = FactsText::salted(&who, &self.salt(tx).await?);
        let reported = device.standing.reported.as_ref();
        let times = reported.map(|one| (rows::signed(one.at.0), rows::signed(one.fresh_until.0)));
        if let Some(before) = before {
            match renewal(&before, &facts.id, times, now) {
                Renewal::Same => return Ok(facts.id),
                Renewal::Longer(at, fresh_until) => {
                    sqlx::query(
                        "UPDATE facts SET reported = $2, fresh_until = $3 WHERE number = $1",
                    )
                    .bind(before.number)
                    .bind(at)
                    .bind(fresh_until)
                    .execute(&mut **tx)
                    .await
                    .map_err(|e| self.failed(e))?;
                    return Ok(facts.id);
                }
                Renewal::Other => self.end(tx, &before, now).await?,
            }
        }
        sqlx::query(
            "INSERT INTO facts (id, device, text, since, reported, fresh_until)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(&*facts.id)
        .bind(&device.name)
        .bind(&facts.text)
        .bind(rows::signed(now.0))
        .bind(times.map(|(at, _)| at))
        .bind(times.map(|(_, fresh_until)| fresh_until))
        .execute(&mut **tx)
        .await
        .map_err(|e| self.failed(e))?;
        sqlx::query(
            "DELETE FROM facts WHERE device = $1 AND number <= (
                 SELECT number FROM facts WHERE device = $1
                 ORDER BY since DESC, number DESC LIMIT 1 OFFSET $2)",
        )
        .bind(&device.name)
        .bind(MAX_FACTS_ROWS)
        .execute(&mut **tx)
        .await
        .map_err(|e| self.failed(e))?;
        Ok(facts.id)
    }

    /// Random, made at first use.
    async fn salt(&self, tx: &mut Transaction<'static, Sqlite>) -> Result<String, StoreError> {
        let known = sqlx::query("SELECT salt FROM facts_salt")
            .fetch_optional(&mut **tx)
            .await
            .map_err(|e| self.failed(e))?;
        if let Some(row) = known {
            return self.column(&row, "salt");
        }
        let salt = random_name::<26>()?;
        sqlx::query("INSERT INTO facts_salt (one, salt) VALUES (1, $1)")
            .bind(&salt)
            .execute(&mut **tx)
            .await
            .map_err(|e| self.failed(e))?;
        Ok(salt)
    }

    async fn end(
        &self,
        tx: &mut Transaction<'static, Sqlite>,
        row: &Now,
        now: Wall,
    ) -> Result<(), StoreError> {
        sqlx::query("UPDATE facts SET until = $2 WHERE number = $1")
            .bind(row.number)
            // A clock that was put back ends nothing before it began.
            .bind(rows::signed(now.0).max(row.since))
            .execute(&mut **tx)
            .await
            .map(|_| ())
            .map_err(|e| self.failed(e))
    }

    fn read_now(&self, row: &SqliteRow) -> Result<Now, StoreError> {
        Ok(Now {
            number: self.column(row, "number")?,
            id: self.column(row, "id")?,
            since: self.column(row, "since")?,
            fresh_until: self.column(row, "fresh_until")?,
        })
    }

    fn read_facts(&self, row: &SqliteRow) -> Result<FactsRow, StoreError> {
        let id: String = self.column(row, "id")?;
        let wall = |name| Ok::<_, StoreError>(self.time(row, name)?.map(Wall));
        Ok(FactsRow {
            id: id.into(),
            device: self.column(row, "device")?,
            text: self.column(row, "text")?,
            since: wall("since")?.unwrap_or(Wall(0)),
            until: wall("until")?,
            reported: wall("reported")?,
            fresh_until: wall("fresh_until")?,
        })
    }
}

/// What becomes of the row in force.
enum Renewal {
    Same,
    /// The same facts, reported again.
    Longer(i64, i64),
    Other,
}

/// A row says that its report counted all the while until `fresh_until`. So one that came later
/// than that, or that counts less long, begins another row.
fn renewal(before: &Now, id: &str, times: Option<(i64, i64)>, now: Wall) -> Renewal {
    if before.id != id {
        return Renewal::Other;
    }
    match (before.fresh_until, times) {
        (None, None) => Renewal::Same,
        (Some(was), Some((_, is))) if was == is => Renewal::Same,
        (Some(was), Some((at, is))) if was < is && rows::signed(now.0) < was => {
            Renewal::Longer(at, is)
        }
        (Some(_) | None, _) => Renewal::Other,
    }
}

fn with(mut device: DeviceRecord, facts: Arc<str>) -> Noted {
    device.standing.facts = Some(facts);
    Noted(device)
}
