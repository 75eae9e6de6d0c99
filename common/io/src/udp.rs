//! UDP both ways, forty datagrams in one system call: GSO on the way out, GRO and recvmmsg on the
//! way in, over IPv4 and IPv6 sockets on one port.

use crate::offload::{self, Switches};
use quinn_udp::UdpSocketState;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;

mod group;
mod receive;
mod send;

pub use group::{DOOR_BUFFER, UdpGroup};
pub use receive::{About, HANDED_OUT, RECEIVE_BUFFERS, RECEIVE_CALLS, UdpRx, UdpRxStats};
pub use send::{NO_GSO_DESTINATIONS, NO_GSO_FOR, UdpTx, UdpTxStats};

/// What we ask the kernel to queue in each direction, in bytes.
pub const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// How the sockets are to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// The port of both sockets; zero for any.
    pub port: u16,
    /// Our IPv4 address, or none to leave IPv4 out.
    pub v4: Option<Ipv4Addr>,
    /// Our IPv6 address, or none to leave IPv6 out.
    pub v6: Option<Ipv6Addr>,
    /// Whether the network may fragment what we send. Without, a path that is too small loses
    /// large packets; with, it carries them in two.
    pub may_fragment: bool,
    /// SO_MARK on what we send, so that policy routing can tell it from what goes in the tunnel.
    pub mark: Option<u32>,
    /// Whether to send and to receive datagrams together.
    pub offload: Switches,
}

impl Default for UdpOptions {
    fn default() -> Self {
        UdpOptions {
            port: 0,
            v4: Some(Ipv4Addr::UNSPECIFIED),
            v6: Some(Ipv6Addr::UNSPECIFIED),
            may_fragment: false,
            mark: None,
            offload: Switches::AUTO,
        }
    }
}

