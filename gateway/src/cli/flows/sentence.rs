//! Records as lines of text.

use super::{Failure, output};
use serde_json::Value;
use std::io::{self, BufWriter, ErrorKind, StdoutLock, Write};

/// Standard output, line by line.
pub(super) struct Lines(BufWriter<StdoutLock<'static>>);

impl Lines {
    pub(super) fn new() -> Lines {
        Lines(BufWriter::with_capacity(1 << 16, io::stdout().lock()))
    }

    /// Writes a line. False if the reader has left, as `head` does, and wants no more.
    pub(super) fn put(&mut self, line: &[u8]) -> Result<bool, Failure> {
        stays(
            self.0
                .write_all(line)
                .and_then(|()| self.0.write_all(b"\n")),
        )
    }

    /// Shows what was written so far. False as for [`Lines::put`].
    pub(super) fn flush(&mut self) -> Result<bool, Failure> {
        stays(self.0.flush())
    }

    /// Shows what is left.
    pub(super) fn end(mut self) -> Result<(), Failure> {
        self.flush().map(|_| ())
    }
}

fn stays(written: io::Result<()>) -> Result<bool, Failure> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::failed(format!("standard output: {error}"))),
    }
}

/// Whether a line is about an attempt.
pub(super) fn is_flow(line: &[u8]) -> bool {
    postern_spool::query::Fields::read(line)
        .is_some_and(|fields| fields.kind.as_deref() == Some("flow"))
}

/// One line of the log as one line for people.
pub(super) fn sentence(line: &[u8]) -> String {
    match serde_json::from_slice::<Value>(line) {
        Ok(record) if record["kind"] == "flow" => attempt(&record),
        Ok(event) if event["kind"] == "audit" => change(&event),
        Ok(event) => other(&event),
        Err(_) => String::from_utf8_lossy(line).into_owned(),
    }
}

/// `192.0.2.10:22/tcp`; `*` for a scan of many addresses.
pub(super) fn destination(record: &Value) -> String {
    let protocol = record["protocol"].as_str().unwrap_or("-");
    format!("{}/{protocol}", end(record, "dst_address", "dst_port"))
}

fn attempt(record: &Value) -> String {
    let text = |field: &str| record[field].as_str().unwrap_or("-");
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
        "{}  {:6}  {}  {} -> {}  rule \"{}\"  {detail}",
        text("time"),
        text("state"),
        who,
        end(record, "src_address", "src_port"),
        destination(record),
        text("rule"),
    );
    line.trim_end().to_owned()
}

/// Who changed what, or tried to.
fn change(event: &Value) -> String {
    let text = |field: &str| event[field].as_str();
    let from = text("from").map_or_else(String::new, |from| format!(" at {from}"));
    let actor = match text("actor") {
        Some("admin") => match event["uid"].as_u64() {
            Some(uid) => format!("admin (uid {uid})"),
            None => "admin".to_owned(),
        },
        Some("guest") => format!("guest of {}{from}", text("invitation").unwrap_or("-")),
        Some("device") => {
            let device = text("device").unwrap_or("-");
            match text("user") {
                Some(user) => format!("{user} on {device}{from}"),
                None => format!("{device}{from}"),
            }
        }
        other => other.unwrap_or("-").to_owned(),
    };
    let mut line = format!(
        "{}  audit   {actor}  {}  {} {}  {}",
        text("time").unwrap_or("-"),
        text("action").unwrap_or("-"),
        text("object_kind").unwrap_or("-"),
        text("object").unwrap_or("-"),
        text("outcome").unwrap_or("-"),
    );
    if let Some(reason) = text("reason") {
        line.push_str(&format!(": {reason}"));
    }
    for state in ["before", "after"] {
        if event[state].is_object() {
            line.push_str(&format!("  {state}={}", event[state]));
        }
    }
    line
}

/// What is not about an attempt: what happened, and its own fields.
fn other(event: &Value) -> String {
    const COMMON: [&str; 9] = [
        "schema", "kind", "gateway", "boot", "time", "event", "n", "prev", "crc",
    ];
    let text = |field: &str| event[field].as_str().unwrap_or("-");
    let mut line = format!("{}  {:6}  {}", text("time"), text("kind"), text("event"));
    for (name, value) in event.as_object().into_iter().flatten() {
        if !COMMON.contains(&name.as_str()) {
            line.push_str(&format!("  {name}={value}"));
        }
    }
    line
}

fn end(record: &Value, address: &str, port: &str) -> String {
    let number = record[port].as_u64().unwrap_or(0);
    match record[address].as_str() {
        Some(address) if address.contains(':') => format!("[{address}]:{number}"),
        Some(address) => format!("{address}:{number}"),
        None => format!("*:{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_read_as_sentences() {
        let denied = json!({
            "kind": "flow",
            "time": "2026-11-22T05:00:43.120Z", "state": "denied", "rule": "default",
            "user": "ana@example.com", "device": "ana-laptop", "protocol": "tcp",
            "src_address": "100.96.0.2", "src_port": 4000, "dst_address": "192.0.2.10",
            "dst_port": 23, "deny_reason": "policy", "count": 3,
        });
        assert_eq!(
            sentence(denied.to_string().as_bytes()),
            "2026-11-22T05:00:43.120Z  denied  ana@example.com on ana-laptop  \
             100.96.0.2:4000 -> 192.0.2.10:23/tcp  rule \"default\"  policy x3"
        );
        let refused = json!({
            "kind": "audit", "time": "2026-11-22T05:00:43.120Z", "action": "login",
            "outcome": "refused", "actor": "device", "device": "ana-laptop",
            "user": "ana@example.com", "from": "198.51.100.7:4000", "object_kind": "device",
            "object": "ana-laptop", "reason": "it belongs to another user",
            "before": { "session": null },
        });
        assert_eq!(
            sentence(refused.to_string().as_bytes()),
            "2026-11-22T05:00:43.120Z  audit   ana@example.com on ana-laptop at 198.51.100.7:4000  \
             login  device ana-laptop  refused: it belongs to another user  \
             before={\"session\":null}"
        );
        let lost = json!({
            "schema": 2, "kind": "log", "gateway": "gw", "boot": "4",
            "time": "2026-11-22T05:00:43.120Z", "event": "lost", "worker": 1, "count": 7, "n": 9,
        });
        assert_eq!(
            sentence(lost.to_string().as_bytes()),
            "2026-11-22T05:00:43.120Z  log     lost  count=7  worker=1"
        );
    }
}
