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

use super::Tuple;
use super::error::{Faults, Place};
use super::host::MAX_ANSWERS;
use super::port::Ports;
use super::posture::CheckId;
use super::read::Draft;
use super::rule::{Action, Destination, DestinationId, From, Mode, NameId, Rule};
use super::subject::SubjectIndex;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use postern_proto::flow_key::Protocol;
use postern_proto::now::Wall;
use prefix_trie::PrefixMap;
use std::net::IpAddr;
use std::time::Duration;

#[cfg(test)]
mod tests;

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
    /// For every prefix the rules that allow something there, in order.
    allowing: Vec<Vec<u32>>,
}

/// A rule and its destination.
pub(super) type Hit = (u32, DestinationId);

#[derive(Clone, Copy, PartialEq, Eq)]
struct PrefixId(u32);

#[derive(Default)]
struct Cell {
    /// Disjoint, sorted by port.
    certain: Vec<Entry>,
    /// By port, as a balanced tree: the one in the middle is the root of what stands before it
    /// and after it.
    further: Vec<Node>,
}

#[derive(Clone, Copy)]
struct Entry {
    low: u16,
    high: u16,
    hit: Hit,
}

/// An entry, and what a look-up must know to pass the whole tree below it by.
struct Node {
    entry: Entry,
    /// The highest port in the tree.
    reach: u16,
    /// The first rule in the tree.
    first: u32,
}

impl Index {
    /// Files every rule that was read without a fault and that is enforced, for `mode: shadow`
    /// every rule. One of that mode that no packet can reach is a fault, as are too many entries:
    /// an enforced rule is out of reach only behind others that are enforced.
    pub(super) fn build(draft: &Draft, mode: Mode, faults: &mut Faults<'_>) -> Index {
        let mut builder = Builder::new(draft);
        let mut entries = 0u64;
        for (id, (rule, (at, sound))) in (0u32..).zip(draft.rules.iter().zip(&draft.marks)) {
            if !sound || (mode == Mode::Enforce && rule.mode == Mode::Shadow) {
                continue;
            }
            entries = entries.saturating_add(size(rule, draft));
            if entries > MAX_ENTRIES {
                let message = format!(
                    "the policy is too large: names by prefixes by ports, over all rules up to \
                     this one, are more than {MAX_ENTRIES}"
                );
                faults.add(
                    *at,
                    message,
                    "name groups instead of users, prefixes instead of hosts",
                );
                break;
            }
            if rule.mode == mode && builder.is_covered(rule) {
                unreachable_rule(id, rule, *at, draft, faults);
                if faults.is_full() {
                    break;
                }
            }
            builder.file(id, rule);
        }
        builder.finish()
    }

    /// The first rule for which `applies` holds. `applies` has the last word on every candidate.
    pub(super) fn first(
        &self,
        who: &SubjectIndex,
        to: &Tuple,
        applies: impl Fn(Hit) -> bool,
    ) -> Option<Hit> {
        let mut best = None;
        let mut visit = |prefix: PrefixId| {
            for name in &who.names {
                if let Some(cell) = self.cell(prefix, *name, to.protocol) {
                    best = cell.first(to.port, best, &applies);
                }
            }
        };
        match to.address {
            IpAddr::V4(a) => self
                .v4
                .cover_values(&a.into())
                .for_each(|prefix| visit(*prefix)),
            IpAddr::V6(a) => self
                .v6
                .cover_values(&a.into())
                .for_each(|prefix| visit(*prefix)),
        }
        best
    }

    /// The rules that allow something at `address`, those with the longest prefix first.
    pub(super) fn allowing(&self, address: IpAddr) -> impl Iterator<Item = u32> {
        let mut prefixes = self.covering(&address.into());
        prefixes.reverse();
        let lists = prefixes.into_iter().filter_map(|prefix| {
            usize::try_from(prefix.0)
                .ok()
                .and_then(|i| self.allowing.get(i))
        });
        lists.flatten().copied()
    }

    fn cell(&self, prefix: PrefixId, name: NameId, protocol: Protocol) -> Option<&Cell> {
        self.cells.get(*self.at.get(&key(prefix, name, protocol))?)
    }

