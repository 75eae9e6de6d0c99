//! What a device reports about itself is stored, and its flows are judged by it.

use super::Control;
use super::device::actor;
use crate::audit::{Action, AuditEvent, Object, Outcome};
use crate::device_api::DeviceProblem;
use postern_engine::standing::{Reported, Standing};
use postern_io::clock::Clock;
use postern_proto::device_api::{CheckView, ErrorCode};
use postern_proto::facts::Facts;
use postern_proto::now::Wall;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::sync::Arc;

impl Control {
    /// Takes a report. Flows that a check now forbids are cut when this returns. Only a check that
    /// flips is a line in the log: reports come every minute.
    ///
    /// # Errors
    /// The report holds what no client reports, or it cannot be stored now; or a check would hold
    /// by it while the log cannot be written.
    pub async fn report(
        &self,
        name: &str,
        outer: Option<SocketAddr>,
        facts: Facts,
    ) -> Result<Vec<CheckView>, DeviceProblem> {
        let watched = self.policy.current().watched();
        let facts = facts.accept(&watched).map_err(|error| {
            let help = "docs/control-api.yaml says what a report may hold";
            DeviceProblem::new(ErrorCode::BadRequest, error.to_string(), help)
        })?;
        let alone = self.changing.lock().await;
        let earlier = self.as_it_stands(name).await?;
        let before = self.checks_of(&earlier.standing);
        self.may_hold(&earlier.standing, &before, &facts)?;
        let now = Clock::now().wall.seconds();
        self.store.save_report(name, &facts, now).await?;
        let (record, cut) = self.put_in_force(name).await?;
        // A log that is slow keeps no revocation waiting.
        drop(alone);
        let after = self.checks_of(&record.standing);
        let flipped: Vec<&CheckView> = after
            .iter()
            .filter(|check| {
                let was = before.iter().find(|was| was.name == check.name);
                was.is_none_or(|was| was.holds != check.holds)
            })
            .collect();
        if !flipped.is_empty() {
            let words = |checks: &[CheckView]| -> Value {
                let named = |check: &&CheckView| flipped.iter().any(|one| one.name == check.name);
                let each = checks.iter().filter(named).map(|check| {
                    let words = json!({ "holds": check.holds, "received": check.received });
                    (check.name.clone(), words)
                });
                Value::Object(each.collect::<Map<_, _>>())
            };
            let mut held = words(&after);
            held["flows_cut"] = json!(cut.flows);
            let event = AuditEvent {
                action: Action::Posture,
                outcome: Outcome::Done,
                actor: actor(&record, outer),
                object: Object {
                    kind: "device",
                    name: name.to_owned(),
                },
                reason: None,
                before: Some(words(&before)),
                after: Some(held),
            };
            self.note(event).await;
        }
        Ok(after)
    }

    /// A report by which a check comes to hold gives access, and waits until the log can tell of
    /// it. Without one the device's checks fail by themselves.
    fn may_hold(
        &self,
        earlier: &Standing,
        before: &[CheckView],
        facts: &Facts,
    ) -> Result<(), DeviceProblem> {
        let now = Clock::now().wall;
        let reported = Reported {
            facts: Arc::new(facts.clone()),
            at: now,
            fresh_until: Wall(u64::MAX),
        };
        let standing = Standing {
            reported: Some(reported),
            ..earlier.clone()
        };
        let after = self.checks_of(&standing);
        let held = |name: &str| before.iter().any(|was| was.name == name && was.holds);
        match after.iter().any(|check| check.holds && !held(&check.name)) {
            true => self.may_give(),
            false => Ok(()),
        }
    }
}
