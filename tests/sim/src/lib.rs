//! A simulated world: the real gateway engine and the real client, driven by random but seeded
//! steps, against a naive oracle.
//!
//! | module | what it knows |
//! |---|---|
//! | [`dice`] | where chance comes from: a seed, or a fuzzer's bytes |
//! | [`steps`] | what may happen |
//! | [`world`] | laptops, one gateway, targets, one clock; every input to the gateway |
//! | `apply`, `mischief` | one step, done |
//! | [`laptop`], [`target`] | the two ends: tunnels, programs, sockets |
//! | [`speech`] | what the ends of a connection say first |
//! | [`net`] | loss, doubling, delay, order |
//! | `path` | the sizes that a path carries |
//! | [`packet`] | packets, made and read apart from the code under test |
//! | [`policy`], [`state`], [`model`] | the oracle: rules by a scan, how devices stand, flows by a map |
//! | [`told`] | what a record says of who asked and why |
//! | [`check`] | what was seen against what had to be |
//! | [`replay`] | the records, judged again: nothing changes |
//! | [`shrink`] | the fewest steps that still fail |
//!
//! A world is its seed and its steps. Two things are not seeded: the ephemeral keys and the
//! handshake timestamps that boringtun draws itself. They change ciphertext, never an outcome.
#![forbid(unsafe_code)]

mod apply;
pub mod check;
pub mod dice;
pub mod laptop;
mod mischief;
pub mod model;
pub mod net;
pub mod packet;
mod path;
pub mod policy;
pub mod replay;
pub mod shrink;
pub mod speech;
pub mod state;
pub mod steps;
pub mod target;
pub mod told;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use steps::Step;
use world::{Tally, World};

/// Steps of a world unless told otherwise.
pub const STEPS: usize = 72;

/// The steps that belong to a seed.
#[must_use]
pub fn steps_of(seed: u64, count: usize) -> Vec<Step> {
    steps::draw(count, &mut dice::Seeded::new(seed ^ 0x5157_e950))
}

/// Plays `steps` in the world of `seed`.
///
/// # Errors
/// What went wrong, in words; a panic is one of those things.
pub fn run(seed: u64, steps: &[Step]) -> Result<Tally, String> {
    let played = catch_unwind(AssertUnwindSafe(|| World::new(seed, true)?.play(steps)));
    played.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
        Err(format!("panic: {}", text.unwrap_or("without words")))
    })
}

/// Plays `steps` in the world of `seed` and returns its records, one JSON object a line.
///
/// # Errors
/// As [`run`].
pub fn records(seed: u64, steps: &[Step]) -> Result<Vec<u8>, String> {
    let mut world = World::new(seed, true)?;
    world.play(steps)?;
    Ok(world.records().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifty_worlds_agree_with_the_oracle() {
        for seed in 0..50 {
            let steps = steps_of(seed, STEPS);
            if let Err(what) = run(seed, &steps) {
                panic!("{}", shrink::report(seed, &steps, &what));
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_records_byte_for_byte() {
        for seed in 100..110 {
            let steps = steps_of(seed, STEPS);
            let first = records(seed, &steps).expect("agrees with the oracle");
            assert!(!first.is_empty());
            assert_eq!(
                String::from_utf8(first),
                String::from_utf8(records(seed, &steps).expect("as before"))
            );
        }
    }

    #[test]
    fn closing_records_show_what_was_said_first() {
        let mut seen = String::new();
        for seed in 200..360 {
            let lines = records(seed, &steps_of(seed, STEPS)).expect("agrees with the oracle");
            seen += &String::from_utf8(lines).expect("JSON");
        }
        for hint in [
            r#""app":"ssh""#,
            r#""app":"http""#,
            r#""ssh_client":"SSH-2.0-"#,
            r#""ssh_server":"SSH-2.0-"#,
            r#""tls_sni":"a-post-quantum-hello.example""#,
        ] {
            assert!(seen.contains(hint), "no connection showed {hint}");
        }
    }

    #[test]
    fn a_fuzzers_bytes_make_steps() {
        let bytes: Vec<u8> = (0..=255).collect();
        let steps = steps::draw(40, &mut dice::Bytes(&bytes));
        assert_eq!(steps.len(), 40);
        run(1, &steps).expect("agrees with the oracle");
    }
}
