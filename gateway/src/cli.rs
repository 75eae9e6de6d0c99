//! The verbs of `postern-gateway`. Data goes to stdout, notes and errors to stderr. Exit codes: 0
//! done or allowed; 1 failed or denied; 2 wrong usage or a bad configuration or policy.
#![allow(clippy::print_stderr)]

mod check;
mod device;
mod failure;
mod flows;
mod grant;
mod invite;
mod output;
mod policy;
mod session;
mod status;
mod user;

use crate::admin::client::Client;
use crate::config::{self, Config};
use crate::init;
use clap::{Args, Parser, Subcommand};
use failure::Failure;
use postern_io::telemetry::{self, LogFormat};
use postern_proto::profile::HostPort;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Environment variable with a log filter; comes before `log.level`.
const LOG_VARIABLE: &str = "POSTERN_LOG";

/// The gateway of Postern: decides, forwards and records what admins reach.
#[derive(Debug, Parser)]
#[command(name = "postern-gateway", version, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// Where the configuration is.
#[derive(Clone, Debug, Args)]
struct Where {
    /// The gateway's configuration.
    #[arg(long, short, value_name = "FILE", env = "POSTERN_CONFIG", default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make a folder with a key, a commented gateway.yaml and a first policy.
    Init {
        /// A folder that does not exist yet, or is empty and closed to others.
        dir: PathBuf,
        /// Where devices will find this gateway.
        #[arg(long, value_name = "HOST:PORT")]
        endpoint: Option<HostPort>,
    },
    /// Run the gateway in the foreground until it is told to stop.
    Run(Where),
    /// Say everything that is wrong with configuration, keys, policy and host, and what to do.
    Check(check::Check),
    /// Invite somebody: print one string that `postern join` takes.
    Invite(invite::Verb),
    /// Add, list, show, approve, deny or revoke devices.
    #[command(subcommand)]
    Device(device::Verb),
    /// List, show, disable or enable users.
    #[command(subcommand)]
    User(user::Verb),
    /// List or end logins.
    #[command(subcommand)]
    Session(session::Verb),
    /// List, approve, deny or revoke access for a while.
    #[command(subcommand)]
    Grant(grant::Verb),
    /// Show how the running gateway does.
    Status(status::Verb),
    /// List, follow or cut flows.
    #[command(subcommand)]
    Flows(flows::Verb),
    /// Check, test, explain or reload the policy.
    #[command(subcommand)]
    Policy(policy::Verb),
}

/// Reads the command line and does what it says.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    match obey(cli.verb) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("error: {failure}");
            ExitCode::from(failure.code())
        }
    }
}

/// 0, or 1 for an answer that is a no.
fn obey(verb: Verb) -> Result<u8, Failure> {
    match verb {
        Verb::Init { dir, endpoint } => {
            let config = init::init(&dir, endpoint.as_ref())?;
            output::say(format_args!("Made {}.", dir.display()))?;
            output::say(format_args!("{}", init::next_steps(&config)))?;
            Ok(0)
        }
        Verb::Run(place) => run(&place),
        Verb::Check(verb) => wait(verb.obey()),
        Verb::Invite(verb) => wait(verb.obey()),
        Verb::Device(verb) => wait(verb.obey()),
        Verb::User(verb) => wait(verb.obey()),
        Verb::Session(verb) => wait(verb.obey()),
        Verb::Grant(verb) => wait(verb.obey()),
        Verb::Status(verb) => wait(verb.obey()),
        Verb::Flows(verb) => wait(verb.obey()),
        Verb::Policy(verb) => wait(verb.obey()),
    }
}

fn run(place: &Where) -> Result<u8, Failure> {
    let config = place.load()?;
    let format = if config.log.json {
        LogFormat::Json
    } else {
        LogFormat::Text
    };
    telemetry::init_at(LOG_VARIABLE, &config.log.level, format).map_err(Failure::usage)?;
    crate::run::run(config).map_err(|error| Failure::failed(format!("{error:#}")))?;
    Ok(0)
}

/// `30m`, `24h`, `7d`.
fn span(text: &str) -> Result<Duration, String> {
    let span = config::units::duration(text);
    span.map_err(|problem| format!("it {problem}; write for example 30m, 24h or 7d"))
}

/// Separated by commas; `-` for none.
fn list_of(list: &[String]) -> String {
    output::or_dash((!list.is_empty()).then(|| list.join(",")))
}

/// A word as it may stand in a path (RFC 3986, section 2.3).
fn path_part(text: &str) -> String {
    let mut part = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~@".contains(&byte) {
            part.push(char::from(byte));
        } else {
            part.push_str(&format!("%{byte:02X}"));
        }
    }
    part
}

fn wait(work: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Failure::failed)?
        .block_on(work)
}

