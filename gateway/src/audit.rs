//! Who changed what, or tried to: lines with `kind: audit` in the same accounted log.
//!
//! An event gets its number when it is made, before anything waits for the disk: numbers count
//! from 1 in each run without gaps, so an event that never became a line shows as a missing
//! number, and the log states it. The highest number is kept in shared memory as well, so that
//! the run after a `kill -9` knows what its predecessor had made.

mod line;

use crate::flow_log::AuditEnd;
pub use line::{AuditKind, AuditLine, By};
use postern_io::clock::Clock;
use postern_proto::now::Wall;
use schemars::JsonSchema;
use serde::Serialize;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long [`Audit::write`] waits for the disk.
const PATIENCE: Duration = Duration::from_secs(1);

/// How soon it is tried again while the log's channel is full.
const AGAIN: Duration = Duration::from_millis(10);

/// One line of the log about a change or a try of one.
#[derive(Clone, Debug)]
pub struct AuditEvent {
    /// What was done.
    pub action: Action,
    /// What came of it.
    pub outcome: Outcome,
    /// Who did it.
    pub actor: Actor,
    /// What it was done to.
    pub object: Object,
    /// Why it was refused, or why it was done, in words.
    pub reason: Option<String>,
    /// What held before; no secret ever.
    pub before: Option<serde_json::Value>,
    /// What holds after; no secret ever.
    pub after: Option<serde_json::Value>,
}

/// What can be done: a closed list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// An invitation was made.
    Invite,
    /// An invitation was taken back.
    InvitationRevoke,
    /// An invitation was redeemed, or a try of it.
    Join,
    /// A device was added by hand.
    DeviceAdd,
    /// A device was approved.
    DeviceApprove,
    /// A device was denied approval.
    DeviceDeny,
    /// A device was revoked.
    DeviceRevoke,
    /// An attribute of a device was set or unset.
    DeviceAttribute,
    /// A label of a device was set or unset.
    DeviceLabel,
    /// A device got a new key.
    KeyRotate,
    /// A login was begun.
    LoginStart,
    /// A login succeeded or failed.
    Login,
    /// A session ended: by age, by an admin, by the next login.
    SessionEnd,
    /// A user was disabled.
    UserDisable,
    /// A user was enabled.
    UserEnable,
    /// Access for a while was asked for.
    GrantRequest,
    /// A request was approved: the grant lives.
    GrantApprove,
    /// A request was denied.
    GrantDeny,
    /// A request or a grant was taken back.
    GrantRevoke,
    /// A grant was over, or a request that nobody decided.
    GrantEnd,
    /// Access for a while was taken without approval.
    BreakGlass,
    /// Flows were cut by hand.
    FlowsKill,
    /// Another policy came into force, or was refused.
    PolicyLoad,
    /// A policy was put in force by a command.
    PolicyApply,
    /// A change of the policy was confirmed, or a try of it.
    PolicyConfirm,
    /// An earlier policy was put in force by a command.
    PolicyRollback,
    /// Nobody confirmed a change of the policy in time, and the one before came back.
    PolicyRevert,
    /// Other live settings of gateway.yaml came into force, or the file was refused.
    ConfigLoad,
    /// Posture checks of a device changed.
    Posture,
    /// A key tried what it may not: the admin API, enrolment by a device.
    Forbidden,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Done, and durable.
    Done,
    /// Not allowed.
    Refused,
    /// It could not be done.
    Failed,
}

/// Who did it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Over the admin socket: the user of the system, by the kernel's word.
    Admin {
        /// The uid.
        uid: Option<u32>,
    },
    /// An enrolled device.
    Device {
        /// Its name.
        name: String,
        /// Its user.
        user: Option<String>,
        /// Its outer address.
        from: Option<SocketAddr>,
    },
    /// Whoever holds an invitation.
    Guest {
        /// Which.
        invitation: String,
        /// Its outer address.
        from: Option<SocketAddr>,
    },
    /// The gateway itself: time has come.
    Gateway,
}

/// What it was done to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Object {
    /// `device`, `user`, `session`, `invitation`, `grant`, `flow`, `policy`, `config`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

