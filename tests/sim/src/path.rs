//! What a path carries, and what the two ends must find out about it.

use crate::model::Model;
use crate::net::Net;
use crate::packet::{self, Packet, What};
use crate::target::stamped;
use crate::world::{Check, World};
use postern_proto::mtu::{MIN_MTU, WIREGUARD_OVERHEAD};
use postern_proto::now::{Mono, Now};
use std::time::Duration;

/// A tunnel in use has found its path by then, whatever went wrong before: the pause after a
/// silent probing, the next confirmation, and its rounds.
const FOUND: Duration = Duration::from_secs(80);
/// A device's MTU is remembered for so long.
const REMEMBERED: Duration = Duration::from_secs(240);

/// The largest inner packet in steps of what WireGuard pads to; the tenth step is everything.
fn carries(step: u8) -> usize {
    match usize::from(step % 10) {
        9 => usize::MAX,
        steps => MIN_MTU + 16 * steps,
    }
}

impl Net {
    /// The largest inner packets that pass between a laptop and the gateway, there and back.
    pub fn narrow(&mut self, laptop: usize, there: u8, back: u8, now: Mono) {
        let was_clean = self.is_clean();
        let room = [there, back].map(|step| carries(step).saturating_add(WIREGUARD_OVERHEAD));
        self.rooms.retain(|(other, _), _| *other != laptop);
        for (to_gateway, room) in [(true, room[0]), (false, room[1])] {
            if room < usize::MAX {
                self.rooms.insert((laptop, to_gateway), room);
            }
        }
        self.changed(was_clean, now);
    }

    /// A datagram of `len` bytes passes.
    pub(crate) fn passes(&self, laptop: Option<usize>, to_gateway: bool, len: usize) -> bool {
        laptop
            .and_then(|laptop| self.rooms.get(&(laptop, to_gateway)))
            .is_none_or(|room| len <= *room)
    }
}

impl Model {
    /// A client says which MTU it uses.
    pub(crate) fn note_mtu(&mut self, laptop: usize, mtu: u16, now: Now) {
        let least = u16::try_from(MIN_MTU).unwrap_or(0);
        let until = now.mono + REMEMBERED;
        self.mtus.insert(laptop, (mtu.max(least), until));
    }

    /// A packet of a target, `len` bytes in its largest segment, is more than the path carries.
    pub(crate) fn is_too_big(&self, laptop: usize, packet: &Packet, len: usize, now: Now) -> bool {
        self.mtus
            .get(&laptop)
            .is_some_and(|(mtu, until)| now.mono < *until && len > usize::from(*mtu))
            && !matches!(packet.what, What::Error { .. })
    }
}

impl World {
    /// Somebody works for a while. If nothing else goes wrong, the tunnel must then carry packets
    /// as large as it says that it does, in both directions, and both ends must agree.
    pub(crate) fn work(&mut self, n: usize) -> Check {
        let steady = self.net.is_lossless();
        let end = self.now.mono + FOUND;
        while self.now.mono < end {
            let from = (self.laptops[n].addresses[0], 5353);
            let to = ([192, 0, 2, 12].into(), 53);
            let payload = stamped(self.stamp(), 24);
            self.send(n, packet::udp(from, to, &payload))?;
            self.run_for(Duration::from_secs(1))?;
        }
        let Some(mtu) = self.laptops[n].path_mtu(self.now) else {
            return Ok(());
        };
        if !steady || !self.is_in_touch(n) || self.model.is_guest(n) {
            return Ok(());
        }
        let sealed = usize::from(mtu) + WIREGUARD_OVERHEAD;
        for to_gateway in [true, false] {
            if !self.net.passes(Some(n), to_gateway, sealed) {
                return Err(format!(
                    "laptop {n} still sends packets of {mtu} bytes, which are lost (to the gateway: {to_gateway})"
                ));
            }
        }
        // What comes late may be older than what came before it, until the next probe.
        if !self.net.is_in_order() {
            return Ok(());
        }
        let told = self.model.mtus.get(&n).map(|(mtu, _)| *mtu);
        if told != Some(mtu) {
            return Err(format!(
                "laptop {n} uses an MTU of {mtu}, and the gateway knows of {told:?}"
            ));
        }
        Ok(())
    }
}
