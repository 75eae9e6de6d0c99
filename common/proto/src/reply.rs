//! The answers to a refusal, and the other packets that we make ourselves. Each function writes
//! one inner packet into `out` and returns its length, or `None` where no answer is owed
//! (never an error for an error, RFC 1122 section 3.2.2) or there is no room.

use crate::flow_key::{FlowKey, Protocol};
use crate::mtu;
use crate::packet::{PacketView, Tcp, TcpFlags, Transport};
use std::net::IpAddr;

/// Bytes of the refused packet that an ICMP error quotes: its headers, and enough of what
/// follows for any stack to find its socket.
const QUOTE: usize = 128;

/// Room that any packet made here fits into.
pub const REPLY_ROOM: usize = 256;

/// Refuses `packet` towards its sender: TCP by RST, the others by administratively-prohibited.
pub fn refuse(packet: &PacketView<'_>, out: &mut [u8]) -> Option<usize> {
    match &packet.transport {
        Transport::Tcp(tcp) => reset_sender(packet, tcp, out),
        Transport::Udp { .. } | Transport::Echo { request: true, .. } => prohibit(packet, out),
        Transport::Echo { request: false, .. } | Transport::Error { .. } => None,
    }
}

/// The RST that a closed port would send (RFC 9293, section 3.10.7.1).
fn reset_sender(packet: &PacketView<'_>, tcp: &Tcp, out: &mut [u8]) -> Option<usize> {
    if tcp.flags.has(TcpFlags::RST) {
        return None;
    }
    let (sequence, acknowledgment) = if tcp.flags.has(TcpFlags::ACK) {
        (tcp.acknowledgment, None)
    } else {
        (0, Some(tcp.next_sequence()))
    };
    let from = (packet.destination, tcp.destination_port);
    let to = (packet.source, tcp.source_port);
    tcp_reset(from, to, sequence, acknowledgment, out)
}

