mod grants;
mod join;
mod known;
mod logins;
mod names;
mod past;

use super::*;
use crate::api::DeviceState;
use crate::scratch::Scratch;
use postern_engine::standing::Held;
use postern_proto::keys::{PresharedKey, PrivateKey, PublicKey};
use std::os::unix::fs::PermissionsExt;

const TERMS: Terms = Terms {
    session_required: false,
    stale_after: 180,
};

fn pool(v4: &str) -> Pool {
    Pool {
        v4: v4.parse().expect("net"),
        v6: "fd00:1::/64".parse().expect("net"),
    }
}

fn key(seed: u8) -> PublicKey {
    PrivateKey::from_random([seed; 32]).public()
}

fn device(name: &str, seed: u8) -> Enrolment {
    let groups = ["sre".to_owned(), "platform".to_owned(), "sre".to_owned()];
    Enrolment::new(name, Some("ana@example.com"), &groups, key(seed), None).expect("clean words")
}

fn login(device: &str, user: &str) -> NewSession {
    NewSession {
        device: device.to_owned(),
        user: user.to_owned(),
        method: "oidc".to_owned(),
        issuer: Some("https://idp.example.com".to_owned()),
        subject: Some("1".to_owned()),
        groups: vec!["oncall".to_owned()],
        amr: vec!["pwd".to_owned(), "otp".to_owned()],
        acr: None,
        since: 10,
        until: Some(100),
    }
}

async fn open(folder: &Scratch, v4: &str) -> Store {
    Store::open(&folder.path("gateway.db"), pool(v4))
        .await
        .expect("opens")
}

#[tokio::test]
async fn a_device_survives_a_restart_with_all_its_facts() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    let preshared = Some(PresharedKey([9; 32]));
    let new = Enrolment::new(
        "ana",
        Some("ana@example.com"),
        &["b".into(), "a".into()],
        key(1),
        preshared,
    )
    .expect("clean words");
    store.add_device(new, 100).await.expect("added");
    let seen = Sighting {
        key: key(1),
        endpoint: Some("198.51.100.7:4242".parse().expect("endpoint")),
        handshake: Some(200),
    };
    store.remember(&[seen]).await.expect("stored");
    // A sighting without an endpoint does not forget the old one.
    store
        .remember(&[Sighting {
            endpoint: None,
            ..seen
        }])
        .await
        .expect("stored");
    store.close().await;

    let found = open(&folder, "100.96.0.0/16")
        .await
        .device("ana")
        .await
        .expect("there");
    let record = found.record;
    assert_eq!(record.user.as_deref(), Some("ana@example.com"));
    assert_eq!(record.groups, ["a", "b"]);
    assert_eq!(record.key, key(1));
    assert_eq!(record.preshared_key.expect("set").0, [9; 32]);
    assert_eq!(record.v4.to_string(), "100.96.0.2");
    assert_eq!(record.v6.to_string(), "fd00:1::2");
    assert_eq!(record.created, 100);
    assert_eq!(record.last_endpoint, seen.endpoint);
    assert_eq!((found.revoked, found.last_handshake), (None, Some(200)));
}

#[tokio::test]
async fn every_start_has_its_own_number() {
    let folder = Scratch::new();
    for expected in 1..=3 {
        let store = open(&folder, "100.96.0.0/16").await;
        assert_eq!(store.next_boot().await.expect("counted"), expected);
        store.close().await;
    }
}

#[tokio::test]
async fn names_and_keys_are_taken_for_ever() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    store.add_device(device("ana", 1), 1).await.expect("added");
    let said = |result: Result<Device, StoreError>| result.expect_err("refused").to_string();
    assert!(said(store.add_device(device("ana", 2), 1).await).contains("already"));
    assert!(said(store.add_device(device("bob", 1), 1).await).contains("enrolled as device 'ana'"));

    store.revoke_device("ana", 50).await.expect("revoked");
    let again = store.revoke_device("ana", 60).await.expect("still revoked");
    assert_eq!(again.revoked, Some(50), "the first time stays");
    assert!(said(store.add_device(device("ana", 2), 1).await).contains("revoked device"));
    assert!(said(store.add_device(device("bob", 1), 1).await).contains("was revoked"));
    assert!(
        store
            .active_devices(60, &TERMS)
            .await
            .expect("list")
            .is_empty()
    );
    assert_eq!(
        store.devices().await.expect("list").len(),
        1,
        "history stays"
    );
    assert!(matches!(
        store.revoke_device("eve", 1).await,
        Err(StoreError::NoDevice { .. })
    ));
}

