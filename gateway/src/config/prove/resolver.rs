//! `resolver`.

use super::super::raw::RawResolver;
use super::super::{MAX_SERVERS, Problem, ResolverConfig};
use super::{line_of, say};
use std::net::{IpAddr, SocketAddr};

/// RFC 1035, 4.2.
const DNS_PORT: u16 = 53;

const HELP: &str = "write an address, with a port if it is not 53: 10.0.0.53, 10.0.0.53:5353, \
                    [2001:db8::53]:53";

pub(super) fn resolver(p: &mut Vec<Problem>, raw: RawResolver) -> ResolverConfig {
    let Some(raw) = raw.servers else {
        return ResolverConfig::default();
    };
    let line = line_of(&raw);
    if !(1..=MAX_SERVERS).contains(&raw.value.len()) {
        let problem = format!("{} servers cannot be", raw.value.len());
        let help = format!("write 1 to {MAX_SERVERS}, or remove the line for the system's");
        say(p, line, "resolver.servers", problem, help);
    }
    let mut servers = Vec::new();
    for (place, one) in raw.value.iter().enumerate() {
        match server(&one.value) {
            Some(server) => servers.push(server),
            None => {
                let problem = format!("'{}' is no address of a server", one.value);
                say(
                    p,
                    line_of(one),
                    &format!("resolver.servers[{place}]"),
                    problem,
                    HELP,
                );
            }
        }
    }
    ResolverConfig { servers }
}

fn server(text: &str) -> Option<SocketAddr> {
    let server = match text.parse::<IpAddr>() {
        Ok(address) => SocketAddr::new(address, DNS_PORT),
        Err(_) => text.parse().ok()?,
    };
    (server.port() != 0 && !server.ip().is_unspecified() && !server.ip().is_multicast())
        .then_some(server)
}
