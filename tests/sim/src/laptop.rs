//! A laptop: a real tunnel end, and programs that connect, send and ping.

use crate::model::key_of;
use crate::net::{Outs, carries_packet, introduces};
use crate::packet::{self, ACK, FIN, Key, Packet, Proto, RST, Socket, What};
use crate::target::read_stamp;
use postern_client::state::{Client, Config, Outcome};
use postern_proto::ecn::{Ecn, Mode};
use postern_proto::fate::DropReason;
use postern_proto::keys::{PrivateKey, PublicKey};
use postern_proto::now::{Mono, Now};
use postern_proto::outbox::Endpoint;
use postern_proto::peers::{Inbound, PeerId, Peers};
use postern_proto::tunnel::Settings;
use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

mod conn;
mod keys;

use conn::syn;
pub use conn::{Conn, ConnState};
pub use keys::{Keys, Next};

/// Inner MTU of every tunnel here.
pub const MTU: u16 = 1420;
const HELD: usize = 64;
const HELD_BYTES: usize = 128 * 1024;

/// The gateway's key, and where it is.
pub type Gateway<'k> = (&'k PublicKey, SocketAddr);

/// One laptop.
#[derive(Debug)]
pub struct Laptop {
    /// Its key, as the gateway has it in force.
    pub key: PrivateKey,
    /// Its public half: a curve operation, made once.
    pub public: PublicKey,
    /// All its keys.
    pub keys: Keys,
    /// Inner addresses.
    pub addresses: Vec<IpAddr>,
    /// Where it is on the Internet.
    pub outer: SocketAddr,
    /// Switched on.
    pub on: bool,
    /// Connections that its programs hold or held.
    pub conns: Vec<Conn>,
    /// Keys that the gateway introduced: by index, in which run and when.
    pub known: BTreeMap<u32, (u64, Mono)>,
    /// It has moved, and may have missed something.
    pub roamed: bool,
    /// Times it was enrolled.
    pub enrolled: u64,
    /// Packets that its programs got.
    pub received: u64,
    side: Side,
    keepalive: Option<Duration>,
    /// Keys that are good once the gateway has shown that it has them.
    learned: BTreeMap<u32, (u64, Mono)>,
    held: VecDeque<Packet>,
    /// Probes sent.
    probes: u32,
    stamps: BTreeMap<Key, u64>,
    next_port: u16,
}

#[derive(Debug)]
enum Side {
    Postern(Box<Client>),
    Stock(Box<Peers>, PeerId),
}

/// A sealed datagram with its mark, and what is in it, where that is known.
pub type Sealed = (Endpoint, Ecn, Vec<u8>, Option<Packet>);

/// What a laptop did with an input.
#[derive(Debug, Default)]
pub struct Did {
    /// Datagrams for the network.
    pub sent: Vec<Sealed>,
    /// A packet that came out of the tunnel.
    pub got: Option<Packet>,
    /// What its programs answer to that.
    pub answers: Vec<Packet>,
    /// The datagram came to nothing, and why.
    pub dropped: Option<DropReason>,
}

impl Laptop {
    /// A laptop, enrolled or not.
    pub fn new(
        n: usize,
        key: PrivateKey,
        gateway: Gateway<'_>,
        stock: bool,
        keepalive: Option<Duration>,
        seed: u64,
    ) -> Result<Laptop, String> {
        let low = u8::try_from(n + 2).unwrap_or(255);
        let v4: IpAddr = [100, 96, 0, low].into();
        let v6: IpAddr = [0xfd00, 0x96, 0, 0, 0, 0, 0, u16::from(low)].into();
        let addresses = vec![v4, v6];
        let config = Config {
            private_key: key.clone(),
            gateway_key: *gateway.0,
            preshared_key: None,
            addresses: addresses.clone(),
            gateway_addresses: vec![[100, 96, 0, 1].into()],
            include: INCLUDE
                .iter()
                .filter_map(|prefix| prefix.parse().ok())
                .collect(),
            mtu: MTU,
            keepalive,
            version: "sim".into(),
        };
        let side = if stock {
            let mut peers = Peers::new(key.clone(), 0, 1, seed);
            let settings = Settings {
                psk: None,
                keepalive,
                mtu: usize::from(MTU),
            };
            let id = peers
                .add(*gateway.0, &settings, Some(gateway.1.into()))
                .map_err(|error| error.to_string())?;
            Side::Stock(Box::new(peers), id)
        } else {
            Side::Postern(Box::new(
                Client::new(config, seed).map_err(|error| error.to_string())?,
            ))
        };
        Ok(Laptop {
            public: key.public(),
            key,
            keys: Keys::default(),
            addresses,
            outer: ([203, 0, 113, low], 40_000 + u16::from(low)).into(),
            on: true,
            conns: Vec::new(),
            known: BTreeMap::new(),
            roamed: false,
            enrolled: 0,
            received: 0,
            side,
            keepalive,
            learned: BTreeMap::new(),
            held: VecDeque::new(),
            probes: 0,
            stamps: BTreeMap::new(),
            next_port: 40_000,
        })
    }

