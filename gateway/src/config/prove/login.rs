//! `login`: whom the gateway believes when it asks who a user is.

use super::super::login::{EmailConfig, EmailTls, LoginConfig, ProviderConfig, UserClaim};
use super::super::raw::{Field, RawEmail, RawLogin, RawProvider};
use super::super::{Problem, units};
use super::push::is_loopback;
use super::{choice, file, line_of, say, within};
use crate::login::address::{Address, Pattern};
use hyper::Uri;
use postern_proto::profile::HostPort;
use serde_saphyr::Spanned;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// More of them nobody could choose from.
const MOST_PROVIDERS: usize = 16;
/// A clock that is further off than this is broken.
const MOST_SKEW: Duration = Duration::from_secs(300);

pub(super) fn login(p: &mut Vec<Problem>, raw: RawLogin, folder: &Path) -> LoginConfig {
    let line = raw.providers.as_ref().map_or(0, line_of);
    let all = raw.providers.map(|raw| raw.value).unwrap_or_default();
    if all.len() > MOST_PROVIDERS {
        let problem = format!("{} are more than {MOST_PROVIDERS}", all.len());
        let help = "remove those that nobody uses";
        say(p, line, "login.providers", problem, help);
    }
    let mut providers: Vec<ProviderConfig> = Vec::new();
    for (place, raw) in all.into_iter().take(MOST_PROVIDERS).enumerate() {
        let line = line_of(&raw);
        let section = format!("login.providers[{place}]");
        let Some(provider) = provider(p, &section, line, raw.value, folder) else {
            continue;
        };
        if providers.iter().any(|other| other.name == provider.name) {
            let problem = format!("'{}' is there twice", provider.name);
            let help = "give each provider a name of its own";
            say(p, line, &format!("{section}.name"), problem, help);
        }
        if providers
            .iter()
            .any(|other| other.issuer == provider.issuer)
        {
            // A subject is issuer and `sub`: two entries could give one subject two names.
            let problem = format!("'{}' is there twice", provider.issuer);
            let help = "write each issuer once";
            say(p, line, &format!("{section}.issuer"), problem, help);
        }
        providers.push(provider);
    }
    LoginConfig {
        providers,
        email: raw.email.and_then(|raw| email(p, raw, folder)),
    }
}

fn provider(
    p: &mut Vec<Problem>,
    section: &str,
    line: u64,
    raw: RawProvider,
    folder: &Path,
) -> Option<ProviderConfig> {
    let field = |name: &str| format!("{section}.{name}");
    if let Some(secret) = &raw.client_secret {
        let problem = "a secret does not belong in this file".into();
        let help = "write it into a file of mode 0600, and here client_secret_file: PATH";
        say(p, line_of(secret), &field("client_secret"), problem, help);
    }
    let name = name(p, &field("name"), line, raw.name);
    let ca_line = raw.ca_file.as_ref().map(line_of);
    let issuer = issuer(p, &field("issuer"), line, raw.issuer);
    if let Some(line) = ca_line
        && issuer
            .as_ref()
            .is_some_and(|url| url.starts_with("http://"))
    {
        let problem = "has no meaning for http://".into();
        let help = "write https:// in issuer, or remove the line";
        say(p, line, &field("ca_file"), problem, help);
    }
    let client_id = required(p, &field("client_id"), line, raw.client_id, "postern");
    let mut path = |name: &str, raw: Field<String>| {
        raw.map(|raw| file(p, &field(name), Some(raw), folder, ""))
    };
    let client_secret_file = path("client_secret_file", raw.client_secret_file);
    let ca_file = path("ca_file", raw.ca_file);
    let claims = [
        ("email", UserClaim::Email),
        ("preferred_username", UserClaim::PreferredUsername),
        ("sub", UserClaim::Sub),
    ];
    let user_claim = choice(p, &field("user_claim"), raw.user_claim, &claims);
    let groups_claim = raw
        .groups_claim
        .and_then(|raw| word(p, &field("groups_claim"), &raw, "groups"));
    let scopes = scopes(p, &field("scopes"), raw.scopes);
    let clock_skew = match raw.clock_skew {
        Some(raw) if raw.value == "0s" => Duration::ZERO,
        raw => within(
            p,
            &field("clock_skew"),
            raw,
            Duration::from_secs(60),
            "60s",
            units::duration,
            |skew| (skew > MOST_SKEW).then(|| "is longer than 300s".to_owned()),
        ),
    };
    Some(ProviderConfig {
        name: name?,
        issuer: issuer?,
        client_id: client_id?,
        client_secret_file,
        user_claim,
        groups_claim,
        scopes,
        ca_file,
        clock_skew,
    })
}

