//! The control road: TCP between a device and the control API of its gateway. The packets go to
//! whoever speaks that API, never to the TUN; they open no flow. Its other end may send to the
//! devices from that one port, and nowhere else.

use super::Gateway;
use super::road_in::Fate;
use crate::identity::DeviceState;
use postern_proto::control::Message;
use postern_proto::device_api;
use postern_proto::fate::DropReason;
use postern_proto::flow_key::{FlowKey, Protocol};
use postern_proto::invitation;
use postern_proto::keys::PublicKey;
use postern_proto::now::Now;
use postern_proto::outbox::Outbox;
use postern_proto::packet::PacketView;
use postern_proto::peers::PeerId;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Control packets that wait for [`Gateway::take_control`]; at the default MTU under 400 KiB.
pub const CONTROL_QUEUE: usize = 256;
/// Control packets of each device: as many at once, then one in each interval. Some 2.5 MB/s is
/// more than the API needs, and one device that floods it leaves room for the others.
const CONTROL_BURST: u32 = 64;
const CONTROL_INTERVAL: Duration = Duration::from_micros(500);

/// A packet of a device to the control API. Its source is the device's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControlPacket {
    /// The key that decrypted it.
    pub key: PublicKey,
    /// Where that device is on the Internet.
    pub outer: SocketAddr,
    /// An inner IP packet that carries TCP.
    pub packet: Vec<u8>,
}

impl Gateway {
    /// The control packets since the last call, in order; at most [`CONTROL_QUEUE`]. What comes
    /// while so many wait is dropped as [`DropReason::ControlBusy`].
    pub fn take_control(&mut self) -> impl Iterator<Item = ControlPacket> + '_ {
        self.control.drain(..)
    }

    /// Control packets that wait.
    #[must_use]
    pub fn control_waiting(&self) -> usize {
        self.control.len()
    }

    /// A packet of the control API to the device with `key`. Anything else than TCP from that API
    /// to an address of that device is counted and dropped.
    pub fn send_control(
        &mut self,
        key: &PublicKey,
        packet: &[u8],
        out: &mut impl Outbox,
        now: Now,
    ) {
        let sent = match self.find_device(key) {
            Some(peer) if self.is_from_control(peer, packet) => {
                self.peers.send(peer, packet, out, now)
            }
            Some(_) => Err(DropReason::BadControl),
            None => Err(DropReason::NoSession),
        };
        match sent {
            Ok(()) => self.counters.control_packets_in += 1,
            Err(reason) => self.count_drop(reason),
        }
    }

    /// Tells the client of a device something, if it listens: a stock WireGuard peer does not.
    pub fn tell(&mut self, key: &PublicKey, message: &Message, out: &mut impl Outbox, now: Now) {
        if let Some(peer) = self.find_device(key) {
            self.tell_device(peer, message, out, now);
        }
    }

    /// Whether a device asks for the control API.
    pub(super) fn is_for_control(&self, device: &DeviceState, view: &PacketView<'_>) -> bool {
        // Asked for each packet: most are at another port.
        view.tcp()
            .is_some_and(|tcp| tcp.destination_port == device_api::PORT)
            && view
                .key_from_device()
                .is_some_and(|key| self.is_control_flow(device, &key))
    }

    /// Takes a packet for the control API in, if there is room.
    pub(super) fn fate_of_control(&mut self, peer: PeerId, now: Now) -> Fate {
        let room = self.control.len() < CONTROL_QUEUE;
        let taken = self.devices.get_mut(peer).is_some_and(|device| {
            room && device
                .control
                .take(now.mono, CONTROL_INTERVAL, CONTROL_BURST)
        });
        if taken {
            Fate::Control
        } else {
            Fate::Refuse {
                reason: DropReason::ControlBusy,
                answer: None,
                notice: None,
            }
        }
    }

    pub(super) fn queue_control(&mut self, peer: PeerId, packet: &[u8]) {
        let Some(peer) = self.peers.peer(peer) else {
            return;
        };
        // It has just been heard, so it is somewhere.
        if let Some(endpoint) = peer.endpoint() {
            self.counters.control_packets_out += 1;
            self.control.push(ControlPacket {
                key: *peer.key(),
                outer: endpoint.remote,
                packet: packet.to_vec(),
            });
        }
    }

    fn is_from_control(&self, peer: PeerId, packet: &[u8]) -> bool {
        let (Some(device), Ok(view)) = (self.devices.get(peer), PacketView::parse(packet)) else {
            return false;
        };
        view.key_from_target()
            .is_some_and(|key| device.owns(key.client()) && self.is_control_flow(device, &key))
    }

    fn is_control_flow(&self, device: &DeviceState, key: &FlowKey) -> bool {
        let to = key.target();
        let is_ours = if device.device.standing.guest {
            to == IpAddr::V6(invitation::GATEWAY)
        } else {
            self.settings.addresses.contains(&to)
        };
        is_ours && key.protocol == Protocol::Tcp && key.target_port == device_api::PORT
    }
}
