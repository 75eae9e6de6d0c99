use super::*;
use crate::facts::FactsText;
use crate::past::Row;
use postern_engine::policy::Subject;
use postern_engine::standing::{Held, Reported, Session, Standing};
use proptest::prelude::*;
use std::time::Duration;

mod bounds;
mod live;
mod unknown;

const T: u64 = 1_795_323_600_000_000_000;
const SECOND: u64 = 1_000_000_000;

const OLD: &str = "
version: 1
targets:
  api: { addresses: [192.0.2.10], ports: [443/tcp] }
  nodes: { addresses: [192.0.2.32/28], ports: [22/tcp] }
rules:
  - { name: api, action: allow, from: { groups: [web] }, to: [api] }
  - { name: ssh, action: allow, from: { groups: [sre] }, to: [nodes] }
";

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|errors| panic!("{errors}"))
}

fn ana() -> Subject {
    Subject {
        user: Some("ana".to_owned()),
        groups: vec!["sre".to_owned(), "web".to_owned()],
        device: "ana-laptop".to_owned(),
        standing: Standing::default(),
    }
}

/// `OLD`, but SSH asks for more.
fn asking(more: &str) -> String {
    OLD.replace("groups: [sre]", &format!("groups: [sre], {more}"))
}

fn asking_for_a_disk() -> String {
    asking("posture: [disk]") + "posture: { disk: { disk_encryption: on } }\n"
}

/// A report of an encrypted disk that counts for so many seconds.
fn reported(at: u64, seconds: u64) -> Standing {
    Standing {
        reported: Some(Reported {
            facts: Arc::new(postern_proto::facts::Facts {
                disk_encryption: Some(true),
                ..Default::default()
            }),
            at: Wall(at),
            fresh_until: Wall(at + seconds * SECOND),
        }),
        ..Standing::default()
    }
}

fn row(who: &Subject, since: u64) -> Row {
    let facts = FactsText::of(who);
    Row {
        id: facts.id,
        text: facts.text.into(),
        since: Wall(since),
        reported: who
            .standing
            .reported
            .as_ref()
            .map(|reported| (reported.at, reported.fresh_until)),
    }
}

/// As the engine would record what `who` asked for under `policy`.
fn record(policy: &Policy, who: &Subject, to: &str, at: u64) -> Attempt {
    let to: Tuple = to.parse().expect("a tuple");
    let verdict = policy.judge(&policy.index(who), &to, Wall(at));
    let obstacle = who.standing.obstacle(Wall(at));
    let allow = verdict.allows() && obstacle.is_none();
    let reason = obstacle.map_or("policy", |reason| reason.as_str());
    Attempt {
        start: Wall(at - at % 1_000_000),
        state: if allow { State::Open } else { State::Denied },
        allow,
        rule: policy.rule_name(verdict.rule()).to_owned(),
        policy: policy.hash().full(),
        user: who.user.clone(),
        groups: who.groups.clone(),
        device: Some(who.device.clone()),
        facts: Some(FactsText::of(who).id.to_string()),
        issuer: None,
        session_age: None,
        outer: None,
        to: Some(to),
        ports: Vec::new(),
        count: 1,
        deny_reason: (!allow).then(|| reason.to_owned()),
        flow: allow.then_some(1),
        resumed: false,
        boot: "1".to_owned(),
        seq: (0, 1),
    }
}

fn replay(policy: &Policy, rows: Vec<Row>, attempts: &[Attempt]) -> Plan {
    let mut replay = Replay::new(policy, Past::new(rows), Wall(T));
    for attempt in attempts {
        replay.attempt(attempt).expect("facts");
    }
    replay.finish()
}

