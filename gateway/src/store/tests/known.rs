//! Whom a policy may name.

use super::*;
use postern_engine::policy::Known;
use std::collections::BTreeSet;

fn names(names: &[&str]) -> Option<BTreeSet<String>> {
    Some(names.iter().map(|name| (*name).to_owned()).collect())
}

#[tokio::test]
async fn of_whom_there_is_none_nothing_is_known() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    assert_eq!(store.known(10).await.expect("known"), Known::default());
}

#[tokio::test]
async fn devices_their_users_groups_and_labels_are_known_until_they_are_revoked() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    let labels = ["env=prod".to_owned()];
    let laptop = device("ana-laptop", 1).with_labels(&labels).expect("clean");
    store.add_device(laptop, 1).await.expect("added");
    let runner = Enrolment::new("ci-7", None, &["ci".to_owned()], key(2), None);
    store
        .add_device(runner.expect("clean"), 1)
        .await
        .expect("added");
    let expected = Known {
        users: names(&["ana@example.com"]),
        devices: names(&["ana-laptop", "ci-7"]),
        groups: names(&["ci", "platform", "sre"]),
        labels: names(&["env=prod"]),
        issuers: None,
    };
    assert_eq!(store.known(10).await.expect("known"), expected);

    store.revoke_device("ana-laptop", 5).await.expect("revoked");
    let left = store.known(10).await.expect("known");
    assert_eq!(left.devices, names(&["ci-7"]));
    assert_eq!(left.groups, names(&["ci"]));
    assert_eq!(left.labels, None);
}

#[tokio::test]
async fn what_only_reads_sees_what_is_there_and_makes_nothing() {
    let folder = Scratch::new();
    let path = folder.path("gateway.db");
    let read = || Store::open_to_read(&path, pool("100.96.0.0/16"));
    assert!(read().await.is_err());
    assert!(!path.exists());

    let store = open(&folder, "100.96.0.0/16").await;
    store
        .add_device(device("ana-laptop", 1), 1)
        .await
        .expect("added");
    // Beside the one that writes, and after it.
    for _ in 0..2 {
        let reader = read().await.expect("opens");
        let known = reader.known(10).await.expect("known");
        assert_eq!(known.devices, names(&["ana-laptop"]));
        assert!(reader.next_boot().await.is_err(), "it must not write");
        reader.close().await;
        store.clone().close().await;
    }
}
