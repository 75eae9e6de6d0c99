//! Documents the lines of the log from their types: the tables in docs/records.md, the schema in
//! docs/records.schema.json, and an example of every line in docs/records.example.jsonl.
//!
//! Each test compares a file with what the types say. With `POSTERN_UPDATE_DOCS=1` it writes it.

mod schema;
mod table;

use super::sample;
use postern_engine::record::SCHEMA;
use postern_spool::line::{Hash, seal};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// The example begins here: what was before it has been removed.
const FIRST_N: u64 = 70_013;

fn docs(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../docs")
        .join(name)
}

/// Compares `docs/NAME` with what it should be, or makes it so.
fn compare(name: &str, wanted: &str) {
    let path = docs(name);
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    if there == wanted {
        return;
    }
    assert!(
        std::env::var_os("POSTERN_UPDATE_DOCS").is_some(),
        "docs/{name} is not what the types say: run the tests of postern-gateway with \
         POSTERN_UPDATE_DOCS=1 and look at the difference"
    );
    std::fs::write(&path, wanted).expect("written");
}

/// The example, sealed as the gateway seals.
fn example() -> String {
    let mut all = Vec::new();
    let mut prev = Hash::of(b"the line before the example");
    for (n, body) in (FIRST_N..).zip(sample::log()) {
        prev = seal(body.as_bytes(), n, prev, &mut all);
    }
    String::from_utf8(all).expect("lines are UTF-8")
}

#[test]
fn the_page_is_what_the_types_say() {
    let page = std::fs::read_to_string(docs("records.md")).expect("there");
    compare("records.md", &table::fill(&page, &example()));
}

#[test]
fn the_schema_is_what_the_types_say() {
    let schema = serde_json::to_string_pretty(&schema::lines()).expect("encodes") + "\n";
    compare("records.schema.json", &schema);
}

/// Readers rely on names, types and meanings. More fields are no harm; anything else is a new
/// schema, and the number says so.
#[test]
fn no_field_goes_or_changes_its_type_within_a_schema() {
    let example = example();
    let published = std::fs::read_to_string(docs("records.example.jsonl")).unwrap_or_default();
    let (before, after) = (shapes(&published), shapes(&example));
    if before
        .keys()
        .all(|(schema, _)| *schema == u64::from(SCHEMA))
    {
        for (kind, fields) in &before {
            let now = after.get(kind).cloned().unwrap_or_default();
            let gone: Vec<_> = fields.difference(&now).collect();
            assert!(
                gone.is_empty(),
                "{kind:?} no longer has {gone:?}. Whoever reads schema {SCHEMA} relies on it: \
                 bump SCHEMA in gateway/engine/src/record.rs, and say in CHANGELOG.md what changed"
            );
        }
    }
    compare("records.example.jsonl", &example);
}

type Kind = (u64, String);

/// The fields of each kind of line, with their JSON types.
fn shapes(lines: &str) -> BTreeMap<Kind, BTreeSet<String>> {
    let mut shapes: BTreeMap<Kind, BTreeSet<String>> = BTreeMap::new();
    for line in lines.lines() {
        let fields: Map<String, Value> = serde_json::from_str(line).expect("JSON");
        let word = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
        let schema = fields["schema"].as_u64().expect("a number");
        let kind = [word("kind"), word("state"), word("event")].concat();
        let shape = shapes.entry((schema, kind)).or_default();
        members("", &Value::Object(fields.clone()), shape);
    }
    shapes
}

fn members(path: &str, value: &Value, into: &mut BTreeSet<String>) {
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
    };
    into.insert(format!("{path}: {kind}"));
    match value {
        Value::Array(items) => items
            .iter()
            .for_each(|item| members(&format!("{path}[]"), item, into)),
        Value::Object(fields) => {
            for (name, value) in fields {
                members(&format!("{path}.{name}"), value, into);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[test]
fn the_example_has_every_field_and_no_other() {
    let mut unknown = Vec::new();
    let mut unseen: BTreeSet<(String, String)> = BTreeSet::new();
    let lines: Vec<Map<String, Value>> = example()
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    for (name, fields) in schema::kinds() {
        unseen.extend(
            fields
                .properties
                .keys()
                .map(|field| (name.clone(), field.clone())),
        );
    }
    for line in &lines {
        let (name, fields) =
            schema::kind_of(line).unwrap_or_else(|| panic!("no kind for {line:?}"));
        for field in line.keys() {
            if !fields.properties.contains_key(field) {
                unknown.push(format!("{name}: {field}"));
            }
            unseen.remove(&(name.clone(), field.clone()));
        }
        for field in &fields.required {
            assert!(
                line.contains_key(field),
                "{name} must have {field}: {line:?}"
            );
        }
    }
    assert!(unknown.is_empty(), "not in the schema: {unknown:?}");
    assert!(
        unseen.is_empty(),
        "no line of the example has {unseen:?}: add one to sample.rs"
    );
}

#[test]
fn the_example_is_whole() {
    let path = docs("records.example.jsonl");
    let verified = postern_spool::verify::file(&path, None, &mut |_| {}).expect("whole");
    assert_eq!(verified.first_n, FIRST_N);
    assert_eq!(
        verified.lines,
        u64::try_from(example().lines().count()).expect("few")
    );
    assert_eq!((verified.unstated_losses, verified.unfinished), (0, 0));
    assert!(verified.stated_losses > 200);
}
