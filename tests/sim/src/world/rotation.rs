//! Another key for a laptop: the gateway accepts it, the laptop takes it up, and with the first
//! packet of it the one before is dead. The oracle of flows knows nothing of that: none may change.

use super::{Check, World, gateway_address};
use crate::laptop::Next;
use crate::net::{Datagram, addressed};
use crate::packet::What;
use postern_proto::keys::{PresharedKey, PrivateKey};
use std::time::Duration;

/// So long a client opens what was sealed for the key before: less than it says, for what is
/// under way.
const LINGER: Duration = Duration::from_secs(4);

impl World {
    /// The device of a laptop gets another key.
    pub(crate) fn rotate(&mut self, n: usize, lost: bool, preshared: bool) -> Check {
        let enrolled = self.model.devices.contains_key(&n);
        // It asks for one at a time, and through the tunnel.
        if enrolled && !self.laptops[n].keys.are_settled() {
            return Ok(());
        }
        let hears = !lost && self.is_in_touch(n);
        let next = Next {
            number: self.laptops[n].keys.given + 1,
            key: PrivateKey::from_random(self.dice.key()),
            preshared: preshared.then(|| PresharedKey(self.dice.key())),
        };
        let accepted = self.accept(n, &next);
        let may = enrolled && !self.model.is_guest(n);
        if accepted.is_ok() != may {
            return Err(format!("another key for laptop {n}: {accepted:?}"));
        }
        if !may {
            return Ok(());
        }
        let seed = self.dice.bits();
        let laptop = &mut self.laptops[n];
        laptop.keys.given = next.number;
        laptop.keys.next = Some(next.clone());
        if !hears {
            return Ok(());
        }
        if laptop.is_stock() {
            // It forgets the key before at once.
            self.watch.disturb();
        }
        let gateway = (self.gateway.peers().our_key(), gateway_address());
        let sent = laptop.try_key(&next, gateway, seed, self.now)?;
        self.ship(n, sent);
        Ok(())
    }

    /// The gateway has been started again, and its store knows of a next key.
    pub(super) fn add_next_key(&mut self, n: usize) -> Check {
        match self.laptops[n].keys.next.clone() {
            Some(next) => self.accept(n, &next),
            None => Ok(()),
        }
    }

    fn accept(&mut self, n: usize, next: &Next) -> Check {
        let (public, preshared) = (next.key.public(), next.preshared.as_ref());
        let current = self.laptops[n].public;
        self.gateway.rotate_device(&current, public, preshared)
    }

    /// Keys that the gateway accepts besides those in force.
    pub(crate) fn next_keys(&self) -> usize {
        let next = |n: &&usize| self.laptops[**n].keys.next.is_some();
        self.model.devices.keys().filter(next).count()
    }

    /// The gateway has taken a datagram or not. The first of a next key puts that key in force;
    /// nothing else does.
    pub(crate) fn rotated(&mut self, datagram: &Datagram, taken: bool) -> Check {
        let rotated = self.gateway.take_rotated();
        let epoch = datagram.epoch.map(|(epoch, _)| epoch);
        let proves = taken && !datagram.tampered && addressed(&datagram.bytes).is_some();
        let due = datagram.laptop.filter(|n| {
            let next = epoch.is_some() && epoch == self.next_epoch(*n);
            proves && next && !proves_nothing(datagram)
        });
        let next = due.and_then(|n| Some((n, self.laptops[n].keys.next.take()?)));
        let expected = next
            .as_ref()
            .map(|(n, next)| (self.laptops[*n].public, next.key.public()));
        if rotated != Vec::from_iter(expected) {
            return Err(format!("keys {rotated:?} changed, expected {expected:?}"));
        }
        if let Some((n, next)) = next {
            let laptop = &mut self.laptops[n];
            laptop.key = next.key.clone();
            laptop.public = next.key.public();
            laptop.keys.advance(next);
        }
        Ok(())
    }

    /// The run of the gateway, the enrolment of a laptop and its key in force, as one number.
    pub(crate) fn epoch(&self, n: usize) -> u64 {
        self.epoch_of(n, self.laptops[n].keys.in_force)
    }

    /// The same for the key that a datagram of the gateway is for.
    pub(super) fn epoch_for(&self, n: usize, datagram: &[u8]) -> u64 {
        match addressed(datagram) {
            Some(index) => self.epoch_of(n, self.laptops[n].keys.of_index(index)),
            None => self.epoch(n),
        }
    }

    /// Sealed for the key in force, or for the next one by what does not prove it.
    pub(super) fn is_sealed_right(&self, n: usize, datagram: &Datagram) -> bool {
        let epoch = datagram.epoch.map(|(epoch, _)| epoch);
        let next = epoch == self.next_epoch(n) && proves_nothing(datagram);
        epoch.is_some() && (epoch == Some(self.epoch(n)) || next)
    }

    fn next_epoch(&self, n: usize) -> Option<u64> {
        let next = self.laptops[n].keys.next.as_ref()?;
        Some(self.epoch_of(n, next.number))
    }

    fn epoch_of(&self, n: usize, key: u64) -> u64 {
        self.boot << 32 | self.laptops[n].enrolled << 16 | key
    }

    /// Whoever gets this datagram has the key for it.
    pub(super) fn is_good(&self, n: usize, datagram: &Datagram, epoch: u64) -> bool {
        let laptop = &self.laptops[n];
        if datagram.from != gateway_address() {
            return epoch == self.epoch(n) || Some(epoch) == self.next_epoch(n);
        }
        let fresh = self.now.mono.since(datagram.sealed) < LINGER;
        let former = laptop.keys.former.map(|key| self.epoch_of(n, key));
        match laptop.is_stock() {
            true => laptop.keys.agree() && epoch == self.epoch(n),
            false if laptop.keys.agree() => {
                epoch == self.epoch(n) || fresh && Some(epoch) == former
            }
            false => fresh && epoch == self.epoch(n),
        }
    }
}

/// The tunnel throws it out after it was opened: no IP packet, or a mark that the packet cannot
/// take.
fn proves_nothing(datagram: &Datagram) -> bool {
    let inner = datagram.inner.clone();
    inner.is_some_and(|inner| {
        let broken = matches!(inner.what, What::Broken(_));
        broken && !is_ip(&inner.bytes) || inner.out_of(datagram.ecn.bits()).is_none()
    })
}

/// As much of it is there as its header says.
fn is_ip(bytes: &[u8]) -> bool {
    let word = |at: usize| {
        Some(usize::from(u16::from_be_bytes([
            *bytes.get(at)?,
            *bytes.get(at + 1)?,
        ])))
    };
    let len = match bytes.first().map(|first| first >> 4) {
        Some(4) if bytes.len() >= 20 => word(2),
        Some(6) if bytes.len() >= 40 => word(4).map(|len| len + 40),
        _ => None,
    };
    len.is_some_and(|len| len <= bytes.len())
}
