//! Who is let in, as whom, and for how long.

use super::*;
use crate::login::Who;
use crate::store::Terms;
use postern_proto::device_api::{LoginFinish, LoginStart};

impl World {
    async fn log_in(&self, device: &str, proven: Proven) -> Result<(), DeviceProblem> {
        self.control.log_in(device, None, proven).await.map(|_| ())
    }

    fn refusal(&self) -> String {
        let lines = self.audited();
        let last = lines.last().expect("a line");
        assert_eq!(
            (&last["action"], &last["outcome"]),
            (&json!("login"), &json!("refused"))
        );
        last["reason"].as_str().expect("words").to_owned()
    }
}

#[tokio::test]
async fn a_login_brings_groups_and_a_logout_takes_them() {
    let world = World::start().await;
    world
        .log_in("bo-laptop", proven("bo", &["sre"]))
        .await
        .expect("let in");
    let (_, status) = world.get(BO, "/v1/device").await;
    assert_eq!(status["groups"], json!(["sre", "staff"]));
    assert_eq!(status["session"]["method"], "oidc");
    assert_eq!(status["session"]["issuer"], "https://idp.example.com");
    let age = status["session"]["until"].as_u64().expect("an end")
        - status["session"]["since"].as_u64().expect("a begin");
    assert!((43_200..43_210).contains(&age), "{age} s");
    let told = world.fake.asked().updated.clone();
    assert_eq!(told[0].groups, ["sre", "staff"]);
    assert!(told[0].standing.session.is_some());

    let (status, _, after) = world.ask(BO, "POST", "/v1/logout", None).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&after["groups"], &after["session"]),
        (&json!(["staff"]), &Value::Null)
    );
    assert_eq!(
        world.fake.asked().updated.last().expect("told").groups,
        ["staff"]
    );
    let actions: Vec<_> = world
        .audited()
        .iter()
        .map(|line| line["action"].clone())
        .collect();
    assert_eq!(actions, ["login", "session-end"]);
    assert_eq!(world.audited()[1]["reason"], "logout");
    world.ask(BO, "POST", "/v1/logout", None).await;
    assert_eq!(world.audited().len(), 2, "there was nothing to end");
}

#[tokio::test]
async fn logins_that_fail_by_the_hundred_are_a_few_lines() {
    let world = World::start().await;
    let logins = &world.control.logins;
    let bogus = LoginFinish {
        id: "bogus".into(),
        code: None,
        state: None,
        iss: None,
    };
    let start = LoginStart::Browser {
        provider: None,
        port: 0,
    };
    let by = |device| Who {
        device,
        user: None,
        from: None,
    };
    let now = Clock::now().wall;
    for _ in 0..50 {
        let ended = logins.finish(by("borrowed"), &bogus, now).await;
        assert_eq!(ended.expect_err("bogus").code, ErrorCode::LoginExpired);
        let begun = logins.start(by("borrowed"), &start, now).await;
        begun.expect_err("port 0");
    }
    assert_eq!(world.audited().len(), 5);
    let ended = logins.finish(by("bo-laptop"), &bogus, now).await;
    ended.expect_err("bogus");
    assert_eq!(world.audited().len(), 6, "another one is not to blame");
}

#[tokio::test]
async fn another_login_replaces_the_groups_of_the_first() {
    let world = World::start().await;
    world
        .log_in("bo-laptop", proven("bo", &["sre"]))
        .await
        .expect("let in");
    let first = world.get(BO, "/v1/device").await.1["session"]["id"].clone();
    world
        .log_in("bo-laptop", proven("bo", &["ops"]))
        .await
        .expect("let in");
    let (_, status) = world.get(BO, "/v1/device").await;
    assert_eq!(status["groups"], json!(["ops", "staff"]));
    assert_ne!(status["session"]["id"], first);
    let line = world.audited().pop().expect("a line");
    assert_eq!(line["before"]["session"], first);
    assert_eq!(line["after"]["flows_cut"], 7, "as the data plane says");
}

#[tokio::test]
async fn a_device_is_the_first_users_for_ever() {
    let world = World::start().await;
    world
        .log_in("borrowed", proven("ana", &[]))
        .await
        .expect("its first user");
    assert_eq!(world.get(BORROWED, "/v1/device").await.1["user"], "ana");
    assert_eq!(world.get(BORROWED, "/v1/device").await.1["state"], "active");
    for device in ["borrowed", "bo-laptop"] {
        let refused = world.log_in(device, proven("eve", &["sre"])).await;
        assert_eq!(refused.expect_err("refused").code, ErrorCode::LoginRefused);
        assert!(world.refusal().contains("another user"));
    }
    let machine = world.log_in("robot", proven("bo", &[])).await;
    assert_eq!(machine.expect_err("refused").code, ErrorCode::LoginRefused);
    assert!(world.refusal().contains("machine"));
    assert_eq!(world.get(ROBOT, "/v1/device").await.1["user"], Value::Null);
}