    /// Not a Postern client, so nothing on the laptop filters.
    #[must_use]
    pub fn is_stock(&self) -> bool {
        matches!(self.side, Side::Stock(..))
    }

    /// A packet could be sent now.
    #[must_use]
    pub fn is_connected(&self, now: Now) -> bool {
        match &self.side {
            Side::Postern(client) => client.is_connected(now),
            Side::Stock(peers, id) => peers.peer(*id).is_some_and(|peer| peer.is_established(now)),
        }
    }

    /// Starts, or the network changed: asks for a key.
    pub fn connect(&mut self, gateway: SocketAddr, now: Now) -> Result<Vec<Sealed>, String> {
        let mut outs = Outs::default();
        match &mut self.side {
            Side::Postern(client) => {
                client.set_endpoints(vec![gateway], &mut outs, now);
                client.connect(&mut outs, now);
            }
            Side::Stock(peers, id) => peers.initiate(*id, &mut outs, now),
        }
        self.attach(outs, None)
    }

    /// It has another address, and notices.
    pub fn moved(&mut self, now: Now) -> Result<Vec<Sealed>, String> {
        let mut outs = Outs::default();
        match &mut self.side {
            Side::Postern(client) => client.moved(&mut outs, now),
            Side::Stock(peers, id) => peers.initiate(*id, &mut outs, now),
        }
        self.attach(outs, None)
    }

    /// When [`Laptop::timeout`] is due.
    #[must_use]
    pub fn next_deadline(&self) -> Mono {
        match &self.side {
            _ if !self.on => Mono::NEVER,
            Side::Postern(client) => client.next_deadline(),
            Side::Stock(peers, _) => peers.next_deadline(),
        }
    }

    /// Time alone.
    pub fn timeout(&mut self, now: Now) -> Result<Vec<Sealed>, String> {
        let mut outs = Outs::default();
        match &mut self.side {
            Side::Postern(client) => client.timeout(&mut outs, now),
            Side::Stock(peers, _) => peers.timeout(&mut outs, now),
        }
        self.attach(outs, None)
    }

    /// A program sends a packet.
    pub fn send(&mut self, mut packet: Packet, now: Now) -> Result<Vec<Sealed>, String> {
        let mut outs = Outs::default();
        match &mut self.side {
            Side::Postern(client) => match client.from_tun(&mut packet.bytes, &mut outs, now) {
                Outcome::Passed => self.attach(outs, Some(packet)),
                Outcome::Held => {
                    self.hold(packet);
                    self.same_held(now)?;
                    self.attach(outs, None)
                }
                Outcome::Consumed | Outcome::Dropped(_) => self.attach(outs, None),
            },
            Side::Stock(peers, id) => {
                // It does not ask whether the other end passes marks on.
                peers.set_ecn_mode(*id, Mode::Normal);
                match peers.send(*id, &packet.bytes, &mut outs, now) {
                    Ok(()) => self.attach(outs, Some(packet)),
                    Err(_) => {
                        self.hold(packet);
                        self.attach(outs, None)
                    }
                }
            }
        }
    }

