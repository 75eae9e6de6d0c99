use super::*;
use proptest::prelude::*;

fn sample() -> Invitation {
    Invitation {
        endpoints: vec![
            "vpn.example.com:51820".parse().expect("endpoint"),
            "[2001:db8::1]:51820".parse().expect("endpoint"),
        ],
        gateway: PrivateKey::from_random([9; 32]).public(),
        keys: 1,
        secret: InvitationSecret([7; 32]),
    }
}

fn invitations() -> impl Strategy<Value = Invitation> {
    let endpoint = ("[a-z][a-z0-9]{0,20}(\\.[a-z]{2,9}){0,3}", 1..=u16::MAX)
        .prop_map(|(host, port)| HostPort { host, port });
    (
        prop::collection::vec(endpoint, 1..=MAX_ENDPOINTS),
        any::<[u8; 32]>(),
        1..=MAX_KEYS,
        any::<[u8; 32]>(),
    )
        .prop_map(|(endpoints, gateway, keys, secret)| Invitation {
            endpoints,
            gateway: PublicKey(gateway),
            keys,
            secret: InvitationSecret(secret),
        })
}

proptest! {
    #[test]
    fn an_invitation_survives_its_text_form(invitation in invitations()) {
        prop_assert_eq!(invitation.to_string().parse(), Ok(invitation));
    }

    #[test]
    fn what_mail_programs_add_does_no_harm(
        invitation in invitations(),
        width in 10_usize..90,
        mark in prop::sample::select(vec!["\r\n", "\n> ", "\n\t", " ", "\u{200b}"]),
    ) {
        let text = invitation.to_string();
        let lines: Vec<&str> = text
            .as_bytes()
            .chunks(width)
            .map(|line| std::str::from_utf8(line).expect("ASCII"))
            .collect();
        let pasted = format!("\u{feff}> \u{201c}{}\u{201d}\n\n", lines.join(mark));
        prop_assert_eq!(pasted.parse(), Ok(invitation));
    }

    #[test]
    fn one_changed_character_is_told(
        invitation in invitations(),
        place in any::<prop::sample::Index>(),
        other in prop::sample::select((b'a'..=b'z').collect::<Vec<_>>()),
    ) {
        let mut text = invitation.to_string().into_bytes();
        let place = PREFIX.len() + place.index(text.len() - PREFIX.len());
        prop_assume!(text[place] != other);
        text[place] = other;
        let text = String::from_utf8(text).expect("ASCII");
        prop_assert_eq!(text.parse::<Invitation>(), Err(BadInvitation::Damaged));
    }

    #[test]
    fn a_part_is_told_from_the_whole(invitation in invitations(), place in any::<prop::sample::Index>()) {
        let text = invitation.to_string();
        let end = PREFIX.len() + place.index(text.len() - PREFIX.len());
        prop_assert_eq!(text[..end].parse::<Invitation>(), Err(BadInvitation::Damaged));
    }

    #[test]
    fn no_text_panics(text in ".{0,200}", tail in "[A-Za-z0-9_-]{0,300}") {
        let _ = text.parse::<Invitation>();
        let text = format!("{PREFIX}{tail}");
        prop_assert!(text.parse::<Invitation>().is_err());
    }

    #[test]
    fn a_throw_away_address_is_no_gateways(key in any::<[u8; 32]>()) {
        let address = guest_address(&PublicKey(key));
        prop_assert!(GUESTS.contains(&address) && address > GATEWAY, "{address}");
    }
}

#[test]
fn a_double_paste_is_damage() {
    let text = sample().to_string();
    assert_eq!(
        format!("{text}\n{text}").parse::<Invitation>(),
        Err(BadInvitation::Damaged)
    );
}

#[test]
fn other_texts_and_newer_kinds_are_told_apart() {
    for other in [
        "",
        "hello",
        "postern",
        "postern-abc",
        "posternx-abc",
        "https://example.com",
        &"x".repeat(1 << 20),
    ] {
        assert_eq!(
            other.parse::<Invitation>(),
            Err(BadInvitation::Other),
            "{other}"
        );
    }
    assert_eq!(
        "postern2-abc".parse::<Invitation>(),
        Err(BadInvitation::Newer)
    );
    let mut bytes = BASE64_URL_SAFE_NO_PAD
        .decode(sample().to_string().trim_start_matches(PREFIX))
        .expect("own text form");
    bytes.truncate(bytes.len() - CHECKSUM);
    bytes[0] = 2;
    let sum = checksum(&bytes);
    bytes.extend(sum);
    let newer = format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(&bytes));
    assert_eq!(newer.parse::<Invitation>(), Err(BadInvitation::Newer));
}

#[test]
fn every_place_has_its_own_key_and_both_ends_the_same() {
    let secret = InvitationSecret([7; 32]);
    let keys: std::collections::BTreeSet<_> = (0..MAX_KEYS)
        .map(|place| secret.key(place).public())
        .collect();
    assert_eq!(keys.len(), usize::from(MAX_KEYS));
    assert_eq!(
        secret.key(3).public(),
        InvitationSecret([7; 32]).key(3).public()
    );
    assert_ne!(
        secret.key(3).public(),
        InvitationSecret([8; 32]).key(3).public()
    );
}

#[test]
fn the_secret_is_not_printed() {
    assert!(!format!("{:?}", sample()).contains("7, 7"));
}
