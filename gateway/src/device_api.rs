//! The control API, inside the tunnel: what a device may ask of its gateway.
//!
//! Who asks is the key that decrypted the packets of the connection ([`Caller`]); nothing in a
//! request says it. A throw-away key may join and say hello, and nothing else; a device may
//! everything but join. Every answer is JSON; every refusal is a [`DeviceProblem`]. The words are
//! those of [`postern_proto::device_api`]; `docs/control-api.yaml` says the same for machines, and
//! a test holds both together.

mod asker;
mod body;
mod counts;
mod grants;
mod guard;
mod limits;
mod problem;

pub use asker::Caller;
pub use counts::{Counts, CountsView};
pub use problem::DeviceProblem;

use crate::control::Control;
use asker::Asker;
use axum::extract::{Extension, Request, State};
use axum::http::HeaderValue;
use axum::http::header::ALLOW;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router, middleware};
use body::{nothing, read};
use limits::{Kind, Limits};
use postern_io::clock::Clock;
use postern_proto::device_api::{
    ConfirmRequest, ErrorCode, Hello, JoinRequest, LoginFinish, LoginStart, PostureReport,
    RotateRequest, WhyRequest,
};
use serde::Serialize;
use std::sync::{Arc, Mutex, PoisonError};

/// Every path and its methods: for the router's tests, the metrics and `allow`. `{}` stands for one
/// segment.
pub const PATHS: [(&str, &str); 15] = [
    ("/v1/config", "GET"),
    ("/v1/device", "GET"),
    ("/v1/grants", "GET, POST"),
    ("/v1/grants/{id}", "DELETE, GET"),
    ("/v1/grants/{id}/approve", "POST"),
    ("/v1/grants/{id}/deny", "POST"),
    ("/v1/hello", "GET"),
    ("/v1/join", "POST"),
    ("/v1/keys", "POST"),
    ("/v1/login", "GET, POST"),
    ("/v1/login/finish", "POST"),
    ("/v1/logout", "POST"),
    ("/v1/policy/confirm", "POST"),
    ("/v1/posture", "POST"),
    ("/v1/why", "POST"),
];

/// What the handlers share.
#[derive(Clone)]
struct Api {
    control: Arc<Control>,
    limits: Option<Arc<Mutex<Limits>>>,
}

type Answer = Result<Response, DeviceProblem>;

/// The API, for a server whose connections say who is at the other end: a [`Caller`] as connect
/// info.
pub fn router(control: Arc<Control>) -> Router {
    build(Api {
        control,
        limits: Some(Arc::default()),
    })
}

/// The same for tests that ask thousands of times: without budgets.
pub fn router_without_limits(control: Arc<Control>) -> Router {
    build(Api {
        control,
        limits: None,
    })
}

fn build(api: Api) -> Router {
    Router::new()
        .route("/v1/hello", get(hello))
        .route("/v1/join", post(join))
        .route("/v1/device", get(device))
        .route("/v1/config", get(config))
        .route("/v1/login", get(login_methods).post(login_start))
        .route("/v1/login/finish", post(login_finish))
        .route("/v1/logout", post(logout))
        .route("/v1/policy/confirm", post(confirm))
        .route("/v1/posture", post(posture))
        .route("/v1/why", post(why))
        .route("/v1/keys", post(keys))
        .merge(grants::routes())
        .fallback(no_path)
        .method_not_allowed_fallback(no_method)
        .layer(middleware::from_fn_with_state(api.clone(), guard::guard))
        .with_state(api)
}

async fn hello() -> Response {
    answer(&Hello { api: 1 })
}

async fn join(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    request: Request,
) -> Answer {
    asker.guest()?;
    let mut request: JoinRequest = read(request).await?;
    let watched = api.control.policy.current().watched();
    let accepted = request.facts.accept(&watched);
    request.facts = accepted.map_err(|error| body::bad(error.to_string()))?;
    let joined = api
        .control
        .join(&asker.caller.key, asker.caller.outer, &request)
        .await?;
    Ok(answer(&joined))
}

async fn device(State(api): State<Api>, Extension(asker): Extension<Asker>) -> Answer {
    Ok(answer(&api.control.device_status(asker.device()?).await?))
}

