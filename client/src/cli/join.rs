//! `postern join`.

use super::terminal::{self, Terminal};
use super::{Failure, Output, failure, print, say};
use crate::join::{self, JoinError, JoinOptions, Joined};
use crate::login::{self, Wish};
use crate::owner::Owner;
use postern_proto::device_api::State;
use serde::Serialize;
use std::io::{self, Read as _};
use std::path::PathBuf;
use zeroize::Zeroizing;

/// The longest text that is read as an invitation, bytes.
const MAX_INVITATION: u64 = 16 << 10;

#[derive(clap::Args)]
pub(super) struct Args {
    /// The invitation, as you were given it; `-` reads it from stdin, so that it stays out of the
    /// shell's history.
    #[arg(value_name = "INVITATION")]
    text: String,
    /// What to call this device.
    #[arg(long)]
    name: Option<String>,
    /// Where to write the profile; ~/.config/postern/NAME.yaml otherwise.
    #[arg(long, value_name = "FILE")]
    profile: Option<PathBuf>,
    /// Do not wait until an admin has approved the device.
    #[arg(long)]
    no_wait: bool,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// The invitation is a secret.
impl std::fmt::Debug for Args {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Args")
            .field("name", &self.name)
            .field("profile", &self.profile)
            .finish_non_exhaustive()
    }
}

/// What `-o json` says.
#[derive(Debug, Serialize)]
struct View {
    name: String,
    profile: PathBuf,
    state: State,
    post_quantum_key: bool,
    next: Vec<String>,
}

pub(super) fn join(args: &Args) -> Result<(), Failure> {
    let failed = |error: JoinError| failure(if error.is_usage() { 2 } else { 1 }, &error);
    let options = JoinOptions {
        text: text(&args.text)?,
        name: args.name.clone(),
        profile: args.profile.clone(),
    };
    let mut joined = join::join(&options, &mut say).map_err(failed)?;
    say(&format!(
        "joined as {}; profile: {}",
        joined.profile.name,
        joined.path.display()
    ));
    if !args.no_wait {
        let waited = wait(&mut joined);
        // Joined it is, whatever comes.
        if let Err(error) = waited {
            say(&format!("what to do next: {}", next(&joined).join("; ")));
            return Err(error);
        }
    }
    let view = View {
        name: joined.profile.name.clone(),
        profile: joined.path.clone(),
        state: joined.state,
        post_quantum_key: joined.profile.preshared_key.is_some(),
        next: next(&joined),
    };
    print(args.output, &view, || {
        view.next.iter().map(|line| format!("{line}\n")).collect()
    })
}

fn wait(joined: &mut Joined) -> Result<(), Failure> {
    let failed = |error: JoinError| failure(1, &error);
    let (tunnel, status) = join::wait(joined, &mut say).map_err(failed)?;
    joined.state = status.state;
    if joined.state == State::NeedsLogin && terminal::is_there() {
        let mut terminal = Terminal { browser: true };
        let status = login::log_in(&tunnel, &Wish::default(), &mut terminal)
            .map_err(|error| failure(1, &error))?;
        joined.state = status.state;
        if joined.state == State::WaitsForApproval {
            let (_, status) = join::wait(joined, &mut say).map_err(failed)?;
            joined.state = status.state;
        }
    }
    Ok(())
}

fn next(joined: &Joined) -> Vec<String> {
    // `up` knows the user's own folder; anywhere else it needs the path.
    let name = &joined.profile.name;
    let own = Owner::invoking()
        .profile(name)
        .is_some_and(|path| path == joined.path);
    let (up, named) = if own {
        (format!("sudo postern up {name}"), format!(" {name}"))
    } else {
        (
            format!("sudo postern up {}", joined.path.display()),
            String::new(),
        )
    };
    match joined.state {
        State::Active => vec![up],
        State::WaitsForApproval => vec![
            "an admin has to approve this device; until then it reaches nothing".to_owned(),
            up,
        ],
        State::NeedsLogin if own => vec![format!("postern login{named}"), up],
        State::NeedsLogin => vec![up, "postern login".to_owned()],
        State::Denied | State::UserDisabled => vec!["ask an admin".to_owned()],
    }
}

fn text(given: &str) -> Result<Zeroizing<String>, Failure> {
    if given != "-" {
        return Ok(Zeroizing::new(given.to_owned()));
    }
    if terminal::is_there() {
        say("paste the invitation, then Enter and Ctrl-D:");
    }
    let mut text = Zeroizing::new(String::new());
    io::stdin()
        .take(MAX_INVITATION)
        .read_to_string(&mut text)
        .map_err(|error| (1, format!("reading the invitation: {error}")))?;
    Ok(text)
}
