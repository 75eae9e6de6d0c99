use super::*;
use std::collections::BTreeSet;
use std::sync::Mutex;

const LIMITS: Limits = Limits {
    bytes: 100,
    age: Duration::from_millis(500),
};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Everything outside the driver: a clock that jumps, a log, and a server.
struct Sim {
    start: Instant,
    now: Instant,
    synced: u64,
    stopping: bool,
    /// What happens by itself, in order of time: lines up to `n` are synced.
    coming: Vec<(Duration, u64)>,
    stop_at: Option<Duration>,
    /// Lines that are gone: reading them is told once.
    missing: Option<(u64, u64)>,
    read: u64,
    cursor: u64,
    /// What a crash leaves; a power cut leaves the cursor.
    noted: u64,
    /// When the cursor was stored.
    stored: Vec<Duration>,
    /// Up to which line the sink had settled.
    settled: u64,
    parked: Vec<u64>,
    /// Every request: when, which lines, and whether the server took them.
    requests: Vec<(Duration, Vec<u64>, bool)>,
    random: u64,
}

type Shared = Arc<Mutex<Sim>>;

fn sim(synced: u64) -> Shared {
    let start = Instant::now();
    Arc::new(Mutex::new(Sim {
        start,
        now: start,
        synced,
        stopping: false,
        coming: Vec::new(),
        stop_at: None,
        missing: None,
        read: 0,
        cursor: 0,
        noted: 0,
        stored: Vec::new(),
        settled: 0,
        parked: Vec::new(),
        requests: Vec::new(),
        random: 1,
    }))
}

fn get(sim: &Shared) -> std::sync::MutexGuard<'_, Sim> {
    sim.lock().expect("no panic")
}

impl Sim {
    fn time(&self) -> Duration {
        self.now - self.start
    }

    fn received(&self) -> Vec<u64> {
        let taken = self.requests.iter().filter(|(_, _, taken)| *taken);
        taken.flat_map(|(_, lines, _)| lines.clone()).collect()
    }

    fn draw(&mut self, sides: u64) -> u64 {
        // Xorshift, 64 bits.
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % sides
    }
}

struct SimWorld(Shared);
struct SimSource(Shared);
struct SimSink<F>(Shared, F);

impl World for SimWorld {
    fn now(&self) -> Instant {
        get(&self.0).now
    }

    fn synced(&self) -> u64 {
        get(&self.0).synced
    }

    fn stopping(&self) -> bool {
        get(&self.0).stopping
    }

    fn wait(&mut self, n: u64, until: Instant) {
        let sim = &mut *get(&self.0);
        while sim.synced <= n && !sim.stopping && sim.now < until {
            let news = sim.coming.first().map(|(at, _)| sim.start + *at);
            let stop = sim.stop_at.map(|at| sim.start + at);
            let next = [news, stop].into_iter().flatten().min();
            sim.now = next.map_or(until, |at| at.min(until)).max(sim.now);
            if news.is_some_and(|at| at <= sim.now) {
                sim.synced = sim.coming.remove(0).1;
            }
            sim.stopping = stop.is_some_and(|at| at <= sim.now);
            assert!(sim.time() < Duration::from_secs(1 << 30), "it must end");
        }
    }

    fn random(&mut self) -> u64 {
        get(&self.0).draw(u64::MAX)
    }
}

/// Ten bytes with the `\n`, so that ten fill a batch.
fn line(n: u64) -> String {
    format!("{{\"n\":{n:03}}}")
}

impl Source for SimSource {
    fn fill(&mut self, batch: &mut Batch, synced: u64, limit: usize) -> Result<(), Trouble> {
        let sim = &mut *get(&self.0);
        while sim.read < synced && batch.size() < limit {
            let n = sim.read + 1;
            if let Some((from, to)) = sim.missing.filter(|(from, _)| *from == n) {
                (sim.missing, sim.read) = (None, to);
                let why = "removed".into();
                return Err(Trouble::Missed { from, to, why });
            }
            batch.push(n, line(n).as_bytes());
            sim.read = n;
        }
        Ok(())
    }

