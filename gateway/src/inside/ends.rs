//! The channels between the workers and the server inside the tunnel. Both ends drop and count
//! what finds no room: TCP repeats it. A key that took another's place is never dropped.

use super::is_guest;
use crate::workers::owner;
use postern_engine::gateway::ControlPacket;
use postern_proto::keys::PublicKey;
use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use tokio::sync::mpsc;

/// Packets of all workers on their way to the server: at the default MTU 730 KB.
pub const PACKET_QUEUE: usize = 512;

/// Keys that took another's place, on their way to the store: 4 KiB. What finds no room waits in
/// its worker.
pub const ROTATED_QUEUE: usize = 64;

/// Answers on their way to each worker: at the default MTU 365 KB.
pub const ANSWER_QUEUE: usize = 256;

/// Answers that a worker takes in one turn, so that a burst of them delays no packet for long.
const ANSWERS_PER_TURN: usize = 64;

/// A key that means nothing any more, and the one that took its place.
pub type Rotated = (PublicKey, PublicKey);

/// What found no room.
#[derive(Debug, Default)]
pub(super) struct Lost {
    pub(super) incoming: AtomicU64,
    pub(super) outgoing: AtomicU64,
}

/// All channels of one gateway, while it is put together.
pub struct Ends {
    pub(super) packets: mpsc::Receiver<ControlPacket>,
    pub(super) rotated: mpsc::Receiver<Rotated>,
    pub(super) answers: Answers,
    to_packets: mpsc::Sender<ControlPacket>,
    to_rotated: mpsc::Sender<Rotated>,
}

/// The end of one worker.
pub struct WorkerEnd {
    packets: mpsc::Sender<ControlPacket>,
    rotated: mpsc::Sender<Rotated>,
    answers: Receiver<Answer>,
    waiting: Arc<AtomicU64>,
    lost: Arc<Lost>,
    /// Never more than the worker has devices.
    untold: VecDeque<Rotated>,
}

/// A packet of the server, and for whom it is encrypted.
type Answer = (PublicKey, Vec<u8>);

/// Ends a worker's sleep.
type Wake = Box<dyn Fn() + Send>;

/// The way back to all workers.
pub(super) struct Answers {
    workers: Vec<Way>,
    lost: Arc<Lost>,
}

/// The way back to one worker.
struct Way {
    answers: SyncSender<Answer>,
    /// How many are in the channel, which does not say.
    waiting: Arc<AtomicU64>,
    wake: Wake,
}

impl Default for Ends {
    fn default() -> Self {
        let (to_packets, packets) = mpsc::channel(PACKET_QUEUE);
        let (to_rotated, rotated) = mpsc::channel(ROTATED_QUEUE);
        Ends {
            packets,
            rotated,
            to_packets,
            to_rotated,
            answers: Answers {
                workers: Vec::new(),
                lost: Arc::default(),
            },
        }
    }
}

impl Ends {
    /// Sees how many packets wait, and keeps no worker's end open.
    pub(super) fn waiting(&self) -> mpsc::WeakSender<ControlPacket> {
        self.to_packets.downgrade()
    }

    /// The end of the next worker, in the order of their places; `wake` ends its sleep.
    pub fn worker(&mut self, wake: impl Fn() + Send + 'static) -> WorkerEnd {
        let (to_worker, answers) = sync_channel(ANSWER_QUEUE);
        let waiting = Arc::new(AtomicU64::new(0));
        self.answers.workers.push(Way {
            answers: to_worker,
            waiting: Arc::clone(&waiting),
            wake: Box::new(wake),
        });
        WorkerEnd {
            packets: self.to_packets.clone(),
            rotated: self.to_rotated.clone(),
            answers,
            waiting,
            lost: Arc::clone(&self.answers.lost),
            untold: VecDeque::new(),
        }
    }
}

