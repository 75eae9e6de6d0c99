use super::*;
use crate::worker_api::DeviceRecord;
use postern_engine::standing::Reported;
use postern_proto::facts::Facts;
use postern_proto::now::Wall;
use std::sync::Arc;

fn at(seconds: u64) -> Wall {
    Wall(seconds * rows::NANOS)
}

fn reported(seconds: u64) -> Option<Reported> {
    Some(Reported {
        facts: Arc::new(Facts::default()),
        at: at(seconds),
        fresh_until: at(seconds + 180),
    })
}

/// A store with the device `ana`, as a worker needs it.
async fn with_ana(folder: &Scratch) -> (Store, DeviceRecord) {
    let store = open(folder, "100.96.0.0/16").await;
    store.add_device(device("ana", 1), 1).await.expect("added");
    let ana = store.record("ana", 1, &TERMS).await.expect("there");
    (store, ana)
}

/// What is noted of `ana`: from, until, and until when the report counts, in seconds.
async fn rows_of(store: &Store) -> Vec<(u64, Option<u64>, Option<u64>)> {
    let found = store.facts_between(Wall(0), Wall::NEVER).await;
    let rows = found.expect("read").into_iter();
    let seconds = |wall: Option<Wall>| wall.map(Wall::seconds);
    rows.map(|row| {
        (
            row.since.seconds(),
            seconds(row.until),
            seconds(row.fresh_until),
        )
    })
    .collect()
}

#[tokio::test]
async fn a_row_for_each_time_that_a_device_stood_otherwise() {
    let folder = Scratch::new();
    let (store, mut ana) = with_ana(&folder).await;
    let first = store.note_facts(&ana, at(10)).await.expect("noted");
    assert_eq!(store.note_facts(&ana, at(11)).await.expect("noted"), first);
    ana.groups.push("oncall".to_owned());
    let other = store.note_facts(&ana, at(20)).await.expect("noted");
    assert_ne!(first, other);
    ana.groups.pop();
    assert_eq!(store.note_facts(&ana, at(30)).await.expect("noted"), first);

    let rows = [(10, Some(20), None), (20, Some(30), None), (30, None, None)];
    assert_eq!(rows_of(&store).await, rows);
    let named = store.facts_by_id(&first).await.expect("read");
    assert_eq!(named.len(), 2, "the same facts at two times");
    assert_eq!(named[0].subject().expect("readable").groups, ana.groups);
    let then = |when| store.facts_at("ana", at(when));
    assert_eq!(then(9).await.expect("read"), None);
    assert_eq!(then(20).await.expect("read").map(|row| row.id), Some(other));
    store.end_facts("ana", at(40)).await.expect("ended");
    assert_eq!(then(39).await.expect("read").map(|row| row.id), Some(first));
    assert_eq!(then(40).await.expect("read"), None);
    assert!(
        store
            .facts_between(at(40), at(50))
            .await
            .expect("read")
            .is_empty()
    );
}

#[tokio::test]
async fn a_report_in_time_renews_the_row_and_a_late_one_begins_another() {
    let folder = Scratch::new();
    let (store, mut ana) = with_ana(&folder).await;
    for when in [100, 160, 279] {
        ana.standing.reported = reported(when);
        store.note_facts(&ana, at(when)).await.expect("noted");
    }
    assert_eq!(rows_of(&store).await, [(100, None, Some(459))]);
    ana.standing.reported = reported(459);
    store.note_facts(&ana, at(459)).await.expect("noted");
    let rows = [(100, Some(459), Some(459)), (459, None, Some(639))];
    assert_eq!(rows_of(&store).await, rows, "it was stale for a moment");
    // Another configuration: reports count less long. What counted until then did count.
    ana.standing.reported = Some(Reported {
        fresh_until: at(500),
        ..reported(459).expect("set")
    });
    store.note_facts(&ana, at(490)).await.expect("noted");
    assert_eq!(
        rows_of(&store).await[1..],
        [(459, Some(490), Some(639)), (490, None, Some(500))]
    );
}