    fn note(&mut self, n: u64, bytes: &[u8]) -> io::Result<()> {
        let sim = &mut *get(&self.0);
        assert_eq!(bytes, line(n).as_bytes());
        sim.noted = n;
        Ok(())
    }

    fn store(&mut self, n: u64, bytes: &[u8]) -> io::Result<()> {
        let sim = &mut *get(&self.0);
        assert_eq!(bytes, line(n).as_bytes());
        assert!(sim.settled >= n, "the sink settles first");
        sim.cursor = n;
        sim.stored.push(sim.time());
        Ok(())
    }

    fn park(&mut self, bytes: &[u8]) -> io::Result<()> {
        let line: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
        let text = String::from_utf8_lossy(bytes);
        let digits: String = text.chars().filter(char::is_ascii_digit).collect();
        let n = line["n"]
            .as_u64()
            .or(digits.parse().ok())
            .expect("a number");
        get(&self.0).parked.push(n);
        Ok(())
    }
}

impl<F> Sink for SimSink<F>
where
    F: FnMut(&mut Sim, &[u64]) -> Result<Taken, Failure> + Send,
{
    fn send(&mut self, lines: Lines<'_>) -> Result<Taken, Failure> {
        let sim = &mut *get(&self.0);
        let numbers: Vec<_> = lines.iter().map(|(n, _)| n).collect();
        let result = (self.1)(sim, &numbers);
        let taken = result.is_ok();
        sim.requests.push((sim.time(), numbers, taken));
        result
    }

    fn settle(&mut self) -> io::Result<()> {
        let sim = &mut *get(&self.0);
        sim.settled = u64::MAX;
        Ok(())
    }
}

type SimDriver<F> = Driver<SimWorld, SimSource, SimSink<F>>;

/// A driver that begins behind the note.
fn driver<F>(sim: &Shared, server: F) -> (SimDriver<F>, Arc<Standing>)
where
    F: FnMut(&mut Sim, &[u64]) -> Result<Taken, Failure> + Send,
{
    let position = get(sim).noted;
    get(sim).read = position;
    get(sim).cursor = position;
    let standing = Arc::new(Standing::new("sim", 0, position));
    let driver = Driver::new(
        "sim",
        LIMITS,
        SimWorld(sim.clone()),
        SimSource(sim.clone()),
        SimSink(sim.clone(), server),
        standing.clone(),
    );
    (driver, standing)
}

fn well(_: &mut Sim, _: &[u64]) -> Result<Taken, Failure> {
    Ok(Taken::default())
}

fn retry(after: Option<Duration>) -> Result<Taken, Failure> {
    let error = "503".into();
    Err(Failure::Retry { after, error })
}

fn refuse() -> Result<Taken, Failure> {
    let error = "400".into();
    Err(Failure::Refused { error })
}

#[test]
fn a_batch_goes_when_it_is_full_or_old() {
    let sim = sim(0);
    get(&sim).coming = vec![(ms(100), 3), (ms(300), 4), (ms(2000), 25)];
    get(&sim).stop_at = Some(ms(5000));
    let (driver, standing) = driver(&sim, well);
    driver.run();
    let sim = get(&sim);
    let shown: Vec<_> = sim
        .requests
        .iter()
        .map(|(at, lines, _)| (*at, lines[0], lines.len()))
        .collect();
    assert_eq!(
        shown,
        [
            (ms(600), 1, 4),
            (ms(2000), 5, 10),
            (ms(2000), 15, 10),
            (ms(2500), 25, 1),
        ]
    );
    assert_eq!((standing.position(), sim.cursor), (25, 25));
}

