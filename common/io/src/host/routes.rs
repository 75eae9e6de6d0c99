//! The kernel's routes and addresses, by netlink.

use super::{HostError, interface_name};
use ipnet::IpNet;
use route_manager::{Route, RouteChange, RouteManager};
use rustix::io::Errno;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

/// RT_TABLE_MAIN: what `ip route` shows.
const MAIN: u8 = 254;
/// RT_TABLE_LOCAL: the host's own addresses (and broadcasts).
const LOCAL: u8 = 255;

/// One route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostRoute {
    /// Where it leads.
    pub prefix: IpNet,
    /// The next hop; `None` when the prefix is on the link itself.
    pub gateway: Option<IpAddr>,
    /// The interface; `None` for unreachable and blackhole routes.
    pub interface: Option<String>,
    /// Lower wins among equal prefixes.
    pub metric: u32,
}

/// One of the host's own addresses (IPv4 broadcasts count: they are not free for others either).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostAddress {
    /// The address.
    pub address: IpAddr,
    /// Its interface.
    pub interface: String,
}

/// How the host reaches an endpoint now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPath {
    /// The address that the kernel would send from.
    pub source: IpAddr,
    /// The interface that owns it.
    pub interface: Option<String>,
    /// The next hop; `None` when the endpoint is on the link.
    pub gateway: Option<IpAddr>,
}

/// The main table, in the kernel's order.
///
/// # Errors
/// Netlink failed.
pub fn routes() -> Result<Vec<HostRoute>, HostError> {
    Ok(list()?
        .into_iter()
        .filter(|route| route.table() == MAIN)
        .filter_map(|route| {
            Some(HostRoute {
                prefix: IpNet::new(route.destination(), route.prefix())
                    .ok()?
                    .trunc(),
                gateway: route.gateway(),
                interface: route.if_name().cloned(),
                metric: route.metric().unwrap_or(0),
            })
        })
        .collect())
}

/// Every address of the host, loopback included.
///
/// # Errors
/// Netlink failed.
pub fn addresses() -> Result<Vec<HostAddress>, HostError> {
    Ok(list()?
        .into_iter()
        .filter(|route| route.table() == LOCAL)
        .filter(|route| {
            route.prefix()
                == if route.destination().is_ipv4() {
                    32
                } else {
                    128
                }
        })
        .filter_map(|route| {
            Some(HostAddress {
                address: route.destination(),
                interface: route.if_name()?.clone(),
            })
        })
        .collect())
}

/// Routes `prefix` to `interface` in the main table. Adding what is there already is no error.
///
/// # Errors
/// Another route for exactly this prefix stands in the way, or the kernel refused.
pub fn add_route(prefix: IpNet, interface: &str) -> Result<(), HostError> {
    let what = || format!("routing {prefix} to {interface}");
    let result =
        RouteManager::new().and_then(|mut manager| manager.add(&route(prefix, interface)?));
    match result {
        Err(error) if is(&error, Errno::EXIST) => {
            let ours = routes()?.iter().any(|route| {
                route.prefix == prefix && route.interface.as_deref() == Some(interface)
            });
            if ours {
                Ok(())
            } else {
                Err(failed(what(), error))
            }
        }
        result => result.map_err(|error| failed(what(), error)),
    }
}

/// Removes the route that [`add_route`] made. Removing what is gone is no error.
///
/// # Errors
/// The kernel refused.
pub fn delete_route(prefix: IpNet, interface: &str) -> Result<(), HostError> {
    if !interface_exists(interface)? {
        return Ok(()); // The kernel removed its routes with it.
    }
    let result =
        RouteManager::new().and_then(|mut manager| manager.delete(&route(prefix, interface)?));
    match result {
        Err(error) if is(&error, Errno::SRCH) || is(&error, Errno::NODEV) => Ok(()),
        result => result.map_err(|error| failed(format!("removing the route to {prefix}"), error)),
    }
}

/// Whether an interface of this name exists.
///
/// # Errors
/// The name is none.
pub fn interface_exists(name: &str) -> Result<bool, HostError> {
    let name = std::ffi::CString::new(interface_name(name)?)
        .map_err(|_| HostError::InterfaceName(name.to_owned()))?;
    // SAFETY: the pointer is to a string with its end, alive during the call.
    Ok(unsafe { libc::if_nametoindex(name.as_ptr()) } != 0)
}

