//! A data worker: one plain thread that owns its sockets, its queue of the TUN and one shard of
//! the engine. Nothing of it is shared and nothing is locked.
//!
//! One turn, in this order:
//!
//! 1. datagrams: decrypted in place, judged, put into the TUN batch;
//! 2. super-packets from the TUN: judged once, split, each segment sealed into the send batch;
//! 3. a few handshakes that the front door has let in, answers of the server inside the tunnel,
//!    and commands of the control plane;
//! 4. what time alone brings about;
//! 5. how many records there are is stored where it survives this process; then both batches are
//!    flushed: at the end of every turn, never on a timer;
//! 6. records go to the log's channel in one piece.

use crate::api::{FlowFilter, FlowView};
use crate::flow_log::{Outgoing, RecordSender, Told};
use crate::front_door::Handed;
use crate::inside::WorkerEnd;
use crate::view;
use crate::worker_api::{Cut, DeviceRecord, RemoveReason, WorkerCommand};
use postern_engine::flow::Flow;
use postern_engine::gateway::Gateway;
use postern_engine::identity::{Device, DeviceState};
use postern_engine::record::CloseReason;
use postern_io::clock::Clock;
use postern_io::offload;
use postern_io::poll::Waker;
use postern_io::road::{Inputs, Outputs};
use postern_proto::keys::PresharedKey;
use postern_proto::now::{Mono, Now};
use postern_proto::outbox::Endpoint;
use std::io;
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use tokio::sync::oneshot;

/// Commands taken in one turn, so that a burst of them delays no packet for long.
const COMMANDS_PER_TURN: usize = 16;

/// Handshakes in one turn: at 0.2 ms each under a millisecond, so that a flood of them, by
/// devices that are enrolled or by whoever repeats their datagrams, delays no data for longer.
const HANDSHAKES_PER_TURN: usize = 4;

/// How long the last records may wait for the log when the gateway ends.
const LAST_PATIENCE: Duration = Duration::from_secs(5);

/// How soon a full channel is tried again.
const RETRY: Duration = Duration::from_millis(20);

/// Everything that the thread owns.
pub struct DataWorker {
    gateway: Gateway,
    inputs: Inputs,
    outputs: Outputs,
    waker: Waker,
    commands: Receiver<WorkerCommand>,
    handed: Handed,
    inside: WorkerEnd,
    log: Outgoing,
    turns: u64,
    /// Answered when the sweep of its policy is over.
    policy_done: Option<(oneshot::Sender<Cut>, u64)>,
}

impl DataWorker {
    /// Takes everything over.
    #[must_use]
    pub fn new(
        gateway: Gateway,
        (inputs, outputs): (Inputs, Outputs),
        waker: Waker,
        commands: Receiver<WorkerCommand>,
        handed: Handed,
        inside: WorkerEnd,
        log: RecordSender,
    ) -> Self {
        DataWorker {
            gateway,
            inputs,
            outputs,
            waker,
            commands,
            handed,
            inside,
            log: Outgoing::new(log),
            turns: 0,
            policy_done: None,
        }
    }

    /// Takes a stored device in before the first turn; with a last endpoint, the gateway begins
    /// the handshake.
    ///
    /// # Errors
    /// What the engine says against it.
    pub fn add(&mut self, device: DeviceRecord) -> Result<(), String> {
        let now = Clock::now();
        let result = self.add_device(device, now);
        self.outputs.flush();
        result
    }

    /// How its offloads stand, for the log.
    #[must_use]
    pub fn offload(&self) -> String {
        offload::in_words(&offload::offloads(&self.inputs, &self.outputs))
    }

    /// Turns until told to stop, and hands in the last records.
    ///
    /// # Errors
    /// The TUN is gone: somebody deleted the interface.
    pub fn run(mut self) -> io::Result<()> {
        let ended = self.turns();
        if ended.is_err() {
            // Nothing passes any more: every flow has ended, and its record says so.
            self.gateway.shut_down(&mut self.outputs, Clock::now());
            self.hand_in_records();
        }
        self.hand_in_the_last();
        ended
    }

