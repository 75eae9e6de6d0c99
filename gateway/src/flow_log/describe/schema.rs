//! The JSON Schema of a line: one flat object for each kind of line.

use crate::audit::AuditLine;
use crate::flow_log::event::LogEvent;
use postern_engine::record::{Closed, Denied, Opened, Record};
use schemars::JsonSchema;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// What one kind of line has.
#[derive(Clone, Debug, Default)]
pub(super) struct Fields {
    pub(super) about: String,
    pub(super) properties: Map<String, Value>,
    pub(super) required: BTreeSet<String>,
}

/// What nobody has seen of a flow whose gateway crashed.
const UNSEEN: [&str; 9] = [
    "seq",
    "duration_ms",
    "bytes_out",
    "bytes_in",
    "packets_out",
    "packets_in",
    "tcp_state",
    "failed_condition",
    "app",
];

/// What only an allowed attempt has.
const GRANTED: [&str; 5] = [
    "egress_address",
    "egress_port",
    "grant",
    "grant_reason",
    "break_glass",
];

/// Every line of the log.
pub(super) fn lines() -> Value {
    let kinds = kinds().into_iter().map(|(name, fields)| {
        json!({
            "title": name,
            "description": fields.about,
            "type": "object",
            "properties": fields.properties,
            "required": fields.required,
        })
    });
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A line of Postern's flow log",
        "oneOf": kinds.collect::<Vec<_>>(),
    })
}

/// Every kind of line, by name: the state of a record, `crashed` for the closing record of a
/// crash, the name of an event.
pub(super) fn kinds() -> Vec<(String, Fields)> {
    let record = of::<Record>();
    let mut base = fields(&record, &record);
    base.properties.remove("resumed");
    let mut kinds = vec![
        (
            "open".to_owned(),
            joined(&base, &detail::<Opened>(), "state", "open"),
        ),
        (
            "closed".to_owned(),
            joined(&base, &detail::<Closed>(), "state", "closed"),
        ),
    ];
    let mut crashed = kinds[1].1.clone();
    for field in UNSEEN {
        crashed.properties.remove(field);
        crashed.required.remove(field);
    }
    for field in ["ssh_client", "ssh_server", "tls_sni"] {
        crashed.properties.remove(field);
    }
    crashed.about = "A flow was open when the gateway ended without a word.".to_owned();
    crashed
        .properties
        .insert("close_reason".into(), json!({ "const": "crashed" }));
    let by = "The run that wrote the record.";
    crashed.properties.insert(
        "closed_by".into(),
        json!({ "type": "string", "description": by }),
    );
    crashed.required.insert("closed_by".into());
    kinds.push(("crashed".to_owned(), crashed));
    let closed = &mut kinds[1].1;
    closed
        .properties
        .entry("close_reason")
        .and_modify(|reason| {
            if let Some(list) = reason.get_mut("oneOf").and_then(Value::as_array_mut) {
                list.retain(|one| one["const"] != "crashed");
            }
        });
    let mut denied = joined(&base, &detail::<Denied>(), "state", "denied");
    for field in GRANTED {
        denied.properties.remove(field);
    }
    kinds.push(("denied".to_owned(), denied));

    let audit = of::<AuditLine>();
    kinds.push(("audit".to_owned(), fields(&audit, &audit)));

    let log = of::<LogEvent>();
    let base = fields(&log, &log);
    for variant in log["oneOf"].as_array().into_iter().flatten() {
        let event = fields(variant, &log);
        let name = variant["properties"]["event"]["const"]
            .as_str()
            .unwrap_or_default();
        kinds.push((name.to_owned(), joined(&base, &event, "event", name)));
    }
    for (_, fields) in &mut kinds {
        chain(fields);
    }
    kinds
}

/// The kind of a line.
pub(super) fn kind_of(line: &Map<String, Value>) -> Option<(String, Fields)> {
    let word = |name: &str| line.get(name).and_then(Value::as_str);
    let name = match (word("event"), word("close_reason")) {
        _ if word("kind") == Some("audit") => "audit",
        (Some(event), _) => event,
        (None, Some("crashed")) => "crashed",
        (None, _) => word("state")?,
    };
    kinds().into_iter().find(|(kind, _)| kind == name)
}

/// A type's schema, as it is written, in one piece.
pub(super) fn of<T: JsonSchema>() -> Value {
    let settings = SchemaSettings::draft2020_12().for_serialize();
    let settings = settings.with(|settings| settings.inline_subschemas = true);
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<T>()
        .to_value();
    without_null(&mut schema);
    schema
}

/// A field that is not there is absent, never null.
fn without_null(schema: &mut Value) {
    if let Some(kinds) = schema.get("type").and_then(Value::as_array)
        && let [kind, null] = kinds.as_slice()
        && null == "null"
    {
        schema["type"] = kind.clone();
    }
    if let Some(choices) = schema.get_mut("anyOf").and_then(Value::as_array_mut) {
        choices.retain(|choice| choice["type"] != "null");
        if let [Value::Object(only)] = choices.as_slice() {
            let mut merged = only.clone();
            if let Value::Object(outer) = schema {
                outer.remove("anyOf");
                merged.append(outer);
            }
            *schema = Value::Object(merged);
        }
    }
    match schema {
        Value::Object(members) => members.values_mut().for_each(without_null),
        Value::Array(items) => items.iter_mut().for_each(without_null),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

pub(super) fn detail<T: JsonSchema>() -> Fields {
    let schema = of::<T>();
    fields(&schema, &schema)
}

fn fields(schema: &Value, of: &Value) -> Fields {
    Fields {
        about: text(&schema["description"])
            .or(text(&of["description"]))
            .unwrap_or_default(),
        properties: schema["properties"]
            .as_object()
            .cloned()
            .unwrap_or_default(),
        required: names(&schema["required"]),
    }
}

fn joined(base: &Fields, more: &Fields, name: &str, value: &str) -> Fields {
    let mut all = base.clone();
    all.about.clone_from(&more.about);
    all.properties.extend(more.properties.clone());
    all.required.extend(more.required.clone());
    all.required.insert(name.to_owned());
    let place = all.properties.entry(name).or_insert_with(|| json!({}));
    let about = place["description"].clone();
    *place = json!({ "const": value });
    if about.is_string() {
        place["description"] = about;
    }
    all
}

/// What every line ends with.
fn chain(fields: &mut Fields) {
    let ends = [
        (
            "n",
            json!({ "type": "integer", "minimum": 1, "description": "Counts every line of the log from 1, without gaps, for ever." }),
        ),
        (
            "prev",
            json!({ "type": "string", "pattern": "^[0-9a-f]{64}$", "description": "SHA-256 of the line before, without its end of line; zeros for the first." }),
        ),
        (
            "crc",
            json!({ "type": "string", "pattern": "^[0-9a-f]{8}$", "description": "CRC-32 (as in gzip) of the line up to `,\"crc\":`." }),
        ),
    ];
    for (name, schema) in ends {
        fields.properties.insert(name.to_owned(), schema);
        fields.required.insert(name.to_owned());
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn names(list: &Value) -> BTreeSet<String> {
    let names = list.as_array().into_iter().flatten();
    names.filter_map(text).collect()
}
