//! Bytes proved once. What [`PacketView::parse`] accepts, every later stage may read without
//! checking again, and reads as a kernel would: the only module that names etherparse.
//!
//! Refused, each with its own reason, because a policy on ports must never guess: fragments
//! (RFC 1858), IPv6 extension headers and IPv4 options, lengths that disagree with the bytes at
//! hand (etherparse takes a zero IPv6 payload length for a jumbogram and ignores bytes behind an
//! IPv4 total length: a kernel does not), IPv4 addresses dressed as IPv6.
//!
//! Checksums are not verified here: the receiver does that, and a super-packet has none yet.

use crate::fate::DropReason;
use crate::flow_key::{FlowKey, Protocol};
use etherparse::{Ipv4HeaderSlice, Ipv6HeaderSlice, TcpHeaderSlice, UdpHeaderSlice};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One IPv4 or IPv6 packet (or a super-packet of many segments) whose structure is proved.
#[derive(Clone, Copy, Debug)]
pub struct PacketView<'a> {
    bytes: &'a [u8],
    /// Sender.
    pub source: IpAddr,
    /// Receiver.
    pub destination: IpAddr,
    /// What it carries.
    pub transport: Transport,
    /// Where the transport header starts.
    transport_at: usize,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A TCP segment.
    Tcp(Tcp),
    /// A UDP datagram.
    Udp {
        /// Sender's port.
        source_port: u16,
        /// Receiver's port.
        destination_port: u16,
    },
    /// An ICMP or ICMPv6 echo.
    Echo {
        /// A request, not a reply.
        request: bool,
        /// Chosen by the asker.
        id: u16,
    },
    /// An ICMP or ICMPv6 error about an earlier packet.
    Error {
        /// The packet that it speaks of, as far as it could be read.
        about: Option<Quoted>,
        /// Packet too big (fragmentation needed): path MTU discovery depends on it.
        too_big: bool,
    },
}

/// The fields of a TCP header that the flow table reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Sender's port.
    pub source_port: u16,
    /// Receiver's port.
    pub destination_port: u16,
    /// Sequence number of the first byte.
    pub sequence: u32,
    /// Acknowledgment number; meaningless without ACK.
    pub acknowledgment: u32,
    /// FIN, SYN, RST, PSH, ACK (bits 0 to 4 of RFC 9293's control bits).
    pub flags: TcpFlags,
    /// Bytes of payload.
    pub payload: u32,
}

/// The control bits of a TCP header.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

/// The 5-tuple of a packet quoted inside an ICMP error, in its own direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quoted {
    /// TCP, UDP or ICMP echo.
    pub protocol: Protocol,
    /// Its sender: address, and port or echo id.
    pub source: (IpAddr, u16),
    /// Its receiver: address, and port (zero for an echo).
    pub destination: (IpAddr, u16),
}

impl TcpFlags {
    /// The sender has no more to say.
    pub const FIN: TcpFlags = TcpFlags(1);
    /// Opens.
    pub const SYN: TcpFlags = TcpFlags(2);
    /// Refuses or aborts.
    pub const RST: TcpFlags = TcpFlags(4);
    /// Acknowledges.
    pub const ACK: TcpFlags = TcpFlags(16);

    /// All bits of `other` are set.
    #[must_use]
    pub fn has(self, other: TcpFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// A SYN without ACK: the only segment that opens a flow.
    #[must_use]
    pub fn opens(self) -> bool {
        self.has(TcpFlags::SYN) && !self.has(TcpFlags::ACK)
    }
}

impl std::fmt::Debug for TcpFlags {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = [(1, "F"), (2, "S"), (4, "R"), (8, "P"), (16, "A")];
        names
            .iter()
            .filter(|(bit, _)| self.0 & bit != 0)
            .try_for_each(|(_, name)| f.write_str(name))
    }
}

impl Tcp {
    /// The sequence number that follows this segment: SYN and FIN count as one byte each.
    #[must_use]
    pub fn next_sequence(&self) -> u32 {
        self.sequence
            .wrapping_add(self.payload)
            .wrapping_add(u32::from(self.flags.has(TcpFlags::SYN)))
            .wrapping_add(u32::from(self.flags.has(TcpFlags::FIN)))
    }
}

