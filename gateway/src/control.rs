//! What an admin can do with a running gateway. The admin API is a thin coat around it.

mod approval;
mod attributes;
mod device;
mod devices;
mod explain;
mod grants;
mod guests;
mod invite;
mod janitor;
mod join;
mod labels;
mod login;
mod policy;
mod posture;
mod refresh;
mod rotation;
mod sessions;
mod users;
mod who;
mod why;

pub use explain::{answer, explain};
pub(crate) use grants::Decision;
pub use guests::{MAX_GUEST_KEYS, guests};
pub use who::Asker;

use crate::api::{
    CutView, ExplainRequest, Explained, FlowFilter, FlowView, MAX_FLOWS_LISTED, NameView, Status,
    WorkerSnapshot,
};
use crate::device_api::Counts;
use crate::flow_log::{FlowLogHandle, RECORD_QUEUE};
use crate::inside;
use crate::live_config::LiveConfig;
use crate::login::Logins;
use crate::metrics::Facts;
use crate::names::Names;
use crate::policy_watch::PolicyKeeper;
use crate::problem::Problem;
use crate::store::{Sighting, Store, Terms};
use crate::worker_api::DeviceRecord;
use crate::workers::Workers;
use arc_swap::ArcSwap;
use postern_io::clock::Clock;
use postern_proto::keys::PublicKey;
use postern_proto::now::{Mono, Wall};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How long a probe or a scrape waits for the worker.
const PROBE_PATIENCE: Duration = Duration::from_secs(1);

/// How often endpoints and handshakes are stored.
const REMEMBER_EVERY: Duration = Duration::from_secs(2);

/// After so many of those it is looked which throw-away keys are too old: every hour.
const GUESTS_EVERY: u64 = 1800;

/// How the devices stood is kept so long beyond the oldest record.
const FLOWS_LAST: Duration = Duration::from_secs(7 * 86_400);

/// The control plane of one running gateway.
#[derive(Debug)]
pub struct Control {
    /// The configuration in force.
    pub config: LiveConfig,
    /// The policy in force.
    pub policy: PolicyKeeper,
    /// The devices.
    pub store: Store,
    /// The data plane.
    pub workers: Workers,
    /// The records.
    pub log: FlowLogHandle,
    /// What devices ask, counted.
    pub asked: Counts,
    /// The server that they ask.
    inside: Option<inside::Handle>,
    names: Option<Names>,
    pub(crate) logins: Logins,
    boot: u64,
    public_key: PublicKey,
    started: Mono,
    devices: AtomicU64,
    last: ArcSwap<WorkerSnapshot>,
    /// Store and worker change together.
    changing: tokio::sync::Mutex<()>,
    /// Throw-away keys that the data plane knows.
    guests: tokio::sync::Mutex<BTreeMap<PublicKey, DeviceRecord>>,
    refusals: std::sync::Mutex<crate::refusals::Refusals>,
    /// Rotations that the data plane has ended and the store has not, old key and new; at most one
    /// for each device.
    unfinished: std::sync::Mutex<BTreeSet<(PublicKey, PublicKey)>>,
}

/// What a [`Control`] is made of.
#[derive(Debug)]
pub struct Parts {
    /// The configuration in force.
    pub config: LiveConfig,
    /// The policy in force.
    pub policy: PolicyKeeper,
    /// The devices.
    pub store: Store,
    /// The data plane.
    pub workers: Workers,
    /// The records.
    pub log: FlowLogHandle,
    /// From [`Store::next_boot`].
    pub boot: u64,
    /// The gateway's own.
    pub public_key: PublicKey,
}

impl Control {
    /// Puts the parts together.
    ///
    /// # Errors
    /// The store cannot be read.
    pub async fn new(parts: Parts) -> Result<Control, Problem> {
        let devices = parts.store.count_active().await?;
        let guests = guests::by_key(guests(&parts.store).await?);
        Ok(Control {
            asked: Counts::default(),
            inside: None,
            names: None,
            logins: Logins::new(parts.config.clone(), parts.log.audit()),
            config: parts.config,
            policy: parts.policy,
            store: parts.store,
            workers: parts.workers,
            log: parts.log,
            boot: parts.boot,
            public_key: parts.public_key,
            started: Clock::now().mono,
            devices: AtomicU64::new(devices),
            last: ArcSwap::default(),
            changing: tokio::sync::Mutex::new(()),
            guests: tokio::sync::Mutex::new(guests),
            refusals: Default::default(),
            unfinished: Default::default(),
        })
    }

    /// With the server inside the tunnels, whose connections end with the key that they belong to.
    #[must_use]
    pub fn with_inside(mut self, inside: inside::Handle) -> Control {
        self.inside = Some(inside);
        self
    }

    /// With what the names of targets mean.
    #[must_use]
    pub fn with_names(mut self, names: Names) -> Control {
        self.names = Some(names);
        self
    }

    /// Keeps policy and names together. Never returns.
    pub async fn keep_names(&self) {
        match &self.names {
            Some(names) => names.keep(&self.policy).await,
            None => std::future::pending().await,
        }
    }

    fn name_views(&self) -> Vec<NameView> {
        let policy = self.policy.current();
        let views = |names: &Names| names.views(&policy);
        self.names.as_ref().map(views).unwrap_or_default()
    }

    /// Live flows that match, oldest first.
    ///
    /// # Errors
    /// The worker gave no answer.
    pub async fn flows(&self, select: FlowFilter) -> Result<Vec<FlowView>, Problem> {
        Ok(self.workers.list_flows(select, MAX_FLOWS_LISTED).await?)
    }

