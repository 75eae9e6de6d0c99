//! Every way to read against the slowest one: all lines, as JSON, one after the other.

use super::*;
use crate::index::build_missing;
use crate::line::{Hash, seal};
use crate::scratch::Scratch;
use crate::segment::{name, segments};
use crate::time::{millis, rfc3339};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

const DAY: u64 = 1_795_305_600_000;

/// One line's body; times wander back and forth as clocks do.
fn body() -> impl Strategy<Value = Value> {
    let word = |words: &'static [&'static str]| prop::sample::select(words);
    let who = (
        prop::option::weighted(
            0.9,
            word(&["ana@example.com", "bob@example.com", "a\"na\\"]),
        ),
        word(&["laptop", "phone", "user"]),
        word(&["ssh to \"all\"", "default", "user"]),
    );
    let place = (
        prop::option::weighted(
            0.9,
            word(&["192.0.2.1", "192.0.2.10", "198.51.100.1", "2001:db8::1"]),
        ),
        word(&["22", "443", "6443"]),
        word(&["tcp", "udp"]),
        prop::option::of(word(&["nodes", "user", "10.0.0.1"])),
    );
    let what = (
        word(&["open", "closed", "denied", "log"]),
        0_u64..6,
        0_u64..1000,
        0_u64..100_000,
    );
    (who, place, what).prop_map(|((user, device, rule), (to, port, protocol, target), (state, flow, sum, time))| {
        let mut body = json!({
            "schema": 2, "kind": "flow", "gateway": "gw", "boot": if sum % 2 == 0 { "1" } else { "2" },
            "time": rfc3339(DAY + time), "state": state,
            "verdict": if state == "denied" { "deny" } else { "allow" },
            "rule": rule, "groups": ["user", "ana@example.com"], "device": device,
            "protocol": protocol, "dst_port": port.parse::<u16>().unwrap(),
        });
        for (name, value) in [("user", user), ("dst_address", to), ("target", target)] {
            if let Some(value) = value {
                body[name] = json!(value);
            }
        }
        match state {
            "denied" => {
                body["count"] = json!(1 + sum % 3);
                body["dst_ports"] = json!([22, 80]);
            }
            "closed" => {
                body["flow"] = json!(flow);
                body["close_reason"] = json!(if sum < 500 { "fin" } else { "idle" });
                body["bytes_out"] = json!(sum);
                body["bytes_in"] = json!(sum * 7);
                body["packets_out"] = json!(sum / 10);
                body["packets_in"] = json!(sum / 5);
            }
            "open" => body["flow"] = json!(flow),
            _ => body = json!({"kind": "log", "time": rfc3339(DAY + time), "event": "started"}),
        }
        body
    })
}

fn filter() -> impl Strategy<Value = Filter> {
    let text = |words: &'static [&'static str]| {
        prop::option::weighted(0.3, prop::sample::select(words).prop_map(str::to_owned))
    };
    let net = ["192.0.2.10/32", "192.0.2.0/24", "2001:db8::1/128", "::/0"];
    let to = prop_oneof![
        3 => Just(None),
        1 => prop::sample::select(vec!["nodes", "10.0.0.1"]).prop_map(|name| Some(To::Target(name.into()))),
        1 => (prop::sample::select(net.to_vec()), prop::option::of(Just(22)), text(&["tcp"])).prop_map(
            |(net, port, protocol)| Some(To::Net { net: net.parse().unwrap(), port, protocol })
        ),
    ];
    let time = || prop::option::weighted(0.3, (0_u64..100_000).prop_map(|time| DAY + time));
    (
        (
            text(&["ana@example.com", "a\"na\\", "nobody"]),
            text(&["laptop", "user"]),
            text(&["ssh to \"all\"", "user"]),
            text(&["fin"]),
        ),
        to,
        prop::option::weighted(0.3, prop::sample::select(Kind::ALL)),
        prop::option::weighted(0.3, prop::sample::select(Verdict::ALL)),
        prop::option::weighted(0.3, prop::sample::select(State::ALL)),
        time(),
        time(),
    )
        .prop_map(
            |((user, device, rule, close_reason), to, kind, verdict, state, since, until)| Filter {
                kind,
                user,
                device,
                to,
                rule,
                verdict,
                state,
                close_reason,
                since,
                until,
            },
        )
}

