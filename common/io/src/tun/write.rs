//! The writing half: joined packets, and what to do where the kernel refuses them.

use crate::clock::Clock;
use crate::join::{Joined, Joiner};
use crate::offload::{HalfState, Together, WhyNot};
use crate::virtio::VnetHeader;
use rustix::io::Errno;
use std::io::IoSlice;
use std::sync::Arc;
use tun_rs::SyncDevice;

/// What was written so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TunTxStats {
    /// Writes that succeeded.
    pub writes: u64,
    /// Packets that the kernel took.
    pub packets: u64,
    /// Packets that it did not take: `kernel-refused`.
    pub refused: u64,
    /// Joined packets of which it took the packets only one by one.
    pub rewritten: u64,
}

/// The writing half: packets are written into it and leave at [`TunTx::flush`], or before that
/// when it is full.
pub struct TunTx {
    device: Arc<SyncDevice>,
    joiner: Joiner,
    ladder: Ladder,
}

impl TunTx {
    pub(super) fn new(device: Arc<SyncDevice>, vnet: bool, together: Together) -> TunTx {
        TunTx {
            device,
            joiner: Joiner::new(together.joinable()),
            ladder: Ladder {
                vnet,
                together,
                stats: TunTxStats::default(),
            },
        }
    }

    /// Room ([`postern_proto::mtu::PACKET_ROOM`]) for one packet.
    pub fn slot(&mut self) -> &mut [u8] {
        if !self.joiner.has_room() {
            self.flush();
        }
        self.joiner.slot()
    }

    /// The first `len` bytes of the last slot are to be written.
    pub fn commit(&mut self, len: usize) {
        self.joiner.commit(len);
    }

    /// Writes everything. What the kernel does not take is dropped and counted.
    pub fn flush(&mut self) {
        let TunTx {
            device,
            joiner,
            ladder,
        } = self;
        let mut writev = |slices: &[IoSlice<'_>]| loop {
            match rustix::io::writev(&*device, slices) {
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error),
            }
        };
        joiner.drain(|joined| ladder.write(&joined, &mut writev));
        joiner.set_joinable(ladder.together.joinable());
    }

    /// What was written so far.
    #[must_use]
    pub fn stats(&self) -> TunTxStats {
        self.ladder.stats
    }

    /// Changes the MTU of the interface, in bytes.
    ///
    /// # Errors
    /// Without CAP_NET_ADMIN, or when the interface is gone.
    pub fn set_mtu(&self, mtu: u16) -> std::io::Result<()> {
        self.device.set_mtu(mtu)
    }

    /// Whether packets are joined, which, and why not the others.
    #[must_use]
    pub fn offload(&self) -> HalfState {
        self.ladder.together.state(self.ladder.stats.rewritten)
    }
}

/// What the kernel takes at present. The system call is an argument, so that tests can refuse.
struct Ladder {
    /// Whether every packet needs a virtio header before it.
    vnet: bool,
    together: Together,
    stats: TunTxStats,
}

