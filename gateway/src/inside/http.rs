//! HTTP over the stack's connections, with a bound for everything that a device can make last.

use crate::device_api::{Caller, DeviceProblem};
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit};
use axum::http::{Request, Response};
use axum::response::IntoResponse;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use postern_proto::device_api::{ErrorCode, MAX_BODY};
use postern_proto::keys::PublicKey;
use postern_stack::driver::{Listener, Stream};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tokio::task::JoinSet;

/// Requests of one device at once.
pub const MAX_IN_FLIGHT: usize = 4;

/// How long a request may take, its body and its answer's making included.
pub const REQUEST_TIME: Duration = Duration::from_secs(30);

/// How long the head of a request may take; a connection that asks no more ends as soon.
pub const HEAD_TIME: Duration = Duration::from_secs(10);

/// Bytes that a connection reads ahead. A head that is longer is refused.
const READ_BUFFER: usize = 16 << 10;

/// What all connections share.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) head_time: Duration,
    pub(super) request_time: Duration,
    in_flight: Mutex<BTreeMap<PublicKey, usize>>,
    pub(super) busy: AtomicU64,
    pub(super) too_slow: AtomicU64,
}

impl Default for Server {
    fn default() -> Self {
        Server {
            head_time: HEAD_TIME,
            request_time: REQUEST_TIME,
            in_flight: Mutex::default(),
            busy: AtomicU64::default(),
            too_slow: AtomicU64::default(),
        }
    }
}

/// One request of a device; gone when it is dropped.
struct Flight {
    server: Arc<Server>,
    key: PublicKey,
}

impl Server {
    /// Serves until `stop` becomes true, then finishes what was asked. At most as many
    /// connections as the stack has.
    pub(super) async fn serve(
        self: &Arc<Self>,
        mut listener: Listener,
        router: Router,
        stop: watch::Receiver<bool>,
    ) {
        let mut stopped = stop.clone();
        let router = router.layer(DefaultBodyLimit::max(MAX_BODY));
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                (stream, remote) = listener.accept() => {
                    let caller = Caller { key: remote.tag, outer: remote.outer };
                    let server = Arc::clone(self);
                    connections.spawn(server.connection(stream, caller, router.clone(), stop.clone()));
                }
                Some(_) = connections.join_next() => {}
                // An error says that the sender is gone: that is a stop as well.
                _ = stopped.wait_for(|stop| *stop) => break,
            }
        }
        while connections.join_next().await.is_some() {}
    }

    async fn connection(
        self: Arc<Self>,
        stream: Stream,
        caller: Caller,
        router: Router,
        mut stop: watch::Receiver<bool>,
    ) {
        let router = TowerToHyperService::new(router);
        let service = service_fn(|request: Request<Incoming>| {
            let (server, router) = (Arc::clone(&self), router.clone());
            async move { Ok::<_, Infallible>(server.request(request, caller, router).await) }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(self.head_time)
            .max_buf_size(READ_BUFFER)
            .serve_connection(TokioIo::new(stream), service);
        tokio::pin!(connection);
        let stopped = async {
            let _ = stop.wait_for(|stop| *stop).await;
        };
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = stopped => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(key = caller.key.fingerprint(), %error, "control connection ended");
        }
    }

    async fn request(
        self: Arc<Self>,
        mut request: Request<Incoming>,
        caller: Caller,
        router: TowerToHyperService<Router>,
    ) -> Response<Body> {
        let Some(_flight) = Flight::begin(&self, caller.key) else {
            self.busy.fetch_add(1, Ordering::Relaxed);
            return DeviceProblem::new(
                ErrorCode::TooMany,
                format!("this device has {MAX_IN_FLIGHT} requests open"),
                "wait for one of them to end",
            )
            .into_response();
        };
        request.extensions_mut().insert(ConnectInfo(caller));
        match tokio::time::timeout(self.request_time, router.call(request)).await {
            Ok(Ok(response)) => response,
            Err(_) => {
                self.too_slow.fetch_add(1, Ordering::Relaxed);
                DeviceProblem::new(
                    ErrorCode::Unavailable,
                    format!("the request took longer than {:?}", self.request_time),
                    "try again",
                )
                .into_response()
            }
        }
    }

    pub(super) fn in_flight(&self) -> u64 {
        self.flights().values().sum::<usize>() as u64
    }

    fn flights(&self) -> MutexGuard<'_, BTreeMap<PublicKey, usize>> {
        self.in_flight
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    fn begin(server: &Arc<Server>, key: PublicKey) -> Option<Flight> {
        let mut flights = server.flights();
        let count = flights.entry(key).or_default();
        if *count >= MAX_IN_FLIGHT {
            return None;
        }
        *count += 1;
        drop(flights);
        let server = Arc::clone(server);
        Some(Flight { server, key })
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut flights = self.server.flights();
        if let Some(count) = flights.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                flights.remove(&self.key);
            }
        }
    }
}
