//! The addresses of the tunnel: one host number gives a device both its addresses.

use ipnet::{Ipv4Net, Ipv6Net};
use std::net::{Ipv4Addr, Ipv6Addr};

/// Both pools. Host number 1 is the gateway; devices start at 2; the last one of the IPv4 pool is
/// its broadcast address and stays unused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pool {
    /// IPv4, prefix 8 to 29, no host bits.
    pub v4: Ipv4Net,
    /// IPv6, prefix 16 to 96, no host bits.
    pub v6: Ipv6Net,
}

/// The gateway's own host number.
pub const GATEWAY_HOST: u32 = 1;

/// The first host number that a device may have.
pub const FIRST_DEVICE: u32 = 2;

impl Pool {
    /// The gateway's addresses.
    #[must_use]
    pub fn gateway(&self) -> (Ipv4Addr, Ipv6Addr) {
        self.addresses(GATEWAY_HOST)
    }

    /// A device's addresses, if the pool reaches so far.
    #[must_use]
    pub fn device(&self, host: u32) -> Option<(Ipv4Addr, Ipv6Addr)> {
        (FIRST_DEVICE..=self.last_device())
            .contains(&host)
            .then(|| self.addresses(host))
    }

    /// The last host number that a device may have.
    #[must_use]
    pub fn last_device(&self) -> u32 {
        u32::from(self.v4.broadcast()) - u32::from(self.v4.network()) - 1
    }

    fn addresses(&self, host: u32) -> (Ipv4Addr, Ipv6Addr) {
        (
            Ipv4Addr::from(u32::from(self.v4.network()).wrapping_add(host)),
            Ipv6Addr::from(u128::from(self.v6.network()).wrapping_add(u128::from(host))),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_gives_both_addresses_and_reserves_the_ends() {
        let pool = Pool {
            v4: "100.96.0.0/29".parse().expect("net"),
            v6: "fd00:1::/64".parse().expect("net"),
        };
        let text = |host| {
            pool.device(host)
                .map(|(v4, v6)| (v4.to_string(), v6.to_string()))
        };
        assert_eq!(text(0), None);
        assert_eq!(text(1), None, "the gateway's own");
        assert_eq!(text(2), Some(("100.96.0.2".into(), "fd00:1::2".into())));
        assert_eq!(text(6), Some(("100.96.0.6".into(), "fd00:1::6".into())));
        assert_eq!(text(7), None, "the broadcast address");
    }
}
