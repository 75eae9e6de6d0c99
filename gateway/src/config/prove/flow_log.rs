//! The section `flow_log`.

use super::super::flow_log::{
    Auth, FileConfig, FlowLogConfig, Hints, LokiConfig, LokiFormat, OtlpConfig, Privacy,
    PushConfig, Sync, Treatment,
};
use super::super::raw::{Field, RawFlowLog, RawLoki, RawOtlp, RawPrivacy};
use super::super::{Problem, units};
use super::{choice, file, line_of, number, parsed, say};
use hyper::Uri;
use serde_saphyr::Spanned;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A power cut takes no more than this.
const LONGEST_SYNC: Duration = Duration::from_secs(60);
const SEGMENT_SIZES: RangeInclusive<u64> = 128 << 10..=4 << 30;
const BATCH_SIZES: RangeInclusive<u64> = 64 << 10..=16 << 20;

pub(super) fn flow_log(
    p: &mut Vec<Problem>,
    raw: RawFlowLog,
    folder: &Path,
    data_dir: &Path,
) -> FlowLogConfig {
    let default = FlowLogConfig::at(match raw.dir {
        Some(dir) => file(p, "flow_log.dir", Some(dir), folder, "flows"),
        None => data_dir.join("flows"),
    });
    let segment_size = bytes(
        p,
        "flow_log.segment_size",
        raw.segment_size,
        default.segment_size,
        "64MiB",
        SEGMENT_SIZES,
    );
    let keep_line = raw.keep_size.as_ref().map_or(0, line_of);
    let keep_size = parsed(
        p,
        "flow_log.keep_size",
        raw.keep_size,
        default.keep_size,
        "10GiB",
        units::size,
    );
    if keep_size < segment_size.saturating_mul(2) {
        let problem = "holds less than two segments of flow_log.segment_size".into();
        let help = "write more, such as 10GiB, or a smaller segment_size";
        say(p, keep_line, "flow_log.keep_size", problem, help);
    }
    FlowLogConfig {
        sync: sync(p, raw.sync, default.sync),
        segment_size,
        keep_size,
        keep_age: parsed(
            p,
            "flow_log.keep_age",
            raw.keep_age,
            default.keep_age,
            "90d",
            units::duration,
        ),
        privacy: privacy(p, raw.privacy.unwrap_or_default()),
        stdout: raw.stdout.unwrap_or(false),
        file: rotated(
            p,
            folder,
            &default.dir,
            raw.file,
            (raw.max_size, raw.max_age, raw.max_files),
        ),
        loki: raw.loki.and_then(|raw| loki(p, raw, folder)),
        otlp: raw.otlp.and_then(|raw| otlp(p, raw, folder)),
        dir: default.dir,
    }
}

fn sync(p: &mut Vec<Problem>, raw: Field<String>, default: Sync) -> Sync {
    let Some(raw) = raw else { return default };
    if raw.value == "always" {
        return Sync::Always;
    }
    match units::duration(&raw.value) {
        Ok(pause) if !pause.is_zero() && pause <= LONGEST_SYNC => return Sync::Every(pause),
        Ok(_) | Err(_) => {}
    }
    let problem = format!("'{}' is no pause of 1ms to 60s", raw.value);
    let help = "write for example 250ms, or always";
    say(p, line_of(&raw), "flow_log.sync", problem, help);
    default
}

fn privacy(p: &mut Vec<Problem>, raw: RawPrivacy) -> Privacy {
    const TREATMENTS: [(&str, Treatment); 3] = [
        ("keep", Treatment::Keep),
        ("hash", Treatment::Hash),
        ("drop", Treatment::Drop),
    ];
    const HINTS: [(&str, Hints); 2] = [("keep", Hints::Keep), ("drop", Hints::Drop)];
    Privacy {
        user: choice(p, "flow_log.privacy.user", raw.user, &TREATMENTS),
        device: choice(p, "flow_log.privacy.device", raw.device, &TREATMENTS),
        outer_address: choice(
            p,
            "flow_log.privacy.outer_address",
            raw.outer_address,
            &TREATMENTS,
        ),
        hints: choice(p, "flow_log.privacy.hints", raw.hints, &HINTS),
    }
}