/// The event could not be written: the log does not take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the change cannot be recorded: the log cannot be written")]
pub struct Unrecorded;

/// Writes audit lines. Cheap to clone. One without a log, as tests have it, tells the program's
/// own log only.
#[derive(Clone, Debug, Default)]
pub struct Audit {
    end: Option<Arc<AuditEnd>>,
}

impl Audit {
    pub(crate) fn new(end: Arc<AuditEnd>) -> Audit {
        Audit { end: Some(end) }
    }

    /// Whether a line could be written now. Ask before a change that gives somebody more: while
    /// the log cannot be written, only what takes access away is done.
    ///
    /// # Errors
    /// It could not.
    pub fn ready(&self) -> Result<(), Unrecorded> {
        match &self.end {
            Some(end) if !end.writable() => Err(Unrecorded),
            Some(_) | None => Ok(()),
        }
    }

    /// Writes the line and waits until it is on disk, a second at most. Who stops waiting, stops
    /// nothing: the event is written all the same.
    ///
    /// # Errors
    /// It is not. It stays queued where it can; the loss is counted where it cannot.
    pub async fn write(&self, at: Wall, event: AuditEvent) -> Result<(), Unrecorded> {
        tracing::info!(action = event.action.as_str(), outcome = ?event.outcome,
            object = event.object.kind, name = event.object.name, "audit");
        let Some(end) = self.end.clone() else {
            return Ok(());
        };
        let written = tokio::time::Instant::now() + PATIENCE;
        // A task of its own, because an asker that leaves takes the caller's away.
        let written = tokio::spawn(async move {
            let mut event = Box::new(event);
            let synced = loop {
                match end.offer(at, event) {
                    Ok(synced) => break synced,
                    Err(back) if tokio::time::Instant::now() < written => event = back,
                    Err(back) => {
                        end.lose(at, &back);
                        return Err(Unrecorded);
                    }
                }
                tokio::time::sleep(AGAIN).await;
            };
            match tokio::time::timeout_at(written, synced).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) | Err(_) => Err(Unrecorded),
            }
        });
        written.await.unwrap_or(Err(Unrecorded))
    }
}

impl Audit {
    /// Writes what has happened already, now. Where the disk takes longer than a second, the
    /// program's own log says so, and the line follows.
    pub async fn record(&self, event: AuditEvent) {
        let action = event.action.as_str();
        if self.write(Clock::now().wall, event).await.is_err() {
            tracing::warn!(
                action,
                "done, and not recorded yet: the log cannot be written"
            );
        }
    }
}

impl Action {
    /// As in the line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Action::Invite => "invite",
            Action::InvitationRevoke => "invitation-revoke",
            Action::Join => "join",
            Action::DeviceAdd => "device-add",
            Action::DeviceApprove => "device-approve",
            Action::DeviceDeny => "device-deny",
            Action::DeviceRevoke => "device-revoke",
            Action::DeviceAttribute => "device-attribute",
            Action::DeviceLabel => "device-label",
            Action::KeyRotate => "key-rotate",
            Action::LoginStart => "login-start",
            Action::Login => "login",
            Action::SessionEnd => "session-end",
            Action::UserDisable => "user-disable",
            Action::UserEnable => "user-enable",
            Action::GrantRequest => "grant-request",
            Action::GrantApprove => "grant-approve",
            Action::GrantDeny => "grant-deny",
            Action::GrantRevoke => "grant-revoke",
            Action::GrantEnd => "grant-end",
            Action::BreakGlass => "break-glass",
            Action::FlowsKill => "flows-kill",
            Action::PolicyLoad => "policy-load",
            Action::PolicyApply => "policy-apply",
            Action::PolicyConfirm => "policy-confirm",
            Action::PolicyRollback => "policy-rollback",
            Action::PolicyRevert => "policy-revert",
            Action::ConfigLoad => "config-load",
            Action::Posture => "posture",
            Action::Forbidden => "forbidden",
        }
    }
}

impl Outcome {
    /// As in the line.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Refused => "refused",
            Outcome::Failed => "failed",
        }
    }
}

#[cfg(test)]
mod tests;
