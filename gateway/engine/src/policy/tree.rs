//! A policy file as a tree of texts, for whoever compares two files or writes one anew. What it
//! means is not looked at.

use super::error::Faults;
use super::yaml::{self, Node, Value};
use std::fmt;

/// A value of a policy file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tree {
    /// Nothing, or `null`.
    Null,
    /// A word, a number, `true`: as the file has it.
    Text(String),
    /// In the order of the file.
    List(Vec<Tree>),
    /// In the order of the file. A key that is no text is left out.
    Map(Vec<(String, Tree)>),
}

impl Tree {
    /// None if it is not YAML, or no policy for its size.
    #[must_use]
    pub fn read(source: &str) -> Option<Tree> {
        if source.len() > super::MAX_SOURCE {
            return None;
        }
        yaml::parse(source, &mut Faults::new(source)).map(Tree::of)
    }

    /// What a map has under `key`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Tree> {
        self.entries()
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value)
    }

    /// Of a map; nothing else has any.
    #[must_use]
    pub fn entries(&self) -> &[(String, Tree)] {
        match self {
            Tree::Map(entries) => entries,
            Tree::Null | Tree::Text(_) | Tree::List(_) => &[],
        }
    }

    /// Of a list; nothing else has any.
    #[must_use]
    pub fn items(&self) -> &[Tree] {
        match self {
            Tree::List(items) => items,
            Tree::Null | Tree::Text(_) | Tree::Map(_) => &[],
        }
    }

    /// The text, where it is one.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        match self {
            Tree::Text(text) => Some(text),
            Tree::Null | Tree::List(_) | Tree::Map(_) => None,
        }
    }

    fn of(node: Node) -> Tree {
        match node.value {
            Value::Null => Tree::Null,
            Value::Text(text) => Tree::Text(text),
            Value::List(items) => Tree::List(items.into_iter().map(Tree::of).collect()),
            Value::Map(entries) => Tree::Map(
                entries
                    .into_iter()
                    .filter_map(|(key, value)| match key.value {
                        Value::Text(key) => Some((key, Tree::of(value))),
                        Value::Null | Value::List(_) | Value::Map(_) => None,
                    })
                    .collect(),
            ),
        }
    }
}

/// One line of YAML, in which every text reads back as it is.
impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tree::Null => f.write_str("null"),
            Tree::Text(text) => scalar(text, f),
            Tree::List(items) => {
                f.write_str("[")?;
                for (place, item) in items.iter().enumerate() {
                    f.write_str(if place > 0 { ", " } else { "" })?;
                    item.fmt(f)?;
                }
                f.write_str("]")
            }
            Tree::Map(entries) if entries.is_empty() => f.write_str("{}"),
            Tree::Map(entries) => {
                f.write_str("{ ")?;
                for (place, (key, value)) in entries.iter().enumerate() {
                    f.write_str(if place > 0 { ", " } else { "" })?;
                    scalar(key, f)?;
                    f.write_str(": ")?;
                    value.fmt(f)?;
                }
                f.write_str(" }")
            }
        }
    }
}

/// Plain where nobody can take it for anything else.
fn scalar(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._/@=-".contains(&byte);
    let begins_well = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    if begins_well && text.bytes().all(plain) && !text.eq_ignore_ascii_case("null") {
        return f.write_str(text);
    }
    f.write_str("\"")?;
    for letter in text.chars() {
        match letter {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            _ if letter.is_control() || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{feff}') => {
                write!(f, "\\U{:08x}", u32::from(letter))?;
            }
            _ => write!(f, "{letter}")?,
        }
    }
    f.write_str("\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn texts_are_those_of_the_file() {
        let tree = Tree::read("{ a: 1.10, b: [yes, 0x1f, ~], c: { d: \"null\" }, 22/tcp: on }");
        let shown = tree.map(|tree| tree.to_string());
        assert_eq!(
            shown.as_deref(),
            Some("{ a: 1.10, b: [yes, 0x1f, null], c: { d: \"null\" }, 22/tcp: on }")
        );
        assert_eq!(Tree::read("a: [").map(|_| ()), None);
    }

    fn tree() -> impl Strategy<Value = Tree> {
        let text = || prop_oneof!["\\PC{0,12}", "[-a-z0-9:#\\[\\]{}\"'\\\\ ,.\n\t]{0,8}"];
        let leaf = prop_oneof![Just(Tree::Null), text().prop_map(Tree::Text)];
        leaf.prop_recursive(3, 20, 4, move |inner| {
            let entry = (text(), inner.clone());
            prop_oneof![
                prop::collection::vec(inner, 0..4).prop_map(Tree::List),
                prop::collection::vec(entry, 0..4).prop_map(Tree::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(tree in tree()) {
            let written = tree.to_string();
            prop_assert_eq!(Tree::read(&written), Some(tree), "{}", written);
        }
    }
}
