//! The Internet between laptops and gateway: late, lossy, and out of order when it is told to be.

use crate::dice::{Dice, Seeded};
use crate::packet::{Packet, What};
use postern_proto::ecn::Ecn;
use postern_proto::mtu;
use postern_proto::now::Mono;
use postern_proto::outbox::{Endpoint, Outbox};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

/// One datagram under way, and what the world knows of it.
#[derive(Clone, Debug)]
pub struct Datagram {
    /// Told apart by this; a copy has the number of its original.
    pub id: u64,
    /// Outer sender.
    pub from: SocketAddr,
    /// Outer receiver.
    pub to: SocketAddr,
    /// The ECN bits of its IP header.
    pub ecn: Ecn,
    /// On the wire.
    pub bytes: Vec<u8>,
    /// The laptop that sealed it, or for which it was sealed.
    pub laptop: Option<usize>,
    /// What was sealed in it, where that is known.
    pub inner: Option<Packet>,
    /// Not as it was sealed.
    pub tampered: bool,
    /// The run of the gateway and the enrolment whose key sealed it, and since when that key was
    /// known.
    pub epoch: Option<(u64, Mono)>,
    /// When it was sealed.
    pub sealed: Mono,
}

impl Datagram {
    /// Lets the network do what it does to the mark. What is broken may be refused before its mark
    /// is looked at.
    pub fn mark(&mut self, net: &mut Net) {
        let broken = |inner: &Packet| matches!(inner.what, What::Broken(_));
        if !self.inner.as_ref().is_some_and(broken) {
            self.ecn = net.mark(self.ecn);
        }
    }
}

/// What the network does to datagrams.
#[derive(Debug)]
pub struct Net {
    dice: Seeded,
    latency: Duration,
    /// Lost, of a hundred.
    pub loss: u8,
    /// Doubled, of a hundred.
    pub twice: u8,
    /// Delayed, of a hundred, by up to this.
    pub late: (u8, Duration),
    /// By laptop and direction (true: to the gateway): the longest datagram that is not lost.
    pub(crate) rooms: BTreeMap<(usize, bool), usize>,
    /// Since when nothing was lost, doubled or delayed.
    clean_since: Mono,
    /// By laptop and direction: nothing arrives before this, while order is kept.
    arrived: BTreeMap<(Option<usize>, bool), Mono>,
}