fn name(p: &mut Vec<Problem>, field: &str, line: u64, raw: Field<String>) -> Option<String> {
    let Some(raw) = raw else {
        say(
            p,
            line,
            field,
            "is missing".into(),
            "write for example corp",
        );
        return None;
    };
    let line = line_of(&raw);
    let fits = (1..=32).contains(&raw.value.len())
        && raw
            .value
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if !fits {
        let problem = format!("'{}' is no name", raw.value.escape_debug());
        let help = "write 1 to 32 of a-z 0-9 - such as corp";
        say(p, line, field, problem, help);
        return None;
    }
    if raw.value == "email" {
        let problem = "'email' is what codes by e-mail are called".into();
        say(p, line, field, problem, "choose another name");
        return None;
    }
    Some(raw.value)
}

fn issuer(p: &mut Vec<Problem>, field: &str, line: u64, raw: Field<String>) -> Option<String> {
    let help = "write it letter by letter as the provider says it, such as https://idp.example.com";
    let Some(raw) = raw else {
        say(p, line, field, "is missing".into(), help);
        return None;
    };
    let line = line_of(&raw);
    if raw.value.contains('@') {
        // Not shown: what stands before the @ is a secret.
        let problem = "a name or password does not belong in an address".into();
        say(p, line, field, problem, "remove what stands before the @");
        return None;
    }
    let url = raw.value.parse::<Uri>().ok().filter(|url| {
        matches!(url.scheme_str(), Some("http" | "https"))
            && url.host().is_some_and(|host| !host.is_empty())
            && url.query().is_none()
            && !raw.value.contains('#')
    });
    let Some(url) = url else {
        let problem = format!("'{}' is no issuer", raw.value.escape_debug());
        say(p, line, field, problem, help);
        return None;
    };
    if url.scheme_str() == Some("http") && !is_loopback(&url) {
        let problem = "whoever is on the way could say who is who".into();
        let help = "write https://; http:// is for an issuer on this machine";
        say(p, line, field, problem, help);
        return None;
    }
    Some(raw.value)
}

fn scopes(p: &mut Vec<Problem>, field: &str, raw: Field<Vec<String>>) -> Vec<String> {
    let default = ["openid", "email", "profile"].map(str::to_owned).to_vec();
    let Some(raw) = raw else { return default };
    // RFC 6749, section 3.3.
    let is_scope = |text: &String| {
        (1..=128).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\')
    };
    let line = line_of(&raw);
    if let Some(bad) = raw.value.iter().find(|text| !is_scope(text)) {
        let problem = format!("'{}' is no scope", bad.escape_debug());
        let help = "write for example [openid, email, profile]";
        say(p, line, field, problem, help);
        return default;
    }
    if !raw.value.iter().any(|scope| scope == "openid") {
        let problem = "openid is missing, and without it nobody says who the user is".into();
        let help = "write for example [openid, email, profile]";
        say(p, line, field, problem, help);
        return default;
    }
    if raw.value.len() > 32 {
        let problem = format!("{} are more than 32", raw.value.len());
        say(p, line, field, problem, "ask for what is needed");
        return default;
    }
    raw.value
}

