//! Datagrams into a gateway with two devices: noise, sealed packets, copies, forgeries.

use postern_engine::gateway::Gateway;
use postern_engine::identity::Device;
use postern_engine::policy::Policy;
use postern_engine::record::Record;
use postern_engine::settings::{Limits, OnLogFailure, Settings, Shard};
use postern_proto::ecn::Ecn;
use postern_proto::keys::PrivateKey;
use postern_proto::now::{Mono, Now, Wall};
use postern_proto::packet::{PacketView, Transport};
use postern_proto::peers::{Inbound, PeerId, Peers};
use postern_proto::tunnel;
use postern_sim::dice::{Bytes, Dice};
use postern_sim::net::Outs;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// The one destination that the policy allows, to the first device alone.
const ALLOWED: (IpAddr, u16) = (IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10)), 22);
const POLICY: &str = "
version: 1
targets:
  ssh: { addresses: [192.0.2.10], ports: [22/tcp] }
rules:
  - { name: ssh, action: allow, from: { devices: [laptop0] }, to: [ssh] }
";
const LIMITS: Limits = Limits {
    flows: 8,
    flows_per_device: 6,
    half_open_per_device: 3,
};
/// Things that happen in one run.
const TURNS: usize = 40;

/// Datagrams and packets, one after the other: see the module.
pub fn wireguard(data: &[u8]) {
    let mut dice = Bytes(data);
    let mut world = World::new();
    for _ in 0..TURNS {
        if dice.0.is_empty() {
            break;
        }
        world.turn(&mut dice);
        world.check();
    }
    world.end();
}

struct Laptop {
    peers: Peers,
    gateway: PeerId,
    at: SocketAddr,
    inner: IpAddr,
}

struct World {
    gateway: Gateway,
    laptops: Vec<Laptop>,
    now: Now,
    outs: Outs,
    captured: Vec<(SocketAddr, Vec<u8>)>,
    attempts: u64,
    records: u64,
}

impl World {
    fn new() -> World {
        let key = PrivateKey::from_random([1; 32]);
        let now = Now {
            mono: Mono(1_000_000_000_000),
            wall: Wall(1_800_000_000_000_000_000),
        };
        let policy = Arc::new(Policy::parse(POLICY).expect("a literal"));
        let settings = Settings {
            name: "gw".into(),
            boot: "b1".into(),
            shard: Shard::default(),
            addresses: vec![[100, 96, 0, 1].into()],
            pools: vec!["100.96.0.0/16".parse().expect("a literal")],
            mtu: 1420,
            limits: LIMITS,
            on_log_failure: OnLogFailure::DenyNew,
            seed: 7,
            stopwatch: || 0,
        };
        let mut gateway = Gateway::new(settings, &key, policy, now);
        let mut outs = Outs::default();
        let laptops = (0..2_u8)
            .map(|n| {
                let own = PrivateKey::from_random([10 + n; 32]);
                let inner: IpAddr = [100, 96, 0, n + 2].into();
                let device = Device {
                    name: format!("laptop{n}"),
                    user: None,
                    groups: Vec::new(),
                    key: own.public(),
                    addresses: vec![inner],
                    standing: Default::default(),
                };
                gateway
                    .add_device(device, None, None, &mut outs, now)
                    .expect("new");
                let mut peers = Peers::new(own, 0, 0, u64::from(n));
                let id = peers
                    .add(
                        key.public(),
                        &tunnel::Settings::default(),
                        Some(gateway_at().into()),
                    )
                    .expect("one peer");
                Laptop {
                    peers,
                    gateway: id,
                    at: ([198, 51, 100, n], 5000).into(),
                    inner,
                }
            })
            .collect();
        World {
            gateway,
            laptops,
            now,
            outs,
            captured: Vec::new(),
            attempts: 0,
            records: 0,
        }
    }

