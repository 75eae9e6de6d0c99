//! Where a flow would go: `192.0.2.10:22/tcp`, `[2001:db8::10]:22/tcp`, `192.0.2.10/icmp`.

use super::port;
use postern_proto::flow_key::Protocol;
use serde::{Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// The target's end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tuple {
    /// The target's address.
    pub address: IpAddr,
    /// The target's port; 0 for ICMP.
    pub port: u16,
    /// TCP, UDP or ICMP.
    pub protocol: Protocol,
}

/// Text that is no [`Tuple`]: what is wrong and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}; {help}")]
pub struct TupleError {
    /// What is wrong.
    pub what: String,
    /// What to write instead.
    pub help: String,
}

impl Tuple {
    /// IPv4 is IPv4 even where it comes IPv4-mapped, and ICMP has no port.
    pub(super) fn canonical(self) -> Tuple {
        let port = if self.protocol == Protocol::Icmp {
            0
        } else {
            self.port
        };
        Tuple {
            address: self.address.to_canonical(),
            port,
            protocol: self.protocol,
        }
    }
}

impl FromStr for Tuple {
    type Err = TupleError;

    fn from_str(text: &str) -> Result<Self, TupleError> {
        let no = |what: String, help: &str| {
            Err(TupleError {
                what,
                help: help.to_owned(),
            })
        };
        let Some((place, name)) = text.rsplit_once('/') else {
            return no(format!("`{text}` has no protocol"), EXAMPLE);
        };
        let protocol = match port::protocol(name) {
            Ok(protocol) => protocol,
            Err(help) => return no(format!("`{name}` is not a protocol"), &help),
        };
        let (address, port) = match (protocol, place.parse(), place.parse::<SocketAddr>()) {
            (Protocol::Icmp, Ok(address), _) => (address, 0),
            (Protocol::Icmp, Err(_), Ok(at)) => {
                let help = format!("write `{}/icmp`", at.ip());
                return no(format!("`{text}`: icmp has no ports"), &help);
            }
            (Protocol::Icmp, Err(_), Err(_)) => {
                return no(format!("`{place}` is not an address"), EXAMPLE);
            }
            (Protocol::Tcp | Protocol::Udp, _, Ok(at)) => (at.ip(), at.port()),
            (Protocol::Tcp | Protocol::Udp, Ok::<IpAddr, _>(_), Err(_)) => {
                return no(format!("`{text}` has no port"), EXAMPLE);
            }
            (Protocol::Tcp | Protocol::Udp, Err(_), Err(_)) => {
                return no(format!("`{place}` is not an address and a port"), EXAMPLE);
            }
        };
        if port == 0 && protocol != Protocol::Icmp {
            return no("port 0 does not exist".to_owned(), "ports are 1 to 65535");
        }
        Ok(Tuple {
            address,
            port,
            protocol,
        }
        .canonical())
    }
}

const EXAMPLE: &str = "write `192.0.2.10:22/tcp`, `[2001:db8::10]:22/tcp` or `192.0.2.10/icmp`";

impl fmt::Display for Tuple {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Icmp => write!(f, "{}/icmp", self.address),
            Protocol::Tcp | Protocol::Udp => {
                write!(
                    f,
                    "{}/{}",
                    SocketAddr::new(self.address, self.port),
                    self.protocol
                )
            }
        }
    }
}

impl Serialize for Tuple {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
