//! The road: sockets and TUN of one worker, as inputs to wait for and outputs to write into.
//!
//! They are separate values on the same descriptors, so that what is read can be answered while
//! it is being read:
//!
//! ```no_run
//! # use postern_io::{clock::Clock, poll::Waker, road::{Inputs, Outputs}};
//! # use postern_proto::{now::Mono, outbox::Outbox};
//! # fn turn(inputs: &mut Inputs, outputs: &mut Outputs, waker: &Waker) -> std::io::Result<()> {
//! let ready = inputs.wait(waker, None, Mono::NEVER, Clock::now().mono)?;
//! let now = Clock::now();
//! inputs.udp(ready, now.mono, |from, ecn, datagram| {
//!     /* engine.from_network(from, ecn, datagram, outputs, now) */
//! });
//! inputs.tun(ready, now.mono, |packet| {
//!     // judge packet.packet() once, then
//!     packet.for_each_segment(|segment| { /* seal into outputs.datagram() */ });
//! })?;
//! outputs.flush();
//! # Ok(())
//! # }
//! ```

use crate::fair;
use crate::join::ARENA;
use crate::poll::{Ready, Sources, Waker};
use crate::send_batch::BUFFER;
use crate::split::SuperPacket;
use crate::tun::{Tun, TunRx, TunTx};
use crate::udp::{RECEIVE_BUFFERS, UdpEnd, UdpRx, UdpTx};
use postern_proto::ecn::Ecn;
use postern_proto::mtu::PACKET_ROOM;
use postern_proto::now::Mono;
use postern_proto::outbox::{Endpoint, Outbox};
use std::io;
use std::os::fd::BorrowedFd;

/// Bytes of each input that a turn works off, so that none waits long for the others: about half
/// a millisecond of encryption. With a quarter of it a transfer is a tenth slower, for the other
/// end is woken more often.
pub const TURN_BYTES: usize = 512 * 1024;

/// All buffers of one worker, in bytes, whatever the number of peers. While nothing waits, it
/// uses only the few that stay in a second-level cache of 1 MiB.
pub const MEMORY: usize =
    2 * fair::MEMORY + (RECEIVE_BUFFERS + 1) * fair::LARGE_BYTES + ARENA + BUFFER;

const _: () = assert!(MEMORY < 5 * 1024 * 1024);

/// What one worker reads.
pub struct Inputs {
    /// The receiving half of the sockets.
    pub udp: UdpRx,
    /// The reading half of the TUN, where there is one.
    pub tun: Option<TunRx>,
}

/// What one worker writes.
pub struct Outputs {
    /// The sending half of the sockets.
    pub udp: UdpTx,
    /// Where inner packets go.
    pub tun: Inner,
}

/// Where inner packets go.
pub enum Inner {
    /// To the writing half of the TUN.
    Tun(TunTx),
    /// Nowhere: they are counted.
    None {
        /// A place to write them into.
        scratch: Box<[u8]>,
        /// How many came.
        refused: u64,
    },
}

/// Both ends of the road from sockets and a TUN. Without a TUN, inner packets are counted and
/// dropped.
///
/// # Errors
/// When the kernel refuses a socket option that every Linux has.
pub fn open(udp: UdpEnd, tun: Option<Tun>) -> io::Result<(Inputs, Outputs)> {
    let (udp_rx, udp_tx) = udp.split()?;
    let (tun_rx, inner) = match tun.map(Tun::split) {
        Some((reader, writer)) => (Some(reader), Inner::Tun(writer)),
        None => {
            let scratch = vec![0; PACKET_ROOM].into_boxed_slice();
            (
                None,
                Inner::None {
                    scratch,
                    refused: 0,
                },
            )
        }
    };
    Ok((
        Inputs {
            udp: udp_rx,
            tun: tun_rx,
        },
        Outputs {
            udp: udp_tx,
            tun: inner,
        },
    ))
}

impl Inputs {
    /// Waits until there is something to read, another thread wakes us, a signal comes, or the
    /// deadline.
    ///
    /// # Errors
    /// Only for want of kernel memory.
    pub fn wait(
        &self,
        waker: &Waker,
        signals: Option<BorrowedFd<'_>>,
        deadline: Mono,
        now: Mono,
    ) -> io::Result<Ready> {
        let tun = self.tun.as_ref().map(TunRx::fd);
        // What waits here is worked off at once.
        let deadline = if self.waits() { now } else { deadline };
        Sources {
            udp4: self.udp.v4(),
            udp6: self.udp.v6(),
            tun,
            waker,
            signals,
        }
        .wait(deadline, now)
    }

    /// Hands over the datagrams of this turn, each with where it came from, which of our
    /// addresses it was sent to, and the ECN bits of its IP header.
    pub fn udp(&mut self, ready: Ready, now: Mono, handle: impl FnMut(Endpoint, Ecn, &mut [u8])) {
        self.udp.take_in((ready.udp4, ready.udp6), now);
        self.udp.hand_out(TURN_BYTES, now, handle);
    }