impl Net {
    /// A network that does no harm yet.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut dice = Seeded::new(seed);
        Net {
            latency: Duration::from_millis(dice.between(1, 120)),
            dice,
            loss: 0,
            twice: 0,
            late: (0, Duration::ZERO),
            rooms: BTreeMap::new(),
            clean_since: Mono(0),
            arrived: BTreeMap::new(),
        }
    }

    /// Everything arrives once and in order, at this moment.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.is_lossless() && self.is_in_order() && self.rooms.is_empty()
    }

    /// Nothing overtakes anything.
    #[must_use]
    pub fn is_in_order(&self) -> bool {
        self.twice == 0 && self.late.0 == 0
    }

    /// Nothing is lost but what is too long.
    #[must_use]
    pub fn is_lossless(&self) -> bool {
        self.loss == 0
    }

    /// It has been clean since then.
    #[must_use]
    pub fn clean_since(&self) -> Mono {
        if self.is_clean() {
            self.clean_since
        } else {
            Mono::NEVER
        }
    }

    /// Changes its manners.
    pub fn behave(&mut self, loss: u8, twice: u8, late: u8, now: Mono) {
        let was_clean = self.is_clean();
        (self.loss, self.twice) = (loss, twice);
        self.late = (late, Duration::from_millis(u64::from(late) * 40));
        self.changed(was_clean, now);
    }

    pub(crate) fn changed(&mut self, was_clean: bool, now: Mono) {
        if self.is_clean() && !was_clean {
            // What was delayed before may still be under way.
            self.clean_since = now + Duration::from_secs(5);
        }
    }

    /// What becomes of the ECN bits of a datagram: a congested router marks what says that it may
    /// be, some networks wash the bits or turn one ECT into the other, and a broken one marks
    /// what must not be. That costs the packet, so only where packets are lost anyway.
    pub fn mark(&mut self, ecn: Ecn) -> Ecn {
        match (self.dice.small(16), ecn) {
            (0 | 1, Ecn::Ect0 | Ecn::Ect1) => Ecn::Ce,
            (2, Ecn::Ect0) => Ecn::Ect1,
            (2, Ecn::Ect1) => Ecn::Ect0,
            (3, _) => Ecn::NotEct,
            (4, Ecn::NotEct) if self.loss > 0 => Ecn::Ce,
            _ => ecn,
        }
    }

    /// When a datagram arrives: never, once or twice.
    pub fn carry(
        &mut self,
        laptop: Option<usize>,
        to_gateway: bool,
        len: usize,
        now: Mono,
    ) -> Vec<Mono> {
        if self.dice.small(100) < self.loss || !self.passes(laptop, to_gateway, len) {
            return Vec::new();
        }
        let mut at = now + self.latency + Duration::from_micros(self.dice.roll(2000));
        if self.dice.small(100) < self.late.0 {
            let most = u64::try_from(self.late.1.as_millis()).unwrap_or(0);
            at = at + Duration::from_millis(self.dice.roll(most + 1));
        } else if self.late.0 == 0 {
            let before = self.arrived.entry((laptop, to_gateway)).or_default();
            at = at.max(*before + Duration::from_nanos(1));
            *before = at;
        }
        let mut times = vec![at];
        if self.dice.small(100) < self.twice {
            times.push(at + Duration::from_micros(self.dice.roll(50_000)));
        }
        times
    }
}

/// What a state machine sent.
#[derive(Debug, Default)]
pub struct Outs {
    /// To the network.
    pub datagrams: Vec<(Endpoint, Vec<u8>)>,
    /// The mark of each of them.
    pub marks: Vec<Ecn>,
    /// To the TUN.
    pub packets: Vec<Vec<u8>>,
    datagram: Vec<u8>,
    packet: Vec<u8>,
    to: Option<Endpoint>,
}

impl Outbox for Outs {
    fn datagram(&mut self, to: Endpoint, room: usize) -> &mut [u8] {
        self.to = Some(to);
        self.datagram.resize(room, 0);
        &mut self.datagram
    }

    fn commit_datagram(&mut self, len: usize, ecn: Ecn) {
        if let Some(to) = self.to {
            self.marks.push(ecn);
            self.datagrams.push((to, self.datagram[..len].to_vec()));
        }
    }

    fn packet(&mut self) -> &mut [u8] {
        self.packet.resize(mtu::PACKET_ROOM, 0);
        &mut self.packet
    }

    fn commit_packet(&mut self, len: usize) {
        self.packets.push(self.packet[..len].to_vec());
    }
}

/// A WireGuard data message with something in it.
#[must_use]
pub fn carries_packet(datagram: &[u8]) -> bool {
    datagram.first() == Some(&4) && datagram.len() > mtu::WIREGUARD_OVERHEAD
}

/// The index that a handshake message introduces.
#[must_use]
pub fn introduces(datagram: &[u8]) -> Option<u32> {
    matches!(datagram.first()?, 1 | 2)
        .then(|| word(datagram, 4))
        .flatten()
}

/// The index that a data message is for.
#[must_use]
pub fn receiver(datagram: &[u8]) -> Option<u32> {
    (datagram.first() == Some(&4))
        .then(|| word(datagram, 4))
        .flatten()
}

/// The index of the receiver that a message names.
#[must_use]
pub fn addressed(datagram: &[u8]) -> Option<u32> {
    match datagram.first()? {
        2 => word(datagram, 8),
        3 | 4 => word(datagram, 4),
        _ => None,
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(at..)?.first_chunk()?))
}
