//! The faults that people make, and what they are told.

use super::*;

/// Every fault in one line: `line:column message | help`.
pub(super) fn faults(source: &str) -> Vec<String> {
    let Err(PolicyErrors(errors)) = Policy::parse(source) else {
        return Vec::new();
    };
    errors
        .iter()
        .map(|e| {
            let help = e
                .help
                .as_deref()
                .map_or(String::new(), |help| format!(" | {help}"));
            format!("{}:{} {}{help}", e.line, e.column, e.message)
        })
        .collect()
}

/// A file whose line 4 is `target` and whose line 6 is `rule`.
fn file(target: &str, rule: &str) -> String {
    format!(
        "version: 1\ntargets:\n  api: {{ addresses: [192.0.2.10], ports: [6443/tcp] }}\n  \
         t: {target}\nrules:\n  - {rule}\n"
    )
}

fn target(target: &str) -> Vec<String> {
    faults(&file(
        target,
        "{ name: r, action: allow, from: anyone, to: [t] }",
    ))
}

fn address(address: &str) -> Vec<String> {
    target(&format!("{{ addresses: [{address}], ports: [22/tcp] }}"))
}

fn port(port: &str) -> Vec<String> {
    target(&format!("{{ addresses: [192.0.2.10], ports: [{port}] }}"))
}

pub(super) fn rule(rule: &str) -> Vec<String> {
    faults(&file("{ addresses: [192.0.2.11], ports: [22/tcp] }", rule))
}

#[test]
fn a_fault_is_shown_where_it_stands() {
    let source = file(
        "{ addresses: [192.0.2.10/24], ports: [22] }",
        "{ name: r, action: allow, from: { grups: [sre] }, to: [kube] }",
    );
    let expected = "\
error: `192.0.2.10/24` has bits set beyond the prefix
 --> line 4, column 20
  |
4 |   t: { addresses: [192.0.2.10/24], ports: [22] }
  |                    ^^^^^^^^^^^^^
  = help: write `192.0.2.0/24` for the whole network or `192.0.2.10` for the one host

error: port `22` has no protocol
 --> line 4, column 44
  |
4 |   t: { addresses: [192.0.2.10/24], ports: [22] }
  |                                            ^^
  = help: write `22/tcp` or `22/udp`

error: `from` has an unknown field `grups`
 --> line 6, column 39
  |
6 |   - { name: r, action: allow, from: { grups: [sre] }, to: [kube] }
  |                                       ^^^^^
  = help: did you mean `groups`?

error: there is no target `kube`
 --> line 6, column 60
  |
6 |   - { name: r, action: allow, from: { grups: [sre] }, to: [kube] }
  |                                                            ^^^^
  = help: name it in `targets:`, `kube: { addresses: [192.0.2.10], ports: [22/tcp] }`";
    assert_eq!(Policy::parse(&source).unwrap_err().to_string(), expected);
}

#[test]
fn the_version_is_one() {
    let rules = "rules:\n  - { name: r, action: deny, from: anyone, to: anything }\n";
    assert_eq!(
        faults(rules),
        ["1:1 the policy has no `version` | write `version: 1` at the top"]
    );
    assert_eq!(
        faults(&format!("version: 2\n{rules}")),
        ["1:10 this version of Postern reads policies of version 1 | write `version: 1`"]
    );
}

#[test]
fn a_file_must_say_something() {
    let help = "a policy starts with `version: 1`, then `targets:` and `rules:`";
    for nothing in ["", "# only a comment\n", "---\n", "~\n"] {
        assert_eq!(
            faults(nothing),
            [format!("0:0 the policy is empty | {help}")]
        );
    }
    assert_eq!(
        faults("version: 1\n"),
        ["1:1 the policy has no `rules` | write at least one rule: \
          `- { name: …, action: allow, from: …, to: … }`"]
    );
    assert_eq!(
        faults("version: 1\nrules: []\n"),
        ["2:8 `rules` is empty | empty never means everything; write at least one rule"]
    );
}

#[test]
fn what_is_not_yaml_says_where() {
    assert_eq!(
        faults("version: 1\nrules: [{ name: x\n"),
        ["2:9 not valid YAML: unclosed bracket '{'"]
    );
    assert_eq!(
        faults("version: 1\nrules:\n\t- name: x\n"),
        [
            "3:2 not valid YAML: tabs disallowed within this context (block indentation) | indent with spaces"
        ]
    );
    assert_eq!(
        faults("a: *x\n"),
        ["1:4 not valid YAML: alias references unknown anchor"]
    );
}

