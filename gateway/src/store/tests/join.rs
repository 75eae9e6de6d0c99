//! Invitations: who can join, once, and who hears what.

use super::*;

fn personal() -> NewInvitation {
    NewInvitation {
        kind: Kind::Personal,
        user: Some("ana@example.com".to_owned()),
        groups: vec!["sre".to_owned()],
        labels: Vec::new(),
        name: None,
        require: Require::Nothing,
        uses: 1,
        keys: vec![key(100)],
        expires: 1000,
        made_by: "uid 0".to_owned(),
    }
}

fn open_to(uses: u32, require: Require) -> NewInvitation {
    NewInvitation {
        kind: Kind::Open,
        user: None,
        require,
        uses,
        keys: vec![key(100), key(101)],
        ..personal()
    }
}

fn wish(seed: u8) -> Join {
    Join {
        guest: key(100),
        key: key(seed),
        name: None,
        hostname: Some("laptop.example.com".to_owned()),
        kem: None,
        approval: false,
    }
}

fn with_kem(mut join: Join, hash: &str) -> Join {
    join.kem = Some(Kem {
        key_hash: hash.to_owned(),
        ciphertext: format!("answer to {hash}"),
        preshared_key: PresharedKey([7; 32]),
    });
    join
}

async fn invited(folder: &Scratch, new: &NewInvitation) -> (Store, Invitation) {
    let store = open(folder, "100.96.0.0/16").await;
    let made = store.add_invitation(new, 10).await.expect("made");
    (store, made)
}

#[tokio::test]
async fn a_personal_invitation_makes_one_device_and_is_a_login() {
    let folder = Scratch::new();
    let (store, made) = invited(&folder, &personal()).await;
    let of = store.invitation_of(&key(100)).await.expect("read");
    assert_eq!(of.as_ref(), Some(&made));
    let joined = store
        .join(&with_kem(wish(1), "a"), || 20)
        .await
        .expect("joined");
    assert_eq!(joined.device.record.name, "ana-laptop");
    assert_eq!(joined.device.invitation, Some(made.id.clone()));
    assert_eq!(joined.kem_ciphertext.as_deref(), Some("answer to a"));
    let record = store.record("ana-laptop", 21, &TERMS).await.expect("there");
    assert_eq!(
        (record.user.as_deref(), record.standing.held),
        (Some("ana@example.com"), None)
    );
    assert_eq!(record.preshared_key.expect("agreed").0, [7; 32]);
    let session = record.standing.session.expect("it is a login");
    assert_eq!((&*session.method, session.until), ("invitation", None));

    let error = store.join(&wish(2), || 21).await.expect_err("another key");
    assert!(matches!(error, JoinError::Used), "{error}");
    let used = store.invitation(&made.id).await.expect("there");
    assert_eq!((used.state(21), used.used), (InvitationState::Used, 1));
}

#[tokio::test]
async fn the_same_request_gets_the_same_answer_over_a_restart_and_after_expiry() {
    let folder = Scratch::new();
    let (store, made) = invited(&folder, &personal()).await;
    let first = store
        .join(&with_kem(wish(1), "a"), || 20)
        .await
        .expect("joined");
    store.close().await;
    let store = open(&folder, "100.96.0.0/16").await;
    let again = store
        .join(&with_kem(wish(1), "a"), || 2000)
        .await
        .expect("again");
    assert!(again.again && !first.again);
    assert_eq!(again.device.record.v4, first.device.record.v4);
    assert_eq!(again.kem_ciphertext, first.kem_ciphertext);
    let before = store.joined_before(&made.id, &key(1), Some("a")).await;
    assert!(before.expect("read").is_some());
    for other in [Some("b"), None] {
        let error = store.joined_before(&made.id, &key(1), other).await;
        assert!(
            matches!(error, Err(JoinError::Used)),
            "another secret, another answer: none"
        );
    }
    assert_eq!(store.devices().await.expect("list").len(), 1);
    store
        .revoke_device("ana-laptop", 2001)
        .await
        .expect("revoked");
    let error = store.join(&with_kem(wish(1), "a"), || 2002).await;
    assert!(
        matches!(error, Err(JoinError::Revoked)),
        "revoked stays revoked"
    );
}

