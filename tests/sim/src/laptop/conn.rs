//! One TCP connection of a program on a laptop.

use crate::packet::{self, ACK, FIN, Key, PSH, Packet, RST, SYN, Segment};
use crate::speech;
use crate::target::stamped;

/// A TCP connection as the laptop sees it.
#[derive(Clone, Copy, Debug)]
pub struct Conn {
    /// Its flow.
    pub key: Key,
    /// How far it is.
    pub state: ConnState,
    pub(super) next_out: u32,
    pub(super) next_in: u32,
    /// Sequence number of the first byte.
    pub(super) first: u32,
    /// Bytes of its speech that were said.
    pub(super) said: usize,
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
    pub(super) fn receive(&mut self, segment: &Segment) -> Vec<Packet> {
        let exact = match self.state {
            ConnState::Opening => segment.has(ACK) && segment.ack == self.next_out,
            ConnState::Open | ConnState::Closing => segment.seq == self.next_in,
            ConnState::Reset => return Vec::new(),
        };
        if segment.has(RST) {
            if exact {
                self.state = ConnState::Reset;
                return Vec::new();
            }
            // RFC 5961: a near miss is challenged.
            let challenge = (self.state != ConnState::Opening).then(|| self.segment(ACK, &[]));
            return challenge.into_iter().collect();
        }
        if self.state == ConnState::Opening {
            if !segment.has(SYN | ACK) || !exact {
                return Vec::new();
            }
            self.state = ConnState::Open;
            self.next_in = segment.next();
            let mut answers = vec![self.segment(ACK, &[])];
            answers.extend(self.first_words());
            return answers;
        }
        if segment.next().wrapping_sub(self.next_in) < 1 << 31 {
            self.next_in = segment.next();
        }
        let answer = segment.has(FIN).then(|| self.segment(ACK, &[]));
        answer.into_iter().collect()
    }

    /// Many programs speak at once, in segments that need not leave in order.
    fn first_words(&mut self) -> Vec<Packet> {
        let speech = &speech::client(self.first).bytes;
        let mut words = Vec::new();
        while let Some(payload) = speech::piece(speech, self.said, self.first) {
            words.push(self.segment(PSH | ACK, payload));
            self.said += payload.len();
            let len = u32::try_from(payload.len()).unwrap_or(0);
            self.next_out = self.next_out.wrapping_add(len);
        }
        if self.first & 64 != 0 {
            words.reverse();
        }
        words
    }

    /// The program says what programs say first, then data with a stamp. Now and then what was
    /// said is sent again, cut in another way.
    pub(super) fn say(&mut self, stamp: u64, len: usize) -> Packet {
        let speech = &speech::client(self.first).bytes;
        if stamp.is_multiple_of(5) && self.said > 0 {
            let again = Conn {
                next_out: self.first,
                ..*self
            };
            return again.segment(PSH | ACK, &speech[..self.said.min(len)]);
        }
        let rest = &speech[self.said..];
        let payload = if rest.is_empty() || self.state != ConnState::Open {
            stamped(stamp, len)
        } else {
            let piece = &rest[..rest.len().min(len)];
            self.said += piece.len();
            piece.to_vec()
        };
        let packet = self.segment(PSH | ACK, &payload);
        let len = u32::try_from(payload.len()).unwrap_or(0);
        self.next_out = self.next_out.wrapping_add(len);
        packet
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
