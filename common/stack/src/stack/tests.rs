//! Two stacks against each other over a road that loses, repeats and reorders.

mod limits;
mod strange;
mod transfer;

use super::*;
use crate::limits::{IDLE, LINGER};

const MTU: usize = 1420;
const PORT: u16 = 9477;

fn tag(number: u8) -> PublicKey {
    PublicKey([number; 32])
}

fn server_address() -> IpAddr {
    "fd00:64::1".parse().expect("an address")
}

fn stack(addresses: &[&str], limits: Limits, seed: u64) -> Stack {
    Stack::new(Config {
        addresses: addresses
            .iter()
            .map(|address| address.parse().expect("an address"))
            .collect(),
        mtu: MTU,
        seed,
        limits,
    })
}

fn server() -> Stack {
    let mut server = stack(
        &["100.64.0.1", "fd00:64::1", "fd70:6f73:7465:726e::1"],
        Limits::SERVER,
        1,
    );
    server.listen(PORT);
    server
}

fn client(host: u8) -> Stack {
    let (v4, v6) = (format!("100.64.0.{host}"), format!("fd00:64::{host:x}"));
    stack(&[&v4, &v6], Limits::CLIENT, 1000 + u64::from(host))
}

/// A client whose tunnel is tag `host`, and the server.
struct World {
    now: Mono,
    client: Stack,
    server: Stack,
    key: PublicKey,
    /// Packets on their way: when they arrive, whether to the server, and what.
    road: Vec<(Mono, bool, Vec<u8>)>,
    faults: Faults,
    chance: u64,
}

/// Of 100 packets.
#[derive(Clone, Copy, Debug, Default)]
struct Faults {
    lost: u64,
    doubled: u64,
    late: u64,
}

impl World {
    fn new(faults: Faults, seed: u64) -> World {
        World {
            now: Mono(1_000_000_000),
            client: client(2),
            server: server(),
            key: tag(2),
            road: Vec::new(),
            faults,
            chance: seed,
        }
    }

    /// xorshift: the same worlds in every run.
    fn roll(&mut self) -> u64 {
        self.chance ^= self.chance << 13;
        self.chance ^= self.chance >> 7;
        self.chance ^= self.chance << 17;
        self.chance % 100
    }

    fn post(&mut self, to_server: bool, packet: Vec<u8>) {
        assert!(packet.len() <= MTU, "no packet is larger than the tunnel");
        if self.roll() < self.faults.lost {
            return;
        }
        let copies = 1 + usize::from(self.roll() < self.faults.doubled);
        for _ in 0..copies {
            let late = if self.roll() < self.faults.late {
                30
            } else {
                0
            };
            let arrival = self.now + Duration::from_millis(5 + late);
            self.road.push((arrival, to_server, packet.clone()));
        }
    }

    /// Everything that happens at this moment; then on to the next one, at most until `end`.
    fn step(&mut self, end: Mono) {
        let (arrived, road) = std::mem::take(&mut self.road)
            .into_iter()
            .partition(|(at, _, _)| *at <= self.now);
        self.road = road;
        let arrived: Vec<(Mono, bool, Vec<u8>)> = arrived;
        for (_, to_server, packet) in arrived {
            let to = if to_server {
                &mut self.server
            } else {
                &mut self.client
            };
            to.receive(self.key, None, &packet, self.now);
        }
        let mut sent = Vec::new();
        self.client
            .transmit(self.now, |_, packet| sent.push((true, packet.to_vec())));
        self.server.transmit(self.now, |to, packet| {
            assert_eq!(*to, self.key, "an answer goes to the tag that asked");
            sent.push((false, packet.to_vec()));
        });
        for (to_server, packet) in sent {
            self.post(to_server, packet);
        }
        let next = self.road.iter().map(|(at, _, _)| *at).min();
        let next = next
            .unwrap_or(Mono::NEVER)
            .min(self.client.next_deadline())
            .min(self.server.next_deadline());
        // At least a little: a stack that asks to be called at once is called, not waited for.
        self.now = next
            .max(self.now + Duration::from_micros(10))
            .min(end.max(self.now));
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.step(end);
        }
    }

    /// A connection that both ends know.
    fn connected(&mut self) -> (Id, Id) {
        let to = SocketAddr::new(server_address(), PORT);
        let ours = self.client.connect(self.key, to, self.now).expect("room");
        let end = self.now + Duration::from_secs(9);
        while self.now < end {
            self.step(end);
            if let Some((theirs, remote)) = self.server.accept() {
                assert_eq!(remote.tag, self.key);
                self.run(Duration::from_millis(50));
                return (ours, theirs);
            }
        }
        panic!("no connection within its time");
    }
}

