//! What a device asks for itself.

use super::{Control, OWN_SHOWN, event, is_own, policy, refused, view, words};
use crate::audit::{Action, AuditEvent, Outcome};
use crate::control::device::actor;
use crate::device_api::DeviceProblem;
use crate::store::{AddGrantError, NewGrant};
use crate::worker_api::DeviceRecord;
use postern_history::reach::reaches_nothing;
use postern_io::clock::Clock;
use postern_proto::device_api::{ErrorCode, GrantView, Grants, RequestGrant, grants};
use std::net::SocketAddr;

impl Control {
    /// Takes a request for access; break-glass gives it at once. Durable, and in force, when it
    /// returns. The same request again gets the grant that it made.
    ///
    /// # Errors
    /// The policy does not let the device have it, which is recorded; it has asked for too much
    /// already; or it cannot be done now.
    pub async fn request_grant(
        &self,
        name: &str,
        outer: Option<SocketAddr>,
        request: &RequestGrant,
    ) -> Result<GrantView, DeviceProblem> {
        let reason = grants::reason(&request.reason).map_err(|error| bad(error.to_string()))?;
        self.may_give()?;
        let alone = self.changing.lock().await;
        let now = Clock::now().wall;
        let record = self.as_it_stands(name).await?;
        let action = match request.break_glass {
            true => Action::BreakGlass,
            false => Action::GrantRequest,
        };
        let line = |outcome| event(action, outcome, actor(&record, outer), &request.id);
        let (target, seconds) = (request.target.clone(), u64::from(request.seconds));
        // One that there is already needs no second leave of the policy.
        let known = self.store.grant(&request.id).await.ok();
        let allowed = match &known {
            Some(known) => Ok(known.new.entry.clone()),
            None => self.may_ask(&record, outer, request),
        };
        let entry = match allowed {
            Ok(entry) => entry,
            Err(problem) => {
                drop(alone);
                let why = format!("{}; the reason given: {reason}", problem.error);
                let wanted = serde_json::json!({ "target": target, "seconds": seconds });
                let line = AuditEvent {
                    reason: Some(why),
                    after: Some(wanted),
                    ..line(Outcome::Refused)
                };
                self.note(line).await;
                return Err(problem);
            }
        };
        let new = NewGrant {
            id: request.id.clone(),
            device: record.name.clone(),
            user: record.user.clone(),
            entry,
            target,
            seconds,
            reason: reason.to_owned(),
            break_glass: request.break_glass,
        };
        let (grant, is_new) = self.store.add_grant(&new, now.seconds()).await?;
        let put = match grant.new.break_glass {
            // Also when it is not new: the data plane may have been out of reach then.
            true => Some(self.put_in_force(name).await),
            false => None,
        };
        drop(alone);
        if is_new {
            let line = AuditEvent {
                reason: Some(reason.to_owned()),
                after: Some(words(&grant, now.seconds())),
                ..line(Outcome::Done)
            };
            if grant.new.break_glass {
                self.asked.break_glass(&grant.new.entry);
                tracing::info!(
                    grant = grant.new.id,
                    entry = grant.new.entry,
                    target = grant.new.target,
                    seconds,
                    "break-glass: access without approval"
                );
            }
            // It is stored, and told of whether or not it is in force yet.
            self.note(line).await;
            self.store.told_grant(&grant.new.id).await?;
        }
        if let Some(put) = put {
            let (record, _) = put?;
            self.tell_changed(&record);
        }
        Ok(view(grant, now.seconds()))
    }

    /// What a device and its user asked for, and what others ask and they may decide.
    ///
    /// # Errors
    /// The store failed.
    pub async fn grants_for(&self, name: &str) -> Result<Grants, DeviceProblem> {
        let now = Clock::now().wall.seconds();
        let record = self.as_it_stands(name).await?;
        let user = record.user.clone();
        let own = self
            .store
            .grants_of(name, user.as_deref(), OWN_SHOWN)
            .await?;
        let (to_decide, left_out) = self.to_decide(record).await?;
        Ok(Grants {
            own: own.into_iter().map(|grant| view(grant, now)).collect(),
            to_decide,
            left_out,
        })
    }

    /// One of those.
    ///
    /// # Errors
    /// There is none of that id that concerns the device, or the store failed.
    pub async fn grant_for(&self, name: &str, id: &str) -> Result<GrantView, DeviceProblem> {
        let now = Clock::now().wall.seconds();
        let grant = self.store.grant(id).await?;
        let record = self.as_it_stands(name).await?;
        let own = is_own(&grant, name, record.user.as_deref());
        if own || self.may_decide(record, None, &grant).is_ok() {
            return Ok(view(grant, now));
        }
        // Whose it is is nobody else's business.
        Err(DeviceProblem::new(
            ErrorCode::NotFound,
            "there is no such request of yours, or for you to decide",
            "see `postern requests`",
        ))
    }

    /// The entry of the policy that lets the device ask.
    fn may_ask(
        &self,
        record: &DeviceRecord,
        outer: Option<SocketAddr>,
        request: &RequestGrant,
    ) -> Result<String, DeviceProblem> {
        let now = Clock::now().wall;
        if let Some(sentence) = reaches_nothing(&record.standing, now) {
            return Err(refused(sentence, "a grant would not change that"));
        }
        policy::entry(
            &self.policy.current(),
            &self.subject(record.clone(), outer),
            request,
            now,
        )
    }
}

fn bad(error: String) -> DeviceProblem {
    DeviceProblem::new(ErrorCode::BadRequest, error, "see `postern request --help`")
}

impl From<AddGrantError> for DeviceProblem {
    fn from(error: AddGrantError) -> DeviceProblem {
        let words = error.to_string();
        match error {
            AddGrantError::Taken => DeviceProblem::new(ErrorCode::Taken, words, "ask again"),
            AddGrantError::TooManyOfDevice => DeviceProblem::new(
                ErrorCode::TooMany,
                words,
                "take one back: `postern requests`, `postern withdraw ID`",
            ),
            AddGrantError::TooMany => {
                DeviceProblem::new(ErrorCode::TooMany, words, "ask the gateway's admin")
            }
            AddGrantError::Store(error) => error.into(),
        }
    }
}
