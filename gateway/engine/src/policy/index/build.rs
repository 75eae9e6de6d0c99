//! How the index is made: every rule is filed, and what nobody can reach is told.

use super::prefixes::{PrefixId, Prefixes};
use super::{Cell, Entry, Index, Node, Rest, RestId, Span, grow, key};
use crate::policy::Tuple;
use crate::policy::error::{Faults, Place};
use crate::policy::host::MAX_ANSWERS;
use crate::policy::port::Ports;
use crate::policy::posture::CheckId;
use crate::policy::read::Draft;
use crate::policy::rule::{Action, Destination, From, Mode, NameId, Rule};
use crate::policy::subject::SubjectIndex;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use ipnet::{Ipv4Net, Ipv6Net};
use postern_proto::flow_key::Protocol;
use postern_proto::now::Wall;
use std::time::Duration;

/// Entries of all cells: names by prefixes by port ranges, over all rules. At some 100 bytes for
/// a cell with one entry, 100 MB at worst.
const MAX_ENTRIES: u64 = 1 << 20;

impl Index {
    /// Files every rule that was read without a fault and that is enforced, for `mode: shadow`
    /// every rule. One of that mode that no packet can reach is a fault, as are too many entries:
    /// an enforced rule is out of reach only behind others that are enforced.
    pub(in crate::policy) fn build(draft: &Draft, mode: Mode, faults: &mut Faults<'_>) -> Index {
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
pub(in crate::policy) struct Builder<'d> {
    draft: &'d Draft,
    prefixes: Prefixes,
    cells: HashMap<u64, Filed, FixedState>,
    rests: HashMap<From, RestId, FixedState>,
    allowing: Vec<Vec<u32>>,
    /// The same for rules that ask for several dimensions, by all that they ask for.
    covered_by_same: HashMap<(u32, Protocol, &'d From), PortRanges, FixedState>,
    /// How many rules use a name.
    uses: Vec<u32>,
}

/// A cell that grows.
#[derive(Default)]
struct Filed {
    certain: Vec<Entry>,
    further: Vec<Node>,
    /// The ports that some certain rule has: disjoint, sorted, joined.
    covered: PortRanges,
}

impl<'d> Builder<'d> {
    pub(in crate::policy) fn new(draft: &'d Draft) -> Self {
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
            prefixes: Prefixes::default(),
            cells: HashMap::default(),
            rests: HashMap::default(),
            allowing: Vec::new(),
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
    pub(in crate::policy) fn is_covered_for(&self, rule: &Rule, names: &[NameId]) -> bool {
        let mut there = self.draft.destinations_of(rule);
        there.all(|(_, at)| self.is_place_covered(rule, at, names))
    }

    /// The same at one of its destinations.
    pub(in crate::policy) fn is_place_covered(
        &self,
        rule: &Rule,
        at: &Destination,
        names: &[NameId],
    ) -> bool {
        // What a name means may change: it is covered where everything is.
        let everything = [Ipv4Net::default().into(), Ipv6Net::default().into()];
        let named = everything.iter().filter(|_| !at.names.is_empty());
        at.literal().iter().chain(named).all(|net| {
            let prefixes: Vec<PrefixId> = self.prefixes.covering(net).collect();
            at.ports.ranges().iter().all(|ports| {
                let cells = prefixes.iter().flat_map(|prefix| {
                    let everybody = [NameId::ANYONE];
                    let filed = everybody.iter().chain(names).filter_map(|name| {
                        let cell = self.cells.get(&key(*prefix, *name, ports.protocol))?;
                        Some(&cell.covered)
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

    pub(in crate::policy) fn file(&mut self, id: u32, rule: &'d Rule) {
        let fewest = rule.from.dimensions();
        let fewest = fewest.min_by_key(|(_, names)| self.most_used(names));
        let (proven, names) = fewest.unzip();
        let names = names.unwrap_or(&[NameId::ANYONE]);
        // What a look-up by one of the names does not prove.
        let rest = rule.from.without(proven);
        let certain = rest.asks().is_none();
        let rest = self.intern(rest);
        for (destination, at) in self.draft.destinations_of(rule) {
            for (place, net) in at.addresses.written().iter().enumerate() {
                // What a name means now covers no rule that comes later.
                let literal = place < at.literal;
                let prefix = self.prefixes.intern(net);
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
                        let key = key(prefix, *name, ports.protocol);
                        match certain && literal {
                            true => self.file_certain(key, entry),
                            false => self.file_further(key, Node::new(entry, rest)),
                        }
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

    fn intern(&mut self, from: From) -> RestId {
        let next = RestId(u32::try_from(self.rests.len()).unwrap_or(u32::MAX));
        *self.rests.entry(from).or_insert(next)
    }

    fn allows_at(&mut self, prefix: PrefixId, id: u32) {
        let at = prefix.0 as usize;
        if self.allowing.len() <= at {
            self.allowing.resize_with(at + 1, Vec::new);
        }
        if let Some(list) = self.allowing.get_mut(at)
            && list.last() != Some(&id)
        {
            list.push(id);
        }
    }

    fn file_certain(&mut self, key: u64, entry: Entry) {
        let cell = self.cells.entry(key).or_default();
        for (low, high) in cover(&mut cell.covered, entry.low, entry.high) {
            cell.certain.push(Entry { low, high, ..entry });
        }
    }

    fn file_further(&mut self, key: u64, node: Node) {
        self.cells.entry(key).or_default().further.push(node);
    }

    fn finish(self) -> Index {
        let mut rests: Vec<(RestId, From)> = self
            .rests
            .into_iter()
            .map(|(from, id)| (id, from))
            .collect();
        rests.sort_unstable_by_key(|(id, _)| *id);
        let mut index = Index {
            rests: rests.into_iter().map(|(_, from)| Rest::new(from)).collect(),
            prefixes: self.prefixes,
            allowing: self.allowing,
            ..Index::default()
        };
        index.cells.reserve(self.cells.len());
        for (key, mut filed) in self.cells {
            filed.sort();
            let cell = match (&filed.certain[..], &filed.further[..]) {
                ([only], []) => Cell::Certain(*only),
                ([], [only]) => Cell::Further(*only),
                (certain, further) => Cell::Many {
                    certain: Span::append(&mut index.certain, certain),
                    further: Span::append(&mut index.further, further),
                },
            };
            index.cells.insert(key, cell);
        }
        index.certain.shrink_to_fit();
        index.further.shrink_to_fit();
        index
    }

    fn most_used(&self, names: &[NameId]) -> u32 {
        let uses = |name: &NameId| usize::try_from(name.0).ok().and_then(|i| self.uses.get(i));
        names.iter().filter_map(uses).max().copied().unwrap_or(0)
    }
}

impl Filed {
    fn sort(&mut self) {
        self.certain.sort_unstable_by_key(|entry| entry.low);
        sort_tree(&mut self.further);
    }
}

/// By port, and every node knows what its tree holds.
pub(super) fn sort_tree(tree: &mut [Node]) {
    let order = |Node { entry, .. }: &Node| (entry.low, entry.high, entry.hit);
    tree.sort_unstable_by_key(order);
    grow(tree);
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
