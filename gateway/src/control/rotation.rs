//! A new key for the same device. Both keys are answered until the new one is used; then the old
//! one is silence for ever. Flows and addresses stay.

use super::Control;
use super::device::{actor, unavailable};
use crate::audit::{Action, AuditEvent, Object, Outcome};
use crate::device_api::DeviceProblem;
use crate::key_file;
use crate::store::StoreError;
use crate::worker_api::DeviceRecord;
use postern_io::clock::Clock;
use postern_proto::device_api::{ErrorCode, RotateAnswer, RotateRequest};
use postern_proto::kem;
use postern_proto::keys::{PresharedKey, PublicKey};
use serde_json::json;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::{MutexGuard, PoisonError};

impl Control {
    /// Accepts the key that a device wants to have. Durable and answered by the data plane when it
    /// returns.
    ///
    /// # Errors
    /// The key is somebody's or is none, or it cannot be done now. Then the old key serves on.
    pub async fn rotate(
        &self,
        name: &str,
        outer: Option<SocketAddr>,
        request: &RotateRequest,
    ) -> Result<RotateAnswer, DeviceProblem> {
        if request.public_key == self.public_key {
            return Err(taken("this is the gateway's own key"));
        }
        let (ciphertext, preshared) = match &request.kem_key {
            Some(key) => {
                let (ciphertext, key) = seal(key)?;
                (Some(ciphertext), Some(key))
            }
            None => (None, None),
        };
        self.may_give()?;
        let _alone = self.changing.lock().await;
        let pending = self.store.pending_rotations().await?.into_iter();
        let before = pending
            .map(|(device, next, preshared)| (device.record.name, next, preshared))
            .find(|(device, ..)| device == name)
            .map(|(_, next, preshared)| (next, preshared));
        let (next, now) = (request.public_key, Clock::now().wall.seconds());
        let device = self
            .store
            .begin_rotation(name, &next, preshared.as_ref(), now)
            .await
            .map_err(DeviceProblem::from)
            .map_err(|problem| match problem.code == ErrorCode::BadRequest {
                true => taken(&problem.error),
                false => problem,
            })?;
        let replaced = before.as_ref().map(|(key, _)| *key);
        self.accept(&device.record, next, preshared, before).await?;
        if let Some(replaced) = replaced.filter(|replaced| *replaced != next) {
            self.silence(&replaced).await;
        }
        let event = rotation(
            &device.record,
            outer,
            &next,
            "the new key serves once it is used",
        );
        self.note(event).await;
        Ok(RotateAnswer {
            kem_ciphertext: ciphertext,
        })
    }

    /// The data plane has seen the new key at work: from now on it is the device's.
    pub async fn rotated(&self, old: &PublicKey, new: &PublicKey) {
        let _alone = self.changing.lock().await;
        let now = Clock::now().wall.seconds();
        match self.store.finish_rotation(old, new, now).await {
            Ok(Some(device)) => {
                self.silence(old).await;
                let mut before = device.record.clone();
                before.key = *old;
                let event = rotation(&before, None, new, "the new key is in use");
                self.note(event).await;
            }
            // Finished already, or the device was revoked meanwhile.
            Ok(None) => tracing::debug!(key = new.fingerprint(), "no rotation waits for this key"),
            // Both keys are stored, so the next start would go on with it, too.
            Err(error) => {
                tracing::error!(%error, "a new key is in use and not stored; it is tried again");
                self.unfinished().insert((*old, *new));
            }
        }
    }

    /// Stores what could not be stored when a new key came into use.
    pub(super) async fn finish_rotations(&self) {
        let unfinished = std::mem::take(&mut *self.unfinished());
        for (old, new) in unfinished {
            self.rotated(&old, &new).await;
        }
    }

    fn unfinished(&self) -> MutexGuard<'_, BTreeSet<(PublicKey, PublicKey)>> {
        // Whole at every moment, so one who panicked with it left it good.
        self.unfinished
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// Goes on with rotations that were under way when the gateway stopped.
    ///
    /// # Errors
    /// The store failed.
    pub async fn resume_rotations(&self) -> Result<(), StoreError> {
        for (device, next, preshared) in self.store.pending_rotations().await? {
            let name = &device.record.name;
            let accepted = self
                .workers
                .rotate_device(&device.record, next, preshared)
                .await;
            match accepted {
                Ok(Ok(())) => tracing::info!(device = name, "a new key is still to be used"),
                Ok(Err(reason)) => tracing::warn!(device = name, reason, "the new key is refused"),
                Err(error) => tracing::warn!(device = name, %error, "the new key is not answered"),
            }
        }
        Ok(())
    }

    async fn accept(
        &self,
        record: &DeviceRecord,
        next: PublicKey,
        preshared: Option<PresharedKey>,
        before: Option<(PublicKey, Option<PresharedKey>)>,
    ) -> Result<(), DeviceProblem> {
        let accepted = self.workers.rotate_device(record, next, preshared).await;
        let problem = match accepted {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(reason)) => {
                tracing::warn!(device = record.name, reason, "a new key is refused");
                DeviceProblem::new(
                    ErrorCode::Unavailable,
                    "the gateway takes no further key now",
                    "try again later; the old key serves on",
                )
            }
            Err(error) => unavailable(&error),
        };
        let name = &record.name;
        match before {
            // The data plane may have seen that one at work already, and says so next.
            Some((key, preshared)) => {
                let now = Clock::now().wall.seconds();
                let kept = self
                    .store
                    .begin_rotation(name, &key, preshared.as_ref(), now);
                kept.await?;
            }
            None => {
                self.store.cancel_rotation(name).await?;
            }
        }
        Err(problem)
    }

    /// A key that nobody may use any more meets silence.
    async fn silence(&self, key: &PublicKey) {
        if let Err(error) = self.workers.strike(*key).await {
            // The worker knows it no longer, so it gets no further than a wasted curve operation.
            tracing::warn!(%error, "the front door still lets a former key pass");
        }
    }
}

fn seal(key: &str) -> Result<(String, PresharedKey), DeviceProblem> {
    let random = key_file::random::<32>().map_err(|error| unavailable(&error))?;
    kem::seal(key, random).map_err(|error| {
        let help = "send what `postern` sends, or no key for no pre-shared key";
        DeviceProblem::new(ErrorCode::BadRequest, error.to_string(), help)
    })
}

fn taken(error: &str) -> DeviceProblem {
    DeviceProblem::new(ErrorCode::Taken, error, "make a new key pair")
}

fn rotation(
    record: &DeviceRecord,
    outer: Option<SocketAddr>,
    next: &PublicKey,
    reason: &str,
) -> AuditEvent {
    AuditEvent {
        action: Action::KeyRotate,
        outcome: Outcome::Done,
        actor: actor(record, outer),
        object: Object {
            kind: "device",
            name: record.name.clone(),
        },
        reason: Some(reason.to_owned()),
        before: Some(json!({ "key": record.key.fingerprint() })),
        after: Some(json!({ "key": next.fingerprint() })),
    }
}
