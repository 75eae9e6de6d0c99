//! How much is kept in memory changes nothing of what is found.

use super::*;
use crate::past::{Facts, InForce, MAX_READY, NoFacts};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Rows, and how often one was looked up.
#[derive(Debug)]
struct Counted {
    rows: Vec<Row>,
    asked: Arc<AtomicUsize>,
}

impl Facts for Counted {
    fn at(&mut self, id: &str, at: Wall) -> Result<Option<InForce>, NoFacts> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let rows: Vec<&Row> = self.rows.iter().filter(|row| &*row.id == id).collect();
        let place = rows.iter().rposition(|row| row.since <= at).unwrap_or(0);
        Ok(rows.get(place).map(|row| InForce {
            row: (*row).clone(),
            next: rows.get(place + 1).map(|next| next.since),
        }))
    }
}

/// Forty devices, each of which reports its disk for ten minutes of every hour: the same facts at
/// several times. Some attempts were before the first row, and some name facts that nobody has.
fn world() -> (Vec<Row>, Vec<Attempt>) {
    let old = policy(OLD);
    let (mut rows, mut attempts) = (Vec::new(), Vec::new());
    for (hour, later) in (0..20u64).flat_map(|hour| [(hour, 0), (hour, 900)]) {
        for number in 0..40u64 {
            let from = T + hour * 3600 * SECOND + number * SECOND;
            let who = Subject {
                user: Some(format!("user{number}")),
                device: format!("laptop{number}"),
                standing: reported(from, 600),
                ..ana()
            };
            if hour > 1 && later == 0 {
                rows.push(row(&who, from));
            }
            let mut attempt = record(&old, &who, "192.0.2.33:22/tcp", from + later * SECOND);
            if number == 7 {
                attempt.facts = Some("0123456789abcdef".to_owned());
            }
            attempts.push(attempt);
        }
    }
    (rows, attempts)
}

fn plan_with(bound: usize) -> (Plan, usize) {
    let (rows, attempts) = world();
    let new = policy(&asking_for_a_disk());
    let asked = Arc::new(AtomicUsize::new(0));
    let facts = Counted {
        rows,
        asked: Arc::clone(&asked),
    };
    let mut replay = Replay::new(&new, Past::looked_up(facts, bound), Wall(T));
    for attempt in &attempts {
        replay.attempt(attempt).expect("facts");
    }
    (replay.finish(), asked.load(Ordering::Relaxed))
}

#[test]
fn a_small_cache_finds_the_same_as_one_without_a_bound() {
    let (whole, few) = plan_with(usize::MAX);
    // Of 39 devices, in the 18 hours in which they reported, once that no longer counted.
    assert_eq!(whole.newly_denied.attempts, 39 * 18);
    assert_eq!((whole.unchanged, whole.not_judged.unknown), (39 * 22, 40));
    assert_eq!(plan_with(MAX_READY), (whole.clone(), few));
    for bound in [0, 5_000, 50_000] {
        let (plan, asked) = plan_with(bound);
        assert_eq!(plan, whole, "{bound} bytes");
        assert!(
            asked > few,
            "{bound} bytes: {asked} look-ups, {few} without a bound"
        );
    }
}

#[test]
fn facts_that_cannot_be_read_are_no_facts_that_are_not_there() {
    #[derive(Debug)]
    struct Broken;
    impl Facts for Broken {
        fn at(&mut self, _: &str, _: Wall) -> Result<Option<InForce>, NoFacts> {
            Err(NoFacts("the disk is away".into()))
        }
    }
    let old = policy(OLD);
    let mut replay = Replay::new(&old, Past::looked_up(Broken, MAX_READY), Wall(T));
    let failed = replay.attempt(&record(&old, &ana(), "192.0.2.33:22/tcp", T));
    assert_eq!(
        failed.expect_err("no answer").to_string(),
        "the disk is away"
    );
}

#[test]
fn a_device_that_moves_is_judged_by_each_place() {
    let by_place = policy(&OLD.replace("[sre]", "[sre], outer: [198.51.100.0/24]"));
    let from = |outer: [u8; 4]| Attempt {
        outer: Some(outer.into()),
        ..record(&policy(OLD), &ana(), "192.0.2.33:22/tcp", T)
    };
    let (home, away) = (from([198, 51, 100, 7]), from([203, 0, 113, 9]));
    let there_and_back = [home.clone(), away.clone(), home, away];
    let plan = replay(&by_place, vec![row(&ana(), T)], &there_and_back);
    assert_eq!((plan.unchanged, plan.newly_denied.attempts), (2, 2));
}
