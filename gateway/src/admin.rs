//! The admin API: HTTP and JSON on a unix socket that only the gateway's owner can open.

mod change;
pub mod client;
mod grants;
mod identity;
mod policy;
mod socket;

pub use socket::{BindError, bind};

use crate::api::{ExplainRequest, FlowFilter, Missed, NewDevice};
use crate::audit::{Action, Audit};
use crate::control::Control;
use crate::problem::Problem;
use axum::Json;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::connect_info::{ConnectInfo, Connected};
use axum::extract::{Path, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::serve::IncomingStream;
use change::Change;
use http_body_util::channel::Channel;
use serde::de::DeserializeOwned;
use serde_json::json;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::UnixListener;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;

/// Lines on their way to one `flows tail`: about 64 KiB.
const TAIL_QUEUE: usize = 64;

#[derive(Clone)]
struct Admin {
    control: Arc<Control>,
    stop: watch::Receiver<bool>,
}

impl Admin {
    fn audit(&self) -> Audit {
        self.control.log.audit()
    }
}

/// Who is at the other end, by the kernel's word: a change names who made it.
#[derive(Clone, Copy, Debug)]
struct Caller {
    uid: Option<u32>,
}

/// Serves until `stop` becomes true, then ends streams and answers what was asked.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: UnixListener,
    control: Arc<Control>,
    stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let path = listener.local_addr()?.as_pathname().map(PathBuf::from);
    let mut stopped = stop.clone();
    let app = router(Admin { control, stop }).into_make_service_with_connect_info::<Caller>();
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            // An error says that the sender is gone: that is a stop as well.
            let _ = stopped.wait_for(|stop| *stop).await;
        })
        .await?;
    // Left behind it would do no harm: the next start removes a socket on which nobody answers.
    path.map_or(Ok(()), std::fs::remove_file)
}

fn router(admin: Admin) -> Router {
    Router::new()
        .route("/v1/status", get(status))
        .route("/v1/devices", get(list_devices).post(add_device))
        .route("/v1/devices/{name}", get(show_device))
        .route("/v1/devices/{name}/revoke", post(revoke_device))
        .route("/v1/flows/list", post(list_flows))
        .route("/v1/flows/kill", post(kill_flows))
        .route("/v1/flows/tail", get(tail_flows))
        .route("/v1/policy/status", get(policy_status))
        .route("/v1/policy/explain", post(explain))
        .route("/v1/policy/reload", post(reload_policy))
        .merge(grants::routes())
        .merge(identity::routes())
        .merge(policy::routes())
        .fallback(nothing_here)
        .method_not_allowed_fallback(nothing_here)
        .layer(middleware::from_fn(whole))
        .with_state(admin)
}

async fn status(State(admin): State<Admin>) -> Response {
    Json(admin.control.status().await).into_response()
}

async fn list_devices(State(admin): State<Admin>) -> Result<Response, Problem> {
    Ok(Json(admin.control.devices().await?).into_response())
}

async fn show_device(
    State(admin): State<Admin>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    Ok(Json(admin.control.device(&name).await?).into_response())
}

async fn add_device(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Bytes,
) -> Result<Response, Problem> {
    let new: NewDevice = read(&body)?;
    admin.audit().ready()?;
    let added = admin.control.add_device(&new).await;
    let added = Change::new(Action::DeviceAdd, "device", &new.name)
        .came_to(&admin.audit(), caller, added, |added| {
            let device = &added.device;
            json!({
                "user": device.user,
                "groups": device.groups,
                "labels": device.labels,
                "device_key": device.public_key.fingerprint(),
                "addresses": device.addresses,
            })
        })
        .await?;
    Ok(Json(added).into_response())
}

async fn revoke_device(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let mut change = Change::new(Action::DeviceRevoke, "device", &name);
    // What cannot be read is no reason to leave somebody access.
    let before = admin.control.device(&name).await.ok();
    change.before = before.map(
        |device| json!({ "state": device.state, "user": device.user, "groups": device.groups }),
    );
    let cut = admin.control.revoke_device(&name).await;
    let cut = change
        .came_to(
            &admin.audit(),
            caller,
            cut,
            |cut| json!({ "state": "revoked", "flows_cut": cut.flows }),
        )
        .await?;
    Ok(Json(cut).into_response())
}

async fn list_flows(State(admin): State<Admin>, body: Bytes) -> Result<Response, Problem> {
    let select: FlowFilter = read(&body)?;
    Ok(Json(admin.control.flows(select).await?).into_response())
}

async fn kill_flows(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
    body: Bytes,
) -> Result<Response, Problem> {
    let select: FlowFilter = read(&body)?;
    let cut = admin.control.kill_flows(select.clone()).await;
    let cut = Change::new(Action::FlowsKill, "flow", "selected")
        .came_to(
            &admin.audit(),
            caller,
            cut,
            |cut| json!({ "selected": select, "flows_cut": cut.flows }),
        )
        .await?;
    Ok(Json(cut).into_response())
}

/// Records as they are written, one JSON object a line. A listener that is too slow is told how
/// many it missed.
async fn tail_flows(State(admin): State<Admin>) -> Response {
    let mut lines = admin.control.log.subscribe();
    let mut stop = admin.stop.clone();
    let (mut to, body) = Channel::<Bytes>::new(TAIL_QUEUE);
    tokio::spawn(async move {
        loop {
            let line = tokio::select! {
                line = lines.recv() => line,
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let text = match line {
                Ok(line) => format!("{line}\n"),
                Err(RecvError::Lagged(missed)) => missed_line(missed),
                Err(RecvError::Closed) => return,
            };
            if to.send_data(Bytes::from(text)).await.is_err() {
                return;
            }
        }
    });
    ([("content-type", "application/jsonl")], Body::new(body)).into_response()
}

fn missed_line(missed: u64) -> String {
    serde_json::to_string(&Missed { missed }).map_or_else(|_| String::new(), |text| text + "\n")
}

async fn policy_status(State(admin): State<Admin>) -> Response {
    Json((*admin.control.policy.status()).clone()).into_response()
}

async fn explain(State(admin): State<Admin>, body: Bytes) -> Result<Response, Problem> {
    let request: ExplainRequest = read(&body)?;
    Ok(Json(admin.control.explain(&request).await?).into_response())
}

async fn reload_policy(
    State(admin): State<Admin>,
    ConnectInfo(caller): ConnectInfo<Caller>,
) -> Response {
    let audit = admin.control.log.audit();
    admin.control.config.reload_by(caller.actor(), &audit).await;
    let reloaded = admin.control.policy.reload_by(caller.actor()).await;
    Json(reloaded).into_response()
}

/// To its end, even if the asker leaves: what was stored is put in force and recorded.
async fn whole(request: Request, next: Next) -> Response {
    tokio::spawn(next.run(request))
        .await
        .unwrap_or_else(|error| {
            tracing::error!(%error, "a request to the admin API ended early");
            let help = "this is a fault of the program: see its log";
            Problem::unable("the request was not finished", help).into_response()
        })
}

async fn nothing_here() -> Problem {
    Problem::absent(
        "no such path or method",
        "this is the admin API, version 1; see docs/gateway.md",
    )
}

fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    serde_json::from_slice(body).map_err(|error| {
        Problem::refused(
            format!("the request does not read: {error}"),
            "see docs/gateway.md",
        )
    })
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        Caller {
            uid: stream.io().peer_cred().ok().map(|peer| peer.uid()),
        }
    }
}

#[cfg(test)]
mod tests;
