//! Access for a while: who may ask, who may approve, and what the data plane and the log see.

use super::*;
use crate::api::DecideAs;
use crate::control::Decision;

const WITH_GRANTS: &str = "version: 1
targets:
  nodes: { addresses: [192.0.2.10], ports: [22/tcp] }
  lab: { addresses: [192.0.2.20], ports: [7000/tcp] }
rules:
  - { name: wiki, action: allow, from: { groups: [wiki] }, to: [{ addresses: [192.0.2.80], ports: [443/tcp] }] }
grants:
  - { name: nodes for a while, from: { groups: [staff] }, to: [nodes], max: 1h, approvers: { groups: [leads] } }
  - { name: the lab, from: { groups: [staff] }, to: [lab], max: 30m, break_glass: true }
";

const LEAD: u8 = 5;
const BOS_TABLET: u8 = 6;

/// `lead-laptop` is of the group that approves, and so is bo's other device.
async fn world() -> World {
    let world = World::start().await;
    std::fs::write(&world.config.policy, WITH_GRANTS).expect("written");
    let reloaded = world.control.policy.reload().await;
    assert!(reloaded.policy.errors.is_empty(), "{reloaded:?}");
    for (name, user, seed) in [
        ("lead-laptop", "lea", LEAD),
        ("bo-tablet", "BO", BOS_TABLET),
    ] {
        let groups = ["leads".to_owned(), "staff".to_owned()];
        let device = Enrolment::new(name, Some(user), &groups, key(seed), None);
        let added = world.control.store.add_device(device.expect("clean"), 1);
        added.await.expect("added");
    }
    world
}

fn wish(id: &str, target: &str) -> Value {
    json!({ "id": id, "target": target, "seconds": 60, "reason": "INC-42" })
}

const ONE: &str = "222222222222";
const TWO: &str = "333333333333";

#[tokio::test]
async fn what_somebody_else_approved_is_in_force_and_written_down() {
    let world = world().await;
    let (status, asked) = world.post(BO, "/v1/grants", wish(ONE, "nodes")).await;
    assert_eq!((status, &asked["state"]), (200, &json!("waits")), "{asked}");
    assert!(world.fake.asked().updated.is_empty(), "nothing is given");
    let (_, again) = world.post(BO, "/v1/grants", wish(ONE, "nodes")).await;
    assert_eq!(again, asked);

    let (_, seen) = world.get(LEAD, "/v1/grants").await;
    assert_eq!(seen["to_decide"][0]["id"], ONE);
    let (_, seen) = world.get(BO, "/v1/grants").await;
    assert_eq!((&seen["own"][0], &seen["to_decide"]), (&asked, &json!([])));
    let (_, seen) = world.get(ROBOT, "/v1/grants").await;
    assert_eq!(seen, json!({ "own": [], "to_decide": [], "left_out": 0 }));
    let path = format!("/v1/grants/{ONE}");
    assert_eq!(world.get(ROBOT, &path).await.0, 404);

    let approve = format!("{path}/approve");
    let said = json!({ "reason": "be quick" });
    let (status, live) = world.post(LEAD, &approve, said.clone()).await;
    assert_eq!((status, &live["state"]), (200, &json!("live")), "{live}");
    assert_eq!(live["decided_by"], "lea");
    let until = live["until"].as_u64().expect("an end");
    {
        let told = world.fake.asked();
        let grant = &told.updated.last().expect("told").standing.grants[0];
        assert_eq!((&*grant.id, grant.until.seconds()), (ONE, until));
    }
    let (status, again) = world.post(LEAD, &approve, said).await;
    assert_eq!(
        (status, &again["state"]),
        (200, &json!("live")),
        "a lost answer"
    );
    let (_, device) = world.get(BO, "/v1/device").await;
    assert_eq!(device["grants"][0]["until"], until);

    let (status, _, ended) = world.ask(BO, "DELETE", &path, None).await;
    assert_eq!(
        (status, &ended["state"]),
        (200, &json!("revoked")),
        "{ended}"
    );
    assert!(
        world
            .fake
            .asked()
            .updated
            .last()
            .expect("told")
            .standing
            .grants
            .is_empty()
    );
    let lines = world.audited();
    let lines: Vec<_> = lines
        .iter()
        .map(|line| {
            (
                line["action"].as_str(),
                line["user"].as_str(),
                line["object"].as_str(),
            )
        })
        .collect();
    assert_eq!(
        lines,
        [
            (Some("grant-request"), Some("bo"), Some(ONE)),
            (Some("grant-approve"), Some("lea"), Some(ONE)),
            (Some("grant-revoke"), Some("bo"), Some(ONE)),
        ]
    );
}

