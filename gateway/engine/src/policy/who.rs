//! Whom a rule is for: its `from`.

use super::address::{self, AddressSet};
use super::error::Faults;
use super::fields::{Fields, list, word};
use super::read::{ANYTHING, Draft, each};
use super::rule::{From, NameId};
use super::subject::{Kind, Names};
use super::yaml::{Node, Value};
use crate::duration;
use std::time::Duration;

/// Stands for everybody.
pub(super) const ANYONE: &str = "anyone";

/// The fields of `from`.
pub(super) const KNOWN: [&str; 11] = [
    "users",
    "groups",
    "devices",
    "labels",
    "machines",
    "issuers",
    "amr",
    "acr",
    "outer",
    "posture",
    "session_age",
];

/// Reads `{ groups: […], … }`, or `anyone`.
pub(super) fn read(
    node: &Node,
    field: &'static str,
    draft: &mut Draft,
    faults: &mut Faults<'_>,
) -> Option<From> {
    let help = || format!("write `{field}: {{ groups: [platform] }}`, or `{field}: anyone`");
    if let Value::Text(text) = &node.value {
        if text == ANYONE {
            return Some(From::default());
        }
        let everybody = ["any", "all", "everyone", "everybody", "*", ANYTHING];
        let help = if everybody.contains(&text.as_str()) {
            format!("write `{field}: anyone`")
        } else {
            format!("write `{field}: {{ groups: [{text}] }}`, or `{field}: anyone`")
        };
        faults.add(node.at, format!("`{text}` does not say who"), help);
        return None;
    }
    if matches!(node.value, Value::Null | Value::List(_)) {
        faults.add(node.at, format!("`{field}` does not say who"), help());
        return None;
    }
    let before = faults.len();
    let fields = Fields::read(
        node,
        if field == "from" {
            "`from`"
        } else {
            "`approvers`"
        },
        &KNOWN,
        faults,
    )?;
    if fields.is_empty() && faults.len() == before {
        faults.add(node.at, format!("`{field}` does not say who"), help());
    }
    if let (Some(_), Some(machines)) = (fields.get("users"), fields.get("machines")) {
        let message = "`machines` have no user, so that nobody is one of `users` as well";
        faults.add(machines.at, message, "make two rules of it");
    }
    let names = &mut draft.names;
    let mut named = |field: &'static str, kind| match fields.get(field) {
        Some(node) => read_names(node, field, kind, names, faults),
        None => Vec::new(),
    };
    let from = From {
        users: named("users", Kind::User),
        groups: named("groups", Kind::Group),
        devices: named("devices", Kind::Device),
        issuers: named("issuers", Kind::Issuer),
        amr: named("amr", Kind::Amr),
        acr: named("acr", Kind::Acr),
        ..From::default()
    };
    let list_of = |field, example, faults: &mut Faults<'_>| match fields.get(field) {
        Some(node) => list(node, field, example, faults).unwrap_or_default(),
        None => &[],
    };
    let example = "at least one check, or take the field out";
    let posture = list_of("posture", example, faults);
    Some(From {
        labels: fields.get("labels").map_or(Vec::new(), |node| {
            read_labels(node, &mut draft.names, faults)
        }),
        machines: fields.get("machines").map_or(Vec::new(), |node| {
            read_machines(node, &mut draft.names, faults)
        }),
        outer: AddressSet::new(
            fields
                .get("outer")
                .and_then(|node| each(node, "outer", "`[198.51.100.0/24]`", address::parse, faults))
                .unwrap_or_default(),
        ),
        posture: draft.checks.named(posture, faults),
        session_age: fields.get("session_age").and_then(|node| age(node, faults)),
        ..from
    })
}

/// How old a login may be.
pub(super) fn age(node: &Node, faults: &mut Faults<'_>) -> Option<Duration> {
    let text = word(node, "`session_age`", faults)?;
    let age = duration::parse(text).filter(|age| !age.is_zero());
    if age.is_none() {
        let message = format!("`{text}` is no age");
        faults.add(
            node.at,
            message,
            "write a number and its unit: `30m`, `12h` or `7d`",
        );
    }
    age
}

/// `key=value`, both of which say something.
pub(super) fn label<'n>(node: &'n Node, faults: &mut Faults<'_>) -> Option<&'n str> {
    let text = word(node, "a label", faults)?;
    let parts = text.split_once('=');
    if parts.is_some_and(|(key, value)| !key.trim().is_empty() && !value.trim().is_empty()) {
        return Some(text);
    }
    let key = text.trim_matches('=').trim();
    faults.add(
        node.at,
        format!("`{text}` is no label"),
        format!("write a key and a value: `{key}=…`"),
    );
    None
}

/// A list of names as numbers, sorted.
fn read_names(
    node: &Node,
    field: &'static str,
    kind: Kind,
    names: &mut Names,
    faults: &mut Faults<'_>,
) -> Vec<NameId> {
    let example = "at least one name, or take the field out";
    let items = list(node, field, example, faults).unwrap_or_default();
    let words = items
        .iter()
        .filter_map(|item| word(item, "a name", faults))
        .map(|name| names.intern(kind, name));
    sorted(words.collect())
}

fn read_labels(node: &Node, names: &mut Names, faults: &mut Faults<'_>) -> Vec<NameId> {
    let example = "at least one label, or take the field out";
    let items = list(node, "labels", example, faults).unwrap_or_default();
    let labels = items
        .iter()
        .filter_map(|item| label(item, faults))
        .map(|label| names.intern(Kind::Label, label));
    sorted(labels.collect())
}

/// `any`, or a list of devices.
fn read_machines(node: &Node, names: &mut Names, faults: &mut Faults<'_>) -> Vec<NameId> {
    match &node.value {
        Value::Text(text) if text == "any" => vec![names.any_machine()],
        Value::Text(text) => {
            let message = format!("`machines` cannot be `{text}`");
            let help = format!("write `machines: any`, or `machines: [{text}]`");
            faults.add(node.at, message, help);
            Vec::new()
        }
        Value::Null | Value::List(_) | Value::Map(_) => {
            read_names(node, "machines", Kind::Machine, names, faults)
        }
    }
}

fn sorted(mut names: Vec<NameId>) -> Vec<NameId> {
    names.sort_unstable();
    names.dedup();
    names
}
