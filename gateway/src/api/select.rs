//! Which flows: by number, device, user, destination.

use ipnet::IpNet;
use postern_proto::flow_key::Protocol;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

/// Which flows. Empty selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FlowFilter {
    /// This one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<u64>,
    /// Of this device.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Of this user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// To this destination.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Destination>,
    /// Opened before, in milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_before: Option<u64>,
}

/// Where a flow goes: `192.0.2.10`, `192.0.2.0/24`, `192.0.2.10:22`, `[2001:db8::1]:22/tcp`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Destination {
    /// Address or range.
    pub net: IpNet,
    /// Any, if none.
    pub port: Option<u16>,
    /// Any, if none.
    pub protocol: Option<Protocol>,
}

impl FlowFilter {
    /// Whether it selects everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == FlowFilter::default()
    }

    /// Whether it selects a flow with these properties.
    #[must_use]
    pub fn matches(
        &self,
        id: u64,
        device: &str,
        user: Option<&str>,
        (address, port, protocol): (IpAddr, u16, Protocol),
        opened_ms: u64,
    ) -> bool {
        self.id.is_none_or(|wanted| wanted == id)
            && self.device.as_deref().is_none_or(|wanted| wanted == device)
            && self
                .user
                .as_deref()
                .is_none_or(|wanted| user == Some(wanted))
            && self
                .to
                .is_none_or(|wanted| wanted.covers(address, port, protocol))
            && self.opened_before.is_none_or(|before| opened_ms < before)
    }
}

impl Destination {
    /// Whether a target lies in it.
    #[must_use]
    pub fn covers(&self, address: IpAddr, port: u16, protocol: Protocol) -> bool {
        self.net.contains(&address)
            && self.port.is_none_or(|wanted| wanted == port)
            && self.protocol.is_none_or(|wanted| wanted == protocol)
    }
}

/// Text that is no [`Destination`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{0}' is no destination; write an address, a range, or ADDRESS:PORT[/tcp|udp|icmp], such as \
     192.0.2.10:22/tcp or [2001:db8::1]:22"
)]
pub struct BadDestination(String);

impl FromStr for Destination {
    type Err = BadDestination;

    fn from_str(text: &str) -> Result<Self, BadDestination> {
        parse_destination(text).ok_or_else(|| BadDestination(text.to_owned()))
    }
}

fn parse_destination(text: &str) -> Option<Destination> {
    if let Ok(net) = text.parse::<IpNet>() {
        return Some(Destination {
            net: net.trunc(),
            port: None,
            protocol: None,
        });
    }
    let (rest, protocol) = match text.rsplit_once('/') {
        Some((rest, name)) => (rest, Some(parse_protocol(name)?)),
        None => (text, None),
    };
    let bare = rest.trim_start_matches('[').trim_end_matches(']');
    let (address, port) = match (bare.parse::<IpAddr>(), rest.parse::<SocketAddr>()) {
        (Ok(address), _) => (address, None),
        (Err(_), Ok(socket)) => (socket.ip(), Some(socket.port())),
        (Err(_), Err(_)) => return None,
    };
    Some(Destination {
        net: IpNet::from(address),
        port,
        protocol,
    })
}

fn parse_protocol(name: &str) -> Option<Protocol> {
    [Protocol::Tcp, Protocol::Udp, Protocol::Icmp]
        .into_iter()
        .find(|known| known.as_str() == name)
}

impl fmt::Display for Destination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}", SocketAddr::new(self.net.addr(), port))?,
            None if self.net.prefix_len() == self.net.max_prefix_len() => {
                write!(f, "{}", self.net.addr())?;
            }
            None => write!(f, "{}", self.net)?,
        }
        match self.protocol {
            Some(protocol) => write!(f, "/{protocol}"),
            None => Ok(()),
        }
    }
}

impl Serialize for Destination {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Destination {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn destinations_read_back_as_written() {
        for text in [
            "192.0.2.10",
            "192.0.2.0/24",
            "192.0.2.10:22",
            "192.0.2.10:22/tcp",
            "2001:db8::1",
            "[2001:db8::1]:22/udp",
            "2001:db8::/32",
            "192.0.2.10/icmp",
        ] {
            assert_eq!(text.parse::<Destination>().expect(text).to_string(), text);
        }
        for text in [
            "",
            "host:22",
            "192.0.2.10:22/sctp",
            "192.0.2.10:70000",
            "192.0.2.10:22/",
        ] {
            assert!(text.parse::<Destination>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_filter_selects_by_every_field_at_once() {
        let target = ("192.0.2.10".parse().expect("address"), 22, Protocol::Tcp);
        let filter = FlowFilter {
            user: Some("ana".into()),
            to: Some("192.0.2.0/24".parse().expect("range")),
            ..FlowFilter::default()
        };
        assert!(filter.matches(1, "laptop", Some("ana"), target, 5));
        assert!(!filter.matches(1, "laptop", None, target, 5));
        assert!(!filter.matches(1, "laptop", Some("bob"), target, 5));
        let elsewhere = ("198.51.100.1".parse().expect("address"), 22, Protocol::Tcp);
        assert!(!filter.matches(1, "laptop", Some("ana"), elsewhere, 5));
        assert!(FlowFilter::default().matches(1, "laptop", None, elsewhere, 5));
        assert!(
            !FlowFilter {
                id: Some(2),
                ..FlowFilter::default()
            }
            .matches(1, "a", None, target, 5)
        );
    }
}
