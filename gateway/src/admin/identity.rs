//! Invitations, approval, attributes, users and sessions. Every change is recorded before it is
//! answered; one that gives access is made only while it can be.

use super::change::Change;
use super::{Admin, Caller, read};
use crate::api::{ChangeLabels, CutView, Invite, SetAttribute};
use crate::audit::Action;
use crate::problem::Problem;
use axum::Json;
use axum::body::Bytes;
use axum::extract::connect_info::ConnectInfo;
use axum::extract::{Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{Router, get, post};
use serde::Deserialize;
use serde_json::{Value, json};

pub(super) fn routes() -> Router<Admin> {
    Router::new()
        .route("/v1/invitations", get(list_invitations).post(invite))
        .route("/v1/invitations/{id}/revoke", post(revoke_invitation))
        .route("/v1/devices/{name}/approve", post(approve_device))
        .route("/v1/devices/{name}/deny", post(deny_device))
        .route(
            "/v1/devices/{name}/attributes/{attribute}",
            post(set_attribute),
        )
        .route(
            "/v1/devices/{name}/attributes/{attribute}/unset",
            post(unset_attribute),
        )
        .route("/v1/devices/{name}/labels", post(change_labels))
        .route("/v1/users", get(list_users))
        .route("/v1/users/{name}", get(show_user))
        .route("/v1/users/{name}/disable", post(disable_user))
        .route("/v1/users/{name}/enable", post(enable_user))
        .route("/v1/sessions", get(list_sessions))
        .route("/v1/sessions/{id}/revoke", post(revoke_session))
}

async fn list_invitations(State(admin): State<Admin>) -> Result<Response, Problem> {
    Ok(Json(admin.control.invitations().await?).into_response())
}

async fn invite(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Bytes,
) -> Result<Response, Problem> {
    let invite: Invite = read(&body)?;
    admin.audit().ready()?;
    let made = admin.control.invite(&invite, &caller.name()).await;
    let id = made
        .as_ref()
        .map_or("-", |made| &made.invitation.id)
        .to_owned();
    let made = Change::new(Action::Invite, "invitation", id)
        .came_to(&admin.audit(), caller, made, |made| json!(made.invitation))
        .await?;
    Ok(Json(made).into_response())
}

async fn revoke_invitation(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let mut change = Change::new(Action::InvitationRevoke, "invitation", &id);
    let before = admin.control.invitation(&id).await.ok();
    change.before = before.map(|before| json!({ "state": before.state, "used": before.used }));
    let revoked = admin.control.revoke_invitation(&id).await;
    let revoked = change
        .came_to(
            &admin.audit(),
            caller,
            revoked,
            |after| json!({ "state": after.state, "used": after.used }),
        )
        .await?;
    Ok(Json(revoked).into_response())
}

async fn approve_device(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    admin.audit().ready()?;
    let change = admin.device_change(Action::DeviceApprove, &name).await;
    let done = admin.control.approve_device(&name).await;
    admin.tell_device(change, caller, &name, done).await
}

async fn deny_device(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let change = admin.device_change(Action::DeviceDeny, &name).await;
    let done = admin.control.deny_device(&name).await;
    admin.tell_device(change, caller, &name, done).await
}

async fn set_attribute(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path((name, attribute)): Path<(String, String)>,
    body: Bytes,
) -> Result<Response, Problem> {
    let set: SetAttribute = read(&body)?;
    // An attribute may make a check hold, and so give access.
    admin.audit().ready()?;
    let change = admin.device_change(Action::DeviceAttribute, &name).await;
    let control = &admin.control;
    let by = caller.name();
    let done = control.set_attribute(&name, &attribute, &set, &by).await;
    admin.tell_device(change, caller, &name, done).await
}

async fn unset_attribute(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path((name, attribute)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let change = admin.device_change(Action::DeviceAttribute, &name).await;
    let done = admin.control.unset_attribute(&name, &attribute).await;
    admin.tell_device(change, caller, &name, done).await
}

async fn change_labels(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Response, Problem> {
    let wanted: ChangeLabels = read(&body)?;
    // A rule may be for those who have a label.
    admin.audit().ready()?;
    let change = admin.device_change(Action::DeviceLabel, &name).await;
    let done = admin.control.change_labels(&name, &wanted).await;
    admin.tell_device(change, caller, &name, done).await
}

async fn list_users(State(admin): State<Admin>) -> Result<Response, Problem> {
    Ok(Json(admin.control.users().await?).into_response())
}

async fn show_user(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    Ok(Json(admin.control.user(&name).await?).into_response())
}

async fn disable_user(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let change = admin.user_change(Action::UserDisable, &name).await;
    let done = admin.control.disable_user(&name).await;
    admin
        .tell(
            change,
            caller,
            done,
            |cut| json!({ "disabled": true, "flows_cut": cut.flows }),
        )
        .await
}

async fn enable_user(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    admin.audit().ready()?;
    let change = admin.user_change(Action::UserEnable, &name).await;
    let done = admin.control.enable_user(&name).await;
    admin
        .tell(
            change,
            caller,
            done,
            |cut| json!({ "disabled": false, "flows_cut": cut.flows }),
        )
        .await
}

/// `?all=true`: past ones too.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    #[serde(default)]
    all: bool,
}

async fn list_sessions(
    State(admin): State<Admin>,
    Query(which): Query<Which>,
) -> Result<Response, Problem> {
    Ok(Json(admin.control.sessions(which.all).await?).into_response())
}

async fn revoke_session(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let mut change = Change::new(Action::SessionEnd, "session", &id);
    let before = admin.control.session(&id).await.ok();
    change.before = before.map(|session| json!(session));
    let done = admin.control.revoke_session(&id).await;
    admin
        .tell(
            change,
            caller,
            done,
            |cut| json!({ "end_reason": "admin", "flows_cut": cut.flows }),
        )
        .await
}

impl Admin {
    async fn device_change(&self, action: Action, name: &str) -> Change {
        let mut change = Change::new(action, "device", name);
        change.before = self.device_words(name).await;
        change
    }

    async fn user_change(&self, action: Action, name: &str) -> Change {
        let mut change = Change::new(action, "user", name);
        let user = self.control.user(name).await.ok();
        change.before = user
            .map(|user| json!({ "disabled": user.disabled.is_some(), "devices": user.devices }));
        change
    }

    async fn tell(
        &self,
        change: Change,
        caller: Caller,
        done: Result<CutView, Problem>,
        after: impl FnOnce(&CutView) -> Value,
    ) -> Result<Response, Problem> {
        let audit = self.audit();
        let done = change.came_to(&audit, caller, done, after).await?;
        Ok(Json(done).into_response())
    }

    async fn tell_device(
        &self,
        change: Change,
        caller: Caller,
        name: &str,
        done: Result<CutView, Problem>,
    ) -> Result<Response, Problem> {
        let mut after = self.device_words(name).await.unwrap_or_else(|| json!({}));
        self.tell(change, caller, done, |cut| {
            after["flows_cut"] = json!(cut.flows);
            after
        })
        .await
    }

    /// What cannot be read is no reason to change nothing.
    async fn device_words(&self, name: &str) -> Option<Value> {
        let device = self.control.device(name).await.ok()?;
        let attributes = device.attributes.into_iter();
        let attributes: serde_json::Map<_, _> = attributes
            .map(|one| (one.name, json!({ "value": one.value, "until": one.until })))
            .collect();
        Some(json!({
            "state": device.state,
            "user": device.user,
            "labels": device.labels,
            "attributes": attributes,
        }))
    }
}