fn rotated(
    p: &mut Vec<Problem>,
    folder: &Path,
    dir: &Path,
    path: Field<String>,
    (max_size, max_age, max_files): (Field<String>, Field<String>, Field<i64>),
) -> Option<FileConfig> {
    let Some(raw) = path.filter(|path| path.value != "none") else {
        let bounds = [
            ("flow_log.max_size", max_size.as_ref().map(line_of)),
            ("flow_log.max_age", max_age.as_ref().map(line_of)),
            ("flow_log.max_files", max_files.as_ref().map(line_of)),
        ];
        for (field, line) in bounds {
            let Some(line) = line else { continue };
            let help = "write `file: PATH` beside it; keep_size and keep_age bound the spool";
            say(
                p,
                line,
                field,
                "bounds a file, and there is none".into(),
                help,
            );
        }
        return None;
    };
    let line = line_of(&raw);
    let path = file(p, "flow_log.file", Some(raw), folder, "flows.jsonl");
    if path.starts_with(dir) {
        let problem = format!("{} is in the spool's folder", path.display());
        let help = "write a path outside flow_log.dir, such as data/flows.jsonl";
        say(p, line, "flow_log.file", problem, help);
    }
    let default = FileConfig::at(path);
    Some(FileConfig {
        max_size: parsed(
            p,
            "flow_log.max_size",
            max_size,
            default.max_size,
            "64MiB",
            units::size,
        ),
        max_age: parsed(
            p,
            "flow_log.max_age",
            max_age,
            default.max_age,
            "24h",
            units::duration,
        ),
        max_files: number(
            p,
            "flow_log.max_files",
            max_files,
            default.max_files,
            1..=10_000,
        ),
        path: default.path,
    })
}

fn loki(p: &mut Vec<Problem>, raw: Spanned<RawLoki>, folder: &Path) -> Option<LokiConfig> {
    let line = line_of(&raw);
    let raw = raw.value;
    let push = push(
        p,
        RawPush {
            name: "flow_log.loki",
            line,
            path: "/loki/api/v1/push",
            example: "https://loki.example.com:3100",
            url: raw.url,
            username: raw.username,
            password: raw.password,
            password_file: raw.password_file,
            bearer_token: raw.bearer_token,
            bearer_token_file: raw.bearer_token_file,
            headers: false,
            insecure: raw.insecure.unwrap_or(false),
            ca_file: raw.ca_file,
            timeout: raw.timeout,
            batch_bytes: raw.batch_bytes,
            batch_age: raw.batch_age,
        },
        folder,
    );
    let tenant = tenant(p, raw.tenant);
    let formats = [
        ("protobuf", LokiFormat::Protobuf),
        ("json", LokiFormat::Json),
    ];
    let format = choice(p, "flow_log.loki.format", raw.format, &formats);
    push.map(|push| LokiConfig {
        push,
        tenant,
        format,
    })
}

fn otlp(p: &mut Vec<Problem>, raw: Spanned<RawOtlp>, folder: &Path) -> Option<OtlpConfig> {
    let line = line_of(&raw);
    let raw = raw.value;
    let headers_file = raw
        .headers_file
        .map(|path| file(p, "flow_log.otlp.headers_file", Some(path), folder, ""));
    let push = push(
        p,
        RawPush {
            name: "flow_log.otlp",
            line,
            path: "/v1/logs",
            example: "https://collector.example.com:4318",
            url: raw.url,
            username: None,
            password: None,
            password_file: None,
            bearer_token: raw.bearer_token,
            bearer_token_file: raw.bearer_token_file,
            headers: headers_file.is_some(),
            insecure: raw.insecure.unwrap_or(false),
            ca_file: raw.ca_file,
            timeout: raw.timeout,
            batch_bytes: raw.batch_bytes,
            batch_age: raw.batch_age,
        },
        folder,
    );
    push.map(|push| OtlpConfig { push, headers_file })
}

