//! Who may ask what, how, and how often; and what each path does.

use super::*;
use axum::body::Bytes;
use postern_engine::standing::Held;
use postern_proto::device_api::MAX_BODY;
use postern_proto::kem::KemSecret;
use sqlx::Connection;
use std::time::Duration;

#[tokio::test]
async fn a_throw_away_key_may_join_and_say_hello_and_nothing_else() {
    let mut world = World::start().await;
    let with_budgets = world.router.clone();
    world.router = router_without_limits(world.control.clone());
    for (path, methods) in PATHS {
        for method in methods.split(", ") {
            if FREE.contains(&path) {
                continue;
            }
            let (status, _, body) = world.ask(GUEST, method, path, Some(b"{}")).await;
            assert_eq!(
                (status, &body["code"]),
                (403, &json!("forbidden")),
                "{path}"
            );
        }
    }
    let before = world.audited();
    for line in &before {
        assert_eq!(line["action"], "forbidden");
        assert_eq!(line["outcome"], "refused");
        assert_eq!(line["from"], "198.51.100.7:1000");
    }
    world.router = with_budgets;
    for _ in 0..10 {
        let (status, body) = world.get(GUEST, "/v1/nothing").await;
        assert_eq!((status, &body["code"]), (403, &json!("forbidden")));
    }
    let lines = world.audited().len() - before.len();
    assert!(lines >= 5, "{lines}");
    let lost = world.control.asked.view().forbidden_unrecorded;
    assert_eq!(lines as u64 + lost, 10, "each is a line or is counted");
}

const FREE: [&str; 2] = ["/v1/hello", "/v1/join"];

#[tokio::test]
async fn a_device_does_not_join_again_and_a_stranger_is_nobody() {
    let world = World::start().await;
    for who in [BO, BORROWED, GUEST] {
        assert_eq!(
            world.get(who, "/v1/hello").await,
            (200, json!({ "api": 1 }))
        );
    }
    let join = json!({ "public_key": key(50) });
    let (status, body) = world.post(BO, "/v1/join", join.clone()).await;
    assert_eq!((status, &body["code"]), (403, &json!("forbidden")));
    assert_eq!(world.audited().len(), 1);
    for (path, _) in PATHS {
        let (status, body) = world.get(77, path).await;
        assert_eq!(
            (status, &body["code"]),
            (403, &json!("forbidden")),
            "{path}"
        );
    }
    world
        .control
        .store
        .revoke_device("bo-laptop", 9)
        .await
        .expect("revoked");
    assert_eq!(world.get(BO, "/v1/device").await.0, 403);
}

#[tokio::test]
async fn what_is_malformed_is_refused_with_its_code() {
    let world = World::start().await;
    let refusals: [(&str, &str, &[u8], u16, &str); 11] = [
        ("GET", "/v1/nothing", b"", 404, "not-found"),
        ("GET", "/", b"", 404, "not-found"),
        ("DELETE", "/v1/device", b"", 405, "bad-method"),
        ("POST", "/v1/why", b"{", 400, "bad-request"),
        ("POST", "/v1/why", b"", 400, "bad-request"),
        ("POST", "/v1/why", b"{\"to\":\"x\"}", 400, "bad-request"),
        (
            "POST",
            "/v1/why",
            b"{\"to\":\"192.0.2.1:1/tcp\",\"device\":\"robot\"}",
            400,
            "bad-request",
        ),
        (
            "POST",
            "/v1/posture",
            b"{\"facts\":{\"hostname\":\"a\\nb\"}}",
            400,
            "bad-request",
        ),
        (
            "POST",
            "/v1/keys",
            b"{\"public_key\":\"AAAA\"}",
            400,
            "bad-request",
        ),
        ("POST", "/v1/logout", b"{}", 400, "bad-request"),
        ("GET", "/v1/device?name=robot", b"", 400, "bad-request"),
    ];
    for (method, path, body, status, code) in refusals {
        let (found, headers, said) = world.ask(BO, method, path, Some(body)).await;
        assert_eq!(
            (found, &said["code"]),
            (status, &json!(code)),
            "{path} {said}"
        );
        let fields: Vec<_> = said.as_object().expect("an object").keys().collect();
        assert_eq!(fields, ["code", "error", "help"]);
        assert_eq!(headers.contains_key("allow"), status == 405);
    }
    let other = Request::builder()
        .method("POST")
        .uri("/v1/why")
        .header("content-type", "text/plain")
        .body(Body::from("{\"to\":\"192.0.2.1:1/tcp\"}"));
    let (status, _, body) = world.send(BO, other.expect("a request")).await;
    assert_eq!((status, &body["code"]), (400, &json!("bad-request")));
    assert!(world.audited().is_empty(), "nothing of it is an event");
}

