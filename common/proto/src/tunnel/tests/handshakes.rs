//! Handshakes: asked, answered, repeated, given up, forgotten.

use super::*;
use boringtun::noise::TunnResult;
use boringtun::noise::rate_limiter::RateLimiter;

#[test]
fn the_side_that_answered_waits_for_proof_before_it_sends() {
    let (mut laptop, mut gateway) = (
        tunnel(1, 2, &Settings::default()),
        tunnel(2, 1, &Settings::default()),
    );
    let initiation = initiate(&mut laptop, START);
    let (_, response) = open(&mut gateway, &initiation, START);
    assert_eq!(
        seal(&mut gateway, &ip(60), START),
        Err(DropReason::NoSession)
    );
    assert!(gateway.last_handshake().is_none());
    let (_, confirmation) = open(&mut laptop, &response, START);
    open(&mut gateway, &confirmation, START);
    assert!(seal(&mut gateway, &ip(60), START).is_ok());
    assert_eq!(gateway.last_handshake(), Some(START));
}

#[test]
fn handshakes_are_5_s_apart_and_end_after_90_s() {
    let mut out = [0; CONTROL_ROOM];
    let mut laptop = tunnel(1, 2, &Settings::default());
    let (mut now, mut sent) = (START, Vec::new());
    let _ = seal(&mut laptop, &ip(60), now);
    loop {
        match laptop.tick(&mut out, now) {
            Tick::Send(_) => sent.push(now.mono),
            Tick::GaveUp => break,
            Tick::Nothing => {
                // Asking again and again does not make it faster.
                assert_eq!(seal(&mut laptop, &ip(60), now), Err(DropReason::NoSession));
                now = now.after(laptop.next_deadline() - now.mono);
            }
        }
    }
    assert_eq!(sent.len(), 18);
    for pair in sent.windows(2) {
        let gap = pair[1] - pair[0];
        assert!(
            (seconds(5)..Duration::from_millis(5_334)).contains(&gap),
            "{gap:?}"
        );
    }
    let total = now.mono - START.mono;
    assert!((seconds(90)..seconds(96)).contains(&total), "{total:?}");
    assert_eq!(laptop.next_deadline(), Mono::NEVER);
    // The next packet begins anew.
    let later = now.after(seconds(100));
    assert_eq!(
        seal(&mut laptop, &ip(60), later),
        Err(DropReason::NoSession)
    );
    assert!(tick(&mut laptop, later).is_some());
}

#[test]
fn waking_from_suspend_starts_a_handshake_at_once() {
    let settings = Settings {
        keepalive: Some(seconds(25)),
        ..Settings::default()
    };
    let (mut laptop, _) = connected(&settings, START);
    let morning = START.after(seconds(8 * 3600));
    assert_eq!(
        tick(&mut laptop, morning).map(|datagram| datagram[0]),
        Some(1)
    );

    // Also when the lid closed in the middle of a handshake.
    let mut laptop = tunnel(1, 2, &Settings::default());
    initiate(&mut laptop, START);
    assert_eq!(
        tick(&mut laptop, morning).map(|datagram| datagram[0]),
        Some(1)
    );
}

#[test]
fn an_answer_that_slept_in_the_socket_makes_no_key() {
    let (mut laptop, mut gateway) = (
        tunnel(1, 2, &Settings::default()),
        tunnel(2, 1, &Settings::default()),
    );
    let initiation = initiate(&mut laptop, START);
    let (_, response) = open(&mut gateway, &initiation, START);
    let morning = START.after(seconds(3600));
    assert_eq!(
        open(&mut laptop, &response, morning).0,
        Opened::Dropped(DropReason::BadHandshake)
    );
}

/// The spare machine's timestamps may be of no use; then the key must not die for it.
#[test]
fn a_rekey_that_fails_from_the_spare_succeeds_from_home() {
    let (mut laptop, mut gateway) = connected(&Settings::default(), START);
    let mut now = START.after(seconds(121));
    seal(&mut laptop, &ip(60), now).unwrap();
    while now.mono - START.mono < seconds(160) {
        now = now.after(laptop.next_deadline() - now.mono);
        let Some(initiation) = tick(&mut laptop, now) else {
            continue;
        };
        if initiation[7] & 0x80 == 0 {
            let (_, response) = open(&mut gateway, &initiation, now);
            assert!(matches!(
                open(&mut laptop, &response, now).0,
                Opened::Established { .. }
            ));
            return;
        }
    }
    panic!("never from home");
}

#[test]
fn a_side_that_has_just_answered_does_not_ask_as_well() {
    let (mut laptop, mut gateway) = (
        tunnel(1, 2, &Settings::default()),
        tunnel(2, 1, &Settings::default()),
    );
    let initiation = initiate(&mut laptop, START);
    open(&mut gateway, &initiation, START);
    let _ = seal(&mut gateway, &ip(60), START);
    assert_eq!(
        tick(&mut gateway, START.after(Duration::from_millis(4_999))),
        None
    );
    assert!(tick(&mut gateway, START.after(seconds(5))).is_some());
}