#[tokio::test]
async fn addresses_never_used_come_first_and_then_the_lowest_free() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/29").await;
    let last = |device: Device| device.record.v4.octets()[3];
    for (seed, expected) in [(1, 2), (2, 3), (3, 4)] {
        let added = store
            .add_device(device(&format!("d{seed}"), seed), 1)
            .await
            .expect("added");
        assert_eq!(last(added), expected);
    }
    store.revoke_device("d1", 2).await.expect("revoked");
    for (seed, expected) in [(4, 5), (5, 6), (6, 2)] {
        let added = store
            .add_device(device(&format!("d{seed}"), seed), 1)
            .await
            .expect("added");
        assert_eq!(last(added), expected);
    }
    let full = store
        .add_device(device("d7", 7), 1)
        .await
        .expect_err("full");
    assert!(full.to_string().contains("in use"), "{full}");
    assert_eq!(store.count_active().await.expect("count"), 5);
}

#[tokio::test]
async fn a_shrunk_pool_is_said_and_not_guessed_around() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    for seed in 1..=6 {
        store
            .add_device(device(&format!("d{seed}"), seed), 1)
            .await
            .expect("added");
    }
    store.close().await;
    let error = open(&folder, "100.96.0.0/29")
        .await
        .devices()
        .await
        .expect_err("outside");
    assert!(error.to_string().contains("outside pool_v4"), "{error}");
}

#[tokio::test]
async fn the_database_is_for_its_owner_only() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    store.add_device(device("ana", 1), 1).await.expect("added");
    for name in ["gateway.db", "gateway.db-wal"] {
        let mode = std::fs::metadata(folder.path(name))
            .expect(name)
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_schema_of_another_program_is_refused_in_words() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    sqlx::query(
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (999, 'later', 1, x'00', 0)",
    )
    .execute(&store.db)
    .await
    .expect("written");
    store.close().await;
    let error = Store::open(&folder.path("gateway.db"), pool("100.96.0.0/16"))
        .await
        .expect_err("newer schema");
    assert!(error.to_string().contains("use the version"), "{error}");

    std::fs::write(
        folder.path("junk.db"),
        "this is no database at all, not even nearly one",
    )
    .expect("written");
    assert!(
        Store::open(&folder.path("junk.db"), pool("100.96.0.0/16"))
            .await
            .is_err()
    );
}

#[test]
fn words_that_would_break_a_listing_are_refused() {
    for name in ["", "two words", "new\nline", "a/b", &"x".repeat(64)] {
        assert!(
            Enrolment::new(name, None, &[], key(1), None).is_err(),
            "{name:?}"
        );
    }
    assert!(Enrolment::new("ok", Some("a b"), &[], key(1), None).is_err());
    assert!(Enrolment::new("ok", None, &["".into()], key(1), None).is_err());
}

#[tokio::test]
async fn a_device_of_an_older_program_is_approved_and_its_user_known() {
    let folder = Scratch::new();
    let path = folder.path("gateway.db");
    let old = Migrator::with_migrations(vec![Migration::new(
        1,
        "devices".into(),
        MigrationType::Simple,
        include_str!("../../migrations/0001_devices.sql").into_sql_str(),
        false,
    )]);
    let options = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true);
    let db = SqlitePool::connect_with(options).await.expect("opens");
    old.run(&db).await.expect("the old schema");
    sqlx::query(
        "INSERT INTO devices (name, user, groups, public_key, host, created)
         VALUES ('ana', 'ana@example.com', '[\"sre\"]', $1, 2, 100)",
    )
    .bind(key(1).to_string())
    .execute(&db)
    .await
    .expect("a device");
    db.close().await;

    let store = open(&folder, "100.96.0.0/16").await;
    let device = store.device("ana").await.expect("there");
    assert_eq!(device.state(), DeviceState::Active);
    assert_eq!((device.approved, device.key_since), (Some(100), 100));
    let record = store.record("ana", 200, &TERMS).await.expect("there");
    assert_eq!(record.standing, Default::default());
    let user = store.user("ANA@example.com").await.expect("known");
    assert_eq!((user.devices, user.created), (1, 100));
}