#[tokio::test]
async fn an_oversized_body_is_refused_said_or_not() {
    let world = World::start().await;
    let long = vec![b' '; MAX_BODY + 1];
    let (status, _, body) = world.ask(BO, "POST", "/v1/why", Some(&long)).await;
    assert_eq!((status, &body["code"]), (413, &json!("too-large")));
    let (mut to, unsaid) = http_body_util::channel::Channel::<Bytes>::new(128);
    for part in long.chunks(1000) {
        to.send_data(Bytes::copy_from_slice(part))
            .await
            .expect("room");
    }
    drop(to);
    let unsaid = Body::new(unsaid);
    let request = Request::builder()
        .method("POST")
        .uri("/v1/why")
        .header("content-type", "application/json")
        .body(unsaid);
    let (status, _, body) = world.send(BO, request.expect("a request")).await;
    assert_eq!((status, &body["code"]), (413, &json!("too-large")));
}

#[tokio::test]
async fn a_busy_asker_is_slowed_down_and_others_are_not() {
    let world = World::start().await;
    let mut refused = 0;
    for _ in 0..60 {
        let (status, body) = world.get(BO, "/v1/hello").await;
        if status == 429 {
            assert_eq!(body["code"], "too-many");
            refused += 1;
        }
    }
    assert!(refused > 0);
    assert_eq!(world.get(ROBOT, "/v1/hello").await.0, 200);
    let counts = world.control.asked.view().requests;
    let of = |code: &str| counts[&("/v1/hello", code.to_owned())];
    assert_eq!(of("ok") + of("too-many"), 61);
    assert_eq!(of("too-many"), refused);
}

#[tokio::test]
async fn a_device_reads_its_own_standing() {
    let world = World::start().await;
    let (status, body) = world.get(BO, "/v1/device").await;
    assert_eq!(status, 200);
    assert_eq!(body["name"], "bo-laptop");
    assert_eq!(body["state"], "active");
    assert_eq!(body["groups"], json!(["staff"]));
    assert_eq!(body["posture"][0]["name"], "walled");
    assert_eq!(body["posture"][0]["holds"], false);
    assert_eq!(
        world.get(BORROWED, "/v1/device").await.1["state"],
        "needs-login"
    );
}

#[tokio::test]
async fn the_configuration_has_a_version_that_changes_with_it() {
    let world = World::start().await;
    let (_, before) = world.get(BO, "/v1/config").await;
    assert_eq!(before["include"], json!(["192.0.2.10/32", "192.0.2.80/32"]));
    assert_eq!(before["watched"]["processes"], json!(["falcon-sensor"]));
    assert_eq!(before["report_every"], 60);
    assert_eq!(before, world.get(BO, "/v1/config").await.1);
    let text = std::fs::read_to_string(&world.config.path).expect("readable");
    let more = format!("{text}\ninclude: [192.0.2.0/24]\nposture: {{ report_every: 10s }}\n");
    std::fs::write(&world.config.path, more).expect("written");
    world.control.config.reload();
    let (_, after) = world.get(BO, "/v1/config").await;
    assert_eq!(after["include"], json!(["192.0.2.0/24"]));
    assert_eq!(after["report_every"], 10);
    assert_ne!(before["version"], after["version"]);
}

#[tokio::test]
async fn a_report_is_judged_and_only_a_flip_is_a_line() {
    let world = World::start().await;
    let report = |on: bool| json!({ "facts": { "firewall": on, "processes": { "x": true } } });
    let (status, checks) = world.post(BO, "/v1/posture", report(true)).await;
    assert_eq!(status, 200);
    assert_eq!(
        (&checks[0]["holds"], &checks[1]["holds"]),
        (&json!(true), &json!(false))
    );
    world.post(BO, "/v1/posture", report(true)).await;
    assert_eq!(world.audited().len(), 1, "the second said nothing new");
    let (_, checks) = world.post(BO, "/v1/posture", report(false)).await;
    assert_eq!(checks[0]["holds"], false);
    let lines = world.audited();
    assert_eq!(lines.len(), 2);
    assert_eq!(lines[1]["action"], "posture");
    assert_eq!(lines[1]["device"], "bo-laptop");
    assert_eq!(lines[1]["before"]["walled"]["holds"], true);
    assert_eq!(lines[1]["after"]["walled"]["holds"], false);
    let told = world.fake.asked().updated.clone();
    assert_eq!(told.len(), 3, "the data plane judges by each");
    let facts = &told[2].standing.reported.as_ref().expect("reported").facts;
    assert_eq!(facts.firewall, Some(false));
    assert!(facts.processes.is_empty(), "nobody asked for x");
    let stored = world.control.store.report("bo-laptop").await.expect("read");
    assert_eq!(stored.expect("there").0.firewall, Some(false));
}

