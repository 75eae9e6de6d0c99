use super::*;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);
const START: Mono = Mono(1_000_000_000_000);

/// A path with a latency, and a gateway that answers what arrives.
struct World {
    path: PathMtu,
    now: Mono,
    latency: Duration,
    /// The largest inner packet that passes.
    fits: u16,
    answers: bool,
    /// Sizes sent, oldest first.
    sent: Vec<u16>,
    coming: Vec<(Mono, u32, u16)>,
    /// What the gateway was told last.
    told: Option<u16>,
    lose: Box<dyn FnMut(u16) -> bool>,
}

impl World {
    fn new(configured: u16, fits: u16) -> World {
        World {
            path: PathMtu::new(configured),
            now: START,
            latency: 20 * MS,
            fits,
            answers: true,
            sent: Vec::new(),
            coming: Vec::new(),
            told: None,
            lose: Box::new(|_| false),
        }
    }

    fn connected(configured: u16, fits: u16) -> World {
        let mut world = World::new(configured, fits);
        world.path.start(world.now);
        world.run(5000 * MS);
        world
    }

    /// Time passes: probes leave, answers come, all when they are due.
    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            let answer = self.coming.iter().map(|(at, ..)| *at).min();
            let at = self.path.next_deadline().min(answer.unwrap_or(Mono::NEVER));
            if at > end {
                break;
            }
            self.now = self.now.max(at);
            let now = self.now;
            let World {
                path,
                sent,
                coming,
                told,
                lose,
                ..
            } = self;
            coming.retain(|&(at, id, size)| {
                if at <= now {
                    path.answered(id, size, now);
                }
                at > now
            });
            path.due(true, now, |probe| {
                sent.push(probe.size);
                if self.answers && probe.size <= self.fits && !lose(probe.size) {
                    *told = Some(probe.mtu);
                    let size = probe.size.max(120);
                    coming.push((now + 2 * self.latency, probe.id, size));
                }
            });
        }
        self.now = end;
    }

    /// The tunnel is used all the time, by programs that are answered.
    fn run_used(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.path.sent(1000, self.now);
            self.run(100 * MS);
            self.path.heard();
        }
    }
}

#[test]
fn a_normal_path_costs_one_probe_and_a_small_one_once() {
    let mut world = World::connected(1420, 1420);
    assert_eq!(world.path.mtu(), 1420);
    assert_eq!(world.path.known(), Known::Passes);
    assert_eq!(world.sent, [1420, 0]);
    world.sent.clear();
    world.path.start(world.now);
    world.run(60_000 * MS);
    assert_eq!(world.sent, [1420], "the next handshake: one");
    world.run(3_600_000 * MS);
    assert_eq!(world.sent, [1420], "an idle tunnel asks nothing");
}

#[test]
fn a_small_path_is_found_in_about_a_second_and_the_gateway_told() {
    for (fits, found) in [(1412, 1408), (1408, 1408), (1340, 1328), (1280, 1280)] {
        let mut world = World::new(1420, fits);
        world.path.start(world.now);
        world.run(1100 * MS);
        assert_eq!(world.path.mtu(), found);
        assert_eq!(world.path.known(), Known::Passes);
        world.run(500 * MS);
        assert_eq!(world.told, Some(found));
    }
}

#[test]
fn jumbo_paths_have_steps_too() {
    let world = World::connected(8920, 4470);
    assert_eq!(world.path.mtu(), 4432);
}

#[test]
fn a_gateway_without_probes_changes_nothing_and_is_hardly_asked() {
    let mut world = World::new(1420, 1420);
    world.answers = false;
    world.path.start(world.now);
    world.run_used(500_000 * MS);
    assert_eq!(world.path.mtu(), 1420);
    assert_eq!(world.path.known(), Known::Nothing);
    assert_eq!(world.sent, [1420, 0, 0, 0]);
}

#[test]
fn an_outage_lowers_nothing() {
    let mut world = World::connected(1420, 1420);
    world.answers = false;
    world.sent.clear();
    world.run_used(50_000 * MS);
    assert_eq!(world.path.mtu(), 1420);
    assert_eq!(world.path.known(), Known::Nothing);
    let bytes: usize = world.sent.iter().map(|size| usize::from(*size)).sum();
    assert!(bytes < 20_000, "{bytes} bytes for nobody");
    world.answers = true;
    world.run_used(30_000 * MS);
    assert_eq!(world.path.known(), Known::Passes);
}

#[test]
fn one_lost_probe_lowers_nothing_even_the_very_first() {
    for skip in [0, 1] {
        let mut world = World::new(1420, 1420);
        let mut large = 0;
        world.lose = Box::new(move |size| {
            large += u32::from(size == 1420);
            size == 1420 && large == skip + 1
        });
        world.path.start(world.now);
        let mut least = 1420;
        for _ in 0..300 {
            world.path.sent(100, world.now);
            world.run(50 * MS);
            least = least.min(world.path.mtu());
        }
        assert_eq!(least, 1420);
        assert_eq!(world.path.known(), Known::Passes);
    }
}

