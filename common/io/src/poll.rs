//! Waiting: one call for both sockets, the TUN, a wake-up from another thread, and signals.

use postern_proto::now::Mono;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::fs::Timespec;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

/// Wakes a thread that waits in [`Sources::wait`]. Cheap to clone, may be used from any thread;
/// many wakes before the next wait are one.
#[derive(Clone, Debug)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// A new one.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn new() -> io::Result<Waker> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Waker(Arc::new(fd)))
    }

    /// Ends the present wait, or the next one at once.
    pub fn wake(&self) {
        // It fails only when the counter is at its limit, and then the wake-up is pending anyway.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Forgets the wakes so far.
    fn clear(&self) {
        let mut count = [0; 8];
        let _ = rustix::io::read(&self.0, &mut count);
    }
}

/// What a worker waits for. What it does not have is `None`.
#[derive(Clone, Copy, Debug)]
pub struct Sources<'a> {
    /// The IPv4 socket.
    pub udp4: Option<BorrowedFd<'a>>,
    /// The IPv6 socket.
    pub udp6: Option<BorrowedFd<'a>>,
    /// The TUN.
    pub tun: Option<BorrowedFd<'a>>,
    /// Messages from other threads.
    pub waker: &'a Waker,
    /// Signals, where the worker is also the one to end the program.
    pub signals: Option<BorrowedFd<'a>>,
}

/// What may be read without blocking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ready {
    /// The IPv4 socket has datagrams.
    pub udp4: bool,
    /// The IPv6 socket has datagrams.
    pub udp6: bool,
    /// The TUN has packets, or is gone.
    pub tun: bool,
    /// Another thread called [`Waker::wake`].
    pub woken: bool,
    /// A signal came.
    pub signalled: bool,
}

impl Ready {
    /// Either socket.
    #[must_use]
    pub fn udp(self) -> bool {
        self.udp4 || self.udp6
    }
}

impl Sources<'_> {
    /// Waits until something is ready or `deadline` has come; a deadline in the past only looks.
    /// An interrupting signal counts as nothing ready.
    ///
    /// # Errors
    /// Only for want of kernel memory.
    pub fn wait(&self, deadline: Mono, now: Mono) -> io::Result<Ready> {
        let waker = self.waker.0.as_fd();
        // poll has no way to say "nothing here", so an absent source asks the waker for nothing.
        let mut polled =
            [self.udp4, self.udp6, self.tun, self.signals, Some(waker)].map(|fd| match fd {
                Some(fd) => PollFd::from_borrowed_fd(fd, PollFlags::IN),
                None => PollFd::from_borrowed_fd(waker, PollFlags::empty()),
            });
        let timeout = (deadline != Mono::NEVER).then(|| {
            let left = deadline.since(now);
            Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(left.subsec_nanos()),
            }
        });
        match poll(&mut polled, timeout.as_ref()) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
            Err(error) => return Err(error.into()),
        }
        let ready = |place: usize| !polled[place].revents().is_empty();
        let ready = Ready {
            udp4: ready(0),
            udp6: ready(1),
            tun: ready(2),
            signalled: ready(3),
            woken: ready(4),
        };
        if ready.woken {
            self.waker.clear();
        }
        Ok(ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Clock;
    use std::net::UdpSocket;
    use std::time::Duration;

    fn nothing_but(waker: &Waker) -> Sources<'_> {
        Sources {
            udp4: None,
            udp6: None,
            tun: None,
            waker,
            signals: None,
        }
    }

    #[test]
    fn a_wake_from_another_thread_ends_an_endless_wait_and_is_then_forgotten() {
        let waker = Waker::new().unwrap();
        let other = waker.clone();
        let thread = std::thread::spawn(move || other.wake());
        let ready = nothing_but(&waker).wait(Mono::NEVER, Mono(0)).unwrap();
        assert!(ready.woken && !ready.udp() && !ready.tun);
        thread.join().unwrap();
        assert_eq!(
            nothing_but(&waker).wait(Mono(0), Mono(1)).unwrap(),
            Ready::default()
        );
    }

    #[test]
    fn a_deadline_ends_the_wait_not_before_it() {
        let waker = Waker::new().unwrap();
        let start = Clock::now().mono;
        let deadline = start + Duration::from_millis(20);
        nothing_but(&waker).wait(deadline, start).unwrap();
        assert!(Clock::now().mono >= deadline);
    }

    #[test]
    fn each_source_is_told_apart() {
        let waker = Waker::new().unwrap();
        let (a, b) = (
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        a.send_to(b"x", b.local_addr().unwrap()).unwrap();
        let sources = Sources {
            udp4: Some(a.as_fd()),
            udp6: Some(b.as_fd()),
            ..nothing_but(&waker)
        };
        let ready = sources.wait(Mono::NEVER, Mono(0)).unwrap();
        assert_eq!(
            ready,
            Ready {
                udp6: true,
                ..Ready::default()
            }
        );
    }
}
