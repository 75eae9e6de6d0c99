//! Signals as something to poll, for a program whose one worker also decides when to end.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};

/// The signals that mean something to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: ctrl-c.
    Interrupt,
    /// SIGTERM: the service manager asks us to stop.
    Terminate,
    /// SIGHUP: read the configuration again.
    Hangup,
    /// SIGUSR1: whatever the program gives it.
    User1,
}

const WATCHED: [(libc::c_int, Signal); 4] = [
    (libc::SIGINT, Signal::Interrupt),
    (libc::SIGTERM, Signal::Terminate),
    (libc::SIGHUP, Signal::Hangup),
    (libc::SIGUSR1, Signal::User1),
];

/// SIGINT, SIGTERM, SIGHUP and SIGUSR1, blocked and delivered here instead.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks the signals in this thread and those that it starts later: call it first in `main`.
    /// Programs started with `std::process::Command` have them unblocked again.
    ///
    /// # Errors
    /// When the process has no file descriptor left.
    pub fn block() -> io::Result<Signals> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: sigemptyset initialises the set that the other calls then read; every pointer
        // is valid for the call, and the descriptor that signalfd returns is ours alone.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            for (number, _) in WATCHED {
                libc::sigaddset(set.as_mut_ptr(), number);
            }
            let error = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            if error != 0 {
                return Err(io::Error::from_raw_os_error(error));
            }
            let fd = libc::signalfd(-1, set.as_ptr(), libc::SFD_CLOEXEC | libc::SFD_NONBLOCK);
            if fd < 0 {
                return Err(io::Error::last_os_error());
            }
            Ok(Signals(OwnedFd::from_raw_fd(fd)))
        }
    }

    /// The next signal that came, if any. Never waits.
    pub fn next(&self) -> Option<Signal> {
        const SIZE: usize = size_of::<libc::signalfd_siginfo>();
        let mut info = [0u8; SIZE];
        if rustix::io::read(&self.0, &mut info) != Ok(SIZE) {
            return None;
        }
        let number = i32::from_ne_bytes([info[0], info[1], info[2], info[3]]);
        WATCHED
            .iter()
            .find(|(watched, _)| *watched == number)
            .map(|(_, signal)| *signal)
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_to_this_thread_arrives_at_the_descriptor() {
        std::thread::spawn(|| {
            let signals = Signals::block().unwrap();
            assert_eq!(signals.next(), None);
            // SAFETY: it signals the calling thread, which has the signal blocked.
            unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGUSR1) };
            assert_eq!(signals.next(), Some(Signal::User1));
            assert_eq!(signals.next(), None);
        })
        .join()
        .unwrap();
    }
}
