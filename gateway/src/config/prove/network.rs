//! Names and addresses of the tunnel.

use super::{Field, line_of, say};
use crate::config::Problem;
use crate::pool::Pool;
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use postern_proto::invitation::GUESTS;
use serde_saphyr::Spanned;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const DEFAULT_POOL_V4: &str = "100.96.0.0/16";

/// The kernel takes 15 bytes without `/` and white space (dev_valid_name).
pub(super) fn interface(p: &mut Vec<Problem>, raw: Field<String>) -> String {
    let default = "postern0".to_owned();
    let Some(raw) = raw else { return default };
    let fits = (1..=15).contains(&raw.value.len())
        && raw
            .value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
        && raw.value.bytes().any(|b| b.is_ascii_alphanumeric());
    if !fits {
        let problem = format!("'{}' is no interface name", raw.value);
        let help = "write 1 to 15 of a-z 0-9 _ - . such as postern0";
        say(p, line_of(&raw), "interface", problem, help);
        return default;
    }
    raw.value
}

pub(super) fn pool(p: &mut Vec<Problem>, raw_v4: Field<String>, raw_v6: Field<String>) -> Pool {
    let fallback = Pool {
        v4: Ipv4Net::new_assert(Ipv4Addr::new(100, 96, 0, 0), 16),
        v6: Ipv6Net::new_assert(Ipv6Addr::new(0xfd00, 0, 0, 0, 0, 0, 0, 0), 64),
    };
    Pool {
        v4: raw_v4
            .map_or(Some(fallback.v4), |raw| pool_v4(p, &raw))
            .unwrap_or(fallback.v4),
        v6: pool_v6(p, raw_v6).unwrap_or(fallback.v6),
    }
}

fn pool_v4(p: &mut Vec<Problem>, raw: &Spanned<String>) -> Option<Ipv4Net> {
    let help = format!("write a private range that nobody uses, such as {DEFAULT_POOL_V4}");
    let (line, text) = (line_of(raw), &raw.value);
    let Ok(net) = text.parse::<Ipv4Net>() else {
        say(
            p,
            line,
            "pool_v4",
            format!("'{text}' is no IPv4 range"),
            help,
        );
        return None;
    };
    let address = net.network();
    if net.trunc() != net {
        let problem = format!("{net} has host bits set");
        say(
            p,
            line,
            "pool_v4",
            problem,
            format!("write {}", net.trunc()),
        );
    } else if !(8..=29).contains(&net.prefix_len()) {
        say(
            p,
            line,
            "pool_v4",
            format!("/{} is outside /8 to /29", net.prefix_len()),
            help,
        );
    } else if address.is_loopback() || address.is_multicast() || address.is_link_local() {
        say(p, line, "pool_v4", format!("{net} is not unicast"), help);
    } else {
        return Some(net);
    }
    None
}

fn pool_v6(p: &mut Vec<Problem>, raw: Field<String>) -> Option<Ipv6Net> {
    let help = "write a /64 of your own, such as fd6a:3c1e:9d20:1::/64 (`init` makes a random one)";
    let Some(raw) = raw else {
        say(p, 0, "pool_v6", "missing".into(), help);
        return None;
    };
    let (line, text) = (line_of(&raw), &raw.value);
    let Ok(net) = text.parse::<Ipv6Net>() else {
        say(
            p,
            line,
            "pool_v6",
            format!("'{text}' is no IPv6 range"),
            help,
        );
        return None;
    };
    let address = net.network();
    if net.trunc() != net {
        let problem = format!("{net} has host bits set");
        say(
            p,
            line,
            "pool_v6",
            problem,
            format!("write {}", net.trunc()),
        );
    } else if !(16..=96).contains(&net.prefix_len()) {
        say(
            p,
            line,
            "pool_v6",
            format!("/{} is outside /16 to /96", net.prefix_len()),
            help,
        );
    } else if address.is_multicast() || address.is_unicast_link_local() || address.is_unspecified()
    {
        say(p, line, "pool_v6", format!("{net} is not unicast"), help);
    } else if overlaps_guests(&net.into()) {
        let problem = format!("{net} overlaps {GUESTS}, which is Postern's own");
        say(p, line, "pool_v6", problem, help);
    } else {
        return Some(net);
    }
    None
}

pub(super) fn include(
    p: &mut Vec<Problem>,
    raw: Field<Vec<Spanned<String>>>,
    pool: Pool,
) -> Option<Vec<IpNet>> {
    let raw = raw?;
    if raw.value.is_empty() {
        let help = "list ranges, or remove the line to take every address of the policy";
        say(
            p,
            line_of(&raw),
            "include",
            "the list is empty".into(),
            help,
        );
    }
    let mut all = Vec::new();
    for (place, item) in raw.value.iter().enumerate() {
        let field = format!("include[{place}]");
        match range(&item.value, pool) {
            Ok(net) => all.push(net),
            Err((problem, help)) => say(p, line_of(item), &field, problem, help),
        }
    }
    all.sort();
    all.dedup();
    Some(all)
}

/// Addresses of throw-away keys: no device and no target may have one.
fn overlaps_guests(net: &IpNet) -> bool {
    let guests = IpNet::V6(GUESTS);
    guests.contains(net) || net.contains(&guests)
}

fn range(text: &str, pool: Pool) -> Result<IpNet, (String, String)> {
    let net = match (text.parse::<IpNet>(), text.parse::<IpAddr>()) {
        (Ok(net), _) => net,
        (Err(_), Ok(address)) => IpNet::from(address),
        (Err(_), Err(_)) => {
            let help = "write for example 192.0.2.10 or 192.0.2.0/24".to_owned();
            return Err((format!("'{text}' is no address or range"), help));
        }
    };
    if net.prefix_len() == 0 {
        let help = "list the targets: only they enter the tunnel".to_owned();
        return Err(("a default route never enters the tunnel".to_owned(), help));
    }
    if net.trunc() != net {
        return Err((
            format!("{net} has host bits set"),
            format!("write {}", net.trunc()),
        ));
    }
    let own: [IpNet; 2] = [pool.v4.into(), pool.v6.into()];
    if own
        .iter()
        .any(|own| own.contains(&net) || net.contains(own))
    {
        let help = "remove it: devices reach the gateway's tunnel address by themselves".to_owned();
        return Err((format!("{net} overlaps the tunnel's own pool"), help));
    }
    if overlaps_guests(&net) {
        let help = "remove it: what joins has these addresses until it has joined".to_owned();
        return Err((
            format!("{net} overlaps {GUESTS}, which is Postern's own"),
            help,
        ));
    }
    Ok(net)
}
