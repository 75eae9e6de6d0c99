//! From the request to its end, over restarts.

use super::*;
use postern_proto::device_api::GrantState;

const DAY: u64 = 24 * 3600;

fn new(id: &str, device: &str) -> NewGrant {
    NewGrant {
        id: id.to_owned(),
        device: device.to_owned(),
        user: Some("ana@example.com".to_owned()),
        entry: "nodes in an emergency".to_owned(),
        target: "nodes".to_owned(),
        seconds: 60,
        reason: "INC-42".to_owned(),
        break_glass: false,
    }
}

async fn ask(store: &Store, id: &str, device: &str, now: u64) -> StoredGrant {
    let (grant, new) = store.add_grant(&new(id, device), now).await.expect("taken");
    assert!(new);
    grant
}

async fn grants_of_record(store: &Store, now: u64) -> Vec<String> {
    let standing = store.standing("ana-laptop", now, &TERMS).await;
    let grants = standing.expect("read").grants;
    grants.iter().map(|grant| grant.id.to_string()).collect()
}

#[tokio::test]
async fn an_approved_request_stands_with_the_device_until_its_end_also_after_a_restart() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    store
        .add_device(device("ana-laptop", 1), 1)
        .await
        .expect("added");
    let asked = ask(&store, "one", "ana-laptop", 100).await;
    assert_eq!(asked.state(100), GrantState::Waits);
    store.close().await;

    let store = open(&folder, "100.96.0.0/16").await;
    assert_eq!(store.grant("one").await.expect("there"), asked);
    assert!(grants_of_record(&store, 150).await.is_empty());
    let live = store
        .approve_grant("one", "bob", Some("be quick"), 200)
        .await
        .expect("read")
        .expect("waited");
    assert_eq!((live.since, live.until), (Some(200), Some(260)));
    assert_eq!(live.word.as_deref(), Some("be quick"));
    store.close().await;

    let store = open(&folder, "100.96.0.0/16").await;
    assert_eq!(grants_of_record(&store, 259).await, ["one"]);
    assert!(grants_of_record(&store, 260).await.is_empty());
    let active = store.active_devices(259, &TERMS).await.expect("read");
    let grant = &active[0].standing.grants[0];
    assert_eq!((grant.since.seconds(), grant.until.seconds()), (200, 260));
    assert_eq!((&*grant.target, &*grant.reason), ("nodes", "INC-42"));
    assert!(store.grants_due(259).await.expect("read").is_empty());
    assert_eq!(store.grants_due(260).await.expect("read").len(), 1);
    let over = store.close_grant("one").await.expect("read").expect("open");
    assert_eq!((over.state(300), over.ended), (GrantState::Over, Some(260)));
    assert_eq!(
        store.close_grant("one").await.expect("read"),
        Err(Unchanged)
    );
}

#[tokio::test]
async fn the_same_request_is_one_and_its_id_is_nobody_elses() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    let first = ask(&store, "one", "ana-laptop", 100).await;
    let again = store.add_grant(&new("one", "ana-laptop"), 105).await;
    assert_eq!(again.expect("the same"), (first, false));
    for other in [
        new("one", "eve-laptop"),
        NewGrant {
            seconds: 61,
            ..new("one", "ana-laptop")
        },
        NewGrant {
            break_glass: true,
            ..new("one", "ana-laptop")
        },
    ] {
        let refused = store.add_grant(&other, 105).await.expect_err("another");
        assert!(matches!(refused, AddGrantError::Taken), "{refused}");
    }
}

#[tokio::test]
async fn a_decision_is_made_once_and_in_time() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    for id in ["denied", "late", "withdrawn", "revoked"] {
        ask(&store, id, id, 100).await;
    }
    let denied = store.deny_grant("denied", "bob", None, 101).await;
    let denied = denied.expect("read").expect("waited");
    assert_eq!(denied.state(102), GrantState::Denied);
    let after = store.approve_grant("denied", "bob", None, 102).await;
    assert_eq!(after.expect("read"), Err(Unchanged));

    let late = store.approve_grant("late", "bob", None, 100 + DAY).await;
    assert_eq!(late.expect("read"), Err(Unchanged));
    let expired = store.grant("late").await.expect("there");
    assert_eq!(expired.state(99 + DAY), GrantState::Waits);
    assert_eq!(expired.state(100 + DAY), GrantState::Expired);
    let put_away = store
        .close_grant("late")
        .await
        .expect("read")
        .expect("open");
    assert_eq!(put_away.state(u64::MAX), GrantState::Expired);

    let withdrawn = store.end_grant("withdrawn", "ana", None, 103).await;
    let withdrawn = withdrawn.expect("read").expect("open");
    assert_eq!(withdrawn.state(104), GrantState::Withdrawn);
    let after = store.approve_grant("withdrawn", "bob", None, 104).await;
    assert_eq!(after.expect("read"), Err(Unchanged));

    let live = store.approve_grant("revoked", "bob", None, 110).await;
    assert!(live.expect("read").is_ok());
    let revoked = store.end_grant("revoked", "bob", Some("done"), 120).await;
    let revoked = revoked.expect("read").expect("live");
    assert_eq!(revoked.state(121), GrantState::Revoked);
    let again = store.end_grant("revoked", "bob", None, 121).await;
    assert_eq!(again.expect("read"), Err(Unchanged));
    assert_eq!(store.count_grants().await.expect("read"), (0, 0));
    assert!(store.grant("none").await.is_err());
}

#[tokio::test]
async fn what_is_open_is_bounded_and_an_emergency_does_not_wait_in_that_queue() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    for n in 0..8 {
        ask(&store, &format!("a{n}"), "ana-laptop", 100).await;
    }
    let ninth = store.add_grant(&new("a8", "ana-laptop"), 100).await;
    assert!(matches!(ninth, Err(AddGrantError::TooManyOfDevice)));
    let freed = store.end_grant("a0", "ana", None, 101).await;
    assert!(freed.expect("read").is_ok());
    ask(&store, "a8", "ana-laptop", 102).await;

    for n in 8..1000 {
        ask(&store, &format!("b{n}"), &format!("device-{}", n / 8), 103).await;
    }
    let refused = store.add_grant(&new("c", "other"), 104).await;
    assert!(matches!(refused, Err(AddGrantError::TooMany)));
    let glass = NewGrant {
        break_glass: true,
        ..new("g", "other")
    };
    let (glass, _) = store.add_grant(&glass, 104).await.expect("at once");
    assert_eq!(glass.state(104), GrantState::Live);
    assert_eq!(glass.until, Some(164));
    assert_eq!(store.count_grants().await.expect("read"), (1000, 1));
    // What nobody decided makes room.
    ask(&store, "c", "other", 104 + DAY).await;
}

#[tokio::test]
async fn of_the_past_only_so_much_is_remembered() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    for n in 0..80_u64 {
        let id = format!("g{n}");
        ask(&store, &id, "ana-laptop", 100 + n).await;
        let ended = store.end_grant(&id, "ana", None, 101 + n).await;
        assert!(ended.expect("read").is_ok());
    }
    let all = store.grants(true).await.expect("read");
    assert_eq!(all.len(), 65, "64 and the one that came after");
    assert_eq!(all.last().expect("some").new.id, "g79");
    let own = store.grants_of("other", Some("ANA@example.com"), 5).await;
    let own: Vec<_> = own
        .expect("read")
        .into_iter()
        .map(|one| one.new.id)
        .collect();
    assert_eq!(own, ["g79", "g78", "g77", "g76", "g75"]);
}
