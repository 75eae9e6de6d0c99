//! Where a rule was used to go: as many addresses and ports, and no more.

use ipnet::IpNet;
use postern_engine::policy::{DestinationView, PortRange, RuleView, Tree, Tuple};
use postern_proto::flow_key::Protocol;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Pairs of address and port in a rule; those of several destinations are added up.
pub(super) fn width(rule: &RuleView<'_>) -> u128 {
    rule.to()
        .map(|at| width_of(&at))
        .fold(0, u128::saturating_add)
}

/// What a rule has as `to`, with what was used of each of its destinations. `value` is how it stood.
pub(super) fn narrowed(
    rule: &RuleView<'_>,
    value: &Tree,
    used: &BTreeSet<Tuple>,
    has_names: impl Fn(&str) -> bool,
) -> Tree {
    let mut rest: Vec<Tuple> = used.iter().copied().collect();
    let mut items = Vec::new();
    for at in rule.to() {
        let (here, elsewhere): (Vec<Tuple>, Vec<Tuple>) =
            rest.into_iter().partition(|to| at.holds(to));
        rest = elsewhere;
        if here.is_empty() {
            continue;
        }
        match at.target() {
            // What a name means changes: what it meant is no substitute.
            Some(name) if has_names(name) || is_all(&at, &here) => {
                items.push(Tree::Text(name.to_owned()));
            }
            None if !at.names().is_empty() => match as_written(value, &at) {
                Some(item) if items.contains(item) => {}
                Some(item) => items.push(item.clone()),
                None => return value.clone(),
            },
            Some(_) | None => items.extend(parts(&here)),
        }
    }
    // Everything that was used lies in one of them.
    if items.is_empty() || !rest.is_empty() {
        return value.clone();
    }
    Tree::List(items)
}

/// What stands in the rule itself, with its names.
fn as_written<'t>(value: &'t Tree, at: &DestinationView<'_>) -> Option<&'t Tree> {
    let named = |item: &&Tree| {
        let names = item.get("names").map(Tree::items).unwrap_or_default();
        let names = names.iter().filter_map(Tree::text);
        let names: BTreeSet<String> = names.map(plain_name).collect();
        let ports = item.get("ports").map(Tree::items).unwrap_or_default();
        let ports = ports.iter().filter_map(Tree::text);
        let has = |port: &str| at.ports().any(|range| range.to_string() == port);
        names.iter().eq(at.names())
            && (ports.clone().all(has) || at.ports().count() != ports.count())
    };
    value.items().iter().chain([value]).find(named)
}

fn plain_name(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

/// With what its names mean.
fn width_of(at: &DestinationView<'_>) -> u128 {
    let nets = IpNet::aggregate(&at.meant().to_vec());
    let addresses = nets.iter().map(|net| {
        let free = u32::from(net.max_prefix_len() - net.prefix_len());
        1_u128.checked_shl(free).unwrap_or(u128::MAX)
    });
    let addresses = addresses.fold(0, u128::saturating_add);
    let ports = at
        .ports()
        .map(|range| u128::from(range.high - range.low) + 1);
    addresses.saturating_mul(ports.sum())
}

fn is_all(at: &DestinationView<'_>, used: &[Tuple]) -> bool {
    u128::try_from(used.len()).is_ok_and(|used| used == width_of(at))
}

/// The addresses that were used on the same ports, together.
fn parts(used: &[Tuple]) -> Vec<Tree> {
    let mut ports_of: BTreeMap<IpAddr, BTreeSet<(Protocol, u16)>> = BTreeMap::new();
    for to in used {
        let ports = ports_of.entry(to.address).or_default();
        ports.insert((to.protocol, to.port));
    }
    let mut by_ports: BTreeMap<BTreeSet<(Protocol, u16)>, Vec<IpNet>> = BTreeMap::new();
    for (address, ports) in ports_of {
        by_ports.entry(ports).or_default().push(address.into());
    }
    let parts = by_ports.into_iter().map(|(ports, addresses)| {
        let addresses = IpNet::aggregate(&addresses).into_iter().map(shown);
        let ports = ranges(&ports).into_iter();
        let ports = ports.map(|range| Tree::Text(range.to_string()));
        Tree::Map(vec![
            ("addresses".to_owned(), Tree::List(addresses.collect())),
            ("ports".to_owned(), Tree::List(ports.collect())),
        ])
    });
    parts.collect()
}

/// A prefix that is one host has no length.
fn shown(net: IpNet) -> Tree {
    Tree::Text(if net.prefix_len() == net.max_prefix_len() {
        net.addr().to_string()
    } else {
        net.to_string()
    })
}

fn ranges(ports: &BTreeSet<(Protocol, u16)>) -> Vec<PortRange> {
    let mut ranges: Vec<PortRange> = Vec::new();
    for (protocol, port) in ports {
        match ranges.last_mut() {
            Some(last) if last.protocol == *protocol && last.high.checked_add(1) == Some(*port) => {
                last.high = *port;
            }
            Some(_) | None => ranges.push(PortRange {
                protocol: *protocol,
                low: *port,
                high: *port,
            }),
        }
    }
    ranges
}
