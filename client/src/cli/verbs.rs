//! `postern logout`, `why`, `confirm` and `rotate-key`.

use super::{Failure, Output, ask, door, failure, find, print, unexpected};
use crate::api::Call;
use crate::control::{Answer, Request};
use crate::report::plain;
use postern_proto::device_api::{
    ConfirmAnswer, ConfirmRequest, DeviceStatus, WhyAnswer, WhyRequest,
};
use std::net::{IpAddr, ToSocketAddrs as _};
use std::path::Path;

#[derive(Debug, clap::Args)]
pub(super) struct Named {
    /// Which tunnel; needed only when several are up.
    pub(super) name: Option<String>,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(super) output: Output,
}

#[derive(Debug, clap::Args)]
pub(super) struct WhyArgs {
    /// HOST:PORT, HOST:PORT/udp or HOST/icmp. A name is looked up on this computer.
    #[arg(value_name = "HOST:PORT[/PROTOCOL]")]
    to: String,
    /// Which tunnel; needed only when several are up.
    #[arg(long)]
    name: Option<String>,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

#[derive(Debug, clap::Args)]
pub(super) struct ConfirmArgs {
    /// What `postern-gateway policy apply` printed.
    token: String,
    /// Which tunnel; needed only when several are up.
    #[arg(long)]
    name: Option<String>,
    /// How to show the result.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

pub(super) fn confirm(run_dir: &Path, args: &ConfirmArgs) -> Result<(), Failure> {
    let door = door(run_dir, args.name.as_deref())?;
    let call = Call::Confirm(ConfirmRequest {
        token: args.token.clone(),
    });
    let answer: ConfirmAnswer = door.ask(call).map_err(|error| failure(1, &error))?;
    print(args.output, &answer, || {
        format!("policy {} stays\n", plain(&answer.policy))
    })
}

pub(super) fn logout(run_dir: &Path, args: &Named) -> Result<(), Failure> {
    let door = door(run_dir, args.name.as_deref())?;
    let status: DeviceStatus = door.ask(Call::LogOut).map_err(|error| failure(1, &error))?;
    super::login::show(args.output, &status)
}

pub(super) fn why(run_dir: &Path, args: &WhyArgs) -> Result<(), Failure> {
    let (host, rest) = split(&args.to).ok_or_else(|| {
        let help = "write HOST:PORT, HOST:PORT/udp or HOST/icmp, for example 192.0.2.10:22";
        (2, format!("`{}`: {help}", plain(&args.to)))
    })?;
    let addresses = look_up(host)?;
    let door = door(run_dir, args.name.as_deref())?;
    let mut answers = Vec::new();
    for address in addresses {
        let to = written(address, rest);
        let call = Call::Why(WhyRequest { to: to.clone() });
        let answer: WhyAnswer = door.ask(call).map_err(|error| failure(1, &error))?;
        answers.push((to, answer));
    }
    let all = answers.iter().all(|(_, answer)| answer.allow);
    let values: Vec<&WhyAnswer> = answers.iter().map(|(_, answer)| answer).collect();
    let words = || {
        let name = |to: &str| match answers.len() {
            0 | 1 => String::new(),
            _ => format!("{to}\n"),
        };
        answers
            .iter()
            .map(|(to, answer)| format!("{}{}\n", name(to), lines(&answer.text)))
            .collect()
    };
    match values.as_slice() {
        [one] => print(args.output, one, words)?,
        several => print(args.output, &several, words)?,
    }
    // Said already.
    if all { Ok(()) } else { Err((1, String::new())) }
}

pub(super) fn rotate_key(run_dir: &Path, args: &Named) -> Result<(), Failure> {
    let instance = find(run_dir, args.name.as_deref()).map_err(|(code, message)| {
        (
            code,
            format!("{message}; a key is changed while its tunnel is up"),
        )
    })?;
    match ask(&instance, &Request::RotateKey)? {
        Answer::Done => print(args.output, &serde_json::json!({ "rotated": true }), || {
            "a new key is in use\n".to_owned()
        }),
        answer @ (Answer::Status(_)
        | Answer::Stopping
        | Answer::Error { .. }
        | Answer::Api { .. }
        | Answer::Refused { .. }) => Err(unexpected(answer)),
    }
}

/// The host, and `:PORT`, `:PORT/PROTOCOL` or `/icmp`.
fn split(to: &str) -> Option<(&str, &str)> {
    let (host, rest) = match to.strip_prefix('[') {
        Some(inner) => inner.split_once(']')?,
        None => to.split_at(to.find([':', '/'])?),
    };
    let good = match rest.strip_prefix(':') {
        Some(port) => {
            let (port, protocol) = port.split_once('/').unwrap_or((port, "tcp"));
            port.parse::<u16>().is_ok_and(|port| port != 0) && matches!(protocol, "tcp" | "udp")
        }
        None => rest == "/icmp",
    };
    (good && !host.is_empty()).then_some((host, rest))
}

/// The addresses of a host, each once.
fn look_up(host: &str) -> Result<Vec<IpAddr>, Failure> {
    if let Ok(address) = host.parse() {
        return Ok(vec![address]);
    }
    let found = (host, 0)
        .to_socket_addrs()
        .map_err(|error| (1, format!("{}: {error}", plain(host))))?;
    let mut addresses = Vec::new();
    for address in found.map(|address| address.ip()) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    Ok(addresses)
}

/// As the gateway reads it: with a protocol, and IPv6 in brackets.
fn written(address: IpAddr, rest: &str) -> String {
    let protocol = if rest.contains('/') { "" } else { "/tcp" };
    match address {
        IpAddr::V6(v6) if rest.starts_with(':') => format!("[{v6}]{rest}{protocol}"),
        IpAddr::V4(_) | IpAddr::V6(_) => format!("{address}{rest}{protocol}"),
    }
}

/// Several lines from the other end, without anything that a terminal would obey.
fn lines(text: &str) -> String {
    text.trim_end()
        .lines()
        .map(plain)
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_host_port_and_protocol() {
        for (to, host, rest) in [
            ("192.0.2.10:22", "192.0.2.10", ":22"),
            ("db.example.com:5432/tcp", "db.example.com", ":5432/tcp"),
            ("[2001:db8::1]:53/udp", "2001:db8::1", ":53/udp"),
            ("192.0.2.10/icmp", "192.0.2.10", "/icmp"),
        ] {
            assert_eq!(split(to), Some((host, rest)), "{to}");
        }
        for bad in [
            "",
            "host",
            "host:0",
            "host:22/sctp",
            ":22",
            "host:ssh",
            "host/tcp",
        ] {
            assert_eq!(split(bad), None, "{bad}");
        }
        let v6: IpAddr = "2001:db8::1".parse().expect("an address");
        assert_eq!(written(v6, ":53/udp"), "[2001:db8::1]:53/udp");
        assert_eq!(written([192, 0, 2, 10].into(), ":22"), "192.0.2.10:22/tcp");
        assert_eq!(written([192, 0, 2, 10].into(), "/icmp"), "192.0.2.10/icmp");
    }

    #[test]
    fn a_terminal_obeys_nothing_in_an_answer() {
        assert_eq!(lines("no\n  rule \u{1b}[31m\n"), "no\n  rule ?[31m");
    }
}
