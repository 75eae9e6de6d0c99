//! Random policies against a naive oracle that knows nothing of the index or of the predicate:
//! it walks the rules as they were written.

use super::*;
use crate::standing::{Attribute, Reported, Session, Standing};
use ipnet::IpNet;
use postern_proto::facts::Facts;
use postern_proto::flow_key::Protocol;
use proptest::prelude::*;
use std::sync::Arc;

const NAMES: [&str; 4] = ["ana", "bo", "cy", "dee"];
const NETS: [&str; 9] = [
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.1.0/24",
    "10.1.1.1",
    "10.1.1.2",
    "0.0.0.0/0",
    "2001:db8::/32",
    "2001:db8::1",
    "::/0",
];
const ADDRESSES: [&str; 7] = [
    "10.1.1.1",
    "10.1.1.2",
    "10.1.1.3",
    "10.2.0.1",
    "11.0.0.1",
    "2001:db8::1",
    "2001:db9::1",
];
const PORTS: [(u16, u16); 6] = [(22, 22), (20, 30), (25, 40), (1, 65535), (41, 50), (30, 31)];
const PROBES: [u16; 10] = [1, 19, 20, 22, 25, 30, 31, 40, 50, 65535];

const CHECKS: [(&str, &str); 3] = [
    ("disk", "{ disk_encryption: on }"),
    ("new", "{ client_version: \">= 2\" }"),
    (
        "managed",
        "{ attribute: { name: managed, value: \"yes\" } }",
    ),
];
/// Ages that rules ask for, in hours. Everything that changes a verdict changes it at a full hour.
const AGES: [u64; 3] = [1, 5, 12];
const HOUR: u64 = 3_600_000_000_000;
/// Worlds last so many hours.
const HOURS: u64 = 40;

#[derive(Clone, Debug)]
struct ModelRule {
    allow: bool,
    users: Vec<usize>,
    groups: Vec<usize>,
    devices: Vec<usize>,
    posture: Vec<usize>,
    session_age: Option<usize>,
    /// None is `anything`.
    to: Option<Vec<ModelDestination>>,
}

#[derive(Clone, Debug)]
struct ModelDestination {
    nets: Vec<usize>,
    ports: Vec<(Protocol, usize)>,
}

fn destination() -> impl Strategy<Value = ModelDestination> {
    let protocol = prop_oneof![
        4 => Just(Protocol::Tcp), 1 => Just(Protocol::Udp), 1 => Just(Protocol::Icmp),
    ];
    let nets = proptest::collection::vec(0..NETS.len(), 1..3);
    let ports = proptest::collection::vec((protocol, 0..PORTS.len()), 1..3);
    (nets, ports).prop_map(|(nets, ports)| ModelDestination { nets, ports })
}

fn rule() -> impl Strategy<Value = ModelRule> {
    let names =
        || prop_oneof![2 => Just(vec![]), 3 => proptest::collection::vec(0..NAMES.len(), 1..3)];
    let to = prop_oneof![
        1 => Just(None),
        9 => proptest::collection::vec(destination(), 1..3).prop_map(Some),
    ];
    let posture = prop_oneof![
        3 => Just(vec![]), 1 => proptest::sample::subsequence(vec![0, 1, 2], 1..=2),
    ];
    let age = prop_oneof![3 => Just(None), 1 => (0..AGES.len()).prop_map(Some)];
    let from = (names(), names(), names(), posture, age);
    (any::<bool>(), from, to).prop_map(
        |(allow, (users, groups, devices, posture, session_age), to)| ModelRule {
            allow,
            users,
            groups,
            devices,
            posture,
            session_age,
            to,
        },
    )
}

fn hour() -> impl Strategy<Value = Wall> {
    (0..HOURS).prop_map(|hour| Wall(hour * HOUR))
}

fn standing() -> impl Strategy<Value = Standing> {
    let ends = || proptest::option::of(hour());
    let session = (hour(), ends()).prop_map(|(since, until)| Session {
        id: "s".into(),
        method: "email".into(),
        issuer: None,
        amr: Vec::new(),
        acr: None,
        since,
        until,
    });
    let version = proptest::sample::select(&["1.9", "2", "2.0.1", ""][..]);
    let facts = (any::<Option<bool>>(), proptest::option::of(version));
    let reported =
        (facts, hour(), hour()).prop_map(|((disk, version), at, fresh_until)| Reported {
            facts: Arc::new(Facts {
                disk_encryption: disk,
                client_version: version.map(str::to_owned),
                ..Facts::default()
            }),
            at,
            fresh_until,
        });
    let value = proptest::sample::select(&["yes", "no"][..]);
    let managed = (value, ends()).prop_map(|(value, until)| {
        let value = value.to_owned();
        ("managed".to_owned(), Attribute { value, until })
    });
    use proptest::option::of;
    (of(session), of(reported), of(managed)).prop_map(|(session, reported, managed)| Standing {
        session,
        reported,
        attributes: managed.into_iter().collect(),
        ..Standing::default()
    })
}

