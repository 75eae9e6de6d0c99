use super::*;
use crate::testing::{self, Spec, checksums_are_right};
use proptest::prelude::*;

/// What a super-packet must become, the slow way: each segment is built from nothing.
fn oracle(spec: &Spec, segment_size: usize) -> Vec<Vec<u8>> {
    let pieces: Vec<&[u8]> = spec.payload.chunks(segment_size).collect();
    let count = pieces.len();
    pieces
        .into_iter()
        .enumerate()
        .map(|(place, piece)| {
            let mut one = spec.clone();
            one.payload = piece.to_vec();
            one.ip_id = spec.ip_id.wrapping_add(place as u16);
            one.sequence = spec.sequence.wrapping_add((place * segment_size) as u32);
            if place + 1 < count {
                one.flags &= !(FIN | PSH);
            }
            if place > 0 {
                one.flags &= !CWR;
            }
            one.build()
        })
        .collect()
}

fn header(spec: &Spec, segment_size: usize) -> VnetHeader {
    VnetHeader {
        gso: match (spec.udp, spec.v6) {
            (true, _) => Gso::Udp,
            (false, false) => Gso::TcpV4,
            (false, true) => Gso::TcpV6,
        },
        needs_checksum: true,
        header_len: 0xffff, // wrong on the forward path, so it must not matter
        segment_size: segment_size as u16,
        checksum_start: spec.ip_len() as u16,
        checksum_offset: if spec.udp { 6 } else { 16 },
    }
}

fn split(header: VnetHeader, bytes: &mut [u8]) -> Result<Vec<Vec<u8>>, SplitError> {
    let packet = SuperPacket::parse(header, bytes)?;
    let (segments, longest, total) = (packet.segments(), packet.segment_len(), packet.total_len());
    let mut out = Vec::new();
    packet.for_each_segment(|segment| out.push(segment.to_vec()));
    assert_eq!(out.len(), segments);
    assert_eq!(out.iter().map(Vec::len).max(), Some(longest));
    assert_eq!(out.iter().map(Vec::len).sum::<usize>(), total);
    Ok(out)
}

proptest! {
    #[test]
    fn a_super_packet_becomes_what_the_sender_would_have_sent(
        spec in testing::spec(20_000),
        segment_size in prop_oneof![1usize..60, 500usize..1500],
    ) {
        let mut bytes = spec.build();
        let segments = split(header(&spec, segment_size), &mut bytes).unwrap();
        prop_assert_eq!(&segments, &oracle(&spec, segment_size));
        for segment in &segments {
            prop_assert!(checksums_are_right(segment));
        }
    }

    /// What is left is the same super-packet without its last packet.
    #[test]
    fn a_super_packet_can_lose_its_last_packet(
        spec in testing::spec(20_000),
        segment_size in 500usize..1500,
    ) {
        let mut bytes = spec.build();
        let mut packet = SuperPacket::parse(header(&spec, segment_size), &mut bytes).unwrap();
        let mut wanted = oracle(&spec, segment_size);
        let ends = !spec.udp && spec.flags & FIN != 0;
        prop_assert_eq!(packet.shed_last(), wanted.len() > 1 && !ends);
        if wanted.len() > 1 && !ends {
            wanted.pop();
            let shorter = packet.packet().len();
            let ip = if spec.v6 { shorter - 40 } else { shorter };
            let length = if spec.v6 { 4..6 } else { 2..4 };
            prop_assert_eq!(&packet.packet()[length], &(ip as u16).to_be_bytes());
        }
        let mut out = Vec::new();
        packet.for_each_segment(|segment| out.push(segment.to_vec()));
        // The last one that is left may now say what the lost one said.
        if let (Some(last), false) = (wanted.last_mut(), spec.udp) {
            let flags = if spec.v6 { 40 } else { spec.ip_len() } + 13;
            let said = out[out.len() - 1][flags];
            prop_assert_eq!(last[flags] & !PSH, said & !PSH);
            *last = out[out.len() - 1].clone();
        }
        prop_assert_eq!(&out, &wanted);
        prop_assert!(out.iter().all(|segment| checksums_are_right(segment)));
    }

    #[test]
    fn a_checksum_left_to_us_is_completed(spec in testing::spec(1400)) {
        let whole = spec.build();
        let mut bytes = whole.clone();
        spec.leave_checksum(&mut bytes);
        let header = VnetHeader { gso: Gso::None, ..header(&spec, 0) };
        prop_assert_eq!(split(header, &mut bytes).unwrap(), vec![whole]);
    }

    /// Neither a hostile program on the host nor a kernel bug brings us down.
    #[test]
    fn any_bytes_under_any_header_are_split_or_refused(
        mut header_bytes in any::<[u8; crate::virtio::HEADER]>(),
        kind in prop_oneof![Just(0u8), Just(1), Just(4), Just(5), any::<u8>()],
        mut bytes in prop::collection::vec(any::<u8>(), 0..200),
        first in prop_oneof![Just(0x45u8), Just(0x46), Just(0x60), any::<u8>()],
    ) {
        header_bytes[1] = kind;
        if let Some(byte) = bytes.first_mut() {
            *byte = first;
        }
        let _ = split(VnetHeader::parse(&header_bytes), &mut bytes);
    }

    /// The same, near the truth: one byte of a right super-packet is wrong.
    #[test]
    fn a_damaged_super_packet_is_split_or_refused(
        spec in testing::spec(3000), at in 0usize..60, value in any::<u8>(), cut in 0usize..3000,
    ) {
        let mut bytes = spec.build();
        let header = header(&spec, 500);
        if let Some(byte) = bytes.get_mut(at) {
            *byte = value;
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len()) / 2);
        let _ = split(header, &mut bytes);
    }
}

