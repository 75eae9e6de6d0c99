//! The command line.

use crate::control::{self, Answer, Request};
use crate::instance::{Instance, InstanceError, RUN_DIR};
use crate::report::Report;
use crate::run::{self, UpOptions};
use clap::{Parser, Subcommand, ValueEnum};
use postern_io::offload::Switches;
use postern_io::telemetry::{self, LogFormat};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

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
    /// Bring a tunnel up and keep it up until Ctrl-C or `postern down`.
    Up {
        /// The profile that `postern-gateway device add` printed; readable by you only.
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
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err((code, message)) => {
            let _ = writeln!(io::stderr(), "postern: {message}");
            ExitCode::from(code)
        }
    }
}

type Failure = (u8, String);

fn down(run_dir: &Path, name: Option<&str>) -> Result<(), Failure> {
    let instance = find(run_dir, name)?;
    match ask(&instance, Request::Down)? {
        Answer::Stopping if instance.is_running() => {
            Err((1, format!("`{}` is still stopping", instance.name())))
        }
        Answer::Stopping => Ok(()),
        answer @ (Answer::Status(_) | Answer::Error { .. }) => Err(unexpected(answer)),
    }
}

fn status(run_dir: &Path, name: Option<&str>, output: Output) -> Result<(), Failure> {
    let instance = find(run_dir, name)?;
    let report: Box<Report> = match ask(&instance, Request::Status)? {
        Answer::Status(report) => report,
        answer @ (Answer::Stopping | Answer::Error { .. }) => return Err(unexpected(answer)),
    };
    let text = match output {
        Output::Table => report.to_string(),
        Output::Json => {
            serde_json::to_string_pretty(&report).map_err(|error| failure(1, &error))? + "\n"
        }
    };
    // A reader that has seen enough (`| head`) is no failure.
    let _ = io::stdout().write_all(text.as_bytes());
    Ok(())
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

fn ask(instance: &Instance, request: Request) -> Result<Answer, Failure> {
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
        Answer::Status(_) | Answer::Stopping => (1, "the tunnel gave another answer".to_owned()),
    }
}

fn failure(code: u8, error: &dyn std::fmt::Display) -> Failure {
    (code, error.to_string())
}

#[cfg(test)]
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
                Command::Down { .. } | Command::Status { .. } => unreachable!("it says up"),
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
    fn asking_for_what_does_not_run_fails_with_1() {
        let nowhere = std::env::temp_dir().join("postern-nowhere");
        assert_eq!(
            status(&nowhere, None, Output::Json),
            Err((1, "no tunnel is up".to_owned()))
        );
        assert_eq!(down(&nowhere, Some("a/b")).expect_err("no name").0, 2);
    }
}
