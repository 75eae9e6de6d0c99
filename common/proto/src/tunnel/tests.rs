//! What a peer and a wire could see, in simulated time. The traps of boringtun 0.7.1 each have a
//! test here, in `gate` or in `peers`.

#![allow(clippy::unwrap_used)]

use super::*;
use crate::now::Wall;
use boringtun::noise::TunnResult;
use boringtun::noise::rate_limiter::RateLimiter;

pub(crate) const START: Now = Now {
    mono: Mono(1_000_000_000_000),
    wall: Wall(0),
};

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn private(number: u8) -> PrivateKey {
    PrivateKey::from_random([number; 32])
}

/// An IPv4 header with `len` in it, and zeros.
pub(crate) fn ip(len: usize) -> Vec<u8> {
    let mut packet = vec![0; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
    packet
}

fn tunnel(ours: u8, peer: u8, settings: &Settings) -> Tunnel {
    let (ours, peer) = (private(ours), private(peer).public());
    let id = PeerId::new(u32::from(peer.0[0])).unwrap();
    let seed = u64::from(peer.0[1]);
    Tunnel::new(
        &ours,
        &peer,
        settings,
        id,
        seed,
        &Unlimited::new(&ours.public()),
    )
}

fn seal(from: &mut Tunnel, packet: &[u8], now: Now) -> Result<Vec<u8>, DropReason> {
    let mut out = vec![0; mtu::DATAGRAM_ROOM];
    from.seal(packet, &mut out, now)
        .map(|len| out[..len].to_vec())
}

fn open(to: &mut Tunnel, datagram: &[u8], now: Now) -> (Opened, Vec<u8>) {
    let mut out = vec![0; mtu::PACKET_ROOM];
    let opened = to.open(datagram, &mut out, now);
    let len = match opened {
        Opened::Packet { len, .. }
        | Opened::Answered { len }
        | Opened::Established { len }
        | Opened::Cookie { len } => len,
        Opened::Keepalive { .. } | Opened::Dropped(_) => 0,
    };
    out.truncate(len);
    (opened, out)
}

fn initiate(from: &mut Tunnel, now: Now) -> Vec<u8> {
    let mut out = vec![0; CONTROL_ROOM];
    let len = from.initiate(&mut out, now).expect("an initiation");
    out.truncate(len);
    out
}

fn tick(tunnel: &mut Tunnel, now: Now) -> Option<Vec<u8>> {
    let mut out = vec![0; CONTROL_ROOM];
    match tunnel.tick(&mut out, now) {
        Tick::Send(len) => Some(out[..len].to_vec()),
        Tick::Nothing | Tick::GaveUp => None,
    }
}

/// Laptop and gateway with a fresh key, confirmed by both.
fn connected(settings: &Settings, now: Now) -> (Tunnel, Tunnel) {
    let (mut laptop, mut gateway) = (tunnel(1, 2, settings), tunnel(2, 1, settings));
    handshake(&mut laptop, &mut gateway, now);
    (laptop, gateway)
}

fn handshake(asks: &mut Tunnel, answers: &mut Tunnel, now: Now) {
    let initiation = initiate(asks, now);
    let (opened, response) = open(answers, &initiation, now);
    assert!(matches!(opened, Opened::Answered { .. }), "{opened:?}");
    let (opened, confirmation) = open(asks, &response, now);
    assert!(matches!(opened, Opened::Established { .. }), "{opened:?}");
    let (opened, _) = open(answers, &confirmation, now);
    assert_eq!(opened, Opened::Keepalive { newest: true });
}

/// Two tunnels and the wire between them, event by event.
struct World {
    ends: [Tunnel; 2],
    now: Now,
    delay: Duration,
    /// Adds up to 100 ms to each delivery and loses one in so many; zero: neither.
    rough: u64,
    dice: u64,
    cut: bool,
    wire: Vec<(Mono, usize, Vec<u8>)>,
    initiations: [u32; 2],
    keepalives: [u32; 2],
    received: [u32; 2],
    refused: u32,
    dropped: Vec<(Duration, usize, DropReason)>,
}

impl World {
    fn new(laptop: Settings, gateway: Settings) -> World {
        World {
            ends: [tunnel(1, 2, &laptop), tunnel(2, 1, &gateway)],
            now: START,
            delay: Duration::from_millis(30),
            rough: 0,
            dice: 1,
            cut: false,
            wire: Vec::new(),
            initiations: [0; 2],
            keepalives: [0; 2],
            received: [0; 2],
            refused: 0,
            dropped: Vec::new(),
        }
    }

    fn put(&mut self, from: usize, datagram: Vec<u8>) {
        match (datagram[0], datagram.len()) {
            (1, _) => self.initiations[from] += 1,
            (4, 32) => self.keepalives[from] += 1,
            _ => {}
        }
        let mut at = self.now.mono + self.delay;
        let mut lost = self.cut;
        if self.rough > 0 {
            self.dice = self
                .dice
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            at = at + Duration::from_millis((self.dice >> 33) % 100);
            lost |= (self.dice >> 40) % self.rough == 0;
        }
        if !lost {
            self.wire.push((at, 1 - from, datagram));
        }
    }

    fn initiate(&mut self, from: usize) {
        let datagram = initiate(&mut self.ends[from], self.now);
        self.put(from, datagram);
    }

    fn send(&mut self, from: usize) {
        match seal(&mut self.ends[from], &ip(100), self.now) {
            Ok(datagram) => self.put(from, datagram),
            Err(_) => self.refused += 1,
        }
    }

    /// Everything that happens in the next `time`.
    fn run(&mut self, time: Duration) {
        let end = self.now.mono + time;
        loop {
            let deadlines = self.ends.iter().map(Tunnel::next_deadline);
            let arrivals = self.wire.iter().map(|(at, ..)| *at);
            let next = deadlines.chain(arrivals).min().unwrap_or(Mono::NEVER);
            if next > end {
                self.now = self.now.after(end - self.now.mono);
                return;
            }
            self.now = self.now.after(next - self.now.mono);
            while let Some(place) = self.wire.iter().position(|(at, ..)| *at <= self.now.mono) {
                let (_, to, datagram) = self.wire.remove(place);
                let (opened, answer) = open(&mut self.ends[to], &datagram, self.now);
                match opened {
                    Opened::Packet { .. } => self.received[to] += 1,
                    Opened::Dropped(reason) => {
                        self.dropped.push((self.now.mono - START.mono, to, reason));
                    }
                    Opened::Keepalive { .. } | Opened::Cookie { len: 0 } => {}
                    Opened::Answered { .. }
                    | Opened::Established { .. }
                    | Opened::Cookie { .. } => self.put(to, answer),
                }
            }
            for end in 0..2 {
                while let Some(datagram) = tick(&mut self.ends[end], self.now) {
                    self.put(end, datagram);
                }
            }
        }
    }
}

#[test]
fn padding_is_a_multiple_of_16_and_stops_at_the_mtu() {
    for mtu in [1280, 1420, 9000] {
        let settings = Settings {
            mtu,
            ..Settings::default()
        };
        let (mut laptop, mut gateway) = connected(&settings, START);
        for len in (20..200).chain(mtu - 40..=mtu) {
            let packet = ip(len);
            let datagram = seal(&mut laptop, &packet, START).unwrap();
            assert_eq!(datagram.len() - 32, mtu.min(len.div_ceil(16) * 16));
            let (opened, inner) = open(&mut gateway, &datagram, START);
            assert_eq!(opened, Opened::Packet { len, newest: true });
            assert_eq!(inner, packet);
        }
        assert_eq!(
            seal(&mut laptop, &ip(mtu + 1), START),
            Err(DropReason::TooBig)
        );
    }
}

#[test]
fn a_key_of_180_s_neither_sends_nor_receives() {
    let (mut laptop, mut gateway) = connected(&Settings::default(), START);
    let young = START.after(Duration::from_millis(179_999));
    let old = START.after(seconds(180));
    let in_time = seal(&mut laptop, &ip(60), young).unwrap();
    let too_late = seal(&mut laptop, &ip(60), young).unwrap();
    assert!(matches!(
        open(&mut gateway, &in_time, young).0,
        Opened::Packet { .. }
    ));
    assert_eq!(
        open(&mut gateway, &too_late, old).0,
        Opened::Dropped(DropReason::KeyExpired)
    );
    assert_eq!(seal(&mut laptop, &ip(60), old), Err(DropReason::NoSession));
    assert_eq!(seal(&mut gateway, &ip(60), old), Err(DropReason::NoSession));
}

#[test]
fn nothing_is_sent_before_there_is_a_key_and_then_a_handshake_is_due() {
    let mut laptop = tunnel(1, 2, &Settings::default());
    assert_eq!(laptop.next_deadline(), Mono::NEVER);
    assert_eq!(
        seal(&mut laptop, &ip(60), START),
        Err(DropReason::NoSession)
    );
    assert_eq!(laptop.next_deadline(), START.mono);
    assert_eq!(
        tick(&mut laptop, START).map(|initiation| initiation.len()),
        Some(148)
    );
    assert_eq!(tick(&mut laptop, START), None);
}

#[test]
fn the_side_that_answered_waits_for_proof_before_it_sends() {
    let (mut laptop, mut gateway) = (
        tunnel(1, 2, &Settings::default()),
        tunnel(2, 1, &Settings::default()),
    );
    let initiation = initiate(&mut laptop, START);
    let (_, response) = open(&mut gateway, &initiation, START);
    assert_eq!(
        seal(&mut gateway, &ip(60), START),
        Err(DropReason::NoSession)
    );
    assert!(gateway.last_handshake().is_none());
    let (_, confirmation) = open(&mut laptop, &response, START);
    open(&mut gateway, &confirmation, START);
    assert!(seal(&mut gateway, &ip(60), START).is_ok());
    assert_eq!(gateway.last_handshake(), Some(START));
}

#[test]
fn no_spurious_handshake_after_idling_and_then_sending_one_packet() {
    for idle in [14, 15, 16, 30, 60, 90] {
        let mut world = World::new(Settings::default(), Settings::default());
        world.initiate(0);
        world.run(seconds(1));
        world.send(0);
        world.run(seconds(idle));
        world.send(0);
        world.run(Duration::from_millis(250));
        world.send(1);
        world.run(seconds(14));
        assert_eq!(world.initiations, [1, 0], "after {idle} s");
    }
}

#[test]
fn a_peer_that_falls_silent_is_asked_for_a_new_key_after_15_s() {
    let mut world = World::new(Settings::default(), Settings::default());
    world.initiate(0);
    world.run(seconds(1));
    world.cut = true;
    world.send(0);
    world.run(Duration::from_millis(14_999));
    world.send(0);
    assert_eq!(world.initiations, [1, 0]);
    world.run(Duration::from_millis(335));
    assert_eq!(world.initiations, [2, 0]);
}

#[test]
fn a_reply_in_the_same_instant_still_gets_its_passive_keepalive() {
    let (mut laptop, mut gateway) = connected(&Settings::default(), START);
    let request = seal(&mut laptop, &ip(60), START).unwrap();
    open(&mut gateway, &request, START);
    let reply = seal(&mut gateway, &ip(60), START).unwrap();
    open(&mut laptop, &reply, START);

    let due = START.after(seconds(10));
    assert_eq!(laptop.next_deadline(), due.mono);
    assert_eq!(
        tick(&mut laptop, START.after(Duration::from_millis(9_999))),
        None
    );
    let keepalive = tick(&mut laptop, due).unwrap();
    assert_eq!(keepalive.len(), 32);
    assert!(matches!(
        open(&mut gateway, &keepalive, due).0,
        Opened::Keepalive { .. }
    ));
    // A keepalive answers nothing and asks nothing.
    let later = START.after(seconds(100));
    assert_eq!(
        (tick(&mut gateway, later), tick(&mut laptop, later)),
        (None, None)
    );
}

#[test]
fn an_output_too_small_is_refused_and_nothing_panics() {
    let (mut laptop, mut gateway) = connected(&Settings::default(), START);
    let later = START.after(seconds(6));
    let data = seal(&mut laptop, &ip(160), START).unwrap();
    let initiation = initiate(&mut laptop, later);
    let (_, response) = open(&mut gateway, &initiation, later);
    for room in 0..148 {
        let mut out = vec![0; room];
        for datagram in [&data, &initiation, &response] {
            let to = if datagram[0] == 2 {
                &mut laptop
            } else {
                &mut gateway
            };
            assert_eq!(
                to.open(datagram, &mut out, later),
                Opened::Dropped(DropReason::TooLong)
            );
        }
        assert_eq!(
            laptop.tick(&mut out, later.after(seconds(60))),
            Tick::Nothing
        );
        assert_eq!(
            laptop.seal(&ip(128), &mut out, later),
            Err(DropReason::TooBig)
        );
    }
    // None of them was used up.
    assert!(matches!(
        open(&mut gateway, &data, later).0,
        Opened::Packet { .. }
    ));
    assert!(matches!(
        open(&mut laptop, &response, later).0,
        Opened::Established { .. }
    ));
}

#[test]
fn a_datagram_counts_once_and_one_far_behind_not_at_all() {
    let (mut laptop, mut gateway) = connected(&Settings::default(), START);
    let first = seal(&mut laptop, &ip(60), START).unwrap();
    let second = seal(&mut laptop, &ip(60), START).unwrap();
    assert!(matches!(
        open(&mut gateway, &second, START).0,
        Opened::Packet { .. }
    ));
    assert_eq!(
        open(&mut gateway, &second, START).0,
        Opened::Dropped(DropReason::Replayed)
    );
    let mut newest = second;
    for _ in 0..1100 {
        newest = seal(&mut laptop, &ip(60), START).unwrap();
    }
    open(&mut gateway, &newest, START);
    assert_eq!(
        open(&mut gateway, &first, START).0,
        Opened::Dropped(DropReason::Replayed)
    );
}

#[test]
fn no_flipped_bit_gets_through_and_none_moves_a_timer() {
    let (mut laptop, mut gateway) = connected(&Settings::default(), START);
    let datagram = seal(&mut laptop, &ip(60), START).unwrap();
    let before = gateway.next_deadline();
    for bit in 0..datagram.len() * 8 {
        let mut bad = datagram.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let expected: &[DropReason] = match bit / 8 {
            0..4 => &[DropReason::NotWireguard],
            4..8 => &[DropReason::UnknownIndex],
            8..16 => &[
                DropReason::BadTag,
                DropReason::Replayed,
                DropReason::KeyExpired,
            ],
            _ => &[DropReason::BadTag],
        };
        let (opened, _) = open(&mut gateway, &bad, START);
        assert!(
            expected
                .iter()
                .any(|reason| opened == Opened::Dropped(*reason)),
            "bit {bit}: {opened:?}"
        );
    }
    assert_eq!(gateway.next_deadline(), before);
    assert!(matches!(
        open(&mut gateway, &datagram, START).0,
        Opened::Packet { .. }
    ));
}

#[test]
fn an_authenticated_packet_that_is_not_ip_is_named_and_dropped() {
    let (mut laptop, mut gateway) = connected(&Settings::default(), START);
    let mut too_long = ip(60);
    too_long[3] = 200;
    let mut too_short = ip(60);
    too_short[3] = 10;
    let mut version_6 = vec![0; 32];
    version_6[0] = 0x60;
    for (packet, reason) in [
        (vec![0x45; 5], DropReason::Truncated),
        (version_6, DropReason::Truncated),
        (vec![0x15; 60], DropReason::BadHeader),
        (too_long, DropReason::BadLength),
        (too_short, DropReason::BadLength),
    ] {
        let datagram = seal(&mut laptop, &packet, START).unwrap();
        assert_eq!(
            open(&mut gateway, &datagram, START).0,
            Opened::Dropped(reason)
        );
    }
}

/// Stale clock: boringtun loses a session made after 180 s without `update_timers`.
#[test]
fn a_handshake_after_ten_idle_minutes_gives_a_lasting_key() {
    let mut world = World::new(Settings::default(), Settings::default());
    world.initiate(0);
    world.run(seconds(600));
    world.initiate(0);
    world.run(seconds(1));
    for _ in 0..100 {
        world.send(0);
        world.run(seconds(1));
    }
    assert_eq!((world.received[1], world.refused), (100, 0));
    assert_eq!(world.initiations, [2, 0]);
}

#[test]
fn the_initiator_rekeys_at_120_s_and_no_packet_is_lost() {
    let mut world = World::new(Settings::default(), Settings::default());
    world.initiate(0);
    world.run(seconds(1));
    for tenth in 1..=6000 {
        world.send(0);
        world.send(1);
        world.run(Duration::from_millis(100));
        if tenth == 1180 {
            assert_eq!(world.initiations, [1, 0], "not before 120 s");
        }
    }
    world.run(seconds(1));
    assert_eq!((world.received, world.refused), ([6000, 6000], 0));
    // At 0, 120, 240, 360, 480, 600 s; never by the side that answers.
    assert!(
        (5..=6).contains(&world.initiations[0]),
        "{:?}",
        world.initiations
    );
    assert_eq!(world.initiations[1], 0);
}

#[test]
fn an_initiator_that_only_receives_rekeys_at_165_s() {
    let mut world = World::new(Settings::default(), Settings::default());
    world.initiate(0);
    world.run(Duration::from_millis(164_900));
    world.send(1);
    world.run(Duration::from_millis(50));
    assert_eq!(world.initiations, [1, 0]);
    world.run(Duration::from_millis(300));
    world.send(1);
    world.run(Duration::from_millis(500));
    assert_eq!(world.initiations, [2, 0]);
    assert_eq!((world.received[0], world.refused), (2, 0));
}

#[test]
fn handshakes_are_5_s_apart_and_end_after_90_s() {
    let mut out = [0; CONTROL_ROOM];
    let mut laptop = tunnel(1, 2, &Settings::default());
    let (mut now, mut sent) = (START, Vec::new());
    let _ = seal(&mut laptop, &ip(60), now);
    loop {
        match laptop.tick(&mut out, now) {
            Tick::Send(_) => sent.push(now.mono),
            Tick::GaveUp => break,
            Tick::Nothing => {
                // Asking again and again does not make it faster.
                assert_eq!(seal(&mut laptop, &ip(60), now), Err(DropReason::NoSession));
                now = now.after(laptop.next_deadline() - now.mono);
            }
        }
    }
    assert_eq!(sent.len(), 18);
    for pair in sent.windows(2) {
        let gap = pair[1] - pair[0];
        assert!(
            (seconds(5)..Duration::from_millis(5_334)).contains(&gap),
            "{gap:?}"
        );
    }
    let total = now.mono - START.mono;
    assert!((seconds(90)..seconds(96)).contains(&total), "{total:?}");
    assert_eq!(laptop.next_deadline(), Mono::NEVER);
    // The next packet begins anew.
    let later = now.after(seconds(100));
    assert_eq!(
        seal(&mut laptop, &ip(60), later),
        Err(DropReason::NoSession)
    );
    assert!(tick(&mut laptop, later).is_some());
}

#[test]
fn a_persistent_keepalive_holds_the_tunnel_and_never_gives_up_for_good() {
    let keepalive = Some(seconds(25));
    let mut world = World::new(
        Settings {
            keepalive,
            ..Settings::default()
        },
        Settings::default(),
    );
    world.initiate(0);
    for _ in 0..60 {
        world.run(seconds(60));
        assert!(world.ends.iter().all(|end| end.is_established(world.now)));
    }
    assert!(
        (140..=180).contains(&world.keepalives[0]),
        "{:?}",
        world.keepalives
    );
    assert!(
        (24..=30).contains(&world.initiations[0]),
        "{:?}",
        world.initiations
    );
    world.cut = true;
    world.run(seconds(3600));
    assert!(!world.ends[0].is_established(world.now));
    world.cut = false;
    world.run(seconds(31));
    assert!(world.ends[0].is_established(world.now));
}

#[test]
fn waking_from_suspend_starts_a_handshake_at_once() {
    let settings = Settings {
        keepalive: Some(seconds(25)),
        ..Settings::default()
    };
    let (mut laptop, _) = connected(&settings, START);
    let morning = START.after(seconds(8 * 3600));
    assert_eq!(
        tick(&mut laptop, morning).map(|datagram| datagram[0]),
        Some(1)
    );

    // Also when the lid closed in the middle of a handshake.
    let mut laptop = tunnel(1, 2, &Settings::default());
    initiate(&mut laptop, START);
    assert_eq!(
        tick(&mut laptop, morning).map(|datagram| datagram[0]),
        Some(1)
    );
}

#[test]
fn an_answer_that_slept_in_the_socket_makes_no_key() {
    let (mut laptop, mut gateway) = (
        tunnel(1, 2, &Settings::default()),
        tunnel(2, 1, &Settings::default()),
    );
    let initiation = initiate(&mut laptop, START);
    let (_, response) = open(&mut gateway, &initiation, START);
    let morning = START.after(seconds(3600));
    assert_eq!(
        open(&mut laptop, &response, morning).0,
        Opened::Dropped(DropReason::BadHandshake)
    );
}

/// Two sides initiating together: both keys work, and from then on only one side rekeys.
#[test]
fn crossed_initiations_converge() {
    for delay in [1, 30, 150] {
        let mut world = World::new(Settings::default(), Settings::default());
        world.delay = Duration::from_millis(delay);
        world.initiate(0);
        world.initiate(1);
        world.run(seconds(1));
        for _ in 0..6000 {
            world.send(0);
            world.send(1);
            world.run(Duration::from_millis(100));
        }
        world.run(seconds(1));
        assert_eq!(world.dropped, [], "delay {delay} ms");
        assert_eq!(
            (world.received, world.refused),
            ([6000, 6000], 0),
            "delay {delay} ms"
        );
        // The two that crossed, then one for each of the next 600/120 keys, and one to spare for
        // a rekey that crosses once more.
        let total: u32 = world.initiations.iter().sum();
        assert!(
            (6..=8).contains(&total),
            "delay {delay} ms: {:?}",
            world.initiations
        );
    }
}

#[test]
fn loss_and_reordering_never_leave_an_end_without_a_key() {
    for seed in 1..=20 {
        let mut world = World::new(Settings::default(), Settings::default());
        world.initiate(0);
        world.run(seconds(1));
        (world.rough, world.dice) = (10, seed);
        for step in 0..3000u64 {
            world.send(0);
            // The gateway talks in bursts, so that now one side leads and now the other.
            if step / 100 % 3 != 2 {
                world.send(1);
            }
            world.run(Duration::from_millis(200));
        }
        assert_eq!(
            (world.refused, &world.dropped),
            (0, &Vec::new()),
            "seed {seed}"
        );
        // Five rekeys, each repeated when one of its messages is lost.
        let total: u32 = world.initiations.iter().sum();
        assert!(
            (5..=15).contains(&total),
            "seed {seed}: {:?}",
            world.initiations
        );
    }
}

#[test]
fn a_side_that_has_just_answered_does_not_ask_as_well() {
    let (mut laptop, mut gateway) = (
        tunnel(1, 2, &Settings::default()),
        tunnel(2, 1, &Settings::default()),
    );
    let initiation = initiate(&mut laptop, START);
    open(&mut gateway, &initiation, START);
    let _ = seal(&mut gateway, &ip(60), START);
    assert_eq!(
        tick(&mut gateway, START.after(Duration::from_millis(4_999))),
        None
    );
    assert!(tick(&mut gateway, START.after(seconds(5))).is_some());
}

#[test]
fn keys_are_forgotten_after_540_s_but_not_what_has_been_seen() {
    let (mut laptop, mut gateway) = (
        tunnel(1, 2, &Settings::default()),
        tunnel(2, 1, &Settings::default()),
    );
    let initiation = initiate(&mut laptop, START);
    let (_, response) = open(&mut gateway, &initiation, START);
    let (_, confirmation) = open(&mut laptop, &response, START);
    open(&mut gateway, &confirmation, START);
    let data = seal(&mut laptop, &ip(60), START).unwrap();

    let later = START.after(seconds(540));
    assert_eq!(gateway.next_deadline(), later.mono);
    assert_eq!(tick(&mut gateway, later), None);
    assert_eq!(gateway.next_deadline(), Mono::NEVER);
    assert_eq!(
        open(&mut gateway, &data, later).0,
        Opened::Dropped(DropReason::UnknownIndex)
    );
    assert_eq!(
        open(&mut gateway, &initiation, later).0,
        Opened::Dropped(DropReason::BadHandshake)
    );
    handshake(&mut laptop, &mut gateway, later);
    assert!(seal(&mut gateway, &ip(60), later).is_ok());
}

/// boringtun would send under whatever has taken the place of its current session.
#[test]
fn unanswered_answers_never_make_us_send_under_an_unconfirmed_key() {
    let (mut laptop, mut gateway) = connected(&Settings::default(), START);
    let mut now = START;
    for _ in 0..9 {
        now = now.after(seconds(6));
        let initiation = initiate_again(&mut laptop, now);
        assert!(matches!(
            open(&mut gateway, &initiation, now).0,
            Opened::Answered { .. }
        ));
        if let Ok(datagram) = seal(&mut gateway, &ip(60), now) {
            assert!(matches!(
                open(&mut laptop, &datagram, now).0,
                Opened::Packet { .. }
            ));
        }
    }
    assert_eq!(seal(&mut gateway, &ip(60), now), Err(DropReason::NoSession));
}

fn initiate_again(tunnel: &mut Tunnel, now: Now) -> Vec<u8> {
    if !tunnel.is_handshaking() {
        return initiate(tunnel, now);
    }
    tick(tunnel, now).expect("a repeated initiation")
}

#[test]
fn another_preshared_key_makes_no_session() {
    let psk = |byte| Settings {
        psk: Some(PresharedKey([byte; 32])),
        ..Settings::default()
    };
    let (mut laptop, mut gateway) = (tunnel(1, 2, &psk(1)), tunnel(2, 1, &psk(2)));
    let initiation = initiate(&mut laptop, START);
    let (_, response) = open(&mut gateway, &initiation, START);
    assert_eq!(
        open(&mut laptop, &response, START).0,
        Opened::Dropped(DropReason::BadHandshake)
    );
    let (mut laptop, mut gateway) = (tunnel(1, 2, &psk(1)), tunnel(2, 1, &psk(1)));
    handshake(&mut laptop, &mut gateway, START);
}

/// A gateway that is always under load, as another implementation would be.
fn cookie_for(initiation: &[u8], limiter: &RateLimiter) -> Option<Vec<u8>> {
    let mut reply = [0; 64];
    match limiter.verify_packet(Some([192, 0, 2, 1].into()), initiation, &mut reply) {
        Err(TunnResult::WriteToNetwork(cookie)) => Some(cookie.to_vec()),
        Ok(_) | Err(_) => None,
    }
}

#[test]
fn a_cookie_is_used_at_once_but_only_once_and_for_two_minutes() {
    let loaded = RateLimiter::new(&x25519::PublicKey::from(private(2).public().0), 0);
    let settings = Settings {
        keepalive: Some(seconds(25)),
        ..Settings::default()
    };
    let mut laptop = tunnel(1, 2, &settings);
    let first = initiate(&mut laptop, START);
    assert_eq!(first[132..], [0; 16]);
    let cookie = cookie_for(&first, &loaded).unwrap();
    let (opened, second) = open(&mut laptop, &cookie, START);
    assert_eq!(opened, Opened::Cookie { len: 148 });
    assert_eq!(
        cookie_for(&second, &loaded),
        None,
        "its second MAC is right"
    );

    // A peer that goes on asking does not make us spin.
    let other = RateLimiter::new(&x25519::PublicKey::from(private(2).public().0), 0);
    let again = cookie_for(&second, &other).unwrap();
    assert_eq!(
        open(&mut laptop, &again, START).0,
        Opened::Cookie { len: 0 }
    );

    let mut now = START;
    let mut with_cookie = 0;
    while now.mono - START.mono < seconds(200) {
        now = now.after(seconds(1));
        while let Some(initiation) = tick(&mut laptop, now) {
            let fresh = now.mono - START.mono < seconds(120);
            assert_eq!(
                initiation[132..] != [0; 16],
                fresh,
                "at {:?}",
                now.mono - START.mono
            );
            with_cookie += u32::from(fresh);
        }
    }
    assert!(with_cookie > 10);
}

#[test]
fn a_cookie_for_another_initiation_is_refused() {
    let loaded = RateLimiter::new(&x25519::PublicKey::from(private(2).public().0), 0);
    let mut laptop = tunnel(1, 2, &Settings::default());
    let first = initiate(&mut laptop, START);
    let mut cookie = cookie_for(&first, &loaded).unwrap();
    cookie[50] ^= 1;
    assert_eq!(
        open(&mut laptop, &cookie, START).0,
        Opened::Dropped(DropReason::BadHandshake)
    );
    cookie[4] ^= 1;
    assert_eq!(
        open(&mut laptop, &cookie, START).0,
        Opened::Dropped(DropReason::UnknownIndex)
    );
}

#[test]
fn an_index_that_does_not_fit_is_refused() {
    assert_eq!(PeerId::new(0x007f_ffff), Some(PeerId::MAX));
    assert_eq!(PeerId::new(0x0080_0000), None);
    assert_eq!(PeerId::new(0x0100_0001), None);
    let mut last = tunnel_with_id(PeerId::MAX);
    let initiation = initiate(&mut last, START);
    assert_eq!(
        initiation[5..8],
        [0xff, 0xff, 0x7f],
        "index << 8 | session, little endian"
    );
}

fn tunnel_with_id(id: PeerId) -> Tunnel {
    let (ours, peer) = (private(1), private(2).public());
    let limiter = Unlimited::new(&ours.public());
    Tunnel::new(&ours, &peer, &Settings::default(), id, 0, &limiter)
}

#[test]
fn a_late_packet_of_the_older_key_is_opened_but_is_not_the_newest() {
    let (mut laptop, mut gateway) = connected(&Settings::default(), START);
    let old = seal(&mut laptop, &ip(60), START).unwrap();
    let later = START.after(seconds(130));
    handshake(&mut laptop, &mut gateway, later);
    let new = seal(&mut laptop, &ip(60), later).unwrap();
    assert_eq!(
        open(&mut gateway, &new, later).0,
        Opened::Packet {
            len: 60,
            newest: true
        }
    );
    assert_eq!(
        open(&mut gateway, &old, later).0,
        Opened::Packet {
            len: 60,
            newest: false
        }
    );
    // Both ends go on.
    let reply = seal(&mut gateway, &ip(60), later).unwrap();
    assert!(matches!(
        open(&mut laptop, &reply, later).0,
        Opened::Packet { .. }
    ));
}
