//! Ports and protocols: `6443/tcp`, `8000-8010/tcp`, `53/udp`, `icmp`.

use super::nearest::nearest;
use postern_proto::flow_key::Protocol;
use std::fmt;

/// One entry of `ports`. ICMP has port 0 alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ports {
    pub(super) protocol: Protocol,
    pub(super) low: u16,
    pub(super) high: u16,
}

/// A set of ports as disjoint, sorted ranges: membership costs a binary search.
#[derive(Clone, Debug, Default)]
pub(super) struct PortSet {
    ranges: Vec<Ports>,
}

impl PortSet {
    pub(super) fn new(mut written: Vec<Ports>) -> Self {
        written.sort_unstable();
        let mut ranges: Vec<Ports> = Vec::new();
        for next in written {
            match ranges.last_mut() {
                Some(last)
                    if last.protocol == next.protocol
                        && u32::from(next.low) <= u32::from(last.high) + 1 =>
                {
                    last.high = last.high.max(next.high);
                }
                Some(_) | None => ranges.push(next),
            }
        }
        PortSet { ranges }
    }

    /// Every port of every protocol.
    pub(super) fn anything() -> Self {
        PortSet::new(vec![
            Ports {
                protocol: Protocol::Tcp,
                low: 0,
                high: u16::MAX,
            },
            Ports {
                protocol: Protocol::Udp,
                low: 0,
                high: u16::MAX,
            },
            Ports {
                protocol: Protocol::Icmp,
                low: 0,
                high: 0,
            },
        ])
    }

    pub(super) fn is_anything(&self) -> bool {
        self.ranges == PortSet::anything().ranges
    }

    pub(super) fn ranges(&self) -> &[Ports] {
        &self.ranges
    }

    pub(super) fn contains(&self, protocol: Protocol, port: u16) -> bool {
        let after = self
            .ranges
            .partition_point(|r| (r.protocol, r.low) <= (protocol, port));
        after > 0 && {
            let range = self.ranges[after - 1];
            range.protocol == protocol && port <= range.high
        }
    }
}

impl fmt::Display for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.protocol, self.low, self.high) {
            (Protocol::Icmp, _, _) => f.write_str("icmp"),
            (protocol, low, high) if low == high => write!(f, "{low}/{protocol}"),
            (protocol, low, high) => write!(f, "{low}-{high}/{protocol}"),
        }
    }
}

/// Parses an entry of `ports`; otherwise what is wrong and what to write instead.
pub(super) fn parse(text: &str) -> Result<Ports, (String, String)> {
    let no = |what: String, help: String| Err((what, help));
    let Some((numbers, name)) = text.split_once('/') else {
        return if text == "icmp" {
            Ok(Ports {
                protocol: Protocol::Icmp,
                low: 0,
                high: 0,
            })
        } else if let Ok(protocol) = protocol(text) {
            let help = format!("write `1-65535/{protocol}` for every port");
            no(format!("`{text}` names no port"), help)
        } else if numbers(text).is_some() {
            let help = format!("write `{text}/tcp` or `{text}/udp`");
            no(format!("port `{text}` has no protocol"), help)
        } else {
            no(format!("`{text}` is not a port"), EXAMPLE.to_owned())
        };
    };
    let protocol = match protocol(name) {
        Ok(Protocol::Icmp) => {
            return no(
                format!("`{text}`: icmp has no ports"),
                "write `icmp`".to_owned(),
            );
        }
        Ok(protocol) => protocol,
        Err(help) => return no(format!("`{name}` is not a protocol"), help),
    };
    let Some((low, high)) = self::numbers(numbers) else {
        return no(
            format!("`{numbers}` is not a port or a range of ports"),
            EXAMPLE.to_owned(),
        );
    };
    let (Ok(first), Ok(last)) = (u16::try_from(low), u16::try_from(high)) else {
        let what = format!("port {} does not exist", low.max(high));
        return no(what, "ports are 1 to 65535".to_owned());
    };
    if first == 0 || last == 0 {
        let help = format!("ports are 1 to 65535; write `1-65535/{protocol}` for every port");
        return no("port 0 does not exist".to_owned(), help);
    }
    if first > last {
        let what = format!("the range `{numbers}` is the wrong way round");
        return no(what, format!("write `{last}-{first}/{protocol}`"));
    }
    Ok(Ports {
        protocol,
        low: first,
        high: last,
    })
}

/// `tcp`, `udp` or `icmp`; otherwise what to write instead.
pub(super) fn protocol(name: &str) -> Result<Protocol, String> {
    const KNOWN: [Protocol; 3] = [Protocol::Tcp, Protocol::Udp, Protocol::Icmp];
    if let Some(protocol) = KNOWN.into_iter().find(|p| p.as_str() == name) {
        return Ok(protocol);
    }
    Err(match nearest(name, KNOWN.iter().map(|p| p.as_str())) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "the protocols are `tcp`, `udp` and `icmp`".to_owned(),
    })
}

const EXAMPLE: &str = "write `22/tcp`, `8000-8010/tcp`, `53/udp` or `icmp`, each as its own item";

fn numbers(text: &str) -> Option<(u64, u64)> {
    let number = |digits: &str| -> Option<u64> {
        let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
        plain.then(|| digits.parse().unwrap_or(u64::MAX))
    };
    match text.split_once('-') {
        Some((low, high)) => Some((number(low)?, number(high)?)),
        None => number(text).map(|n| (n, n)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_and_overlaps_join() {
        let set = PortSet::new(
            [
                "80-90/tcp",
                "22/tcp",
                "91/tcp",
                "85-100/tcp",
                "22/udp",
                "65535/tcp",
                "icmp",
            ]
            .map(|p| parse(p).unwrap())
            .to_vec(),
        );
        let shown: Vec<String> = set.ranges().iter().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            ["22/tcp", "80-100/tcp", "65535/tcp", "22/udp", "icmp"]
        );
        assert!(set.contains(Protocol::Tcp, 100) && !set.contains(Protocol::Tcp, 101));
        assert!(set.contains(Protocol::Udp, 22) && !set.contains(Protocol::Udp, 80));
        assert!(set.contains(Protocol::Tcp, 65535) && !set.contains(Protocol::Udp, 65535));
        assert!(set.contains(Protocol::Icmp, 0));
    }
}
