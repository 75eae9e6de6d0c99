//! Congestion marks cross the tunnel, and nothing else of the traffic class does (RFC 6040).

use super::*;
use crate::ecn::{self, Mode, decapsulate};
use crate::tunnel::KEEPALIVE_TIMEOUT;

const MARKS: [Ecn; 4] = [Ecn::NotEct, Ecn::Ect1, Ecn::Ect0, Ecn::Ce];

/// A packet that says `ecn`, with a DSCP of its own.
fn marked(v6: bool, ecn: Ecn) -> Vec<u8> {
    let mut packet = ip(60);
    if v6 {
        packet[0] = 0x60;
        packet[2..6].copy_from_slice(&[0, 0, 0, 20]);
        packet[1] = 0x80;
        packet[0] |= 0xb;
    } else {
        packet[1] = 0xb8;
    }
    ecn::set(&mut packet, ecn);
    packet
}

#[test]
fn what_a_packet_says_goes_to_the_outer_header_and_its_dscp_does_not() {
    let (mut laptop, to_gateway, ..) = connected();
    laptop.peers.set_ecn_mode(to_gateway, Mode::Normal);
    laptop.out.marks.clear();
    for v6 in [false, true] {
        for mark in MARKS {
            let packet = marked(v6, mark);
            laptop
                .peers
                .send(to_gateway, &packet, &mut laptop.out, START)
                .unwrap();
        }
    }
    assert_eq!(laptop.out.marks, [MARKS, MARKS].concat());
}

#[test]
fn an_end_that_may_lose_marks_gets_none_and_must_be_known_anew_with_each_key() {
    let (mut laptop, to_gateway, mut gateway, _) = connected();
    let packet = marked(false, Ecn::Ect0);
    let mut says = |laptop: &mut Host, now| {
        laptop
            .peers
            .send(to_gateway, &packet, &mut laptop.out, now)
            .unwrap();
        let mark = *laptop.out.marks.last().unwrap();
        settle(laptop, &mut gateway, now);
        mark
    };
    assert_eq!(says(&mut laptop, START), Ecn::NotEct);
    laptop.peers.set_ecn_mode(to_gateway, Mode::Normal);
    assert_eq!(says(&mut laptop, START), Ecn::Ect0);
    let later = START.after(seconds(10));
    laptop.peers.initiate(to_gateway, &mut laptop.out, later);
    assert_eq!(says(&mut laptop, later), Ecn::Ect0, "no new key yet");
    assert_eq!(laptop.peers.handshakes().established, 2);
    assert_eq!(says(&mut laptop, later), Ecn::NotEct);
}

#[test]
fn what_the_tunnel_itself_says_is_not_marked() {
    let (mut laptop, to_gateway, mut gateway, to_laptop) = connected();
    laptop.peers.set_ecn_mode(to_gateway, Mode::Normal);
    gateway.peers.set_ecn_mode(to_laptop, Mode::Normal);
    laptop
        .peers
        .send(
            to_gateway,
            &marked(false, Ecn::Ect0),
            &mut laptop.out,
            START,
        )
        .unwrap();
    settle(&mut laptop, &mut gateway, START);
    // The answer to a packet that was not answered is a keepalive.
    let later = START.after(KEEPALIVE_TIMEOUT);
    gateway.peers.timeout(&mut gateway.out, later);
    assert_eq!(gateway.out.take().len(), 1);
    // Initiation and the first keepalive of the one, response and keepalive of the other.
    assert_eq!(laptop.out.marks, [Ecn::NotEct, Ecn::NotEct, Ecn::Ect0]);
    assert_eq!(gateway.out.marks, [Ecn::NotEct, Ecn::NotEct]);
}

#[test]
fn the_mark_of_the_path_reaches_the_packet_or_costs_it() {
    let (mut laptop, to_gateway, mut gateway, to_laptop) = connected();
    for v6 in [false, true] {
        for inner in MARKS {
            for outer in MARKS {
                let packet = marked(v6, inner);
                laptop
                    .peers
                    .send(to_gateway, &packet, &mut laptop.out, START)
                    .unwrap();
                let (_, datagram) = laptop.out.take().remove(0);
                let inbound = gateway.receive_marked(laptop.at, outer, &datagram, START);
                let expected = match decapsulate(inner, outer) {
                    Ok(_) => Inbound::Packet {
                        peer: to_laptop,
                        len: 60,
                        roamed: false,
                    },
                    Err(reason) => Inbound::Dropped {
                        reason,
                        peer: Some(to_laptop),
                    },
                };
                assert_eq!(inbound, expected, "{inner:?} in {outer:?}");
                if let Ok(combined) = decapsulate(inner, outer) {
                    assert_eq!(gateway.out.packet()[..60], marked(v6, combined));
                }
            }
        }
    }
}

#[test]
fn a_marked_datagram_that_is_lost_still_says_where_the_peer_is() {
    let (mut laptop, to_gateway, mut gateway, to_laptop) = connected();
    laptop.send(to_gateway, START).unwrap();
    let (_, datagram) = laptop.out.take().remove(0);
    let cafe = at("198.51.100.20:5555");
    assert_eq!(
        gateway.receive_marked(cafe, Ecn::Ce, &datagram, START),
        Inbound::Dropped {
            reason: DropReason::EcnCe,
            peer: Some(to_laptop)
        }
    );
    let peer = gateway.peers.peer(to_laptop).unwrap();
    assert_eq!(peer.endpoint(), Some(cafe));
}

#[test]
fn a_mark_says_nothing_about_what_is_not_proved() {
    let (mut laptop, to_gateway, mut gateway, to_laptop) = connected();
    laptop.send(to_gateway, START).unwrap();
    let (_, mut datagram) = laptop.out.take().remove(0);
    let dropped = |reason| Inbound::Dropped {
        reason,
        peer: Some(to_laptop),
    };
    *datagram.last_mut().unwrap() ^= 1;
    assert_eq!(
        gateway.receive_marked(laptop.at, Ecn::Ce, &datagram, START),
        dropped(DropReason::BadTag)
    );
    *datagram.last_mut().unwrap() ^= 1;
    gateway.receive(laptop.at, &datagram, START);
    assert_eq!(
        gateway.receive_marked(laptop.at, Ecn::Ce, &datagram, START),
        dropped(DropReason::Replayed)
    );
}

#[test]
fn marked_handshakes_and_keepalives_are_taken_as_they_are() {
    let (mut laptop, to_gateway, mut gateway, to_laptop) = pair();
    laptop.peers.initiate(to_gateway, &mut laptop.out, START);
    for _ in 0..2 {
        for (_, datagram) in laptop.out.take() {
            gateway.receive_marked(laptop.at, Ecn::Ce, &datagram, START);
        }
        for (_, datagram) in gateway.out.take() {
            laptop.receive_marked(gateway.at, Ecn::Ce, &datagram, START);
        }
    }
    assert!(gateway.peers.peer(to_laptop).unwrap().is_established(START));
}
