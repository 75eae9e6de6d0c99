//! What the `tests:` of a file may say of who asks, and when.

use super::*;

const SOURCE: &str = r#"
version: 1
targets:
  nodes: { addresses: [192.0.2.10], ports: [22/tcp] }
rules:
  - { name: infra, action: allow, from: { labels: [team=infra] }, to: [nodes] }
  - { name: machines, action: allow, from: { machines: [ci] }, to: [nodes] }
  - { name: proved, action: allow, from: { issuers: ["https://idp.example.com"], amr: [mfa], acr: ["2"] }, to: [nodes] }
  - { name: office, action: allow, from: { users: [bo], outer: [198.51.100.0/24] }, to: [nodes] }
  - { name: by day, action: allow, from: { users: [cy] }, to: [nodes], when: { hours: "07:00-20:00", zone: Europe/Berlin } }
grants:
  - { name: urgent, from: { users: [dee] }, to: [nodes], max: 1h }
tests:
"#;

fn outcomes(tests: &[&str]) -> Vec<String> {
    let mut source = SOURCE.to_owned();
    for test in tests {
        source += &format!("  - {{ {test}, to: \"192.0.2.10:22/tcp\", expect: deny }}\n");
    }
    let outcomes = policy(&source).run_tests();
    outcomes.into_iter().map(|outcome| outcome.got).collect()
}

#[test]
fn every_selector_can_be_tested() {
    let login = "user: ana, issuer: \"https://idp.example.com\", amr: [mfa, pwd]";
    let cases = [
        ("user: ana, labels: [team=infra]", "infra"),
        ("user: ana, labels: [team=web]", "default"),
        ("device: ci, machine: true", "machines"),
        ("device: ci", "default"),
        ("device: ci, user: ana", "default"),
        (&format!("{login}, acr: \"2\""), "proved"),
        (&format!("{login}, acr: \"1\""), "default"),
        ("user: bo, outer: 198.51.100.7", "office"),
        ("user: bo, outer: 203.0.113.7", "default"),
        ("user: bo", "default"),
        ("user: cy, at: \"2026-12-01 07:30 Europe/Berlin\"", "by day"),
        ("user: cy, at: \"2026-12-01 06:30\"", "by day"),
        (
            "user: cy, at: \"2026-12-01 06:30 Europe/Berlin\"",
            "default",
        ),
        // Without a time no window is open.
        ("user: cy", "default"),
        ("user: dee, grant: urgent", "urgent"),
        (
            "user: dee, at: \"2026-12-01 06:30\", grant: urgent",
            "urgent",
        ),
        ("user: ana, grant: urgent", "default"),
    ];
    let tests: Vec<&str> = cases.iter().map(|(test, _)| *test).collect();
    let expected: Vec<String> = cases
        .iter()
        .map(|(_, rule)| {
            let action = if *rule == "default" { "deny" } else { "allow" };
            format!("{action} by \"{rule}\"")
        })
        .collect();
    assert_eq!(outcomes(&tests), expected);
}

#[test]
fn mistakes_in_what_a_test_says_are_said() {
    let test = "user: ana, machine: true, outer: here, at: noon, grant: urgend";
    let source = format!("{SOURCE}  - {{ {test}, to: \"192.0.2.10:22/tcp\", expect: deny }}\n");
    let errors = Policy::parse(&source).map(|_| ()).unwrap_err();
    let said: Vec<String> = errors
        .0
        .iter()
        .map(|one| format!("{} | {}", one.message, one.help.as_deref().unwrap_or("")))
        .collect();
    assert_eq!(
        said,
        [
            "a machine has no user | take out one of `user` and `machine`",
            "`here` is not an address | write where the device is, such as `198.51.100.7`",
            "`noon` is no date and time | write `\"2026-12-01 09:00 Europe/Berlin\"`",
            "there is no grant `urgend` | did you mean `urgent`?",
        ]
    );
}

#[test]
fn what_a_test_is_about_is_said_in_full() {
    let source = format!(
        "{SOURCE}  - {{ user: ana, labels: [team=web], amr: [mfa], session_age: 2h, outer: 198.51.100.7, to: \"192.0.2.10:22/tcp\", expect: deny }}\n"
    );
    let [outcome] = &policy(&source).run_tests()[..] else {
        panic!("one test");
    };
    assert_eq!(
        outcome.described,
        "ana, team=web, login mfa 2 h ago, at 198.51.100.7 to 192.0.2.10:22/tcp"
    );
    assert!(outcome.passed);
}

#[test]
fn a_denial_says_what_each_selector_asks_and_what_there_is() {
    let mut bo = who("bo", &[]);
    let why = |who: &Subject, rule: &str| {
        // One rule alone, so that it is the nearest.
        let source = SOURCE.replace("tests:\n", "");
        let keep = |line: &&str| !line.contains("{ name: ") || line.contains(rule);
        let lines: Vec<&str> = source.lines().filter(keep).collect();
        let policy = Policy::parse(&lines.join("\n")).unwrap();
        let explained = policy.explain(who, &"192.0.2.10:22/tcp".parse().unwrap(), Wall(0));
        let failed = explained.nearest.unwrap().failed;
        let said: Vec<String> = failed.iter().map(|one| one.sentence.to_string()).collect();
        said.join(" + ")
    };
    assert_eq!(
        why(&bo, "infra"),
        "label team=infra is required; the device has no label"
    );
    assert_eq!(
        why(&bo, "machines"),
        "machine ci is required; the device belongs to bo"
    );
    assert_eq!(
        why(&bo, "office"),
        "the device must be on the Internet at 198.51.100.0/24; where it is, is not known"
    );
    bo.standing.outer = Some("::ffff:203.0.113.7".parse().unwrap());
    assert_eq!(
        why(&bo, "office"),
        "the device must be on the Internet at 198.51.100.0/24; it is at 203.0.113.7"
    );
    assert_eq!(
        why(&bo, "proved"),
        "the login must be by https://idp.example.com; the device has none + the login must show \
         mfa; the device has none + the login must be of class 2; the device has none"
    );
    bo.standing.session = Some(crate::standing::Session {
        id: "s".into(),
        method: "email".into(),
        issuer: None,
        amr: vec!["pwd".to_owned()],
        acr: Some("1".to_owned()),
        since: Wall(0),
        until: None,
    });
    assert_eq!(
        why(&bo, "proved"),
        "the login must be by https://idp.example.com; it is by no issuer, but by email + the \
         login must show mfa; it shows pwd + the login must be of class 2; it is of class 1"
    );
}
