//! `flows list|tail|kill`.

use super::output::{self, Output};
use super::{Failure, Where};
use crate::api::{CutView, Destination, FlowFilter, FlowView, MAX_FLOWS_LISTED, Missed};
use clap::{ArgGroup, Args, Subcommand};
use postern_io::clock::Clock;
use serde_json::Value;
use std::io::Write;

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// List live flows, oldest first.
    List {
        #[command(flatten)]
        select: Select,
        #[command(flatten)]
        place: Where,
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Follow records as they are written, until interrupted.
    Tail {
        /// Of this device.
        #[arg(long)]
        device: Option<String>,
        /// Of this user.
        #[arg(long)]
        user: Option<String>,
        #[command(flatten)]
        place: Where,
        #[arg(long, short, value_enum, default_value_t)]
        output: Output,
    },
    /// Cut live flows on both sides.
    #[command(group = ArgGroup::new("which").required(true).multiple(true)
        .args(["ids", "device", "user", "to"]))]
    Kill {
        /// Numbers from `flows list`.
        ids: Vec<u64>,
        #[command(flatten)]
        select: Select,
        #[command(flatten)]
        place: Where,
    },
}

/// Flows that match all of it.
#[derive(Debug, Args)]
pub(super) struct Select {
    /// Of this device.
    #[arg(long)]
    device: Option<String>,
    /// Of this user.
    #[arg(long)]
    user: Option<String>,
    /// To this destination: ADDRESS, RANGE or ADDRESS:PORT[/PROTOCOL].
    #[arg(long, value_name = "DESTINATION")]
    to: Option<Destination>,
}

impl Verb {
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        match self {
            Verb::List {
                select,
                place,
                output,
            } => list(&place, &select.filter(None), output).await,
            Verb::Tail {
                device,
                user,
                place,
                output,
            } => tail(&place, device.as_deref(), user.as_deref(), output).await,
            Verb::Kill { ids, select, place } => kill(&place, &ids, &select).await,
        }
    }
}

impl Select {
    fn filter(&self, id: Option<u64>) -> FlowFilter {
        FlowFilter {
            id,
            device: self.device.clone(),
            user: self.user.clone(),
            to: self.to,
        }
    }
}

async fn list(place: &Where, filter: &FlowFilter, output: Output) -> Result<u8, Failure> {
    let (_, client) = place.client()?;
    let flows: Vec<FlowView> = client.post("/v1/flows/list", filter).await?;
    if output == Output::Json {
        output::json(&flows)?;
        return Ok(0);
    }
    let now = Clock::now().wall.millis();
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
    )?;
    if flows.len() == MAX_FLOWS_LISTED {
        eprintln!("note: only the oldest {MAX_FLOWS_LISTED} are shown; select fewer");
    }
    Ok(0)
}

async fn tail(
    place: &Where,
    device: Option<&str>,
    user: Option<&str>,
    output: Output,
) -> Result<u8, Failure> {
    let (_, client) = place.client()?;
    let mut out = std::io::stdout();
    client
        .lines("/v1/flows/tail", |line| {
            let Ok(record) = serde_json::from_str::<Value>(line) else {
                return true;
            };
            if let Ok(Missed { missed }) = serde_json::from_value(record.clone()) {
                eprintln!("note: too slow, {missed} records were not shown; they are in the log");
                return true;
            }
            let is = |field: &str, wanted: Option<&str>| {
                wanted.is_none_or(|wanted| record[field].as_str() == Some(wanted))
            };
            if !is("device", device) || !is("user", user) {
                return true;
            }
            let shown = match output {
                Output::Json => line.to_owned(),
                Output::Table => sentence(&record),
            };
            // A reader that left, such as `head`, ends it.
            writeln!(out, "{shown}").and_then(|()| out.flush()).is_ok()
        })
        .await?;
    Ok(0)
}

async fn kill(place: &Where, ids: &[u64], select: &Select) -> Result<u8, Failure> {
    let (_, client) = place.client()?;
    let filters = if ids.is_empty() {
        vec![select.filter(None)]
    } else {
        ids.iter().map(|id| select.filter(Some(*id))).collect()
    };
    let mut flows = 0;
    for filter in filters {
        let cut: CutView = client.post("/v1/flows/kill", &filter).await?;
        flows += cut.flows;
    }
    output::say(format_args!("{flows} flows were cut"))?;
    Ok(u8::from(flows == 0))
}

/// One record as one line for people.
fn sentence(record: &Value) -> String {
    let text = |field: &str| record[field].as_str().unwrap_or("-");
    let end = |address: &str, port: &str| {
        let number = record[port].as_u64().unwrap_or(0);
        match record[address].as_str() {
            Some(address) if address.contains(':') => format!("[{address}]:{number}"),
            Some(address) => format!("{address}:{number}"),
            None => format!("*:{number}"),
        }
    };
    let who = record["user"].as_str().map_or_else(
        || text("device").to_owned(),
        |user| format!("{user} on {}", text("device")),
    );
    let detail = match text("state") {
        "denied" => match record["count"].as_u64() {
            Some(count) if count > 1 => format!("{} x{count}", text("deny_reason")),
            _ => text("deny_reason").to_owned(),
        },
        "closed" => {
            let bytes = |field: &str| output::size(record[field].as_u64().unwrap_or(0));
            format!(
                "{}, {} out, {} in",
                text("close_reason"),
                bytes("bytes_out"),
                bytes("bytes_in")
            )
        }
        _ => String::new(),
    };
    let line = format!(
        "{}  {:6}  {}  {} -> {}/{}  rule \"{}\"  {detail}",
        text("time"),
        text("state"),
        who,
        end("src_address", "src_port"),
        end("dst_address", "dst_port"),
        text("protocol"),
        text("rule"),
    );
    line.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_reads_as_a_line() {
        let denied = serde_json::json!({
            "time": "2026-11-22T05:00:43.120Z", "state": "denied", "rule": "default",
            "user": "ana@example.com", "device": "ana-laptop", "protocol": "tcp",
            "src_address": "100.96.0.2", "src_port": 4000, "dst_address": "192.0.2.10",
            "dst_port": 23, "deny_reason": "policy", "count": 3,
        });
        assert_eq!(
            sentence(&denied),
            "2026-11-22T05:00:43.120Z  denied  ana@example.com on ana-laptop  \
             100.96.0.2:4000 -> 192.0.2.10:23/tcp  rule \"default\"  policy x3"
        );
    }
}
