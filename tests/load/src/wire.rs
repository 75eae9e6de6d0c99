//! One UDP socket that may speak for many addresses of its host (`ip route add local PREFIX dev
//! lo`), and sends a run of equal datagrams in one call.

use crate::report::Failure;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, Socket, Type};
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

/// What the kernel is asked to queue in each direction.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
/// Messages in one receive call.
const BUFFERS: usize = 8;
/// One message: several datagrams that the kernel had joined.
const BUFFER: usize = 65_536;
/// Datagrams in one send (UDP_MAX_SEGMENTS).
const MAX_SEGMENTS: usize = 64;
/// Bytes in one send.
const MAX_RUN: usize = 65_000;
/// A queue that is full for so long is an error.
const PATIENCE: Duration = Duration::from_secs(1);

pub(crate) struct Wire {
    socket: Socket,
    state: UdpSocketState,
    bytes: Vec<u8>,
}

impl Wire {
    /// A socket on a port of its own, of the family of `to`.
    pub(crate) fn open(to: SocketAddr) -> Result<Wire, Failure> {
        Wire::try_open(to).map_err(Failure::io("opening a UDP socket"))
    }

    fn try_open(to: SocketAddr) -> io::Result<Wire> {
        let any = match to {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let socket = Socket::new(Domain::for_address(to), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_recv_buffer_size(SOCKET_BUFFER)?;
        socket.set_send_buffer_size(SOCKET_BUFFER)?;
        socket.bind(&any.into())?;
        let state = UdpSocketState::new((&socket).into())?;
        Ok(Wire {
            socket,
            state,
            bytes: vec![0; BUFFERS * BUFFER],
        })
    }

    /// How many datagrams of `len` bytes go in one call.
    pub(crate) fn run_of(&self, len: usize) -> usize {
        let fit = (MAX_RUN / len.max(1)).clamp(1, MAX_SEGMENTS);
        fit.min(self.state.max_gso_segments().max(1))
    }

    /// Sends datagrams of `len` bytes each, side by side in `bytes`; at most [`Wire::run_of`].
    pub(crate) fn send(
        &self,
        to: SocketAddr,
        source: Option<IpAddr>,
        bytes: &[u8],
        len: usize,
    ) -> Result<(), Failure> {
        let transmit = Transmit {
            destination: to,
            ecn: None,
            contents: bytes,
            segment_size: (bytes.len() > len).then_some(len),
            src_ip: source,
        };
        let until = Instant::now() + PATIENCE;
        loop {
            match self.state.try_send((&self.socket).into(), &transmit) {
                Ok(()) => return Ok(()),
                // Somebody said that nobody listens: that is an answer to an earlier one.
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {}
                Err(error)
                    if error.kind() == io::ErrorKind::WouldBlock && Instant::now() < until =>
                {
                    self.wait(PollFlags::OUT, Duration::from_millis(10))?;
                }
                Err(error) => return Err(Failure::io("sending")(error)),
            }
        }
    }

    /// Hands over what has come, after waiting for it as long as `patience`.
    pub(crate) fn receive(
        &mut self,
        patience: Duration,
        mut each: impl FnMut(&mut [u8]),
    ) -> Result<(), Failure> {
        self.wait(PollFlags::IN, patience)?;
        loop {
            let mut metas = [RecvMeta::default(); BUFFERS];
            let mut chunks = self.bytes.chunks_exact_mut(BUFFER);
            let mut buffers: [IoSliceMut<'_>; BUFFERS] =
                std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
            let count = match self
                .state
                .recv((&self.socket).into(), &mut buffers, &mut metas)
            {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => continue,
                Err(error) => return Err(Failure::io("receiving")(error)),
            };
            let messages = self.bytes.chunks_exact_mut(BUFFER);
            for (meta, message) in metas.iter().zip(messages).take(count) {
                let message = message.get_mut(..meta.len).unwrap_or_default();
                message.chunks_mut(meta.stride.max(1)).for_each(&mut each);
            }
            if count < BUFFERS {
                return Ok(());
            }
        }
    }

    fn wait(&self, what: PollFlags, patience: Duration) -> Result<(), Failure> {
        let timeout = Timespec {
            tv_sec: i64::try_from(patience.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: patience.subsec_nanos().into(),
        };
        let mut polled = [PollFd::new(&self.socket, what)];
        match poll(&mut polled, Some(&timeout)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(error) => Err(Failure::io("waiting")(error.into())),
        }
    }
}

/// Spends `rate` per second, evenly.
pub(crate) struct Pace {
    begin: Instant,
    rate: u64,
    spent: u64,
}

impl Pace {
    /// From now on; `rate` 0 is as fast as can be.
    pub(crate) fn new(rate: u64) -> Pace {
        Pace {
            begin: Instant::now(),
            rate,
            spent: 0,
        }
    }

    /// How many may go now, at most `most`.
    pub(crate) fn due(&mut self, most: u64) -> u64 {
        if self.rate == 0 {
            return most;
        }
        let earned = u128::from(self.rate) * self.begin.elapsed().as_micros() / 1_000_000;
        let earned = u64::try_from(earned).unwrap_or(u64::MAX);
        let due = earned.saturating_sub(self.spent).min(most);
        self.spent += due;
        due
    }

    /// Waits until `count` may go. Half a millisecond at least, and then many at once: the time
    /// between is for whom we load, on a machine with few cores.
    pub(crate) fn wait_for(&mut self, count: u64) {
        const NAP: Duration = Duration::from_micros(500);
        if self.rate > 0 {
            let micros = u128::from(self.spent) * 1_000_000 / u128::from(self.rate);
            let due = Duration::from_micros(u64::try_from(micros).unwrap_or(u64::MAX));
            if let Some(left) = due.checked_sub(self.begin.elapsed()) {
                std::thread::sleep(left.max(NAP));
            }
        }
        self.spent += count;
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.begin.elapsed()
    }
}
