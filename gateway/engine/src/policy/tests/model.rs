//! Random policies against a naive oracle that knows nothing of the index or of the predicate:
//! it walks the rules as they were written.

use super::*;
use crate::standing::{Attribute, Grant, Reported, Session, Standing};
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

const LABELS: [&str; 2] = ["env=prod", "team=infra"];
const ISSUERS: [&str; 2] = ["https://a.example.com", "https://b.example.com"];
const AMR: [&str; 2] = ["mfa", "hwk"];
const ACR: [&str; 2] = ["1", "2"];
const OUTER_NETS: [&str; 2] = ["198.51.100.0/24", "198.51.100.7"];
const OUTERS: [&str; 3] = ["198.51.100.7", "::ffff:198.51.100.8", "203.0.113.1"];
/// Windows, and the hours since Thursday, 1970-01-01 00:00, UTC, at which each is open.
type Open = fn(u64) -> bool;
const WINDOWS: [(&str, Open); 4] = [
    ("{ hours: \"03:00-07:00\" }", |hour| {
        (3..7).contains(&(hour % 24))
    }),
    ("{ days: [fri] }", |hour| (24..48).contains(&hour)),
    ("{ days: [thu], hours: \"22:00-02:00\" }", |hour| {
        (22..26).contains(&hour)
    }),
    (
        "{ from: \"1970-01-01 05:00\", until: 1970-01-01 }",
        |hour| (5..24).contains(&hour),
    ),
];
/// The one named target.
const TARGET: &str = "t0";

#[derive(Clone, Debug)]
struct ModelRule {
    allow: bool,
    shadow: bool,
    who: ModelWho,
    when: Option<usize>,
    /// None is `anything`.
    to: Option<Vec<ModelDestination>>,
}

#[derive(Clone, Debug)]
struct ModelGrant {
    who: ModelWho,
    /// The named target as well.
    target: bool,
    to: Vec<ModelDestination>,
    max: u64,
    break_glass: bool,
}

