//! What devices decide about each other's requests, and take back.

use super::{Control, OTHERS_SHOWN, decided, event, is_own, policy, refused, view, words};
use crate::audit::{Action, Actor, AuditEvent, Outcome};
use crate::control::device::actor;
use crate::device_api::DeviceProblem;
use crate::store::StoredGrant;
use crate::worker_api::DeviceRecord;
use postern_history::reach::reaches_nothing;
use postern_io::clock::Clock;
use postern_proto::device_api::{DecideGrant, ErrorCode, GrantState, GrantView, grants};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// What is decided about a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It may live.
    Approve,
    /// It may not.
    Deny,
    /// It is over, whether it waits or lives.
    End,
}

/// Who decides, for the store and the log.
pub(super) struct Decider {
    /// A user where one is known.
    pub(super) name: String,
    pub(super) actor: Actor,
    /// For the log: who the actor says they are, where it is not the actor.
    pub(super) said: Option<serde_json::Value>,
}

impl Decision {
    pub(super) fn action(self) -> Action {
        match self {
            Decision::Approve => Action::GrantApprove,
            Decision::Deny => Action::GrantDeny,
            Decision::End => Action::GrantRevoke,
        }
    }
}

impl Control {
    /// Approves, denies or ends a grant for a device. What that gives is in force, and what it
    /// ends is cut, when this returns.
    ///
    /// # Errors
    /// It may not, which is recorded; the grant is not in the state for it; or it cannot be done
    /// now.
    pub(crate) async fn decide_grant(
        &self,
        name: &str,
        outer: Option<SocketAddr>,
        id: &str,
        decision: Decision,
        said: &DecideGrant,
    ) -> Result<GrantView, DeviceProblem> {
        let word = said.reason.as_deref().map(grants::reason).transpose();
        let word = word.map_err(|error| {
            DeviceProblem::new(ErrorCode::BadRequest, error.to_string(), "see --help")
        })?;
        let record = self.as_it_stands(name).await?;
        let decider = Decider {
            name: record.user.clone().unwrap_or_else(|| name.to_owned()),
            actor: actor(&record, outer),
            said: None,
        };
        let grant = self.store.grant(id).await?;
        let own = is_own(&grant, name, record.user.as_deref());
        let may = match (own, decision) {
            (true, Decision::End) => Ok(()),
            (true, Decision::Approve | Decision::Deny) => Err(refused(
                "nobody decides about a request of their own, on whichever of their devices",
                "ask somebody else; `postern withdraw ID` takes it back",
            )),
            (false, _) => self.may_decide(record, outer, &grant),
        };
        if let Err(problem) = may {
            self.tell_refused(&decider, decision, id, &problem.error)
                .await;
            return Err(problem);
        }
        self.decide(&decider, id, decision, word).await
    }

    /// The same for whoever may.
    pub(super) async fn decide(
        &self,
        decider: &Decider,
        id: &str,
        decision: Decision,
        word: Option<&str>,
    ) -> Result<GrantView, DeviceProblem> {
        if decision == Decision::Approve {
            self.may_give()?;
        }
        let alone = self.changing.lock().await;
        let now = Clock::now().wall.seconds();
        let before = self.store.grant(id).await?;
        if decision == Decision::Approve
            && before.state(now) == GrantState::Waits
            && let Err(problem) = self.can_live(&before).await
        {
            drop(alone);
            self.tell_refused(decider, decision, id, &problem.error)
                .await;
            return Err(problem);
        }
        let by = decider.name.as_str();
        let changed = match decision {
            Decision::Approve => self.store.approve_grant(id, by, word, now).await?,
            Decision::Deny => self.store.deny_grant(id, by, word, now).await?,
            Decision::End => self.store.end_grant(id, by, word, now).await?,
        };
        // Who did the same before, and did not hear of it, hears it now; and the data plane may
        // have been out of reach then.
        let again = changed.is_err();
        let grant = match changed {
            Ok(grant) => grant,
            Err(_) if is_done(&before, decision, by, now) => before.clone(),
            Err(_) => return Err(decided(&before, now)),
        };
        let mut after = words(&grant, now);
        let mut put = None;
        if before.state(now) == GrantState::Live || grant.approved == Some(true) {
            put = Some(self.put_in_force(&grant.new.device).await);
        }
        if let Some(Ok((_, cut))) = &put {
            after["flows_cut"] = json!(cut.flows);
        }
        drop(alone);
        if !again {
            if let Some(said) = &decider.said {
                after["by"] = said.clone();
            }
            let line = AuditEvent {
                reason: word.map(str::to_owned),
                before: Some(json!({ "state": before.state(now).as_str() })),
                after: Some(after),
                ..event(decision.action(), Outcome::Done, decider.actor.clone(), id)
            };
            // It is stored, and told of whether or not it is in force yet.
            self.note(line).await;
            self.store.told_grant(id).await?;
        }
        if let Some(put) = put {
            let (record, _) = put?;
            self.tell_changed(&record);
        }
        Ok(view(grant, now))
    }

