//! Addresses that a name cannot bring. Whoever answers for a name does not write the policy: what
//! is the gateway's own, or on no network that it forwards to, is refused whatever they say.

use crate::pool::Pool;
use ipnet::IpNet;
use postern_proto::invitation::GUESTS;
use std::net::{IpAddr, Ipv4Addr};

/// Why it cannot be a target; none if it can.
pub(super) fn unfit(address: IpAddr, pool: &Pool) -> Option<&'static str> {
    let own: [IpNet; 2] = [pool.v4.into(), pool.v6.into()];
    if own.iter().any(|net| net.contains(&address)) {
        return Some("inside the tunnel's own pool");
    }
    if IpNet::from(GUESTS).contains(&address) {
        return Some("for devices that have not joined");
    }
    if address.is_loopback() {
        return Some("a loopback address");
    }
    if address.is_multicast() {
        return Some("a multicast address");
    }
    let local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    if local {
        return Some("a link-local address");
    }
    let nobody = match address {
        // RFC 1122, 3.2.1.3: "this network", which includes 0.0.0.0; RFC 1112, 4: class E.
        IpAddr::V4(v4) => v4.octets()[0] == 0 || v4.octets()[0] >= 240 || v4 == Ipv4Addr::BROADCAST,
        IpAddr::V6(v6) => v6.is_unspecified(),
    };
    if nobody {
        return Some("no host's address");
    }
    // It would be another way to write one of the above.
    let wrapped = match address {
        IpAddr::V4(_) => false,
        IpAddr::V6(v6) => v6.to_ipv4_mapped().is_some(),
    };
    wrapped.then_some("an IPv4 address written as IPv6")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_target_can_have_is_refused() {
        let pool = Pool {
            v4: "100.96.0.0/16".parse().expect("net"),
            v6: "fd00:1::/64".parse().expect("net"),
        };
        let unfit = |text: &str| unfit(text.parse().expect("address"), &pool);
        for (text, why) in [
            ("127.0.0.1", "loopback"),
            ("127.9.9.9", "loopback"),
            ("::1", "loopback"),
            ("224.0.0.251", "multicast"),
            ("ff02::fb", "multicast"),
            ("169.254.169.254", "link-local"),
            ("fe80::1", "link-local"),
            ("0.0.0.0", "no host"),
            ("0.1.2.3", "no host"),
            ("255.255.255.255", "no host"),
            ("240.0.0.1", "no host"),
            ("::", "no host"),
            ("100.96.0.1", "pool"),
            ("100.96.200.2", "pool"),
            ("fd00:1::2", "pool"),
            ("fd70:6f73:7465:726e::5", "joined"),
            ("::ffff:127.0.0.1", "written as IPv6"),
        ] {
            assert!(unfit(text).is_some_and(|said| said.contains(why)), "{text}");
        }
        for text in [
            "10.0.0.1",
            "192.0.2.1",
            "198.51.100.7",
            "100.97.0.1",
            "fd00:2::1",
            "2001:db8::1",
        ] {
            assert_eq!(unfit(text), None, "{text}");
        }
    }
}