#[test]
fn keys_are_forgotten_after_540_s_but_not_what_has_been_seen() {
    let (mut laptop, mut gateway) = (
        tunnel(1, 2, &Settings::default()),
        tunnel(2, 1, &Settings::default()),
    );
    let initiation = initiate(&mut laptop, START);
    let (_, response) = open(&mut gateway, &initiation, START);
    let (_, confirmation) = open(&mut laptop, &response, START);
    open(&mut gateway, &confirmation, START);
    let data = seal(&mut laptop, &ip(60), START).unwrap();

    let later = START.after(seconds(540));
    assert_eq!(gateway.next_deadline(), later.mono);
    assert_eq!(tick(&mut gateway, later), None);
    assert_eq!(gateway.next_deadline(), Mono::NEVER);
    assert_eq!(
        open(&mut gateway, &data, later).0,
        Opened::Dropped(DropReason::UnknownIndex)
    );
    assert_eq!(
        open(&mut gateway, &initiation, later).0,
        Opened::Dropped(DropReason::BadHandshake)
    );
    handshake(&mut laptop, &mut gateway, later);
    assert!(seal(&mut gateway, &ip(60), later).is_ok());
}

/// boringtun would send under whatever has taken the place of its current session.
#[test]
fn unanswered_answers_never_make_us_send_under_an_unconfirmed_key() {
    let (mut laptop, mut gateway) = connected(&Settings::default(), START);
    let mut now = START;
    for _ in 0..9 {
        now = now.after(seconds(6));
        let initiation = initiate_again(&mut laptop, now);
        assert!(matches!(
            open(&mut gateway, &initiation, now).0,
            Opened::Answered { .. }
        ));
        if let Ok(datagram) = seal(&mut gateway, &ip(60), now) {
            assert!(matches!(
                open(&mut laptop, &datagram, now).0,
                Opened::Packet { .. }
            ));
        }
    }
    assert_eq!(seal(&mut gateway, &ip(60), now), Err(DropReason::NoSession));
}

fn initiate_again(tunnel: &mut Tunnel, now: Now) -> Vec<u8> {
    if !tunnel.is_handshaking() {
        return initiate(tunnel, now);
    }
    tick(tunnel, now).expect("a repeated initiation")
}

#[test]
fn another_preshared_key_makes_no_session() {
    let psk = |byte| Settings {
        psk: Some(PresharedKey([byte; 32])),
        ..Settings::default()
    };
    let (mut laptop, mut gateway) = (tunnel(1, 2, &psk(1)), tunnel(2, 1, &psk(2)));
    let initiation = initiate(&mut laptop, START);
    let (_, response) = open(&mut gateway, &initiation, START);
    assert_eq!(
        open(&mut laptop, &response, START).0,
        Opened::Dropped(DropReason::BadHandshake)
    );
    let (mut laptop, mut gateway) = (tunnel(1, 2, &psk(1)), tunnel(2, 1, &psk(1)));
    handshake(&mut laptop, &mut gateway, START);
}

/// A gateway that is always under load, as another implementation would be.
fn cookie_for(initiation: &[u8], limiter: &RateLimiter) -> Option<Vec<u8>> {
    let mut reply = [0; 64];
    match limiter.verify_packet(Some([192, 0, 2, 1].into()), initiation, &mut reply) {
        Err(TunnResult::WriteToNetwork(cookie)) => Some(cookie.to_vec()),
        Ok(_) | Err(_) => None,
    }
}

#[test]
fn a_cookie_is_used_at_once_but_only_once_and_for_two_minutes() {
    let loaded = RateLimiter::new(&x25519::PublicKey::from(private(2).public().0), 0);
    let settings = Settings {
        keepalive: Some(seconds(25)),
        ..Settings::default()
    };
    let mut laptop = tunnel(1, 2, &settings);
    let first = initiate(&mut laptop, START);
    assert_eq!(first[132..], [0; 16]);
    let cookie = cookie_for(&first, &loaded).unwrap();
    let (opened, second) = open(&mut laptop, &cookie, START);
    assert_eq!(opened, Opened::Cookie { len: 148 });
    assert_eq!(
        cookie_for(&second, &loaded),
        None,
        "its second MAC is right"
    );

    // A peer that goes on asking does not make us spin.
    let other = RateLimiter::new(&x25519::PublicKey::from(private(2).public().0), 0);
    let again = cookie_for(&second, &other).unwrap();
    assert_eq!(
        open(&mut laptop, &again, START).0,
        Opened::Cookie { len: 0 }
    );

    let mut now = START;
    let mut with_cookie = 0;
    while now.mono - START.mono < seconds(200) {
        now = now.after(seconds(1));
        while let Some(initiation) = tick(&mut laptop, now) {
            let fresh = now.mono - START.mono < seconds(120);
            assert_eq!(
                initiation[132..] != [0; 16],
                fresh,
                "at {:?}",
                now.mono - START.mono
            );
            with_cookie += u32::from(fresh);
        }
    }
    assert!(with_cookie > 10);
}