#[test]
fn a_rule_that_goes_breaks_what_used_it_and_nothing_else() {
    let (old, ana) = (policy(OLD), ana());
    let attempts = [
        record(&old, &ana, "192.0.2.10:443/tcp", T),
        record(&old, &ana, "192.0.2.33:22/tcp", T + SECOND),
        record(&old, &ana, "192.0.2.33:22/tcp", T + 2 * SECOND),
        record(&old, &ana, "192.0.2.99:22/tcp", T + SECOND),
    ];
    let same = replay(&old, vec![row(&ana, T)], &attempts);
    assert_eq!(
        (same.attempts, same.unchanged, same.breaks()),
        (4, 4, false)
    );
    assert_eq!((same.by_another_rule, same.approximate), (0, 0));

    let new = policy(&OLD.replace("groups: [sre]", "groups: [ops]"));
    let plan = replay(&new, vec![row(&ana, T)], &attempts);
    assert!(plan.breaks());
    assert_eq!(
        plan.newly_denied,
        Change {
            attempts: 2,
            pairs: 1
        }
    );
    assert_eq!((plan.newly_allowed.attempts, plan.unchanged), (0, 2));
    let example = &plan.examples[0];
    assert_eq!(example.was, "ssh");
    assert_eq!(example.is, "default");
    assert_eq!(example.attempts, 2);
    assert_eq!(
        example.nearest.as_deref(),
        Some("ssh: group ops is required; ana has sre, web")
    );
    let rules: Vec<_> = plan
        .by_rule
        .iter()
        .map(|share| {
            (
                share.was.as_str(),
                share.is.as_str(),
                share.sums.newly_denied,
            )
        })
        .collect();
    assert_eq!(
        rules,
        [
            ("ssh", "default", 2),
            ("api", "api", 0),
            ("default", "default", 0)
        ]
    );
    assert_eq!(plan.by_user[0].sums.newly_denied, 2);
}

#[test]
fn several_ports_are_judged_each() {
    let (old, ana) = (policy(OLD), ana());
    let window = Attempt {
        ports: vec![22, 23, 443, 80],
        count: 9,
        ..record(&old, &ana, "192.0.2.10:22/tcp", T)
    };
    let new = policy(&OLD.replace("[443/tcp]", "[443/tcp, 80/tcp]"));
    let plan = replay(&new, vec![row(&ana, T)], std::slice::from_ref(&window));
    assert_eq!(plan.attempts, 9);
    // 22 was asked for first: it takes what does not divide.
    assert_eq!(
        plan.newly_allowed,
        Change {
            attempts: 4,
            pairs: 2
        }
    );
    assert_eq!(plan.unchanged, 5);
}

#[test]
fn only_what_a_policy_decides_is_judged_again() {
    let (old, ana) = (policy(OLD), ana());
    let denied = record(&old, &ana, "192.0.2.33:80/tcp", T);
    let everything =
        policy("{ version: 1, rules: [{ name: all, action: allow, from: anyone, to: anything }] }");
    let held = Subject {
        standing: Standing {
            held: Some(Held::Approval),
            ..Standing::default()
        },
        ..ana.clone()
    };
    let attempts = [
        record(&old, &held, "192.0.2.33:22/tcp", T),
        Attempt {
            deny_reason: Some("log-unavailable".to_owned()),
            ..denied.clone()
        },
        Attempt {
            to: None,
            count: 255,
            ..denied.clone()
        },
        Attempt {
            user: None,
            device: None,
            groups: Vec::new(),
            facts: None,
            ..denied
        },
    ];
    let plan = replay(&everything, vec![row(&ana, T), row(&held, T)], &attempts);
    assert_eq!(plan.attempts, 0);
    assert_eq!((plan.not_judged.scans, plan.not_judged.unknown), (255, 1));
    let refused: Vec<_> = plan.not_judged.refused.into_iter().collect();
    assert_eq!(
        refused,
        [
            ("log-unavailable".to_owned(), 1),
            ("not-approved".to_owned(), 1)
        ]
    );
}

#[test]
fn a_flow_counts_once_by_its_first_record_or_by_its_last() {
    let (old, ana) = (policy(OLD), ana());
    let open = record(&old, &ana, "192.0.2.33:22/tcp", T + SECOND);
    let closed = |start| Attempt {
        state: State::Closed,
        start: Wall(start),
        ..open.clone()
    };
    let plan = replay(
        &old,
        vec![row(&ana, 0)],
        &[closed(T - SECOND), open.clone(), closed(T + SECOND)],
    );
    assert_eq!(plan.attempts, 2);
}