impl Where {
    fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(&self.config)?)
    }

    /// The configuration and the way to the running gateway.
    fn client(&self) -> Result<(Config, Client), Failure> {
        let config = self.load()?;
        let client = Client::new(&config.admin_socket);
        Ok((config, client))
    }
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
    fn the_verbs_of_the_manual_parse() {
        for line in [
            "init /etc/postern --endpoint vpn.example.com:51820",
            "run --config gateway.yaml",
            "check -c gateway.yaml -o json",
            "device add ana --user ana@example.com --group sre --group platform",
            "device add ana --public-key AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA= --format wg-quick --qr --out f",
            "device list --all -o json",
            "device show ana",
            "device revoke ana bob",
            "device approve ana bob",
            "device deny ana -c gateway.yaml",
            "device attribute ana set managed yes --expires 24h",
            "device attribute ana unset managed",
            "invite --user ana@example.com --group sre --expires 24h --name ana-laptop --qr",
            "invite --user ana@example.com --require approval -o json",
            "invite --open --require login --keys 32 --uses 100 --expires 7d",
            "invite --machine build-1 --group ci",
            "invite list --all -o json",
            "invite revoke k7m2p9qx",
            "user list -o json",
            "user show ana@example.com",
            "user disable ana@example.com bob@example.com",
            "user enable ana@example.com",
            "session list --all -o json",
            "session revoke abcdefghijkm",
            "grant list --all -o json",
            "grant approve k7m2p9qxabcd --as bob@example.com --reason checked",
            "grant deny k7m2p9qxabcd k7m2p9qxabce",
            "grant revoke k7m2p9qxabcd -c gateway.yaml",
            "status -o json",
            "flows list --device ana --to 192.0.2.10:22/tcp",
            "flows tail --user ana@example.com -o json",
            "flows tail --since 15m --verdict deny --to nodes",
            "flows list --all --limit 20 --rule default -o json",
            "flows list --dir copy --since 2026-11-22 --until 10:30 --state closed",
            "flows top --by denials --of destination --since 1d --limit 5",
            "flows explain 17",
            "flows explain 17 --boot 4 -o json",
            "flows explain --seq 0:4:17",
            "flows explain --line 41 --dir copy",
            "flows verify",
            "flows verify copy -o json",
            "flows pseudonym ana@example.com",
            "flows export --since 7d --until 1d --out bundle --dir copy",
            "flows kill 17 18",
            "flows kill --device ana",
            "policy check policy.yaml --strict",
            "policy schema",
            "policy test",
            "policy explain --user u --group g --to 192.0.2.10:22/tcp",
            "policy plan new.yaml --since 7d -o json",
            "policy suggest --since 30d",
            "policy explain --device ana-laptop --to 192.0.2.10:22/tcp --at 2h",
            "policy who-can --to nodes",
            "policy who-can --to 192.0.2.10:22/tcp --at 2026-11-22T10:30:00Z -o json",
            "policy reach --user ana@example.com --all",
            "policy reach --device ana-laptop --at 7d -o json",
            "policy report --target nodes --at 2026-11-22 --window 7d -o markdown",
            "policy status",
            "policy reload",
            "policy apply new.yaml --confirm-within 2m --as ana@example.com -o json",
            "policy apply --force --reason INC-42",
            "policy confirm k7m2-p9qx-abcd",
            "policy confirm --here",
            "policy rollback --to 2b84d5",
            "policy history -o json",
            "policy show current",
            "policy diff 2b84d5 new.yaml",
        ] {
            let words = ["postern-gateway"].into_iter().chain(line.split(' '));
            Cli::try_parse_from(words).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "",
            "device add",
            "invite",
            "invite --open",
            "invite --open --user ana@example.com --require login",
            "invite --machine build-1 --name other",
            "invite --user ana@example.com --keys 4",
            "invite --user ana@example.com --expires soon",
            "invite revoke",
            "device approve",
            "device attribute ana",
            "user disable",
            "session revoke",
            "grant approve --as bob@example.com",
            "flows kill",
            "flows list --verdict maybe",
            "flows list --to 192.0.2.300",
            "flows tail --until 1h",
            "flows top --by fame",
            "flows verify --head 41",
            "flows explain",
            "flows explain 17 --line 3",
            "flows explain --seq 17",
            "policy who-can",
            "policy reach",
            "policy reach --user ana --device ana-laptop",
            "policy report --target nodes",
            "flows export --since 1d",
            "policy explain --user u",
            "policy apply --force",
            "policy apply --reason x",
            "policy confirm",
            "policy diff a",
            "policy plan",
            "init d --endpoint x",
        ] {
            let words = ["postern-gateway"]
                .into_iter()
                .chain(line.split_whitespace());
            let error = Cli::try_parse_from(words).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }
}
