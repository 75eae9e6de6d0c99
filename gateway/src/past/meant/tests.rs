use super::*;
use crate::past::{Found, Recorded, judge_again};
use crate::pool::Pool;
use crate::scratch::Scratch;
use crate::store::{Enrolment, MAX_ANSWERS, Terms};
use postern_history::attempt::{Attempt, State};
use postern_proto::keys::PrivateKey;

const POLICY: &str = "
version: 1
rules:
  - { name: api, action: allow, from: anyone, to: { names: [api.example.com], ports: [443/tcp] } }
";

const SECOND: u64 = 1_000_000_000;

fn at(seconds: u64) -> Wall {
    Wall(seconds * SECOND)
}

fn answer(address: &str, since: u64) -> StoredName {
    StoredName {
        name: "api.example.com".to_owned(),
        addresses: vec![address.parse().expect("address")],
        since: at(since),
        until: None,
        checked: at(since),
        ttl: 60,
    }
}

/// A store with a policy, a device, and facts; and what a gateway would have recorded of it.
async fn world(folder: &Scratch) -> (Store, impl Fn(&str, u64, bool) -> Found + use<>) {
    let pool = Pool {
        v4: "100.96.0.0/16".parse().expect("net"),
        v6: "fd00:1::/64".parse().expect("net"),
    };
    let store = Store::open(&folder.path("gateway.db"), pool)
        .await
        .expect("opens");
    let key = PrivateKey::from_random([1; 32]).public();
    let ana = Enrolment::new("ana", Some("ana@example.com"), &[], key, None).expect("clean words");
    store.add_device(ana, 1).await.expect("added");
    let terms = Terms {
        session_required: false,
        stale_after: 180,
    };
    let ana = store.record("ana", 1, &terms).await.expect("read");
    let facts = store.note_facts(&ana, at(1)).await.expect("noted");
    let policy = Policy::parse(POLICY).expect("a policy").hash().full();
    store
        .keep_policy(POLICY, &policy, at(1))
        .await
        .expect("kept");
    let recorded = move |to: &str, seconds: u64, allow: bool| {
        let attempt = Attempt {
            start: at(seconds),
            state: if allow { State::Open } else { State::Denied },
            allow,
            rule: if allow { "api" } else { "default" }.to_owned(),
            policy: policy.clone(),
            user: None,
            groups: Vec::new(),
            device: Some("ana".to_owned()),
            facts: Some(facts.to_string()),
            issuer: None,
            session_age: None,
            outer: None,
            to: Some(to.parse().expect("a tuple")),
            ports: Vec::new(),
            count: 1,
            deny_reason: (!allow).then(|| "policy".to_owned()),
            flow: None,
            resumed: false,
            boot: "1".to_owned(),
            seq: (0, 1),
        };
        Found {
            records: vec![Recorded {
                n: 1,
                hash: "0".repeat(64).parse().expect("a hash"),
                attempt,
                record: serde_json::Value::Null,
            }],
            other_boots: Vec::new(),
        }
    };
    (store, recorded)
}

#[tokio::test]
async fn near_a_change_either_answer_may_have_been_in_force() {
    let folder = Scratch::new();
    let (store, recorded) = world(&folder).await;
    let all = [answer("192.0.2.1", 100), answer("192.0.2.2", 200)];
    store.note_names(&all).await.expect("noted");
    let agrees = async |to: &str, seconds: u64, allow: bool| {
        let found = recorded(to, seconds, allow);
        judge_again(&store, &found).await.expect("judged").agrees
    };
    assert!(agrees("192.0.2.1:443/tcp", 199, true).await);
    assert!(agrees("192.0.2.1:443/tcp", 202, true).await);
    assert!(agrees("192.0.2.1:443/tcp", 202, false).await);
    assert!(agrees("192.0.2.2:443/tcp", 202, true).await);
    assert!(agrees("192.0.2.2:443/tcp", 202, false).await);
    // Before and after, one alone was.
    assert!(!agrees("192.0.2.2:443/tcp", 199, true).await);
    assert!(!agrees("192.0.2.1:443/tcp", 230, true).await);
    assert!(!agrees("192.0.2.2:443/tcp", 230, false).await);
}

#[tokio::test]
async fn what_is_forgotten_accuses_no_record() {
    let folder = Scratch::new();
    let (store, recorded) = world(&folder).await;
    let count = u64::try_from(MAX_ANSWERS).expect("small") + 1;
    let all: Vec<StoredName> = (1..=count)
        .map(|n| answer(&format!("10.0.{}.{}", n / 256, n % 256), 100 * n))
        .collect();
    let (kept, last) = all.split_at(all.len() - 1);
    store.note_names(kept).await.expect("noted");
    let honest = recorded("10.0.0.1:443/tcp", 150, true);
    assert!(judge_again(&store, &honest).await.expect("judged").agrees);

    store.note_names(last).await.expect("noted");
    let error = judge_again(&store, &honest).await.expect_err("forgotten");
    assert!(
        error.error.contains("what api.example.com meant then"),
        "{}",
        error.error
    );
    // What does not rest on the name is judged as before, and so is what is known.
    let other = recorded("192.0.2.9:22/tcp", 150, false);
    assert!(judge_again(&store, &other).await.expect("judged").agrees);
    let later = recorded("10.0.0.2:443/tcp", 250, true);
    assert!(judge_again(&store, &later).await.expect("judged").agrees);
    let changed = recorded("10.0.0.1:443/tcp", 250, true);
    assert!(!judge_again(&store, &changed).await.expect("judged").agrees);
}
