//! Both ends and a wire between them, minutes at a time.

use super::*;

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
            lost |= (self.dice >> 40).is_multiple_of(self.rough);
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
    for seed in 1..=10 {
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