#[test]
fn the_cursor_is_stored_once_a_second_and_at_the_end() {
    let sim = sim(0);
    get(&sim).coming = (1..=30).map(|i| (ms(i * 100), i * 10)).collect();
    get(&sim).stop_at = Some(ms(3050));
    let (driver, standing) = driver(&sim, well);
    driver.run();
    let sim = get(&sim);
    assert_eq!(sim.cursor, 300);
    assert_eq!(standing.saved_position(), 300);
    assert!((3..=5).contains(&sim.stored.len()), "{:?}", sim.stored);
    let all_but_last = &sim.stored[..sim.stored.len() - 1];
    assert!(all_but_last.windows(2).all(|w| w[1] - w[0] >= CHECKPOINT));
}

#[test]
fn a_failing_server_is_asked_ever_more_rarely_and_loses_nothing() {
    let sim = sim(5);
    get(&sim).stop_at = Some(ms(400_000));
    let mut left = 12;
    let (driver, standing) = driver(&sim, move |_, _| {
        left -= 1;
        if left > 0 { retry(None) } else { well_done() }
    });
    driver.run();
    let sim = get(&sim);
    assert_eq!(sim.received(), [1, 2, 3, 4, 5]);
    let times: Vec<_> = sim.requests.iter().map(|(at, _, _)| *at).collect();
    let pauses: Vec<_> = times.windows(2).map(|w| w[1] - w[0]).collect();
    for (i, pause) in (0_u32..11).zip(&pauses) {
        let whole = (FIRST_RETRY * 2_u32.pow(i)).min(LAST_RETRY);
        assert!((whole / 2..=whole).contains(pause), "{i}: {pause:?}");
    }
    let status = standing.status(5, 0);
    assert_eq!((status.retries, status.failing), (11, None));
}

fn well_done() -> Result<Taken, Failure> {
    Ok(Taken::default())
}

#[test]
fn a_server_that_takes_less_than_a_batch_gets_less() {
    for most in [1, 3, 7] {
        let sim = sim(100);
        get(&sim).stop_at = Some(ms(400_000));
        let (driver, standing) = driver(&sim, move |_, lines| {
            if lines.len() > most {
                retry(None)
            } else {
                well_done()
            }
        });
        driver.run();
        let sim = get(&sim);
        assert_eq!(sim.received(), (1..=100).collect::<Vec<_>>());
        let sizes = sim.requests.iter().map(|(_, lines, _)| lines.len());
        let first: Vec<_> = sizes.take(3).collect();
        assert_eq!(first, [10, 10, 5], "a second failure makes it smaller");
        let status = standing.status(100, 0);
        assert_eq!((status.parked, status.lag_records), (0, 0));
    }
}

#[test]
fn a_killed_gateway_repeats_only_what_was_not_answered() {
    for steps in 1..60 {
        let sim = sim(0);
        get(&sim).coming = (1..=30).map(|i| (ms(i * 100), i * 5)).collect();
        let (mut killed, _) = driver(&sim, well);
        for _ in 0..steps {
            killed.turn();
        }
        drop(killed);
        get(&sim).stop_at = Some(ms(10_000));
        let (next, _) = driver(&sim, well);
        next.run();
        assert_eq!(get(&sim).received(), (1..=150).collect::<Vec<_>>());
    }
}

#[test]
fn a_server_may_ask_for_patience() {
    for (asked, pause) in [(7, 7), (86_400, LONGEST_PAUSE.as_secs())] {
        let sim = sim(1);
        get(&sim).stop_at = Some(Duration::from_secs(5000));
        let mut first = true;
        let (driver, _) = driver(&sim, move |_, _| {
            let retries = std::mem::take(&mut first);
            if retries {
                retry(Some(Duration::from_secs(asked)))
            } else {
                well_done()
            }
        });
        driver.run();
        let times: Vec<_> = get(&sim).requests.iter().map(|(at, _, _)| *at).collect();
        assert_eq!(times[1] - times[0], Duration::from_secs(pause));
    }
}

