//! What a packet looks like to a joiner: its flow, where its payload starts, whether it may be
//! joined at all; and the header of a super-packet made from it.

use super::Joinable;
use crate::checksum;
use crate::hash::mix;
use crate::virtio::{Gso, VnetHeader};

pub(super) const TCP: u8 = 6;
pub(super) const UDP: u8 = 17;
const ACK: u8 = 0x10;
const PSH: u8 = 0x08;

/// Version, protocol, addresses and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Flow {
    pub(super) addresses: [u8; 32],
    pub(super) ports: u32,
    pub(super) protocol: u8,
    pub(super) v6: bool,
}

/// Where the pieces of a packet are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) flow: Flow,
    pub(super) ip_len: usize,
    pub(super) header_len: usize,
    pub(super) payload: usize,
    /// May be in a super-packet at all.
    pub(super) joinable: bool,
    pub(super) push: bool,
}

impl Flow {
    pub(super) fn hash(&self, seed: u64) -> usize {
        let (words, _) = self.addresses.as_chunks::<8>();
        let start = seed ^ u64::from(self.ports) ^ (u64::from(self.protocol) << 32);
        let words = words.iter().map(|word| u64::from_ne_bytes(*word));
        words.fold(start, mix) as usize
    }
}

impl Shape {
    /// Nothing for what is neither plain TCP nor plain UDP, or whose lengths disagree.
    pub(super) fn of(bytes: &[u8], joinable: Joinable) -> Option<Shape> {
        let v6 = match bytes.first()? >> 4 {
            4 => false,
            6 => true,
            _ => return None,
        };
        let ip_len = if v6 { 40 } else { 20 };
        if bytes.len() < ip_len + 8 {
            return None;
        }
        let mut addresses = [0; 32];
        let (length, protocol) = if v6 {
            addresses.copy_from_slice(&bytes[8..40]);
            (40 + usize::from(word(bytes, 4)), bytes[6])
        } else {
            // No options, no fragment.
            if bytes[0] != 0x45 || word(bytes, 6) & 0x3fff != 0 {
                return None;
            }
            addresses[..8].copy_from_slice(&bytes[12..20]);
            (usize::from(word(bytes, 2)), bytes[9])
        };
        if length != bytes.len() {
            return None;
        }
        let (header_len, mergeable, push) = match protocol {
            TCP => {
                if bytes.len() < ip_len + 20 {
                    return None;
                }
                let header_len = ip_len + usize::from(bytes[ip_len + 12] >> 4) * 4;
                if header_len < ip_len + 20 || bytes.len() < header_len {
                    return None;
                }
                let flags = bytes[ip_len + 13];
                (
                    header_len,
                    joinable.tcp && flags & !PSH == ACK,
                    flags & PSH != 0,
                )
            }
            UDP => {
                let whole = usize::from(word(bytes, ip_len + 4)) == bytes.len() - ip_len;
                let has_checksum = word(bytes, ip_len + 6) != 0;
                (ip_len + 8, joinable.udp && whole && has_checksum, false)
            }
            _ => return None,
        };
        let payload = bytes.len() - header_len;
        Some(Shape {
            flow: Flow {
                addresses,
                ports: long(bytes, ip_len),
                protocol,
                v6,
            },
            ip_len,
            header_len,
            payload,
            joinable: mergeable && payload > 0,
            push,
        })
    }

    pub(super) fn checksum_is_right(&self, bytes: &[u8]) -> bool {
        // The length of one packet; checked against its header.
        let length = (bytes.len() - self.ip_len) as u16;
        let pseudo = checksum::pseudo_header(self.addresses(bytes), self.flow.protocol, length);
        let ip_is_right = self.flow.v6 || checksum::sum(&bytes[..self.ip_len]) == 0xffff;
        ip_is_right && checksum::add(pseudo, checksum::sum(&bytes[self.ip_len..])) == 0xffff
    }

    fn addresses<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        if self.flow.v6 {
            &bytes[8..40]
        } else {
            &bytes[12..20]
        }
    }

    pub(super) fn virtio_header(&self) -> VnetHeader {
        let (gso, checksum_offset) = match (self.flow.protocol, self.flow.v6) {
            (UDP, _) => (Gso::Udp, 6),
            (_, false) => (Gso::TcpV4, 16),
            (_, true) => (Gso::TcpV6, 16),
        };
        VnetHeader {
            gso,
            needs_checksum: true,
            // Header and payload of one packet: they fit.
            header_len: self.header_len as u16,
            segment_size: self.payload as u16,
            checksum_start: self.ip_len as u16,
            checksum_offset,
        }
    }

    /// Turns the header of the first packet into that of all, with `payload` bytes in total. The
    /// transport checksum becomes the sum of the pseudo header, as the kernel wants it.
    pub(super) fn make_super(&self, header: &mut [u8], payload: usize, push: bool) {
        // At most MAX_SUPER.
        let transport_len = (self.header_len - self.ip_len + payload) as u16;
        let pseudo =
            checksum::pseudo_header(self.addresses(header), self.flow.protocol, transport_len);
        let (ip, transport) = header.split_at_mut(self.ip_len);
        if self.flow.v6 {
            ip[4..6].copy_from_slice(&transport_len.to_be_bytes());
        } else {
            let total = transport_len + self.ip_len as u16;
            ip[2..4].copy_from_slice(&total.to_be_bytes());
            ip[10..12].fill(0);
            let sum = !checksum::sum(ip);
            ip[10..12].copy_from_slice(&sum.to_be_bytes());
        }
        if self.flow.protocol == UDP {
            transport[4..6].copy_from_slice(&transport_len.to_be_bytes());
            transport[6..8].copy_from_slice(&pseudo.to_be_bytes());
        } else {
            transport[13] |= if push { PSH } else { 0 };
            transport[16..18].copy_from_slice(&pseudo.to_be_bytes());
        }
    }
}

pub(super) fn word(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

pub(super) fn long(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}