    pub(super) async fn tell_refused(
        &self,
        decider: &Decider,
        decision: Decision,
        id: &str,
        why: &str,
    ) {
        let line = AuditEvent {
            reason: Some(why.to_owned()),
            after: decider.said.clone().map(|said| json!({ "by": said })),
            ..event(
                decision.action(),
                Outcome::Refused,
                decider.actor.clone(),
                id,
            )
        };
        self.note(line).await;
    }

    /// Whether somebody else's grant is for this device to decide about.
    pub(super) fn may_decide(
        &self,
        record: DeviceRecord,
        outer: Option<SocketAddr>,
        grant: &StoredGrant,
    ) -> Result<(), DeviceProblem> {
        let now = Clock::now().wall;
        if record.user.is_none() {
            return Err(refused(
                "a machine decides nothing",
                "ask somebody who may, or the gateway's admin",
            ));
        }
        if let Some(sentence) = reaches_nothing(&record.standing, now) {
            return Err(refused(sentence, "then decide"));
        }
        match policy::may_approve(
            &self.policy.current(),
            &self.subject(record, outer),
            &grant.new.entry,
            now,
        ) {
            true => Ok(()),
            false => Err(refused(
                "the policy does not let you decide about this request",
                "ask one of the approvers, or the gateway's admin",
            )),
        }
    }

    /// Those that are for this device to decide about, and how many more there are.
    pub(super) async fn to_decide(
        &self,
        record: DeviceRecord,
    ) -> Result<(Vec<GrantView>, u32), DeviceProblem> {
        let now = Clock::now().wall;
        if record.user.is_none() || reaches_nothing(&record.standing, now).is_some() {
            return Ok(Default::default());
        }
        let (policy, who) = (self.policy.current(), self.subject(record, None));
        let mut may = BTreeMap::new();
        let (mut shown, mut left_out) = (Vec::new(), 0);
        for grant in self.store.grants(false).await? {
            let open = matches!(
                grant.state(now.seconds()),
                GrantState::Waits | GrantState::Live
            );
            if !open || is_own(&grant, &who.device, who.user.as_deref()) {
                continue;
            }
            let entry = grant.new.entry.clone();
            let may = may
                .entry(entry)
                .or_insert_with_key(|entry| policy::may_approve(&policy, &who, entry, now));
            match *may {
                true if shown.len() < OTHERS_SHOWN => shown.push(view(grant, now.seconds())),
                true => left_out += 1,
                false => {}
            }
        }
        Ok((shown, left_out))
    }

    /// Whether a request may come to life now: what was allowed when it was made may not be any
    /// more.
    async fn can_live(&self, grant: &StoredGrant) -> Result<(), DeviceProblem> {
        let now = Clock::now().wall;
        let again = "it can be asked for again when that has changed";
        if self
            .store
            .device(&grant.new.device)
            .await?
            .revoked
            .is_some()
        {
            return Err(refused("the device is revoked", again));
        }
        let record = self.as_it_stands(&grant.new.device).await?;
        if record.standing.held.is_some() {
            return Err(refused(
                "the device reaches nothing: see `device show`",
                again,
            ));
        }
        policy::still(
            &self.policy.current(),
            &self.subject(record, None),
            grant,
            now,
        )
        .map_err(|why| refused(why, again))
    }
}

/// Whether the same one has done the same already.
fn is_done(grant: &StoredGrant, decision: Decision, by: &str, now: u64) -> bool {
    let is_me = |name: &Option<String>| name.as_deref() == Some(by);
    match decision {
        Decision::Approve => grant.state(now) == GrantState::Live && is_me(&grant.decided_by),
        Decision::Deny => grant.state(now) == GrantState::Denied && is_me(&grant.decided_by),
        Decision::End => {
            matches!(
                grant.state(now),
                GrantState::Revoked | GrantState::Withdrawn
            ) && is_me(&grant.ended_by)
        }
    }
}
