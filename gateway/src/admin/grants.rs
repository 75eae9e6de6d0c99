//! Grants. What is decided is recorded where it is done: the audit line has what came of it.

use super::{Admin, Caller, read};
use crate::api::DecideAs;
use crate::control::Decision;
use crate::problem::Problem;
use axum::Json;
use axum::body::Bytes;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{Router, get, post};
use serde::Deserialize;

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/v1/grants", get(list))
        .route("/v1/grants/{id}/{decision}", post(decide))
}

/// `?all=true`: past ones too.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    #[serde(default)]
    all: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Word {
    Approve,
    Deny,
    Revoke,
}

async fn list(State(admin): State<Admin>, Query(which): Query<Which>) -> Result<Response, Problem> {
    Ok(Json(admin.control.grants(which.all).await?).into_response())
}

async fn decide(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path((id, word)): Path<(String, Word)>,
    body: Bytes,
) -> Result<Response, Problem> {
    let by: DecideAs = read(&body)?;
    let decision = match word {
        Word::Approve => Decision::Approve,
        Word::Deny => Decision::Deny,
        Word::Revoke => Decision::End,
    };
    let control = &admin.control;
    let grant = control
        .decide_grant_as(caller.uid, &id, decision, &by)
        .await?;
    Ok(Json(grant).into_response())
}
