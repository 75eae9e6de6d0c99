//! From what the file says to what holds. Every proof appends to one list of problems.

use super::raw::{Field, OneOrMany, Raw, RawFlowLog, RawLimits, RawLog};
use super::{
    Config, Egress, FlowLogConfig, Limits, LogConfig, Offload, OnLogFailure, Problem, units,
};
use crate::pool::Pool;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use postern_proto::mtu::{DEFAULT_MTU, MAX_MTU, MIN_MTU};
use postern_proto::profile::HostPort;
use serde_saphyr::Spanned;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The longest path that a unix socket address holds (unix(7)).
const SOCKET_PATH_MAX: usize = 107;

const DEFAULT_POOL_V4: &str = "100.96.0.0/16";

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
        offload: choice(
            p,
            "offload",
            raw.offload,
            &[("auto", Offload::Auto), ("off", Offload::Off)],
        ),
        include: include(p, raw.include, pool),
        keepalive: keepalive(p, raw.keepalive),
        limits: limits(p, raw.limits.unwrap_or_default()),
        log: log(p, raw.log.unwrap_or_default()),
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

/// The kernel takes 15 bytes without `/` and white space (dev_valid_name).
fn interface(p: &mut Vec<Problem>, raw: Field<String>) -> String {
    let default = "postern0".to_owned();
    let Some(raw) = raw else { return default };
    let fits = (1..=15).contains(&raw.value.len())
        && raw
            .value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        && raw.value.bytes().any(|b| b.is_ascii_alphanumeric());
    if !fits {
        let problem = format!("'{}' is no interface name", raw.value);
        let help = "write 1 to 15 of a-z 0-9 _ - . such as postern0";
        say(p, line_of(&raw), "interface", problem, help);
        return default;
    }
    raw.value
}

fn pool(p: &mut Vec<Problem>, raw_v4: Field<String>, raw_v6: Field<String>) -> Pool {
    let fallback = Pool {
        v4: Ipv4Net::new_assert(Ipv4Addr::new(100, 96, 0, 0), 16),
        v6: Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 64),
    };
    Pool {
        v4: raw_v4
            .map_or(Some(fallback.v4), |raw| pool_v4(p, &raw))
            .unwrap_or(fallback.v4),
        v6: pool_v6(p, raw_v6).unwrap_or(fallback.v6),
    }
}

fn pool_v4(p: &mut Vec<Problem>, raw: &Spanned<String>) -> Option<Ipv4Net> {
    let help = format!("write a private range that nobody uses, such as {DEFAULT_POOL_V4}");
    let (line, text) = (line_of(raw), &raw.value);
    let Ok(net) = text.parse::<Ipv4Net>() else {
        say(
            p,
            line,
            "pool_v4",
            format!("'{text}' is no IPv4 range"),
            help,
        );
        return None;
    };
    let address = net.network();
    if net.trunc() != net {
        let problem = format!("{net} has host bits set");
        say(
            p,
            line,
            "pool_v4",
            problem,
            format!("write {}", net.trunc()),
        );
    } else if !(8..=29).contains(&net.prefix_len()) {
        say(
            p,
            line,
            "pool_v4",
            format!("/{} is outside /8 to /29", net.prefix_len()),
            help,
        );
    } else if address.is_loopback() || address.is_multicast() || address.is_link_local() {
        say(p, line, "pool_v4", format!("{net} is not unicast"), help);
    } else {
        return Some(net);
    }
    None
}

