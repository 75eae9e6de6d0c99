use super::*;
use crate::split::SuperPacket;
use crate::testing::{self, Spec};
use crate::virtio::Gso;
use proptest::prelude::*;
use std::collections::HashMap;

const ACK: u8 = 0x10;
const PSH: u8 = 0x08;
const ALL: Joinable = Joinable {
    tcp: true,
    udp: true,
};

/// One write to the TUN: its virtio header and its bytes.
struct Write {
    header: VnetHeader,
    bytes: Vec<u8>,
    members: usize,
}

impl Write {
    /// What the kernel makes of it.
    fn segments(&self) -> Vec<Vec<u8>> {
        let mut bytes = self.bytes.clone();
        let mut out = Vec::new();
        SuperPacket::parse(self.header, &mut bytes)
            .unwrap()
            .for_each_segment(|segment| out.push(segment.to_vec()));
        out
    }
}

fn join_with(joiner: &mut Joiner, packets: &[Vec<u8>]) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut collect = |joined: Joined<'_>| {
        assert!(joined.slices.len() <= 1024, "more than writev takes");
        let all: Vec<u8> = joined
            .slices
            .iter()
            .flat_map(|slice| slice.to_vec())
            .collect();
        let (header, bytes) = all.split_first_chunk::<HEADER>().unwrap();
        assert_eq!(joined.packets().count(), joined.members());
        let header = VnetHeader::parse(header);
        if joined.members() == 1 {
            assert_eq!(bytes, joined.packets().next().unwrap());
        }
        writes.push(Write {
            header,
            bytes: bytes.to_vec(),
            members: joined.members(),
        });
    };
    for packet in packets {
        if !joiner.has_room() {
            joiner.drain(&mut collect);
        }
        joiner.slot()[..packet.len()].copy_from_slice(packet);
        joiner.commit(packet.len());
    }
    joiner.drain(&mut collect);
    assert!(joiner.is_empty());
    writes
}

fn join(packets: &[Vec<u8>]) -> Vec<Write> {
    join_with(&mut Joiner::new(ALL), packets)
}

/// How many packets each write holds.
fn shape(packets: &[Spec]) -> Vec<usize> {
    let packets: Vec<_> = packets.iter().map(Spec::build).collect();
    join(&packets).iter().map(|write| write.members).collect()
}

/// `count` segments of one transfer.
fn transfer(first: &Spec, count: usize) -> Vec<Spec> {
    (0..count)
        .map(|place| Spec {
            sequence: first
                .sequence
                .wrapping_add((place * first.payload.len()) as u32),
            ip_id: first.ip_id.wrapping_add(place as u16),
            ..first.clone()
        })
        .collect()
}

/// The packets of each flow in order. The identification of an unfragmentable packet means
/// nothing (RFC 6864), so it may change.
fn by_flow(packets: impl IntoIterator<Item = Vec<u8>>) -> HashMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows: HashMap<_, Vec<_>> = HashMap::new();
    for mut packet in packets {
        let v6 = packet[0] >> 4 == 6;
        if !v6 && packet[6] & 0x40 != 0 {
            packet[4..6].fill(0);
            packet[10..12].fill(0);
        }
        let (from, to) = if v6 { (6, 44) } else { (9, 24) };
        let mut key = packet[from..to].to_vec();
        if !v6 {
            key.drain(1..3);
        }
        flows.entry(key).or_default().push(packet);
    }
    flows
}

/// Traffic as a turn brings it: bursts of a few flows, mixed, with irregularities.
fn traffic() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let event = (
        0usize..6,
        1usize..12,
        0u8..16,
        prop_oneof![Just(1380usize), 1usize..1380],
    );
    prop::collection::vec(event, 1..60).prop_map(|events| {
        let mut flows: Vec<Spec> = (0..6u8)
            .map(|flow| Spec {
                v6: flow & 1 == 1,
                udp: flow >= 4,
                source: flow / 2,
                dont_fragment: flow != 2,
                sequence: u32::MAX - 5000,
                ..Spec::default()
            })
            .collect();
        let mut packets = Vec::new();
        for (flow, count, odd, size) in events {
            let spec = &mut flows[flow];
            for place in 0..count {
                spec.payload = vec![place as u8; size];
                let mut one = spec.clone();
                if place + 1 == count {
                    match odd {
                        0 => one.flags |= PSH,
                        1 => one.flags |= 1, // FIN
                        2 => one.tos = 3,
                        3 => one.payload.clear(),
                        4 => one.tcp_options = vec![1, 1, 1, 1],
                        5 => one.window += 1,
                        6 => one.ttl -= 1,
                        7 => one.sequence = one.sequence.wrapping_sub(3000), // sent again
                        8 => one.payload.truncate(size / 2),
                        9 => one.flags |= 0x40, // ECE
                        _ => {}
                    }
                }
                spec.sequence = spec.sequence.wrapping_add(one.payload.len() as u32);
                spec.ip_id = spec.ip_id.wrapping_add(1);
                let mut bytes = one.build();
                match odd {
                    // Damaged on the way.
                    10 if place + 1 == count => *bytes.last_mut().unwrap() ^= 0x55,
                    // A UDP packet without a checksum, or a damaged TCP one.
                    11 if place == 0 && !one.v6 => bytes[20 + 6..20 + 8].fill(0),
                    // Bytes beyond the packet.
                    12 if place == 0 => bytes.push(0),
                    // A fragment.
                    13 if place == 0 && !one.v6 => bytes[6] |= 0x20,
                    _ => {}
                }
                packets.push(bytes);
            }
        }
        packets
    })
}

