use super::*;
use crate::clock::Clock;
use crate::host::{
    drop_privileges,
    testing::{in_namespace, ip},
};
use crate::udp::{UdpRx, UdpTx};
use postern_proto::ecn::Ecn;
use postern_proto::outbox::Endpoint;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::process::Command;
use std::sync::Barrier;
use std::sync::mpsc::channel;
use std::time::Duration;

const LOCALHOSTS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::LOCALHOST),
    IpAddr::V6(Ipv6Addr::LOCALHOST),
];

/// The receivers of the workers, and the last is the door's.
fn receivers(group: UdpGroup) -> Vec<UdpRx> {
    let mut ends = group.workers;
    ends.push(group.door);
    ends.into_iter().map(|end| end.split().unwrap().0).collect()
}

fn bind(workers: usize) -> (Vec<UdpRx>, u16) {
    let group = UdpGroup::bind(&UdpOptions::default(), workers).unwrap();
    let port = group.door.port();
    (receivers(group), port)
}

/// Reads until so many datagrams came: which socket, and the bytes.
fn receive(receivers: &mut [UdpRx], wanted: usize) -> Vec<(usize, Vec<u8>)> {
    let mut got = Vec::new();
    let deadline = Clock::now().mono + Duration::from_secs(10);
    while got.len() < wanted {
        assert!(
            Clock::now().mono < deadline,
            "{} of {wanted} came",
            got.len()
        );
        let mut waits: Vec<PollFd<'_>> = receivers
            .iter()
            .flat_map(|receiver| [receiver.v4(), receiver.v6()])
            .flatten()
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        let second = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        poll(&mut waits, Some(&second)).unwrap();
        for (socket, receiver) in receivers.iter_mut().enumerate() {
            let mut keep =
                |_: Endpoint, _: Ecn, bytes: &mut [u8]| got.push((socket, bytes.to_vec()));
            receiver.receive(usize::MAX, &mut keep);
        }
    }
    got
}

/// A message of this type for this receiver, as long as the real one at least.
fn message(kind: u8, index: u32, len: usize) -> Vec<u8> {
    let mut bytes = vec![0xee; len];
    bytes[..4].copy_from_slice(&[kind, 0, 0, 0]);
    let place = if kind == 2 { 8 } else { 4 };
    bytes[place..place + 4].copy_from_slice(&index.to_le_bytes());
    bytes
}

/// Numbers that look random and are the same every time.
fn numbers() -> impl FnMut() -> u32 {
    let mut state = 0x9e37_79b9_u32;
    move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state
    }
}

/// Where a datagram belongs, from its bytes alone.
fn home(bytes: &[u8], workers: usize) -> usize {
    let index = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let peer = match (bytes.len() >= 32).then(|| &bytes[..4]) {
        Some([3 | 4, 0, 0, 0]) => index(4) >> 8,
        Some([2, 0, 0, 0]) => index(8) >> 8,
        _ => return workers,
    };
    peer as usize % workers
}

fn assert_at_home(got: &[(usize, Vec<u8>)], workers: usize) {
    for (socket, bytes) in got {
        let home = home(bytes, workers);
        let head = &bytes[..bytes.len().min(12)];
        assert_eq!(
            *socket,
            home,
            "{workers} workers, {head:?} of {}",
            bytes.len()
        );
    }
}

#[test]
fn every_type_and_index_arrives_at_its_socket() {
    for workers in [1, 2, 4, 8] {
        let (mut receivers, port) = bind(workers);
        let mut number = numbers();
        for to in LOCALHOSTS {
            let client = UdpSocket::bind((to, 0)).unwrap();
            let mut seen = vec![0; workers + 1];
            for _ in 0..40 {
                let sent: Vec<Vec<u8>> = (1..=4)
                    .zip([148, 92, 64, 32])
                    .map(|(kind, len)| message(kind, number(), len))
                    .collect();
                for bytes in &sent {
                    client.send_to(bytes, (to, port)).unwrap();
                }
                let got = receive(&mut receivers, sent.len());
                assert_at_home(&got, workers);
                got.iter().for_each(|(socket, _)| seen[*socket] += 1);
            }
            assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
            assert_eq!(seen[workers], 40, "the initiations");
        }
    }
}

