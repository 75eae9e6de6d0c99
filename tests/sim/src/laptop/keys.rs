//! The keys of a laptop. Each that it is given has a number; the first is 0.

use super::{Laptop, MTU, Sealed, Side};
use crate::net::Outs;
use postern_client::state::KeyChange;
use postern_proto::keys::{PresharedKey, PrivateKey};
use postern_proto::now::Now;
use postern_proto::peers::Peers;
use postern_proto::tunnel::Settings;

/// A key that the gateway accepts besides the one in force.
#[derive(Clone, Debug)]
pub struct Next {
    /// Its number.
    pub number: u64,
    /// The key.
    pub key: PrivateKey,
    /// Its pre-shared key.
    pub preshared: Option<PresharedKey>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Keys {
    /// The last that was given.
    pub given: u64,
    /// The one that the gateway has in force.
    pub in_force: u64,
    /// The one before, until another is tried: a client still opens what was under way.
    pub former: Option<u64>,
    /// The pre-shared key of the one in force.
    pub preshared: Option<PresharedKey>,
    /// The one that the gateway would put in force.
    pub next: Option<Next>,
    /// The one that the laptop uses.
    used: u64,
    /// The one that it tries.
    tried: Option<u64>,
    /// By the bit that tells two keys apart in the laptop's indices: the last with that bit.
    by_bit: [u64; 2],
}

impl Keys {
    /// Both ends use the same key, and the laptop tries no other.
    #[must_use]
    pub fn are_settled(&self) -> bool {
        self.used == self.in_force && self.tried.is_none()
    }

    /// The laptop uses the key in force, or has only just left it and still opens what it sealed.
    #[must_use]
    pub fn agree(&self) -> bool {
        self.used == self.in_force
    }

    /// The key for which the laptop made this index of its own.
    #[must_use]
    pub fn of_index(&self, index: u32) -> u64 {
        self.by_bit[usize::from(index >> 8 & 1 == 1)]
    }

    /// The gateway has put the next key in force.
    pub fn advance(&mut self, next: Next) {
        self.former = Some(self.in_force);
        self.in_force = next.number;
        self.preshared = next.preshared;
    }

    fn bit(&self) -> u8 {
        u8::from(self.by_bit[0] != self.used)
    }

    fn took(&mut self, number: u64) {
        self.used = number;
        self.tried = None;
    }
}

impl Laptop {
    /// Takes up a key that the gateway accepts: a client beside the one in use, a stock WireGuard
    /// in its place.
    pub fn try_key(
        &mut self,
        next: &Next,
        gateway: super::Gateway<'_>,
        seed: u64,
        now: Now,
    ) -> Result<Vec<Sealed>, String> {
        let mut outs = Outs::default();
        let bit = 1 - self.keys.bit();
        self.keys.by_bit[usize::from(bit)] = next.number;
        self.keys.former = None;
        self.keys.tried = Some(next.number);
        let (own, preshared) = (next.key.clone(), next.preshared.clone());
        match &mut self.side {
            Side::Postern(client) => client
                .try_key(own, preshared, seed, &mut outs, now)
                .map_err(|error| error.to_string())?,
            Side::Stock(peers, id) => {
                let settings = Settings {
                    psk: preshared,
                    keepalive: self.keepalive,
                    mtu: usize::from(MTU),
                };
                **peers = Peers::new(own, bit, 1, seed);
                *id = peers
                    .add(*gateway.0, &settings, Some(gateway.1.into()))
                    .map_err(|error| error.to_string())?;
                peers.initiate(*id, &mut outs, now);
                self.keys.took(next.number);
            }
        }
        self.attach(outs, None)
    }

    /// Notes whether the client has changed its key.
    pub(super) fn note_key(&mut self) {
        let Side::Postern(client) = &mut self.side else {
            return;
        };
        match (client.take_key_change(), self.keys.tried) {
            (Some(KeyChange::InUse), Some(number)) => self.keys.took(number),
            (Some(KeyChange::GivenUp), _) => self.keys.tried = None,
            (Some(KeyChange::InUse) | None, _) => {}
        }
    }
}
