//! Accounts and logins, reports and attributes.

use super::*;

#[tokio::test]
async fn one_account_of_an_issuer_is_one_user() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    let idp = "https://idp.example.com";
    let link = async |sub: &str, user: &str| store.link_identity(idp, sub, user, 5).await;
    link("1", "ana@example.com").await.expect("linked");
    link("1", "ana@example.com").await.expect("nothing new");
    assert!(
        link("2", "ana@example.com").await.is_err(),
        "the name was given to another person"
    );
    assert!(link("1", "bob@example.com").await.is_err());
    store
        .link_identity("email", "ana@example.com", "ana@example.com", 5)
        .await
        .expect("another issuer");
    let user = store.user_of(&format!("{idp}|1")).await.expect("read");
    assert_eq!(user.as_deref(), Some("ana@example.com"));
    assert_eq!(store.user_of("x|1").await.expect("read"), None);
    assert!(
        store.user("bob@example.com").await.is_err(),
        "a refusal makes no user"
    );
}

#[tokio::test]
async fn a_session_brings_groups_until_it_ends() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    store.add_device(device("ana", 1), 1).await.expect("added");
    let first = store
        .begin_session(&login("ana", "Ana@example.com"), 10)
        .await;
    let first = first.expect("begun");
    let record = store.record("ana", 11, &TERMS).await.expect("there");
    assert_eq!(record.groups, ["oncall", "platform", "sre"]);
    let session = record.standing.session.expect("in force");
    assert_eq!(
        (session.since.seconds(), &*session.id),
        (10, first.id.as_str())
    );
    assert_eq!(session.amr, ["otp", "pwd"]);

    let second = store
        .begin_session(&login("ana", "ana@example.com"), 20)
        .await;
    let second = second.expect("begun");
    let past = store.session(&first.id).await.expect("remembered");
    assert_eq!(past.end_reason.as_deref(), Some("renewed"));
    assert!(
        store
            .begin_session(&login("ana", "bob@example.com"), 21)
            .await
            .is_err()
    );
    assert_eq!(store.sessions(false).await.expect("list")[0], second);

    assert_eq!(store.sessions_due(99).await.expect("none"), []);
    assert_eq!(store.sessions_due(100).await.expect("one")[0], second);
    let ended = store
        .end_session(&second.id, "age", 100)
        .await
        .expect("ended");
    assert_eq!(ended.expect("now").ended, Some(100));
    assert_eq!(
        store
            .end_session(&second.id, "age", 101)
            .await
            .expect("read"),
        None
    );
    store.close().await;

    let store = open(&folder, "100.96.0.0/16").await;
    let record = store.record("ana", 102, &TERMS).await.expect("there");
    assert_eq!((record.groups.len(), record.standing.session), (2, None));
    assert!(store.end_session("nonsense", "age", 1).await.is_err());
    for _ in 0..40 {
        let again = store
            .begin_session(&login("ana", "ana@example.com"), 103)
            .await;
        again.expect("begun");
    }
    assert!(
        store.sessions(true).await.expect("list").len() <= 17,
        "the past is bounded"
    );
}

#[tokio::test]
async fn reports_and_attributes_are_the_latest_and_end() {
    let folder = Scratch::new();
    let store = open(&folder, "100.96.0.0/16").await;
    store.add_device(device("ana", 1), 1).await.expect("added");
    let mut facts = postern_proto::facts::Facts::default();
    store.save_report("ana", &facts, 10).await.expect("stored");
    facts.os = Some("debian".to_owned());
    store.save_report("ana", &facts, 20).await.expect("stored");
    let attribute = |value: &str, until| StoredAttribute {
        name: "managed".to_owned(),
        value: value.to_owned(),
        until,
        set_by: "uid 0".to_owned(),
    };
    for value in ["no", "yes"] {
        let set = store
            .set_attribute("ana", &attribute(value, Some(50)))
            .await;
        set.expect("set");
    }
    let standing = store.standing("ana", 49, &TERMS).await.expect("there");
    let reported = standing.reported.expect("reported");
    assert_eq!((&*reported.facts, reported.at.seconds()), (&facts, 20));
    assert_eq!(reported.fresh_until.seconds(), 200);
    assert_eq!(standing.attributes["managed"].value, "yes");
    let later = store.standing("ana", 50, &TERMS).await.expect("there");
    assert!(later.attributes.is_empty(), "it has ended");

    assert!(
        store
            .set_attribute("eve", &attribute("yes", None))
            .await
            .is_err()
    );
    assert!(
        store
            .set_attribute("ana", &attribute("two words", None))
            .await
            .is_err()
    );
    let gone = store
        .unset_attribute("ana", "managed")
        .await
        .expect("was set");
    assert_eq!(gone, attribute("yes", Some(50)));
    assert!(store.unset_attribute("ana", "managed").await.is_err());
    for number in 0..MAX_ATTRIBUTES + 1 {
        let one = StoredAttribute {
            name: format!("a{number}"),
            ..attribute("x", None)
        };
        let set = store.set_attribute("ana", &one).await;
        assert_eq!(set.is_ok(), number < MAX_ATTRIBUTES, "{number}");
    }
    store
        .set_attribute(
            "ana",
            &StoredAttribute {
                name: "a1".into(),
                ..attribute("y", None)
            },
        )
        .await
        .expect("another value of one that is there");
}
