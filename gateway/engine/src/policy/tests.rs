//! What a policy does, seen from outside.

mod bounds;
mod cases;
mod errors;
mod grants;
mod lints;
mod model;
mod names;
mod posture_errors;
mod state;

use super::*;
use std::net::IpAddr;

const FIRST: &str = r#"
version: 1
targets:
  kube-api: { addresses: [192.0.2.10], ports: [6443/tcp] }
  nodes:    { addresses: [192.0.2.10, 5.75.198.10, "2001:db8::/64"], ports: [22/tcp, icmp] }
rules:
  - name: kubectl to the API server
    action: allow
    from: { groups: [platform] }
    to: [kube-api]
  - name: ssh to the nodes
    action: allow
    from: { groups: [sre] }
    to: [nodes]
"#;

fn policy(source: &str) -> Policy {
    Policy::parse(source).unwrap_or_else(|errors| panic!("{errors}"))
}

fn rules(rules: &str) -> Policy {
    policy(&format!(
        "version: 1\ntargets:\n  a: {{ addresses: [10.0.0.1], ports: [22/tcp] }}\n  \
         b: {{ addresses: [10.0.0.0/8], ports: [1-1000/tcp] }}\nrules:\n{rules}"
    ))
}

fn who(user: &str, groups: &[&str]) -> Subject {
    Subject {
        user: Some(user.to_owned()),
        groups: groups.iter().map(|g| (*g).to_owned()).collect(),
        device: format!("{user}-laptop"),
        standing: Default::default(),
    }
}

/// `allow kubectl to the API server`
fn judged(policy: &Policy, who: &Subject, to: &str) -> String {
    let verdict = policy.judge(&policy.index(who), &to.parse().unwrap(), Wall(0));
    let action = if verdict.allows() { "allow" } else { "deny" };
    format!("{action} {}", policy.rule_name(verdict.rule()))
}

#[test]
fn a_group_reaches_its_targets_and_nothing_else() {
    let policy = policy(FIRST);
    let (ana, bo) = (who("ana", &["platform"]), who("bo", &["sre"]));
    assert_eq!(
        judged(&policy, &ana, "192.0.2.10:6443/tcp"),
        "allow kubectl to the API server"
    );
    assert_eq!(judged(&policy, &ana, "192.0.2.10:22/tcp"), "deny default");
    assert_eq!(judged(&policy, &ana, "192.0.2.10:6443/udp"), "deny default");
    assert_eq!(
        judged(&policy, &bo, "192.0.2.10:22/tcp"),
        "allow ssh to the nodes"
    );
    assert_eq!(
        judged(&policy, &bo, "[2001:db8::ffff]:22/tcp"),
        "allow ssh to the nodes"
    );
    assert_eq!(
        judged(&policy, &bo, "192.0.2.10/icmp"),
        "allow ssh to the nodes"
    );
    assert_eq!(judged(&policy, &bo, "192.0.2.11/icmp"), "deny default");
    assert_eq!(
        judged(&policy, &Subject::default(), "192.0.2.10:22/tcp"),
        "deny default"
    );
}

#[test]
fn a_verdict_names_the_target() {
    let policy = policy(FIRST);
    let to = "5.75.198.10:22/tcp".parse().unwrap();
    let verdict = policy.judge(&policy.index(&who("bo", &["sre"])), &to, Wall(0));
    assert_eq!(
        verdict.target().map(|id| policy.target_name(id)),
        Some("nodes")
    );
    assert_eq!(verdict.rule(), RuleId::Rule(1));
}

#[test]
fn the_first_match_wins_in_both_directions() {
    let policy = rules(
        "  - { name: not ana, action: deny, from: { users: [ana] }, to: [a] }\n  \
           - { name: sre, action: allow, from: { groups: [sre] }, to: [b] }\n  \
           - { name: closed, action: deny, from: anyone, to: [b] }\n",
    );
    assert_eq!(
        judged(&policy, &who("ana", &["sre"]), "10.0.0.1:22/tcp"),
        "deny not ana"
    );
    assert_eq!(
        judged(&policy, &who("ana", &["sre"]), "10.0.0.1:23/tcp"),
        "allow sre"
    );
    assert_eq!(
        judged(&policy, &who("bo", &["sre"]), "10.0.0.1:22/tcp"),
        "allow sre"
    );
    assert_eq!(
        judged(&policy, &who("bo", &[]), "10.0.0.1:22/tcp"),
        "deny closed"
    );
    assert_eq!(
        judged(&policy, &who("bo", &[]), "11.0.0.1:22/tcp"),
        "deny default"
    );
}

