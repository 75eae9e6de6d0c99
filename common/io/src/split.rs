//! Super-packets apart: one read from the TUN holds up to 64 KiB of one TCP or UDP flow under one
//! header; the tunnel carries packets of the MTU.
//!
//! Nothing is copied. The segments are emitted in order from the buffer of the super-packet: each
//! gets its header written right before its payload, over the end of the segment before it, which
//! has been emitted by then.

use crate::checksum;
use crate::virtio::{Gso, VnetHeader};
use postern_proto::ecn::{self, Ecn};

/// The longest headers that can be split: IPv4 with options or IPv6, and TCP with options.
const MAX_HEADER: usize = 60 + 60;

const TCP: u8 = 6;
const UDP: u8 = 17;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// Why a read was no packet. It costs that one read and nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// Fewer bytes than its headers need.
    #[error("super-packet is cut short")]
    Truncated,
    /// Neither IPv4 nor IPv6, or another protocol than its virtio header says.
    #[error("super-packet is not what its virtio header says")]
    WrongKind,
    /// The IP header and the read disagree on the length.
    #[error("super-packet has a length that disagrees with its IP header")]
    BadLength,
    /// A header length below the minimum.
    #[error("super-packet has an impossible header length")]
    BadHeader,
    /// A fragment cannot be a super-packet.
    #[error("super-packet is a fragment")]
    Fragment,
    /// No segment size.
    #[error("super-packet has no segment size")]
    NoSegmentSize,
    /// The checksum to complete would stand outside the packet.
    #[error("checksum to complete is outside the packet")]
    BadChecksumPlace,
    /// A kind of super-packet that we never asked for.
    #[error("unknown kind of super-packet ({0})")]
    UnknownKind(u8),
}

/// One read from the TUN: one packet, or many of one flow under one header.
#[derive(Debug)]
pub struct SuperPacket<'a> {
    bytes: &'a mut [u8],
    /// `None`: it is one packet, complete as it stands.
    plan: Option<Plan>,
}

/// Where the pieces are.
#[derive(Clone, Copy, Debug)]
struct Plan {
    ip: Ip,
    transport: Transport,
    /// Bytes of the IP header.
    ip_len: usize,
    /// Bytes of the IP and the transport header.
    header_len: usize,
    /// Payload bytes of each segment but the last.
    segment_size: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ip {
    V4,
    V6,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Tcp,
    Udp,
}

impl<'a> SuperPacket<'a> {
    /// Makes sense of a read. A checksum that the kernel left to us is completed here or in the
    /// segments. Header lengths are taken from the packet itself: the virtio header's are wrong
    /// for packets that the kernel forwarded.
    ///
    /// # Errors
    /// When it is not what the virtio header says.
    pub fn parse(header: VnetHeader, bytes: &'a mut [u8]) -> Result<Self, SplitError> {
        let plan = match header.gso {
            Gso::None => {
                if header.needs_checksum {
                    complete_checksum(header, bytes)?;
                }
                None
            }
            Gso::TcpV4 => Some(Plan::new(Some(Ip::V4), Transport::Tcp, header, bytes)?),
            Gso::TcpV6 => Some(Plan::new(Some(Ip::V6), Transport::Tcp, header, bytes)?),
            Gso::Udp => Some(Plan::new(None, Transport::Udp, header, bytes)?),
            Gso::Other(kind) => return Err(SplitError::UnknownKind(kind)),
        };
        Ok(SuperPacket { bytes, plan })
    }

    /// One packet, as it stands.
    pub fn plain(bytes: &'a mut [u8]) -> Self {
        SuperPacket { bytes, plan: None }
    }

    /// All of it as one packet, whose lengths agree: what to judge. Its transport checksum may
    /// be incomplete.
    #[must_use]
    pub fn packet(&self) -> &[u8] {
        self.bytes
    }

    /// How many packets it becomes; at least one.
    #[must_use]
    pub fn segments(&self) -> usize {
        self.plan.map_or(1, |plan| {
            (self.bytes.len() - plan.header_len)
                .div_ceil(plan.segment_size)
                .max(1)
        })
    }

    /// Bytes of the largest packet that it becomes.
    #[must_use]
    pub fn segment_len(&self) -> usize {
        self.plan.map_or(self.bytes.len(), |plan| {
            self.bytes.len().min(plan.header_len + plan.segment_size)
        })
    }

    /// Bytes of all packets that it becomes, headers included.
    #[must_use]
    pub fn total_len(&self) -> usize {
        let headers = self.plan.map_or(0, |plan| plan.header_len);
        self.bytes.len() + (self.segments() - 1) * headers
    }

