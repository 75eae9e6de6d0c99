#![allow(clippy::unwrap_used)]

mod hosts;
mod marks;

use super::*;
use crate::tunnel::Traffic;
use crate::tunnel::tests::{START, ip, private, seconds};
use hosts::*;
use proptest::prelude::*;
use std::net::IpAddr;
use std::time::Duration;

#[test]
fn a_packet_crosses_and_is_left_for_the_caller_to_judge() {
    let (mut laptop, to_gateway, mut gateway, to_laptop) = connected();
    laptop.send(to_gateway, START).unwrap();
    settle(&mut laptop, &mut gateway, START);
    assert_eq!(
        gateway.seen,
        [Inbound::Packet {
            peer: to_laptop,
            len: 60,
            roamed: false
        }]
    );
    assert_eq!(gateway.out.packet()[..60], ip(60));
    let peer = gateway.peers.peer(to_laptop).unwrap();
    assert_eq!(
        peer.received(),
        Traffic {
            packets: 1,
            bytes: 60
        }
    );
    assert_eq!(peer.endpoint(), Some(at(LAPTOP)));
}

#[test]
fn the_first_packet_without_a_key_brings_a_handshake() {
    let (mut laptop, to_gateway, mut gateway, to_laptop) = pair();
    assert_eq!(laptop.send(to_gateway, START), Err(DropReason::NoSession));
    settle(&mut laptop, &mut gateway, START);
    laptop.send(to_gateway, START).unwrap();
    // The gateway knows where the laptop is only now.
    gateway.send(to_laptop, START).unwrap();
    assert_eq!(laptop.peers.handshakes().initiated, 1);
    assert_eq!(laptop.peers.handshakes().established, 1);
    assert_eq!(gateway.peers.handshakes().answered, 1);
    assert_eq!(gateway.peers.handshakes().established, 1);
}

#[test]
fn a_peer_without_an_endpoint_is_not_asked() {
    let (_, _, mut gateway, to_laptop) = pair();
    assert_eq!(gateway.send(to_laptop, START), Err(DropReason::NoSession));
    gateway.peers.initiate(to_laptop, &mut gateway.out, START);
    gateway
        .peers
        .timeout(&mut gateway.out, START.after(seconds(600)));
    assert!(gateway.out.take().is_empty());
}

#[test]
fn strangers_get_silence() {
    let (mut stranger, to_gateway, mut gateway, _) = pair();
    stranger
        .peers
        .initiate(to_gateway, &mut stranger.out, START);
    let (_, known) = stranger.out.take().remove(0);
    let mut stranger = Host::new(9, LAPTOP);
    let to_gateway = stranger.add(2, Some(GATEWAY));
    stranger
        .peers
        .initiate(to_gateway, &mut stranger.out, START);
    let (_, unknown) = stranger.out.take().remove(0);
    let mut flipped = known.clone();
    flipped[60] ^= 1;

    let from = at("198.51.100.1:1");
    let dropped = |reason| Inbound::Dropped { reason, peer: None };
    assert_eq!(
        gateway.receive(from, &unknown, START),
        dropped(DropReason::UnknownKey)
    );
    assert_eq!(
        gateway.receive(from, &flipped, START),
        dropped(DropReason::BadMac)
    );
    assert_eq!(
        gateway.receive(from, &[0; 148], START),
        dropped(DropReason::NotWireguard)
    );
    assert_eq!(
        gateway.receive(from, &[], START),
        dropped(DropReason::NotWireguard)
    );
    let long = vec![4; mtu::DATAGRAM_ROOM + 1];
    assert_eq!(
        gateway.receive(from, &long, START),
        dropped(DropReason::TooLong)
    );
    for kind in [2u8, 3, 4] {
        let mut datagram = vec![0; [92, 64, 32][usize::from(kind) - 2]];
        datagram[0] = kind;
        datagram[4..12].fill(0x77);
        assert_eq!(
            gateway.receive(from, &datagram, START),
            dropped(DropReason::UnknownIndex)
        );
    }
    assert!(gateway.out.take().is_empty(), "not one byte to anybody");
}