#[test]
fn a_word_or_a_list_is_not_a_policy() {
    let help = "write `name: value` pairs, indented below it";
    assert_eq!(
        faults("hello\n"),
        [format!("1:1 the policy must be a map, not a word | {help}")]
    );
    assert_eq!(
        faults("- a\n"),
        [format!("1:1 the policy must be a map, not a list | {help}")]
    );
}

#[test]
fn unknown_fields_are_refused_with_what_was_meant() {
    assert_eq!(
        target("{ adresses: [192.0.2.11], ports: [22/tcp] }"),
        [
            "4:6 a target has no `addresses` | write `addresses: [192.0.2.10]`",
            "4:8 a target has an unknown field `adresses` | did you mean `addresses`?",
        ]
    );
    assert_eq!(
        rule("{ name: r, action: allow, from: anyone, to: [t], colour: red }"),
        [
            "6:54 a rule has an unknown field `colour` | the fields are `name`, `action`, `mode`, `from`, `to`, `when`, `until`"
        ]
    );
}

#[test]
fn selectors_that_say_nothing_or_contradict_are_refused() {
    let from = |from: &str| {
        rule(&format!(
            "{{ name: r, action: allow, from: {from}, to: [t] }}"
        ))
    };
    assert_eq!(
        from("{ labels: [team, \"=x\", \"a=\"] }"),
        [
            "6:48 `team` is no label | write a key and a value: `team=…`",
            "6:54 `=x` is no label | write a key and a value: `x=…`",
            "6:60 `a=` is no label | write a key and a value: `a=…`",
        ]
    );
    assert_eq!(
        from("{ machines: ci-runner }"),
        [
            "6:49 `machines` cannot be `ci-runner` | write `machines: any`, or `machines: [ci-runner]`"
        ]
    );
    assert_eq!(
        from("{ users: [ana], machines: any }"),
        [
            "6:63 `machines` have no user, so that nobody is one of `users` as well | make two rules of it"
        ]
    );
    assert_eq!(
        from("{ outer: [198.51.100.7/24] }"),
        [
            "6:47 `198.51.100.7/24` has bits set beyond the prefix | write `198.51.100.0/24` for the whole network or `198.51.100.7` for the one host"
        ]
    );
    assert_eq!(
        from("{ amr: mfa }"),
        ["6:44 `amr` must be a list | write `amr: [mfa]`"]
    );
    assert_eq!(
        rule("{ name: r, action: allow, mode: shadw, from: anyone, to: [t], amr: [mfa] }"),
        [
            "6:37 `mode` cannot be `shadw` | did you mean `shadow`?",
            "6:67 `amr` says who, and stands in `from` | write `from: { amr: … }`",
        ]
    );
}

#[test]
fn doubled_keys_are_refused() {
    assert_eq!(
        target("{ addresses: [192.0.2.11], ports: [22/tcp], ports: [23/tcp] }"),
        ["4:50 `ports` stands here twice, first on line 4 | keep one of them"]
    );
    assert_eq!(
        faults(
            "version: 1\ntargets:\n  a: { addresses: [10.0.0.1], ports: [1/tcp] }\n  a: { addresses: \
                [10.0.0.2], ports: [1/tcp] }\nrules:\n  - { name: r, action: allow, from: anyone, to: [a] }\n"
        ),
        ["4:3 `a` stands here twice, first on line 3 | keep one of them"]
    );
}

#[test]
fn doubled_rule_names_are_refused() {
    assert_eq!(
        rule(
            "{ name: r, action: allow, from: anyone, to: [t] }\n  - { name: r, action: deny, from: anyone, to: [api] }"
        ),
        [
            "7:13 two rules are called `r`, the first on line 6 | a record names its rule: give each its own name"
        ]
    );
}

