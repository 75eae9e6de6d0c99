//! The sending half: runs of datagrams in one call (GSO).

use super::Half;
use crate::offload::{self, HalfState};
use crate::send_batch::SendBatch;
use ladder::{Ladder, Wire};
use postern_proto::ecn::Ecn;
use postern_proto::outbox::Endpoint;
use quinn_udp::{EcnCodepoint, Transmit};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use std::io;

mod ladder;

pub use ladder::{NO_GSO_DESTINATIONS, NO_GSO_FOR};

/// How long a full send queue is waited for.
const WAIT_TO_SEND: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 1_000_000,
};

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
    /// Of these, because the kernel does not cut runs (EIO, EINVAL), whatever it had promised.
    pub gso_refused: u64,
}

/// The sending half: datagrams are written into it and leave at [`UdpTx::flush`], or before that
/// when its buffer is full.
#[derive(Debug)]
pub struct UdpTx {
    v4: Option<Half>,
    v6: Option<Half>,
    batch: SendBatch,
    ladder: Ladder,
}

impl UdpTx {
    pub(super) fn new(v4: Option<Half>, v6: Option<Half>) -> UdpTx {
        let mut halves = v4.iter().chain(&v6);
        let allowed = halves
            .clone()
            .all(|half| half.end.offload.allow(offload::Half::UdpSend));
        let probed = halves.any(|half| half.most > 1);
        UdpTx {
            v4,
            v6,
            batch: SendBatch::default(),
            ladder: Ladder::new(allowed, probed),
        }
    }

    /// Room for one datagram of at most `room` bytes.
    pub fn slot(&mut self, to: Endpoint, room: usize) -> &mut [u8] {
        if !self.batch.has_room(room) {
            self.flush();
        }
        self.batch.slot(to, room)
    }

    /// The first `len` bytes of the last slot are to be sent, marked `ecn`.
    pub fn commit(&mut self, len: usize, ecn: Ecn) {
        self.batch.commit(len, ecn);
    }

    /// Sends everything. A queue that is full is waited for, a millisecond at most; what it does
    /// not take then is dropped and counted.
    pub fn flush(&mut self) {
        let UdpTx {
            v4,
            v6,
            batch,
            ladder,
        } = self;
        batch.drain(|run| {
            let half = if run.to.remote.is_ipv4() {
                &mut *v4
            } else {
                &mut *v6
            };
            match half {
                Some(half) => ladder.send(run, half),
                None => ladder.stats.refused += run.datagrams() as u64,
            }
        });
    }

    /// What was sent so far.
    #[must_use]
    pub fn stats(&self) -> UdpTxStats {
        self.ladder.stats
    }

    /// Destinations that get their datagrams one by one at present, at most
    /// [`NO_GSO_DESTINATIONS`].
    #[must_use]
    pub fn no_gso_destinations(&self) -> usize {
        self.ladder.destinations()
    }

    /// Whether datagrams leave together, and who gets them one by one.
    #[must_use]
    pub fn offload(&self) -> HalfState {
        self.ladder.state()
    }
}

impl Wire for Half {
    fn most(&self) -> usize {
        self.most
    }

    /// Sends, and waits once for a full queue.
    fn send(
        &mut self,
        to: Endpoint,
        ecn: Ecn,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        let transmit = Transmit {
            destination: to.remote,
            ecn: codepoint(ecn),
            contents,
            segment_size,
            src_ip: to.local,
        };
        let socket = &self.end.socket;
        let result = match self.state.try_send(socket.into(), &transmit) {
            Err(error) if is_full(&error) => {
                let mut wanted = [PollFd::new(socket, PollFlags::OUT)];
                let _ = poll(&mut wanted, Some(&WAIT_TO_SEND));
                self.state.try_send(socket.into(), &transmit)
            }
            result => result,
        };
        if self.state.max_gso_segments() < self.most {
            self.arm_again();
        }
        result
    }
}

/// `None` leaves the field zero, which is not-ECT.
fn codepoint(ecn: Ecn) -> Option<EcnCodepoint> {
    match ecn {
        Ecn::NotEct => None,
        Ecn::Ect0 => Some(EcnCodepoint::Ect0),
        Ecn::Ect1 => Some(EcnCodepoint::Ect1),
        Ecn::Ce => Some(EcnCodepoint::Ce),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::ENOBUFS))
}