impl Ladder {
    /// Writes what was joined at once, or else one by one: nothing is lost or written twice.
    fn write(
        &mut self,
        joined: &Joined<'_>,
        writev: &mut impl FnMut(&[IoSlice<'_>]) -> Result<(), Errno>,
    ) {
        let members = joined.members() as u64;
        // The kernel may have refused since these were joined.
        let refusal = if members > 1 && self.takes(joined).is_ok() {
            match writev(joined.slices) {
                Ok(()) => {
                    self.stats.writes += 1;
                    self.stats.packets += members;
                    return;
                }
                Err(error) => Some(error),
            }
        } else {
            None
        };
        let taken = self.write_singly(joined, writev);
        // An interface that is down refuses single packets as well and proves nothing.
        if let Some(error) = refusal
            && taken > 0
        {
            self.stats.rewritten += 1;
            if matches!(error, Errno::INVAL | Errno::IO) {
                self.give_up(joined, error);
            }
        }
    }

    fn write_singly(
        &mut self,
        joined: &Joined<'_>,
        writev: &mut impl FnMut(&[IoSlice<'_>]) -> Result<(), Errno>,
    ) -> u64 {
        let header = VnetHeader::PLAIN.to_bytes();
        let mut taken = 0;
        for packet in joined.packets() {
            let slices = [IoSlice::new(&header), IoSlice::new(packet)];
            let from = usize::from(!self.vnet);
            match writev(&slices[from..]) {
                Ok(()) => taken += 1,
                Err(_) => self.stats.refused += 1,
            }
        }
        self.stats.writes += taken;
        self.stats.packets += taken;
        taken
    }

    fn takes(&mut self, joined: &Joined<'_>) -> &mut Result<(), WhyNot> {
        if joined.is_udp() {
            &mut self.together.udp
        } else {
            &mut self.together.tcp
        }
    }

    /// Some kernels refuse every super-packet (a check that came with 6.11 and went to stable
    /// series), some of one protocol.
    fn give_up(&mut self, joined: &Joined<'_>, error: Errno) {
        *self.takes(joined) = Err(WhyNot::Refused(Clock::now().wall));
        let protocol = if joined.is_udp() { "udp" } else { "tcp" };
        tracing::warn!(
            protocol,
            %error,
            "this kernel refuses joined packets; writing them one by one from now on, which is slower"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::join::Joinable;
    use crate::testing::Spec;
    use proptest::prelude::*;

    const ALL: Joinable = Joinable {
        tcp: true,
        udp: true,
    };

    fn ladder() -> Ladder {
        Ladder {
            vnet: true,
            together: Together::new(ALL, true),
            stats: TunTxStats::default(),
        }
    }

    /// Ten packets of a flow that are joined; the flow is known by its port.
    fn flow(udp: bool, port: u16) -> impl Iterator<Item = Vec<u8>> {
        (0..10u8).map(move |number| {
            let spec = Spec {
                udp,
                port,
                sequence: 1000 + 100 * u32::from(number),
                ip_id: 1 + u16::from(number),
                payload: vec![number; 100],
                ..Spec::default()
            };
            spec.build()
        })
    }

    type Refuses = Box<dyn Fn(usize, &[IoSlice<'_>]) -> Option<Errno>>;

    /// A kernel that cuts what it takes, and refuses what it is told to.
    struct Kernel {
        /// Single packets in the order in which they came.
        got: Vec<Vec<u8>>,
        calls: usize,
        /// The call that is refused, from 0, and whatever else.
        refuses: Refuses,
    }

    impl Kernel {
        fn that_refuses(
            refuses: impl Fn(usize, &[IoSlice<'_>]) -> Option<Errno> + 'static,
        ) -> Kernel {
            Kernel {
                got: Vec::new(),
                calls: 0,
                refuses: Box::new(refuses),
            }
        }

        fn writev(&mut self, slices: &[IoSlice<'_>]) -> Result<(), Errno> {
            let call = self.calls;
            self.calls += 1;
            if let Some(error) = (self.refuses)(call, slices) {
                return Err(error);
            }
            let mut bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
            let (header, packet) = bytes.split_first_chunk_mut().unwrap();
            crate::split::SuperPacket::parse(VnetHeader::parse(header), packet)
                .unwrap()
                .for_each_segment(|segment| self.got.push(segment.to_vec()));
            Ok(())
        }

        fn flush(&mut self, ladder: &mut Ladder, packets: &[Vec<u8>]) {
            let mut joiner = Joiner::new(ladder.together.joinable());
            for packet in packets {
                joiner.slot()[..packet.len()].copy_from_slice(packet);
                joiner.commit(packet.len());
            }
            joiner.drain(|joined| ladder.write(&joined, &mut |slices| self.writev(slices)));
        }

        /// What came of the flow with this source port.
        fn of(&self, port: u16) -> Vec<&Vec<u8>> {
            let from = |packet: &&Vec<u8>| packet[20..22] == port.to_be_bytes();
            self.got.iter().filter(from).collect()
        }
    }

    fn is_joined(slices: &[IoSlice<'_>]) -> bool {
        slices.len() > 2
    }

    #[test]
    fn a_refused_joined_packet_is_written_singly_and_nothing_is_joined_again() {
        for error in [Errno::INVAL, Errno::IO] {
            let mut ladder = ladder();
            let mut kernel =
                Kernel::that_refuses(move |_, slices| is_joined(slices).then_some(error));
            let packets: Vec<_> = flow(false, 1).collect();
            kernel.flush(&mut ladder, &packets);
            assert_eq!(kernel.got, packets);
            let first = TunTxStats {
                writes: 10,
                packets: 10,
                refused: 0,
                rewritten: 1,
            };
            assert_eq!(ladder.stats, first);
            assert!(matches!(ladder.together.tcp, Err(WhyNot::Refused(_))));

            kernel.flush(&mut ladder, &packets);
            assert_eq!(kernel.calls, 1 + 10 + 10, "not even tried");
            assert_eq!(ladder.stats.rewritten, 1);
        }
    }

    #[test]
    fn a_kernel_that_refuses_udp_still_gets_tcp_together() {
        let mut ladder = ladder();
        let udp = |slices: &[IoSlice<'_>]| is_joined(slices) && slices[0][10 + 9] == 17;
        let mut kernel = Kernel::that_refuses(move |_, slices| udp(slices).then_some(Errno::INVAL));
        // Three flows in one batch: the second of UDP is not tried either.
        let packets: Vec<_> = [(true, 1), (true, 2), (false, 3)]
            .into_iter()
            .flat_map(|(udp, port)| flow(udp, port))
            .collect();
        kernel.flush(&mut ladder, &packets);
        assert_eq!(kernel.calls, 1 + 10 + 10 + 1);
        assert_eq!(kernel.got, packets);
        assert_eq!(ladder.stats.rewritten, 1);
        let state = ladder.together.state(ladder.stats.rewritten);
        assert!(state.on && state.fallbacks == 1, "{state}");
        assert!(
            state
                .detail
                .starts_with("tcp; udp refused by the kernel at 2"),
            "{state}"
        );
    }

    #[test]
    fn an_interface_that_refuses_everything_proves_nothing() {
        let mut ladder = ladder();
        let packets: Vec<_> = flow(false, 1).collect();
        Kernel::that_refuses(|_, _| Some(Errno::IO)).flush(&mut ladder, &packets);
        assert_eq!(ladder.stats.refused, 10);
        assert!(ladder.together.tcp.is_ok());
    }

    #[test]
    fn want_of_memory_costs_no_packet_and_no_offload() {
        let mut ladder = ladder();
        let packets: Vec<_> = flow(false, 1).collect();
        let mut kernel = Kernel::that_refuses(|call, _| (call == 0).then_some(Errno::NOMEM));
        kernel.flush(&mut ladder, &packets);
        assert_eq!(kernel.got, packets);
        assert_eq!((ladder.stats.rewritten, ladder.stats.refused), (1, 0));
        assert!(ladder.together.tcp.is_ok());
    }

    proptest! {
        /// Whichever write is refused, each packet arrives once, in the order of its flow; only a
        /// single packet that was refused itself is missing, and counted.
        #[test]
        fn nothing_is_lost_doubled_or_reordered(
            order in prop::collection::vec(0u16..4, 1..120),
            refused in prop::collection::vec((0usize..40, prop::sample::select(vec![
                Errno::INVAL, Errno::IO, Errno::NOMEM, Errno::NOBUFS,
            ])), 0..6),
        ) {
            let mut sent: [usize; 4] = [0; 4];
            let packets: Vec<_> = order
                .iter()
                .map(|port| {
                    let number = &mut sent[usize::from(*port)];
                    *number += 1;
                    let spec = Spec {
                        udp: *port % 2 == 0,
                        port: *port,
                        sequence: 1000 + 100 * u32::try_from(*number).unwrap(),
                        ip_id: u16::try_from(*number).unwrap(),
                        payload: vec![u8::try_from(*number).unwrap(); 100],
                        ..Spec::default()
                    };
                    spec.build()
                })
                .collect();
            let mut ladder = ladder();
            let plan = refused.clone();
            let mut kernel = Kernel::that_refuses(move |call, _| {
                plan.iter().find(|(at, _)| *at == call).map(|(_, error)| *error)
            });
            kernel.flush(&mut ladder, &packets);
            let stats = ladder.stats;
            prop_assert_eq!(stats.packets + stats.refused, packets.len() as u64);
            prop_assert_eq!(stats.packets, kernel.got.len() as u64);
            prop_assert!(stats.refused + stats.rewritten <= refused.len() as u64);
            for port in 0..4u16 {
                let mut wanted = packets.iter().filter(|packet| packet[20..22] == port.to_be_bytes());
                // A subsequence: in order, none twice.
                for got in kernel.of(port) {
                    prop_assert!(wanted.any(|packet| packet == got));
                }
            }
        }
    }
}
