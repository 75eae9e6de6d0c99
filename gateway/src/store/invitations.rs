//! Invitations, and the throw-away keys that they give.

use super::labels::labels;
use super::{Store, StoreError, list_text, random_name, refused, rows, sorted, word};
use crate::worker_api::DeviceRecord;
use postern_engine::standing::Standing;
use postern_proto::invitation::guest_address;
use postern_proto::keys::PublicKey;
use serde::{Deserialize, Serialize};
use sqlx::sqlite::SqliteRow;
use std::net::Ipv4Addr;

/// Whom an invitation is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One device of a named user.
    Personal,
    /// Many devices; who uses them is found out afterwards.
    Open,
    /// One device without a user.
    Machine,
}

/// What else has to happen before a device that joined reaches anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Require {
    /// Nothing.
    #[serde(rename = "none")]
    Nothing,
    /// Its user logs in, and from then on always has a session that lives.
    Login,
    /// An admin approves it.
    Approval,
}

/// An invitation to be. The secret stays with the caller.
#[derive(Clone, Debug)]
pub struct NewInvitation {
    /// Whom it is for.
    pub kind: Kind,
    /// Whose the device will be; of a personal one.
    pub user: Option<String>,
    /// What policy will see.
    pub groups: Vec<String>,
    /// What policy will see of them: `env=prod`.
    pub labels: Vec<String>,
    /// What to call the device, of one for a single device.
    pub name: Option<String>,
    /// What else has to happen.
    pub require: Require,
    /// Devices that may join.
    pub uses: u32,
    /// The public halves of its throw-away keys, by place.
    pub keys: Vec<PublicKey>,
    /// Seconds since 1970.
    pub expires: u64,
    /// Who made it.
    pub made_by: String,
}

/// An invitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invitation {
    /// Names it in listings, records and commands. No secret.
    pub id: String,
    /// Whom it is for.
    pub kind: Kind,
    /// Whose the device will be.
    pub user: Option<String>,
    /// What policy will see. Sorted.
    pub groups: Vec<String>,
    /// The same. Sorted.
    pub labels: Vec<String>,
    /// What to call the device.
    pub name: Option<String>,
    /// What else has to happen.
    pub require: Require,
    /// Devices that may join.
    pub uses: u32,
    /// Devices that have.
    pub used: u32,
    /// When the last of them did, seconds since 1970.
    pub used_up: Option<u64>,
    /// Seconds since 1970.
    pub created: u64,
    /// Seconds since 1970.
    pub expires: u64,
    /// Seconds since 1970.
    pub revoked: Option<u64>,
    /// Who made it.
    pub made_by: String,
}

/// Whether somebody can still join by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum InvitationState {
    /// Yes.
    Open,
    /// As many devices joined as may.
    Used,
    /// It is too old.
    Expired,
    /// An admin took it back.
    Revoked,
}

/// A throw-away key, as the workers need it.
#[derive(Clone, Debug)]
pub struct Guest {
    /// Like a device's, with no address of the pool.
    pub record: DeviceRecord,
    /// Since when nobody can join by it, seconds since 1970.
    pub dead: Option<u64>,
}