#[test]
fn a_flow_that_a_later_run_took_up_counts_once() {
    let (old, ana) = (policy(OLD), ana());
    let open = record(&old, &ana, "192.0.2.33:22/tcp", T + SECOND);
    let taken_up = Attempt {
        resumed: true,
        start: Wall(T + 60 * SECOND),
        boot: "2".to_owned(),
        ..open.clone()
    };
    let plan = replay(&old, vec![row(&ana, 0)], &[open, taken_up]);
    assert_eq!(plan.attempts, 1);
}

fn instead(new: &Policy, in_force: &Policy, rows: Vec<Row>, attempts: &[Attempt]) -> Plan {
    let mut replay = Replay::new(new, Past::new(rows), Wall(T)).instead_of(in_force);
    for attempt in attempts {
        replay.attempt(attempt).expect("facts");
    }
    replay.finish()
}

#[test]
fn what_the_policy_in_force_denies_already_is_nothing_new() {
    let (old, ana) = (policy(OLD), ana());
    let in_force = policy(&OLD.replace("groups: [sre]", "groups: [ops]"));
    let new = policy(
        &OLD.replace("groups: [sre]", "groups: [ops]")
            .replace("[web]", "[ops]"),
    );
    let attempts = [
        record(&old, &ana, "192.0.2.10:443/tcp", T),
        record(&old, &ana, "192.0.2.33:22/tcp", T + SECOND),
    ];
    let plan = instead(&in_force, &in_force, vec![row(&ana, T)], &attempts);
    assert_eq!((plan.already_denied, plan.unchanged), (1, 1));
    assert!(!plan.breaks() && plan.examples.is_empty());
    let plan = instead(&new, &in_force, vec![row(&ana, T)], &attempts);
    assert_eq!((plan.already_denied, plan.newly_denied.attempts), (1, 1));
    assert_eq!(plan.examples[0].was, "api");

    let denied = [record(&in_force, &ana, "192.0.2.33:22/tcp", T)];
    let plan = instead(&old, &old, vec![row(&ana, T)], &denied);
    assert_eq!((plan.already_allowed, plan.newly_allowed.attempts), (1, 0));
    let plan = instead(&old, &in_force, vec![row(&ana, T)], &denied);
    assert_eq!((plan.already_allowed, plan.newly_allowed.attempts), (0, 1));
}

proptest! {
    /// Whatever was recorded, under whatever policy: the policy in force changes nothing.
    #[test]
    fn a_policy_in_its_own_place_breaks_nothing(
        wide in any::<bool>(), outer in any::<bool>(), mask in prop::collection::vec(
            (0u8..4, any::<bool>(), any::<bool>(), any::<bool>(), 0usize..4), 0..20,
        ),
    ) {
        let asked = match (wide, outer) {
            (true, false) => "from: anyone",
            (true, true) => "from: { outer: [198.51.100.0/24] }",
            (false, false) => "from: { groups: [ops] }",
            (false, true) => "from: { groups: [sre], outer: [198.51.100.0/24] }",
        };
        let in_force = policy(&OLD.replace("from: { groups: [sre] }", asked));
        let ana = ana();
        let places = [
            "192.0.2.10:443/tcp", "192.0.2.33:22/tcp", "192.0.2.33:80/tcp", "203.0.113.9:1/udp",
        ];
        let attempts: Vec<Attempt> = (0u64..).zip(mask).map(|(at, (kind, allow, facts, place, to))| {
            let record = record(&policy(OLD), &ana, places[to], T + at * SECOND);
            Attempt {
                allow,
                state: if allow { State::Open } else { State::Denied },
                deny_reason: (!allow).then(|| "policy".to_owned()),
                user: record.user.filter(|_| kind != 0),
                facts: record.facts.filter(|_| facts),
                outer: place.then(|| [198, 51, 100, kind].into()),
                ..record
            }
        }).collect();
        let plan = instead(&in_force, &in_force, vec![row(&ana, T)], &attempts);
        prop_assert!(!plan.breaks(), "{:?}", plan);
        prop_assert_eq!((plan.newly_allowed.attempts, plan.not_judged.unknown), (0, 0));
    }
}

