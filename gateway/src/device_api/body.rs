//! What a request says, read strictly: the right content type, no more than [`MAX_BODY`], JSON of
//! exactly the fields that there are.

use super::DeviceProblem;
use axum::body::{Bytes, to_bytes};
use axum::extract::Request;
use axum::http::header::CONTENT_TYPE;
use postern_proto::device_api::{self, ErrorCode, MAX_BODY};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// How long a body may take to come. A device has few connections; it cannot keep one for ever.
const PATIENCE: Duration = Duration::from_secs(10);

const HELP: &str = "docs/control-api.yaml says what this path takes";

/// A body that must be there.
pub(super) async fn read<T: DeserializeOwned>(request: Request) -> Result<T, DeviceProblem> {
    let json = is_json(&request);
    let bytes = take(request).await?;
    if !json {
        return Err(bad(
            "the body is not said to be JSON: content-type: application/json is wanted",
        ));
    }
    device_api::read(&bytes).map_err(|error| bad(error.to_string()))
}

/// No body, or an empty one.
pub(super) async fn nothing(request: Request) -> Result<(), DeviceProblem> {
    if take(request).await?.is_empty() {
        Ok(())
    } else {
        Err(bad("this path takes no body"))
    }
}

pub(super) fn bad(error: impl Into<String>) -> DeviceProblem {
    DeviceProblem::new(ErrorCode::BadRequest, error, HELP)
}

async fn take(request: Request) -> Result<Bytes, DeviceProblem> {
    let said = request
        .headers()
        .get("content-length")
        .and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    let too_large = || {
        let error = format!("the body is longer than {MAX_BODY} bytes");
        DeviceProblem::new(ErrorCode::TooLarge, error, HELP)
    };
    if said.is_some_and(|length| length > MAX_BODY as u64) {
        return Err(too_large());
    }
    match tokio::time::timeout(PATIENCE, to_bytes(request.into_body(), MAX_BODY)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) if is_too_long(&error) => Err(too_large()),
        Ok(Err(_)) => Err(bad("the body broke off")),
        Err(_) => Err(bad("the body did not come in time")),
    }
}

fn is_too_long(error: &axum::Error) -> bool {
    let source = std::error::Error::source(error);
    source.is_some_and(|source| source.is::<http_body_util::LengthLimitError>())
}

fn is_json(request: &Request) -> bool {
    let said = request.headers().get(CONTENT_TYPE);
    let said = said.and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = said.split(';').next().unwrap_or("").trim();
    kind.eq_ignore_ascii_case("application/json")
}
