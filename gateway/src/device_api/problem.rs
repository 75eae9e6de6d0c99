//! A refusal to a device, in words and as an HTTP answer.

use crate::store::StoreError;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use postern_proto::device_api::{ApiError, ErrorCode};

/// What went wrong, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}; {help}")]
pub struct DeviceProblem {
    /// For programs; gives the status.
    pub code: ErrorCode,
    /// What went wrong.
    pub error: String,
    /// What to do about it.
    pub help: String,
}

impl DeviceProblem {
    /// In words.
    #[must_use]
    pub fn new(code: ErrorCode, error: impl Into<String>, help: impl Into<String>) -> Self {
        DeviceProblem {
            code,
            error: error.into(),
            help: help.into(),
        }
    }

    /// The HTTP status that goes with the code.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        match self.code {
            ErrorCode::BadRequest => StatusCode::BAD_REQUEST,
            ErrorCode::Forbidden
            | ErrorCode::LoginRefused
            | ErrorCode::WrongCode
            | ErrorCode::GrantRefused => StatusCode::FORBIDDEN,
            ErrorCode::NotFound => StatusCode::NOT_FOUND,
            ErrorCode::BadMethod => StatusCode::METHOD_NOT_ALLOWED,
            ErrorCode::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::TooMany => StatusCode::TOO_MANY_REQUESTS,
            ErrorCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorCode::InvitationUsed | ErrorCode::Taken | ErrorCode::GrantDecided => {
                StatusCode::CONFLICT
            }
            ErrorCode::InvitationExpired
            | ErrorCode::InvitationRevoked
            | ErrorCode::LoginExpired => StatusCode::GONE,
            ErrorCode::LoginPending => StatusCode::TOO_EARLY,
        }
    }
}

/// The words of the store name files and other devices' things, so a device gets none of them.
impl From<StoreError> for DeviceProblem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused { problem, help } => {
                DeviceProblem::new(ErrorCode::BadRequest, problem, help)
            }
            StoreError::NoDevice { .. } | StoreError::Absent { .. } => DeviceProblem::new(
                ErrorCode::NotFound,
                "there is no such thing",
                "see docs/control-api.yaml",
            ),
            StoreError::Schema { .. } | StoreError::Database { .. } => {
                tracing::warn!(%error, "a device cannot be served");
                DeviceProblem::new(
                    ErrorCode::Unavailable,
                    "the gateway cannot do this now",
                    "try again; the admin finds the cause in the gateway's log",
                )
            }
        }
    }
}

impl IntoResponse for DeviceProblem {
    fn into_response(self) -> Response {
        let body = Json(ApiError {
            code: self.code,
            error: self.error.clone(),
            help: self.help.clone(),
        });
        let mut response = (self.status(), body).into_response();
        // For whoever counts answers.
        response.extensions_mut().insert(self.code);
        response
    }
}
