use super::thread::DoorThread;
use super::*;
use crate::worker_api::{Caller, DoorCommand, WORKER_QUEUE};
use postern_io::clock::Clock;
use postern_io::road;
use postern_io::udp::{UdpGroup, UdpOptions};
use postern_proto::now::{Now, Wall};
use postern_proto::peers::PeerId;
use postern_proto::tunnel::{Settings, Tunnel, Unlimited};
use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));

fn private(n: u8) -> PrivateKey {
    PrivateKey::from_random([n; 32])
}

fn start() -> Now {
    Now {
        mono: Mono(1_000_000_000_000),
        wall: Wall(1_800_000_000_000_000_000),
    }
}

/// What the laptop with this key sends first.
fn initiation(laptop: u8) -> [u8; INITIATION] {
    let ours = private(laptop);
    let limiter = Unlimited::new(&ours.public());
    let (settings, gateway) = (Settings::default(), private(2).public());
    let id = PeerId::new(1).expect("small");
    let mut tunnel = Tunnel::new(&ours, &gateway, &settings, id, 1, &limiter);
    let mut datagram = [0; INITIATION];
    assert_eq!(tunnel.initiate(&mut datagram, start()), Some(INITIATION));
    datagram
}

fn letter(claim: Option<PublicKey>) -> Letter {
    let from = Endpoint::from(SocketAddr::new(HOME, 4000));
    Letter::new(claim, from, Ecn::NotEct, &[1; 32]).expect("short")
}

#[test]
fn an_enrolled_key_is_for_its_worker_and_others_meet_silence() {
    let mut door = FrontDoor::new(&private(2), 4, 7);
    let keys = [private(10).public(), private(11).public()];
    door.enrol(keys[0], 3).expect("room");
    door.enrol(keys[1], 1).expect("room");
    let now = start().mono;
    let ask = |door: &mut FrontDoor, laptop| door.rule(HOME, &initiation(laptop), now);
    let claimed = |worker, key| Ruling::HandOver {
        worker,
        claim: Some(key),
    };
    assert_eq!(ask(&mut door, 10), claimed(3, keys[0]));
    assert_eq!(ask(&mut door, 11), claimed(1, keys[1]));
    let silence = Ruling::Silence(DropReason::UnknownKey);
    assert_eq!(ask(&mut door, 12), silence, "a stranger");
    door.strike(&keys[0]);
    assert_eq!(ask(&mut door, 10), silence, "no longer enrolled");
    assert_eq!(door.counts().drops.get(DropReason::UnknownKey), 2);
    assert_eq!(door.len(), 1);
}

#[test]
fn a_flooder_is_asked_for_a_cookie_and_others_are_not() {
    let mut door = FrontDoor::new(&private(2), 1, 7);
    door.enrol(private(10).public(), 0).expect("room");
    let (flood, now) = (initiation(66), start().mono);
    let flooder = IpAddr::from([198, 51, 100, 66]);
    for _ in 0..200 {
        door.rule(flooder, &flood, now);
    }
    assert!(door.counts().cookies > 100, "{:?}", door.counts());
    let ruling = door.rule(HOME, &initiation(10), now);
    assert!(matches!(ruling, Ruling::HandOver { .. }), "{ruling:?}");
}

#[test]
fn what_is_no_initiation_goes_where_its_index_says_or_nowhere() {
    let mut door = FrontDoor::new(&private(2), 4, 7);
    let mut data = [0u8; 96];
    data[0] = 4;
    // Session 9 of peer 6: of worker 2.
    data[4..8].copy_from_slice(&(6u32 << 8 | 9).to_le_bytes());
    let now = start().mono;
    let stray = Ruling::HandOver {
        worker: 2,
        claim: None,
    };
    assert_eq!(door.rule(HOME, &data, now), stray);
    let mut long = [0u8; 1452];
    long[..96].copy_from_slice(&data);
    for (datagram, reason) in [
        (&long[..], DropReason::UnknownIndex),
        (&[0; 148], DropReason::NotWireguard),
        (&[], DropReason::NotWireguard),
        (&[4; mtu::DATAGRAM_ROOM + 1], DropReason::TooLong),
    ] {
        let before = door.counts().drops.get(reason);
        assert_eq!(door.rule(HOME, datagram, now), Ruling::Silence(reason));
        assert_eq!(door.counts().drops.get(reason), before + 1);
    }
}

