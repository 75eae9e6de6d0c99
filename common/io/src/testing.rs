//! Packets for the tests, built the slow and obvious way.

use proptest::prelude::*;

/// A TCP or UDP packet in words.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) v6: bool,
    pub(crate) udp: bool,
    pub(crate) source: u8,
    pub(crate) port: u16,
    pub(crate) tos: u8,
    pub(crate) ttl: u8,
    pub(crate) dont_fragment: bool,
    pub(crate) ip_id: u16,
    /// IPv4 options, a multiple of four bytes.
    pub(crate) ip_options: Vec<u8>,
    pub(crate) sequence: u32,
    pub(crate) acknowledgement: u32,
    pub(crate) flags: u8,
    pub(crate) window: u16,
    /// TCP options, a multiple of four bytes.
    pub(crate) tcp_options: Vec<u8>,
    pub(crate) payload: Vec<u8>,
}

impl Default for Spec {
    fn default() -> Self {
        Spec {
            v6: false,
            udp: false,
            source: 7,
            port: 40_000,
            tos: 0,
            ttl: 64,
            dont_fragment: true,
            ip_id: 1,
            ip_options: Vec::new(),
            sequence: 1000,
            acknowledgement: 2000,
            flags: 0x10,
            window: 512,
            tcp_options: Vec::new(),
            payload: vec![0xaa; 100],
        }
    }
}

impl Spec {
    pub(crate) fn ip_len(&self) -> usize {
        if self.v6 {
            40
        } else {
            20 + self.ip_options.len()
        }
    }

    fn protocol(&self) -> u8 {
        if self.udp { 17 } else { 6 }
    }

    fn addresses(&self) -> Vec<u8> {
        if self.v6 {
            let mut addresses = vec![0xfd; 32];
            addresses[15] = self.source;
            addresses
        } else {
            vec![10, 0, 0, self.source, 192, 0, 2, 10]
        }
    }

    /// Bytes with complete checksums.
    pub(crate) fn build(&self) -> Vec<u8> {
        let mut transport = Vec::new();
        transport.extend(self.port.to_be_bytes());
        transport.extend(6443u16.to_be_bytes());
        if self.udp {
            transport.extend(u16::try_from(8 + self.payload.len()).unwrap().to_be_bytes());
            transport.extend([0, 0]);
        } else {
            transport.extend(self.sequence.to_be_bytes());
            transport.extend(self.acknowledgement.to_be_bytes());
            transport.push(u8::try_from((20 + self.tcp_options.len()) / 4).unwrap() << 4);
            transport.push(self.flags);
            transport.extend(self.window.to_be_bytes());
            transport.extend([0, 0, 0, 0]);
            transport.extend(&self.tcp_options);
        }
        transport.extend(&self.payload);
        let length = u16::try_from(transport.len()).unwrap();
        let mut covered = self.addresses();
        covered.extend([0, self.protocol()]);
        covered.extend(length.to_be_bytes());
        covered.extend(&transport);
        let mut checksum = !slow_sum(&covered);
        if self.udp && checksum == 0 {
            checksum = 0xffff;
        }
        let place = if self.udp { 6 } else { 16 };
        transport[place..place + 2].copy_from_slice(&checksum.to_be_bytes());

        let mut packet = Vec::new();
        if self.v6 {
            packet.extend([0x60 | self.tos >> 4, self.tos << 4, 1, 2]);
            packet.extend(length.to_be_bytes());
            packet.extend([self.protocol(), self.ttl]);
            packet.extend(self.addresses());
        } else {
            let total = u16::try_from(self.ip_len()).unwrap() + length;
            packet.extend([0x40 | u8::try_from(self.ip_len() / 4).unwrap(), self.tos]);
            packet.extend(total.to_be_bytes());
            packet.extend(self.ip_id.to_be_bytes());
            packet.extend([if self.dont_fragment { 0x40 } else { 0 }, 0]);
            packet.extend([self.ttl, self.protocol(), 0, 0]);
            packet.extend(self.addresses());
            packet.extend(&self.ip_options);
            let checksum = !slow_sum(&packet);
            packet[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
        packet.extend(transport);
        packet
    }

    /// Puts into the transport checksum only the sum of the pseudo header, as the kernel does
    /// when it leaves the rest to the device.
    pub(crate) fn leave_checksum(&self, packet: &mut [u8]) {
        let length = u16::try_from(packet.len() - self.ip_len()).unwrap();
        let mut covered = self.addresses();
        covered.extend([0, self.protocol()]);
        covered.extend(length.to_be_bytes());
        let place = self.ip_len() + if self.udp { 6 } else { 16 };
        packet[place..place + 2].copy_from_slice(&slow_sum(&covered).to_be_bytes());
    }
}

/// Any packet with a payload of 1 to `longest` bytes.
pub(crate) fn spec(longest: usize) -> impl Strategy<Value = Spec> {
    let words = |most: usize| {
        (0..=most).prop_flat_map(|words| prop::collection::vec(any::<u8>(), words * 4..=words * 4))
    };
    let ip = (
        any::<bool>(),
        any::<u8>(),
        any::<u8>(),
        any::<bool>(),
        any::<u16>(),
        words(10),
    );
    let tcp = (
        any::<u32>(),
        any::<u32>(),
        any::<u8>(),
        any::<u16>(),
        words(10),
    );
    let payload = (1..=longest, any::<u8>(), any::<bool>()).prop_map(|(len, step, zero)| {
        (0..len)
            .map(|at| {
                if zero {
                    0
                } else {
                    (at as u8).wrapping_mul(step) ^ (at >> 8) as u8
                }
            })
            .collect()
    });
    (any::<bool>(), ip, tcp, any::<u16>(), payload).prop_map(|(udp, ip, tcp, port, payload)| Spec {
        v6: ip.0,
        udp,
        source: 7,
        port,
        tos: ip.1,
        ttl: ip.2,
        dont_fragment: ip.3,
        ip_id: ip.4,
        ip_options: if ip.0 { Vec::new() } else { ip.5 },
        sequence: tcp.0,
        acknowledgement: tcp.1,
        flags: tcp.2,
        window: tcp.3,
        tcp_options: tcp.4,
        payload,
    })
}

/// Whether a receiver would accept both checksums. A UDP checksum of zero is none.
pub(crate) fn checksums_are_right(packet: &[u8]) -> bool {
    let v6 = packet[0] >> 4 == 6;
    let ip_len = if v6 {
        40
    } else {
        usize::from(packet[0] & 15) * 4
    };
    let (addresses, protocol) = if v6 {
        (&packet[8..40], packet[6])
    } else {
        (&packet[12..20], packet[9])
    };
    if !v6 && slow_sum(&packet[..ip_len]) != 0xffff {
        return false;
    }
    let mut covered = addresses.to_vec();
    covered.extend([0, protocol]);
    covered.extend(u16::try_from(packet.len() - ip_len).unwrap().to_be_bytes());
    covered.extend(&packet[ip_len..]);
    slow_sum(&covered) == 0xffff
}

/// RFC 1071 to the letter.
pub(crate) fn slow_sum(bytes: &[u8]) -> u16 {
    let mut total: u32 = 0;
    for pair in bytes.chunks(2) {
        total += u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low));
        total = (total & 0xffff) + (total >> 16);
    }
    u16::try_from(total).unwrap()
}
