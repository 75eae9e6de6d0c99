//! What to do where a run of datagrams is refused: the same datagrams one by one, and whom not to
//! ask again for a while.

use super::UdpTxStats;
use crate::clock::Clock;
use crate::offload::{HalfState, WhyNot};
use crate::send_batch::Run;
use postern_proto::ecn::Ecn;
use postern_proto::now::Mono;
use postern_proto::outbox::Endpoint;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

/// How long a destination that refused a run of datagrams gets them one by one.
pub const NO_GSO_FOR: Duration = Duration::from_secs(60);

/// Destinations remembered as such: 2 KiB. When more refuse, it is the interface or the kernel,
/// not the path, and everybody gets single datagrams.
pub const NO_GSO_DESTINATIONS: usize = 32;

/// The system calls. An argument, so that tests can refuse.
pub(super) trait Wire {
    /// Datagrams that may leave together: 1 where the probe found no GSO.
    fn most(&self) -> usize;

    /// Sends one datagram, or several that lie side by side, each but the last of `segment_size`.
    fn send(
        &mut self,
        to: Endpoint,
        ecn: Ecn,
        contents: &[u8],
        segment_size: Option<usize>,
    ) -> io::Result<()>;
}

/// Whether runs are sent at present, and to whom not.
#[derive(Debug)]
pub(super) struct Ladder {
    pub(super) stats: UdpTxStats,
    gso: Result<(), WhyNot>,
    singly: Singly,
    told: bool,
}

/// Why a run was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refusal {
    /// A datagram is larger than the path; the kernel cuts shorter ones. Since Linux 6.14.
    TooLong,
    /// The interface cannot cut (EIO), or the kernel says no more than EINVAL. Before 6.14 that
    /// may be about the path as well.
    Gso,
}

impl Ladder {
    /// From the operator's switch and what was probed.
    pub(super) fn new(allowed: bool, probed: bool) -> Ladder {
        Ladder {
            stats: UdpTxStats::default(),
            gso: match (allowed, probed) {
                (false, _) => Err(WhyNot::Switched),
                (true, false) => Err(WhyNot::Absent),
                (true, true) => Ok(()),
            },
            singly: Singly::default(),
            told: false,
        }
    }

    pub(super) fn destinations(&self) -> usize {
        self.singly.entries.len()
    }

    pub(super) fn state(&self) -> HalfState {
        let fallbacks = self.stats.gso_refused;
        let now = Clock::now().mono;
        let all = self.singly.everybody_until.is_some_and(|until| until > now);
        let some = self.singly.entries.iter().filter(|entry| entry.until > now);
        let (on, detail) = match (self.gso, all, some.count()) {
            (Err(why), ..) => (false, why.to_string()),
            (Ok(()), true, _) => {
                let many = format!("refused for more than {NO_GSO_DESTINATIONS} destinations");
                (false, many)
            }
            (Ok(()), false, 0) => (true, String::new()),
            (Ok(()), false, 1) => (true, "1 destination one by one".to_owned()),
            (Ok(()), false, some) => (true, format!("{some} destinations one by one")),
        };
        HalfState {
            on,
            detail,
            fallbacks,
        }
    }

    /// Sends a run at once, or else one by one: nothing is lost or sent twice.
    pub(super) fn send(&mut self, mut run: Run<'_>, wire: &mut impl Wire) {
        let count = run.datagrams();
        let together = count > 1
            && self.gso.is_ok()
            && count <= wire.most()
            && !self.singly.covers(run.to.remote, run.segment);
        let mut refusal = None;
        if together {
            match from_anywhere(wire, &mut run.to, run.ecn, run.bytes, Some(run.segment)) {
                Ok(()) => {
                    self.stats.calls += 1;
                    self.stats.datagrams += count as u64;
                    return;
                }
                Err(error) => match Refusal::of(&error) {
                    Some(why) => refusal = Some((why, error)),
                    None => {
                        self.stats.refused += count as u64;
                        return;
                    }
                },
            }
        }
        let whole_taken = self.send_singly(&mut run, wire);
        let Some((why, error)) = refusal else { return };
        self.stats.resent_singly += 1;
        // Where a single datagram of that size does not pass either, the run was not to blame.
        if whole_taken {
            self.give_up(&run, why, &error);
        }
    }

