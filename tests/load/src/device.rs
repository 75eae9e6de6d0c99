//! A device that exists only here: its keys from a seed, its tunnel real.

use crate::report::Failure;
use crate::wire::Wire;
use postern_proto::keys::{PrivateKey, PublicKey};
use postern_proto::mtu::PACKET_ROOM;
use postern_proto::now::{Mono, Now, Wall};
use postern_proto::tunnel::{CONTROL_ROOM, Opened, PeerId, Settings, Tunnel, Unlimited};
use rustix::time::{ClockId, clock_gettime};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// The most devices of one run.
pub(crate) const MAX_DEVICES: u32 = 20_000;

/// A tunnel asks again after 5 s and a third; the time of a device here moves on by more than
/// that with every handshake, so that it may ask as often as we like.
const STEP: Duration = Duration::from_secs(6);

/// The private key of device `number`. Anybody who knows the seed knows it.
pub(crate) fn key(seed: u64, number: u32) -> PrivateKey {
    let mut state = seed ^ u64::from(number).wrapping_mul(0xd134_2543_de82_ef95);
    let mut bytes = [0; 32];
    for chunk in bytes.chunks_exact_mut(8) {
        chunk.copy_from_slice(&splitmix(&mut state).to_le_bytes());
    }
    PrivateKey::from_random(bytes)
}

/// Splitmix64 (Steele, Lea, Flood 2014).
pub(crate) fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

pub(crate) struct Device {
    tunnel: Tunnel,
    now: Now,
}

impl Device {
    /// Device `number` of the seed, and how it knows its gateway.
    pub(crate) fn new(seed: u64, number: u32, gateway: &PublicKey) -> Result<Device, Failure> {
        let ours = key(seed, number);
        let id = PeerId::new(number)
            .ok_or_else(|| Failure::Other(format!("device number {number} is too large")))?;
        let limiter = Unlimited::new(&ours.public());
        let tunnel = Tunnel::new(&ours, gateway, &Settings::default(), id, seed, &limiter);
        Ok(Device { tunnel, now: now() })
    }

    /// Writes an initiation.
    pub(crate) fn ask(&mut self, out: &mut [u8]) -> Option<usize> {
        self.now = self.now.after(STEP);
        self.tunnel.initiate(out, self.now)
    }

    /// Takes a message of the gateway.
    pub(crate) fn open(&mut self, datagram: &[u8], out: &mut [u8]) -> Opened {
        self.tunnel.open(datagram, out, self.now)
    }

    /// Encrypts a packet.
    pub(crate) fn seal(&mut self, packet: &[u8], out: &mut [u8]) -> Result<usize, Failure> {
        self.tunnel
            .seal(packet, out, self.now)
            .map_err(|reason| Failure::Other(format!("a packet cannot be sealed: {reason:?}")))
    }

    /// Length of a packet of `len` bytes when sealed.
    pub(crate) fn sealed_len(&self, len: usize) -> usize {
        self.tunnel.sealed_len(len)
    }

    /// Shakes hands and waits for it.
    pub(crate) fn connect(
        &mut self,
        wire: &mut Wire,
        to: SocketAddr,
        source: Option<IpAddr>,
    ) -> Result<(), Failure> {
        let (mut ask, mut answer) = ([0; CONTROL_ROOM], [0; PACKET_ROOM]);
        for _ in 0..5 {
            let len = self.ask(&mut ask).unwrap_or(0);
            wire.send(to, source, &ask[..len], CONTROL_ROOM)?;
            let until = Instant::now() + Duration::from_secs(1);
            while let Some(left) = until.checked_duration_since(Instant::now()) {
                let (mut reply, mut done) = (0, false);
                let this = &mut *self;
                wire.receive(left, |datagram| match this.open(datagram, &mut answer) {
                    Opened::Established { len } => (reply, done) = (len, true),
                    Opened::Cookie { len } => reply = len,
                    Opened::Answered { .. }
                    | Opened::Packet { .. }
                    | Opened::Keepalive { .. }
                    | Opened::Dropped(_) => {}
                })?;
                if reply > 0 {
                    wire.send(to, source, &answer[..reply], PACKET_ROOM)?;
                }
                if done {
                    return Ok(());
                }
            }
        }
        Err(Failure::Other(format!(
            "{to} did not answer a handshake for 5 s: is the device enrolled, and the key the gateway's?"
        )))
    }
}

fn now() -> Now {
    Now {
        mono: Mono(nanos(ClockId::Boottime)),
        wall: Wall(nanos(ClockId::Realtime)),
    }
}

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock);
    let (seconds, rest) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_nsec));
    seconds.unwrap_or(0) * 1_000_000_000 + rest.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn the_same_seed_gives_the_same_devices_and_others_are_others() {
        let keys: BTreeSet<_> = (0..4)
            .flat_map(|seed| (0..100).map(move |number| key(seed, number).public()))
            .collect();
        assert_eq!(keys.len(), 400);
        assert_eq!(key(3, 7).public(), key(3, 7).public());
    }

    #[test]
    fn a_device_may_ask_as_often_as_it_likes() {
        let gateway = key(9, 9).public();
        let mut device = Device::new(1, 1, &gateway).expect("a device");
        let mut out = [0; CONTROL_ROOM];
        for _ in 0..100 {
            assert_eq!(device.ask(&mut out), Some(CONTROL_ROOM));
        }
    }
}