#[test]
fn facts_are_those_of_the_time() {
    let with_disk = policy(&asking_for_a_disk());
    let reporting = |from: u64| Subject {
        standing: reported(from, 10),
        ..ana()
    };
    // The same facts twice, and a gap between them.
    let (early, late) = (reporting(T), reporting(T + 60 * SECOND));
    let rows = vec![row(&late, T + 60 * SECOND), row(&early, T)];
    let at = |who: &Subject, at| record(&with_disk, who, "192.0.2.33:22/tcp", at);
    let attempts = [
        at(&early, T + 5 * SECOND),
        at(&early, T + 30 * SECOND),
        at(&late, T + 65 * SECOND),
        // Stale within the millisecond that the record names.
        at(&early, T + 10 * SECOND),
        at(&late, T + 70 * SECOND - 1),
    ];
    let verdicts: Vec<bool> = attempts.iter().map(|attempt| attempt.allow).collect();
    assert_eq!(verdicts, [true, false, true, false, true]);
    let plan = replay(&with_disk, rows, &attempts);
    assert_eq!((plan.unchanged, plan.attempts), (5, 5));
    assert_eq!(plan.approximate, 0);

    // Without its facts a record does not say whether the check held.
    let bare: Vec<Attempt> = attempts
        .iter()
        .map(|attempt| Attempt {
            facts: None,
            ..attempt.clone()
        })
        .collect();
    let plan = replay(&with_disk, Vec::new(), &bare);
    assert_eq!((plan.not_judged.unknown, plan.approximate), (3, 2));
    assert!(!plan.breaks());
    // Its names it does say.
    let plan = replay(&policy(&OLD.replace("sre", "ops")), Vec::new(), &bare);
    assert_eq!((plan.newly_denied.attempts, plan.approximate), (3, 5));
}

#[test]
fn a_login_is_known_from_the_record_alone() {
    let aged = policy(&asking("session_age: 1h"));
    let who = Subject {
        standing: Standing {
            session: Some(Session {
                id: "s".into(),
                method: "oidc".into(),
                issuer: None,
                amr: Vec::new(),
                acr: None,
                since: Wall(T),
                until: None,
            }),
            ..Standing::default()
        },
        ..ana()
    };
    let at = |minutes: u64| Attempt {
        facts: None,
        session_age: Some(Duration::from_secs(60 * minutes)),
        ..record(&aged, &who, "192.0.2.33:22/tcp", T + 60 * minutes * SECOND)
    };
    let plan = replay(&aged, Vec::new(), &[at(30), at(90)]);
    assert_eq!((plan.unchanged, plan.approximate), (2, 2));
}

#[test]
fn rules_in_shadow_are_counted_and_decide_nothing() {
    let (old, ana) = (policy(OLD), ana());
    let attempts = [
        record(&old, &ana, "192.0.2.33:22/tcp", T),
        record(&old, &ana, "192.0.2.10:443/tcp", T),
    ];
    let rule =
        "rules:\n  - { name: what if, action: deny, mode: shadow, from: anyone, to: [nodes] }";
    let plan = replay(
        &policy(&OLD.replace("rules:", rule)),
        vec![row(&ana, T)],
        &attempts,
    );
    assert_eq!((plan.unchanged, plan.by_another_rule), (2, 0));
    let share = ShadowShare {
        rule: "what if".to_owned(),
        allow: false,
        live: true,
        attempts: 1,
    };
    assert_eq!(plan.shadow, [share]);
}

#[test]
fn a_window_is_open_or_closed_at_the_time_of_the_attempt() {
    let (old, ana) = (policy(OLD), ana());
    let at = |hour: u64| {
        record(
            &old,
            &ana,
            "192.0.2.33:22/tcp",
            T - T % (86_400 * SECOND) + hour * 3600 * SECOND,
        )
    };
    let by_day = policy(&OLD.replace(
        "to: [nodes]",
        "to: [nodes], when: { hours: \"08:00-18:00\" }",
    ));
    let mut replay = Replay::new(&by_day, Past::new([row(&ana, 0)]), Wall(0));
    for hour in [7, 9, 17, 20] {
        replay.attempt(&at(hour)).expect("facts");
    }
    let plan = replay.finish();
    assert_eq!((plan.newly_denied.attempts, plan.unchanged), (2, 2));
    let nearest = plan.examples[0].nearest.clone().unwrap_or_default();
    assert!(nearest.starts_with("ssh: "), "{nearest}");
}