    /// Hands over the super-packets of this turn.
    ///
    /// # Errors
    /// When the interface is gone: somebody deleted it.
    pub fn tun(
        &mut self,
        ready: Ready,
        now: Mono,
        handle: impl FnMut(SuperPacket<'_>),
    ) -> io::Result<()> {
        let Some(tun) = &mut self.tun else {
            return Ok(());
        };
        if ready.tun {
            tun.take_in(now)?;
        }
        tun.hand_out(TURN_BYTES, now, handle);
        Ok(())
    }

    fn waits(&self) -> bool {
        let tun = self.tun.as_ref();
        !self.udp.waiting().is_empty() || tun.is_some_and(|tun| !tun.waiting().is_empty())
    }
}

impl Outputs {
    /// Sends and writes everything that waits. Call it at the end of every turn, never later.
    pub fn flush(&mut self) {
        self.udp.flush();
        if let Inner::Tun(tun) = &mut self.tun {
            tun.flush();
        }
    }

    /// Changes the MTU of the interface, in bytes, where there is one.
    ///
    /// # Errors
    /// Without CAP_NET_ADMIN, or when the interface is gone.
    pub fn set_mtu(&self, mtu: u16) -> io::Result<()> {
        match &self.tun {
            Inner::Tun(tun) => tun.set_mtu(mtu),
            Inner::None { .. } => Ok(()),
        }
    }

    /// Packets and datagrams that the kernel did not take so far: `kernel-refused`.
    #[must_use]
    pub fn refused(&self) -> u64 {
        let inner = match &self.tun {
            Inner::Tun(tun) => tun.stats().refused,
            Inner::None { refused, .. } => *refused,
        };
        self.udp.stats().refused + inner
    }
}

impl Outbox for Outputs {
    fn datagram(&mut self, to: Endpoint, room: usize) -> &mut [u8] {
        self.udp.slot(to, room)
    }

    fn commit_datagram(&mut self, len: usize, ecn: Ecn) {
        self.udp.commit(len, ecn);
    }

    fn packet(&mut self) -> &mut [u8] {
        match &mut self.tun {
            Inner::Tun(tun) => tun.slot(),
            Inner::None { scratch, .. } => scratch,
        }
    }

    fn commit_packet(&mut self, len: usize) {
        match &mut self.tun {
            Inner::Tun(tun) => tun.commit(len),
            Inner::None { refused, .. } => *refused += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use crate::udp::UdpOptions;
    use std::net::SocketAddr;
    use std::time::Duration;

    fn road() -> (Inputs, Outputs, SocketAddr) {
        let udp = UdpEnd::bind(&UdpOptions::default()).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], udp.port()));
        let (inputs, outputs) = open(udp, None).unwrap();
        (inputs, outputs, address)
    }

    /// What a run loop does, without what it decides.
    fn echo(inputs: &mut Inputs, outputs: &mut Outputs, waker: &Waker) -> usize {
        let now = Clock::now().mono;
        let ready = inputs
            .wait(waker, None, now + Duration::from_secs(5), now)
            .unwrap();
        let mut count = 0;
        inputs.udp(ready, now, |from, ecn, datagram| {
            count += 1;
            outputs
                .datagram(from, datagram.len())
                .copy_from_slice(datagram);
            outputs.commit_datagram(datagram.len(), ecn);
        });
        outputs.flush();
        count
    }

    #[test]
    fn what_comes_in_is_answered_while_it_is_read() {
        let waker = Waker::new().unwrap();
        let (mut here_in, mut here_out, _) = road();
        let (mut there_in, mut there_out, there) = road();
        for number in 0..200u8 {
            let datagram = &mut here_out.datagram(there.into(), 1000)[..1000];
            datagram.fill(number);
            // The kind of message: all are of one flow, and so in order.
            datagram[0] = 0;
            here_out.commit_datagram(1000, Ecn::Ect0);
        }
        here_out.flush();
        let mut echoed = 0;
        while echoed < 200 {
            let count = echo(&mut there_in, &mut there_out, &waker);
            assert_ne!(count, 0, "{echoed} of 200 came");
            echoed += count;
        }
        let mut back = Vec::new();
        while back.len() < 200 {
            let now = Clock::now().mono;
            let ready = here_in
                .wait(&waker, None, now + Duration::from_secs(5), now)
                .unwrap();
            assert!(ready.udp4, "{} of 200 came back", back.len());
            here_in.udp(ready, now, |from, ecn, datagram| {
                assert_eq!((from.remote, ecn, datagram.len()), (there, Ecn::Ect0, 1000));
                back.push(datagram[1]);
            });
        }
        assert_eq!(back, (0..200).collect::<Vec<u8>>());
        assert_eq!(here_out.refused() + there_out.refused(), 0);
    }

    #[test]
    fn without_a_tun_inner_packets_are_counted() {
        let (_, mut outputs, _) = road();
        assert_eq!(outputs.packet().len(), PACKET_ROOM);
        outputs.commit_packet(100);
        outputs.flush();
        assert_eq!(outputs.refused(), 1);
    }
}
