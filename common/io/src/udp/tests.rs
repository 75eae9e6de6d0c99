use super::*;
use crate::clock::Clock;
use crate::host::testing::in_namespace;
use crate::poll::{Sources, Waker};
use postern_proto::ecn::Ecn;
use postern_proto::outbox::Endpoint;
use std::net::IpAddr;
use std::process::Command;
use std::time::Duration;

fn open(options: &UdpOptions) -> (UdpRx, UdpTx, u16) {
    let end = UdpEnd::bind(options).unwrap();
    let port = end.port();
    let (receiver, sender) = end.split().unwrap();
    (receiver, sender, port)
}

fn receive_all(receiver: &mut UdpRx, wanted: usize) -> Vec<(Endpoint, Vec<u8>)> {
    let waker = Waker::new().unwrap();
    let mut got = Vec::new();
    while got.len() < wanted {
        let now = Clock::now().mono;
        let ready = Sources {
            udp4: receiver.v4(),
            udp6: receiver.v6(),
            tun: None,
            waker: &waker,
            signals: None,
        }
        .wait(now + Duration::from_secs(5), now)
        .unwrap();
        assert!(ready.udp(), "{} of {wanted} datagrams came", got.len());
        let mut collect =
            |from: Endpoint, _: Ecn, datagram: &mut [u8]| got.push((from, datagram.to_vec()));
        receiver.receive(usize::MAX, &mut collect);
    }
    got
}

/// Datagrams of one flow, which arrive in order: the first byte is the kind of message.
fn numbered(number: u8, len: usize) -> Vec<u8> {
    let mut datagram = vec![number; len];
    datagram[0] = 0;
    datagram
}

fn put(sender: &mut UdpTx, to: Endpoint, datagram: &[u8]) {
    sender.slot(to, datagram.len())[..datagram.len()].copy_from_slice(datagram);
    sender.commit(datagram.len(), Ecn::NotEct);
}

#[test]
fn a_mixed_batch_arrives_whole_and_in_order_on_both_families() {
    let (mut receiver, _, port) = open(&UdpOptions::default());
    let (_, mut sender, _) = open(&UdpOptions::default());
    for local in [
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from(Ipv6Addr::LOCALHOST),
    ] {
        let to: Endpoint = SocketAddr::new(local, port).into();
        let sent: Vec<Vec<u8>> = (0..100u8)
            .map(|number| numbered(number, if number % 10 == 9 { 333 } else { 1452 }))
            .collect();
        for datagram in &sent {
            put(&mut sender, to, datagram);
        }
        sender.flush();
        let got = receive_all(&mut receiver, sent.len());
        assert_eq!(
            got.iter()
                .map(|(_, datagram)| datagram.clone())
                .collect::<Vec<_>>(),
            sent
        );
        assert!(
            got.iter().all(|(from, _)| from.local == Some(local)),
            "which address was asked is known"
        );
    }
    assert_eq!(sender.stats().datagrams, 200);
    assert_eq!(sender.stats().refused, 0);
    assert!(
        sender.stats().calls < 60,
        "runs leave together: {:?}",
        sender.stats()
    );
}

#[test]
fn marks_arrive_as_they_were_sent_in_runs_and_alone_on_both_families() {
    let (mut receiver, _, port) = open(&UdpOptions::default());
    let (_, mut sender, _) = open(&UdpOptions::default());
    let waker = Waker::new().unwrap();
    for local in [
        IpAddr::from([127, 0, 0, 1]),
        IpAddr::from(Ipv6Addr::LOCALHOST),
    ] {
        let to: Endpoint = SocketAddr::new(local, port).into();
        let marks = [Ecn::Ect0, Ecn::Ce, Ecn::NotEct, Ecn::Ect1];
        let sent: Vec<(Ecn, u8)> = marks
            .into_iter()
            .flat_map(|ecn| [ecn; 10])
            .zip(0..)
            .chain(marks.into_iter().zip(100..))
            .collect();
        for (ecn, number) in &sent {
            sender.slot(to, 900)[..900].copy_from_slice(&numbered(*number, 900));
            sender.commit(900, *ecn);
        }
        sender.flush();
        let mut got = Vec::new();
        while got.len() < sent.len() {
            let now = Clock::now().mono;
            let ready = Sources {
                udp4: receiver.v4(),
                udp6: receiver.v6(),
                tun: None,
                waker: &waker,
                signals: None,
            }
            .wait(now + Duration::from_secs(5), now)
            .unwrap();
            assert!(ready.udp(), "{} of {} came", got.len(), sent.len());
            let mut collect =
                |_: Endpoint, ecn: Ecn, datagram: &mut [u8]| got.push((ecn, datagram[1]));
            receiver.receive(usize::MAX, &mut collect);
        }
        assert_eq!(got, sent);
    }
}

