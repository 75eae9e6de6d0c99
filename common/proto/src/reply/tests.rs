use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("literal address")
}

/// Verifies every checksum of a packet with etherparse, which shares no code with ours.
fn assert_valid(bytes: &[u8]) {
    let packet = etherparse::SlicedPacket::from_ip(bytes).expect("parses");
    let net = packet.net.expect("has an IP header");
    if let etherparse::NetSlice::Ipv4(v4) = &net {
        let header = v4.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
    }
    let sum = match (packet.transport.expect("has a transport"), &net) {
        (etherparse::TransportSlice::Tcp(tcp), etherparse::NetSlice::Ipv4(v4)) => (
            tcp.checksum(),
            tcp.calc_checksum_ipv4(v4.header().source(), v4.header().destination()),
        ),
        (etherparse::TransportSlice::Tcp(tcp), etherparse::NetSlice::Ipv6(v6)) => (
            tcp.checksum(),
            tcp.calc_checksum_ipv6(v6.header().source(), v6.header().destination()),
        ),
        (etherparse::TransportSlice::Udp(udp), etherparse::NetSlice::Ipv4(v4)) => {
            let header = udp.to_header();
            (
                udp.checksum(),
                header.calc_checksum_ipv4(&v4.header().to_header(), udp.payload()),
            )
        }
        (etherparse::TransportSlice::Udp(udp), etherparse::NetSlice::Ipv6(v6)) => {
            let header = udp.to_header();
            (
                udp.checksum(),
                header.calc_checksum_ipv6(&v6.header().to_header(), udp.payload()),
            )
        }
        (etherparse::TransportSlice::Icmpv4(icmp), _) => (
            icmp.checksum(),
            Ok(icmp.icmp_type().calc_checksum(icmp.payload())),
        ),
        (etherparse::TransportSlice::Icmpv6(icmp), etherparse::NetSlice::Ipv6(v6)) => {
            let header = v6.header();
            (
                icmp.checksum(),
                icmp.icmp_type().calc_checksum(
                    header.source(),
                    header.destination(),
                    icmp.payload(),
                ),
            )
        }
        (other, _) => panic!("unexpected transport {other:?}"),
    };
    assert_eq!(Ok(sum.0), sum.1);
}

#[test]
fn checksums_are_right_in_both_families() {
    for (a, b) in [("100.96.0.2", "192.0.2.10"), ("fd00::2", "2001:db8::10")] {
        let (client, target) = ((ip(a), 4000), (ip(b), 22));
        let mut out = [0; 512];
        let len = tcp_reset(target, client, 17, Some(4), &mut out).expect("room");
        assert_valid(&out[..len]);
        let len = udp(client, target, b"odd", &mut out).expect("room");
        assert_valid(&out[..len]);
        let asked = out[..len].to_vec();
        let view = PacketView::parse(&asked).expect("own packet");
        let len = prohibit(&view, &mut out).expect("room");
        assert_valid(&out[..len]);
    }
}

#[test]
fn a_syn_is_refused_as_a_closed_port_would() {
    let mut syn = [0; 64];
    let len = tcp_reset(
        (ip("100.96.0.2"), 4000),
        (ip("192.0.2.10"), 22),
        41,
        None,
        &mut syn,
    )
    .expect("room");
    syn[33] = TcpFlags::SYN.0;
    let view = PacketView::parse(&syn[..len]).expect("valid");
    let mut out = [0; REPLY_ROOM];
    let len = refuse(&view, &mut out).expect("an answer");
    let answer = PacketView::parse(&out[..len]).expect("own packet");
    let tcp = answer.tcp().expect("tcp");
    assert_eq!((tcp.sequence, tcp.acknowledgment), (0, 42));
    assert!(tcp.flags.has(TcpFlags::RST) && tcp.flags.has(TcpFlags::ACK));
    assert_eq!(
        (answer.source, answer.destination),
        (view.destination, view.source)
    );
}

