//! What would go wrong on this host, said before it does and with the remedy.

use super::gateway::GatewayHostConfig;
use super::privileges::has_net_admin;
use super::{HostError, nft, routes, sysctl};
use ipnet::IpNet;
use rustix::fs::{Access, access};
use serde::Serialize;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use std::{fmt, io};

/// Socket buffers below this lose datagrams in bursts; the kernel's default is 208 KiB.
const GOOD_RMEM_MAX: u64 = 4 * 1024 * 1024;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Works, and worth knowing.
    Note,
    /// Works for some traffic, or badly.
    Warning,
    /// Will not work.
    Error,
}

/// Something about the host, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What was found.
    pub what: String,
    /// What to do; empty when nothing needs doing.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {}", self.what)?;
        if self.remedy.is_empty() {
            Ok(())
        } else {
            write!(f, "; {}", self.remedy)
        }
    }
}

/// Looks at everything that the gateway will need, without changing it. `udp_port` is the port to
/// be listened on, `None` when the gateway itself is running and holds it.
#[must_use]
pub fn check(config: &GatewayHostConfig, udp_port: Option<u16>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |severity, what: String, remedy: &str| {
        findings.push(Finding {
            severity,
            what,
            remedy: remedy.to_owned(),
        });
    };

    if !has_net_admin() {
        found(
            Severity::Error,
            "CAP_NET_ADMIN is missing".to_owned(),
            "run as root, or `setcap cap_net_admin+ep` the binary; in a container `--cap-add NET_ADMIN`",
        );
    }
    match access("/dev/net/tun", Access::READ_OK | Access::WRITE_OK) {
        Ok(()) => {}
        Err(rustix::io::Errno::NOENT) => found(
            Severity::Error,
            "/dev/net/tun does not exist".to_owned(),
            "`modprobe tun`; in a container `--device /dev/net/tun`",
        ),
        Err(error) => found(
            Severity::Error,
            format!("/dev/net/tun cannot be opened: {error}"),
            "run as root",
        ),
    }
    if let Some(port) = udp_port
        && let Some(error) = port_taken(port)
    {
        found(
            Severity::Error,
            format!("UDP port {port}: {error}"),
            &format!("see who has it with `ss -lunp 'sport = :{port}'`, or listen on another port"),
        );
    }

    for (pool, key) in [
        (config.pool_v4.is_some(), "net/ipv4/ip_forward"),
        (config.pool_v6.is_some(), "net/ipv6/conf/all/forwarding"),
    ] {
        if !pool {
            continue;
        }
        match sysctl::get(key) {
            Ok(value) if value == "0" => found(
                Severity::Note,
                format!("{key} is 0"),
                "the gateway sets it to 1 while it runs and puts it back",
            ),
            Ok(_) => {}
            Err(error) => found(Severity::Error, error.to_string(), ""),
        }
    }
    // Replies of targets come back by the interface that the request left by, which strict
    // reverse-path filtering accepts.
    if sysctl::get("net/ipv4/conf/all/rp_filter").is_ok_and(|value| value == "1") {
        found(
            Severity::Note,
            "reverse-path filtering is strict (net/ipv4/conf/all/rp_filter = 1)".to_owned(),
            "fine unless replies of targets come back by another interface than requests leave by; then set it to 2",
        );
    }
    if let Ok(value) = sysctl::get("net/core/rmem_max")
        && value
            .parse::<u64>()
            .is_ok_and(|bytes| bytes < GOOD_RMEM_MAX)
        && !has_net_admin()
    {
        found(
            Severity::Warning,
            format!("net/core/rmem_max is {value} bytes: bursts will be lost"),
            &format!("`sysctl -w net.core.rmem_max={GOOD_RMEM_MAX}`, and in /etc/sysctl.d"),
        );
    }

    match nft::forward_drops(&config.interface) {
        Ok(drops) => {
            for drop in drops {
                found(
                    Severity::Error,
                    format!(
                        "the firewall chain `{}` drops what this gateway forwards",
                        drop.chain
                    ),
                    &drop.remedy,
                );
            }
        }
        // Without the capability that was said already.
        Err(HostError::NotPermitted { .. }) => {}
        Err(error) => found(Severity::Error, error.to_string(), ""),
    }
    match overlaps(config) {
        Ok(texts) => {
            for text in texts {
                found(Severity::Error, text, "choose another pool");
            }
        }
        Err(error) => found(Severity::Error, error.to_string(), ""),
    }
    findings
}

