//! Load for a gateway in a lab. Everything it does is bounded in count and in time, and goes only
//! to the address that is given, which must be one that never leaves a lab.
//!
//! ```text
//! postern-load enrol      --socket data/admin.sock --count 500 --seed 1 --group admins
//! postern-load handshakes --to 203.0.113.2:51820 --gateway-key KEY --count 500 --seed 1
//! postern-load flood      --to 203.0.113.2:51820 --gateway-key KEY --kind strangers --rate 20000
//! postern-load replay     --to 203.0.113.2:51820 --gateway-key KEY --inner 100.96.0.2,100.96.0.3 …
//! postern-load order run  --to 192.0.2.10:7001 --rate 20000
//! postern-load opens      --to 192.0.2.10:20000 --rate 10000
//! ```
//!
//! Keys come from a seed, so that the one who enrols devices and the one who plays them need to
//! share a number only.
#![forbid(unsafe_code)]

mod device;
mod enrol;
mod flood;
mod handshakes;
mod lab;
mod opens;
mod order;
mod replay;
mod report;
mod wire;

use clap::{Parser, Subcommand};
use report::Output;
use std::process::ExitCode;

/// Load for a gateway in a lab.
#[derive(Debug, Parser)]
#[command(name = "postern-load", version)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
    /// What to print.
    #[arg(long, short, value_enum, default_value_t, global = true)]
    output: Output,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Print the names and public keys of seeded devices.
    Keys(enrol::Keys),
    /// Add seeded devices over the admin socket of a running gateway.
    Enrol(enrol::Enrol),
    /// Seeded devices shake hands, so many at a time, again and again.
    Handshakes(handshakes::Handshakes),
    /// Somebody without a key asks for handshakes; say what comes back.
    Flood(flood::Flood),
    /// Seal packets of seeded devices first, then send them all at once.
    Replay(replay::Replay),
    /// Numbered datagrams to an echo and back: what came late, twice, or not at all.
    #[command(subcommand)]
    Order(order::Order),
    /// New flows at a rate.
    Opens(opens::Opens),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let output = cli.output;
    let done = match cli.verb {
        Verb::Keys(verb) => verb.run(output),
        Verb::Enrol(verb) => verb.run(output),
        Verb::Handshakes(verb) => verb.run(output),
        Verb::Flood(verb) => verb.run(output),
        Verb::Replay(verb) => verb.run(output),
        Verb::Order(verb) => verb.run(output),
        Verb::Opens(verb) => verb.run(output),
    };
    report::exit(done)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn nothing_goes_out_of_the_lab() {
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        let line = |to: &str| format!("postern-load flood --gateway-key {key} --to {to}");
        assert!(Cli::try_parse_from(line("203.0.113.2:51820").split(' ')).is_ok());
        let error = Cli::try_parse_from(line("8.8.8.8:51820").split(' ')).expect_err("refused");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("never leaves a lab"), "{error}");
    }

    #[test]
    fn counts_and_times_are_bounded() {
        let key = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
        for extra in ["--seconds 86400", "--rate 100000000", "--ports 5000"] {
            let line = format!("postern-load flood --gateway-key {key} --to 127.0.0.1:1 {extra}");
            assert!(Cli::try_parse_from(line.split(' ')).is_err(), "{extra}");
        }
    }
}
