//! The clear-text part of WireGuard's four messages (paper, section 5.4): what is needed to find
//! whose they are before anything is decrypted.

use crate::fate::DropReason;
use crate::mtu::WIREGUARD_OVERHEAD;

pub(super) const INITIATION_LEN: usize = 148;
const RESPONSE_LEN: usize = 92;
const COOKIE_LEN: usize = 64;
/// The shortest IP header.
pub(super) const MIN_IP_LEN: usize = 20;
const MIN_IPV6_LEN: usize = 40;

/// Set in every index of a tunnel's spare machine.
const SPARE: u32 = 1 << 23;

/// A peer in this process: 23 bits. Each receiver index that the peer is told is, from the top,
/// one bit for which of the tunnel's two machines, these 23, and 8 that count sessions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerId(u32);

impl PeerId {
    /// The largest. boringtun silently cuts an index that does not fit, so it is refused here.
    pub const MAX: PeerId = PeerId(SPARE - 1);

    /// `None` above [`PeerId::MAX`].
    #[must_use]
    pub fn new(id: u32) -> Option<PeerId> {
        (id <= Self::MAX.0).then_some(PeerId(id))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

/// boringtun's 24-bit index of a peer's spare machine; that of its home is the peer's number.
pub(super) fn spare(id: PeerId) -> u32 {
    id.0 | SPARE
}

/// A local index is of the spare machine.
pub(super) fn is_spare(index: u32) -> bool {
    index >> 8 & SPARE != 0
}

/// The kind of a datagram and whose it claims to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message {
    /// Type 1: a peer asks for a key; who it is, is encrypted.
    Initiation,
    /// Type 2: the answer to our initiation `receiver`.
    Response {
        /// Our local index.
        receiver: u32,
    },
    /// Type 3: the peer is under load.
    Cookie {
        /// Our local index.
        receiver: u32,
    },
    /// Type 4: a packet, or an empty one.
    Data {
        /// Our local index.
        receiver: u32,
        /// The nonce.
        counter: u64,
    },
}

impl Message {
    /// `None` unless type, reserved bytes and length are those of a WireGuard message.
    #[must_use]
    pub fn parse(datagram: &[u8]) -> Option<Message> {
        match (u32_at(datagram, 0)?, datagram.len()) {
            (1, INITIATION_LEN) => Some(Message::Initiation),
            (2, RESPONSE_LEN) => Some(Message::Response {
                receiver: u32_at(datagram, 8)?,
            }),
            (3, COOKIE_LEN) => Some(Message::Cookie {
                receiver: u32_at(datagram, 4)?,
            }),
            (4, WIREGUARD_OVERHEAD..) => {
                let (receiver, low, high) = (
                    u32_at(datagram, 4)?,
                    u32_at(datagram, 8)?,
                    u32_at(datagram, 12)?,
                );
                Some(Message::Data {
                    receiver,
                    counter: u64::from(high) << 32 | u64::from(low),
                })
            }
            _ => None,
        }
    }

    /// The peer that a receiver index belongs to; an initiation has none.
    #[must_use]
    pub fn peer(self) -> Option<PeerId> {
        match self {
            Message::Initiation => None,
            Message::Response { receiver }
            | Message::Cookie { receiver }
            | Message::Data { receiver, .. } => Some(PeerId(receiver >> 8 & PeerId::MAX.0)),
        }
    }
}

/// The local index that a handshake message of ours announces.
pub(super) fn sender(message: &[u8]) -> Option<u32> {
    u32_at(message, 4)
}

/// Names what is wrong with bytes that boringtun did not take for an IP packet.
pub(super) fn why_not_ip(inner: &[u8]) -> DropReason {
    match (inner.first().map_or(0, |first| first >> 4), inner.len()) {
        (_, ..MIN_IP_LEN) | (6, ..MIN_IPV6_LEN) => DropReason::Truncated,
        (4 | 6, _) => DropReason::BadLength,
        _ => DropReason::BadHeader,
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*bytes))
}
