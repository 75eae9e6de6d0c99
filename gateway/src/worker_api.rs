//! What the control plane says to one thread of the data plane, and what that answers.
//!
//! The control plane sends a [`WorkerCommand`] (to the front door: a [`DoorCommand`]) into a
//! bounded channel and rings the thread's eventfd; it answers on a oneshot. Nothing else is
//! shared and nothing is locked. [`crate::workers`] speaks to all of them at once.

use crate::api::{FlowFilter, FlowView, WorkerSnapshot};
use crate::front_door::{DoorCounts, DoorFull, FrontDoor};
use postern_engine::policy::Policy;
use postern_engine::standing::Standing;
use postern_proto::control::Message;
use postern_proto::keys::{PresharedKey, PublicKey};
use postern_proto::now::Mono;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// Commands that may wait for a thread. The largest is a device with its names and groups, well
/// under 4 KiB: less than 1 MiB together.
pub const WORKER_QUEUE: usize = 256;

/// How long the control plane waits for an answer before it calls a thread stuck.
pub const WORKER_PATIENCE: Duration = Duration::from_secs(5);

/// What the control plane asks of a worker.
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
    /// Another standing, user or groups of a device that is known by its key: its live flows are
    /// judged again before the answer. A device that is not there is no error: nothing is cut.
    UpdateDevice {
        /// As it is now.
        device: Box<DeviceRecord>,
        /// When the change was accepted: cuts are measured from here.
        changed: Mono,
        /// What was cut.
        done: oneshot::Sender<Cut>,
    },
    /// Accept a second key for a device. Once it has completed a handshake, the flows and the
    /// addresses are its own and the first key means nothing; until then nothing changes. Doing
    /// it again replaces the second key.
    RotateDevice {
        /// The key in force.
        key: PublicKey,
        /// The key to come.
        next: PublicKey,
        /// The second secret of its handshake.
        preshared_key: Option<PresharedKey>,
        /// Done, or why not.
        done: oneshot::Sender<Result<(), String>>,
    },
    /// Tell a client something, if it listens.
    Tell {
        /// Whom.
        key: PublicKey,
        /// What.
        message: Box<Message>,
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

/// What the control plane asks of the front door.
pub enum DoorCommand {
    /// Initiations of this key are for that worker.
    Enrol {
        /// Whose.
        key: PublicKey,
        /// Which.
        worker: usize,
        /// Done, or why not.
        done: oneshot::Sender<Result<(), DoorFull>>,
    },
    /// This key meets silence.
    Strike {
        /// Whose.
        key: PublicKey,
        /// Done.
        done: oneshot::Sender<()>,
    },
    /// Counters.
    Counts {
        /// Since the start.
        done: oneshot::Sender<DoorCounts>,
    },
    /// End.
    Stop {
        /// Done.
        done: oneshot::Sender<()>,
    },
}

impl DoorCommand {
    /// Does it. An answer that nobody waits for any more is no error.
    pub fn obey(self, door: &mut FrontDoor) -> ControlFlow<()> {
        match self {
            DoorCommand::Enrol { key, worker, done } => {
                let _ = done.send(door.enrol(key, worker));
            }
            DoorCommand::Strike { key, done } => {
                door.strike(&key);
                let _ = done.send(());
            }
            DoorCommand::Counts { done } => {
                let _ = done.send(door.counts().clone());
            }
            DoorCommand::Stop { done } => {
                let _ = done.send(());
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
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
    /// Its IPv4 address in the tunnel; unspecified for a throw-away key, which has none.
    pub v4: Ipv4Addr,
    /// Its IPv6 address in the tunnel, with the same host number.
    pub v6: Ipv6Addr,
    /// Seconds since 1970.
    pub created: u64,
    /// Where it was last seen, so that a restarted gateway can call it.
    pub last_endpoint: Option<SocketAddr>,
    /// What may change while it is connected.
    pub standing: Standing,
}

/// The control plane's end of one thread's channel.
pub struct Caller<C> {
    commands: SyncSender<C>,
    wake: Box<dyn Fn() + Send + Sync>,
}

/// Calls a worker.
pub type Worker = Caller<WorkerCommand>;

/// Calls the front door.
pub type Door = Caller<DoorCommand>;

/// What a thread will answer.
#[must_use]
pub struct Answer<T>(oneshot::Receiver<T>);

/// A thread of the data plane gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WorkerError {
    /// It has ended.
    #[error("the data worker has stopped; the gateway must be restarted")]
    Gone,
    /// [`WORKER_QUEUE`] commands wait already.
    #[error("the data worker has {WORKER_QUEUE} commands waiting; try again")]
    Full,
    /// No answer in time.
    #[error("the data worker did not answer in time")]
    Stuck,
}

impl<C> Caller<C> {
    /// From the sending half of a `sync_channel(WORKER_QUEUE)` and what rings the eventfd.
    #[must_use]
    pub fn new(commands: SyncSender<C>, wake: impl Fn() + Send + Sync + 'static) -> Self {
        Caller {
            commands,
            wake: Box::new(wake),
        }
    }

    /// Sends a command at once; its answer can be waited for later.
    ///
    /// # Errors
    /// The thread takes no command.
    pub fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> C,
    ) -> Result<Answer<T>, WorkerError> {
        let (done, answer) = oneshot::channel();
        self.command(command(done))?;
        Ok(Answer(answer))
    }

    /// Sends a command that has no answer.
    ///
    /// # Errors
    /// The thread takes no command.
    pub fn command(&self, command: C) -> Result<(), WorkerError> {
        self.commands
            .try_send(command)
            .map_err(|error| match error {
                TrySendError::Full(_) => WorkerError::Full,
                TrySendError::Disconnected(_) => WorkerError::Gone,
            })?;
        (self.wake)();
        Ok(())
    }
}

impl<T> Answer<T> {
    /// The answer, if it comes in time.
    ///
    /// # Errors
    /// It does not.
    pub async fn by(self, deadline: Instant) -> Result<T, WorkerError> {
        match tokio::time::timeout_at(deadline, self.0).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(WorkerError::Gone),
            Err(_) => Err(WorkerError::Stuck),
        }
    }
}

impl<C> fmt::Debug for Caller<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Caller")
    }
}
