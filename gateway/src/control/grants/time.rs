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