/// Why the port cannot be had, on IPv4 or IPv6.
fn port_taken(port: u16) -> Option<io::Error> {
    let v4 = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).map(drop);
    let v6 = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, port)).map(drop);
    let taken = |result: io::Result<()>| {
        // A host without IPv6 is not a host whose port is taken.
        result.err().filter(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
            )
        })
    };
    taken(v4).or(taken(v6))
}

fn overlaps(config: &GatewayHostConfig) -> Result<Vec<String>, HostError> {
    let pools: Vec<IpNet> = config
        .pool_v4
        .map(IpNet::from)
        .into_iter()
        .chain(config.pool_v6.map(IpNet::from))
        .collect();
    let mut texts = Vec::new();
    for route in routes::routes()? {
        // /0 and /1 are default routes in disguise: everything overlaps them.
        if route.interface.as_deref() == Some(&config.interface) || route.prefix.prefix_len() <= 1 {
            continue;
        }
        for pool in pools.iter().filter(|pool| overlap(pool, &route.prefix)) {
            let by = route.interface.as_deref().unwrap_or("no interface");
            texts.push(format!(
                "the pool {pool} overlaps the route to {} ({by})",
                route.prefix
            ));
        }
    }
    for own in routes::addresses()? {
        if own.interface == config.interface {
            continue;
        }
        for pool in pools.iter().filter(|pool| pool.contains(&own.address)) {
            texts.push(format!(
                "the pool {pool} holds this host's {} ({})",
                own.address, own.interface
            ));
        }
    }
    Ok(texts)
}

/// Whether two prefixes share an address: then one holds the other.
fn overlap(a: &IpNet, b: &IpNet) -> bool {
    a.contains(&b.network()) || b.contains(&a.network())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::Egress;
    use crate::host::testing::in_namespace;
    use std::process::Command;

    fn config() -> GatewayHostConfig {
        GatewayHostConfig {
            interface: "postern0".to_owned(),
            pool_v4: Some("100.64.0.0/24".parse().expect("a pool")),
            pool_v6: None,
            egress: Egress::Masquerade,
            state_file: "/nonexistent/host.json".into(),
        }
    }

    fn sh(line: &str) {
        assert!(
            Command::new("sh")
                .args(["-c", line])
                .status()
                .expect("a shell")
                .success(),
            "{line}"
        );
    }

    #[test]
    fn a_clean_host_has_nothing_worse_than_notes() {
        in_namespace(|| {
            let findings = check(&config(), Some(51_820));
            assert!(
                findings
                    .iter()
                    .all(|finding| finding.severity == Severity::Note),
                "{findings:?}"
            );
        });
    }

    #[test]
    fn a_taken_port_an_overlap_and_a_foreign_firewall_are_named() {
        in_namespace(|| {
            sh("ip link set lo up; ip address add 100.64.0.77/32 dev lo");
            sh(
                "printf 'table ip filter {\\n chain FORWARD {\\n type filter hook forward priority 0; policy drop;\\n }\\n}\\n' | nft -f -",
            );
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a port");
            let port = socket.local_addr().expect("bound").port();
            let findings = check(&config(), Some(port));
            let errors: Vec<String> = findings
                .iter()
                .filter(|finding| finding.severity == Severity::Error)
                .map(ToString::to_string)
                .collect();
            assert_eq!(errors.len(), 3, "{errors:?}");
            assert!(
                errors[0].contains(&format!("UDP port {port}")),
                "{errors:?}"
            );
            assert!(errors[1].contains("ip filter FORWARD"), "{errors:?}");
            assert!(errors[2].contains("100.64.0.77"), "{errors:?}");
        });
    }
}
