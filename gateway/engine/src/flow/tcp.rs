//! How far a TCP connection has come. Not a TCP implementation: just enough to know which
//! deadline applies, when it is over, and which sequence numbers a reset must carry.

use postern_proto::packet::{Tcp, TcpFlags};
use schemars::JsonSchema;
use serde::Serialize;

/// A reset this far from what is expected next is somebody's guess (or very late): it is passed
/// on, for the receiver to challenge (RFC 5961), but it ends nothing here.
const RESET_WINDOW: u32 = 1 << 20;

/// The furthest state that a connection reached, as records name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum TcpState {
    /// The device's SYN went out.
    SynSent,
    /// The target's SYN-ACK came back.
    SynReceived,
    /// The handshake is complete, or was when the gateway resumed the flow.
    Established,
    /// One end has said FIN.
    HalfClosed,
    /// Both ends have said FIN.
    Closed,
    /// One end has said RST.
    Reset,
}

/// One connection, seen from the middle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpTrack {
    /// Furthest state.
    pub state: TcpState,
    /// What the target expects next from the device.
    pub next_out: u32,
    /// What the device expects next from the target, once known.
    pub next_in: Option<u32>,
    fin_out: bool,
    fin_in: bool,
}

impl TcpTrack {
    /// Opened by a SYN, or resumed by any other segment of the device.
    #[must_use]
    pub fn from_device(tcp: &Tcp) -> TcpTrack {
        let mut track = TcpTrack {
            state: if tcp.flags.opens() {
                TcpState::SynSent
            } else {
                TcpState::Established
            },
            next_out: tcp.next_sequence(),
            next_in: tcp.flags.has(TcpFlags::ACK).then_some(tcp.acknowledgment),
            fin_out: tcp.flags.has(TcpFlags::FIN),
            fin_in: false,
        };
        track.note_fins();
        track
    }

    /// Resumed by a segment of the target.
    #[must_use]
    pub fn from_target(tcp: &Tcp) -> TcpTrack {
        TcpTrack {
            state: TcpState::Established,
            next_out: tcp.acknowledgment,
            next_in: Some(tcp.next_sequence()),
            fin_out: false,
            fin_in: tcp.flags.has(TcpFlags::FIN),
        }
    }

    /// The device sent `tcp`.
    pub fn device_sent(&mut self, tcp: &Tcp) {
        if tcp.flags.has(TcpFlags::RST) {
            if near(tcp.sequence, self.next_out) {
                self.state = TcpState::Reset;
            }
            return;
        }
        if tcp.flags.opens() && self.state == TcpState::SynSent {
            self.next_out = tcp.next_sequence();
            return;
        }
        self.next_out = later(self.next_out, tcp.next_sequence());
        if self.state == TcpState::SynReceived && tcp.flags.has(TcpFlags::ACK) {
            self.state = TcpState::Established;
        }
        self.fin_out |= tcp.flags.has(TcpFlags::FIN);
        self.note_fins();
    }

    /// The target sent `tcp`.
    pub fn target_sent(&mut self, tcp: &Tcp) {
        if tcp.flags.has(TcpFlags::RST) {
            let expected = match self.next_in {
                Some(next) => near(tcp.sequence, next),
                // A closed port answers a SYN with RST and ACK.
                None => tcp.flags.has(TcpFlags::ACK) && tcp.acknowledgment == self.next_out,
            };
            if expected {
                self.state = TcpState::Reset;
            }
            return;
        }
        if tcp.flags.has(TcpFlags::SYN) && self.state <= TcpState::SynReceived {
            self.state = TcpState::SynReceived;
            self.next_in = Some(tcp.next_sequence());
            return;
        }
        self.next_in = Some(match self.next_in {
            Some(next) => later(next, tcp.next_sequence()),
            None => tcp.next_sequence(),
        });
        self.fin_in |= tcp.flags.has(TcpFlags::FIN);
        self.note_fins();
    }

    /// No target has answered yet.
    #[must_use]
    pub fn is_half_open(&self) -> bool {
        self.state == TcpState::SynSent
    }

    fn note_fins(&mut self) {
        let reached = match (self.fin_out, self.fin_in) {
            (true, true) => TcpState::Closed,
            (true, false) | (false, true) => TcpState::HalfClosed,
            (false, false) => return,
        };
        self.state = self.state.max(reached);
    }
}

fn later(a: u32, b: u32) -> u32 {
    if b.wrapping_sub(a) < 1 << 31 { b } else { a }
}

fn near(a: u32, b: u32) -> bool {
    a.wrapping_sub(b).min(b.wrapping_sub(a)) <= RESET_WINDOW
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(flags: u8, sequence: u32, acknowledgment: u32, payload: u32) -> Tcp {
        Tcp {
            source_port: 1,
            destination_port: 2,
            sequence,
            acknowledgment,
            flags: TcpFlags(flags),
            payload,
        }
    }
    const SYN: u8 = 2;
    const ACK: u8 = 16;
    const FIN: u8 = 1;
    const RST: u8 = 4;

    fn established() -> TcpTrack {
        let mut track = TcpTrack::from_device(&segment(SYN, 100, 0, 0));
        track.target_sent(&segment(SYN | ACK, 900, 101, 0));
        track.device_sent(&segment(ACK, 101, 901, 0));
        track
    }

    #[test]
    fn a_handshake_data_and_two_fins() {
        let mut track = established();
        assert_eq!(track.state, TcpState::Established);
        track.device_sent(&segment(ACK, 101, 901, 50));
        track.target_sent(&segment(ACK, 901, 151, 70));
        assert_eq!((track.next_out, track.next_in), (151, Some(971)));
        track.device_sent(&segment(FIN | ACK, 151, 971, 0));
        assert_eq!(track.state, TcpState::HalfClosed);
        track.target_sent(&segment(FIN | ACK, 971, 152, 0));
        assert_eq!(track.state, TcpState::Closed);
    }

    #[test]
    fn a_connection_resumed_by_its_fin_is_half_closed_at_once() {
        let track = TcpTrack::from_device(&segment(FIN | ACK, 100, 900, 0));
        assert_eq!(track.state, TcpState::HalfClosed);
    }

    #[test]
    fn a_refused_syn_ends_and_a_guessed_reset_does_not() {
        let mut track = TcpTrack::from_device(&segment(SYN, 100, 0, 0));
        track.target_sent(&segment(RST | ACK, 0, 7, 0));
        assert_eq!(
            track.state,
            TcpState::SynSent,
            "it acknowledges something else"
        );
        track.target_sent(&segment(RST | ACK, 0, 101, 0));
        assert_eq!(track.state, TcpState::Reset);
        let mut track = established();
        track.target_sent(&segment(RST, 901 + RESET_WINDOW * 2, 0, 0));
        assert_eq!(track.state, TcpState::Established);
        track.target_sent(&segment(RST, 901, 0, 0));
        assert_eq!(track.state, TcpState::Reset);
    }

    #[test]
    fn reordered_and_wrapped_sequences_keep_the_newest() {
        let mut track = TcpTrack::from_device(&segment(SYN, u32::MAX - 9, 0, 0));
        track.device_sent(&segment(ACK, u32::MAX - 8, 1, 20));
        assert_eq!(track.next_out, 11);
        track.device_sent(&segment(ACK, u32::MAX - 8, 1, 5));
        assert_eq!(track.next_out, 11, "a late segment takes nothing back");
    }
}
