//! What an admin asked for, as audit events.

use super::Caller;
use crate::audit::{Action, Actor, Audit, AuditEvent, Object, Outcome};
use crate::problem::Problem;
use serde_json::Value;

/// A change that somebody asks for over the admin socket.
pub(super) struct Change {
    pub(super) action: Action,
    pub(super) object: Object,
    pub(super) before: Option<Value>,
}

impl Change {
    pub(super) fn new(action: Action, kind: &'static str, name: impl Into<String>) -> Change {
        Change {
            action,
            object: Object {
                kind,
                name: name.into(),
            },
            before: None,
        }
    }

    /// Records what came of it, and passes that on.
    pub(super) async fn came_to<T>(
        self,
        audit: &Audit,
        caller: Caller,
        done: Result<T, Problem>,
        after: impl FnOnce(&T) -> Value,
    ) -> Result<T, Problem> {
        let (outcome, reason, after) = match &done {
            Ok(done) => (Outcome::Done, None, Some(after(done))),
            Err(problem) => (problem.outcome(), Some(problem.error.clone()), None),
        };
        let event = AuditEvent {
            action: self.action,
            outcome,
            actor: caller.actor(),
            object: self.object,
            reason,
            before: self.before,
            after,
        };
        audit.record(event).await;
        done
    }
}

impl Caller {
    pub(super) fn actor(self) -> Actor {
        Actor::Admin { uid: self.uid }
    }

    /// For what remembers who made it.
    pub(super) fn name(self) -> String {
        self.uid
            .map_or_else(|| "unknown".to_owned(), |uid| format!("uid {uid}"))
    }
}