#[tokio::test]
async fn nobody_approves_their_own_on_any_device_or_at_the_gateway() {
    let world = world().await;
    world.post(BO, "/v1/grants", wish(ONE, "nodes")).await;
    let approve = format!("/v1/grants/{ONE}/approve");
    for who in [BO, BOS_TABLET, ROBOT] {
        let (status, body) = world.post(who, &approve, json!({})).await;
        assert_eq!(
            (status, &body["code"]),
            (403, &json!("grant-refused")),
            "{body}"
        );
    }
    let tablet = world
        .control
        .store
        .device("bo-tablet")
        .await
        .expect("there");
    let from = Some(tablet.record.v4.into());
    let as_who = |user: Option<&str>, from| DecideAs {
        user: user.map(str::to_owned),
        from,
        reason: None,
    };
    for by in [
        as_who(None, None),
        as_who(Some("bo"), None),
        as_who(Some("Bo"), None),
        as_who(None, from),
        as_who(Some("lea"), from),
        as_who(Some("nobody"), None),
    ] {
        let decided = world
            .control
            .decide_grant_as(Some(0), ONE, Decision::Approve, &by);
        decided.await.expect_err("refused");
    }
    let grant = world.control.store.grant(ONE).await.expect("there");
    assert_eq!(grant.approved, None);
    assert!(world.fake.asked().updated.is_empty(), "nothing is given");
    let refused = world.audited();
    assert!(
        refused
            .iter()
            .filter(|line| line["outcome"] == "refused")
            .count()
            >= 8,
        "{refused:?}"
    );

    let by = as_who(Some("lea"), None);
    let decided = world
        .control
        .decide_grant_as(Some(0), ONE, Decision::Approve, &by);
    assert_eq!(
        decided.await.expect("approved").decided_by.as_deref(),
        Some("lea")
    );
}

#[tokio::test]
async fn break_glass_is_at_once_counted_and_only_where_the_policy_says_so() {
    let world = world().await;
    let glass = |id: &str, target: &str| {
        let mut wish = wish(id, target);
        wish["break_glass"] = json!(true);
        wish
    };
    let (status, body) = world.post(BO, "/v1/grants", glass(ONE, "nodes")).await;
    assert_eq!(
        (status, &body["code"]),
        (403, &json!("grant-refused")),
        "{body}"
    );
    let (status, body) = world.post(BO, "/v1/grants", glass(TWO, "lab")).await;
    assert_eq!((status, &body["state"]), (200, &json!("live")), "{body}");
    world.post(BO, "/v1/grants", glass(TWO, "lab")).await;
    let facts = world.control.facts().await;
    assert_eq!(facts.asked.break_glass, [("the lab".to_owned(), 1)].into());
    assert_eq!(facts.grants, Some((0, 1)));
    assert!(world.fake.asked().updated[0].standing.grants[0].break_glass);
    let done = world.audited();
    let done: Vec<_> = done
        .iter()
        .filter(|line| line["outcome"] == "done")
        .collect();
    assert_eq!(done.len(), 1);
    assert_eq!(
        (&done[0]["action"], &done[0]["reason"]),
        (&json!("break-glass"), &json!("INC-42"))
    );
    // Three, and then one in ten minutes: two are left of them no more.
    let (status, body) = world
        .post(BO, "/v1/grants", glass("444444444444", "lab"))
        .await;
    assert_eq!((status, &body["code"]), (429, &json!("too-many")));
}

#[tokio::test]
async fn what_the_policy_or_the_form_does_not_allow_is_refused() {
    let world = world().await;
    let with = |name: &str, value: Value| {
        let mut wish = wish(ONE, "nodes");
        wish[name] = value;
        wish
    };
    for (who, body, code) in [
        (BO, with("id", json!("short")), "bad-request"),
        (BO, with("seconds", json!(0)), "bad-request"),
        (BO, with("reason", json!("x")), "bad-request"),
        (
            BO,
            with("reason", json!("turned \u{202e}round")),
            "bad-request",
        ),
        (BO, with("seconds", json!(3601)), "grant-refused"),
        (BO, with("target", json!("no such")), "grant-refused"),
        (
            BO,
            with("target", json!("192.0.2.10:23/tcp")),
            "grant-refused",
        ),
        (ROBOT, with("target", json!("nodes")), "grant-refused"),
        (BORROWED, with("target", json!("nodes")), "grant-refused"),
    ] {
        let (_, answer) = world.post(who, "/v1/grants", body.clone()).await;
        assert_eq!(answer["code"], code, "{body} {answer}");
    }
    assert!(
        world
            .control
            .store
            .grants(true)
            .await
            .expect("read")
            .is_empty()
    );
    let (status, _) = world
        .post(BO, "/v1/grants", with("target", json!("192.0.2.10:22/tcp")))
        .await;
    assert_eq!(status, 200, "an address inside the target");
    let (_, taken) = world.post(LEAD, "/v1/grants", wish(ONE, "nodes")).await;
    assert_eq!(taken["code"], "taken");
}

