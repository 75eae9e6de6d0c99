//! The road of a packet through both ends, in memory: what the workers of laptop and gateway do
//! between their system calls, with the real client, the real engine and the real batches.
//!
//! | module | what it knows |
//! |---|---|
//! | [`packets`] | the packets: 64 bytes, a full one, a super-packet of 45 |
//! | [`wire`] | the outbox: the send batch and the joiner, without a socket and a TUN |
//! | [`world`] | a laptop and a gateway with as many rules and open flows as one likes |
//! | [`scenarios`] | what the guard counts |
//! | [`callgrind`] | what valgrind counted, read |
//! | [`table`] | the counts beside the committed ones |
//!
//! The benchmarks in `benches` measure time; the program (`scripts/instructions`) counts
//! instructions and allocations, which do not depend on what else the machine does.
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod callgrind;
pub mod packets;
pub mod scenarios;
pub mod table;
pub mod wire;
pub mod world;
