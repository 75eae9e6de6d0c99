//! One connection: a smoltcp interface of its own with one socket in it.
//!
//! An interface for each costs a kilobyte, and buys that a connection cannot receive a packet of
//! another one, whatever their addresses: who finds it has its key.

use crate::device::Wire;
use crate::limits::{HANDSHAKE, IDLE, LIFETIME, LINGER, Limits, UNANSWERED};
use postern_proto::keys::PublicKey;
use postern_proto::now::Mono;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{Socket, SocketBuffer, State};
use smoltcp::time::Instant;
use smoltcp::wire::{HardwareAddress, IpAddress, IpCidr, IpEndpoint, IpListenEndpoint};
use std::net::SocketAddr;

/// What a connection is found by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// Whose packets it takes, and nobody else's.
    pub(crate) tag: PublicKey,
    /// Here.
    pub(crate) local: SocketAddr,
    /// There.
    pub(crate) remote: SocketAddr,
}

/// Why a connection can no longer be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// The other end, or we, reset it.
    #[error("the connection was reset")]
    Reset,
    /// Nobody answers, or nothing moved for too long.
    #[error("the connection timed out")]
    TimedOut,
    /// The other end refused it.
    #[error("the connection was refused")]
    Refused,
    /// Nothing can be written any more: this end has been closed.
    #[error("this end of the connection is closed")]
    Closed,
}

/// Where a connection stands in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The handshake is not over.
    Opening,
    /// Bytes may flow.
    Open,
    /// Nothing more comes or goes.
    Ended,
}

pub(crate) struct Connection {
    pub(crate) key: Key,
    /// Where the peer was seen when it opened the connection.
    pub(crate) outer: Option<SocketAddr>,
    pub(crate) phase: Phase,
    /// Somebody here holds it.
    pub(crate) held: bool,
    /// Its handshake has been counted.
    pub(crate) counted: bool,
    /// Waits for its turn to send.
    pub(crate) queued: bool,
    /// When it next has something to do.
    pub(crate) deadline: Mono,
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    mtu: usize,
    /// When bytes or the state last moved on.
    moved: Mono,
    /// Ends by then, whatever moves.
    give_up: Mono,
    /// What `give_up` is once it is open.
    last: Mono,
    state: State,
    broken: Option<Broken>,
}

impl Connection {
    /// Waits for the SYN that is about to be given to it.
    pub(crate) fn passive(
        key: Key,
        outer: Option<SocketAddr>,
        (mtu, limits, seed): (usize, &Limits, u64),
        now: Mono,
    ) -> Option<Connection> {
        let mut new = Connection::new(key, outer, (mtu, limits, seed), now);
        let (address, port) = (key.local.ip(), key.local.port());
        new.socket_mut()
            .listen(IpListenEndpoint {
                addr: Some(IpAddress::from(address)),
                port,
            })
            .ok()?;
        new.state = State::Listen;
        new.last = now + LIFETIME;
        Some(new)
    }

    /// Will send a SYN.
    pub(crate) fn active(
        key: Key,
        (mtu, limits, seed): (usize, &Limits, u64),
        now: Mono,
    ) -> Option<Connection> {
        let mut new = Connection::new(key, None, (mtu, limits, seed), now);
        new.held = true;
        let socket = new.sockets.get_mut::<Socket<'_>>(new.handle);
        let (remote, local) = (IpEndpoint::from(key.remote), IpEndpoint::from(key.local));
        socket
            .connect(new.interface.context(), remote, local)
            .ok()?;
        new.state = State::SynSent;
        Some(new)
    }

    fn new(
        key: Key,
        outer: Option<SocketAddr>,
        (mtu, limits, seed): (usize, &Limits, u64),
        now: Mono,
    ) -> Connection {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut wire = Wire::new(mtu, None, 0);
        let mut interface = Interface::new(config, &mut wire, instant(now));
        let address = IpAddress::from(key.local.ip());
        let whole = if key.local.is_ipv4() { 32 } else { 128 };
        interface.update_ip_addrs(|own| {
            // There is room: it is the first.
            let _ = own.push(IpCidr::new(address, whole));
        });
        let buffer = |size: usize| SocketBuffer::new(vec![0; size]);
        let mut socket = Socket::new(buffer(limits.receive_buffer), buffer(limits.send_buffer));
        // Requests and answers are written whole.
        socket.set_nagle_enabled(false);
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Connection {
            key,
            outer,
            phase: Phase::Opening,
            held: false,
            counted: false,
            queued: false,
            deadline: Mono::NEVER,
            interface,
            sockets,
            handle,
            mtu,
            moved: now,
            give_up: now + HANDSHAKE,
            last: Mono::NEVER,
            state: State::Closed,
            broken: None,
        }
    }

