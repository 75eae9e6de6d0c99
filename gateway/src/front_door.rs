//! The front door: handshake initiations have a socket, a limiter and a thread of their own, so
//! that a flood of them delays no data.
//!
//! Anybody may send an initiation, and which device it claims to come from can be told only with
//! a curve operation. So it is judged here: by the [`Gate`] (first MAC, budget of the source,
//! cookie), then by whether the claimed key is enrolled. What passes is handed to the worker that
//! owns the device, through a bounded queue.
//!
//! What has a receiver index is steered to its worker by the kernel. Only when the kernel has
//! joined it to an initiation of the same sender does it come here as well; it is handed on.
//!
//! This file decides and touches nothing; [`thread`] has the socket.

pub mod thread;

use postern_io::poll::Waker;
use postern_proto::ecn::Ecn;
use postern_proto::fate::{DropCounts, DropReason};
use postern_proto::gate::{Admission, COOKIE_ROOM, Gate};
use postern_proto::keys::{PrivateKey, PublicKey};
use postern_proto::mtu;
use postern_proto::now::Mono;
use postern_proto::outbox::Endpoint;
use postern_proto::peers::MAX_PEERS;
use postern_proto::tunnel::{CONTROL_ROOM, Message};
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Datagrams that may wait for one worker; more are dropped and counted as `rate-limited`, and
/// senders of initiations ask again after 5 s. Under 256 bytes each: 64 KiB for each worker. A
/// worker that has other work answers them all within 0.1 s.
pub const HANDED_QUEUE: usize = 256;

/// How many of them may be there before the next one that passed no gate is refused, so that
/// strangers cannot take the room of handshakes.
const STRAYS: usize = HANDED_QUEUE / 4;

/// Length of an initiation.
pub const INITIATION: usize = CONTROL_ROOM;

/// What the door keeps: who is enrolled, and with which worker.
#[derive(Debug)]
pub struct FrontDoor {
    gate: Gate,
    /// At most [`MAX_PEERS`] of 40 bytes and their tree: under 6 MiB.
    owners: BTreeMap<PublicKey, usize>,
    workers: usize,
    counts: DoorCounts,
}

/// What became of what came to the door.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DoorCounts {
    /// Datagrams that met silence, by reason.
    pub drops: DropCounts,
    /// Senders that were asked to prove their address.
    pub cookies: u64,
    /// Datagrams that workers took.
    pub handed: u64,
    /// Of its sockets.
    pub sockets: DoorSockets,
}

/// How the door's sockets do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DoorSockets {
    /// Bytes that wait in the fair queue before the door.
    pub waiting: usize,
    /// Datagrams that were thrown out there.
    pub shed: u64,
    /// Cookie replies that the kernel did not take.
    pub refused: u64,
}

/// What to do with a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// Give it to a worker.
    HandOver {
        /// Which.
        worker: usize,
        /// Of an initiation: whose it claims to be. The tunnel verifies it.
        claim: Option<PublicKey>,
    },
    /// Send this back.
    Reply([u8; COOKIE_ROOM]),
    /// Nothing. It is counted.
    Silence(DropReason),
}

/// The door knows [`MAX_PEERS`] keys already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room for another device: {MAX_PEERS} is the most of one gateway")]
pub struct DoorFull;

impl FrontDoor {
    /// Knows nobody yet, and a power of two of workers. `seed` must be random.
    #[must_use]
    pub fn new(ours: &PrivateKey, workers: usize, seed: u64) -> Self {
        FrontDoor {
            gate: Gate::new(ours, seed),
            owners: BTreeMap::new(),
            workers,
            counts: DoorCounts::default(),
        }
    }

    /// From now on initiations of this key are for `worker`.
    ///
    /// # Errors
    /// [`DoorFull`].
    pub fn enrol(&mut self, key: PublicKey, worker: usize) -> Result<(), DoorFull> {
        if self.owners.len() >= MAX_PEERS && !self.owners.contains_key(&key) {
            return Err(DoorFull);
        }
        self.owners.insert(key, worker);
        Ok(())
    }

    /// From now on this key meets silence.
    pub fn strike(&mut self, key: &PublicKey) {
        self.owners.remove(key);
    }

