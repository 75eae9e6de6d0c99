//! Targets by name.

use super::*;

const SOURCE: &str = "\
version: 1
targets:
  api: { names: [api.example.com], ports: [443/tcp] }
  both: { names: [Db.Example.com.], addresses: [10.0.0.9], ports: [5432/tcp] }
rules:
  - { name: api, action: allow, from: { groups: [web] }, to: [api] }
  - { name: both, action: allow, from: anyone, to: [both] }
  - { name: last, action: allow, from: { groups: [web] }, to: { addresses: [203.0.113.7], ports: [443/tcp] } }
";

fn answers(list: &[(&str, &[&str])]) -> Answers {
    let parsed = |(name, to): &(&str, &[&str])| {
        let to = to.iter().map(|address| address.parse().unwrap()).collect();
        ((*name).to_owned(), to)
    };
    list.iter().map(parsed).collect()
}

fn rule_at(policy: &Policy, to: &str) -> String {
    let web = Subject {
        groups: vec!["web".to_owned()],
        ..Subject::default()
    };
    let verdict = policy.judge(&policy.index(&web), &to.parse().unwrap(), Wall(0));
    policy.rule_name(verdict.rule()).to_owned()
}

#[test]
fn a_name_means_what_it_was_answered_and_nothing_without() {
    let unknown = Policy::parse(SOURCE).unwrap();
    assert_eq!(
        unknown.names().into_iter().collect::<Vec<_>>(),
        ["api.example.com", "db.example.com"]
    );
    assert_eq!(rule_at(&unknown, "203.0.113.8:443/tcp"), "default");
    assert_eq!(rule_at(&unknown, "203.0.113.7:443/tcp"), "last");
    assert_eq!(rule_at(&unknown, "10.0.0.9:5432/tcp"), "both");

    let all = [
        (
            "api.example.com",
            &["203.0.113.8", "::ffff:203.0.113.7"][..],
        ),
        ("db.example.com", &["2001:db8::9"][..]),
        ("other.example.com", &["203.0.113.99"][..]),
    ];
    let known = Policy::compile(SOURCE, &answers(&all)).unwrap();
    assert_eq!(known.hash(), unknown.hash());
    assert_eq!(rule_at(&known, "203.0.113.8:443/tcp"), "api");
    assert_eq!(rule_at(&known, "203.0.113.8:80/tcp"), "default");
    assert_eq!(rule_at(&known, "[2001:db8::9]:5432/tcp"), "both");
    assert_eq!(rule_at(&known, "203.0.113.99:443/tcp"), "default");
    let include: Vec<String> = known.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(
        include,
        [
            "10.0.0.9/32",
            "203.0.113.7/32",
            "203.0.113.8/32",
            "2001:db8::9/128"
        ]
    );
}

#[test]
fn no_rule_becomes_a_fault_because_of_what_a_name_means() {
    // `last` is behind `api` for the only address that it has.
    let all = [("api.example.com", &["203.0.113.7"][..])];
    let policy = Policy::compile(SOURCE, &answers(&all)).unwrap();
    assert_eq!(rule_at(&policy, "203.0.113.7:443/tcp"), "api");

    let same_twice = SOURCE.replace(
        "to: { addresses: [203.0.113.7], ports: [443/tcp] }",
        "to: [api]",
    );
    for answers in [Answers::new(), answers(&all)] {
        Policy::compile(&same_twice, &answers).unwrap();
    }

    let after_all = SOURCE.replace(
        "rules:\n",
        "rules:\n  - { name: wide, action: deny, from: anyone, to: anything }\n",
    );
    let faults = Policy::parse(&after_all).unwrap_err();
    let lines: Vec<usize> = faults.0.iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [7, 8, 9], "{faults}");
}

#[test]
fn a_policy_is_as_large_with_answers_as_without() {
    let many: Vec<String> = (0..200).map(|n| format!("10.0.{n}.1")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let policy = Policy::compile(SOURCE, &answers(&[("api.example.com", &many)])).unwrap();
    assert_eq!(rule_at(&policy, "10.0.63.1:443/tcp"), "api");
    assert_eq!(rule_at(&policy, "10.0.64.1:443/tcp"), "default");
    // Looking back, all that it meant counts.
    let all = answers(&[("api.example.com", &many)]);
    let past = Policy::compile_for_the_past(SOURCE, &all).unwrap();
    assert_eq!(rule_at(&past, "10.0.199.1:443/tcp"), "api");
}

#[test]
fn a_denial_names_the_name_and_not_what_it_means() {
    let all = [("api.example.com", &["203.0.113.8"][..])];
    let source = SOURCE.replace("from: anyone", "from: { groups: [dba] }");
    let source = source.split("  - { name: last").next().unwrap();
    let policy = Policy::compile(source, &answers(&all)).unwrap();
    let web = Subject {
        groups: vec!["web".to_owned()],
        ..Subject::default()
    };
    let explained = policy.explain(&web, &"198.51.100.1:443/tcp".parse().unwrap(), Wall(0));
    assert_eq!(
        explained.nearest.unwrap().sentence().to_string(),
        "address 198.51.100.1 is not among api.example.com"
    );
}