#[test]
fn the_queue_is_bounded_and_strangers_leave_room_for_handshakes() {
    let (mut door, worker) = queue(Waker::new().expect("eventfd"));
    let strays = (0..HANDED_QUEUE).filter(|_| door.offer(letter(None)));
    assert_eq!(strays.count(), STRAYS);
    let key = private(10).public();
    let claims = (0..HANDED_QUEUE).filter(|_| door.offer(letter(Some(key))));
    assert_eq!(claims.count(), HANDED_QUEUE - STRAYS);
    assert_eq!(worker.waiting(), HANDED_QUEUE);
    let taken = std::iter::from_fn(|| worker.next()).count();
    assert_eq!((taken, worker.waiting()), (HANDED_QUEUE, 0));
    assert!(door.offer(letter(None)), "there is room again");
}

#[test]
fn the_door_is_full_when_it_knows_as_many_as_it_may() {
    let mut door = FrontDoor::new(&private(2), 1, 7);
    let key = |n: usize| {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&n.to_le_bytes());
        PublicKey(key)
    };
    for n in 0..MAX_PEERS {
        door.enrol(key(n), 0).expect("room");
    }
    assert_eq!(door.enrol(key(MAX_PEERS), 0), Err(DoorFull));
    door.enrol(key(0), 0).expect("it is known already");
    door.strike(&key(0));
    door.enrol(key(MAX_PEERS), 0).expect("room again");
}

#[test]
fn a_datagram_from_the_wire_reaches_its_worker() {
    let group = UdpGroup::bind(&UdpOptions::default(), 2).expect("binds");
    let to = SocketAddr::from(([127, 0, 0, 1], group.door.port()));
    let waker = Waker::new().expect("eventfd");
    let (sender, commands) = sync_channel::<DoorCommand>(WORKER_QUEUE);
    let queues: Vec<_> = (0..2).map(|_| queue(waker.clone())).collect();
    let (to_workers, at_workers): (Vec<_>, Vec<_>) = queues.into_iter().unzip();
    let mut door = FrontDoor::new(&private(2), 2, 7);
    door.enrol(private(10).public(), 1).expect("room");
    // The kernel joins for none of the group until all have asked.
    let mut roads: Vec<_> = group
        .workers
        .into_iter()
        .map(|udp| road::open(udp, None).expect("opens"))
        .collect();
    let (inputs, outputs) = road::open(group.door, None).expect("opens");
    let bell = Waker::new().expect("eventfd");
    let thread = DoorThread {
        door,
        inputs,
        outputs,
        waker: bell.clone(),
        commands,
        workers: to_workers,
    };
    let thread = std::thread::spawn(|| thread.run());

    let laptop = UdpSocket::bind("127.0.0.1:0").expect("binds");
    let first = initiation(10);
    laptop.send_to(&first, to).expect("sent");
    let patience = Clock::now().mono + Duration::from_secs(10);
    let ready = roads[1].0.wait(&waker, None, patience, Clock::now().mono);
    assert!(ready.expect("waits").woken, "the worker is woken");
    let taken = at_workers[1].next().expect("a letter");
    assert_eq!(taken.claim, Some(private(10).public()));
    assert_eq!(taken.datagram(), first);
    assert_eq!(taken.from.remote, laptop.local_addr().expect("bound"));
    assert!(at_workers[0].next().is_none());

    // A flood is answered with cookies, from the same port.
    let deadline = Instant::now() + Duration::from_secs(10);
    laptop.set_nonblocking(true).expect("set");
    let mut reply = [0; 200];
    let cookie = loop {
        laptop.send_to(&first, to).expect("sent");
        if let Ok(found) = laptop.recv_from(&mut reply) {
            break found;
        }
        assert!(Instant::now() < deadline, "no cookie");
    };
    assert_eq!((cookie, reply[0]), ((COOKIE_ROOM, to), 3));

    let caller = Caller::new(sender, move || bell.wake());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    runtime.block_on(async {
        let by = tokio::time::Instant::now() + Duration::from_secs(10);
        let counts = caller
            .ask(|done| DoorCommand::Counts { done })
            .expect("room");
        let counts = counts.by(by).await.expect("answers");
        assert!(counts.handed >= 1 && counts.cookies >= 1, "{counts:?}");
        let stop = caller.ask(|done| DoorCommand::Stop { done }).expect("room");
        stop.by(by).await.expect("answers");
    });
    thread.join().expect("no panic").expect("no error");
    roads.clear();
}