/// One RST from `from` to `to`. With an acknowledgment it answers a SYN; without one, `sequence`
/// must be what the receiver expects next, or it will only challenge (RFC 5961, section 3.2).
pub fn tcp_reset(
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    sequence: u32,
    acknowledgment: Option<u32>,
    out: &mut [u8],
) -> Option<usize> {
    let mut segment = [0_u8; 20];
    segment[0..2].copy_from_slice(&from.1.to_be_bytes());
    segment[2..4].copy_from_slice(&to.1.to_be_bytes());
    segment[4..8].copy_from_slice(&sequence.to_be_bytes());
    segment[8..12].copy_from_slice(&acknowledgment.unwrap_or(0).to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = TcpFlags::RST.0
        | if acknowledgment.is_some() {
            TcpFlags::ACK.0
        } else {
            0
        };
    wrap(from.0, to.0, 6, [&segment, &[]], 0, Some(16), out)
}

/// Communication administratively prohibited: ICMP type 3 code 13 (RFC 1812, section 5.2.7.1),
/// ICMPv6 type 1 code 1 (RFC 4443, section 3.1). It comes from the address that was asked, so
/// that it passes every allowed-IPs filter on its way.
pub fn prohibit(packet: &PacketView<'_>, out: &mut [u8]) -> Option<usize> {
    let quote = &packet.bytes()[..packet.bytes().len().min(QUOTE)];
    prohibit_quoting(quote, packet.destination, packet.source, out)
}

/// The same for a flow of which no packet is at hand: quotes headers made from its 5-tuple.
/// `to_target` says which end is told; the quoted packet is one that this end sent.
pub fn prohibit_flow(key: &FlowKey, to_target: bool, out: &mut [u8]) -> Option<usize> {
    let (client, target) = (key.client_end(), key.target_end());
    let (told, other) = if to_target {
        (target, client)
    } else {
        (client, target)
    };
    let mut quote = [0_u8; 64];
    let len = match key.protocol {
        Protocol::Udp => udp(told, other, &[], &mut quote)?,
        Protocol::Icmp if !to_target => {
            let v6 = told.0.is_ipv6();
            let mut echo = [0_u8; 8];
            echo[0] = if v6 { 128 } else { 8 };
            echo[4..6].copy_from_slice(&key.client_port.to_be_bytes());
            wrap(
                told.0,
                other.0,
                if v6 { 58 } else { 1 },
                [&echo, &[]],
                0,
                Some(2),
                &mut quote,
            )?
        }
        Protocol::Icmp | Protocol::Tcp => return None,
    };
    prohibit_quoting(&quote[..len], other.0, told.0, out)
}

/// One UDP datagram from `from` to `to`.
pub fn udp(
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    payload: &[u8],
    out: &mut [u8],
) -> Option<usize> {
    udp_padded(from, to, payload, 0, out)
}

/// The same in a packet of at least `least` bytes: zeros follow `payload`.
pub fn udp_padded(
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    payload: &[u8],
    least: usize,
    out: &mut [u8],
) -> Option<usize> {
    let headers = 8 + if from.0.is_ipv6() { 40 } else { 20 };
    let padding = least.saturating_sub(headers + payload.len());
    let mut header = [0_u8; 8];
    header[0..2].copy_from_slice(&from.1.to_be_bytes());
    header[2..4].copy_from_slice(&to.1.to_be_bytes());
    let len = u16::try_from(8 + payload.len() + padding).ok()?;
    header[4..6].copy_from_slice(&len.to_be_bytes());
    wrap(from.0, to.0, 17, [&header, payload], padding, Some(6), out)
}

/// Packet too big: ICMP type 3 code 4 (RFC 1191, section 4), ICMPv6 type 2 (RFC 4443, section
/// 3.2), with the `mtu` that fits; to the sender of `packet`, from where it was going, as every
/// refusal. `None` where the sender lets routers fragment, which is IPv4 without DF, and for
/// errors.
pub fn too_big(packet: &PacketView<'_>, mtu: u16, out: &mut [u8]) -> Option<usize> {
    let bytes = packet.bytes();
    let may_be_fragmented = bytes.first()? >> 4 == 4 && bytes.get(6)? & 0x40 == 0;
    if may_be_fragmented || matches!(packet.transport, Transport::Error { .. }) {
        return None;
    }
    let kind = if packet.source.is_ipv6() {
        (2, 0)
    } else {
        (3, 4)
    };
    // In both families the low half of the second word.
    let quote = &bytes[..bytes.len().min(QUOTE)];
    error(
        kind,
        mtu.into(),
        quote,
        packet.destination,
        packet.source,
        out,
    )
}

/// Lowers the MSS option of a SYN so that its segments fit `mtu`, with the checksum mended
/// (RFC 1624). Anything else is left alone. `packet` must have been proved by [`PacketView`].
pub fn clamp_mss(packet: &mut [u8], mtu: usize) {
    clamp_mss_to(packet, || mtu);
}

/// The same where the MTU costs something to find out: it is asked for a SYN only.
pub fn clamp_mss_to(packet: &mut [u8], mtu: impl FnOnce() -> usize) {
    let v6 = packet.first().is_some_and(|byte| byte >> 4 == 6);
    let tcp_at = if v6 { 40 } else { 20 };
    let is_tcp = packet.get(if v6 { 6 } else { 9 }) == Some(&6);
    let Some(header) = packet
        .get_mut(tcp_at..)
        .filter(|header| is_tcp && header.len() >= 20)
    else {
        return;
    };
    if header[13] & TcpFlags::SYN.0 == 0 {
        return;
    }
    let mtu = mtu();
    let limit = if v6 {
        mtu::mss_v6(mtu)
    } else {
        mtu::mss_v4(mtu)
    };
    let end = (usize::from(header[12] >> 4) * 4).min(header.len());
    let mut at = 20;
    while at + 1 < end {
        match (header[at], usize::from(header[at + 1])) {
            (0, _) => return,
            (1, _) => at += 1,
            (2, 4) if at + 4 <= end => {
                let old = u16::from_be_bytes([header[at + 2], header[at + 3]]);
                if old > limit {
                    header[at + 2..at + 4].copy_from_slice(&limit.to_be_bytes());
                    // An option at an odd offset straddles two words of the sum.
                    let (old, new) = if at % 2 == 0 {
                        (old, limit)
                    } else {
                        (old.swap_bytes(), limit.swap_bytes())
                    };
                    let sum = u16::from_be_bytes([header[16], header[17]]);
                    let mended = fold(u32::from(!sum) + u32::from(!old) + u32::from(new));
                    header[16..18].copy_from_slice(&(!mended).to_be_bytes());
                }
                return;
            }
            (_, len) if len >= 2 => at += len,
            _ => return,
        }
    }
}

fn prohibit_quoting(quote: &[u8], from: IpAddr, to: IpAddr, out: &mut [u8]) -> Option<usize> {
    let kind = if from.is_ipv6() { (1, 1) } else { (3, 13) };
    error(kind, 0, quote, from, to, out)
}

/// An ICMP error of `kind` (type and code) with its second word.
fn error(
    kind: (u8, u8),
    word: u32,
    quote: &[u8],
    from: IpAddr,
    to: IpAddr,
    out: &mut [u8],
) -> Option<usize> {
    let mut header = [0_u8; 8];
    (header[0], header[1]) = kind;
    header[4..8].copy_from_slice(&word.to_be_bytes());
    let protocol = if from.is_ipv6() { 58 } else { 1 };
    wrap(from, to, protocol, [&header, quote], 0, Some(2), out)
}

/// Puts an IP header before `payload` and zeros after it. The payload's checksum field stands at
/// `checksum_at`.
fn wrap(
    from: IpAddr,
    to: IpAddr,
    protocol: u8,
    payload: [&[u8]; 2],
    padding: usize,
    checksum_at: Option<usize>,
    out: &mut [u8],
) -> Option<usize> {
    let split = payload[0].len();
    let filled = split + payload[1].len();
    let length = u16::try_from(filled + padding).ok()?;
    let (header_len, pseudo) = match (from, to) {
        (IpAddr::V4(from), IpAddr::V4(to)) => {
            let header = out.get_mut(..20)?;
            header.fill(0);
            header[0] = 0x45;
            header[2..4].copy_from_slice(&length.checked_add(20)?.to_be_bytes());
            header[6] = 0x40; // Don't fragment: nothing made here ever needs to be.
            header[8] = 64;
            header[9] = protocol;
            header[12..16].copy_from_slice(&from.octets());
            header[16..20].copy_from_slice(&to.octets());
            let sum = checksum(header, 0);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            // ICMP has no pseudo-header in IPv4.
            let pseudo = if protocol == 1 {
                0
            } else {
                sum_words(&header[12..20], 0)
            };
            (20, pseudo)
        }
        (IpAddr::V6(from), IpAddr::V6(to)) => {
            let header = out.get_mut(..40)?;
            header.fill(0);
            header[0] = 0x60;
            header[4..6].copy_from_slice(&length.to_be_bytes());
            header[6] = protocol;
            header[7] = 64;
            header[8..24].copy_from_slice(&from.octets());
            header[24..40].copy_from_slice(&to.octets());
            (40, sum_words(&header[8..40], 0))
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => return None,
    };
    let body = out.get_mut(header_len..header_len + filled + padding)?;
    body[..split].copy_from_slice(payload[0]);
    body[split..filled].copy_from_slice(payload[1]);
    body[filled..].fill(0);
    if let Some(at) = checksum_at {
        body[at..at + 2].fill(0);
        let start = if pseudo == 0 {
            0
        } else {
            pseudo + u32::from(protocol) + u32::from(length)
        };
        let sum = match checksum(body, start) {
            0 if protocol == 17 => 0xffff,
            sum => sum,
        };
        body[at..at + 2].copy_from_slice(&sum.to_be_bytes());
    }
    Some(header_len + filled + padding)
}

/// The Internet checksum (RFC 1071) over `bytes`, with `start` added.
fn checksum(bytes: &[u8], start: u32) -> u16 {
    !fold(sum_words(bytes, start))
}

fn sum_words(bytes: &[u8], start: u32) -> u32 {
    let mut words = bytes.chunks_exact(2);
    let mut sum = start;
    for word in words.by_ref() {
        sum += u32::from(u16::from_be_bytes([word[0], word[1]]));
    }
    if let [last] = words.remainder() {
        sum += u32::from(*last) << 8;
    }
    sum
}

pub(crate) fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests;
