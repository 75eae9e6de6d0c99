//! How long the packets of others wait while a policy of 10 000 rules takes the place of another
//! that large, with 10 000 devices and two live flows of each:
//! `cargo bench -p postern-speed --bench reload`.
//!
//! The engine is turned as its worker turns it: a datagram from a device, a packet of its target,
//! what time brings about. The longest turn is the longest pause, in processor time: what else the
//! machine does is not meant.
#![allow(clippy::print_stdout)]

use postern_engine::gateway::Gateway;
use postern_engine::identity::Device;
use postern_engine::policy::Policy;
use postern_engine::settings::{Limits, OnLogFailure, Settings, Shard};
use postern_engine::standing::{Session, Standing};
use postern_proto::ecn::Ecn;
use postern_proto::keys::PrivateKey;
use postern_proto::now::{Mono, Now, Wall};
use postern_proto::outbox::{Endpoint, Outbox};
use postern_proto::peers::{PeerId, Peers};
use postern_proto::{mtu, reply};
use rustix::time::{ClockId, clock_gettime};
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const RULES: usize = 10_000;
const DEVICES: usize = 10_000;
const FLOWS_EACH: u16 = 2;
const GATEWAY: ([u8; 4], u16) = ([203, 0, 113, 1], 51_820);
const SYN: u8 = 2;
const ACK: u8 = 16;

/// Each change is made so often.
const ROUNDS: usize = 3;
/// Of the world's clock, which no load of the machine moves.
const TURN: Duration = Duration::from_micros(100);

fn main() {
    // Without --bench, only that it builds and runs is asked.
    let asked = std::env::args().any(|argument| argument == "--bench");
    let (rules, devices) = if asked { (RULES, DEVICES) } else { (40, 40) };
    let mut world = World::new(policy(rules, |_| true, ""), devices);
    let live = world.live();
    println!("{rules} rules, {devices} devices, {live} flows; milliseconds of processor time");
    println!(
        "{:<44} {:>12} {:>10} {:>8} {:>8}",
        "the policy that takes its place", "longest turn", "median", "turns", "over in"
    );
    for round in 1..=ROUNDS {
        let quiet = world.turns(2_000);
        print("none", &quiet, 0);
        let mut replace = |name, policy| {
            let (turns, cut) = world.replace(policy);
            print(name, &turns, cut);
        };
        replace(
            "the same rules by other names",
            policy(rules, |_| true, " b"),
        );
        replace("the same once more", policy(rules, |_| true, ""));
        replace(
            "without one in four: their flows are cut",
            policy(rules, |rule| rule % 4 != round, ""),
        );
        replace("all of them back", policy(rules, |_| true, ""));
    }
}

/// Of this thread so far.
fn processor() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.unsigned_abs(),
        time.tv_nsec.unsigned_abs() as u32,
    )
}

fn print(name: &str, turns: &[Duration], cut: usize) {
    let mut sorted = turns.to_vec();
    sorted.sort_unstable();
    let millis = |time: Option<&Duration>| time.map_or(0.0, |time| time.as_secs_f64() * 1e3);
    println!(
        "{name:<44} {:>12.3} {:>10.3} {:>8} {:>8.0}{}",
        millis(sorted.last()),
        millis(sorted.get(sorted.len() / 2)),
        turns.len(),
        turns.iter().sum::<Duration>().as_secs_f64() * 1e3,
        if cut == 0 {
            String::new()
        } else {
            format!("   {cut} cut")
        }
    );
}

/// Every rule for a group, an address and a port of its own; of seven rules one asks for a login
/// that is young, one for a label, one for a place, one has a window, one is in shadow before it.
fn policy(rules: usize, keeps: impl Fn(usize) -> bool, suffix: &str) -> Arc<Policy> {
    let mut text = "version: 1\nrules:\n".to_owned();
    for rule in (0..rules).filter(|rule| keeps(*rule)) {
        let more = match rule % 7 {
            1 => ", session_age: 12h",
            2 => ", labels: [fleet=one]",
            3 => ", outer: [198.51.0.0/16]",
            4 => ", issuers: [\"https://idp.example.com\"], amr: [mfa]",
            _ => "",
        };
        let (mode, when) = match rule % 7 {
            5 => (", mode: shadow", ""),
            6 => ("", WINDOW),
            _ => ("", ""),
        };
        let to = target(rule);
        let from = format!("groups: [g{rule}]");
        let to = format!("{{ addresses: [{to}], ports: [{}/tcp] }}", port(rule));
        if !mode.is_empty() {
            let _ = writeln!(
                text,
                "  - {{ name: shadow {rule}{suffix}, action: deny{mode}, from: {{ {from} }}, to: {to} }}"
            );
        }
        let _ = writeln!(
            text,
            "  - {{ name: rule {rule}{suffix}, action: allow, from: {{ {from}{more} }}, to: {to}{when} }}"
        );
    }
    Arc::new(Policy::parse(&text).unwrap_or_else(|errors| panic!("{errors}")))
}