#[tokio::test]
async fn while_the_log_is_gone_a_report_only_takes_access_away() {
    let mut world = World::start().await;
    let report = |on: bool| json!({ "facts": { "firewall": on } });
    assert_eq!(world.post(BO, "/v1/posture", report(true)).await.0, 200);
    let log = world.log.take().expect("a log");
    let _ = log.finish(Duration::from_secs(30));
    let (status, checks) = world.post(BO, "/v1/posture", report(false)).await;
    assert_eq!((status, &checks[0]["holds"]), (200, &json!(false)));
    let (status, body) = world.post(BO, "/v1/posture", report(true)).await;
    assert_eq!((status, &body["code"]), (503, &json!("unavailable")));
    let told = world.fake.asked().updated.clone();
    let facts = &told.last().expect("told").standing.reported;
    let facts = &facts.as_ref().expect("reported").facts;
    assert_eq!((told.len(), facts.firewall), (2, Some(false)));
}

#[tokio::test]
async fn why_answers_for_the_asker_alone() {
    let world = World::start().await;
    let ask = |to: &str| json!({ "to": to });
    let (_, denied) = world.post(BO, "/v1/why", ask("192.0.2.10:22/tcp")).await;
    assert_eq!(denied["allow"], false);
    assert_eq!(denied["nearest_rule"], "ssh");
    assert!(!denied["failed"].as_array().expect("a list").is_empty());
    let (_, allowed) = world.post(BO, "/v1/why", ask("192.0.2.80:443/tcp")).await;
    assert_eq!(
        (&allowed["allow"], &allowed["rule"]),
        (&json!(true), &json!("wiki"))
    );
    assert!(allowed["text"].as_str().expect("text").contains("wiki"));
    let (_, held) = world
        .post(BORROWED, "/v1/why", ask("192.0.2.80:443/tcp"))
        .await;
    assert_eq!(held["allow"], false);
    assert!(
        held["text"]
            .as_str()
            .expect("text")
            .contains("postern login")
    );
    assert!(
        held["held"]
            .as_str()
            .expect("text")
            .contains("postern login")
    );
    // Whoever else is named, in the body or the path, the key says who asks.
    for field in ["device", "name", "user", "of", "public_key"] {
        let mut other = ask("192.0.2.80:443/tcp");
        other[field] = json!("bo-laptop");
        let (status, body) = world.post(ROBOT, "/v1/why", other).await;
        assert_eq!((status, &body["code"]), (400, &json!("bad-request")));
    }
    let wiki = || ask("192.0.2.80:443/tcp");
    let (status, body) = world.post(ROBOT, "/v1/why?device=bo-laptop", wiki()).await;
    assert_eq!((status, &body["code"]), (400, &json!("bad-request")));
    let (status, own) = world.post(ROBOT, "/v1/why", wiki()).await;
    assert_eq!(
        (status, &own["allow"]),
        (200, &json!(false)),
        "bo may, the robot may not"
    );
    assert!(!own.to_string().contains("bo-laptop"), "{own}");
}

#[tokio::test]
async fn a_key_is_replaced_once_the_new_one_is_used() {
    let world = World::start().await;
    let secret = KemSecret::from_random([5; 64]);
    let (old, new) = (key(BO), key(60));
    let request = json!({ "public_key": new, "kem_key": secret.encapsulation_key() });
    let (status, answer) = world.post(BO, "/v1/keys", request).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(world.fake.asked().rotated, [new]);
    let ours = secret.open(answer["kem_ciphertext"].as_str().expect("text"));
    let pending = world.control.store.pending_rotations().await.expect("read");
    let theirs = pending[0].2.as_ref().expect("a second secret");
    assert_eq!(ours.expect("opens").0, theirs.0, "both ends have the same");
    assert_eq!(
        world.get(BO, "/v1/device").await.0,
        200,
        "the old key serves"
    );

    world.control.rotated(&old, &new).await;
    assert_eq!(
        world.get(BO, "/v1/device").await.0,
        403,
        "the old key is nobody's"
    );
    let (status, body) = world.get(60, "/v1/device").await;
    assert_eq!((status, &body["preshared_key"]), (200, &json!(true)));
    let back = world
        .post(60, "/v1/keys", json!({ "public_key": old }))
        .await;
    assert_eq!(
        (back.0, &back.1["code"]),
        (409, &json!("taken")),
        "it never comes back"
    );
    let lines = world.audited();
    let rotations: Vec<_> = lines
        .iter()
        .filter(|line| line["action"] == "key-rotate")
        .collect();
    assert_eq!(rotations.len(), 2);
    assert_eq!(rotations[1]["before"]["key"], old.fingerprint());
    assert_eq!(rotations[1]["after"]["key"], new.fingerprint());
    assert!(
        lines
            .iter()
            .all(|line| !line.to_string().contains(&theirs_base64(theirs))),
        "no secret in the log"
    );
}

