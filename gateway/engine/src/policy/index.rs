//! The first rule that applies, without looking at the others.
//!
//! Every rule is filed under (prefix, name, protocol) for each prefix of its destinations and each
//! name of one of its dimensions: the one whose names the fewest rules share. A look-up visits the
//! prefixes that cover the address, and there the names of the subject. In a cell lie
//!
//! - *certain* rules, which ask for nothing but that name: port ranges that are disjoint, because
//!   only the first rule can win a port; a binary search finds it;
//! - *further* rules, which ask for other dimensions or for how the device stands too: any port
//!   ranges, as an interval tree; of those that hold the port the first that applies. Rules that
//!   name nobody and ask for a state or a time alone lie under everybody: where many of them share
//!   a prefix and a port, a look-up tries each until one applies.

mod build;
mod prefixes;

pub(super) use build::Builder;

use super::Tuple;
use super::rule::{Conditions, DestinationId, From, NameId};
use super::subject::SubjectIndex;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use postern_proto::flow_key::Protocol;
use postern_proto::now::Wall;
use prefixes::{PrefixId, Prefixes};
use std::net::IpAddr;
use std::slice::from_ref;

#[cfg(test)]
mod tests;

/// See the module. What a look-up touches lies close together: with many rules it is the memory
/// that costs.
#[derive(Default)]
pub(super) struct Index {
    prefixes: Prefixes,
    cells: HashMap<u64, Cell, FixedState>,
    /// The entries of all cells.
    certain: Vec<Entry>,
    further: Vec<Node>,
    rests: Vec<Rest>,
    /// For every prefix the rules that allow something there, in order.
    allowing: Vec<Vec<u32>>,
}

/// A rule and its destination.
pub(super) type Hit = (u32, DestinationId);

enum Cell {
    /// One entry, certain or further, as most have.
    Certain(Entry),
    Further(Node),
    Many {
        /// Disjoint, sorted by port.
        certain: Span,
        /// By port, as a balanced tree: the one in the middle is the root of what stands before it
        /// and after it.
        further: Span,
    },
}

/// A part of a list.
#[derive(Clone, Copy)]
struct Span {
    start: u32,
    end: u32,
}

#[derive(Clone, Copy)]
struct Entry {
    low: u16,
    high: u16,
    hit: Hit,
}

/// An entry, and what a look-up must know to pass the whole tree below it by.
#[derive(Clone, Copy)]
struct Node {
    entry: Entry,
    /// The highest port in the tree.
    reach: u16,
    /// The first rule in the tree.
    first: u32,
    rest: RestId,
}

/// What a rule asks for, but for the name that it is filed under. Many rules share few of them.
struct Rest {
    asks: Conditions,
    from: From,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct RestId(u32);

impl Index {
    /// The first rule that applies. The look-up itself proves what a certain rule asks for; of every
    /// other candidate the rest is asked.
    pub(super) fn first(&self, who: &SubjectIndex, to: &Tuple, now: Wall) -> Option<Hit> {
        let holds = |rest: RestId| {
            let rest = self.rests.get(rest.0 as usize);
            rest.is_some_and(|rest| rest.from.meets_all(rest.asks, who, now))
        };
        let mut best = None;
        self.prefixes.each_covering(to.address, |prefix| {
            for name in &who.names {
                if let Some(cell) = self.cells.get(&key(prefix, *name, to.protocol)) {
                    best = self.first_of(cell, to.port, best, &holds);
                }
            }
        });
        best
    }

    /// The first of `best` and the rules of a cell that has the port and applies.
    fn first_of(
        &self,
        cell: &Cell,
        port: u16,
        best: Option<Hit>,
        holds: &impl Fn(RestId) -> bool,
    ) -> Option<Hit> {
        let (certain, further) = match cell {
            Cell::Certain(entry) => (from_ref(entry), &[][..]),
            Cell::Further(node) => (&[][..], from_ref(node)),
            Cell::Many { certain, further } => {
                (certain.of(&self.certain), further.of(&self.further))
            }
        };
        let mut best = best;
        let after = certain.partition_point(|entry| entry.low <= port);
        if let Some(entry) = after.checked_sub(1).and_then(|i| certain.get(i))
            && entry.high >= port
            && better(entry.hit, best)
        {
            best = Some(entry.hit);
        }
        first_in(further, port, best, holds)
    }

    /// The rules that allow something at `address`, those with the longest prefix first.
    pub(super) fn allowing(&self, address: IpAddr) -> impl Iterator<Item = u32> {
        let mut prefixes: Vec<PrefixId> = self.prefixes.covering(&address.into()).collect();
        prefixes.reverse();
        let lists = prefixes
            .into_iter()
            .filter_map(|prefix| self.allowing.get(prefix.0 as usize));
        lists.flatten().copied()
    }
}

impl Rest {
    fn new(from: From) -> Rest {
        let asks = from.asks();
        Rest { asks, from }
    }
}

impl Span {
    /// Puts `more` at the end of a list.
    fn append<T: Copy>(list: &mut Vec<T>, more: &[T]) -> Span {
        // Bounded by `MAX_ENTRIES`, and twice as many where certain rules overlap.
        let place = |list: &Vec<T>| u32::try_from(list.len()).unwrap_or(u32::MAX);
        let start = place(list);
        list.extend_from_slice(more);
        let end = place(list);
        Span { start, end }
    }

    fn of<T>(self, list: &[T]) -> &[T] {
        list.get(self.start as usize..self.end as usize)
            .unwrap_or_default()
    }
}

impl Node {
    fn new(entry: Entry, rest: RestId) -> Node {
        Node {
            entry,
            rest,
            reach: entry.high,
            first: entry.hit.0,
        }
    }
}

/// The first of `best` and the rules of a tree that has the port and applies. Rules of the same
/// ports are met in order, so that after one that applies the others are passed by.
fn first_in(
    tree: &[Node],
    port: u16,
    best: Option<Hit>,
    holds: &impl Fn(RestId) -> bool,
) -> Option<Hit> {
    let (before, [root, after @ ..]) = tree.split_at(tree.len() / 2) else {
        return best;
    };
    if root.reach < port || best.is_some_and(|best| best.0 < root.first) {
        return best;
    }
    let mut best = first_in(before, port, best, holds);
    let Entry { low, high, hit } = root.entry;
    if port < low {
        return best;
    }
    if port <= high && better(hit, best) && holds(root.rest) {
        best = Some(hit);
    }
    first_in(after, port, best, holds)
}

fn better(hit: Hit, best: Option<Hit>) -> bool {
    best.is_none_or(|best| hit < best)
}

/// Notes in every node what its tree holds; returns the same of the whole.
fn grow(tree: &mut [Node]) -> Option<(u16, u32)> {
    let (before, [root, after @ ..]) = tree.split_at_mut(tree.len() / 2) else {
        return None;
    };
    for (reach, first) in [grow(before), grow(after)].into_iter().flatten() {
        root.reach = root.reach.max(reach);
        root.first = root.first.min(first);
    }
    Some((root.reach, root.first))
}

/// One number for a cell: 30 bits of prefix, 32 of name, 2 of protocol.
fn key(prefix: PrefixId, name: NameId, protocol: Protocol) -> u64 {
    let protocol = match protocol {
        Protocol::Tcp => 0,
        Protocol::Udp => 1,
        Protocol::Icmp => 2,
    };
    u64::from(prefix.0) << 34 | u64::from(name.0) << 2 | protocol
}
