//! Access for a while: who may ask, what a grant allows, and when it is over.

use super::*;
use crate::standing::{Grant, Standing};

const HOUR: u64 = 3_600_000_000_000;
const NODE: &str = "192.0.2.10:22/tcp";
const OTHER: &str = "192.0.2.11:22/tcp";

const SOURCE: &str = r#"
version: 1
targets:
  nodes: { addresses: [192.0.2.10, 192.0.2.11], ports: [22/tcp] }
  vault: { addresses: [192.0.2.20], ports: [443/tcp] }
rules:
  - { name: never, action: deny, from: { groups: [interns] }, to: [nodes] }
grants:
  - name: nodes in an emergency
    from: { groups: [interns, sre] }
    to: [nodes]
    max: 4h
    approvers: { groups: [leads] }
    break_glass: true
  - { name: the vault, from: { users: [ana] }, to: [vault, { addresses: [10.0.0.0/8], ports: [22/tcp] }], max: 30m }
"#;

fn at(hour: u64) -> Wall {
    Wall(hour * HOUR)
}

fn grant(entry: &str, target: &str, hours: std::ops::Range<u64>) -> Grant {
    Grant {
        id: "g1".into(),
        entry: entry.into(),
        target: target.into(),
        reason: "INC-42".into(),
        break_glass: false,
        since: at(hours.start),
        until: at(hours.end),
    }
}

fn with(who: Subject, grants: Vec<Grant>) -> Subject {
    let standing = Standing {
        grants,
        ..Standing::default()
    };
    Subject { standing, ..who }
}

fn judged_at(policy: &Policy, who: &Subject, to: &str, now: Wall) -> String {
    let to = to.parse().unwrap();
    let verdict = policy.judge(&policy.index(who), &to, now);
    assert_eq!(policy.explain(who, &to, now).verdict, verdict);
    let action = if verdict.allows() { "allow" } else { "deny" };
    format!("{action} {}", policy.rule_name(verdict.rule()))
}

#[test]
fn a_grant_allows_what_was_asked_for_and_ends() {
    let policy = policy(SOURCE);
    let whole = with(
        who("bo", &["sre"]),
        vec![grant("nodes in an emergency", "nodes", 10..12)],
    );
    let one = with(
        who("bo", &["sre"]),
        vec![grant("nodes in an emergency", NODE, 10..12)],
    );
    let allow = "allow nodes in an emergency";
    for hour in [10, 11] {
        assert_eq!(judged_at(&policy, &whole, NODE, at(hour)), allow);
        assert_eq!(judged_at(&policy, &whole, OTHER, at(hour)), allow);
        assert_eq!(judged_at(&policy, &one, NODE, at(hour)), allow);
        assert_eq!(judged_at(&policy, &one, OTHER, at(hour)), "deny default");
    }
    for hour in [9, 12] {
        assert_eq!(judged_at(&policy, &whole, NODE, at(hour)), "deny default");
    }
    assert_eq!(policy.next_change(&whole, at(9)), Some(at(10)));
    assert_eq!(policy.next_change(&whole, at(10)), Some(at(12)));
    assert_eq!(policy.next_change(&whole, at(12)), None);
    let to: Tuple = NODE.parse().unwrap();
    let index = policy.index(&whole);
    let verdict = policy.judge(&index, &to, at(10));
    assert_eq!(
        (verdict.rule(), verdict.grant()),
        (RuleId::Grant(0), Some(0))
    );
    assert_eq!(
        verdict.target().map(|id| policy.target_name(id)),
        Some("nodes")
    );
    assert_eq!(policy.lost(RuleId::Grant(0), &index, &to, at(11)), None);
    let lost = policy.lost(RuleId::Grant(0), &index, &to, at(12));
    assert_eq!(lost, Some(Condition::Grant));
}