proptest! {
    /// The whole of it: whatever is joined, the kernel takes apart into the packets that came,
    /// each flow in its order; and nothing damaged gets a right checksum.
    #[test]
    fn splitting_gives_back_what_was_joined(packets in traffic()) {
        let came_out: Vec<_> = join(&packets).iter().flat_map(Write::segments).collect();
        prop_assert_eq!(came_out.len(), packets.len());
        prop_assert_eq!(by_flow(came_out), by_flow(packets));
    }

    #[test]
    fn any_bytes_come_out_as_they_went_in(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..80), 1..40)) {
        let came_out: Vec<_> = join(&packets).into_iter().map(|write| write.bytes).collect();
        prop_assert_eq!(came_out, packets);
    }

    #[test]
    fn a_joiner_is_as_good_as_new_after_a_turn(first in traffic(), second in traffic()) {
        let mut joiner = Joiner::new(ALL);
        join_with(&mut joiner, &first);
        let again: Vec<_> = join_with(&mut joiner, &second).into_iter().map(|write| write.bytes).collect();
        let fresh: Vec<_> = join(&second).into_iter().map(|write| write.bytes).collect();
        prop_assert_eq!(again, fresh);
    }

    #[test]
    fn a_super_packet_that_was_split_is_joined_to_itself(
        spec in testing::spec(60_000), segment_size in 700usize..1400,
    ) {
        let spec = Spec { flags: ACK | PSH, ip_options: Vec::new(), ..spec };
        let super_packet = spec.build();
        let header = VnetHeader {
            gso: match (spec.udp, spec.v6) {
                (true, _) => Gso::Udp,
                (false, false) => Gso::TcpV4,
                (false, true) => Gso::TcpV6,
            },
            segment_size: segment_size as u16,
            ..VnetHeader::PLAIN
        };
        let mut bytes = super_packet.clone();
        let mut packets = Vec::new();
        SuperPacket::parse(header, &mut bytes).unwrap().for_each_segment(|segment| packets.push(segment.to_vec()));
        let writes = join(&packets);
        let mut expected = super_packet;
        if packets.len() > 1 && !(spec.udp && packets.len() > MAX_UDP_MEMBERS) {
            spec.leave_checksum(&mut expected);
            prop_assert_eq!(writes.len(), 1);
            prop_assert_eq!(&writes[0].bytes, &expected);
            prop_assert_eq!(usize::from(writes[0].header.segment_size), segment_size);
        }
    }
}

#[test]
fn a_transfer_becomes_one_write() {
    for (v6, udp) in [(false, false), (true, false), (false, true), (true, true)] {
        let first = Spec {
            v6,
            udp,
            payload: vec![3; 1300],
            ..Spec::default()
        };
        assert_eq!(shape(&transfer(&first, 40)), [40], "v6 {v6}, udp {udp}");
    }
}

#[test]
fn two_transfers_that_alternate_become_two_writes() {
    let one = transfer(&Spec::default(), 10);
    let other = transfer(
        &Spec {
            port: 1,
            ..Spec::default()
        },
        10,
    );
    let mixed: Vec<_> = one
        .into_iter()
        .zip(other)
        .flat_map(|(a, b)| [a, b])
        .collect();
    assert_eq!(shape(&mixed), [10, 10]);
}

#[test]
fn push_and_a_short_one_end_a_group_and_are_part_of_it() {
    let mut packets = transfer(&Spec::default(), 6);
    packets[2].flags |= PSH;
    packets[5].payload.truncate(10);
    assert_eq!(shape(&packets), [3, 3]);
    let writes = join(&packets.iter().map(Spec::build).collect::<Vec<_>>());
    assert_eq!(writes[0].bytes[20 + 13], ACK | PSH);
    assert_eq!(writes[1].bytes[20 + 13], ACK);
}

