//! Changes of the policy.

use super::change::Change;
use super::{Admin, Caller, read};
use crate::api::{Applied, ApplyPolicy, ConfirmPolicy, RollBack};
use crate::audit::Action;
use crate::problem::Problem;
use axum::body::Bytes;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/v1/policy/apply", post(apply))
        .route("/v1/policy/confirm", post(confirm))
        .route("/v1/policy/rollback", post(roll_back))
        .route("/v1/policy/history", get(history))
        .route("/v1/policy/source/{which}", get(source))
}

async fn apply(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Bytes,
) -> Result<Response, Problem> {
    let ask: ApplyPolicy = read(&body)?;
    // It may give somebody more.
    admin.audit().ready()?;
    let reason = ask.with.reason.clone();
    let change = change(&admin, Action::PolicyApply);
    let applied = admin.control.apply_policy(ask, &caller.name()).await;
    let applied = change
        .came_to(&admin.audit(), caller, applied, |done| words(done, reason))
        .await?;
    Ok(Json(applied).into_response())
}

async fn roll_back(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Bytes,
) -> Result<Response, Problem> {
    let ask: RollBack = read(&body)?;
    let reason = ask.with.reason.clone();
    let change = change(&admin, Action::PolicyRollback);
    let done = admin.control.roll_back(ask, &caller.name()).await;
    let done = change
        .came_to(&admin.audit(), caller, done, |done| words(done, reason))
        .await?;
    Ok(Json(done).into_response())
}

async fn confirm(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Bytes,
) -> Result<Response, Problem> {
    let ask: ConfirmPolicy = read(&body)?;
    let change = change(&admin, Action::PolicyConfirm);
    let done = admin.control.confirm_policy(ask.token.as_deref()).await;
    let here = ask.token.is_none();
    let done = change
        .came_to(
            &admin.audit(),
            caller,
            done,
            |done| json!({ "policy": done.hash, "through_a_tunnel": false, "here": here }),
        )
        .await?;
    Ok(Json(done).into_response())
}

async fn history(State(admin): State<Admin>) -> Result<Response, Problem> {
    Ok(Json(admin.control.policy_history().await?).into_response())
}

async fn source(
    State(admin): State<Admin>,
    Path(which): Path<String>,
) -> Result<Response, Problem> {
    Ok(Json(admin.control.policy_text(&which).await?).into_response())
}

fn change(admin: &Admin, action: Action) -> Change {
    let before = json!({ "policy": admin.control.policy.status().hash });
    Change {
        action,
        object: admin.control.policy_object(),
        before: Some(before),
    }
}

fn words(done: &Applied, reason: Option<String>) -> Value {
    json!({
        "policy": done.policy.hash,
        "flows_cut": done.cut,
        "own_flows_cut": done.own_flows.len(),
        "confirm_by": done.policy.pending.as_ref().map(|pending| pending.deadline),
        "forced": reason,
    })
}
