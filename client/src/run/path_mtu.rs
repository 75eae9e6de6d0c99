//! What was found of the path becomes the MTU of the interface, so that the kernel does the rest:
//! it fragments, tells programs, and chooses the MSS.

use super::Worker;
use postern_proto::now::Now;

/// What the kernel knows and what it said.
#[derive(Debug)]
pub(super) struct Fit {
    /// The interface has this MTU, bytes.
    mtu: u16,
    /// Datagrams that the kernel refused as too long so far.
    too_long: u64,
}

impl Fit {
    pub(super) fn new(mtu: u16) -> Fit {
        Fit { mtu, too_long: 0 }
    }
}

impl Worker {
    /// After every flush.
    pub(super) fn fit_the_path(&mut self, now: Now) {
        let too_long = self.outputs.udp.stats().too_long;
        if too_long > self.fit.too_long {
            self.fit.too_long = too_long;
            self.client.refused_as_too_long(now);
        }
        let mtu = self.client.mtu();
        if mtu == self.fit.mtu {
            return;
        }
        let (before, interface) = (self.fit.mtu, self.identity.interface.as_str());
        self.fit.mtu = mtu;
        match self.outputs.set_mtu(mtu) {
            Ok(()) => {
                tracing::info!(interface, before, mtu, "found what the path carries");
            }
            Err(error) => {
                tracing::warn!(interface, mtu, %error, "cannot change the MTU of the interface; large packets may be lost: set it by hand with `ip link set {interface} mtu {mtu}`");
            }
        }
    }
}