#[test]
fn one_refused_line_is_found_parked_and_passed() {
    let sim = sim(40);
    get(&sim).stop_at = Some(ms(60_000));
    let (driver, standing) = driver(&sim, |_, lines| {
        if lines.contains(&17) {
            refuse()
        } else {
            well_done()
        }
    });
    driver.run();
    let sim = get(&sim);
    let expected: Vec<_> = (1..=40).filter(|n| *n != 17).collect();
    assert_eq!(sim.received(), expected);
    assert_eq!((&sim.parked[..], sim.cursor), (&[17][..], 40));
    let status = standing.status(40, 0);
    assert_eq!((status.parked, status.retries), (1, 0), "no pause for it");
    assert!(sim.requests.len() < 16, "{:?}", sim.requests);
}

#[test]
fn a_run_of_refused_lines_costs_about_one_request_each() {
    let sim = sim(200);
    get(&sim).stop_at = Some(ms(60_000));
    let (driver, standing) = driver(&sim, |_, lines| {
        if lines.iter().any(|n| (51..=150).contains(n)) {
            refuse()
        } else {
            well_done()
        }
    });
    driver.run();
    let sim = get(&sim);
    assert_eq!(sim.parked, (51..=150).collect::<Vec<_>>());
    assert_eq!(standing.status(200, 0).parked, 100);
    assert_eq!(sim.received().len(), 100);
    assert!(sim.requests.len() < 140, "{}", sim.requests.len());
}

#[test]
fn a_server_that_refuses_everything_is_asked_ever_more_rarely() {
    let sim = sim(100_000);
    get(&sim).stop_at = Some(Duration::from_secs(3600));
    let (driver, standing) = driver(&sim, |_, _| refuse());
    driver.run();
    let sim = get(&sim);
    let parked = sim.parked.len();
    // A thousand at once, and then one in five to ten seconds for an hour.
    assert!((1300..1800).contains(&parked), "{parked}");
    assert!(sim.requests.len() < 1850, "{}", sim.requests.len());
    let status = standing.status(100_000, 0);
    assert!(status.failing.is_some() && status.retries > 300);
    assert_eq!(status.position, parked as u64);
}

#[test]
fn what_a_server_took_only_in_part_is_counted() {
    let sim = sim(11);
    get(&sim).stop_at = Some(ms(5000));
    let (driver, standing) = driver(&sim, |_, lines| {
        let refused = if lines.contains(&3) || lines == [11] {
            1
        } else {
            0
        };
        Ok(Taken { refused })
    });
    driver.run();
    assert_eq!(standing.status(11, 0).parked, 2);
    assert_eq!(get(&sim).parked, [11], "a single line is known by name");
    assert_eq!(standing.position(), 11);
}

#[test]
fn lines_that_are_gone_are_counted_and_passed() {
    for (from, to) in [(1, 7), (5, 12), (18, 20)] {
        let sim = sim(20);
        get(&sim).missing = Some((from, to));
        get(&sim).stop_at = Some(ms(5000));
        let (driver, standing) = driver(&sim, well);
        driver.run();
        let status = standing.status(20, 0);
        assert_eq!(status.missed, to - from + 1);
        assert_eq!((status.position, status.lag_records), (20, 0));
        let expected: Vec<_> = (1..=20).filter(|n| !(from..=to).contains(n)).collect();
        assert_eq!(get(&sim).received(), expected);
    }
}

