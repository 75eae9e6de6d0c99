//! What a device needs to know to reach its gateway: the profile that `device add` prints and
//! `postern up` reads. The text form (YAML) is read and written by the shells.
//!
//! It may hold the device's private key, so the file is 0600 and `Debug` shows no secret.

use crate::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::mtu::{MAX_MTU, MIN_MTU};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;
use std::time::Duration;

/// The version of the format that this program reads and writes.
pub const PROFILE_VERSION: u32 = 1;

/// A device's side of the tunnel.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// [`PROFILE_VERSION`].
    pub version: u32,
    /// The device's name, as the gateway knows it.
    pub name: String,
    /// The device's key. Absent when the gateway was given the public half only: the owner writes
    /// the private half here.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "expose_private"
    )]
    pub private_key: Option<PrivateKey>,
    /// The device's own addresses inside the tunnel.
    pub addresses: Vec<IpAddr>,
    /// Inner MTU, bytes.
    pub mtu: u16,
    /// The other end.
    pub gateway: ProfileGateway,
    /// What goes into the tunnel; nothing else does.
    pub include: Vec<IpNet>,
    /// Pause after which an idle tunnel says that it lives. Absent: never.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "seconds")]
    pub keepalive: Option<Duration>,
    /// The second secret of the handshake, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "preshared")]
    pub preshared_key: Option<PresharedKey>,
    /// When the key came into use, seconds since 1970. Absent: not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key_since: Option<u64>,
    /// The key that is to replace `private_key`: written before its first use, and tried beside
    /// the other until the gateway has answered it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        serialize_with = "expose_private"
    )]
    pub next_private_key: Option<PrivateKey>,
    /// The second secret that goes with `next_private_key`.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "preshared")]
    pub next_preshared_key: Option<PresharedKey>,
}

/// The gateway, as a device sees it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProfileGateway {
    /// Who it is.
    pub public_key: PublicKey,
    /// Where it is, in the order in which to try.
    pub endpoints: Vec<HostPort>,
    /// Its own addresses inside the tunnel.
    pub tunnel_addresses: Vec<IpAddr>,
}

/// `host:port`; the host is a name, an IPv4 address, or an IPv6 address in brackets.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    /// A DNS name or an address without brackets.
    pub host: String,
    /// UDP port, never 0.
    pub port: u16,
}

/// One thing wrong with a profile: where, what, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {problem}")]
pub struct ProfileProblem {
    /// Field, as in the file: `include[2]`.
    pub path: String,
    /// What is wrong and what to write instead.
    pub problem: String,
}

/// Text that is not `host:port`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "'{text}' is not HOST:PORT; write for example vpn.example.com:51820 or [2001:db8::1]:51820"
)]
pub struct BadHostPort {
    text: String,
}

impl Profile {
    /// Everything that is wrong with it; empty when a tunnel can be made of it.
    #[must_use]
    pub fn check(&self) -> Vec<ProfileProblem> {
        let mut problems = Vec::new();
        let mut say = |path: String, problem: &str| {
            problems.push(ProfileProblem {
                path,
                problem: problem.to_owned(),
            });
        };
        if self.version != PROFILE_VERSION {
            say(
                "version".into(),
                "this program reads version 1; write `version: 1`",
            );
        }
        if self.name.is_empty() {
            say(
                "name".into(),
                "empty; write the name that the device was added under",
            );
        }
        if self.private_key.is_none() {
            say(
                "private_key".into(),
                "missing; write the private half of the key that was enrolled (44 characters of base64)",
            );
        }
        if !(MIN_MTU..=MAX_MTU).contains(&usize::from(self.mtu)) {
            say(
                "mtu".into(),
                "outside 1280 to 9000; write 1420 unless the path is known to differ",
            );
        }
        addresses("addresses", &self.addresses, &mut say);
        addresses(
            "gateway.tunnel_addresses",
            &self.gateway.tunnel_addresses,
            &mut say,
        );
        if self.gateway.endpoints.is_empty() {
            say(
                "gateway.endpoints".into(),
                "empty; write at least one HOST:PORT",
            );
        }
        for (place, net) in self.include.iter().enumerate() {
            let path = format!("include[{place}]");
            if net.prefix_len() == 0 {
                say(
                    path,
                    "a default route never enters the tunnel; list the targets instead",
                );
            } else if net.trunc() != *net {
                let help = format!("{net} has host bits set; write {}", net.trunc());
                say(path, &help);
            } else if !carries_targets(net) {
                say(
                    path,
                    "holds multicast, loopback, link-local or broadcast addresses; list addresses of targets",
                );
            }
        }
        problems
    }
}

