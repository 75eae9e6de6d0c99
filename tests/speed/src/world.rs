//! A laptop and a gateway on one wire, each turned as its worker turns it.

use crate::packets::{Flow, From, Read};
use crate::wire::{Datagrams, Wire};
use postern_client::state::{Client, Config};
use postern_engine::gateway::Gateway;
use postern_engine::identity::Device;
use postern_engine::policy::Policy;
use postern_engine::settings::{Limits, OnLogFailure, Settings, Shard};
use postern_io::split::SuperPacket;
use postern_proto::ecn::Ecn;
use postern_proto::fate::DropReason;
use postern_proto::keys::PrivateKey;
use postern_proto::mtu::DEFAULT_MTU;
use postern_proto::now::{Mono, Now, Wall};
use postern_proto::outbox::Endpoint;
use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const DEVICE: Ipv4Addr = Ipv4Addr::new(100, 96, 0, 2);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(100, 96, 0, 1);
const TARGET: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
const LAPTOP_AT: ([u8; 4], u16) = ([198, 51, 100, 7], 40_000);
const GATEWAY_AT: ([u8; 4], u16) = ([203, 0, 113, 1], 51_820);

/// Client ports that flows of one target address use.
const PORTS: usize = 50_000;

/// More than anybody opens here; the tables grow with use.
const MOST_FLOWS: usize = 1 << 20;

/// Both ends.
pub struct World {
    /// The laptop.
    pub laptop: Laptop,
    /// The gateway.
    pub gateway: Gate,
}

/// The laptop's end.
pub struct Laptop {
    client: Client,
    /// What it writes into.
    pub wire: Wire,
    now: Now,
}

/// The gateway's end.
pub struct Gate {
    engine: Gateway,
    /// What it writes into.
    pub wire: Wire,
    now: Now,
}

impl World {
    /// A policy of `rules` rules, of which the last allows what the device does, and `flows` open
    /// TCP flows and one of UDP. The tunnel is up.
    #[must_use]
    pub fn new(rules: usize, flows: usize) -> World {
        let now = Now {
            mono: Mono(1_000_000_000_000),
            wall: Wall(1_800_000_000_000_000_000),
        };
        let (laptop_key, gateway_key) = (
            PrivateKey::from_random([1; 32]),
            PrivateKey::from_random([2; 32]),
        );
        let mut engine = Gateway::new(settings(), &gateway_key, policy(rules), now);
        let device = Device {
            name: "laptop".to_owned(),
            user: Some("ana@example.com".to_owned()),
            groups: vec!["all-staff".to_owned(), "platform".to_owned()],
            key: laptop_key.public(),
            addresses: vec![DEVICE.into()],
            standing: Default::default(),
        };
        let mut wire = Wire::default();
        engine
            .add_device(device, None, None, &mut wire, now)
            .expect("the first device");
        let config = Config {
            private_key: laptop_key,
            gateway_key: gateway_key.public(),
            preshared_key: None,
            addresses: vec![DEVICE.into()],
            gateway_addresses: vec![GATEWAY.into()],
            include: vec!["192.0.2.0/24".parse().expect("a prefix")],
            mtu: DEFAULT_MTU as u16,
            keepalive: None,
            version: "0.1.0".to_owned(),
        };
        let client = Client::new(config, 3).expect("two different keys");
        let mut world = World {
            laptop: Laptop {
                client,
                wire: Wire::default(),
                now,
            },
            gateway: Gate { engine, wire, now },
        };
        world.connect();
        world.open(&udp());
        for number in 0..flows {
            world.open(&tcp(number));
        }
        assert_eq!(world.gateway.engine.flows().len(), flows + 1);
        world.gateway.take_records();
        world
    }