    /// The prefixes filed so far that hold all of `net`.
    fn covering(&self, net: &IpNet) -> Vec<PrefixId> {
        match net {
            IpNet::V4(net) => self.v4.cover_values(net).copied().collect(),
            IpNet::V6(net) => self.v6.cover_values(net).copied().collect(),
        }
    }

    fn intern(&mut self, net: &IpNet) -> PrefixId {
        let new = PrefixId(self.prefixes);
        let id = match net {
            IpNet::V4(net) => *self.v4.entry(*net).or_insert(new),
            IpNet::V6(net) => *self.v6.entry(*net).or_insert(new),
        };
        if id == new {
            self.prefixes += 1;
            self.allowing.push(Vec::new());
        }
        id
    }
}

impl Cell {
    /// The first of `best` and the rules of this cell that has the port and applies.
    fn first(&self, port: u16, best: Option<Hit>, applies: impl Fn(Hit) -> bool) -> Option<Hit> {
        let mut best = best;
        let after = self.certain.partition_point(|entry| entry.low <= port);
        if let Some(entry) = after.checked_sub(1).and_then(|i| self.certain.get(i))
            && entry.high >= port
            && better(entry.hit, best)
            && applies(entry.hit)
        {
            best = Some(entry.hit);
        }
        first_in(&self.further, port, best, &applies)
    }

    fn sort(&mut self) {
        self.certain.sort_unstable_by_key(|entry| entry.low);
        let order = |Node { entry, .. }: &Node| (entry.low, entry.high, entry.hit);
        self.further.sort_unstable_by_key(order);
        grow(&mut self.further);
    }
}

