//! What both ends of Postern share, and nothing that touches the world.
//!
//! | module | what it knows |
//! |---|---|
//! | [`now`] | time as a value; nothing here can read a clock |
//! | [`mtu`] | every size in one place |
//! | [`keys`] | key newtypes, redacted in every `Debug` |
//! | [`kem`] | a pre-shared key that a quantum computer does not give away |
//! | [`fate`] | why a packet goes no further: the closed list |
//! | [`packet`] | bytes proved once; the only module that names etherparse |
//! | [`reply`] | the answers to a refusal: TCP RST, ICMP prohibited, packet too big |
//! | [`ecn`] | congestion marks between outer and inner header |
//! | [`flow_key`] | the 5-tuple, as the device sees it |
//! | [`outbox`] | where a pure state machine puts what it sends |
//! | [`tunnel`] | one WireGuard peer with our clock; the only module that names boringtun's `Tunn` |
//! | [`gate`] | who may make us do a handshake, and how often |
//! | [`peers`] | demux: receiver index or public key to peer |
//! | [`control`] | messages inside the tunnel between Postern ends |
//! | [`path_mtu`] | what fits through the path to the gateway |
//! | [`invitation`], [`device_api`], [`facts`] | how a device joins, and what both ends say over HTTP in the tunnel |
//! | [`profile`] | what a device needs to know to reach its gateway |
#![forbid(unsafe_code)]

pub mod control;
pub mod device_api;
pub mod ecn;
pub mod facts;
pub mod fate;
pub mod flow_key;
pub mod gate;
pub mod invitation;
pub mod kem;
pub mod keys;
pub mod mtu;
pub mod now;
pub mod outbox;
pub mod packet;
pub mod path_mtu;
pub mod peers;
pub mod profile;
pub mod reply;
pub mod tunnel;
