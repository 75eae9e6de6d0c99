//! What a verdict costs as rules grow: `cargo bench -p postern-engine --bench verdict`.
//!
//! Each line is the median of many batches, in nanoseconds for one verdict. The policies are the
//! shapes that people write, and the two that hurt a plain index: every rule for the same address
//! with its own group, and every rule for the same group with its own address.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use postern_engine::policy::{Policy, Subject, SubjectIndex, Tuple};
use postern_proto::now::Wall;
use std::fmt::Write;
use std::hint::black_box;
use std::time::Instant;

const SIZES: [usize; 3] = [10, 1_000, 10_000];
const BATCHES: usize = 200;
const BATCH: u32 = 1_000;

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
    println!(
        "{:<34} {:>6} {:>10} {:>10} {:>10} {:>9}",
        "rules", "", "first ns", "last ns", "miss ns", "parse ms"
    );
    for (name, shape) in SHAPES {
        for &size in sizes {
            let source = source(size, shape);
            let started = Instant::now();
            let policy = Policy::parse(&source).unwrap();
            let parsed = started.elapsed().as_millis();
            let first = median(&policy, size, shape, 0, true);
            let last = median(&policy, size, shape, size - 1, true);
            let miss = median(&policy, size, shape, size / 2, false);
            println!("{name:<34} {size:>6} {first:>10.1} {last:>10.1} {miss:>10.1} {parsed:>9}");
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

/// The subject and the packet of rule `i`; a miss is the same packet over UDP.
fn median(policy: &Policy, size: usize, shape: Shape, i: usize, hit: bool) -> f64 {
    let (who, to) = asker(policy, shape, i, hit);
    let verdict = policy.judge(&who, &to, Wall(0));
    assert_eq!(verdict.allows(), hit, "rule {i} of {size}");
    let mut batches: Vec<f64> = (0..BATCHES)
        .map(|_| {
            let started = Instant::now();
            for _ in 0..BATCH {
                black_box(policy.judge(black_box(&who), black_box(&to), Wall(0)));
            }
            started.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH)
        })
        .collect();
    batches.sort_by(f64::total_cmp);
    batches[BATCHES / 2]
}

fn asker(policy: &Policy, shape: Shape, i: usize, hit: bool) -> (SubjectIndex, Tuple) {
    let (from, to) = shape(i);
    let inside = |text: &str, key: &str| -> Option<String> {
        let rest = text.split_once(&format!("{key}: ["))?.1;
        Some(rest.split_once(']')?.0.to_owned())
    };
    let subject = Subject {
        user: Some(inside(&from, "users").unwrap_or("somebody".to_owned())),
        groups: vec![
            "all-staff".to_owned(),
            inside(&from, "groups").unwrap(),
            "oncall".to_owned(),
        ],
        device: "laptop".to_owned(),
    };
    let ports = inside(&to, "ports").unwrap();
    let ports = if hit {
        ports
    } else {
        ports.replace("tcp", "udp")
    };
    let to = format!("{}:{ports}", inside(&to, "addresses").unwrap())
        .parse()
        .unwrap();
    (policy.index(&subject), to)
}
