//! Conditions on how a device stands: posture and the age of the login.

use super::*;
use crate::standing::{Attribute, Reported, Session, Standing};
use postern_proto::facts::Facts;
use std::sync::Arc;

const HOUR: u64 = 3_600_000_000_000;
const TO: &str = "192.0.2.10:22/tcp";

const SOURCE: &str = r#"
version: 1
targets:
  nodes: { addresses: [192.0.2.10], ports: [22/tcp] }
posture:
  disk-encrypted: { disk_encryption: on }
  edr: { process: falcon-sensor }
  corp-cert: { file: /etc/corp.pem }
  managed: { attribute: { name: managed, value: "yes" } }
rules:
  - name: ssh
    action: allow
    from: { groups: [sre], posture: [disk-encrypted, managed], session_age: 12h }
    to: [nodes]
"#;

fn at(hour: u64) -> Wall {
    Wall(hour * HOUR)
}

/// A login in hour 100 that lives until hour 150; a report in hour 101, good until hour 105; an
/// attribute until hour 108.
fn standing() -> Standing {
    Standing {
        session: Some(Session {
            id: "s1".into(),
            method: "oidc".into(),
            issuer: None,
            amr: Vec::new(),
            acr: None,
            since: at(100),
            until: Some(at(150)),
        }),
        reported: Some(Reported {
            facts: Arc::new(Facts {
                disk_encryption: Some(true),
                ..Facts::default()
            }),
            at: at(101),
            fresh_until: at(105),
        }),
        attributes: [(
            "managed".to_owned(),
            Attribute {
                value: "yes".to_owned(),
                until: Some(at(108)),
            },
        )]
        .into(),
        ..Standing::default()
    }
}

fn bo(standing: Standing) -> Subject {
    Subject {
        standing,
        ..who("bo", &["sre"])
    }
}

fn allowed(policy: &Policy, who: &Subject, now: Wall) -> bool {
    let to = TO.parse().unwrap();
    let verdict = policy.judge(&policy.index(who), &to, now);
    assert_eq!(policy.explain(who, &to, now).verdict, verdict);
    verdict.allows()
}

fn why(policy: &Policy, who: &Subject, now: Wall) -> Vec<String> {
    let nearest = policy.explain(who, &TO.parse().unwrap(), now).nearest;
    let failed = nearest.map(|nearest| nearest.failed).unwrap_or_default();
    failed.iter().map(|one| one.sentence.to_string()).collect()
}

#[test]
fn every_check_and_the_age_must_hold() {
    let policy = policy(SOURCE);
    assert!(allowed(&policy, &bo(standing()), at(102)));
    let mut unmanaged = standing();
    unmanaged.attributes.clear();
    let mut silent = standing();
    silent.reported = None;
    let mut nobody = standing();
    nobody.session = None;
    for (standing, sentence) in [
        (
            unmanaged,
            "check managed fails: expected attribute managed set to yes, received not set",
        ),
        (
            silent,
            "check disk-encrypted fails: expected disk encryption on, received not reported",
        ),
        (
            nobody,
            "a login younger than 12 h is required; the device has none",
        ),
    ] {
        assert!(!allowed(&policy, &bo(standing.clone()), at(102)));
        assert_eq!(why(&policy, &bo(standing), at(102)), [sentence]);
    }
    assert!(!allowed(&policy, &who("bo", &["sre"]), at(102)));
}

#[test]
fn time_alone_ends_what_rests_on_it() {
    let policy = policy(SOURCE);
    let bo = bo(standing());
    let just_before = |moment: Wall| Wall(moment.0 - 1);
    assert_eq!(policy.next_change(&bo, at(102)), Some(at(105)));
    assert!(allowed(&policy, &bo, just_before(at(105))));
    assert!(!allowed(&policy, &bo, at(105)));
    assert_eq!(
        why(&policy, &bo, at(113)),
        [
            "check disk-encrypted fails: expected disk encryption on, received reported 12 h ago, too \
             old; check managed fails: expected attribute managed set to yes, received ended 5 h ago",
            "a login younger than 12 h is required; this one is 13 h old"
        ]
    );
    assert_eq!(
        why(&policy, &bo, at(152)).last().map(String::as_str),
        Some("a login younger than 12 h is required; the last one ended 2 h ago")
    );
    let moments = [105, 108, 112, 150];
    let mut now = at(102);
    for moment in moments {
        now = policy.next_change(&bo, now).unwrap();
        assert_eq!(now, at(moment));
    }
    assert_eq!(policy.next_change(&bo, now), None);
}