    /// Judges a datagram that came from `source`.
    pub fn rule(&mut self, source: IpAddr, datagram: &[u8], now: Mono) -> Ruling {
        let reason = match Message::parse(datagram) {
            Some(Message::Initiation) => match self.gate.admit(datagram, source, now) {
                Admission::Claimed(key) => match self.owners.get(&key) {
                    Some(worker) => {
                        return Ruling::HandOver {
                            worker: *worker,
                            claim: Some(key),
                        };
                    }
                    None => DropReason::UnknownKey,
                },
                Admission::Cookie(reply) => {
                    self.counts.cookies += 1;
                    return Ruling::Reply(reply);
                }
                Admission::Refused(reason) => reason,
            },
            Some(message) => match message.peer() {
                Some(peer) if datagram.len() <= INITIATION => {
                    return Ruling::HandOver {
                        worker: peer.get() as usize & (self.workers - 1),
                        claim: None,
                    };
                }
                // Nothing longer can have been joined to an initiation.
                _ => DropReason::UnknownIndex,
            },
            None if datagram.len() > mtu::DATAGRAM_ROOM => DropReason::TooLong,
            None => DropReason::NotWireguard,
        };
        self.counts.drops.add(reason, 1);
        Ruling::Silence(reason)
    }

    /// Notes whether the worker's queue had room.
    pub fn handed(&mut self, taken: bool) {
        if taken {
            self.counts.handed += 1;
        } else {
            self.counts.drops.add(DropReason::RateLimited, 1);
        }
    }

    /// Notes how the sockets do.
    pub fn note(&mut self, sockets: DoorSockets) {
        self.counts.sockets = sockets;
    }

    /// So far.
    #[must_use]
    pub fn counts(&self) -> &DoorCounts {
        &self.counts
    }

    /// Keys that are enrolled, of [`MAX_PEERS`].
    #[must_use]
    pub fn len(&self) -> usize {
        self.owners.len()
    }

    /// Nobody is enrolled.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.owners.is_empty()
    }
}

/// A datagram on its way from the door to a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Letter {
    /// Of an initiation that passed the gate: whose it claims to be. None for a datagram with a
    /// receiver index.
    pub claim: Option<PublicKey>,
    /// Where it came from.
    pub from: Endpoint,
    /// What its IP header carried.
    pub ecn: Ecn,
    bytes: [u8; INITIATION],
    len: usize,
}

impl Letter {
    /// None if it is longer than [`INITIATION`].
    #[must_use]
    pub fn new(
        claim: Option<PublicKey>,
        from: Endpoint,
        ecn: Ecn,
        datagram: &[u8],
    ) -> Option<Letter> {
        let mut bytes = [0; INITIATION];
        bytes.get_mut(..datagram.len())?.copy_from_slice(datagram);
        Some(Letter {
            claim,
            from,
            ecn,
            bytes,
            len: datagram.len(),
        })
    }

    /// The datagram.
    #[must_use]
    pub fn datagram(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or(&self.bytes)
    }
}

/// The door's end of one worker's queue.
#[derive(Debug)]
pub struct HandOver {
    queue: SyncSender<Letter>,
    waiting: Arc<AtomicUsize>,
    waker: Waker,
    unannounced: bool,
}

/// The worker's end.
#[derive(Debug)]
pub struct Handed {
    queue: Receiver<Letter>,
    waiting: Arc<AtomicUsize>,
}

/// A queue of [`HANDED_QUEUE`] letters; `waker` is the worker's.
#[must_use]
pub fn queue(waker: Waker) -> (HandOver, Handed) {
    let (sender, receiver) = sync_channel(HANDED_QUEUE);
    let waiting = Arc::new(AtomicUsize::new(0));
    let door = HandOver {
        queue: sender,
        waiting: Arc::clone(&waiting),
        waker,
        unannounced: false,
    };
    let worker = Handed {
        queue: receiver,
        waiting,
    };
    (door, worker)
}

impl HandOver {
    /// False if there is no room. The worker learns of it at [`HandOver::announce`].
    pub fn offer(&mut self, letter: Letter) -> bool {
        if letter.claim.is_none() && self.waiting.load(Ordering::Relaxed) >= STRAYS {
            return false;
        }
        // Counted before the worker can take it, so that the gauge is never negative.
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let taken = self.queue.try_send(letter).is_ok();
        if taken {
            self.unannounced = true;
        } else {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        taken
    }

    /// Wakes the worker if there is news for it: once for many.
    pub fn announce(&mut self) {
        if std::mem::take(&mut self.unannounced) {
            self.waker.wake();
        }
    }
}

impl Handed {
    /// The oldest that waits.
    #[must_use]
    pub fn next(&self) -> Option<Letter> {
        let letter = self.queue.try_recv().ok()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(letter)
    }

    /// How many wait, of [`HANDED_QUEUE`].
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests;
