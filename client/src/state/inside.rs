//! Packets of the control API (TCP [`control::PORT`] of the gateway's tunnel addresses): the client
//! itself speaks there, by its own stack. No program of the laptop does, in either direction, or
//! any of them could log its user out.

use super::{Client, Outcome};
use crate::prefixes::Prefixes;
use ipnet::IpNet;
use postern_proto::control;
use postern_proto::fate::DropReason;
use postern_proto::now::Now;
use postern_proto::outbox::Outbox;
use postern_proto::packet::{PacketView, Transport};
use postern_proto::path_mtu::PathMtu;
use std::time::Duration;

/// Packets of the control API that wait to be taken; more are dropped, and TCP sends them again.
/// At the usual MTU below 400 KiB of memory.
pub const CONTROL_PACKETS: usize = 256;

impl Client {
    /// The packets of the control API that came, in order.
    pub fn take_control(&mut self) -> impl Iterator<Item = Vec<u8>> + '_ {
        self.inside.drain(..)
    }

    /// Whether the gateway said since the last call that something has changed.
    pub fn take_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    /// Sends a packet of the client's own stack to the control API, or holds it until there is a
    /// key. What is meant for anything else goes no further.
    pub fn send_control(&mut self, packet: &mut [u8], out: &mut impl Outbox, now: Now) -> Outcome {
        let fit = PacketView::parse(packet)
            .map(|view| self.addresses.contains(&view.source) && self.is_for_control(&view));
        match fit {
            Ok(true) => self.seal(packet, out, now),
            Ok(false) => self.dropped(DropReason::NotIncluded),
            Err(reason) => self.dropped(reason),
        }
    }

    /// Changes what enters the tunnel. What is open under the old list and not on the new one
    /// stops here.
    pub fn set_include(&mut self, include: &[IpNet]) {
        self.include = Prefixes::new(include);
    }

    /// Changes the largest inner MTU, bytes, and the pause after which an idle tunnel speaks.
    pub fn set_link(
        &mut self,
        mtu: u16,
        keepalive: Option<Duration>,
        out: &mut impl Outbox,
        now: Now,
    ) {
        self.rotation.adjust(mtu, keepalive);
        self.peers
            .adjust(self.gateway, (keepalive, usize::from(mtu)), out, now);
        self.path = PathMtu::new(mtu);
        if self.is_connected(now) {
            self.path.start(now.mono);
        }
    }

    pub(super) fn is_for_control(&self, view: &PacketView<'_>) -> bool {
        let to_port = match view.transport {
            Transport::Tcp(tcp) => tcp.destination_port == control::PORT,
            Transport::Udp { .. } | Transport::Echo { .. } | Transport::Error { .. } => false,
        };
        to_port && self.gateway_addresses.contains(&view.destination)
    }

    pub(super) fn keep_inside(&mut self, packet: Vec<u8>) -> Outcome {
        if self.inside.len() >= CONTROL_PACKETS {
            return self.dropped(DropReason::ControlBusy);
        }
        self.inside.push_back(packet);
        Outcome::Consumed
    }
}

/// From the control API's port. The source address is for the caller to look at.
pub(super) fn is_from_control(view: &PacketView<'_>) -> bool {
    match view.transport {
        Transport::Tcp(tcp) => tcp.source_port == control::PORT,
        Transport::Udp { .. } | Transport::Echo { .. } | Transport::Error { .. } => false,
    }
}