impl FromStr for HostPort {
    type Err = BadHostPort;

    fn from_str(text: &str) -> Result<Self, BadHostPort> {
        parse_host_port(text).ok_or_else(|| BadHostPort {
            text: text.to_owned(),
        })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Serialize for HostPort {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HostPort {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

fn parse_host_port(text: &str) -> Option<HostPort> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = match host.strip_prefix('[') {
        Some(rest) => {
            let inner = rest.strip_suffix(']')?;
            inner.parse::<std::net::Ipv6Addr>().ok()?;
            inner
        }
        None => Some(host).filter(|host| is_host(host))?,
    };
    Some(HostPort {
        host: host.to_owned(),
        port,
    })
}

/// An IPv4 address or a DNS name (RFC 1123, section 2.1; underscores are seen in the wild).
fn is_host(text: &str) -> bool {
    let numeric = text
        .split('.')
        .all(|label| label.bytes().all(|b| b.is_ascii_digit()));
    if numeric {
        return text.parse::<std::net::Ipv4Addr>().is_ok();
    }
    text.len() <= 253
        && text.trim_end_matches('.').split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

fn addresses(path: &str, list: &[IpAddr], say: &mut impl FnMut(String, &str)) {
    if list.is_empty() {
        say(
            path.to_owned(),
            "empty; write the tunnel addresses that the gateway gave",
        );
    }
    for (place, address) in list.iter().enumerate() {
        if address.is_unspecified() || address.is_multicast() || address.is_loopback() {
            say(format!("{path}[{place}]"), "not a unicast address");
        } else if list[..place].contains(address) {
            say(format!("{path}[{place}]"), "listed twice; remove one");
        }
    }
}

/// Multicast, loopback, link-local, broadcast (RFC 6890, RFC 5771, RFC 4291 section 2.4).
const NO_TARGETS: [IpNet; 7] = [
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::LOCALHOST, 8)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(169, 254, 0, 0), 16)),
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::BROADCAST, 32)),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0),
        8,
    )),
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
    IpNet::V6(Ipv6Net::new_assert(
        Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0),
        10,
    )),
];

/// Whether packets to every address of this range can have a target.
fn carries_targets(net: &IpNet) -> bool {
    // Prefixes overlap where one holds the other.
    !NO_TARGETS
        .iter()
        .any(|none| none.contains(&net.network()) || net.contains(&none.network()))
}

fn expose_private<S: Serializer>(key: &Option<PrivateKey>, to: S) -> Result<S::Ok, S::Error> {
    match key {
        Some(key) => to.serialize_str(&key.expose_base64()),
        None => to.serialize_none(),
    }
}

mod preshared {
    use super::{Deserialize, Deserializer, PresharedKey, Serializer};
    use base64::prelude::{BASE64_STANDARD, Engine as _};

    pub(super) fn serialize<S: Serializer>(
        key: &Option<PresharedKey>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match key {
            Some(key) => to.serialize_str(&BASE64_STANDARD.encode(key.0)),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<PresharedKey>, D::Error> {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(serde::de::Error::custom))
            .transpose()
    }
}

/// A duration as whole seconds: `25s`.
mod seconds {
    use super::{Deserialize, Deserializer, Duration, Serializer};