    /// Marks its packets as having met congestion. False if its ends do not understand marks.
    pub fn mark(&mut self) -> bool {
        match Ecn::of(self.bytes) {
            Ecn::NotEct => false,
            Ecn::Ce => true,
            Ecn::Ect0 | Ecn::Ect1 => {
                ecn::set(self.bytes, Ecn::Ce);
                true
            }
        }
    }

    /// Loses its last packet, so that the sender slows down. False if there is only one, or if
    /// the last one ends the connection.
    pub fn shed_last(&mut self) -> bool {
        let (Some(plan), count @ 2..) = (self.plan, self.segments()) else {
            return false;
        };
        let kept = plan.header_len + (count - 1) * plan.segment_size;
        let flags = self.bytes[plan.ip_len + 13];
        if plan.transport == Transport::Tcp && flags & FIN != 0 {
            return false;
        }
        let bytes = &mut std::mem::take(&mut self.bytes)[..kept];
        let transport_len = ((kept - plan.ip_len) as u16).to_be_bytes();
        match plan.ip {
            Ip::V4 => {
                let before = word(bytes, 2);
                bytes[2..4].copy_from_slice(&(kept as u16).to_be_bytes());
                let sum = checksum::add(!word(bytes, 10), !before);
                let sum = checksum::add(sum, kept as u16);
                bytes[10..12].copy_from_slice(&(!sum).to_be_bytes());
            }
            Ip::V6 => bytes[4..6].copy_from_slice(&transport_len),
        }
        if plan.transport == Transport::Udp {
            bytes[plan.ip_len + 4..plan.ip_len + 6].copy_from_slice(&transport_len);
        }
        self.bytes = bytes;
        true
    }

    /// Hands over its packets in order, each with its own lengths, sequence number, flags and
    /// complete checksums.
    pub fn for_each_segment(self, mut emit: impl FnMut(&mut [u8])) {
        let Some(plan) = self.plan else {
            return emit(self.bytes);
        };
        let count = self.segments();
        let template = Template::new(&plan, self.bytes);
        for place in 0..count {
            let start = place * plan.segment_size;
            let end = (start + plan.segment_size + plan.header_len).min(self.bytes.len());
            // A header before the payload overwrites what was emitted last.
            let segment = &mut self.bytes[start..end];
            template.write(segment, place, place + 1 == count);
            emit(segment);
        }
    }
}

impl Plan {
    fn new(
        ip: Option<Ip>,
        transport: Transport,
        header: VnetHeader,
        bytes: &[u8],
    ) -> Result<Plan, SplitError> {
        let first = *bytes.first().ok_or(SplitError::Truncated)?;
        let actual = match first >> 4 {
            4 => Ip::V4,
            6 => Ip::V6,
            _ => return Err(SplitError::WrongKind),
        };
        if ip.is_some_and(|expected| expected != actual) {
            return Err(SplitError::WrongKind);
        }
        let ip_len = match actual {
            Ip::V4 => usize::from(first & 0xf) * 4,
            Ip::V6 => 40,
        };
        if ip_len < 20 {
            return Err(SplitError::BadHeader);
        }
        // The transport header at its shortest must be there.
        let shortest = ip_len + if transport == Transport::Tcp { 20 } else { 8 };
        if bytes.len() < shortest {
            return Err(SplitError::Truncated);
        }
        let (length, protocol) = match actual {
            Ip::V4 => (usize::from(word(bytes, 2)), bytes[9]),
            Ip::V6 => (40 + usize::from(word(bytes, 4)), bytes[6]),
        };
        if length != bytes.len() {
            return Err(SplitError::BadLength);
        }
        if actual == Ip::V4 && word(bytes, 6) & 0x3fff != 0 {
            return Err(SplitError::Fragment);
        }
        let (expected, transport_len) = match transport {
            Transport::Tcp => (TCP, usize::from(bytes[ip_len + 12] >> 4) * 4),
            Transport::Udp => (UDP, 8),
        };
        if protocol != expected {
            return Err(SplitError::WrongKind);
        }
        if transport == Transport::Tcp && transport_len < 20 {
            return Err(SplitError::BadHeader);
        }
        let header_len = ip_len + transport_len;
        if bytes.len() < header_len {
            return Err(SplitError::Truncated);
        }
        if header.segment_size == 0 {
            return Err(SplitError::NoSegmentSize);
        }
        Ok(Plan {
            ip: actual,
            transport,
            ip_len,
            header_len,
            segment_size: usize::from(header.segment_size),
        })
    }
}

/// The headers of the super-packet, with the sums of what is the same in every segment.
struct Template {
    plan: Plan,
    header: [u8; MAX_HEADER],
    /// Sum of the IPv4 header without length, identification and checksum.
    ip_sum: u16,
    /// Sum of addresses, protocol, and transport header without what changes.
    transport_sum: u16,
    ip_id: u16,
    sequence: u32,
    flags: u8,
}

impl Template {
    fn new(plan: &Plan, bytes: &[u8]) -> Template {
        let (ip_len, header_len) = (plan.ip_len, plan.header_len);
        let mut header = [0; MAX_HEADER];
        header[..header_len].copy_from_slice(&bytes[..header_len]);
        let (ip, transport) = header[..header_len].split_at_mut(ip_len);

        let mut ip_id = 0;
        let (addresses, protocol) = match plan.ip {
            Ip::V4 => {
                ip_id = word(ip, 4);
                ip[2..6].fill(0);
                ip[10..12].fill(0);
                (&ip[12..20], ip[9])
            }
            Ip::V6 => (&ip[8..40], ip[6]),
        };
        let (mut sequence, mut flags) = (0, 0);
        match plan.transport {
            Transport::Tcp => {
                sequence =
                    u32::from_be_bytes([transport[4], transport[5], transport[6], transport[7]]);
                flags = transport[13];
                transport[4..8].fill(0);
                transport[13] = 0;
                transport[16..18].fill(0);
            }
            Transport::Udp => transport[4..8].fill(0),
        }
        let transport_sum = checksum::add(
            checksum::pseudo_header(addresses, protocol, 0),
            checksum::sum(transport),
        );
        let ip_sum = if plan.ip == Ip::V4 {
            checksum::sum(ip)
        } else {
            0
        };
        Template {
            plan: *plan,
            header,
            ip_sum,
            transport_sum,
            ip_id,
            sequence,
            flags,
        }
    }

