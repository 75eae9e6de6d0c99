//! A gateway's changes to the host as one value. What stood before is written down and synced
//! before anything changes, so that the next start can put it back after a `kill -9`.

use super::{HostError, interface_name, nft, record, routes, sysctl};
use ipnet::{Ipv4Net, Ipv6Net};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// How allowed packets leave towards the targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Egress {
    /// With the gateway's address: targets need no route back.
    Masquerade,
    /// With the device's own address: targets route the pools to the gateway.
    Routed,
}

/// What a gateway needs from its host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayHostConfig {
    /// The TUN's name.
    pub interface: String,
    /// Where devices get their IPv4 addresses from.
    pub pool_v4: Option<Ipv4Net>,
    /// Where devices get their IPv6 addresses from.
    pub pool_v6: Option<Ipv6Net>,
    /// NAT or not.
    pub egress: Egress,
    /// Where to write down what stood before. On a disk that survives the process.
    pub state_file: PathBuf,
}

/// The host, set up. Dropping it tears down, as far as that works; [`GatewayHost::tear_down`] says
/// what did not.
#[derive(Debug)]
#[must_use = "dropping it tears the set-up down"]
pub struct GatewayHost {
    state_file: PathBuf,
    state: State,
    armed: bool,
}

/// What to put back, and whether this is still the host that it belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct State {
    version: u32,
    /// A reboot forgets sysctls and tables by itself.
    boot_id: String,
    /// So does a new network namespace.
    namespace: String,
    sysctls: Vec<Changed>,
}

/// One sysctl that we set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Changed {
    key: String,
    before: String,
    ours: String,
    /// What the kernel changes along with it and does not change back: the forwarding switches
    /// write every interface's own switch, and IPv4's flips `accept_redirects`.
    along: Vec<(String, String)>,
}

impl GatewayHost {
    /// Takes over or puts back what a predecessor left, then sets up sysctls and the table.
    /// Call it after the TUN exists.
    ///
    /// What a predecessor left by [`GatewayHost::leave`] or by a crash is taken over without a
    /// gap, so NAT keeps translating live flows; what this configuration no longer needs is put
    /// back.
    ///
    /// # Errors
    /// What failed and what to do. Whatever had been changed by then is put back.
    pub fn set_up(config: &GatewayHostConfig) -> Result<GatewayHost, HostError> {
        interface_name(&config.interface)?;
        let failed = |source| HostError::State {
            path: config.state_file.clone(),
            source,
        };
        let (boot_id, namespace) = here().map_err(failed)?;
        let earlier = earlier(&config.state_file, &boot_id, &namespace)?;

        let mut sysctls = Vec::new();
        for (key, ours) in wanted(config, &earlier)? {
            let current = sysctl::get(&key)?;
            if current != ours {
                let along = changed_along(&key);
                sysctls.push(Changed {
                    key,
                    before: current,
                    ours,
                    along,
                });
            } else if let Some(known) = earlier.iter().find(|changed| changed.key == key) {
                sysctls.push(known.clone());
            }
        }
        // What is no longer needed stays recorded until it has been put back.
        let kept: Vec<&str> = sysctls.iter().map(|changed| changed.key.as_str()).collect();
        let mut obsolete = earlier;
        obsolete.retain(|changed| !kept.contains(&changed.key.as_str()));

        let mut state = State {
            version: 1,
            boot_id,
            namespace,
            sysctls: sysctls.clone(),
        };
        state.sysctls.extend(obsolete.iter().cloned());
        record::write(&config.state_file, &state).map_err(failed)?;
        let mut host = GatewayHost {
            state_file: config.state_file.clone(),
            state,
            armed: true,
        };

        put_back(&obsolete)?;
        for changed in &sysctls {
            sysctl::set(&changed.key, &changed.ours)?;
        }
        nft::apply(config)?;
        if !obsolete.is_empty() {
            host.state.sysctls = sysctls;
            record::write(&host.state_file, &host.state).map_err(failed)?;
        }
        Ok(host)
    }

    /// Removes the table, puts the sysctls back where they still have our value, and removes the
    /// state file.
    ///
    /// # Errors
    /// The first thing that failed; everything is tried, and the state file stays for the next
    /// start.
    pub fn tear_down(mut self) -> Result<(), HostError> {
        self.armed = false;
        undo(&self.state_file, &self.state.sysctls)
    }

    /// Leaves table, sysctls and state file for a successor: for a restart in which live flows
    /// survive. Without the TUN nothing is forwarded meanwhile.
    pub fn leave(mut self) {
        self.armed = false;
    }

