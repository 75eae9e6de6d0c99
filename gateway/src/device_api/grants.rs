//! Grants: asked for by one, decided by another.

use super::asker::Asker;
use super::body::{bad, nothing, read};
use super::limits::Kind;
use super::{Answer, Api, DeviceProblem, answer};
use crate::control::Decision;
use axum::Router;
use axum::extract::{Extension, Path, Request, State};
use axum::routing::{get, post};
use postern_proto::device_api::{DecideGrant, RequestGrant, grants};

pub(super) fn routes() -> Router<Api> {
    Router::new()
        .route("/v1/grants", get(list).post(ask))
        .route("/v1/grants/{id}", get(show).delete(end))
        .route("/v1/grants/{id}/approve", post(approve))
        .route("/v1/grants/{id}/deny", post(deny))
}

async fn list(State(api): State<Api>, Extension(asker): Extension<Asker>) -> Answer {
    Ok(answer(&api.control.grants_for(asker.device()?).await?))
}

async fn ask(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    request: Request,
) -> Answer {
    let name = asker.device()?;
    let wish: RequestGrant = read(request).await?;
    id(&wish.id)?;
    if wish.seconds == 0 {
        return Err(bad("`seconds` is 0: a grant lives for a while"));
    }
    api.take(Kind::Grant, name)?;
    if wish.break_glass {
        api.take(Kind::BreakGlass, name)?;
    }
    let outer = asker.caller.outer;
    Ok(answer(
        &api.control.request_grant(name, outer, &wish).await?,
    ))
}

async fn show(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    Path(grant): Path<String>,
) -> Answer {
    let name = asker.device()?;
    id(&grant)?;
    Ok(answer(&api.control.grant_for(name, &grant).await?))
}

async fn end(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    Path(grant): Path<String>,
    request: Request,
) -> Answer {
    nothing(request).await?;
    decide(&api, &asker, &grant, Decision::End, DecideGrant::default()).await
}

async fn approve(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    Path(grant): Path<String>,
    request: Request,
) -> Answer {
    let said = read(request).await?;
    decide(&api, &asker, &grant, Decision::Approve, said).await
}

async fn deny(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    Path(grant): Path<String>,
    request: Request,
) -> Answer {
    let said = read(request).await?;
    decide(&api, &asker, &grant, Decision::Deny, said).await
}

async fn decide(
    api: &Api,
    asker: &Asker,
    grant: &str,
    decision: Decision,
    said: DecideGrant,
) -> Answer {
    let name = asker.device()?;
    id(grant)?;
    api.take(Kind::Grant, name)?;
    let outer = asker.caller.outer;
    let decided = api
        .control
        .decide_grant(name, outer, grant, decision, &said);
    Ok(answer(&decided.await?))
}

fn id(text: &str) -> Result<(), DeviceProblem> {
    match grants::is_id(text) {
        true => Ok(()),
        false => Err(bad("that is no id of a request")),
    }
}
