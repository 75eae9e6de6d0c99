use super::*;
use crate::host::testing::{in_namespace, ip};
use crate::poll::{Sources, Waker};
use crate::testing::Spec;
use postern_proto::now::Mono;
use std::net::UdpSocket;
use std::time::Duration;

fn options(name: &str) -> TunOptions {
    TunOptions {
        name: name.to_owned(),
        mtu: 1420,
        v4: None,
        v6: None,
        queue: DEFAULT_QUEUE,
        offload: Switches::AUTO,
    }
}

#[test]
fn a_bad_name_is_refused_before_anything_is_opened() {
    for name in ["", "sixteen-bytes-xx", "a/b", "a b", "post%d", "..", "a\n"] {
        assert!(
            matches!(Tun::open(&options(name)), Err(TunError::BadName(_))),
            "{name:?}"
        );
    }
}

#[test]
fn what_the_kernel_says_is_put_in_words() {
    let told = |errno: i32| explain("postern0", io::Error::from_raw_os_error(errno)).to_string();
    assert!(told(libc::ENOENT).contains("modprobe tun"));
    assert!(told(libc::EPERM).contains("CAP_NET_ADMIN"));
    assert!(told(libc::EBUSY).contains("in use"));
    assert!(told(libc::EINVAL).contains("not a TUN"));
    assert!(told(libc::EFAULT).contains("postern0"));
}

#[test]
fn without_offload_a_read_is_one_packet() {
    let mut bytes = [0x45, 0, 0, 4];
    assert_eq!(parse(false, &mut bytes).unwrap().packet(), [0x45, 0, 0, 4]);
    assert!(
        parse(true, &mut bytes).is_none(),
        "too short for a virtio header"
    );
}

/// A TUN with addresses, in the namespace of the test.
fn open(offload: Switches) -> Tun {
    let v4 = Some(([192, 0, 2, 10].into(), 24));
    let v6 = Some(("fd00::10".parse().unwrap(), 64));
    Tun::open(&TunOptions {
        v4,
        v6,
        offload,
        ..options("postern0")
    })
    .unwrap()
}

/// A socket on the host's side, and datagrams for it from the other side of the TUN.
fn datagrams(count: u8) -> (UdpSocket, Vec<Vec<u8>>) {
    let socket = UdpSocket::bind("192.0.2.10:6443").unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let spec = |number| Spec {
        udp: true,
        source: 9,
        payload: vec![number; 1000],
        ..Spec::default()
    };
    ip("route add 10.0.0.0/24 dev postern0"); // where they come from
    (
        socket,
        (0..count).map(|number| spec(number).build()).collect(),
    )
}

/// Interfaces of this namespace that are made from now on have no IPv6.
fn no_ipv6() {
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").unwrap();
}

fn write_all(writer: &mut TunTx, packets: &[Vec<u8>]) {
    for packet in packets {
        writer.slot()[..packet.len()].copy_from_slice(packet);
        writer.commit(packet.len());
    }
    writer.flush();
}

#[test]
fn what_is_written_together_arrives_one_by_one() {
    for switches in ["auto", "off", "tun-read=off", "tun-write=off"] {
        in_namespace(move || {
            let (_reader, mut writer) = open(switches.parse().unwrap()).split();
            let (socket, packets) = datagrams(40);
            write_all(&mut writer, &packets);
            let mut buffer = [0; 2000];
            for number in 0..40 {
                assert_eq!(socket.recv(&mut buffer).unwrap(), 1000);
                assert_eq!(buffer[0], number);
            }
            let joined = ["auto", "tun-read=off"].contains(&switches);
            assert_eq!(writer.offload().on, joined);
            let writes = if joined { 1 } else { 40 };
            assert_eq!(
                writer.stats(),
                TunTxStats {
                    writes,
                    packets: 40,
                    refused: 0,
                    rewritten: 0
                }
            );
        });
    }
}

#[test]
fn an_interface_that_is_down_refuses_and_keeps_its_offload() {
    in_namespace(|| {
        let (_reader, mut writer) = open(Switches::AUTO).split();
        let before = writer.offload();
        let (_socket, packets) = datagrams(10);
        ip("link set postern0 down");
        write_all(&mut writer, &packets);
        assert_eq!(writer.stats().refused, 10);
        assert_eq!(writer.offload(), before);
    });
}