#[test]
fn a_black_hole_under_a_live_session_is_noticed() {
    let mut world = World::connected(1420, 1420);
    world.fits = 1328;
    world.run_used(CONFIRM_EVERY + 1200 * MS);
    assert_eq!(world.path.mtu(), 1328);
    // Confirming goes on at the new size, and tries nothing larger for a while.
    world.run_used(5000 * MS);
    world.sent.clear();
    world.run_used(100_000 * MS);
    assert!(world.sent.len() <= 20);
    assert!(!world.sent.is_empty() && world.sent.iter().all(|size| *size == 1328));
}

#[test]
fn silence_after_a_request_is_looked_into_at_once() {
    let mut world = World::connected(1420, 1420);
    world.fits = 1328;
    world.path.sent(1400, world.now);
    world.run(1000 * MS + 1100 * MS);
    assert_eq!(world.path.mtu(), 1328);

    // A bare acknowledgement is never answered; nor is a request to somebody who is not there,
    // but how often that is asked about is bounded.
    world.run(3000 * MS);
    world.sent.clear();
    world.path.sent(52, world.now);
    world.run(2000 * MS);
    assert!(world.sent.is_empty(), "{:?}", world.sent);
    for _ in 0..1000 {
        world.path.sent(1328, world.now);
        world.run(10 * MS);
    }
    assert!(world.sent.len() <= 5, "{:?}", world.sent);
}

#[test]
fn a_path_that_grows_is_used_after_a_roam_at_once_and_else_in_ten_minutes() {
    let mut world = World::connected(1420, 1328);
    assert_eq!(world.path.mtu(), 1328);
    world.fits = 1420;
    let mut other = World::connected(1420, 1328);
    other.fits = 1400;
    world.path.start(world.now);
    world.run(100 * MS);
    assert_eq!(world.path.mtu(), 1420);
    other.run_used(RAISE_EVERY + CONFIRM_EVERY + 100 * MS);
    assert_eq!(other.path.mtu(), 1392);
}

#[test]
fn what_our_kernel_refuses_is_asked_about_at_once() {
    let mut world = World::connected(1420, 1420);
    world.fits = 1296;
    world.path.refused(world.now);
    // The probe is refused as well.
    world.run(1 * MS);
    world.path.refused(world.now);
    world.run(550 * MS);
    assert_eq!(world.path.mtu(), 1296);
    // It goes on refusing what was sealed before: nothing new.
    world.run(5000 * MS);
    world.sent.clear();
    for _ in 0..100 {
        world.path.refused(world.now);
        world.run(1 * MS);
    }
    assert!(world.sent.len() <= 4, "{:?}", world.sent);
}

#[test]
fn a_path_below_the_minimum_is_named() {
    let world = World::connected(1420, 1200);
    assert_eq!(world.path.mtu(), 1280);
    assert_eq!(world.path.known(), Known::TooSmall);
}

#[test]
fn answers_about_the_path_before_count_no_more() {
    let mut path = PathMtu::new(1420);
    let mut ids = Vec::new();
    path.start(START);
    path.due(true, START, |probe| ids.push(probe.id));
    path.start(START);
    path.due(true, START, |_| {});
    path.answered(ids[0], 1420, START);
    assert_eq!(path.known(), Known::Nothing);
    // Nor do numbers that were never sent, or sizes that were never asked about.
    path.answered(77, 1420, START);
    path.answered(2, 9000, START);
    assert_eq!(path.known(), Known::Nothing);
    assert_eq!(path.mtu(), 1420);
}

#[test]
fn without_a_key_nothing_is_asked() {
    let mut path = PathMtu::new(1420);
    path.start(START);
    path.due(false, START, |probe| panic!("{probe:?}"));
    assert_eq!(path.next_deadline(), Mono::NEVER);
}

proptest! {
    /// However the path changes and whatever it loses, once it holds still everything that is
    /// used fits soon, nothing is given away that a step allows, and no question is endless.
    #[test]
    fn a_path_that_holds_still_is_found(
        configured in prop_oneof![Just(1420_u16), 1280_u16..=9000],
        changes in prop::collection::vec((1280_u16..=9000, 1_u64..20_000, prop::bool::ANY, 0_u8..60), 1..8),
        latency in 1_u64..120,
        seed in any::<u64>(),
    ) {
        let mut world = World::new(configured, 9000);
        world.latency = Duration::from_millis(latency);
        world.path.start(world.now);
        let mut dice = seed | 1;
        for (fits, wait, roam, loss) in &changes {
            world.fits = *fits;
            if *roam {
                world.path.start(world.now);
            }
            let loss = u64::from(*loss);
            world.lose = Box::new(move |_| {
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                dice % 100 < loss
            });
            dice = dice.wrapping_mul(31) | 1;
            world.run_used(Duration::from_millis(*wait));
            prop_assert!((1280..=configured).contains(&world.path.mtu()));
        }
        world.lose = Box::new(|_| false);
        world.run_used(RAISE_EVERY + 5 * Duration::from_secs(1));
        prop_assert!(world.path.mtu() <= world.fits, "what is used passes");
        world.path.start(world.now);
        world.run_used(4 * Duration::from_secs(1));
        let best = RUNGS.into_iter().chain([configured]).filter(|size| *size <= configured.min(world.fits)).max();
        prop_assert_eq!(Some(world.path.mtu()), best);
        prop_assert_eq!(world.told, best);
        prop_assert_eq!(world.path.known(), Known::Passes);
    }
}
