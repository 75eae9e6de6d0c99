//! The include list and nothing else: which routes the tunnel gets, or why it gets none. Made
//! after they are written down, removed with the interface, cleaned up after a dead predecessor.

use ipnet::IpNet;
use postern_io::host::routes::{self, HostAddress, HostRoute};
use postern_io::host::{HostError, record};
use postern_proto::profile::Profile;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

/// What will change on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The tunnel's IPv4 address.
    pub v4: Option<Ipv4Addr>,
    /// The tunnel's IPv6 address.
    pub v6: Option<Ipv6Addr>,
    /// What is routed into it: the include list, and the gateway's own tunnel addresses.
    pub routes: Vec<IpNet>,
}

/// Why the tunnel cannot be made on this host as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clash {
    /// The include list is a default route, alone or together.
    DefaultRoute(IpNet),
    /// The gateway itself would be reached through the tunnel.
    Endpoint {
        /// The entry.
        include: IpNet,
        /// The endpoint that it covers.
        endpoint: SocketAddr,
    },
    /// The entry overlaps a network that this host is on.
    Local {
        /// The entry.
        include: IpNet,
        /// The network.
        network: IpNet,
        /// Its interface.
        interface: String,
    },
    /// The entry holds an address of this host.
    Own {
        /// The entry, or the tunnel's own address.
        include: IpNet,
        /// The address.
        address: IpAddr,
        /// Its interface.
        interface: String,
    },
    /// A route that leads elsewhere lies inside the entry, and would win.
    Route {
        /// The entry.
        include: IpNet,
        /// The other route.
        route: IpNet,
        /// Where it leads.
        interface: String,
    },
    /// Two tunnel addresses of one family.
    TwoAddresses(IpAddr),
}

impl fmt::Display for Clash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Clash::DefaultRoute(net) => write!(
                f,
                "the include list amounts to the default route {net}: Postern never takes over all traffic; list the targets instead"
            ),
            Clash::Endpoint { include, endpoint } => write!(
                f,
                "include {include} covers the gateway's endpoint {endpoint}: the tunnel would carry itself; take {} out of the include list, or reach the gateway by another address",
                endpoint.ip()
            ),
            Clash::Local {
                include,
                network,
                interface,
            } => write!(
                f,
                "include {include} overlaps {network}, a network that this host is on ({interface}); narrow the include list, or leave that network"
            ),
            Clash::Own {
                include,
                address,
                interface,
            } => write!(
                f,
                "{include} holds {address}, an address of this host ({interface}); is another tunnel up? `postern down`, or narrow the include list"
            ),
            Clash::Route {
                include,
                route,
                interface,
            } => write!(
                f,
                "this host routes {route} to {interface}, inside include {include}: that traffic would pass beside the tunnel; remove that route, or narrow the include list"
            ),
            Clash::TwoAddresses(address) => write!(
                f,
                "addresses: {address} is the second of its family; write one IPv4 and one IPv6 address at most"
            ),
        }
    }
}

/// Plans the tunnel of `profile` on a host with these routes and addresses; those of `interface`
/// (a predecessor's, about to go) do not count.
///
/// # Errors
/// Everything that stands in the way.
pub fn plan(
    profile: &Profile,
    interface: &str,
    endpoints: &[SocketAddr],
    routes: &[HostRoute],
    addresses: &[HostAddress],
) -> Result<Plan, Vec<Clash>> {
    let mut clashes = Vec::new();
    // Many small prefixes can amount to the whole Internet, too.
    if let Some(net) = IpNet::aggregate(&profile.include)
        .into_iter()
        .find(|net| net.prefix_len() <= 1)
    {
        clashes.push(Clash::DefaultRoute(net));
    }
    for include in &profile.include {
        for endpoint in endpoints
            .iter()
            .filter(|endpoint| include.contains(&endpoint.ip()))
        {
            clashes.push(Clash::Endpoint {
                include: *include,
                endpoint: *endpoint,
            });
        }
        if include.prefix_len() > 1 {
            clashes.extend(clash(*include, interface, routes, addresses));
        }
    }

    let mut planned = Plan {
        v4: None,
        v6: None,
        routes: Vec::new(),
    };
    for &address in &profile.addresses {
        let second = match address {
            IpAddr::V4(v4) => planned.v4.replace(v4).is_some(),
            IpAddr::V6(v6) => planned.v6.replace(v6).is_some(),
        };
        if second {
            clashes.push(Clash::TwoAddresses(address));
        }
        clashes.extend(clash(IpNet::from(address), interface, routes, addresses));
    }
    let gateway = profile
        .gateway
        .tunnel_addresses
        .iter()
        .copied()
        .map(IpNet::from);
    let wanted: BTreeSet<IpNet> = profile.include.iter().copied().chain(gateway).collect();
    let can_carry = |net: &IpNet| match net {
        IpNet::V4(_) => planned.v4.is_some(),
        IpNet::V6(_) => planned.v6.is_some(),
    };
    let routes = wanted.into_iter().filter(can_carry).collect();
    planned.routes = routes;
    if clashes.is_empty() {
        Ok(planned)
    } else {
        Err(clashes)
    }
}