impl<'a> PacketView<'a> {
    /// Proves `bytes`, which must be exactly one packet.
    ///
    /// # Errors
    /// The reason why no kernel, or no policy on ports, should look at it further.
    pub fn parse(bytes: &'a [u8]) -> Result<PacketView<'a>, DropReason> {
        match bytes.first().map(|byte| byte >> 4) {
            Some(4) => Self::parse_v4(bytes),
            Some(6) => Self::parse_v6(bytes),
            Some(_) => Err(DropReason::BadHeader),
            None => Err(DropReason::Truncated),
        }
    }

    fn parse_v4(bytes: &'a [u8]) -> Result<PacketView<'a>, DropReason> {
        if bytes.len() < 20 {
            return Err(DropReason::Truncated);
        }
        let ip = Ipv4HeaderSlice::from_slice(bytes).map_err(|_| DropReason::BadHeader)?;
        if usize::from(ip.total_len()) != bytes.len() {
            return Err(DropReason::BadLength);
        }
        if ip.more_fragments() || ip.fragments_offset().value() != 0 {
            return Err(DropReason::Fragment);
        }
        if ip.ihl() != 5 {
            return Err(DropReason::ExtensionHeader);
        }
        let (source, destination) = (ip.source_addr(), ip.destination_addr());
        if !unicast_v4(source) || !unicast_v4(destination) {
            return Err(DropReason::NotUnicast);
        }
        let rest = &bytes[20..];
        let transport = match ip.protocol().0 {
            6 => tcp(rest)?,
            17 => udp(rest)?,
            1 => icmp_v4(rest)?,
            _ => return Err(DropReason::OtherProtocol),
        };
        Ok(PacketView {
            bytes,
            source: source.into(),
            destination: destination.into(),
            transport,
            transport_at: 20,
        })
    }

    fn parse_v6(bytes: &'a [u8]) -> Result<PacketView<'a>, DropReason> {
        if bytes.len() < 40 {
            return Err(DropReason::Truncated);
        }
        let ip = Ipv6HeaderSlice::from_slice(bytes).map_err(|_| DropReason::BadHeader)?;
        if usize::from(ip.payload_length()) != bytes.len() - 40 || ip.payload_length() == 0 {
            return Err(DropReason::BadLength);
        }
        let (source, destination) = (ip.source_addr(), ip.destination_addr());
        if !unicast_v6(source) || !unicast_v6(destination) {
            return Err(DropReason::NotUnicast);
        }
        let rest = &bytes[40..];
        let transport = match ip.next_header().0 {
            6 => tcp(rest)?,
            17 => udp(rest)?,
            58 => icmp_v6(rest)?,
            44 => return Err(DropReason::Fragment),
            // Hop-by-hop, routing, ESP, AH, destination options, mobility, HIP, shim6, tests.
            0 | 43 | 50 | 51 | 60 | 135 | 139 | 140 | 253 | 254 => {
                return Err(DropReason::ExtensionHeader);
            }
            _ => return Err(DropReason::OtherProtocol),
        };
        Ok(PacketView {
            bytes,
            source: source.into(),
            destination: destination.into(),
            transport,
            transport_at: 40,
        })
    }

    /// The whole packet.
    #[must_use]
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Transport header and payload.
    #[must_use]
    pub fn transport_bytes(&self) -> &'a [u8] {
        &self.bytes[self.transport_at..]
    }

    /// The 5-tuple if the sender is the device.
    #[must_use]
    pub fn key_from_device(&self) -> Option<FlowKey> {
        let (protocol, source_port, destination_port) = self.ports()?;
        Some(FlowKey::new(
            protocol,
            (self.source, source_port),
            (self.destination, destination_port),
        ))
    }

    /// The 5-tuple if the sender is the target.
    #[must_use]
    pub fn key_from_target(&self) -> Option<FlowKey> {
        let (protocol, source_port, destination_port) = self.ports()?;
        let (client, target) = match protocol {
            Protocol::Icmp => (source_port, 0),
            Protocol::Tcp | Protocol::Udp => (destination_port, source_port),
        };
        Some(FlowKey::new(
            protocol,
            (self.destination, client),
            (self.source, target),
        ))
    }

    /// The TCP header, if it is TCP.
    #[must_use]
    pub fn tcp(&self) -> Option<&Tcp> {
        match &self.transport {
            Transport::Tcp(tcp) => Some(tcp),
            Transport::Udp { .. } | Transport::Echo { .. } | Transport::Error { .. } => None,
        }
    }

    /// What a TCP segment carries; nothing for anything else.
    #[must_use]
    pub fn tcp_payload(&self) -> &'a [u8] {
        let payload = self.tcp().map_or(0, |tcp| tcp.payload);
        let at = usize::try_from(payload).map(|len| self.bytes.len().saturating_sub(len));
        self.bytes
            .get(at.unwrap_or(usize::MAX)..)
            .unwrap_or_default()
    }

    fn ports(&self) -> Option<(Protocol, u16, u16)> {
        match self.transport {
            Transport::Tcp(tcp) => Some((Protocol::Tcp, tcp.source_port, tcp.destination_port)),
            Transport::Udp {
                source_port,
                destination_port,
            } => Some((Protocol::Udp, source_port, destination_port)),
            Transport::Echo { id, .. } => Some((Protocol::Icmp, id, 0)),
            Transport::Error { .. } => None,
        }
    }
}

fn tcp(bytes: &[u8]) -> Result<Transport, DropReason> {
    if bytes.len() < 20 {
        return Err(DropReason::Truncated);
    }
    let header = TcpHeaderSlice::from_slice(bytes).map_err(|_| DropReason::BadHeader)?;
    let flags = TcpFlags(bytes[13] & 0x1f);
    let contradicts = flags.has(TcpFlags::SYN)
        && (flags.has(TcpFlags::FIN) || flags.has(TcpFlags::RST))
        || flags.0 & !8 == 0;
    if contradicts || header.source_port() == 0 || header.destination_port() == 0 {
        return Err(DropReason::BadHeader);
    }
    let payload = bytes.len() - header.slice().len();
    Ok(Transport::Tcp(Tcp {
        source_port: header.source_port(),
        destination_port: header.destination_port(),
        sequence: header.sequence_number(),
        acknowledgment: header.acknowledgment_number(),
        flags,
        payload: u32::try_from(payload).map_err(|_| DropReason::BadLength)?,
    }))
}

fn udp(bytes: &[u8]) -> Result<Transport, DropReason> {
    if bytes.len() < 8 {
        return Err(DropReason::Truncated);
    }
    let header = UdpHeaderSlice::from_slice(bytes).map_err(|_| DropReason::BadHeader)?;
    if usize::from(header.length()) != bytes.len() {
        return Err(DropReason::BadLength);
    }
    if header.source_port() == 0 || header.destination_port() == 0 {
        return Err(DropReason::BadHeader);
    }
    Ok(Transport::Udp {
        source_port: header.source_port(),
        destination_port: header.destination_port(),
    })
}

fn icmp_v4(bytes: &[u8]) -> Result<Transport, DropReason> {
    if bytes.len() < 8 {
        return Err(DropReason::Truncated);
    }
    match (bytes[0], bytes[1]) {
        (kind @ (0 | 8), 0) => Ok(Transport::Echo {
            request: kind == 8,
            id: be16(bytes, 4),
        }),
        (kind @ (3 | 11 | 12), code) => Ok(Transport::Error {
            about: quoted_v4(&bytes[8..]),
            too_big: kind == 3 && code == 4,
        }),
        _ => Err(DropReason::OtherIcmp),
    }
}

fn icmp_v6(bytes: &[u8]) -> Result<Transport, DropReason> {
    if bytes.len() < 8 {
        return Err(DropReason::Truncated);
    }
    match (bytes[0], bytes[1]) {
        (kind @ (128 | 129), 0) => Ok(Transport::Echo {
            request: kind == 128,
            id: be16(bytes, 4),
        }),
        (kind @ 1..=4, _) => Ok(Transport::Error {
            about: quoted_v6(&bytes[8..]),
            too_big: kind == 2,
        }),
        _ => Err(DropReason::OtherIcmp),
    }
}

/// A quoted packet is truncated by design: its header and at least 8 bytes (RFC 792).
fn quoted_v4(bytes: &[u8]) -> Option<Quoted> {
    let ip = Ipv4HeaderSlice::from_slice(bytes).ok()?;
    if ip.ihl() != 5 || ip.fragments_offset().value() != 0 {
        return None;
    }
    let transport = bytes.get(20..28)?;
    quoted(
        ip.protocol().0,
        1,
        8,
        ip.source_addr().into(),
        ip.destination_addr().into(),
        transport,
    )
}

fn quoted_v6(bytes: &[u8]) -> Option<Quoted> {
    let ip = Ipv6HeaderSlice::from_slice(bytes).ok()?;
    let transport = bytes.get(40..48)?;
    let (source, destination) = (ip.source_addr(), ip.destination_addr());
    if is_mapped(source) || is_mapped(destination) {
        return None;
    }
    quoted(
        ip.next_header().0,
        58,
        128,
        source.into(),
        destination.into(),
        transport,
    )
}

fn quoted(
    protocol: u8,
    icmp: u8,
    echo_request: u8,
    source: IpAddr,
    destination: IpAddr,
    transport: &[u8],
) -> Option<Quoted> {
    let ports = (be16(transport, 0), be16(transport, 2));
    let (protocol, ports) = match protocol {
        6 => (Protocol::Tcp, ports),
        17 => (Protocol::Udp, ports),
        // An error about an echo reply would be an error about an answer: nobody needs it.
        p if p == icmp && transport[0] == echo_request => (Protocol::Icmp, (be16(transport, 4), 0)),
        _ => return None,
    };
    Some(Quoted {
        protocol,
        source: (source, ports.0),
        destination: (destination, ports.1),
    })
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn unicast_v4(address: Ipv4Addr) -> bool {
    !(address.is_multicast()
        || address.is_broadcast()
        || address.is_loopback()
        || address.is_link_local()
        || address.octets()[0] == 0
        || address.octets()[0] >= 240)
}

fn unicast_v6(address: Ipv6Addr) -> bool {
    !(address.is_multicast()
        || address.is_loopback()
        || address.is_unspecified()
        || address.is_unicast_link_local()
        || is_mapped(address))
}

/// `::ffff:a.b.c.d` and `::a.b.c.d`: would be judged as one address and routed as another.
fn is_mapped(address: Ipv6Addr) -> bool {
    address.segments()[..5] == [0; 5] && matches!(address.segments()[5], 0 | 0xffff)
}

#[cfg(test)]
mod tests;
