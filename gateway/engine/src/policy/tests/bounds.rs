//! Files that nobody writes by hand: too large, too deep, too many faults.

use super::errors::{faults, rule};
use super::*;

#[test]
fn a_file_has_one_document() {
    let found = faults("version: 1\n---\nversion: 1\n");
    assert!(found[0].contains("not valid YAML"), "{found:?}");
}

#[test]
fn a_huge_file_is_refused_unread() {
    let found = faults(&"#".repeat(MAX_SOURCE + 1));
    assert_eq!(
        found,
        [
            "0:0 the policy has 8388609 bytes; the most is 8388608 | name groups and prefixes instead of \
          single members"
        ]
    );
}

#[test]
fn a_rule_cannot_take_all_memory() {
    let list =
        |items: &dyn Fn(usize) -> String| (0..1100).map(items).collect::<Vec<_>>().join(", ");
    let users = list(&|i| format!("u{i}"));
    let nets = list(&|i| format!("10.{}.{}.0/24", i / 250, i % 250));
    let found = rule(&format!(
        "{{ name: r, action: allow, from: {{ users: [{users}] }}, to: {{ addresses: [{nets}], ports: [1/tcp] }} }}"
    ));
    assert_eq!(
        found,
        [
            "6:13 the policy is too large: names by prefixes by ports, over all rules up to this one, are \
          more than 1048576 | name groups instead of users, prefixes instead of hosts"
        ]
    );
}

#[test]
fn a_bomb_of_aliases_is_refused() {
    let mut source = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
    for i in 1..9 {
        let refs = vec![format!("*a{}", i - 1); 10].join(", ");
        source += &format!("a{i}: &a{i} [{refs}]\n");
    }
    assert_eq!(faults(&source).len(), 1);
}

#[test]
fn many_faults_are_counted_and_not_all_shown() {
    let rules: String = (0..500)
        .map(|i| format!("  - {{ name: r{i} }}\n"))
        .collect();
    let found = faults(&format!("version: 1\nrules:\n{rules}"));
    assert_eq!(
        (found.len(), found[100].as_str()),
        (101, "0:0 and 1400 more")
    );
}

#[test]
fn control_characters_never_reach_the_terminal() {
    let shown = Policy::parse("version: 1\nrules: 'x\u{9b}2J'\n")
        .unwrap_err()
        .to_string();
    assert!(
        !shown.chars().any(|c| c.is_control() && c != '\n'),
        "{shown:?}"
    );
}