    /// Packets that either end refused so far.
    #[must_use]
    pub fn drops(&self) -> u64 {
        let laptop = self.laptop.client.status(self.laptop.now).drops;
        let gateway = self.gateway.engine.counters().drops;
        let sum = |counts: &postern_proto::fate::DropCounts| -> u64 {
            counts
                .iter()
                .map(|(_, count): (DropReason, u64)| count)
                .sum()
        };
        sum(&laptop) + sum(&gateway)
    }

    fn connect(&mut self) {
        let Laptop { client, wire, now } = &mut self.laptop;
        wire.keep();
        client.set_endpoints(vec![SocketAddr::from(GATEWAY_AT)], wire, *now);
        wire.flush();
        loop {
            let there = self.laptop.wire.take();
            if there.is_empty() {
                return;
            }
            self.gateway.wire.keep();
            self.gateway.receive(&there);
            let back = self.gateway.wire.take();
            self.laptop.wire.keep();
            self.laptop.receive(&back);
        }
    }

    fn open(&mut self, flow: &Flow) {
        for (from, read) in flow.opening() {
            match from {
                From::Device => {
                    let datagrams = self.laptop.sealed([read]);
                    self.gateway.receive(&datagrams);
                }
                From::Target => {
                    let datagrams = self.gateway.sealed([read]);
                    self.laptop.receive(&datagrams);
                }
            }
        }
    }
}

impl Laptop {
    /// The datagrams that these reads become.
    pub fn sealed(&mut self, reads: impl IntoIterator<Item = Read>) -> Datagrams {
        self.wire.keep();
        reads.into_iter().for_each(|mut read| self.send(&mut read));
        self.wire.take()
    }

    /// One read from the TUN, to the network.
    pub fn send(&mut self, read: &mut Read) {
        let Laptop { client, wire, now } = self;
        let packet = SuperPacket::parse(read.header, &mut read.bytes).expect("made to be split");
        if client.admit(packet.packet(), wire).is_ok() {
            packet.for_each_segment(|segment| {
                client.seal(segment, wire, *now);
            });
        }
        wire.flush();
    }

    /// One receive from the network, to the TUN.
    pub fn receive(&mut self, datagrams: &Datagrams) {
        let from = Endpoint::from(SocketAddr::from(GATEWAY_AT));
        for datagram in datagrams.iter() {
            self.client
                .from_network(from, Ecn::NotEct, datagram, &mut self.wire, self.now);
        }
        self.wire.flush();
    }
}

impl Gate {
    /// Time passes, and brings about what it does.
    pub fn pass(&mut self, time: Duration) {
        let Gate { engine, wire, now } = self;
        now.mono = now.mono + time;
        now.wall = Wall(now.wall.0 + u64::try_from(time.as_nanos()).unwrap_or(0));
        if engine.next_deadline() <= now.mono {
            engine.timeout(wire, *now);
        }
        wire.flush();
    }

    /// The engine itself.
    pub fn engine(&mut self) -> &mut Gateway {
        &mut self.engine
    }

    /// The datagrams that these reads become.
    pub fn sealed(&mut self, reads: impl IntoIterator<Item = Read>) -> Datagrams {
        self.wire.keep();
        reads.into_iter().for_each(|mut read| self.send(&mut read));
        self.wire.take()
    }

    /// One read from the TUN, to the network.
    pub fn send(&mut self, read: &mut Read) {
        let Gate { engine, wire, now } = self;
        let packet = SuperPacket::parse(read.header, &mut read.bytes).expect("made to be split");
        let segments = u32::try_from(packet.segments()).unwrap_or(u32::MAX);
        let (whole, len) = (packet.packet(), packet.segment_len());
        if let Some(peer) = engine.from_target(whole, segments, len, wire, *now) {
            packet.for_each_segment(|segment| engine.to_device(peer, segment, wire, *now));
        }
        wire.flush();
    }

    /// One receive from the network, to the TUN.
    pub fn receive(&mut self, datagrams: &Datagrams) {
        let from = Endpoint::from(SocketAddr::from(LAPTOP_AT));
        for datagram in datagrams.iter() {
            self.engine
                .from_network(from, Ecn::NotEct, datagram, &mut self.wire, self.now);
        }
        self.wire.flush();
    }

