//! Packets of enrolled devices, sealed before the clock starts and then sent forty at a time: so
//! little work for the sender that the gateway's workers are what bounds them.

use crate::device::Device;
use crate::lab;
use crate::report::{self, Failure, Output, per_second};
use crate::wire::{Pace, Wire};
use clap::Args;
use postern_proto::keys::PublicKey;
use serde::Serialize;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

/// The most memory that sealed packets take.
const MAX_BYTES: u64 = 4 << 30;
/// IPv4 and UDP headers.
const HEADERS: usize = 28;

#[derive(Debug, Args)]
pub(crate) struct Replay {
    /// The gateway.
    #[arg(long, value_parser = lab::address)]
    to: SocketAddr,
    /// Its public key.
    #[arg(long, value_name = "KEY")]
    gateway_key: PublicKey,
    /// Tunnel addresses of the devices 0, 1, … of the seed.
    #[arg(long, required = true, value_delimiter = ',', num_args = 1..=64)]
    inner: Vec<Ipv4Addr>,
    /// Their keys come from this number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the packets go, through the policy.
    #[arg(long, value_parser = lab::address)]
    target: SocketAddr,
    /// Bytes of each inner packet, headers included.
    #[arg(long, default_value_t = 1400, value_parser = clap::value_parser!(u16).range(HEADERS as i64..=1420))]
    size: u16,
    /// Packets of each device.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    packets: u32,
    /// Packets a second, all devices together; 0 for as fast as the socket takes them.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=10_000_000))]
    rate: u64,
    /// At most so long.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

/// What was sent. What arrived is for the target to say.
#[derive(Debug, Serialize)]
struct Sent {
    packets: u64,
    packets_per_s: f64,
    bytes: u64,
    /// Bytes of each packet behind its UDP header.
    payload: usize,
    seconds: f64,
}

/// One device's packets, side by side.
struct Load {
    wire: Wire,
    sealed: Vec<u8>,
    /// Length of each.
    len: usize,
    next: usize,
}

impl Load {
    fn is_over(&self) -> bool {
        self.next >= self.sealed.len()
    }
}

impl Replay {
    pub(crate) fn run(&self, output: Output) -> Result<(), Failure> {
        let mut loads = self.prepare()?;
        let mut pace = Pace::new(self.rate);
        let (mut packets, mut bytes) = (0, 0);
        let time = Duration::from_secs(self.seconds);
        // In turn, each a whole run, so that every device gets the same.
        while pace.elapsed() < time && loads.iter().any(|load| !load.is_over()) {
            for load in loads.iter_mut().filter(|load| !load.is_over()) {
                let run = load.wire.run_of(load.len);
                let end = (load.next + load.len * run).min(load.sealed.len());
                let part = load.sealed.get(load.next..end).unwrap_or_default();
                let count = (part.len() / load.len) as u64;
                pace.wait_for(count);
                load.wire.send(self.to, None, part, load.len)?;
                packets += count;
                bytes += part.len() as u64;
                load.next = end;
            }
        }
        let time = pace.elapsed();
        let sent = Sent {
            packets,
            packets_per_s: per_second(packets, time),
            bytes,
            payload: usize::from(self.size) - HEADERS,
            seconds: time.as_secs_f64(),
        };
        report::print(&sent, output)
    }

    fn prepare(&self) -> Result<Vec<Load>, Failure> {
        let SocketAddr::V4(target) = self.target else {
            return Err(Failure::Other("--target must be IPv4".into()));
        };
        let mut loads = Vec::new();
        for (number, inner) in (0..).zip(&self.inner) {
            let mut device = Device::new(self.seed, number, &self.gateway_key)?;
            let mut wire = Wire::open(self.to)?;
            device.connect(&mut wire, self.to, None)?;
            let packet = datagram(*inner, target, self.size);
            let len = device.sealed_len(packet.len());
            let all = len as u64 * u64::from(self.packets);
            if all * self.inner.len() as u64 > MAX_BYTES {
                return Err(Failure::Other(format!(
                    "{} packets of {} devices are {} MiB when sealed; {} MiB is the most",
                    self.packets,
                    self.inner.len(),
                    (all * self.inner.len() as u64) >> 20,
                    MAX_BYTES >> 20
                )));
            }
            let mut sealed = vec![0; len * self.packets as usize];
            for slot in sealed.chunks_exact_mut(len) {
                device.seal(&packet, slot)?;
            }
            loads.push(Load {
                wire,
                sealed,
                len,
                next: 0,
            });
        }
        Ok(loads)
    }
}

/// An IPv4 packet with a UDP datagram of zeros, checksums right.
fn datagram(from: Ipv4Addr, to: SocketAddrV4, size: u16) -> Vec<u8> {
    let mut packet = vec![0; usize::from(size)];
    let udp_len = size - 20;
    packet[..12].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    packet[2..4].copy_from_slice(&size.to_be_bytes());
    packet[12..16].copy_from_slice(&from.octets());
    packet[16..20].copy_from_slice(&to.ip().octets());
    let sum = checksum(&packet[..20], 0);
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet[20..22].copy_from_slice(&4242u16.to_be_bytes());
    packet[22..24].copy_from_slice(&to.port().to_be_bytes());
    packet[24..26].copy_from_slice(&udp_len.to_be_bytes());
    // The pseudo-header: addresses, protocol, length (RFC 768).
    let pseudo = u32::from(udp_len) + 17 + words(&packet[12..20]);
    let sum = match checksum(&packet[20..], pseudo) {
        0 => 0xffff,
        sum => sum,
    };
    packet[26..28].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn words(bytes: &[u8]) -> u32 {
    bytes
        .chunks(2)
        .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)))
        .sum()
}

fn checksum(bytes: &[u8], more: u32) -> u16 {
    let mut sum = words(bytes) + more;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_proto::packet::PacketView;

    #[test]
    fn the_packet_is_one_that_a_gateway_takes() {
        for size in [28, 64, 65, 1400] {
            let from = Ipv4Addr::new(100, 96, 0, 2);
            let to = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 10), 5353);
            let packet = datagram(from, to, size);
            assert!(PacketView::parse(&packet).is_ok(), "{size}");
            assert_eq!(checksum(&packet[..20], 0), 0, "the header sums up");
            let pseudo = u32::from(size) - 20 + 17 + words(&packet[12..20]);
            assert_eq!(checksum(&packet[20..], pseudo), 0, "the datagram sums up");
        }
    }
}
