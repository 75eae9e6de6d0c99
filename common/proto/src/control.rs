//! Messages inside the tunnel between Postern ends: one JSON object in one UDP datagram from or
//! to [`PORT`] of the gateway's tunnel address. A stock WireGuard peer never says hello, so it
//! never receives one.

use crate::packet::{PacketView, Transport};
use crate::reply;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// The gateway's port inside the tunnel; the client uses the same.
pub const PORT: u16 = 9477;

/// The largest message either end accepts, in bytes.
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
        if bytes.len() > MAX_MESSAGE {
            return Err(BadMessage::TooLong);
        }
        serde_json::from_slice(bytes).map_err(|_| BadMessage::Unknown)
    }

    /// Writes the message as an inner packet; `None` if it does not fit.
    pub fn write(&self, from: IpAddr, to: IpAddr, out: &mut [u8]) -> Option<usize> {
        let text = serde_json::to_vec(self)
            .ok()
            .filter(|text| text.len() <= MAX_MESSAGE)?;
        reply::udp((from, PORT), (to, PORT), &text, out)
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
