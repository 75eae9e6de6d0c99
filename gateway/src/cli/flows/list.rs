//! `flows list`.

use super::select::{Select, Source, Until, note};
use super::sentence::{Lines, is_flow, sentence};
use super::{Failure, Output, output};
use crate::api::{FlowView, MAX_FLOWS_LISTED};
use clap::Args;
use postern_io::clock::Clock;
use postern_spool::query::{Row, Rows, rows};
use serde_json::Value;

/// Attempts that are listed unless it is said otherwise.
const DEFAULT_LIMIT: usize = 1000;

/// Attempts that match all of it. Those that are live now, unless a time, a verdict, a state,
/// --limit or --all asks for records.
#[derive(Debug, Args)]
pub(in crate::cli) struct List {
    #[command(flatten)]
    select: Select,
    #[command(flatten)]
    until: Until,
    /// Recorded attempts of all times.
    #[arg(long)]
    all: bool,
    /// So many recorded attempts, the newest. [default: 1000]
    #[arg(long)]
    limit: Option<usize>,
    #[command(flatten)]
    source: Source,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

impl List {
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        if self.asks_the_past() {
            self.recorded()
        } else {
            self.live().await
        }
    }

    fn asks_the_past(&self) -> bool {
        self.all
            || self.limit.is_some()
            || self.until.until.is_some()
            || self.source.dir.is_some()
            || self.select.asks_the_past()
    }

    fn recorded(&self) -> Result<u8, Failure> {
        let filter = self.select.filter(&self.until)?;
        let segments = self.source.segments()?;
        let limit = self.limit.unwrap_or(DEFAULT_LIMIT);
        let found = rows(&segments, &filter, limit).map_err(Failure::failed)?;
        match self.output {
            Output::Json => {
                let mut lines = Lines::new();
                for row in &found.rows {
                    if !lines.put(&row.record.line)? {
                        break;
                    }
                }
                lines.end()?;
            }
            Output::Table => show(&found)?,
        }
        if found.cut {
            eprintln!("note: only the newest {limit} are shown; select fewer, or raise --limit");
        }
        note(&found.report);
        Ok(0)
    }

    async fn live(&self) -> Result<u8, Failure> {
        let (_, client) = self.source.place.client()?;
        let mut flows: Vec<FlowView> = client
            .post("/v1/flows/list", &self.select.live_filter())
            .await?;
        let cut = flows.len() == MAX_FLOWS_LISTED;
        flows.retain(|flow| self.select.is_live(flow));
        match self.output {
            Output::Json => output::json(&flows)?,
            Output::Table => show_live(&flows, Clock::now().wall.millis())?,
        }
        if cut {
            eprintln!("note: only the oldest {MAX_FLOWS_LISTED} were looked at; select fewer");
        }
        Ok(0)
    }
}

fn show_live(flows: &[FlowView], now: u64) -> Result<(), Failure> {
    output::table(
        [
            "ID",
            "DEVICE",
            "USER",
            "PROTO",
            "DESTINATION",
            "RULE",
            "STATE",
            "AGE",
            "IDLE",
            "OUT",
            "IN",
        ],
        flows.iter().map(|flow| {
            [
                flow.id.to_string(),
                flow.device.clone(),
                output::or_dash(flow.user.as_ref()),
                flow.protocol.to_string(),
                flow.destination.to_string(),
                flow.rule.clone(),
                flow.state.clone(),
                output::span(now.saturating_sub(flow.opened_ms) / 1000),
                output::span(flow.idle_ms / 1000),
                output::size(flow.bytes_out),
                output::size(flow.bytes_in),
            ]
        }),
    )
}

fn show(found: &Rows) -> Result<(), Failure> {
    // What is about the log itself has other fields.
    if let Some(first) = found.rows.first()
        && !is_flow(&first.record.line)
    {
        let mut lines = Lines::new();
        for row in &found.rows {
            if !lines.put(sentence(&row.record.line).as_bytes())? {
                break;
            }
        }
        return lines.end();
    }
    output::table(
        [
            "START",
            "STATE",
            "USER",
            "DEVICE",
            "DESTINATION",
            "RULE",
            "REASON",
            "LASTED",
            "OUT",
            "IN",
        ],
        found.rows.iter().map(cells),
    )
}

fn cells(row: &Row) -> [String; 10] {
    let record: Value = serde_json::from_slice(&row.record.line).unwrap_or_default();
    let text = |field: &str| record[field].as_str().unwrap_or("-").to_owned();
    let number = |field: &str| record[field].as_u64();
    let start = text("start");
    let reason = match (text("state").as_str(), number("count")) {
        ("denied", Some(count)) if count > 1 => format!("{} x{count}", text("deny_reason")),
        ("denied", _) => text("deny_reason"),
        _ => text("close_reason"),
    };
    [
        start.split('.').next().map_or_else(String::new, |whole| {
            if whole == "-" {
                "-".to_owned()
            } else {
                format!("{whole}Z")
            }
        }),
        if row.live {
            "live".to_owned()
        } else {
            text("state")
        },
        text("user"),
        text("device"),
        super::sentence::destination(&record),
        text("rule"),
        reason,
        output::or_dash(number("duration_ms").map(|millis| output::span(millis / 1000))),
        output::or_dash(number("bytes_out").map(output::size)),
        output::or_dash(number("bytes_in").map(output::size)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_spool::query::Found;
    use serde_json::json;

    #[test]
    fn rows_read_well() {
        let row = |live, more: Value| {
            let mut record = json!({
                "kind": "flow", "start": "2026-11-22T05:00:43.120Z", "user": "ana@example.com",
                "device": "ana-laptop", "protocol": "tcp", "dst_address": "192.0.2.10",
                "dst_port": 22, "rule": "ssh to the nodes",
            });
            for (name, value) in more.as_object().into_iter().flatten() {
                record[name] = value.clone();
            }
            let record = Found {
                n: 1,
                line: record.to_string().into_bytes().into(),
            };
            cells(&Row { record, live }).join(" | ")
        };
        assert_eq!(
            row(true, json!({ "state": "open" })),
            "2026-11-22T05:00:43Z | live | ana@example.com | ana-laptop | 192.0.2.10:22/tcp | \
             ssh to the nodes | - | - | - | -"
        );
        let closed = json!({
            "state": "closed", "close_reason": "fin", "duration_ms": 125_000, "bytes_out": 1536,
            "bytes_in": 5_242_880, "dst_address": "2001:db8::1",
        });
        assert_eq!(
            row(false, closed),
            "2026-11-22T05:00:43Z | closed | ana@example.com | ana-laptop | [2001:db8::1]:22/tcp | \
             ssh to the nodes | fin | 2m | 1.5 KiB | 5.0 MiB"
        );
        let scan = json!({
            "state": "denied", "deny_reason": "policy", "count": 7, "dst_address": null,
            "user": null, "rule": "default",
        });
        assert_eq!(
            row(false, scan),
            "2026-11-22T05:00:43Z | denied | - | ana-laptop | *:22/tcp | default | policy x7 | \
             - | - | -"
        );
    }
}
