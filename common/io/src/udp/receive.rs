//! The receiving half: GRO and recvmmsg.

use super::Half;
use crate::offload::{self, HalfState, WhyNot};
use postern_proto::ecn::Ecn;
use postern_proto::outbox::Endpoint;
use quinn_udp::{EcnCodepoint, RecvMeta};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};

/// Messages in one receive call. More was no faster: the buffers fall out of the cache.
pub const RECEIVE_BUFFERS: usize = 8;

/// Bytes of each: one GRO message. Memory for each worker: 512 KiB in all.
pub const RECEIVE_BUFFER: usize = 65_536;

/// Receive calls on one socket in a turn, at most: 256 small datagrams.
pub const RECEIVE_CALLS: usize = 32;

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
    pub(super) fn new(v4: Option<Half>, v6: Option<Half>) -> UdpRx {
        UdpRx {
            v4,
            v6,
            bytes: vec![0; RECEIVE_BUFFERS * RECEIVE_BUFFER].into_boxed_slice(),
            stats: UdpRxStats::default(),
        }
    }

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

    /// Whether the kernel joins datagrams for us.
    #[must_use]
    pub fn offload(&self) -> HalfState {
        let mut halves = self.v4.iter().chain(&self.v6);
        let allowed = |half: &Half| half.end.offload.allow(offload::Half::UdpReceive);
        if !halves.clone().all(allowed) {
            WhyNot::Switched.off()
        } else if halves.any(|half| half.state.gro_segments() > 1) {
            HalfState {
                on: true,
                ..HalfState::default()
            }
        } else {
            WhyNot::Absent.off()
        }
    }

    /// Hands over what the IPv4 socket has, until `most` bytes have come.
    pub fn receive_v4(&mut self, most: usize, handle: impl FnMut(Endpoint, Ecn, &mut [u8])) {
        receive(
            self.v4.as_ref(),
            &mut self.bytes,
            &mut self.stats,
            most,
            handle,
        );
    }

    /// Hands over what the IPv6 socket has, until `most` bytes have come.
    pub fn receive_v6(&mut self, most: usize, handle: impl FnMut(Endpoint, Ecn, &mut [u8])) {
        receive(
            self.v6.as_ref(),
            &mut self.bytes,
            &mut self.stats,
            most,
            handle,
        );
    }
}

fn receive(
    half: Option<&Half>,
    bytes: &mut [u8],
    stats: &mut UdpRxStats,
    most: usize,
    mut handle: impl FnMut(Endpoint, Ecn, &mut [u8]),
) {
    let Some(half) = half else { return };
    let mut bytes_so_far = 0;
    for _ in 0..RECEIVE_CALLS {
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
            bytes_so_far += meta.len;
            let from = Endpoint {
                remote: meta.addr,
                local: meta.dst_ip,
            };
            let ecn = match meta.ecn {
                None => Ecn::NotEct,
                Some(EcnCodepoint::Ect0) => Ecn::Ect0,
                Some(EcnCodepoint::Ect1) => Ecn::Ect1,
                Some(EcnCodepoint::Ce) => Ecn::Ce,
            };
            let message = &mut message[..meta.len.min(RECEIVE_BUFFER)];
            // An empty datagram has no stride.
            for datagram in message.chunks_mut(meta.stride.max(1)) {
                stats.datagrams += 1;
                handle(from, ecn, datagram);
            }
        }
        if count < RECEIVE_BUFFERS || bytes_so_far >= most {
            return;
        }
    }
}