#[test]
fn every_dimension_of_from_must_hold_and_one_name_of_each() {
    let policy = rules(
        "  - { name: both, action: allow, from: { users: [ana, bo], groups: [sre], \
         devices: [ana-laptop] }, to: [a] }\n",
    );
    let to = "10.0.0.1:22/tcp";
    assert_eq!(judged(&policy, &who("ana", &["sre"]), to), "allow both");
    assert_eq!(judged(&policy, &who("ana", &["dev"]), to), "deny default");
    assert_eq!(judged(&policy, &who("bo", &["sre"]), to), "deny default");
    let borrowed = Subject {
        device: "ana-laptop".to_owned(),
        ..who("cy", &["sre"])
    };
    assert_eq!(judged(&policy, &borrowed, to), "deny default");
}

#[test]
fn a_group_is_not_a_user_of_the_same_name() {
    let policy = rules("  - { name: r, action: allow, from: { groups: [ana] }, to: [a] }\n");
    assert_eq!(
        judged(&policy, &who("ana", &[]), "10.0.0.1:22/tcp"),
        "deny default"
    );
    assert_eq!(
        judged(&policy, &who("x", &["ana"]), "10.0.0.1:22/tcp"),
        "allow r"
    );
}

#[test]
fn names_are_compared_exactly_and_kept_as_written() {
    let policy =
        rules("  - { name: r, action: allow, from: { groups: [yes, 007, 1.0] }, to: [a] }\n");
    for group in ["yes", "007", "1.0"] {
        assert_eq!(
            judged(&policy, &who("x", &[group]), "10.0.0.1:22/tcp"),
            "allow r",
            "{group}"
        );
    }
    for group in ["true", "7", "1", "Yes"] {
        assert_eq!(
            judged(&policy, &who("x", &[group]), "10.0.0.1:22/tcp"),
            "deny default"
        );
    }
}

#[test]
fn anything_is_every_address_port_and_protocol() {
    let policy = rules("  - { name: all, action: allow, from: anyone, to: anything }\n");
    for to in ["1.2.3.4:65535/udp", "[::1]:1/tcp", "0.0.0.0/icmp"] {
        assert_eq!(
            judged(&policy, &Subject::default(), to),
            "allow all",
            "{to}"
        );
    }
    assert_eq!(
        policy.addresses(),
        ["10.0.0.0/8".parse().unwrap()],
        "never a default route"
    );
}

#[test]
fn an_ipv4_address_is_the_same_when_it_comes_mapped() {
    let policy = policy(FIRST);
    let address: IpAddr = "::ffff:192.0.2.10".parse().unwrap();
    let to = Tuple {
        address,
        port: 22,
        protocol: postern_proto::flow_key::Protocol::Tcp,
    };
    assert!(
        policy
            .judge(&policy.index(&who("bo", &["sre"])), &to, Wall(0))
            .allows()
    );
}

#[test]
fn an_index_of_another_policy_is_denied() {
    let (first, second) = (policy(FIRST), policy(&FIRST.replace("platform", "sre")));
    let (index, to) = (
        first.index(&who("bo", &["sre"])),
        "192.0.2.10:22/tcp".parse().unwrap(),
    );
    assert!(first.judge(&index, &to, Wall(0)).allows());
    assert!(!second.judge(&index, &to, Wall(0)).allows());
    assert!(!first.judge(&SubjectIndex::default(), &to, Wall(0)).allows());
}

#[test]
fn the_empty_policy_denies() {
    let policy = empty();
    assert_eq!(
        judged(&policy, &who("ana", &["sre"]), "192.0.2.10:22/tcp"),
        "deny default"
    );
    assert!(policy.is_empty() && policy.addresses().is_empty());
}

