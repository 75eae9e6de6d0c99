//! The receiving half: GRO and recvmmsg.

use super::Half;
use crate::fair::{Class, Fair};
use crate::hash;
use crate::offload::{self, HalfState, WhyNot};
use postern_proto::ecn::Ecn;
use postern_proto::now::Mono;
use postern_proto::outbox::Endpoint;
use quinn_udp::{EcnCodepoint, RecvMeta};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd};

/// Messages in one receive call. More was no faster: the buffers fall out of the cache.
pub const RECEIVE_BUFFERS: usize = 8;

/// Receive calls on one socket in a turn, at most: 256 messages.
pub const RECEIVE_CALLS: usize = 32;

/// Datagrams handed over in a turn, at most: small ones cost as much as large ones.
pub const HANDED_OUT: usize = 512;

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
    /// Datagrams lost to keep the queue short.
    pub shed: u64,
    /// Datagrams marked to keep the queue short.
    pub marked: u64,
}

/// What is known of a message while it waits.
#[derive(Clone, Copy, Debug)]
pub struct About {
    from: Endpoint,
    ecn: Ecn,
    /// Bytes of each datagram in it but the last.
    stride: usize,
    datagrams: u32,
}

/// The receiving half: what the kernel has is put in a [`Fair`] queue, and handed over from there.
#[derive(Debug)]
pub struct UdpRx {
    v4: Option<Half>,
    v6: Option<Half>,
    v6_first: bool,
    intake: Intake,
}

/// What both sockets fill.
#[derive(Debug)]
struct Intake {
    /// What the next messages are written into.
    buffers: [Box<[u8]>; RECEIVE_BUFFERS],
    waiting: Fair<About>,
    seed: u64,
    stats: UdpRxStats,
}

impl UdpRx {
    pub(super) fn new(v4: Option<Half>, v6: Option<Half>) -> UdpRx {
        UdpRx {
            v4,
            v6,
            v6_first: false,
            intake: Intake {
                buffers: std::array::from_fn(|_| Fair::<About>::spare()),
                waiting: Fair::default(),
                seed: hash::seed(),
                stats: UdpRxStats::default(),
            },
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
        self.intake.stats
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

    /// What was received and not handed over yet.
    #[must_use]
    pub fn waiting(&self) -> &Fair<About> {
        &self.intake.waiting
    }

    /// Receives what the sockets have that are ready, as far as there is room.
    pub fn take_in(&mut self, ready: (bool, bool), now: Mono) {
        // In turns, so that neither leaves no room for the other.
        self.v6_first ^= true;
        let mut sockets = [(&self.v4, ready.0), (&self.v6, ready.1)];
        if self.v6_first {
            sockets.reverse();
        }
        for (half, ready) in sockets {
            if let Some(half) = half
                && ready
            {
                self.intake.take_in(half, now);
            }
        }
    }

    /// Hands over what is next, until `most` bytes have come.
    pub fn hand_out(
        &mut self,
        most: usize,
        now: Mono,
        mut handle: impl FnMut(Endpoint, Ecn, &mut [u8]),
    ) {
        let Intake { waiting, stats, .. } = &mut self.intake;
        let (mut bytes, mut count) = (0, 0);
        while bytes < most && count < HANDED_OUT {
            let Some(mut next) = waiting.pop(now) else {
                break;
            };
            bytes += next.len;
            count += next.about.datagrams as usize;
            let About {
                from, ecn, stride, ..
            } = next.about;
            let mut message = &mut next.buffer[..next.len];
            let mut ecn = ecn;
            if next.congested {
                // The peer is told by a mark if the sender behind it understands marks, or else
                // by the loss of one datagram.
                if ecn == Ecn::NotEct {
                    let first = stride.min(message.len());
                    message = &mut message[first..];
                    stats.shed += 1;
                } else {
                    ecn = Ecn::Ce;
                    stats.marked += 1;
                }
            }
            for datagram in message.chunks_mut(stride) {
                stats.datagrams += 1;
                handle(from, ecn, datagram);
            }
            waiting.recycle(next.buffer);
        }
    }
}

impl Intake {
    fn take_in(&mut self, half: &Half, now: Mono) {
        for _ in 0..RECEIVE_CALLS {
            let room = self.waiting.room(now).min(RECEIVE_BUFFERS);
            if room == 0 {
                break;
            }
            let mut metas = [RecvMeta::default(); RECEIVE_BUFFERS];
            let mut buffers = self
                .buffers
                .each_mut()
                .map(|buffer| IoSliceMut::new(buffer));
            let received = half.state.recv(
                (&half.end.socket).into(),
                &mut buffers[..room],
                &mut metas[..room],
            );
            let count = match received {
                Ok(count) => count,
                Err(error) => {
                    // An error that was pending on the socket is cleared by having been told.
                    if error.kind() != io::ErrorKind::WouldBlock {
                        self.stats.errors += 1;
                    }
                    self.waiting.kernel_has_more(false, now);
                    return;
                }
            };
            self.stats.calls += 1;
            for (meta, buffer) in metas.iter().zip(&mut self.buffers).take(count) {
                self.stats.messages += 1;
                // An empty datagram has no stride.
                let stride = meta.stride.max(1);
                let about = About {
                    from: Endpoint {
                        remote: meta.addr,
                        local: meta.dst_ip,
                    },
                    ecn: ecn(meta.ecn),
                    stride,
                    datagrams: meta.len.div_ceil(stride) as u32,
                };
                let class = Class::of_datagram(&buffer[..meta.len.min(8)], self.seed);
                let lost = self.waiting.push(class, buffer, meta.len, about);
                self.stats.shed += lost.map_or(0, |about| u64::from(about.datagrams));
            }
            if count < room {
                self.waiting.kernel_has_more(false, now);
                return;
            }
        }
        self.waiting.kernel_has_more(true, now);
    }
}

#[cfg(test)]
impl UdpRx {
    /// Everything that the sockets have, at once.
    pub(crate) fn receive(&mut self, most: usize, handle: impl FnMut(Endpoint, Ecn, &mut [u8])) {
        self.take_in((true, true), Mono(0));
        self.hand_out(most, Mono(0), handle);
    }
}

fn ecn(mark: Option<EcnCodepoint>) -> Ecn {
    match mark {
        None => Ecn::NotEct,
        Some(EcnCodepoint::Ect0) => Ecn::Ect0,
        Some(EcnCodepoint::Ect1) => Ecn::Ect1,
        Some(EcnCodepoint::Ce) => Ecn::Ce,
    }
}
