//! Invitations: made, listed, taken back.

use super::Control;
use crate::api::{InvitationView, Invite, Invited};
use crate::key_file;
use crate::problem::Problem;
use crate::store::{Kind, NewInvitation, Require};
use postern_io::clock::Clock;
use postern_proto::invitation::{Invitation, InvitationSecret, MAX_ENDPOINTS, MAX_KEYS};
use std::ops::RangeInclusive;

/// Throw-away keys of an open invitation, unless the admin says how many.
const OPEN_KEYS: u16 = 32;

/// Devices that may join by an open invitation, unless the admin says how many.
const OPEN_USES: u32 = 256;

/// The most that they can say.
const MAX_USES: u32 = 10_000;

/// A minute to a year, seconds.
const LIFE: RangeInclusive<u64> = 60..=366 * 86_400;

impl Control {
    /// Makes an invitation. Its string is told once: the secret in it is not stored.
    ///
    /// # Errors
    /// It cannot be, or not now; nothing was stored then.
    pub async fn invite(&self, invite: &Invite, made_by: &str) -> Result<Invited, Problem> {
        let (keys, uses) = checked(invite)?;
        let config = self.config.get();
        if config.endpoints.is_empty() {
            return Err(Problem::refused(
                "devices cannot be told where this gateway is",
                format!("write `endpoint: HOST:PORT` in {}", config.path.display()),
            ));
        }
        let random = key_file::random().map_err(|error| {
            Problem::unable(
                format!("the kernel gives no randomness: {error}"),
                "try again",
            )
        })?;
        let secret = InvitationSecret(random);
        let endpoints = config.endpoints.iter().take(MAX_ENDPOINTS).cloned();
        let told = Invitation {
            endpoints: endpoints.collect(),
            gateway: self.public_key,
            keys,
            secret: secret.clone(),
        };
        let text = told.to_string();
        if text.parse().as_ref() != Ok(&told) {
            let help = "write shorter names under `endpoint` in gateway.yaml";
            return Err(Problem::refused(
                "an endpoint is too long for an invitation",
                help,
            ));
        }
        let _alone = self.changing.lock().await;
        let room = self.room_for_guests().await?;
        if usize::from(keys) > room {
            return Err(Problem::refused(
                format!("there is room for {room} more throw-away keys, and this needs {keys}"),
                "revoke invitations that are not needed: postern-gateway invite list",
            ));
        }
        let now = Clock::now().wall.seconds();
        let new = NewInvitation {
            kind: invite.kind,
            user: invite.user.clone(),
            groups: invite.groups.clone(),
            labels: invite.labels.clone(),
            name: invite.name.clone(),
            require: invite.require,
            uses,
            keys: (0..keys).map(|place| secret.key(place).public()).collect(),
            expires: now.saturating_add(invite.expires_in),
            made_by: made_by.to_owned(),
        };
        let made = self.store.add_invitation(&new, now).await?;
        if let Err(problem) = self.sync_guests().await {
            self.store.forget_invitation(&made.id).await?;
            return Err(problem);
        }
        Ok(Invited {
            invitation: InvitationView::new(made, now),
            text,
        })
    }

    /// Every invitation, the newest last.
    ///
    /// # Errors
    /// The store failed.
    pub async fn invitations(&self) -> Result<Vec<InvitationView>, Problem> {
        let now = Clock::now().wall.seconds();
        let all = self.store.invitations().await?.into_iter();
        Ok(all.map(|one| InvitationView::new(one, now)).collect())
    }

    /// One invitation.
    ///
    /// # Errors
    /// There is none of that id, or the store failed.
    pub async fn invitation(&self, id: &str) -> Result<InvitationView, Problem> {
        let now = Clock::now().wall.seconds();
        Ok(InvitationView::new(self.store.invitation(id).await?, now))
    }

    /// Takes an invitation back: nobody joins by it any more. Who did, stays.
    ///
    /// # Errors
    /// There is none of that id, or the store failed.
    pub async fn revoke_invitation(&self, id: &str) -> Result<InvitationView, Problem> {
        let _alone = self.changing.lock().await;
        let now = Clock::now().wall.seconds();
        let revoked = self.store.revoke_invitation(id, now).await?;
        Ok(InvitationView::new(revoked, now))
    }
}

/// How many keys and uses it has.
fn checked(invite: &Invite) -> Result<(u16, u32), Problem> {
    if !LIFE.contains(&invite.expires_in) {
        return Err(Problem::refused(
            format!("it cannot expire in {} s", invite.expires_in),
            "write 1m to 366d, such as 24h",
        ));
    }
    let pooled = invite.keys.is_some() || invite.uses.is_some();
    match invite.kind {
        Kind::Personal if invite.user.is_none() => Err(Problem::refused(
            "a personal invitation is for a user",
            "write --user, or --open or --machine",
        )),
        Kind::Machine if invite.user.is_some() || invite.require == Require::Login => {
            Err(Problem::refused(
                "a machine has no user and cannot log in",
                "leave --user and --require login away",
            ))
        }
        Kind::Machine if invite.name.is_none() => Err(Problem::refused(
            "a machine needs a name",
            "write --machine NAME",
        )),
        Kind::Personal | Kind::Machine if pooled => Err(Problem::refused(
            "one device joins by a personal invitation",
            "write --open for many",
        )),
        Kind::Personal | Kind::Machine => Ok((1, 1)),
        Kind::Open if invite.user.is_some() || invite.name.is_some() => Err(Problem::refused(
            "an open invitation is for nobody in particular",
            "leave --user and --name away",
        )),
        Kind::Open if invite.require == Require::Nothing => Err(Problem::refused(
            "an open invitation alone gives access to nobody",
            "write --require login or --require approval",
        )),
        Kind::Open => {
            let keys = invite.keys.unwrap_or(OPEN_KEYS);
            let uses = invite.uses.unwrap_or(OPEN_USES);
            if (1..=MAX_KEYS).contains(&keys) && (1..=MAX_USES).contains(&uses) {
                return Ok((keys, uses));
            }
            Err(Problem::refused(
                format!("{keys} keys and {uses} uses cannot be"),
                format!("write 1 to {MAX_KEYS} keys and 1 to {MAX_USES} uses"),
            ))
        }
    }
}
