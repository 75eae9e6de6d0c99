//! What names meant.

use super::*;
use crate::store::names::{MAX_ANSWERS, StoredName};
use postern_proto::now::Wall;

fn answer(name: &str, addresses: &[&str], since: u64, checked: u64) -> StoredName {
    let addresses = addresses.iter();
    StoredName {
        name: name.to_owned(),
        addresses: addresses.map(|one| one.parse().expect("address")).collect(),
        since: Wall(since * 1_000_000_000),
        until: None,
        checked: Wall(checked * 1_000_000_000),
        ttl: 60,
    }
}

#[tokio::test]
async fn what_a_name_means_and_meant_survives_a_restart() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    let old = answer("api.example.com", &["192.0.2.1", "2001:db8::1"], 10, 10);
    let again = StoredName {
        ttl: 30,
        ..answer("api.example.com", &["192.0.2.1", "2001:db8::1"], 10, 20)
    };
    let new = answer("api.example.com", &["192.0.2.2"], 30, 30);
    let other = answer("db.example.com", &["192.0.2.9"], 15, 15);
    for one in [&old, &other, &again, &new] {
        store
            .note_names(std::slice::from_ref(one))
            .await
            .expect("noted");
    }
    store.close().await;
    let store = open(&folder, "100.96.0.0/16").await;
    let now = store.names_now().await.expect("read");
    assert_eq!(now, [new.clone(), other.clone()]);

    let at = async |seconds: u64| {
        let meant = store.names_at(Wall(seconds * 1_000_000_000)).await;
        let meant = meant.expect("read");
        meant.get("api.example.com").cloned().unwrap_or_default()
    };
    assert_eq!(at(9).await, Vec::<std::net::IpAddr>::new());
    assert_eq!(at(10).await, old.addresses);
    assert_eq!(at(29).await, old.addresses);
    assert_eq!(at(30).await, new.addresses);

    let ended = ["api.example.com".to_owned()];
    store
        .end_names(&ended, Wall(40_000_000_000))
        .await
        .expect("ended");
    assert_eq!(at(39).await, new.addresses);
    assert!(at(40).await.is_empty());
    let before = Wall(30_000_000_001);
    store.forget_past(before).await.expect("forgotten");
    assert!(at(29).await.is_empty());
    assert_eq!(at(39).await, new.addresses);
    assert_eq!(store.names_now().await.expect("read"), [other]);
}

#[tokio::test]
async fn the_past_of_a_name_is_bounded() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    let count = u64::try_from(MAX_ANSWERS).expect("small") + 3;
    let all: Vec<StoredName> = (1..=count)
        .map(|n| {
            answer(
                "api.example.com",
                &[&format!("10.0.{}.{}", n / 256, n % 256)],
                n,
                n,
            )
        })
        .collect();
    store.note_names(&all).await.expect("noted");
    let kept = store.names_between(Wall(0), Wall::NEVER).await;
    let kept = kept.expect("read");
    assert_eq!(kept.len() as i64, MAX_ANSWERS);
    assert_eq!(kept[0].addresses, all[3].addresses, "the oldest went");
}