    /// A datagram arrives. Stamps above `ordered_from` must be in order.
    pub fn receive(
        &mut self,
        from: SocketAddr,
        ecn: Ecn,
        bytes: &[u8],
        ordered_from: u64,
        now: Now,
    ) -> Result<Did, String> {
        let mut outs = Outs::default();
        let mut did = Did::default();
        let got = match &mut self.side {
            Side::Postern(client) => {
                let outcome = client.from_network(from.into(), ecn, bytes, &mut outs, now);
                if let Outcome::Dropped(reason) = outcome {
                    did.dropped = Some(reason);
                }
                (outcome == Outcome::Passed)
                    .then(|| outs.packets.pop())
                    .flatten()
            }
            Side::Stock(peers, _) => match peers.receive(from.into(), ecn, bytes, &mut outs, now) {
                Inbound::Packet { len, .. } => {
                    use postern_proto::outbox::Outbox as _;
                    Some(outs.packet()[..len].to_vec())
                }
                Inbound::Control { .. } => None,
                Inbound::Dropped { reason, .. } => {
                    did.dropped = Some(reason);
                    None
                }
            },
        };
        did.sent = self.attach(outs, None)?;
        if self.is_stock() && self.is_connected(now) {
            for packet in std::mem::take(&mut self.held) {
                did.sent.extend(self.send(packet, now)?);
            }
        }
        if let Some(bytes) = got {
            let packet = packet::read(&bytes)?;
            self.received += 1;
            did.answers = self.program(&packet, ordered_from)?;
            did.got = Some(packet);
        }
        Ok(did)
    }

    /// Notes which key of the gateway a datagram brought, or put to use.
    pub fn learn(&mut self, datagram: &[u8], epoch: u64, now: Mono) {
        match (introduces(datagram), datagram.first()) {
            (Some(index), Some(1)) => _ = self.learned.insert(index, (epoch, now)),
            (Some(index), _) => {
                self.learned.remove(&index);
                self.known.insert(index, (epoch, now));
            }
            (None, Some(4)) => self.known.append(&mut self.learned),
            (None, _) => {}
        }
    }

    /// A new connection: its SYN.
    pub fn open(&mut self, target: Socket, seq: u32) -> Packet {
        let key = Key {
            proto: Proto::Tcp,
            client: (self.address(target.0), self.port()),
            target,
        };
        self.conns.push(Conn {
            key,
            state: ConnState::Opening,
            next_out: seq.wrapping_add(1),
            next_in: 0,
            first: seq.wrapping_add(1),
            said: 0,
        });
        syn(&key, seq)
    }

    /// The program behind a connection has something to say: data, or once more the SYN.
    pub fn say(&mut self, conn: usize, stamp: u64, len: usize) -> Option<Packet> {
        let conn = self.conns.get_mut(conn)?;
        match conn.state {
            ConnState::Opening => Some(syn(&conn.key, conn.next_out.wrapping_sub(1))),
            ConnState::Open | ConnState::Closing => Some(conn.say(stamp, len)),
            ConnState::Reset => None,
        }
    }

    /// The program closes or aborts.
    pub fn close(&mut self, conn: usize, abort: bool) -> Option<Packet> {
        let conn = self
            .conns
            .get_mut(conn)
            .filter(|conn| conn.state == ConnState::Open)?;
        let packet = conn.segment(if abort { RST | ACK } else { FIN | ACK }, &[]);
        conn.next_out = conn.next_out.wrapping_add(u32::from(!abort));
        conn.state = if abort {
            ConnState::Reset
        } else {
            ConnState::Closing
        };
        Some(packet)
    }

    /// Our address of the same family.
    #[must_use]
    pub fn address(&self, target: IpAddr) -> IpAddr {
        self.addresses[usize::from(target.is_ipv6())]
    }

    /// A fresh port or echo id.
    pub fn port(&mut self) -> u16 {
        self.next_port = self.next_port.checked_add(1).unwrap_or(40_000);
        self.next_port
    }

    fn program(&mut self, packet: &Packet, ordered_from: u64) -> Result<Vec<Packet>, String> {
        let Some(key) = key_of(packet, false) else {
            return Ok(Vec::new());
        };
        if let Some(stamp) = read_stamp(packet) {
            let last = self.stamps.insert(key, stamp);
            if last.is_some_and(|last| stamp <= last && stamp > ordered_from) {
                return Err(format!(
                    "order: {key:?} got stamp {stamp} at the laptop after {last:?}"
                ));
            }
        }
        let What::Tcp(segment) = packet.what else {
            return Ok(Vec::new());
        };
        let Some(conn) = self.conns.iter_mut().rev().find(|conn| conn.key == key) else {
            return Ok(Vec::new());
        };
        Ok(conn.receive(&segment))
    }