#[test]
fn whatever_differs_stays_apart_and_in_order() {
    let changes: [fn(&mut Spec); 13] = [
        |spec| spec.acknowledgement += 1,
        |spec| spec.window += 1,
        |spec| spec.tos = 8,
        // Congestion marks: in the IP header, and said back by TCP.
        |spec| spec.tos = 2,
        |spec| spec.tos = 3,
        |spec| spec.flags |= 0x40,
        |spec| spec.ttl -= 1,
        |spec| spec.tcp_options = vec![1; 12],
        |spec| spec.sequence += 1,
        |spec| spec.payload.push(0),
        |spec| spec.flags |= 1,
        |spec| spec.flags |= 0x80,
        |spec| spec.dont_fragment = false,
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut packets = transfer(&Spec::default(), 3);
        change(&mut packets[1]);
        let packets: Vec<_> = packets.iter().map(Spec::build).collect();
        let came_out: Vec<_> = join(&packets)
            .into_iter()
            .map(|write| write.bytes)
            .collect();
        assert_eq!(came_out, packets, "change {number}");
    }
}

/// A mark belongs to its packet: a receiver counts them (RFC 3168, RFC 8257). Equal ones are
/// joined, so that a path that marks much costs no more.
#[test]
fn only_packets_with_the_same_mark_are_joined() {
    for (v6, udp) in [(false, false), (true, false), (false, true), (true, true)] {
        let first = Spec {
            v6,
            udp,
            tos: 2,
            ..Spec::default()
        };
        let mut packets = transfer(&first, 10);
        packets[3].tos = 3;
        packets[8].tos = 3;
        packets[9].tos = 3;
        assert_eq!(shape(&packets), [3, 1, 4, 2], "v6 {v6}, udp {udp}");
        let packets: Vec<_> = packets.iter().map(Spec::build).collect();
        let came_out: Vec<_> = join(&packets).iter().flat_map(Write::segments).collect();
        assert_eq!(by_flow(came_out), by_flow(packets));
    }
}

/// What TCP says back, at most once a window, is never in a super-packet.
#[test]
fn congestion_answers_are_never_joined() {
    for flag in [0x40, 0x80] {
        let mut packets = transfer(&Spec::default(), 4);
        packets[1].flags |= flag;
        packets[2].flags |= flag;
        assert_eq!(shape(&packets), [1, 1, 1, 1], "flag {flag:#x}");
    }
}

#[test]
fn a_damaged_packet_is_not_laundered() {
    for damaged in 0..3 {
        let mut packets: Vec<_> = transfer(&Spec::default(), 3)
            .iter()
            .map(Spec::build)
            .collect();
        *packets[damaged].last_mut().unwrap() ^= 1;
        let came_out: Vec<_> = join(&packets).iter().flat_map(Write::segments).collect();
        assert_eq!(came_out[damaged], packets[damaged]);
        assert!(!testing::checksums_are_right(&came_out[damaged]));
    }
}

#[test]
fn nothing_passes_a_packet_that_could_be_of_any_flow() {
    let mut packets: Vec<_> = transfer(&Spec::default(), 3)
        .iter()
        .map(Spec::build)
        .collect();
    packets.insert(1, vec![0x45, 0, 0, 20]);
    let came_out: Vec<_> = join(&packets).iter().flat_map(Write::segments).collect();
    assert_eq!(came_out, packets);
}

#[test]
fn without_support_udp_stays_apart_and_tcp_does_not() {
    let mut joiner = Joiner::new(Joinable {
        tcp: true,
        udp: false,
    });
    let tcp = transfer(&Spec::default(), 4);
    let udp = transfer(
        &Spec {
            udp: true,
            ..Spec::default()
        },
        4,
    );
    let packets: Vec<_> = tcp.iter().chain(&udp).map(Spec::build).collect();
    let members: Vec<_> = join_with(&mut joiner, &packets)
        .iter()
        .map(|write| write.members)
        .collect();
    assert_eq!(members, [4, 1, 1, 1, 1]);
}

#[test]
fn as_many_flows_as_packets_find_their_groups() {
    let flows: Vec<_> = (0..MAX_PACKETS as u16 / 2)
        .map(|port| Spec {
            port,
            payload: vec![1; 10],
            ..Spec::default()
        })
        .collect();
    let next = flows.iter().map(|spec| Spec {
        sequence: spec.sequence + 10,
        ..spec.clone()
    });
    let packets: Vec<_> = flows.iter().cloned().chain(next).collect();
    assert_eq!(shape(&packets), vec![2; MAX_PACKETS / 2]);
}

#[test]
fn a_full_joiner_ignores_what_it_has_no_room_for() {
    let mut joiner = Joiner::new(ALL);
    for _ in 0..MAX_PACKETS {
        assert!(joiner.has_room());
        joiner.slot()[0] = 0;
        joiner.commit(1);
    }
    assert!(!joiner.has_room());
    joiner.commit(1);
    let mut count = 0;
    joiner.drain(|joined| count += joined.members());
    assert_eq!(count, MAX_PACKETS);
}
