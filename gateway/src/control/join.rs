//! A throw-away key becomes a device. Stored first, then accepted by its worker, then recorded,
//! then answered. Every try is recorded; of many that are refused, how many there were.

use super::Control;
use super::device::unavailable;
use crate::audit::{Action, Actor, AuditEvent, Object, Outcome};
use crate::device_api::DeviceProblem;
use crate::key_file;
use crate::store::{Invitation, InvitationState, Join, JoinError, Joined, Kem, StoreError};
use crate::worker_api::DeviceRecord;
use postern_io::clock::Clock;
use postern_proto::device_api::{ErrorCode, JoinAnswer, JoinRequest};
use postern_proto::facts::Facts;
use postern_proto::kem;
use postern_proto::keys::PublicKey;
use postern_proto::profile::ProfileGateway;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

/// Nobody joined: what the device hears, and what the log says.
struct NoJoin {
    problem: DeviceProblem,
    reason: String,
}

impl Control {
    /// Redeems an invitation. The same request gets the same answer again.
    ///
    /// # Errors
    /// The invitation is used, expired or revoked, the key or the name is somebody's, or it cannot
    /// be done now. Recorded; nothing was stored.
    pub async fn join(
        &self,
        guest: &PublicKey,
        from: Option<SocketAddr>,
        request: &JoinRequest,
    ) -> Result<JoinAnswer, DeviceProblem> {
        let Some(invitation) = self.store.invitation_of(guest).await? else {
            return Err(NoJoin::from(JoinError::NotInvited).problem);
        };
        match self.redeem(&invitation, guest, from, request).await {
            Ok(answer) => Ok(answer),
            Err(no) => {
                let outcome = if no.problem.code == ErrorCode::Unavailable {
                    Outcome::Failed
                } else {
                    Outcome::Refused
                };
                let told = self.refusals().try_by(&invitation.id, Clock::now().mono);
                if told {
                    let after = json!({ "device_key": request.public_key.fingerprint() });
                    let event = event(&invitation.id, from, outcome, Some(no.reason), Some(after));
                    self.note(event).await;
                }
                Err(no.problem)
            }
        }
    }

    /// Records how many refused tries had no line of their own. Once every few seconds.
    pub(super) async fn tell_refusals(&self) {
        let counted = self.refusals().counted(Clock::now().mono);
        for (invitation, tries) in counted {
            let reason = format!("{tries} more tries within a minute");
            let event = event(&invitation, None, Outcome::Refused, Some(reason), None);
            self.note(event).await;
        }
    }

    async fn redeem(
        &self,
        invitation: &Invitation,
        guest: &PublicKey,
        from: Option<SocketAddr>,
        request: &JoinRequest,
    ) -> Result<JoinAnswer, NoJoin> {
        if request.public_key == self.public_key {
            let own = StoreError::Refused {
                problem: "this is the gateway's own key".to_owned(),
                help: String::new(),
            };
            return Err(JoinError::Taken(own).into());
        }
        let hash = request.kem_key.as_deref().map(hash);
        let before = self
            .store
            .joined_before(&invitation.id, &request.public_key, hash.as_deref())
            .await?;
        if let Some(joined) = before {
            let _alone = self.changing.lock().await;
            return self.again(joined, &request.public_key, from).await;
        }
        // Asked again inside the transaction; here it saves the work of what comes between.
        match invitation.state(Clock::now().wall.seconds()) {
            InvitationState::Open => {}
            InvitationState::Used => return Err(JoinError::Used.into()),
            InvitationState::Expired => return Err(JoinError::Expired.into()),
            InvitationState::Revoked => return Err(JoinError::Revoked.into()),
        }
        let facts = self.acceptable(request)?;
        let kem = match (&request.kem_key, hash) {
            (Some(key), Some(hash)) => Some(seal(key, hash)?),
            _ => None,
        };
        self.may_give()?;
        let _alone = self.changing.lock().await;
        let join = Join {
            guest: *guest,
            key: request.public_key,
            name: request.name.clone(),
            hostname: facts.hostname.clone(),
            kem,
            approval: self.config.get().require_approval,
        };
        let joined = self
            .store
            .join(&join, || Clock::now().wall.seconds())
            .await?;
        if joined.again {
            // The same request was faster. What it was given is not taken back.
            return self.again(joined, &request.public_key, from).await;
        }
        let name = &joined.device.record.name;
        let now = Clock::now().wall.seconds();
        self.store.save_report(name, &facts, now).await?;
        let record = self.as_it_stands(name).await?;
        self.let_in(&joined, &record).await?;
        self.note_join(&joined, from).await?;
        Ok(self.answer(&joined, &record)?)
    }

