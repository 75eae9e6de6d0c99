//! UDP both ways, forty datagrams in one system call: GSO on the way out, GRO and recvmmsg on the
//! way in, over IPv4 and IPv6 sockets on one port.

use quinn_udp::UdpSocketState;
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;

mod receive;
mod send;

pub use receive::{RECEIVE_BUFFER, RECEIVE_BUFFERS, RECEIVE_CALLS, UdpRx, UdpRxStats};
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
}

impl Default for UdpOptions {
    fn default() -> Self {
        UdpOptions {
            port: 0,
            v4: Some(Ipv4Addr::UNSPECIFIED),
            v6: Some(Ipv6Addr::UNSPECIFIED),
            may_fragment: false,
            mark: None,
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
        const TRIES: usize = 16;
        // With port 0 the kernel picks one for IPv4, which may be taken in IPv6.
        for last in (0..TRIES).rev() {
            match UdpEnd::bind_once(options) {
                Err(UdpError::PortInUse(_)) if options.port == 0 && last > 0 => {}
                result => return result,
            }
        }
        Err(UdpError::NoFamily)
    }

    fn bind_once(options: &UdpOptions) -> Result<UdpEnd, UdpError> {
        let mut port = options.port;
        let mut open = |address: Option<SocketAddr>| -> Result<Option<Arc<End>>, UdpError> {
            let Some(mut address) = address else {
                return Ok(None);
            };
            address.set_port(port);
            let Some(end) = End::open(address, options)? else {
                return Ok(None);
            };
            port = end
                .port()
                .map_err(|source| UdpError::Other { address, source })?;
            Ok(Some(Arc::new(end)))
        };
        let v4 = open(options.v4.map(|ip| SocketAddr::from((ip, 0))))?;
        let v6 = open(options.v6.map(|ip| SocketAddr::from((ip, 0))))?;
        if v4.is_none() && v6.is_none() {
            return Err(UdpError::NoFamily);
        }
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

impl End {
    /// `None` if the host does not have the address family.
    fn open(address: SocketAddr, options: &UdpOptions) -> Result<Option<End>, UdpError> {
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
        enlarge(&socket, libc::SO_RCVBUFFORCE, libc::SO_RCVBUF);
        enlarge(&socket, libc::SO_SNDBUFFORCE, libc::SO_SNDBUF);
        Ok(Some(End {
            socket,
            may_fragment: options.may_fragment,
        }))
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
}

impl Half {
    fn new(end: Arc<End>) -> io::Result<Half> {
        let state = end.arm()?;
        Ok(Half { end, state })
    }

    /// quinn-udp gives up segmentation for good after one refusal; we do not.
    fn arm_again(&mut self) {
        if let Ok(state) = self.end.arm() {
            self.state = state;
        }
    }
}

/// Past the system's limit where we may, up to it otherwise.
fn enlarge(socket: &Socket, force: libc::c_int, polite: libc::c_int) {
    let wanted = SOCKET_BUFFER as libc::c_int;
    if set_option(socket, libc::SOL_SOCKET, force, wanted).is_err() {
        // What was granted is reported by UdpEnd::buffers.
        let _ = set_option(socket, libc::SOL_SOCKET, polite, wanted);
    }
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
