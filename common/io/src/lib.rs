//! Where the program touches the world. The pure crates decide; this one moves the bytes, reads
//! the clock and changes the host. It is the only crate that may say `unsafe`.
//!
//! The fast path is [`road`]: datagrams in, packets out, and back, with one system call for about
//! forty packets each way. Its parts without system calls ([`virtio`], [`split`], [`join`],
//! [`send_batch`], [`checksum`]) are tested against slow oracles.
#![deny(unsafe_op_in_unsafe_fn)]
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::print_stderr))]

pub mod checksum;
pub mod clock;
pub mod fair;
mod hash;
pub mod host;
pub mod join;
pub mod offload;
pub mod poll;
pub mod road;
pub mod send_batch;
pub mod signal;
pub mod split;
pub mod steer;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod tun;
pub mod udp;
pub mod virtio;
