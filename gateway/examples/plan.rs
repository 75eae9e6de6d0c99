//! How long `policy plan` takes over many records.
//!
//! ```text
//! cargo run --release -p postern-spool --example records -- write DIR 1000000
//! cargo run --release -p postern-gateway --example plan -- DIR
//! ```
//!
//! The records are those of 240 users at 60 targets in thirty days; each names the facts of its
//! device, which change once a day. The policy has 1000 rules, and one that was used is not in it.
#![allow(clippy::print_stdout)]

use anyhow::Context;
use postern_engine::policy::{Policy, Subject};
use postern_engine::standing::Standing;
use postern_gateway::plan::{self, Question};
use postern_history::FactsText;
use postern_history::past::{Past, Row};
use postern_proto::now::Wall;
use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

/// As the example of `postern-spool` names the facts of a device on a day.
const USERS: u64 = 240;
const DAYS: u64 = 30;
const DAY: u64 = 86_400_000_000_000;
/// 2026-11-22T12:00:00Z.
const END: u64 = 1_795_348_800_000_000_000;

fn main() -> anyhow::Result<()> {
    let folder = std::env::args().nth(1).map(PathBuf::from);
    let folder = folder.context("usage: plan DIR")?;
    let policy = Policy::parse(&policy()?)?;
    let start = Instant::now();
    let past = Past::new((0..USERS).flat_map(|who| (0..=DAYS).map(move |day| row(who, day))));
    let question = Question {
        policy,
        in_force: None,
        since: Wall(0),
        live: None,
    };
    let (plan, read) = plan::judge(&folder, &question, past, |_, _| {})?;
    let took = start.elapsed();
    println!(
        "{} records, {} attempts in {:.2} s: {:.2} µs a record",
        read.records,
        plan.attempts,
        took.as_secs_f64(),
        took.as_secs_f64() * 1e6 / read.records.max(1) as f64
    );
    println!(
        "newly denied {:?}, newly allowed {:?}, unchanged {}, approximate {}, not judged {:?}",
        plan.newly_denied, plan.newly_allowed, plan.unchanged, plan.approximate, plan.not_judged
    );
    anyhow::ensure!(plan.approximate == 0, "facts are missing");
    Ok(())
}

/// Rules for clusters of four nodes, fifteen of them used, but for the last of these.
fn policy() -> anyhow::Result<String> {
    let mut text = "version: 1\ntargets:\n".to_owned();
    for cluster in 0..1000 {
        let nodes = (0..4).map(|node| match cluster {
            0..15 => format!("192.0.2.{}", cluster + 15 * node),
            _ => format!("10.{}.{}.{node}", cluster / 250, cluster % 250),
        });
        let nodes: Vec<String> = nodes.collect();
        let nodes = nodes.join(", ");
        writeln!(
            text,
            "  c{cluster}: {{ addresses: [{nodes}], ports: [22/tcp] }}"
        )?;
    }
    text += "rules:\n";
    for cluster in (0..1000).filter(|cluster| *cluster != 14) {
        writeln!(
            text,
            "  - {{ name: ssh to cluster {cluster}, action: allow, from: {{ groups: [sre] }}, to: [c{cluster}] }}"
        )?;
    }
    Ok(text)
}

fn row(who: u64, day: u64) -> Row {
    let facts = FactsText::of(&Subject {
        user: Some(format!("user{who:03}@example.com")),
        groups: vec!["platform".to_owned(), "sre".to_owned()],
        device: format!("laptop-{who:03}"),
        standing: Standing {
            labels: vec![format!("day={day}")],
            ..Standing::default()
        },
    });
    Row {
        id: format!("{:016x}", who * 1000 + day).into(),
        text: facts.text.into(),
        since: Wall(END - (DAYS - day) * DAY),
        reported: None,
    }
}