    fn turns(&mut self) -> io::Result<()> {
        loop {
            let now = Clock::now().mono;
            let deadline = self.deadline(now);
            let ready = self.inputs.wait(&self.waker, None, deadline, now)?;
            let now = Clock::now();
            let (gateway, outputs) = (&mut self.gateway, &mut self.outputs);
            self.inputs.udp(ready, now.mono, |from, ecn, datagram| {
                gateway.from_network(from, ecn, datagram, outputs, now);
            });
            self.inputs.tun(ready, now.mono, |packet| {
                let segments = u32::try_from(packet.segments()).unwrap_or(u32::MAX);
                let (whole, len) = (packet.packet(), packet.segment_len());
                if let Some(peer) = gateway.from_target(whole, segments, len, outputs, now) {
                    packet.for_each_segment(|segment| {
                        gateway.to_device(peer, segment, outputs, now);
                    });
                }
            })?;
            let ended = ready.woken && {
                self.take_handed(now);
                self.take_answers(now);
                self.obey(now).is_break()
            };
            if self.gateway.next_deadline() <= now.mono {
                self.gateway.timeout(&mut self.outputs, now);
            }
            self.inside.packets(self.gateway.take_control());
            self.inside.rotated(self.gateway.take_rotated());
            // Before a packet leaves: a process that is killed now leaves word of its record.
            self.tell();
            self.outputs.flush();
            self.turns += 1;
            self.answer_policy();
            self.hand_in_records();
            if ended {
                return Ok(());
            }
        }
    }

    fn deadline(&self, now: Mono) -> Mono {
        let retry = if self.log.is_empty() && !self.inside.has_untold() {
            Mono::NEVER
        } else {
            now + RETRY
        };
        self.gateway.next_deadline().min(retry)
    }

    fn take_handed(&mut self, now: Now) {
        for _ in 0..HANDSHAKES_PER_TURN {
            let Some(letter) = self.handed.next() else {
                return;
            };
            let (gateway, outputs) = (&mut self.gateway, &mut self.outputs);
            let (from, datagram) = (letter.from, letter.datagram());
            match &letter.claim {
                Some(key) => gateway.from_door(key, from, datagram, outputs, now),
                None => gateway.from_network(from, letter.ecn, datagram, outputs, now),
            }
        }
        // There may be more: come back after the packets that wait.
        self.waker.wake();
    }

    /// What the server inside the tunnel has to say.
    fn take_answers(&mut self, now: Now) {
        let (gateway, outputs) = (&mut self.gateway, &mut self.outputs);
        let more = self.inside.answers(|key, packet| {
            gateway.send_control(key, packet, outputs, now);
        });
        if more {
            self.waker.wake();
        }
    }

    fn obey(&mut self, now: Now) -> ControlFlow<()> {
        for _ in 0..COMMANDS_PER_TURN {
            let Ok(command) = self.commands.try_recv() else {
                return ControlFlow::Continue(());
            };
            self.obey_one(command, now)?;
        }
        // There may be more: come back at once.
        self.waker.wake();
        ControlFlow::Continue(())
    }

