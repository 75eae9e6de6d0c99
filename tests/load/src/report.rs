//! What a run says at its end, and how it ends.

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Why a run came to nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The system refused.
    #[error("{doing}: {source}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The other end, or the arguments together.
    #[error("{0}")]
    Other(String),
}

impl Failure {
    /// Names what was tried.
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Failure {
        move |source| Failure::Io { doing, source }
    }
}

/// Prints one result: an object as its fields, a list as one object a line.
pub(crate) fn print(result: &impl Serialize, output: Output) -> Result<(), Failure> {
    let value = serde_json::to_value(result).map_err(|error| Failure::Other(error.to_string()))?;
    write(&value, output).map_err(Failure::io("writing the result"))
}

fn write(value: &Value, output: Output) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match (value, output) {
        (Value::Array(items), _) => {
            for item in items {
                writeln!(out, "{item}")?;
            }
        }
        (Value::Object(fields), Output::Text) => {
            for (name, value) in fields {
                writeln!(out, "{name}: {value}")?;
            }
        }
        _ => writeln!(out, "{value}")?,
    }
    out.flush()
}

/// 0, or 1 with the reason on stderr.
pub(crate) fn exit(done: Result<(), Failure>) -> ExitCode {
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Nobody is left to tell if stderr is gone.
            let _ = writeln!(io::stderr(), "error: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// The middle and the late ones of many times, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(crate) struct Latency {
    pub(crate) p50_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) max_us: f64,
}

impl Latency {
    pub(crate) fn of(mut times: Vec<Duration>) -> Latency {
        times.sort_unstable();
        let at = |percent: usize| {
            let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
            times
                .get(place)
                .map_or(0.0, |time| time.as_secs_f64() * 1e6)
        };
        Latency {
            p50_us: at(50),
            p99_us: at(99),
            max_us: at(100),
        }
    }
}

/// `count` in `time`, as a rate.
pub(crate) fn per_second(count: u64, time: Duration) -> f64 {
    // Counts here are far below 2^52, so they stay exact.
    (count as f64 / time.as_secs_f64().max(1e-9)).round()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_of_the_sorted_times() {
        let times = (0..100).rev().map(Duration::from_micros).collect();
        let latency = Latency::of(times);
        assert_eq!(
            (latency.p50_us, latency.p99_us, latency.max_us),
            (50.0, 99.0, 99.0)
        );
        assert_eq!(Latency::of(Vec::new()), Latency::default());
    }

    #[test]
    fn a_rate_is_per_second() {
        assert!((per_second(500, Duration::from_millis(250)) - 2000.0).abs() < 1e-9);
    }
}
