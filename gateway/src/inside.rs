//! The server inside the tunnel: where the control API meets devices.
//!
//! Packets for it come from the workers by a bounded channel, and the answers go back by one to
//! each worker. Between them is a TCP stack of our own ([`postern_stack`]): no socket of the
//! kernel listens, so neither the host nor a target nor another device can reach it, and each
//! connection belongs to the key that decrypted its packets.

mod ends;
mod http;

pub use ends::{ANSWER_QUEUE, Ends, PACKET_QUEUE, ROTATED_QUEUE, Rotated, WorkerEnd};
pub use http::{HEAD_TIME, MAX_IN_FLIGHT, REQUEST_TIME};

use axum::Router;
use ends::Lost;
use http::Server;
use postern_engine::gateway::ControlPacket;
use postern_proto::device_api;
use postern_proto::invitation;
use postern_proto::keys::PublicKey;
use postern_stack::driver::{Listener, Net};
use postern_stack::{Config, Counters, Limits, Stack};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// Packets taken before the stack answers, so that it answers many at once.
const PACKETS_PER_TURN: usize = 64;

/// How long the last answers may take when the gateway ends.
const LAST_PATIENCE: Duration = Duration::from_secs(1);

/// The server, ready to serve.
pub struct Inside {
    net: Net,
    listener: Listener,
    packets: mpsc::Receiver<ControlPacket>,
    rotated: mpsc::Receiver<Rotated>,
    handle: Handle,
}

/// What others may ask of it. Cheap to clone.
#[derive(Clone)]
pub struct Handle {
    net: Net,
    packets: mpsc::WeakSender<ControlPacket>,
    /// For each worker.
    answers: Arc<[Arc<AtomicU64>]>,
    lost: Arc<Lost>,
    http: Arc<Server>,
}

/// What it counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Connections and what came of them.
    pub stack: Counters,
    /// Packets that wait for the stack, of [`PACKET_QUEUE`].
    pub packets: u64,
    /// Answers that wait for each worker, of [`ANSWER_QUEUE`].
    pub answers: Vec<u64>,
    /// Packets for it that found its queue full.
    pub lost_in: u64,
    /// Answers that found a worker's queue full.
    pub lost_out: u64,
    /// Requests at this moment.
    pub in_flight: u64,
    /// Requests refused because the device had [`MAX_IN_FLIGHT`].
    pub busy: u64,
    /// Requests that took longer than [`REQUEST_TIME`].
    pub too_slow: u64,
}

impl Inside {
    /// With these addresses of the gateway in its tunnels; that for throw-away keys is added.
    #[must_use]
    pub fn new(ends: Ends, gateway: &[IpAddr], mtu: u16, seed: u64) -> Inside {
        let mut addresses = gateway.to_vec();
        addresses.push(IpAddr::V6(invitation::GATEWAY));
        let handed = ends.waiting();
        let Ends {
            packets,
            rotated,
            mut answers,
            ..
        } = ends;
        let (lost, waiting) = (answers.lost(), answers.waiting());
        let stack = Stack::new(Config {
            addresses,
            mtu: usize::from(mtu),
            seed,
            limits: Limits::SERVER,
        });
        let net = Net::new(stack, move |key, packet| answers.send(key, packet));
        let listener = net.listen(device_api::PORT);
        let handle = Handle {
            net: net.clone(),
            packets: handed,
            answers: waiting.into(),
            lost,
            http: Arc::default(),
        };
        Inside {
            net,
            listener,
            packets,
            rotated,
            handle,
        }
    }

    /// For metrics, and for who has to cut a device off.
    #[must_use]
    pub fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Answers by `router` until `stop` becomes true, then ends what was asked. `rotated` hears
    /// of each device whose new key has taken the place of its old one, in order.
    pub async fn serve<F, T>(self, router: Router, rotated: F, stop: watch::Receiver<bool>)
    where
        F: Fn(PublicKey, PublicKey) -> T,
        T: Future<Output = ()>,
    {
        let Inside {
            net,
            listener,
            packets,
            rotated: mut keys,
            handle,
        } = self;
        let told = async {
            while let Some((old, new)) = keys.recv().await {
                net.abort_tag(&old);
                rotated(old, new).await;
            }
        };
        let served = async {
            handle.http.serve(listener, router, stop).await;
            // The last bytes of the last answers.
            let _ = tokio::time::timeout(LAST_PATIENCE, net.drained()).await;
        };
        tokio::select! {
            () = served => {}
            ((), (), ()) = async { tokio::join!(net.run(), take(packets, &net), told) } => {}
        }
    }
}

/// Hands packets on until no worker is left.
async fn take(mut packets: mpsc::Receiver<ControlPacket>, net: &Net) {
    let mut batch = Vec::with_capacity(PACKETS_PER_TURN);
    while packets.recv_many(&mut batch, PACKETS_PER_TURN).await > 0 {
        for packet in batch.drain(..) {
            net.receive(packet.key, Some(packet.outer), &packet.packet);
        }
    }
}

impl Handle {
    /// Ends every connection of a key: nobody may speak for it any more.
    pub fn cut(&self, key: &PublicKey) {
        self.net.abort_tag(key);
    }

    /// What is counted.
    #[must_use]
    pub fn facts(&self) -> Facts {
        let packets = self.packets.upgrade();
        let load = |count: &Arc<AtomicU64>| count.load(Ordering::Relaxed);
        let waiting = packets.map_or(0, |sender| sender.max_capacity() - sender.capacity());
        Facts {
            stack: self.net.counters(),
            packets: waiting as u64,
            answers: self.answers.iter().map(load).collect(),
            lost_in: self.lost.incoming.load(Ordering::Relaxed),
            lost_out: self.lost.outgoing.load(Ordering::Relaxed),
            in_flight: self.http.in_flight(),
            busy: self.http.busy.load(Ordering::Relaxed),
            too_slow: self.http.too_slow.load(Ordering::Relaxed),
        }
    }
}

impl std::fmt::Debug for Handle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.facts().fmt(f)
    }
}

/// Whether an address is one of a throw-away key.
fn is_guest(address: Ipv6Addr) -> bool {
    let prefix = u128::MAX << (128 - invitation::PREFIX_LEN);
    address.to_bits() & prefix == invitation::GATEWAY.to_bits() & prefix
}

#[cfg(test)]
mod tests;
