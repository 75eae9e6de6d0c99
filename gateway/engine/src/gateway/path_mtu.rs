//! The MTU of each device: what its client found its path to carry (docs/adr/010). The client
//! asks, the gateway answers and remembers.

use super::Gateway;
use super::judge::{ANSWER_BURST, ANSWER_INTERVAL};
use crate::identity::DeviceState;
use postern_proto::control::Message;
use postern_proto::mtu::{MIN_MTU, PACKET_ROOM};
use postern_proto::now::{Mono, Now};
use postern_proto::outbox::Outbox;
use postern_proto::packet::PacketView;
use postern_proto::peers::PeerId;
use postern_proto::reply;
use std::time::Duration;

/// What a client said about its path counts so long. It says it again under every key, and no key
/// lives longer than 180 s; a stock WireGuard program with the same key would not.
const MTU_AGE: Duration = Duration::from_secs(240);

impl DeviceState {
    /// The inner MTU in bytes that its client found, where it is smaller than the `configured`.
    #[must_use]
    pub(super) fn smaller_mtu(&self, configured: usize, now: Mono) -> Option<u16> {
        let (mtu, until) = self.path_mtu?;
        (usize::from(mtu) < configured && now < until).then_some(mtu)
    }
}

impl Gateway {
    /// The inner MTU in bytes that a device's client found, where it is smaller than configured.
    #[must_use]
    pub fn path_mtu(&self, device: &DeviceState, now: Now) -> Option<u16> {
        device.smaller_mtu(self.settings.mtu, now.mono)
    }

    /// The client uses `mtu` at present.
    pub(super) fn note_mtu(&mut self, peer: PeerId, mtu: u16, now: Now) {
        let Some(device) = self.devices.get_mut(peer) else {
            return;
        };
        let least = u16::try_from(MIN_MTU).unwrap_or(u16::MAX);
        let mtu = mtu.max(least);
        device.path_mtu = Some((mtu, now.mono + MTU_AGE));
        self.least_mtu = self.least_mtu.min(usize::from(mtu));
    }

    /// Answers a probe of `len` bytes by a packet as long.
    pub(super) fn answer_probe(
        &mut self,
        peer: PeerId,
        id: u32,
        len: usize,
        out: &mut impl Outbox,
        now: Now,
    ) {
        let mut packet = [0; PACKET_ROOM];
        let answer = Message::ProbeAnswer { id };
        self.send_message(peer, &answer, len, &mut packet, out, now);
    }

    /// The inner MTU for packets from and to a device, bytes.
    pub(super) fn mtu_of(&self, peer: PeerId, now: Now) -> usize {
        let configured = self.settings.mtu;
        self.devices
            .get(peer)
            .and_then(|device| device.smaller_mtu(configured, now.mono))
            .map_or(configured, usize::from)
    }

    /// Whether a packet of a target, or the largest of a super-packet, must go back because the
    /// path to the device is smaller: with an answer, if there have not been too many. What may
    /// be fragmented passes.
    pub(super) fn too_big(
        &mut self,
        peer: PeerId,
        view: &PacketView<'_>,
        segment_len: usize,
        now: Now,
    ) -> Option<Option<usize>> {
        // No device has a path so small: nothing to look up.
        if segment_len <= self.least_mtu {
            return None;
        }
        let device = self.devices.get_mut(peer)?;
        let mtu = device
            .smaller_mtu(self.settings.mtu, now.mono)
            .filter(|mtu| segment_len > usize::from(*mtu))?;
        let answer = reply::too_big(view, mtu, &mut self.answer)?;
        let answered = device.answers.take(now.mono, ANSWER_INTERVAL, ANSWER_BURST);
        Some(answered.then_some(answer))
    }
}