#[test]
fn what_a_gate_outside_let_in_is_still_verified() {
    let (mut laptop, to_gateway, mut gateway, to_laptop) = pair();
    let other = gateway.add(3, None);
    laptop.peers.initiate(to_gateway, &mut laptop.out, START);
    let (_, initiation) = laptop.out.take().remove(0);
    let (from, [mine, others, nobodys]) = (laptop.at, [1, 3, 9].map(|n| private(n).public()));
    let mut claimed = |key, datagram: &[u8]| {
        gateway
            .peers
            .receive_claimed(key, from, datagram, &mut gateway.out, START)
    };
    let dropped = |reason, peer| Inbound::Dropped { reason, peer };
    assert_eq!(
        claimed(&others, &initiation),
        dropped(DropReason::BadHandshake, Some(other))
    );
    assert_eq!(
        claimed(&nobodys, &initiation),
        dropped(DropReason::UnknownKey, None)
    );
    assert_eq!(
        claimed(&mine, &initiation[..100]),
        dropped(DropReason::NotWireguard, None)
    );
    assert_eq!(
        claimed(&mine, &initiation),
        Inbound::Control {
            what: Control::Answered,
            peer: Some(to_laptop),
            roamed: false
        }
    );
    assert_eq!(gateway.out.take().len(), 1);
    assert_eq!(gateway.peers.handshakes().answered, 1);
}

#[test]
fn a_replayed_initiation_is_silent_and_moves_nobody() {
    let (mut laptop, to_gateway, mut gateway, to_laptop) = pair();
    laptop.peers.initiate(to_gateway, &mut laptop.out, START);
    let (_, initiation) = laptop.out.take().remove(0);
    gateway.receive(laptop.at, &initiation, START);
    assert_eq!(gateway.out.take().len(), 1);
    assert_eq!(
        gateway.peers.peer(to_laptop).unwrap().endpoint(),
        None,
        "not proved yet"
    );
    assert_eq!(
        gateway.receive(at("198.51.100.1:1"), &initiation, START),
        Inbound::Dropped {
            reason: DropReason::BadHandshake,
            peer: Some(to_laptop)
        }
    );
    assert!(gateway.out.take().is_empty());
}

#[test]
fn roaming_follows_the_newest_packet_and_only_that() {
    let (mut laptop, to_gateway, mut gateway, to_laptop) = connected();
    let cafe = at("198.51.100.20:5555");
    let endpoint = |gateway: &Host| gateway.peers.peer(to_laptop).unwrap().endpoint().unwrap();
    for _ in 0..3 {
        laptop.send(to_gateway, START).unwrap();
    }
    let sent = laptop.out.take();

    let inbound = gateway.receive(cafe, &sent[1].1, START);
    assert_eq!(
        inbound,
        Inbound::Packet {
            peer: to_laptop,
            len: 60,
            roamed: true
        }
    );
    assert_eq!(endpoint(&gateway), cafe);
    // A packet that was on its way from the old address does not move it back.
    let inbound = gateway.receive(laptop.at, &sent[0].1, START);
    assert_eq!(
        inbound,
        Inbound::Packet {
            peer: to_laptop,
            len: 60,
            roamed: false
        }
    );
    // Nor does a copy, or a packet with a flipped bit.
    gateway.receive(at("198.51.100.66:1"), &sent[1].1, START);
    let mut flipped = sent[2].1.clone();
    flipped[20] ^= 1;
    gateway.receive(at("198.51.100.66:1"), &flipped, START);
    assert_eq!(endpoint(&gateway), cafe);
    gateway.send(to_laptop, START).unwrap();
    assert_eq!(gateway.out.take()[0].0, cafe);
}

#[test]
fn a_late_packet_of_the_old_key_does_not_move_the_peer() {
    let (mut laptop, to_gateway, mut gateway, to_laptop) = connected();
    laptop.send(to_gateway, START).unwrap();
    let (_, late) = laptop.out.take().remove(0);
    let now = START.after(seconds(125));
    laptop.at = at("198.51.100.20:5555");
    laptop.peers.initiate(to_gateway, &mut laptop.out, now);
    settle(&mut laptop, &mut gateway, now);
    assert_eq!(
        gateway.peers.peer(to_laptop).unwrap().endpoint(),
        Some(laptop.at)
    );
    let inbound = gateway.receive(at(LAPTOP), &late, now);
    assert_eq!(
        inbound,
        Inbound::Packet {
            peer: to_laptop,
            len: 60,
            roamed: false
        }
    );
    assert_eq!(
        gateway.peers.peer(to_laptop).unwrap().endpoint(),
        Some(laptop.at)
    );
}

