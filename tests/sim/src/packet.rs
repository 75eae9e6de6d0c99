//! Packets as laptops and targets make and read them. Written apart from `proto::reply`, so that
//! neither can hide a fault of the other.

use postern_proto::ecn::Ecn;
use postern_proto::fate::DropReason;
use postern_proto::packet::{PacketView, Transport};
use std::net::IpAddr;

/// TCP: no more to say.
pub const FIN: u8 = 1;
/// TCP: opens.
pub const SYN: u8 = 2;
/// TCP: refuses or aborts.
pub const RST: u8 = 4;
/// TCP: hand it to the application now.
pub const PSH: u8 = 8;
/// TCP: acknowledges.
pub const ACK: u8 = 16;

/// TCP, UDP, ICMP by their numbers in IPv4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proto {
    /// 6.
    Tcp,
    /// 17.
    Udp,
    /// 1, and 58 in IPv6.
    Icmp,
}

/// An address and a port (or an echo id).
pub type Socket = (IpAddr, u16);

/// A flow as the device sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Protocol.
    pub proto: Proto,
    /// The device's end; the port is the echo id for ICMP.
    pub client: Socket,
    /// The other end; port 0 for ICMP.
    pub target: Socket,
}

/// One packet, and what whoever made it knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// As it is on the wire.
    pub bytes: Vec<u8>,
    /// Claimed sender.
    pub from: IpAddr,
    /// Receiver.
    pub to: IpAddr,
    /// The rest.
    pub what: What,
}

/// What a packet carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A segment.
    Tcp(Segment),
    /// A datagram.
    Udp {
        /// Sender's port.
        from: u16,
        /// Receiver's port.
        to: u16,
    },
    /// Ping or its answer.
    Echo {
        /// Ping.
        request: bool,
        /// Chosen by who asked.
        id: u16,
    },
    /// An ICMP error about a packet from the first to the second.
    Error {
        /// Protocol of that packet.
        proto: Proto,
        /// Its sender.
        from: Socket,
        /// Its receiver.
        to: Socket,
    },
    /// A control message; true if a client may send it.
    Control(bool),
    /// A probe of the path by a client that uses this MTU.
    Probe(u16),
    /// Something that no gateway may let pass, and why not.
    Broken(DropReason),
}

/// A TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Sender's port.
    pub from: u16,
    /// Receiver's port.
    pub to: u16,
    /// The six flags.
    pub flags: u8,
    /// Of the first byte.
    pub seq: u32,
    /// Expected next from the other end.
    pub ack: u32,
    /// Bytes.
    pub payload: u32,
}

impl Packet {
    /// The ECN bits of its IP header.
    #[must_use]
    pub fn ecn(&self) -> u8 {
        match self.bytes[..] {
            [first, second, ..] if first >> 4 == 4 => second & 3,
            [first, second, ..] if first >> 4 == 6 => second >> 4 & 3,
            _ => 0,
        }
    }

    /// The same with some ECN bits or other. What is broken stays as it is.
    #[must_use]
    pub fn with_some_ecn(self) -> Packet {
        let mix = |mix: u8, byte: &u8| mix.rotate_left(1) ^ byte;
        let ecn = self.bytes.iter().fold(0, mix) & 3;
        match self.what {
            What::Broken(_) => self,
            What::Tcp(_)
            | What::Udp { .. }
            | What::Echo { .. }
            | What::Error { .. }
            | What::Control(_)
            | What::Probe(_) => self.with_ecn(ecn),
        }
    }

    /// As it comes out of a tunnel whose outer header says `outer`: RFC 6040, section 4.2. Nothing
    /// if it must not come out.
    #[must_use]
    pub fn out_of(self, outer: u8) -> Option<Packet> {
        match (self.ecn(), outer) {
            (0, 3) => None,
            (1.., 3) => Some(self.with_ecn(3)),
            (2, 1) => Some(self.with_ecn(1)),
            _ => Some(self),
        }
    }

    fn with_ecn(mut self, ecn: u8) -> Packet {
        match self.bytes.get_mut(..20) {
            Some(header) if header[0] >> 4 == 4 => {
                header[1] = header[1] & !3 | ecn;
                header[10..12].fill(0);
                let sum = !sum(header);
                header[10..12].copy_from_slice(&sum.to_be_bytes());
            }
            Some(header) => header[1] = header[1] & !0x30 | ecn << 4,
            None => {}
        }
        self
    }

    /// The TCP header, if it is TCP.
    #[must_use]
    pub fn segment(&self) -> Option<Segment> {
        match self.what {
            What::Tcp(segment) => Some(segment),
            What::Udp { .. }
            | What::Echo { .. }
            | What::Error { .. }
            | What::Control(_)
            | What::Probe(_)
            | What::Broken(_) => None,
        }
    }
}

impl Segment {
    /// All of these flags are set.
    #[must_use]
    pub fn has(&self, flags: u8) -> bool {
        self.flags & flags == flags
    }

    /// SYN without ACK.
    #[must_use]
    pub fn opens(&self) -> bool {
        self.has(SYN) && !self.has(ACK)
    }

