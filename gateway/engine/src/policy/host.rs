//! Host names of targets, and what they mean.

use super::Answers;
use super::port;
use ipnet::IpNet;
use postern_proto::invitation::GUESTS;
use std::net::IpAddr;

/// Addresses of one name that count; more are left out. So the size of a policy does not depend on
/// who answers for a name.
pub(super) const MAX_ANSWERS: usize = 64;
/// The same for all that a name meant in a time, for those who look back: an index is at most 64
/// times as large. It is gone when they are done.
pub(super) const MAX_ANSWERS_OF_A_TIME: usize = 4096;
/// RFC 1035, section 2.3.4.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// Parses a host name (RFC 1123, section 2.1): lower case, without the dot at its end. Otherwise
/// what is wrong and what to write instead.
pub(super) fn parse(text: &str) -> Result<String, (String, String)> {
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let last_is_number = name
        .rsplit('.')
        .next()
        .is_some_and(|last| last.bytes().all(|c| c.is_ascii_digit()));
    if is_host(&name) && !last_is_number {
        return Ok(name);
    }
    Err((format!("`{text}` is no host name"), instead(text)))
}

/// What `names` mean, at most `most` addresses each, and each once. None that cannot be a target is
/// among them.
pub(super) fn resolved(names: &[String], answers: &Answers, most: usize) -> Vec<IpNet> {
    let answers = names.iter().filter_map(|name| answers.get(name));
    let mut nets: Vec<IpNet> = answers
        .flat_map(|answers| answers.iter().take(most))
        .map(|address| address.to_canonical())
        .filter(can_be_target)
        .map(IpNet::from)
        .collect();
    nets.sort_unstable();
    nets.dedup();
    nets
}

/// Whoever answers for a name must not lead a device to the gateway itself.
fn can_be_target(address: &IpAddr) -> bool {
    let broadcast = matches!(address, IpAddr::V4(v4) if v4.is_broadcast());
    !(address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || broadcast
        || IpNet::from(GUESTS).contains(address))
}

fn is_host(name: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        (1..=MAX_LABEL).contains(&label.len())
            && label.bytes().all(inner)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= MAX_NAME && name.split('.').all(is_label)
}

fn instead(text: &str) -> String {
    let bare = text.split_once("://").map_or(text, |(_, rest)| rest);
    let bare = bare.split('/').next().unwrap_or_default();
    let (host, port) = bare.split_once(':').unwrap_or((bare, ""));
    if text.starts_with('*') {
        "a wildcard has no addresses; name each host".to_owned()
    } else if text.parse::<IpAddr>().is_ok() || text.parse::<IpNet>().is_ok() {
        format!("write `addresses: [{text}]`")
    } else if host != text && is_host(host) {
        let ports =
            port::parse(&format!("{port}/tcp")).map_or("", |_| "; the port stands in `ports`");
        format!("write `{host}`, the name alone{ports}")
    } else if text.contains('_') {
        "a host name has letters, digits, hyphens and dots, and no underscore".to_owned()
    } else if !text.is_ascii() {
        "write it as DNS has it, in ASCII: `xn--…`".to_owned()
    } else {
        "write a name such as `api.example.com`".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_dns_compares_them() {
        for (text, name) in [
            ("api.example.com", "api.example.com"),
            ("API.Example.COM.", "api.example.com"),
            ("db", "db"),
            ("3com.example", "3com.example"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ] {
            assert_eq!(parse(text).unwrap(), name);
        }
    }

    #[test]
    fn what_is_no_host_name_is_refused_with_what_to_write() {
        for (text, help) in [
            (
                "https://api.example.com/v1",
                "write `api.example.com`, the name alone",
            ),
            (
                "api.example.com:443",
                "write `api.example.com`, the name alone; the port stands in `ports`",
            ),
            (
                "*.example.com",
                "a wildcard has no addresses; name each host",
            ),
            ("192.0.2.10", "write `addresses: [192.0.2.10]`"),
            ("10.0.0.0/8", "write `addresses: [10.0.0.0/8]`"),
            (
                "bücher.example",
                "write it as DNS has it, in ASCII: `xn--…`",
            ),
            (
                "my_host.example",
                "a host name has letters, digits, hyphens and dots, and no underscore",
            ),
            ("-a.example", "write a name such as `api.example.com`"),
            ("a..example", "write a name such as `api.example.com`"),
            ("1.2.3", "write a name such as `api.example.com`"),
        ] {
            assert_eq!(
                parse(text),
                Err((format!("`{text}` is no host name"), help.to_owned()))
            );
        }
        let long = [
            "a".repeat(63),
            "b".repeat(63),
            "c".repeat(63),
            "d".repeat(62),
        ]
        .join(".");
        assert!(parse(&long).is_err());
        assert!(parse(&"a".repeat(64)).is_err());
    }

    #[test]
    fn an_answer_leads_nowhere_that_is_no_target() {
        let bad = [
            "0.0.0.0",
            "127.0.0.1",
            "::1",
            "224.0.0.1",
            "255.255.255.255",
            "fd70:6f73:7465:726e::1",
        ];
        let good = [
            "203.0.113.7",
            "::ffff:203.0.113.7",
            "10.0.0.1",
            "2001:db8::7",
        ];
        let all = bad
            .iter()
            .chain(&good)
            .map(|a| a.parse().unwrap())
            .collect();
        let answers = Answers::from([("a".to_owned(), all)]);
        let shown: Vec<String> = resolved(&["a".to_owned()], &answers, MAX_ANSWERS)
            .iter()
            .map(|n| n.to_string())
            .collect();
        assert_eq!(shown, ["10.0.0.1/32", "203.0.113.7/32", "2001:db8::7/128"]);
    }
}
