//! Where a device is on the Internet. The tunnel knows it from what was authenticated last; rules
//! that ask for it are judged again with the packet that comes from another address.

use super::Gateway;
use postern_proto::now::Now;
use postern_proto::outbox::Outbox;
use postern_proto::peers::PeerId;
use std::net::IpAddr;

/// No policy is newer: a flow that was judged under it is judged again.
const NEVER_JUDGED: u64 = 0;

impl Gateway {
    /// Something authenticated came from `peer` at another endpoint than before. True if its flows
    /// must be judged again: its packet is, then [`Gateway::judge_moved`] does the others.
    pub(super) fn note_place(&mut self, peer: PeerId) -> bool {
        let asks = self.asks_outer;
        let (Some(place), Some(device)) = (self.place_of(peer), self.devices.get_mut(peer)) else {
            return false;
        };
        // Another port of the same address is no other place.
        if device.device.standing.outer == Some(place) {
            return false;
        }
        device.moved(place, asks);
        if asks {
            for slot in self.flows.of(peer) {
                if let Some(flow) = self.flows.get_mut(slot) {
                    flow.judged_at = NEVER_JUDGED;
                }
            }
        }
        asks
    }

    /// Judges the live flows of a device that has moved.
    pub(super) fn judge_moved(&mut self, peer: PeerId, out: &mut impl Outbox, now: Now) {
        self.judge_device(peer, now.mono, out, now);
    }

    /// An IPv4 address is the same on both kinds of sockets.
    fn place_of(&self, peer: PeerId) -> Option<IpAddr> {
        let endpoint = self.peers.peer(peer)?.endpoint()?;
        Some(endpoint.remote.ip().to_canonical())
    }
}
