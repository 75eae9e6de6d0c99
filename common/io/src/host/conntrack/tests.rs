use super::*;
use crate::checksum;
use crate::host::privileges::drop_privileges;
use crate::host::testing::{in_namespace, ip};
use socket2::{Domain, Socket, Type};
use std::net::{TcpListener, UdpSocket};
use std::process::{Command, Stdio};

/// A namespace in which what `DEVICES` send to `TARGETS` is translated to `GATEWAYS`.
const DEVICES: [[&str; 2]; 2] = [["10.9.0.1", "10.9.0.2"], ["fd09::1", "fd09::2"]];
const GATEWAYS: [&str; 2] = ["10.9.0.9", "fd09::9"];
const TARGETS: [&str; 2] = ["10.9.0.10", "fd09::10"];
const RULES: &str = "
    add table inet lab
    add chain inet lab out { type nat hook postrouting priority srcnat; }
    add rule inet lab out ip saddr { 10.9.0.1, 10.9.0.2 } snat ip to 10.9.0.9
    add rule inet lab out ip6 saddr { fd09::1, fd09::2 } snat ip6 to fd09::9
";

fn translating(test: impl FnOnce(Conntrack) + Send + 'static) {
    in_namespace(|| {
        ip("link set lo up");
        for address in [&DEVICES[0][..], &[GATEWAYS[0], TARGETS[0]]].concat() {
            ip(&format!("addr add {address}/32 dev lo"));
        }
        for address in [&DEVICES[1][..], &[GATEWAYS[1], TARGETS[1]]].concat() {
            ip(&format!("addr add {address}/128 dev lo nodad"));
        }
        // The kernel installs IPv6 addresses by and by.
        let settled = || ip("-6 route show table local").matches("fd09::").count() == 4;
        while !settled() || !ip("-6 addr show tentative").is_empty() {
            std::thread::yield_now();
        }
        let mut nft = Command::new("nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .expect("nft");
        let mut rules = nft.stdin.take().expect("piped");
        io::Write::write_all(&mut rules, RULES.as_bytes()).expect("nft reads");
        drop(rules);
        assert!(nft.wait().expect("nft").success());
        test(Conntrack::open().expect("root may ask"));
    });
}

fn at(address: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address.parse().expect("an address"), port)
}

fn end(of: SocketAddr) -> (IpAddr, u16) {
    (of.ip(), of.port())
}

fn stream(domain: Domain, from: SocketAddr) -> Socket {
    let socket = Socket::new(domain, Type::STREAM, None).expect("a socket");
    socket.bind(&from.into()).expect("a free port");
    socket
}

#[test]
fn two_devices_with_one_port_have_two_egresses_as_the_target_sees_them() {
    translating(|mut conntrack| {
        for (family, domain) in [Domain::IPV4, Domain::IPV6].into_iter().enumerate() {
            let target = at(TARGETS[family], 22);
            let listener = TcpListener::bind(target).expect("a listener");
            let mut sockets = Vec::new();
            let (mut flows, mut seen) = (Vec::new(), Vec::new());
            for device in DEVICES[family] {
                let device = at(device, 50_000);
                let socket = stream(domain, device);
                socket.connect(&target.into()).expect("connected");
                seen.push(Some(listener.accept().expect("accepted").1));
                flows.push(FlowKey::new(Protocol::Tcp, end(device), end(target)));
                sockets.push(socket);
            }
            assert_ne!(seen[0], seen[1], "the kernel keeps them apart");
            assert!(
                seen.iter()
                    .flatten()
                    .all(|seen| seen.ip() == at(GATEWAYS[family], 0).ip())
            );
            assert_eq!(conntrack.lookup_many(&flows).expect("answers"), seen);
        }
    });
}

#[test]
fn udp_is_known_from_its_first_datagram() {
    translating(|mut conntrack| {
        for family in [0, 1] {
            let target = at(TARGETS[family], 53);
            let server = UdpSocket::bind(target).expect("a server");
            for device in DEVICES[family] {
                let device = at(device, 50_000);
                let flow = FlowKey::new(Protocol::Udp, end(device), end(target));
                assert_eq!(conntrack.lookup(flow).expect("an answer"), None);
                let client = UdpSocket::bind(device).expect("a client");
                client.send_to(b"?", target).expect("sent");
                let (_, seen) = server.recv_from(&mut [0; 8]).expect("received");
                assert_eq!(conntrack.lookup(flow).expect("an answer"), Some(seen));
            }
        }
    });
}

