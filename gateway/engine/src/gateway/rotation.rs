//! Another key for the same device. Until the next key has carried an authenticated packet, the
//! key in force serves on; then flows, addresses and standing are the next key's, and the one
//! before decrypts nothing any more. What was under way under it is lost, as any datagram may be.

use super::Gateway;
use postern_proto::keys::{PresharedKey, PublicKey};
use postern_proto::now::Now;
use postern_proto::peers::PeerId;
use std::sync::Arc;

impl Gateway {
    /// Accepts a second key for the device that has `key`, with a pre-shared key of its own. It
    /// replaces a second key that was not used yet.
    ///
    /// # Errors
    /// In words: there is no such device, it has a throw-away key, or the next key is somebody's.
    /// The key before the one in force is no device's here: who names it has not heard of the
    /// change, and would forget the key in force.
    pub fn rotate_device(
        &mut self,
        key: &PublicKey,
        next: PublicKey,
        preshared: Option<&PresharedKey>,
    ) -> Result<(), String> {
        let current = self
            .peers
            .find(key)
            .filter(|peer| self.devices.get(*peer).is_some())
            .ok_or_else(|| format!("no device has the key {key}"))?;
        let device = self.devices.get_mut(current);
        if device
            .as_ref()
            .is_none_or(|device| device.device.standing.guest)
        {
            return Err("a throw-away key has no successor".to_owned());
        }
        let before = device.and_then(|device| device.next.take());
        self.forget_keys(before, None);
        let tunnel = self.tunnel(preshared);
        let added = self.peers.add(next, &tunnel, None);
        let peer = added.map_err(|error| error.to_string())?;
        self.next.insert(peer, current);
        if let Some(device) = self.devices.get_mut(current) {
            device.next = Some(peer);
        }
        Ok(())
    }

    /// Keys that came into use since the last call: the one before, and the one that replaced it.
    pub fn take_rotated(&mut self) -> Vec<(PublicKey, PublicKey)> {
        std::mem::take(&mut self.rotated)
    }

    /// Something authenticated came from `peer`. If that is a device's next key, it is now the
    /// device's own: true, and the device may be elsewhere than the key before was heard.
    pub(super) fn key_in_use(&mut self, peer: PeerId, now: Now) -> bool {
        if self.next.is_empty() {
            return false;
        }
        let (Some(current), Some(new)) = (
            self.next.remove(&peer),
            self.peers.peer(peer).map(|peer| *peer.key()),
        ) else {
            return false;
        };
        self.flows.give(current, peer);
        self.denials.give(current, peer);
        if let Some(untold) = self.untold.remove(&current) {
            self.untold.insert(peer, untold);
        }
        let Some(device) = self.devices.give(current, peer) else {
            return false;
        };
        let old = std::mem::replace(&mut device.device.key, new);
        let earlier = device.former.replace(old);
        device.next = None;
        device.refresh(now.wall);
        let who = Arc::clone(&device.who);
        if let Some(due) = device.due {
            self.due.remove(&(due, current));
            self.due.insert((due, peer));
        }
        for slot in self.flows.of(peer) {
            if let Some(flow) = self.flows.get_mut(slot) {
                flow.who = Arc::clone(&who);
            }
        }
        self.forget_keys(None, earlier);
        self.former.remove(&new);
        self.former.insert(old, peer);
        self.peers.remove(current);
        self.rotated.push((old, new));
        self.watch(peer, now);
        true
    }

    /// A key that was never used and one that is long gone.
    pub(super) fn forget_keys(&mut self, next: Option<PeerId>, former: Option<PublicKey>) {
        if let Some(next) = next {
            self.next.remove(&next);
            self.peers.remove(next);
        }
        if let Some(former) = former {
            self.former.remove(&former);
        }
    }
}
