//! Who asks for too much takes nothing from others.

use super::*;
use crate::limits::{HANDSHAKE, LIFETIME, MAX_PER_ADDRESS, MAX_PER_TAG, UNANSWERED};

/// One SYN of a client of its own each time: from another port, as an attacker would.
fn syn(host: u8, seed: u64, to: &str) -> Vec<u8> {
    let own = format!("fd00:64::{host:x}");
    let mut client = stack(&[&own], Limits::CLIENT, seed);
    let to = SocketAddr::new(to.parse().expect("an address"), PORT);
    client.connect(tag(host), to, Mono(1)).expect("room");
    let mut syn = Vec::new();
    client.transmit(Mono(1), |_, packet| syn = packet.to_vec());
    syn
}

fn answers(server: &mut Stack, now: Mono) -> usize {
    let mut count = 0;
    server.transmit(now, |_, _| count += 1);
    count
}

#[test]
fn a_flood_of_one_tag_leaves_room_for_another() {
    let mut world = World::new(Faults::default(), 7);
    let now = world.now;
    for seed in 0..2000 {
        let syn = syn(77, seed, "fd00:64::1");
        world.server.receive(tag(77), None, &syn, now);
    }
    let counters = world.server.counters();
    assert_eq!(counters.connections, MAX_PER_TAG);
    assert_eq!(counters.half_open, MAX_PER_TAG);
    assert!(counters.crowded > 1900, "{counters:?}");
    assert_eq!(
        answers(&mut world.server, now),
        MAX_PER_TAG,
        "one each, and no more"
    );
    world.connected_beside_others();
}

#[test]
fn those_who_reach_one_address_leave_room_at_the_others() {
    let mut server = server();
    let now = Mono(1);
    for host in 10..250 {
        for seed in 0..4 {
            let guest = "fd70:6f73:7465:726e::1";
            server.receive(tag(host), None, &syn(host, seed, guest), now);
        }
    }
    assert_eq!(server.counters().connections, MAX_PER_ADDRESS);
    server.receive(tag(2), None, &syn(2, 1, "fd00:64::1"), now);
    assert_eq!(server.counters().connections, MAX_PER_ADDRESS + 1);
}

#[test]
fn half_open_connections_are_forgotten_in_time() {
    let mut server = server();
    for seed in 0..20 {
        server.receive(tag(3), None, &syn(3, seed, "fd00:64::1"), Mono(1));
    }
    answers(&mut server, Mono(1));
    assert!(server.next_deadline() <= Mono(1) + HANDSHAKE);
    let mut now = Mono(1);
    while now < Mono(1) + HANDSHAKE {
        now = now + Duration::from_millis(250);
        answers(&mut server, now);
    }
    answers(&mut server, now);
    assert_eq!(server.counters().connections, 0);
    assert_eq!(server.next_deadline(), Mono::NEVER);
}

#[test]
fn who_moves_a_byte_now_and_then_does_not_stay_for_ever() {
    let mut world = World::new(Faults::default(), 7);
    let opened = world.now;
    let (ours, theirs) = world.connected();
    let mut room = [0; 8];
    let ended = loop {
        // It may fail at the end; what the server says is asked below.
        let _ = world.client.write(ours, b"x", world.now);
        world.run(UNANSWERED - Duration::from_secs(1));
        match world.server.read(theirs, &mut room, world.now) {
            Ok(read) => assert_eq!(read, Some(1), "it is alive"),
            Err(broken) => break broken,
        }
        assert!(world.now < opened + 2 * LIFETIME, "it stays for ever");
    };
    assert_eq!(ended, Broken::TimedOut);
    assert!(world.now >= opened + LIFETIME, "and not before its time");
}

#[test]
fn resets_have_a_rate() {
    let mut server = server();
    let mut lost = syn(3, 1, "fd00:64::1");
    // An acknowledgment of something that never was.
    lost[53] = 0x10;
    for _ in 0..1000 {
        server.receive(tag(3), None, &lost, Mono(1));
    }
    assert_eq!(answers(&mut server, Mono(1)), RESETS_PER_SECOND as usize);
    assert_eq!(server.counters().nobody, 1000);
    let later = Mono(1) + Duration::from_secs(2);
    server.receive(tag(3), None, &lost, later);
    assert_eq!(answers(&mut server, later), 1);
}

#[test]
fn another_key_with_the_same_addresses_injects_nothing() {
    let mut world = World::new(Faults::default(), 7);
    let (ours, theirs) = world.connected();
    let now = world.now;
    world.client.write(ours, b"real", now).expect("open");
    let mut genuine = Vec::new();
    world
        .client
        .transmit(now, |_, packet| genuine = packet.to_vec());
    let mut room = [0; 16];
    // Byte for byte what the other end would send, under another key.
    world.server.receive(tag(66), None, &genuine, now);
    assert_eq!(world.server.read(theirs, &mut room, now), Ok(None));
    assert_eq!(world.server.counters().nobody, 1);
    let mut to = Vec::new();
    world.server.transmit(now, |tag, _| to.push(*tag));
    assert_eq!(to, [tag(66)], "the reset goes to who sent it");
    world.server.receive(tag(2), None, &genuine, now);
    assert_eq!(world.server.read(theirs, &mut room, now), Ok(Some(4)));
}

#[test]
fn two_keys_with_the_same_addresses_have_a_connection_each() {
    let mut server = server();
    let now = Mono(1);
    let same = syn(3, 1, "fd00:64::1");
    server.receive(tag(3), None, &same, now);
    server.receive(tag(4), None, &same, now);
    assert_eq!(server.counters().connections, 2);
    let mut to = Vec::new();
    server.transmit(now, |tag, _| to.push(*tag));
    assert_eq!(to, [tag(3), tag(4)]);
}

impl World {
    /// Connects while another tag's answers go nowhere.
    pub(super) fn connected_beside_others(&mut self) {
        let to = SocketAddr::new(server_address(), PORT);
        let id = self.client.connect(self.key, to, self.now).expect("room");
        for _ in 0..3 {
            let (now, key) = (self.now, self.key);
            let server = &mut self.server;
            self.client
                .transmit(now, |_, packet| server.receive(key, None, packet, now));
            let client = &mut self.client;
            self.server.transmit(now, |to, packet| {
                if *to == key {
                    client.receive(key, None, packet, now);
                }
            });
        }
        assert_eq!(self.client.is_open(id), Ok(true));
        assert_eq!(self.server.accept().map(|(_, who)| who.tag), Some(self.key));
    }
}
