//! Packets that a laptop should not send, each with what must become of it.

use crate::laptop::Laptop;
use crate::packet::{self, ACK, FIN, PSH, Packet, RST, SYN, Segment, What};
use crate::steps::Mischief;
use postern_proto::device_api;
use postern_proto::fate::DropReason;
use postern_proto::invitation;
use std::net::IpAddr;

/// One such packet; none if the laptop has no use for it now.
pub(crate) fn packet(
    laptop: &mut Laptop,
    other: &[IpAddr],
    how: Mischief,
    pick: u8,
) -> Option<Packet> {
    let v6 = pick.is_multiple_of(2);
    let host: IpAddr = if v6 {
        [0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10].into()
    } else {
        [192, 0, 2, 10].into()
    };
    let own = laptop.address(host);
    let port = 5000 + u16::from(pick);
    let to_port = if pick.is_multiple_of(3) { 22 } else { 6443 };
    let segment = |flags, payload| Segment {
        from: port,
        to: to_port,
        flags,
        seq: 1000,
        ack: 2000,
        payload,
    };
    let datagram = packet::udp((own, port), (host, 53), b"mischief");
    Some(match how {
        Mischief::Spoof => {
            let from = *other.get(usize::from(v6))?;
            match pick % 3 {
                0 => packet::udp((from, port), (host, 53), b"spoofed").same_family()?,
                1 => packet::echo(from, host, true, port, b"spoofed").same_family()?,
                _ => packet::tcp(from, host, segment(SYN, 0), &[], None).same_family()?,
            }
        }
        Mischief::Sideways => {
            let to = *other.first()?;
            let from = laptop.address(to);
            match pick % 2 {
                0 => packet::udp((from, port), (to, 53), b"sideways"),
                _ => packet::tcp(from, to, segment(SYN, 0), &[], None),
            }
        }
        Mischief::Inwards => {
            let to: IpAddr = [100, 96, 0, 1].into();
            packet::tcp(laptop.address(to), to, segment(SYN, 0), &[], Some(1460))
        }
        Mischief::Ask => {
            let to: IpAddr = match pick % 3 {
                0 => invitation::GATEWAY.into(),
                1 => [100, 96, 0, 1].into(),
                _ => [0xfd00, 0x96, 0, 0, 0, 0, 0, 1].into(),
            };
            let segment = Segment {
                to: device_api::PORT,
                ..segment(SYN, 0)
            };
            packet::tcp(laptop.address(to), to, segment, &[], Some(1460))
        }
        Mischief::Middle => {
            let flags =
                [ACK, PSH | ACK, FIN | ACK, RST | ACK, SYN | ACK, FIN][usize::from(pick) % 6];
            packet::tcp(own, host, segment(flags, 0), &[], None)
        }
        Mischief::Fragment => broken(datagram, DropReason::Fragment, |bytes| {
            bytes[6] = if v6 { 44 } else { 0x20 }
        }),
        Mischief::Extension if v6 => {
            broken(datagram, DropReason::ExtensionHeader, |bytes| bytes[6] = 0)
        }
        Mischief::Extension => broken(datagram, DropReason::ExtensionHeader, |bytes| {
            bytes[0] = 0x46;
            bytes[3] += 4;
            bytes.splice(20..20, [1, 1, 1, 0]);
        }),
        Mischief::Protocol => broken(datagram, DropReason::OtherProtocol, |bytes| {
            bytes[if v6 { 6 } else { 9 }] = 132
        }),
        Mischief::Length => length(own, host, datagram, v6, pick)?,
        Mischief::Flags => {
            let flags = [SYN | FIN, SYN | RST, 0, PSH][usize::from(pick) % 4];
            broken(
                packet::tcp(own, host, segment(flags, 0), &[], None),
                DropReason::BadHeader,
                |_| {},
            )
        }
        Mischief::Multicast => {
            let group: IpAddr = if v6 {
                [0xff02, 0, 0, 0, 0, 0, 0, 1].into()
            } else {
                [224, 0, 0, 1].into()
            };
            broken(
                packet::udp((own, port), (group, 53), b"all"),
                DropReason::NotUnicast,
                |_| {},
            )
        }
        Mischief::Noise => {
            let (bytes, reason) = match pick % 3 {
                0 => (vec![0x50; 40], DropReason::BadHeader),
                1 => (vec![0; 32], DropReason::BadHeader),
                _ => (vec![0x45; 8], DropReason::Truncated),
            };
            Packet {
                bytes,
                from: own,
                to: host,
                what: What::Broken(reason),
            }
        }
        Mischief::Pong => packet::echo(own, host, false, port, b"pong"),
        Mischief::Error => {
            let conn = laptop.conns.last().map(|conn| conn.key);
            let about = match conn.filter(|_| pick.is_multiple_of(3)) {
                Some(key) => {
                    let segment = Segment {
                        from: key.target.1,
                        to: key.client.1,
                        flags: ACK,
                        seq: 1,
                        ack: 1,
                        payload: 0,
                    };
                    packet::tcp(key.target.0, key.client.0, segment, &[], None)
                }
                None => packet::udp((host, 53), (own, port), b"?"),
            };
            packet::unreachable(&about)?
        }
        Mischief::Control => {
            let (from, to): (IpAddr, IpAddr) = (laptop.addresses[0], [100, 96, 0, 1].into());
            let texts: [(&[u8], bool); 3] = [
                (br#"{"type":"hello","version":1,"client":"stock"}"#, true),
                (br#"{"type":"hello","version":2,"client":"x"}"#, false),
                (b"{]", false),
            ];
            let (text, good) = texts[usize::from(pick) % 3];
            let mut packet = packet::udp((from, 9477), (to, 9477), text);
            packet.what = What::Control(good);
            packet
        }
        Mischief::Guess => {
            let key = laptop.conns.last()?.key;
            let seq = u32::from(pick) << 23 ^ 0x3456_789a;
            let segment = Segment {
                from: key.client.1,
                to: key.target.1,
                flags: RST,
                seq,
                ack: 0,
                payload: 0,
            };
            packet::tcp(key.client.0, key.target.0, segment, &[], None)
        }
    })
}

/// Lengths that disagree.
fn length(own: IpAddr, host: IpAddr, datagram: Packet, v6: bool, pick: u8) -> Option<Packet> {
    let l4 = if v6 { 40 } else { 20 };
    Some(match pick / 2 % 3 {
        0 => broken(datagram, DropReason::BadLength, |bytes| bytes[l4 + 5] += 1),
        1 => broken(datagram, DropReason::BadLength, |bytes| {
            bytes[if v6 { 5 } else { 3 }] += 200
        }),
        _ => {
            let segment = Segment {
                from: 1,
                to: 22,
                flags: SYN,
                seq: 0,
                ack: 0,
                payload: 0,
            };
            let whole = packet::tcp(own, host, segment, &[], None);
            broken(whole, DropReason::Truncated, |bytes| {
                bytes.truncate(l4 + 12);
                bytes[if v6 { 5 } else { 3 }] -= 8;
            })
        }
    })
}

fn broken(mut packet: Packet, reason: DropReason, how: impl FnOnce(&mut Vec<u8>)) -> Packet {
    how(&mut packet.bytes);
    packet.what = What::Broken(reason);
    packet
}

impl Packet {
    fn same_family(self) -> Option<Packet> {
        (self.from.is_ipv4() == self.to.is_ipv4()).then_some(self)
    }
}
