//! `postern request`, `requests`, `approve`, `deny` and `withdraw`.

use super::{Failure, Output, door, failure, print, say};
use crate::api::{Call, CallError};
use crate::door::Door;
use crate::random;
use crate::report::{moment, plain};
use postern_io::clock::Clock;
use postern_proto::device_api::{
    DecideGrant, ErrorCode, GrantState, GrantView, Grants, RequestGrant, grants,
};
use std::io::{self, IsTerminal as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::thread::sleep;
use std::time::Duration;

/// How often it is asked whether somebody has decided.
const ASK_EVERY: Duration = Duration::from_secs(2);
/// A request is repeated so often while the gateway does not answer; it is the same one.
const TRIES: u32 = 3;

#[derive(Debug, clap::Args)]
pub(super) struct RequestArgs {
    /// The name of a target, or ADDRESS:PORT.
    target: String,
    /// For how long: 45s, 30m, 4h, 1d.
    #[arg(long = "for", value_name = "TIME", value_parser = time)]
    time: u32,
    /// Why. Whoever approves reads it, and every record of what you do names it.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: String,
    /// At once, without approval, where the policy allows that. It alerts.
    #[arg(long)]
    break_glass: bool,
    /// Wait until somebody has decided. Exit code 0: approved, 1: not.
    #[arg(long)]
    wait: bool,
    /// Which tunnel; needed only when several are up.
    #[arg(long)]
    name: Option<String>,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(super) struct DecideArgs {
    /// Which request: see `postern requests`.
    id: String,
    /// A word to who asked; recorded.
    #[arg(long, value_name = "TEXT", value_parser = reason)]
    reason: Option<String>,
    /// Which tunnel; needed only when several are up.
    #[arg(long)]
    name: Option<String>,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(super) struct WithdrawArgs {
    /// Which: see `postern requests`.
    id: String,
    /// Which tunnel; needed only when several are up.
    #[arg(long)]
    name: Option<String>,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

pub(super) fn request(run_dir: &Path, args: &RequestArgs) -> Result<(), Failure> {
    let random = random::bytes().map_err(|error| failure(1, &error))?;
    let wish = RequestGrant {
        id: grants::id(random),
        target: written(&args.target),
        seconds: args.time,
        reason: args.reason.clone(),
        break_glass: args.break_glass,
    };
    let door = door(run_dir, args.name.as_deref())?;
    let mut grant = ask(&door, &wish).map_err(|error| failure(1, &error))?;
    if args.wait && grant.state == GrantState::Waits {
        say(&format!(
            "request {} waits for somebody else's approval: `postern approve {}` by an approver, \
             or an admin at the gateway",
            grant.id, grant.id
        ));
        grant = wait(&door, grant)?;
    }
    show(args.output, &grant)?;
    match grant.state {
        GrantState::Live => Ok(()),
        GrantState::Waits if !args.wait => Ok(()),
        GrantState::Waits
        | GrantState::Denied
        | GrantState::Expired
        | GrantState::Withdrawn
        | GrantState::Over
        | GrantState::Revoked => Err((1, String::new())),
    }
}

pub(super) fn requests(run_dir: &Path, args: &super::verbs::Named) -> Result<(), Failure> {
    let door = door(run_dir, args.name.as_deref())?;
    let all: Grants = door.ask(Call::Grants).map_err(|error| failure(1, &error))?;
    print(args.output, &all, || {
        let now = Clock::now().wall.seconds();
        let mut text = String::new();
        let mut part = |title: &str, grants: &[GrantView]| {
            if !grants.is_empty() {
                text += &format!("{title}\n");
                text.extend(
                    grants
                        .iter()
                        .map(|grant| format!("  {}\n", line(grant, now))),
                );
            }
        };
        part(
            "of others, for you to decide: `postern approve ID`, `postern deny ID`",
            &all.to_decide,
        );
        part("your own", &all.own);
        if all.left_out > 0 {
            text += &format!("and {} more for you to decide\n", all.left_out);
        }
        if text.is_empty() {
            text += "no requests; `postern request TARGET --for TIME --reason TEXT` makes one\n";
        }
        text
    })
}

pub(super) fn approve(run_dir: &Path, args: &DecideArgs) -> Result<(), Failure> {
    decide(run_dir, args, Call::ApproveGrant)
}

pub(super) fn deny(run_dir: &Path, args: &DecideArgs) -> Result<(), Failure> {
    decide(run_dir, args, Call::DenyGrant)
}

pub(super) fn withdraw(run_dir: &Path, args: &WithdrawArgs) -> Result<(), Failure> {
    id(&args.id)?;
    let door = door(run_dir, args.name.as_deref())?;
    let call = Call::EndGrant(args.id.clone());
    let grant: GrantView = door.ask(call).map_err(|error| failure(1, &error))?;
    show(args.output, &grant)
}

fn decide(
    run_dir: &Path,
    args: &DecideArgs,
    call: impl FnOnce(String, DecideGrant) -> Call,
) -> Result<(), Failure> {
    id(&args.id)?;
    let door = door(run_dir, args.name.as_deref())?;
    let said = DecideGrant {
        reason: args.reason.clone(),
    };
    let call = call(args.id.clone(), said);
    let grant: GrantView = door.ask(call).map_err(|error| failure(1, &error))?;
    show(args.output, &grant)
}

/// The same request until there is an answer.
fn ask(door: &Door, wish: &RequestGrant) -> Result<GrantView, CallError> {
    let mut tries = 1;
    loop {
        match door.ask(Call::RequestGrant(wish.clone())) {
            Err(CallError::Silent(_)) if tries < TRIES => tries += 1,
            answer => return answer,
        }
    }
}

/// Until it does not wait any more. A gateway that is away meanwhile is waited for.
fn wait(door: &Door, mut grant: GrantView) -> Result<GrantView, Failure> {
    let terminal = io::stderr().is_terminal();
    while grant.state == GrantState::Waits {
        if terminal {
            let now = Clock::now().wall.seconds();
            let left = lasting(grant.decide_by.saturating_sub(now));
            let since = lasting(now.saturating_sub(grant.asked));
            let _ = write!(
                io::stderr(),
                "\r  waiting for {since}; it expires in {left}   "
            );
            let _ = io::stderr().flush();
        }
        sleep(ASK_EVERY);
        grant = match door.ask(Call::Grant(grant.id.clone())) {
            Ok(grant) => grant,
            Err(CallError::Silent(_)) => grant,
            Err(CallError::Refused(error))
                if matches!(error.code, ErrorCode::TooMany | ErrorCode::Unavailable) =>
            {
                grant
            }
            Err(error) => return Err(failure(1, &error)),
        };
    }
    if terminal {
        say("");
    }
    Ok(grant)
}

fn show(output: Output, grant: &GrantView) -> Result<(), Failure> {
    print(output, grant, || {
        format!("{}\n", line(grant, Clock::now().wall.seconds()))
    })
}

/// One line: how it stands, what it is about, and what was said.
fn line(grant: &GrantView, now: u64) -> String {
    let who = grant.user.as_ref().unwrap_or(&grant.device);
    let by = match (&grant.decided_by, grant.break_glass) {
        (_, true) => ", break-glass".to_owned(),
        (Some(by), false) => format!(", {}", plain(by)),
        (None, false) => String::new(),
    };
    let ended_by = grant.ended_by.as_deref().unwrap_or("nobody");
    let state = match grant.state {
        GrantState::Waits => {
            let left = lasting(grant.decide_by.saturating_sub(now));
            format!("waits for approval, expires in {left}")
        }
        GrantState::Live => {
            let until = grant.until.unwrap_or(0);
            let left = lasting(until.saturating_sub(now));
            format!("live until {}, {left} left{by}", moment(until))
        }
        GrantState::Denied => format!("denied{by}"),
        GrantState::Expired => "expired: nobody decided".to_owned(),
        GrantState::Withdrawn => "withdrawn".to_owned(),
        GrantState::Over => format!("over{by}"),
        GrantState::Revoked => format!("ended before its time by {}", plain(ended_by)),
    };
    let word = grant.word.as_ref();
    let word = word.map_or(String::new(), |word| format!(" \"{}\"", plain(word)));
    format!(
        "{}  {} for {} ({}, {}): {state}{word}",
        plain(&grant.id),
        plain(&grant.target),
        lasting(grant.seconds),
        plain(who),
        plain(&grant.reason)
    )
}

/// `45s`, `30m`, `4h`, `1d`, in seconds.
fn time(text: &str) -> Result<u32, String> {
    let help = || "write a number and its unit: 45s, 30m, 4h or 1d".to_owned();
    let unit = text.chars().last().ok_or_else(help)?;
    let each = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(help()),
    };
    let digits = &text[..text.len() - unit.len_utf8()];
    let number = digits.bytes().all(|byte| byte.is_ascii_digit());
    let count: Option<u32> = number.then(|| digits.parse().ok()).flatten();
    let seconds = count.and_then(|count| count.checked_mul(each));
    seconds.filter(|seconds| *seconds > 0).ok_or_else(help)
}

fn reason(text: &str) -> Result<String, String> {
    let reason = grants::reason(text).map_err(|error| error.to_string())?;
    Ok(reason.to_owned())
}

fn id(text: &str) -> Result<(), Failure> {
    match grants::is_id(text) {
        true => Ok(()),
        false => Err((
            2,
            format!(
                "`{}` is no id of a request: see `postern requests`",
                plain(text)
            ),
        )),
    }
}

/// A name as it is; an address and port with their protocol.
fn written(target: &str) -> String {
    match (target.parse::<SocketAddr>(), target.parse::<IpAddr>()) {
        (Ok(_), _) => format!("{target}/tcp"),
        (Err(_), Ok(_) | Err(_)) => target.to_owned(),
    }
}

fn lasting(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200.. => format!("{} h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_and_is_not_nothing() {
        assert_eq!(
            ["45s", "30m", "4h", "1d"].map(time),
            [Ok(45), Ok(1800), Ok(14_400), Ok(86_400)]
        );
        for bad in [
            "",
            "h",
            "4",
            "0h",
            "-1h",
            "+1h",
            "1 h",
            "1w",
            "99999999d",
            "4ä",
        ] {
            assert!(time(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_asked_for_with_its_protocol_and_a_name_as_it_is() {
        assert_eq!(written("192.0.2.10:22"), "192.0.2.10:22/tcp");
        assert_eq!(written("[2001:db8::1]:53/udp"), "[2001:db8::1]:53/udp");
        assert_eq!(written("nodes"), "nodes");
    }

    #[test]
    fn a_line_says_how_it_stands_and_a_terminal_obeys_nothing_in_it() {
        let mut grant = GrantView {
            id: "222222222222".to_owned(),
            state: GrantState::Live,
            device: "ana-laptop".to_owned(),
            user: Some("ana@example.com".to_owned()),
            target: "nodes".to_owned(),
            seconds: 3600,
            reason: "INC-42\u{1b}[31m".to_owned(),
            break_glass: false,
            entry: "nodes in an emergency".to_owned(),
            asked: 1_800_000_000,
            decide_by: 1_800_086_400,
            decided: Some(1_800_000_010),
            decided_by: Some("bob@example.com".to_owned()),
            word: Some("be quick".to_owned()),
            since: Some(1_800_000_010),
            until: Some(1_800_003_610),
            ended: None,
            ended_by: None,
        };
        assert_eq!(
            line(&grant, 1_800_003_550),
            "222222222222  nodes for 60 min (ana@example.com, INC-42?[31m): live until \
             2027-01-15T09:00:10Z, 60 s left, bob@example.com \"be quick\""
        );
        grant.state = GrantState::Waits;
        assert!(line(&grant, 1_800_000_000).contains("waits for approval, expires in 24 h"));
    }
}