#[test]
fn the_answer_comes_from_the_address_that_was_asked() {
    let (mut receiver, mut sender, port) = open(&UdpOptions::default());
    let client = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    client
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    client.send_to(b"who", ("127.0.0.77", port)).unwrap();
    let (from, _) = receive_all(&mut receiver, 1)[0].clone();
    put(&mut sender, from, b"me");
    sender.flush();
    let mut answer = [0; 8];
    let (_, address) = client.recv_from(&mut answer).unwrap();
    assert_eq!(address, SocketAddr::from(([127, 0, 0, 77], port)));
}

#[test]
fn a_path_that_refuses_runs_gets_single_datagrams_and_the_others_keep_their_runs() {
    in_namespace(|| {
        let ip = |arguments: &str| {
            let status = Command::new("ip").args(arguments.split(' ')).status();
            assert!(
                status.is_ok_and(|status| status.success()),
                "ip {arguments}"
            );
        };
        ip("link set lo up mtu 1400");
        let options = UdpOptions {
            may_fragment: true,
            v6: None,
            ..UdpOptions::default()
        };
        let (mut receiver, mut sender, port) = open(&options);
        let small_path: Endpoint = SocketAddr::from(([127, 0, 0, 1], port)).into();
        for turn in 1..=2 {
            for _ in 0..20 {
                put(&mut sender, small_path, &[1; 1450]);
            }
            sender.flush();
            assert_eq!(receive_all(&mut receiver, 20).len(), 20);
            // The second time it is known, and not tried.
            assert_eq!(sender.stats().calls, turn * 20);
            assert_eq!(sender.stats().resent_singly, 1);
        }
        assert_eq!(sender.no_gso_destinations(), 1);

        let other = SocketAddr::from(([127, 0, 0, 2], port));
        for _ in 0..20 {
            put(&mut sender, other.into(), &[1; 500]);
        }
        sender.flush();
        assert_eq!(receive_all(&mut receiver, 20).len(), 20);
        assert_eq!(sender.stats().calls, 41);
        assert_eq!(sender.stats().refused, 0);
    });
}

#[test]
fn without_fragments_a_datagram_larger_than_the_path_is_counted_as_too_long() {
    in_namespace(|| {
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up", "mtu", "1400"])
            .status();
        assert!(up.is_ok_and(|status| status.success()));
        let (mut receiver, mut sender, port) = open(&UdpOptions {
            v6: None,
            ..UdpOptions::default()
        });
        let to: Endpoint = SocketAddr::from(([127, 0, 0, 1], port)).into();
        for len in [1450, 1450, 1450, 100] {
            put(&mut sender, to, &vec![1; len]);
        }
        sender.flush();
        assert_eq!(receive_all(&mut receiver, 1)[0].1.len(), 100);
        assert_eq!((sender.stats().refused, sender.stats().too_long), (3, 3));
    });
}

#[test]
fn an_address_of_ours_that_is_gone_does_not_stop_what_we_send() {
    in_namespace(|| {
        let up = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        assert!(up.is_ok_and(|status| status.success()));
        let (mut receiver, mut sender, port) = open(&UdpOptions::default());
        let gone: [(IpAddr, IpAddr); 2] = [
            (Ipv4Addr::LOCALHOST.into(), [192, 0, 2, 1].into()),
            (Ipv6Addr::LOCALHOST.into(), "2001:db8::1".parse().unwrap()),
        ];
        for (remote, local) in gone {
            let to = Endpoint {
                remote: SocketAddr::new(remote, port),
                local: Some(local),
            };
            for len in [700, 700, 700, 50, 900] {
                put(&mut sender, to, &vec![1; len]);
            }
            sender.flush();
            let got = receive_all(&mut receiver, 5);
            assert!(got.iter().all(|(from, _)| from.remote.ip() == remote));
        }
        let stats = sender.stats();
        assert_eq!((stats.calls, stats.datagrams, stats.refused), (4, 10, 0));
        assert_eq!(sender.no_gso_destinations(), 0, "the run was not to blame");
    });
}