#[test]
fn what_is_no_message_arrives_at_the_door() {
    let (mut receivers, port) = bind(4);
    for to in LOCALHOSTS {
        let client = UdpSocket::bind((to, 0)).unwrap();
        let mut sent: Vec<Vec<u8>> = Vec::new();
        // Worker 3 would be the one to get them.
        for kind in [2, 3, 4] {
            sent.extend((1..32).map(|len| message(kind, 0x0300, 32)[..len].to_vec()));
            for reserved in 1..4 {
                let mut bytes = message(kind, 0x0300, 100);
                bytes[reserved] = 1;
                sent.push(bytes);
            }
        }
        sent.extend(
            (0..=255)
                .filter(|kind| !(2..=4).contains(kind))
                .map(|kind| message(kind, 0x0300, 148)),
        );
        for bytes in &sent {
            client.send_to(bytes, (to, port)).unwrap();
        }
        let got = receive(&mut receivers, sent.len());
        assert_eq!(got.len(), sent.len());
        assert!(got.iter().all(|(socket, _)| *socket == 4));
    }
}

fn put(sender: &mut UdpTx, to: Endpoint, bytes: &[u8]) {
    sender.slot(to, bytes.len())[..bytes.len()].copy_from_slice(bytes);
    sender.commit(bytes.len(), Ecn::NotEct);
}

/// Runs of data for each peer in turn, as a client sends them.
fn send_runs(to: IpAddr, port: u16, peers: u32) -> usize {
    for peer in 0..peers {
        let end = UdpEnd::bind(&UdpOptions::default()).unwrap();
        let (_, mut sender) = end.split().unwrap();
        for session in 0..40 {
            let bytes = message(4, peer << 8 | session, 1000);
            put(&mut sender, SocketAddr::new(to, port).into(), &bytes);
        }
        sender.flush();
        assert_eq!(sender.stats().calls, 1, "a run leaves at once");
    }
    40 * peers as usize
}

fn messages(receivers: &[UdpRx]) -> u64 {
    receivers
        .iter()
        .map(|receiver| receiver.stats().messages)
        .sum()
}

#[test]
fn runs_arrive_whole_at_their_worker() {
    for workers in [1, 2, 8] {
        let (mut receivers, port) = bind(workers);
        for to in LOCALHOSTS {
            let sent = send_runs(to, port, 16);
            let got = receive(&mut receivers, sent);
            assert_at_home(&got, workers);
        }
        assert_eq!(messages(&receivers), 2 * 16, "runs");
    }
}

/// Until then the kernel drops what is sent.
fn wait_for(link: &str) {
    let deadline = Clock::now().mono + Duration::from_secs(5);
    loop {
        let shown = Command::new("ip").args(["link", "show", link]).output();
        if String::from_utf8_lossy(&shown.unwrap().stdout).contains("state UP") {
            return;
        }
        assert!(Clock::now().mono < deadline, "{link} is down");
        std::thread::yield_now();
    }
}

/// The sender cuts its runs, the wire carries datagrams, and the receiver's kernel joins them
/// again before it picks a socket.
#[test]
fn what_the_kernel_joins_from_a_wire_arrives_at_its_worker() {
    const HERE: &str = "02:00:00:00:00:01";
    in_namespace(|| {
        let (here, there) = (channel(), channel());
        let other = std::thread::spawn(move || {
            in_namespace(move || {
                here.0.send(rustix::thread::gettid()).unwrap();
                let port = there.1.recv().unwrap();
                ip("link set wire1 up");
                wait_for("wire1");
                ip("address add 198.51.100.2/24 dev wire1");
                ip("address add fd01::2/64 dev wire1 nodad");
                for to in ["198.51.100.1", "fd01::1"] {
                    // Runs that wait for an answer to "who has" push one another out.
                    ip(&format!("neigh add {to} lladdr {HERE} dev wire1"));
                    send_runs(to.parse().unwrap(), port, 16);
                }
            });
        });
        let thread = here.1.recv().unwrap();
        ip(&format!(
            "link add wire0 address {HERE} type veth peer name wire1"
        ));
        ip(&format!(
            "link set wire1 netns /proc/{}/task/{}/ns/net",
            std::process::id(),
            thread.as_raw_nonzero()
        ));
        ip("link set wire0 up");
        ip("address add 198.51.100.1/24 dev wire0");
        ip("address add fd01::1/64 dev wire0 nodad");
        let features = Command::new("ethtool")
            .args(["-K", "wire0", "gro", "on"])
            .status();
        let joins = features.is_ok_and(|status| status.success());
        let (mut receivers, port) = bind(4);
        there.0.send(port).unwrap();
        let got = receive(&mut receivers, 2 * 16 * 40);
        assert_at_home(&got, 4);
        if joins {
            assert!(messages(&receivers) < 2 * 16 * 40, "none were joined");
        } else {
            eprintln!("skipped: whether the kernel joined any (ethtool is not installed)");
        }
        other.join().unwrap();
    });
}