/// What `loki` and `otlp` have in common.
struct RawPush {
    name: &'static str,
    line: u64,
    path: &'static str,
    example: &'static str,
    url: Field<String>,
    username: Field<String>,
    password: Field<serde::de::IgnoredAny>,
    password_file: Field<String>,
    bearer_token: Field<serde::de::IgnoredAny>,
    bearer_token_file: Field<String>,
    /// Whether a file gives headers, which may be credentials.
    headers: bool,
    insecure: bool,
    ca_file: Field<String>,
    timeout: Field<String>,
    batch_bytes: Field<String>,
    batch_age: Field<String>,
}

fn push(p: &mut Vec<Problem>, raw: RawPush, folder: &Path) -> Option<PushConfig> {
    let field = |field: &str| format!("{}.{field}", raw.name);
    let inline = [
        ("password", raw.password.as_ref().map(line_of)),
        ("bearer_token", raw.bearer_token.as_ref().map(line_of)),
    ];
    for (name, line) in inline {
        let Some(line) = line else { continue };
        let help = format!("write it into a file of mode 0600, and here {name}_file: PATH");
        let problem = "a secret does not belong in this file".into();
        say(p, line, &field(name), problem, help);
    }
    let url_line = raw.url.as_ref().map_or(raw.line, line_of);
    let has_ca = raw.ca_file.as_ref().map(line_of);
    let url = url(p, &field("url"), raw.url, url_line, raw.path, raw.example);
    let mut path_of = |name: &str, raw: Field<String>| -> Option<PathBuf> {
        raw.map(|raw| file(p, &field(name), Some(raw), folder, ""))
    };
    let username = raw.username;
    let password_file = path_of("password_file", raw.password_file);
    let token_file = path_of("bearer_token_file", raw.bearer_token_file);
    let ca_file = path_of("ca_file", raw.ca_file);
    let auth = auth(p, raw.name, url_line, username, password_file, token_file);

    let plain = url
        .as_ref()
        .is_some_and(|url| url.scheme_str() == Some("http"));
    let far = url.as_ref().is_some_and(|url| !is_loopback(url));
    if plain && far && !raw.insecure && (auth != Auth::None || raw.headers) {
        let problem = "credentials would travel in clear text".into();
        let help = "write https://, or `insecure: true` where the network itself is trusted";
        say(p, url_line, &field("url"), problem, help);
    }
    if let Some(line) = has_ca.filter(|_| plain) {
        let problem = "has no meaning for http://".into();
        say(
            p,
            line,
            &field("ca_file"),
            problem,
            "write https:// in url, or remove the line",
        );
    }
    let default = PushConfig::at(url.clone().unwrap_or_default());
    let batch_bytes = bytes(
        p,
        &field("batch_bytes"),
        raw.batch_bytes,
        1 << 20,
        "1MiB",
        BATCH_SIZES,
    );
    let push = PushConfig {
        auth,
        ca_file,
        timeout: short(p, &field("timeout"), raw.timeout, default.timeout, "10s"),
        batch_bytes: usize::try_from(batch_bytes).unwrap_or(default.batch_bytes),
        batch_age: short(
            p,
            &field("batch_age"),
            raw.batch_age,
            default.batch_age,
            "1s",
        ),
        url: default.url,
    };
    url.map(|_| push)
}

fn url(
    p: &mut Vec<Problem>,
    field: &str,
    raw: Field<String>,
    line: u64,
    path: &str,
    example: &str,
) -> Option<Uri> {
    let help = format!("write for example {example}");
    let Some(raw) = raw else {
        say(p, line, field, "is missing".into(), help);
        return None;
    };
    if raw.value.contains('@') {
        // Not shown: what stands before the @ is a secret.
        let problem = "a name or password does not belong in an address".into();
        let help = "remove what stands before the @, and use the fields for credentials";
        say(p, line, field, problem, help);
        return None;
    }
    let uri = raw.value.parse::<Uri>().ok().filter(|uri| {
        matches!(uri.scheme_str(), Some("http" | "https"))
            && uri.host().is_some_and(|host| !host.is_empty())
    });
    let Some(uri) = uri else {
        let problem = format!("'{}' is no address of a server", raw.value.escape_debug());
        say(p, line, field, problem, help);
        return None;
    };
    if uri.path() != "/" || uri.query().is_some() {
        return Some(uri);
    }
    let mut parts = uri.into_parts();
    parts.path_and_query = path.parse().ok();
    Uri::from_parts(parts).ok()
}

