//! `postern-sim [--worlds N] [--seed S] [--steps N]`: plays worlds on all cores.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)]

use postern_sim::{STEPS, run, shrink, steps_of};
use std::io::{IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const USAGE: &str = "usage: postern-sim [--worlds N] [--seed S] [--steps N]

  --worlds N  how many worlds to play (default 1000)
  --seed S    the seed of the first; the others follow (default 1)
  --steps N   steps in each (default 70)";
/// Failures that are looked into; more tell nothing new.
const REPORTS: usize = 5;

struct Options {
    worlds: u64,
    seed: u64,
    steps: usize,
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(what) => {
            eprintln!("{what}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    // A panic in a world is one of its failures, and is reported as such.
    std::panic::set_hook(Box::new(|_| {}));
    let start = Instant::now();
    let [next, done, packets, flows] = [const { AtomicU64::new(0) }; 4];
    let failures = Mutex::new(Vec::new());
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| {
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    if n >= options.worlds {
                        return;
                    }
                    let seed = options.seed.wrapping_add(n);
                    match run(seed, &steps_of(seed, options.steps)) {
                        Ok(tally) => {
                            packets.fetch_add(tally.packets, Ordering::Relaxed);
                            flows.fetch_add(tally.flows, Ordering::Relaxed);
                        }
                        Err(what) => {
                            if let Ok(mut failures) = failures.lock() {
                                failures.push((seed, what));
                            }
                        }
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        while std::io::stderr().is_terminal() && done.load(Ordering::Relaxed) < options.worlds {
            eprint!(
                "\r{} of {} worlds",
                done.load(Ordering::Relaxed),
                options.worlds
            );
            let _ = std::io::stderr().flush();
            thread::sleep(Duration::from_millis(200));
        }
    });
    let mut failures = failures.into_inner().unwrap_or_default();
    failures.sort();
    for (seed, what) in failures.iter().take(REPORTS) {
        println!(
            "\n{}",
            shrink::report(*seed, &steps_of(*seed, options.steps), what)
        );
    }
    for (seed, what) in failures.iter().skip(REPORTS).take(40) {
        println!("seed {seed}: {what}");
    }
    println!(
        "sim: {} worlds, {} packets, {} flows, {} failures in {} s",
        options.worlds,
        packets.load(Ordering::Relaxed),
        flows.load(Ordering::Relaxed),
        failures.len(),
        start.elapsed().as_secs()
    );
    if failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// None: help was asked for.
fn options(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options {
        worlds: 1000,
        seed: 1,
        steps: STEPS,
    };
    while let Some(name) = args.next() {
        if matches!(name.as_str(), "-h" | "--help") {
            return Ok(None);
        }
        let value = args
            .next()
            .ok_or_else(|| format!("{name}: a number is missing"))?;
        let number: u64 = value
            .parse()
            .map_err(|_| format!("{name}: `{value}` is not a number"))?;
        match name.as_str() {
            "--worlds" => options.worlds = number,
            "--seed" => options.seed = number,
            "--steps" => options.steps = usize::try_from(number).unwrap_or(STEPS),
            _ => return Err(format!("there is no option {name}")),
        }
    }
    Ok(Some(options))
}