/// Bytes of each packet and the number of segments in it, of what the host sends from its socket:
/// a run of five datagrams in one call.
fn what_is_read(switches: &str) -> Vec<(usize, usize)> {
    let (mut reader, _writer) = open(switches.parse().unwrap()).split();
    let waker = Waker::new().unwrap();
    let socket = UdpSocket::bind("192.0.2.10:0").unwrap();
    let state = quinn_udp::UdpSocketState::new((&socket).into()).unwrap();
    let run = quinn_udp::Transmit {
        destination: "192.0.2.77:9".parse().unwrap(),
        ecn: None,
        contents: &[7; 5000],
        segment_size: Some(1000),
        src_ip: None,
    };
    state.try_send((&socket).into(), &run).unwrap();
    let mut seen = Vec::new();
    while seen.iter().map(|(_, segments)| segments).sum::<usize>() < 5 {
        let sources = Sources {
            udp4: None,
            udp6: None,
            tun: Some(reader.fd()),
            waker: &waker,
            signals: None,
        };
        assert!(
            sources.wait(Mono(5_000_000_000), Mono(0)).unwrap().tun,
            "nothing came"
        );
        reader
            .receive(usize::MAX, |packet| {
                // The kernel also asks for IPv6 routers.
                if packet.packet()[0] >> 4 == 4 {
                    seen.push((packet.packet().len(), packet.segments()));
                    packet.for_each_segment(|segment| {
                        assert_eq!(segment.len(), 1028);
                        assert!(crate::testing::checksums_are_right(segment));
                    });
                }
            })
            .unwrap();
    }
    assert_eq!(reader.stats().bad, 0);
    seen
}

#[test]
fn what_the_host_sends_is_read_as_packets_that_a_receiver_accepts() {
    for switches in ["auto", "tun-write=off"] {
        in_namespace(move || assert_eq!(what_is_read(switches), [(5028, 5)]));
    }
}

#[test]
fn with_reading_switched_off_the_kernel_cuts_before_we_read() {
    for switches in ["off", "tun-read=off"] {
        in_namespace(move || assert_eq!(what_is_read(switches), [(1028, 1); 5]));
    }
}

#[test]
fn a_read_that_fails_loses_one_packet_and_not_the_reader() {
    in_namespace(|| {
        no_ipv6(); // Its kernel talks by itself.
        let (mut reader, _writer) = open(Switches::AUTO).split();
        let socket = UdpSocket::bind("192.0.2.10:0").unwrap();
        let read = |reader: &mut TunRx| {
            let mut ports = Vec::new();
            let collect = |packet: SuperPacket<'_>| ports.push(packet.packet()[23]);
            (reader.receive(usize::MAX, collect).is_ok(), ports)
        };
        // Without room for a virtio header the kernel says EINVAL, and the packet is gone.
        let bytes = std::mem::replace(&mut reader.buffer, vec![0; 4].into_boxed_slice());
        socket.send_to(b"lost", "192.0.2.77:8").unwrap();
        assert_eq!(read(&mut reader), (true, vec![]));
        assert_eq!(reader.stats().bad, 1);
        reader.buffer = bytes;
        socket.send_to(b"read", "192.0.2.77:9").unwrap();
        assert_eq!(read(&mut reader), (true, vec![9]));
    });
}

#[test]
fn a_deleted_interface_is_an_error_not_an_endless_loop() {
    in_namespace(|| {
        let (mut reader, mut writer) = open(Switches::AUTO).split();
        ip("link delete postern0");
        assert!(reader.take_in(Mono(0)).is_err());
        let (packets, before) = (vec![vec![0x45; 20]], writer.stats().refused);
        write_all(&mut writer, &packets);
        assert_eq!(writer.stats().refused, before + 1);
    });
}

#[test]
fn a_name_that_is_taken_says_so() {
    in_namespace(|| {
        let _first = open(Switches::AUTO);
        let again = Tun::open(&options("postern0")).map(|_| ());
        assert!(matches!(again, Err(TunError::Busy(_))), "{again:?}");
        ip("link add bridge7 type bridge");
        let bridge = Tun::open(&options("bridge7")).map(|_| ());
        assert!(matches!(bridge, Err(TunError::NotATun(_))), "{bridge:?}");
    });
}

#[test]
fn a_host_without_ipv6_gets_a_tunnel_without_it() {
    in_namespace(|| {
        assert!(open(Switches::AUTO).has_v6());
        no_ipv6();
        let tun = open(Switches::AUTO);
        assert!(!tun.has_v6());
        let (reader, writer) = tun.split();
        assert_eq!(reader.offload().to_string(), "on (tcp+udp)");
        assert_eq!(writer.offload().to_string(), "on (tcp+udp)");
    });
}