#[test]
fn a_login_must_live_whatever_its_age() {
    let policy = rules(
        "  - { name: r, action: allow, from: { session_age: 7d }, to: { addresses: [192.0.2.10], \
         ports: [22/tcp] } }\n",
    );
    let bo = bo(standing());
    assert!(allowed(&policy, &bo, Wall(at(150).0 - 1)));
    assert!(!allowed(&policy, &bo, at(150)));
}

#[test]
fn a_denying_rule_may_ask_too() {
    let policy = policy(
        "version: 1\nposture:\n  lost: { attribute: { name: lost, value: \"yes\" } }\nrules:\n  \
         - { name: lost, action: deny, from: { posture: [lost] }, to: anything }\n  \
         - { name: all, action: allow, from: anyone, to: anything }\n",
    );
    let mut standing = standing();
    assert_eq!(judged(&policy, &bo(standing.clone()), TO), "allow all");
    let value = "yes".to_owned();
    standing
        .attributes
        .insert("lost".to_owned(), Attribute { value, until: None });
    assert_eq!(judged(&policy, &bo(standing), TO), "deny lost");
}

#[test]
fn a_rule_behind_one_with_conditions_on_state_can_be_reached() {
    let head =
        "version: 1\nposture:\n  a: { firewall: on }\n  b: { disk_encryption: on }\nrules:\n";
    let rule = |name: &str, from: &str| {
        format!("  - {{ name: {name}, action: allow, from: {from}, to: anything }}\n")
    };
    let reachable = |rules: &[&str]| {
        let rules = rules.iter().zip(["r0", "r1", "r2"]);
        let rules: String = rules.map(|(from, name)| rule(name, from)).collect();
        Policy::parse(&format!("{head}{rules}")).map_err(|errors| errors.to_string())
    };
    for (first, second) in [
        ("{ posture: [a] }", "anyone"),
        ("{ session_age: 1h }", "anyone"),
        ("{ session_age: 1h }", "{ session_age: 2h }"),
        ("{ posture: [a] }", "{ posture: [b] }"),
        ("{ groups: [g], posture: [a] }", "{ groups: [g] }"),
        (
            "{ groups: [g], posture: [a, b] }",
            "{ groups: [g], posture: [a] }",
        ),
    ] {
        assert!(reachable(&[first, second]).is_ok(), "{first} {second}");
    }
    // The same conditions, or none, take it all.
    for (first, second) in [
        ("{ posture: [a, b] }", "{ posture: [b, a] }"),
        ("{ session_age: 60m }", "{ session_age: 1h }"),
        (
            "{ groups: [g] }",
            "{ groups: [g], posture: [a], session_age: 1h }",
        ),
        ("anyone", "{ session_age: 1h }"),
    ] {
        let error = reachable(&[first, second]).unwrap_err();
        assert!(
            error.contains("taken by earlier rules, first by `r0`"),
            "{error}"
        );
    }
    let error = reachable(&[
        "{ session_age: 1h }",
        "{ session_age: 2h }",
        "{ session_age: 2h }",
    ]);
    let error = error.unwrap_err();
    assert!(error.contains("first by `r1`"), "{error}");
}

#[test]
fn a_rule_says_what_it_no_longer_finds() {
    let policy = policy(SOURCE);
    let lost = |who: &Subject, hour| {
        policy.lost(
            RuleId::Rule(0),
            &policy.index(who),
            &TO.parse().unwrap(),
            at(hour),
        )
    };
    let bo = bo(standing());
    assert_eq!(lost(&bo, 102), None);
    assert_eq!(lost(&bo, 106), Some(Condition::Posture));
    assert_eq!(lost(&bo, 113), Some(Condition::SessionAge));
    let moved = Subject {
        groups: Vec::new(),
        ..bo
    };
    assert_eq!(lost(&moved, 102), Some(Condition::Group));
    assert_eq!(lost(&moved, 106), Some(Condition::Posture));
    let index = policy.index(&moved);
    assert_eq!(
        policy.lost(RuleId::Default, &index, &TO.parse().unwrap(), at(102)),
        None
    );
}

#[test]
fn a_policy_says_what_devices_must_look_at() {
    let watched = policy(SOURCE).watched();
    assert_eq!(watched.processes, ["falcon-sensor".to_owned()].into());
    assert_eq!(watched.files, ["/etc/corp.pem".to_owned()].into());
    assert_eq!(empty().watched(), Default::default());
}

