//! The stack: packets in, packets out, connections between.

use crate::connection::{Broken, Connection, Key, Phase};
use crate::counters::Counters;
use crate::limits::{Limits, MAX_ANSWERS, RESETS_PER_SECOND};
use postern_proto::keys::PublicKey;
use postern_proto::now::Mono;
use postern_proto::packet::{PacketView, Tcp, Transport};
use postern_proto::reply::{REPLY_ROOM, refuse};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// Ports of our own side of a connection that we open (RFC 6335, section 6: dynamic ports).
const OWN_PORTS: std::ops::RangeInclusive<u16> = 49_152..=65_535;

/// A connection that has something to say and nobody to say it to is asked again after this.
const STALLED: Duration = Duration::from_millis(20);

/// Packets that one call of [`Stack::transmit`] makes, so that whoever takes them keeps up.
const PACKETS_PER_TURN: usize = 64;

/// What a stack is made of.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our addresses.
    pub addresses: Vec<IpAddr>,
    /// The largest packet.
    pub mtu: usize,
    /// Where sequence numbers and ports begin.
    pub seed: u64,
    /// Bounds.
    pub limits: Limits,
}

/// Names a connection; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Id(u64);

/// Who is at the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remote {
    /// The key that decrypted every packet of the connection.
    pub tag: PublicKey,
    /// Where the tunnel came from at the connection's first packet.
    pub outer: Option<SocketAddr>,
    /// Address and port inside the tunnel.
    pub address: SocketAddr,
    /// Our address and port.
    pub local: SocketAddr,
}

/// Why no connection can be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotConnect {
    /// All connections are taken.
    #[error("too many connections are open; try again")]
    Full,
    /// We have no address of that family, or the port is 0.
    #[error("there is no way to that address from here")]
    NoWay,
}

/// TCP over packets. Every connection belongs to the tag of its first packet, and packets of
/// another tag never reach it, whatever addresses they claim.
pub struct Stack {
    config: Config,
    listening: BTreeSet<u16>,
    found: BTreeMap<Key, Id>,
    connections: BTreeMap<Id, Connection>,
    /// Connections with something to send, each once.
    due: VecDeque<Id>,
    /// Completed by the other end and not yet taken by [`Stack::accept`], each once.
    waiting: VecDeque<Id>,
    /// What changed since [`Stack::take_touched`].
    touched: BTreeSet<Id>,
    answers: VecDeque<(PublicKey, Vec<u8>)>,
    resets: Bucket,
    made: u64,
    counters: Counters,
}

impl Stack {
    /// Without a connection.
    #[must_use]
    pub fn new(config: Config) -> Stack {
        Stack {
            config,
            listening: BTreeSet::new(),
            found: BTreeMap::new(),
            connections: BTreeMap::new(),
            due: VecDeque::new(),
            waiting: VecDeque::new(),
            touched: BTreeSet::new(),
            answers: VecDeque::new(),
            resets: Bucket::default(),
            made: 0,
            counters: Counters::default(),
        }
    }

    /// Lets connections to this port in.
    pub fn listen(&mut self, port: u16) {
        self.listening.insert(port);
    }

    /// Opens a connection from one of our addresses. Usable at once: what is written waits.
    ///
    /// # Errors
    /// See [`CannotConnect`].
    pub fn connect(
        &mut self,
        tag: PublicKey,
        remote: SocketAddr,
        now: Mono,
    ) -> Result<Id, CannotConnect> {
        let own = self.config.addresses.iter();
        let address = own
            .copied()
            .find(|own| own.is_ipv4() == remote.is_ipv4())
            .ok_or(CannotConnect::NoWay)?;
        if self.is_crowded(&tag, address) {
            return Err(CannotConnect::Full);
        }
        let key = self
            .free_key(tag, address, remote)
            .ok_or(CannotConnect::Full)?;
        let made = self.next();
        let parts = (self.config.mtu, &self.config.limits, self.seed());
        let connection = Connection::active(key, parts, now).ok_or(CannotConnect::NoWay)?;
        let id = Id(made);
        self.insert(id, connection);
        self.touch(id, now);
        Ok(id)
    }

