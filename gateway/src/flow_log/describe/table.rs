//! The tables of the page, between `<!-- generated: NAME -->` and `<!-- end -->`.

use super::schema;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::fmt;

const BEGIN: &str = "<!-- generated: ";
const END: &str = "<!-- end -->";
/// Longer examples are cut.
const SHOWN: usize = 44;

/// The page with every generated part made anew.
pub(super) fn fill(page: &str, example: &str) -> String {
    let mut filled = String::new();
    let mut rest = page;
    let mut missing: BTreeSet<&str> = [
        "every", "open", "closed", "denied", "audit", "log", "events", "example",
    ]
    .into();
    while let Some(at) = rest.find(BEGIN) {
        let name_at = at + BEGIN.len();
        let name_len = rest[name_at..]
            .find(" -->")
            .expect("a generated part has a name");
        let name = &rest[name_at..name_at + name_len];
        let head_end = name_at + name_len + " -->".len();
        let end = rest.find(END).expect("a generated part has an end");
        filled.push_str(&rest[..head_end]);
        filled.push_str("\n\n");
        filled.push_str(part(name, example).trim_end());
        filled.push_str("\n\n");
        assert!(missing.remove(name), "{name} is unknown, or there twice");
        filled.push_str(END);
        rest = &rest[end + END.len()..];
    }
    filled.push_str(rest);
    assert!(
        missing.is_empty(),
        "docs/records.md has no place for {missing:?}"
    );
    filled
}

