//! What a peer and a wire could see, in simulated time. The traps of boringtun 0.7.1 each have a
//! test here, in `gate` or in `peers`.

#![allow(clippy::unwrap_used)]

mod handshakes;
mod world;

use super::*;
use crate::now::Wall;

pub(crate) const START: Now = Now {
    mono: Mono(1_000_000_000_000),
    wall: Wall(0),
};

pub(crate) fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn private(number: u8) -> PrivateKey {
    PrivateKey::from_random([number; 32])
}

/// An IPv4 header with `len` in it, and zeros.
pub(crate) fn ip(len: usize) -> Vec<u8> {
    let mut packet = vec![0; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
    packet
}

fn tunnel(ours: u8, peer: u8, settings: &Settings) -> Tunnel {
    let (ours, peer) = (private(ours), private(peer).public());
    let id = PeerId::new(u32::from(peer.0[0])).unwrap();
    let seed = u64::from(peer.0[1]);
    Tunnel::new(
        &ours,
        &peer,
        settings,
        id,
        seed,
        &Unlimited::new(&ours.public()),
    )
}

fn seal(from: &mut Tunnel, packet: &[u8], now: Now) -> Result<Vec<u8>, DropReason> {
    let mut out = vec![0; mtu::DATAGRAM_ROOM];
    from.seal(packet, &mut out, now)
        .map(|len| out[..len].to_vec())
}

fn open(to: &mut Tunnel, datagram: &[u8], now: Now) -> (Opened, Vec<u8>) {
    let mut out = vec![0; mtu::PACKET_ROOM];
    let opened = to.open(datagram, &mut out, now);
    let len = match opened {
        Opened::Packet { len, .. }
        | Opened::Answered { len }
        | Opened::Established { len }
        | Opened::Cookie { len } => len,
        Opened::Keepalive { .. } | Opened::Dropped(_) => 0,
    };
    out.truncate(len);
    (opened, out)
}

fn initiate(from: &mut Tunnel, now: Now) -> Vec<u8> {
    let mut out = vec![0; CONTROL_ROOM];
    let len = from.initiate(&mut out, now).expect("an initiation");
    out.truncate(len);
    out
}

fn tick(tunnel: &mut Tunnel, now: Now) -> Option<Vec<u8>> {
    let mut out = vec![0; CONTROL_ROOM];
    match tunnel.tick(&mut out, now) {
        Tick::Send(len) => Some(out[..len].to_vec()),
        Tick::Nothing | Tick::GaveUp => None,
    }
}

/// Laptop and gateway with a fresh key, confirmed by both.
fn connected(settings: &Settings, now: Now) -> (Tunnel, Tunnel) {
    let (mut laptop, mut gateway) = (tunnel(1, 2, settings), tunnel(2, 1, settings));
    handshake(&mut laptop, &mut gateway, now);
    (laptop, gateway)
}

fn handshake(asks: &mut Tunnel, answers: &mut Tunnel, now: Now) {
    let initiation = initiate(asks, now);
    let (opened, response) = open(answers, &initiation, now);
    assert!(matches!(opened, Opened::Answered { .. }), "{opened:?}");
    let (opened, confirmation) = open(asks, &response, now);
    assert!(matches!(opened, Opened::Established { .. }), "{opened:?}");
    let (opened, _) = open(answers, &confirmation, now);
    assert_eq!(opened, Opened::Keepalive { newest: true });
}

#[test]
fn padding_is_a_multiple_of_16_and_stops_at_the_mtu() {
    for mtu in [1280, 1420, 9000] {
        let settings = Settings {
            mtu,
            ..Settings::default()
        };
        let (mut laptop, mut gateway) = connected(&settings, START);
        for len in (20..200).chain(mtu - 40..=mtu) {
            let packet = ip(len);
            let datagram = seal(&mut laptop, &packet, START).unwrap();
            assert_eq!(datagram.len() - 32, mtu.min(len.div_ceil(16) * 16));
            let (opened, inner) = open(&mut gateway, &datagram, START);
            assert_eq!(opened, Opened::Packet { len, newest: true });
            assert_eq!(inner, packet);
        }
        assert_eq!(
            seal(&mut laptop, &ip(mtu + 1), START),
            Err(DropReason::TooBig)
        );
    }
}

#[test]
fn a_key_of_180_s_neither_sends_nor_receives() {
    let (mut laptop, mut gateway) = connected(&Settings::default(), START);
    let young = START.after(Duration::from_millis(179_999));
    let old = START.after(seconds(180));
    let in_time = seal(&mut laptop, &ip(60), young).unwrap();
    let too_late = seal(&mut laptop, &ip(60), young).unwrap();
    assert!(matches!(
        open(&mut gateway, &in_time, young).0,
        Opened::Packet { .. }
    ));
    assert_eq!(
        open(&mut gateway, &too_late, old).0,
        Opened::Dropped(DropReason::KeyExpired)
    );
    assert_eq!(seal(&mut laptop, &ip(60), old), Err(DropReason::NoSession));
    assert_eq!(seal(&mut gateway, &ip(60), old), Err(DropReason::NoSession));
}

#[test]
fn nothing_is_sent_before_there_is_a_key_and_then_a_handshake_is_due() {
    let mut laptop = tunnel(1, 2, &Settings::default());
    assert_eq!(laptop.next_deadline(), Mono::NEVER);
    assert_eq!(
        seal(&mut laptop, &ip(60), START),
        Err(DropReason::NoSession)
    );
    assert_eq!(laptop.next_deadline(), START.mono);
    assert_eq!(
        tick(&mut laptop, START).map(|initiation| initiation.len()),
        Some(148)
    );
    assert_eq!(tick(&mut laptop, START), None);
}

#[test]
fn a_reply_in_the_same_instant_still_gets_its_passive_keepalive() {
    let (mut laptop, mut gateway) = connected(&Settings::default(), START);
    let request = seal(&mut laptop, &ip(60), START).unwrap();
    open(&mut gateway, &request, START);
    let reply = seal(&mut gateway, &ip(60), START).unwrap();
    open(&mut laptop, &reply, START);

    let due = START.after(seconds(10));
    assert_eq!(laptop.next_deadline(), due.mono);
    assert_eq!(
        tick(&mut laptop, START.after(Duration::from_millis(9_999))),
        None
    );
    let keepalive = tick(&mut laptop, due).unwrap();
    assert_eq!(keepalive.len(), 32);
    assert!(matches!(
        open(&mut gateway, &keepalive, due).0,
        Opened::Keepalive { .. }
    ));
    // A keepalive answers nothing and asks nothing.
    let later = START.after(seconds(100));
    assert_eq!(
        (tick(&mut gateway, later), tick(&mut laptop, later)),
        (None, None)
    );
}

#[test]
fn an_output_too_small_is_refused_and_nothing_panics() {
    let (mut laptop, mut gateway) = connected(&Settings::default(), START);
    let later = START.after(seconds(6));
    let data = seal(&mut laptop, &ip(160), START).unwrap();
    let initiation = initiate(&mut laptop, later);
    let (_, response) = open(&mut gateway, &initiation, later);
    for room in 0..148 {
        let mut out = vec![0; room];
        for datagram in [&data, &initiation, &response] {
            let to = if datagram[0] == 2 {
                &mut laptop
            } else {
                &mut gateway
            };
            assert_eq!(
                to.open(datagram, &mut out, later),
                Opened::Dropped(DropReason::TooLong)
            );
        }
        assert_eq!(
            laptop.tick(&mut out, later.after(seconds(60))),
            Tick::Nothing
        );
        assert_eq!(
            laptop.seal(&ip(128), &mut out, later),
            Err(DropReason::TooBig)
        );
    }
    // None of them was used up.
    assert!(matches!(
        open(&mut gateway, &data, later).0,
        Opened::Packet { .. }
    ));
    assert!(matches!(
        open(&mut laptop, &response, later).0,
        Opened::Established { .. }
    ));
}

#[test]
fn a_datagram_counts_once_and_one_far_behind_not_at_all() {
    let (mut laptop, mut gateway) = connected(&Settings::default(), START);
    let first = seal(&mut laptop, &ip(60), START).unwrap();
    let second = seal(&mut laptop, &ip(60), START).unwrap();
    assert!(matches!(
        open(&mut gateway, &second, START).0,
        Opened::Packet { .. }
    ));
    assert_eq!(
        open(&mut gateway, &second, START).0,
        Opened::Dropped(DropReason::Replayed)
    );
    let mut newest = second;
    for _ in 0..1100 {
        newest = seal(&mut laptop, &ip(60), START).unwrap();
    }
    open(&mut gateway, &newest, START);
    assert_eq!(
        open(&mut gateway, &first, START).0,
        Opened::Dropped(DropReason::Replayed)
    );
}

#[test]
fn no_flipped_bit_gets_through_and_none_moves_a_timer() {
    let (mut laptop, mut gateway) = connected(&Settings::default(), START);
    let datagram = seal(&mut laptop, &ip(60), START).unwrap();
    let before = gateway.next_deadline();
    for bit in 0..datagram.len() * 8 {
        let mut bad = datagram.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        let expected: &[DropReason] = match bit / 8 {
            0..4 => &[DropReason::NotWireguard],
            4..8 => &[DropReason::UnknownIndex],
            8..16 => &[
                DropReason::BadTag,
                DropReason::Replayed,
                DropReason::KeyExpired,
            ],
            _ => &[DropReason::BadTag],
        };
        let (opened, _) = open(&mut gateway, &bad, START);
        assert!(
            expected
                .iter()
                .any(|reason| opened == Opened::Dropped(*reason)),
            "bit {bit}: {opened:?}"
        );
    }
    assert_eq!(gateway.next_deadline(), before);
    assert!(matches!(
        open(&mut gateway, &datagram, START).0,
        Opened::Packet { .. }
    ));
}

#[test]
fn an_authenticated_packet_that_is_not_ip_is_named_and_dropped() {
    let (mut laptop, mut gateway) = connected(&Settings::default(), START);
    let mut too_long = ip(60);
    too_long[3] = 200;
    let mut too_short = ip(60);
    too_short[3] = 10;
    let mut version_6 = vec![0; 32];
    version_6[0] = 0x60;
    for (packet, reason) in [
        (vec![0x45; 5], DropReason::Truncated),
        (version_6, DropReason::Truncated),
        (vec![0x15; 60], DropReason::BadHeader),
        (too_long, DropReason::BadLength),
        (too_short, DropReason::BadLength),
    ] {
        let datagram = seal(&mut laptop, &packet, START).unwrap();
        assert_eq!(
            open(&mut gateway, &datagram, START).0,
            Opened::Dropped(reason)
        );
    }
}

#[test]
fn an_index_that_does_not_fit_is_refused() {
    assert_eq!(PeerId::new(0x007f_ffff), Some(PeerId::MAX));
    assert_eq!(PeerId::new(0x0080_0000), None);
    assert_eq!(PeerId::new(0x0100_0001), None);
    let mut last = tunnel_with_id(PeerId::MAX);
    let initiation = initiate(&mut last, START);
    assert_eq!(
        initiation[5..8],
        [0xff, 0xff, 0x7f],
        "index << 8 | session, little endian"
    );
}

fn tunnel_with_id(id: PeerId) -> Tunnel {
    let (ours, peer) = (private(1), private(2).public());
    let limiter = Unlimited::new(&ours.public());
    Tunnel::new(&ours, &peer, &Settings::default(), id, 0, &limiter)
}

#[test]
fn a_late_packet_of_the_older_key_is_opened_but_is_not_the_newest() {
    let (mut laptop, mut gateway) = connected(&Settings::default(), START);
    let old = seal(&mut laptop, &ip(60), START).unwrap();
    let later = START.after(seconds(130));
    handshake(&mut laptop, &mut gateway, later);
    let new = seal(&mut laptop, &ip(60), later).unwrap();
    assert_eq!(
        open(&mut gateway, &new, later).0,
        Opened::Packet {
            len: 60,
            newest: true
        }
    );
    assert_eq!(
        open(&mut gateway, &old, later).0,
        Opened::Packet {
            len: 60,
            newest: false
        }
    );
    // Both ends go on.
    let reply = seal(&mut gateway, &ip(60), later).unwrap();
    assert!(matches!(
        open(&mut laptop, &reply, later).0,
        Opened::Packet { .. }
    ));
}