#[tokio::test]
async fn what_changed_meanwhile_counts_when_it_is_approved() {
    let world = world().await;
    world.post(BO, "/v1/grants", wish(ONE, "nodes")).await;
    world.post(BO, "/v1/grants", wish(TWO, "nodes")).await;
    let approve = |id: &str| format!("/v1/grants/{id}/approve");
    world.control.disable_user("bo").await.expect("disabled");
    let (_, body) = world.post(LEAD, &approve(ONE), json!({})).await;
    assert_eq!(body["code"], "grant-refused", "{body}");
    world.control.enable_user("bo").await.expect("enabled");
    std::fs::write(&world.config.policy, POLICY).expect("written");
    world.control.policy.reload().await;
    let by = DecideAs {
        user: Some("lea".to_owned()),
        ..DecideAs::default()
    };
    let decided = world
        .control
        .decide_grant_as(None, ONE, Decision::Approve, &by);
    decided.await.expect_err("the policy has no such entry");
    let denied = world
        .control
        .decide_grant_as(None, ONE, Decision::Deny, &by);
    denied.await.expect("a no is always possible");
    let (_, late) = world.post(LEAD, &approve(ONE), json!({})).await;
    assert_eq!(late["code"], "grant-refused", "an approver no more: {late}");
}

#[tokio::test]
async fn what_was_stored_and_not_told_of_is_told_at_the_next_start_and_once() {
    let world = world().await;
    let mut asked = wish(TWO, "lab");
    asked["break_glass"] = json!(true);
    world.post(BO, "/v1/grants", asked).await;
    let lines = |action: &str| {
        let all = world.audited();
        all.iter().filter(|line| line["action"] == action).count()
    };
    world.control.tell_untold_grants().await.expect("read");
    assert_eq!(lines("break-glass"), 1, "it was told");

    // As if the program had died between the store and the log.
    world.post(BO, "/v1/grants", wish(ONE, "nodes")).await;
    let now = Clock::now().wall.seconds();
    let approved = world
        .control
        .store
        .approve_grant(ONE, "lea", None, now)
        .await;
    approved.expect("stored").expect("it waited");
    for _ in 0..2 {
        world.control.tell_untold_grants().await.expect("read");
        assert_eq!(lines("grant-approve"), 1);
    }
}

#[tokio::test]
async fn an_entry_that_asks_for_a_place_is_for_who_is_there() {
    let world = world().await;
    for (place, status) in [("203.0.113.0/24", 403), ("198.51.100.0/24", 200)] {
        let from = format!("from: {{ groups: [staff], outer: [{place}] }}");
        let source = WITH_GRANTS.replace("from: { groups: [staff] }", &from);
        std::fs::write(&world.config.policy, source).expect("written");
        world.control.policy.reload().await;
        let (got, body) = world.post(BO, "/v1/grants", wish(ONE, "nodes")).await;
        assert_eq!(got, status, "{body}");
    }
}

#[tokio::test]
async fn a_revoked_device_stands_no_way_whatever_comes_later() {
    let world = world().await;
    let mut asked = wish(TWO, "lab");
    asked["break_glass"] = json!(true);
    world.post(BO, "/v1/grants", asked).await;
    let store = &world.control.store;
    let at = || Clock::now().wall;
    assert!(
        store
            .facts_at("bo-laptop", at())
            .await
            .expect("read")
            .is_some()
    );
    world
        .control
        .revoke_device("bo-laptop")
        .await
        .expect("revoked");
    let by = DecideAs {
        user: Some("lea".to_owned()),
        ..DecideAs::default()
    };
    let ended = world.control.decide_grant_as(None, TWO, Decision::End, &by);
    ended.await.expect("ended");
    assert!(
        store
            .facts_at("bo-laptop", at())
            .await
            .expect("read")
            .is_none()
    );
    let lines = world.audited();
    assert!(lines.iter().any(|line| line["action"] == "grant-revoke"));
}