    /// What comes after it.
    #[must_use]
    pub fn next(&self) -> u32 {
        let flags = u32::from(self.has(SYN)) + u32::from(self.has(FIN));
        self.seq.wrapping_add(self.payload).wrapping_add(flags)
    }
}

/// A segment with `payload`; a SYN may ask for an MSS.
#[must_use]
pub fn tcp(from: IpAddr, to: IpAddr, segment: Segment, payload: &[u8], mss: Option<u16>) -> Packet {
    let segment = Segment {
        payload: u32::try_from(payload.len()).unwrap_or(u32::MAX),
        ..segment
    };
    let words = if mss.is_some() { 6 } else { 5 };
    let mut l4 = Vec::with_capacity(24 + payload.len());
    l4.extend(segment.from.to_be_bytes());
    l4.extend(segment.to.to_be_bytes());
    l4.extend(segment.seq.to_be_bytes());
    l4.extend(segment.ack.to_be_bytes());
    l4.extend([words << 4, segment.flags, 0x20, 0, 0, 0, 0, 0]);
    if let Some(mss) = mss {
        l4.extend([2, 4]);
        l4.extend(mss.to_be_bytes());
    }
    l4.extend(payload);
    let bytes = ip(from, to, Proto::Tcp, l4, 16);
    Packet {
        bytes,
        from,
        to,
        what: What::Tcp(segment),
    }
}

/// A datagram.
#[must_use]
pub fn udp(from: Socket, to: Socket, payload: &[u8]) -> Packet {
    let mut l4 = Vec::with_capacity(8 + payload.len());
    l4.extend(from.1.to_be_bytes());
    l4.extend(to.1.to_be_bytes());
    l4.extend(
        u16::try_from(8 + payload.len())
            .unwrap_or(u16::MAX)
            .to_be_bytes(),
    );
    l4.extend([0, 0]);
    l4.extend(payload);
    let bytes = ip(from.0, to.0, Proto::Udp, l4, 6);
    Packet {
        bytes,
        from: from.0,
        to: to.0,
        what: What::Udp {
            from: from.1,
            to: to.1,
        },
    }
}

/// A ping, or its answer.
#[must_use]
pub fn echo(from: IpAddr, to: IpAddr, request: bool, id: u16, payload: &[u8]) -> Packet {
    let kind = match (from.is_ipv6(), request) {
        (false, true) => 8,
        (false, false) => 0,
        (true, true) => 128,
        (true, false) => 129,
    };
    let mut l4 = vec![kind, 0, 0, 0];
    l4.extend(id.to_be_bytes());
    l4.extend([0, 1]);
    l4.extend(payload);
    let bytes = ip(from, to, Proto::Icmp, l4, 2);
    Packet {
        bytes,
        from,
        to,
        what: What::Echo { request, id },
    }
}

/// Port unreachable, about `packet`, from its receiver.
#[must_use]
pub fn unreachable(packet: &Packet) -> Option<Packet> {
    let (proto, from, to) = match packet.what {
        What::Tcp(segment) => (Proto::Tcp, segment.from, segment.to),
        What::Udp { from, to } => (Proto::Udp, from, to),
        What::Echo { request: true, id } => (Proto::Icmp, id, 0),
        What::Echo { request: false, .. }
        | What::Error { .. }
        | What::Control(_)
        | What::Probe(_)
        | What::Broken(_) => {
            return None;
        }
    };
    let mut l4 = if packet.from.is_ipv6() {
        vec![1, 4, 0, 0, 0, 0, 0, 0]
    } else {
        vec![3, 3, 0, 0, 0, 0, 0, 0]
    };
    l4.extend(&packet.bytes[..packet.bytes.len().min(64)]);
    let bytes = ip(packet.to, packet.from, Proto::Icmp, l4, 2);
    let what = What::Error {
        proto,
        from: (packet.from, from),
        to: (packet.to, to),
    };
    Some(Packet {
        bytes,
        from: packet.to,
        to: packet.from,
        what,
    })
}

/// Reads a packet that somebody else made. Its checksums must be right.
pub fn read(bytes: &[u8]) -> Result<Packet, String> {
    let view = PacketView::parse(bytes)
        .map_err(|reason| format!("a packet arrived that is {}", reason.as_str()))?;
    verify(bytes)?;
    let what = match view.transport {
        Transport::Tcp(tcp) => What::Tcp(Segment {
            from: tcp.source_port,
            to: tcp.destination_port,
            flags: tcp.flags.0,
            seq: tcp.sequence,
            ack: tcp.acknowledgment,
            payload: tcp.payload,
        }),
        Transport::Udp {
            source_port,
            destination_port,
        } => What::Udp {
            from: source_port,
            to: destination_port,
        },
        Transport::Echo { request, id } => What::Echo { request, id },
        Transport::Error { about: None, .. } => {
            return Err("an ICMP error about nothing arrived".into());
        }
        Transport::Error {
            about: Some(about), ..
        } => What::Error {
            proto: match about.protocol {
                postern_proto::flow_key::Protocol::Tcp => Proto::Tcp,
                postern_proto::flow_key::Protocol::Udp => Proto::Udp,
                postern_proto::flow_key::Protocol::Icmp => Proto::Icmp,
            },
            from: about.source,
            to: about.destination,
        },
    };
    Ok(Packet {
        bytes: bytes.to_vec(),
        from: view.source,
        to: view.destination,
        what,
    })
}