    /// The client holds what it said it would.
    fn same_held(&self, now: Now) -> Result<(), String> {
        match &self.side {
            Side::Postern(client) if client.status(now).held != self.held.len() => Err(format!(
                "the client holds {} packets, expected {}",
                client.status(now).held,
                self.held.len()
            )),
            Side::Postern(_) | Side::Stock(..) => Ok(()),
        }
    }

    fn hold(&mut self, packet: Packet) {
        let bytes =
            |held: &VecDeque<Packet>| held.iter().map(|packet| packet.bytes.len()).sum::<usize>();
        while self.held.len() >= HELD || bytes(&self.held) + packet.bytes.len() > HELD_BYTES {
            self.held.pop_front();
        }
        self.held.push_back(packet);
    }

    /// Finds out which datagram carries which packet. `sealed` went out now; without it, what was
    /// held may have gone out, after a greeting.
    fn attach(&mut self, outs: Outs, sealed: Option<Packet>) -> Result<Vec<Sealed>, String> {
        self.note_key();
        let count = outs
            .datagrams
            .iter()
            .filter(|(_, bytes)| carries_packet(bytes))
            .count();
        let mut inner: VecDeque<Packet> = match (sealed, &self.side) {
            (Some(packet), _) => [packet].into(),
            (None, Side::Stock(..)) => VecDeque::new(),
            (None, Side::Postern(_)) if count == 0 => VecDeque::new(),
            (None, Side::Postern(_)) => {
                let probes = (0..self.new_probes()).map(|_| self.probe());
                let probes: Vec<_> = probes.collect();
                let mut flushed = if probes.len() < count {
                    std::mem::take(&mut self.held)
                } else {
                    VecDeque::new()
                };
                // A key that was there all along may become the one in use again: no greeting.
                if flushed.len() + probes.len() != count {
                    flushed.push_front(self.greeting());
                }
                flushed.extend(probes);
                flushed
            }
        };
        if inner.len() != count {
            return Err(format!(
                "the laptop had {} packets to send and sent {count}",
                inner.len()
            ));
        }
        if let Side::Postern(client) = &self.side
            && !self.held.is_empty()
            && client
                .status(Now {
                    mono: Mono(0),
                    wall: postern_proto::now::Wall(0),
                })
                .held
                == 0
        {
            self.held.clear();
        }
        outs.datagrams
            .into_iter()
            .zip(outs.marks)
            .map(|((to, bytes), ecn)| {
                let inner = if carries_packet(&bytes) {
                    inner.pop_front()
                } else {
                    None
                };
                packet::marked_as(inner.as_ref(), ecn)?;
                Ok((to, ecn, bytes, inner))
            })
            .collect()
    }

    /// Probes sent since the last call. They leave last.
    fn new_probes(&mut self) -> u32 {
        let probes = match &self.side {
            Side::Postern(client) => client.probes(),
            Side::Stock(..) => 0,
        };
        let new = probes.wrapping_sub(self.probes);
        self.probes = probes;
        new
    }

    /// The inner MTU that a client uses while it can send.
    #[must_use]
    pub fn path_mtu(&self, now: Now) -> Option<u16> {
        match &self.side {
            Side::Postern(client) => client.is_connected(now).then(|| client.mtu()),
            Side::Stock(..) => None,
        }
    }

    fn greeting(&self) -> Packet {
        self.tells(What::Control(true))
    }

    fn probe(&self) -> Packet {
        match &self.side {
            Side::Postern(client) => self.tells(What::Probe(client.mtu())),
            Side::Stock(..) => self.tells(What::Control(false)),
        }
    }

    fn tells(&self, what: What) -> Packet {
        Packet {
            bytes: Vec::new(),
            from: self.addresses[0],
            to: [100, 96, 0, 1].into(),
            what,
        }
    }
}

const INCLUDE: [&str; 2] = ["192.0.2.0/24", "2001:db8::/32"];
