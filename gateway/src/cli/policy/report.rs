//! `policy report`.

mod markdown;

use super::super::output;
use super::super::{Failure, Where, span};
use super::then::At;
use super::who_can;
use crate::past::{self, Report};
use clap::{Args, ValueEnum};
use std::time::Duration;

/// Say who could reach a target at a moment, who did, and what that rests on.
#[derive(Debug, Args)]
pub(in crate::cli) struct Verb {
    /// The policy's name for it, or ADDRESS:PORT/PROTOCOL.
    #[arg(long, value_name = "TARGET")]
    target: String,
    /// At this moment: how long ago (15m, 2h, 7d), or a time in UTC (2026-11-22, 10:30,
    /// 2026-11-22T10:30:00Z).
    #[arg(long, value_name = "TIME")]
    at: String,
    /// Flows that were open at some time of this long before count as uses.
    #[arg(long, value_name = "LONG", default_value = "24h", value_parser = span)]
    window: Duration,
    #[command(flatten)]
    place: Where,
    #[arg(long, short, value_enum, default_value_t)]
    output: Form,
}

/// How a report looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For a document.
    Markdown,
}

impl Verb {
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        let at = At {
            at: Some(self.at.clone()),
        };
        let then = at.then(&self.place).await?;
        let subjects = then.past().await?;
        let segments = then.segments()?;
        let report = past::report(
            &then.policy,
            subjects,
            &segments,
            &self.target,
            then.at,
            self.window,
        )?;
        match self.output {
            Form::Json => output::json(&report)?,
            Form::Markdown => output::write(&markdown::markdown(&report))?,
            Form::Table => table(&report)?,
        }
        if !report.rests_on.whole {
            eprintln!("note: the log does not reach back to the beginning of that time");
        }
        Ok(0)
    }
}

fn table(report: &Report) -> Result<(), Failure> {
    output::facts(&facts(report))?;
    output::say("\nwho could")?;
    who_can::table(&report.could)?;
    output::say("\nwho did")?;
    output::table(
        [
            "START",
            "END",
            "USER",
            "DEVICE",
            "DESTINATION",
            "RULE",
            "POLICY",
            "FLOW",
        ],
        report.did.iter().map(|one| {
            [
                one.start.rfc3339(),
                ended(one),
                output::or_dash(one.user.as_ref()),
                output::or_dash(one.device.as_ref()),
                one.to.to_string(),
                one.rule.clone(),
                short(&one.policy).to_owned(),
                format!("{}/{}", one.boot, one.flow),
            ]
        }),
    )?;
    if report.did_more > 0 {
        output::say(format_args!("and {} older flows", report.did_more))?;
    }
    output::say("\nwho was refused")?;
    output::table(
        ["USER", "DEVICE", "ATTEMPTS", "REASON", "RULE"],
        report.refused.iter().map(|one| {
            [
                output::or_dash(one.user.as_ref()),
                output::or_dash(one.device.as_ref()),
                one.attempts.to_string(),
                one.deny_reason.clone(),
                one.rule.clone(),
            ]
        }),
    )?;
    output::say("\nrecords that it rests on")?;
    output::table(
        ["RUN", "WORKER", "FIRST", "LAST", "RECORDS"],
        report.rests_on.records.iter().map(|range| {
            [
                range.boot.clone(),
                range.worker.to_string(),
                range.first_seq.to_string(),
                range.last_seq.to_string(),
                range.records.to_string(),
            ]
        }),
    )
}

/// What the report is about and what it rests on.
fn facts(report: &Report) -> Vec<(&'static str, String)> {
    let mut facts = vec![
        ("target", format!("{} ({})", report.target, report.place)),
        ("at", report.at.rfc3339()),
        ("uses since", report.from.rfc3339()),
        ("policy", report.could.policy.full()),
    ];
    if let Some(since) = report.policy_since {
        facts.push(("in force since", since.rfc3339()));
    }
    facts.push(("devices", report.rests_on.devices.to_string()));
    if !report.rests_on.names_forgotten.is_empty() {
        let names = report.rests_on.names_forgotten.join(", ");
        facts.push(("names forgotten", names));
    }
    if let Some(head) = report.rests_on.head {
        let lines = format!("{} to {}", report.rests_on.first_n, head.n);
        facts.push(("lines read", lines));
        facts.push(("head", format!("{}:{}", head.n, head.hash)));
    }
    facts
}

fn ended(one: &past::Use) -> String {
    match (&one.end, &one.close_reason) {
        (None, _) => "open".to_owned(),
        (Some(end), Some(reason)) => format!("{end} {reason}"),
        (Some(end), None) => end.clone(),
    }
}

fn short(hash: &str) -> &str {
    hash.get(..12).unwrap_or(hash)
}
