//! A refusal by the control plane, in words and as an HTTP answer.

use crate::api::ApiError;
use crate::audit::{Outcome, Unrecorded};
use crate::store::StoreError;
use crate::worker_api::WorkerError;
use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};

/// What went wrong, what to do, and whose fault it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{error}\n  help: {help}")]
pub struct Problem {
    status: StatusCode,
    /// What went wrong.
    pub error: String,
    /// What to do about it.
    pub help: String,
}

impl Problem {
    /// The request cannot be.
    #[must_use]
    pub fn refused(error: impl Into<String>, help: impl Into<String>) -> Self {
        Problem {
            status: StatusCode::BAD_REQUEST,
            error: error.into(),
            help: help.into(),
        }
    }

    /// What was asked for is not there.
    #[must_use]
    pub fn absent(error: impl Into<String>, help: impl Into<String>) -> Self {
        Problem {
            status: StatusCode::NOT_FOUND,
            error: error.into(),
            help: help.into(),
        }
    }

    /// The gateway cannot do it now.
    #[must_use]
    pub fn unable(error: impl Into<String>, help: impl Into<String>) -> Self {
        Problem {
            status: StatusCode::SERVICE_UNAVAILABLE,
            error: error.into(),
            help: help.into(),
        }
    }

    /// For the audit line: not allowed, or not possible.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if self.status.is_server_error() {
            Outcome::Failed
        } else {
            Outcome::Refused
        }
    }
}

impl From<Unrecorded> for Problem {
    fn from(error: Unrecorded) -> Self {
        Problem::unable(
            error.to_string(),
            "`postern-gateway status` says why; taking access away works all the same",
        )
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Refused { problem, help } => Problem {
                status: StatusCode::CONFLICT,
                error: problem,
                help,
            },
            StoreError::NoDevice { .. } => {
                Problem::absent(error.to_string(), "see `postern-gateway device list`")
            }
            StoreError::Absent { what, .. } => Problem::absent(
                error.to_string(),
                format!("see `postern-gateway {what} list`"),
            ),
            StoreError::Schema { .. } => Problem::unable(
                error.to_string(),
                "nothing was changed; restore the file or fix what it says",
            ),
            StoreError::Database { .. } => Problem::unable(
                error.to_string(),
                "check disk space and permissions of the data folder",
            ),
        }
    }
}

impl From<WorkerError> for Problem {
    fn from(error: WorkerError) -> Self {
        Problem::unable(error.to_string(), "see the gateway's log")
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        (
            self.status,
            Json(ApiError {
                error: self.error,
                help: self.help,
            }),
        )
            .into_response()
    }
}
