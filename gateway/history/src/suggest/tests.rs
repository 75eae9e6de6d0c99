use super::*;
use crate::attempt::State;
use crate::facts::FactsText;
use crate::past::Row;
use crate::plan::Replay;
use postern_engine::policy::Subject;
use postern_engine::standing::{Grant, Standing};
use proptest::prelude::*;

const POLICY: &str = "
version: 1
targets:
  api: { addresses: [192.0.2.10], ports: [443/tcp] }
  nodes: { addresses: [192.0.2.32/28], ports: [22/tcp, 8000-8003/tcp] }
  spare: { addresses: [192.0.2.64/28], ports: [22/tcp] }
rules:
  - { name: never here, action: deny, from: { groups: [guests] }, to: [nodes] }
  - { name: what if, action: deny, mode: shadow, from: anyone, to: [api] }
  - { name: api, action: allow, from: anyone, to: [api] }
  - { name: ssh, action: allow, from: { groups: [ops, sre, web] }, to: [nodes, spare] }
  - { name: \"one: that # nobody uses\", action: allow, from: { users: [zoe] }, to: [spare] }
";

fn policy(text: &str) -> Policy {
    Policy::parse(text).unwrap_or_else(|errors| panic!("{errors}\n{text}"))
}

fn who(user: &str, groups: &[&str]) -> Subject {
    Subject {
        user: (!user.is_empty()).then(|| user.to_owned()),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        device: format!("{user}-device"),
        standing: Standing::default(),
    }
}

fn row(who: &Subject) -> Row {
    let facts = FactsText::of(who);
    Row {
        id: facts.id,
        text: facts.text.into(),
        since: Wall(0),
        reported: None,
    }
}

fn used(policy: &Policy, who: &Subject, to: &str) -> Attempt {
    let to: Tuple = to.parse().expect("a tuple");
    let verdict = policy.judge(&policy.index(who), &to, Wall(0));
    Attempt {
        start: Wall(0),
        state: if verdict.allows() {
            State::Open
        } else {
            State::Denied
        },
        allow: verdict.allows(),
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
        deny_reason: (!verdict.allows()).then(|| "policy".to_owned()),
        flow: None,
        resumed: false,
        boot: "1".to_owned(),
        seq: (0, 1),
    }
}

fn suggest(text: &str, rows: &[Row], attempts: &[Attempt]) -> Suggestion {
    let policy = policy(text);
    let mut suggest = Suggest::new(&policy, Past::new(rows.iter().cloned()), Wall(0));
    for attempt in attempts {
        suggest.attempt(attempt).expect("facts");
    }
    suggest.finish(text, &Answers::new())
}

#[test]
fn rules_keep_what_was_used_of_them() {
    let old = policy(POLICY);
    let (ana, bob) = (who("ana", &["sre", "web"]), who("bob", &["ops", "sre"]));
    let attempts = [
        used(&old, &ana, "192.0.2.10:443/tcp"),
        used(&old, &ana, "192.0.2.33:22/tcp"),
        used(&old, &ana, "192.0.2.34:22/tcp"),
        used(&old, &bob, "192.0.2.34:22/tcp"),
        used(&old, &bob, "192.0.2.34:8000/tcp"),
        used(&old, &bob, "192.0.2.34:8001/tcp"),
        used(&old, &bob, "192.0.2.99:22/tcp"),
    ];
    let found = suggest(POLICY, &[row(&ana), row(&bob)], &attempts);
    let lines: Vec<&str> = found.policy.lines().collect();
    assert_eq!(
        lines,
        [
            &format!(
                "# What was used of policy {} since 1970-01-01T00:00:00.000Z: 6 attempts.",
                old.hash()
            ),
            "version: 1",
            "",
            "targets:",
            "  api: { addresses: [192.0.2.10], ports: [443/tcp] }",
            "  nodes: { addresses: [192.0.2.32/28], ports: [22/tcp, 8000-8003/tcp] }",
            "",
            "rules:",
            "  - name: \"never here\"",
            "    action: deny",
            "    from: { groups: [guests] }",
            "    to: [nodes]",
            "  - name: \"what if\"",
            "    action: deny",
            "    mode: shadow",
            "    from: anyone",
            "    to: [api]",
            "  # 1 attempts by 1 users, the last 1970-01-01T00:00:00.000Z; 1 of the 1 addresses and ports it had",
            "  - name: api",
            "    action: allow",
            "    from: { users: [ana] }",
            "    to: [api]",
            "  # 5 attempts by 2 users, the last 1970-01-01T00:00:00.000Z; 4 of the 96 addresses and ports it had",
            "  - name: ssh",
            "    action: allow",
            "    from: { groups: [sre] }",
            "    to: [{ addresses: [192.0.2.33], ports: [22/tcp] }, { addresses: [192.0.2.34], ports: [22/tcp, 8000-8001/tcp] }]",
            "  # Left out, because nobody used them:",
            "  #   \"one: that # nobody uses\"",
            "",
            "# Somebody's use of each rule.",
            "tests:",
            "  - { user: ana, groups: [sre, web], device: ana-device, to: \"192.0.2.10:443/tcp\", expect: allow, rule: api }",
            "  - { user: ana, groups: [sre, web], device: ana-device, to: \"192.0.2.33:22/tcp\", expect: allow, rule: ssh }",
            "  - { user: bob, groups: [ops, sre], device: bob-device, to: \"192.0.2.34:8000/tcp\", expect: allow, rule: ssh }",
        ]
    );
    assert!(
        policy(&found.policy)
            .run_tests()
            .iter()
            .all(|test| test.passed)
    );
    let unused = &found.rules[4];
    assert_eq!(
        (unused.kept, unused.attempts, unused.last),
        (false, 0, None)
    );
}

#[test]
fn what_is_not_known_is_not_narrowed() {
    let old = policy(POLICY);
    let ana = who("ana", &["sre"]);
    let bare = Attempt {
        facts: None,
        ..used(&old, &ana, "192.0.2.33:22/tcp")
    };
    let found = suggest(POLICY, &[], &[bare]);
    assert!(
        found.policy.contains("from: { groups: [ops, sre, web] }"),
        "{}",
        found.policy
    );
    // A name may mean another address tomorrow: what it meant is no substitute for it.
    assert!(
        found
            .policy
            .contains("to: [{ addresses: [192.0.2.33], ports: [22/tcp] }]")
    );
}

fn subject() -> impl Strategy<Value = Subject> {
    let some = |names: [&'static str; 4]| {
        prop::collection::btree_set(prop::sample::select(names.to_vec()), 0..3)
    };
    (
        prop::sample::select(vec!["", "ana", "bob", "cy"]),
        some(["a", "b", "c", "d"]),
        some(["x=1", "x=2", "y=1", "y=2"]),
        0..3u8,
        any::<bool>(),
    )
        .prop_map(|(user, groups, labels, device, granted)| Subject {
            device: format!("{user}{device}"),
            standing: Standing {
                labels: labels.into_iter().map(str::to_owned).collect(),
                grants: granted.then(grant).into_iter().collect(),
                ..Standing::default()
            },
            ..who(user, &groups.into_iter().collect::<Vec<_>>())
        })
}

fn grant() -> Grant {
    Grant {
        id: "g1".into(),
        entry: "more".into(),
        target: "two".into(),
        reason: "INC-42".into(),
        break_glass: false,
        since: Wall(0),
        until: Wall::NEVER,
    }
}

/// Rules for a few names at a few addresses, some of which overlap.
fn rules() -> impl Strategy<Value = String> {
    let from = prop::sample::select(vec![
        "anyone",
        "{ groups: [a] }",
        "{ groups: [b, c] }",
        "{ users: [ana, bob] }",
        "{ users: [bob], groups: [a, d] }",
        "{ devices: [ana0, bob1, \"2\"] }",
        "{ machines: any }",
        "{ machines: [\"1\", \"2\"] }",
        "{ labels: [x=1, y=1] }",
        "{ labels: [x=2, y=2], groups: [a, b] }",
    ]);
    let to = prop::sample::select(vec![
        "anything",
        "[one]",
        "[one, two]",
        "[{ addresses: [192.0.2.0/30], ports: [1-4/tcp] }, two]",
        "{ addresses: [192.0.2.1], ports: [2/tcp, 3/udp] }",
    ]);
    let action = prop::sample::select(vec!["allow", "allow", "deny"]);
    let mode = prop::sample::select(vec!["enforce", "enforce", "shadow"]);
    prop::collection::vec((from, to, action, mode), 1..6).prop_filter_map(
        "a rule is out of reach",
        |rules| {
            let mut text = "version: 1\ntargets:
  one: { addresses: [192.0.2.0/31], ports: [1-2/tcp] }
  two: { addresses: [192.0.2.2], ports: [1-4/tcp, 3/udp] }\nrules:\n"
                .to_owned();
            for (n, (from, to, action, mode)) in rules.into_iter().enumerate() {
                text += &format!(
                    "  - {{ name: r{n}, action: {action}, mode: {mode}, from: {from}, to: {to} }}\n"
                );
            }
            text += "grants:\n  - { name: more, from: { groups: [a, b] }, to: [two], max: 4h }\n";
            Policy::parse(&text).is_ok().then_some(text)
        },
    )
}

proptest! {
    #[test]
    fn a_suggestion_breaks_nothing(
        text in rules(),
        uses in prop::collection::vec((subject(), 0..4u8, 1..5u16, any::<bool>()), 0..40),
    ) {
        let old = policy(&text);
        let rows: Vec<Row> = uses.iter().map(|(who, ..)| row(who)).collect();
        let attempts: Vec<Attempt> = uses
            .iter()
            .map(|(who, host, port, tcp)| {
                let protocol = if *tcp { "tcp" } else { "udp" };
                used(&old, who, &format!("192.0.2.{host}:{port}/{protocol}"))
            })
            .collect();
        let found = suggest(&text, &rows, &attempts);
        let new = Policy::parse(&found.policy);
        prop_assert!(new.is_ok(), "{}\n{}", found.policy, new.err().map(|e| e.to_string()).unwrap_or_default());
        let Ok(new) = new else { return Ok(()) };
        prop_assert!(new.run_tests().iter().all(|test| test.passed), "{}", found.policy);
        let mut replay = Replay::new(&new, Past::new(rows), Wall(0));
        for attempt in &attempts {
            replay.attempt(attempt).expect("facts");
        }
        let plan = replay.finish();
        prop_assert_eq!(plan.newly_denied.attempts, 0, "{}\n{:?}", &found.policy, &plan.examples);
        prop_assert_eq!(plan.newly_allowed.attempts, 0, "{}\n{:?}", &found.policy, &plan.examples);
        prop_assert_eq!(plan.by_another_rule, 0, "{}", &found.policy);
    }
}

#[test]
fn names_in_a_rule_stay_names() {
    let text = "
version: 1
rules:
  - name: api
    action: allow
    from: anyone
    to:
      - { names: [API.example.com], ports: [443/tcp, 80/tcp] }
      - { addresses: [192.0.2.0/24], ports: [22/tcp] }
";
    let answers = Answers::from([(
        "api.example.com".to_owned(),
        vec!["198.51.100.7".parse().expect("an address")],
    )]);
    let policy = Policy::compile(text, &answers).expect("a policy");
    let ana = who("ana", &[]);
    let mut suggest = Suggest::new(&policy, Past::new([row(&ana)]), Wall(0));
    for to in ["198.51.100.7:443/tcp", "192.0.2.9:22/tcp"] {
        suggest.attempt(&used(&policy, &ana, to)).expect("facts");
    }
    let found = suggest.finish(text, &answers);
    let to = "to: [{ names: [API.example.com], ports: [443/tcp, 80/tcp] }, { addresses: [192.0.2.9], ports: [22/tcp] }]";
    assert!(found.policy.contains(to), "{}", found.policy);
    assert_eq!((found.rules[0].used, found.rules[0].width), (2, 2 + 256));
}

#[test]
fn own_tests_that_still_pass_stay() {
    let own = "
tests:
  - { user: eve, to: \"192.0.2.33:22/tcp\", expect: deny, rule: default }
  - { user: ana, groups: [sre], to: \"192.0.2.33:22/tcp\", expect: allow, rule: ssh }
  - { user: ana, groups: [sre], to: \"192.0.2.34:22/tcp\", expect: allow }
  - { user: zoe, to: \"192.0.2.65:22/tcp\", expect: allow, rule: \"one: that # nobody uses\" }
";
    let text = format!("{POLICY}{own}");
    let ana = who("ana", &["sre"]);
    let attempts = [used(&policy(&text), &ana, "192.0.2.33:22/tcp")];
    let found = suggest(&text, &[row(&ana)], &attempts).policy;
    let (_, tests) = found.split_once("\ntests:\n").expect("tests");
    let lines: Vec<&str> = tests.lines().collect();
    assert_eq!(
        lines,
        [
            "  - { user: eve, to: \"192.0.2.33:22/tcp\", expect: deny, rule: default }",
            "  - { user: ana, groups: [sre], to: \"192.0.2.33:22/tcp\", expect: allow, rule: ssh }",
            "  - { user: ana, groups: [sre], device: ana-device, to: \"192.0.2.33:22/tcp\", expect: allow, rule: ssh }",
        ]
    );
}

#[test]
fn what_would_be_too_large_stays_as_it_was() {
    let text = "
version: 1
rules:
  - { name: wide, action: allow, from: anyone, to: { addresses: [10.0.0.0/16], ports: [22/tcp] } }
  - { name: small, action: allow, from: anyone, to: { addresses: [192.0.2.0/24], ports: [22/tcp] } }
";
    let old = policy(text);
    let people: Vec<Subject> = (0..110).map(|n| who(&format!("u{n}"), &[])).collect();
    let rows: Vec<Row> = people.iter().map(row).collect();
    // No two of these make a prefix.
    let places = (0..9_900u16).map(|n| std::net::Ipv4Addr::from(0x0a00_0000 + 2 * u32::from(n)));
    let attempts: Vec<Attempt> = places
        .zip(people.iter().cycle())
        .map(|(to, who)| used(&old, who, &format!("{to}:22/tcp")))
        .chain([used(&old, &people[0], "192.0.2.9:22/tcp")])
        .collect();
    let found = suggest(text, &rows, &attempts);
    assert_eq!(found.fault, None);
    policy(&found.policy);
    let has = |line: &str| found.policy.contains(line);
    assert!(has("to: { addresses: [10.0.0.0/16], ports: [22/tcp] }"));
    assert!(has("from: { users: [u0, u1, u10,"));
    assert!(has("to: [{ addresses: [192.0.2.9], ports: [22/tcp] }]"));
}