/// RFC 3168, section 6.1.2: "window reduced" is said once; everything else about congestion is
/// true of every segment. The kernel marks such a super-packet in its virtio header.
#[test]
fn congestion_marks_are_in_every_segment_and_cwr_only_in_the_first() {
    const ECE: u8 = 0x40;
    const ACK: u8 = 0x10;
    for v6 in [false, true] {
        let spec = Spec {
            v6,
            tos: 0xb8 | 0b11,
            flags: ACK | PSH | ECE | CWR,
            payload: vec![1; 3000],
            ..Spec::default()
        };
        let mut virtio = header(&spec, 1000).to_bytes();
        virtio[1] |= 0x80; // VIRTIO_NET_HDR_GSO_ECN
        let segments = split(VnetHeader::parse(&virtio), &mut spec.build()).unwrap();
        assert!(segments.iter().all(|segment| checksums_are_right(segment)));
        let traffic_class = |segment: &[u8]| match v6 {
            false => segment[1],
            true => segment[0] << 4 | segment[1] >> 4,
        };
        assert_eq!(
            segments
                .iter()
                .map(|segment| (traffic_class(segment), segment[spec.ip_len() + 13]))
                .collect::<Vec<_>>(),
            [
                (0xbb, ACK | ECE | CWR),
                (0xbb, ACK | ECE),
                (0xbb, ACK | ECE | PSH)
            ]
        );
    }
}

#[test]
fn what_cannot_be_split_is_named() {
    let spec = Spec {
        payload: vec![1; 3000],
        ..Spec::default()
    };
    let good = spec.build();
    let header = header(&spec, 1000);
    let refuse = |header: VnetHeader, change: &dyn Fn(&mut Vec<u8>)| {
        let mut bytes = good.clone();
        change(&mut bytes);
        split(header, &mut bytes).unwrap_err()
    };
    let unchanged: &dyn Fn(&mut Vec<u8>) = &|_| {};
    assert_eq!(
        refuse(header, &|bytes| bytes.truncate(30)),
        SplitError::Truncated
    );
    assert_eq!(
        refuse(header, &|bytes| bytes.clear()),
        SplitError::Truncated
    );
    assert_eq!(
        refuse(header, &|bytes| bytes.push(0)),
        SplitError::BadLength
    );
    assert_eq!(
        refuse(header, &|bytes| bytes[0] = 0x65),
        SplitError::WrongKind
    );
    assert_eq!(
        refuse(header, &|bytes| bytes[9] = 17),
        SplitError::WrongKind
    );
    assert_eq!(
        refuse(header, &|bytes| bytes[0] = 0x44),
        SplitError::BadHeader
    );
    assert_eq!(
        refuse(header, &|bytes| bytes[32] = 0x40),
        SplitError::BadHeader
    );
    assert_eq!(
        refuse(header, &|bytes| bytes[6] = 0x20),
        SplitError::Fragment
    );
    let size = VnetHeader {
        segment_size: 0,
        ..header
    };
    assert_eq!(refuse(size, unchanged), SplitError::NoSegmentSize);
    let kind = VnetHeader {
        gso: Gso::Other(3),
        ..header
    };
    assert_eq!(refuse(kind, unchanged), SplitError::UnknownKind(3));
    let place = VnetHeader {
        gso: Gso::None,
        checksum_start: 2999,
        checksum_offset: 60,
        ..header
    };
    assert_eq!(refuse(place, unchanged), SplitError::BadChecksumPlace);
}