#[derive(Clone, Debug)]
struct ModelWho {
    users: Vec<usize>,
    groups: Vec<usize>,
    devices: Vec<usize>,
    labels: Vec<usize>,
    /// None is not asked, nothing in it is `any`.
    machines: Option<Vec<usize>>,
    issuers: Vec<usize>,
    amr: Vec<usize>,
    acr: Vec<usize>,
    outer: Vec<usize>,
    posture: Vec<usize>,
    session_age: Option<usize>,
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

fn model_who() -> impl Strategy<Value = ModelWho> {
    let names =
        || prop_oneof![2 => Just(vec![]), 3 => proptest::collection::vec(0..NAMES.len(), 1..3)];
    let few = || prop_oneof![6 => Just(vec![]), 1 => proptest::collection::vec(0..2usize, 1..3)];
    let machines = prop_oneof![
        8 => Just(None),
        1 => Just(Some(vec![])),
        1 => proptest::collection::vec(0..NAMES.len(), 1..3).prop_map(Some),
    ];
    let posture = prop_oneof![
        3 => Just(vec![]), 1 => proptest::sample::subsequence(vec![0, 1, 2], 1..=2),
    ];
    let age = prop_oneof![3 => Just(None), 1 => (0..AGES.len()).prop_map(Some)];
    let few = (few(), few(), few(), few(), few());
    (names(), names(), names(), machines, few, posture, age).prop_map(
        |(users, groups, devices, machines, few, posture, session_age)| {
            let (labels, issuers, amr, acr, outer) = few;
            ModelWho {
                // A file that asks for both is refused.
                users: if machines.is_none() { users } else { vec![] },
                groups,
                devices,
                labels,
                machines,
                issuers,
                amr,
                acr,
                outer,
                posture,
                session_age,
            }
        },
    )
}

fn rule() -> impl Strategy<Value = ModelRule> {
    let to = prop_oneof![
        1 => Just(None),
        9 => proptest::collection::vec(destination(), 1..3).prop_map(Some),
    ];
    let when = prop_oneof![4 => Just(None), 1 => (0..WINDOWS.len()).prop_map(Some)];
    let shadow = proptest::bool::weighted(0.2);
    (any::<bool>(), shadow, model_who(), when, to).prop_map(|(allow, shadow, who, when, to)| {
        ModelRule {
            allow,
            shadow,
            who,
            when,
            to,
        }
    })
}

fn grants() -> impl Strategy<Value = Vec<ModelGrant>> {
    let to = proptest::collection::vec(destination(), 1..3);
    let one = (model_who(), any::<bool>(), to, 1..9u64, any::<bool>()).prop_map(
        |(who, target, to, max, break_glass)| ModelGrant {
            who,
            target,
            to,
            max,
            break_glass,
        },
    );
    proptest::collection::vec(one, 0..3)
}

/// What a device was given: by an entry that there may not be, for a place that may not be in it.
fn given() -> impl Strategy<Value = Grant> {
    let target = prop_oneof![
        Just(TARGET.to_owned()),
        tuple().prop_map(|to| to.to_string())
    ];
    (0..3u32, target, hour(), 1..12u64, any::<bool>()).prop_map(
        |(entry, target, since, hours, break_glass)| Grant {
            id: "g".into(),
            entry: format!("g{entry}").into(),
            target: target.into(),
            reason: "r".into(),
            break_glass,
            since,
            until: Wall(since.0 + hours * HOUR),
        },
    )
}

fn hour() -> impl Strategy<Value = Wall> {
    (0..HOURS).prop_map(|hour| Wall(hour * HOUR))
}

fn standing() -> impl Strategy<Value = Standing> {
    let ends = || proptest::option::of(hour());
    let said = |of: &'static [&'static str]| proptest::sample::subsequence(of, 0..=of.len());
    let one_of = |of| proptest::option::of(proptest::sample::select(of));
    let session = (
        hour(),
        ends(),
        one_of(&ISSUERS[..]),
        said(&AMR),
        one_of(&ACR[..]),
    );
    let session = session.prop_map(|(since, until, issuer, amr, acr)| Session {
        id: "s".into(),
        method: "email".into(),
        issuer: issuer.map(Into::into),
        amr: amr.into_iter().map(str::to_owned).collect(),
        acr: acr.map(str::to_owned),
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
    let grants = proptest::collection::vec(given(), 0..4);
    let set = (said(&LABELS), one_of(&OUTERS[..]), grants);
    (of(session), of(reported), of(managed), set).prop_map(
        |(session, reported, managed, (labels, outer, grants))| Standing {
            session,
            reported,
            attributes: managed.into_iter().collect(),
            labels: labels.into_iter().map(str::to_owned).collect(),
            outer: outer.map(|at| at.parse().unwrap()),
            grants,
            ..Standing::default()
        },
    )
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
fn written(rules: &[ModelRule], grants: &[ModelGrant]) -> String {
    let mut source = String::from("version: 1\n");
    let target = written_destination(&target());
    source += &format!("targets: {{ {TARGET}: {target} }}\nposture:\n");
    for (name, check) in CHECKS {
        source += &format!("  {name}: {check}\n");
    }
    source += "rules:\n";
    for (i, rule) in rules.iter().enumerate() {
        let action = if rule.allow { "allow" } else { "deny" };
        let mode = if rule.shadow { "shadow" } else { "enforce" };
        let from = written_who(&rule.who);
        let when = rule
            .when
            .map_or(String::new(), |n| format!(", when: {}", WINDOWS[n].0));
        let to = rule.to.as_ref().map_or("anything".to_owned(), |to| {
            let to: Vec<String> = to.iter().map(written_destination).collect();
            format!("[{}]", to.join(", "))
        });
        source += &format!(
            "  - {{ name: r{i}, action: {action}, mode: {mode}, from: {from}, to: {to}{when} }}\n"
        );
    }
    source += "grants:\n";
    for (i, grant) in grants.iter().enumerate() {
        let mut to: Vec<String> = grant.to.iter().map(written_destination).collect();
        to.extend(grant.target.then(|| TARGET.to_owned()));
        source += &format!(
            "  - {{ name: g{i}, from: {}, to: [{}], max: {}h, break_glass: {} }}\n",
            written_who(&grant.who),
            to.join(", "),
            grant.max,
            grant.break_glass
        );
    }
    source
}

fn target() -> ModelDestination {
    ModelDestination {
        nets: vec![2, 7],
        ports: vec![(Protocol::Tcp, 1), (Protocol::Icmp, 0)],
    }
}

fn written_who(who: &ModelWho) -> String {
    let (machines, any) = match &who.machines {
        Some(machines) => (machines.clone(), machines.is_empty()),
        None => (vec![], false),
    };
    let checks: Vec<&str> = CHECKS.iter().map(|check| check.0).collect();
    let named: [(&str, &[usize], &[&str]); 10] = [
        ("users", &who.users, &NAMES),
        ("groups", &who.groups, &NAMES),
        ("devices", &who.devices, &NAMES),
        ("labels", &who.labels, &LABELS),
        ("machines", &machines, &NAMES),
        ("issuers", &who.issuers, &ISSUERS),
        ("amr", &who.amr, &AMR),
        ("acr", &who.acr, &ACR),
        ("outer", &who.outer, &OUTER_NETS),
        ("posture", &who.posture, &checks),
    ];
    let mut from: Vec<String> = named
        .into_iter()
        .filter(|(_, asked, _)| !asked.is_empty())
        .map(|(field, asked, names)| {
            let names: Vec<String> = asked.iter().map(|n| format!("\"{}\"", names[*n])).collect();
            format!("{field}: [{}]", names.join(", "))
        })
        .collect();
    from.extend(any.then(|| "machines: any".to_owned()));
    from.extend(
        who.session_age
            .map(|n| format!("session_age: {}h", AGES[n])),
    );
    match from.is_empty() {
        true => "anyone".to_owned(),
        false => format!("{{ {} }}", from.join(", ")),
    }
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

const FIRST_LINE: usize = 5 + CHECKS.len();

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

fn is_for(asked_of: &ModelWho, who: &Subject, now: Wall) -> bool {
    let standing = &who.standing;
    let asked = |asked: &[usize], names: &[&str], has: &dyn Fn(&str) -> bool| {
        asked.is_empty() || asked.iter().any(|n| has(names[*n]))
    };
    let login = standing
        .session
        .as_ref()
        .filter(|session| session.until.is_none_or(|until| now < until));
    let by = |issuer: &str| login.is_some_and(|login| login.issuer.as_deref() == Some(issuer));
    let shown = |amr: &str| login.is_some_and(|login| login.amr.iter().any(|one| one == amr));
    let class = |acr: &str| login.is_some_and(|login| login.acr.as_deref() == Some(acr));
    let out = |net: &str| {
        let outer = standing.outer.map(|outer| outer.to_canonical());
        outer.is_some_and(|outer| match net.parse::<IpNet>() {
            Ok(net) => net.contains(&outer),
            Err(_) => net.parse::<IpAddr>().unwrap() == outer,
        })
    };
    asked(&asked_of.users, &NAMES, &|name| {
        who.user.as_deref() == Some(name)
    }) && asked(&asked_of.groups, &NAMES, &|name| {
        who.groups.iter().any(|g| g == name)
    }) && asked(&asked_of.devices, &NAMES, &|name| who.device == name)
        && asked(&asked_of.labels, &LABELS, &|name| {
            standing.labels.iter().any(|l| l == name)
        })
        && asked_of.machines.as_ref().is_none_or(|machines| {
            who.user.is_none() && asked(machines, &NAMES, &|name| who.device == name)
        })
        && asked(&asked_of.issuers, &ISSUERS, &by)
        && asked(&asked_of.amr, &AMR, &shown)
        && asked(&asked_of.acr, &ACR, &class)
        && asked(&asked_of.outer, &OUTER_NETS, &out)
        && asked_of.posture.iter().all(|n| shows(*n, standing, now))
        && asked_of
            .session_age
            .is_none_or(|n| is_younger(AGES[n], standing, now))
}

fn is_at(at: &ModelDestination, to: &Tuple) -> bool {
    let net = |n: &usize| match NETS[*n].parse::<IpNet>() {
        Ok(net) => net.contains(&to.address),
        Err(_) => NETS[*n].parse::<IpAddr>().unwrap() == to.address,
    };
    let port = |(protocol, n): &(Protocol, usize)| {
        *protocol == to.protocol
            && (*protocol == Protocol::Icmp || (PORTS[*n].0..=PORTS[*n].1).contains(&to.port))
    };
    at.nets.iter().any(net) && at.ports.iter().any(port)
}

fn matches(rule: &ModelRule, who: &Subject, to: &Tuple, now: Wall) -> bool {
    is_for(&rule.who, who, now)
        && rule.when.is_none_or(|n| WINDOWS[n].1(now.0 / HOUR))
        && rule
            .to
            .as_ref()
            .is_none_or(|to_any| to_any.iter().any(|at| is_at(at, to)))
}

/// The entry and the place of the first grant that allows it.
fn granted(grants: &[ModelGrant], who: &Subject, to: &Tuple, now: Wall) -> Option<(usize, usize)> {
    let entry_of = |given: &Grant| -> Option<usize> {
        let entry: usize = given.entry[1..].parse().unwrap();
        let grant = grants.get(entry)?;
        let end = given.until.min(Wall(given.since.0 + grant.max * HOUR));
        let lives = given.since <= now && now < end && (grant.break_glass || !given.break_glass);
        let in_target = grant.target && is_at(&target(), to);
        let leads = match &*given.target {
            TARGET => in_target,
            tuple => {
                tuple == to.to_string() && (in_target || grant.to.iter().any(|at| is_at(at, to)))
            }
        };
        (lives && leads && is_for(&grant.who, who, now)).then_some(entry)
    };
    let mut given = who.standing.grants.iter().enumerate();
    given.find_map(|(place, given)| Some((entry_of(given)?, place)))
}

/// The name of what decides, and whether it allows.
fn decided(
    (rules, grants): (&[ModelRule], &[ModelGrant]),
    who: &Subject,
    to: &Tuple,
    now: Wall,
) -> (String, bool) {
    let enforced = |rule: &ModelRule| !rule.shadow && matches(rule, who, to, now);
    match rules.iter().position(enforced) {
        Some(i) => (format!("r{i}"), rules[i].allow),
        None => match granted(grants, who, to, now) {
            Some((entry, _)) => (format!("g{entry}"), true),
            None => ("default".to_owned(), false),
        },
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 256, ..Default::default() })]

    #[test]
    fn judge_is_the_first_rule_that_matches(
        mut rules in proptest::collection::vec(rule(), 1..14),
        grants in grants(),
        probes in proptest::collection::vec((subject(), tuple(), hour()), 100),
    ) {
        // Rules that are said to be unreachable must be so; without them the file must be good.
        let policy = match Policy::parse(&written(&rules, &grants)) {
            Ok(policy) => policy,
            Err(PolicyErrors(errors)) => {
                let mut gone: Vec<usize> = Vec::new();
                for error in errors {
                    prop_assert!(error.message.starts_with("no packet can reach"), "{}", error);
                    gone.push(error.line - FIRST_LINE);
                }
                for (who, to, now) in &probes {
                    // An enforced rule is out of reach behind enforced rules alone.
                    for shadow in [false, true] {
                        let first = rules.iter().position(|rule| {
                            (shadow || !rule.shadow) && matches(rule, who, to, *now)
                        });
                        let first = first.filter(|i| rules[*i].shadow == shadow);
                        prop_assert!(!first.is_some_and(|i| gone.contains(&i)), "{:?} {}", who, to);
                    }
                }
                let mut i = 0;
                rules.retain(|_| { i += 1; !gone.contains(&(i - 1)) });
                match Policy::parse(&written(&rules, &grants)) {
                    Ok(policy) => policy,
                    Err(errors) => return Err(TestCaseError::fail(errors.to_string())),
                }
            }
        };
        for (who, to, now) in &probes {
            let index = policy.index(who);
            let verdict = policy.judge(&index, to, *now);
            let (name, allow) = decided((&rules, &grants), who, to, *now);
            prop_assert_eq!(policy.rule_name(verdict.rule()), &name);
            prop_assert_eq!(verdict.allows(), allow);
            let place = granted(&grants, who, to, *now).map(|(_, place)| place);
            prop_assert_eq!(verdict.grant(), place.filter(|_| name.starts_with('g')));
            let lost = policy.lost(verdict.rule(), &index, to, *now);
            prop_assert_eq!(lost, None);
            let all = rules.iter().position(|rule| matches(rule, who, to, *now));
            let shadow = all.filter(|i| rules[*i].shadow);
            let said = policy.shadow(&index, to, *now);
            prop_assert_eq!(
                said.map(|said| (policy.rule_name(said.rule()).to_owned(), said.allows())),
                shadow.map(|i| (format!("r{i}"), rules[i].allow))
            );
            let explained = policy.explain(who, to, *now);
            prop_assert_eq!(explained.verdict, verdict);
            let any = rules.iter().any(|rule| rule.allow && !rule.shadow);
            prop_assert_eq!(explained.nearest.is_some(), !verdict.allows() && any);
            prop_assert!(explained.nearest.is_none_or(|nearest| !nearest.failed.is_empty()));
            let may_ask = grants.iter().position(|grant| {
                let at = |at: &ModelDestination| is_at(at, to);
                let leads = grant.to.iter().any(at) || (grant.target && at(&target()));
                leads && is_for(&grant.who, who, *now)
            });
            let may_ask = may_ask.filter(|_| name == "default").map(|i| format!("g{i}"));
            prop_assert_eq!(explained.requestable, may_ask);
        }
    }

    /// Whoever judges again at every `next_change` misses nothing that time does.
    #[test]
    fn time_changes_no_verdict_before_the_next_change(
        rules in proptest::collection::vec(rule(), 1..8),
        grants in grants(),
        probes in proptest::collection::vec((subject(), tuple()), 20),
    ) {
        let Ok(policy) = Policy::parse(&written(&rules, &grants)) else {
            return Ok(());
        };
        for (who, to) in &probes {
            let judge = |now| decided((&rules, &grants), who, to, now);
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
                let verdict = policy.judge(&index, to, before);
                prop_assert_eq!(
                    policy.judge(&index, to, now),
                    policy.judge(&policy.index(who), to, now)
                );
                let (name, allow) = judge(before);
                prop_assert_eq!(policy.rule_name(verdict.rule()), name);
                prop_assert_eq!(verdict.allows(), allow);
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
