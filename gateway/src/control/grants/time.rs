//! What time alone ends. The data plane cuts at the moment itself; here it is put away, written
//! down, and the client told.

use super::{Control, event, words};
use crate::audit::{Action, Actor, AuditEvent, Outcome};
use crate::control::refresh::NotInForce;
use crate::store::StoreError;
use postern_io::clock::Clock;
use postern_proto::device_api::GrantState;
use serde_json::json;

impl Control {
    /// Writes the lines of live grants that the program died over before it wrote them. At a start,
    /// before anybody can ask.
    ///
    /// # Errors
    /// The store failed.
    pub async fn tell_untold_grants(&self) -> Result<(), StoreError> {
        let now = Clock::now().wall.seconds();
        for grant in self.store.untold_grants(now).await? {
            let action = match grant.decided_by {
                Some(_) => Action::GrantApprove,
                None => Action::BreakGlass,
            };
            if grant.new.break_glass {
                self.asked.break_glass(&grant.new.entry);
            }
            let mut after = words(&grant, now);
            after["decided_by"] = json!(grant.decided_by);
            after["late"] = json!(true);
            let line = AuditEvent {
                reason: Some(grant.word.unwrap_or(grant.new.reason)),
                after: Some(after),
                ..event(action, Outcome::Done, Actor::Gateway, &grant.new.id)
            };
            self.note(line).await;
            self.store.told_grant(&grant.new.id).await?;
        }
        Ok(())
    }

    /// Puts away the grants whose time is over, and the requests that nobody decided.
    pub(in crate::control) async fn end_grants_by_time(&self) -> Result<(), NotInForce> {
        let due = self.store.grants_due(Clock::now().wall.seconds()).await?;
        for grant in due {
            let alone = self.changing.lock().await;
            let Ok(grant) = self.store.close_grant(&grant.new.id).await? else {
                continue;
            };
            let now = Clock::now().wall.seconds();
            let mut after = words(&grant, now);
            if grant.state(now) == GrantState::Over {
                match self.put_in_force(&grant.new.device).await {
                    Ok((record, cut)) => {
                        self.tell_changed(&record);
                        after["flows_cut"] = json!(cut.flows);
                    }
                    // Nobody has it any more.
                    Err(NotInForce::Store(StoreError::NoDevice { .. })) => {}
                    // It has ended all the same: every verdict knows when.
                    Err(error) => tracing::debug!(%error, "a grant that is over stays listed"),
                }
            }
            drop(alone);
            let line = AuditEvent {
                after: Some(after),
                ..event(
                    Action::GrantEnd,
                    Outcome::Done,
                    Actor::Gateway,
                    &grant.new.id,
                )
            };
            self.note(line).await;
        }
        Ok(())
    }
}