const WINDOW: &str = ", when: { days: [mon-sun], hours: \"00:00-23:59\", zone: Europe/Berlin }";

fn target(rule: usize) -> Ipv4Addr {
    let [.., high, low] = (rule % 65_536).to_be_bytes();
    Ipv4Addr::new(10, 0, high, low)
}

fn port(rule: usize) -> u16 {
    1000 + (rule % 5000) as u16
}

fn address(device: usize) -> Ipv4Addr {
    let [.., high, low] = (device + 2).to_be_bytes();
    Ipv4Addr::new(100, 96, high, low)
}

struct World {
    gateway: Gateway,
    key: PrivateKey,
    /// Since it began.
    time: Duration,
    /// The device whose packets must not wait.
    busy: Laptop,
    outs: Outs,
}

struct Laptop {
    peers: Peers,
    gateway: PeerId,
    at: SocketAddr,
    number: usize,
}

impl World {
    fn new(policy: Arc<Policy>, devices: usize) -> World {
        let key = PrivateKey::from_random([1; 32]);
        let now = Now {
            mono: Mono(1_000_000_000_000),
            wall: Wall(1_800_000_000_000_000_000),
        };
        let mut gateway = Gateway::new(settings(), &key, policy, now);
        let mut outs = Outs::default();
        for number in 0..devices {
            let added = gateway.add_device(device(number), None, None, &mut outs, now);
            added.expect("room for all");
        }
        let busy = Laptop::new(&key, 0);
        let mut world = World {
            gateway,
            key,
            time: Duration::ZERO,
            busy,
            outs,
        };
        for number in (1..devices).rev() {
            let mut laptop = Laptop::new(&world.key, number);
            world.open(&mut laptop);
        }
        let mut busy = Laptop::new(&world.key, 0);
        world.open(&mut busy);
        world.busy = busy;
        world.gateway.take_records();
        world
    }

    fn now(&self) -> Now {
        Now {
            mono: Mono(1_000_000_000_000),
            wall: Wall(1_800_000_000_000_000_000),
        }
        .after(self.time)
    }

    /// The handshake, then the flows.
    fn open(&mut self, laptop: &mut Laptop) {
        let now = self.now();
        let mut out = Outs::default();
        laptop.peers.initiate(laptop.gateway, &mut out, now);
        while !out.datagrams.is_empty() {
            for datagram in std::mem::take(&mut out.datagrams) {
                let from = laptop.at.into();
                self.gateway
                    .from_network(from, Ecn::NotEct, &datagram, &mut self.outs, now);
            }
            for datagram in std::mem::take(&mut self.outs.datagrams) {
                let from = SocketAddr::from(GATEWAY).into();
                laptop
                    .peers
                    .receive(from, Ecn::NotEct, &datagram, &mut out, now);
            }
        }
        for flow in 0..FLOWS_EACH {
            let syn = laptop.packet(flow, SYN);
            let sealed = laptop.sealed(&syn, now);
            let from = laptop.at.into();
            self.gateway
                .from_network(from, Ecn::NotEct, &sealed, &mut self.outs, now);
            self.reply(laptop.number, flow, SYN | ACK, now);
        }
        self.outs.datagrams.clear();
    }

    fn reply(&mut self, number: usize, flow: u16, flags: u8, now: Now) {
        let to = (address(number), 40_000 + flow);
        let mut packet = tcp((target(number), port(number)), to, flags);
        let peer = self
            .gateway
            .from_target(&packet, 1, packet.len(), &mut self.outs, now);
        if let Some(peer) = peer {
            self.gateway
                .to_device(peer, &mut packet, &mut self.outs, now);
        }
    }

    /// One turn of the worker, with a packet each way.
    fn turn(&mut self, change: Option<Arc<Policy>>) -> Duration {
        self.time += TURN;
        let now = self.now();
        let packet = self.busy.packet(0, ACK);
        let sealed = self.busy.sealed(&packet, now);
        let started = processor();
        let from = self.busy.at.into();
        self.gateway
            .from_network(from, Ecn::NotEct, &sealed, &mut self.outs, now);
        self.reply(0, 0, ACK, now);
        if let Some(policy) = change {
            self.gateway.set_policy(policy, now.mono);
        }
        if self.gateway.next_deadline() <= now.mono {
            self.gateway.timeout(&mut self.outs, now);
        }
        let records = self.gateway.take_records();
        let took = processor() - started;
        drop(records);
        assert!(self.outs.committed >= 1, "its packet passes");
        self.outs.committed = 0;
        self.outs.datagrams.clear();
        took
    }

