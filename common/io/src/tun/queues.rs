//! One interface with a queue for each worker.

use super::{Tun, TunError, TunOptions, explain, no_super_packets};
use crate::offload::Half;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

impl Tun {
    /// Creates the interface as [`Tun::open`] does, with so many queues, at least one. The n-th
    /// value reads and writes the n-th queue, which [steering](crate::steer) counts from zero.
    /// Each has the length [`TunOptions::queue`].
    ///
    /// The numbers hold while all are open. One that is dropped alone leaves its number to the
    /// last: drop all or none.
    ///
    /// One queue is not a queue of several: the kernel looks for no other.
    ///
    /// # Errors
    /// See [`TunError`].
    pub fn open_queues(options: &TunOptions, queues: usize) -> Result<Vec<Tun>, TunError> {
        let first = Tun::open_first(options, queues > 1)?;
        let mut all = Vec::with_capacity(queues.max(1));
        all.push(first);
        let explain = |source| explain(&options.name, source);
        for _ in 1..queues {
            let another = all[0].another().map_err(explain)?;
            all.push(another);
        }
        // Opening a queue has switched super-packets on again, for all of them.
        let read = options.offload.allow(Half::TunRead);
        if all.len() > 1 && !read && all[0].device.tcp_gso() {
            no_super_packets(&all[0].device).map_err(explain)?;
        }
        Ok(all)
    }

    fn another(&self) -> io::Result<Tun> {
        let device = self.device.try_clone()?;
        device.set_nonblocking(true)?;
        Ok(Tun {
            device: Arc::new(device),
            name: self.name.clone(),
            read: self.read,
            write: self.write,
            v6: self.v6,
        })
    }

    /// To attach a program to.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::testing::in_namespace;
    use crate::offload::Switches;
    use crate::tun::{DEFAULT_QUEUE, TunRx};
    use rustix::event::{PollFd, PollFlags, poll};
    use std::net::UdpSocket;

    fn options(offload: &str) -> TunOptions {
        TunOptions {
            name: "postern0".to_owned(),
            mtu: 1420,
            v4: Some(([192, 0, 2, 10].into(), 24)),
            v6: Some(("fd00::10".parse().unwrap(), 64)),
            queue: DEFAULT_QUEUE,
            offload: offload.parse().unwrap_or(Switches::AUTO),
        }
    }

    fn link() -> String {
        let shown = std::process::Command::new("ip")
            .args(["-d", "link", "show", "postern0"])
            .output()
            .unwrap();
        String::from_utf8(shown.stdout).unwrap()
    }

    #[test]
    fn one_worker_has_a_device_of_one_queue() {
        in_namespace(|| {
            let one = Tun::open_queues(&options("auto"), 1).unwrap();
            assert_eq!(one.len(), 1);
            let shown = link();
            assert!(shown.contains("numtxqueues 1 "), "{shown}");
            assert!(!shown.contains("multi_queue"), "{shown}");
        });
    }

    #[test]
    fn several_queues_are_alike() {
        in_namespace(|| {
            let queues = Tun::open_queues(&options("auto"), 4).unwrap();
            assert!(link().contains("multi_queue"), "{}", link());
            assert!(queues.iter().all(|queue| queue.has_v6()));
            let states: Vec<(TunRx, _)> = queues.into_iter().map(Tun::split).collect();
            for (reader, writer) in &states {
                assert_eq!(reader.offload(), states[0].0.offload());
                assert_eq!(writer.offload(), states[0].1.offload());
                let flags = rustix::fs::fcntl_getfl(reader.fd()).unwrap();
                assert!(flags.contains(rustix::fs::OFlags::NONBLOCK));
            }
        });
    }

    #[test]
    fn without_super_packets_no_queue_reads_one() {
        in_namespace(|| {
            let queues = Tun::open_queues(&options("tun-read=off"), 2).unwrap();
            let mut readers: Vec<TunRx> = queues.into_iter().map(|queue| queue.split().0).collect();
            let socket = UdpSocket::bind("192.0.2.10:0").unwrap();
            let run = quinn_udp::Transmit {
                destination: "192.0.2.77:9".parse().unwrap(),
                ecn: None,
                contents: &[7; 8000],
                segment_size: Some(1000),
                src_ip: None,
            };
            let state = quinn_udp::UdpSocketState::new((&socket).into()).unwrap();
            state.try_send((&socket).into(), &run).unwrap();
            let mut packets = 0;
            while packets < 8 {
                let mut waits: Vec<PollFd<'_>> = readers
                    .iter()
                    .map(|reader| PollFd::from_borrowed_fd(reader.fd(), PollFlags::IN))
                    .collect();
                let patience = rustix::fs::Timespec {
                    tv_sec: 5,
                    tv_nsec: 0,
                };
                assert_ne!(poll(&mut waits, Some(&patience)).unwrap(), 0, "{packets}");
                for reader in &mut readers {
                    let count = |packet: crate::split::SuperPacket<'_>| {
                        assert_eq!(packet.segments(), 1);
                        if packet.packet()[0] >> 4 == 4 {
                            packets += 1;
                        }
                    };
                    reader.receive(usize::MAX, count).unwrap();
                }
            }
        });
    }
}
