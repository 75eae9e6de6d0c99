//! Loki's push API. A request holds the streams of one batch, each in the order of the spool.
//!
//! Lines carry their own time, so a clock that was set back makes one older than the line before.
//! Loki takes such lines as long as they are within an hour of the newest in their stream (half of
//! its `max_chunk_age`); older ones it refuses for ever, and they are parked.

use super::batch::Lines;
use super::driver::{Failure, Sink, Taken};
use super::facts::Facts;
use super::http::Poster;
use crate::config::{LokiConfig, LokiFormat};
use hyper::header::{HeaderName, HeaderValue};
use prost::Message;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::io;

const TENANT: HeaderName = HeaderName::from_static("x-scope-orgid");

pub(super) struct Loki {
    poster: Poster,
    format: LokiFormat,
}

impl Loki {
    pub(super) fn new(config: &LokiConfig) -> io::Result<Loki> {
        let content_type = match config.format {
            LokiFormat::Protobuf => "application/x-protobuf",
            LokiFormat::Json => "application/json",
        };
        let tenant = config.tenant.as_deref().map(HeaderValue::from_str);
        let tenant = tenant.transpose().map_err(io::Error::other)?;
        let poster = Poster::new(
            &config.push,
            content_type,
            tenant.map(|tenant| (TENANT, tenant)),
        )?;
        Ok(Loki {
            poster,
            format: config.format,
        })
    }
}

impl Sink for Loki {
    fn send(&mut self, lines: Lines<'_>) -> Result<Taken, Failure> {
        let body = match self.format {
            LokiFormat::Protobuf => protobuf(lines),
            LokiFormat::Json => json(lines),
        };
        let body = body.map_err(|error| Failure::Refused { error })?;
        self.poster.post(body).map(|_| Taken::default())
    }
}

/// Labels of a stream: few, so that Loki keeps few streams.
type Labels = BTreeMap<&'static str, String>;

struct Entry<'a> {
    nanos: u64,
    line: &'a str,
    metadata: Vec<(&'static str, String)>,
}

fn streams(lines: Lines<'_>) -> Result<BTreeMap<Labels, Vec<Entry<'_>>>, String> {
    let mut streams = BTreeMap::<_, Vec<_>>::new();
    let mut before = 0;
    for (n, line) in lines.iter() {
        let facts = Facts::of(line);
        let mut labels = Labels::from([("job", "postern".to_owned())]);
        let some = [
            ("gateway", &facts.gateway),
            ("kind", &facts.kind),
            ("verdict", &facts.verdict),
        ];
        for (name, value) in some {
            if let Some(value) = value {
                labels.insert(name, value.clone().into_owned());
            }
        }
        // A line without a time does not exist; were there one, it would go beside the last.
        before = facts.millis().map_or(before, |ms| ms * 1_000_000);
        let mut metadata: Vec<_> = facts
            .metadata()
            .map(|(name, value)| (name, value.to_owned()))
            .collect();
        metadata.push(("n", n.to_string()));
        streams.entry(labels).or_default().push(Entry {
            nanos: before,
            line: std::str::from_utf8(line).map_err(|_| format!("line {n} is not UTF-8"))?,
            metadata,
        });
    }
    Ok(streams)
}

fn protobuf(lines: Lines<'_>) -> Result<Vec<u8>, String> {
    let streams = streams(lines)?
        .into_iter()
        .map(|(labels, entries)| wire::Stream {
            labels: selector(&labels),
            entries: entries
                .into_iter()
                .map(|entry| wire::Entry {
                    timestamp: Some(wire::Timestamp {
                        seconds: i64::try_from(entry.nanos / 1_000_000_000).unwrap_or(i64::MAX),
                        nanos: i32::try_from(entry.nanos % 1_000_000_000).unwrap_or(0),
                    }),
                    line: entry.line.to_owned(),
                    metadata: entry
                        .metadata
                        .into_iter()
                        .map(|(name, value)| wire::Pair {
                            name: name.to_owned(),
                            value,
                        })
                        .collect(),
                })
                .collect(),
        });
    let push = wire::Push {
        streams: streams.collect(),
    };
    snap::raw::Encoder::new()
        .compress_vec(&push.encode_to_vec())
        .map_err(|error| format!("cannot be compressed: {error}"))
}

fn json(lines: Lines<'_>) -> Result<Vec<u8>, String> {
    #[derive(Serialize)]
    struct Push<'a> {
        streams: Vec<Stream<'a>>,
    }
    #[derive(Serialize)]
    struct Stream<'a> {
        stream: Labels,
        values: Vec<(String, &'a str, BTreeMap<&'static str, String>)>,
    }
    let streams = streams(lines)?.into_iter().map(|(stream, entries)| Stream {
        stream,
        values: entries
            .into_iter()
            .map(|entry| {
                let metadata = entry.metadata.into_iter().collect();
                (entry.nanos.to_string(), entry.line, metadata)
            })
            .collect(),
    });
    let push = Push {
        streams: streams.collect(),
    };
    serde_json::to_vec(&push).map_err(|error| error.to_string())
}

/// `{job="postern", kind="flow"}`, with the quoting of Go.
fn selector(labels: &Labels) -> String {
    let mut text = String::from("{");
    for (name, value) in labels {
        let comma = if text.len() > 1 { ", " } else { "" };
        let _ = write!(text, "{comma}{name}=\"");
        for c in value.chars() {
            match c {
                '"' | '\\' => text.extend(['\\', c]),
                c if c.is_control() => {
                    let _ = write!(text, "\\u{:04x}", u32::from(c));
                }
                c => text.push(c),
            }
        }
        text.push('"');
    }
    text.push('}');
    text
}

/// The messages of `logproto.PushRequest`.
mod wire {
    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Push {
        #[prost(message, repeated, tag = "1")]
        pub(super) streams: Vec<Stream>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Stream {
        #[prost(string, tag = "1")]
        pub(super) labels: String,
        #[prost(message, repeated, tag = "2")]
        pub(super) entries: Vec<Entry>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Entry {
        #[prost(message, optional, tag = "1")]
        pub(super) timestamp: Option<Timestamp>,
        #[prost(string, tag = "2")]
        pub(super) line: String,
        #[prost(message, repeated, tag = "3")]
        pub(super) metadata: Vec<Pair>,
    }

    /// `google.protobuf.Timestamp`.
    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub(super) struct Timestamp {
        #[prost(int64, tag = "1")]
        pub(super) seconds: i64,
        #[prost(int32, tag = "2")]
        pub(super) nanos: i32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Pair {
        #[prost(string, tag = "1")]
        pub(super) name: String,
        #[prost(string, tag = "2")]
        pub(super) value: String,
    }
}

#[cfg(test)]
mod tests;
