//! OpenTelemetry logs over HTTP, in Protocol Buffers (OTLP 1.x, `/v1/logs`).

use super::batch::Lines;
use super::driver::{Failure, Sink, Taken};
use super::facts::Facts;
use super::http::Poster;
use super::secret;
use crate::config::OtlpConfig;
use postern_io::clock::Clock;
use prost::Message;
use std::collections::BTreeMap;
use std::io;

const SERVICE: &str = "postern-gateway";

pub(super) struct Otlp {
    poster: Poster,
}

impl Otlp {
    pub(super) fn new(config: &OtlpConfig) -> io::Result<Otlp> {
        let more = match &config.headers_file {
            Some(path) => secret::headers(path)?,
            None => Vec::new(),
        };
        let poster = Poster::new(&config.push, "application/x-protobuf", more)?;
        Ok(Otlp { poster })
    }
}

impl Sink for Otlp {
    fn send(&mut self, lines: Lines<'_>) -> Result<Taken, Failure> {
        let request = request(lines, Clock::now().wall.0);
        let answer = self.poster.post(request.encode_to_vec())?;
        // A server that says nothing, or something else, has taken all.
        let answer = wire::Response::decode(answer).unwrap_or_default();
        let Some(partial) = answer.partial_success else {
            return Ok(Taken::default());
        };
        let refused = u64::try_from(partial.rejected).unwrap_or(0);
        if refused > 0 {
            let message = partial.message.escape_debug();
            tracing::debug!(refused, %message, "a collector took a part only");
        }
        Ok(Taken { refused })
    }
}

/// One resource for each gateway: a spool whose gateway was renamed holds lines of two.
fn request(lines: Lines<'_>, now_nanos: u64) -> wire::Request {
    let mut resources = BTreeMap::<String, Vec<wire::Record>>::new();
    for (n, line) in lines.iter() {
        let facts = Facts::of(line);
        let gateway = facts.gateway.as_deref().unwrap_or_default().to_owned();
        let record = record(n, line, &facts, now_nanos);
        resources.entry(gateway).or_default().push(record);
    }
    let resources = resources.into_iter().map(|(gateway, records)| {
        let attributes = vec![
            wire::text("service.name", SERVICE),
            wire::text("service.version", env!("CARGO_PKG_VERSION")),
            wire::text("service.instance.id", &gateway),
        ];
        wire::ResourceLogs {
            resource: Some(wire::Resource { attributes }),
            scopes: vec![wire::ScopeLogs {
                scope: Some(wire::Scope {
                    name: "postern.flow_log".into(),
                    version: env!("CARGO_PKG_VERSION").into(),
                }),
                records,
            }],
        }
    });
    wire::Request {
        resources: resources.collect(),
    }
}

fn record(n: u64, line: &[u8], facts: &Facts<'_>, now_nanos: u64) -> wire::Record {
    let (number, text) = severity(facts);
    let kind = facts.kind.as_deref();
    let labels = [("kind", kind), ("verdict", facts.verdict.as_deref())];
    let event = ("event", facts.event());
    let mut attributes: Vec<_> = labels
        .into_iter()
        .chain([event])
        .filter_map(|(name, value)| value.map(|value| (name, value)))
        .chain(facts.metadata())
        .map(|(name, value)| wire::text(name, value))
        .collect();
    attributes.push(wire::number("n", i64::try_from(n).unwrap_or(i64::MAX)));
    wire::Record {
        time: facts.millis().map_or(0, |ms| ms * 1_000_000),
        observed: now_nanos,
        severity: number,
        severity_text: text.to_owned(),
        body: Some(wire::AnyValue {
            value: Some(wire::Value::Text(
                String::from_utf8_lossy(line).into_owned(),
            )),
        }),
        attributes,
        event_name: kind.map_or_else(String::new, |kind| format!("postern.{kind}")),
    }
}

/// A denial is worth a look, and so is what the log has to say about itself; what it has lost is
/// an error.
fn severity(facts: &Facts<'_>) -> (i32, &'static str) {
    const INFO: (i32, &str) = (9, "INFO");
    const WARN: (i32, &str) = (13, "WARN");
    const ERROR: (i32, &str) = (17, "ERROR");
    match (facts.event(), facts.verdict.as_deref()) {
        (Some("lost" | "audit-lost" | "unwritable" | "crashed-run"), _) => ERROR,
        (Some("repaired" | "damaged" | "removed" | "clock-stepped"), _) => WARN,
        (None, Some("deny")) => WARN,
        _ if matches!(facts.outcome.as_deref(), Some("refused" | "failed")) => WARN,
        _ => INFO,
    }
}

/// The messages of `opentelemetry.proto.collector.logs.v1` and what they need.
mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Request {
        #[prost(message, repeated, tag = "1")]
        pub(super) resources: Vec<ResourceLogs>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ResourceLogs {
        #[prost(message, optional, tag = "1")]
        pub(super) resource: Option<Resource>,
        #[prost(message, repeated, tag = "2")]
        pub(super) scopes: Vec<ScopeLogs>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Resource {
        #[prost(message, repeated, tag = "1")]
        pub(super) attributes: Vec<KeyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ScopeLogs {
        #[prost(message, optional, tag = "1")]
        pub(super) scope: Option<Scope>,
        #[prost(message, repeated, tag = "2")]
        pub(super) records: Vec<Record>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Scope {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) version: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Record {
        #[prost(fixed64, tag = "1")]
        pub(super) time: u64,
        #[prost(int32, tag = "2")]
        pub(super) severity: i32,
        #[prost(string, tag = "3")]
        pub(super) severity_text: String,
        #[prost(message, optional, tag = "5")]
        pub(super) body: Option<AnyValue>,
        #[prost(message, repeated, tag = "6")]
        pub(super) attributes: Vec<KeyValue>,
        #[prost(fixed64, tag = "11")]
        pub(super) observed: u64,
        #[prost(string, tag = "12")]
        pub(super) event_name: String,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct KeyValue {
        #[prost(string, tag = "1")]
        pub(super) key: String,
        #[prost(message, optional, tag = "2")]
        pub(super) value: Option<AnyValue>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct AnyValue {
        #[prost(oneof = "Value", tags = "1, 3")]
        pub(super) value: Option<Value>,
    }

    #[derive(Clone, PartialEq, prost::Oneof)]
    pub(super) enum Value {
        #[prost(string, tag = "1")]
        Text(String),
        #[prost(int64, tag = "3")]
        Number(i64),
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Response {
        #[prost(message, optional, tag = "1")]
        pub(super) partial_success: Option<PartialSuccess>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct PartialSuccess {
        #[prost(int64, tag = "1")]
        pub(super) rejected: i64,
        #[prost(string, tag = "2")]
        pub(super) message: String,
    }

    pub(super) fn text(key: &str, value: &str) -> KeyValue {
        pair(key, Value::Text(value.to_owned()))
    }

    pub(super) fn number(key: &str, value: i64) -> KeyValue {
        pair(key, Value::Number(value))
    }

    fn pair(key: &str, value: Value) -> KeyValue {
        KeyValue {
            key: key.to_owned(),
            value: Some(AnyValue { value: Some(value) }),
        }
    }
}

#[cfg(test)]
mod tests;
