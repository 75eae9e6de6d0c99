//! Who may make us do a handshake, and how often. An initiation costs three curve operations
//! (about 0.2 ms), and anybody who knows our public key can send one.
//!
//! 1. Its first MAC must be right: else silence.
//! 2. Each source has a small budget that needs no proof of address. When that is spent, or when
//!    all sources together ask for too much, the answer is a cookie (64 bytes for 148).
//! 3. An initiation with our cookie has proved its address and draws on that address's second
//!    budget; when that is spent too: silence.
//!
//! So a flood under somebody else's address spends nothing that its owner needs, and one flooder
//! puts nobody but itself on cookies. Responses and cookie replies name an index of ours and do
//! not pass here.
//!
//! boringtun's limiter counts by a clock of its own, so it is used twice without counting: one
//! that is never under load and one that always is. Cookie secrets still turn by the real clock;
//! a cookie that is too old earns a new one.

use crate::fate::DropReason;
use crate::keys::{PrivateKey, PublicKey};
use crate::now::Mono;
use crate::tunnel::handshake_fate;
use boringtun::noise::handshake::parse_handshake_anon;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Packet, TunnResult};
use boringtun::x25519;
use foldhash::quality::FixedState;
use std::fmt;
use std::hash::BuildHasher as _;
use std::net::IpAddr;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// Length of a cookie reply.
pub const COOKIE_ROOM: usize = 64;

/// Handshakes per second, all sources together, above which everybody needs a cookie: a tenth of
/// a core.
pub const UNPROVEN_PER_SECOND: u32 = 500;
/// What a source may ask without a cookie.
const UNPROVEN: Budget = Budget {
    per_second: 20,
    burst: 40,
};
/// What a source may ask with one: an office of 200 laptops behind one address comes back at once
/// after a restart of the gateway.
const PROVEN: Budget = Budget {
    per_second: 50,
    burst: 200,
};
/// Buckets of each of the two tables: 8 bytes each, 64 KiB together. Never more.
const BUCKETS: usize = 4096;

/// The answer to an initiation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It claims, under encryption, to come from this key. The tunnel verifies the claim.
    Claimed(PublicKey),
    /// Send these bytes back: prove your address first.
    Cookie([u8; COOKIE_ROOM]),
    /// Silence.
    Refused(DropReason),
}

/// The gate of one private key.
pub struct Gate {
    secret: x25519::StaticSecret,
    public: x25519::PublicKey,
    calm: RateLimiter,
    strict: RateLimiter,
    unproven: Table,
    proven: Table,
    hasher: FixedState,
    second: Mono,
    this_second: u32,
}

impl Gate {
    /// `seed` decides which sources share a bucket; it should be random, so that nobody can
    /// choose to share one with a victim.
    #[must_use]
    pub fn new(ours: &PrivateKey, seed: u64) -> Self {
        let secret = x25519::StaticSecret::from(*ours.expose());
        let public = x25519::PublicKey::from(&secret);
        Gate {
            calm: RateLimiter::new(&public, u64::MAX),
            strict: RateLimiter::new(&public, 0),
            secret,
            public,
            unproven: Table::new(),
            proven: Table::new(),
            hasher: FixedState::with_seed(seed),
            second: Mono::default(),
            this_second: 0,
        }
    }

    /// Judges an initiation.
    pub fn admit(&mut self, datagram: &[u8], source: IpAddr, now: Mono) -> Admission {
        let mut reply = [0; COOKIE_ROOM];
        let packet = match self.calm.verify_packet(Some(source), datagram, &mut reply) {
            Ok(packet) => packet,
            Err(result) => return Admission::Refused(refusal(&result)),
        };
        let Packet::HandshakeInit(initiation) = packet else {
            return Admission::Refused(DropReason::NotWireguard);
        };
        let bucket = self.bucket(source);
        if self.is_busy(now) || !self.unproven.take(bucket, UNPROVEN, now) {
            match self
                .strict
                .verify_packet(Some(source), datagram, &mut reply)
            {
                Ok(_) if self.proven.take(bucket, PROVEN, now) => {}
                Ok(_) => return Admission::Refused(DropReason::RateLimited),
                Err(TunnResult::WriteToNetwork(_)) => return Admission::Cookie(reply),
                Err(result) => return Admission::Refused(refusal(&result)),
            }
        }
        self.this_second = self.this_second.saturating_add(1);
        match parse_handshake_anon(&self.secret, &self.public, &initiation) {
            Ok(claim) => Admission::Claimed(PublicKey(claim.peer_static_public)),
            Err(error) => Admission::Refused(handshake_fate(&error)),
        }
    }

    fn is_busy(&mut self, now: Mono) -> bool {
        if now - self.second >= Duration::from_secs(1) {
            self.second = now;
            self.this_second = 0;
        }
        self.this_second >= UNPROVEN_PER_SECOND
    }

    /// An IPv4 address, or an IPv6 /64, because whoever has one address there has them all.
    fn bucket(&self, source: IpAddr) -> usize {
        let key = match source.to_canonical() {
            IpAddr::V4(v4) => (4u8, u64::from(v4.to_bits())),
            IpAddr::V6(v6) => {
                let [a, b, c, d, ..] = v6.segments();
                let net = [a, b, c, d]
                    .into_iter()
                    .fold(0, |net, part| net << 16 | u64::from(part));
                (6u8, net)
            }
        };
        (self.hasher.hash_one(key) % BUCKETS as u64) as usize
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gate")
            .field("this_second", &self.this_second)
            .finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
struct Budget {
    per_second: u32,
    burst: u32,
}

/// Token buckets, each kept as the moment at which it is full again.
struct Table(Box<[Mono]>);

impl Table {
    fn new() -> Self {
        Table(vec![Mono::default(); BUCKETS].into_boxed_slice())
    }

    fn take(&mut self, bucket: usize, budget: Budget, now: Mono) -> bool {
        let token = Duration::from_secs(1) / budget.per_second;
        let full_at = self.0[bucket].max(now);
        if full_at - now > token * (budget.burst - 1) {
            return false;
        }
        self.0[bucket] = full_at + token;
        true
    }
}

fn refusal(result: &TunnResult<'_>) -> DropReason {
    match result {
        TunnResult::Err(error) => handshake_fate(error),
        TunnResult::Done
        | TunnResult::WriteToNetwork(_)
        | TunnResult::WriteToTunnelV4(..)
        | TunnResult::WriteToTunnelV6(..) => DropReason::RateLimited,
    }
}
