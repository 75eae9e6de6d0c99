//! From what the file says to what holds. Every proof appends to one list of problems.

mod flow_log;
mod keys;
mod login;
mod network;
mod policy_change;
mod posture;
mod push;
mod resolver;
mod session;

use super::raw::{Field, OneOrMany, Raw, RawLimits, RawLog, RawOffload};
use super::{Config, Egress, Limits, LogConfig, OnLogFailure, Problem, Workers, units};
use flow_log::flow_log;
use keys::keys;
use login::login;
use network::{include, interface, pool};
use policy_change::policy_change;
use postern_io::offload::Switches;
use postern_proto::mtu::{DEFAULT_MTU, MAX_MTU, MIN_MTU};
use postern_proto::profile::HostPort;
use posture::posture;
use resolver::resolver;
use serde_saphyr::Spanned;
use session::session;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The longest path that a unix socket address holds (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

pub(super) fn prove(raw: Raw, path: &Path) -> Result<Config, Vec<Problem>> {
    let folder = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let mut problems = Vec::new();
    let p = &mut problems;

    let data_dir = file(p, "data_dir", raw.data_dir, &folder, "data");
    let pool = pool(p, raw.pool_v4, raw.pool_v6);
    let config = Config {
        path: path.to_owned(),
        name: name(p, raw.name),
        endpoints: endpoints(p, raw.endpoint),
        listen_port: number(p, "listen_port", raw.listen_port, 51_820, 1..=65_535),
        interface: interface(p, raw.interface),
        mtu: number(
            p,
            "mtu",
            raw.mtu,
            short(DEFAULT_MTU),
            short(MIN_MTU)..=short(MAX_MTU),
        ),
        pool,
        egress: choice(
            p,
            "egress",
            raw.egress,
            &[
                ("masquerade", Egress::Masquerade),
                ("routed", Egress::Routed),
            ],
        ),
        policy: file(p, "policy", raw.policy, &folder, "policy.yaml"),
        key_file: file(p, "key_file", raw.key_file, &folder, "gateway.key"),
        admin_socket: socket(p, raw.admin_socket, &folder, &data_dir),
        metrics: metrics(p, raw.metrics),
        flow_log: flow_log(p, raw.flow_log.unwrap_or_default(), &folder, &data_dir),
        data_dir,
        on_log_failure: choice(
            p,
            "on_log_failure",
            raw.on_log_failure,
            &[
                ("deny-new", OnLogFailure::DenyNew),
                ("allow", OnLogFailure::Allow),
            ],
        ),
        offload: offload(p, raw.offload),
        workers: choice(
            p,
            "workers",
            raw.workers,
            &[
                ("auto", Workers::Auto),
                ("1", Workers::Exactly(1)),
                ("2", Workers::Exactly(2)),
                ("4", Workers::Exactly(4)),
                ("8", Workers::Exactly(8)),
            ],
        ),
        include: include(p, raw.include, pool),
        keepalive: keepalive(p, raw.keepalive),
        require_approval: raw.require_approval.unwrap_or(false),
        session: session(p, raw.session.unwrap_or_default()),
        posture: posture(p, raw.posture.unwrap_or_default()),
        keys: keys(p, raw.keys.unwrap_or_default()),
        policy_change: policy_change(p, raw.policy_change.unwrap_or_default()),
        limits: limits(p, raw.limits.unwrap_or_default()),
        log: log(p, raw.log.unwrap_or_default()),
        login: login(p, raw.login.unwrap_or_default(), &folder),
        resolver: resolver(p, raw.resolver.unwrap_or_default()),
    };
    if problems.is_empty() {
        Ok(config)
    } else {
        Err(problems)
    }
}

fn say(p: &mut Vec<Problem>, line: u64, field: &str, problem: String, help: impl Into<String>) {
    p.push(Problem {
        line,
        field: field.to_owned(),
        problem,
        help: help.into(),
    });
}

fn line_of<T>(value: &Spanned<T>) -> u64 {
    value.referenced.line()
}

fn short(size: usize) -> u16 {
    u16::try_from(size).unwrap_or(u16::MAX)
}

fn number<N>(
    p: &mut Vec<Problem>,
    field: &str,
    raw: Field<i64>,
    default: N,
    range: std::ops::RangeInclusive<N>,
) -> N
where
    N: TryFrom<i64> + PartialOrd + Copy + std::fmt::Display,
{
    let Some(raw) = raw else { return default };
    if let Some(value) = N::try_from(raw.value)
        .ok()
        .filter(|value| range.contains(value))
    {
        return value;
    }
    let problem = format!(
        "{} is outside {} to {}",
        raw.value,
        range.start(),
        range.end()
    );
    say(
        p,
        line_of(&raw),
        field,
        problem,
        format!("write for example {default}"),
    );
    default
}

/// The first choice is the default.
fn choice<T: Copy>(p: &mut Vec<Problem>, field: &str, raw: Field<String>, all: &[(&str, T)]) -> T {
    let default = all[0].1;
    let Some(raw) = raw else { return default };
    if let Some((_, value)) = all.iter().find(|(name, _)| *name == raw.value) {
        return *value;
    }
    let names: Vec<_> = all.iter().map(|(name, _)| *name).collect();
    let problem = format!("'{}' is no choice", raw.value);
    say(
        p,
        line_of(&raw),
        field,
        problem,
        format!("write {}", names.join(" or ")),
    );
    default
}

fn file(
    p: &mut Vec<Problem>,
    field: &str,
    raw: Field<String>,
    folder: &Path,
    default: &str,
) -> PathBuf {
    match raw {
        Some(raw) if raw.value.trim().is_empty() => {
            let help = format!("write a path, or remove the line for {default}");
            say(p, line_of(&raw), field, "the path is empty".into(), help);
            folder.join(default)
        }
        Some(raw) => folder.join(raw.value),
        None => folder.join(default),
    }
}

fn socket(p: &mut Vec<Problem>, raw: Field<String>, folder: &Path, data_dir: &Path) -> PathBuf {
    let line = raw.as_ref().map_or(0, line_of);
    let path = match raw {
        Some(raw) => file(p, "admin_socket", Some(raw), folder, "admin.sock"),
        None => data_dir.join("admin.sock"),
    };
    if path.as_os_str().len() > SOCKET_PATH_MAX {
        let problem = format!("{} is longer than {SOCKET_PATH_MAX} bytes", path.display());
        say(
            p,
            line,
            "admin_socket",
            problem,
            "write a shorter path, such as /run/postern/admin.sock",
        );
    }
    path
}

fn endpoints(p: &mut Vec<Problem>, raw: Field<OneOrMany>) -> Vec<HostPort> {
    let Some(raw) = raw else { return Vec::new() };
    let line = line_of(&raw);
    if raw.value.0.is_empty() {
        let help = "write HOST:PORT, or remove the line";
        say(p, line, "endpoint", "the list is empty".into(), help);
    }
    let mut all = Vec::new();
    for text in raw.value.0 {
        match text.parse() {
            Ok(endpoint) => all.push(endpoint),
            Err(_) => {
                let help = "write for example vpn.example.com:51820 or [2001:db8::1]:51820";
                say(
                    p,
                    line,
                    "endpoint",
                    format!("'{text}' is not HOST:PORT"),
                    help,
                );
            }
        }
    }
    all
}

fn name(p: &mut Vec<Problem>, raw: Field<String>) -> String {
    let Some(raw) = raw else {
        return "postern".to_owned();
    };
    let fits = (1..=63).contains(&raw.value.len())
        && raw
            .value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    if !fits {
        let problem = format!("'{}' is no name", raw.value.escape_debug());
        let help = "write 1 to 63 of A-Z a-z 0-9 _ - . such as gateway-1";
        say(p, line_of(&raw), "name", problem, help);
    }
    raw.value
}

fn metrics(p: &mut Vec<Problem>, raw: Field<String>) -> Option<SocketAddr> {
    let default = SocketAddr::from(([127, 0, 0, 1], 9478));
    let Some(raw) = raw else { return Some(default) };
    if raw.value == "off" {
        return None;
    }
    if let Ok(address) = raw.value.parse() {
        return Some(address);
    }
    let problem = format!("'{}' is not ADDRESS:PORT", raw.value);
    say(
        p,
        line_of(&raw),
        "metrics",
        problem,
        format!("write {default}, or off"),
    );
    None
}

fn parsed<T: Default + PartialEq>(
    p: &mut Vec<Problem>,
    field: &str,
    raw: Field<String>,
    default: T,
    example: &str,
    parse: impl Fn(&str) -> Result<T, &'static str>,
) -> T {
    let Some(raw) = raw else { return default };
    let problem = match parse(&raw.value) {
        Ok(value) if value != T::default() => return value,
        Ok(_) => "must be more than zero",
        Err(problem) => problem,
    };
    let problem = format!("'{}' {problem}", raw.value);
    say(
        p,
        line_of(&raw),
        field,
        problem,
        format!("write for example {example}"),
    );
    default
}

/// As [`parsed`]; and a value that has something `wrong` with it is refused as well.
fn within<T: Copy + Default + PartialEq>(
    p: &mut Vec<Problem>,
    field: &str,
    raw: Field<String>,
    default: T,
    example: &str,
    parse: impl Fn(&str) -> Result<T, &'static str>,
    wrong: impl Fn(T) -> Option<String>,
) -> T {
    let line = raw.as_ref().map_or(0, line_of);
    let value = parsed(p, field, raw, default, example, parse);
    let Some(problem) = wrong(value) else {
        return value;
    };
    let help = format!("write for example {example}");
    say(p, line, field, problem, help);
    default
}

fn offload(p: &mut Vec<Problem>, raw: Field<RawOffload>) -> Switches {
    let Some(raw) = raw else {
        return Switches::AUTO;
    };
    let each = match raw.value {
        RawOffload::All(all) => {
            let all = Some(Spanned::new(all, raw.referenced, raw.defined));
            let choices = [("auto", Switches::AUTO), ("off", Switches::OFF)];
            return choice(p, "offload", all, &choices);
        }
        RawOffload::Each(each) => each,
    };
    let mut switches = Switches::AUTO;
    for (name, value) in each {
        let Err(error) = switches.set(&name, &value.value) else {
            continue;
        };
        let field = format!("offload.{name}");
        say(p, line_of(&value), &field, error.problem(), error.help());
    }
    switches
}

/// Seconds. A laptop behind NAT can only be told that a flow was cut while the path to it is open.
const KEEPALIVE: u16 = 25;

fn keepalive(p: &mut Vec<Problem>, raw: Field<String>) -> Option<u16> {
    let Some(raw) = raw else {
        return Some(KEEPALIVE);
    };
    if raw.value == "off" {
        return None;
    }
    let seconds = units::duration(&raw.value)
        .ok()
        .and_then(|d| u16::try_from(d.as_secs()).ok());
    if let Some(seconds) = seconds.filter(|seconds| *seconds > 0) {
        return Some(seconds);
    }
    let problem = format!("'{}' is no pause", raw.value);
    say(p, line_of(&raw), "keepalive", problem, "write 25s, or off");
    None
}

fn limits(p: &mut Vec<Problem>, raw: RawLimits) -> Limits {
    let flows = number(p, "limits.flows", raw.flows, 65_536, 16..=16_777_216);
    let per_device = raw.flows_per_device.as_ref().map_or(0, line_of);
    let limits = Limits {
        flows,
        flows_per_device: number(
            p,
            "limits.flows_per_device",
            raw.flows_per_device,
            flows.min(4096),
            1..=16_777_216,
        ),
        half_open_per_device: number(
            p,
            "limits.half_open_per_device",
            raw.half_open_per_device,
            512,
            1..=1_048_576,
        ),
    };
    if limits.flows_per_device > limits.flows {
        let problem = format!(
            "{} is more than limits.flows, {flows}",
            limits.flows_per_device
        );
        let help = format!("write at most {flows}");
        say(p, per_device, "limits.flows_per_device", problem, help);
    }
    limits
}

fn log(p: &mut Vec<Problem>, raw: RawLog) -> LogConfig {
    const LEVELS: [(&str, &str); 5] = [
        ("info", "info"),
        ("warn", "warn"),
        ("error", "error"),
        ("debug", "debug"),
        ("trace", "trace"),
    ];
    LogConfig {
        level: choice(p, "log.level", raw.level, &LEVELS).to_owned(),
        json: raw.json.unwrap_or(false),
    }
}
