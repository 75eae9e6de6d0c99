//! Another key for the same device, without losing a packet. The new key asks for a handshake
//! beside the old one, which goes on carrying packets; once the gateway has answered it, the two
//! change places. The old key still opens what was on its way, and is then forgotten. A new key
//! that nobody answers is given up, and nothing has happened.

use super::Client;
use postern_proto::ecn::Ecn;
use postern_proto::keys::{PresharedKey, PrivateKey, PublicKey};
use postern_proto::now::{Mono, Now};
use postern_proto::outbox::{Endpoint, Outbox};
use postern_proto::peers::{AddError, Inbound, PeerId, Peers};
use postern_proto::tunnel::{Message, Settings};
use std::time::Duration;

/// Keys are told apart by the lowest bit of the receiver index: two at most live at once.
pub(super) const BITS: u8 = 1;
/// The bit of the first.
pub(super) const FIRST: u8 = 0;
/// So long the old key still opens what was under way.
const LINGER: Duration = Duration::from_secs(5);
/// So long a new key is tried.
const PATIENCE: Duration = Duration::from_secs(60);

/// What became of a new key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyChange {
    /// The gateway answered it: it is the device's key now.
    InUse,
    /// Nobody answered it while the old one worked.
    GivenUp,
}

/// The keys besides the one in use.
#[derive(Debug)]
pub(super) struct Rotation {
    gateway: PublicKey,
    settings: Settings,
    /// The bit of the key in use.
    bit: u8,
    next: Option<Other>,
    old: Option<Other>,
    change: Option<KeyChange>,
}

#[derive(Debug)]
struct Other {
    peers: Peers,
    id: PeerId,
    until: Mono,
}

impl Rotation {
    pub(super) fn new(gateway: PublicKey, settings: &Settings) -> Rotation {
        Rotation {
            gateway,
            settings: settings.clone(),
            bit: FIRST,
            next: None,
            old: None,
            change: None,
        }
    }

    pub(super) fn adjust(&mut self, mtu: u16, keepalive: Option<Duration>) {
        self.settings.mtu = usize::from(mtu);
        self.settings.keepalive = keepalive;
    }

    pub(super) fn set_endpoint(&mut self, endpoint: Endpoint) {
        if let Some(next) = &mut self.next {
            next.peers.set_endpoint(next.id, endpoint);
        }
    }

    pub(super) fn next_deadline(&self) -> Mono {
        let due = |other: &Option<Other>| {
            other.as_ref().map_or(Mono::NEVER, |other| {
                other.peers.next_deadline().min(other.until)
            })
        };
        // The old key starts nothing any more.
        let old = self.old.as_ref().map_or(Mono::NEVER, |old| old.until);
        due(&self.next).min(old)
    }
}

impl Client {
    /// Tries another key of ours beside the one in use. `seed` must be random. What becomes of it
    /// comes out of [`Client::take_key_change`].
    ///
    /// # Errors
    /// The gateway's key is our own.
    pub fn try_key(
        &mut self,
        private: PrivateKey,
        preshared: Option<PresharedKey>,
        seed: u64,
        out: &mut impl Outbox,
        now: Now,
    ) -> Result<(), AddError> {
        let settings = Settings {
            psk: preshared,
            ..self.rotation.settings.clone()
        };
        let mut peers = Peers::new(private, 1 - self.rotation.bit, BITS, seed);
        let endpoint = self.endpoint().map(Endpoint::from);
        let id = peers.add(self.rotation.gateway, &settings, endpoint)?;
        peers.initiate(id, out, now);
        // The old key had the same bit.
        self.rotation.old = None;
        self.rotation.next = Some(Other {
            peers,
            id,
            until: now.mono + PATIENCE,
        });
        Ok(())
    }

    /// What became of the key that was tried, once.
    pub fn take_key_change(&mut self) -> Option<KeyChange> {
        self.rotation.change.take()
    }

    /// The public half of the key in use.
    #[must_use]
    pub fn our_key(&self) -> &PublicKey {
        self.peers.our_key()
    }

    /// Gives a datagram to the key that it is for.
    pub(super) fn receive(
        &mut self,
        from: Endpoint,
        ecn: Ecn,
        datagram: &[u8],
        out: &mut impl Outbox,
        now: Now,
    ) -> Inbound {
        let index = Message::parse(datagram).and_then(Message::peer);
        let bit = index.map_or(self.rotation.bit, |id| u8::from(id.get() & 1 == 1));
        if bit == self.rotation.bit {
            return self.peers.receive(from, ecn, datagram, out, now);
        }
        let Rotation { next, old, .. } = &mut self.rotation;
        let Some(other) = next.as_mut().or(old.as_mut()) else {
            return self.peers.receive(from, ecn, datagram, out, now);
        };
        let inbound = other.peers.receive(from, ecn, datagram, out, now);
        self.change_places(now);
        inbound
    }

    /// Does what is due for the keys besides the one in use.
    pub(super) fn turn_rotation(&mut self, out: &mut impl Outbox, now: Now) {
        let connected = self.is_connected(now);
        let rotation = &mut self.rotation;
        if rotation
            .old
            .as_ref()
            .is_some_and(|old| old.until <= now.mono)
        {
            rotation.old = None;
        }
        let Some(next) = &mut rotation.next else {
            return;
        };
        next.peers.timeout(out, now);
        if next.until > now.mono {
            return;
        }
        if connected {
            rotation.next = None;
            rotation.change = Some(KeyChange::GivenUp);
        } else {
            // Neither is answered: nothing says which of them the gateway knows.
            next.until = now.mono + PATIENCE;
            if let Some(endpoint) = self
                .peers
                .peer(self.gateway)
                .and_then(|peer| peer.endpoint())
            {
                next.peers.set_endpoint(next.id, endpoint);
            }
            next.peers.initiate(next.id, out, now);
        }
    }

    fn change_places(&mut self, now: Now) {
        let established = |next: &Other| {
            next.peers
                .peer(next.id)
                .is_some_and(|peer| peer.is_established(now))
        };
        let Some(next) = self.rotation.next.take_if(|next| established(next)) else {
            return;
        };
        let old = std::mem::replace(&mut self.peers, next.peers);
        let id = std::mem::replace(&mut self.gateway, next.id);
        self.rotation.old = Some(Other {
            peers: old,
            id,
            until: now.mono + LINGER,
        });
        self.rotation.bit = 1 - self.rotation.bit;
        self.rotation.change = Some(KeyChange::InUse);
        let handshakes = self.peers.handshakes();
        (self.initiated, self.gave_up) = (handshakes.initiated, handshakes.gave_up);
        self.greeted = None;
        self.heard();
    }
}