fn pool_v6(p: &mut Vec<Problem>, raw: Field<String>) -> Option<Ipv6Net> {
    let help = "write a /64 of your own, such as fd6a:3c1e:9d20:1::/64 (`init` makes a random one)";
    let Some(raw) = raw else {
        say(p, 0, "pool_v6", "missing".into(), help);
        return None;
    };
    let (line, text) = (line_of(&raw), &raw.value);
    let Ok(net) = text.parse::<Ipv6Net>() else {
        say(
            p,
            line,
            "pool_v6",
            format!("'{text}' is no IPv6 range"),
            help,
        );
        return None;
    };
    let address = net.network();
    if net.trunc() != net {
        let problem = format!("{net} has host bits set");
        say(
            p,
            line,
            "pool_v6",
            problem,
            format!("write {}", net.trunc()),
        );
    } else if !(16..=96).contains(&net.prefix_len()) {
        say(
            p,
            line,
            "pool_v6",
            format!("/{} is outside /16 to /96", net.prefix_len()),
            help,
        );
    } else if address.is_multicast() || address.is_unicast_link_local() || address.is_unspecified()
    {
        say(p, line, "pool_v6", format!("{net} is not unicast"), help);
    } else {
        return Some(net);
    }
    None
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

fn flow_log(
    p: &mut Vec<Problem>,
    raw: RawFlowLog,
    folder: &Path,
    data_dir: &Path,
) -> FlowLogConfig {
    let stdout = raw.stdout.unwrap_or(false);
    let line = raw.file.as_ref().map_or(0, line_of);
    let file = match raw.file {
        Some(raw) if raw.value == "none" => None,
        Some(raw) => Some(file(p, "flow_log.file", Some(raw), folder, "flows.jsonl")),
        None => Some(data_dir.join("flows.jsonl")),
    };
    if file.is_none() && !stdout {
        let problem = "records would go nowhere".into();
        say(
            p,
            line,
            "flow_log.file",
            problem,
            "write a path, or `stdout: true` beside it",
        );
    }
    FlowLogConfig {
        file,
        max_size: parsed(
            p,
            "flow_log.max_size",
            raw.max_size,
            64 << 20,
            "64MiB",
            units::size,
        ),
        max_age: parsed(
            p,
            "flow_log.max_age",
            raw.max_age,
            Duration::from_secs(86_400),
            "24h",
            units::duration,
        ),
        max_files: number(p, "flow_log.max_files", raw.max_files, 30, 1..=10_000),
        stdout,
    }
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

fn include(
    p: &mut Vec<Problem>,
    raw: Field<Vec<Spanned<String>>>,
    pool: Pool,
) -> Option<Vec<IpNet>> {
    let raw = raw?;
    if raw.value.is_empty() {
        let help = "list ranges, or remove the line to take every address of the policy";
        say(
            p,
            line_of(&raw),
            "include",
            "the list is empty".into(),
            help,
        );
    }
    let mut all = Vec::new();
    for (place, item) in raw.value.iter().enumerate() {
        let field = format!("include[{place}]");
        match range(&item.value, pool) {
            Ok(net) => all.push(net),
            Err((problem, help)) => say(p, line_of(item), &field, problem, help),
        }
    }
    all.sort();
    all.dedup();
    Some(all)
}

fn range(text: &str, pool: Pool) -> Result<IpNet, (String, String)> {
    let net = match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
        (Ok(net), _) => net,
        (Err(_), Ok(address)) => IpNet::from(address),
        (Err(_), Err(_)) => {
            let help = "write for example 192.0.2.10 or 192.0.2.0/24".to_owned();
            return Err((format!("'{text}' is no address or range"), help));
        }
    };
    if net.prefix_len() == 0 {
        let help = "list the targets: only they enter the tunnel".to_owned();
        return Err(("a default route never enters the tunnel".to_owned(), help));
    }
    if net.trunc() != net {
        return Err((
            format!("{net} has host bits set"),
            format!("write {}", net.trunc()),
        ));
    }
    let own: [IpNet; 2] = [pool.v4.into(), pool.v6.into()];
    if own
        .iter()
        .any(|own| own.contains(&net) || net.contains(own))
    {
        let help = "remove it: devices reach the gateway's tunnel address by themselves".to_owned();
        return Err((format!("{net} overlaps the tunnel's own pool"), help));
    }
    Ok(net)
}

fn keepalive(p: &mut Vec<Problem>, raw: Field<String>) -> Option<u16> {
    let raw = raw?;
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