/// Why there are no sockets.
#[derive(Debug, thiserror::Error)]
pub enum UdpError {
    /// Somebody else has the port.
    #[error(
        "UDP port {0} is in use; another program (perhaps a second gateway, or wg) listens there: see `ss -ulpn`"
    )]
    PortInUse(SocketAddr),
    /// The address is not of this host.
    #[error(
        "{0} is not an address of this host; listen on one of `ip address`, or on all with 0.0.0.0 and ::"
    )]
    NoSuchAddress(SocketAddr),
    /// Ports below 1024, or SO_MARK.
    #[error("no permission to {doing} {address}: it needs {capability}")]
    NotPermitted {
        /// What was tried.
        doing: &'static str,
        /// Where.
        address: SocketAddr,
        /// What would allow it.
        capability: &'static str,
    },
    /// No mask makes this number.
    #[error("cannot steer datagrams to {0} workers: use 1, 2, 4 or 8")]
    Workers(usize),
    /// The kernel does not take the program that tells workers' datagrams apart.
    #[error(
        "cannot steer what arrives at {address} to its worker: {source}; it needs SO_ATTACH_REUSEPORT_CBPF (Linux 4.6, not in gVisor) and room for one filter (sysctl net.core.optmem_max)"
    )]
    Steering {
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
    /// Neither IPv4 nor IPv6 is there, or neither was asked for.
    #[error("neither IPv4 nor IPv6 sockets can be opened on this host")]
    NoFamily,
    /// Anything else.
    #[error("UDP socket on {address}: {source}")]
    Other {
        /// Where.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The sockets, before they are [split](UdpEnd::split) into a receiver and a sender.
#[derive(Debug)]
pub struct UdpEnd {
    v4: Option<Arc<End>>,
    v6: Option<Arc<End>>,
    port: u16,
}

#[derive(Debug)]
struct End {
    socket: Socket,
    may_fragment: bool,
    offload: Switches,
}

/// What the kernel granted of [`SOCKET_BUFFER`], in bytes: the smaller of the sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketBuffers {
    /// For what comes in.
    pub receive: usize,
    /// For what goes out.
    pub send: usize,
}

impl UdpEnd {
    /// Opens both sockets on one port. A host without IPv6 (or without IPv4) gets only the other.
    ///
    /// # Errors
    /// See [`UdpError`].
    pub fn bind(options: &UdpOptions) -> Result<UdpEnd, UdpError> {
        let open = |address| {
            let end = End::open(address, options, Port::Own, SOCKET_BUFFER)?;
            Ok(end.into_iter().collect())
        };
        let (mut v4, mut v6, port) = on_one_port(options, open)?;
        let (v4, v6) = (v4.pop(), v6.pop());
        Ok(UdpEnd { v4, v6, port })
    }

    /// The port of both sockets.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether there is an IPv4 and an IPv6 socket.
    #[must_use]
    pub fn families(&self) -> (bool, bool) {
        (self.v4.is_some(), self.v6.is_some())
    }

    /// What the kernel granted.
    #[must_use]
    pub fn buffers(&self) -> SocketBuffers {
        let ends = || self.v4.iter().chain(&self.v6);
        // The kernel reports twice of what it grants, for its own bookkeeping (socket(7)).
        let receive = ends()
            .filter_map(|end| end.socket.recv_buffer_size().ok())
            .min();
        let send = ends()
            .filter_map(|end| end.socket.send_buffer_size().ok())
            .min();
        SocketBuffers {
            receive: receive.unwrap_or(0) / 2,
            send: send.unwrap_or(0) / 2,
        }
    }

    /// Independent halves on the same sockets.
    ///
    /// # Errors
    /// When the kernel refuses a socket option that every Linux has.
    pub fn split(self) -> io::Result<(UdpRx, UdpTx)> {
        let half = |end: &Option<Arc<End>>| -> io::Result<Option<Half>> {
            end.as_ref()
                .map(|end| Half::new(Arc::clone(end)))
                .transpose()
        };
        let receiver = UdpRx::new(half(&self.v4)?, half(&self.v6)?);
        let sender = UdpTx::new(half(&self.v4)?, half(&self.v6)?);
        Ok((receiver, sender))
    }
}

/// What IPv4 has, what IPv6 has, and the port of all.
type Families = (Vec<Arc<End>>, Vec<Arc<End>>, u16);

/// Calls `open` for each family that is wanted. It returns nothing for one that the host does not
/// have.
fn on_one_port(
    options: &UdpOptions,
    open: impl Fn(SocketAddr) -> Result<Vec<Arc<End>>, UdpError>,
) -> Result<Families, UdpError> {
    const TRIES: usize = 16;
    let once = || {
        let mut port = options.port;
        let mut family = |ip: Option<IpAddr>| {
            let Some(ip) = ip else {
                return Ok(Vec::new());
            };
            let address = SocketAddr::new(ip, port);
            let ends = open(address)?;
            if let Some(end) = ends.first() {
                port = end
                    .port()
                    .map_err(|source| UdpError::Other { address, source })?;
            }
            Ok(ends)
        };
        let v4 = family(options.v4.map(IpAddr::V4))?;
        let v6 = family(options.v6.map(IpAddr::V6))?;
        if v4.is_empty() && v6.is_empty() {
            return Err(UdpError::NoFamily);
        }
        Ok((v4, v6, port))
    };
    // With port 0 the kernel picks one for IPv4, which may be taken in IPv6.
    for last in (0..TRIES).rev() {
        match once() {
            Err(UdpError::PortInUse(_)) if options.port == 0 && last > 0 => {}
            result => return result,
        }
    }
    Err(UdpError::NoFamily)
}

/// Whose a port is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    /// Nobody else's.
    Own,
    /// That of others of the same user who agreed: SO_REUSEPORT.
    Shared,
}