fn part(name: &str, example: &str) -> String {
    let kinds = schema::kinds();
    let fields = |kind: &str| {
        &kinds
            .iter()
            .find(|(name, _)| name == kind)
            .expect("known")
            .1
    };
    let lines: Vec<Line> = example
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let of = |kind: &str| -> Vec<&Line> {
        let is = |line: &&Line| schema::kind_of(&line.map()).expect("known").0 == kind;
        lines.iter().filter(is).collect()
    };
    let own = |detail: &schema::Fields| -> BTreeSet<String> {
        detail.properties.keys().cloned().collect()
    };
    let details: BTreeSet<String> = ["open", "closed", "denied"]
        .iter()
        .flat_map(|kind| state_fields(kind))
        .collect();
    match name {
        "every" => {
            let all = fields("closed");
            let fields: BTreeSet<String> = all
                .properties
                .keys()
                .filter(|name| !details.contains(*name))
                .cloned()
                .collect();
            let lines: Vec<&Line> = of("closed");
            table(all, &fields, &lines)
        }
        "open" | "closed" | "denied" => table(fields(name), &state_fields(name), &of(name)),
        "audit" => table(fields(name), &own(fields(name)), &of(name)),
        "log" => {
            let all = fields("repaired");
            let mut common = own(all);
            for name in ["segment", "cut_bytes"] {
                common.remove(name);
            }
            table(all, &common, &of("repaired"))
        }
        "events" => {
            let common = [
                "schema", "kind", "gateway", "boot", "time", "event", "n", "prev", "crc",
            ];
            let events = kinds
                .iter()
                .filter(|(_, fields)| fields.properties.contains_key("event"));
            events
                .map(|(name, fields)| {
                    let mut special = own(fields);
                    special.retain(|field| !common.contains(&field.as_str()));
                    let table = table(fields, &special, &of(name));
                    format!("### `{name}`\n\n{}\n\n{table}", fields.about)
                })
                .collect::<Vec<_>>()
                .join("\n")
        }
        "example" => {
            let denied = example
                .lines()
                .find(|line| line.contains(r#""nearest_rule""#));
            format!("```json\n{}\n```", denied.expect("a refusal"))
        }
        other => panic!("docs/records.md asks for `{other}`, which nobody generates"),
    }
}

fn state_fields(state: &str) -> BTreeSet<String> {
    use postern_engine::record::{Closed, Denied, Opened};
    let fields = match state {
        "open" => schema::detail::<Opened>(),
        "closed" => schema::detail::<Closed>(),
        _ => schema::detail::<Denied>(),
    };
    fields.properties.keys().cloned().collect()
}

/// A row for each of `names`, in the order in which lines have them.
fn table(fields: &schema::Fields, names: &BTreeSet<String>, lines: &[&Line]) -> String {
    let mut order: Vec<&str> = Vec::new();
    for line in lines {
        let mut place = 0;
        for (name, _) in &line.0 {
            match order.iter().position(|known| known == name) {
                Some(known) => place = known + 1,
                None => {
                    order.insert(place, name);
                    place += 1;
                }
            }
        }
    }
    let mut rows =
        "| field | type | present | meaning | example |\n|---|---|---|---|---|\n".to_owned();
    let mut shown = 0;
    for name in order.into_iter().filter(|name| names.contains(*name)) {
        shown += 1;
        let example = lines
            .iter()
            .find_map(|line| line.get(name))
            .expect("in some line");
        let required = fields.required.contains(name);
        row(&mut rows, name, &fields.properties[name], required, example);
    }
    assert_eq!(shown, names.len(), "every field has an example: {names:?}");
    rows
}

fn row(rows: &mut String, name: &str, schema: &Value, required: bool, example: &Value) {
    let present = match (required, schema["x-present"].as_str()) {
        (true, None) => "always",
        (false, Some(when)) => when,
        (true, Some(_)) => panic!("`{name}` is always there, and says that it is not"),
        (false, None) => panic!("`{name}` does not say when it is there: add x-present"),
    };
    let items = &schema["items"]["properties"];
    let cell = |text: &str| text.replace('|', "\\|").replace('\n', " ");
    let meaning = schema["description"].as_str().unwrap_or_default();
    let listed = schema["oneOf"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| {
            Some(format!(
                "<br>`{}`: {}",
                one["const"].as_str()?,
                cell(one["description"].as_str()?)
            ))
        });
    let meaning = cell(meaning) + &listed.collect::<String>();
    let example_text = if example.is_array() && items.is_object() {
        String::new()
    } else {
        format!("`{}`", cell(&short(&example.to_string())))
    };
    rows.push_str(&format!(
        "| `{name}` | {} | {present} | {meaning} | {example_text} |\n",
        kind(schema)
    ));
    let required = schema["items"]["required"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let first = example.get(0).and_then(Value::as_object);
    for (field, schema) in items.as_object().into_iter().flatten() {
        let example = first
            .and_then(|first| first.get(field))
            .expect("in the example");
        let required = required.iter().any(|name| name == field);
        row(
            rows,
            &format!("{name}[].{field}"),
            schema,
            required,
            example,
        );
    }
}

fn kind(schema: &Value) -> String {
    let format = schema["format"].as_str().unwrap_or_default();
    let word = match (&schema["type"], format) {
        (_, "date-time") => "time",
        (_, "ip") => "address",
        (Value::String(kind), _)
            if kind == "array" && schema["items"]["properties"].is_object() =>
        {
            "list"
        }
        (Value::String(kind), _) if kind == "array" => {
            return format!("list of {}s", kind_of_item(schema));
        }
        (Value::String(kind), _) if kind == "integer" => "number",
        (Value::String(kind), _) if kind == "object" => "object",
        (Value::String(kind), _) if kind == "boolean" => "`true`",
        (Value::Array(kinds), _) if kinds.iter().any(|kind| kind == "integer") => "number",
        _ if schema["oneOf"].is_array()
            || schema["enum"].is_array()
            || schema["const"].is_string() =>
        {
            "word"
        }
        _ => "text",
    };
    word.to_owned()
}

fn kind_of_item(schema: &Value) -> String {
    kind(&schema["items"])
}

fn short(text: &str) -> String {
    if text.len() <= SHOWN {
        return text.to_owned();
    }
    text.chars().take(SHOWN).collect::<String>() + "…"
}

/// A line whose members are in order.
struct Line(Vec<(String, Value)>);

impl Line {
    fn get(&self, name: &str) -> Option<&Value> {
        self.0
            .iter()
            .find(|(known, _)| known == name)
            .map(|(_, value)| value)
    }

    fn map(&self) -> Map<String, Value> {
        self.0.iter().cloned().collect()
    }
}

impl<'de> Deserialize<'de> for Line {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Line, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Line;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Line, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Line(members))
            }
        }
        from.deserialize_map(Members)
    }
}
