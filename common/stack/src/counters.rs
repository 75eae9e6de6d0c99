//! What the stack counts.

/// Since the start, but for the first two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections now.
    pub connections: usize,
    /// Of them, those whose handshake is not over.
    pub half_open: usize,
    /// Connections whose handshake was completed.
    pub opened: u64,
    /// SYNs refused in silence because all connections, or those of a tag or address, are taken.
    pub crowded: u64,
    /// Packets to a port or connection that is not there.
    pub nobody: u64,
    /// Packets that are no TCP for one of our addresses.
    pub strange: u64,
    /// Connections that ended because nothing moved.
    pub timed_out: u64,
    /// Answers that found no room.
    pub unanswered: u64,
}
