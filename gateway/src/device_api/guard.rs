//! What stands before every path: whose key it is, how often it asked, whether it may; and behind
//! it: the count, and the record of what was tried and may not.

use super::asker::Asker;
use super::body::bad;
use super::limits::Kind;
use super::{Api, Caller, DeviceProblem, known};
use crate::audit::{Action, AuditEvent, Object, Outcome};
use crate::control;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::HeaderValue;
use axum::http::header::CACHE_CONTROL;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use postern_io::clock::Clock;
use postern_proto::device_api::ErrorCode;

/// What a throw-away key may ask.
const FOR_GUESTS: [&str; 2] = ["/v1/hello", "/v1/join"];

pub(super) async fn guard(
    State(api): State<Api>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = known(request.uri().path()).map_or("other", |(path, _)| path);
    let (mut response, asker) = match admit(&api, caller).await {
        Err(problem) => (problem.into_response(), None),
        Ok(asker) => {
            let response = match allowed(&asker, path, &request) {
                Err(problem) => problem.into_response(),
                Ok(()) => {
                    request.extensions_mut().insert(asker.clone());
                    whole(next.run(request)).await
                }
            };
            (response, Some(asker))
        }
    };
    let code = response.extensions().get::<ErrorCode>().copied();
    api.control.asked.answered(path, code);
    if let (Some(ErrorCode::Forbidden), Some(asker)) = (code, asker) {
        record(&api, &asker, path).await;
    }
    let no_store = HeaderValue::from_static("no-store");
    response.headers_mut().insert(CACHE_CONTROL, no_store);
    response
}

async fn admit(api: &Api, caller: Caller) -> Result<Asker, DeviceProblem> {
    let who = api.control.who_is(&caller.key).await?.ok_or_else(|| {
        DeviceProblem::new(
            ErrorCode::Forbidden,
            "this key is not enrolled",
            "ask the gateway's admin for an invitation",
        )
    })?;
    match &who {
        control::Asker::Guest { .. } => api.take(Kind::Guest, &caller.key.to_string())?,
        control::Asker::Device { name } => api.take(Kind::Device, name)?,
    }
    Ok(Asker { caller, who })
}

fn allowed(asker: &Asker, path: &str, request: &Request) -> Result<(), DeviceProblem> {
    if !FOR_GUESTS.contains(&path) {
        asker.device()?;
    }
    match request.uri().query() {
        Some(_) => Err(bad("no path takes a query")),
        None => Ok(()),
    }
}

/// To its end, even if the asker leaves: what was stored is put in force and recorded.
async fn whole(answer: impl Future<Output = Response> + Send + 'static) -> Response {
    tokio::spawn(answer).await.unwrap_or_else(|error| {
        tracing::error!(%error, "a request to the control API ended early");
        let help = "this is a fault of the gateway";
        DeviceProblem::new(ErrorCode::Unavailable, "the request was not finished", help)
            .into_response()
    })
}

/// One line for each, as long as there are few; then they are counted.
async fn record(api: &Api, asker: &Asker, path: &str) {
    let actor = asker.actor();
    if api
        .take(Kind::Forbidden, &asker.caller.key.to_string())
        .is_err()
    {
        api.control.asked.forbidden_unrecorded();
        return;
    }
    let event = AuditEvent {
        action: Action::Forbidden,
        outcome: Outcome::Refused,
        actor,
        object: Object {
            kind: "path",
            name: path.to_owned(),
        },
        reason: Some("the control API does not take this from such a key".to_owned()),
        before: None,
        after: None,
    };
    // Nothing was given, so nothing depends on the line.
    if let Err(error) = api
        .control
        .log
        .audit()
        .write(Clock::now().wall, event)
        .await
    {
        tracing::warn!(%error, path, "a forbidden request");
    }
}
