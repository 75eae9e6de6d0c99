//! The same for audit lines. Besides fields of their own they have words and states in which
//! names may stand anywhere: every name that the line knows is found there again, and so is
//! whatever looks like an e-mail address.

use super::{NOT_KEPT, Redactor, address_text};
use crate::audit::AuditLine;
use crate::config::{Privacy, Treatment};
use serde_json::Value;
use std::net::{IpAddr, SocketAddr};

/// Members of `before` and `after` that hold such a name.
const USERS: [&str; 5] = ["user", "users", "subject", "email", "identity"];
const DEVICES: [&str; 9] = [
    "device",
    "devices",
    "name",
    "machine",
    "device_key",
    "key",
    "public_key",
    "hostname",
    "serial",
];
const OUTER: [&str; 4] = ["from", "outer", "client_outer", "endpoint"];

#[derive(Clone, Copy)]
enum What {
    User,
    Device,
    Outer,
}

pub(super) fn apply(redactor: &Redactor, line: &mut AuditLine) {
    if redactor.config == Privacy::default() {
        return;
    }
    let object = match line.object_kind {
        "user" => Some(What::User),
        "device" => Some(What::Device),
        _ => None,
    };
    let mut names = Names {
        redactor,
        known: Vec::new(),
    };
    let own = [
        (Some(What::User), line.user.as_deref()),
        (Some(What::Device), line.device.as_deref()),
        (Some(What::Outer), line.from.as_deref()),
        (object, line.object.as_deref()),
    ];
    for (what, name) in own {
        if let (Some(what), Some(name)) = (what, name) {
            names.learn(what, name);
        }
    }
    for state in [&line.before, &line.after].into_iter().flatten() {
        names.learn_all(None, state);
    }
    names
        .known
        .sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));

    let field = |what, name: &mut Option<String>| {
        *name = name.take().and_then(|name| redactor.named(what, &name));
    };
    field(What::User, &mut line.user);
    field(What::Device, &mut line.device);
    field(What::Outer, &mut line.from);
    match object {
        Some(what) => field(what, &mut line.object),
        None => line.object = line.object.take().map(|name| names.in_words(&name)),
    }
    line.reason = line.reason.take().map(|words| names.in_words(&words));
    for state in [&mut line.before, &mut line.after].into_iter().flatten() {
        names.in_state(state);
    }
}

impl Redactor {
    fn how(&self, what: What) -> Treatment {
        match what {
            What::User => self.config.user,
            What::Device => self.config.device,
            What::Outer => self.config.outer_address,
        }
    }

    /// What is written in place of a name; none if nothing is.
    fn named(&self, what: What, name: &str) -> Option<String> {
        let how = self.how(what);
        let address = match (what, how) {
            (What::Outer, Treatment::Hash) => address(name).map(address_text),
            _ => None,
        };
        let name = address.as_deref().unwrap_or(name);
        self.treated(how, name).map(|treated| treated.into_owned())
    }
}

/// The names of a line, and what is written in their place.
struct Names<'r> {
    redactor: &'r Redactor,
    known: Vec<(String, String)>,
}

