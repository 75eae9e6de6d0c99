//! A data plane that remembers what it was asked, for tests of the control plane.

use crate::api::{FlowView, WorkerSnapshot};
use crate::front_door::FrontDoor;
use crate::worker_api::{
    Caller, Cut, DeviceRecord, Door, DoorCommand, WORKER_QUEUE, Worker, WorkerCommand,
};
use crate::workers::Workers;
use postern_proto::flow_key::Protocol;
use postern_proto::keys::{PrivateKey, PublicKey};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex, MutexGuard};

/// What the fake was asked. Every cut that it reports is of 7 flows.
#[derive(Clone, Default)]
pub(crate) struct FakeWorker(Arc<Mutex<Asked>>);

#[derive(Default)]
pub(crate) struct Asked {
    pub(crate) devices: Vec<String>,
    pub(crate) removed: usize,
    pub(crate) updated: Vec<DeviceRecord>,
    pub(crate) rotated: Vec<PublicKey>,
    pub(crate) told: usize,
    pub(crate) policies: Vec<String>,
    pub(crate) killed: usize,
    pub(crate) added: Vec<DeviceRecord>,
    /// Says no to the next device, or to the next new key.
    pub(crate) refuse: bool,
    /// Takes so many policies without an answer.
    pub(crate) mute: usize,
    pub(crate) flows: Vec<FlowView>,
    pub(crate) snapshot: WorkerSnapshot,
}

impl FakeWorker {
    /// One worker and a door.
    pub(crate) fn start() -> (Workers, FakeWorker) {
        let (worker, fake) = FakeWorker::worker();
        (Workers::new(vec![worker], door()), fake)
    }

    pub(crate) fn worker() -> (Worker, FakeWorker) {
        let (commands, queue) = sync_channel(WORKER_QUEUE);
        let fake = FakeWorker::default();
        let thread = fake.clone();
        std::thread::spawn(move || {
            while let Ok(command) = queue.recv() {
                thread.obey(command);
            }
        });
        (Caller::new(commands, || {}), fake)
    }

    pub(crate) fn policies(&self) -> Vec<String> {
        self.asked().policies.clone()
    }

    pub(crate) fn asked(&self) -> MutexGuard<'_, Asked> {
        self.0.lock().expect("no test panics with it")
    }

    fn obey(&self, command: WorkerCommand) {
        let mut asked = self.asked();
        let cut = Cut { flows: 7 };
        match command {
            WorkerCommand::AddDevice { device, done } => {
                let answer = if std::mem::take(&mut asked.refuse) {
                    Err("the table of devices is full".to_owned())
                } else if asked.added.iter().any(|known| known.key == device.key) {
                    Err("the key already belongs to a peer".to_owned())
                } else {
                    asked.devices.push(device.name.clone());
                    asked.added.push(*device);
                    Ok(())
                };
                let _ = done.send(answer);
            }
            WorkerCommand::RemoveDevice { key, done, .. } => {
                asked.removed += 1;
                asked.added.retain(|known| known.key != key);
                let _ = done.send(cut);
            }
            WorkerCommand::UpdateDevice { device, done, .. } => {
                asked.updated.push(*device);
                let _ = done.send(cut);
            }
            WorkerCommand::RotateDevice { next, done, .. } => {
                let answer = if std::mem::take(&mut asked.refuse) {
                    Err("no room for another peer".to_owned())
                } else {
                    asked.rotated.push(next);
                    Ok(())
                };
                let _ = done.send(answer);
            }
            WorkerCommand::Tell { .. } => asked.told += 1,
            WorkerCommand::SetPolicy { policy, done, .. } => {
                asked.policies.push(policy.hash().full());
                match asked.mute.checked_sub(1) {
                    Some(left) => asked.mute = left,
                    None => {
                        let _ = done.send(cut);
                    }
                }
            }
            WorkerCommand::KillFlows { done, .. } => {
                asked.killed += 1;
                let _ = done.send(cut);
            }
            WorkerCommand::ListFlows {
                select,
                limit,
                done,
            } => {
                let found = asked.flows.iter().filter(|flow| {
                    let to = (
                        flow.destination.ip(),
                        flow.destination.port(),
                        flow.protocol,
                    );
                    let user = flow.user.as_deref();
                    select.matches(flow.id, &flow.device, user, to, flow.opened_ms)
                });
                let _ = done.send(found.take(limit).cloned().collect());
            }
            WorkerCommand::Snapshot { done } => {
                let _ = done.send(asked.snapshot.clone());
            }
            WorkerCommand::Stop { done, .. } => {
                let _ = done.send(cut);
            }
        }
    }
}

/// A door without a socket.
pub(crate) fn door() -> Door {
    door_of(FrontDoor::new(&PrivateKey::from_random([1; 32]), 1, 7))
}

pub(crate) fn door_of(mut door: FrontDoor) -> Door {
    let (commands, queue) = sync_channel::<DoorCommand>(WORKER_QUEUE);
    std::thread::spawn(move || {
        while let Ok(command) = queue.recv() {
            if command.obey(&mut door).is_break() {
                break;
            }
        }
    });
    Caller::new(commands, || {})
}

/// An SSH flow of ana, open since 1970.
pub(crate) fn flow() -> FlowView {
    FlowView {
        id: 1,
        state: "established".into(),
        device: "ana".into(),
        user: None,
        protocol: Protocol::Tcp,
        outer: None,
        facts: None,
        source: "100.96.0.2:4000".parse().expect("socket"),
        destination: "192.0.2.10:22".parse().expect("socket"),
        target: None,
        rule: "ssh to the nodes".into(),
        generation: 1,
        opened_ms: 0,
        idle_ms: 0,
        bytes_out: 0,
        packets_out: 0,
        bytes_in: 0,
        packets_in: 0,
    }
}