    fn socket(&self) -> &Socket<'static> {
        self.sockets.get(self.handle)
    }

    fn socket_mut(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Takes one packet in; returns what has to be answered at once.
    pub(crate) fn receive(&mut self, packet: &[u8], now: Mono) -> Vec<Vec<u8>> {
        let before = self.progress();
        let mut wire = Wire::new(self.mtu, Some(packet), 1);
        self.interface
            .poll_ingress_single(instant(now), &mut wire, &mut self.sockets);
        if self.progress() != before {
            self.moved = now;
        }
        self.look(now, Broken::Reset);
        wire.into_output()
    }

    /// Sends at most one packet, if there is one to send.
    pub(crate) fn send(&mut self, now: Mono) -> Vec<Vec<u8>> {
        let mut wire = Wire::new(self.mtu, None, 1);
        self.interface
            .poll_egress(instant(now), &mut wire, &mut self.sockets);
        // What ends by itself here has waited too long for the other end.
        self.look(now, Broken::TimedOut);
        wire.into_output()
    }

    /// Ends it if its time is over.
    pub(crate) fn expire(&mut self, now: Mono) {
        if self.phase != Phase::Ended && self.end_by() <= now {
            self.abort(Broken::TimedOut, now);
        }
    }

    /// When time alone ends it.
    fn end_by(&self) -> Mono {
        let patience = match self.socket().send_queue() {
            0 => IDLE,
            _ => UNANSWERED,
        };
        (self.moved + patience).min(self.give_up)
    }

    fn progress(&self) -> (State, usize, usize) {
        let socket = self.socket();
        (socket.state(), socket.recv_queue(), socket.send_queue())
    }

    /// When it has something to do again. Past or present: now.
    pub(crate) fn plan(&mut self, now: Mono) -> Mono {
        let due = self.interface.poll_at(instant(now), &self.sockets);
        let due = due.map_or(Mono::NEVER, mono);
        self.deadline = match self.phase {
            Phase::Opening | Phase::Open => due.min(self.end_by()),
            Phase::Ended => due,
        };
        self.deadline
    }

    /// Why it cannot be used any more, if that is so.
    pub(crate) fn broken(&self) -> Option<Broken> {
        self.broken
    }

    /// Whether it can be forgotten: it has ended and nobody holds it.
    pub(crate) fn is_over(&self) -> bool {
        self.phase == Phase::Ended && !self.held
    }

    /// Whether the handshake never began: what came was no SYN that can be answered.
    pub(crate) fn never_began(&self) -> bool {
        self.socket().state() == State::Listen
    }

    /// Bytes into `room`; `None`: none yet; zero: the other end has said all.
    pub(crate) fn read(&mut self, room: &mut [u8]) -> Result<Option<usize>, Broken> {
        let broken = self.broken;
        let opening = self.phase == Phase::Opening;
        let socket = self.socket_mut();
        if socket.can_recv() {
            return socket.recv_slice(room).map(Some).map_err(|_| Broken::Reset);
        }
        if let Some(broken) = broken {
            return Err(broken);
        }
        if opening || socket.may_recv() {
            return Ok(None);
        }
        // All has been read, and the other end has said that there is no more.
        Ok(Some(0))
    }

    /// As much of `bytes` as there is room for; `None`: no room yet.
    pub(crate) fn write(&mut self, bytes: &[u8], now: Mono) -> Result<Option<usize>, Broken> {
        if let Some(broken) = self.broken {
            return Err(broken);
        }
        if self.phase == Phase::Opening {
            return Ok(None);
        }
        let socket = self.socket_mut();
        let written = socket.send_slice(bytes).map_err(|_| Broken::Closed)?;
        if written > 0 {
            self.moved = now;
        }
        Ok((written > 0 || bytes.is_empty()).then_some(written))
    }

    /// No more bytes from this end.
    pub(crate) fn close(&mut self, now: Mono) {
        // From here on acknowledgments are all that it says: none may wait when it is forgotten.
        self.socket_mut().set_ack_delay(None);
        self.socket_mut().close();
        self.look(now, Broken::Reset);
    }

    /// Nobody holds it any more: its last bytes go out, and that is all.
    pub(crate) fn release(&mut self, now: Mono) {
        self.held = false;
        self.close(now);
        self.give_up = self.give_up.min(now + LINGER);
    }

    /// Ends it with a reset.
    pub(crate) fn abort(&mut self, why: Broken, now: Mono) {
        self.socket_mut().abort();
        self.look(now, why);
    }

    /// Follows the socket's state; `why` holds if it has ended out of order.
    fn look(&mut self, now: Mono, why: Broken) {
        let state = self.socket().state();
        let before = std::mem::replace(&mut self.state, state);
        match state {
            State::Listen | State::SynSent | State::SynReceived => {}
            State::Established
            | State::CloseWait
            | State::FinWait1
            | State::FinWait2
            | State::Closing
            | State::LastAck => {
                if self.phase == Phase::Opening {
                    self.phase = Phase::Open;
                    self.moved = now;
                    self.give_up = self.last;
                }
            }
            // The other end has everything; what is late gets a reset, as from any closed port.
            State::TimeWait => self.phase = Phase::Ended,
            State::Closed if self.phase == Phase::Ended => {}
            State::Closed => {
                let in_order = before == State::LastAck && why == Broken::Reset;
                self.broken = match (self.phase, why) {
                    (Phase::Opening, Broken::Reset) => Some(Broken::Refused),
                    _ if in_order => None,
                    _ => Some(why),
                };
                self.phase = Phase::Ended;
            }
        }
    }
}

fn instant(now: Mono) -> Instant {
    Instant::from_micros(i64::try_from(now.0 / 1000).unwrap_or(i64::MAX))
}

/// Never earlier than `at`: rounded up to what [`instant`] keeps.
fn mono(at: Instant) -> Mono {
    Mono(
        u64::try_from(at.total_micros())
            .unwrap_or(0)
            .saturating_mul(1000),
    )
}