    fn turns(&mut self, number: usize) -> Vec<Duration> {
        (0..number).map(|_| self.turn(None)).collect()
    }

    /// The turns until all flows are judged under `policy`, and how many were cut.
    fn replace(&mut self, policy: Arc<Policy>) -> (Vec<Duration>, usize) {
        let before = self.live();
        // The control plane keeps the policy before until no worker has it.
        let former = Arc::clone(self.gateway.policy());
        let mut turns = vec![self.turn(Some(policy))];
        while self.gateway.is_sweeping() {
            turns.push(self.turn(None));
        }
        assert_eq!(Arc::strong_count(&former), 1, "nothing holds it any more");
        (turns, before - self.live())
    }

    fn live(&self) -> usize {
        let flows = self.gateway.flows().iter();
        flows.filter(|(_, flow)| flow.cut.is_none()).count()
    }
}

impl Laptop {
    fn new(gateway: &PrivateKey, number: usize) -> Laptop {
        let mut peers = Peers::new(key(number), 0, 0, number as u64);
        let there = SocketAddr::from(GATEWAY);
        let tunnel = postern_proto::tunnel::Settings::default();
        let gateway = peers
            .add(gateway.public(), &tunnel, Some(there.into()))
            .expect("the only peer");
        let [.., high, low] = number.to_be_bytes();
        Laptop {
            peers,
            gateway,
            at: SocketAddr::from(([198, 51, high, low], 51_820)),
            number,
        }
    }

    fn packet(&self, flow: u16, flags: u8) -> Vec<u8> {
        let from = (address(self.number), 40_000 + flow);
        tcp(from, (target(self.number), port(self.number)), flags)
    }

    fn sealed(&mut self, packet: &[u8], now: Now) -> Vec<u8> {
        let mut out = Outs::default();
        let sent = self.peers.send(self.gateway, packet, &mut out, now);
        sent.expect("it has a session");
        out.datagrams.remove(0)
    }
}

fn key(number: usize) -> PrivateKey {
    let mut random = [7; 32];
    random[..8].copy_from_slice(&number.to_be_bytes());
    PrivateKey::from_random(random)
}

fn device(number: usize) -> Device {
    Device {
        name: format!("laptop-{number}"),
        user: Some(format!("user-{number}@example.com")),
        groups: vec!["all-staff".to_owned(), format!("g{number}")],
        key: key(number).public(),
        addresses: vec![address(number).into()],
        standing: Standing {
            session: Some(Session {
                id: format!("s{number}").into(),
                method: "oidc".into(),
                issuer: Some("https://idp.example.com".into()),
                amr: vec!["mfa".to_owned()],
                acr: None,
                since: Wall(1_799_999_000_000_000_000),
                until: None,
            }),
            labels: vec!["fleet=one".to_owned()],
            ..Standing::default()
        },
    }
}

fn tcp(from: (Ipv4Addr, u16), to: (Ipv4Addr, u16), flags: u8) -> Vec<u8> {
    let mut packet = vec![0; 64];
    let ends = |(address, port)| (IpAddr::V4(address), port);
    let len = reply::tcp_reset(ends(from), ends(to), 100, Some(900), &mut packet).expect("room");
    packet.truncate(len);
    packet[33] = flags;
    packet
}

fn settings() -> Settings {
    Settings {
        name: "gateway".into(),
        boot: "boot".into(),
        shard: Shard::default(),
        addresses: vec![IpAddr::V4(Ipv4Addr::new(100, 96, 0, 1))],
        pools: vec!["100.96.0.0/16".parse().expect("a prefix")],
        mtu: mtu::DEFAULT_MTU,
        limits: Limits::default(),
        on_log_failure: OnLogFailure::DenyNew,
        seed: 7,
        stopwatch: || 0,
    }
}

#[derive(Default)]
struct Outs {
    datagrams: Vec<Vec<u8>>,
    datagram: Vec<u8>,
    packet: Vec<u8>,
    /// Packets to targets since the last turn.
    committed: usize,
}

impl Outbox for Outs {
    fn datagram(&mut self, _: Endpoint, room: usize) -> &mut [u8] {
        self.datagram.resize(room, 0);
        &mut self.datagram
    }
    fn commit_datagram(&mut self, len: usize, _: Ecn) {
        self.datagrams.push(self.datagram[..len].to_vec());
    }
    fn packet(&mut self) -> &mut [u8] {
        self.packet.resize(mtu::PACKET_ROOM, 0);
        &mut self.packet
    }
    fn commit_packet(&mut self, _: usize) {
        self.committed += 1;
    }
}
