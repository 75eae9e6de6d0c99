//! Demux: which peer a datagram belongs to, where each peer is, and whose timer is next.
//!
//! **Roaming.** A peer is where its newest packet came from: an authenticated packet or keepalive
//! with the highest counter of the newest key, or the answer to our initiation. An initiation
//! alone moves nothing, since it can be replayed by whoever saw it; it is answered where it came
//! from, and the packet that confirms the key moves the peer. A late packet moves nothing.

use crate::ecn::{self, Ecn};
use crate::fate::DropReason;
use crate::gate::{Admission, COOKIE_ROOM, Gate};
use crate::keys::{PrivateKey, PublicKey};
use crate::mtu;
use crate::now::{Mono, Now};
use crate::outbox::{Endpoint, Outbox};
use crate::tunnel::{Message, Settings, Tunnel, Unlimited};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

mod peer;
#[cfg(test)]
mod tests;

pub use crate::tunnel::PeerId;
pub use peer::Peer;

/// The most peers that one demux takes. Each is 1 KiB until its first handshake and 12 KiB after
/// it: 768 MiB for all, 117 MiB for ten thousand; as much again where it replaced living keys
/// itself, which the answering side seldom does.
pub const MAX_PEERS: usize = 65_536;
/// The number of a removed peer rests until so many others have been removed, so that whoever
/// still holds it does not reach a stranger.
const REST: usize = 1024;
/// Between two calls of ours, when many are wanted: a quarter of a core for a thousand a second.
pub const CALL_PAUSE: Duration = Duration::from_millis(1);
/// A peer that may be in one place only is there for so long after it was heard.
pub const BUSY: Duration = Duration::from_secs(10);
/// So many calls go out without a pause.
pub const CALL_BURST: u32 = 32;

/// What a datagram turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inbound {
    /// A packet in the outbox's packet slot, `len` bytes, **not committed**: judge it first.
    Packet {
        /// Who sent it.
        peer: PeerId,
        /// Bytes, at least 20.
        len: usize,
        /// It came from another address than the one before, or is the first to come.
        roamed: bool,
    },
    /// Something between the two ends only; what it needed as answer is in the outbox.
    Control {
        /// What.
        what: Control,
        /// Whose; `None` for a cookie to somebody not yet known.
        peer: Option<PeerId>,
        /// It came from another address than the one before, or is the first to come.
        roamed: bool,
    },
    /// Nothing. `peer` is whose index it named, proved only if the reason is about the inner
    /// packet.
    Dropped {
        /// Why.
        reason: DropReason,
        /// Whose.
        peer: Option<PeerId>,
    },
}

/// Messages that carry no packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// An empty packet.
    Keepalive,
    /// The peer asked for a key and was answered.
    Answered,
    /// The peer answered us: a new key is in use.
    Established,
    /// We asked somebody to prove an address.
    CookieSent,
    /// We were asked to.
    CookieTaken,
}

/// Why a peer cannot be added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// The key is another peer's.
    #[error("the key {0} already belongs to a peer")]
    Duplicate(PublicKey),
    /// The key is our own.
    #[error("the key {0} is our own: a peer needs its own key")]
    OurOwn(PublicKey),
    /// [`MAX_PEERS`], or fewer if the worker number leaves fewer.
    #[error("no room for another peer: {0} is the most")]
    Full(usize),
}

/// Handshakes since the start, by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Handshakes {
    /// Initiations that we sent.
    pub initiated: u64,
    /// Initiations of peers that we answered.
    pub answered: u64,
    /// Keys that came into use, by either.
    pub established: u64,
    /// Peers that did not answer for 90 s.
    pub gave_up: u64,
    /// Cookies that we asked for.
    pub cookies_sent: u64,
}

/// Every peer of one worker.
#[derive(Debug)]
pub struct Peers {
    ours: PrivateKey,
    our_key: PublicKey,
    gate: Gate,
    limiter: Unlimited,
    seed: u64,
    worker: u32,
    worker_bits: u32,
    slots: Vec<Option<Box<Peer>>>,
    resting: VecDeque<usize>,
    by_key: BTreeMap<PublicKey, PeerId>,
    /// One entry for each peer that plans something. It may be early, never late.
    deadlines: BTreeSet<(Mono, PeerId)>,
    /// When the whole [`CALL_BURST`] can be called again.
    calls: Mono,
    handshakes: Handshakes,
}