#[test]
fn what_the_entry_asks_must_hold_all_the_while() {
    let policy = policy(SOURCE);
    let given = |who, entry: &str, target| with(who, vec![grant(entry, target, 10..20)]);
    let to: Tuple = NODE.parse().unwrap();
    // The group is gone.
    let left = given(who("bo", &[]), "nodes in an emergency", "nodes");
    assert_eq!(judged_at(&policy, &left, NODE, at(11)), "deny default");
    let lost = policy.lost(RuleId::Grant(0), &policy.index(&left), &to, at(11));
    assert_eq!(lost, Some(Condition::Group));
    // No longer than the entry's `max`, whatever was given.
    let long = given(who("bo", &["sre"]), "nodes in an emergency", "nodes");
    assert_eq!(policy.next_change(&long, at(10)), Some(at(14)));
    assert_eq!(judged_at(&policy, &long, NODE, at(14)), "deny default");
    // An entry or a target that the policy does not have, or not there.
    for (entry, target) in [
        ("gone", "nodes"),
        ("the vault", "nodes"),
        ("nodes in an emergency", "gone"),
        ("nodes in an emergency", "192.0.2.12:22/tcp"),
    ] {
        let none = given(who("bo", &["sre"]), entry, target);
        assert_eq!(judged_at(&policy, &none, NODE, at(11)), "deny default");
    }
    // A denial stands above any grant.
    let intern = given(who("cy", &["interns"]), "nodes in an emergency", "nodes");
    assert_eq!(judged_at(&policy, &intern, NODE, at(11)), "deny never");
    // Unapproved use ends once the entry no longer permits it.
    let mut glass = grant("the vault", "vault", 10..11);
    glass.break_glass = true;
    let glass = with(who("ana", &[]), vec![glass]);
    let vault = "192.0.2.20:443/tcp";
    assert_eq!(judged_at(&policy, &glass, vault, at(10)), "deny default");
}

#[test]
fn who_may_ask_is_told_how_and_who_may_not_why() {
    let policy = policy(SOURCE);
    let (ana, bo) = (who("ana", &["leads"]), who("bo", &["sre"]));
    let names = |who: &Subject, target| match policy.may_request(who, target, at(1)) {
        Ok(entries) => entries.iter().map(|entry| entry.name()).collect(),
        Err(refusal) => refusal.to_string(),
    };
    assert_eq!(names(&bo, "nodes"), "nodes in an emergency");
    assert_eq!(names(&bo, OTHER), "nodes in an emergency");
    assert_eq!(names(&ana, "10.1.2.3:22/tcp"), "the vault");
    assert_eq!(
        names(&ana, "nodes"),
        "\"nodes in an emergency\" is not for this device: one of the groups interns, sre is \
         required; ana has leads"
    );
    assert_eq!(
        names(&bo, "node"),
        "there is no target `node`; did you mean `nodes`?"
    );
    assert_eq!(
        names(&bo, "192.0.2.10:80/tcp"),
        "nobody may ask for 192.0.2.10:80/tcp: no entry of `grants:` has it"
    );
    let why = |who: &Subject, to: &str| policy.explain(who, &to.parse().unwrap(), at(1));
    let told = why(&bo, NODE);
    assert_eq!(told.requestable.as_deref(), Some("nodes in an emergency"));
    assert!(
        told.to_string()
            .contains("\n  you may ask: postern request nodes --for 1h --reason …")
    );
    assert_eq!(
        why(&ana, "10.1.2.3:22/tcp").ask.as_deref(),
        Some("postern request 10.1.2.3:22/tcp --for 30m --reason …")
    );
    assert_eq!(why(&ana, NODE).requestable, None);
    // Asking would not help against a denial.
    assert_eq!(why(&who("cy", &["interns"]), NODE).requestable, None);
}

#[test]
fn only_users_among_the_approvers_may_approve() {
    let policy = policy(SOURCE);
    let entry = "nodes in an emergency";
    let ana = who("ana", &["leads"]);
    assert!(policy.may_approve(&ana, entry, at(1)));
    assert!(
        !policy.may_approve(&ana, "the vault", at(1)),
        "no approvers"
    );
    assert!(!policy.may_approve(&ana, "gone", at(1)));
    assert!(!policy.may_approve(&who("bo", &["sre"]), entry, at(1)));
    let machine = Subject {
        user: None,
        ..ana.clone()
    };
    assert!(!policy.may_approve(&machine, entry, at(1)));
    let mut held = ana;
    held.standing.held = Some(crate::standing::Held::Approval);
    assert!(!policy.may_approve(&held, entry, at(1)));
}