/// The payload of a TCP segment, a UDP datagram or an echo.
#[must_use]
pub fn payload(packet: &Packet) -> &[u8] {
    let l4 = if packet.from.is_ipv6() { 40 } else { 20 };
    let header = match packet.what {
        What::Tcp(_) => packet
            .bytes
            .get(l4 + 12)
            .map_or(20, |byte| usize::from(byte >> 4) * 4),
        What::Udp { .. }
        | What::Echo { .. }
        | What::Error { .. }
        | What::Control(_)
        | What::Probe(_) => 8,
        What::Broken(_) => return &[],
    };
    packet.bytes.get(l4 + header..).unwrap_or(&[])
}

/// The MSS that a SYN asks for, when it is the first option.
#[must_use]
pub fn mss(packet: &Packet) -> Option<u16> {
    let l4 = if packet.from.is_ipv6() { 40 } else { 20 };
    match packet.bytes.get(l4 + 20..l4 + 24)? {
        [2, 4, high, low] => Some(u16::from_be_bytes([*high, *low])),
        _ => None,
    }
}

/// Whether `after` is `before`, or is a SYN whose MSS (and checksum) alone was changed.
#[must_use]
pub fn same_but_mss(before: &Packet, after: &[u8]) -> bool {
    let What::Tcp(segment) = before.what else {
        return before.bytes == after;
    };
    if !segment.has(SYN) || mss(before).is_none() {
        return before.bytes == after;
    }
    let l4 = if before.from.is_ipv6() { 40 } else { 20 };
    let blank = |bytes: &[u8]| {
        let mut copy = bytes.to_vec();
        for at in [16, 17, 22, 23] {
            if let Some(byte) = copy.get_mut(l4 + at) {
                *byte = 0;
            }
        }
        copy
    };
    blank(&before.bytes) == blank(after)
}

/// Whether an outer header says what the packet in it says, or nothing (RFC 6040, section 4.1);
/// what the tunnel says by itself, and what the gateway says to a device, is not marked.
pub fn marked_as(inner: Option<&Packet>, outer: Ecn) -> Result<(), String> {
    let expected = inner.map_or(0, Packet::ecn);
    if [0, expected].contains(&outer.bits()) {
        return Ok(());
    }
    Err(format!(
        "a datagram left as {outer:?} with {:?} and ECN {expected} in it",
        inner.map(|packet| packet.what)
    ))
}

/// Puts an IP header on and fills the checksum at `checksum_at` in.
fn ip(from: IpAddr, to: IpAddr, proto: Proto, mut l4: Vec<u8>, checksum_at: usize) -> Vec<u8> {
    let len = u16::try_from(l4.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(40 + l4.len());
    match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let number = match proto {
                Proto::Tcp => 6,
                Proto::Udp => 17,
                Proto::Icmp => 1,
            };
            bytes.extend([0x45, 0]);
            bytes.extend(len.saturating_add(20).to_be_bytes());
            bytes.extend([0, 0, 0x40, 0, 64, number, 0, 0]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
            let sum = !sum(&bytes);
            bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let number = match proto {
                Proto::Tcp => 6,
                Proto::Udp => 17,
                Proto::Icmp => 58,
            };
            bytes.extend([0x60, 0, 0, 0]);
            bytes.extend(len.to_be_bytes());
            bytes.extend([number, 64]);
            bytes.extend(from.octets());
            bytes.extend(to.octets());
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return bytes,
    }
    let mut all = pseudo(&bytes, l4.len());
    all.extend(&l4);
    let sum = !sum(&all);
    l4[checksum_at..checksum_at + 2].copy_from_slice(&sum.to_be_bytes());
    bytes.extend(l4);
    bytes
}

/// Both checksums of a packet whose structure is proved.
fn verify(bytes: &[u8]) -> Result<(), String> {
    let v6 = bytes[0] >> 4 == 6;
    let (header, l4) = bytes.split_at(if v6 { 40 } else { 20 });
    if !v6 && sum(header) != 0xffff {
        return Err("a packet arrived with a wrong IP checksum".into());
    }
    let mut all = pseudo(header, l4.len());
    all.extend(l4);
    if sum(&all) != 0xffff {
        return Err("a packet arrived with a wrong transport checksum".into());
    }
    Ok(())
}

/// What the transport checksum covers besides the transport.
fn pseudo(header: &[u8], len: usize) -> Vec<u8> {
    let v6 = header[0] >> 4 == 6;
    let number = if v6 { header[6] } else { header[9] };
    if number == 1 {
        return Vec::new();
    }
    let mut all = header[if v6 { 8..40 } else { 12..20 }].to_vec();
    all.extend([0, number]);
    all.extend(u16::try_from(len).unwrap_or(u16::MAX).to_be_bytes());
    all
}

fn sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}
