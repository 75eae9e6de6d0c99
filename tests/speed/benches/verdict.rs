//! What a verdict costs as rules grow: `cargo bench -p postern-speed --bench verdict`, or one shape of
//! policy: `cargo bench -p postern-speed --bench verdict -- posture`.
//!
//! The policies are the shapes that people write, one for each kind of condition, and the ones that
//! hurt a plain index. 10 000 devices ask in turn, each for the place of its own rule, so that
//! neither the device nor, among as many rules, the rule is in a near cache.
#![allow(clippy::unwrap_used, clippy::print_stdout)]

use postern_engine::policy::{Policy, Subject, SubjectIndex, Tuple};
use postern_engine::standing::{Attribute, Grant, Session, Standing};
use postern_proto::now::Wall;
use std::fmt::Write as _;
use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

const SIZES: [usize; 3] = [10, 1_000, 10_000];
const DEVICES: usize = 10_000;
/// Coprime to their number: neighbours in time are no neighbours in memory.
const STRIDE: usize = 7_919;
/// Verdicts that are timed together: a look at the clock costs as much as a fifth of one.
const TOGETHER: usize = 50;
/// The most that a policy may have.
const GRANTS: usize = 256;
const ROUNDS: usize = 5;
const PASSES: usize = 3;
/// A Friday, 08:00 UTC.
const NOW: Wall = Wall(1_800_000_000_000_000_000);

struct Shape {
    name: &'static str,
    /// The `from` of rule `i`, and what stands beside it.
    from: fn(usize) -> String,
    to: fn(usize) -> (Ipv4Addr, u16),
    more: &'static str,
    /// Another rule stands before each, in shadow, and is asked too.
    shadow: bool,
    /// No rule allows it but a grant, by an entry of its own.
    grant: bool,
}

const PLAIN: Shape = Shape {
    name: "own group, own address",
    from: own_group,
    to: own_address,
    more: "",
    shadow: false,
    grant: false,
};

const SHAPES: [Shape; 13] = [
    PLAIN,
    Shape {
        name: "own group, one address",
        to: one_place,
        ..PLAIN
    },
    Shape {
        name: "one group, own address",
        from: |_| "groups: [one]".to_owned(),
        ..PLAIN
    },
    Shape {
        name: "one group and address, own port",
        from: |_| "groups: [one]".to_owned(),
        to: own_port,
        ..PLAIN
    },
    Shape {
        name: "the same, young login",
        from: |_| "groups: [one], session_age: 12h".to_owned(),
        to: own_port,
        ..PLAIN
    },
    Shape {
        name: "own label, one address",
        from: |i| format!("labels: [team=t{i}]"),
        to: one_place,
        ..PLAIN
    },
    Shape {
        name: "own group, place on the Internet",
        from: |i| format!("groups: [g{i}], outer: [198.51.0.0/16]"),
        to: one_place,
        ..PLAIN
    },
    Shape {
        name: "own group, issuer and amr",
        from: |i| {
            format!("groups: [g{i}], issuers: [\"https://idp.example.com\"], amr: [mfa, hwk]")
        },
        to: one_place,
        ..PLAIN
    },
    Shape {
        name: "own group, posture",
        from: |i| format!("groups: [g{i}], posture: [managed]"),
        to: one_place,
        ..PLAIN
    },
    Shape {
        name: "own group, window",
        to: one_place,
        more: ", when: { days: [mon-fri], hours: \"07:00-20:00\", zone: Europe/Berlin }",
        ..PLAIN
    },
    Shape {
        name: "own group, each with one in shadow",
        to: one_place,
        shadow: true,
        ..PLAIN
    },
    Shape {
        name: "own grant",
        from: |_| "groups: [one]".to_owned(),
        to: |i| own_address(i % GRANTS),
        grant: true,
        ..PLAIN
    },
    Shape {
        name: "one group, address and port, own place",
        from: |i| format!("groups: [one], outer: [{}]", outer(i)),
        to: one_place,
        ..PLAIN
    },
];

fn own_group(i: usize) -> String {
    format!("groups: [g{i}]")
}