    /// Puts back what a gateway left, without starting one. Tells whether there was anything.
    ///
    /// # Errors
    /// As [`GatewayHost::tear_down`].
    pub fn clean_up(state_file: &Path) -> Result<bool, HostError> {
        let failed = |source| HostError::State {
            path: state_file.to_owned(),
            source,
        };
        if record::read::<State>(state_file).map_err(failed)?.is_none() {
            return Ok(false);
        }
        let (boot_id, namespace) = here().map_err(failed)?;
        undo(state_file, &earlier(state_file, &boot_id, &namespace)?)?;
        Ok(true)
    }
}

impl Drop for GatewayHost {
    fn drop(&mut self) {
        if self.armed
            && let Err(error) = undo(&self.state_file, &self.state.sysctls)
        {
            tracing::warn!(%error, "the host is not as it was; the next start tries again");
        }
    }
}

fn undo(state_file: &Path, sysctls: &[Changed]) -> Result<(), HostError> {
    let table = match nft::destroy() {
        Err(HostError::NftMissing) => Ok(()), // Then there is no table of ours either.
        result => result,
    };
    let values = put_back(sysctls);
    table.and(values)?;
    record::remove(state_file).map_err(|source| HostError::State {
        path: state_file.to_owned(),
        source,
    })
}

/// Only what still has our value: whoever changed it since then meant it.
fn put_back(sysctls: &[Changed]) -> Result<(), HostError> {
    let mut first_error = Ok(());
    for changed in sysctls {
        let result = match sysctl::get(&changed.key) {
            Ok(current) if current == changed.ours => sysctl::set(&changed.key, &changed.before)
                .map(|()| {
                    for (key, value) in &changed.along {
                        // The interface may be gone.
                        let _ = sysctl::set(key, value);
                    }
                }),
            Ok(_) => Ok(()),
            Err(HostError::Sysctl { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Ok(())
            }
            Err(error) => Err(error),
        };
        first_error = first_error.and(result);
    }
    first_error
}

fn earlier(path: &Path, boot_id: &str, namespace: &str) -> Result<Vec<Changed>, HostError> {
    let state: Option<State> = record::read(path).map_err(|source| HostError::State {
        path: path.to_owned(),
        source,
    })?;
    Ok(match state {
        Some(state) if state.boot_id == boot_id && state.namespace == namespace => state.sysctls,
        Some(_) | None => Vec::new(),
    })
}

fn here() -> std::io::Result<(String, String)> {
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let namespace = std::fs::read_link("/proc/thread-self/ns/net")?;
    Ok((
        boot_id.trim().to_owned(),
        namespace.to_string_lossy().into_owned(),
    ))
}

fn wanted(
    config: &GatewayHostConfig,
    earlier: &[Changed],
) -> Result<Vec<(String, String)>, HostError> {
    let mut wanted = Vec::new();
    if config.pool_v4.is_some() {
        wanted.push(("net/ipv4/ip_forward".to_owned(), "1".to_owned()));
    }
    if config.pool_v6.is_some() {
        // First, or the host would lose its own default route: a forwarding host ignores router
        // advertisements unless accept_ra is 2.
        for interface in learns_default_route()? {
            wanted.push((
                format!("net/ipv6/conf/{interface}/accept_ra"),
                "2".to_owned(),
            ));
        }
        for changed in earlier
            .iter()
            .filter(|changed| changed.key.ends_with("/accept_ra"))
        {
            wanted.push((changed.key.clone(), changed.ours.clone()));
        }
        wanted.push(("net/ipv6/conf/all/forwarding".to_owned(), "1".to_owned()));
    }
    Ok(wanted)
}

/// Interfaces whose IPv6 default route comes from router advertisements.
fn learns_default_route() -> Result<Vec<String>, HostError> {
    let mut interfaces: Vec<String> = routes::routes()?
        .into_iter()
        .filter(|route| route.prefix.prefix_len() == 0 && route.prefix.addr().is_ipv6())
        .filter_map(|route| route.interface)
        .filter(|name| {
            sysctl::get(&format!("net/ipv6/conf/{name}/accept_ra")).is_ok_and(|value| value == "1")
        })
        .collect();
    interfaces.sort();
    interfaces.dedup();
    Ok(interfaces)
}

fn changed_along(key: &str) -> Vec<(String, String)> {
    let family = match key {
        "net/ipv4/ip_forward" => "net/ipv4/conf",
        "net/ipv6/conf/all/forwarding" => "net/ipv6/conf",
        _ => return Vec::new(),
    };
    sysctl::entries(family)
        .into_iter()
        .filter(|name| name != "all")
        .map(|name| format!("{family}/{name}/forwarding"))
        .chain([format!("{family}/all/accept_redirects")])
        .filter_map(|key| {
            let value = sysctl::get(&key).ok()?;
            Some((key, value))
        })
        .collect()
}

#[cfg(test)]
mod tests;