#[tokio::test]
async fn of_two_at_once_exactly_one_wins() {
    let folder = Scratch::new();
    let (store, _) = invited(&folder, &personal()).await;
    let other = open(&folder, "100.96.0.0/16").await;
    let tasks: Vec<_> = (1..=8)
        .map(|seed| {
            let store = if seed % 2 == 0 {
                store.clone()
            } else {
                other.clone()
            };
            tokio::spawn(async move { store.join(&wish(seed), || 20).await.map(|_| ()) })
        })
        .collect();
    let mut won = 0;
    for task in tasks {
        match task.await.expect("no panic") {
            Ok(()) => won += 1,
            Err(error) => assert!(matches!(error, JoinError::Used), "{error}"),
        }
    }
    assert_eq!((won, store.devices().await.expect("list").len()), (1, 1));
}

#[tokio::test]
async fn expiry_and_revocation_are_tested_in_the_transaction() {
    let folder = Scratch::new();
    let (store, made) = invited(&folder, &personal()).await;
    let error = store.join(&wish(1), || 1000).await.expect_err("too old");
    assert!(matches!(error, JoinError::Expired), "{error}");
    store
        .revoke_invitation(&made.id, 30)
        .await
        .expect("revoked");
    store.revoke_invitation(&made.id, 40).await.expect("again");
    let found = store.invitation(&made.id).await.expect("there");
    assert_eq!(found.revoked, Some(30), "the first time stays");
    for at in [50, 2000] {
        let error = store.join(&wish(1), || at).await.expect_err("taken back");
        assert!(
            matches!(error, JoinError::Revoked),
            "what came first is said: {error}"
        );
    }
    let mut stranger = wish(1);
    stranger.guest = key(50);
    let error = store.join(&stranger, || 20).await.expect_err("no guest");
    assert!(matches!(error, JoinError::NotInvited), "{error}");
    assert!(store.devices().await.expect("list").is_empty());
}

#[tokio::test]
async fn nobody_joins_with_a_key_that_was_somebodys() {
    let folder = Scratch::new();
    let (store, _) = invited(&folder, &personal()).await;
    store.add_device(device("old", 5), 1).await.expect("added");
    store
        .begin_rotation("old", &key(6), None, 2)
        .await
        .expect("begun");
    store
        .finish_rotation(&key(5), &key(6), 3)
        .await
        .expect("done");
    store.revoke_device("old", 4).await.expect("revoked");
    for seed in [5, 6, 100] {
        let error = store.join(&wish(seed), || 20).await.expect_err("spent");
        assert!(matches!(error, JoinError::Taken(_)), "{seed}: {error}");
    }
    let guest = Enrolment::new("eve", None, &[], key(100), None).expect("words");
    assert!(store.add_device(guest, 5).await.is_err());
    store
        .join(&wish(1), || 20)
        .await
        .expect("the invitation is unused");
}

#[tokio::test]
async fn an_open_invitation_has_room_for_so_many_and_holds_them_until_they_log_in() {
    let folder = Scratch::new();
    let (store, made) = invited(&folder, &open_to(2, Require::Login)).await;
    for seed in [1, 2] {
        let joined = store.join(&wish(seed), || 20).await.expect("joined");
        assert_eq!(joined.device.held(), Some(Held::Login));
        assert_eq!(joined.device.record.user, None);
    }
    assert!(matches!(
        store.join(&wish(3), || 20).await,
        Err(JoinError::Used)
    ));
    let names: Vec<_> = store.devices().await.expect("list").into_iter().collect();
    let names: Vec<_> = names.iter().map(|one| one.record.name.as_str()).collect();
    assert_eq!(names, ["laptop", "laptop-2"]);

    let session = store
        .begin_session(&login("laptop", "ana@example.com"), 30)
        .await;
    session.expect("logged in");
    let record = store.record("laptop", 31, &TERMS).await.expect("there");
    assert_eq!(
        record.user.as_deref(),
        Some("ana@example.com"),
        "theirs for ever"
    );
    assert_eq!(
        (record.standing.held, record.standing.session_required),
        (None, true)
    );
    assert!(
        store
            .begin_session(&login("laptop", "bob@example.com"), 32)
            .await
            .is_err()
    );

    let second = store.device("laptop-2").await.expect("there");
    store.forget_join(&second).await.expect("taken back");
    let again = store.invitation(&made.id).await.expect("there");
    assert_eq!((again.used, again.state(40)), (1, InvitationState::Open));
    store
        .join(&wish(3), || 40)
        .await
        .expect("its place is free again");
}

