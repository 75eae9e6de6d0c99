use super::*;
use proptest::prelude::*;

type Refuses = Box<dyn Fn(usize, Endpoint, &[u8], Option<usize>) -> Option<i32>>;

/// A kernel that cuts the runs that it takes, and refuses what it is told to.
struct Kernel {
    most: usize,
    got: Vec<(SocketAddr, Ecn, Vec<u8>)>,
    calls: usize,
    refuses: Refuses,
}

impl Kernel {
    fn that_refuses(
        refuses: impl Fn(usize, Endpoint, &[u8], Option<usize>) -> Option<i32> + 'static,
    ) -> Kernel {
        Kernel {
            most: 64,
            got: Vec::new(),
            calls: 0,
            refuses: Box::new(refuses),
        }
    }
}

impl Wire for Kernel {
    fn most(&self) -> usize {
        self.most
    }

    fn send(
        &mut self,
        to: Endpoint,
        ecn: Ecn,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        let call = self.calls;
        self.calls += 1;
        if let Some(errno) = (self.refuses)(call, to, contents, segment_size) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        for datagram in contents.chunks(segment_size.unwrap_or(contents.len())) {
            self.got.push((to.remote, ecn, datagram.to_vec()));
        }
        Ok(())
    }
}

fn ladder() -> Ladder {
    Ladder::new(true, true)
}

fn peer(number: u16) -> Endpoint {
    SocketAddr::from(([192, 0, 2, 1], number)).into()
}

/// `count` datagrams of `segment` bytes, each filled with its number, and a shorter one.
fn contents(count: u8, segment: usize) -> Vec<u8> {
    let mut bytes: Vec<u8> = (0..count)
        .flat_map(|number| vec![number; segment])
        .collect();
    bytes.extend(vec![count; segment / 2]);
    bytes
}

fn run(to: Endpoint, bytes: &[u8], segment: usize) -> Run<'_> {
    Run {
        to,
        ecn: Ecn::Ect0,
        bytes,
        segment,
    }
}

fn datagrams(kernel: &Kernel) -> Vec<u8> {
    let bytes = kernel.got.iter().map(|(_, ecn, bytes)| {
        assert_eq!(*ecn, Ecn::Ect0);
        bytes[0]
    });
    bytes.collect()
}

#[test]
fn a_refused_run_goes_one_by_one_and_is_not_tried_again_for_a_minute() {
    for errno in [libc::EIO, libc::EINVAL] {
        let mut ladder = ladder();
        let mut kernel = Kernel::that_refuses(move |_, _, _, segment| segment.and(Some(errno)));
        let bytes = contents(9, 1452);
        ladder.send(run(peer(1), &bytes, 1452), &mut kernel);
        assert_eq!(datagrams(&kernel), (0..10).collect::<Vec<u8>>());
        let once = UdpTxStats {
            calls: 10,
            datagrams: 10,
            refused: 0,
            too_long: 0,
            resent_singly: 1,
            gso_refused: 1,
        };
        assert_eq!(ladder.stats, once);
        assert_eq!(ladder.state().to_string(), "on (1 destination one by one)");
        assert_eq!(ladder.state().fallbacks, 1);

        // Shorter ones of this destination are not tried either; others are.
        ladder.send(run(peer(1), &contents(9, 100), 100), &mut kernel);
        assert_eq!(kernel.calls, 11 + 10);
        ladder.send(run(peer(2), &bytes, 1452), &mut kernel);
        assert_eq!(kernel.calls, 21 + 11);
        assert_eq!(kernel.got.len(), 30);
    }
}

#[test]
fn when_many_destinations_refuse_nobody_is_asked() {
    let mut ladder = ladder();
    let mut kernel = Kernel::that_refuses(|_, _, _, segment| segment.and(Some(libc::EIO)));
    let bytes = contents(1, 100);
    let destinations = NO_GSO_DESTINATIONS as u16 + 1;
    for number in 0..destinations + 10 {
        ladder.send(run(peer(number), &bytes, 100), &mut kernel);
    }
    assert_eq!(ladder.stats.gso_refused, u64::from(destinations));
    assert_eq!(kernel.got.len(), 2 * (usize::from(destinations) + 10));
    let state = ladder.state();
    assert!(!state.on, "{state}");
    assert_eq!(state.detail, "refused for more than 32 destinations");
}

#[test]
fn a_small_path_is_no_failure_of_gso_and_shorter_runs_still_leave_together() {
    let mut ladder = ladder();
    // The path carries 1400 bytes; what is longer goes in two pieces, but not in a run.
    let mut kernel = Kernel::that_refuses(|_, _, _, segment| {
        segment
            .is_some_and(|segment| segment > 1400)
            .then_some(libc::EMSGSIZE)
    });
    for turn in 1..=2 {
        ladder.send(run(peer(1), &contents(9, 1452), 1452), &mut kernel);
        assert_eq!(kernel.calls, 1 + 10 * turn, "known from then on");
    }
    ladder.send(run(peer(1), &contents(9, 1300), 1300), &mut kernel);
    assert_eq!(kernel.calls, 22);
    assert_eq!(kernel.got.len(), 30);
    let stats = ladder.stats;
    assert_eq!((stats.resent_singly, stats.gso_refused), (1, 0));
    assert_eq!((stats.refused, stats.too_long), (0, 0));
    // As many small paths as there may be do not slow the others down.
    for number in 0..100 {
        ladder.send(run(peer(number), &contents(9, 1452), 1452), &mut kernel);
    }
    assert!(ladder.state().on, "{}", ladder.state());
}

