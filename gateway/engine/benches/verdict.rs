//! What a verdict costs as rules grow: `cargo bench -p postern-engine --bench verdict`.
//!
//! Each line is the median of many batches, in nanoseconds for one verdict. The policies are the
//! shapes that people write, and the two that hurt a plain index: every rule for the same address
//! with its own group, and every rule for the same group with its own address.
#![allow(clippy::disallowed_types, clippy::disallowed_methods)] // A benchmark reads the clock.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use postern_engine::policy::{Policy, Subject, SubjectIndex, Tuple};
use postern_proto::now::Wall;
use std::fmt::Write;
use std::hint::black_box;
use std::time::Instant;

const SIZES: [usize; 3] = [10, 1_000, 10_000];
const BATCHES: usize = 200;

/// How the text of rule `i` names its group and its destination.
type Shape = fn(usize) -> (String, String);

const SHAPES: [(&str, Shape); 5] = [
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
    ("one group, own user, one address", |i| {
        (
            format!("groups: [g0], users: [u{i}]"),
            to("10.0.0.0", "22/tcp"),
        )
    }),
];

fn main() {
    // cargo test runs benches without --bench: only that they build and run is asked then.
    let sizes = if std::env::args().any(|a| a == "--bench") {
        &SIZES[..]
    } else {
        &SIZES[..1]
    };
    println!("ns for one verdict; explain ns for a denial");
    println!(
        "{:<33} {:>6} {:>7} {:>7} {:>7} {:>8}",
        "", "rules", "first", "last", "miss", "explain"
    );
    for (name, shape) in SHAPES {
        for &size in sizes {
            let policy = Policy::parse(&source(size, shape)).unwrap();
            let first = Ask::of(&policy, shape, 0, true).judge(&policy);
            let last = Ask::of(&policy, shape, size - 1, true).judge(&policy);
            let miss = Ask::of(&policy, shape, size / 2, false);
            let (denied, explained) = (miss.judge(&policy), miss.explain(&policy));
            println!(
                "{name:<33} {size:>6} {first:>7.1} {last:>7.1} {denied:>7.1} {explained:>8.0}"
            );
        }
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
    allowed: bool,
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
            allowed,
        }
    }

    fn judge(&self, policy: &Policy) -> f64 {
        assert_eq!(
            policy.judge(&self.who, &self.to, Wall(0)).allows(),
            self.allowed
        );
        median(1_000, || {
            black_box(policy.judge(black_box(&self.who), black_box(&self.to), Wall(0)));
        })
    }

    fn explain(&self, policy: &Policy) -> f64 {
        assert!(
            policy
                .explain(&self.subject, &self.to, Wall(0))
                .nearest
                .is_some()
        );
        median(10, || {
            black_box(policy.explain(black_box(&self.subject), black_box(&self.to), Wall(0)));
        })
    }
}

/// Of many batches, the median's nanoseconds for one call.
fn median(batch: u32, call: impl Fn()) -> f64 {
    let mut batches: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let started = Instant::now();
            (0..batch).for_each(|_| call());
            started.elapsed().as_secs_f64() * 1e9 / f64::from(batch)
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    batches[BATCHES / 2]
}