/// What a filter means, in terms of JSON values.
fn selects(filter: &Filter, line: &Value) -> bool {
    let is = |field: &str, wanted: Option<&str>| wanted.is_none_or(|wanted| line[field] == wanted);
    let time = line["time"].as_str().and_then(millis).unwrap();
    is("user", filter.user.as_deref())
        && is("device", filter.device.as_deref())
        && is("rule", filter.rule.as_deref())
        && is("close_reason", filter.close_reason.as_deref())
        && is("kind", filter.kind.map(Kind::as_str))
        && is("verdict", filter.verdict.map(Verdict::as_str))
        && is("state", filter.state.map(State::as_str))
        && filter.since.is_none_or(|since| time >= since)
        && filter.until.is_none_or(|until| time < until)
        && match &filter.to {
            None => true,
            Some(To::Target(name)) => line["target"] == name.as_str(),
            Some(To::Net {
                net,
                port,
                protocol,
            }) => {
                let address = line["dst_address"]
                    .as_str()
                    .map(|text| text.parse().unwrap());
                let further = |port| {
                    line["dst_ports"]
                        .as_array()
                        .is_some_and(|all| all.contains(&json!(port)))
                };
                address.is_some_and(|address: std::net::IpAddr| net.contains(&address))
                    && port.is_none_or(|port| line["dst_port"] == port || further(port))
                    && is("protocol", protocol.as_deref())
            }
        }
}

/// A spool of these bodies in segments of `size` lines, and its lines as values.
fn spool(bodies: &[Value], size: usize) -> (Scratch, Vec<Value>) {
    let folder = Scratch::new();
    let (mut prev, mut n) = (Hash::ZERO, 0);
    let mut values = Vec::new();
    for part in bodies.chunks(size) {
        let mut bytes = Vec::new();
        for body in part {
            n += 1;
            prev = seal(body.to_string().as_bytes(), n, prev, &mut bytes);
            let mut value = body.clone();
            value["n"] = json!(n);
            values.push(value);
        }
        let first = n + 1 - u64::try_from(part.len()).unwrap();
        std::fs::write(folder.path().join(name(first)), bytes).unwrap();
    }
    (folder, values)
}