    /// Cuts the flows that match.
    ///
    /// # Errors
    /// Nothing was selected, or the worker gave no answer.
    pub async fn kill_flows(&self, select: FlowFilter) -> Result<CutView, Problem> {
        if select.is_empty() {
            return Err(Problem::refused(
                "no flow is selected",
                "name an id, a device, a user or a destination",
            ));
        }
        let cut = self.workers.kill_flows(select).await?;
        Ok(CutView { flows: cut.flows })
    }

    /// Why the policy in force says what it says.
    ///
    /// # Errors
    /// The request names no destination or an unknown device.
    pub async fn explain(&self, request: &ExplainRequest) -> Result<Explained, Problem> {
        let terms = Terms::of(&self.config.get());
        let known = Some((&self.store, &terms));
        explain(&self.policy.current(), known, request).await
    }

    /// Everything at a glance. Answers also when the worker does not.
    pub async fn status(&self) -> Status {
        let config = self.config.get();
        let file = self.config.file_state();
        let fresh = self.snapshot().await;
        let state = match &fresh {
            Err(problem) => problem.error.clone(),
            Ok(_) => self.not_ready().unwrap_or_else(|| "ready".to_owned()),
        };
        let worker = self.last.load_full();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            boot: self.boot,
            uptime_seconds: Clock::now().mono.since(self.started).as_secs(),
            public_key: self.public_key,
            listen_port: config.listen_port,
            interface: config.interface.clone(),
            state,
            devices: self.devices.load(Ordering::Relaxed),
            devices_connected: connected(&worker),
            open_flows: worker.open_flows,
            policy: (*self.policy.status()).clone(),
            flow_log: self.log.status(),
            needs_restart: file.needs_restart.clone(),
            config_errors: file.errors.clone(),
            login_errors: self.logins.problems(),
            names: self.name_views(),
            worker: (*worker).clone(),
        }
    }

    /// What the metrics are made of. Asks the worker first; if it does not answer, the last known
    /// state is shown.
    pub async fn facts(&self) -> Facts {
        // Readiness tells of a worker that is stuck; a scrape shows what was known last.
        let _ = self.snapshot().await;
        let mut asked = self.asked.view();
        for entry in self.policy.current().grants() {
            // There before its first use: a counter that begins at 1 hides its first step.
            if entry.break_glass() {
                asked
                    .break_glass
                    .entry(entry.name().to_owned())
                    .or_default();
            }
        }
        Facts {
            worker: (*self.last.load_full()).clone(),
            policy: (*self.policy.status()).clone(),
            log: self.log.status(),
            log_queue: (self.log.queued(), RECORD_QUEUE as u64),
            devices: self.devices.load(Ordering::Relaxed),
            inside: self
                .inside
                .as_ref()
                .map(inside::Handle::facts)
                .unwrap_or_default(),
            sessions: self.store.count_sessions().await.ok(),
            grants: self.store.count_grants().await.ok(),
            asked,
            names: self.name_views(),
        }
    }

    /// Whether new flows can pass.
    ///
    /// # Errors
    /// Why they cannot.
    pub async fn ready(&self) -> Result<(), String> {
        self.snapshot().await.map_err(|problem| problem.error)?;
        self.not_ready().map_or(Ok(()), Err)
    }

    /// Stores where devices are, so that a restarted gateway can call them. Never returns.
    pub async fn remember(&self) {
        let mut stored: Vec<Sighting> = Vec::new();
        for turn in 1_u64.. {
            tokio::time::sleep(REMEMBER_EVERY).await;
            if self.snapshot().await.is_ok() {
                self.remember_now(&mut stored).await;
            }
            self.tell_refusals().await;
            self.logins.tell_refusals(Clock::now().wall).await;
            if turn % GUESTS_EVERY == 0 {
                if let Err(problem) = self.sync_guests().await {
                    tracing::warn!(%problem, "old throw-away keys are still known; will be tried again");
                }
                self.forget_past().await;
            }
        }
    }

    /// Forgets what no record rests on.
    async fn forget_past(&self) {
        let oldest = Duration::from_millis(self.log.status().oldest_ms);
        // A record tells of a flow that may have begun long before.
        let before = Wall(0) + oldest.saturating_sub(FLOWS_LAST);
        if let Err(error) = self.store.forget_past(before).await {
            tracing::warn!(%error, "what no record rests on is still kept; will be tried again");
        }
    }

    /// The same once, of the last known state. Before a stop.
    pub async fn remember_last(&self) {
        if self.snapshot().await.is_ok() {
            self.remember_now(&mut Vec::new()).await;
        }
    }

    async fn remember_now(&self, stored: &mut Vec<Sighting>) {
        let seen: Vec<Sighting> = self
            .last
            .load()
            .peers
            .iter()
            .filter(|peer| peer.endpoint.is_some())
            .map(|peer| Sighting {
                key: peer.public_key,
                endpoint: peer.endpoint,
                handshake: peer.last_handshake,
            })
            .collect();
        let new: Vec<_> = seen
            .iter()
            .filter(|one| !stored.contains(one))
            .copied()
            .collect();
        match self.store.remember(&new).await {
            Ok(()) => *stored = seen,
            Err(error) => tracing::warn!(%error, "endpoints are not stored; will be tried again"),
        }
    }

    async fn snapshot(&self) -> Result<(), Problem> {
        let snapshot = self
            .workers
            .with_patience(PROBE_PATIENCE)
            .snapshot()
            .await?;
        self.last.store(Arc::new(snapshot));
        Ok(())
    }

    fn not_ready(&self) -> Option<String> {
        let failing = self.log.status().failing?;
        Some(format!("records cannot be written: {failing}"))
    }
}

fn connected(worker: &WorkerSnapshot) -> u64 {
    worker.peers.iter().filter(|peer| peer.connected).count() as u64
}