impl Node {
    fn new(entry: Entry) -> Node {
        Node {
            entry,
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
    applies: &impl Fn(Hit) -> bool,
) -> Option<Hit> {
    let (before, [root, after @ ..]) = tree.split_at(tree.len() / 2) else {
        return best;
    };
    if root.reach < port || best.is_some_and(|best| best.0 < root.first) {
        return best;
    }
    let mut best = first_in(before, port, best, applies);
    let Entry { low, high, hit } = root.entry;
    if port < low {
        return best;
    }
    if port <= high && better(hit, best) && applies(hit) {
        best = Some(hit);
    }
    first_in(after, port, best, applies)
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

/// The entries that a rule can take at most.
fn size(rule: &Rule, draft: &Draft) -> u64 {
    let product = |a: usize, b: usize| u64::try_from(a.saturating_mul(b)).unwrap_or(u64::MAX);
    let there = draft.destinations_of(rule).fold(0, |sum: u64, (_, at)| {
        sum.saturating_add(product(
            at.literal().len() + at.names.len() * MAX_ANSWERS,
            at.ports.ranges().len(),
        ))
    });
    let names: usize = rule.from.asked().map(<[NameId]>::len).sum();
    there.saturating_mul(product(names.max(1), 1))
}

/// First and last port of each range.
type PortRanges = Vec<(u16, u16)>;

/// What is only needed while the rules are filed.
pub(super) struct Builder<'d> {
    draft: &'d Draft,
    index: Index,
    /// For every cell, the ports that some certain rule has: disjoint, sorted, joined.
    covered: Vec<PortRanges>,
    /// The same for rules that ask for several dimensions, by all that they ask for.
    covered_by_same: HashMap<(u32, Protocol, &'d From), PortRanges, FixedState>,
    /// How many rules use a name.
    uses: Vec<u32>,
}

impl<'d> Builder<'d> {
    pub(super) fn new(draft: &'d Draft) -> Self {
        let mut uses = vec![0u32; draft.names.len() + 1];
        for name in draft
            .rules
            .iter()
            .flat_map(|rule| rule.from.asked().flatten())
        {
            if let Some(uses) = slot(&mut uses, *name) {
                *uses += 1;
            }
        }
        Builder {
            draft,
            index: Index::default(),
            covered: Vec::new(),
            covered_by_same: HashMap::default(),
            uses,
        }
    }

    /// Sound, not complete: true only if every packet for `rule` is taken by earlier rules.
    /// It is enough if that is so for one of the dimensions, as all must hold.
    fn is_covered(&self, rule: &'d Rule) -> bool {
        let mut asked = rule.from.asked().peekable();
        if asked.peek().is_none() {
            return self.is_covered_for(rule, &[]);
        }
        asked.any(|names| names.iter().all(|name| self.is_covered_for(rule, &[*name])))
    }

    /// The same for those of its devices that have one of `names`.
    pub(super) fn is_covered_for(&self, rule: &Rule, names: &[NameId]) -> bool {
        let mut there = self.draft.destinations_of(rule);
        there.all(|(_, at)| self.is_place_covered(rule, at, names))
    }

    /// The same at one of its destinations.
    pub(super) fn is_place_covered(&self, rule: &Rule, at: &Destination, names: &[NameId]) -> bool {
        // What a name means may change: it is covered where everything is.
        let everything = [Ipv4Net::default().into(), Ipv6Net::default().into()];
        let named = everything.iter().filter(|_| !at.names.is_empty());
        at.literal().iter().chain(named).all(|net| {
            let prefixes = self.index.covering(net);
            at.ports.ranges().iter().all(|ports| {
                let cells = prefixes.iter().flat_map(|prefix| {
                    let everybody = [NameId::ANYONE];
                    let filed = everybody.iter().chain(names).filter_map(|name| {
                        let key = key(*prefix, *name, ports.protocol);
                        self.covered.get(*self.index.at.get(&key)?)
                    });
                    let same = (prefix.0, ports.protocol, &rule.from);
                    filed
                        .chain(self.covered_by_same.get(&same))
                        .collect::<Vec<_>>()
                });
                union_holds(&cells.collect::<Vec<_>>(), ports)
            })
        })
    }

    pub(super) fn file(&mut self, id: u32, rule: &'d Rule) {
        let certain = rule.from.asked().count() <= 1 && !rule.from.asks_state();
        let names = rule.from.asked().min_by_key(|names| self.most_used(names));
        let names = names.unwrap_or(&[NameId::ANYONE]);
        for (destination, at) in self.draft.destinations_of(rule) {
            for (place, net) in at.addresses.written().iter().enumerate() {
                // What a name means now covers no rule that comes later.
                let literal = place < at.literal;
                let prefix = self.index.intern(net);
                if rule.action == Action::Allow {
                    self.allows_at(prefix, id);
                }
                for ports in at.ports.ranges() {
                    let entry = Entry {
                        low: ports.low,
                        high: ports.high,
                        hit: (id, destination),
                    };
                    for name in names {
                        self.file_entry(
                            key(prefix, *name, ports.protocol),
                            entry,
                            certain && literal,
                        );
                    }
                    if !certain && literal {
                        let same = (prefix.0, ports.protocol, &rule.from);
                        cover(
                            self.covered_by_same.entry(same).or_default(),
                            ports.low,
                            ports.high,
                        );
                    }
                }
            }
        }
    }

    fn allows_at(&mut self, prefix: PrefixId, id: u32) {
        let list = usize::try_from(prefix.0)
            .ok()
            .and_then(|i| self.index.allowing.get_mut(i));
        if let Some(list) = list.filter(|list| list.last() != Some(&id)) {
            list.push(id);
        }
    }

    fn file_entry(&mut self, key: u64, entry: Entry, certain: bool) {
        let at = *self.index.at.entry(key).or_insert(self.index.cells.len());
        if at == self.index.cells.len() {
            self.index.cells.push(Cell::default());
            self.covered.push(Vec::new());
        }
        if !certain {
            self.index.cells[at].further.push(Node::new(entry));
            return;
        }
        for (low, high) in cover(&mut self.covered[at], entry.low, entry.high) {
            self.index.cells[at]
                .certain
                .push(Entry { low, high, ..entry });
        }
    }

    fn finish(mut self) -> Index {
        for cell in &mut self.index.cells {
            cell.sort();
            cell.certain.shrink_to_fit();
            cell.further.shrink_to_fit();
        }
        self.index
    }

    fn most_used(&self, names: &[NameId]) -> u32 {
        let uses = |name: &NameId| usize::try_from(name.0).ok().and_then(|i| self.uses.get(i));
        names.iter().filter_map(uses).max().copied().unwrap_or(0)
    }
}

fn slot(uses: &mut [u32], name: NameId) -> Option<&mut u32> {
    usize::try_from(name.0).ok().and_then(|i| uses.get_mut(i))
}

/// Adds a range to disjoint sorted ranges, and returns the parts of it that were not there.
fn cover(ranges: &mut PortRanges, low: u16, high: u16) -> PortRanges {
    let first = ranges.partition_point(|(_, end)| *end < low);
    let last = ranges.partition_point(|(start, _)| *start <= high);
    let mut new = Vec::new();
    let mut next = Some(low);
    for (start, end) in &ranges[first..last] {
        if let Some(from) = next.filter(|from| from < start) {
            new.push((from, start - 1));
        }
        next = end.checked_add(1);
    }
    if let Some(from) = next.filter(|from| *from <= high) {
        new.push((from, high));
    }
    if !new.is_empty() {
        let start = ranges[first..last]
            .first()
            .map_or(low, |range| range.0.min(low));
        let end = ranges[first..last]
            .last()
            .map_or(high, |range| range.1.max(high));
        ranges.splice(first..last, [(start, end)]);
    }
    new
}

/// Do the sets together hold every port of `ports`?
fn union_holds(sets: &[&PortRanges], ports: &Ports) -> bool {
    let mut port = ports.low;
    loop {
        let reach = sets.iter().filter_map(|ranges| {
            let after = ranges.partition_point(|(low, _)| *low <= port);
            let (_, high) = ranges.get(after.checked_sub(1)?)?;
            (*high >= port).then_some(*high)
        });
        match reach.max() {
            None => return false,
            Some(high) if high >= ports.high => return true,
            Some(high) => port = high + 1,
        }
    }
}

fn unreachable_rule(id: u32, rule: &Rule, at: Place, draft: &Draft, faults: &mut Faults<'_>) {
    // Any packet for the rule leads to an earlier rule that takes it: also of a device that stands
    // just as the rule asks.
    let age = rule.from.session_age.unwrap_or_default();
    let oldest = age.saturating_sub(Duration::from_nanos(1));
    let start = Wall(0) + oldest;
    let window = rule.from.when.as_ref();
    let now = window
        .and_then(|window| window.first_open(start))
        .unwrap_or(start);
    let login = Wall(0) + now.since(start);
    let who = SubjectIndex {
        names: rule
            .from
            .asked()
            .filter_map(|names| names.first())
            .copied()
            .collect(),
        checks: (0u32..)
            .map(CheckId)
            .take(draft.checks.list.len())
            .map(|check| match rule.from.posture.contains(&check) {
                true => Wall::NEVER,
                false => Wall(0),
            })
            .collect(),
        login: [&rule.from.issuers, &rule.from.amr, &rule.from.acr]
            .into_iter()
            .filter_map(|names| names.first())
            .copied()
            .collect(),
        session: Some((login, Wall::NEVER)),
        outer: rule.from.outer.written().first().map(|net| net.network()),
        ..SubjectIndex::default()
    };
    let packet = draft.destinations_of(rule).find_map(|(_, at)| {
        let (net, ports) = (at.addresses.written().first()?, at.ports.ranges().first()?);
        Some(Tuple {
            address: net.network(),
            port: ports.low,
            protocol: ports.protocol,
        })
    });
    let taken = |earlier: &Rule, to: &Tuple| {
        earlier.from.failing(&who, now).is_none()
            && draft
                .destinations_of(earlier)
                .any(|(_, at)| at.failing(to).is_none())
    };
    let sound = (0..id).zip(draft.rules.iter().zip(&draft.marks));
    let mut earlier = sound
        .filter(|(_, (_, mark))| mark.1)
        .filter(|(_, (earlier, _))| earlier.mode == Mode::Enforce || rule.mode == Mode::Shadow)
        .map(|(_, (rule, _))| rule);
    let first = packet.and_then(|to| earlier.find(|rule| taken(rule, &to)));
    let first = first.map_or(String::new(), |rule| {
        format!(", first by `{}` on line {}", rule.name, rule.line)
    });
    let message = format!(
        "no packet can reach the rule `{}`: all that it names is taken by earlier rules{first}",
        rule.name
    );
    faults.add(at, message, "move it up, or take it out");
}