    pub(super) fn serialize<S: Serializer>(
        pause: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match pause {
            Some(pause) => to.collect_str(&format_args!("{}s", pause.as_secs())),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let Some(text) = Option::<String>::deserialize(from)? else {
            return Ok(None);
        };
        text.strip_suffix('s')
            .and_then(|number| number.parse::<u16>().ok())
            .filter(|number| *number != 0)
            .map(|number| Some(Duration::from_secs(u64::from(number))))
            .ok_or_else(|| {
                serde::de::Error::custom(format!("'{text}' is no pause in seconds; write 25s"))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> Profile {
        let private = PrivateKey::from_random([3; 32]);
        Profile {
            version: PROFILE_VERSION,
            name: "ana-laptop".into(),
            addresses: vec![
                "100.96.0.2".parse().expect("v4"),
                "fd00::2".parse().expect("v6"),
            ],
            mtu: 1420,
            gateway: ProfileGateway {
                public_key: private.public(),
                endpoints: vec!["vpn.example.com:51820".parse().expect("host and port")],
                tunnel_addresses: vec!["100.96.0.1".parse().expect("v4")],
            },
            private_key: Some(private),
            include: vec!["192.0.2.10/32".parse().expect("net")],
            keepalive: Some(Duration::from_secs(25)),
            preshared_key: Some(PresharedKey([9; 32])),
            key_since: Some(1_800_000_000),
            next_private_key: Some(PrivateKey::from_random([8; 32])),
            next_preshared_key: Some(PresharedKey([10; 32])),
        }
    }

    #[test]
    fn a_profile_without_the_newer_fields_is_read_and_gains_none() {
        let mut old = good();
        (old.key_since, old.next_private_key, old.next_preshared_key) = (None, None, None);
        let text = serde_json::to_string(&old).expect("serialises");
        assert!(
            !text.contains("next_") && !text.contains("key_since"),
            "{text}"
        );
        let again: Profile = serde_json::from_str(&text).expect("an old profile");
        assert_eq!(again.check(), []);
    }

    #[test]
    fn a_profile_survives_its_text_form() {
        let text = serde_json::to_string(&good()).expect("serialises");
        let again: Profile = serde_json::from_str(&text).expect("own text form");
        assert_eq!(serde_json::to_string(&again).expect("serialises"), text);
        assert!(text.contains("\"keepalive\":\"25s\""), "{text}");
        assert_eq!(again.check(), []);
    }

    #[test]
    fn debug_shows_no_secret() {
        let profile = good();
        let shown = format!("{profile:?}");
        for key in [&profile.private_key, &profile.next_private_key] {
            let secret = key.as_ref().expect("has one").expose_base64();
            assert!(!shown.contains(&secret), "{shown}");
        }
        assert!(shown.contains("PresharedKey(redacted)"), "{shown}");
    }

    #[test]
    fn everything_wrong_is_said_at_once() {
        let mut profile = good();
        profile.version = 2;
        profile.private_key = None;
        profile.mtu = 600;
        profile.addresses.clear();
        profile.gateway.endpoints.clear();
        profile.include = ["0.0.0.0/0", "::/0", "10.0.0.1/8", "224.0.0.0/4"]
            .map(|net| net.parse().expect("net"))
            .to_vec();
        let paths: Vec<_> = profile
            .check()
            .into_iter()
            .map(|problem| problem.path)
            .collect();
        assert_eq!(
            paths,
            [
                "version",
                "private_key",
                "mtu",
                "addresses",
                "gateway.endpoints",
                "include[0]",
                "include[1]",
                "include[2]",
                "include[3]",
            ]
        );
    }

    #[test]
    fn a_range_that_only_overlaps_what_has_no_target_is_refused() {
        let problems = |net: &str| {
            let mut profile = good();
            profile.include = vec![net.parse().expect(net)];
            profile.check().len()
        };
        for bad in [
            "192.0.0.0/2",
            "112.0.0.0/4",
            "168.0.0.0/6",
            "127.0.0.1/32",
            "239.1.2.3/32",
            "fc00::/6",
            "ff02::1/128",
            "::1/128",
        ] {
            assert_eq!(problems(bad), 1, "{bad}");
        }
        for good in ["10.0.0.0/8", "192.0.0.0/3", "2000::/3", "fc00::/7"] {
            assert_eq!(problems(good), 0, "{good}");
        }
    }

    #[test]
    fn endpoints_are_host_and_port() {
        for good in [
            "vpn.example.com:51820",
            "192.0.2.1:1",
            "[2001:db8::1]:51820",
            "gw:51820",
        ] {
            assert_eq!(good.parse::<HostPort>().expect(good).to_string(), good);
        }
        for bad in [
            "vpn.example.com",
            "vpn.example.com:0",
            ":51820",
            "2001:db8::1:51820",
            "1.2.3:5",
            "http://vpn:51820",
            "[gw]:51820",
            "a b:51820",
            "gw:99999",
            "-gw:5",
            "256.0.0.1:5",
        ] {
            assert!(bad.parse::<HostPort>().is_err(), "{bad}");
        }
    }
}