#[test]
fn nothing_answers_a_reset_or_an_error() {
    let mut out = [0; REPLY_ROOM];
    let mut reset = [0; 64];
    let len = tcp_reset(
        (ip("100.96.0.2"), 4000),
        (ip("192.0.2.10"), 22),
        41,
        None,
        &mut reset,
    )
    .expect("room");
    assert_eq!(
        refuse(&PacketView::parse(&reset[..len]).expect("valid"), &mut out),
        None
    );
    let key = FlowKey::new(Protocol::Udp, (ip("100.96.0.2"), 1), (ip("192.0.2.10"), 2));
    let mut error = [0; REPLY_ROOM];
    let len = prohibit_flow(&key, false, &mut error).expect("room");
    assert_eq!(
        refuse(&PacketView::parse(&error[..len]).expect("valid"), &mut out),
        None
    );
}

#[test]
fn a_cut_flow_is_told_with_its_own_tuple() {
    let key = FlowKey::new(Protocol::Icmp, (ip("fd00::2"), 77), (ip("2001:db8::1"), 0));
    let mut out = [0; REPLY_ROOM];
    let len = prohibit_flow(&key, false, &mut out).expect("room");
    assert_valid(&out[..len]);
    let view = PacketView::parse(&out[..len]).expect("own packet");
    let Transport::Error {
        about: Some(about), ..
    } = view.transport
    else {
        panic!("{:?}", view.transport)
    };
    assert_eq!(about.source, (ip("fd00::2"), 77));
}

#[test]
fn mss_is_clamped_with_a_valid_checksum_at_any_alignment() {
    for leading_nops in 0..3_usize {
        let mut options = vec![1_u8; leading_nops];
        options.extend([2, 4, 0x23, 0x28]); // MSS 9000
        options.resize(8, 0);
        let builder = etherparse::PacketBuilder::ipv4([100, 96, 0, 2], [192, 0, 2, 10], 64)
            .tcp(1, 2, 3, 4)
            .syn()
            .options_raw(&options)
            .expect("valid options");
        let mut packet = Vec::new();
        builder.write(&mut packet, &[]).expect("writes");
        clamp_mss(&mut packet, 1420);
        assert_valid(&packet);
        let at = 40 + leading_nops;
        assert_eq!(packet[at..at + 4], [2, 4, 0x05, 0x64], "1380");
        let before = packet.clone();
        clamp_mss(&mut packet, 1420);
        assert_eq!(packet, before, "a small one is left alone");
    }
}

#[test]
fn mss_clamping_survives_any_bytes() {
    for len in 0..80 {
        for fill in [0_u8, 2, 6, 0x45, 0x60, 0xff] {
            let mut bytes = vec![fill; len];
            clamp_mss(&mut bytes, 1280);
        }
    }
}

#[test]
fn too_big_is_told_as_a_router_would() {
    for (device, target) in [("100.96.0.2", "192.0.2.10"), ("fd00::2", "2001:db8::10")] {
        let mut out = [0; 256];
        let mut big = [0; 1500];
        let len =
            udp_padded((ip(target), 22), (ip(device), 4000), b"x", 1400, &mut big).expect("room");
        let view = PacketView::parse(&big[..len]).expect("own packet");
        let len = too_big(&view, 1328, &mut out).expect("it must not be fragmented");
        assert_valid(&out[..len]);
        let answer = PacketView::parse(&out[..len]).expect("own packet");
        assert_eq!(
            (answer.source, answer.destination),
            (ip(device), ip(target))
        );
        let Transport::Error {
            about: Some(about),
            too_big: true,
        } = answer.transport
        else {
            panic!("{answer:?}");
        };
        assert_eq!(about.source, (ip(target), 22));
        assert_eq!(about.destination, (ip(device), 4000));
        let word = answer.transport_bytes()[4..8].to_vec();
        assert_eq!(word, 1328_u32.to_be_bytes());
    }
}

#[test]
fn what_may_be_fragmented_is_never_too_big() {
    let mut packet = [0; 100];
    let len = udp(
        (ip("192.0.2.10"), 1),
        (ip("100.96.0.2"), 1),
        b"x",
        &mut packet,
    )
    .expect("room");
    packet[6] = 0;
    packet[10] = 0;
    packet[11] = 0;
    let sum = checksum(&packet[..20], 0);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    let view = PacketView::parse(&packet[..len]).expect("proved");
    assert_eq!(too_big(&view, 1280, &mut [0; 256]), None);
}
