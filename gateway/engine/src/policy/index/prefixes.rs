//! Which prefixes cover an address: one look-up for each length that some prefix has. Policies have
//! few lengths, and a look-up touches one place in memory where a tree touches one for each branch.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnet::IpNet;
use std::hash::Hash;
use std::net::IpAddr;

/// A prefix of one index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PrefixId(pub(super) u32);

/// The prefixes of both families, each once.
#[derive(Default)]
pub(super) struct Prefixes {
    v4: Family<u32>,
    v6: Family<u128>,
    count: u32,
}

/// For every length, shortest first, the prefixes of it.
type Family<A> = Vec<(u8, HashMap<A, PrefixId, FixedState>)>;

impl Prefixes {
    /// The number of a prefix; a new one, if it has none.
    pub(super) fn intern(&mut self, net: &IpNet) -> PrefixId {
        let new = PrefixId(self.count);
        let len = net.prefix_len();
        let id = match net.network() {
            IpAddr::V4(at) => intern(&mut self.v4, at.to_bits(), len, new),
            IpAddr::V6(at) => intern(&mut self.v6, at.to_bits(), len, new),
        };
        self.count += u32::from(id == new);
        id
    }

    /// Calls `visit` for every prefix that holds an address, shortest first.
    pub(super) fn each_covering(&self, address: IpAddr, visit: impl FnMut(PrefixId)) {
        match address {
            IpAddr::V4(at) => covering(&self.v4, at.to_bits(), 32).for_each(visit),
            IpAddr::V6(at) => covering(&self.v6, at.to_bits(), 128).for_each(visit),
        }
    }

    /// The prefixes that hold all of `net`, shortest first.
    pub(super) fn covering(&self, net: &IpNet) -> impl Iterator<Item = PrefixId> {
        let len = net.prefix_len();
        let (v4, v6) = match net.network() {
            IpAddr::V4(at) => (Some(covering(&self.v4, at.to_bits(), len)), None),
            IpAddr::V6(at) => (None, Some(covering(&self.v6, at.to_bits(), len))),
        };
        v4.into_iter().flatten().chain(v6.into_iter().flatten())
    }
}

fn intern<A: Bits>(family: &mut Family<A>, at: A, len: u8, new: PrefixId) -> PrefixId {
    let place = match family.binary_search_by_key(&len, |(len, _)| *len) {
        Ok(place) => place,
        Err(place) => {
            family.insert(place, (len, HashMap::default()));
            place
        }
    };
    *family[place].1.entry(at).or_insert(new)
}

fn covering<A: Bits>(family: &Family<A>, at: A, most: u8) -> impl Iterator<Item = PrefixId> {
    let shorter = family.iter().take_while(move |(len, _)| *len <= most);
    shorter.filter_map(move |(len, of_len)| of_len.get(&at.first(*len)).copied())
}

trait Bits: Copy + Eq + Hash {
    /// The first `len` bits, and zeros.
    fn first(self, len: u8) -> Self;
}

impl Bits for u32 {
    fn first(self, len: u8) -> u32 {
        let host = 32 - u32::from(len.min(32));
        self & u32::MAX.checked_shl(host).unwrap_or(0)
    }
}

impl Bits for u128 {
    fn first(self, len: u8) -> u128 {
        let host = 128 - u32::from(len.min(128));
        self & u128::MAX.checked_shl(host).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn net() -> impl Strategy<Value = IpNet> {
        let v4 = (any::<[u8; 4]>(), 0u8..=32).prop_map(|(at, len)| (IpAddr::from(at), len));
        let v6 = (any::<[u8; 16]>(), 0u8..=128).prop_map(|(at, len)| (IpAddr::from(at), len));
        // Few bits differ, so that prefixes lie in one another.
        let near = (0u8..4, 28u8..=32).prop_map(|(at, len)| (IpAddr::from([10, 0, 0, at]), len));
        prop_oneof![v4, v6, near]
            .prop_map(|(at, len)| IpNet::new(at, len).expect("a length of its family").trunc())
    }

    proptest! {
        #[test]
        fn those_that_cover_are_found_and_no_others(
            nets in proptest::collection::vec(net(), 0..40),
            asked in net(),
        ) {
            let mut prefixes = Prefixes::default();
            let ids: Vec<PrefixId> = nets.iter().map(|net| prefixes.intern(net)).collect();
            for asked in nets.iter().chain([&asked]) {
                let mut cover: Vec<(u8, u32)> = nets
                    .iter()
                    .zip(&ids)
                    .filter(|(net, _)| net.contains(asked))
                    .map(|(net, id)| (net.prefix_len(), id.0))
                    .collect();
                cover.sort_unstable();
                cover.dedup();
                let cover: Vec<u32> = cover.into_iter().map(|(_, id)| id).collect();
                let found: Vec<u32> = prefixes.covering(asked).map(|id| id.0).collect();
                prop_assert_eq!(&found, &cover);
                if asked.prefix_len() == asked.max_prefix_len() {
                    let mut visited = Vec::new();
                    prefixes.each_covering(asked.addr(), |id| visited.push(id.0));
                    prop_assert_eq!(visited, cover);
                }
            }
        }
    }
}