/// The worst thing on this host that stands in the way of one entry.
fn clash(
    include: IpNet,
    interface: &str,
    routes: &[HostRoute],
    addresses: &[HostAddress],
) -> Option<Clash> {
    let name = |of: &HostRoute| of.interface.clone().unwrap_or_else(|| "nowhere".to_owned());
    let others = || {
        routes
            .iter()
            .filter(|route| route.interface.as_deref() != Some(interface))
            // /0 and /1 are default routes and mean to be overruled.
            .filter(|route| route.prefix.prefix_len() > 1)
    };
    let local = others()
        .filter(|route| route.gateway.is_none() && route.interface.is_some())
        .find(|route| include.contains(&route.prefix) || route.prefix.contains(&include))
        .map(|route| Clash::Local {
            include,
            network: route.prefix,
            interface: name(route),
        });
    let own = || {
        addresses
            .iter()
            .find(|own| own.interface != interface && include.contains(&own.address))
            .map(|own| Clash::Own {
                include,
                address: own.address,
                interface: own.interface.clone(),
            })
    };
    let inside = || {
        others()
            .find(|route| include.contains(&route.prefix))
            .map(|route| Clash::Route {
                include,
                route: route.prefix,
                interface: name(route),
            })
    };
    local.or_else(own).or_else(inside)
}

/// What a running client has changed, for the next start to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Record {
    interface: String,
    routes: Vec<IpNet>,
}

/// The routes of a running tunnel.
#[derive(Debug)]
pub struct SplitTunnel {
    file: PathBuf,
    record: Record,
}

impl SplitTunnel {
    /// Writes down what is going to be made, before the interface exists.
    ///
    /// # Errors
    /// The state file cannot be written.
    pub fn announce(file: &Path, interface: &str, plan: &Plan) -> Result<SplitTunnel, HostError> {
        let record = Record {
            interface: interface.to_owned(),
            routes: plan.routes.clone(),
        };
        record::write(file, &record).map_err(|source| HostError::State {
            path: file.to_owned(),
            source,
        })?;
        Ok(SplitTunnel {
            file: file.to_owned(),
            record,
        })
    }

    /// Makes the routes, when the interface is there; those of IPv6 if it has that.
    ///
    /// # Errors
    /// A route could not be made; those that were, are removed.
    pub fn make_routes(&self, v6: bool) -> Result<(), HostError> {
        for route in self
            .record
            .routes
            .iter()
            .filter(|route| v6 || route.addr().is_ipv4())
        {
            if let Err(error) = routes::add_route(*route, &self.record.interface) {
                let _ = self.remove_routes();
                return Err(error);
            }
        }
        Ok(())
    }

    /// Changes the routes while the interface is there. What is on both lists is not touched. The
    /// state file names the old and the new ones in between.
    ///
    /// # Errors
    /// A route could not be made, or the state file could not name it: the routes are as before.
    pub fn change(&mut self, routes: &[IpNet], v6: bool) -> Result<(), HostError> {
        let carried = |route: &IpNet| v6 || route.addr().is_ipv4();
        let before = self.record.routes.clone();
        let (fresh, gone) = difference(&before, routes);
        self.keep(before.iter().chain(&fresh).copied().collect())?;
        for (place, route) in fresh.iter().enumerate() {
            if carried(route)
                && let Err(error) = routes::add_route(*route, &self.record.interface)
            {
                for made in fresh.iter().take(place) {
                    let _ = routes::delete_route(*made, &self.record.interface);
                }
                let _ = self.keep(before.clone());
                self.record.routes = before;
                return Err(error);
            }
        }
        for route in gone.iter().filter(|route| carried(route)) {
            // One that somebody else removed is gone as well.
            let _ = routes::delete_route(*route, &self.record.interface);
        }
        if let Err(error) = self.keep(routes.to_vec()) {
            // The file names a few routes too many, which harms nobody.
            tracing::warn!(%error, "the state file keeps routes that are gone");
            self.record.routes = routes.to_vec();
        }
        Ok(())
    }

    fn keep(&mut self, routes: Vec<IpNet>) -> Result<(), HostError> {
        let record = Record {
            interface: self.record.interface.clone(),
            routes,
        };
        record::write(&self.file, &record).map_err(|source| HostError::State {
            path: self.file.clone(),
            source,
        })?;
        self.record = record;
        Ok(())
    }

    /// Removes routes and state file.
    ///
    /// # Errors
    /// The first thing that failed; everything is tried.
    pub fn remove(self) -> Result<(), HostError> {
        self.remove_routes()?;
        record::remove(&self.file).map_err(|source| HostError::State {
            path: self.file.clone(),
            source,
        })
    }

    fn remove_routes(&self) -> Result<(), HostError> {
        let mut first_error = Ok(());
        for route in &self.record.routes {
            let removed = routes::delete_route(*route, &self.record.interface);
            first_error = first_error.and(removed);
        }
        first_error
    }
}

/// What is new and what is gone.
fn difference(before: &[IpNet], after: &[IpNet]) -> (Vec<IpNet>, Vec<IpNet>) {
    let without = |one: &[IpNet], other: &[IpNet]| {
        let other: BTreeSet<&IpNet> = other.iter().collect();
        one.iter()
            .filter(|net| !other.contains(net))
            .copied()
            .collect()
    };
    (without(after, before), without(before, after))
}

/// Removes what a dead predecessor left, if the kernel did not: its interface goes with it, so
/// that is its state file, and routes only where somebody kept the interface alive.
///
/// # Errors
/// As [`SplitTunnel::remove`], or the file is not readable.
pub fn clean_up(file: &Path) -> Result<(), HostError> {
    let record = record::read(file).map_err(|source| HostError::State {
        path: file.to_owned(),
        source,
    })?;
    match record {
        Some(record) => SplitTunnel {
            file: file.to_owned(),
            record,
        }
        .remove(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
