//! The command line.

use crate::control::{self, Answer, Request};
use crate::door::Door;
use crate::instance::{Instance, InstanceError, RUN_DIR};
use crate::report::Report;
use crate::run::{self, UpOptions};
use clap::{Parser, Subcommand, ValueEnum};
use postern_io::offload::Switches;
use postern_io::telemetry::{self, LogFormat};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

mod grants;
mod join;
mod login;
mod terminal;
mod verbs;

/// Reach the targets that your gateway lets you reach, and change nothing else on this laptop.
///
/// Exit codes: 0 done, 1 failed or not running, 2 usage or a profile that has to be changed.
#[derive(Debug, Parser)]
#[command(name = "postern", version, about)]
struct Cli {
    /// Where lock, state file and control socket are.
    #[arg(long, global = true, env = "POSTERN_RUN_DIR", default_value = RUN_DIR, value_name = "DIR")]
    run_dir: PathBuf,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Join a gateway: turn an invitation into a profile. Needs no root.
    Join(join::Args),
    /// Bring a tunnel up and keep it up until Ctrl-C or `postern down`.
    Up {
        /// The profile: its name after `postern join`, or a file that only you can read.
        profile: PathBuf,
        /// Name the tunnel; the profile's name otherwise.
        #[arg(long)]
        name: Option<String>,
        /// Name the interface; the first free of postern0, postern1, … otherwise.
        #[arg(long)]
        interface: Option<String>,
        /// Use the kernel's offloads (auto), none (off), or switch some, for example
        /// tun=off,udp-send=off (tun-read, tun-write, udp-send, udp-receive).
        #[arg(
            long,
            env = "POSTERN_OFFLOAD",
            default_value = "auto",
            value_name = "SWITCHES"
        )]
        offload: Switches,
    },
    /// Bring a tunnel down and wait until everything is put back.
    Down {
        /// Which; needed only when several are up.
        name: Option<String>,
    },
    /// Show how a tunnel stands, and what the gateway refused.
    Status {
        /// Which; needed only when several are up.
        name: Option<String>,
        /// How to show it.
        #[arg(short, long, value_enum, default_value_t = Output::Table)]
        output: Output,
    },
    /// Log in, or see how the login stands.
    Login(login::Args),
    /// End the login.
    Logout(verbs::Named),
    /// Ask the gateway whether it would let something through, and why. Exit code 0: yes, 1: no.
    Why(verbs::WhyArgs),
    /// Ask for access for a while. Somebody else approves it.
    Request(grants::RequestArgs),
    /// Show your requests, and those of others that you may decide about.
    Requests(verbs::Named),
    /// Approve somebody else's request.
    Approve(grants::DecideArgs),
    /// Deny somebody else's request.
    Deny(grants::DecideArgs),
    /// Take a request back, or end a grant before its time.
    Withdraw(grants::WithdrawArgs),
    /// Confirm a change of the policy: that this reaches the gateway shows that the tunnel lives.
    Confirm(verbs::ConfirmArgs),
    /// Make a new key for this device. No connection is dropped.
    RotateKey(verbs::Named),
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Output {
    /// For people.
    Table,
    /// One JSON object.
    Json,
}

/// Runs the program. Usage errors end it with code 2.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let result = match &cli.command {
        Command::Up {
            profile,
            name,
            interface,
            offload,
        } => {
            let options = UpOptions {
                profile: profile.clone(),
                name: name.clone(),
                interface: interface.clone(),
                run_dir: cli.run_dir.clone(),
                offload: *offload,
            };
            telemetry::init("POSTERN_LOG", LogFormat::Text)
                .map_err(|error| failure(2, &error))
                .and_then(|()| {
                    run::up(&options)
                        .map_err(|error| failure(if error.is_usage() { 2 } else { 1 }, &error))
                })
        }
        Command::Down { name } => down(&cli.run_dir, name.as_deref()),
        Command::Status { name, output } => status(&cli.run_dir, name.as_deref(), *output),
        Command::Join(args) => join::join(args),
        Command::Login(args) => login::login(&cli.run_dir, args),
        Command::Logout(args) => verbs::logout(&cli.run_dir, args),
        Command::Why(args) => verbs::why(&cli.run_dir, args),
        Command::Request(args) => grants::request(&cli.run_dir, args),
        Command::Requests(args) => grants::requests(&cli.run_dir, args),
        Command::Approve(args) => grants::approve(&cli.run_dir, args),
        Command::Deny(args) => grants::deny(&cli.run_dir, args),
        Command::Withdraw(args) => grants::withdraw(&cli.run_dir, args),
        Command::Confirm(args) => verbs::confirm(&cli.run_dir, args),
        Command::RotateKey(args) => verbs::rotate_key(&cli.run_dir, args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        // The answer is no, and said already.
        Err((code, message)) if message.is_empty() => ExitCode::from(code),
        Err((code, message)) => {
            let _ = writeln!(io::stderr(), "postern: {message}");
            ExitCode::from(code)
        }
    }
}

type Failure = (u8, String);

fn down(run_dir: &Path, name: Option<&str>) -> Result<(), Failure> {
    let instance = find(run_dir, name)?;
    match ask(&instance, &Request::Down)? {
        Answer::Stopping if instance.is_running() => {
            Err((1, format!("`{}` is still stopping", instance.name())))
        }
        Answer::Stopping => Ok(()),
        answer @ (Answer::Status(_)
        | Answer::Error { .. }
        | Answer::Done
        | Answer::Api { .. }
        | Answer::Refused { .. }) => Err(unexpected(answer)),
    }
}