#[test]
fn an_echo_has_the_id_that_the_target_sees() {
    translating(|mut conntrack| {
        for family in [0, 1] {
            let target = at(TARGETS[family], 0);
            let server = icmp(target);
            let mut ids = Vec::new();
            for device in DEVICES[family] {
                let client = icmp(at(device, 0));
                client
                    .send_to(&echo(family, 77), &target.into())
                    .expect("sent");
                let (id, seen) = next_request(&server, family);
                let flow = FlowKey::new(Protocol::Icmp, (at(device, 0).ip(), 77), end(target));
                let egress = conntrack.lookup(flow).expect("an answer");
                assert_eq!(egress, Some(SocketAddr::new(seen, id)));
                assert_eq!(seen, at(GATEWAYS[family], 0).ip());
                ids.push(id);
            }
            assert_ne!(ids[0], ids[1], "the kernel keeps them apart");
        }
    });
}

fn icmp(at: SocketAddr) -> Socket {
    let (domain, protocol) = match at {
        SocketAddr::V4(_) => (Domain::IPV4, socket2::Protocol::ICMPV4),
        SocketAddr::V6(_) => (Domain::IPV6, socket2::Protocol::ICMPV6),
    };
    let socket = Socket::new(domain, Type::RAW, Some(protocol)).expect("a raw socket");
    socket.bind(&at.into()).expect("our address");
    socket
}