fn is_loopback(url: &Uri) -> bool {
    let host = url.host().unwrap_or_default();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || bare
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn auth(
    p: &mut Vec<Problem>,
    section: &str,
    line: u64,
    username: Field<String>,
    password_file: Option<PathBuf>,
    token_file: Option<PathBuf>,
) -> Auth {
    let line = username.as_ref().map_or(line, line_of);
    match (username, password_file, token_file) {
        (None, None, None) => Auth::None,
        (Some(name), Some(password_file), None) => {
            if name.value.is_empty() || name.value.contains([':', '\r', '\n']) {
                let problem = "a name has no colon and is not empty".into();
                let help = "write the name that the server knows";
                say(p, line, &format!("{section}.username"), problem, help);
            }
            Auth::Basic {
                username: name.value,
                password_file,
            }
        }
        (None, None, Some(token_file)) => Auth::Bearer { token_file },
        (_, _, Some(_)) => {
            let problem = "stands beside a username or password_file".into();
            let field = format!("{section}.bearer_token_file");
            say(
                p,
                line,
                &field,
                problem,
                "write the one that the server wants",
            );
            Auth::None
        }
        (Some(_), None, None) => {
            let problem = "has no password".into();
            let field = format!("{section}.username");
            say(
                p,
                line,
                &field,
                problem,
                "write password_file: PATH beside it",
            );
            Auth::None
        }
        (None, Some(_), None) => {
            let problem = "has no username".into();
            let field = format!("{section}.password_file");
            say(p, line, &field, problem, "write username: NAME beside it");
            Auth::None
        }
    }
}

/// Loki's own rule: letters, digits and `!-_.*'()`, at most 150, neither `.` nor `..`.
fn tenant(p: &mut Vec<Problem>, raw: Field<String>) -> Option<String> {
    let raw = raw?;
    let fits = (1..=150).contains(&raw.value.len())
        && raw
            .value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!-_.*'()".contains(&b))
        && !matches!(raw.value.as_str(), "." | "..");
    if !fits {
        let problem = format!("'{}' is no tenant", raw.value.escape_debug());
        let help = "write 1 to 150 of A-Z a-z 0-9 ! - _ . * ' ( ) such as team-a";
        say(p, line_of(&raw), "flow_log.loki.tenant", problem, help);
    }
    Some(raw.value)
}

fn bytes(
    p: &mut Vec<Problem>,
    field: &str,
    raw: Field<String>,
    default: u64,
    example: &str,
    range: RangeInclusive<u64>,
) -> u64 {
    let line = raw.as_ref().map_or(0, line_of);
    let value = parsed(p, field, raw, default, example, units::size);
    if !range.contains(&value) {
        let (least, most) = (range.start() >> 10, range.end() >> 20);
        let problem = format!("is outside {least}KiB to {most}MiB");
        say(
            p,
            line,
            field,
            problem,
            format!("write for example {example}"),
        );
        return default;
    }
    value
}

/// A pause of at most five minutes.
fn short(
    p: &mut Vec<Problem>,
    field: &str,
    raw: Field<String>,
    default: Duration,
    example: &str,
) -> Duration {
    let longest = Duration::from_secs(300);
    let line = raw.as_ref().map_or(0, line_of);
    let value = parsed(p, field, raw, default, example, units::duration);
    if value > longest {
        let problem = "is longer than 300s".into();
        say(
            p,
            line,
            field,
            problem,
            format!("write for example {example}"),
        );
        return default;
    }
    value
}