#[tokio::test]
async fn a_start_notes_who_may_connect_and_ends_the_rest() {
    let folder = Scratch::new();
    let (store, ana) = with_ana(&folder).await;
    store.add_device(device("bob", 2), 1).await.expect("added");
    let bob = store.record("bob", 1, &TERMS).await.expect("there");
    let all = vec![ana.clone(), bob];
    let noted = store.noted_all(all, at(5)).await.expect("noted");
    let id = noted[0].record().standing.facts.clone();
    assert!(id.is_some() && id != noted[1].record().standing.facts);

    let noted = store.noted_all(vec![ana], at(9)).await.expect("noted");
    assert_eq!(noted[0].record().standing.facts, id);
    assert_eq!(rows_of(&store).await, [(5, None, None), (5, Some(9), None)]);
}

#[tokio::test]
async fn ten_thousand_devices_are_noted_in_one_go() {
    let folder = Scratch::new();
    let (store, ana) = with_ana(&folder).await;
    let devices: Vec<DeviceRecord> = (0..10_000)
        .map(|number| DeviceRecord {
            name: format!("d{number}"),
            ..ana.clone()
        })
        .collect();
    for when in [5, 6] {
        let noted = store
            .noted_all(devices.clone(), at(when))
            .await
            .expect("noted");
        assert_eq!(noted.len(), 10_000);
    }
    assert_eq!(rows_of(&store).await.len(), 10_000, "nothing was new");
}

#[tokio::test]
async fn a_device_has_only_so_many_rows() {
    let folder = Scratch::new();
    let (store, mut ana) = with_ana(&folder).await;
    let most = u64::try_from(MAX_FACTS_ROWS).expect("positive");
    let mut tx = store.begin().await.expect("begun");
    for number in 0..most {
        sqlx::query(
            "INSERT INTO facts (id, device, text, since, until) VALUES ('x', 'ana', '{}', $1, $1)",
        )
        .bind(rows::signed(number))
        .execute(&mut *tx)
        .await
        .expect("written");
    }
    store.commit(tx).await.expect("committed");
    for when in [1, 2] {
        ana.groups.push(format!("g{when}"));
        store.note_facts(&ana, at(when)).await.expect("noted");
    }
    let rows = store
        .facts_between(Wall(0), Wall::NEVER)
        .await
        .expect("read");
    assert_eq!(rows.len() as u64, most);
    assert_eq!(rows[0].since, Wall(2), "the oldest are gone");
}

#[tokio::test]
async fn policies_are_found_by_hash_and_by_time() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    let hashes = [
        format!("ab{}", "0".repeat(62)),
        format!("ac{}", "0".repeat(62)),
    ];
    for (hash, when) in hashes.iter().zip([10, 20]) {
        store
            .keep_policy("text", hash, at(when))
            .await
            .expect("kept");
        store
            .keep_policy("text", hash, at(when))
            .await
            .expect("kept already");
        let change = change(hash, when);
        store.log_policy_change(&change).await.expect("written");
    }
    let found = store
        .policy_source("AB")
        .await
        .expect("one")
        .expect("there");
    assert_eq!(found, (hashes[0].clone(), "text".to_owned()));
    assert!(store.policy_source("a").await.is_err(), "two begin so");
    for none in ["", "ad", "*", "current"] {
        assert_eq!(
            store.policy_source(none).await.expect("read"),
            None,
            "{none}"
        );
    }
    let then = |when| store.policy_at(at(when));
    assert_eq!(then(9).await.expect("read"), None);
    assert_eq!(then(19).await.expect("read").as_ref(), Some(&hashes[0]));
    assert_eq!(then(20).await.expect("read").as_ref(), Some(&hashes[1]));
    let newest = &store.policy_changes().await.expect("read")[0];
    assert_eq!((newest.id, &newest.change), (2, &change(&hashes[1], 20)));
    let unknown = change(&"f".repeat(64), 30);
    assert!(store.log_policy_change(&unknown).await.is_err(), "no text");
}