#[test]
fn empty_lists_are_refused() {
    assert_eq!(
        target("{ addresses: [], ports: }"),
        [
            "4:19 `addresses` is empty | empty never means everything; write `[192.0.2.10]`",
            "4:28 `ports` is empty | empty never means everything; write `[22/tcp]`",
        ]
    );
    assert_eq!(
        rule("{ name: r, action: allow, from: { groups: [] }, to: [] }"),
        [
            "6:47 `groups` is empty | empty never means everything; write at least one name, or take the field out",
            "6:57 `to` is empty | empty never means everything; write the name of a target",
        ]
    );
}

#[test]
fn a_list_is_a_list() {
    assert_eq!(
        rule("{ name: r, action: allow, from: { groups: sre }, to: t }"),
        [
            "6:47 `groups` must be a list | write `groups: [sre]`",
            "6:58 `to` must be a list | write `to: [t]`",
        ]
    );
}

#[test]
fn host_bits_are_refused_with_the_masked_prefix() {
    assert_eq!(
        address("\"2001:db8::1/32\""),
        [
            "4:20 `2001:db8::1/32` has bits set beyond the prefix | write `2001:db8::/32` for the whole \
          network or `2001:db8::1` for the one host"
        ]
    );
}

#[test]
fn no_target_lies_among_devices_that_have_not_joined() {
    let fault = |at: &str, text: &str| {
        format!(
            "{at} `{text}` lies in fd70:6f73:7465:726e::/64, which is for devices that have not \
             joined | nothing there is ever reached; take it out, or write the target's own address"
        )
    };
    for inside in [
        "fd70:6f73:7465:726e::1",
        "fd70:6f73:7465:726e::/64",
        "fd70:6f73:7465:726e:8000::/65",
    ] {
        assert_eq!(
            address(&format!("\"{inside}\"")),
            [fault("4:20", inside)],
            "{inside}"
        );
        let to = format!("{{ addresses: [\"{inside}\"], ports: [22/tcp] }}");
        let at = rule(&format!(
            "{{ name: r, action: allow, from: anyone, to: {to} }}"
        ));
        assert_eq!(at, [fault("6:63", inside)], "{inside}");
    }
    for beside in ["fd70:6f73:7465:726f::1", "fd70:6f73:7465::/48"] {
        assert_eq!(address(&format!("\"{beside}\"")), [""; 0], "{beside}");
    }
}

#[test]
fn what_is_no_address_says_what_to_write() {
    assert_eq!(
        address("db.example.com"),
        [
            "4:20 `db.example.com` is neither an address nor a prefix | write `names: [db.example.com]` for a host name"
        ]
    );
    assert_eq!(
        address("\"192.0.2.10:22\""),
        [
            "4:20 `192.0.2.10:22` is neither an address nor a prefix | the port stands in `ports`; write \
          the address alone"
        ]
    );
    assert_eq!(
        address("10.0.0.1-10.0.0.9"),
        [
            "4:20 `10.0.0.1-10.0.0.9` is neither an address nor a prefix | write a prefix, such as \
          `10.0.8.0/24`; a range of addresses is not known"
        ]
    );
    assert_eq!(
        address("192.0.2.300"),
        [
            "4:20 `192.0.2.300` is neither an address nor a prefix | write an address such as `192.0.2.10` \
          or `2001:db8::10`, or a prefix such as `10.0.8.0/24`"
        ]
    );
    assert_eq!(
        address("\"::ffff:10.0.0.0/104\""),
        ["4:20 `::ffff:10.0.0.0/104` is an IPv4 address written as IPv6 | write `10.0.0.0/8`"]
    );
}

#[test]
fn what_is_no_port_says_what_to_write() {
    let every = "ports are 1 to 65535; write `1-65535/tcp` for every port";
    let example = "write `22/tcp`, `8000-8010/tcp`, `53/udp` or `icmp`, each as its own item";
    for (text, fault) in [
        (
            "6443",
            "port `6443` has no protocol | write `6443/tcp` or `6443/udp`".to_owned(),
        ),
        ("0/tcp", format!("port 0 does not exist | {every}")),
        ("0-80/tcp", format!("port 0 does not exist | {every}")),
        (
            "70000/udp",
            "port 70000 does not exist | ports are 1 to 65535".to_owned(),
        ),
        (
            "90-80/tcp",
            "the range `90-80` is the wrong way round | write `80-90/tcp`".to_owned(),
        ),
        (
            "tcp",
            "`tcp` names no port | write `1-65535/tcp` for every port".to_owned(),
        ),
        (
            "22/tpc",
            "`tpc` is not a protocol | did you mean `tcp`?".to_owned(),
        ),
        (
            "22/sctp",
            "`sctp` is not a protocol | the protocols are `tcp`, `udp` and `icmp`".to_owned(),
        ),
        (
            "22/TCP",
            "`TCP` is not a protocol | did you mean `tcp`?".to_owned(),
        ),
        (
            "8/icmp",
            "`8/icmp`: icmp has no ports | write `icmp`".to_owned(),
        ),
        ("any", format!("`any` is not a port | {example}")),
        (
            "ssh/tcp",
            format!("`ssh` is not a port or a range of ports | {example}"),
        ),
    ] {
        assert_eq!(port(text), [format!("4:41 {fault}")], "{text}");
    }
}