#[tokio::test]
async fn a_pending_approval_stays_pending_over_a_restart() {
    let folder = Scratch::new();
    let (store, _) = invited(&folder, &open_to(8, Require::Approval)).await;
    store.join(&wish(1), || 20).await.expect("joined");
    store.close().await;
    let store = open(&folder, "100.96.0.0/16").await;
    let records = store.active_devices(30, &TERMS).await.expect("list");
    assert_eq!(records[0].standing.held, Some(Held::Approval));
    store.approve_device("laptop", 31).await.expect("approved");
    let record = store.record("laptop", 32, &TERMS).await.expect("there");
    assert_eq!(record.standing.held, None);

    let mut held = wish(2);
    held.approval = true;
    let joined = store.join(&held, || 40).await.expect("joined");
    assert_eq!(joined.device.state(), DeviceState::WaitsForApproval);
}

#[tokio::test]
async fn names_are_the_admins_or_asked_for_or_made() {
    let folder = Scratch::new();
    let (store, _) = invited(&folder, &open_to(8, Require::Login)).await;
    let ask = |seed: u8, name: &str| Join {
        name: Some(name.to_owned()),
        ..wish(seed)
    };
    let named = store.join(&ask(1, "mine"), || 20).await.expect("joined");
    assert_eq!(named.device.record.name, "mine");
    let error = store.join(&ask(2, "mine"), || 20).await.expect_err("taken");
    assert!(matches!(error, JoinError::Taken(_)), "{error}");
    let error = store
        .join(&ask(2, "two words"), || 20)
        .await
        .expect_err("odd");
    assert!(matches!(error, JoinError::BadName(_)), "{error}");
    let odd = Join {
        hostname: Some("\u{202e}ü/;$(x)".repeat(40)),
        ..wish(3)
    };
    let made = store
        .join(&odd, || 20)
        .await
        .expect("joined")
        .device
        .record
        .name;
    assert!(made.len() <= 63 && made.is_ascii(), "{made}");
    let nameless = Join {
        hostname: None,
        ..wish(4)
    };
    let made = store.join(&nameless, || 20).await.expect("joined").device;
    assert_eq!(made.record.name, "device");

    let build = NewInvitation {
        kind: Kind::Machine,
        user: None,
        name: Some("build-1".to_owned()),
        keys: vec![key(110)],
        ..personal()
    };
    store.add_invitation(&build, 10).await.expect("made");
    let machine = Join {
        guest: key(110),
        ..ask(5, "other")
    };
    let joined = store.join(&machine, || 20).await.expect("joined").device;
    assert_eq!(
        (joined.record.name.as_str(), joined.record.user.clone()),
        ("build-1", None)
    );
    let record = store.record("build-1", 21, &TERMS).await.expect("there");
    assert_eq!(
        (record.standing.session, record.standing.session_required),
        (None, false)
    );
    let taken = NewInvitation {
        keys: vec![key(111)],
        ..build
    };
    assert!(
        store.add_invitation(&taken, 30).await.is_err(),
        "the name is spent"
    );
}

#[tokio::test]
async fn guests_are_the_living_first_and_the_dead_for_a_while() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    let with = |seed: u8, expires: u64| NewInvitation {
        keys: vec![key(seed)],
        expires,
        ..personal()
    };
    for (seed, expires) in [(101, 100), (102, 200), (103, 9000)] {
        store
            .add_invitation(&with(seed, expires), 10)
            .await
            .expect("made");
    }
    let listed = async |now, since, most| -> Vec<(PublicKey, Option<u64>)> {
        let guests = store.guests(now, since, most).await.expect("list");
        guests
            .iter()
            .map(|guest| (guest.record.key, guest.dead))
            .collect()
    };
    assert_eq!(
        listed(250, 50, 10).await,
        [
            (key(103), None),
            (key(102), Some(200)),
            (key(101), Some(100))
        ]
    );
    assert_eq!(
        listed(250, 100, 10).await.len(),
        2,
        "the oldest is forgotten"
    );
    assert_eq!(
        listed(250, 50, 1).await,
        [(key(103), None)],
        "the living first"
    );
    let guest = store.guests(20, 0, 1).await.expect("one").remove(0).record;
    assert!(guest.standing.guest && guest.v4.is_unspecified());
    assert!(guest.name.starts_with("invitation:"), "{}", guest.name);
    let id = guest.name.trim_start_matches("invitation:");
    store.forget_invitation(id).await.expect("taken back");
    assert_eq!(store.guests(20, 0, 10).await.expect("two").len(), 2);
}
