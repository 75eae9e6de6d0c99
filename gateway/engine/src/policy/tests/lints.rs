//! Warnings.

use super::*;

const TARGETS: &str = "version: 1\ntargets:\n  api: { addresses: [10.0.0.10], ports: [443/tcp] }\n  db: { addresses: [10.0.1.0/24], ports: [5432/tcp] }\nrules:\n";

/// 2026-11-22.
const NOW: Wall = Wall(1_795_305_600_000_000_000);

fn lints(rules: &str, known: &Known) -> Vec<String> {
    let source = format!("{TARGETS}{rules}");
    Policy::parse(&source).unwrap();
    let shown = |warning: PolicyWarning| {
        let PolicyWarning(fault) = warning;
        format!(
            "{}:{} {} | {}",
            fault.line,
            fault.column,
            fault.message,
            fault.help.unwrap_or_default()
        )
    };
    Policy::lints(&source, known, NOW)
        .into_iter()
        .map(shown)
        .collect()
}

fn names(names: &[&str]) -> Option<BTreeSet<String>> {
    Some(names.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn an_ordinary_policy_is_warned_of_nothing() {
    let rules = "  - { name: a, action: deny, from: { groups: [guests] }, to: anything }\n  - { name: b, action: allow, from: { groups: [web, dba] }, to: [api, db] }\n";
    assert_eq!(lints(rules, &Known::default()), [""; 0]);
}

#[test]
fn names_that_nobody_has_are_told() {
    let known = Known {
        groups: names(&["web", "sre"]),
        users: names(&["ana@example.com"]),
        labels: names(&["team=infra"]),
        ..Known::default()
    };
    let rules = "  - { name: a, action: allow, from: { groups: [wbe, sre], devices: [lost] }, to: [api] }\n  - { name: b, action: allow, from: { users: [bo@example.net], labels: [team=infra, team=infr] }, to: [api] }\n";
    assert_eq!(
        lints(rules, &known),
        [
            "6:48 nobody is in the group `wbe` | did you mean `web`?",
            "7:47 there is no user `bo@example.net` | invite it, or take it out",
            "7:85 no device has the label `team=infr` | did you mean `team=infra`?",
        ]
    );
}

#[test]
fn a_window_that_is_over_is_told() {
    let rules = "  - { name: a, action: allow, from: anyone, to: [api], until: 2026-11-21 }\n  - { name: b, action: allow, from: anyone, to: [db], until: 2026-11-22 }\n";
    assert_eq!(
        lints(rules, &Known::default()),
        [
            "6:63 the rule `a` applies no more: its window is until 2026-11-21 UTC | take it out, or move `until`"
        ]
    );
}

#[test]
fn what_is_wider_than_meant_is_told() {
    let rules = "  - { name: a, action: allow, from: { groups: [a] }, to: { addresses: [10.0.0.0/15], ports: [22/tcp] } }\n  - { name: b, action: allow, from: { groups: [b] }, to: { addresses: [10.0.1.0/25, 10.0.0.0/24], ports: [443/tcp] } }\n  - { name: c, action: allow, from: { groups: [c] }, to: anything }\n";
    let found = lints(rules, &Known::default());
    assert_eq!(
        found,
        [
            "6:58 the rule `a` allows all of 10.0.0.0/15, which is wider than a /16 | name the networks that are meant",
            "7:58 the rule `b` allows all of 10.0.0.0/24, and the target `api` is a part of it | write `to: [api]` if that is meant",
            "8:58 the rule `c` allows every address of IPv4 | name the targets that are meant",
            "8:58 the rule `c` allows every address of IPv6 | name the targets that are meant",
        ]
    );
}

#[test]
fn what_an_earlier_rule_of_the_other_action_decides_is_told() {
    let rules = "  - { name: a, action: deny, from: { groups: [guests] }, to: [db] }\n  - { name: b, action: allow, from: { groups: [guests, web] }, to: [db] }\n  - { name: c, action: allow, from: { groups: [guests] }, to: [api, db] }\n  - { name: d, action: deny, from: { groups: [guests, ops] }, to: [api] }\n";
    assert_eq!(
        lints(rules, &Known::default()),
        [
            "7:48 the rule `b` never decides for `guests`: `a` on line 6 denies it first | take it out here, or move the rule up",
            "8:69 the rule `c` never decides for the target `db`: `a` on line 6 denies it first | take it out here, or move the rule up",
            "9:47 the rule `d` never decides for `guests`: `c` on line 8 allows it first | take it out here, or move the rule up",
        ]
    );
    // In shadow a rule decides nothing, and what asks for more takes nothing for certain.
    let rules = "  - { name: a, action: deny, mode: shadow, from: { groups: [guests] }, to: [db] }\n  - { name: b, action: deny, from: { groups: [guests], session_age: 1h }, to: [db] }\n  - { name: c, action: allow, from: { groups: [guests, web] }, to: [db] }\n";
    assert_eq!(lints(rules, &Known::default()), [""; 0]);
}

#[test]
fn a_warning_shows_its_place() {
    let source = format!(
        "{TARGETS}  - {{ name: a, action: allow, from: anyone, to: [api], until: 2026-11-21 }}\n"
    );
    let warnings = Policy::lints(&source, &Known::default(), NOW);
    assert_eq!(
        warnings[0].to_string(),
        "warning: the rule `a` applies no more: its window is until 2026-11-21 UTC\n \
         --> line 6, column 63\n  |\n6 |   - { name: a, action: allow, from: anyone, to: [api], until: 2026-11-21 }\n  \
         |                                                               ^^^^^^^^^^\n  = help: take it out, or move `until`"
    );
}