impl End {
    /// `None` if the host does not have the address family.
    fn open(
        address: SocketAddr,
        options: &UdpOptions,
        port: Port,
        receive_buffer: usize,
    ) -> Result<Option<Arc<End>>, UdpError> {
        let explain = |source: io::Error| match source.raw_os_error() {
            Some(libc::EADDRINUSE) => UdpError::PortInUse(address),
            Some(libc::EADDRNOTAVAIL) => UdpError::NoSuchAddress(address),
            Some(libc::EACCES | libc::EPERM) => UdpError::NotPermitted {
                doing: "listen on",
                address,
                capability: "CAP_NET_BIND_SERVICE for ports below 1024",
            },
            _ => UdpError::Other { address, source },
        };
        let socket = match Socket::new(
            Domain::for_address(address),
            Type::DGRAM,
            Some(Protocol::UDP),
        ) {
            Ok(socket) => socket,
            Err(error) if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => return Ok(None),
            Err(error) => return Err(explain(error)),
        };
        if address.is_ipv6() {
            socket.set_only_v6(true).map_err(explain)?;
        }
        if let Some(mark) = options.mark {
            socket
                .set_mark(mark)
                .map_err(|source| match source.raw_os_error() {
                    Some(libc::EPERM) => UdpError::NotPermitted {
                        doing: "mark packets from",
                        address,
                        capability: "CAP_NET_ADMIN",
                    },
                    _ => UdpError::Other { address, source },
                })?;
        }
        if port == Port::Shared {
            share_port(&socket).map_err(explain)?;
        }
        match socket.bind(&address.into()) {
            Ok(()) => {}
            // IPv6 is compiled in, but switched off (net.ipv6.conf.all.disable_ipv6).
            Err(error)
                if error.raw_os_error() == Some(libc::EADDRNOTAVAIL)
                    && address == SocketAddr::from((Ipv6Addr::UNSPECIFIED, address.port())) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(explain(error)),
        }
        let (force, polite) = (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF);
        enlarge(&socket, force, polite, receive_buffer);
        let (force, polite) = (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF);
        enlarge(&socket, force, polite, SOCKET_BUFFER);
        Ok(Some(Arc::new(End {
            socket,
            may_fragment: options.may_fragment,
            offload: options.offload,
        })))
    }

    fn port(&self) -> io::Result<u16> {
        let address = self.socket.local_addr()?.as_socket();
        Ok(address.map_or(0, |address| address.port()))
    }

    /// GSO, GRO and packet information on; then back off what quinn-udp switches on besides.
    fn arm(&self) -> io::Result<UdpSocketState> {
        let state = UdpSocketState::new((&self.socket).into())?;
        // A time stamp for each packet, which we do not read.
        set_option(&self.socket, libc::SOL_SOCKET, libc::SO_TIMESTAMPNS, 0)?;
        if !self.offload.allow(offload::Half::UdpReceive) && state.gro_segments() > 1 {
            set_option(&self.socket, libc::SOL_UDP, libc::UDP_GRO, 0)?;
        }
        if self.may_fragment {
            let v6 = self.socket.domain()? == Domain::IPV6;
            if v6 {
                set_option(
                    &self.socket,
                    libc::IPPROTO_IPV6,
                    libc::IPV6_MTU_DISCOVER,
                    libc::IPV6_PMTUDISC_DONT,
                )?;
                set_option(&self.socket, libc::IPPROTO_IPV6, libc::IPV6_DONTFRAG, 0)?;
            } else {
                set_option(
                    &self.socket,
                    libc::IPPROTO_IP,
                    libc::IP_MTU_DISCOVER,
                    libc::IP_PMTUDISC_DONT,
                )?;
            }
        }
        Ok(state)
    }
}

/// One socket as one half sees it.
#[derive(Debug)]
struct Half {
    end: Arc<End>,
    state: UdpSocketState,
    /// Datagrams that the kernel cuts from one run, as it said when it was probed.
    most: usize,
}

impl Half {
    fn new(end: Arc<End>) -> io::Result<Half> {
        let state = end.arm()?;
        let most = state.max_gso_segments();
        Ok(Half { end, state, most })
    }

    /// quinn-udp gives up segmentation for good after one refusal; we do not.
    fn arm_again(&mut self) {
        if let Ok(state) = self.end.arm() {
            self.state = state;
        }
    }
}

/// Past the system's limit where we may, up to it otherwise.
fn enlarge(socket: &Socket, force: libc::c_int, polite: libc::c_int, wanted: usize) {
    let wanted = libc::c_int::try_from(wanted).unwrap_or(libc::c_int::MAX);
    if set_option(socket, libc::SOL_SOCKET, force, wanted).is_err() {
        // What was granted is reported by UdpEnd::buffers.
        let _ = set_option(socket, libc::SOL_SOCKET, polite, wanted);
    }
}

fn share_port(socket: &Socket) -> io::Result<()> {
    set_option(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)
}

fn set_option(
    socket: &Socket,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> io::Result<()> {
    let length = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the pointer and the length are those of an int that lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast(),
            length,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
