//! Small parts of a file: the fields of a map, the items of a list, a word.

use super::error::{Faults, Place};
use super::nearest::nearest;
use super::yaml::{Node, Value};

/// Names go into records, metrics and terminals.
const MAX_NAME: usize = 256;

/// The known fields that a map has, each once.
pub(super) struct Fields<'n> {
    at: Place,
    what: &'static str,
    entries: Vec<(&'n str, Place, &'n Node)>,
}

impl<'n> Fields<'n> {
    /// Reports what is no map, and fields that are unknown, known to later versions, or doubled.
    pub(super) fn read(
        node: &'n Node,
        what: &'static str,
        known: &[&'static str],
        faults: &mut Faults<'_>,
    ) -> Option<Fields<'n>> {
        let entries = entries(node, what, faults)?;
        let mut fields = Fields {
            at: node.at,
            what,
            entries: Vec::new(),
        };
        for (name, at, value) in entries {
            if known.contains(&name) {
                fields.entries.push((name, at, value));
            } else {
                unknown(name, at, what, known, faults);
            }
        }
        Some(fields)
    }

    pub(super) fn get(&self, name: &str) -> Option<&'n Node> {
        self.entries
            .iter()
            .find(|(known, _, _)| *known == name)
            .map(|(_, _, node)| *node)
    }

    /// Like `get`, and a fault where it is missing.
    pub(super) fn need(&self, name: &str, help: &str, faults: &mut Faults<'_>) -> Option<&'n Node> {
        let found = self.get(name);
        if found.is_none() {
            faults.add(self.at, format!("{} has no `{name}`", self.what), help);
        }
        found
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

fn unknown(name: &str, at: Place, what: &str, known: &[&str], faults: &mut Faults<'_>) {
    let fields = || {
        known
            .iter()
            .map(|k| format!("`{k}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    if super::who::KNOWN.contains(&name) && what == "a rule" {
        let message = format!("`{name}` says who, and stands in `from`");
        faults.add(at, message, format!("write `from: {{ {name}: … }}`"));
    } else if name == "<<" {
        let help = "write the fields out, so that every rule can be read by itself";
        faults.add(at, "merge keys are not part of the policy language", help);
    } else {
        let help = match nearest(name, known.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("the fields are {}", fields()),
        };
        faults.add(at, format!("{what} has an unknown field `{name}`"), help);
    }
}

/// Any keys, each once.
pub(super) fn entries<'n>(
    node: &'n Node,
    what: &str,
    faults: &mut Faults<'_>,
) -> Option<Vec<(&'n str, Place, &'n Node)>> {
    let Value::Map(map) = &node.value else {
        let message = format!("{what} must be a map, not {}", kind(node));
        faults.add(
            node.at,
            message,
            "write `name: value` pairs, indented below it",
        );
        return None;
    };
    let mut lines = hashbrown::HashMap::with_hasher(foldhash::fast::FixedState::default());
    let mut entries = Vec::with_capacity(map.len());
    for (key, value) in map {
        let Value::Text(name) = &key.value else {
            faults.plain(
                key.at,
                format!("the name of a field must be a word, not {}", kind(key)),
            );
            continue;
        };
        if let Some(first) = lines.insert(name.as_str(), key.at.line) {
            let message = format!("`{name}` stands here twice, first on line {first}");
            faults.add(key.at, message, "keep one of them");
            continue;
        }
        entries.push((name.as_str(), key.at, value));
    }
    Some(entries)
}

/// The items of a list that has at least one.
pub(super) fn list<'n>(
    node: &'n Node,
    what: &str,
    example: &str,
    faults: &mut Faults<'_>,
) -> Option<&'n [Node]> {
    match &node.value {
        Value::List(items) if !items.is_empty() => return Some(items),
        Value::List(_) | Value::Null => {
            let help = format!("empty never means everything; write {example}");
            faults.add(node.at, format!("`{what}` is empty"), help);
        }
        Value::Text(text) => {
            let message = format!("`{what}` must be a list");
            faults.add(node.at, message, format!("write `{what}: [{text}]`"));
        }
        Value::Map(_) => {
            let message = format!("`{what}` must be a list, not a map");
            faults.add(node.at, message, format!("write {example}"));
        }
    }
    None
}

/// A word: one line without control characters.
pub(super) fn word<'n>(node: &'n Node, what: &str, faults: &mut Faults<'_>) -> Option<&'n str> {
    let Value::Text(text) = &node.value else {
        faults.plain(
            node.at,
            format!("{what} must be a word, not {}", kind(node)),
        );
        return None;
    };
    is_word(text, node.at, what, faults).then_some(text)
}

/// Reports text that cannot stand in a record.
pub(super) fn is_word(text: &str, at: Place, what: &str, faults: &mut Faults<'_>) -> bool {
    let fault = if text.trim().is_empty() {
        "is empty"
    } else if text.trim() != text {
        "has white space around it"
    } else if text.chars().any(char::is_control) {
        "has a line break or another control character in it"
    } else if text.chars().count() > MAX_NAME {
        "is longer than 256 characters"
    } else {
        return true;
    };
    faults.plain(at, format!("{what} {fault}"));
    false
}

fn kind(node: &Node) -> &'static str {
    match node.value {
        Value::Null => "nothing",
        Value::Text(_) => "a word",
        Value::List(_) => "a list",
        Value::Map(_) => "a map",
    }
}
