//! Who waits in line behind whom.

use super::Class;
use crate::hash::mix;

impl Class {
    /// Of an inner packet: its host is where it goes to, its flow the 5-tuple as far as it has
    /// one. Anything that is no IP packet is one flow.
    #[must_use]
    pub fn of_packet(packet: &[u8], seed: u64) -> Class {
        let (addresses, protocol, transport) = match packet.first().map(|first| first >> 4) {
            Some(4) if packet.len() >= 20 => {
                let header = usize::from(packet[0] & 0xf) * 4;
                // Only the first fragment has ports; all of them must stay in order.
                let whole = packet[6] & 0x3f == 0 && packet[7] == 0;
                let transport = packet.get(header..header + 4).filter(|_| whole);
                (&packet[12..20], packet[9], transport)
            }
            Some(6) if packet.len() >= 40 => (&packet[8..40], packet[6], packet.get(40..44)),
            _ => return Class::default(),
        };
        let (source, destination) = addresses.split_at(addresses.len() / 2);
        let host = hash(seed, destination);
        let mut flow = hash(mix(host, u64::from(protocol)), source);
        // The protocols that have ports, and so many flows between two hosts.
        if let (6 | 17, Some(ports)) = (protocol, transport) {
            flow = hash(flow, ports);
        }
        Class { host, flow }
    }

    /// Of a datagram: its peer, as the receiver index names it, whatever the session. What has no
    /// receiver index is one flow of each kind.
    #[must_use]
    pub fn of_datagram(datagram: &[u8], seed: u64) -> Class {
        let peer = match (datagram.first(), datagram.get(4..8)) {
            // The low byte counts sessions, the top bit says which end asked for this one.
            (Some(4), Some(&[_, low, middle, high])) => {
                u64::from_le_bytes([low, middle, high & 0x7f, 0, 0, 0, 0, 0])
            }
            (Some(kind), _) => 1 << 32 | u64::from(*kind),
            (None, _) => 1 << 32,
        };
        let flow = mix(seed, peer);
        Class { host: flow, flow }
    }
}

fn hash(seed: u64, bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(seed, |hash, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash, u64::from_le_bytes(word))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flows_are_told_apart_and_fragments_are_not() {
        let packet = |ports: [u8; 4], last: u8, fragment: u8| {
            let mut packet = vec![0; 40];
            packet[0] = 0x45;
            packet[6] = fragment;
            packet[9] = 6;
            packet[12..16].copy_from_slice(&[10, 0, 0, 1]);
            packet[16..20].copy_from_slice(&[10, 0, 0, last]);
            packet[20..24].copy_from_slice(&ports);
            Class::of_packet(&packet, 7)
        };
        let one = packet([1, 2, 3, 4], 2, 0);
        assert_eq!(one, packet([1, 2, 3, 4], 2, 0x40), "don't fragment");
        assert_eq!(one.host, packet([1, 2, 3, 5], 2, 0).host);
        assert_ne!(one.flow, packet([1, 2, 3, 5], 2, 0).flow);
        assert_ne!(one.host, packet([1, 2, 3, 4], 3, 0).host);
        assert_eq!(packet([1, 2, 3, 4], 2, 0x20), packet([9; 4], 2, 0x20));
        for bad in [&[][..], &[0x45], &[0x60; 39], &[0x10; 60]] {
            assert_eq!(Class::of_packet(bad, 7), Class::default());
        }
    }

    #[test]
    fn a_peer_keeps_its_place_through_a_rekey() {
        let data = |index: u32| {
            let mut datagram = vec![4, 0, 0, 0];
            datagram.extend(index.to_le_bytes());
            datagram.extend([0; 24]);
            Class::of_datagram(&datagram, 7)
        };
        assert_eq!(data(0x0000_0501), data(0x0000_0502));
        assert_eq!(data(0x0000_0501), data(0x8000_0502));
        assert_ne!(data(0x0000_0501), data(0x0000_0601));
        let handshake = Class::of_datagram(&[1; 148], 7);
        assert_ne!(handshake, Class::of_datagram(&[2; 92], 7));
        assert_eq!(handshake, Class::of_datagram(&[1, 9], 7));
    }
}
