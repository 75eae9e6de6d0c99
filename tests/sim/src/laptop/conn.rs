//! One TCP connection of a program on a laptop.

use crate::packet::{self, ACK, FIN, Key, Packet, RST, SYN, Segment};

/// A TCP connection as the laptop sees it.
#[derive(Clone, Copy, Debug)]
pub struct Conn {
    /// Its flow.
    pub key: Key,
    /// How far it is.
    pub state: ConnState,
    pub(super) next_out: u32,
    pub(super) next_in: u32,
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnState {
    /// The SYN went out.
    Opening,
    /// The target answered.
    Open,
    /// This end has said FIN.
    Closing,
    /// Refused or reset.
    Reset,
}

impl Conn {
    pub(super) fn receive(&mut self, segment: &Segment) -> Option<Packet> {
        let exact = match self.state {
            ConnState::Opening => segment.has(ACK) && segment.ack == self.next_out,
            ConnState::Open | ConnState::Closing => segment.seq == self.next_in,
            ConnState::Reset => return None,
        };
        if segment.has(RST) {
            if exact {
                self.state = ConnState::Reset;
                return None;
            }
            // RFC 5961: a near miss is challenged.
            return (self.state != ConnState::Opening).then(|| self.segment(ACK, &[]));
        }
        if self.state == ConnState::Opening {
            if !segment.has(SYN | ACK) || !exact {
                return None;
            }
            self.state = ConnState::Open;
            self.next_in = segment.next();
            return Some(self.segment(ACK, &[]));
        }
        if segment.next().wrapping_sub(self.next_in) < 1 << 31 {
            self.next_in = segment.next();
        }
        segment.has(FIN).then(|| self.segment(ACK, &[]))
    }

    pub(super) fn segment(&self, flags: u8, payload: &[u8]) -> Packet {
        let (from, to) = (self.key.client, self.key.target);
        let segment = Segment {
            from: from.1,
            to: to.1,
            flags,
            seq: self.next_out,
            ack: self.next_in,
            payload: 0,
        };
        packet::tcp(from.0, to.0, segment, payload, None)
    }
}

pub(super) fn syn(key: &Key, seq: u32) -> Packet {
    let segment = Segment {
        from: key.client.1,
        to: key.target.1,
        flags: SYN,
        seq,
        ack: 0,
        payload: 0,
    };
    packet::tcp(key.client.0, key.target.0, segment, &[], Some(8960))
}