#[tokio::test]
async fn a_new_key_that_could_not_be_stored_is_stored_later() {
    let world = World::start().await;
    let asked = world.post(BO, "/v1/keys", json!({ "public_key": key(60) }));
    assert_eq!(asked.await.0, 200);
    let path = format!("sqlite://{}", world.config.store_path().display());
    let mut db = sqlx::SqliteConnection::connect(&path).await.expect("opens");
    let full = "CREATE TRIGGER full BEFORE UPDATE ON devices BEGIN SELECT RAISE(FAIL, 'full'); END";
    sqlx::query(full).execute(&mut db).await.expect("made");
    world.control.rotated(&key(BO), &key(60)).await;
    let device = world.control.store.device("bo-laptop").await;
    assert_eq!(device.expect("there").record.key, key(BO));
    let free = sqlx::query("DROP TRIGGER full").execute(&mut db).await;
    free.expect("dropped");
    let control = world.control.clone();
    let janitor = tokio::spawn(async move { control.keep_time().await });
    let serves = async || world.control.store.device("bo-laptop").await;
    while serves().await.expect("there").record.key != key(60) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    janitor.abort();
}

#[tokio::test]
async fn a_revoked_device_is_revoked_with_the_key_that_was_to_come() {
    let world = World::start().await;
    let next = key(60);
    let asked = world.post(BO, "/v1/keys", json!({ "public_key": next }));
    assert_eq!(asked.await.0, 200);
    world
        .control
        .revoke_device("bo-laptop")
        .await
        .expect("revoked");
    // The data plane tells of a first packet that it saw just before.
    world.control.rotated(&key(BO), &next).await;
    for who in [BO, 60] {
        assert_eq!(world.get(who, "/v1/device").await.0, 403);
    }
    let again = Store::open(&world.config.store_path(), world.config.pool)
        .await
        .expect("opens");
    let device = again.device("bo-laptop").await.expect("remembered");
    assert!(device.revoked.is_some() && device.next_key.is_none());
    assert_eq!(device.record.key, key(BO), "as it was when it was revoked");
    assert!(again.pending_rotations().await.expect("read").is_empty());
    let taken = world
        .post(ROBOT, "/v1/keys", json!({ "public_key": next }))
        .await;
    assert_eq!((taken.0, &taken.1["code"]), (409, &json!("taken")));
}

#[tokio::test]
async fn a_key_of_somebody_is_taken() {
    let world = World::start().await;
    for whose in [key(BO), key(ROBOT), key(GUEST), key(99)] {
        let (status, body) = world
            .post(BO, "/v1/keys", json!({ "public_key": whose }))
            .await;
        assert_eq!((status, &body["code"]), (409, &json!("taken")));
    }
    let bad = json!({ "public_key": key(61), "kem_key": "/".repeat(1578) + "8=" });
    assert_eq!(world.post(BO, "/v1/keys", bad).await.0, 400);
    assert!(world.fake.asked().rotated.is_empty());
}

#[tokio::test]
async fn held_devices_reach_the_api() {
    let world = World::start().await;
    let now = Clock::now().wall.seconds();
    world
        .control
        .store
        .set_user_disabled("bo", true, now)
        .await
        .expect("disabled");
    let (status, body) = world.get(BO, "/v1/device").await;
    assert_eq!((status, &body["state"]), (200, &json!("user-disabled")));
    let terms = crate::store::Terms::of(&world.config);
    let standing = world.control.store.standing("bo-laptop", now, &terms).await;
    assert_eq!(standing.expect("read").held, Some(Held::UserDisabled));
}

fn theirs_base64(key: &postern_proto::keys::PresharedKey) -> String {
    use base64::prelude::{BASE64_STANDARD, Engine as _};
    BASE64_STANDARD.encode(key.0)
}