fn numbers(values: &[&Value]) -> Vec<u64> {
    values
        .iter()
        .map(|value| value["n"].as_u64().unwrap())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn every_way_to_read_finds_the_same(
        bodies in prop::collection::vec(body(), 1..60),
        size in 1_usize..20,
        filter in filter(),
        limit in 0_usize..20,
        from in 0_u64..60,
    ) {
        let (folder, values) = spool(&bodies, size);
        for indexed in [false, true] {
            if indexed {
                build_missing(folder.path()).unwrap();
            }
            let all = Segments::open(folder.path()).unwrap();
            let wanted = numbers(&values.iter().filter(|line| selects(&filter, line)).collect::<Vec<_>>());

            let (newest, report) = all.newest(&filter, limit).unwrap();
            let newest: Vec<u64> = newest.iter().map(|found| found.n).collect();
            let expected: Vec<u64> = wanted.iter().rev().take(limit).copied().collect();
            prop_assert_eq!(newest, expected);
            prop_assert_eq!(report.damaged, 0);

            let mut each = Vec::new();
            all.each(&filter, from, |_, fields| {
                each.push(fields.n);
                if each.len() == limit { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }).unwrap();
            let later = wanted.iter().copied().filter(|n| *n >= from);
            let some = if limit == 0 { usize::MAX } else { limit };
            prop_assert_eq!(each, later.take(some).collect::<Vec<_>>());

            let (sums, _) = all.fold(&filter, |sum: &mut Vec<u64>, fields| sum.push(fields.n)).unwrap();
            let mut sums = sums.concat();
            sums.sort_unstable();
            prop_assert_eq!(sums, wanted);
        }
    }

    #[test]
    fn shares_are_the_naive_sums(
        bodies in prop::collection::vec(body(), 1..60),
        size in 1_usize..20,
        filter in filter(),
        by in prop::sample::select(By::ALL),
        of in prop::sample::select(Of::ALL),
        limit in 0_usize..4,
    ) {
        let (folder, values) = spool(&bodies, size);
        let found = top(&Segments::open(folder.path()).unwrap(), &filter, by, of, limit).unwrap();
        let mut shares: BTreeMap<Option<String>, u64> = BTreeMap::new();
        for line in values.iter().filter(|line| line["kind"] == "flow" && selects(&filter, line)) {
            let text = |field: &str| line[field].as_str().map(str::to_owned);
            let number = |field: &str| line[field].as_u64().unwrap_or(0);
            let key = match of {
                Of::User => text("user"),
                Of::Device => text("device"),
                Of::Target => text("target"),
                Of::Rule => text("rule"),
                Of::Destination => {
                    let address = match text("dst_address") {
                        Some(address) if address.contains(':') => format!("[{address}]"),
                        Some(address) => address,
                        None => "*".into(),
                    };
                    Some(format!("{address}:{}/{}", line["dst_port"], text("protocol").unwrap()))
                }
            };
            *shares.entry(key).or_default() += match (by, text("state").as_deref()) {
                (By::Bytes, _) => number("bytes_out") + number("bytes_in"),
                (By::Packets, _) => number("packets_out") + number("packets_in"),
                (By::Flows, Some("open")) => 1,
                (By::Flows | By::Denials, _) => number("count"),
            };
        }
        prop_assert_eq!(found.total.of(by), shares.values().sum::<u64>());
        prop_assert_eq!(found.other, Sums::default());
        let mut expected: Vec<_> = shares.into_iter().filter(|share| share.1 > 0).collect();
        expected.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(&b.0)));
        prop_assert_eq!(found.hidden, expected.len().saturating_sub(limit));
        let hidden: u64 = expected.iter().skip(limit).map(|share| share.1).sum();
        prop_assert_eq!(found.hidden_sums.of(by), hidden);
        expected.truncate(limit);
        let rows: Vec<_> = found.rows.into_iter().map(|row| (row.key, row.sums.of(by))).collect();
        prop_assert_eq!(rows, expected);
    }
}

/// The story of flows, in order: `o1` opens flow 1, `c1` closes it, `d` is a refusal.
fn story(words: &str, size: usize) -> Scratch {
    let bodies: Vec<Value> = (0..)
        .zip(words.split(' '))
        .map(|(at, word)| {
            let (state, flow) = word.split_at(1);
            let mut body = json!({
                "kind": "flow", "boot": "1", "time": rfc3339(DAY + at * 1000), "user": "ana",
                "state": match state { "o" => "open", "c" => "closed", _ => "denied" },
            });
            if let Ok(flow) = flow.parse::<u64>() {
                body["flow"] = json!(flow);
            }
            body
        })
        .collect();
    spool(&bodies, size).0
}

/// Rows as `n` of their record, with a `*` for live ones; a `+` at the front if there are more.
fn shown(folder: &Scratch, filter: &Filter, limit: usize) -> String {
    let found = rows(&Segments::open(folder.path()).unwrap(), filter, limit).unwrap();
    let rows: Vec<String> = found
        .rows
        .iter()
        .map(|row| format!("{}{}", row.record.n, if row.live { "*" } else { "" }))
        .collect();
    format!("{}{}", if found.cut { "+ " } else { "" }, rows.join(" "))
}