#[test]
fn a_question_and_its_answer() {
    let mut world = World::new(Faults::default(), 7);
    let (ours, theirs) = world.connected();
    let now = world.now;
    assert_eq!(world.client.write(ours, b"question", now), Ok(Some(8)));
    world.run(Duration::from_millis(20));
    let mut room = [0; 64];
    assert_eq!(world.server.read(theirs, &mut room, world.now), Ok(Some(8)));
    assert_eq!(&room[..8], b"question");
    let now = world.now;
    assert_eq!(world.server.write(theirs, b"answer", now), Ok(Some(6)));
    world.server.close(theirs, now);
    world.server.release(theirs, now);
    world.run(Duration::from_millis(50));
    assert_eq!(world.client.read(ours, &mut room, world.now), Ok(Some(6)));
    assert_eq!(
        world.client.read(ours, &mut room, world.now),
        Ok(Some(0)),
        "then the end"
    );
    let now = world.now;
    world.client.release(ours, now);
    world.run(Duration::from_millis(50));
    assert_eq!(
        world.server.counters().connections,
        0,
        "nothing is left behind"
    );
    assert_eq!(world.client.counters().connections, 0);
    assert_eq!(world.server.counters().nobody, 0, "and nobody was reset");
    assert_eq!(world.client.counters().nobody, 0);
}

#[test]
fn a_port_that_nobody_listens_on_refuses_at_once() {
    let mut world = World::new(Faults::default(), 7);
    let to = SocketAddr::new(server_address(), 22);
    let id = world
        .client
        .connect(world.key, to, world.now)
        .expect("room");
    world.run(Duration::from_millis(20));
    assert_eq!(world.client.is_open(id), Err(Broken::Refused));
    assert_eq!(world.server.counters().nobody, 1);
}

#[test]
fn every_address_of_ours_is_served_and_no_other() {
    for (address, served) in [
        ("100.64.0.1", true),
        ("fd00:64::1", true),
        ("fd70:6f73:7465:726e::1", true),
        ("100.64.0.9", false),
        ("fd00:64::9", false),
    ] {
        let mut world = World::new(Faults::default(), 7);
        let to = SocketAddr::new(address.parse().expect("an address"), PORT);
        let id = world
            .client
            .connect(world.key, to, world.now)
            .expect("room");
        world.run(Duration::from_millis(100));
        assert_eq!(world.client.is_open(id), Ok(served), "{address}");
        assert_eq!(world.server.counters().strange > 0, !served, "{address}");
    }
}

#[test]
fn who_falls_silent_is_forgotten() {
    let mut world = World::new(Faults::default(), 7);
    let (_, theirs) = world.connected();
    world.faults.lost = 100;
    let before = world.now;
    world.run(IDLE + Duration::from_secs(1));
    let mut room = [0; 8];
    assert_eq!(
        world.server.read(theirs, &mut room, world.now),
        Err(Broken::TimedOut),
        "{:?} later",
        world.now.since(before)
    );
    let now = world.now;
    world.server.release(theirs, now);
    world.run(Duration::from_millis(1));
    assert_eq!(world.server.counters().connections, 0);
    assert_eq!(world.server.counters().timed_out, 1);
}

#[test]
fn who_takes_no_answer_is_forgotten() {
    let mut world = World::new(Faults::default(), 7);
    let (_, theirs) = world.connected();
    let answer = vec![1; 64 << 10];
    let now = world.now;
    world.server.write(theirs, &answer, now).expect("open");
    // The client's window fills, and nobody there reads: its probes are answered all the while.
    world.run(Duration::from_secs(1));
    world
        .server
        .write(theirs, &answer, world.now)
        .expect("open");
    world.run(IDLE + Duration::from_secs(5));
    let mut room = [0; 8];
    let now = world.now;
    assert_eq!(
        world.server.read(theirs, &mut room, now),
        Err(Broken::TimedOut)
    );
}

#[test]
fn what_is_let_go_does_not_linger_for_ever() {
    let mut world = World::new(Faults::default(), 7);
    let (ours, theirs) = world.connected();
    let now = world.now;
    world.server.release(theirs, now);
    // The other end never closes.
    world.run(LINGER + Duration::from_secs(1));
    assert_eq!(world.server.counters().connections, 0);
    let mut room = [0; 8];
    assert_eq!(
        world.client.read(ours, &mut room, world.now),
        Err(Broken::Reset)
    );
}

#[test]
fn a_tag_is_cut_and_others_are_not() {
    let mut world = World::new(Faults::default(), 7);
    let (ours, theirs) = world.connected();
    let now = world.now;
    world.server.abort_tag(&tag(9), now);
    world.run(Duration::from_millis(20));
    assert_eq!(world.client.is_open(ours), Ok(true));
    let now = world.now;
    world.server.abort_tag(&tag(2), now);
    world.run(Duration::from_millis(20));
    assert_eq!(world.client.is_open(ours), Err(Broken::Reset));
    assert_eq!(world.server.is_open(theirs), Err(Broken::Reset));
}
