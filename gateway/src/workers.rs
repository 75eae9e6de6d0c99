//! The control plane's handle on the whole data plane: every worker, and the front door.
//!
//! A question to all is sent to all before the first answer is waited for, so it takes as long as
//! the slowest, not as long as all together.

mod merge;

use crate::api::{FlowFilter, FlowView, WorkerSnapshot};
use crate::front_door::DoorFull;
use crate::store::Noted;
use crate::worker_api::{
    Answer, Cut, DeviceRecord, Door, DoorCommand, RemoveReason, WORKER_PATIENCE, Worker,
    WorkerCommand, WorkerError,
};
use postern_engine::policy::Policy;
use postern_io::clock::Clock;
use postern_proto::control::Message;
use postern_proto::keys::{PresharedKey, PublicKey};
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Workers {
    threads: Arc<Threads>,
    patience: Duration,
}

#[derive(Debug)]
struct Threads {
    /// A power of two of them.
    workers: Vec<Worker>,
    door: Door,
    /// Policies that a worker may still have: none shall be the last to let go of one, since that
    /// frees some hundred thousand pieces of memory.
    policies: Mutex<Vec<Arc<Policy>>>,
}

/// The worker, of a power of two, that owns the device with this address: the address's lowest
/// bits. The host number of a device gives both its addresses, so those of IPv6 are the same.
#[must_use]
pub fn owner(address: Ipv4Addr, workers: usize) -> usize {
    usize::from(address.octets()[3]) & (workers.max(1) - 1)
}

impl Threads {
    fn keep(&self, policy: &Arc<Policy>) {
        let mut kept = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push(Arc::clone(policy));
    }

    /// Frees the policies that nobody else has, but for the one in force.
    fn let_go(&self) {
        let mut kept = self.policies.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = kept.pop();
        let former = std::mem::take(&mut *kept);
        let (unused, used): (Vec<_>, Vec<_>) = former
            .into_iter()
            .partition(|policy| Arc::strong_count(policy) == 1);
        kept.extend(used.into_iter().chain(newest));
        drop(kept);
        drop(unused);
    }
}

impl Workers {
    /// A power of two of workers, and the door that knows them by their place here.
    #[must_use]
    pub fn new(workers: Vec<Worker>, door: Door) -> Self {
        Workers {
            threads: Arc::new(Threads {
                workers,
                door,
                policies: Mutex::default(),
            }),
            patience: WORKER_PATIENCE,
        }
    }

    /// The same, with another patience. For probes that must be quick.
    #[must_use]
    pub fn with_patience(&self, patience: Duration) -> Self {
        Workers {
            patience,
            ..self.clone()
        }
    }

    /// Accepts a device: its worker first, so that the door hands over nothing that nobody wants.
    /// The inner error is the data plane's own refusal; nothing has changed then.
    ///
    /// # Errors
    /// A thread gave no answer.
    pub async fn add_device(&self, device: Noted) -> Result<Result<(), String>, WorkerError> {
        let device = device.into_record();
        let key = device.key;
        let (place, worker) = self.owner(device.v4)?;
        let accepted = worker.ask(|done| WorkerCommand::AddDevice {
            device: Box::new(device),
            done,
        })?;
        if let Err(refused) = accepted.by(self.deadline()).await? {
            return Ok(Err(refused));
        }
        let enrolled = self.threads.door.ask(|done| DoorCommand::Enrol {
            key,
            worker: place,
            done,
        })?;
        let Err(DoorFull) = enrolled.by(self.deadline()).await? else {
            return Ok(Ok(()));
        };
        let forgotten = worker.ask(|done| WorkerCommand::RemoveDevice {
            key,
            reason: RemoveReason::Revoked,
            changed: Clock::now().mono,
            done,
        })?;
        forgotten.by(self.deadline()).await?;
        Ok(Err(DoorFull.to_string()))
    }

    /// Forgets a device and cuts its flows. The door is told first.
    ///
    /// # Errors
    /// A thread gave no answer; the other was told all the same.
    pub async fn remove_device(
        &self,
        device: &DeviceRecord,
        reason: RemoveReason,
    ) -> Result<Cut, WorkerError> {
        let key = device.key;
        let changed = Clock::now().mono;
        let (_, worker) = self.owner(device.v4)?;
        let struck = self
            .threads
            .door
            .ask(|done| DoorCommand::Strike { key, done });
        let cut = worker.ask(|done| WorkerCommand::RemoveDevice {
            key,
            reason,
            changed,
            done,
        });
        let deadline = self.deadline();
        let cut = cut?.by(deadline).await?;
        struck?.by(deadline).await?;
        Ok(cut)
    }

    /// Another standing, user or groups of a device: its flows are judged again before this
    /// returns.
    ///
    /// # Errors
    /// Its worker gave no answer.
    pub async fn update_device(&self, device: Noted) -> Result<Cut, WorkerError> {
        let device = device.into_record();
        let changed = Clock::now().mono;
        let (_, worker) = self.owner(device.v4)?;
        let cut = worker.ask(|done| WorkerCommand::UpdateDevice {
            device: Box::new(device),
            changed,
            done,
        })?;
        cut.by(self.deadline()).await
    }

