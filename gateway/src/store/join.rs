//! A throw-away key becomes a device: one transaction, so that of two who redeem a personal
//! invitation at once exactly one wins.

use super::devices::{Beginning, Device, Enrolment};
use super::sessions::NewSession;
use super::{Invitation, InvitationState, Kind, Require, Store, StoreError, rows, word};
use postern_proto::keys::{PresharedKey, PublicKey};
use sqlx::{Row, SqliteConnection};

/// The longest device name, bytes.
const MAX_NAME: usize = 63;

/// A wish to join.
#[derive(Clone, Debug)]
pub struct Join {
    /// The throw-away key that brought it.
    pub guest: PublicKey,
    /// The device's own key.
    pub key: PublicKey,
    /// What it would like to be called.
    pub name: Option<String>,
    /// The name of its host, to make a name of.
    pub hostname: Option<String>,
    /// The pre-shared key, if it wants one.
    pub kem: Option<Kem>,
    /// It waits for approval even if its invitation does not say so.
    pub approval: bool,
}

/// What came of one ML-KEM exchange.
#[derive(Clone, Debug)]
pub struct Kem {
    /// SHA-256 of the encapsulation key, hex.
    pub key_hash: String,
    /// What the device gets, base64.
    pub ciphertext: String,
    /// What the gateway keeps.
    pub preshared_key: PresharedKey,
}

/// A device that has joined.
#[derive(Clone, Debug)]
pub struct Joined {
    /// As it is stored.
    pub device: Device,
    /// The ciphertext that goes with its pre-shared key.
    pub kem_ciphertext: Option<String>,
    /// The same request had been answered before.
    pub again: bool,
}

