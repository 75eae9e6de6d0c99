//! Who changed what, or tried to: lines with `kind: audit` in the same accounted log. Stub: the
//! lines go to the program's own log until the next commit.

use postern_proto::now::Wall;
use serde::Serialize;
use std::net::SocketAddr;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
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
    /// Flows were cut by hand.
    FlowsKill,
    /// Another policy came into force, or was refused.
    PolicyLoad,
    /// Posture checks of a device changed.
    Posture,
    /// A key tried what it may not: the admin API, enrolment by a device.
    Forbidden,
}

/// What came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
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
    /// `device`, `user`, `session`, `invitation`, `flow`, `policy`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
}

/// The event could not be written: the log does not take it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the change cannot be recorded: the log cannot be written")]
pub struct Unrecorded;

/// Writes audit lines. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Audit {}

impl Audit {
    /// Whether a line could be written now. Ask before a change that gives somebody more: while
    /// the log cannot be written, only what takes access away is done.
    ///
    /// # Errors
    /// It could not.
    pub fn ready(&self) -> Result<(), Unrecorded> {
        Ok(())
    }

    /// Writes the line and waits until it is on disk, a second at most.
    ///
    /// # Errors
    /// It is not. It stays queued where it can; the loss is counted where it cannot.
    pub async fn write(&self, at: Wall, event: AuditEvent) -> Result<(), Unrecorded> {
        let _ = at;
        tracing::info!(?event, "audit");
        Ok(())
    }
}