    /// Accepts a second key for a device, which replaces the first when it is used. The worker
    /// first, then the door. The inner error is the data plane's own refusal.
    ///
    /// # Errors
    /// A thread gave no answer.
    pub async fn rotate_device(
        &self,
        device: &DeviceRecord,
        next: PublicKey,
        preshared_key: Option<PresharedKey>,
    ) -> Result<Result<(), String>, WorkerError> {
        let key = device.key;
        let (place, worker) = self.owner(device.v4)?;
        let accepted = worker.ask(|done| WorkerCommand::RotateDevice {
            key,
            next,
            preshared_key,
            done,
        })?;
        if let Err(refused) = accepted.by(self.deadline()).await? {
            return Ok(Err(refused));
        }
        let enrolled = self.threads.door.ask(|done| DoorCommand::Enrol {
            key: next,
            worker: place,
            done,
        })?;
        let Err(full) = enrolled.by(self.deadline()).await? else {
            return Ok(Ok(()));
        };
        // Its own key is none to come: it is refused, and the one that was to come is forgotten.
        let forgotten = worker.ask(|done| WorkerCommand::RotateDevice {
            key,
            next: key,
            preshared_key: None,
            done,
        })?;
        let _refused = forgotten.by(self.deadline()).await?;
        Ok(Err(full.to_string()))
    }

    /// A former key meets silence at the door.
    ///
    /// # Errors
    /// The door gave no answer.
    pub async fn strike(&self, key: PublicKey) -> Result<(), WorkerError> {
        let struck = self
            .threads
            .door
            .ask(|done| DoorCommand::Strike { key, done })?;
        struck.by(self.deadline()).await
    }

    /// Tells a client something, if it listens.
    ///
    /// # Errors
    /// Its worker takes no command.
    pub fn tell(&self, device: &DeviceRecord, message: Message) -> Result<(), WorkerError> {
        let (_, worker) = self.owner(device.v4)?;
        worker.command(WorkerCommand::Tell {
            key: device.key,
            message: Box::new(message),
        })
    }

    /// Publishes a policy and cuts what it no longer allows. Done when the last worker has looked
    /// at all its flows.
    ///
    /// # Errors
    /// A worker gave no answer; the others judge by the new policy all the same.
    pub async fn set_policy(&self, policy: Arc<Policy>) -> Result<Cut, WorkerError> {
        let changed = Clock::now().mono;
        self.threads.keep(&policy);
        let cuts = self
            .all(|done| WorkerCommand::SetPolicy {
                policy: Arc::clone(&policy),
                changed,
                done,
            })
            .await?;
        self.threads.let_go();
        Ok(sum(&cuts))
    }

    /// Cuts the flows that match.
    ///
    /// # Errors
    /// A worker gave no answer; the others cut all the same.
    pub async fn kill_flows(&self, select: FlowFilter) -> Result<Cut, WorkerError> {
        let changed = Clock::now().mono;
        let cuts = self
            .all(|done| WorkerCommand::KillFlows {
                select: select.clone(),
                changed,
                done,
            })
            .await?;
        Ok(sum(&cuts))
    }

    /// Lists at most `limit` flows that match, oldest first.
    ///
    /// # Errors
    /// A worker gave no answer.
    pub async fn list_flows(
        &self,
        select: FlowFilter,
        limit: usize,
    ) -> Result<Vec<FlowView>, WorkerError> {
        let lists = self
            .all(|done| WorkerCommand::ListFlows {
                select: select.clone(),
                limit,
                done,
            })
            .await?;
        let mut flows = lists.concat();
        flows.sort_by_key(|flow| (flow.opened_ms, flow.id));
        flows.truncate(limit);
        Ok(flows)
    }

    /// The state of this moment: sums over all threads, and the peers of all.
    ///
    /// # Errors
    /// A thread gave no answer.
    pub async fn snapshot(&self) -> Result<WorkerSnapshot, WorkerError> {
        let counts = self.threads.door.ask(|done| DoorCommand::Counts { done })?;
        let snapshots = self.all(|done| WorkerCommand::Snapshot { done }).await?;
        let counts = counts.by(self.deadline()).await?;
        Ok(merge::merge(snapshots, &counts))
    }

    /// Ends every thread. Without `hand_over` every live flow is cut.
    ///
    /// # Errors
    /// A thread gave no answer; the others were told all the same.
    pub async fn stop(&self, hand_over: bool) -> Result<Cut, WorkerError> {
        let closed = self.threads.door.ask(|done| DoorCommand::Stop { done });
        let cuts = self
            .all(|done| WorkerCommand::Stop { hand_over, done })
            .await?;
        closed?.by(self.deadline()).await?;
        Ok(sum(&cuts))
    }

    fn owner(&self, address: Ipv4Addr) -> Result<(usize, &Worker), WorkerError> {
        let workers = &self.threads.workers;
        let place = owner(address, workers.len());
        let worker = workers.get(place).ok_or(WorkerError::Gone)?;
        Ok((place, worker))
    }

    async fn all<T>(
        &self,
        command: impl Fn(tokio::sync::oneshot::Sender<T>) -> WorkerCommand,
    ) -> Result<Vec<T>, WorkerError> {
        let asked: Vec<Result<Answer<T>, WorkerError>> = self
            .threads
            .workers
            .iter()
            .map(|worker| worker.ask(&command))
            .collect();
        let deadline = self.deadline();
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            answers.push(answer?.by(deadline).await?);
        }
        Ok(answers)
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.patience
    }
}

fn sum(cuts: &[Cut]) -> Cut {
    Cut {
        flows: cuts.iter().map(|cut| cut.flows).sum(),
    }
}

#[cfg(test)]
mod tests;
