//! What `flow_log.loki` and `flow_log.otlp` have in common: a server, and who we are to it.

use super::super::flow_log::{Auth, PushConfig};
use super::super::raw::Field;
use super::super::{Problem, units};
use super::flow_log::bytes;
use super::{file, line_of, say, within};
use hyper::Uri;
use serde::de::IgnoredAny;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// With its fields and labels beside it a line is up to twice as long on its way, and servers take
/// messages of 4 MiB by default: Loki within itself, collectors from each other.
const BATCH_SIZES: RangeInclusive<u64> = 64 << 10..=2 << 20;

/// What `loki` and `otlp` have in common.
pub(super) struct RawPush {
    pub(super) name: &'static str,
    pub(super) line: u64,
    pub(super) path: &'static str,
    pub(super) example: &'static str,
    pub(super) url: Field<String>,
    pub(super) username: Field<String>,
    pub(super) password: Field<IgnoredAny>,
    pub(super) password_file: Field<String>,
    pub(super) bearer_token: Field<IgnoredAny>,
    pub(super) bearer_token_file: Field<String>,
    /// Whether a file gives headers, which may be credentials.
    pub(super) headers: bool,
    pub(super) insecure: bool,
    pub(super) ca_file: Field<String>,
    pub(super) timeout: Field<String>,
    pub(super) batch_bytes: Field<String>,
    pub(super) batch_age: Field<String>,
}

pub(super) fn push(p: &mut Vec<Problem>, raw: RawPush, folder: &Path) -> Option<PushConfig> {
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
        "1MiB; servers take messages of 4MiB by default, and lines become longer on their way",
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

pub(super) fn is_loopback(url: &Uri) -> bool {
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

/// A pause of at most five minutes.
fn short(
    p: &mut Vec<Problem>,
    field: &str,
    raw: Field<String>,
    default: Duration,
    example: &str,
) -> Duration {
    let longest = Duration::from_secs(300);
    within(p, field, raw, default, example, units::duration, |value| {
        (value > longest).then(|| "is longer than 300s".to_owned())
    })
}