impl Names<'_> {
    fn learn(&mut self, what: What, name: &str) {
        if self.redactor.how(what) != Treatment::Keep && !name.is_empty() {
            let instead = self.redactor.named(what, name);
            let instead = instead.unwrap_or_else(|| NOT_KEPT.to_owned());
            self.known.push((name.to_owned(), instead));
        }
    }

    fn learn_all(&mut self, what: Option<What>, state: &Value) {
        match state {
            Value::String(name) => {
                if let Some(what) = what {
                    self.learn(what, name);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.learn_all(what, item)),
            Value::Object(members) => members.iter().for_each(|(member, value)| {
                let member = member.as_str();
                let what = if USERS.contains(&member) {
                    Some(What::User)
                } else if DEVICES.contains(&member) {
                    Some(What::Device)
                } else if OUTER.contains(&member) {
                    Some(What::Outer)
                } else {
                    None
                };
                self.learn_all(what, value);
            }),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn in_state(&self, state: &mut Value) {
        match state {
            Value::String(words) => *words = self.in_words(words),
            Value::Array(items) => items.iter_mut().for_each(|item| self.in_state(item)),
            Value::Object(members) => members.values_mut().for_each(|item| self.in_state(item)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    fn in_words(&self, words: &str) -> String {
        let mut text = words.to_owned();
        for (name, instead) in &self.known {
            text = replaced(&text, name, instead);
        }
        if self.redactor.config.user == Treatment::Keep {
            return text;
        }
        let parts = text.split_inclusive(|c: char| !in_an_address(c));
        let treated = parts.map(|part| {
            let name = part.trim_end_matches(|c: char| !in_an_address(c) || c == '.');
            match self.redactor.named(What::User, name) {
                _ if !name.contains('@') => part.to_owned(),
                instead => instead.unwrap_or_else(|| NOT_KEPT.to_owned()) + &part[name.len()..],
            }
        });
        treated.collect()
    }
}

fn in_an_address(c: char) -> bool {
    c.is_alphanumeric() || "@.!#$%&*+/=?^_{|}~-".contains(c)
}

fn address(text: &str) -> Option<IpAddr> {
    let with_port = text.parse().map(|at: SocketAddr| at.ip());
    with_port.or_else(|_| text.parse()).ok()
}

/// `name` replaced wherever it stands as a word.
fn replaced(text: &str, name: &str, instead: &str) -> String {
    let mut done = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(name) {
        let (before, after) = (&rest[..at], &rest[at + name.len()..]);
        let edge = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric());
        let whole = edge(before.chars().next_back()) && edge(after.chars().next());
        done.push_str(before);
        done.push_str(if whole { instead } else { name });
        rest = after;
    }
    done + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{Action, Actor, AuditEvent, Object, Outcome};
    use crate::config::Hints;
    use crate::scratch::Scratch;
    use postern_proto::now::Wall;
    use serde_json::json;

    fn line() -> AuditLine {
        let event = AuditEvent {
            action: Action::Login,
            outcome: Outcome::Refused,
            actor: Actor::Device {
                name: "ana-laptop".into(),
                user: Some("ana@example.com".into()),
                from: Some("198.51.100.7:4000".parse().expect("literal")),
            },
            object: Object {
                kind: "device",
                name: "ana-laptop".into(),
            },
            reason: Some("ana-laptop belongs to ana@example.com, not bob@example.com.".into()),
            before: Some(json!({ "user": "ana@example.com", "groups": ["platform"] })),
            after: Some(json!({
                "tried": { "email": "carl" }, "from": "198.51.100.7:4000",
                "words": "carl at 198.51.100.7:4000 and banana-laptops",
            })),
        };
        AuditLine::new(&"gw".into(), &"4".into(), 1, Wall(0), event)
    }

    fn written(how: Treatment) -> String {
        let folder = Scratch::new();
        let config = Privacy {
            user: how,
            device: how,
            outer_address: how,
            hints: Hints::Keep,
        };
        let redactor = Redactor::open(config, &folder.path("")).expect("opens");
        let mut line = line();
        redactor.apply_to_audit(&mut line);
        serde_json::to_string(&line).expect("encodes")
    }

    #[test]
    fn no_name_stays_anywhere_in_a_line() {
        let personal = ["ana@", "bob@", "carl", "\"ana-laptop", "198.51.100.7"];
        let kept = written(Treatment::Keep);
        for word in personal {
            assert!(kept.contains(word), "{word} in {kept}");
        }
        for how in [Treatment::Hash, Treatment::Drop] {
            let text = written(how);
            for word in personal {
                assert!(!text.contains(word), "{how:?}: {word} in {text}");
            }
            for stays in ["platform", "banana-laptops", "belongs to"] {
                assert!(text.contains(stays), "{how:?}: {stays} in {text}");
            }
        }
    }

    #[test]
    fn a_pseudonym_is_the_one_that_records_have() {
        let folder = Scratch::new();
        let config = Privacy {
            user: Treatment::Hash,
            device: Treatment::Hash,
            outer_address: Treatment::Hash,
            hints: Hints::Keep,
        };
        let redactor = Redactor::open(config, &folder.path("")).expect("opens");
        let mut line = line();
        redactor.apply_to_audit(&mut line);
        let key = super::super::PseudonymKey::read(&folder.path("")).expect("made");
        let of = |name| Some(key.pseudonym(name));
        assert_eq!(line.user, of("ana@example.com"));
        assert_eq!(
            (line.device, line.object),
            (of("ana-laptop"), of("ana-laptop"))
        );
        assert_eq!(line.from, of("198.51.100.7"));
        let reason = line.reason.expect("there");
        assert!(
            reason.contains(&key.pseudonym("bob@example.com")),
            "{reason}"
        );
    }
}