#[test]
fn a_stop_sends_what_is_there_and_waits_for_nobody() {
    let sim1 = sim(3);
    get(&sim1).stop_at = Some(ms(10));
    let (d, _) = driver(&sim1, well);
    d.run();
    assert_eq!(get(&sim1).received(), [1, 2, 3]);
    assert_eq!(get(&sim1).time(), ms(10));
    assert_eq!(get(&sim1).cursor, 3);

    let sim2 = sim(3);
    get(&sim2).stop_at = Some(ms(700));
    let (d, standing) = driver(&sim2, |_, _| retry(Some(Duration::from_secs(60))));
    d.run();
    assert!(get(&sim2).time() <= ms(700));
    assert_eq!((standing.position(), get(&sim2).cursor), (0, 0));
    assert_eq!(standing.status(3, 0).failing.as_deref(), Some("503"));
}

#[test]
fn the_oldest_line_that_waits_tells_the_age_of_the_lag() {
    let standing = Standing::new("sim", 10, 10);
    assert_eq!(standing.status(15, 9900).lag_seconds, 0, "not known yet");
    standing.oldest(Some(7500));
    let status = standing.status(15, 9900);
    assert_eq!((status.lag_records, status.acknowledged), (5, 0));
    assert_eq!(status.lag_seconds, 2);
    standing.advance(15);
    let status = standing.status(15, 9900);
    assert_eq!((status.lag_records, status.acknowledged), (0, 5));
    assert_eq!(status.lag_seconds, 0);
}

/// Whatever servers and crashes do: every line arrives, in order, and only refused ones are parked.
#[test]
fn every_line_arrives_at_least_once_whatever_happens() {
    const LINES: u64 = 150;
    for seed in 1..=400 {
        let sim = sim(0);
        get(&sim).random = u64::wrapping_mul(seed, 0x9e37_79b9_7f4a_7c15);
        let mut at = 0;
        let mut n = 0;
        while n < LINES {
            let mut sim = get(&sim);
            at += sim.draw(900);
            n = (n + 1 + sim.draw(30)).min(LINES);
            sim.coming.push((ms(at), n));
        }
        let poison: BTreeSet<u64> = {
            let mut sim = get(&sim);
            let count = sim.draw(4);
            (0..count).map(|_| 1 + sim.draw(LINES)).collect()
        };
        let server = |poison: BTreeSet<u64>| {
            move |sim: &mut Sim, lines: &[u64]| match sim.draw(8) {
                0 => retry(None),
                1 => retry(Some(ms(900))),
                // It took them, and the answer was lost.
                2 if !lines.iter().any(|n| poison.contains(n)) => {
                    sim.requests.push((sim.time(), lines.to_vec(), true));
                    retry(None)
                }
                _ if lines.iter().any(|n| poison.contains(n)) => refuse(),
                _ => Ok(Taken::default()),
            }
        };
        // Crashes: the driver is gone in the middle, and another begins behind the cursor.
        for _ in 0..4 {
            let steps = get(&sim).draw(40);
            let (mut driver, standing) = driver(&sim, server(poison.clone()));
            for _ in 0..steps {
                driver.turn();
            }
            let mut sim = get(&sim);
            assert!(sim.cursor <= standing.position());
            if sim.draw(2) == 0 {
                // A power cut.
                sim.noted = sim.cursor;
            }
        }
        let crashed_at = get(&sim).time();
        get(&sim).stop_at = Some(crashed_at + Duration::from_secs(100_000));
        let (driver, standing) = driver(&sim, server(poison.clone()));
        driver.run();

        let sim = get(&sim);
        let mut seen = BTreeSet::new();
        for n in sim.received() {
            let before = seen.last().copied().unwrap_or(0);
            let next = (before + 1..).find(|n| !poison.contains(n));
            assert!(
                n <= before || Some(n) == next,
                "seed {seed}: {n} after {before}"
            );
            seen.insert(n);
        }
        let parked: BTreeSet<_> = sim.parked.iter().copied().collect();
        assert_eq!(parked, poison, "seed {seed}");
        seen.extend(parked);
        assert_eq!(seen, (1..=LINES).collect(), "seed {seed}");
        assert_eq!(
            (standing.position(), sim.cursor),
            (LINES, LINES),
            "seed {seed}"
        );
    }
}