#[test]
fn the_entries_are_there_to_list() {
    let policy = policy(SOURCE);
    let listed: Vec<String> = policy
        .grants()
        .map(|one| {
            let to: Vec<_> = one.to().map(|at| at.target().unwrap_or("-")).collect();
            let (name, line, who) = (one.name(), one.line(), one.who());
            let (glass, approved) = (one.break_glass(), one.has_approvers());
            format!(
                "{name} {line} {who} {to:?} {:?} {glass} {approved}",
                one.max()
            )
        })
        .collect();
    assert_eq!(
        listed,
        [
            "nodes in an emergency 9 groups: interns, sre [\"nodes\"] 14400s true true",
            "the vault 15 users: ana [\"vault\", \"-\"] 1800s false false",
        ]
    );
    let names: Vec<&str> = policy.rule_names().map(|(_, name)| name).collect();
    assert_eq!(
        names,
        ["never", "nodes in an emergency", "the vault", "default"]
    );
    assert_eq!(policy.rule_line(RuleId::Grant(1)), Some(15));
}

#[test]
fn mistakes_in_grants_are_said() {
    let errors = |grants: &str| -> Vec<String> {
        let source = format!(
            "version: 1\ntargets: {{ t: {{ addresses: [192.0.2.1], ports: [22/tcp] }} }}\n\
             rules: [{{ name: r, action: allow, from: anyone, to: [t] }}]\ngrants: {grants}\n"
        );
        let errors = Policy::parse(&source).map(|_| ()).unwrap_err();
        let said = |error: &PolicyError| match &error.help {
            Some(help) => format!("{} | {help}", error.message),
            None => error.message.clone(),
        };
        errors.0.iter().map(said).collect()
    };
    assert_eq!(
        errors(
            "[{ name: g, from: sre, to: [elsewhere], max: 4, approvers: leads, break_glass: yes }]"
        ),
        [
            "`sre` does not say who | write `from: { groups: [sre] }`, or `from: anyone`",
            "there is no target `elsewhere` | name it in `targets:`, `elsewhere: { addresses: [192.0.2.10], ports: [22/tcp] }`",
            "`4` is no time | write a number and its unit: `30m`, `4h` or `2d`",
            "`leads` does not say who | write `approvers: { groups: [leads] }`, or `approvers: anyone`",
            "`break_glass` cannot be `yes` | write `true` or `false`",
        ]
    );
    assert_eq!(
        errors(
            "[{ name: r, from: anyone, to: [t], max: 1h }, { name: default, from: anyone, to: [t] }]"
        ),
        [
            "a rule and a grant are called `r`, the first on line 3 | a record names its rule: give each its own name",
            "a grant has no `max` | write the longest time, such as `max: 4h`",
            "a grant cannot be called `default`: so the records call the absence of a rule | give it another name",
        ]
    );
    assert_eq!(
        errors("{ name: g }"),
        [
            "`grants` must be a list | write `- { name: …, from: …, to: …, max: 4h }`, one below the other"
        ]
    );
    policy(
        "version: 1\ngrants: []\nrules: [{ name: r, action: allow, from: anyone, to: anything }]",
    );
}

#[test]
fn every_target_is_in_anything_and_what_grants_name_is_in_the_include_list() {
    let source = "version: 1
targets:
  nodes: { addresses: [192.0.2.10], ports: [22/tcp] }
rules:
  - { name: wiki, action: allow, from: { groups: [wiki] }, to: [{ addresses: [192.0.2.80], ports: [443/tcp] }] }
grants:
  - { name: all, from: { groups: [sre] }, to: anything, max: 1h }
  - { name: lab, from: { groups: [sre] }, to: [{ addresses: [10.9.0.0/16], ports: [22/tcp] }], max: 1h }
";
    let policy = Policy::parse(source).unwrap();
    let include: Vec<String> = policy.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(include, ["10.9.0.0/16", "192.0.2.10/32", "192.0.2.80/32"]);
    let who = who("ana", &["sre"]);
    let entries = policy.may_request(&who, "nodes", at(10)).unwrap();
    assert_eq!(
        entries.iter().map(GrantEntry::name).collect::<Vec<_>>(),
        ["all"]
    );
    let who = with(who, vec![grant("all", "nodes", 10..12)]);
    assert_eq!(judged_at(&policy, &who, NODE, at(10)), "allow all");
    assert_eq!(judged_at(&policy, &who, OTHER, at(10)), "deny default");
    assert_eq!(judged_at(&policy, &who, NODE, at(11)), "deny default");
    assert_eq!(policy.live_grants(RuleId::Grant(0), &who, at(10)).len(), 1);
    assert!(
        policy
            .live_grants(RuleId::Grant(0), &who, at(11))
            .is_empty()
    );
}