    /// A connection that the other end has opened.
    pub fn accept(&mut self) -> Option<(Id, Remote)> {
        while let Some(id) = self.waiting.pop_front() {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.held = true;
                return Some((id, remote(connection)));
            }
        }
        None
    }

    /// Whether [`Stack::accept`] may have something.
    #[must_use]
    pub fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Takes in a packet that `tag` decrypted, which came from `outer`.
    pub fn receive(&mut self, tag: PublicKey, outer: Option<SocketAddr>, packet: &[u8], now: Mono) {
        let Some((view, tcp)) = self.proved(packet) else {
            self.counters.strange += 1;
            return;
        };
        let key = Key {
            tag,
            local: SocketAddr::new(view.destination, tcp.destination_port),
            remote: SocketAddr::new(view.source, tcp.source_port),
        };
        let id = match self.found.get(&key) {
            Some(id) => *id,
            None if tcp.flags.opens() && self.listening.contains(&key.local.port()) => {
                match self.admit(key, outer, now) {
                    Some(id) => id,
                    None => return,
                }
            }
            None => return self.turn_away(tag, &view, now),
        };
        if self.answers.len() >= MAX_ANSWERS {
            // As lost on the way: it comes again.
            self.counters.unanswered += 1;
            return;
        }
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        let answers = connection.receive(packet, now);
        self.answers
            .extend(answers.into_iter().map(|answer| (tag, answer)));
        self.touch(id, now);
    }

    /// Does what time asks for, and hands out what is to be sent: each packet with the tag for
    /// which it is to be encrypted.
    pub fn transmit(&mut self, now: Mono, mut send: impl FnMut(&PublicKey, &[u8])) {
        for (tag, answer) in self.answers.drain(..) {
            send(&tag, &answer);
        }
        let late: Vec<Id> = self
            .connections
            .iter()
            .filter(|(_, connection)| connection.deadline <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in late {
            if let Some(connection) = self.connections.get_mut(&id)
                && connection.phase != Phase::Ended
            {
                connection.expire(now);
                self.counters.timed_out += u64::from(connection.phase == Phase::Ended);
            }
            self.touch(id, now);
        }
        // A packet each, in turn; what is left comes at once with the next call.
        for _ in 0..PACKETS_PER_TURN {
            let Some(id) = self.due.pop_front() else {
                return;
            };
            let Some(connection) = self.connections.get_mut(&id) else {
                continue;
            };
            connection.queued = false;
            let packets = connection.send(now);
            for packet in &packets {
                send(&connection.key.tag, packet);
            }
            if packets.is_empty() {
                self.settle(id, now);
            } else {
                self.touch(id, now);
            }
        }
    }

    /// When [`Stack::transmit`] is to be called again, if nothing else happens.
    #[must_use]
    pub fn next_deadline(&self) -> Mono {
        if !self.due.is_empty() || !self.answers.is_empty() {
            return Mono::default();
        }
        self.connections
            .values()
            .map(|connection| connection.deadline)
            .min()
            .unwrap_or(Mono::NEVER)
    }

    /// Connections on which something may have become possible.
    pub fn take_touched(&mut self) -> BTreeSet<Id> {
        std::mem::take(&mut self.touched)
    }

    /// Bytes into `room`. `None`: none yet. Zero: the other end has said all.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn read(&mut self, id: Id, room: &mut [u8], now: Mono) -> Result<Option<usize>, Broken> {
        let connection = self.connections.get_mut(&id).ok_or(Broken::Reset)?;
        let read = connection.read(room)?;
        if read.is_some_and(|read| read > 0) {
            self.touch(id, now);
        }
        Ok(read)
    }

    /// As much of `bytes` as there is room for. `None`: no room yet.
    ///
    /// # Errors
    /// The connection is broken, or closed at this end.
    pub fn write(&mut self, id: Id, bytes: &[u8], now: Mono) -> Result<Option<usize>, Broken> {
        let connection = self.connections.get_mut(&id).ok_or(Broken::Reset)?;
        let written = connection.write(bytes, now)?;
        if written.is_some() {
            self.touch(id, now);
        }
        Ok(written)
    }

    /// Whether the handshake is over.
    ///
    /// # Errors
    /// It came to nothing.
    pub fn is_open(&self, id: Id) -> Result<bool, Broken> {
        let connection = self.connections.get(&id).ok_or(Broken::Reset)?;
        match connection.phase {
            Phase::Opening => Ok(false),
            Phase::Open => Ok(true),
            Phase::Ended => connection.broken().map_or(Ok(true), Err),
        }
    }

    /// Ends this end's half of a connection, after what has been written.
    pub fn close(&mut self, id: Id, now: Mono) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.close(now);
            self.touch(id, now);
        }
    }

    /// Nobody here needs the connection any more.
    pub fn release(&mut self, id: Id, now: Mono) {
        if let Some(connection) = self.connections.get_mut(&id) {
            connection.release(now);
            self.touch(id, now);
        }
    }

    /// Ends every connection of a tag with a reset.
    pub fn abort_tag(&mut self, tag: &PublicKey, now: Mono) {
        let theirs: Vec<Id> = self.of(tag).collect();
        for id in theirs {
            if let Some(connection) = self.connections.get_mut(&id) {
                connection.abort(Broken::Reset, now);
            }
            self.touch(id, now);
        }
    }

    /// What was counted, and what is there.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let opening = |connection: &&Connection| connection.phase == Phase::Opening;
        Counters {
            connections: self.connections.len(),
            half_open: self.connections.values().filter(opening).count(),
            ..self.counters
        }
    }

    /// A TCP packet for one of our addresses.
    fn proved<'a>(&self, packet: &'a [u8]) -> Option<(PacketView<'a>, Tcp)> {
        let view = PacketView::parse(packet).ok()?;
        let Transport::Tcp(tcp) = view.transport else {
            return None;
        };
        let ours = self.config.addresses.contains(&view.destination);
        (ours && packet.len() <= self.config.mtu).then_some((view, tcp))
    }

    fn admit(&mut self, key: Key, outer: Option<SocketAddr>, now: Mono) -> Option<Id> {
        if self.is_crowded(&key.tag, key.local.ip()) {
            self.counters.crowded += 1;
            return None;
        }
        let id = Id(self.next());
        let parts = (self.config.mtu, &self.config.limits, self.seed());
        let connection = Connection::passive(key, outer, parts, now)?;
        self.insert(id, connection);
        Some(id)
    }

    fn insert(&mut self, id: Id, connection: Connection) {
        self.found.insert(connection.key, id);
        self.connections.insert(id, connection);
    }

    fn is_crowded(&self, tag: &PublicKey, address: IpAddr) -> bool {
        let limits = &self.config.limits;
        let there = |key: &&Key| key.local.ip() == address;
        self.found.len() >= limits.connections
            || self.of(tag).count() >= limits.per_tag
            || self.found.keys().filter(there).count() >= limits.per_address
    }

    fn of(&self, tag: &PublicKey) -> impl Iterator<Item = Id> {
        let theirs = self.found.iter().filter(|(key, _)| key.tag == *tag);
        theirs.map(|(_, id)| *id)
    }

    /// A reset for what belongs to nobody, within measure.
    fn turn_away(&mut self, tag: PublicKey, view: &PacketView<'_>, now: Mono) {
        self.counters.nobody += 1;
        if self.answers.len() >= MAX_ANSWERS || !self.resets.take(now) {
            return;
        }
        let mut room = [0; REPLY_ROOM];
        let reset = refuse(view, &mut room).and_then(|len| room.get(..len));
        self.answers
            .extend(reset.map(|reset| (tag, reset.to_vec())));
    }

    /// Something happened on it: it may have something to send, and somebody may wait for it.
    fn touch(&mut self, id: Id, now: Mono) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if !connection.counted
            && connection.phase != Phase::Opening
            && connection.broken().is_none()
        {
            connection.counted = true;
            self.counters.opened += 1;
            if !connection.held {
                self.waiting.push_back(id);
            }
        }
        if connection.held {
            self.touched.insert(id);
        }
        if connection.plan(now) <= now {
            if !connection.queued {
                connection.queued = true;
                self.due.push_back(id);
            }
        } else {
            self.forget_if_over(id);
        }
    }

    /// It has nothing to send at this moment.
    fn settle(&mut self, id: Id, now: Mono) {
        let Some(connection) = self.connections.get_mut(&id) else {
            return;
        };
        if connection.held {
            self.touched.insert(id);
        }
        if connection.plan(now) <= now {
            connection.deadline = now + STALLED;
        }
        self.forget_if_over(id);
    }

    fn forget_if_over(&mut self, id: Id) {
        let over = |connection: &&Connection| connection.is_over() || connection.never_began();
        if let Some(connection) = self.connections.get(&id).filter(over) {
            self.found.remove(&connection.key);
            self.waiting.retain(|waiting| *waiting != id);
            self.connections.remove(&id);
            self.touched.remove(&id);
        }
    }

    fn free_key(&mut self, tag: PublicKey, address: IpAddr, remote: SocketAddr) -> Option<Key> {
        let ports = u64::from(OWN_PORTS.end() - OWN_PORTS.start()) + 1;
        let first = self.seed();
        // One more than there are connections: one of them is free.
        (0..=self.found.len() as u64).find_map(|step| {
            let offset = u16::try_from(first.wrapping_add(step) % ports).ok()?;
            let local = SocketAddr::new(address, OWN_PORTS.start() + offset);
            let key = Key { tag, local, remote };
            (!self.found.contains_key(&key)).then_some(key)
        })
    }

    fn next(&mut self) -> u64 {
        self.made += 1;
        self.made
    }

    /// Another number each time that something was made (splitmix64).
    fn seed(&self) -> u64 {
        let mut mixed = self
            .config
            .seed
            .wrapping_add(self.made.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

fn remote(connection: &Connection) -> Remote {
    Remote {
        tag: connection.key.tag,
        outer: connection.outer,
        address: connection.key.remote,
        local: connection.key.local,
    }
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Stack({:?})", self.counters())
    }
}

/// At most [`RESETS_PER_SECOND`], and as many at once.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    since: Mono,
    taken: u32,
}

impl Bucket {
    fn take(&mut self, now: Mono) -> bool {
        if now.since(self.since) >= Duration::from_secs(1) {
            *self = Bucket {
                since: now,
                taken: 0,
            };
        }
        let free = self.taken < RESETS_PER_SECOND;
        self.taken += u32::from(free);
        free
    }
}

#[cfg(test)]
mod tests;
