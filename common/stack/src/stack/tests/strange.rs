//! Whatever comes, the stack stays in order: its bounds hold, and others are served.

use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_bytes_are_survived(
        packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..50),
        flips in proptest::collection::vec((0_usize..80, any::<u8>()), 0..8),
    ) {
        let mut world = World::new(Faults::default(), 5);
        let mut syn = Vec::new();
        let to = SocketAddr::new(server_address(), PORT);
        let now = world.now;
        world.client.connect(world.key, to, now).expect("room");
        world.client.transmit(now, |_, packet| syn = packet.to_vec());
        for packet in &packets {
            world.server.receive(tag(3), None, packet, now);
        }
        // A packet that is nearly right goes further than a random one.
        for (place, byte) in flips {
            if let Some(changed) = syn.get_mut(place) {
                *changed ^= byte;
            }
            let mut correct = syn.clone();
            mend(&mut correct);
            for packet in [&syn, &correct] {
                world.server.receive(tag(2), None, packet, now);
                world.server.receive(tag(3), None, packet, now);
                world.server.transmit(now, |_, _| ());
            }
        }
        prop_assert!(world.server.counters().connections <= 2 * Limits::SERVER.per_tag);
        world.client = client(4);
        world.key = tag(4);
        world.connected_beside_others();
    }

    /// The same in the middle of a conversation.
    #[test]
    fn any_segment_of_a_connection_is_survived(
        flips in proptest::collection::vec((40_usize..100, any::<u8>()), 1..10),
    ) {
        let mut world = World::new(Faults::default(), 5);
        let (ours, theirs) = world.connected();
        let now = world.now;
        world.client.write(ours, &[7; 40], now).expect("open");
        let mut segment = Vec::new();
        world.client.transmit(now, |_, packet| segment = packet.to_vec());
        for (place, byte) in flips {
            segment[place] ^= byte;
            let mut correct = segment.clone();
            mend(&mut correct);
            world.server.receive(tag(2), None, &correct, now);
            let mut room = [0; 100];
            let _ = world.server.read(theirs, &mut room, now);
            let _ = world.server.write(theirs, &[1; 100], now);
            world.server.transmit(now, |_, _| ());
        }
        prop_assert!(world.server.counters().connections <= 2);
    }
}

/// Makes the TCP checksum of an IPv6 packet right (RFC 8200, section 8.1).
fn mend(packet: &mut [u8]) {
    if packet.len() < 60 || packet[0] >> 4 != 6 {
        return;
    }
    packet[56..58].fill(0);
    let (header, segment) = packet.split_at(40);
    let words = header[8..40].chunks(2).chain(segment.chunks(2));
    let sum: u32 = words
        .map(|word| {
            let low = word.get(1).copied().unwrap_or(0);
            u32::from(u16::from_be_bytes([word[0], low]))
        })
        .sum::<u32>()
        + u32::try_from(segment.len()).expect("short")
        + 6;
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let checksum = !u16::try_from(folded).expect("folded twice");
    packet[56..58].copy_from_slice(&checksum.to_be_bytes());
}
