//! Why a login does not go on, in words for the user.

use super::provider::ProviderError;
use crate::device_api::DeviceProblem;
use postern_proto::device_api::ErrorCode;

/// The kernel gives none.
pub(super) struct NoRandomness;

impl From<NoRandomness> for DeviceProblem {
    fn from(_: NoRandomness) -> DeviceProblem {
        no_randomness()
    }
}

impl From<NoRandomness> for ProviderError {
    fn from(_: NoRandomness) -> ProviderError {
        ProviderError::Down("this machine gives no randomness".into())
    }
}

pub(super) fn no_randomness() -> DeviceProblem {
    let error = "the gateway has no randomness";
    DeviceProblem::new(ErrorCode::Unavailable, error, "tell the admin")
}

pub(super) fn bad_request(error: &str, help: impl Into<String>) -> DeviceProblem {
    DeviceProblem::new(ErrorCode::BadRequest, error, help)
}

pub(super) fn login_refused(error: &str, help: &str) -> DeviceProblem {
    DeviceProblem::new(ErrorCode::LoginRefused, error, help)
}

pub(super) fn too_many(error: &str, time: &str) -> DeviceProblem {
    DeviceProblem::new(ErrorCode::TooMany, error, format!("try again in {time}"))
}

pub(super) fn wrong_code(help: &str) -> DeviceProblem {
    DeviceProblem::new(ErrorCode::WrongCode, "this is not the code", help)
}

pub(super) fn not_yet() -> DeviceProblem {
    let error = "the login is not finished at the provider yet";
    DeviceProblem::new(ErrorCode::LoginPending, error, "ask again later")
}

pub(super) fn expired() -> DeviceProblem {
    let error = "no such login is under way: it took too long, is over, or was never begun";
    DeviceProblem::new(ErrorCode::LoginExpired, error, "begin again")
}