#[tokio::test]
async fn approval_is_withdrawn_and_given_and_neither_comes_after_revocation() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    store.add_device(device("ana", 1), 1).await.expect("added");
    let denied = store.deny_device("ana", 5).await.expect("denied");
    assert_eq!(denied.state(), DeviceState::Denied);
    assert_eq!(denied.held(), Some(Held::Approval));
    store.deny_device("ana", 6).await.expect("denied");
    store.close().await;

    let store = open(&folder, "100.96.0.0/16").await;
    assert_eq!(
        store.device("ana").await.expect("there").denied,
        Some(5),
        "the first time stays"
    );
    let approved = store.approve_device("ana", 7).await.expect("approved");
    assert_eq!((approved.approved, approved.held()), (Some(7), None));
    store.revoke_device("ana", 8).await.expect("revoked");
    assert!(store.approve_device("ana", 9).await.is_err());
    assert!(matches!(
        store.deny_device("eve", 9).await,
        Err(StoreError::NoDevice { .. })
    ));
}

#[tokio::test]
async fn a_disabled_user_holds_every_device() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    for (name, seed) in [("ana", 1), ("ana2", 2)] {
        store
            .add_device(device(name, seed), 1)
            .await
            .expect("added");
    }
    let user = store.set_user_disabled("Ana@Example.com", true, 5).await;
    assert_eq!(user.expect("known").disabled, Some(5));
    for held in store.devices_of("ana@example.com").await.expect("two") {
        assert_eq!(held.held(), Some(Held::UserDisabled));
    }
    let all = store.active_devices(6, &TERMS).await.expect("two");
    let held: Vec<_> = all.iter().map(|device| device.standing.held).collect();
    assert_eq!(
        held,
        [Some(Held::UserDisabled); 2],
        "they may connect, and ask why"
    );
    let user = store.set_user_disabled("ana@example.com", false, 7).await;
    assert_eq!(user.expect("known").disabled, None);
    assert_eq!(store.device("ana").await.expect("there").held(), None);
    assert!(store.set_user_disabled("eve", true, 7).await.is_err());
}

#[tokio::test]
async fn a_key_that_was_replaced_or_revoked_never_comes_back() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    store.add_device(device("ana", 1), 1).await.expect("added");
    store.add_device(device("bob", 9), 1).await.expect("added");
    let begun = store
        .begin_rotation("ana", &key(2), None, 5)
        .await
        .expect("begun");
    assert_eq!(begun.next_key, Some(key(2)));
    let preshared = PresharedKey([3; 32]);
    let again = store
        .begin_rotation("ana", &key(3), Some(&preshared), 6)
        .await;
    assert_eq!(again.expect("replaced").next_key, Some(key(3)));
    for taken in [key(9), key(1)] {
        assert!(store.begin_rotation("ana", &taken, None, 6).await.is_err());
    }
    assert!(store.begin_rotation("bob", &key(3), None, 6).await.is_err());
    assert_eq!(
        store
            .finish_rotation(&key(1), &key(2), 7)
            .await
            .expect("read")
            .map(|_| ()),
        None
    );
    store.close().await;

    let store = open(&folder, "100.96.0.0/16").await;
    let pending = store.pending_rotations().await.expect("one");
    let [(waits, next, Some(secret))] = &pending[..] else {
        panic!("{pending:?}")
    };
    assert_eq!(
        (waits.record.key, *next, secret.0),
        (key(1), key(3), [3; 32])
    );
    let by_next = store.device_by_key(&key(3)).await.expect("read");
    assert_eq!(by_next.expect("it may connect").record.name, "ana");
    let done = store
        .finish_rotation(&key(1), &key(3), 8)
        .await
        .expect("stored");
    let done = done.expect("it waited for this");
    assert_eq!(
        (done.record.key, done.key_since, done.next_key),
        (key(3), 8, None)
    );
    assert_eq!(done.record.preshared_key.expect("new").0, [3; 32]);
    assert!(store.device_by_key(&key(1)).await.expect("read").is_none());
    let refused = store
        .add_device(device("eve", 1), 9)
        .await
        .expect_err("spent");
    assert!(refused.to_string().contains("once"), "{refused}");

    store
        .begin_rotation("ana", &key(4), None, 10)
        .await
        .expect("begun");
    let revoked = store.revoke_device("ana", 11).await.expect("revoked");
    assert_eq!(revoked.next_key, None, "what was to come never does");
    assert!(
        store
            .finish_rotation(&key(3), &key(4), 12)
            .await
            .expect("read")
            .is_none()
    );
    for spent in [3, 4] {
        assert!(store.add_device(device("eve", spent), 12).await.is_err());
        assert!(
            store
                .device_by_key(&key(spent))
                .await
                .expect("read")
                .is_none()
        );
    }
}