    async fn let_in(&self, joined: &Joined, record: &DeviceRecord) -> Result<(), NoJoin> {
        let noted = self.store.noted(record.clone(), Clock::now().wall).await?;
        match self.workers.add_device(noted).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(reason)) => {
                self.store.forget_join(&joined.device).await?;
                let now = Clock::now().wall;
                self.store.end_facts(&record.name, now).await?;
                Err(NoJoin {
                    problem: unavailable(&JoinError::NotInvited),
                    reason,
                })
            }
            // It is stored; the same request, once the worker answers, finishes it.
            Err(error) => Err(unavailable(&error).into()),
        }
    }

    /// The answer got lost: here it is again. The caller holds `changing`.
    async fn again(
        &self,
        mut joined: Joined,
        key: &PublicKey,
        from: Option<SocketAddr>,
    ) -> Result<JoinAnswer, NoJoin> {
        let name = joined.device.record.name.clone();
        // It may have been revoked, or have got another key, while this waited for its turn.
        joined.device = self.store.device(&name).await?;
        if joined.device.revoked.is_some() {
            return Err(JoinError::Revoked.into());
        }
        if joined.device.record.key != *key {
            return Err(JoinError::Used.into());
        }
        let record = self.as_it_stands(&name).await?;
        // Its worker knows it, unless it gave no answer the first time.
        let noted = self.store.noted(record.clone(), Clock::now().wall).await?;
        match self.workers.add_device(noted).await {
            Ok(Ok(())) => self.note_join(&joined, from).await?,
            // Known already: the line is written.
            Ok(Err(_)) => {}
            Err(error) => return Err(unavailable(&error).into()),
        }
        Ok(self.answer(&joined, &record)?)
    }

    /// Somebody has joined.
    async fn note_join(&self, joined: &Joined, from: Option<SocketAddr>) -> Result<(), NoJoin> {
        let devices = self.store.count_active().await?;
        self.devices.store(devices, Ordering::Relaxed);
        let invitation = joined.device.invitation.as_deref().unwrap_or_default();
        let after = Some(words(joined));
        let mut done = event(invitation, from, Outcome::Done, None, after);
        done.object = Object {
            kind: "device",
            name: joined.device.record.name.clone(),
        };
        self.note(done).await;
        Ok(())
    }

    fn answer(&self, joined: &Joined, record: &DeviceRecord) -> Result<JoinAnswer, DeviceProblem> {
        let config = self.config.get();
        let (v4, v6) = config.pool.gateway();
        Ok(JoinAnswer {
            name: record.name.clone(),
            addresses: vec![record.v4.into(), record.v6.into()],
            gateway: ProfileGateway {
                public_key: self.public_key,
                endpoints: config.endpoints.clone(),
                tunnel_addresses: vec![v4.into(), v6.into()],
            },
            config: self.client_config(),
            state: self.status_of(&joined.device, record)?.state,
            kem_ciphertext: joined.kem_ciphertext.clone(),
        })
    }

    fn acceptable(&self, request: &JoinRequest) -> Result<Facts, DeviceProblem> {
        let watched = self.policy.current().watched();
        request.facts.clone().accept(&watched).map_err(|error| {
            let help = "docs/control-api.yaml says what a report may hold";
            DeviceProblem::new(ErrorCode::BadRequest, error.to_string(), help)
        })
    }

    fn refusals(&self) -> std::sync::MutexGuard<'_, crate::refusals::Refusals> {
        // Counts are whole at every moment, so one who panicked with them left them good.
        self.refusals
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn seal(key: &str, key_hash: String) -> Result<Kem, DeviceProblem> {
    let random = key_file::random::<32>().map_err(|error| unavailable(&error))?;
    let (ciphertext, preshared_key) = kem::seal(key, random).map_err(|error| {
        let help = "send what `postern` sends, or no key for no pre-shared key";
        DeviceProblem::new(ErrorCode::BadRequest, error.to_string(), help)
    })?;
    Ok(Kem {
        key_hash,
        ciphertext,
        preshared_key,
    })
}

fn hash(text: &str) -> String {
    let mut hex = String::new();
    for byte in Sha256::digest(text) {
        // Writing to a String cannot fail.
        let _ = write!(hex, "{byte:02x}");
    }
    hex
}

fn event(
    invitation: &str,
    from: Option<SocketAddr>,
    outcome: Outcome,
    reason: Option<String>,
    after: Option<Value>,
) -> AuditEvent {
    AuditEvent {
        action: Action::Join,
        outcome,
        actor: Actor::Guest {
            invitation: invitation.to_owned(),
            from,
        },
        object: Object {
            kind: "invitation",
            name: invitation.to_owned(),
        },
        reason,
        before: None,
        after,
    }
}

fn words(joined: &Joined) -> Value {
    let record = &joined.device.record;
    json!({
        "user": record.user,
        "groups": record.groups,
        "device_key": record.key.fingerprint(),
        "addresses": [record.v4.to_string(), record.v6.to_string()],
        "state": joined.device.state(),
        "preshared_key": record.preshared_key.is_some(),
    })
}

impl From<DeviceProblem> for NoJoin {
    fn from(problem: DeviceProblem) -> NoJoin {
        NoJoin {
            reason: problem.error.clone(),
            problem,
        }
    }
}

impl From<StoreError> for NoJoin {
    fn from(error: StoreError) -> NoJoin {
        DeviceProblem::from(error).into()
    }
}

impl From<JoinError> for NoJoin {
    fn from(error: JoinError) -> NoJoin {
        let reason = error.to_string();
        let say = |code, help: &str| DeviceProblem::new(code, reason.clone(), help);
        let another = "ask the admin for another invitation";
        let problem = match error {
            JoinError::NotInvited => say(ErrorCode::Forbidden, another),
            JoinError::Used => say(ErrorCode::InvitationUsed, another),
            JoinError::Expired => say(ErrorCode::InvitationExpired, another),
            JoinError::Revoked => say(ErrorCode::InvitationRevoked, another),
            // Whose it is, is for the log alone.
            JoinError::Taken(_) => DeviceProblem::new(
                ErrorCode::Taken,
                "the name or the key is or was another device's",
                "choose another name; a device makes itself a new key",
            ),
            JoinError::BadName(error) | JoinError::Store(error) => error.into(),
        };
        NoJoin { problem, reason }
    }
}