    /// Whether a datagram of full size was taken.
    fn send_singly(&mut self, run: &mut Run<'_>, wire: &mut impl Wire) -> bool {
        let mut whole_taken = false;
        for datagram in run.iter() {
            match from_anywhere(wire, &mut run.to, run.ecn, datagram, None) {
                Ok(()) => {
                    self.stats.calls += 1;
                    self.stats.datagrams += 1;
                    whole_taken |= datagram.len() == run.segment;
                }
                Err(error) => {
                    self.stats.refused += 1;
                    self.stats.too_long += u64::from(quinn_udp::is_msg_size_err(&error));
                }
            }
        }
        whole_taken
    }

    fn give_up(&mut self, run: &Run<'_>, why: Refusal, error: &io::Error) {
        let now = Clock::now().mono;
        self.singly.add(run.to.remote, run.segment, why, now);
        if why == Refusal::TooLong {
            return;
        }
        self.stats.gso_refused += 1;
        let for_all = self.singly.everybody_until.is_some();
        if for_all && !self.told {
            self.told = true;
            tracing::warn!(
                %error,
                "this kernel or interface refuses runs of datagrams; sending them one by one, which is slower"
            );
        } else {
            tracing::debug!(%error, to = %run.to.remote, "a run of datagrams was refused; one by one for a minute");
        }
    }
}

impl Refusal {
    fn of(error: &io::Error) -> Option<Refusal> {
        match error.raw_os_error() {
            Some(libc::EMSGSIZE) => Some(Refusal::TooLong),
            Some(libc::EIO | libc::EINVAL) => Some(Refusal::Gso),
            _ => None,
        }
    }
}

/// Sends from the address that the peer used. The host may have moved and lost it since: then
/// from the one that the kernel picks, which tells the peer where we are.
fn from_anywhere(
    wire: &mut impl Wire,
    to: &mut Endpoint,
    ecn: Ecn,
    contents: &[u8],
    segment_size: Option<usize>,
) -> io::Result<()> {
    match wire.send(*to, ecn, contents, segment_size) {
        Err(error) if to.local.is_some() && is_about_source(&error) => {
            let anywhere = Endpoint::from(to.remote);
            wire.send(anywhere, ecn, contents, segment_size)?;
            *to = anywhere;
            Ok(())
        }
        result => result,
    }
}

/// What IPv6 and IPv4 answer when the source is no address of the host.
fn is_about_source(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENETUNREACH))
}

/// Destinations whose runs were refused.
#[derive(Debug)]
struct Singly {
    entries: Vec<Entry>,
    everybody_until: Option<Mono>,
}

#[derive(Debug)]
struct Entry {
    to: SocketAddr,
    /// Runs of datagrams at least so long, in bytes.
    from: usize,
    until: Mono,
}

impl Default for Singly {
    fn default() -> Self {
        Singly {
            entries: Vec::with_capacity(NO_GSO_DESTINATIONS),
            everybody_until: None,
        }
    }
}

impl Singly {
    fn add(&mut self, to: SocketAddr, segment: usize, why: Refusal, now: Mono) {
        let until = now + NO_GSO_FOR;
        let from = match why {
            Refusal::TooLong => segment,
            Refusal::Gso => 0,
        };
        if let Some(entry) = self.entries.iter_mut().find(|entry| entry.to == to) {
            entry.from = entry.from.min(from);
            entry.until = until;
        } else if self.entries.len() < NO_GSO_DESTINATIONS {
            self.entries.push(Entry { to, from, until });
        } else if why == Refusal::Gso {
            self.everybody_until = Some(until);
        }
        // A small path that is not remembered costs one refused call for each run.
    }

    /// Reads the clock only when somebody is on the list.
    fn covers(&mut self, to: SocketAddr, segment: usize) -> bool {
        if self.entries.is_empty() && self.everybody_until.is_none() {
            return false;
        }
        self.covers_at(to, segment, Clock::now().mono)
    }

    fn covers_at(&mut self, to: SocketAddr, segment: usize, now: Mono) -> bool {
        self.entries.retain(|entry| entry.until > now);
        self.everybody_until = self.everybody_until.filter(|until| *until > now);
        let mut entries = self.entries.iter();
        self.everybody_until.is_some()
            || entries.any(|entry| entry.to == to && entry.from <= segment)
    }
}

#[cfg(test)]
mod tests;
