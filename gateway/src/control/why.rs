//! Why: for a device, about itself and nobody else.

use super::Control;
use super::device::logged_in_as_needed;
use crate::device_api::DeviceProblem;
use postern_engine::policy::{Subject, Tuple, TupleError};
use postern_engine::standing::{Held, Standing};
use postern_io::clock::Clock;
use postern_proto::device_api::{ErrorCode, WhyAnswer, WhyRequest};
use postern_proto::now::Wall;

impl Control {
    /// Whether a flow of the device would pass now, and why: the same as `policy explain` for it.
    ///
    /// # Errors
    /// What is asked for is no destination, or the store failed.
    pub async fn why(&self, name: &str, request: &WhyRequest) -> Result<WhyAnswer, DeviceProblem> {
        let to: Tuple = request.to.parse().map_err(|error: TupleError| {
            DeviceProblem::new(ErrorCode::BadRequest, error.what, error.help)
        })?;
        let now = Clock::now().wall;
        let record = self.as_it_stands(name).await?;
        let posture = self.checks_of(&record.standing);
        if let Some(sentence) = reaches_nothing(&record.standing, now) {
            return Ok(WhyAnswer {
                allow: false,
                text: format!("deny {to}: {sentence}"),
                rule: "default".to_owned(),
                nearest_rule: None,
                failed: vec![sentence.to_owned()],
                posture,
            });
        }
        let who = Subject {
            user: record.user,
            groups: record.groups,
            device: record.name,
            standing: record.standing,
        };
        let explained = self.policy.current().explain(&who, &to, now);
        let failed = explained.nearest.iter().flat_map(|rule| &rule.failed);
        Ok(WhyAnswer {
            allow: explained.allow,
            text: explained.to_string(),
            rule: explained.rule.clone(),
            failed: failed.map(|one| one.sentence.to_string()).collect(),
            nearest_rule: explained.nearest.as_ref().map(|rule| rule.rule.clone()),
            posture,
        })
    }
}

/// Why the device reaches nothing at all, whatever the policy says.
pub(super) fn reaches_nothing(standing: &Standing, now: Wall) -> Option<&'static str> {
    match standing.held {
        Some(Held::Approval) => Some("this device waits for an admin's approval, or was denied it"),
        Some(Held::Login) => Some("nobody has logged in on this device yet: `postern login`"),
        Some(Held::UserDisabled) => Some("the user of this device is disabled"),
        None if !logged_in_as_needed(standing, now) => {
            Some("the login of this device has ended: `postern login`")
        }
        None => None,
    }
}
