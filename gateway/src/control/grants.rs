//! Grants: a device asks for more for a while, somebody else approves, time ends it.
//!
//! Who may ask and who may approve is the policy's word (`policy`); the store keeps what became of
//! it; a live grant is part of how its device stands, so the data plane judges by it and cuts at
//! its end. Nobody approves their own, on whichever of their devices.

mod admin;
mod ask;
mod decide;
mod policy;
mod time;

pub(crate) use decide::Decision;

use super::Control;
use crate::audit::{Action, Actor, AuditEvent, Object, Outcome};
use crate::device_api::DeviceProblem;
use crate::past::subject_of;
use crate::store::StoredGrant;
use crate::worker_api::DeviceRecord;
use postern_engine::policy::Subject;
use postern_proto::device_api::{ErrorCode, GrantView};
use serde_json::{Value, json};
use std::net::SocketAddr;

/// Grants of its own that a device is shown: what is open, and the newest that are not.
const OWN_SHOWN: u32 = 50;

/// Grants of others that a device is shown to decide about. With [`OWN_SHOWN`] less than 512 KiB.
const OTHERS_SHOWN: usize = 200;

/// For devices and admins.
fn view(grant: StoredGrant, now: u64) -> GrantView {
    GrantView {
        state: grant.state(now),
        decide_by: grant.decide_by(),
        id: grant.new.id,
        device: grant.new.device,
        user: grant.new.user,
        target: grant.new.target,
        seconds: grant.new.seconds,
        reason: grant.new.reason,
        break_glass: grant.new.break_glass,
        entry: grant.new.entry,
        asked: grant.asked,
        decided: grant.decided,
        decided_by: grant.decided_by,
        word: grant.word,
        since: grant.since,
        until: grant.until,
        ended: grant.ended,
        ended_by: grant.ended_by,
    }
}

/// Whether a grant is of this device, or of another one of its user.
fn is_own(grant: &StoredGrant, device: &str, user: Option<&str>) -> bool {
    let same_user = match (&grant.new.user, user) {
        (Some(theirs), Some(user)) => theirs.eq_ignore_ascii_case(user),
        (None, _) | (_, None) => false,
    };
    same_user || grant.new.device == device
}

impl Control {
    /// As a policy sees a device that asks from `outer`, or that was heard last from where the data
    /// plane says.
    fn subject(&self, record: DeviceRecord, outer: Option<SocketAddr>) -> Subject {
        let outer = outer.map(|outer| outer.ip());
        let outer = outer.or_else(|| self.heard_at(&record));
        let mut who = subject_of(record);
        who.standing.outer = outer.map(|outer| outer.to_canonical());
        who
    }
}

/// What is written about a grant.
fn words(grant: &StoredGrant, now: u64) -> Value {
    json!({
        "state": grant.state(now).as_str(),
        "user": grant.new.user,
        "device": grant.new.device,
        "entry": grant.new.entry,
        "target": grant.new.target,
        "seconds": grant.new.seconds,
        "reason": grant.new.reason,
        "break_glass": grant.new.break_glass,
        "since": grant.since,
        "until": grant.until,
    })
}

fn event(action: Action, outcome: Outcome, actor: Actor, id: &str) -> AuditEvent {
    AuditEvent {
        action,
        outcome,
        actor,
        object: Object {
            kind: "grant",
            name: id.to_owned(),
        },
        reason: None,
        before: None,
        after: None,
    }
}

fn refused(error: impl Into<String>, help: impl Into<String>) -> DeviceProblem {
    DeviceProblem::new(ErrorCode::GrantRefused, error, help)
}

/// What is not open any more cannot be decided or ended.
fn decided(grant: &StoredGrant, now: u64) -> DeviceProblem {
    let state = grant.state(now).as_str();
    DeviceProblem::new(
        ErrorCode::GrantDecided,
        format!("request {} is {state} already", grant.new.id),
        "`postern requests` shows how it stands",
    )
}
