//! What a verdict costs as rules grow: `cargo bench -p postern-speed --bench verdict`.
//!
//! The policies are the shapes that people write, and the ones that hurt a plain index: every rule
//! for the same address with its own group, every rule for the same group with its own address, and
//! every rule for the same group and address with its own port and a condition on the login.
#![allow(clippy::unwrap_used)]

use divan::{Bencher, black_box};
use postern_engine::policy::{Policy, Subject, SubjectIndex, Tuple};
use postern_engine::standing::{Session, Standing};
use postern_proto::now::Wall;
use std::fmt::{self, Write as _};

const SIZES: [usize; 3] = [10, 1_000, 10_000];

/// How the text of rule `i` names its group and its destination.
type Shape = fn(usize) -> (String, String);

const SHAPES: [(&str, Shape); 6] = [
    ("own group, own address", |i| {
        (format!("groups: [g{i}]"), to(&address(i), "22/tcp"))
    }),
    ("own group, one address", |i| {
        (format!("groups: [g{i}]"), to("10.0.0.0", "22/tcp"))
    }),
    ("one group, own address", |i| {
        ("groups: [g0]".to_owned(), to(&address(i), "22/tcp"))
    }),
    ("one group, one address, own port", |i| {
        (
            "groups: [g0]".to_owned(),
            to("10.0.0.0", &format!("{}/tcp", i + 1)),
        )
    }),
    ("one group, one address, own port, young login", |i| {
        (
            "groups: [g0], session_age: 12h".to_owned(),
            to("10.0.0.0", &format!("{}/tcp", i + 1)),
        )
    }),
    ("one group, own user, one address", |i| {
        (
            format!("groups: [g0], users: [u{i}]"),
            to("10.0.0.0", "22/tcp"),
        )
    }),
];

fn main() {
    divan::main();
}

/// The first rule allows it.
#[divan::bench(args = cases())]
fn first(bencher: Bencher<'_, '_>, case: &Case) {
    case.judge(bencher, 0, true);
}

/// The last rule allows it.
#[divan::bench(args = cases())]
fn last(bencher: Bencher<'_, '_>, case: &Case) {
    case.judge(bencher, case.size - 1, true);
}

/// No rule allows it.
#[divan::bench(args = cases())]
fn miss(bencher: Bencher<'_, '_>, case: &Case) {
    case.judge(bencher, case.size / 2, false);
}

/// Why no rule allows it, and which nearly does.
#[divan::bench(args = cases())]
fn explain(bencher: Bencher<'_, '_>, case: &Case) {
    let policy = case.policy();
    let ask = Ask::of(&policy, case.shape, case.size / 2, false);
    let explain = || policy.explain(black_box(&ask.subject), black_box(&ask.to), Wall(0));
    assert!(explain().nearest.is_some());
    bencher.bench(explain);
}

/// A policy.
struct Case {
    name: &'static str,
    shape: Shape,
    size: usize,
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}", self.name, self.size)
    }
}

fn cases() -> impl Iterator<Item = Case> {
    SHAPES
        .into_iter()
        .flat_map(|(name, shape)| SIZES.map(|size| Case { name, shape, size }))
}

impl Case {
    fn policy(&self) -> Policy {
        Policy::parse(&source(self.size, self.shape)).unwrap()
    }

    fn judge(&self, bencher: Bencher<'_, '_>, rule: usize, allowed: bool) {
        let policy = self.policy();
        let ask = Ask::of(&policy, self.shape, rule, allowed);
        let judge = || policy.judge(black_box(&ask.who), black_box(&ask.to), Wall(0));
        assert_eq!(judge().allows(), allowed);
        bencher.bench(judge);
    }
}

fn source(size: usize, shape: Shape) -> String {
    let mut source = "version: 1\nrules:\n".to_owned();
    for i in 0..size {
        let (from, to) = shape(i);
        writeln!(
            source,
            "  - {{ name: r{i}, action: allow, from: {{ {from} }}, to: {to} }}"
        )
        .unwrap();
    }
    source
}

fn to(address: &str, ports: &str) -> String {
    format!("{{ addresses: [{address}], ports: [{ports}] }}")
}

fn address(i: usize) -> String {
    format!("10.0.{}.{}", i / 250, i % 250)
}

/// A subject and a packet.
struct Ask {
    subject: Subject,
    who: SubjectIndex,
    to: Tuple,
}

impl Ask {
    /// What rule `i` allows; a miss is the same over UDP.
    fn of(policy: &Policy, shape: Shape, i: usize, allowed: bool) -> Ask {
        let (from, to) = shape(i);
        let inside = |text: &str, key: &str| -> Option<String> {
            let rest = text.split_once(&format!("{key}: ["))?.1;
            Some(rest.split_once(']')?.0.to_owned())
        };
        let group = inside(&from, "groups").unwrap();
        let subject = Subject {
            user: Some(inside(&from, "users").unwrap_or("somebody".to_owned())),
            groups: vec!["all-staff".to_owned(), group, "oncall".to_owned()],
            device: "laptop".to_owned(),
            standing: Standing {
                session: Some(Session {
                    id: "s".into(),
                    method: "oidc".into(),
                    issuer: None,
                    amr: Vec::new(),
                    acr: None,
                    since: Wall(0),
                    until: None,
                }),
                ..Standing::default()
            },
        };
        let ports = inside(&to, "ports").unwrap();
        let ports = if allowed {
            ports
        } else {
            ports.replace("tcp", "udp")
        };
        let to = format!("{}:{ports}", inside(&to, "addresses").unwrap())
            .parse()
            .unwrap();
        Ask {
            who: policy.index(&subject),
            subject,
            to,
        }
    }
}