impl Peers {
    /// No peers yet. The lowest `worker_bits` of every index are `worker`, so that datagrams can
    /// be steered by their receiver index. `seed` must be random: it spreads retries and keys
    /// the gate's table.
    #[must_use]
    pub fn new(ours: PrivateKey, worker: u8, worker_bits: u8, seed: u64) -> Self {
        let our_key = ours.public();
        let worker_bits = u32::from(worker_bits.min(8));
        Peers {
            gate: Gate::new(&ours, seed),
            limiter: Unlimited::new(&our_key),
            ours,
            our_key,
            seed,
            worker: u32::from(worker) & ((1 << worker_bits) - 1),
            worker_bits,
            slots: Vec::new(),
            resting: VecDeque::new(),
            by_key: BTreeMap::new(),
            deadlines: BTreeSet::new(),
            calls: Mono::default(),
            handshakes: Handshakes::default(),
        }
    }

    /// Adds a peer. Nothing is sent until there is something to send; see [`Peers::initiate`].
    ///
    /// # Errors
    /// [`AddError`].
    pub fn add(
        &mut self,
        key: PublicKey,
        settings: &Settings,
        endpoint: Option<Endpoint>,
    ) -> Result<PeerId, AddError> {
        if key == self.our_key {
            return Err(AddError::OurOwn(key));
        }
        if self.by_key.contains_key(&key) {
            return Err(AddError::Duplicate(key));
        }
        let (slot, id) = self.free_slot().ok_or(AddError::Full(self.capacity()))?;
        let jitter = self.seed ^ u64::from(id.get()).wrapping_mul(0xd134_2543_de82_ef95);
        let tunnel = Tunnel::new(&self.ours, &key, settings, id, jitter, &self.limiter);
        let peer = Peer {
            id,
            key,
            tunnel,
            endpoint,
            ecn_mode: ecn::Mode::default(),
            one_place: false,
            heard: None,
            armed: Mono::NEVER,
        };
        match self.slots.get_mut(slot) {
            Some(free) => *free = Some(Box::new(peer)),
            None => self.slots.push(Some(Box::new(peer))),
        }
        self.by_key.insert(key, id);
        Ok(id)
    }

    /// Removes a peer: from now on its datagrams meet silence. Its number rests before another
    /// gets it. False if there was none.
    pub fn remove(&mut self, id: PeerId) -> bool {
        let Some(slot) = self.slot(id) else {
            return false;
        };
        let Some(peer) = self.slots.get_mut(slot).and_then(Option::take) else {
            return false;
        };
        self.by_key.remove(&peer.key);
        self.deadlines.remove(&(peer.armed, id));
        self.resting.push_back(slot);
        true
    }

    /// Takes a datagram from the network, whose IP header carried `ecn`.
    pub fn receive<O: Outbox + ?Sized>(
        &mut self,
        from: Endpoint,
        ecn: Ecn,
        datagram: &[u8],
        out: &mut O,
        now: Now,
    ) -> Inbound {
        if datagram.len() > mtu::DATAGRAM_ROOM {
            return Inbound::Dropped {
                reason: DropReason::TooLong,
                peer: None,
            };
        }
        let Some(message) = Message::parse(datagram) else {
            return Inbound::Dropped {
                reason: DropReason::NotWireguard,
                peer: None,
            };
        };
        let Some(id) = message.peer() else {
            return self.receive_initiation(from, datagram, out, now);
        };
        let Some(peer) = self.peer_mut(id) else {
            return Inbound::Dropped {
                reason: DropReason::UnknownIndex,
                peer: None,
            };
        };
        let before = peer.tunnel.handshakes();
        let inbound = match message {
            Message::Data { .. } => peer.receive_data(from, ecn, datagram, out, now),
            Message::Initiation | Message::Response { .. } | Message::Cookie { .. } => {
                peer.receive_handshake(from, datagram, out, now)
            }
        };
        let established = peer.tunnel.handshakes() - before;
        if established > 0 {
            peer.ecn_mode = ecn::Mode::default();
        }
        self.handshakes.established += established;
        self.settle(id, out, now);
        inbound
    }

