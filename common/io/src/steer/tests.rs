use super::*;
use crate::clock::Clock;
use crate::host::{
    drop_privileges,
    testing::{in_namespace, ip},
};
use crate::offload::Switches;
use crate::testing::Spec;
use crate::tun::{DEFAULT_QUEUE, TunOptions, TunRx, TunTx};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::Write;
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// As [`Spec`] has it: the host is the destination, devices are 10.0.0.n and fdfd:…:fdnn.
const HOST_V4: [u8; 4] = [192, 0, 2, 10];
const HOST_V6: Ipv6Addr = Ipv6Addr::from_bits(u128::from_ne_bytes([0xfd; 16]));

fn device(v6: bool, number: u8) -> IpAddr {
    if v6 {
        let mut bytes = HOST_V6.octets();
        bytes[15] = number;
        bytes.into()
    } else {
        [10, 0, 0, number].into()
    }
}

/// Queues on an interface with addresses, in the namespace of the test.
fn queues(workers: usize) -> Vec<Tun> {
    let queues = Tun::open_queues(
        &TunOptions {
            name: "postern0".to_owned(),
            mtu: 1420,
            v4: Some((HOST_V4.into(), 24)),
            v6: Some((HOST_V6, 64)),
            queue: DEFAULT_QUEUE,
            offload: Switches::AUTO,
        },
        workers,
    )
    .unwrap();
    assert_eq!(queues.len(), workers);
    ip("route add 10.0.0.0/8 dev postern0");
    // The kernel takes a moment to find that nobody else has the address.
    let deadline = Clock::now().mono + Duration::from_secs(5);
    while UdpSocket::bind((HOST_V6, 0)).is_err() {
        assert!(Clock::now().mono < deadline, "{HOST_V6} is not there");
        std::thread::yield_now();
    }
    queues
}

fn split(queues: Vec<Tun>) -> (Vec<TunRx>, Vec<TunTx>) {
    queues.into_iter().map(Tun::split).unzip()
}

/// What came for a device, and how many packets that read became.
#[derive(Debug)]
struct Read {
    queue: usize,
    to: IpAddr,
    segments: usize,
    packet: Vec<u8>,
}

/// Reads until so many packets of this protocol came for devices.
fn read(readers: &mut [TunRx], protocol: u8, packets: usize) -> Vec<Read> {
    let mut reads: Vec<Read> = Vec::new();
    let deadline = Clock::now().mono + Duration::from_secs(5);
    while reads.iter().map(|read| read.segments).sum::<usize>() < packets {
        assert!(Clock::now().mono < deadline, "{} reads came", reads.len());
        let mut waits: Vec<PollFd<'_>> = readers
            .iter()
            .map(|reader| PollFd::from_borrowed_fd(reader.fd(), PollFlags::IN))
            .collect();
        let second = Timespec {
            tv_sec: 1,
            tv_nsec: 0,
        };
        poll(&mut waits, Some(&second)).unwrap();
        for (queue, reader) in readers.iter_mut().enumerate() {
            let keep = |packet: crate::split::SuperPacket<'_>| {
                let bytes = packet.packet();
                let (found, to): (u8, IpAddr) = if bytes[0] >> 4 == 4 {
                    let to: [u8; 4] = bytes[16..20].try_into().unwrap();
                    (bytes[9], to.into())
                } else {
                    let to: [u8; 16] = bytes[24..40].try_into().unwrap();
                    (bytes[6], to.into())
                };
                // The host also looks for routers and tells of groups.
                if found == protocol && !to.is_multicast() {
                    reads.push(Read {
                        queue,
                        to,
                        segments: packet.segments(),
                        packet: bytes.to_vec(),
                    });
                }
            };
            reader.receive(usize::MAX, keep).unwrap();
        }
    }
    reads
}

fn last_byte(address: IpAddr) -> usize {
    match address {
        IpAddr::V4(v4) => v4.octets()[3].into(),
        IpAddr::V6(v6) => v6.octets()[15].into(),
    }
}

fn assert_at_home(reads: &[Read], workers: usize) {
    for read in reads {
        assert_eq!(
            read.queue,
            last_byte(read.to) % workers,
            "to {} of {workers} workers",
            read.to
        );
    }
}

/// A datagram to each of many devices, and who read it.
fn single_packets_arrive(queues: Vec<Tun>) {
    let workers = queues.len();
    let (mut readers, _writers) = split(queues);
    let v4 = UdpSocket::bind((IpAddr::from(HOST_V4), 0)).unwrap();
    for number in 0..=255u8 {
        let to = [10, number.wrapping_mul(7), 255 - number, number];
        v4.send_to(b"hello", (IpAddr::from(to), 9)).unwrap();
    }
    assert_at_home(&read(&mut readers, 17, 256), workers);
    let v6 = UdpSocket::bind((HOST_V6, 0)).unwrap();
    for number in (0..=255).filter(|number| *number != HOST_V6.octets()[15]) {
        v6.send_to(b"hello", (device(true, number), 9)).unwrap();
    }
    assert_at_home(&read(&mut readers, 17, 255), workers);
}

#[test]
fn packets_arrive_at_the_worker_of_their_destination() {
    for workers in [1, 2, 4, 8] {
        in_namespace(move || {
            let queues = queues(workers);
            by_address(&queues[0], workers).unwrap();
            single_packets_arrive(queues);
        });
    }
}