#[test]
fn a_datagram_that_is_too_long_by_itself_costs_no_gso() {
    let mut ladder = ladder();
    let mut kernel = Kernel::that_refuses(|_, _, bytes, segment| {
        (segment.unwrap_or(bytes.len()) > 1400).then_some(libc::EMSGSIZE)
    });
    ladder.send(run(peer(1), &contents(9, 1452), 1452), &mut kernel);
    assert_eq!(datagrams(&kernel), [9], "the short one");
    assert_eq!((ladder.stats.refused, ladder.stats.too_long), (9, 9));
    assert_eq!(ladder.state(), Ladder::new(true, true).state());
}

#[test]
fn a_destination_that_takes_nothing_proves_nothing() {
    let mut ladder = ladder();
    let mut kernel = Kernel::that_refuses(|_, _, _, _| Some(libc::EINVAL));
    ladder.send(run(peer(0), &contents(9, 100), 100), &mut kernel);
    assert_eq!(ladder.stats.refused, 10);
    assert_eq!(ladder.stats.gso_refused, 0);
    assert_eq!(ladder.destinations(), 0);
}

#[test]
fn a_source_that_is_gone_is_not_taken_for_a_failure_of_gso() {
    let mut ladder = ladder();
    let mut kernel = Kernel::that_refuses(|_, to, _, _| to.local.is_some().then_some(libc::EINVAL));
    let to = Endpoint {
        local: Some([192, 0, 2, 9].into()),
        ..peer(1)
    };
    ladder.send(run(to, &contents(9, 100), 100), &mut kernel);
    assert_eq!((kernel.calls, kernel.got.len()), (2, 10));
    assert_eq!(ladder.destinations(), 0);
}

#[test]
fn off_is_off_whoever_said_so() {
    for (ladder, most, why) in [
        (Ladder::new(false, true), 64, "off (switched off)"),
        (Ladder::new(true, false), 1, "off (this kernel has none)"),
    ] {
        let mut ladder = ladder;
        let mut kernel = Kernel::that_refuses(|_, _, _, segment| segment.map(|_| panic!("a run")));
        kernel.most = most;
        ladder.send(run(peer(1), &contents(9, 100), 100), &mut kernel);
        assert_eq!((kernel.calls, kernel.got.len()), (10, 10));
        assert_eq!(ladder.state().to_string(), why);
    }
}

#[test]
fn a_ban_ends_and_too_many_bans_are_one_for_everybody() {
    let address = |number: u16| peer(number).remote;
    let mut singly = Singly::default();
    singly.add(address(0), 100, Refusal::Gso, Mono(0));
    assert!(singly.covers_at(address(0), 1, Mono(1)));
    assert!(!singly.covers_at(address(1), 1, Mono(1)));
    assert!(!singly.covers_at(address(0), 1, Mono(0) + NO_GSO_FOR));
    for number in 0..=NO_GSO_DESTINATIONS as u16 {
        singly.add(address(number), 100, Refusal::Gso, Mono(0));
    }
    assert!(singly.covers_at(address(9999), 1, Mono(1)));
    assert!(!singly.covers_at(address(9999), 1, Mono(0) + NO_GSO_FOR));
    assert_eq!(singly.entries.len(), 0);
}

proptest! {
    /// Whichever call is refused, each datagram leaves at most once, in order, and those that do
    /// not leave are counted.
    #[test]
    fn nothing_is_lost_doubled_or_reordered(
        runs in prop::collection::vec((0u16..3, 1u8..40, 10usize..60), 1..20),
        refused in prop::collection::vec((0usize..60, prop::sample::select(vec![
            libc::EIO, libc::EINVAL, libc::EMSGSIZE, libc::EPERM, libc::ENETUNREACH,
        ])), 0..8),
    ) {
        let mut ladder = ladder();
        let plan = refused.clone();
        let mut kernel = Kernel::that_refuses(move |call, _, _, _| {
            plan.iter().find(|(at, _)| *at == call).map(|(_, errno)| *errno)
        });
        let mut sent = Vec::new();
        for (to, count, segment) in runs {
            let mut bytes = contents(count, segment);
            bytes.fill(u8::try_from(sent.len() % 251).unwrap());
            for (number, datagram) in bytes.chunks_mut(segment).enumerate() {
                datagram[1] = u8::try_from(number).unwrap();
                sent.push((peer(to).remote, Ecn::Ect0, datagram.to_vec()));
            }
            ladder.send(run(peer(to), &bytes, segment), &mut kernel);
        }
        let stats = ladder.stats;
        prop_assert_eq!(stats.datagrams, kernel.got.len() as u64);
        prop_assert_eq!(stats.datagrams + stats.refused, sent.len() as u64);
        if refused.iter().all(|(_, errno)| [libc::EIO, libc::EINVAL].contains(errno)) {
            // Only a datagram that was refused when it was alone is missing.
            prop_assert!(stats.refused + stats.resent_singly <= refused.len() as u64);
        }
        let mut wanted = sent.iter();
        for got in &kernel.got {
            prop_assert!(wanted.any(|one| one == got));
        }
    }
}