fn subject() -> impl Strategy<Value = Subject> {
    let user = proptest::option::of(proptest::sample::select(&NAMES[..]));
    let groups = proptest::sample::subsequence(&NAMES[..], 0..=3);
    let device = proptest::sample::select(&NAMES[..]);
    (user, groups, device, standing()).prop_map(|(user, groups, device, standing)| Subject {
        user: user.map(str::to_owned),
        groups: groups.into_iter().map(str::to_owned).collect(),
        device: device.to_owned(),
        standing,
    })
}

fn tuple() -> impl Strategy<Value = Tuple> {
    let protocols = [Protocol::Tcp, Protocol::Tcp, Protocol::Udp, Protocol::Icmp];
    let address = proptest::sample::select(&ADDRESSES[..]);
    let port = proptest::sample::select(&PROBES[..]);
    (address, port, proptest::sample::select(protocols.to_vec())).prop_map(
        |(address, port, protocol)| {
            let port = if protocol == Protocol::Icmp { 0 } else { port };
            Tuple {
                address: address.parse().unwrap(),
                port,
                protocol,
            }
        },
    )
}

/// One rule a line, from [`FIRST_LINE`] on.
fn written(rules: &[ModelRule]) -> String {
    let mut source = String::from("version: 1\nposture:\n");
    for (name, check) in CHECKS {
        source += &format!("  {name}: {check}\n");
    }
    source += "rules:\n";
    for (i, rule) in rules.iter().enumerate() {
        let action = if rule.allow { "allow" } else { "deny" };
        let names = [
            ("users", &rule.users),
            ("groups", &rule.groups),
            ("devices", &rule.devices),
        ];
        let mut from: Vec<String> = names
            .into_iter()
            .filter(|(_, names)| !names.is_empty())
            .map(|(kind, names)| {
                let names: Vec<&str> = names.iter().map(|n| NAMES[*n]).collect();
                format!("{kind}: [{}]", names.join(", "))
            })
            .collect();
        if !rule.posture.is_empty() {
            let checks: Vec<&str> = rule.posture.iter().map(|n| CHECKS[*n].0).collect();
            from.push(format!("posture: [{}]", checks.join(", ")));
        }
        from.extend(
            rule.session_age
                .map(|n| format!("session_age: {}h", AGES[n])),
        );
        let from = if from.is_empty() {
            "anyone".to_owned()
        } else {
            format!("{{ {} }}", from.join(", "))
        };
        let to = rule.to.as_ref().map_or("anything".to_owned(), |to| {
            let to: Vec<String> = to.iter().map(written_destination).collect();
            format!("[{}]", to.join(", "))
        });
        source += &format!("  - {{ name: r{i}, action: {action}, from: {from}, to: {to} }}\n");
    }
    source
}

fn written_destination(to: &ModelDestination) -> String {
    let nets: Vec<String> = to
        .nets
        .iter()
        .map(|n| format!("\"{}\"", NETS[*n]))
        .collect();
    let ports: Vec<String> = to
        .ports
        .iter()
        .map(|(protocol, n)| match (protocol, PORTS[*n]) {
            (Protocol::Icmp, _) => "icmp".to_owned(),
            (protocol, (low, high)) => format!("{low}-{high}/{protocol}"),
        })
        .collect();
    format!(
        "{{ addresses: [{}], ports: [{}] }}",
        nets.join(", "),
        ports.join(", ")
    )
}

const FIRST_LINE: usize = 4 + CHECKS.len();

/// A check as the manual has it.
fn shows(check: usize, standing: &Standing, now: Wall) -> bool {
    let facts = standing
        .reported
        .as_ref()
        .filter(|reported| now < reported.fresh_until)
        .map(|reported| &reported.facts);
    match check {
        0 => facts.is_some_and(|facts| facts.disk_encryption == Some(true)),
        1 => facts.is_some_and(|facts| {
            ["2", "2.0.1"].contains(&facts.client_version.as_deref().unwrap_or("none"))
        }),
        _ => standing
            .attributes
            .get("managed")
            .is_some_and(|set| set.value == "yes" && set.until.is_none_or(|until| now < until)),
    }
}

fn is_younger(hours: u64, standing: &Standing, now: Wall) -> bool {
    standing.session.as_ref().is_some_and(|session| {
        session.until.is_none_or(|until| now < until) && now.0 < session.since.0 + hours * HOUR
    })
}

