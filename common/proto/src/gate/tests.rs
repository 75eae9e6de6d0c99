#![allow(clippy::unwrap_used)]

use super::*;
use crate::now::Now;
use crate::tunnel::tests::{START, private, seconds};
use crate::tunnel::{CONTROL_ROOM, Opened, PeerId, Settings, Tunnel, Unlimited};

const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
const FLOODER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(198, 51, 100, 66));

fn gate() -> Gate {
    Gate::new(&private(2), 0x5eed)
}

fn laptop() -> Tunnel {
    let ours = private(1);
    let limiter = Unlimited::new(&ours.public());
    let id = PeerId::new(1).unwrap();
    Tunnel::new(
        &ours,
        &private(2).public(),
        &Settings::default(),
        id,
        1,
        &limiter,
    )
}

fn initiation(from: &mut Tunnel, now: Now) -> Vec<u8> {
    let mut out = [0; CONTROL_ROOM];
    assert_eq!(from.initiate(&mut out, now), Some(148));
    out.to_vec()
}

/// Initiations that cost their sender nothing and are right up to the first MAC.
fn flood(gate: &mut Gate, source: IpAddr, count: usize, now: Now) -> [usize; 3] {
    let datagram = initiation(&mut laptop(), now);
    let mut seen = [0; 3];
    for _ in 0..count {
        match gate.admit(&datagram, source, now.mono) {
            Admission::Claimed(_) => seen[0] += 1,
            Admission::Cookie(_) => seen[1] += 1,
            Admission::Refused(_) => seen[2] += 1,
        }
    }
    seen
}

/// True if the laptop gets through, with a cookie if it is asked for one.
fn gets_through(gate: &mut Gate, source: IpAddr, now: Now) -> Option<&'static str> {
    let mut laptop = laptop();
    let first = initiation(&mut laptop, now);
    match gate.admit(&first, source, now.mono) {
        Admission::Claimed(key) => (key == private(1).public()).then_some("at once"),
        Admission::Refused(_) => None,
        Admission::Cookie(cookie) => {
            let mut out = [0; CONTROL_ROOM];
            assert_eq!(
                laptop.open(&cookie, &mut out, now),
                Opened::Cookie { len: 148 }
            );
            match gate.admit(&out, source, now.mono) {
                Admission::Claimed(key) => (key == private(1).public()).then_some("by cookie"),
                Admission::Cookie(_) | Admission::Refused(_) => None,
            }
        }
    }
}

#[test]
fn an_initiation_tells_whose_it_is() {
    let datagram = initiation(&mut laptop(), START);
    assert_eq!(
        gate().admit(&datagram, HOME, START.mono),
        Admission::Claimed(private(1).public())
    );
}

#[test]
fn no_flipped_bit_is_answered_even_by_a_cookie() {
    let mut gate = gate();
    let datagram = initiation(&mut laptop(), START);
    for byte in 0..132 {
        let mut bad = datagram.clone();
        bad[byte] ^= 0x10;
        let expected = if byte < 4 {
            DropReason::NotWireguard
        } else {
            DropReason::BadMac
        };
        let admission = gate.admit(&bad, HOME, START.mono);
        assert_eq!(admission, Admission::Refused(expected), "byte {byte}");
    }
    for len in 0..148 {
        let admission = gate.admit(&datagram[..len], HOME, START.mono);
        assert_eq!(admission, Admission::Refused(DropReason::NotWireguard));
    }
}

#[test]
fn one_flooder_spends_its_own_budget_and_nobody_elses() {
    let mut gate = gate();
    let [answered, cookies, refused] = flood(&mut gate, FLOODER, 10_000, START);
    assert_eq!((answered, cookies, refused), (40, 9_960, 0));
    assert_eq!(gets_through(&mut gate, HOME, START), Some("at once"));
    // In the long run it gets its 20 a second.
    let mut answered = 0;
    for second in 1..=10 {
        answered += flood(&mut gate, FLOODER, 10_000, START.after(seconds(second)))[0];
    }
    assert_eq!(answered, 200);
}

#[test]
fn a_flood_under_our_address_does_not_lock_us_out() {
    let mut gate = gate();
    flood(&mut gate, HOME, 10_000, START);
    assert_eq!(gets_through(&mut gate, HOME, START), Some("by cookie"));
}

#[test]
fn a_flood_from_everywhere_puts_all_on_cookies_for_a_second() {
    let mut gate = gate();
    let mut answered = 0;
    for host in 0..10_000u32 {
        let source = IpAddr::V4((0x0a00_0000 + host).into());
        answered += flood(&mut gate, source, 1, START)[0];
    }
    assert_eq!(answered, UNPROVEN_PER_SECOND as usize);
    assert_eq!(gets_through(&mut gate, HOME, START), Some("by cookie"));
    assert_eq!(
        gets_through(&mut gate, HOME, START.after(seconds(1))),
        Some("at once")
    );
}

#[test]
fn a_proven_source_has_a_budget_too() {
    let mut gate = gate();
    flood(&mut gate, FLOODER, 40, START);
    let mut laptop = laptop();
    let first = initiation(&mut laptop, START);
    let Admission::Cookie(cookie) = gate.admit(&first, FLOODER, START.mono) else {
        panic!("a cookie is due")
    };
    let mut proven = [0; CONTROL_ROOM];
    laptop.open(&cookie, &mut proven, START);
    for _ in 0..200 {
        assert!(matches!(
            gate.admit(&proven, FLOODER, START.mono),
            Admission::Claimed(_)
        ));
    }
    assert_eq!(
        gate.admit(&proven, FLOODER, START.mono),
        Admission::Refused(DropReason::RateLimited)
    );
    // The cookie is good for that address only.
    flood(&mut gate, HOME, 40, START);
    assert!(matches!(
        gate.admit(&proven, HOME, START.mono),
        Admission::Cookie(_)
    ));
}

#[test]
fn an_ipv6_source_is_its_64_and_a_mapped_one_its_ipv4() {
    let gate = gate();
    let bucket = |text: &str| gate.bucket(text.parse().unwrap());
    assert_eq!(
        bucket("2001:db8:1:2::1"),
        bucket("2001:db8:1:2:ffff:ffff:ffff:ffff")
    );
    assert_ne!(bucket("2001:db8:1:2::1"), bucket("2001:db8:1:3::1"));
    assert_eq!(bucket("::ffff:192.0.2.7"), bucket("192.0.2.7"));
    assert_ne!(bucket("192.0.2.7"), bucket("192.0.2.8"));
}
