//! A set of prefixes that is asked once for each packet.

use ipnet::IpNet;
use std::net::IpAddr;

/// Addresses as sorted, disjoint ranges: a look-up is one binary search however long the list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefixes {
    v4: Vec<(u32, u32)>,
    v6: Vec<(u128, u128)>,
}

impl Prefixes {
    /// The addresses of all `prefixes` together.
    #[must_use]
    pub fn new<'a>(prefixes: impl IntoIterator<Item = &'a IpNet>) -> Prefixes {
        let mut set = Prefixes::default();
        for prefix in prefixes {
            match prefix {
                IpNet::V4(net) => set
                    .v4
                    .push((net.network().to_bits(), net.broadcast().to_bits())),
                IpNet::V6(net) => set
                    .v6
                    .push((net.network().to_bits(), net.broadcast().to_bits())),
            }
        }
        disjoint(&mut set.v4);
        disjoint(&mut set.v6);
        set
    }

    /// Whether the address is in one of them.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(v4) => holds(&self.v4, v4.to_bits()),
            IpAddr::V6(v6) => holds(&self.v6, v6.to_bits()),
        }
    }
}

fn disjoint<T: Ord + Copy>(ranges: &mut Vec<(T, T)>) {
    ranges.sort_unstable();
    let mut kept: Vec<(T, T)> = Vec::with_capacity(ranges.len());
    for &(first, last) in ranges.iter() {
        match kept.last_mut() {
            Some(before) if first <= before.1 => before.1 = before.1.max(last),
            Some(_) | None => kept.push((first, last)),
        }
    }
    *ranges = kept;
}

fn holds<T: Ord + Copy>(ranges: &[(T, T)], address: T) -> bool {
    let after = ranges.partition_point(|&(first, _)| first <= address);
    after
        .checked_sub(1)
        .and_then(|place| ranges.get(place))
        .is_some_and(|range| address <= range.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_set_answers_as_asking_each_prefix_would() {
        let nets: Vec<IpNet> = [
            "10.0.0.0/8",
            "10.1.0.0/16",
            "192.0.2.10/32",
            "192.0.2.11/32",
            "2001:db8::/64",
        ]
        .map(|text| text.parse().expect("a prefix"))
        .to_vec();
        let set = Prefixes::new(&nets);
        for text in [
            "9.255.255.255",
            "10.0.0.0",
            "10.1.2.3",
            "10.255.255.255",
            "11.0.0.0",
            "192.0.2.9",
            "192.0.2.10",
            "192.0.2.11",
            "192.0.2.12",
            "0.0.0.0",
            "255.255.255.255",
            "2001:db8::",
            "2001:db8::ffff:ffff:ffff:ffff",
            "2001:db8:0:1::",
            "::",
            "::ffff:10.0.0.1",
        ] {
            let address: IpAddr = text.parse().expect("an address");
            assert_eq!(
                set.contains(address),
                nets.iter().any(|net| net.contains(&address)),
                "{text}"
            );
        }
        assert!(!Prefixes::default().contains(IpAddr::from([10, 0, 0, 1])));
    }
}