#[test]
fn a_peer_that_moves_while_we_replace_the_key_is_followed_at_once() {
    let (mut laptop, to_gateway, mut gateway, to_laptop) = connected();
    let now = START.after(seconds(125));
    gateway.peers.initiate(to_laptop, &mut gateway.out, now);
    let (_, question) = gateway.out.take().remove(0);
    laptop.receive(gateway.at, &question, now);
    let (_, answer) = laptop.out.take().remove(0);
    gateway.receive(laptop.at, &answer, now);
    // The laptop has moved: what would let it use the new key does not reach it.
    gateway.out.take();
    laptop.at = at("198.51.100.20:5555");
    laptop.send(to_gateway, now).unwrap();
    let (_, packet) = laptop.out.take().remove(0);
    let inbound = gateway.receive(laptop.at, &packet, now);
    assert_eq!(
        inbound,
        Inbound::Packet {
            peer: to_laptop,
            len: 60,
            roamed: true
        }
    );
}

#[test]
fn a_restarted_gateway_brings_its_laptops_back_by_itself() {
    let (mut laptop, to_gateway, _, _) = connected();
    let mut gateway = Host::new(2, GATEWAY);
    let to_laptop = gateway.add(1, Some(LAPTOP));
    let now = START.after(seconds(30));
    gateway.peers.initiate(to_laptop, &mut gateway.out, now);
    settle(&mut laptop, &mut gateway, now);
    laptop.send(to_gateway, now).unwrap();
    settle(&mut laptop, &mut gateway, now);
    let packet = Inbound::Packet {
        peer: to_laptop,
        len: 60,
        roamed: false,
    };
    assert_eq!(gateway.seen.last(), Some(&packet));
}

#[test]
fn a_restarted_gateway_calls_its_laptops_one_by_one() {
    let mut gateway = Host::new(2, GATEWAY);
    let ids: Vec<_> = (10..110)
        .map(|laptop| gateway.add(laptop, Some(LAPTOP)))
        .collect();
    for id in &ids {
        gateway.peers.initiate(*id, &mut gateway.out, START);
    }
    assert_eq!(gateway.out.take().len(), CALL_BURST as usize);
    let mut called = CALL_BURST as usize;
    let mut now = START;
    while called < ids.len() {
        let next = gateway.peers.next_deadline();
        assert!(next - now.mono <= CALL_PAUSE);
        now = now.after(next - now.mono);
        gateway.peers.timeout(&mut gateway.out, now);
        called += gateway.out.take().len();
    }
    assert_eq!(now.mono - START.mono, CALL_PAUSE * 68);
    // Some time later there is no queue.
    let late = gateway.add(111, Some(LAPTOP));
    let now = now.after(seconds(1));
    gateway.peers.initiate(late, &mut gateway.out, now);
    assert_eq!(gateway.out.take().len(), 1);
}

#[test]
fn removal_is_silence_and_the_number_rests() {
    let (mut laptop, to_gateway, mut gateway, to_laptop) = connected();
    laptop.send(to_gateway, START).unwrap();
    let (_, datagram) = laptop.out.take().remove(0);
    assert!(gateway.peers.remove(to_laptop));
    assert!(!gateway.peers.remove(to_laptop));
    let unknown = Inbound::Dropped {
        reason: DropReason::UnknownIndex,
        peer: None,
    };
    assert_eq!(gateway.receive(laptop.at, &datagram, START), unknown);
    assert_eq!(gateway.send(to_laptop, START), Err(DropReason::NoSession));
    let now = START.after(seconds(6));
    laptop.peers.initiate(to_gateway, &mut laptop.out, now);
    let (_, initiation) = laptop.out.take().remove(0);
    let unknown = Inbound::Dropped {
        reason: DropReason::UnknownKey,
        peer: None,
    };
    assert_eq!(gateway.receive(laptop.at, &initiation, now), unknown);
    assert!(gateway.out.take().is_empty());
    assert_eq!(gateway.peers.next_deadline(), Mono::NEVER);

    assert_ne!(gateway.add(3, None), to_laptop);
    let again = gateway.add(1, None);
    assert_ne!(again, to_laptop);
    assert_eq!(gateway.peers.len(), 2);
}