    /// Writes the header of the segment at `place`. Its payload is there already.
    fn write(&self, segment: &mut [u8], place: usize, last: bool) {
        let Plan {
            ip_len,
            header_len,
            segment_size,
            ..
        } = self.plan;
        let (header, payload) = segment.split_at_mut(header_len);
        header.copy_from_slice(&self.header[..header_len]);
        let (ip, transport) = header.split_at_mut(ip_len);
        // No segment is longer than its super-packet, whose length is that of an IP header field.
        let transport_len = (transport.len() + payload.len()) as u16;

        match self.plan.ip {
            Ip::V4 => {
                let total = transport_len + ip_len as u16;
                let id = self.ip_id.wrapping_add(place as u16);
                ip[2..4].copy_from_slice(&total.to_be_bytes());
                ip[4..6].copy_from_slice(&id.to_be_bytes());
                let sum = checksum::add(checksum::add(self.ip_sum, total), id);
                ip[10..12].copy_from_slice(&(!sum).to_be_bytes());
            }
            Ip::V6 => ip[4..6].copy_from_slice(&transport_len.to_be_bytes()),
        }

        let mut sum = checksum::add(self.transport_sum, checksum::sum(payload));
        sum = checksum::add(sum, transport_len);
        match self.plan.transport {
            Transport::Tcp => {
                let sequence = self.sequence.wrapping_add((place * segment_size) as u32);
                let mut flags = self.flags;
                if !last {
                    flags &= !(FIN | PSH);
                }
                if place > 0 {
                    flags &= !CWR;
                }
                transport[4..8].copy_from_slice(&sequence.to_be_bytes());
                transport[13] = flags;
                sum = checksum::add(sum, (sequence >> 16) as u16);
                sum = checksum::add(sum, sequence as u16);
                sum = checksum::add(sum, u16::from(flags));
                transport[16..18].copy_from_slice(&(!sum).to_be_bytes());
            }
            Transport::Udp => {
                transport[4..6].copy_from_slice(&transport_len.to_be_bytes());
                // The length counts twice: in the pseudo header and in the header itself.
                let sum = !checksum::add(sum, transport_len);
                let sum = if sum == 0 { 0xffff } else { sum };
                transport[6..8].copy_from_slice(&sum.to_be_bytes());
            }
        }
    }
}

/// Completes the checksum of an ordinary packet, whose field holds the sum of the pseudo header.
fn complete_checksum(header: VnetHeader, bytes: &mut [u8]) -> Result<(), SplitError> {
    let start = usize::from(header.checksum_start);
    let place = start + usize::from(header.checksum_offset);
    if start < 20 || place + 2 > bytes.len() {
        return Err(SplitError::BadChecksumPlace);
    }
    let sum = !checksum::sum(&bytes[start..]);
    // In UDP a zero would mean "none" (RFC 768). TCP may not see the other zero either way.
    let sum = if sum == 0 && header.checksum_offset == 6 {
        0xffff
    } else {
        sum
    };
    bytes[place..place + 2].copy_from_slice(&sum.to_be_bytes());
    Ok(())
}

fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests;
