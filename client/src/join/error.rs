//! Why a join failed: each case in its own words, and what to do next.

use crate::door::DoorError;
use postern_proto::device_api::ErrorCode;
use postern_proto::invitation::BadInvitation;
use std::io;
use std::path::PathBuf;

use crate::api::CallError;

/// Why there is no profile, or no access.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The string.
    #[error(transparent)]
    Invitation(#[from] BadInvitation),
    /// There is a profile of that name.
    #[error(
        "{} is there already; take another --profile, or remove it if that device is no longer yours", .0.display()
    )]
    Exists(PathBuf),
    /// Nowhere to put it.
    #[error("no home for this user: say where with --profile FILE")]
    NoFolder,
    /// The gateway's name cannot be looked up.
    #[error("cannot look up the gateway: {0}; is this computer on a network?")]
    LookUp(String),
    /// Nothing came back.
    #[error(
        "no answer from {0}. The gateway is silent to those it does not know: the invitation may be long expired or revoked, or this network lets no UDP through; try another network, or ask for a new invitation"
    )]
    Silent(String),
    /// Redeemed by somebody else.
    #[error(
        "the invitation was used already, by another device; ask for a new one, and tell the admin if that was not you"
    )]
    Used,
    /// Every throw-away key of an open one.
    #[error("every place of this invitation is taken; ask for a new one")]
    Full,
    /// The walk over an open one's throw-away keys took too long. The next goes on from there.
    #[error(
        "{tried} of the {of} places of this invitation tried, and none is free; the same command tries the others, and if that does not help, ask for a new invitation"
    )]
    Crowded {
        /// Places that were tried.
        tried: usize,
        /// Places that there are.
        of: u16,
    },
    /// Too old.
    #[error("the invitation has expired; ask for a new one")]
    Expired,
    /// Taken back.
    #[error("the invitation was revoked; ask for a new one")]
    Revoked,
    /// An admin said no.
    #[error("an admin denied this device; it reaches nothing. Ask them why")]
    Denied,
    /// The user is disabled.
    #[error("the user of this device is disabled; it reaches nothing. Ask an admin")]
    UserDisabled,
    /// The name is another device's.
    #[error("{0}; choose another with --name")]
    Taken(String),
    /// Anything else that the gateway said, or did not.
    #[error(transparent)]
    Call(CallError),
    /// What it sent for the pre-shared key is none.
    #[error("the gateway's answer has no valid post-quantum key; nothing was saved. Try again")]
    Kem,
    /// The tunnel with the device's own key.
    #[error("joined, but: {0}")]
    Door(#[from] DoorError),
    /// Files, sockets.
    #[error("{doing}: {source}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system answered.
        source: io::Error,
    },
}

impl JoinError {
    /// Exit code 2: the user has to change what was typed.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        match self {
            JoinError::Invitation(_)
            | JoinError::Exists(_)
            | JoinError::NoFolder
            | JoinError::Taken(_) => true,
            JoinError::LookUp(_)
            | JoinError::Silent(_)
            | JoinError::Used
            | JoinError::Full
            | JoinError::Crowded { .. }
            | JoinError::Expired
            | JoinError::Revoked
            | JoinError::Denied
            | JoinError::UserDisabled
            | JoinError::Call(_)
            | JoinError::Kem
            | JoinError::Door(_)
            | JoinError::Io { .. } => false,
        }
    }

    /// The invitation will never do for this key: what was kept for a retry may go.
    pub(super) fn is_final(&self) -> bool {
        matches!(
            self,
            JoinError::Used | JoinError::Full | JoinError::Expired | JoinError::Revoked
        )
    }
}

impl From<CallError> for JoinError {
    fn from(error: CallError) -> JoinError {
        let CallError::Refused(refusal) = &error else {
            return JoinError::Call(error);
        };
        match refusal.code {
            ErrorCode::InvitationUsed => JoinError::Used,
            ErrorCode::InvitationExpired => JoinError::Expired,
            ErrorCode::InvitationRevoked => JoinError::Revoked,
            ErrorCode::Taken => JoinError::Taken(refusal.error.clone()),
            ErrorCode::BadRequest
            | ErrorCode::Forbidden
            | ErrorCode::NotFound
            | ErrorCode::BadMethod
            | ErrorCode::TooLarge
            | ErrorCode::TooMany
            | ErrorCode::Unavailable
            | ErrorCode::LoginRefused
            | ErrorCode::WrongCode
            | ErrorCode::LoginPending
            | ErrorCode::LoginExpired
            | ErrorCode::GrantRefused
            | ErrorCode::GrantDecided => JoinError::Call(error),
        }
    }
}

pub(super) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> JoinError {
    move |source| JoinError::Io { doing, source }
}