    fn turn(&mut self, dice: &mut Bytes<'_>) {
        let n = dice.index(2);
        match dice.roll(8) {
            0 => {
                let bytes = some(dice);
                self.network(self.laptops[n].at, &bytes);
            }
            1 | 2 => {
                let inner = some(dice);
                self.seal(n, &inner);
            }
            3 => {
                let inner = self.likely(n, dice);
                self.seal(n, &inner);
            }
            4 => {
                let Some((from, mut bytes)) = self.pick(dice) else {
                    return;
                };
                let at = dice.index(bytes.len());
                bytes[at] ^= 1 << dice.roll(8);
                let forged = bytes.first() == Some(&4);
                let before = self.outs.packets.len();
                self.network(from, &bytes);
                assert!(
                    !forged || self.outs.packets.len() == before,
                    "a forged datagram passed"
                );
            }
            5 => {
                let Some((from, bytes)) = self.pick(dice) else {
                    return;
                };
                let before = self.outs.packets.len();
                self.network(from, &bytes);
                assert_eq!(self.outs.packets.len(), before, "a copy passed");
            }
            6 => {
                let packet = if dice.one_in(2) {
                    some(dice)
                } else {
                    back(&self.likely(n, dice))
                };
                let peer = self.gateway.from_target(
                    &packet,
                    1 + dice.roll(3) as u32,
                    packet.len(),
                    &mut self.outs,
                    self.now,
                );
                if let Some(peer) = peer {
                    self.gateway
                        .to_device(peer, &mut packet.clone(), &mut self.outs, self.now);
                }
            }
            _ => {
                let step = [1, 50, 3000, 40_000, 130_000][dice.index(5)];
                self.now = self.now.after(Duration::from_millis(step));
                let mut outs = Outs::default();
                for n in 0..2 {
                    self.laptops[n].peers.timeout(&mut outs, self.now);
                    self.deliver(n, std::mem::take(&mut outs));
                }
                self.gateway.timeout(&mut self.outs, self.now);
            }
        }
        let outs = std::mem::take(&mut self.outs.datagrams);
        self.laptops_get(outs);
    }

    fn pick(&self, dice: &mut Bytes<'_>) -> Option<(SocketAddr, Vec<u8>)> {
        (!self.captured.is_empty()).then(|| self.captured[dice.index(self.captured.len())].clone())
    }

    /// A packet that has a chance, with a byte of the fuzzer's here and there.
    fn likely(&self, n: usize, dice: &mut Bytes<'_>) -> Vec<u8> {
        let (from, port) = (self.laptops[n].inner, 4000 + dice.roll(6) as u16);
        let flags = dice.byte() & 0x1f;
        let segment = postern_sim::packet::Segment {
            from: port,
            to: ALLOWED.1,
            flags,
            seq: 1,
            ack: 1,
            payload: 0,
        };
        let mut packet = postern_sim::packet::tcp(from, ALLOWED.0, segment, &[], Some(9000));
        for _ in 0..dice.roll(3) {
            let at = dice.index(packet.bytes.len());
            packet.bytes[at] = dice.byte();
        }
        packet.bytes
    }

    fn seal(&mut self, n: usize, inner: &[u8]) {
        let mut outs = Outs::default();
        let laptop = &mut self.laptops[n];
        let connected = laptop
            .peers
            .iter()
            .all(|peer| peer.is_established(self.now));
        if !connected {
            laptop.peers.initiate(laptop.gateway, &mut outs, self.now);
            self.deliver(n, std::mem::take(&mut outs));
        }
        let laptop = &mut self.laptops[n];
        let _ = laptop
            .peers
            .send(laptop.gateway, inner, &mut outs, self.now);
        self.deliver(n, outs);
    }

    /// From laptop `n`, and what comes back, until nothing moves.
    fn deliver(&mut self, n: usize, outs: Outs) {
        let at = self.laptops[n].at;
        for (_, bytes) in outs.datagrams {
            if bytes.first() == Some(&4) && self.captured.len() < 16 {
                self.captured.push((at, bytes.clone()));
            }
            self.network(at, &bytes);
        }
        let outs = std::mem::take(&mut self.outs.datagrams);
        self.laptops_get(outs);
    }