    /// Hands the records in; how many.
    pub fn take_records(&mut self) -> usize {
        self.engine.take_records().len()
    }
}

/// TCP flow `number`, to the API server.
#[must_use]
pub fn tcp(number: usize) -> Flow {
    let [a, b, c, d] = TARGET.octets();
    // At most 100 addresses above the first.
    let target = Ipv4Addr::new(a, b, c, d + (number / PORTS) as u8);
    Flow {
        tcp: true,
        device: (DEVICE, 10_000 + (number % PORTS) as u16),
        target: (target, 6443),
    }
}

/// The UDP flow.
#[must_use]
pub fn udp() -> Flow {
    Flow {
        tcp: false,
        device: (DEVICE, 9_999),
        target: (TARGET, 53),
    }
}

/// Every rule but the last is for a group and an address of its own.
fn policy(rules: usize) -> Arc<Policy> {
    let mut source = "version: 1\nrules:\n".to_owned();
    for rule in 0..rules.saturating_sub(1) {
        let (high, low) = (rule / 250, rule % 250 + 1);
        let _ = writeln!(
            source,
            "  - {{ name: r{rule}, action: allow, from: {{ groups: [g{rule}] }}, to: {{ addresses: [10.0.{high}.{low}], ports: [22/tcp] }} }}"
        );
    }
    source += "  - { name: lab, action: allow, from: { groups: [platform] }, to: { addresses: [192.0.2.0/24], ports: [6443/tcp, 53/udp] } }\n";
    Arc::new(Policy::parse(&source).unwrap_or_else(|errors| panic!("{errors}")))
}

fn settings() -> Settings {
    Settings {
        name: "gateway".into(),
        boot: "boot".into(),
        shard: Shard::default(),
        addresses: vec![GATEWAY.into()],
        pools: vec!["100.96.0.0/16".parse().expect("a prefix")],
        mtu: DEFAULT_MTU,
        limits: Limits {
            flows: MOST_FLOWS,
            flows_per_device: MOST_FLOWS,
            half_open_per_device: MOST_FLOWS,
        },
        on_log_failure: OnLogFailure::DenyNew,
        seed: 7,
        stopwatch: || 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packets::{SEGMENTS, Shape};

    /// What is measured must be the whole road: every packet arrives, and joined.
    #[test]
    fn every_packet_of_every_shape_passes_both_ways() {
        let mut world = World::new(10, 3);
        for shape in Shape::ALL {
            let flow = if shape == Shape::Small { udp() } else { tcp(1) };
            let segments = shape.segments() as u64;
            let (laptop, gateway) = (world.laptop.wire.packets, world.gateway.wire.packets);

            let there = world.laptop.sealed([flow.data(From::Device, shape, 0)]);
            assert_eq!(there.len() as u64, segments);
            world.gateway.receive(&there);
            assert_eq!(world.gateway.wire.packets, gateway + segments);

            let back = world.gateway.sealed([flow.data(From::Target, shape, 0)]);
            assert_eq!(back.len() as u64, segments);
            world.laptop.receive(&back);
            assert_eq!(world.laptop.wire.packets, laptop + segments);
        }
        assert_eq!(world.drops(), 0);
    }

    #[test]
    fn a_super_packet_is_sent_in_two_runs_and_written_in_one() {
        let mut world = World::new(10, 1);
        let (sends, writes) = (world.laptop.wire.sends, world.gateway.wire.writes);
        let there = world
            .laptop
            .sealed([tcp(0).data(From::Device, Shape::Super, 0)]);
        world.gateway.receive(&there);
        // 44 datagrams are what one UDP length holds.
        assert_eq!(world.laptop.wire.sends - sends, 2);
        assert_eq!(world.gateway.wire.writes - writes, 1);
        assert_eq!(there.len(), SEGMENTS);
    }
}
