//! Packets as a TUN with offload hands them over: the transport checksum left to be completed,
//! and up to 64 KiB of one TCP flow under one header.

use postern_io::checksum;
use postern_io::virtio::{Gso, VnetHeader};
use postern_proto::mtu::DEFAULT_MTU;
use std::net::Ipv4Addr;

/// Segments of the super-packet: what fits in 64 KiB of full packets, less a few.
pub const SEGMENTS: usize = 45;

/// IPv4, and TCP with time stamps: what nearly every connection has.
const TCP_HEADERS: usize = 20 + 32;
const UDP_HEADERS: usize = 20 + 8;
const SEGMENT: usize = DEFAULT_MTU - TCP_HEADERS;

const SYN: u8 = 2;
const RST: u8 = 4;
const ACK: u8 = 16;

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// A UDP datagram, 64 bytes with its headers.
    Small,
    /// One TCP segment of the MTU.
    Full,
    /// [`SEGMENTS`] of them under one header.
    Super,
}

impl Shape {
    /// All of them.
    pub const ALL: [Shape; 3] = [Shape::Small, Shape::Full, Shape::Super];

    /// Packets in the tunnel that one read from the TUN becomes.
    #[must_use]
    pub fn segments(self) -> usize {
        match self {
            Shape::Small | Shape::Full => 1,
            Shape::Super => SEGMENTS,
        }
    }

    /// Bytes of each of them.
    #[must_use]
    pub fn packet_len(self) -> usize {
        match self {
            Shape::Small => 64,
            Shape::Full | Shape::Super => DEFAULT_MTU,
        }
    }
}

/// Who speaks to whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// TCP, or UDP.
    pub tcp: bool,
    /// The device.
    pub device: (Ipv4Addr, u16),
    /// The target.
    pub target: (Ipv4Addr, u16),
}

/// Which end of a flow speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From {
    /// The device.
    Device,
    /// The target.
    Target,
}

/// One read from the TUN.
#[derive(Clone, Debug)]
pub struct Read {
    /// Its virtio header.
    pub header: VnetHeader,
    /// One packet, or many under one header.
    pub bytes: Vec<u8>,
}

impl Flow {
    /// Data of this flow, `number` reads into it.
    #[must_use]
    pub fn data(&self, from: From, shape: Shape, number: usize) -> Read {
        if !self.tcp {
            return self.udp(from, shape.packet_len() - UDP_HEADERS);
        }
        let payload = shape.segments() * SEGMENT;
        let segment = match shape {
            Shape::Small | Shape::Full => None,
            Shape::Super => Some(SEGMENT),
        };
        let sequence = 1 + (number * payload) as u32;
        self.segment(from, ACK, sequence, payload, segment)
    }

    /// The largest super-packet that there is: 64 KiB.
    #[must_use]
    pub fn largest(&self, from: From) -> Read {
        self.segment(from, ACK, 1, 65_535 - TCP_HEADERS, Some(SEGMENT))
    }

    /// What opens the flow, in turn from the device and from the target.
    #[must_use]
    pub fn opening(&self) -> Vec<(From, Read)> {
        if self.tcp {
            vec![
                (From::Device, self.syn()),
                (
                    From::Target,
                    self.segment(From::Target, SYN | ACK, 0, 0, None),
                ),
                (From::Device, self.segment(From::Device, ACK, 1, 0, None)),
            ]
        } else {
            vec![
                (From::Device, self.udp(From::Device, 36)),
                (From::Target, self.udp(From::Target, 36)),
            ]
        }
    }

    /// The device's SYN.
    #[must_use]
    pub fn syn(&self) -> Read {
        self.segment(From::Device, SYN, 0, 0, None)
    }

    /// The target's refusal of that SYN.
    #[must_use]
    pub fn reset(&self) -> Read {
        self.segment(From::Target, RST | ACK, 0, 0, None)
    }

    fn segment(
        &self,
        from: From,
        flags: u8,
        sequence: u32,
        payload: usize,
        segment: Option<usize>,
    ) -> Read {
        let mut tcp = Vec::with_capacity(TCP_HEADERS + payload);
        tcp.extend(self.ports(from));
        tcp.extend(sequence.to_be_bytes());
        tcp.extend([0, 0, 0, 1]);
        tcp.extend([8 << 4, flags, 0x02, 0x00, 0, 0, 0, 0]);
        tcp.extend([1, 1, 8, 10, 0, 0, 0, 7, 0, 0, 0, 5]);
        tcp.extend((0..payload).map(|at| (at % 251) as u8));
        let mut read = self.packet(from, 6, 16, tcp);
        if let Some(segment) = segment {
            read.header.gso = Gso::TcpV4;
            read.header.header_len = TCP_HEADERS as u16;
            read.header.segment_size = segment as u16;
        }
        read
    }

    fn udp(&self, from: From, payload: usize) -> Read {
        let mut udp = Vec::with_capacity(UDP_HEADERS + payload);
        udp.extend(self.ports(from));
        udp.extend(((8 + payload) as u16).to_be_bytes());
        udp.extend([0, 0]);
        udp.extend((0..payload).map(|at| (at % 251) as u8));
        self.packet(from, 17, 6, udp)
    }

    fn ports(&self, from: From) -> impl Iterator<Item = u8> {
        let (source, destination) = match from {
            From::Device => (self.device.1, self.target.1),
            From::Target => (self.target.1, self.device.1),
        };
        source
            .to_be_bytes()
            .into_iter()
            .chain(destination.to_be_bytes())
    }

    /// The checksum at `place` of the transport header gets the sum of the pseudo header, as the
    /// kernel leaves it.
    fn packet(&self, from: From, protocol: u8, place: usize, mut transport: Vec<u8>) -> Read {
        let (source, destination) = match from {
            From::Device => (self.device.0, self.target.0),
            From::Target => (self.target.0, self.device.0),
        };
        let mut bytes = vec![0x45, 0];
        bytes.extend(((20 + transport.len()) as u16).to_be_bytes());
        bytes.extend([0, 1, 0x40, 0, 64, protocol, 0, 0]);
        bytes.extend(source.octets());
        bytes.extend(destination.octets());
        let sum = !checksum::sum(&bytes);
        bytes[10..12].copy_from_slice(&sum.to_be_bytes());
        let pseudo = checksum::pseudo_header(&bytes[12..20], protocol, transport.len() as u16);
        transport[place..place + 2].copy_from_slice(&pseudo.to_be_bytes());
        bytes.extend(transport);
        Read {
            header: VnetHeader {
                needs_checksum: true,
                checksum_start: 20,
                checksum_offset: place as u16,
                ..VnetHeader::PLAIN
            },
            bytes,
        }
    }
}