impl Store {
    /// Makes an invitation.
    ///
    /// # Errors
    /// The words are odd, the device's name is taken, or the database failed.
    pub async fn add_invitation(
        &self,
        new: &NewInvitation,
        now: u64,
    ) -> Result<Invitation, StoreError> {
        if let Some(user) = &new.user {
            word("user", user, 254)?;
        }
        for group in &new.groups {
            word("group", group, 254)?;
        }
        let labels = labels(&new.labels)?;
        let id = random_name::<8>()?;
        let mut tx = self.begin().await?;
        if let Some(name) = &new.name {
            word("device name", name, 63)?;
            if self.name_taken(&mut tx, name).await?.is_some() {
                return Err(refused(
                    format!("'{name}' is or was the name of a device"),
                    "records name devices for ever; choose another name".into(),
                ));
            }
        }
        if let Some(user) = &new.user {
            self.know_user(&mut tx, user, now).await?;
        }
        sqlx::query(
            "INSERT INTO invitations (id, kind, user, groups, name, require, uses, created,
                                      expires, made_by, labels)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
        )
        .bind(&id)
        .bind(new.kind.text())
        .bind(&new.user)
        .bind(list_text(&sorted(&new.groups))?)
        .bind(&new.name)
        .bind(new.require.text())
        .bind(new.uses)
        .bind(rows::signed(now))
        .bind(rows::signed(new.expires))
        .bind(&new.made_by)
        .bind(list_text(&labels)?)
        .execute(&mut *tx)
        .await
        .map_err(|e| self.failed(e))?;
        for (place, key) in (0_u32..).zip(&new.keys) {
            sqlx::query(
                "INSERT INTO invitation_keys (public_key, invitation, place) VALUES ($1, $2, $3)",
            )
            .bind(key.to_string())
            .bind(&id)
            .bind(place)
            .execute(&mut *tx)
            .await
            .map_err(|e| self.failed(e))?;
        }
        self.commit(tx).await?;
        self.invitation(&id).await
    }

    /// Takes back an invitation that nobody has been told of.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forget_invitation(&self, id: &str) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for sql in [
            "DELETE FROM invitation_keys WHERE invitation = $1",
            "DELETE FROM invitations WHERE id = $1 AND used = 0",
        ] {
            let done = sqlx::query(sql).bind(id).execute(&mut *tx).await;
            done.map_err(|e| self.failed(e))?;
        }
        self.commit(tx).await
    }

    /// Every invitation, the newest last.
    ///
    /// # Errors
    /// The database failed.
    pub async fn invitations(&self) -> Result<Vec<Invitation>, StoreError> {
        let rows = sqlx::query("SELECT * FROM invitations ORDER BY created, rowid")
            .fetch_all(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.read_invitation(row)).collect()
    }

    /// One invitation.
    ///
    /// # Errors
    /// There is none of that id, or the database failed.
    pub async fn invitation(&self, id: &str) -> Result<Invitation, StoreError> {
        let row = sqlx::query("SELECT * FROM invitations WHERE id = $1")
            .bind(id)
            .fetch_optional(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        let row = row.ok_or_else(|| StoreError::Absent {
            what: "invitation",
            name: id.to_owned(),
        })?;
        self.read_invitation(&row)
    }

    /// The invitation that a throw-away key is of.
    ///
    /// # Errors
    /// The database failed.
    pub async fn invitation_of(&self, guest: &PublicKey) -> Result<Option<Invitation>, StoreError> {
        let row = sqlx::query(
            "SELECT invitations.* FROM invitations
             JOIN invitation_keys ON invitation = id WHERE public_key = $1",
        )
        .bind(guest.to_string())
        .fetch_optional(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        row.map(|row| self.read_invitation(&row)).transpose()
    }

    /// Takes an invitation back; who joined by it stays. Doing it twice keeps the first time.
    ///
    /// # Errors
    /// There is none of that id, or the database failed.
    pub async fn revoke_invitation(&self, id: &str, now: u64) -> Result<Invitation, StoreError> {
        sqlx::query("UPDATE invitations SET revoked = coalesce(revoked, $2) WHERE id = $1")
            .bind(id)
            .bind(rows::signed(now))
            .execute(&self.db)
            .await
            .map_err(|e| self.failed(e))?;
        self.invitation(id).await
    }

    /// Throw-away keys by which somebody can join, and those that died after `since`, so that
    /// whoever holds one hears why. At most `most`: the living first, then the latest dead.
    ///
    /// # Errors
    /// The database failed.
    pub async fn guests(
        &self,
        now: u64,
        since: u64,
        most: usize,
    ) -> Result<Vec<Guest>, StoreError> {
        let rows = sqlx::query(
            "SELECT id, created, public_key, nullif(died, $1) AS dead FROM
                 (SELECT *, min(coalesce(revoked, $1), coalesce(used_up, $1),
                                CASE WHEN expires <= $2 THEN expires ELSE $1 END) AS died
                  FROM invitations)
             JOIN invitation_keys ON invitation = id
             WHERE died > $3 ORDER BY died DESC, created, place LIMIT $4",
        )
        .bind(i64::MAX)
        .bind(rows::signed(now))
        .bind(rows::signed(since))
        .bind(i64::try_from(most).unwrap_or(i64::MAX))
        .fetch_all(&self.db)
        .await
        .map_err(|e| self.failed(e))?;
        rows.iter().map(|row| self.read_guest(row)).collect()
    }

    pub(super) fn read_invitation(&self, row: &SqliteRow) -> Result<Invitation, StoreError> {
        let kind: String = self.column(row, "kind")?;
        let require: String = self.column(row, "require")?;
        Ok(Invitation {
            id: self.column(row, "id")?,
            kind: Kind::read(&kind).ok_or_else(|| self.damaged("invitations.kind", &kind))?,
            user: self.column(row, "user")?,
            groups: self.list(row, "groups")?,
            labels: self.list(row, "labels")?,
            name: self.column(row, "name")?,
            require: Require::read(&require)
                .ok_or_else(|| self.damaged("invitations.require", &require))?,
            uses: self.column(row, "uses")?,
            used: self.column(row, "used")?,
            used_up: self.time(row, "used_up")?,
            created: self.time(row, "created")?.unwrap_or(0),
            expires: self.time(row, "expires")?.unwrap_or(0),
            revoked: self.time(row, "revoked")?,
            made_by: self.column(row, "made_by")?,
        })
    }

    fn read_guest(&self, row: &SqliteRow) -> Result<Guest, StoreError> {
        let id: String = self.column(row, "id")?;
        let key: PublicKey = self
            .parsed(row, "public_key")?
            .ok_or_else(|| self.damaged("invitation_keys.public_key", "nothing"))?;
        let record = DeviceRecord {
            name: format!("invitation:{id}"),
            user: None,
            groups: Vec::new(),
            key,
            preshared_key: None,
            v4: Ipv4Addr::UNSPECIFIED,
            v6: guest_address(&key),
            created: self.time(row, "created")?.unwrap_or(0),
            last_endpoint: None,
            standing: Standing {
                guest: true,
                ..Standing::default()
            },
        };
        Ok(Guest {
            record,
            dead: self.time(row, "dead")?,
        })
    }
}

impl Invitation {
    /// Whether somebody can join by it now. What happened first is what is said.
    #[must_use]
    pub fn state(&self, now: u64) -> InvitationState {
        let revoked = self.revoked.unwrap_or(u64::MAX);
        let used_up = self.used_up.unwrap_or(u64::MAX);
        let expired = if self.expires <= now {
            self.expires
        } else {
            u64::MAX
        };
        match revoked.min(used_up).min(expired) {
            u64::MAX => InvitationState::Open,
            first if first == used_up => InvitationState::Used,
            first if first == revoked => InvitationState::Revoked,
            _ => InvitationState::Expired,
        }
    }
}

impl InvitationState {
    /// `open`, `used`, `expired`, `revoked`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            InvitationState::Open => "open",
            InvitationState::Used => "used",
            InvitationState::Expired => "expired",
            InvitationState::Revoked => "revoked",
        }
    }
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Personal, Kind::Open, Kind::Machine];

    /// `personal`, `open`, `machine`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Kind::Personal => "personal",
            Kind::Open => "open",
            Kind::Machine => "machine",
        }
    }

    fn read(text: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.text() == text)
    }
}

impl Require {
    const ALL: [Require; 3] = [Require::Nothing, Require::Login, Require::Approval];

    /// `none`, `login`, `approval`.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Require::Nothing => "none",
            Require::Login => "login",
            Require::Approval => "approval",
        }
    }

    fn read(text: &str) -> Option<Require> {
        Require::ALL.into_iter().find(|one| one.text() == text)
    }
}