    /// Encrypts a packet for a peer into the outbox, at the peer's endpoint.
    ///
    /// # Errors
    /// As [`Tunnel::seal`]; `NoSession` also for a peer that is not there or that has no
    /// endpoint. A handshake is on its way then, if the peer can be reached.
    pub fn send<O: Outbox + ?Sized>(
        &mut self,
        id: PeerId,
        packet: &[u8],
        out: &mut O,
        now: Now,
    ) -> Result<(), DropReason> {
        let peer = self.peer_mut(id).ok_or(DropReason::NoSession)?;
        let endpoint = peer.endpoint.ok_or(DropReason::NoSession)?;
        let room = out.datagram(endpoint, peer.tunnel.sealed_len(packet.len()));
        let sealed = peer.tunnel.seal(packet, room, now);
        if let Ok(len) = sealed {
            out.commit_datagram(len, ecn::encapsulate(Ecn::of(packet), peer.ecn_mode));
        }
        self.settle(id, out, now);
        sealed.map(|_| ())
    }

    /// Asks a peer for a new key: at start, for those whose endpoint is known. [`CALL_BURST`] at
    /// once, those after them one by one: ten thousand calls in one turn would hold up every
    /// packet for seconds, and their answers would come as a flood.
    pub fn initiate<O: Outbox + ?Sized>(&mut self, id: PeerId, out: &mut O, now: Now) {
        let full = self.calls.max(now.mono);
        let wait = (full - now.mono).saturating_sub(CALL_PAUSE * (CALL_BURST - 1));
        if let Some(peer) = self.peer_mut(id)
            && peer.endpoint.is_some()
        {
            peer.tunnel.initiate_at(now.mono + wait);
            self.calls = full + CALL_PAUSE;
            self.settle(id, out, now);
        }
    }

    /// Does whatever is due.
    pub fn timeout<O: Outbox + ?Sized>(&mut self, out: &mut O, now: Now) {
        while let Some(&(at, id)) = self.deadlines.first()
            && at <= now.mono
        {
            self.deadlines.pop_first();
            if let Some(peer) = self.peer_mut(id) {
                peer.armed = Mono::NEVER;
            }
            self.settle(id, out, now);
        }
    }

    /// When [`Peers::timeout`] wants to be called; it may then find nothing to do.
    #[must_use]
    pub fn next_deadline(&self) -> Mono {
        self.deadlines.first().map_or(Mono::NEVER, |&(at, _)| at)
    }

    /// A peer by number.
    #[must_use]
    pub fn peer(&self, id: PeerId) -> Option<&Peer> {
        self.slots.get(self.slot(id)?)?.as_deref()
    }

    /// A peer by key.
    #[must_use]
    pub fn find(&self, key: &PublicKey) -> Option<PeerId> {
        self.by_key.get(key).copied()
    }