fn own_address(i: usize) -> (Ipv4Addr, u16) {
    let [.., high, low] = i.to_be_bytes();
    (Ipv4Addr::new(10, 0, high, low), 22)
}

fn one_place(_: usize) -> (Ipv4Addr, u16) {
    (Ipv4Addr::new(10, 0, 0, 0), 22)
}

fn own_port(i: usize) -> (Ipv4Addr, u16) {
    (Ipv4Addr::new(10, 0, 0, 0), i as u16 + 1)
}

fn outer(i: usize) -> Ipv4Addr {
    let [.., high, low] = i.to_be_bytes();
    Ipv4Addr::new(198, 51, high, low)
}

fn main() {
    // Without --bench, only that it builds and runs is asked.
    let asked = std::env::args().any(|argument| argument == "--bench");
    let (sizes, devices) = if asked {
        (SIZES, DEVICES)
    } else {
        ([1, 2, 3], 50)
    };
    println!("nanoseconds for one verdict, {devices} devices in turn; x is the ratio to the first");
    print!("{:<40} {:<8}", "every rule has", "verdict");
    println!(
        "{}",
        sizes.map(|size| format!("{size:>9}        ")).concat()
    );
    let wanted = std::env::args()
        .skip(1)
        .find(|word| !word.starts_with("--"));
    let wanted = |shape: &&Shape| wanted.as_ref().is_none_or(|word| shape.name.contains(word));
    for shape in SHAPES.iter().filter(wanted) {
        let cases = sizes.map(|size| Case::new(shape, size, devices));
        row(
            shape.name,
            "allow",
            cases.each_ref().map(|case| case.verdict(true, STRIDE)),
        );
        // One device, again and again.
        row(
            "",
            "again",
            cases.each_ref().map(|case| case.verdict(true, 0)),
        );
        row(
            "",
            "deny",
            cases.each_ref().map(|case| case.verdict(false, STRIDE)),
        );
        row("", "explain", cases.each_ref().map(Case::explain));
        row("", "compile", cases.each_ref().map(|case| case.compiled));
    }
}

fn row(name: &str, what: &str, nanos: [f64; SIZES.len()]) {
    print!("{name:<40} {what:<8}");
    for time in nanos {
        print!("{time:>10.0} {:>5.2}x", time / nanos[0]);
    }
    println!();
}

struct Case {
    shape: &'static Shape,
    policy: Policy,
    asks: Vec<Ask>,
    /// Nanoseconds.
    compiled: f64,
}

/// A device, and what its own rule allows; over UDP no rule allows it.
struct Ask {
    subject: Subject,
    who: SubjectIndex,
    to: Tuple,
}

impl Case {
    fn new(shape: &'static Shape, size: usize, devices: usize) -> Case {
        let source = source(shape, size);
        let started = Instant::now();
        let policy = Policy::parse(&source).unwrap_or_else(|errors| panic!("{errors}"));
        let compiled = started.elapsed().as_nanos() as f64;
        let ask = |device: usize| {
            let rule = device % size;
            let subject = subject(device, rule);
            let (address, port) = (shape.to)(rule);
            Ask {
                who: policy.index(&subject),
                subject,
                to: format!("{address}:{port}/tcp").parse().unwrap(),
            }
        };
        let asks = (0..devices).map(ask).collect();
        Case {
            shape,
            policy,
            asks,
            compiled,
        }
    }

    fn verdict(&self, allowed: bool, stride: usize) -> f64 {
        let policy = &self.policy;
        let shadow = self.shape.shadow;
        self.median(TOGETHER, stride, |ask| {
            let mut to = ask.to;
            if !allowed {
                to.protocol = postern_proto::flow_key::Protocol::Udp;
            }
            let verdict = policy.judge(black_box(&ask.who), black_box(&to), NOW);
            assert_eq!(verdict.allows(), allowed);
            if shadow {
                let would = policy.shadow(black_box(&ask.who), black_box(&to), NOW);
                assert_eq!(would.is_some(), allowed);
            }
        })
    }

