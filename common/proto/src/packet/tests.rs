use super::*;
use crate::reply;

fn v4(text: &str) -> IpAddr {
    text.parse().expect("literal address")
}

fn udp4(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 1500];
    let len = reply::udp(
        (v4("100.96.0.2"), 4000),
        (v4("192.0.2.10"), 53),
        payload,
        &mut out,
    )
    .expect("room");
    out.truncate(len);
    out
}

fn udp6(payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0; 1500];
    let len = reply::udp(
        (v4("fd00::2"), 4000),
        (v4("2001:db8::10"), 53),
        payload,
        &mut out,
    )
    .expect("room");
    out.truncate(len);
    out
}

fn syn4() -> Vec<u8> {
    let mut out = vec![0; 64];
    let len = reply::tcp_reset(
        (v4("100.96.0.2"), 4000),
        (v4("192.0.2.10"), 22),
        7,
        None,
        &mut out,
    )
    .expect("room");
    out.truncate(len);
    out[33] = TcpFlags::SYN.0;
    out
}

fn refused(bytes: &[u8]) -> DropReason {
    PacketView::parse(bytes).expect_err("must be refused")
}

#[test]
fn a_whole_packet_is_read_as_it_stands() {
    let bytes = udp4(b"query");
    let view = PacketView::parse(&bytes).expect("valid");
    let key = view.key_from_device().expect("udp has ports");
    assert_eq!(format!("{key:?}"), "udp 100.96.0.2:4000 > 192.0.2.10:53");
    assert_eq!(&view.transport_bytes()[8..], b"query");
}

#[test]
fn both_directions_name_one_flow() {
    let mut back = vec![0; 100];
    let len = reply::udp(
        (v4("192.0.2.10"), 53),
        (v4("100.96.0.2"), 4000),
        b"",
        &mut back,
    )
    .expect("room");
    let out = udp4(b"");
    let there = PacketView::parse(&out).expect("valid").key_from_device();
    let here = PacketView::parse(&back[..len])
        .expect("valid")
        .key_from_target();
    assert_eq!(there, here);
}

#[test]
fn every_truncation_is_refused() {
    for whole in [udp4(b"some payload"), udp6(b"some payload"), syn4()] {
        for len in 0..whole.len() {
            let reason = refused(&whole[..len]);
            assert!(
                matches!(reason, DropReason::Truncated | DropReason::BadLength),
                "{len} bytes: {reason:?}"
            );
        }
    }
}

#[test]
fn trailing_bytes_are_refused() {
    for mut whole in [udp4(b"x"), udp6(b"x"), syn4()] {
        whole.push(0);
        assert_eq!(refused(&whole), DropReason::BadLength);
    }
}

#[test]
fn a_zero_ipv6_payload_length_is_no_jumbogram() {
    let mut bytes = udp6(b"hidden");
    bytes[4..6].fill(0);
    assert_eq!(refused(&bytes), DropReason::BadLength);
}

#[test]
fn a_udp_length_that_disagrees_is_refused() {
    let mut bytes = udp4(b"payload");
    bytes[25] -= 1;
    assert_eq!(refused(&bytes), DropReason::BadLength);
}

#[test]
fn fragments_are_refused_first_and_later() {
    let mut first = udp4(b"x");
    first[6] = 0x20;
    assert_eq!(refused(&first), DropReason::Fragment);
    let mut later = udp4(b"x");
    later[7] = 1;
    assert_eq!(refused(&later), DropReason::Fragment);
    let mut v6 = udp6(b"x");
    v6[6] = 44;
    assert_eq!(refused(&v6), DropReason::Fragment);
}

#[test]
fn options_and_extension_headers_are_refused() {
    let mut options = udp4(b"abcd");
    options[0] = 0x46;
    assert_eq!(refused(&options), DropReason::ExtensionHeader);
    for next in [0, 43, 50, 51, 60, 135] {
        let mut bytes = udp6(b"abcdefgh");
        bytes[6] = next;
        assert_eq!(refused(&bytes), DropReason::ExtensionHeader);
    }
}

#[test]
fn a_tcp_offset_beyond_the_packet_is_refused() {
    let mut bytes = syn4();
    bytes[32] = 15 << 4;
    assert_eq!(refused(&bytes), DropReason::BadHeader);
    bytes[32] = 4 << 4;
    assert_eq!(refused(&bytes), DropReason::BadHeader);
}

#[test]
fn contradicting_flags_are_refused() {
    for flags in [0, 3, 6, 8] {
        let mut bytes = syn4();
        bytes[33] = flags;
        assert_eq!(refused(&bytes), DropReason::BadHeader, "flags {flags:#x}");
    }
}

#[test]
fn addresses_that_name_no_single_host_are_refused() {
    for address in [
        [224, 0, 0, 1],
        [255, 255, 255, 255],
        [127, 0, 0, 1],
        [169, 254, 1, 1],
        [0; 4],
    ] {
        let mut bytes = udp4(b"x");
        bytes[16..20].copy_from_slice(&address);
        assert_eq!(refused(&bytes), DropReason::NotUnicast);
    }
}

#[test]
fn an_ipv4_address_dressed_as_ipv6_is_refused() {
    let mut bytes = udp6(b"x");
    bytes[24..40].copy_from_slice(&Ipv4Addr::new(192, 0, 2, 10).to_ipv6_mapped().octets());
    assert_eq!(refused(&bytes), DropReason::NotUnicast);
}

#[test]
fn icmp_of_the_other_family_is_refused() {
    let mut bytes = udp4(b"x");
    bytes[9] = 58;
    assert_eq!(refused(&bytes), DropReason::OtherProtocol);
}

#[test]
fn an_error_names_the_packet_that_it_is_about() {
    for asked in [udp4(b"query"), udp6(b"query")] {
        let view = PacketView::parse(&asked).expect("valid");
        let mut out = [0; reply::REPLY_ROOM];
        let len = reply::refuse(&view, &mut out).expect("an answer");
        let answer = PacketView::parse(&out[..len]).expect("own packet");
        let Transport::Error {
            about: Some(about),
            too_big: false,
        } = answer.transport
        else {
            panic!("{:?}", answer.transport);
        };
        assert_eq!(about.source, (view.source, 4000));
        assert_eq!(about.destination, (view.destination, 53));
    }
}

proptest::proptest! {
    #[test]
    fn no_bytes_panic(bytes in proptest::collection::vec(0_u8.., 0..200)) {
        let _ = PacketView::parse(&bytes);
    }

    #[test]
    fn no_damaged_packet_panics(at in 0_usize..60, value in 0_u8..) {
        for mut whole in [udp4(b"some payload here"), udp6(b"some payload here"), syn4()] {
            let at = at % whole.len();
            whole[at] = value;
            let _ = PacketView::parse(&whole);
        }
    }
}
