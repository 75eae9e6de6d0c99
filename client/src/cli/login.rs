//! `postern login`.

use super::terminal::Terminal;
use super::{Failure, Output, door, failure, print};
use crate::api::Call;
use crate::login::{self, Wish};
use crate::report::standing;
use postern_io::clock::Clock;
use postern_proto::device_api::DeviceStatus;
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Which tunnel, or which profile where none is up.
    name: Option<String>,
    /// Log in on another computer, with a code.
    #[arg(long, conflicts_with_all = ["email", "status"])]
    device_code: bool,
    /// Log in with a code that is sent to this address.
    #[arg(long, value_name = "ADDRESS", conflicts_with_all = ["provider", "status"])]
    email: Option<String>,
    /// Which identity provider, where there are several.
    #[arg(long, value_name = "NAME", conflicts_with = "status")]
    provider: Option<String>,
    /// Only print the address: open no browser.
    #[arg(long)]
    no_browser: bool,
    /// Only show how the login stands.
    #[arg(long)]
    status: bool,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

pub(super) fn login(run_dir: &Path, args: &Args) -> Result<(), Failure> {
    let door = door(run_dir, args.name.as_deref())?;
    let status: DeviceStatus = if args.status {
        door.ask(Call::Device).map_err(|error| failure(1, &error))?
    } else {
        let wish = Wish {
            provider: args.provider.clone(),
            device_code: args.device_code,
            email: args.email.clone(),
        };
        let mut terminal = Terminal {
            browser: !args.no_browser,
        };
        login::log_in(&door, &wish, &mut terminal)
            .map_err(|error| failure(if error.is_usage() { 2 } else { 1 }, &error))?
    };
    show(args.output, &status)
}

pub(super) fn show(output: Output, status: &DeviceStatus) -> Result<(), Failure> {
    print(output, status, || {
        let now = Clock::now().wall.seconds();
        let until = status.session.as_ref().and_then(|session| session.until);
        let mut text = standing(status, until.map(|until| until.saturating_sub(now)));
        if status.session.is_none() {
            text += "login           none\n";
        }
        text
    })
}
