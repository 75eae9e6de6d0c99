//! Addresses and prefixes of a target.

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use postern_proto::invitation::GUESTS;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A set of addresses as disjoint, sorted ranges: membership costs a binary search.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct AddressSet {
    written: Vec<IpNet>,
    v4: Vec<(Ipv4Addr, Ipv4Addr)>,
    v6: Vec<(Ipv6Addr, Ipv6Addr)>,
}

impl AddressSet {
    pub(super) fn new(written: Vec<IpNet>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for net in IpNet::aggregate(&written) {
            match net {
                IpNet::V4(net) => v4.push((net.network(), net.broadcast())),
                IpNet::V6(net) => v6.push((net.network(), net.broadcast())),
            }
        }
        v4.sort_unstable();
        v6.sort_unstable();
        AddressSet { written, v4, v6 }
    }

    /// Every address of both families.
    pub(super) fn anything() -> Self {
        AddressSet::new(vec![Ipv4Net::default().into(), Ipv6Net::default().into()])
    }

    pub(super) fn is_anything(&self) -> bool {
        let all = AddressSet::anything();
        self.v4 == all.v4 && self.v6 == all.v6
    }

    /// The prefixes as the file has them.
    pub(super) fn written(&self) -> &[IpNet] {
        &self.written
    }

    /// `address` is canonical: IPv4-mapped ones are IPv4.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => within(&self.v4, a),
            IpAddr::V6(a) => within(&self.v6, a),
        }
    }
}

fn within<A: Ord + Copy>(ranges: &[(A, A)], a: A) -> bool {
    let after = ranges.partition_point(|(low, _)| *low <= a);
    after > 0 && a <= ranges[after - 1].1
}

/// As people write it: a prefix that is one host has no length.
#[derive(PartialEq, Eq)]
pub(super) struct Shown(pub(super) IpNet);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() {
            self.0.addr().fmt(f)
        } else {
            self.0.fmt(f)
        }
    }
}

/// Parses an address or a prefix; otherwise what is wrong and what to write instead.
pub(super) fn parse(text: &str) -> Result<IpNet, (String, String)> {
    let net = match (text.parse::<IpAddr>(), text.parse::<IpNet>()) {
        (Ok(host), _) => IpNet::from(host),
        (_, Ok(net)) => net,
        (Err(_), Err(_)) => return Err(not_an_address(text)),
    };
    if let IpNet::V6(v6) = net
        && let Some(v4) = v6.addr().to_ipv4_mapped()
    {
        let instead = v6
            .prefix_len()
            .checked_sub(96)
            .and_then(|len| Ipv4Net::new(v4, len).ok());
        let instead = instead.map_or(v4.to_string(), |net| Shown(net.into()).to_string());
        let what = format!("`{text}` is an IPv4 address written as IPv6");
        return Err((what, format!("write `{instead}`")));
    }
    if net.trunc() != net {
        let what = format!("`{text}` has bits set beyond the prefix");
        let (whole, host) = (net.trunc(), net.addr());
        return Err((
            what,
            format!("write `{whole}` for the whole network or `{host}` for the one host"),
        ));
    }
    if IpNet::from(GUESTS).contains(&net) {
        let what = format!("`{text}` lies in {GUESTS}, which is for devices that have not joined");
        let help = "nothing there is ever reached; take it out, or write the target's own address";
        return Err((what, help.to_owned()));
    }
    Ok(net)
}

fn not_an_address(text: &str) -> (String, String) {
    let what = format!("`{text}` is neither an address nor a prefix");
    let host_of_port = text
        .rsplit_once(':')
        .map(|(host, _)| host.trim_matches(['[', ']']));
    let help = if host_of_port.is_some_and(|host| host.parse::<IpAddr>().is_ok()) {
        "the port stands in `ports`; write the address alone".to_owned()
    } else if text.contains('-') && text.starts_with(|c: char| c.is_ascii_digit()) {
        "write a prefix, such as `10.0.8.0/24`; a range of addresses is not known".to_owned()
    } else if text.starts_with(|c: char| c.is_ascii_alphabetic()) && !text.contains(':') {
        format!("write `names: [{text}]` for a host name")
    } else {
        "write an address such as `192.0.2.10` or `2001:db8::10`, or a prefix such as `10.0.8.0/24`"
            .to_owned()
    };
    (what, help)
}

/// The prefixes in few words, sorted: no duplicates, neighbours joined, and no default route.
pub(super) fn route_list(mut nets: Vec<IpNet>) -> Vec<IpNet> {
    nets.retain(|net| net.prefix_len() > 0);
    let mut nets = IpNet::aggregate(&nets);
    nets.retain(|net| net.prefix_len() > 0);
    nets.sort_unstable();
    nets
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(list: &[&str]) -> Vec<IpNet> {
        list.iter().map(|n| parse(n).unwrap()).collect()
    }

    #[test]
    fn membership_holds_at_the_edges() {
        let set = AddressSet::new(nets(&["10.0.0.0/30", "10.0.0.8", "2001:db8::/64"]));
        for inside in [
            "10.0.0.0",
            "10.0.0.3",
            "10.0.0.8",
            "2001:db8::",
            "2001:db8::ffff",
        ] {
            assert!(set.contains(inside.parse().unwrap()), "{inside}");
        }
        for outside in [
            "9.255.255.255",
            "10.0.0.4",
            "10.0.0.7",
            "10.0.0.9",
            "2001:db8:0:1::",
        ] {
            assert!(!set.contains(outside.parse().unwrap()), "{outside}");
        }
    }

    #[test]
    fn anything_is_both_families() {
        let set = AddressSet::anything();
        assert!(set.contains("255.255.255.255".parse().unwrap()));
        assert!(set.contains("::".parse().unwrap()));
    }

    #[test]
    fn the_route_list_never_holds_a_default_route() {
        let all = [
            "0.0.0.0/0",
            "10.0.0.1",
            "10.0.0.0",
            "10.0.0.1",
            "2001:db8::/32",
            "::/0",
        ];
        assert_eq!(
            route_list(nets(&all)),
            nets(&["10.0.0.0/31", "2001:db8::/32"])
        );
        assert_eq!(route_list(nets(&["0.0.0.0/1", "128.0.0.0/1"])), nets(&[]));
    }
}
