//! The header that a TUN with offload puts before each packet: `struct virtio_net_hdr`
//! (linux/virtio_net.h; Virtual I/O Device 1.2, section 5.1.6), 10 bytes in the machine's order.

/// Bytes of the header.
pub const HEADER: usize = 10;

/// The transport checksum must still be completed.
const NEEDS_CSUM: u8 = 1;

/// The bit that says that a TCP super-packet carries CWR.
const ECN: u8 = 0x80;

/// What kind of super-packet follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gso {
    /// One ordinary packet.
    None,
    /// TCP over IPv4.
    TcpV4,
    /// TCP over IPv6.
    TcpV6,
    /// UDP datagrams of one size (USO), either IP version.
    Udp,
    /// A kind that we never asked the kernel for.
    Other(u8),
}

/// The header, in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VnetHeader {
    /// What follows.
    pub gso: Gso,
    /// Whether the transport checksum holds only the sum of the pseudo header.
    pub needs_checksum: bool,
    /// Length of all headers. A hint: the kernel gets it wrong for forwarded packets.
    pub header_len: u16,
    /// Payload bytes of each segment but the last.
    pub segment_size: u16,
    /// Where checksumming starts: the transport header.
    pub checksum_start: u16,
    /// Where the checksum stands, from `checksum_start`.
    pub checksum_offset: u16,
}

impl VnetHeader {
    /// The header of an ordinary packet whose checksums are complete.
    pub const PLAIN: VnetHeader = VnetHeader {
        gso: Gso::None,
        needs_checksum: false,
        header_len: 0,
        segment_size: 0,
        checksum_start: 0,
        checksum_offset: 0,
    };

    /// Reads the header.
    #[must_use]
    pub fn parse(bytes: &[u8; HEADER]) -> VnetHeader {
        let word = |at: usize| u16::from_ne_bytes([bytes[at], bytes[at + 1]]);
        VnetHeader {
            gso: match bytes[1] & !ECN {
                0 => Gso::None,
                1 => Gso::TcpV4,
                4 => Gso::TcpV6,
                5 => Gso::Udp,
                other => Gso::Other(other),
            },
            needs_checksum: bytes[0] & NEEDS_CSUM != 0,
            header_len: word(2),
            segment_size: word(4),
            checksum_start: word(6),
            checksum_offset: word(8),
        }
    }

    /// How many packets `len` bytes of a packet with this header become, to within one.
    #[must_use]
    pub fn packets_in(&self, len: usize) -> u32 {
        const HEADERS: usize = 40;
        if self.gso == Gso::None || self.segment_size == 0 {
            return 1;
        }
        let payload = len.saturating_sub(HEADERS);
        payload.div_ceil(usize::from(self.segment_size)).max(1) as u32
    }

    /// Writes the header.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        bytes[0] = if self.needs_checksum { NEEDS_CSUM } else { 0 };
        bytes[1] = match self.gso {
            Gso::None => 0,
            Gso::TcpV4 => 1,
            Gso::TcpV6 => 4,
            Gso::Udp => 5,
            Gso::Other(other) => other,
        };
        bytes[2..4].copy_from_slice(&self.header_len.to_ne_bytes());
        bytes[4..6].copy_from_slice(&self.segment_size.to_ne_bytes());
        bytes[6..8].copy_from_slice(&self.checksum_start.to_ne_bytes());
        bytes[8..10].copy_from_slice(&self.checksum_offset.to_ne_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_read_is_written_again(mut bytes in any::<[u8; HEADER]>()) {
            bytes[0] &= NEEDS_CSUM;
            bytes[1] &= !ECN;
            prop_assert_eq!(VnetHeader::parse(&bytes).to_bytes(), bytes);
        }
    }

    #[test]
    fn the_ecn_bit_does_not_change_the_kind() {
        let mut bytes = VnetHeader {
            gso: Gso::TcpV4,
            ..VnetHeader::PLAIN
        }
        .to_bytes();
        bytes[1] |= ECN;
        assert_eq!(VnetHeader::parse(&bytes).gso, Gso::TcpV4);
    }
}