/// How the kernel would reach `remote` now. Sends nothing.
///
/// # Errors
/// There is no route to it, or netlink failed.
pub fn path_to(remote: SocketAddr) -> Result<HostPath, HostError> {
    let any: IpAddr = match remote {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = UdpSocket::bind((any, 0))
        .and_then(|socket| {
            socket.connect(remote)?;
            socket.local_addr()
        })
        .map_err(|error| failed(format!("looking up the route to {}", remote.ip()), error))?
        .ip();
    let interface = addresses()?
        .into_iter()
        .find(|own| own.address == source)
        .map(|own| own.interface);
    let gateway = routes()?
        .into_iter()
        .filter(|route| route.interface == interface && route.prefix.contains(&remote.ip()))
        .max_by_key(|route| (route.prefix.prefix_len(), std::cmp::Reverse(route.metric)))
        .and_then(|route| route.gateway);
    Ok(HostPath {
        source,
        interface,
        gateway,
    })
}

/// Calls `changed` from a thread of its own whenever a route of the main table comes or goes, but
/// for routes of `except` (our own interface). The thread lasts as long as the process.
///
/// # Errors
/// Netlink failed, or no thread could be started.
pub fn watch_routes(
    except: String,
    mut changed: impl FnMut() + Send + 'static,
) -> Result<(), HostError> {
    let what = || "watching the routes".to_owned();
    let mut listener = RouteManager::listener().map_err(|error| failed(what(), error))?;
    std::thread::Builder::new()
        .name("routes".to_owned())
        .spawn(move || {
            loop {
                match listener.listen() {
                    Ok(
                        RouteChange::Add(route)
                        | RouteChange::Delete(route)
                        | RouteChange::Change(route),
                    ) => {
                        if route.table() == MAIN && route.if_name() != Some(&except) {
                            changed();
                        }
                    }
                    // Too many at once for the socket: something changed, that is all we ask.
                    Err(error) if is(&error, Errno::NOBUFS) => changed(),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    // A message that the crate cannot read is not the end of the watch, but an
                    // error of the socket itself would come back at once, for ever.
                    Err(error) if error.raw_os_error().is_none() => changed(),
                    Err(error) => {
                        tracing::warn!(%error, "route changes are no longer watched");
                        return;
                    }
                }
            }
        })
        .map(drop)
        .map_err(|error| failed(what(), error))
}

fn list() -> Result<Vec<Route>, HostError> {
    RouteManager::new()
        .and_then(|mut manager| manager.list())
        .map_err(|error| failed("listing the routes".to_owned(), error))
}

fn route(prefix: IpNet, interface: &str) -> io::Result<Route> {
    interface_name(interface).map_err(io::Error::other)?;
    Ok(Route::new(prefix.network(), prefix.prefix_len())
        .with_if_name(interface.to_owned())
        .with_table(MAIN))
}

fn is(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

fn failed(what: String, source: io::Error) -> HostError {
    if is(&source, Errno::PERM) {
        HostError::NotPermitted { what }
    } else {
        HostError::Kernel { what, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::{in_namespace, ip};

    fn net(text: &str) -> IpNet {
        text.parse().expect("a prefix")
    }

    #[test]
    fn routes_come_and_go_and_nothing_else_moves() {
        in_namespace(|| {
            ip("tuntap add dev tun7 mode tun");
            ip("link set tun7 up");
            ip("address add 100.64.0.2/32 dev tun7");
            ip("address add fd00::2/128 dev tun7 nodad");
            let before = (ip("-4 route"), ip("-6 route"));
            for prefix in ["192.0.2.10/32", "198.51.100.0/24", "2001:db8::/64"] {
                add_route(net(prefix), "tun7").expect("added");
                add_route(net(prefix), "tun7").expect("already there");
                let listed = routes().expect("listed");
                assert!(
                    listed.iter().any(|route| route.prefix == net(prefix)
                        && route.interface.as_deref() == Some("tun7")
                        && route.gateway.is_none()),
                    "{prefix} not in {listed:?}"
                );
            }
            for prefix in ["192.0.2.10/32", "198.51.100.0/24", "2001:db8::/64"] {
                delete_route(net(prefix), "tun7").expect("deleted");
                delete_route(net(prefix), "tun7").expect("already gone");
            }
            assert_eq!((ip("-4 route"), ip("-6 route")), before);
            delete_route(net("192.0.2.10/32"), "gone0").expect("no interface, no route");
        });
    }

    #[test]
    fn another_route_in_the_way_is_an_error() {
        in_namespace(|| {
            for tun in ["tun7", "tun8"] {
                ip(&format!("tuntap add dev {tun} mode tun"));
                ip(&format!("link set {tun} up"));
            }
            ip("route add 192.0.2.10/32 dev tun8");
            let error = add_route(net("192.0.2.10/32"), "tun7")
                .expect_err("taken")
                .to_string();
            assert!(error.contains("192.0.2.10/32"), "{error}");
        });
    }

    #[test]
    fn the_path_to_an_endpoint_names_source_interface_and_gateway() {
        in_namespace(|| {
            ip("link set lo up");
            ip("link add left0 type veth peer name right0");
            ip("address add 10.1.0.2/24 dev left0");
            ip("link set left0 up");
            ip("link set right0 up");
            let far: SocketAddr = "203.0.113.9:51820".parse().expect("an address");
            assert!(path_to(far).is_err(), "no route yet");
            ip("route add default via 10.1.0.1");
            let path = path_to(far).expect("a route");
            assert_eq!(path.source, IpAddr::from([10, 1, 0, 2]));
            assert_eq!(path.interface.as_deref(), Some("left0"));
            assert_eq!(path.gateway, Some(IpAddr::from([10, 1, 0, 1])));
            let near = path_to("10.1.0.77:1".parse().expect("an address")).expect("on the link");
            assert_eq!(near.gateway, None);
            assert!(addresses().expect("listed").contains(&HostAddress {
                address: IpAddr::from([10, 1, 0, 2]),
                interface: "left0".to_owned()
            }));
        });
    }
}
