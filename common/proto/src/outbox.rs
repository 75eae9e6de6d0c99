//! Where a pure state machine puts what it sends. The shells implement it on sockets and a TUN,
//! the simulated world on vectors.

use crate::ecn::Ecn;
use std::net::{IpAddr, SocketAddr};

/// Where a peer is, and from which of our addresses it was last reached (so that a multi-homed
/// host answers from the address that was asked).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The peer's outer address.
    pub remote: SocketAddr,
    /// Our own outer address, when the kernel told it.
    pub local: Option<IpAddr>,
}

impl From<SocketAddr> for Endpoint {
    fn from(remote: SocketAddr) -> Self {
        Endpoint {
            remote,
            local: None,
        }
    }
}

/// Two output queues with places to write into, so that nothing is copied or allocated.
///
/// A slot is handed out, filled, then committed; a slot that is not committed is handed out
/// again. Order is kept in each queue.
pub trait Outbox {
    /// Room for one datagram of at most `room` bytes to `to`.
    fn datagram(&mut self, to: Endpoint, room: usize) -> &mut [u8];
    /// The first `len` bytes of the last datagram slot are to be sent, with `ecn` in their IP
    /// header: [`crate::ecn::encapsulate`] for a packet, `NotEct` for what the tunnel itself says.
    fn commit_datagram(&mut self, len: usize, ecn: Ecn);
    /// Room ([`crate::mtu::PACKET_ROOM`]) for one inner packet towards our own TUN.
    fn packet(&mut self) -> &mut [u8];
    /// The first `len` bytes of the last packet slot are to be written to the TUN.
    fn commit_packet(&mut self, len: usize);
}