#[test]
fn everybody_and_everything_are_written_out() {
    assert_eq!(
        rule("{ name: r, action: allow, from: any, to: all }"),
        [
            "6:37 `any` does not say who | write `from: anyone`",
            "6:46 `all` does not say where | write `to: anything`",
        ]
    );
    assert_eq!(
        rule("{ name: r, action: allow, from: sre, to: [anything] }"),
        [
            "6:37 `sre` does not say who | write `from: { groups: [sre] }`, or `from: anyone`",
            "6:47 there is no target `anything` | write `to: anything`, without the list",
        ]
    );
    assert_eq!(
        rule("{ name: r, action: allow, from: {}, to: [t] }"),
        ["6:37 `from` does not say who | write `from: { groups: [platform] }`, or `from: anyone`"]
    );
}

#[test]
fn targets_that_are_not_there_are_named() {
    assert_eq!(
        rule("{ name: r, action: allow, from: anyone, to: [appi, 192.0.2.10] }"),
        [
            "6:50 there is no target `appi` | did you mean `api`?",
            "6:56 there is no target `192.0.2.10` | write `{ addresses: [192.0.2.10], ports: [22/tcp] }` \
             for an address",
        ]
    );
}

#[test]
fn a_rule_has_all_four_parts() {
    assert_eq!(
        rule("{ name: r }"),
        [
            "6:5 a rule has no `action` | write `action: allow` or `action: deny`",
            "6:5 a rule has no `from` | write `from: { groups: [platform] }`, or `from: anyone`",
            "6:5 a rule has no `to` | write `to: [kube-api]` with the names of targets, or `to: anything`",
        ]
    );
    assert_eq!(
        rule("{ name: r, action: permit, from: anyone, to: [t] }"),
        ["6:24 `action` cannot be `permit` | write `allow` or `deny`"]
    );
}

