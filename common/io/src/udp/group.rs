//! Several workers and the front door on one UDP port.
//!
//! For each address family there is a group of sockets on the port (SO_REUSEPORT), and a classic
//! BPF program in the kernel that picks one for each datagram:
//!
//! | datagram | socket |
//! |---|---|
//! | data (type 4), cookie (3) | of the worker in the low bits of the receiver index, at byte 4 |
//! | response (2) | the same, at byte 8 |
//! | initiation (1), too short, anything else | the front door |
//!
//! A receiver index is the peer's index and eight bits of session, least significant byte first,
//! so the worker is in the low bits of its second byte.
//!
//! The kernel may have joined datagrams of one sender and one length (GRO). Such a run goes where
//! its first datagram goes. So an initiation may arrive at a worker, and data at the door, rarely
//! but rightly: whoever gets it must hand it on. It never concerns two senders.
//!
//! The kernel counts sockets in the order of binding. One that is closed alone leaves its number
//! to the last: drop all or none.

use super::{End, Port, SOCKET_BUFFER, UdpEnd, UdpError, UdpOptions, on_one_port, share_port};
use crate::steer;
use libc::sock_filter;
use socket2::Socket;
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// What we ask the kernel to queue at the front door, in bytes, for each address family. The
/// kernel counts 832 for an initiation, and grants the double: 2 500 of them (measured), which one
/// thread answers in half a second. A longer queue would only answer those who have given up.
pub const DOOR_BUFFER: usize = 1024 * 1024;

/// Bytes of the shortest message with a receiver index: data without data.
const SHORTEST: u32 = 32;

/// The sockets of all workers and of the front door.
///
/// All of them are to be [split](UdpEnd::split): the kernel joins datagrams for none of them
/// until each has asked for it, because it looks before it picks.
#[derive(Debug)]
pub struct UdpGroup {
    /// Each worker's, in the order of their numbers.
    pub workers: Vec<UdpEnd>,
    /// Where initiations arrive, and what is no message of ours.
    pub door: UdpEnd,
}

impl UdpGroup {
    /// Opens the sockets of so many workers (1, 2, 4 or 8) and of the door on one port. A host
    /// without IPv6 (or without IPv4) gets only the other.
    ///
    /// Nobody who opens the port in this way or with [`UdpEnd::bind`] joins it by accident: the
    /// second gets [`UdpError::PortInUse`], even if both start at the same moment.
    ///
    /// # Errors
    /// See [`UdpError`].
    pub fn bind(options: &UdpOptions, workers: usize) -> Result<UdpGroup, UdpError> {
        if !steer::possible(workers) {
            return Err(UdpError::Workers(workers));
        }
        let (v4, v6, port) = on_one_port(options, |address| open(address, options, workers))?;
        let (mut v4, mut v6) = (v4.into_iter(), v6.into_iter());
        let mut next = || UdpEnd {
            v4: v4.next(),
            v6: v6.next(),
            port,
        };
        Ok(UdpGroup {
            workers: (0..workers).map(|_| next()).collect(),
            door: next(),
        })
    }
}

/// The sockets of one family. Empty if the host does not have it.
fn open(
    address: SocketAddr,
    options: &UdpOptions,
    workers: usize,
) -> Result<Vec<Arc<End>>, UdpError> {
    // Sockets share a port when all of them say so. The first says so only when it has the port:
    // it can have it only alone.
    let Some(first) = End::open(address, options, Port::Own, SOCKET_BUFFER)? else {
        return Ok(Vec::new());
    };
    let other = |source| UdpError::Other { address, source };
    let address = SocketAddr::new(address.ip(), first.port().map_err(other)?);
    share_port(&first.socket).map_err(other)?;
    let mut ends = vec![first];
    for number in 1..=workers {
        let buffer = if number == workers {
            DOOR_BUFFER
        } else {
            SOCKET_BUFFER
        };
        let end = End::open(address, options, Port::Shared, buffer)?;
        ends.push(end.ok_or(UdpError::NoSuchAddress(address))?);
    }
    attach(&ends[0].socket, &mut by_receiver(workers))
        .map_err(|source| UdpError::Steering { address, source })?;
    Ok(ends)
}

/// The accumulator holds what the last load brought; offset 0 is the first byte of the payload. A
/// load beyond the end would pick socket 0, so the length comes first. Of datagrams that the
/// kernel joined it is the length of the run, and what is loaded may be of the second; whoever
/// sends such short ones sends nonsense anyway.
fn by_receiver(workers: usize) -> [sock_filter; 12] {
    const LENGTH: u16 = 0x80;
    const WORD: u16 = 0x20; // big-endian
    const BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const IF_EQUAL: u16 = 0x15;
    const IF_AT_LEAST: u16 = 0x35;
    const JUMP: u16 = 0x05;
    const PICK: u16 = 0x06;
    const PICK_ACCUMULATOR: u16 = 0x16;
    let then = |code, k| sock_filter {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    let branch = |code, k, jt, jf| sock_filter { code, jt, jf, k };
    let workers = workers as u32; // at most 8
    [
        then(LENGTH, 0),
        branch(IF_AT_LEAST, SHORTEST, 0, 4),
        then(WORD, 0), // the type and three bytes of zero
        branch(IF_EQUAL, 0x0400_0000, 3, 0),
        branch(IF_EQUAL, 0x0300_0000, 2, 0),
        branch(IF_EQUAL, 0x0200_0000, 3, 0),
        then(PICK, workers), // the door
        then(BYTE, 5),       // data, cookie
        then(JUMP, 1),
        then(BYTE, 9), // response
        then(AND, workers - 1),
        then(PICK_ACCUMULATOR, 0),
    ]
}

fn attach(socket: &Socket, program: &mut [sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: program.len() as libc::c_ushort, // twelve
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the pointer and the length are those of a value that lives through the call, and so
    // do the instructions that it points to; the kernel copies both.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