#[test]
fn the_include_list_is_every_target_and_what_rules_allow_inline() {
    let policy = policy(
        "version: 1\ntargets:\n  used: { addresses: [10.0.0.2, 10.0.0.3], ports: [22/tcp] }\n  \
         unused: { addresses: [10.9.0.0/16], ports: [22/tcp] }\nrules:\n  \
         - { name: in, action: allow, from: anyone, to: [used, { addresses: [\"2001:db8::1\"], ports: [1/tcp] }] }\n  \
         - { name: out, action: deny, from: anyone, to: { addresses: [172.16.0.0/12], ports: [1/tcp] } }\n",
    );
    let shown: Vec<String> = policy.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["10.0.0.2/31", "10.9.0.0/16", "2001:db8::1/128"]);
}

#[test]
fn the_hash_is_of_the_text() {
    let (a, b) = (policy(FIRST), policy(&format!("{FIRST}# a comment\n")));
    assert_ne!(a.hash(), b.hash());
    assert_eq!(a.hash(), policy(FIRST).hash());
    assert_eq!(a.hash().full().len(), 64);
    assert!(a.hash().full().starts_with(&a.hash().to_string()) && a.hash().to_string().len() == 12);
    // sha256sum of nothing.
    assert_eq!(empty().hash().to_string(), "e3b0c44298fc");
}

#[test]
fn rules_are_listed_in_order_with_the_default_last() {
    let policy = policy(FIRST);
    let names: Vec<&str> = policy.rule_names().map(|(_, name)| name).collect();
    assert_eq!(
        names,
        ["kubectl to the API server", "ssh to the nodes", "default"]
    );
    assert_eq!(
        (policy.len(), policy.rule_line(RuleId::Rule(1))),
        (2, Some(11))
    );
}

fn explained(policy: &Policy, who: &Subject, to: &str) -> String {
    policy
        .explain(who, &to.parse().unwrap(), Wall(0))
        .to_string()
}

#[test]
fn a_denial_says_which_group_is_missing() {
    let policy = policy(FIRST);
    let expected = format!(
        "deny: ana on ana-laptop (platform) to 192.0.2.10:22/tcp
  rule: default
  policy: {}
  nearest rule that would have allowed: ssh to the nodes (line 11)
    - group sre is required; ana has platform",
        policy.hash()
    );
    assert_eq!(
        explained(&policy, &who("ana", &["platform"]), "192.0.2.10:22/tcp"),
        expected
    );
}

fn failed(policy: &Policy, who: &Subject, to: &str) -> Vec<String> {
    let nearest = policy
        .explain(who, &to.parse().unwrap(), Wall(0))
        .nearest
        .unwrap();
    nearest
        .failed
        .into_iter()
        .map(|failed| failed.sentence.to_string())
        .collect()
}

#[test]
fn a_denial_says_which_port_address_user_or_device_fails() {
    let policy = policy(FIRST);
    let ana = who("ana", &["platform"]);
    assert_eq!(
        failed(&policy, &ana, "192.0.2.10:443/tcp"),
        ["port 443/tcp is not among 6443/tcp"]
    );
    assert_eq!(
        failed(&policy, &ana, "192.0.2.99:6443/tcp"),
        ["address 192.0.2.99 is not among 192.0.2.10"]
    );
    let policy = rules(
        "  - { name: r, action: allow, from: { users: [ana, bo], devices: [desk] }, to: [a] }\n",
    );
    assert_eq!(
        failed(&policy, &who("cy", &[]), "10.0.0.1:22/tcp"),
        [
            "one of the users ana, bo is required; the device belongs to cy",
            "device desk is required; this one is cy-laptop"
        ]
    );
}

#[test]
fn a_denial_says_which_rule_denied_first() {
    let policy = rules(
        "  - { name: no telnet, action: deny, from: anyone, to: { addresses: [10.0.0.1], ports: [23/tcp] } }\n  \
           - { name: sre, action: allow, from: { groups: [sre] }, to: [b] }\n",
    );
    let to = "10.0.0.1:23/tcp";
    assert_eq!(
        failed(&policy, &who("bo", &["sre"]), to),
        ["denied first by rule \"no telnet\""]
    );
    assert_eq!(
        failed(&policy, &who("bo", &[]), to),
        [
            "denied first by rule \"no telnet\"",
            "group sre is required; bo has no group"
        ]
    );
}

#[test]
fn long_lists_are_cut_in_a_sentence() {
    let users: Vec<String> = (0..9).map(|i| format!("u{i}")).collect();
    let users = users.join(", ");
    let policy = rules(&format!(
        "  - {{ name: r, action: allow, from: {{ users: [{users}] }}, to: [a] }}\n"
    ));
    assert_eq!(
        failed(&policy, &who("cy", &[]), "10.0.0.1:22/tcp"),
        [
            "one of the users u0, u1, u2, u3, u4, u5 and 3 more is required; the device belongs to cy"
        ]
    );
}