    /// All peers, in the order of their numbers.
    pub fn iter(&self) -> impl Iterator<Item = &Peer> + '_ {
        self.slots.iter().filter_map(Option::as_deref)
    }

    /// How many peers there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// No peers.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// Handshakes since the start.
    #[must_use]
    pub fn handshakes(&self) -> Handshakes {
        self.handshakes
    }

    /// The key that peers know us by.
    #[must_use]
    pub fn our_key(&self) -> &PublicKey {
        &self.our_key
    }

    /// Sets where a peer is to be reached, as after a new look-up of its name.
    pub fn set_endpoint(&mut self, id: PeerId, endpoint: Endpoint) {
        if let Some(peer) = self.peer_mut(id) {
            peer.endpoint = Some(endpoint);
        }
    }

    /// Changes a peer's [`Settings::keepalive`] and [`Settings::mtu`].
    pub fn adjust<O: Outbox + ?Sized>(
        &mut self,
        id: PeerId,
        (keepalive, mtu): (Option<Duration>, usize),
        out: &mut O,
        now: Now,
    ) {
        if let Some(peer) = self.peer_mut(id) {
            peer.tunnel.adjust(keepalive, mtu, now);
            self.settle(id, out, now);
        }
    }

    /// From now on the peer cannot be in two places: while it is heard from one endpoint, and for
    /// [`BUSY`] after, datagrams from any other meet silence ([`DropReason::KeyBusy`]).
    pub fn keep_to_one_place(&mut self, id: PeerId) {
        if let Some(peer) = self.peer_mut(id) {
            peer.one_place = true;
        }
    }

    /// Says whether a peer passes congestion marks on. With its next key that must be said anew,
    /// for another program may use it by then.
    pub fn set_ecn_mode(&mut self, id: PeerId, mode: ecn::Mode) {
        if let Some(peer) = self.peer_mut(id) {
            peer.ecn_mode = mode;
        }
    }

    fn receive_initiation<O: Outbox + ?Sized>(
        &mut self,
        from: Endpoint,
        datagram: &[u8],
        out: &mut O,
        now: Now,
    ) -> Inbound {
        let key = match self.gate.admit(datagram, from.remote.ip(), now.mono) {
            Admission::Claimed(key) => key,
            Admission::Cookie(reply) => {
                let slot = out.datagram(from, COOKIE_ROOM);
                if let Some(slot) = slot.get_mut(..COOKIE_ROOM) {
                    slot.copy_from_slice(&reply);
                    out.commit_datagram(COOKIE_ROOM, Ecn::NotEct);
                    self.handshakes.cookies_sent += 1;
                }
                return Inbound::Control {
                    what: Control::CookieSent,
                    peer: None,
                    roamed: false,
                };
            }
            Admission::Refused(reason) => return Inbound::Dropped { reason, peer: None },
        };
        self.receive_claimed(&key, from, datagram, out, now)
    }

    /// Takes an initiation that a gate outside has let in: its first MAC is right, its source is
    /// within its budget, and it claims to come from `key`. The claim is verified here.
    pub fn receive_claimed<O: Outbox + ?Sized>(
        &mut self,
        key: &PublicKey,
        from: Endpoint,
        datagram: &[u8],
        out: &mut O,
        now: Now,
    ) -> Inbound {
        let dropped = |reason| Inbound::Dropped { reason, peer: None };
        if !matches!(Message::parse(datagram), Some(Message::Initiation)) {
            return dropped(DropReason::NotWireguard);
        }
        let Some(id) = self.find(key) else {
            return dropped(DropReason::UnknownKey);
        };
        let Some(peer) = self.peer_mut(id) else {
            return dropped(DropReason::UnknownKey);
        };
        let inbound = peer.receive_handshake(from, datagram, out, now);
        if matches!(inbound, Inbound::Control { .. }) {
            self.handshakes.answered += 1;
        }
        self.settle(id, out, now);
        inbound
    }

    /// Lets a peer do what is due and notes when it wants to be asked again. A deadline that
    /// moved back is left to fire early, so that a packet costs no change of the set.
    fn settle<O: Outbox + ?Sized>(&mut self, id: PeerId, out: &mut O, now: Now) {
        let Some(slot) = self.slot(id) else { return };
        let Some(peer) = self.slots.get_mut(slot).and_then(Option::as_deref_mut) else {
            return;
        };
        let mut next = peer.tunnel.next_deadline();
        if next <= now.mono {
            peer.run_timers(out, now, &mut self.handshakes);
            // Never again in the same instant, even if the outbox had no room for it.
            let later = now.mono + Duration::from_nanos(1);
            next = peer.tunnel.next_deadline().max(later);
        }
        if next < peer.armed {
            self.deadlines.remove(&(peer.armed, id));
            self.deadlines.insert((next, id));
            peer.armed = next;
        }
    }

    fn peer_mut(&mut self, id: PeerId) -> Option<&mut Peer> {
        let slot = self.slot(id)?;
        self.slots.get_mut(slot)?.as_deref_mut()
    }

    fn slot(&self, id: PeerId) -> Option<usize> {
        let worker = id.get() & ((1 << self.worker_bits) - 1);
        (worker == self.worker).then_some((id.get() >> self.worker_bits) as usize)
    }

    fn capacity(&self) -> usize {
        MAX_PEERS.min((PeerId::MAX.get() as usize + 1) >> self.worker_bits)
    }

    fn free_slot(&mut self) -> Option<(usize, PeerId)> {
        let full = self.slots.len() >= self.capacity();
        let slot = if full || self.resting.len() > REST {
            self.resting.pop_front()?
        } else {
            self.slots.len()
        };
        let number = u32::try_from(slot).ok()? << self.worker_bits | self.worker;
        Some((slot, PeerId::new(number)?))
    }
}