#[test]
fn a_datagram_without_a_socket_is_counted() {
    let (_, mut sender, _) = open(&UdpOptions {
        v6: None,
        ..UdpOptions::default()
    });
    put(
        &mut sender,
        SocketAddr::from((Ipv6Addr::LOCALHOST, 9)).into(),
        b"lost",
    );
    sender.flush();
    assert_eq!(sender.stats().refused, 1);
}

#[test]
fn failures_say_what_to_do() {
    let taken = UdpEnd::bind(&UdpOptions {
        v6: None,
        ..UdpOptions::default()
    })
    .unwrap();
    let error = UdpEnd::bind(&UdpOptions {
        port: taken.port(),
        v6: None,
        ..UdpOptions::default()
    })
    .unwrap_err();
    assert!(matches!(error, UdpError::PortInUse(_)), "{error}");
    let error = UdpEnd::bind(&UdpOptions {
        v4: Some([192, 0, 2, 1].into()),
        v6: None,
        ..UdpOptions::default()
    })
    .unwrap_err();
    assert!(matches!(error, UdpError::NoSuchAddress(_)), "{error}");
    let error = UdpEnd::bind(&UdpOptions {
        v4: None,
        v6: None,
        ..UdpOptions::default()
    })
    .unwrap_err();
    assert!(matches!(error, UdpError::NoFamily), "{error}");
}

#[test]
fn both_sockets_share_a_port_and_the_buffers_are_known() {
    let end = UdpEnd::bind(&UdpOptions::default()).unwrap();
    assert_ne!(end.port(), 0);
    assert!(end.buffers().receive > 0 && end.buffers().send > 0);
}

#[test]
fn each_half_can_be_switched_off_and_everything_still_arrives() {
    // Of 20 datagrams, how many calls sent them and how many messages came.
    for (switches, (send, calls), (receive, messages)) in [
        ("auto", (true, 1), (true, 1)),
        ("udp-send=off", (false, 20), (true, 20)),
        ("udp-receive=off", (true, 1), (false, 20)),
        ("udp=off", (false, 20), (false, 20)),
    ] {
        let options = UdpOptions {
            offload: switches.parse().unwrap(),
            ..UdpOptions::default()
        };
        let (mut receiver, mut sender, port) = open(&options);
        for local in [
            IpAddr::from([127, 0, 0, 1]),
            IpAddr::from(Ipv6Addr::LOCALHOST),
        ] {
            let (before, calls_before) = (receiver.stats().messages, sender.stats().calls);
            for number in 0..20 {
                let to = SocketAddr::new(local, port).into();
                put(&mut sender, to, &numbered(number, 1000));
            }
            sender.flush();
            let got = receive_all(&mut receiver, 20);
            let numbers = got.iter().map(|(_, datagram)| datagram[1]);
            assert!(numbers.eq(0..20), "{switches}");
            assert_eq!(sender.stats().calls - calls_before, calls, "{switches}");
            assert_eq!(receiver.stats().messages - before, messages, "{switches}");
        }
        assert_eq!(sender.offload().on, send);
        assert_eq!(receiver.offload().on, receive);
    }
}

#[test]
fn one_refusal_does_not_end_segmentation_for_the_others() {
    let (mut receiver, mut sender, port) = open(&UdpOptions::default());
    // Nobody can be sent to at port 0: EINVAL, after which quinn-udp would send singly for ever.
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
    put(&mut sender, nowhere.into(), b"lost");
    sender.flush();
    assert_eq!(sender.stats().refused, 1);
    for _ in 0..20 {
        put(
            &mut sender,
            SocketAddr::from(([127, 0, 0, 1], port)).into(),
            &[1; 1000],
        );
    }
    sender.flush();
    assert_eq!(receive_all(&mut receiver, 20).len(), 20);
    assert_eq!(sender.stats().calls, 1);
    assert_eq!(sender.offload().to_string(), "on");
}