async fn config(State(api): State<Api>, Extension(asker): Extension<Asker>) -> Answer {
    asker.device()?;
    Ok(answer(&api.control.client_config()))
}

async fn login_methods(State(api): State<Api>, Extension(asker): Extension<Asker>) -> Answer {
    asker.device()?;
    Ok(answer(&api.control.login_methods()))
}

async fn login_start(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    request: Request,
) -> Answer {
    let name = asker.device()?;
    let start: LoginStart = read(request).await?;
    let outer = asker.caller.outer;
    let started = api.control.start_login(name, outer, &start).await?;
    Ok(answer(&started))
}

async fn login_finish(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    request: Request,
) -> Answer {
    let name = asker.device()?;
    let finish: LoginFinish = read(request).await?;
    let finished = api
        .control
        .finish_login(name, asker.caller.outer, &finish)
        .await;
    match &finished {
        Ok(_) => api.control.asked.login(None),
        Err(problem) if problem.code == ErrorCode::LoginPending => {}
        Err(problem) => api.control.asked.login(Some(problem.code)),
    }
    Ok(answer(&finished?))
}

async fn logout(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    request: Request,
) -> Answer {
    let name = asker.device()?;
    nothing(request).await?;
    Ok(answer(
        &api.control.log_out(name, asker.caller.outer).await?,
    ))
}

async fn posture(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    request: Request,
) -> Answer {
    let name = asker.device()?;
    let report: PostureReport = read(request).await?;
    api.take(Kind::Report, name)?;
    let checks = api
        .control
        .report(name, asker.caller.outer, report.facts)
        .await?;
    api.control.asked.report();
    Ok(answer(&checks))
}

async fn confirm(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    request: Request,
) -> Answer {
    let name = asker.device()?;
    let confirm: ConfirmRequest = read(request).await?;
    let outer = asker.caller.outer;
    Ok(answer(
        &api.control.confirm_by(name, outer, &confirm.token).await?,
    ))
}

async fn why(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    request: Request,
) -> Answer {
    let name = asker.device()?;
    let why: WhyRequest = read(request).await?;
    Ok(answer(&api.control.why(name, &why).await?))
}

async fn keys(
    State(api): State<Api>,
    Extension(asker): Extension<Asker>,
    request: Request,
) -> Answer {
    let name = asker.device()?;
    let rotate: RotateRequest = read(request).await?;
    api.take(Kind::Rotation, name)?;
    let answered = api
        .control
        .rotate(name, asker.caller.outer, &rotate)
        .await?;
    Ok(answer(&answered))
}

async fn no_path() -> DeviceProblem {
    DeviceProblem::new(
        ErrorCode::NotFound,
        "no such path",
        "this is the control API, version 1; see docs/control-api.yaml",
    )
}

async fn no_method(request: Request) -> Response {
    let allowed = known(request.uri().path()).map_or("", |(_, methods)| methods);
    let problem = DeviceProblem::new(
        ErrorCode::BadMethod,
        format!("{} is no method of this path", request.method()),
        format!("it takes {allowed}"),
    );
    let mut response = problem.into_response();
    response
        .headers_mut()
        .insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// Which of [`PATHS`] a path is, and its methods.
fn known(path: &str) -> Option<(&'static str, &'static str)> {
    let is = |known: &&(&str, &str)| {
        let mut segments = path.split('/');
        let all = known.0.split('/').all(|wanted| {
            let any = wanted.starts_with('{');
            let fits = |segment: &str| segment == wanted || (any && !segment.is_empty());
            segments.next().is_some_and(fits)
        });
        all && segments.next().is_none()
    };
    PATHS.iter().find(is).copied()
}

fn answer(value: &impl Serialize) -> Response {
    Json(value).into_response()
}

impl Api {
    /// Takes one from a budget of `who`.
    fn take(&self, kind: Kind, who: &str) -> Result<(), DeviceProblem> {
        let Some(limits) = &self.limits else {
            return Ok(());
        };
        let now = Clock::now().mono;
        let mut limits = limits.lock().unwrap_or_else(PoisonError::into_inner);
        limits.take(kind, who, now).map_err(|wait| {
            let help = format!("come back in {} s", wait.as_secs() + 1);
            DeviceProblem::new(ErrorCode::TooMany, "too many requests", help)
        })
    }
}

#[cfg(test)]
mod tests;