#[test]
fn a_cookie_for_another_initiation_is_refused() {
    let loaded = RateLimiter::new(&x25519::PublicKey::from(private(2).public().0), 0);
    let mut laptop = tunnel(1, 2, &Settings::default());
    let first = initiate(&mut laptop, START);
    let mut cookie = cookie_for(&first, &loaded).unwrap();
    cookie[50] ^= 1;
    assert_eq!(
        open(&mut laptop, &cookie, START).0,
        Opened::Dropped(DropReason::BadHandshake)
    );
    cookie[4] ^= 1;
    assert_eq!(
        open(&mut laptop, &cookie, START).0,
        Opened::Dropped(DropReason::UnknownIndex)
    );
}

#[test]
fn our_own_repeat_waits_while_the_peer_asks() {
    let (mut laptop, mut gateway) = (
        tunnel(1, 2, &Settings::default()),
        tunnel(2, 1, &Settings::default()),
    );
    initiate(&mut laptop, START);
    let now = START.after(Duration::from_millis(4_990));
    let initiation = initiate(&mut gateway, now);
    let (_, response) = open(&mut laptop, &initiation, now);
    assert_eq!(
        tick(&mut laptop, now.after(Duration::from_millis(4_999))),
        None
    );
    let (_, confirmation) = open(&mut gateway, &response, now);
    open(&mut laptop, &confirmation, now);
    assert!(!laptop.is_handshaking());
}

#[test]
fn crossed_rekeys_leave_the_old_key_to_what_is_in_flight() {
    let (mut laptop, mut gateway) = connected(&Settings::default(), START);
    let now = START.after(seconds(121));
    let in_flight = seal(&mut gateway, &ip(60), now).unwrap();
    let (ours, theirs) = (initiate(&mut laptop, now), initiate(&mut gateway, now));
    let (_, to_ours) = open(&mut gateway, &ours, now);
    let (_, to_theirs) = open(&mut laptop, &theirs, now);
    let (_, confirms_theirs) = open(&mut gateway, &to_theirs, now);
    open(&mut laptop, &confirms_theirs, now);
    open(&mut laptop, &to_ours, now);
    assert_eq!(laptop.handshakes(), 3);
    assert!(matches!(
        open(&mut laptop, &in_flight, now).0,
        Opened::Packet { .. }
    ));
}

#[test]
fn a_peer_costs_nothing_large_until_it_proves_itself() {
    let (mut laptop, mut gateway) = (
        tunnel(1, 2, &Settings::default()),
        tunnel(2, 1, &Settings::default()),
    );
    assert_eq!(gateway.machines().count(), 0);
    let mut initiation = initiate(&mut laptop, START);
    // Whoever knows both public keys can write the claim, but not what follows it.
    initiation[100] ^= 1;
    assert!(matches!(
        open(&mut gateway, &initiation, START).0,
        Opened::Dropped(_)
    ));
    assert_eq!(gateway.machines().count(), 0);
    initiation[100] ^= 1;
    let (opened, _) = open(&mut gateway, &initiation, START);
    assert!(matches!(opened, Opened::Answered { .. }));
    assert_eq!(gateway.machines().count(), 1);
    // What was taken once is not taken again, also after all keys have been forgotten.
    let later = START.after(FORGET_AFTER + seconds(1));
    tick(&mut gateway, later);
    assert_eq!(
        open(&mut gateway, &initiation, later).0,
        Opened::Dropped(DropReason::BadHandshake)
    );
}

#[test]
fn a_key_wears_out_by_use_too() {
    let (mut laptop, _) = connected(&Settings::default(), START);
    let index = laptop.newest.unwrap();
    let set = |laptop: &mut Tunnel, messages| {
        laptop
            .machine_mut(index)
            .unwrap()
            .session_mut(index)
            .unwrap()
            .messages = messages;
    };
    set(&mut laptop, REKEY_AFTER_MESSAGES - 2);
    seal(&mut laptop, &ip(60), START).unwrap();
    assert!(!laptop.is_handshaking());
    seal(&mut laptop, &ip(60), START).unwrap();
    assert!(laptop.is_handshaking());
    set(&mut laptop, REJECT_AFTER_MESSAGES - 1);
    seal(&mut laptop, &ip(60), START).unwrap();
    assert_eq!(
        seal(&mut laptop, &ip(60), START),
        Err(DropReason::NoSession)
    );
}