    fn explain(&self) -> f64 {
        self.median(1, STRIDE, |ask| {
            let mut to = ask.to;
            to.protocol = postern_proto::flow_key::Protocol::Udp;
            black_box(
                self.policy
                    .explain(black_box(&ask.subject), black_box(&to), NOW),
            );
        })
    }

    /// The least of the medians of several rounds: what else the machine does is not meant.
    fn median(&self, together: usize, stride: usize, ask: impl Fn(&Ask)) -> f64 {
        let devices = self.asks.len();
        // What is slow enough to be timed alone is not asked of every device.
        let asked = if together == 1 {
            devices.min(200)
        } else {
            devices * PASSES
        };
        let round = || {
            let mut times = Vec::new();
            for batch in 0..asked / together {
                let of = |k| &self.asks[(batch * together + k) * stride % devices];
                let started = Instant::now();
                for k in 0..together {
                    ask(of(k));
                }
                times.push(started.elapsed().as_nanos() as f64 / together as f64);
            }
            times.sort_unstable_by(f64::total_cmp);
            times[times.len() / 2]
        };
        (0..ROUNDS).map(|_| round()).fold(f64::INFINITY, f64::min)
    }
}

fn source(shape: &Shape, size: usize) -> String {
    let mut text = "version: 1\nposture:\n".to_owned();
    text += "  managed: { attribute: { name: managed, value: \"yes\" } }\n";
    let place = |i| {
        let (address, port) = (shape.to)(i);
        format!("{{ addresses: [{address}], ports: [{port}/tcp] }}")
    };
    if shape.grant {
        text += "targets:\n";
        (0..size.min(GRANTS)).for_each(|i| writeln!(text, "  t{i}: {}", place(i)).unwrap());
        text += "grants:\n";
        for i in 0..size.min(GRANTS) {
            let from = (shape.from)(i);
            writeln!(
                text,
                "  - {{ name: e{i}, from: {{ {from} }}, to: [t{i}], max: 4h }}"
            )
            .unwrap();
        }
    }
    text += "rules:\n";
    for i in 0..size {
        let from = (shape.from)(i);
        let to = if shape.grant {
            // The same number of rules, elsewhere.
            format!(
                "{{ addresses: [10.1.{}.{}], ports: [22/tcp] }}",
                i / 256,
                i % 256
            )
        } else {
            place(i)
        };
        if shape.shadow {
            writeln!(
                text,
                "  - {{ name: s{i}, action: deny, mode: shadow, from: {{ {from} }}, to: {to} }}"
            )
            .unwrap();
        }
        writeln!(
            text,
            "  - {{ name: r{i}, action: allow, from: {{ {from} }}, to: {to}{} }}",
            shape.more
        )
        .unwrap();
    }
    text
}

/// Every condition of rule `i` holds for it.
fn subject(device: usize, i: usize) -> Subject {
    let managed = Attribute {
        value: "yes".to_owned(),
        until: None,
    };
    let grant = Grant {
        id: "gr".into(),
        entry: format!("e{}", i % GRANTS).into(),
        target: format!("t{}", i % GRANTS).into(),
        reason: "it is down".into(),
        break_glass: false,
        since: Wall(NOW.0 - 1_000_000_000),
        until: Wall(NOW.0 + 3_600_000_000_000),
    };
    Subject {
        user: Some(format!("user-{device}@example.com")),
        groups: vec!["all-staff".to_owned(), format!("g{i}"), "one".to_owned()],
        device: format!("laptop-{device}"),
        standing: Standing {
            session: Some(Session {
                id: "s".into(),
                method: "oidc".into(),
                issuer: Some("https://idp.example.com".into()),
                amr: vec!["mfa".to_owned()],
                acr: None,
                since: Wall(NOW.0 - 1_000_000_000),
                until: None,
            }),
            attributes: [("managed".to_owned(), managed)].into(),
            labels: vec![format!("team=t{i}")],
            grants: vec![grant],
            outer: Some(IpAddr::V4(outer(i))),
            ..Standing::default()
        },
    }
}