fn change(hash: &str, when: u64) -> NewChange {
    NewChange {
        hash: hash.to_owned(),
        at: at(when),
        how: How::Apply,
        made_by: "root".to_owned(),
        reason: Some("INC-42".to_owned()),
        cut: 3,
    }
}

#[tokio::test]
async fn one_change_waits_and_survives_a_restart() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    let pending = Pending {
        hash: "b".repeat(64),
        previous: "a".repeat(64),
        deadline: at(120),
        token: "0".repeat(64),
        made_by: "root".to_owned(),
    };
    store
        .begin_pending(&pending, "text", at(1))
        .await
        .expect("begun");
    assert!(store.begin_pending(&pending, "text", at(1)).await.is_err());
    store.close().await;
    let store = open(&folder, "100.96.0.0/16").await;
    assert_eq!(
        store.pending().await.expect("read").as_ref(),
        Some(&pending)
    );
    let kept = store.policy_source(&pending.hash).await.expect("read");
    assert_eq!(kept.map(|(_, source)| source).as_deref(), Some("text"));
    assert!(!format!("{pending:?}").contains(&pending.token));
    store.end_pending().await.expect("ended");
    assert_eq!(store.pending().await.expect("read"), None);
}

#[tokio::test]
async fn what_no_record_rests_on_is_forgotten() {
    let folder = Scratch::new();
    let (store, mut ana) = with_ana(&folder).await;
    for when in [10, 20, 30] {
        ana.groups.push(format!("g{when}"));
        store.note_facts(&ana, at(when)).await.expect("noted");
    }
    let hash = |number: i64| format!("{number:064x}");
    for number in 0..CHANGES_KEPT + 2 {
        let when = u64::try_from(number).expect("positive");
        store
            .keep_policy("text", &hash(number), at(when))
            .await
            .expect("kept");
        store
            .log_policy_change(&change(&hash(number), when))
            .await
            .expect("written");
    }
    store.forget_past(at(1)).await.expect("forgotten");
    let left = |number| {
        let store = store.clone();
        async move {
            store
                .policy_source(&hash(number))
                .await
                .expect("read")
                .is_some()
        }
    };
    assert!(
        !left(0).await && left(1).await,
        "the second was in force then"
    );
    assert_eq!(rows_of(&store).await.len(), 3);
    store.forget_past(at(25)).await.expect("forgotten");
    assert_eq!(
        rows_of(&store).await,
        [(20, Some(30), None), (30, None, None)]
    );
    assert!(
        !left(1).await && left(2).await,
        "so many are kept in any case"
    );
}

#[tokio::test]
async fn facts_are_looked_up_by_their_moment() {
    let folder = Scratch::new();
    let (store, mut ana) = with_ana(&folder).await;
    let id = store.note_facts(&ana, at(10)).await.expect("noted");
    ana.groups.push("oncall".to_owned());
    store.note_facts(&ana, at(20)).await.expect("noted");
    ana.groups.pop();
    assert_eq!(store.note_facts(&ana, at(30)).await.expect("noted"), id);
    let of = async |id: &str, when| {
        let found = store.facts_of(id, at(when)).await.expect("read");
        found.map(|(row, next)| (row.since.seconds(), next.map(Wall::seconds)))
    };
    // Before the first, at its beginning, while others were in force, and from the last on.
    for (when, row) in [(9, 10), (10, 10), (25, 10), (29, 10), (30, 30), (99, 30)] {
        let next = (row == 10).then_some(30);
        assert_eq!(of(&id, when).await, Some((row, next)), "at {when}");
    }
    assert_eq!(of("0123456789abcdef", 10).await, None);
}
