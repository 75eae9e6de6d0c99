//! How far the oracle takes a TCP connection to have come.

use crate::packet::{ACK, FIN, RST, SYN, Segment};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    SynSent,
    SynReceived,
    Established,
    HalfClosed,
    Closed,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Track {
    pub(super) state: State,
    pub(super) next_out: u32,
    pub(super) next_in: Option<u32>,
    pub(super) fins: (bool, bool),
    pub(super) reset: bool,
}

impl Track {
    pub(super) fn from_device(segment: Segment) -> Track {
        let state = match (segment.opens(), segment.has(FIN)) {
            (true, _) => State::SynSent,
            (false, true) => State::HalfClosed,
            (false, false) => State::Established,
        };
        Track {
            state,
            next_out: segment.next(),
            next_in: segment.has(ACK).then_some(segment.ack),
            fins: (segment.has(FIN), false),
            reset: false,
        }
    }

    pub(super) fn from_target(segment: Segment) -> Track {
        Track {
            state: State::Established,
            next_out: segment.ack,
            next_in: Some(segment.next()),
            fins: (false, false),
            reset: false,
        }
    }

    pub(super) fn sent(&mut self, segment: &Segment) {
        if segment.has(RST) {
            self.reset = near(segment.seq, self.next_out);
            return;
        }
        if segment.opens() && self.state == State::SynSent {
            self.next_out = segment.next();
            return;
        }
        self.next_out = later(self.next_out, segment.next());
        if self.state == State::SynReceived && segment.has(ACK) {
            self.state = State::Established;
        }
        self.fins.0 |= segment.has(FIN);
        self.close();
    }

    pub(super) fn answered(&mut self, segment: &Segment) {
        if segment.has(RST) {
            self.reset = match self.next_in {
                Some(next) => near(segment.seq, next),
                None => segment.has(ACK) && segment.ack == self.next_out,
            };
            return;
        }
        if segment.has(SYN) && self.state <= State::SynReceived {
            self.state = State::SynReceived;
            self.next_in = Some(segment.next());
            return;
        }
        self.next_in = Some(
            self.next_in
                .map_or(segment.next(), |next| later(next, segment.next())),
        );
        self.fins.1 |= segment.has(FIN);
        self.close();
    }

    fn close(&mut self) {
        self.state = match self.fins {
            (true, true) => State::Closed,
            (false, false) => return,
            (true, false) | (false, true) => self.state.max(State::HalfClosed),
        };
    }
}

fn later(a: u32, b: u32) -> u32 {
    if b.wrapping_sub(a) < 1 << 31 { b } else { a }
}

fn near(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).min(b.wrapping_sub(a)) <= 1 << 20
}
