//! The fewest steps that still fail, by delta debugging (Zeller and Hildebrandt 2002). What fails
//! may change on the way: any failure is worth having.

use crate::run;
use crate::steps::Step;
use std::fmt::Write as _;

/// Worlds that may be played to shrink one failure: a few seconds.
const TRIES: usize = 1500;

/// Fewer steps that fail as well, and how they fail.
#[must_use]
pub fn shrink(seed: u64, steps: &[Step], what: &str) -> (Vec<Step>, String) {
    let (mut steps, mut what) = (steps.to_vec(), what.to_owned());
    let mut chunk = steps.len().div_ceil(2);
    let mut tries = 0;
    while chunk > 0 && tries < TRIES {
        let mut at = 0;
        let before = steps.len();
        while at < steps.len() && tries < TRIES {
            let mut fewer = steps.clone();
            fewer.drain(at..(at + chunk).min(steps.len()));
            tries += 1;
            match run(seed, &fewer) {
                Err(still) => (steps, what) = (fewer, still),
                Ok(_) => at += chunk,
            }
        }
        if chunk == 1 && steps.len() == before {
            break;
        }
        chunk = chunk
            .div_ceil(2)
            .min(if chunk == 1 { 1 } else { chunk - 1 });
    }
    (steps, what)
}

/// All that is needed to look into a failure.
#[must_use]
pub fn report(seed: u64, steps: &[Step], what: &str) -> String {
    let (fewer, how) = shrink(seed, steps, what);
    let mut text = format!(
        "seed {seed} fails: {what}\n{} of {} steps are enough: {how}\n",
        fewer.len(),
        steps.len()
    );
    for (n, step) in fewer.iter().enumerate() {
        let _ = writeln!(text, "  {n:3}  {step:?}");
    }
    let _ = write!(
        text,
        "again: postern-sim --seed {seed} --worlds 1 --steps {}",
        steps.len()
    );
    text
}
