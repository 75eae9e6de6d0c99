//! What the control plane and the data worker say to each other.
//!
//! The control plane sends a [`WorkerCommand`] into a bounded channel and rings the worker's
//! eventfd; the worker answers on a oneshot. Nothing else is shared and nothing is locked.

use crate::api::{FlowFilter, FlowView, WorkerSnapshot};
use postern_engine::policy::Policy;
use postern_io::clock::Clock;
use postern_proto::keys::{PresharedKey, PublicKey};
use postern_proto::now::Mono;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;
use tokio::sync::oneshot;

/// Commands that may wait for the worker. The largest is a device with its names and groups, well
/// under 4 KiB: less than 1 MiB together.
pub const WORKER_QUEUE: usize = 256;

/// How long the control plane waits for an answer before it calls the worker stuck.
pub const WORKER_PATIENCE: Duration = Duration::from_secs(5);

/// What the control plane asks of the worker.
pub enum WorkerCommand {
    /// Accept this key from now on. An error names why the worker cannot.
    AddDevice {
        /// Who it is.
        device: Box<DeviceRecord>,
        /// Done, or why not.
        done: oneshot::Sender<Result<(), String>>,
    },
    /// Forget this key, its session and its flows.
    RemoveDevice {
        /// Whose.
        key: PublicKey,
        /// Goes into the closing records.
        reason: RemoveReason,
        /// When the change was accepted: cuts are measured from here.
        changed: Mono,
        /// What was cut.
        done: oneshot::Sender<Cut>,
    },
    /// Judge by this policy from now on, live flows included.
    SetPolicy {
        /// Compiled and tested.
        policy: Arc<Policy>,
        /// When the change was accepted: cuts are measured from here.
        changed: Mono,
        /// What was cut.
        done: oneshot::Sender<Cut>,
    },
    /// Cut the flows that match.
    KillFlows {
        /// Which.
        select: FlowFilter,
        /// When the change was accepted: cuts are measured from here.
        changed: Mono,
        /// What was cut.
        done: oneshot::Sender<Cut>,
    },
    /// List the flows that match, oldest first.
    ListFlows {
        /// Which.
        select: FlowFilter,
        /// At most so many.
        limit: usize,
        /// The flows.
        done: oneshot::Sender<Vec<FlowView>>,
    },
    /// Counters, peers, queues.
    Snapshot {
        /// The state of this moment.
        done: oneshot::Sender<WorkerSnapshot>,
    },
    /// End.
    Stop {
        /// Leave live flows to a successor instead of cutting them.
        hand_over: bool,
        /// What was cut.
        done: oneshot::Sender<Cut>,
    },
}

/// Why a device goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoveReason {
    /// An admin revoked it.
    Revoked,
}

/// What a change ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Flows that were cut on both sides.
    pub flows: u64,
}

/// A device as the store keeps it and the worker needs it.
#[derive(Clone, Debug)]
pub struct DeviceRecord {
    /// Unique for ever.
    pub name: String,
    /// Who uses it; `None` for a machine.
    pub user: Option<String>,
    /// The groups that policy sees, sorted.
    pub groups: Vec<String>,
    /// Its identity, unique for ever.
    pub key: PublicKey,
    /// The second secret of its handshake.
    pub preshared_key: Option<PresharedKey>,
    /// Its IPv4 address in the tunnel.
    pub v4: Ipv4Addr,
    /// Its IPv6 address in the tunnel, with the same host number.
    pub v6: Ipv6Addr,
    /// Seconds since 1970.
    pub created: u64,
    /// Where it was last seen, so that a restarted gateway can call it.
    pub last_endpoint: Option<SocketAddr>,
}

/// The control plane's end of the channel. Cheap to clone.
#[derive(Clone)]
pub struct Worker {
    commands: SyncSender<WorkerCommand>,
    wake: Arc<dyn Fn() + Send + Sync>,
    patience: Duration,
}

/// The worker gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkerError {
    /// Its thread has ended.
    #[error("the data worker has stopped; the gateway must be restarted")]
    Gone,
    /// [`WORKER_QUEUE`] commands wait already.
    #[error("the data worker has {WORKER_QUEUE} commands waiting; try again")]
    Full,
    /// No answer in time.
    #[error("the data worker did not answer in time")]
    Stuck,
}

impl Worker {
    /// From the sending half of a `sync_channel(WORKER_QUEUE)` and what rings the eventfd.
    #[must_use]
    pub fn new(commands: SyncSender<WorkerCommand>, wake: Arc<dyn Fn() + Send + Sync>) -> Self {
        Worker {
            commands,
            wake,
            patience: WORKER_PATIENCE,
        }
    }

    /// The same, with another patience. For probes that must be quick.
    #[must_use]
    pub fn with_patience(&self, patience: Duration) -> Self {
        Worker {
            patience,
            ..self.clone()
        }
    }

    /// Accepts a device. The inner error is the worker's own refusal.
    pub async fn add_device(
        &self,
        device: DeviceRecord,
    ) -> Result<Result<(), String>, WorkerError> {
        self.ask(|done| WorkerCommand::AddDevice {
            device: Box::new(device),
            done,
        })
        .await
    }

    /// Forgets a device and cuts its flows.
    pub async fn remove_device(
        &self,
        key: PublicKey,
        reason: RemoveReason,
    ) -> Result<Cut, WorkerError> {
        self.ask(|done| WorkerCommand::RemoveDevice {
            key,
            reason,
            changed: Clock::now().mono,
            done,
        })
        .await
    }

    /// Publishes a policy and cuts what it no longer allows.
    pub async fn set_policy(&self, policy: Arc<Policy>) -> Result<Cut, WorkerError> {
        self.ask(|done| WorkerCommand::SetPolicy {
            policy,
            changed: Clock::now().mono,
            done,
        })
        .await
    }

    /// Cuts the flows that match.
    pub async fn kill_flows(&self, select: FlowFilter) -> Result<Cut, WorkerError> {
        self.ask(|done| WorkerCommand::KillFlows {
            select,
            changed: Clock::now().mono,
            done,
        })
        .await
    }

    /// Lists at most `limit` flows that match.
    pub async fn list_flows(
        &self,
        select: FlowFilter,
        limit: usize,
    ) -> Result<Vec<FlowView>, WorkerError> {
        self.ask(|done| WorkerCommand::ListFlows {
            select,
            limit,
            done,
        })
        .await
    }

    /// The state of this moment.
    pub async fn snapshot(&self) -> Result<WorkerSnapshot, WorkerError> {
        self.ask(|done| WorkerCommand::Snapshot { done }).await
    }

    /// Ends the worker. Without `hand_over` every live flow is cut.
    pub async fn stop(&self, hand_over: bool) -> Result<Cut, WorkerError> {
        self.ask(|done| WorkerCommand::Stop { hand_over, done })
            .await
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> WorkerCommand,
    ) -> Result<T, WorkerError> {
        let (done, answer) = oneshot::channel();
        self.commands
            .try_send(command(done))
            .map_err(|error| match error {
                TrySendError::Full(_) => WorkerError::Full,
                TrySendError::Disconnected(_) => WorkerError::Gone,
            })?;
        (self.wake)();
        match tokio::time::timeout(self.patience, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(WorkerError::Gone),
            Err(_) => Err(WorkerError::Stuck),
        }
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Worker")
    }
}
