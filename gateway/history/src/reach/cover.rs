//! What earlier denying rules take out of a place.

use super::{Except, Place};
use ipnet::IpNet;
use postern_engine::policy::{PortRange, RuleView};

/// Parts that are shown of one way.
const MAX_EXCEPT: usize = 16;

/// The denying rules that apply, in the order of the file.
#[derive(Debug, Default)]
pub(super) struct Denials {
    list: Vec<(String, usize, Place)>,
}

impl Denials {
    pub(super) fn add(&mut self, rule: &RuleView<'_>, to: impl Iterator<Item = Place>) {
        let named = |to| (rule.name().to_owned(), rule.line(), to);
        self.list.extend(to.map(named));
    }

    /// The parts of `to` that are denied, the first few.
    pub(super) fn of(&self, to: &Place) -> Vec<Except> {
        self.list
            .iter()
            .filter(|(_, _, denied)| denied.overlaps(to))
            .take(MAX_EXCEPT)
            .map(|(rule, line, denied)| Except {
                rule: rule.clone(),
                line: *line,
                part: to.within(denied),
            })
            .collect()
    }

    /// Whether nothing of `to` is left: for each stretch of ports in which the same rules deny,
    /// their prefixes together hold every address.
    pub(super) fn cover(&self, to: &Place) -> bool {
        let denied: Vec<&Place> = self
            .list
            .iter()
            .map(|(_, _, denied)| denied)
            .filter(|denied| denied.overlaps(to))
            .collect();
        !denied.is_empty()
            && to
                .ports
                .iter()
                .all(|ports| stretches(*ports, &denied).all(|port| covered(to, &denied, port)))
    }
}

/// One port of each stretch of `ports` that begins or ends nowhere but at its ends.
fn stretches(ports: PortRange, denied: &[&Place]) -> impl Iterator<Item = PortRange> + use<> {
    let mut begins = vec![ports.low];
    for range in denied.iter().flat_map(|place| &place.ports) {
        if range.protocol == ports.protocol {
            begins.push(range.low);
            begins.extend(range.high.checked_add(1));
        }
    }
    begins.retain(|port| (ports.low..=ports.high).contains(port));
    begins.sort_unstable();
    begins.dedup();
    begins.into_iter().map(move |port| PortRange {
        protocol: ports.protocol,
        low: port,
        high: port,
    })
}

fn covered(to: &Place, denied: &[&Place], at: PortRange) -> bool {
    let nets: Vec<IpNet> = denied
        .iter()
        .filter(|place| {
            place.ports.iter().any(|range| {
                range.protocol == at.protocol && range.low <= at.low && at.low <= range.high
            })
        })
        .flat_map(|place| place.addresses.iter().copied())
        .collect();
    let nets = IpNet::aggregate(&nets);
    to.addresses
        .iter()
        .all(|own| nets.iter().any(|net| net.contains(own)))
}
