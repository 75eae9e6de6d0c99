//! Addresses and ports: where a rule leads, or where somebody wants to go.

use ipnet::IpNet;
use postern_engine::policy::{DestinationView, PortRange, Tuple};
use postern_proto::flow_key::Protocol;
use serde::Serialize;
use std::fmt;

/// Every port at every address. Displays as a rule's reader would write it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// Addresses.
    pub addresses: Vec<IpNet>,
    /// Ports.
    pub ports: Vec<PortRange>,
}

/// Longer lists are cut where people read.
const SHOWN: usize = 6;

impl Place {
    /// The one address and port that it is, if it is one.
    #[must_use]
    pub fn tuple(&self) -> Option<Tuple> {
        match (self.addresses.as_slice(), self.ports.as_slice()) {
            ([net], [ports])
                if net.prefix_len() == net.max_prefix_len() && ports.low == ports.high =>
            {
                Some(Tuple {
                    address: net.addr(),
                    port: ports.low,
                    protocol: ports.protocol,
                })
            }
            _ => None,
        }
    }

    /// Whether it has an address and a port in common with another.
    #[must_use]
    pub fn overlaps(&self, other: &Place) -> bool {
        let part = self.within(other);
        !part.addresses.is_empty() && !part.ports.is_empty()
    }

    /// What it has in common with another: of two prefixes one holds the other or they are apart.
    #[must_use]
    pub fn within(&self, other: &Place) -> Place {
        let mut addresses: Vec<IpNet> = self
            .addresses
            .iter()
            .flat_map(|a| other.addresses.iter().filter_map(|b| common_net(*a, *b)))
            .collect();
        addresses.sort_unstable();
        addresses.dedup();
        let ports = self
            .ports
            .iter()
            .flat_map(|a| other.ports.iter().filter_map(|b| common_ports(*a, *b)))
            .collect();
        Place { addresses, ports }
    }
}

fn common_net(a: IpNet, b: IpNet) -> Option<IpNet> {
    if a.contains(&b) {
        Some(b)
    } else {
        b.contains(&a).then_some(a)
    }
}

fn common_ports(a: PortRange, b: PortRange) -> Option<PortRange> {
    let (low, high) = (a.low.max(b.low), a.high.min(b.high));
    (a.protocol == b.protocol && low <= high).then_some(PortRange {
        protocol: a.protocol,
        low,
        high,
    })
}

impl From<Tuple> for Place {
    fn from(to: Tuple) -> Place {
        let port = match to.protocol {
            Protocol::Icmp => 0,
            Protocol::Tcp | Protocol::Udp => to.port,
        };
        Place {
            addresses: vec![to.address.to_canonical().into()],
            ports: vec![PortRange {
                protocol: to.protocol,
                low: port,
                high: port,
            }],
        }
    }
}

impl From<&DestinationView<'_>> for Place {
    fn from(to: &DestinationView<'_>) -> Place {
        Place {
            addresses: to.addresses().to_vec(),
            ports: to.ports().collect(),
        }
    }
}

impl fmt::Display for Place {
    /// `192.0.2.10, 192.0.2.11 22/tcp, 8000-8010/tcp`; long lists are cut.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nets = self.addresses.iter().map(|net| {
            if net.prefix_len() == net.max_prefix_len() {
                net.addr().to_string()
            } else {
                net.to_string()
            }
        });
        let ports = self.ports.iter().map(PortRange::to_string);
        write!(f, "{} {}", listed(nets), listed(ports))
    }
}

fn listed(items: impl ExactSizeIterator<Item = String>) -> String {
    let more = items.len().saturating_sub(SHOWN);
    let shown: Vec<String> = items.take(SHOWN).collect();
    match more {
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}