#[test]
fn names_that_would_lie_in_a_record_are_refused() {
    assert_eq!(
        rule("{ name: default, action: allow, from: anyone, to: [t] }"),
        [
            "6:13 a rule cannot be called `default`: so the records call the absence of a rule | give it \
          another name"
        ]
    );
    assert_eq!(
        rule(r#"{ name: "a\e[2Jb", action: allow, from: anyone, to: [t] }"#),
        ["6:13 the name of a rule has a line break or another control character in it"]
    );
}

#[test]
fn an_unreachable_rule_names_the_rule_before_it() {
    assert_eq!(
        rule(
            "{ name: wide, action: deny, from: anyone, to: { addresses: [192.0.2.0/24], ports: \
              [1-100/tcp] } }\n  - { name: narrow, action: allow, from: { groups: [sre] }, to: [t] }"
        ),
        [
            "7:13 no packet can reach the rule `narrow`: all that it names is taken by earlier rules, first \
          by `wide` on line 6 | move it up, or take it out"
        ]
    );
}

#[test]
fn a_rule_that_two_earlier_ones_cover_together_is_unreachable() {
    let half = |name, ports| {
        format!(
            "{{ name: {name}, action: allow, from: {{ groups: [sre] }}, to: {{ addresses: [192.0.2.11], ports: [{ports}] }} }}"
        )
    };
    let both = format!(
        "{}\n  - {}\n  - {}",
        half("a", "20-22/tcp"),
        half("b", "23-30/tcp"),
        half("c", "21-29/tcp")
    );
    assert_eq!(
        rule(&both),
        [
            "8:13 no packet can reach the rule `c`: all that it names is taken by earlier rules, first by \
          `a` on line 6 | move it up, or take it out"
        ]
    );
    let most = both.replace("23-30", "24-30");
    assert_eq!(rule(&most), [""; 0]);
}

#[test]
fn tests_are_checked_as_well() {
    let good = "{ name: ssh, action: allow, from: anyone, to: [t] }\ntests:\n  - ";
    assert_eq!(
        rule(&format!(
            "{good}{{ user: [ana], to: 192.0.2.11:22, expect: maybe, rule: ssl }}"
        )),
        [
            "8:13 `user` must be a word, not a list",
            "8:24 `192.0.2.11:22` has no protocol | write `192.0.2.10:22/tcp`, `[2001:db8::10]:22/tcp` or \
             `192.0.2.10/icmp`",
            "8:47 `expect` cannot be `maybe` | write `allow` or `deny`",
            "8:60 there is no rule `ssl` | did you mean `ssh`?",
        ]
    );
    assert_eq!(
        rule(&format!(
            "{good}{{ to: \"2001:db8::1:22/tcp\", rule: default }}"
        )),
        [
            "8:5 a test has no `expect` | write `expect: allow` or `expect: deny`",
            "8:11 `2001:db8::1:22/tcp` has no port | write `192.0.2.10:22/tcp`, `[2001:db8::10]:22/tcp` or \
             `192.0.2.10/icmp`",
        ]
    );
}

#[test]
fn merge_keys_are_refused() {
    assert_eq!(
        rule("{ name: r, action: allow, from: anyone, to: [t], <<: { action: deny } }"),
        [
            "6:54 merge keys are not part of the policy language | write the fields out, so that every rule \
          can be read by itself"
        ]
    );
}

/// The faults of a window.
fn when(fields: &str) -> Vec<String> {
    rule(&format!(
        "{{ name: r, action: allow, from: anyone, to: [t],\n      when: {fields} }}"
    ))
}

#[test]
fn faults_of_a_window_are_reported_all_at_once() {
    assert_eq!(
        when(
            "{ days: [Monday, mo-fri, someday], hours: [9am-5pm, '7:00-20:00', late, '08:00-08:00'], zone: Berlin, until: 31.01.2027 }"
        ),
        [
            "7:22 `Monday` is no day of the week | did you mean `mon`?",
            "7:30 `mo-fri` is no day of the week | did you mean `mon-fri`?",
            "7:38 `someday` is no day of the week | write `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`, or a range such as `mon-fri`",
            "7:56 `9am-5pm` are no hours | did you mean `\"09:00-17:00\"`?",
            "7:65 `7:00-20:00` are no hours | did you mean `\"07:00-20:00\"`?",
            "7:79 `late` are no hours | write hours and minutes from 00:00 to 24:00, such as `\"07:00-20:00\"`",
            "7:85 `08:00-08:00` begins when it ends | write `00:00-24:00` for the whole day, or take the field out",
            "7:107 there is no time zone `Berlin` | did you mean `Europe/Berlin`?",
            "7:122 `31.01.2027` is neither a date nor a date and a time | did you mean `2027-01-31`?",
        ]
    );
}

#[test]
fn a_window_that_says_nothing_or_never_opens_is_refused() {
    let help = "write `when: { days: [mon-fri], hours: \"07:00-20:00\", zone: Europe/Berlin }`";
    for nothing in ["always", "{}", "{ zone: UTC }", "[]", ""] {
        let found = when(nothing);
        assert_eq!(found.len(), 1, "{nothing}: {found:?}");
        assert!(
            found[0].ends_with(&format!("`when` does not say when | {help}")),
            "{found:?}"
        );
    }
    assert_eq!(
        when("{ days: [sat], from: 2026-11-23, until: 2026-11-27 }"),
        [
            "7:13 the window never opens: sat UTC from 2026-11-23 until 2026-11-27 | name days and hours that lie between `from` and `until`"
        ]
    );
    assert_eq!(
        when("{ from: 2027-01-31, until: 2026-12-31 }"),
        ["7:40 `until` comes before `from` | swap them, or correct the year"]
    );
    assert_eq!(
        rule(
            "{ name: r, action: allow, from: anyone, to: [t], when: { until: 2027-01-31 }, until: 2027-02-28 }"
        ),
        ["6:90 `until` stands in the rule and in its `when` | keep one of them"]
    );
}
