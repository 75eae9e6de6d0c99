//! Where load may go: only addresses that nobody on the Internet has.

use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

/// The most source addresses of one run.
pub(crate) const MAX_SOURCES: usize = 4096;

/// Loopback, private and link-local, carrier-grade NAT, benchmarks and documentation
/// (RFC 6890, RFC 5737, RFC 2544, RFC 3849).
const LAB: [&str; 15] = [
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "169.254.0.0/16",
    "100.64.0.0/10",
    "198.18.0.0/15",
    "192.0.2.0/24",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "::1/128",
    "fe80::/10",
    "fc00::/7",
    "2001:db8::/32",
    "100::/64",
];

/// Parses an address with a port that is in the lab.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "write ADDRESS:PORT, for instance 203.0.113.2:51820".to_owned())?;
    host(address.ip()).map(|_| address)
}

/// Parses a prefix whose addresses are in the lab.
pub(crate) fn prefix(text: &str) -> Result<IpNet, String> {
    let net: IpNet = text
        .parse()
        .map_err(|_| "write ADDRESS/LENGTH, for instance 10.200.0.0/24".to_owned())?;
    host(net.network()).and(host(net.broadcast())).map(|_| net)
}

/// The addresses that load comes from: those of the prefix that are hosts, or whichever the
/// kernel takes.
pub(crate) fn sources(from: Option<IpNet>) -> Vec<Option<IpAddr>> {
    match from {
        Some(net) => net.hosts().take(MAX_SOURCES).map(Some).collect(),
        None => vec![None],
    }
}

fn host(ip: IpAddr) -> Result<IpAddr, String> {
    let lab = LAB
        .iter()
        .filter_map(|net| net.parse::<IpNet>().ok())
        .any(|net| net.contains(&ip.to_canonical()));
    if lab {
        Ok(ip)
    } else {
        Err(format!(
            "{ip} may be somebody's; load goes to an address that never leaves a lab: loopback, private or documentation"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_a_lab_are_taken() {
        for good in [
            "127.0.0.1:1",
            "10.1.2.3:51820",
            "203.0.113.2:51820",
            "[2001:db8::1]:9",
            "[::1]:1",
        ] {
            assert!(address(good).is_ok(), "{good}");
        }
        for bad in [
            "1.1.1.1:53",
            "203.0.114.1:1",
            "[2606:4700::1]:1",
            "[::ffff:8.8.8.8]:1",
            "host:1",
            "10.0.0.1",
        ] {
            assert!(address(bad).is_err(), "{bad}");
        }
        assert!(prefix("10.0.0.0/8").is_ok());
        assert!(
            prefix("172.16.0.0/11").is_err(),
            "reaches beyond the private block"
        );
    }

    #[test]
    fn sources_are_the_hosts_of_the_prefix_and_bounded() {
        let net = |text: &str| Some(text.parse().expect("net"));
        assert_eq!(sources(net("10.0.0.0/30")).len(), 2);
        assert_eq!(sources(net("10.0.0.0/8")).len(), MAX_SOURCES);
        assert_eq!(sources(None), [None]);
    }
}
