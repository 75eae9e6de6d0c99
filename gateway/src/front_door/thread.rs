//! The door's thread: its socket, its commands, and the queues to the workers.

use super::{DoorSockets, FrontDoor, HandOver, Letter, Ruling};
use crate::worker_api::DoorCommand;
use postern_io::clock::Clock;
use postern_io::poll::Waker;
use postern_io::road::{Inputs, Outputs};
use postern_proto::ecn::Ecn;
use postern_proto::now::Mono;
use postern_proto::outbox::Outbox;
use std::io;
use std::ops::ControlFlow;
use std::sync::mpsc::Receiver;

/// Commands taken in one turn.
const COMMANDS_PER_TURN: usize = 16;

/// Everything that the thread owns.
pub struct DoorThread {
    /// What decides.
    pub door: FrontDoor,
    /// The socket that initiations are steered to.
    pub inputs: Inputs,
    /// Where cookie replies leave: the same port.
    pub outputs: Outputs,
    /// Rung when there are commands.
    pub waker: Waker,
    /// What the control plane asks.
    pub commands: Receiver<DoorCommand>,
    /// By worker.
    pub workers: Vec<HandOver>,
}

impl DoorThread {
    /// Turns until told to stop.
    ///
    /// # Errors
    /// Only for want of kernel memory.
    pub fn run(mut self) -> io::Result<()> {
        loop {
            let now = Clock::now().mono;
            let ready = self.inputs.wait(&self.waker, None, Mono::NEVER, now)?;
            let now = Clock::now().mono;
            let DoorThread {
                door,
                inputs,
                outputs,
                workers,
                ..
            } = &mut self;
            inputs.udp(ready, now, |from, ecn, datagram| {
                match door.rule(from.remote.ip(), datagram, now) {
                    Ruling::HandOver { worker, claim } => {
                        let letter = Letter::new(claim, from, ecn, datagram);
                        let taken = letter
                            .zip(workers.get_mut(worker))
                            .is_some_and(|(letter, worker)| worker.offer(letter));
                        door.handed(taken);
                    }
                    Ruling::Reply(cookie) => {
                        let room = outputs.datagram(from, cookie.len());
                        if let Some(room) = room.get_mut(..cookie.len()) {
                            room.copy_from_slice(&cookie);
                            outputs.commit_datagram(cookie.len(), Ecn::NotEct);
                        }
                    }
                    Ruling::Silence(_) => {}
                }
            });
            self.outputs.flush();
            self.workers.iter_mut().for_each(HandOver::announce);
            if ready.woken {
                self.door.note(DoorSockets {
                    waiting: self.inputs.udp.waiting().bytes(),
                    shed: self.inputs.udp.stats().shed,
                    refused: self.outputs.refused(),
                });
                if self.obey().is_break() {
                    return Ok(());
                }
            }
        }
    }

    fn obey(&mut self) -> ControlFlow<()> {
        for _ in 0..COMMANDS_PER_TURN {
            let Ok(command) = self.commands.try_recv() else {
                return ControlFlow::Continue(());
            };
            command.obey(&mut self.door)?;
        }
        // There may be more: come back at once.
        self.waker.wake();
        ControlFlow::Continue(())
    }
}
