//! The mistakes of `posture:`, `session_age:` and of the tests that use them.

use super::errors::faults;

/// A file whose line 3 is `check`, whose line 5 has `from`, and whose line 7 has `test`.
fn file(check: &str, from: &str, test: &str) -> Vec<String> {
    let all = faults(&format!(
        "version: 1\nposture:\n  c: {check}\nrules:\n  \
         - {{ name: r, action: allow, to: anything, from: {from} }}\ntests:\n  \
         - {{ to: 192.0.2.10/icmp, expect: deny, {test} }}\n"
    ));
    // The place is tested once, below.
    let words = |fault: String| fault.split_once(' ').map(|(_, words)| words.to_owned());
    all.into_iter().filter_map(words).collect()
}

fn check(check: &str) -> Vec<String> {
    file(check, "anyone", "user: u")
}

fn from(from: &str) -> Vec<String> {
    file("{ firewall: on }", from, "user: u")
}

fn test(test: &str) -> Vec<String> {
    file("{ firewall: on }", "anyone", test)
}

#[test]
fn a_fault_of_a_check_is_shown_where_it_stands() {
    let found = faults(
        "version: 1\nposture:\n  edr: { proces: falcon }\n  v: { os: debian, os_version: 12 }\nrules:\n  \
         - { name: r, action: allow, from: { posture: [edr, edt], session_age: 12 }, to: anything }\n",
    );
    assert_eq!(
        found,
        [
            "3:10 a check has an unknown field `proces` | did you mean `process`?",
            "4:32 `12` compares no version | write `\">= 12\"` for 12 or newer, `\"= 12\"` for no other",
            "6:54 there is no check `edt` | did you mean `edr`?",
            "6:73 `12` is no age | write a number and its unit: `30m`, `12h` or `7d`",
        ]
    );
}

#[test]
fn a_check_looks_at_one_thing() {
    for good in [
        "{ os: debian }",
        "{ os: debian, os_version: \"< 2.0\" }",
        "{ kernel: \">= 6.1\" }",
        "{ client_version: \"> 0.1.0\" }",
        "{ disk_encryption: on }",
        "{ firewall: \"on\" }",
        "{ process: falcon-sensor }",
        "{ file: /etc/corp.pem }",
        "{ attribute: { name: managed, value: yes } }",
    ] {
        assert_eq!(check(good), [""; 0], "{good}");
    }
    let hash = "0123456789abcdefABCDEF0123456789".repeat(2);
    assert_eq!(check(&format!("{{ file: /x, sha256: {hash} }}")), [""; 0]);
    for nothing in ["{}", "{ }"] {
        assert_eq!(
            check(nothing),
            [
                "a check without anything to look at | write what the device must show, such as \
              `disk_encryption: on`"
            ]
        );
    }
    assert_eq!(
        check("{ process: edr, firewall: on }"),
        [
            "a check looks at one thing, not at `firewall` and `process` | make two checks of it; a \
          rule may ask for both"
        ]
    );
    assert_eq!(
        check("{ os_version: \">= 12\" }"),
        ["a check has no `os` | a version of which system? write `os: debian` as well"]
    );
    assert_eq!(
        check(&format!("{{ sha256: {hash} }}")),
        ["a check has no `file` | the hash of which file? write `file: /etc/…` as well"]
    );
    assert_eq!(
        check("on"),
        ["a check must be a map, not a word | write `name: value` pairs, indented below it"]
    );
}