#[test]
fn a_flow_is_one_row() {
    //                   1  2  3  4 5  6  7 8
    let folder = story("o1 o2 c1 d o3 c2 o4 d", 3);
    let all = Filter::default();
    assert_eq!(shown(&folder, &all, 10), "3 4 5* 6 7* 8");
    assert_eq!(shown(&folder, &all, 6), "3 4 5* 6 7* 8");
    assert_eq!(shown(&folder, &all, 3), "+ 6 7* 8");
    let open = |until| Filter {
        state: Some(State::Open),
        until,
        ..Filter::default()
    };
    assert_eq!(shown(&folder, &open(None), 10), "5* 7*");
    assert_eq!(shown(&folder, &open(None), 1), "+ 7*");
    assert_eq!(shown(&folder, &open(Some(DAY + 6000)), 9), "5*");
}

#[test]
fn an_end_after_the_span_is_still_an_end() {
    let folder = story("o1 o2 d d d c1 d d", 2);
    let early = Filter {
        until: Some(DAY + 2000),
        ..Filter::default()
    };
    assert_eq!(shown(&folder, &early, 10), "6 2*");
}

#[test]
fn damaged_lines_are_counted_and_passed_over() {
    let folder = story("d d d d", 2);
    let path = segments(folder.path()).unwrap()[0].path.clone();
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[12] ^= 1;
    bytes.extend_from_slice(&vec![b'x'; 2 * crate::MAX_LINE + (1 << 20)]);
    bytes.extend_from_slice(b"\n{\"torn\":");
    std::fs::write(&path, &bytes).unwrap();
    let all = Segments::open(folder.path()).unwrap();
    let (found, report) = all.newest(&Filter::default(), 10).unwrap();
    assert_eq!(
        found.iter().map(|found| found.n).collect::<Vec<_>>(),
        [4, 3, 2]
    );
    assert_eq!((report.damaged, report.read), (2, 2));
}

#[test]
fn a_line_behind_garbage_is_found_wherever_a_read_ends() {
    let folder = story("d d", 2);
    let path = segments(folder.path()).unwrap()[0].path.clone();
    let good = std::fs::read(&path).unwrap();
    let read = (1 << 20) + crate::MAX_LINE;
    for short in [0, 1, 20, 100] {
        let garbage = vec![b'x'; 2 * read - short];
        std::fs::write(&path, [&garbage[..], &b"\n"[..], &good[..]].concat()).unwrap();
        let all = Segments::open(folder.path()).unwrap();
        let (found, report) = all.newest(&Filter::default(), 10).unwrap();
        let numbers: Vec<u64> = found.iter().map(|found| found.n).collect();
        assert_eq!((numbers, report.damaged), (vec![2, 1], 1), "{short}");
    }
}

#[test]
fn the_limit_stops_the_search() {
    let words = vec!["d"; 400].join(" ");
    let folder = story(&words, 1);
    let all = Segments::open(folder.path()).unwrap();
    let (_, report) = all.newest(&Filter::default(), 2).unwrap();
    assert!(report.read < 40, "{report:?}");
}

#[test]
fn an_index_that_somebody_made_up_hides_nothing_in_a_copy() {
    let folder = story("d d d d", 2);
    build_missing(folder.path()).unwrap();
    for segment in segments(folder.path()).unwrap() {
        let path = segment.index_path();
        let Ok(text) = std::fs::read(&path) else {
            continue;
        };
        let mut index: serde_json::Value = serde_json::from_slice(&text).unwrap();
        index["min_time"] = 0.into();
        index["max_time"] = 0.into();
        std::fs::write(&path, serde_json::to_vec(&index).unwrap()).unwrap();
    }
    let filter = Filter {
        since: Some(1),
        ..Filter::default()
    };
    let found = |all: Segments| all.newest(&filter, 10).unwrap().0.len();
    assert!(
        found(Segments::open(folder.path()).unwrap()) < 4,
        "it is believed"
    );
    assert_eq!(found(Segments::of_copy(folder.path()).unwrap()), 4);
}