    fn laptops_get(&mut self, datagrams: Vec<(postern_proto::outbox::Endpoint, Vec<u8>)>) {
        for (to, bytes) in datagrams {
            let Some(n) = self
                .laptops
                .iter()
                .position(|laptop| laptop.at == to.remote)
            else {
                continue;
            };
            let mut outs = Outs::default();
            let inbound = self.laptops[n].peers.receive(
                gateway_at().into(),
                Ecn::NotEct,
                &bytes,
                &mut outs,
                self.now,
            );
            if let Inbound::Packet { len, .. } = inbound {
                use postern_proto::outbox::Outbox as _;
                let inner = outs.packet()[..len].to_vec();
                let view = PacketView::parse(&inner).expect("the gateway sends what is valid");
                assert_eq!(
                    view.destination, self.laptops[n].inner,
                    "somebody else's packet"
                );
            }
            if !outs.datagrams.is_empty() {
                self.deliver(n, outs);
            }
        }
    }

    /// One datagram into the gateway; what passes must be allowed.
    fn network(&mut self, from: SocketAddr, bytes: &[u8]) {
        let before = self.outs.packets.len();
        self.gateway
            .from_network(from.into(), Ecn::NotEct, bytes, &mut self.outs, self.now);
        for packet in &self.outs.packets[before..] {
            let view = PacketView::parse(packet).expect("only what is valid passes");
            assert_eq!(
                view.source, self.laptops[0].inner,
                "not the device that may"
            );
            assert_eq!(view.destination, ALLOWED.0);
            match view.transport {
                Transport::Tcp(tcp) => assert_eq!(tcp.destination_port, ALLOWED.1),
                Transport::Error {
                    about: Some(about), ..
                } => assert_eq!(about.source, ALLOWED),
                Transport::Udp { .. }
                | Transport::Echo { .. }
                | Transport::Error { about: None, .. } => {
                    panic!("{:?} passed", view.transport)
                }
            }
        }
    }

    fn check(&mut self) {
        let flows = self.gateway.flows();
        assert!(flows.len() <= LIMITS.flows);
        let live = flows.iter().filter(|(_, flow)| flow.cut.is_none()).count() as u64;
        let counters = self.gateway.counters();
        assert_eq!(
            counters.flows_opened,
            counters.flows_closed.values().sum::<u64>() + live
        );
        self.count_records();
        assert_eq!(self.records, self.gateway.records_made());
    }

    fn count_records(&mut self) {
        for record in self.gateway.take_records() {
            self.records += 1;
            assert_eq!(record.seq, self.records, "a record is missing");
            self.attempts += Record::attempts(&record);
        }
    }

    fn end(&mut self) {
        self.gateway.shut_down(&mut self.outs, self.now);
        self.count_records();
        let counters = self.gateway.counters();
        assert_eq!(
            counters.flows_opened,
            counters.flows_closed.values().sum::<u64>()
        );
        assert!(self.attempts >= counters.flows_opened);
    }
}

fn some(dice: &mut Bytes<'_>) -> Vec<u8> {
    let len = dice.roll(200);
    (0..len.min(dice.0.len() as u64))
        .map(|_| dice.byte())
        .collect()
}

/// The answer to a TCP segment over IPv4: ends swapped.
fn back(packet: &[u8]) -> Vec<u8> {
    let mut bytes = packet.to_vec();
    if bytes.len() >= 24 {
        bytes[12..16].copy_from_slice(&packet[16..20]);
        bytes[16..20].copy_from_slice(&packet[12..16]);
        bytes[20..22].copy_from_slice(&packet[22..24]);
        bytes[22..24].copy_from_slice(&packet[20..22]);
    }
    bytes
}

fn gateway_at() -> SocketAddr {
    ([203, 0, 113, 1], 51_820).into()
}