fn email(p: &mut Vec<Problem>, raw: Spanned<RawEmail>, folder: &Path) -> Option<EmailConfig> {
    let field = |name: &str| format!("login.email.{name}");
    let (line, raw) = (line_of(&raw), raw.value);
    if let Some(password) = &raw.password {
        let problem = "a secret does not belong in this file".into();
        let help = "write it into a file of mode 0600, and here password_file: PATH";
        say(p, line_of(password), &field("password"), problem, help);
    }
    let server = server(p, &field("server"), line, raw.server);
    let tls_line = raw.tls.as_ref().map_or(line, line_of);
    let ways = [
        ("starttls", EmailTls::StartTls),
        ("tls", EmailTls::Tls),
        ("none", EmailTls::None),
    ];
    let tls = choice(p, &field("tls"), raw.tls, &ways);
    if tls == EmailTls::None && server.as_ref().is_some_and(|(host, _)| !is_here(host)) {
        let problem = "codes would travel in clear text".into();
        let help = "write starttls or tls; none is for a server on this machine, such as 127.0.0.1";
        say(p, tls_line, &field("tls"), problem, help);
    }
    if let Some(ca) = raw.ca_file.as_ref().filter(|_| tls == EmailTls::None) {
        let problem = "has no meaning with tls: none".into();
        say(
            p,
            line_of(ca),
            &field("ca_file"),
            problem,
            "remove the line",
        );
    }
    let name_line = raw.username.as_ref().map_or(line, line_of);
    let mut path = |name: &str, raw: Field<String>| {
        raw.map(|raw| file(p, &field(name), Some(raw), folder, ""))
    };
    let password_file = path("password_file", raw.password_file);
    let ca_file = path("ca_file", raw.ca_file);
    let credentials = match (raw.username, password_file) {
        (None, None) => None,
        (Some(name), Some(file)) => word(p, &field("username"), &name, "postern").zip(Some(file)),
        (Some(_), None) => {
            let help = "write password_file: PATH beside it";
            say(
                p,
                name_line,
                &field("username"),
                "has no password".into(),
                help,
            );
            None
        }
        (None, Some(_)) => {
            let help = "write username: NAME beside it";
            say(
                p,
                name_line,
                &field("password_file"),
                "has no username".into(),
                help,
            );
            None
        }
    };
    let from = address(p, &field("from"), line, raw.from);
    let allow = allow(p, &field("allow"), line, raw.allow);
    let (host, port) = server?;
    Some(EmailConfig {
        host,
        port,
        tls,
        credentials,
        ca_file,
        from: from?,
        allow,
    })
}

fn server(
    p: &mut Vec<Problem>,
    field: &str,
    line: u64,
    raw: Field<String>,
) -> Option<(String, u16)> {
    let help = "write for example smtp.example.com:587";
    let Some(raw) = raw else {
        say(p, line, field, "is missing".into(), help);
        return None;
    };
    let Ok(server) = raw.value.parse::<HostPort>() else {
        let problem = format!("'{}' is not HOST:PORT", raw.value.escape_debug());
        say(p, line_of(&raw), field, problem, help);
        return None;
    };
    Some((server.host.to_string(), server.port))
}

fn is_here(host: &str) -> bool {
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

fn address(p: &mut Vec<Problem>, field: &str, line: u64, raw: Field<String>) -> Option<Address> {
    let help = "write for example postern@example.com";
    let Some(raw) = raw else {
        say(p, line, field, "is missing".into(), help);
        return None;
    };
    let address = Address::parse(&raw.value);
    if address.is_none() {
        let problem = format!("'{}' is no address", raw.value.escape_debug());
        say(p, line_of(&raw), field, problem, help);
    }
    address
}

fn allow(
    p: &mut Vec<Problem>,
    field: &str,
    line: u64,
    raw: Field<Vec<Spanned<String>>>,
) -> Vec<Pattern> {
    let help = "write for example [\"*@example.com\"], or single addresses";
    let Some(raw) = raw.filter(|raw| !raw.value.is_empty()) else {
        let problem = "nobody may log in".into();
        say(p, line, field, problem, help);
        return Vec::new();
    };
    let mut all = Vec::new();
    for (place, item) in raw.value.iter().enumerate() {
        match Pattern::parse(&item.value) {
            Some(pattern) => all.push(pattern),
            None => {
                let problem = format!("'{}' is no address", item.value.escape_debug());
                say(
                    p,
                    line_of(item),
                    &format!("{field}[{place}]"),
                    problem,
                    help,
                );
            }
        }
    }
    all
}

fn required(
    p: &mut Vec<Problem>,
    field: &str,
    line: u64,
    raw: Field<String>,
    example: &str,
) -> Option<String> {
    let Some(raw) = raw else {
        let help = format!("write for example {example}");
        say(p, line, field, "is missing".into(), help);
        return None;
    };
    word(p, field, &raw, example)
}

/// Printable, without white space at its ends, at most 254 bytes.
fn word(p: &mut Vec<Problem>, field: &str, raw: &Spanned<String>, example: &str) -> Option<String> {
    let text = &raw.value;
    let fits = (1..=254).contains(&text.len())
        && text.trim() == text
        && !text.chars().any(char::is_control);
    if fits {
        return Some(text.clone());
    }
    let problem = format!("'{}' is no name", text.escape_debug());
    let help = format!("write for example {example}");
    say(p, line_of(raw), field, problem, help);
    None
}