fn matches(rule: &ModelRule, who: &Subject, to: &Tuple, now: Wall) -> bool {
    let asked = |names: &[usize], has: &dyn Fn(&str) -> bool| {
        names.is_empty() || names.iter().any(|n| has(NAMES[*n]))
    };
    let net = |n: &usize| match NETS[*n].parse::<IpNet>() {
        Ok(net) => net.contains(&to.address),
        Err(_) => NETS[*n].parse::<IpAddr>().unwrap() == to.address,
    };
    let port = |(protocol, n): &(Protocol, usize)| {
        *protocol == to.protocol
            && (*protocol == Protocol::Icmp || (PORTS[*n].0..=PORTS[*n].1).contains(&to.port))
    };
    asked(&rule.users, &|name| who.user.as_deref() == Some(name))
        && asked(&rule.groups, &|name| who.groups.iter().any(|g| g == name))
        && asked(&rule.devices, &|name| who.device == name)
        && rule.posture.iter().all(|n| shows(*n, &who.standing, now))
        && rule
            .session_age
            .is_none_or(|n| is_younger(AGES[n], &who.standing, now))
        && rule.to.as_ref().is_none_or(|to| {
            to.iter()
                .any(|d| d.nets.iter().any(net) && d.ports.iter().any(port))
        })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..Default::default() })]

    #[test]
    fn judge_is_the_first_rule_that_matches(
        mut rules in proptest::collection::vec(rule(), 1..14),
        probes in proptest::collection::vec((subject(), tuple(), hour()), 100),
    ) {
        // Rules that are said to be unreachable must be so; without them the file must be good.
        let policy = match Policy::parse(&written(&rules)) {
            Ok(policy) => policy,
            Err(PolicyErrors(errors)) => {
                let mut gone: Vec<usize> = Vec::new();
                for error in errors {
                    prop_assert!(error.message.starts_with("no packet can reach"), "{}", error);
                    gone.push(error.line - FIRST_LINE);
                }
                for (who, to, now) in &probes {
                    let first = rules.iter().position(|rule| matches(rule, who, to, *now));
                    prop_assert!(!first.is_some_and(|i| gone.contains(&i)), "{:?} {}", who, to);
                }
                let mut i = 0;
                rules.retain(|_| { i += 1; !gone.contains(&(i - 1)) });
                Policy::parse(&written(&rules)).unwrap()
            }
        };
        for (who, to, now) in &probes {
            let first = rules.iter().position(|rule| matches(rule, who, to, *now));
            let verdict = policy.judge(&policy.index(who), to, *now);
            let expected = first.map_or("default".to_owned(), |i| format!("r{i}"));
            prop_assert_eq!(policy.rule_name(verdict.rule()), expected);
            prop_assert_eq!(verdict.allows(), first.is_some_and(|i| rules[i].allow));
            let explained = policy.explain(who, to, *now);
            prop_assert_eq!(explained.verdict, verdict);
            let nearest = !verdict.allows() && rules.iter().any(|rule| rule.allow);
            prop_assert_eq!(explained.nearest.is_some(), nearest);
            prop_assert!(explained.nearest.is_none_or(|nearest| !nearest.failed.is_empty()));
        }
    }

    /// Whoever judges again at every `next_change` misses nothing that time does.
    #[test]
    fn time_changes_no_verdict_before_the_next_change(
        rules in proptest::collection::vec(rule(), 1..8),
        probes in proptest::collection::vec((subject(), tuple()), 20),
    ) {
        let Ok(policy) = Policy::parse(&written(&rules)) else {
            return Ok(());
        };
        for (who, to) in &probes {
            let judge = |now| rules.iter().position(|rule| matches(rule, who, to, now));
            let index = policy.index(who);
            let mut next = policy.next_change(who, Wall(0));
            for hour in 1..HOURS + AGES[2] {
                let (before, now) = (Wall(hour * HOUR - 1), Wall(hour * HOUR));
                let changed = judge(before) != judge(now);
                prop_assert!(!changed || next == Some(now), "{now:?}, said {next:?}");
                if next == Some(now) {
                    next = policy.next_change(who, now);
                }
                prop_assert!(next.is_none_or(|next| next > now));
                // An index that was made long ago judges as a new one.
                prop_assert_eq!(
                    policy.judge(&index, to, now),
                    policy.judge(&policy.index(who), to, now)
                );
                prop_assert_eq!(
                    policy.judge(&index, to, before).rule(),
                    judge(before).map_or(RuleId::Default, |n| RuleId::Rule(n as u32))
                );
            }
        }
    }

    #[test]
    fn no_text_is_a_panic(text in any::<String>()) {
        let _ = Policy::parse(&text).map_err(|errors| errors.to_string());
        let _ = text.parse::<Tuple>();
    }

    #[test]
    fn no_slip_of_the_pen_is_a_panic(at in any::<proptest::sample::Index>(), cut in 0usize..9, put in "[-:{}\\[\\],\"'&*#!|>%@`\\n\\t 0-9a-z/ü🔑]{0,6}") {
        let mut chars: Vec<char> = FIRST.chars().collect();
        let at = at.index(chars.len());
        let end = (at + cut).min(chars.len());
        chars.splice(at..end, put.chars());
        let source: String = chars.into_iter().collect();
        if let Err(errors) = Policy::parse(&source) {
            prop_assert!(!errors.0.is_empty() && !errors.to_string().is_empty());
        }
    }
}