    /// An answer that nobody waits for any more is no error.
    fn obey_one(&mut self, command: WorkerCommand, now: Now) -> ControlFlow<()> {
        let out = &mut self.outputs;
        match command {
            WorkerCommand::AddDevice { device, done } => {
                let _ = done.send(self.add_device(*device, now));
            }
            WorkerCommand::RemoveDevice {
                key,
                reason,
                changed,
                done,
            } => {
                let reason = match reason {
                    RemoveReason::Revoked => CloseReason::Revoked,
                };
                let cut = self.gateway.remove_device(&key, reason, changed, out, now);
                let _ = done.send(Cut {
                    flows: cut.map_or(0, |cut| cut.flows),
                });
            }
            WorkerCommand::UpdateDevice {
                device,
                changed,
                done,
            } => {
                let (device, ..) = parts(*device);
                let cut = self.gateway.update_device(device, changed, out, now);
                let _ = done.send(Cut { flows: cut.flows });
            }
            WorkerCommand::RotateDevice {
                key,
                next,
                preshared_key,
                done,
            } => {
                let preshared = preshared_key.as_ref();
                let accepted = self.gateway.rotate_device(&key, next, preshared);
                let _ = done.send(accepted);
            }
            WorkerCommand::Tell { key, message } => self.gateway.tell(&key, &message, out, now),
            WorkerCommand::SetPolicy {
                policy,
                changed,
                done,
            } => {
                let before = self.gateway.closed(CloseReason::Policy);
                self.gateway.set_policy(policy, changed);
                if let Some((earlier, _)) = self.policy_done.replace((done, before)) {
                    let _ = earlier.send(Cut::default());
                }
            }
            WorkerCommand::KillFlows {
                select,
                changed,
                done,
            } => {
                let cut = self.gateway.kill(changed, out, now, |flow, device| {
                    selects(&select, flow, device)
                });
                let _ = done.send(Cut { flows: cut.flows });
            }
            WorkerCommand::ListFlows {
                select,
                limit,
                done,
            } => {
                let _ = done.send(self.list(&select, limit, now));
            }
            WorkerCommand::Snapshot { done } => {
                let own = view::Own {
                    turns: self.turns,
                    records_waiting: self.log.len(),
                    handshakes_waiting: self.handed.waiting(),
                };
                let snapshot = view::snapshot(&self.gateway, &self.inputs, &self.outputs, own, now);
                let _ = done.send(snapshot);
            }
            WorkerCommand::Stop { hand_over, done } => {
                let flows = if hand_over {
                    self.gateway.hand_over(now);
                    0
                } else {
                    self.gateway.shut_down(out, now).flows
                };
                let _ = done.send(Cut { flows });
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }

    fn add_device(&mut self, device: DeviceRecord, now: Now) -> Result<(), String> {
        let (device, preshared, endpoint) = parts(device);
        self.gateway
            .add_device(device, preshared.as_ref(), endpoint, &mut self.outputs, now)
            .map(|_| ())
            .map_err(|error| error.to_string())
    }

    fn list(&self, select: &FlowFilter, limit: usize, now: Now) -> Vec<FlowView> {
        let mut flows: Vec<FlowView> = self
            .gateway
            .flows()
            .iter()
            .filter(|(_, flow)| flow.cut.is_none())
            .filter_map(|(_, flow)| Some((flow, self.gateway.devices().get(flow.peer)?)))
            .filter(|(flow, device)| selects(select, flow, device))
            .map(|(flow, device)| view::flow(flow, device, now))
            .collect();
        flows.sort_by_key(|flow| flow.id);
        flows.truncate(limit);
        flows
    }

    fn answer_policy(&mut self) {
        if self.policy_done.is_none() || self.gateway.is_sweeping() {
            return;
        }
        let after = self.gateway.closed(CloseReason::Policy);
        if let Some((done, before)) = self.policy_done.take() {
            let _ = done.send(Cut {
                flows: after - before,
            });
        }
    }

    /// The end of every flow is on its way to the log; only here may the thread wait for it.
    fn hand_in_the_last(&mut self) {
        let until = Clock::now().mono + LAST_PATIENCE;
        while !self.log.is_empty() && Clock::now().mono < until {
            std::thread::sleep(RETRY);
            self.hand_in_records();
        }
        self.log.lose_down_to(0);
        self.tell();
    }

    fn hand_in_records(&mut self) {
        let most = records_waiting(&self.gateway);
        self.log.hand_in(self.gateway.take_records(), most);
        self.tell();
        // Between a half and the whole there is room for the refusals themselves.
        let room = self.log.len() < most / 2;
        self.gateway.set_log_writable(room && self.log.writable());
    }

    fn tell(&self) {
        self.log.tell(Told {
            made: self.gateway.records_made(),
            flows: self.gateway.attempts(),
            in_windows: self.gateway.attempts_in_windows(),
            ..Told::default()
        });
    }
}

/// A stored device as the engine knows it, the second secret of its handshake, and where it was.
fn parts(device: DeviceRecord) -> (Device, Option<PresharedKey>, Option<Endpoint>) {
    let v4 = (!device.v4.is_unspecified()).then_some(IpAddr::V4(device.v4));
    let engine = Device {
        name: device.name,
        user: device.user,
        groups: device.groups,
        key: device.key,
        addresses: v4.into_iter().chain([IpAddr::V6(device.v6)]).collect(),
        standing: device.standing,
    };
    let endpoint = device.last_endpoint.map(Endpoint::from);
    (engine, device.preshared_key, endpoint)
}

/// Records that wait while the log's channel is full: as many as the worker's flow table holds, so
/// that a change which cuts every flow loses no record. From half of it on nothing new is allowed;
/// beyond it the oldest are lost and counted. At under 1 KiB each: 64 MiB for the default table.
#[must_use]
pub fn records_waiting(gateway: &Gateway) -> usize {
    gateway.flows().capacity()
}

fn selects(select: &FlowFilter, flow: &Flow, device: &DeviceState) -> bool {
    let to = (flow.key.target(), flow.key.target_port, flow.key.protocol);
    select.matches(
        flow.id,
        &device.device.name,
        device.device.user.as_deref(),
        to,
        flow.started.wall.millis(),
    )
}