#[test]
fn a_program_loaded_before_privileges_were_dropped_is_attached_after() {
    in_namespace(|| {
        let steering = Steering::load(4).unwrap();
        drop_privileges().unwrap();
        let queues = queues(4);
        steering.attach(&queues[3]).unwrap();
        drop(steering);
        single_packets_arrive(queues);

        let open_to_all = std::fs::read_to_string("/proc/sys/kernel/unprivileged_bpf_disabled");
        if open_to_all.is_ok_and(|setting| setting.trim() == "0") {
            return;
        }
        let error = Steering::load(4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(error.to_string().contains("CAP_BPF"), "{error}");
        assert!(Steering::load(1).is_ok(), "one worker needs nothing");
    });
}

#[test]
fn udp_super_packets_arrive_whole_at_the_worker_of_their_destination() {
    for workers in [2, 8] {
        in_namespace(move || {
            let queues = queues(workers);
            by_address(&queues[0], workers).unwrap();
            let (mut readers, _writers) = split(queues);
            for (host, v6) in [(IpAddr::from(HOST_V4), false), (HOST_V6.into(), true)] {
                let socket = UdpSocket::bind((host, 0)).unwrap();
                let segment: c_int = 1000;
                // SAFETY: the pointer and the length are those of an int that lives through the
                // call.
                let set = unsafe {
                    libc::setsockopt(
                        socket.as_raw_fd(),
                        libc::SOL_UDP,
                        libc::UDP_SEGMENT,
                        (&raw const segment).cast(),
                        size_of::<c_int>() as libc::socklen_t,
                    )
                };
                assert_eq!(set, 0);
                for number in 2..20 {
                    socket
                        .send_to(&[number; 20_000], (device(v6, number), 9))
                        .unwrap();
                }
                let reads = read(&mut readers, 17, 18 * 20);
                assert_at_home(&reads, workers);
                assert!(reads.iter().all(|read| read.segments == 20), "{v6}");
            }
        });
    }
}

/// Opens a connection from the host to a device that the test plays.
fn connect(readers: &mut [TunRx], writer: &mut TunTx, v6: bool, number: u8) -> TcpStream {
    let domain = if v6 { Domain::IPV6 } else { Domain::IPV4 };
    let socket = Socket::new(domain, Type::STREAM, Some(Protocol::TCP)).unwrap();
    let host = if v6 { HOST_V6.into() } else { HOST_V4.into() };
    socket.set_reuse_address(true).unwrap();
    socket
        .bind(&SocketAddr::new(host, 6443).into())
        .expect("the port that Spec writes to");
    socket.set_nonblocking(true).unwrap();
    let peer = SocketAddr::new(device(v6, number), 40_000);
    let error = socket.connect(&peer.into()).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::EINPROGRESS));
    // What the host has to say about the connection before comes first.
    let syn = loop {
        let mut reads = read(readers, 6, 1);
        reads.retain(|read| read.to == peer.ip());
        if let Some(syn) = reads.pop() {
            break syn.packet;
        }
    };
    let tcp = &syn[if v6 { 40 } else { 20 }..];
    assert_eq!(tcp[13] & 0x3f, 2, "a SYN");
    let sequence = u32::from_be_bytes(tcp[4..8].try_into().unwrap());
    let answer = Spec {
        v6,
        source: number,
        port: 40_000,
        flags: 0x12,
        acknowledgement: sequence.wrapping_add(1),
        window: u16::MAX,
        tcp_options: vec![2, 4, 5, 100], // MSS 1380
        payload: Vec::new(),
        ..Spec::default()
    }
    .build();
    writer.slot()[..answer.len()].copy_from_slice(&answer);
    writer.commit(answer.len());
    writer.flush();
    let mut waits = [PollFd::new(&socket, PollFlags::OUT)];
    let patience = Timespec {
        tv_sec: 5,
        tv_nsec: 0,
    };
    assert_eq!(
        poll(&mut waits, Some(&patience)).unwrap(),
        1,
        "no connection"
    );
    assert!(socket.take_error().unwrap().is_none());
    socket.into()
}

#[test]
fn tcp_super_packets_arrive_at_the_worker_of_their_destination() {
    in_namespace(|| {
        let queues = queues(4);
        by_address(&queues[0], 4).unwrap();
        let (mut readers, mut writers) = split(queues);
        for v6 in [false, true] {
            for number in [2, 3, 4, 5] {
                let mut stream = connect(&mut readers, &mut writers[0], v6, number);
                let sent = stream.write(&[number; 60_000]).unwrap();
                assert!(sent > 5 * 1380);
                let reads = read(&mut readers, 6, 5);
                assert_at_home(&reads, 4);
                assert!(
                    reads.iter().any(|read| read.segments > 1),
                    "no super-packet"
                );
                // Gone at once, so that the next may have the port, and nothing comes again.
                let socket = Socket::from(stream);
                socket.set_linger(Some(Duration::ZERO)).unwrap();
            }
        }
    });
}

#[test]
fn a_number_of_workers_that_no_mask_makes_is_refused() {
    for workers in [0, 3, 6, 9, 16] {
        let error = Steering::load(workers).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        assert!(error.to_string().contains("1, 2, 4 or 8"), "{error}");
    }
}
