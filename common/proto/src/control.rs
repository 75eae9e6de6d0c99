//! Messages inside the tunnel between Postern ends: one JSON object in one UDP datagram from or
//! to [`PORT`] of the gateway's tunnel address. A stock WireGuard peer never says hello, so it
//! never receives one. Probes of the path MTU and their answers are padded with zeros behind the
//! object: their length is what they are about.

use crate::packet::{PacketView, Transport};
use crate::reply;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The gateway's port inside the tunnel; the client uses the same.
pub const PORT: u16 = 9477;

/// The largest message either end accepts, in bytes, without padding.
pub const MAX_MESSAGE: usize = 1024;

/// What one end tells the other. Version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Message {
    /// Client to gateway, after every handshake that it completes: I understand these messages.
    Hello {
        /// Version of the message format: 1.
        version: u32,
        /// The client's own version, for listings.
        client: String,
    },
    /// Gateway to client: an attempt of yours was refused.
    Refused {
        /// `tcp`, `udp`, `icmp`.
        protocol: String,
        /// The address that was asked for.
        address: IpAddr,
        /// The port that was asked for; zero for ICMP.
        port: u16,
        /// The closed-list reason.
        reason: String,
        /// The rule that decided.
        rule: String,
        /// The condition that failed, in words.
        condition: String,
    },
    /// Gateway to client: a live flow of yours was cut.
    Cut {
        /// `tcp`, `udp`, `icmp`.
        protocol: String,
        /// The target's address.
        address: IpAddr,
        /// The target's port; zero for ICMP.
        port: u16,
        /// The closed-list close reason.
        reason: String,
        /// The rule that decided.
        rule: String,
    },
    /// Gateway to client: something that it should know of has changed; it may ask the control
    /// API (`/v1/device`, `/v1/config`).
    Changed,
    /// Client to gateway: does a packet of this length arrive? Padded to it.
    Probe {
        /// Comes back in the answer.
        id: u32,
        /// The client's inner MTU at present, bytes.
        mtu: u16,
    },
    /// Gateway to client: the probe arrived, and so may this, of the same length.
    ProbeAnswer {
        /// The probe's.
        id: u32,
    },
}

/// Why a control datagram was not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// More than [`MAX_MESSAGE`] bytes.
    #[error("control message longer than {MAX_MESSAGE} bytes")]
    TooLong,
    /// Not the JSON of a known message.
    #[error("control message is not a known one")]
    Unknown,
}

impl Message {
    /// Reads one message.
    ///
    /// # Errors
    /// Too long, or not a known message.
    pub fn parse(bytes: &[u8]) -> Result<Message, BadMessage> {
        // JSON holds no zero byte.
        let end = bytes.iter().position(|byte| *byte == 0);
        let (text, padding) = bytes.split_at(end.unwrap_or(bytes.len()));
        if text.len() > MAX_MESSAGE {
            return Err(BadMessage::TooLong);
        }
        let message: Message = serde_json::from_slice(text).map_err(|_| BadMessage::Unknown)?;
        if padding.is_empty() || message.is_padded() && padding.iter().all(|byte| *byte == 0) {
            Ok(message)
        } else {
            Err(BadMessage::Unknown)
        }
    }

    /// Writes the message as an inner packet; `None` if it does not fit.
    pub fn write(&self, from: IpAddr, to: IpAddr, out: &mut [u8]) -> Option<usize> {
        self.write_padded(from, to, 0, out)
    }

    /// Writes a probe or an answer as an inner packet of `len` bytes, or as short as it gets if
    /// that is longer; other messages are not padded. `None` if it does not fit.
    pub fn write_padded(
        &self,
        from: IpAddr,
        to: IpAddr,
        len: usize,
        out: &mut [u8],
    ) -> Option<usize> {
        let text = serde_json::to_vec(self)
            .ok()
            .filter(|text| text.len() <= MAX_MESSAGE)?;
        let len = if self.is_padded() { len } else { 0 };
        reply::udp_padded((from, PORT), (to, PORT), &text, len, out)
    }