#[test]
fn an_explanation_is_json_for_programs() {
    let policy = policy(FIRST);
    let to = "192.0.2.10:22/tcp".parse().unwrap();
    let denied = serde_json::to_value(policy.explain(&who("ana", &[]), &to, Wall(0))).unwrap();
    assert_eq!(denied["allow"], false);
    assert_eq!(denied["rule"], "default");
    assert_eq!(denied["to"], "192.0.2.10:22/tcp");
    assert_eq!(denied["nearest"]["rule"], "ssh to the nodes");
    assert_eq!(denied["nearest"]["failed"][0]["condition"], "group");
    let allowed = serde_json::to_value(policy.explain(&who("bo", &["sre"]), &to, Wall(0))).unwrap();
    assert_eq!(
        (&allowed["target"], &allowed["line"]),
        (&"nodes".into(), &11.into())
    );
    assert!(allowed["nearest"].is_null());
}

#[test]
fn the_tests_of_a_file_pass_or_say_what_came_instead() {
    let policy = policy(&format!(
        "{FIRST}tests:\n  \
         - {{ user: ana, groups: [platform], to: \"192.0.2.10:6443/tcp\", expect: allow }}\n  \
         - {{ user: ana, groups: [platform], to: \"192.0.2.10:22/tcp\", expect: allow }}\n  \
         - {{ groups: [sre], device: ci, to: \"192.0.2.10/icmp\", expect: allow, rule: kubectl to the API server }}\n",
    ));
    let outcomes = policy.run_tests();
    assert_eq!(
        outcomes.iter().map(|o| o.passed).collect::<Vec<_>>(),
        [true, false, false]
    );
    assert_eq!(
        (outcomes[1].line, outcomes[1].described.as_str()),
        (17, "ana (platform) to 192.0.2.10:22/tcp")
    );
    assert_eq!(
        (outcomes[1].expected.as_str(), outcomes[1].got.as_str()),
        ("allow", "deny by \"default\"")
    );
    assert_eq!(outcomes[2].described, "ci (sre) to 192.0.2.10/icmp");
    assert_eq!(
        outcomes[2].expected,
        "allow by \"kubectl to the API server\""
    );
    assert_eq!(outcomes[2].got, "allow by \"ssh to the nodes\"");
}

#[test]
fn a_tuple_is_read_as_it_is_written() {
    for text in [
        "192.0.2.10:22/tcp",
        "[2001:db8::10]:53/udp",
        "192.0.2.10/icmp",
        "2001:db8::10/icmp",
    ] {
        assert_eq!(text.parse::<Tuple>().unwrap().to_string(), text);
    }
    for text in [
        "",
        "/",
        "192.0.2.10:22",
        "192.0.2.10/tcp",
        "192.0.2.10:0/tcp",
        "2001:db8::10:22/tcp",
        "x:22/tcp",
        "192.0.2.10:22/sctp",
    ] {
        let error = text.parse::<Tuple>().unwrap_err();
        assert!(!error.what.is_empty() && !error.help.is_empty(), "{text}");
    }
}

#[test]
fn ten_thousand_rules_fit() {
    let mut source = String::from("version: 1\ntargets:\n");
    for i in 0..10_000 {
        source += &format!(
            "  t{i}: {{ addresses: [10.{}.{}.1], ports: [22/tcp] }}\n",
            i / 250,
            i % 250
        );
    }
    source += "rules:\n";
    for i in 0..10_000 {
        source += &format!(
            "  - {{ name: r{i}, action: allow, from: {{ groups: [g{i}] }}, to: [t{i}] }}\n"
        );
    }
    let policy = policy(&source);
    assert_eq!(
        judged(&policy, &who("x", &["g9999"]), "10.39.249.1:22/tcp"),
        "allow r9999"
    );
    assert_eq!(
        judged(&policy, &who("x", &["g9998"]), "10.39.249.1:22/tcp"),
        "deny default"
    );
    assert_eq!(
        failed(&policy, &who("x", &["g9998"]), "10.39.249.1:22/tcp"),
        ["group g9999 is required; x has g9998"]
    );
}
