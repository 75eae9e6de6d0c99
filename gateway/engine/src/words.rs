//! A sentence that knows which of its words name a user or a device.
//!
//! Records say why in words, and words name people. Whoever must not keep the names takes them
//! out by their place, not by searching the text for them.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use std::borrow::Cow;
use std::fmt;

/// Text with the places of the names in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Words {
    text: String,
    names: Vec<Place>,
}

/// What a word is the name of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// A user.
    User,
    /// A device.
    Device,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    of: Name,
    start: usize,
    end: usize,
}

impl Words {
    /// Says `text`, which names nobody.
    pub fn say(&mut self, text: &str) -> &mut Words {
        self.text.push_str(text);
        self
    }

    /// Names a user or a device.
    pub fn name(&mut self, of: Name, name: &str) -> &mut Words {
        let start = self.text.len();
        self.text.push_str(name);
        self.names.push(Place {
            of,
            start,
            end: self.text.len(),
        });
        self
    }

    /// Says what `other` says.
    pub fn append(&mut self, other: &Words) -> &mut Words {
        let moved = self.text.len();
        self.text.push_str(&other.text);
        self.names.extend(other.names.iter().map(|place| Place {
            start: place.start + moved,
            end: place.end + moved,
            ..*place
        }));
        self
    }

    /// The whole sentence.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The same sentence with other names: `other` gets each and says what stands in its place.
    #[must_use]
    pub fn with_names<'a>(&'a self, mut other: impl FnMut(Name, &'a str) -> Cow<'a, str>) -> Words {
        let mut words = Words::default();
        let mut said = 0;
        for place in &self.names {
            words.say(&self.text[said..place.start]);
            words.name(
                place.of,
                &other(place.of, &self.text[place.start..place.end]),
            );
            said = place.end;
        }
        words.say(&self.text[said..]);
        words
    }
}

impl From<&str> for Words {
    fn from(text: &str) -> Words {
        Words::from(text.to_owned())
    }
}

impl From<String> for Words {
    /// Text that names nobody.
    fn from(text: String) -> Words {
        Words {
            text,
            names: Vec::new(),
        }
    }
}

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

impl JsonSchema for Words {
    fn schema_name() -> Cow<'static, str> {
        "Words".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sentence() -> Words {
        let mut words = Words::default();
        words
            .say("one of the users ")
            .name(Name::User, "bob")
            .say(" is required; ")
            .name(Name::Device, "ana")
            .say(" belongs to ")
            .name(Name::User, "ana");
        words
    }

    #[test]
    fn names_are_found_by_their_place() {
        let hidden = sentence().with_names(|of, name| match of {
            Name::User => "(user)".into(),
            Name::Device => name.into(),
        });
        assert_eq!(
            hidden.as_str(),
            "one of the users (user) is required; ana belongs to (user)"
        );
        assert_eq!(
            hidden
                .with_names(|_, _| "x".into())
                .as_str()
                .matches('x')
                .count(),
            3
        );
    }

    #[test]
    fn names_stay_names_in_a_longer_sentence() {
        let mut words = Words::from("ana rule: ");
        words
            .append(&sentence())
            .say("; ana said")
            .append(&sentence());
        assert_eq!(
            words.with_names(|_, _| "".into()).as_str(),
            "ana rule: one of the users  is required;  belongs to ; ana said\
             one of the users  is required;  belongs to "
        );
    }
}