    fn is_padded(&self) -> bool {
        match self {
            Message::Probe { .. } | Message::ProbeAnswer { .. } => true,
            Message::Hello { .. }
            | Message::Refused { .. }
            | Message::Cut { .. }
            | Message::Changed => false,
        }
    }
}

/// The payload, if `packet` is a control datagram to `to`.
#[must_use]
pub fn payload<'a>(packet: &PacketView<'a>, to: IpAddr) -> Option<&'a [u8]> {
    match packet.transport {
        Transport::Udp {
            source_port: PORT,
            destination_port: PORT,
        } if packet.destination == to => packet.transport_bytes().get(8..),
        Transport::Udp { .. }
        | Transport::Tcp(_)
        | Transport::Echo { .. }
        | Transport::Error { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_survives_the_wire() {
        let gateway: IpAddr = "100.96.0.1".parse().expect("literal");
        let device: IpAddr = "100.96.0.2".parse().expect("literal");
        let hello = Message::Hello {
            version: 1,
            client: "0.1.0".into(),
        };
        let mut out = [0; 512];
        let len = hello.write(device, gateway, &mut out).expect("room");
        let view = PacketView::parse(&out[..len]).expect("own packet");
        let bytes = payload(&view, gateway).expect("control datagram");
        assert_eq!(Message::parse(bytes), Ok(hello));
        assert_eq!(payload(&view, device), None);
    }

    #[test]
    fn a_probe_is_as_long_as_it_is_told_to_be_in_both_families() {
        let mut out = [7; crate::mtu::PACKET_ROOM];
        for (from, to) in [("100.96.0.2", "100.96.0.1"), ("fd00::2", "fd00::1")] {
            let (from, to): (IpAddr, IpAddr) =
                (from.parse().expect("literal"), to.parse().expect("literal"));
            for (message, len) in [
                (Message::Probe { id: 1, mtu: 1420 }, 1420),
                (Message::ProbeAnswer { id: u32::MAX }, 1281),
                (Message::ProbeAnswer { id: 1 }, 9000),
            ] {
                assert_eq!(message.write_padded(from, to, len, &mut out), Some(len));
                let view = PacketView::parse(&out[..len]).expect("own packet");
                let bytes = payload(&view, to).expect("control datagram");
                assert_eq!(Message::parse(bytes), Ok(message));
            }
            let short = Message::ProbeAnswer { id: 1 }.write(from, to, &mut out);
            assert!(short.is_some_and(|len| len < 120), "{short:?}");
        }
    }

    #[test]
    fn only_probes_are_padded_and_only_with_zeros() {
        let hello = Message::Hello {
            version: 1,
            client: "x".into(),
        };
        let text = |message: &Message| serde_json::to_vec(message).expect("plain data");
        let probe = text(&Message::Probe { id: 1, mtu: 1280 });
        assert!(Message::parse(&[&probe[..], &[0; 1400]].concat()).is_ok());
        for bad in [
            [&text(&hello)[..], &[0]].concat(),
            [&probe[..], &[0; 100], b"1"].concat(),
            [&probe[..], b" \0}"].concat(),
            vec![0; 100],
        ] {
            assert_eq!(Message::parse(&bad), Err(BadMessage::Unknown));
        }
    }

    #[test]
    fn what_is_not_known_is_refused() {
        for bad in [
            &b""[..],
            b"{}",
            b"{\"type\":\"shutdown\"}",
            b"{\"type\":\"hello\",\"version\":1,\"client\":\"x\",\"extra\":1}",
        ] {
            assert_eq!(Message::parse(bad), Err(BadMessage::Unknown));
        }
        assert_eq!(
            Message::parse(&[b' '; MAX_MESSAGE + 1]),
            Err(BadMessage::TooLong)
        );
    }
}