#[test]
fn a_value_that_no_device_can_show_is_a_fault() {
    for (wrong, fault) in [
        (
            "{ disk_encryption: off }",
            "`disk_encryption` must be `on` | write `disk_encryption: on`",
        ),
        (
            "{ firewall: true }",
            "`firewall` must be `on` | write `firewall: on`",
        ),
        (
            "{ kernel: \"~ 6\" }",
            "`~ 6` compares no version | write an operator and a version, such as `\">= 12\"` or \
             `\"< 2.0\"`",
        ),
        (
            "{ process: /opt/edr/falcon }",
            "`/opt/edr/falcon` is a path, not the name of a process | write `process: falcon`",
        ),
        (
            "{ process: falcon-sensor-daemon }",
            "the kernel keeps 15 bytes of a process's name | write `process: falcon-sensor-d`",
        ),
        ("{ process: [a] }", "`process` must be a word, not a list"),
        (
            "{ file: etc/corp.pem }",
            "`etc/corp.pem` is not an absolute path | write the path from `/` on, such as \
             `/etc/corp.pem`",
        ),
        (
            "{ file: ~/corp.pem }",
            "`~/corp.pem` is not an absolute path | write the path from `/` on; a check is the same \
             for every user",
        ),
        (
            "{ file: /etc/corp.pem, sha256: abc }",
            "a SHA-256 has 64 hex digits; this has 3 characters | write what `sha256sum FILE` prints \
             first",
        ),
        (
            "{ attribute: managed }",
            "`attribute` must be a map | write `attribute: { name: managed, value: \"yes\" }`",
        ),
        (
            "{ attribute: { name: managed } }",
            "`attribute` has no `value` | write `attribute: { name: managed, value: \"yes\" }`",
        ),
    ] {
        assert_eq!(check(wrong), [fault], "{wrong}");
    }
}

#[test]
fn a_rule_asks_for_checks_that_there_are() {
    let unknown = "there is no check `disk` | name it at the top, `posture: { disk: { \
                   disk_encryption: on } }`";
    assert_eq!(from("{ posture: [disk] }"), [unknown]);
    assert_eq!(
        from("{ posture: [] }"),
        [
            "`posture` is empty | empty never means everything; write at least one check, or take the \
          field out"
        ]
    );
    assert_eq!(
        from("{ posture: c }"),
        ["`posture` must be a list | write `posture: [c]`"]
    );
    for age in ["0s", "-1h", "1w", "soon", "\"12\""] {
        let found = from(&format!("{{ session_age: {age} }}"));
        assert!(
            found.len() == 1 && found[0].contains("is no age"),
            "{found:?}"
        );
    }
    assert_eq!(from("{ posture: [c], session_age: 90m }"), [""; 0]);
    // A check with a fault is one fault, not one more for every rule that asks for it.
    assert_eq!(
        file("{ firewall: off }", "{ posture: [c] }", "posture: [c]"),
        ["`firewall` must be `on` | write `firewall: on`"]
    );
}

#[test]
fn conditions_on_state_stand_in_from() {
    let rule = |field: &str| {
        faults(&format!(
            "version: 1\nrules:\n  - {{ name: r, action: allow, from: anyone, to: anything, {field} }}\n"
        ))
    };
    assert_eq!(
        rule("posture: [c]"),
        ["3:59 `posture` says who, and stands in `from` | write `from: { posture: … }`"]
    );
    assert_eq!(
        rule("session_age: 1h"),
        ["3:59 `session_age` says who, and stands in `from` | write `from: { session_age: … }`"]
    );
}

#[test]
fn a_test_names_checks_and_an_age() {
    assert_eq!(test("posture: [c], session_age: 2h, rule: r"), [""; 0]);
    assert_eq!(
        test("posture: [d]"),
        ["there is no check `d` | did you mean `c`?"]
    );
    assert_eq!(
        test("session_age: 2"),
        ["`2` is no age | write a number and its unit: `30m`, `12h` or `7d`"]
    );
}

#[test]
fn checks_are_counted_and_named_once() {
    let many: String = (0..65)
        .map(|i| format!("  c{i}: {{ process: p{i} }}\n"))
        .collect();
    let rules = "rules:\n  - { name: r, action: allow, from: anyone, to: anything }\n";
    assert_eq!(
        faults(&format!("version: 1\nposture:\n{many}{rules}")),
        ["67:3 there are more than 64 checks | take out those that no rule asks for"]
    );
    assert_eq!(
        faults(&format!(
            "version: 1\nposture:\n  a: {{ firewall: on }}\n  a: {{ firewall: on }}\n{rules}"
        )),
        ["4:3 `a` stands here twice, first on line 3 | keep one of them"]
    );
}
