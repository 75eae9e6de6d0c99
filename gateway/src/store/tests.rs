use super::*;
use crate::scratch::Scratch;
use postern_proto::keys::PrivateKey;
use std::os::unix::fs::PermissionsExt;

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
    assert!(store.active_devices().await.expect("list").is_empty());
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
