//! The 5-tuple, always as the device sees it: the device is the client, the other end the target.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// What can carry a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// ICMP or ICMPv6 echo. Ports are zero on the target's side, the echo id on the client's.
    Icmp,
}

impl Protocol {
    /// `tcp`, `udp`, `icmp`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Icmp => "icmp",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A flow's 5-tuple in 37 bytes without pointers. IPv4 addresses are kept IPv4-mapped.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    client: u128,
    target: u128,
    /// The device's port, or the echo id.
    pub client_port: u16,
    /// The target's port; zero for ICMP.
    pub target_port: u16,
    /// TCP, UDP or ICMP.
    pub protocol: Protocol,
}

impl FlowKey {
    /// From the two ends.
    #[must_use]
    pub fn new(protocol: Protocol, client: (IpAddr, u16), target: (IpAddr, u16)) -> Self {
        FlowKey {
            client: mapped(client.0),
            target: mapped(target.0),
            client_port: client.1,
            target_port: target.1,
            protocol,
        }
    }

    /// The device's address.
    #[must_use]
    pub fn client(&self) -> IpAddr {
        Ipv6Addr::from(self.client).to_canonical()
    }

    /// The target's address.
    #[must_use]
    pub fn target(&self) -> IpAddr {
        Ipv6Addr::from(self.target).to_canonical()
    }

    /// The device's address and port.
    #[must_use]
    pub fn client_end(&self) -> (IpAddr, u16) {
        (self.client(), self.client_port)
    }

    /// The target's address and port.
    #[must_use]
    pub fn target_end(&self) -> (IpAddr, u16) {
        (self.target(), self.target_port)
    }
}

impl fmt::Debug for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (client, target) = (self.client(), self.target());
        write!(
            f,
            "{} {client}:{} > {target}:{}",
            self.protocol, self.client_port, self.target_port
        )
    }
}

fn mapped(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}