impl WorkerEnd {
    /// Hands packets over.
    pub fn packets(&mut self, packets: impl Iterator<Item = ControlPacket>) {
        for packet in packets {
            if self.packets.try_send(packet).is_err() {
                self.lost.incoming.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Tells of keys that took another's place. What finds no room is kept for the next call.
    pub fn rotated(&mut self, keys: impl IntoIterator<Item = Rotated>) {
        self.untold.extend(keys);
        while let Some(first) = self.untold.front() {
            if self.rotated.try_send(*first).is_err() {
                return;
            }
            self.untold.pop_front();
        }
    }

    /// Whether a key waits to be told of.
    #[must_use]
    pub fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// Takes a few answers. Returns whether there may be more.
    pub fn answers(&mut self, mut send: impl FnMut(&PublicKey, &[u8])) -> bool {
        for _ in 0..ANSWERS_PER_TURN {
            let Ok((key, packet)) = self.answers.try_recv() else {
                return false;
            };
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            send(&key, &packet);
        }
        true
    }
}

impl Answers {
    pub(super) fn lost(&self) -> Arc<Lost> {
        Arc::clone(&self.lost)
    }

    /// How many wait for each worker, of [`ANSWER_QUEUE`].
    pub(super) fn waiting(&self) -> Vec<Arc<AtomicU64>> {
        let each = self.workers.iter();
        each.map(|way| Arc::clone(&way.waiting)).collect()
    }

    /// To the worker that owns the device; it checks that the address is the device's own.
    pub(super) fn send(&mut self, key: &PublicKey, packet: &[u8]) {
        let place = destination(packet).map(|to| place(to, self.workers.len()));
        let sent = place
            .and_then(|place| self.workers.get(place))
            .is_some_and(|way| {
                // Counted first: the worker may take it before this goes on.
                way.waiting.fetch_add(1, Ordering::Relaxed);
                let sent = way.answers.try_send((*key, packet.to_vec())).is_ok();
                if !sent {
                    way.waiting.fetch_sub(1, Ordering::Relaxed);
                }
                (way.wake)();
                sent
            });
        if !sent {
            self.lost.outgoing.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The worker that owns who has this address.
fn place(address: IpAddr, workers: usize) -> usize {
    match address {
        IpAddr::V4(address) => owner(address, workers),
        // A throw-away key has no IPv4 address.
        IpAddr::V6(address) if is_guest(address) => owner(Ipv4Addr::UNSPECIFIED, workers),
        // The last bits of both addresses of a device are the same.
        IpAddr::V6(address) => {
            let [.., last] = address.octets();
            owner(Ipv4Addr::new(0, 0, 0, last), workers)
        }
    }
}

/// The receiver of a packet that the stack has made.
fn destination(packet: &[u8]) -> Option<IpAddr> {
    match packet.first()? >> 4 {
        4 => {
            let address: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            Some(IpAddr::V4(Ipv4Addr::from(address)))
        }
        6 => {
            let address: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            Some(IpAddr::V6(Ipv6Addr::from(address)))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_proto::invitation::guest_address;

    #[test]
    fn an_answer_goes_to_the_worker_of_its_device() {
        let v4 = |last| IpAddr::V4(Ipv4Addr::new(100, 64, 0, last));
        let v6 = |last| IpAddr::V6(Ipv6Addr::new(0xfd00, 0x64, 0, 0, 0, 0, 0, last));
        for workers in [1, 2, 8] {
            for host in [2_u8, 3, 9, 255] {
                assert_eq!(place(v4(host), workers), owner_of(host, workers));
                assert_eq!(place(v6(host.into()), workers), owner_of(host, workers));
            }
            let guest = guest_address(&PublicKey([3; 32]));
            assert_eq!(place(IpAddr::V6(guest), workers), 0);
        }
    }

    fn owner_of(host: u8, workers: usize) -> usize {
        owner(Ipv4Addr::new(100, 64, 0, host), workers)
    }

    #[test]
    fn what_finds_no_room_is_counted() {
        let mut ends = Ends::default();
        let mut worker = ends.worker(|| ());
        let mut packet = [0; 40];
        packet[0] = 0x45;
        for _ in 0..ANSWER_QUEUE + 5 {
            ends.answers.send(&PublicKey([1; 32]), &packet);
        }
        assert_eq!(ends.answers.lost().outgoing.load(Ordering::Relaxed), 5);
        let waiting = ends.answers.waiting().remove(0);
        assert_eq!(waiting.load(Ordering::Relaxed), ANSWER_QUEUE as u64);
        let mut taken = 0;
        while worker.answers(|_, _| taken += 1) {}
        assert_eq!(taken, ANSWER_QUEUE);
        assert_eq!(waiting.load(Ordering::Relaxed), 0);
    }
}
