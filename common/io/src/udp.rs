//! UDP both ways, forty datagrams in one system call: GSO on the way out, GRO and recvmmsg on the
//! way in, over IPv4 and IPv6 sockets on one port.

use crate::clock::Clock;
use crate::send_batch::{Run, SendBatch};
use postern_proto::now::Mono;
use postern_proto::outbox::Endpoint;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

/// Messages in one receive call. More was no faster: the buffers fall out of the cache.
pub const RECEIVE_BUFFERS: usize = 8;

/// Bytes of each: one GRO message. Memory for each worker: 512 KiB in all.
pub const RECEIVE_BUFFER: usize = 65_536;

/// What we ask the kernel to queue in each direction, in bytes.
pub const SOCKET_BUFFER: usize = 4 * 1024 * 1024;

/// How long a destination that refused a run of datagrams gets them one by one.
pub const NO_GSO_FOR: Duration = Duration::from_secs(60);

/// Destinations remembered as such. When there are more, it is the interface, not the path, and
/// everybody gets single datagrams.
pub const NO_GSO_DESTINATIONS: usize = 32;

/// How long a full send queue is waited for.
const WAIT_TO_SEND: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 1_000_000,
};

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
        let receiver = UdpRx {
            v4: half(&self.v4)?,
            v6: half(&self.v6)?,
            bytes: vec![0; RECEIVE_BUFFERS * RECEIVE_BUFFER].into_boxed_slice(),
            stats: UdpRxStats::default(),
        };
        let sender = UdpTx {
            v4: half(&self.v4)?,
            v6: half(&self.v6)?,
            batch: SendBatch::default(),
            no_gso: NoGso::default(),
            stats: UdpTxStats::default(),
        };
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
}

/// What was received so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpRxStats {
    /// Receive calls that brought something.
    pub calls: u64,
    /// Messages: each one datagram, or several that the kernel had joined.
    pub messages: u64,
    /// Datagrams.
    pub datagrams: u64,
    /// Receive calls that failed.
    pub errors: u64,
}

/// The receiving half.
#[derive(Debug)]
pub struct UdpRx {
    v4: Option<Half>,
    v6: Option<Half>,
    bytes: Box<[u8]>,
    stats: UdpRxStats,
}

impl UdpRx {
    /// The IPv4 socket, to wait for.
    #[must_use]
    pub fn v4(&self) -> Option<BorrowedFd<'_>> {
        self.v4.as_ref().map(|half| half.end.socket.as_fd())
    }

    /// The IPv6 socket, to wait for.
    #[must_use]
    pub fn v6(&self) -> Option<BorrowedFd<'_>> {
        self.v6.as_ref().map(|half| half.end.socket.as_fd())
    }

    /// What was received so far.
    #[must_use]
    pub fn stats(&self) -> UdpRxStats {
        self.stats
    }

    /// Receives from the IPv4 socket, at most `rounds` calls, and hands over each datagram.
    pub fn receive_v4(&mut self, rounds: usize, handle: impl FnMut(Endpoint, &mut [u8])) {
        receive(
            self.v4.as_ref(),
            &mut self.bytes,
            &mut self.stats,
            rounds,
            handle,
        );
    }

    /// Receives from the IPv6 socket, at most `rounds` calls, and hands over each datagram.
    pub fn receive_v6(&mut self, rounds: usize, handle: impl FnMut(Endpoint, &mut [u8])) {
        receive(
            self.v6.as_ref(),
            &mut self.bytes,
            &mut self.stats,
            rounds,
            handle,
        );
    }
}

fn receive(
    half: Option<&Half>,
    bytes: &mut [u8],
    stats: &mut UdpRxStats,
    rounds: usize,
    mut handle: impl FnMut(Endpoint, &mut [u8]),
) {
    let Some(half) = half else { return };
    for _ in 0..rounds {
        let mut metas = [RecvMeta::default(); RECEIVE_BUFFERS];
        let mut chunks = bytes.chunks_exact_mut(RECEIVE_BUFFER);
        let mut buffers: [IoSliceMut<'_>; RECEIVE_BUFFERS] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let received = half
            .state
            .recv((&half.end.socket).into(), &mut buffers, &mut metas);
        let count = match received {
            Ok(count) => count,
            Err(error) => {
                // An error that was pending on the socket is cleared by having been told.
                if error.kind() != io::ErrorKind::WouldBlock {
                    stats.errors += 1;
                }
                return;
            }
        };
        stats.calls += 1;
        for (meta, message) in metas
            .iter()
            .zip(bytes.chunks_exact_mut(RECEIVE_BUFFER))
            .take(count)
        {
            stats.messages += 1;
            let from = Endpoint {
                remote: meta.addr,
                local: meta.dst_ip,
            };
            let message = &mut message[..meta.len.min(RECEIVE_BUFFER)];
            // An empty datagram has no stride.
            for datagram in message.chunks_mut(meta.stride.max(1)) {
                stats.datagrams += 1;
                handle(from, datagram);
            }
        }
        if count < RECEIVE_BUFFERS {
            return;
        }
    }
}

/// What was sent so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UdpTxStats {
    /// Send calls that succeeded.
    pub calls: u64,
    /// Datagrams that the kernel took.
    pub datagrams: u64,
    /// Datagrams that it did not take: `kernel-refused`.
    pub refused: u64,
    /// Of these, larger than the path or the interface carries.
    pub too_long: u64,
    /// Runs that had to be sent again one by one.
    pub resent_singly: u64,
}