/// Why nobody joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The key is no throw-away key.
    #[error("this key was not invited")]
    NotInvited,
    /// Others joined by it.
    #[error("the invitation has been used by another key")]
    Used,
    /// It is too old.
    #[error("the invitation has expired")]
    Expired,
    /// An admin took it back.
    #[error("the invitation has been revoked")]
    Revoked,
    /// The key or the name is somebody else's, or cannot be.
    #[error("{0}")]
    Taken(StoreError),
    /// The name cannot be.
    #[error("{0}")]
    BadName(StoreError),
    /// No room, or the database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Store {
    /// What the same request was answered before, if it was: the same key by the same invitation,
    /// and the same ML-KEM key.
    ///
    /// # Errors
    /// The key has joined by this invitation with another ML-KEM key, or the database failed.
    pub async fn joined_before(
        &self,
        invitation: &str,
        key: &PublicKey,
        kem_key_hash: Option<&str>,
    ) -> Result<Option<Joined>, JoinError> {
        let mut tx = self.begin().await?;
        let found = self
            .answered(&mut tx, invitation, key, kem_key_hash)
            .await?;
        self.commit(tx).await?;
        self.with_device(found).await
    }

    /// Lets a device join. `now` is asked for inside the transaction, when nothing can come in
    /// between any more.
    ///
    /// # Errors
    /// See [`JoinError`]; nothing was stored.
    pub async fn join(&self, join: &Join, now: impl FnOnce() -> u64) -> Result<Joined, JoinError> {
        let mut tx = self.begin().await?;
        let now = now();
        let invitation = self.invitation_in(&mut tx, &join.guest).await?;
        let hash = join.kem.as_ref().map(|kem| kem.key_hash.as_str());
        let before = self.answered(&mut tx, &invitation.id, &join.key, hash);
        if let Some(before) = before.await? {
            self.commit(tx).await?;
            let joined = self.with_device(Some(before)).await?;
            return joined.ok_or(JoinError::Used);
        }
        match invitation.state(now) {
            InvitationState::Open => {}
            InvitationState::Used => return Err(JoinError::Used),
            InvitationState::Expired => return Err(JoinError::Expired),
            InvitationState::Revoked => return Err(JoinError::Revoked),
        }
        let free = self.free_key(&mut tx, &join.key).await;
        free.map_err(taken)?;
        let name = self.name_for(&mut tx, join, &invitation).await?;
        let enrolment = Enrolment::new(
            &name,
            invitation.user.as_deref(),
            &invitation.groups,
            join.key,
            join.kem.as_ref().map(|kem| kem.preshared_key.clone()),
        )
        .and_then(|enrolment| enrolment.with_labels(&invitation.labels))
        .map_err(JoinError::BadName)?;
        let begins = Beginning {
            invitation: Some(invitation.id.clone()),
            approved: !join.approval && invitation.require != Require::Approval,
            needs_login: invitation.require == Require::Login,
        };
        self.insert_device(&mut tx, &enrolment, &begins, now)
            .await?;
        self.spend(&mut tx, &invitation, join, &name, now).await?;
        if let (Kind::Personal, Some(user)) = (invitation.kind, &invitation.user)
            && !begins.needs_login
        {
            // Whoever holds a personal invitation has shown who they are.
            let login = NewSession {
                device: name.clone(),
                user: user.clone(),
                method: "invitation".to_owned(),
                issuer: None,
                subject: None,
                groups: Vec::new(),
                amr: Vec::new(),
                acr: None,
                since: now,
                until: None,
            };
            self.insert_session(&mut tx, &login, now).await?;
        }
        self.commit(tx).await?;
        Ok(Joined {
            device: self.device(&name).await?,
            kem_ciphertext: join.kem.as_ref().map(|kem| kem.ciphertext.clone()),
            again: false,
        })
    }

    /// Takes back a join that nobody has been told of: the invitation is as it was.
    ///
    /// # Errors
    /// The database failed.
    pub async fn forget_join(&self, device: &Device) -> Result<(), StoreError> {
        let mut tx = self.begin().await?;
        for sql in [
            "UPDATE invitations SET used = used - 1, used_up = NULL
             WHERE id = (SELECT invitation FROM redemptions WHERE device = $1)",
            "DELETE FROM redemptions WHERE device = $1",
            "DELETE FROM sessions WHERE device = $1",
            "DELETE FROM reports WHERE device = $1",
            "DELETE FROM devices WHERE name = $1",
        ] {
            let done = sqlx::query(sql).bind(&device.record.name);
            let done = done.execute(&mut *tx).await;
            done.map_err(|e| self.failed(e))?;
        }
        self.commit(tx).await
    }

    async fn invitation_in(
        &self,
        tx: &mut SqliteConnection,
        guest: &PublicKey,
    ) -> Result<Invitation, JoinError> {
        let row = sqlx::query(
            "SELECT invitations.* FROM invitations
             JOIN invitation_keys ON invitation = id WHERE public_key = $1",
        )
        .bind(guest.to_string())
        .fetch_optional(tx)
        .await
        .map_err(|e| self.failed(e))?;
        let row = row.ok_or(JoinError::NotInvited)?;
        Ok(self.read_invitation(&row)?)
    }

    /// The device and the ciphertext that this request was answered with.
    async fn answered(
        &self,
        tx: &mut SqliteConnection,
        invitation: &str,
        key: &PublicKey,
        kem_key_hash: Option<&str>,
    ) -> Result<Option<(String, Option<String>)>, JoinError> {
        let row = sqlx::query(
            "SELECT device, kem_key, kem_ciphertext FROM redemptions
             WHERE public_key = $1 AND invitation = $2",
        )
        .bind(key.to_string())
        .bind(invitation)
        .fetch_optional(tx)
        .await
        .map_err(|e| self.failed(e))?;
        let Some(row) = row else { return Ok(None) };
        let kem_key: Option<String> = self.column(&row, "kem_key")?;
        if kem_key.as_deref() != kem_key_hash {
            return Err(JoinError::Used);
        }
        let device: String = self.column(&row, "device")?;
        Ok(Some((device, self.column(&row, "kem_ciphertext")?)))
    }

    /// Only while the device may connect.
    async fn with_device(
        &self,
        found: Option<(String, Option<String>)>,
    ) -> Result<Option<Joined>, JoinError> {
        let Some((name, kem_ciphertext)) = found else {
            return Ok(None);
        };
        let device = self.device(&name).await?;
        if device.revoked.is_some() {
            return Err(JoinError::Revoked);
        }
        Ok(Some(Joined {
            device,
            kem_ciphertext,
            again: true,
        }))
    }

    async fn spend(
        &self,
        tx: &mut SqliteConnection,
        invitation: &Invitation,
        join: &Join,
        device: &str,
        now: u64,
    ) -> Result<(), JoinError> {
        let spent = sqlx::query(
            "UPDATE invitations
             SET used = used + 1, used_up = CASE WHEN used + 1 >= uses THEN $2 END
             WHERE id = $1 AND used < uses AND revoked IS NULL AND expires > $2",
        )
        .bind(&invitation.id)
        .bind(rows::signed(now))
        .execute(&mut *tx)
        .await
        .map_err(|e| self.failed(e))?;
        if spent.rows_affected() == 0 {
            return Err(JoinError::Used);
        }
        sqlx::query(
            "INSERT INTO redemptions (public_key, invitation, device, at, kem_key, kem_ciphertext)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(join.key.to_string())
        .bind(&invitation.id)
        .bind(device)
        .bind(rows::signed(now))
        .bind(join.kem.as_ref().map(|kem| &kem.key_hash))
        .bind(join.kem.as_ref().map(|kem| &kem.ciphertext))
        .execute(tx)
        .await
        .map_err(|e| self.failed(e))?;
        Ok(())
    }

    /// The name that the admin chose, else the one that the device asks for, else one made of
    /// user and host.
    async fn name_for(
        &self,
        tx: &mut SqliteConnection,
        join: &Join,
        invitation: &Invitation,
    ) -> Result<String, JoinError> {
        if let (None, Some(asked)) = (&invitation.name, &join.name) {
            word("device name", asked, MAX_NAME).map_err(JoinError::BadName)?;
            if let Some(gone) = self.name_taken(tx, asked).await? {
                return Err(JoinError::Taken(super::devices::name_taken(asked, gone)));
            }
            return Ok(asked.clone());
        }
        let stem = match &invitation.name {
            Some(name) => name.clone(),
            None => stem(invitation.user.as_deref(), join.hostname.as_deref()),
        };
        let row = sqlx::query("SELECT count(*) AS n FROM devices")
            .fetch_one(&mut *tx)
            .await
            .map_err(|e| self.failed(e))?;
        let devices: i64 = row.try_get("n").map_err(|e| self.failed(e))?;
        // Of one more name than there are devices, one is free.
        for number in 1..=devices.saturating_add(1) {
            let name = numbered(&stem, number);
            if self.name_taken(tx, &name).await?.is_none() {
                return Ok(name);
            }
        }
        Ok(stem)
    }
}

/// `ana-laptop` of `ana@example.com` and `laptop.example.com`.
fn stem(user: Option<&str>, hostname: Option<&str>) -> String {
    let user = user.and_then(|user| user.split('@').next());
    let host = hostname.and_then(|host| host.split('.').next());
    let parts: Vec<String> = [user, host]
        .into_iter()
        .flatten()
        .map(|part| {
            let plain = part
                .chars()
                .filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c));
            plain.take(MAX_NAME / 2 - 4).collect::<String>()
        })
        .filter(|part| !part.is_empty())
        .collect();
    if parts.is_empty() {
        "device".to_owned()
    } else {
        parts.join("-")
    }
}

fn numbered(stem: &str, number: i64) -> String {
    if number == 1 {
        return stem.to_owned();
    }
    let tail = format!("-{number}");
    let room = MAX_NAME.saturating_sub(tail.len());
    stem.chars().take(room).collect::<String>() + &tail
}

fn taken(error: StoreError) -> JoinError {
    match error {
        StoreError::Refused { .. } => JoinError::Taken(error),
        StoreError::NoDevice { .. }
        | StoreError::Absent { .. }
        | StoreError::Schema { .. }
        | StoreError::Database { .. } => JoinError::Store(error),
    }
}
