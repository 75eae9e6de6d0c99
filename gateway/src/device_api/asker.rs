//! Who asks.

use super::DeviceProblem;
use crate::audit::Actor;
use crate::control;
use postern_proto::device_api::ErrorCode;
use postern_proto::keys::PublicKey;
use std::net::SocketAddr;

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The key that decrypted its packets.
    pub key: PublicKey,
    /// Where they come from, outside the tunnel.
    pub outer: Option<SocketAddr>,
}

/// A request's connection and whose it is.
#[derive(Clone, Debug)]
pub(super) struct Asker {
    pub(super) caller: Caller,
    pub(super) who: control::Asker,
}

impl Asker {
    /// The name of the device that asks.
    pub(super) fn device(&self) -> Result<&str, DeviceProblem> {
        match &self.who {
            control::Asker::Device { name } => Ok(name),
            control::Asker::Guest { .. } => Err(DeviceProblem::new(
                ErrorCode::Forbidden,
                "an invitation may join and nothing else",
                "join first: `postern join`",
            )),
        }
    }

    /// The invitation that asks.
    pub(super) fn guest(&self) -> Result<&str, DeviceProblem> {
        match &self.who {
            control::Asker::Guest { invitation } => Ok(invitation),
            control::Asker::Device { .. } => Err(DeviceProblem::new(
                ErrorCode::Forbidden,
                "this device has joined already",
                "an invitation is redeemed through its own throw-away key",
            )),
        }
    }

    /// For the log.
    pub(super) fn actor(&self) -> Actor {
        let from = self.caller.outer;
        match &self.who {
            control::Asker::Device { name } => Actor::Device {
                name: name.clone(),
                user: None,
                from,
            },
            control::Asker::Guest { invitation } => Actor::Guest {
                invitation: invitation.clone(),
                from,
            },
        }
    }
}
