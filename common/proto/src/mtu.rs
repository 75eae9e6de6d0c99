//! Every size in one place.
//!
//! *inner* is the IP packet that the laptop or the target sees; *outer* is the UDP datagram that
//! carries it. WireGuard (paper, section 5.4.6) adds 32 bytes: a 16-byte header and a 16-byte tag.

/// Inner MTU unless configured or found smaller: fits an outer path of 1500 over IPv6
/// (1500 - 40 - 8 - 32 = 1420).
pub const DEFAULT_MTU: usize = 1420;

/// The smallest inner MTU we accept: IPv6 demands it (RFC 8200, section 5).
pub const MIN_MTU: usize = 1280;

/// The largest inner MTU we accept.
pub const MAX_MTU: usize = 9000;

/// What WireGuard adds to an inner packet.
pub const WIREGUARD_OVERHEAD: usize = 32;

/// WireGuard pads inner packets with zeros to a multiple of this, so that lengths leak less.
pub const PADDING: usize = 16;

/// Room that one datagram needs before it is known how long it gets: a padded packet of the
/// largest MTU with its overhead.
pub const DATAGRAM_ROOM: usize = MAX_MTU.next_multiple_of(PADDING) + WIREGUARD_OVERHEAD;

/// Room that a decrypted packet needs. The same: decryption writes no more than it read.
pub const PACKET_ROOM: usize = DATAGRAM_ROOM;

/// The largest super-packet that a TUN with offload hands over, without its virtio header.
pub const SUPER_PACKET: usize = 65_535;

/// Inner MTU to TCP maximum segment size, IPv4 (20 + 20 bytes of header).
#[must_use]
pub const fn mss_v4(mtu: usize) -> u16 {
    (mtu - 40) as u16
}

/// Inner MTU to TCP maximum segment size, IPv6 (40 + 20 bytes of header).
#[must_use]
pub const fn mss_v6(mtu: usize) -> u16 {
    (mtu - 60) as u16
}

const _: () = assert!(MIN_MTU <= DEFAULT_MTU && DEFAULT_MTU <= MAX_MTU);
const _: () = assert!(DATAGRAM_ROOM >= 148, "a handshake initiation must fit");
const _: () = assert!(MAX_MTU - 40 <= u16::MAX as usize);
