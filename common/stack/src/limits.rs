//! How much the stack holds at most. Nothing of it grows with what a stranger sends.

use std::time::Duration;

/// Connections of all tags. With the buffers of [`Limits::SERVER`] and 2 KiB for the rest of each:
/// 21 MiB at worst.
pub const MAX_CONNECTIONS: usize = 256;

/// Connections of one tag: a client needs one or two.
pub const MAX_PER_TAG: usize = 8;

/// Connections to one of our addresses: half of all, so that those who may reach only one address
/// leave room for the others.
pub const MAX_PER_ADDRESS: usize = MAX_CONNECTIONS / 2;

/// Answers that wait for [`crate::Stack::transmit`]: at the largest MTU 2.3 MB, at the usual one
/// a sixth of it. When it is full, a connection repeats what it had to say.
pub const MAX_ANSWERS: usize = 256;

/// Resets a second to packets that belong to no connection. Above it there is silence.
pub const RESETS_PER_SECOND: u32 = 64;

/// How long a handshake may take.
pub const HANDSHAKE: Duration = Duration::from_secs(10);

/// How long a connection lives on which nothing moves.
pub const IDLE: Duration = Duration::from_secs(60);

/// How long the other end may take to acknowledge what was sent.
pub const UNANSWERED: Duration = Duration::from_secs(30);

/// How long a connection lives that the other end opened, whatever moves on it: who acknowledges a
/// byte now and then holds it no longer.
pub const LIFETIME: Duration = Duration::from_secs(600);

/// How long a connection lives that nobody here holds any more: time for its last bytes.
pub const LINGER: Duration = Duration::from_secs(10);

/// Bounds of one stack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections of all tags.
    pub connections: usize,
    /// Connections of one tag.
    pub per_tag: usize,
    /// Connections to one of our addresses.
    pub per_address: usize,
    /// Bytes that a connection holds until they are read; also its receive window.
    pub receive_buffer: usize,
    /// Bytes that a connection holds until they are acknowledged.
    pub send_buffer: usize,
}

impl Limits {
    /// Small questions, larger answers, many askers.
    pub const SERVER: Limits = Limits {
        connections: MAX_CONNECTIONS,
        per_tag: MAX_PER_TAG,
        per_address: MAX_PER_ADDRESS,
        receive_buffer: 16 << 10,
        send_buffer: 64 << 10,
    };

    /// One gateway, a few questions at a time: under 1 MiB.
    pub const CLIENT: Limits = Limits {
        connections: MAX_PER_TAG,
        per_tag: MAX_PER_TAG,
        per_address: MAX_PER_TAG,
        receive_buffer: 64 << 10,
        send_buffer: 16 << 10,
    };
}