#[test]
fn two_peers_never_share_a_key_and_none_has_ours() {
    let mut gateway = Host::new(2, GATEWAY);
    gateway.add(1, None);
    let (key, ours) = (private(1).public(), private(2).public());
    let settings = Settings::default();
    assert_eq!(
        gateway.peers.add(key, &settings, None),
        Err(AddError::Duplicate(key))
    );
    assert_eq!(
        gateway.peers.add(ours, &settings, None),
        Err(AddError::OurOwn(ours))
    );
}

#[test]
fn the_workers_number_is_in_every_index_and_others_are_not_served() {
    let mut peers = Peers::new(private(2), 5, 3, 1);
    for (place, key) in [10u8, 11, 12].into_iter().enumerate() {
        let id = peers.add(
            private(key).public(),
            &Settings::default(),
            Some(at(LAPTOP)),
        );
        let id = id.unwrap();
        assert_eq!((id.get() & 7, (id.get() >> 3) as usize), (5, place));
        let mut out = Sink::new();
        peers.initiate(id, &mut out, START);
        let (_, initiation) = out.take().remove(0);
        let index = u32::from_le_bytes(initiation[4..8].try_into().unwrap());
        assert_eq!(index >> 8, id.get());
    }
    let foreign = PeerId::new(4).unwrap();
    assert!(peers.peer(foreign).is_none());
}

/// With boringtun's own limiter shared, half of these would go unanswered.
#[test]
fn a_hundred_peers_at_once_are_all_answered() {
    let mut gateway = Host::new(2, GATEWAY);
    let mut established = 0;
    for key in 100..200u8 {
        let mut laptop = Host::new(key, &format!("192.0.2.{key}:1"));
        let to_gateway = laptop.add(2, Some(GATEWAY));
        gateway.add(key, None);
        laptop.peers.initiate(to_gateway, &mut laptop.out, START);
        settle(&mut laptop, &mut gateway, START);
        established += u32::from(laptop.peers.peer(to_gateway).unwrap().is_established(START));
    }
    assert_eq!(established, 100);
    assert_eq!(gateway.peers.handshakes().cookies_sent, 0);
}

#[test]
fn under_a_flood_of_handshakes_a_laptop_still_connects() {
    let (mut laptop, to_gateway, mut gateway, to_laptop) = pair();
    let mut stranger = Host::new(9, LAPTOP);
    let its_gateway = stranger.add(2, Some(GATEWAY));
    stranger
        .peers
        .initiate(its_gateway, &mut stranger.out, START);
    let (_, initiation) = stranger.out.take().remove(0);
    // From one address, then from everywhere, and under the laptop's own address too.
    for _ in 0..10_000 {
        gateway.receive(at("198.51.100.66:1"), &initiation, START);
        gateway.receive(at(LAPTOP), &initiation, START);
    }
    for host in 0..1_000u32 {
        let source = std::net::SocketAddr::new(IpAddr::V4((0x0a00_0000 + host).into()), 1);
        gateway.receive(source.into(), &initiation, START);
    }
    assert!(
        gateway
            .out
            .take()
            .iter()
            .all(|(_, reply)| reply.len() == COOKIE_ROOM)
    );
    laptop.peers.initiate(to_gateway, &mut laptop.out, START);
    settle(&mut laptop, &mut gateway, START);
    assert!(laptop.peers.peer(to_gateway).unwrap().is_established(START));
    assert!(gateway.peers.peer(to_laptop).unwrap().is_established(START));
    let taken = Inbound::Control {
        what: Control::CookieTaken,
        peer: Some(to_gateway),
        roamed: false,
    };
    assert!(laptop.seen.contains(&taken));
}

