//! The sending half: GSO, and what to do where it fails.

use super::Half;
use crate::clock::Clock;
use crate::send_batch::{Run, SendBatch};
use postern_proto::ecn::Ecn;
use postern_proto::now::Mono;
use postern_proto::outbox::Endpoint;
use quinn_udp::{EcnCodepoint, Transmit};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::Timespec;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

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
    pub(super) fn new(v4: Option<Half>, v6: Option<Half>) -> UdpTx {
        UdpTx {
            v4,
            v6,
            batch: SendBatch::default(),
            no_gso: NoGso::default(),
            stats: UdpTxStats::default(),
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
    fn send_run(&mut self, mut run: Run<'_>, no_gso: &mut NoGso, stats: &mut UdpTxStats) {
        let count = run.datagrams();
        if count > 1 && self.state.max_gso_segments() >= count && !no_gso.covers(run.to.remote) {
            match self.send_from_anywhere(&mut run.to, run.ecn, run.bytes, Some(run.segment)) {
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
                    self.arm_again();
                }
                Err(_) => {
                    stats.refused += count as u64;
                    return;
                }
            }
        }
        for datagram in run.iter() {
            match self.send_from_anywhere(&mut run.to, run.ecn, datagram, None) {
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

    /// Sends from the address that the peer used. The host may have moved and lost it since: then
    /// from the one that the kernel picks, which tells the peer where we are.
    fn send_from_anywhere(
        &mut self,
        to: &mut Endpoint,
        ecn: Ecn,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()> {
        match self.send(*to, ecn, contents, segment_size) {
            Err(error) if to.local.is_some() && is_about_source(&error) => {
                self.arm_again();
                let anywhere = Endpoint::from(to.remote);
                self.send(anywhere, ecn, contents, segment_size)?;
                *to = anywhere;
                Ok(())
            }
            result => result,
        }
    }

    /// Sends, and waits once for a full queue.
    fn send(
        &self,
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

/// What IPv6 and IPv4 answer when the source is no address of the host.
fn is_about_source(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENETUNREACH))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ban_ends_and_too_many_bans_are_one_for_everybody() {
        let address = |number: u16| SocketAddr::from(([192, 0, 2, 1], number));
        let mut no_gso = NoGso::default();
        no_gso.add(address(0), Mono(0));
        assert!(no_gso.covers_at(address(0), Mono(1)));
        assert!(!no_gso.covers_at(address(1), Mono(1)));
        assert!(!no_gso.covers_at(address(0), Mono(0) + NO_GSO_FOR));
        for number in 0..=NO_GSO_DESTINATIONS as u16 {
            no_gso.add(address(number), Mono(0));
        }
        assert!(no_gso.covers_at(address(9999), Mono(1)));
        assert!(!no_gso.covers_at(address(9999), Mono(0) + NO_GSO_FOR));
        assert_eq!(no_gso.entries.len(), 0);
    }
}