fn status(run_dir: &Path, name: Option<&str>, output: Output) -> Result<(), Failure> {
    let instance = find(run_dir, name)?;
    let report: Box<Report> = match ask(&instance, &Request::Status)? {
        Answer::Status(report) => report,
        answer @ (Answer::Stopping
        | Answer::Error { .. }
        | Answer::Done
        | Answer::Api { .. }
        | Answer::Refused { .. }) => return Err(unexpected(answer)),
    };
    print(output, &report, || report.to_string())
}

/// On stdout, in the form that was asked for.
fn print<T: serde::Serialize>(
    output: Output,
    value: &T,
    words: impl FnOnce() -> String,
) -> Result<(), Failure> {
    let text = match output {
        Output::Table => words(),
        Output::Json => {
            serde_json::to_string_pretty(value).map_err(|error| failure(1, &error))? + "\n"
        }
    };
    // A reader that has seen enough (`| head`) is no failure.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(())
}

/// On stderr: what is going on.
fn say(words: &str) {
    let _ = writeln!(io::stderr(), "{words}");
}

fn door(run_dir: &Path, name: Option<&str>) -> Result<Door, Failure> {
    Door::find(run_dir, name).map_err(|error| failure(1, &error))
}

fn find(run_dir: &Path, name: Option<&str>) -> Result<Instance, Failure> {
    Instance::running(run_dir, name).map_err(|error| {
        let code = match error {
            InstanceError::Name(_) | InstanceError::Several(_) => 2,
            InstanceError::Folder { .. }
            | InstanceError::Running(_)
            | InstanceError::NoneRunning
            | InstanceError::NotRunning(_) => 1,
        };
        failure(code, &error)
    })
}

fn ask(instance: &Instance, request: &Request) -> Result<Answer, Failure> {
    let path = instance.socket();
    control::ask(&path, request).map_err(|error| {
        let hint = if error.kind() == io::ErrorKind::PermissionDenied {
            "; run it as the user that brought it up"
        } else if matches!(
            error.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        ) {
            "; it is just starting or ending, try again"
        } else {
            ""
        };
        (1, format!("{}: {error}{hint}", path.display()))
    })
}

fn unexpected(answer: Answer) -> Failure {
    match answer {
        Answer::Error { message } => (1, message),
        Answer::Refused { why } => failure(1, &why),
        Answer::Status(_) | Answer::Stopping | Answer::Done | Answer::Api { .. } => {
            (1, "the tunnel gave another answer".to_owned())
        }
    }
}

fn failure(code: u8, error: &dyn std::fmt::Display) -> Failure {
    (code, error.to_string())
}

#[cfg(test)]
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "one arm of many is looked at"
)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn offloads_are_switched_by_words_and_nonsense_is_a_usage_error() {
        let offload = |words: &[&str]| {
            let line = ["postern", "up", "profile"].iter().chain(words);
            Cli::try_parse_from(line).map(|cli| match cli.command {
                Command::Up { offload, .. } => offload,
                _ => unreachable!("it says up"),
            })
        };
        assert_eq!(offload(&[]).expect("none"), Switches::AUTO);
        assert_eq!(offload(&["--offload", "off"]).expect("off"), Switches::OFF);
        let some = offload(&["--offload", "tun=off,udp-send=off"]).expect("a list");
        assert_eq!(Ok(some), "tun=off,udp-send=off".parse());
        let error = offload(&["--offload", "tcp=off"]).expect_err("no such half");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("udp-receive"), "{error}");
    }

    #[test]
    fn the_verbs_read_as_documented() {
        for line in [
            "join postern1-abc",
            "join - --name ana --profile ana.yaml --no-wait -o json",
            "login",
            "login ana --device-code --provider corp",
            "login --email ana@example.com",
            "login --status -o json",
            "logout ana",
            "why 192.0.2.10:22",
            "confirm k7m2-p9qx-abcd -o json",
            "why db.example.com:5432/tcp --name ana -o json",
            "request nodes --for 1h --reason INC-42 --wait",
            "request 192.0.2.10:22 --for 30m --reason INC-42 --break-glass --name ana -o json",
            "requests ana -o json",
            "approve 222222222222 --reason checked",
            "deny 222222222222",
            "withdraw 222222222222",
            "rotate-key",
            "up ana",
        ] {
            let words = std::iter::once("postern").chain(line.split(' '));
            assert!(Cli::try_parse_from(words).is_ok(), "{line}");
        }
        for line in [
            "join",
            "why",
            "request nodes --reason INC-42",
            "request nodes --for 1h",
            "request nodes --for 1h --reason x",
            "approve",
            "login --device-code --email a@b",
            "login --status --email a@b",
        ] {
            let words = std::iter::once("postern").chain(line.split(' '));
            let error = Cli::try_parse_from(words).expect_err(line);
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn asking_for_what_does_not_run_fails_with_1() {
        let nowhere = std::env::temp_dir().join("postern-nowhere");
        assert_eq!(
            status(&nowhere, None, Output::Json),
            Err((1, "no tunnel is up".to_owned()))
        );
        assert_eq!(down(&nowhere, Some("a/b")).expect_err("no name").0, 2);
    }
}