/// The sending half: datagrams are written into it and leave at [`UdpTx::flush`], or before that
/// when its buffer is full.
#[derive(Debug)]
pub struct UdpTx {
    v4: Option<Half>,
    v6: Option<Half>,
    batch: SendBatch,
    no_gso: NoGso,
    stats: UdpTxStats,
}

impl UdpTx {
    /// Room for one datagram of at most `room` bytes.
    pub fn slot(&mut self, to: Endpoint, room: usize) -> &mut [u8] {
        if !self.batch.has_room(room) {
            self.flush();
        }
        self.batch.slot(to, room)
    }

    /// The first `len` bytes of the last slot are to be sent.
    pub fn commit(&mut self, len: usize) {
        self.batch.commit(len);
    }

    /// Sends everything. A queue that is full is waited for, a millisecond at most; what it does
    /// not take then is dropped and counted.
    pub fn flush(&mut self) {
        let UdpTx {
            v4,
            v6,
            batch,
            no_gso,
            stats,
        } = self;
        batch.drain(|run| {
            let half = if run.to.remote.is_ipv4() {
                &mut *v4
            } else {
                &mut *v6
            };
            match half {
                Some(half) => half.send_run(run, no_gso, stats),
                None => stats.refused += run.datagrams() as u64,
            }
        });
    }

    /// What was sent so far.
    #[must_use]
    pub fn stats(&self) -> UdpTxStats {
        self.stats
    }

    /// Destinations that get their datagrams one by one at present, at most
    /// [`NO_GSO_DESTINATIONS`].
    #[must_use]
    pub fn no_gso_destinations(&self) -> usize {
        self.no_gso.entries.len()
    }
}

impl Half {
    fn send_run(&mut self, run: Run<'_>, no_gso: &mut NoGso, stats: &mut UdpTxStats) {
        let count = run.datagrams();
        if count > 1 && self.state.max_gso_segments() >= count && !no_gso.covers(run.to.remote) {
            match self.send(run.to, run.bytes, Some(run.segment)) {
                Ok(()) => {
                    stats.calls += 1;
                    stats.datagrams += count as u64;
                    return;
                }
                Err(error) if is_about_gso(&error) => {
                    // The interface cannot, or a datagram is larger than the path: the kernel
                    // does not say which. The others keep their runs.
                    no_gso.add(run.to.remote, Clock::now().mono);
                    stats.resent_singly += 1;
                    if let Ok(state) = self.end.arm() {
                        self.state = state;
                    }
                }
                Err(_) => {
                    stats.refused += count as u64;
                    return;
                }
            }
        }
        for datagram in run.iter() {
            match self.send(run.to, datagram, None) {
                Ok(()) => {
                    stats.calls += 1;
                    stats.datagrams += 1;
                }
                Err(error) => {
                    stats.refused += 1;
                    stats.too_long += u64::from(quinn_udp::is_msg_size_err(&error));
                }
            }
        }
    }

    fn send(&self, to: Endpoint, contents: &[u8], segment_size: Option<usize>) -> io::Result<()> {
        let transmit = Transmit {
            destination: to.remote,
            ecn: None,
            contents,
            segment_size,
            src_ip: to.local,
        };
        let socket = &self.end.socket;
        match self.state.try_send(socket.into(), &transmit) {
            Err(error) if is_full(&error) => {
                let mut wanted = [PollFd::new(socket, PollFlags::OUT)];
                let _ = poll(&mut wanted, Some(&WAIT_TO_SEND));
                self.state.try_send(socket.into(), &transmit)
            }
            result => result,
        }
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS))
}

fn is_about_gso(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EINVAL | libc::EMSGSIZE)
    )
}

/// Destinations whose runs were refused.
#[derive(Debug)]
struct NoGso {
    entries: Vec<(SocketAddr, Mono)>,
    everybody_until: Option<Mono>,
}

impl Default for NoGso {
    fn default() -> Self {
        NoGso {
            entries: Vec::with_capacity(NO_GSO_DESTINATIONS),
            everybody_until: None,
        }
    }
}

impl NoGso {
    fn add(&mut self, to: SocketAddr, now: Mono) {
        let until = now + NO_GSO_FOR;
        if self.entries.len() == NO_GSO_DESTINATIONS {
            self.everybody_until = Some(until);
            return;
        }
        self.entries.push((to, until));
    }

    /// Reads the clock only when somebody is on the list.
    fn covers(&mut self, to: SocketAddr) -> bool {
        if self.entries.is_empty() && self.everybody_until.is_none() {
            return false;
        }
        self.covers_at(to, Clock::now().mono)
    }

    fn covers_at(&mut self, to: SocketAddr, now: Mono) -> bool {
        self.entries.retain(|(_, until)| *until > now);
        self.everybody_until = self.everybody_until.filter(|until| *until > now);
        self.everybody_until.is_some() || self.entries.iter().any(|(address, _)| *address == to)
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