/// An echo request; the kernel fills the checksum of ICMPv6.
fn echo(family: usize, id: u16) -> [u8; 8] {
    let mut message = [0; 8];
    message[0] = [ICMP_ECHO, ICMPV6_ECHO_REQUEST][family];
    message[4..6].copy_from_slice(&id.to_be_bytes());
    if family == 0 {
        let sum = !checksum::sum(&message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
    }
    message
}

/// Id and source of the next request; answers and errors pass by.
fn next_request(server: &Socket, family: usize) -> (u16, IpAddr) {
    loop {
        let mut buffer = [0; 128];
        let (bytes, _, from) =
            rustix::net::recvfrom(server, &mut buffer[..], RecvFlags::empty()).expect("received");
        let from = SocketAddr::try_from(from.expect("a source")).expect("an address");
        // IPv4 comes with its header.
        let message = &buffer[[20, 0][family]..bytes];
        if message[0] == [ICMP_ECHO, ICMPV6_ECHO_REQUEST][family] {
            let id = u16::from_be_bytes([message[4], message[5]]);
            return (id, from.ip());
        }
    }
}

#[test]
fn answers_stand_in_the_order_of_the_questions() {
    translating(|mut conntrack| {
        let target = at(TARGETS[0], 53);
        let server = UdpSocket::bind(target).expect("a server");
        let client = |port| at(DEVICES[0][0], port);
        // Every third one is known, over several messages.
        let ports = 40_000..40_000 + 3 * u16::try_from(BATCH).expect("small");
        for port in ports.clone().step_by(3) {
            let socket = UdpSocket::bind(client(port)).expect("a client");
            socket.send_to(b"?", target).expect("sent");
            server.recv_from(&mut [0; 8]).expect("received");
        }
        let flows: Vec<FlowKey> = ports
            .clone()
            .map(|port| FlowKey::new(Protocol::Udp, end(client(port)), end(target)))
            .collect();
        let found = conntrack.lookup_many(&flows).expect("answers");
        assert_eq!(found.len(), flows.len());
        for (port, found) in ports.zip(found) {
            let expected = ((port - 40_000) % 3 == 0).then(|| at(GATEWAYS[0], port));
            assert_eq!(found, expected, "{port}");
        }
        assert_eq!(conntrack.lookup_many(&[]).expect("no question"), []);
    });
}

#[test]
fn it_works_without_the_other_privileges_and_says_so_where_it_may_not() {
    translating(|mut early| {
        let nobody = FlowKey::new(
            Protocol::Tcp,
            end(at("10.1.1.1", 1)),
            end(at("10.1.1.2", 2)),
        );
        drop_privileges().expect("dropping is always allowed");
        assert_eq!(early.lookup(nobody).expect("an answer"), None);
        Conntrack::open().expect("CAP_NET_ADMIN is kept");

        rustix::thread::set_capabilities(
            None,
            rustix::thread::CapabilitySets {
                effective: rustix::thread::CapabilitySet::empty(),
                permitted: rustix::thread::CapabilitySet::empty(),
                inheritable: rustix::thread::CapabilitySet::empty(),
            },
        )
        .expect("dropping is always allowed");
        let refused = Conntrack::open().expect_err("nothing is permitted");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
        let refused = early
            .lookup_many(&[nobody; 3])
            .expect_err("nor to a socket from before");
        assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
    });
}

#[test]
fn an_answer_that_came_too_late_is_nobody_elses() {
    translating(|mut conntrack| {
        let target = at(TARGETS[0], 53);
        let flow = |port| FlowKey::new(Protocol::Udp, end(at(DEVICES[0][0], port)), end(target));
        let client = UdpSocket::bind(at(DEVICES[0][0], 50_000)).expect("a client");
        client.send_to(b"?", target).expect("sent");
        // Asked, and not read: as after a failure.
        let mut left = Vec::new();
        question(&flow(50_000), conntrack.sequence, &mut left);
        conntrack.sequence = conntrack.sequence.wrapping_add(1);
        rustix::net::send(&conntrack.socket, &left, SendFlags::empty()).expect("asked");

        assert_eq!(conntrack.lookup(flow(50_001)).expect("an answer"), None);
        let found = conntrack.lookup(flow(50_000)).expect("an answer");
        assert_eq!(found, Some(at(GATEWAYS[0], 50_000)));
    });
}

#[test]
fn bytes_that_make_no_sense_are_an_error_and_no_panic() {
    let flow = FlowKey::new(
        Protocol::Tcp,
        end(at("fd09::1", 1)),
        end(at("fd09::10", 22)),
    );
    let mut message = Vec::new();
    question(&flow, 7, &mut message);
    message[4] = IPCTNL_MSG_CT_NEW;
    for cut in 0..message.len() {
        assert!(read_answer(&message[..cut]).is_err(), "{cut}");
    }
    for (at, value) in (0..message.len()).flat_map(|at| [0, 1, 3, 0x7f, 0xff].map(|v| (at, v))) {
        let mut bent = message.clone();
        bent[at] = value;
        let _ = read_answer(&bent);
    }
    assert!(read_answer(&message).is_err(), "there is no reply tuple");
}

/// Seconds of the processor that this thread had, the kernel's work for it included.
fn busy() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// `cargo test --release -p postern-io measure_conntrack -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn measure_conntrack() {
    translating(|mut conntrack| {
        let client = at(DEVICES[0][0], 50_000);
        let socket = UdpSocket::bind(client).expect("a client");
        let mut known: Vec<FlowKey> = Vec::new();
        for size in [100, 100_000] {
            while known.len() < size {
                let [.., high, low] = (known.len() as u32).to_be_bytes();
                let target = SocketAddr::new(
                    Ipv4Addr::new(127, 9, (known.len() >> 16) as u8, high).into(),
                    1000 + u16::from(low),
                );
                // Nobody listens there; the kernel has tracked it all the same.
                let _ = socket.send_to(b"?", target);
                let _ = socket.send_to(b"?", target);
                known.push(FlowKey::new(Protocol::Udp, end(client), end(target)));
            }
            let missing: Vec<FlowKey> = known
                .iter()
                .map(|flow| FlowKey::new(Protocol::Tcp, flow.client_end(), flow.target_end()))
                .collect();
            for (what, flows) in [("known", &known), ("unknown", &missing)] {
                let asked: Vec<FlowKey> = (0..50_000).map(|n| flows[n * 7919 % size]).collect();
                for each in [1, 8, 64, 256] {
                    let start = busy();
                    let found: usize = asked
                        .chunks(each)
                        .map(|flows| conntrack.lookup_many(flows).expect("answers"))
                        .map(|found| found.iter().flatten().count())
                        .sum();
                    let us = (busy() - start) * 1e6 / asked.len() as f64;
                    eprintln!("{size} entries, {what}, {each} at once: {us:.2} us, {found} found");
                }
            }
        }
    });
}