#[test]
fn a_cookie_from_elsewhere_does_not_lure_the_initiation_there() {
    let (mut laptop, to_gateway, mut gateway, _) = pair();
    laptop.peers.initiate(to_gateway, &mut laptop.out, START);
    let (_, initiation) = laptop.out.take().remove(0);
    while gateway
        .out
        .sent
        .last()
        .is_none_or(|(_, reply)| reply.len() != COOKIE_ROOM)
    {
        gateway.receive(laptop.at, &initiation, START);
    }
    let (_, cookie) = gateway.out.take().pop().unwrap();
    laptop.receive(at("198.51.100.66:1"), &cookie, START);
    assert_eq!(laptop.out.take()[0].0, at(GATEWAY));
}

#[test]
fn timers_fire_through_the_demux_and_only_when_due() {
    let (mut laptop, to_gateway, mut gateway, _) = connected();
    laptop.send(to_gateway, START).unwrap();
    settle(&mut laptop, &mut gateway, START);
    // The gateway owes a keepalive after 10 s.
    let due = START.after(seconds(10));
    assert_eq!(gateway.peers.next_deadline(), due.mono);
    gateway
        .peers
        .timeout(&mut gateway.out, START.after(Duration::from_millis(9_999)));
    assert!(gateway.out.take().is_empty());
    gateway.peers.timeout(&mut gateway.out, due);
    assert_eq!(gateway.out.take().len(), 1);
    assert!(gateway.peers.next_deadline() > due.mono);
    // The laptop got none of it: 15 s after its packet it asks for a new key.
    let mut now = START;
    while laptop.out.sent.is_empty() {
        now = now.after(laptop.peers.next_deadline() - now.mono);
        laptop.peers.timeout(&mut laptop.out, now);
    }
    assert!((seconds(15)..seconds(16)).contains(&(now.mono - START.mono)));
    assert_eq!(laptop.out.take()[0].1.len(), 148);
}

#[test]
fn a_peer_is_as_large_as_it_is_said_to_be() {
    assert!(size_of::<Peer>() <= 1024, "{}", size_of::<Peer>());
    let machine = crate::tunnel::MACHINE_SIZE;
    assert!(machine <= 11_500, "{machine}");
}

#[test]
fn an_outbox_without_room_does_not_hang_the_timers() {
    struct Full;
    impl Outbox for Full {
        fn datagram(&mut self, _: Endpoint, _: usize) -> &mut [u8] {
            &mut []
        }
        fn commit_datagram(&mut self, _: usize, _: Ecn) {
            panic!("nothing fits");
        }
        fn packet(&mut self) -> &mut [u8] {
            &mut []
        }
        fn commit_packet(&mut self, _: usize) {
            panic!("nothing fits");
        }
    }
    let (mut laptop, to_gateway, _, _) = pair();
    laptop.peers.initiate(to_gateway, &mut Full, START);
    laptop.peers.timeout(&mut Full, START.after(seconds(60)));
    assert!(laptop.peers.next_deadline() > START.after(seconds(60)).mono);
}

#[test]
fn a_thousand_packets_leave_one_deadline_per_peer() {
    let (mut laptop, to_gateway, mut gateway, to_laptop) = connected();
    for millis in 0..1000 {
        let now = START.after(Duration::from_millis(10 * millis));
        laptop.send(to_gateway, now).unwrap();
        gateway.send(to_laptop, now).unwrap();
        settle(&mut laptop, &mut gateway, now);
        assert!(laptop.peers.deadlines.len() <= 1 && gateway.peers.deadlines.len() <= 1);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic_or_answer(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..256),
        kind in 0u8..6,
        exact in any::<bool>(),
        index in 0u8..3,
    ) {
        let (_, _, mut gateway, _) = connected();
        if exact {
            bytes.resize([0, 148, 92, 64, 32, 33][usize::from(kind)], 0x5a);
        }
        if bytes.len() >= 12 {
            bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
            // Also the index of the session that is there.
            bytes[4..8].copy_from_slice(&[index, 0, 0, 0]);
            bytes[8..12].copy_from_slice(&[index, 0, 0, 0]);
        }
        let inbound = gateway.receive(at("198.51.100.1:1"), &bytes, START);
        prop_assert!(matches!(inbound, Inbound::Dropped { .. }), "{inbound:?}");
        prop_assert!(gateway.out.take().is_empty());
    }
}
