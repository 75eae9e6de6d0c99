use super::*;
use proptest::prelude::*;
use std::collections::HashMap;

const BULK: usize = 60_000;

fn class(host: u64, flow: u64) -> Class {
    Class { host, flow }
}

fn at(micros: u64) -> Mono {
    Mono(micros * 1000)
}

fn push(fair: &mut Fair<u32>, class: Class, len: usize, number: u32) {
    let mut buffer = Fair::<u32>::spare();
    buffer[..len].fill(number as u8);
    fair.push(class, &mut buffer, len, number);
    // As the caller would: the buffer that came back is its next one.
    assert_eq!(buffer.len(), LARGE_BYTES);
}

fn pop(fair: &mut Fair<u32>, now: Mono) -> Option<(u32, usize, bool)> {
    let popped = fair.pop(now)?;
    let number = popped.about as u8;
    let bytes = &popped.buffer[..popped.len];
    assert!(bytes.iter().all(|byte| *byte == number));
    fair.recycle(popped.buffer);
    Some((popped.about, popped.len, popped.congested))
}

#[test]
fn a_keystroke_passes_a_standing_queue() {
    let mut fair = Fair::default();
    for number in 0..LARGE as u32 {
        push(&mut fair, class(1, 1), BULK, number);
    }
    assert_eq!(pop(&mut fair, at(0)).map(|popped| popped.0), Some(0));
    push(&mut fair, class(1, 2), 100, 99);
    assert_eq!(pop(&mut fair, at(0)).map(|popped| popped.0), Some(99));
    assert_eq!(pop(&mut fair, at(0)).map(|popped| popped.0), Some(1));
}

#[test]
fn hosts_share_evenly_whatever_their_flows() {
    let mut fair = Fair::default();
    // Host 0 has eight flows, host 1 has one; both always have something waiting.
    for _ in 0..25 {
        for flow in 0..8 {
            push(&mut fair, class(0, flow), 1500, 0);
            push(&mut fair, class(1, 100), 1500, 1);
        }
    }
    let mut served = [0; 2];
    for _ in 0..200 {
        let (host, len, _) = pop(&mut fair, at(0)).unwrap();
        served[host as usize] += len;
    }
    let share = served[1] as f64 / (served[0] + served[1]) as f64;
    assert!((0.4..0.6).contains(&share), "{share}");
}

#[test]
fn a_burst_is_left_to_the_kernel_and_a_flood_hurts_itself() {
    let mut fair = Fair::default();
    push(&mut fair, class(2, 2), BULK, 100);
    for number in 1..LARGE as u32 {
        push(&mut fair, class(1, 1), BULK, number);
    }
    assert_eq!(fair.room(at(0)), 0, "no more is to be read");
    fair.kernel_has_more(true, at(0));
    let late = Mono(0) + PATIENCE;
    assert_eq!(fair.room(late), usize::MAX, "it is no burst");
    for number in 20..30 {
        push(&mut fair, class(1, 1), BULK, number);
    }
    assert_eq!((fair.stats().overflowed, fair.len()), (10, LARGE));
    fair.kernel_has_more(false, late);
    assert_eq!(fair.room(late), 0);
    let mut left = Vec::new();
    while let Some((number, ..)) = pop(&mut fair, late) {
        left.push(number);
    }
    assert!(left.contains(&100), "who does not flood loses nothing");
    left.retain(|number| *number != 100);
    // The oldest went; what is left is in order.
    assert_eq!(left, [23, 24, 25, 26, 27, 28, 29]);
    assert_eq!((fair.room(late), fair.bytes()), (LARGE, 0));
}

#[test]
fn only_a_queue_that_stands_is_told_to_slow_down() {
    let mut fair = Fair::default();
    let mut told = Vec::new();
    fair.kernel_has_more(true, at(0));
    push(&mut fair, class(1, 1), BULK, 1);
    for step in 0..500u64 {
        push(&mut fair, class(1, 1), BULK, 1);
        if pop(&mut fair, at(step * 1000)).unwrap().2 {
            told.push(step);
        }
    }
    assert_eq!(u128::from(told[0]), INTERVAL.as_millis());
    // More and more often, while it does not help.
    let gaps: Vec<u64> = told.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps.is_sorted_by(|a, b| a + 1 >= *b), "{gaps:?}");
    assert!(gaps[0] > 2 * gaps[gaps.len() - 1], "{gaps:?}");
    assert_eq!(fair.stats().congested, told.len() as u64);

    // Nobody is told whose last packet it is, or while the kernel's queue is empty in between.
    assert!(!pop(&mut fair, at(500_000)).unwrap().2);
    for step in 500..1000u64 {
        fair.kernel_has_more(step % 10 != 0, at(step * 1000));
        push(&mut fair, class(1, 1), BULK, 1);
        push(&mut fair, class(1, 1), BULK, 1);
        for _ in 0..2 {
            assert!(!pop(&mut fair, at(step * 1000)).unwrap().2);
        }
    }
}

proptest! {
    /// Whatever comes goes out once and in the order of its flow, or is counted.
    #[test]
    fn nothing_is_lost_unseen_or_reordered(
        steps in prop::collection::vec((0u64..4, 0u64..3, prop_oneof![Just(40usize), Just(1400), Just(BULK)], any::<bool>()), 0..200)
    ) {
        let mut fair = Fair::default();
        let mut last: HashMap<u32, u32> = HashMap::new();
        let (mut pushed, mut popped) = (0u32, 0u64);
        let mut check = |fair: &mut Fair<(u32, u32)>, now| {
            let Some(out) = fair.pop(now) else { return false };
            let (flow, number) = out.about;
            assert!(last.insert(flow, number).is_none_or(|before| before < number));
            fair.recycle(out.buffer);
            popped += 1;
            true
        };
        for (step, (host, flow, len, take)) in steps.into_iter().enumerate() {
            let now = at(step as u64 * 100);
            let mut buffer = Fair::<(u32, u32)>::spare();
            let of = class(host, host * 8 + flow);
            fair.push(of, &mut buffer, len, (of.flow as u32, pushed));
            pushed += 1;
            if take {
                check(&mut fair, now);
            }
        }
        while check(&mut fair, at(1_000_000)) {}
        prop_assert_eq!(popped + fair.stats().overflowed, u64::from(pushed));
        prop_assert_eq!((fair.len(), fair.bytes()), (0, 0));
    }
}