#[test]
fn a_flood_of_initiations_costs_no_data() {
    for workers in [1, 2] {
        let (mut receivers, port) = bind(workers);
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = (Ipv4Addr::LOCALHOST, port);
        const FLOOD: usize = 50_000;
        for _ in 0..FLOOD {
            client.send_to(&message(1, 0, 148), to).unwrap();
        }
        for number in 0..100 {
            client.send_to(&message(4, number << 8, 32), to).unwrap();
        }
        let (mine, door) = receivers.split_at_mut(workers);
        let got = receive(mine, 100);
        assert!(got.iter().all(|(_, bytes)| bytes[0] == 4));
        let (mut kept, mut turn) = (0, 1);
        while turn > 0 {
            turn = 0;
            door[0].receive(usize::MAX, |_, _, _| turn += 1);
            kept += turn;
        }
        assert!((100..FLOOD / 4).contains(&kept), "a short queue: {kept}");
    }
}

#[test]
fn the_door_queues_less_than_a_worker() {
    let group = UdpGroup::bind(&UdpOptions::default(), 2).unwrap();
    assert_eq!(group.workers.len(), 2);
    let door = group.door.buffers().receive;
    assert!(door <= DOOR_BUFFER && door > 0);
    assert!(
        group
            .workers
            .iter()
            .all(|end| end.buffers().receive >= door)
    );
}

#[test]
fn a_second_gateway_is_refused() {
    let refused = |options: &UdpOptions| {
        let group = UdpGroup::bind(options, 2).unwrap_err();
        assert!(matches!(group, UdpError::PortInUse(_)), "{group}");
        let end = UdpEnd::bind(options).unwrap_err();
        assert!(matches!(end, UdpError::PortInUse(_)), "{end}");
    };
    let first = UdpGroup::bind(&UdpOptions::default(), 2).unwrap();
    let both = UdpOptions {
        port: first.door.port(),
        ..UdpOptions::default()
    };
    refused(&both);
    refused(&UdpOptions {
        v4: None,
        ..both.clone()
    });
    drop(first);
    // One that holds the port in IPv6 only, without a group.
    let _wg = UdpEnd::bind(&UdpOptions {
        v4: None,
        ..both.clone()
    })
    .unwrap();
    refused(&both);
}

#[test]
fn of_two_that_start_together_at_most_one_has_the_port() {
    for _ in 0..50 {
        let free = UdpEnd::bind(&UdpOptions::default()).unwrap().port();
        let options = UdpOptions {
            port: free,
            ..UdpOptions::default()
        };
        let start = Barrier::new(2);
        let start = &start;
        let outcomes: Vec<Result<UdpGroup, UdpError>> = std::thread::scope(|scope| {
            let threads = [1, 4].map(|workers| {
                let options = &options;
                scope.spawn(move || {
                    start.wait();
                    UdpGroup::bind(options, workers)
                })
            });
            threads.map(|thread| thread.join().unwrap()).into()
        });
        let bound = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        assert!(bound <= 1, "both have port {free}");
    }
}

#[test]
fn a_low_port_is_had_with_the_capability_and_not_without() {
    in_namespace(|| {
        ip("link set lo up");
        let options = UdpOptions {
            port: 443,
            ..UdpOptions::default()
        };
        let group = UdpGroup::bind(&options, 2).unwrap();
        assert_eq!(group.door.port(), 443);
        assert_eq!(group.workers[1].families(), (true, true));
        drop(group);
        drop_privileges().unwrap();
        let error = UdpGroup::bind(&options, 2).unwrap_err();
        assert!(matches!(error, UdpError::NotPermitted { .. }), "{error}");
    });
}

#[test]
fn one_family_is_enough() {
    let only_v6 = UdpOptions {
        v4: None,
        ..UdpOptions::default()
    };
    let group = UdpGroup::bind(&only_v6, 2).unwrap();
    assert_eq!(group.door.families(), (false, true));
    assert!(
        group
            .workers
            .iter()
            .all(|end| end.families() == (false, true))
    );
    let none = UdpOptions {
        v4: None,
        v6: None,
        ..UdpOptions::default()
    };
    let error = UdpGroup::bind(&none, 2).unwrap_err();
    assert!(matches!(error, UdpError::NoFamily), "{error}");
}

#[test]
fn a_number_of_workers_that_no_mask_makes_is_refused() {
    for workers in [0, 3, 16] {
        let error = UdpGroup::bind(&UdpOptions::default(), workers).unwrap_err();
        assert!(error.to_string().contains("1, 2, 4 or 8"), "{error}");
    }
}