#[test]
fn every_check_shows_what_is_expected_and_received() {
    let policy = policy(SOURCE);
    let checks = policy.checks(&standing(), at(102));
    let shown: Vec<String> = checks
        .iter()
        .map(|c| format!("{} {}: {}; {}", c.name, c.holds, c.expected, c.received))
        .collect();
    assert_eq!(
        shown,
        [
            "disk-encrypted true: disk encryption on; on",
            "edr false: process falcon-sensor running; not reported",
            "corp-cert false: file /etc/corp.pem present; not reported",
            "managed true: attribute managed set to yes; yes"
        ]
    );
    let index = policy.index(&bo(standing()));
    let of_rule: Vec<_> = policy
        .posture_of(RuleId::Rule(0), &index, at(106))
        .collect();
    assert_eq!(of_rule, [("disk-encrypted", false), ("managed", true)]);
    assert_eq!(
        policy.posture_of(RuleId::Default, &index, at(106)).count(),
        0
    );
}

#[test]
fn a_denial_carries_its_checks_for_programs() {
    let policy = policy(SOURCE);
    let explained = policy.explain(&bo(standing()), &TO.parse().unwrap(), at(106));
    let json = serde_json::to_value(explained).unwrap();
    let failed = &json["nearest"]["failed"][0];
    assert_eq!(failed["condition"], "posture");
    assert_eq!(
        failed["checks"],
        serde_json::json!([{
            "name": "disk-encrypted", "holds": false, "expected": "disk encryption on",
            "received": "reported 5 h ago, too old",
        }])
    );
}

#[test]
fn tests_of_a_file_say_how_the_device_stands() {
    let policy = policy(&format!(
        "{SOURCE}tests:\n  \
         - {{ groups: [sre], posture: [disk-encrypted, managed], session_age: 2h, to: \"{TO}\", expect: allow, rule: ssh }}\n  \
         - {{ groups: [sre], posture: [disk-encrypted, managed], session_age: 12h, to: \"{TO}\", expect: deny }}\n  \
         - {{ groups: [sre], posture: [disk-encrypted, managed], to: \"{TO}\", expect: deny }}\n  \
         - {{ groups: [sre], posture: [managed], session_age: 2h, to: \"{TO}\", expect: deny }}\n  \
         - {{ groups: [sre], session_age: 7d, to: \"{TO}\", expect: allow }}\n"
    ));
    let outcomes = policy.run_tests();
    assert_eq!(
        outcomes.iter().map(|o| o.passed).collect::<Vec<_>>(),
        [true, true, true, true, false]
    );
    assert_eq!(
        outcomes[0].described,
        "a device without a user (sre), disk-encrypted, managed, login 2 h ago to 192.0.2.10:22/tcp"
    );
}

#[test]
fn a_window_is_part_of_what_a_rule_asks() {
    let policy = Policy::parse(
        "version: 1\n\
         targets:\n  t: { addresses: [192.0.2.10], ports: [22/tcp] }\n\
         rules:\n\
         \x20 - { name: days, action: allow, from: anyone, to: [t], when: { days: [mon-fri], hours: '07:00-20:00', zone: Europe/Berlin } }\n\
         \x20 - { name: nights, action: allow, from: { users: [ana] }, to: [t], until: 2026-11-30 }\n",
    );
    let policy = policy.unwrap();
    let bo = Subject {
        user: Some("bo".to_owned()),
        ..Subject::default()
    };
    let index = policy.index(&bo);
    let to: Tuple = "192.0.2.10:22/tcp".parse().unwrap();
    // Saturday, 2026-11-21, 03:12 in Berlin, and the Monday after it at seven.
    let (saturday, monday) = (
        Wall(1_795_227_120_000_000_000),
        Wall(1_795_413_600_000_000_000),
    );
    assert!(!policy.judge(&index, &to, saturday).allows());
    assert_eq!(policy.next_change(&bo, saturday), Some(monday));
    assert!(policy.judge(&index, &to, monday).allows());
    let explained = policy.explain(&bo, &to, saturday);
    let failed = explained.nearest.unwrap().failed;
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].condition, Condition::When);
    assert_eq!(
        failed[0].sentence.to_string(),
        "open mon-fri 07:00-20:00 Europe/Berlin; it is Sat 03:12 there, it opens Mon 07:00"
    );
    let rule = policy.judge(&index, &to, monday).rule();
    assert_eq!(
        policy.lost(rule, &index, &TO.parse().unwrap(), monday),
        None
    );
    assert_eq!(
        policy.lost(rule, &index, &TO.parse().unwrap(), saturday),
        Some(Condition::When)
    );
}