#[tokio::test]
async fn an_account_is_one_user_and_a_user_one_account_of_an_issuer() {
    let world = World::start().await;
    world
        .log_in("bo-laptop", proven("bo", &[]))
        .await
        .expect("let in");
    let mut impostor = proven("bo", &[]);
    impostor.subject = "another".into();
    let refused = world.log_in("bo-laptop", impostor).await;
    assert_eq!(refused.expect_err("refused").code, ErrorCode::LoginRefused);
    let mut renamed = proven("bo", &[]);
    renamed.user = "ana".into();
    world
        .log_in("bo-laptop", renamed)
        .await
        .expect("the account says who it is");
    let mut other_issuer = proven("bo", &[]);
    other_issuer.issuer = "https://other.example.com".into();
    world
        .log_in("bo-laptop", other_issuer)
        .await
        .expect("one account each");
}

#[tokio::test]
async fn a_disabled_user_is_not_let_in() {
    let world = World::start().await;
    world
        .control
        .store
        .set_user_disabled("bo", true, 5)
        .await
        .expect("disabled");
    let refused = world.log_in("bo-laptop", proven("bo", &["sre"])).await;
    assert_eq!(refused.expect_err("refused").code, ErrorCode::LoginRefused);
    assert!(world.refusal().contains("disabled"));
    let live = world.control.store.live_sessions(Some("bo-laptop")).await;
    assert!(live.expect("read").is_empty());
}

#[tokio::test]
async fn a_session_ends_by_age_and_takes_its_groups_along() {
    let world = World::start().await;
    let text = std::fs::read_to_string(&world.config.path).expect("readable");
    let short = format!("{text}\nsession: {{ required: true, max_age: 1s }}\n");
    std::fs::write(&world.config.path, short).expect("written");
    world.control.config.reload();
    world
        .log_in("bo-laptop", proven("bo", &["sre"]))
        .await
        .expect("let in");
    let ended = async {
        while world
            .control
            .store
            .live_sessions(None)
            .await
            .is_ok_and(|live| !live.is_empty())
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        while world
            .audited()
            .last()
            .is_none_or(|line| line["action"] != "session-end")
        {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = world.control.keep_time() => unreachable!("never returns"),
        () = ended => {}
    }
    let told = world.fake.asked().updated.last().expect("told").clone();
    assert_eq!(
        (told.name.as_str(), told.groups),
        ("bo-laptop", vec!["staff".to_owned()])
    );
    let line = world.audited().pop().expect("a line");
    assert_eq!(
        (&line["reason"], &line["before"]["user"]),
        (&json!("age"), &json!("bo"))
    );
    assert_eq!(world.get(BO, "/v1/device").await.1["state"], "needs-login");
}

#[tokio::test]
async fn clients_hear_of_another_configuration_or_policy_and_standing_follows() {
    let world = World::start().await;
    let text = std::fs::read_to_string(&world.config.path).expect("readable");
    let all_told = async |before: usize| {
        while world.fake.asked().told < before + 3 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let waiting = async {
        // The janitor has looked once when it tells of the second change.
        let mut told = 0;
        for include in ["192.0.2.0/24", "192.0.2.0/25"] {
            let changed = format!("{text}\ninclude: [{include}]\nsession: {{ required: true }}\n");
            std::fs::write(&world.config.path, changed).expect("written");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            world.control.config.reload();
            all_told(told).await;
            told = world.fake.asked().told;
        }
        let wider = POLICY.replace("192.0.2.80", "192.0.2.81");
        std::fs::write(&world.config.policy, wider).expect("written");
        assert!(world.control.policy.reload().await.changed);
        all_told(told).await;
    };
    tokio::select! {
        () = world.control.keep_time() => unreachable!("never returns"),
        () = waiting => {}
    }
    let updated = world.fake.asked().updated.clone();
    let required = |name: &str| {
        let of = updated.iter().rfind(|record| record.name == name);
        of.expect("told").standing.session_required
    };
    assert!(required("bo-laptop") && !required("robot"));
    assert!(Terms::of(&world.control.config.get()).session_required);
}
