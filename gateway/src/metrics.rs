//! Prometheus metrics and health, over HTTP. The worker keeps plain counters; they become metrics
//! only when somebody asks. No label ever holds an address, a device or a user.

mod families;

use crate::api::{FlowLogStatus, NameView, PolicyStatus, WorkerSnapshot};
use crate::control::Control;
use crate::device_api::CountsView;
use crate::inside;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Encoder, Registry, TextEncoder};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::net::TcpListener;
use tokio::sync::watch;

/// All that the metrics are made of, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The worker's counters.
    pub worker: WorkerSnapshot,
    /// The policy in force.
    pub policy: PolicyStatus,
    /// The records.
    pub log: FlowLogStatus,
    /// Depth and capacity of the queue to the flow log's writer.
    pub log_queue: (u64, u64),
    /// Devices that may connect.
    pub devices: u64,
    /// The server inside the tunnels.
    pub inside: inside::Facts,
    /// Logins in force; none where the store cannot be read.
    pub sessions: Option<u64>,
    /// Requests that wait and grants that live.
    pub grants: Option<(u64, u64)>,
    /// What devices asked.
    pub asked: CountsView,
    /// What the names of targets mean.
    pub names: Vec<NameView>,
}

/// The registry with our one collector and the process's own metrics.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    facts: Arc<Mutex<Facts>>,
}

impl Metrics {
    /// Empty until [`Metrics::render`] is given facts.
    ///
    /// # Errors
    /// Two metrics have one name: a fault of this program.
    pub fn new() -> prometheus::Result<Metrics> {
        let facts = Arc::new(Mutex::new(Facts::default()));
        let registry = Registry::new();
        let described = Desc::new(
            "postern_gateway".into(),
            "Everything that the gateway counts.".into(),
            Vec::new(),
            std::collections::HashMap::new(),
        )?;
        registry.register(Box::new(Gateway {
            described,
            facts: facts.clone(),
        }))?;
        #[cfg(target_os = "linux")]
        registry.register(Box::new(
            prometheus::process_collector::ProcessCollector::for_self(),
        ))?;
        Ok(Metrics { registry, facts })
    }

    /// The text that Prometheus reads.
    ///
    /// # Errors
    /// A family is malformed: a fault of this program.
    pub fn render(&self, facts: Facts) -> prometheus::Result<String> {
        *self.facts.lock().unwrap_or_else(PoisonError::into_inner) = facts;
        let mut text = Vec::new();
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    }
}

/// Serves `/metrics`, `/healthz` (the process answers) and `/readyz` (new flows can pass: the
/// worker answers and records can be written) until `stop` becomes true.
///
/// # Errors
/// The listener failed, or the metrics are malformed.
pub async fn serve(
    listener: TcpListener,
    control: Arc<Control>,
    mut stop: watch::Receiver<bool>,
) -> io::Result<()> {
    let metrics = Metrics::new().map_err(io::Error::other)?;
    let app = Router::new()
        .route("/metrics", get(scrape))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state((control, metrics));
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            // An error says that the sender is gone: that is a stop as well.
            let _ = stop.wait_for(|stop| *stop).await;
        })
        .await
}

async fn scrape(State((control, metrics)): State<(Arc<Control>, Metrics)>) -> Response {
    let facts = control.facts().await;
    // Encoding many series takes a while, and this thread has others to serve.
    match tokio::task::spawn_blocking(move || metrics.render(facts)).await {
        Ok(Ok(text)) => ([("content-type", prometheus::TEXT_FORMAT)], text).into_response(),
        Ok(Err(error)) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(State((control, _)): State<(Arc<Control>, Metrics)>) -> Response {
    match control.ready().await {
        Ok(()) => "ready\n".into_response(),
        Err(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

struct Gateway {
    described: Desc,
    facts: Arc<Mutex<Facts>>,
}

impl Collector for Gateway {
    fn desc(&self) -> Vec<&Desc> {
        vec![&self.described]
    }

    fn collect(&self) -> Vec<MetricFamily> {
        families::of(&self.facts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests;
