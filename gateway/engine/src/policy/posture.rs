//! The `posture:` of a policy file: named checks.

use super::error::Faults;
use super::fields::{Fields, entries, is_word, word};
use super::nearest::nearest;
use super::yaml::{Node, Value};
use crate::posture::{Comparison, Expected};
use crate::standing::Standing;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use postern_proto::now::Wall;

/// The checks of one policy. Every device carries a result for each: 8 bytes.
pub(super) const MAX_CHECKS: usize = 64;
/// The kernel keeps no more of a process's name (proc(5), `comm`).
const MAX_PROCESS: usize = 15;

const EXAMPLE: &str = "write what the device must show, such as `disk_encryption: on`";

/// Position in the policy's list of checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct CheckId(pub(super) u32);

/// A named check.
#[derive(Clone, Debug)]
pub(super) struct NamedCheck {
    pub(super) name: String,
    pub(super) expected: Expected,
}

/// The checks of a file.
#[derive(Debug, Default)]
pub(super) struct Checks {
    pub(super) list: Vec<NamedCheck>,
    /// None where the check has a fault: its rules are not faults as well.
    by_name: HashMap<String, Option<CheckId>, FixedState>,
}

impl Checks {
    /// Reads the map `posture:`.
    pub(super) fn read(node: &Node, faults: &mut Faults<'_>) -> Checks {
        let mut checks = Checks::default();
        let entries = entries(node, "`posture`", faults).unwrap_or_default();
        if let Some((_, at, _)) = entries.get(MAX_CHECKS) {
            let message = format!("there are more than {MAX_CHECKS} checks");
            faults.add(*at, message, "take out those that no rule asks for");
        }
        for (name, at, node) in entries.into_iter().take(MAX_CHECKS) {
            if !is_word(name, at, "the name of a check", faults) {
                continue;
            }
            let id = read(node, faults).map(|expected| {
                let id = CheckId(u32::try_from(checks.list.len()).unwrap_or(u32::MAX));
                let name = name.to_owned();
                checks.list.push(NamedCheck { name, expected });
                id
            });
            checks.by_name.insert(name.to_owned(), id);
        }
        checks
    }

    /// The checks that a list names, sorted; a fault for each that there is not.
    pub(super) fn named(&self, items: &[Node], faults: &mut Faults<'_>) -> Vec<CheckId> {
        let mut ids: Vec<CheckId> = items
            .iter()
            .filter_map(|item| self.one(item, faults))
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    fn one(&self, node: &Node, faults: &mut Faults<'_>) -> Option<CheckId> {
        let name = word(node, "the name of a check", faults)?;
        if let Some(known) = self.by_name.get(name) {
            return *known;
        }
        let known = self.by_name.keys().map(String::as_str);
        let help = match nearest(name, known) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => {
                format!("name it at the top, `posture: {{ {name}: {{ disk_encryption: on }} }}`")
            }
        };
        faults.add(node.at, format!("there is no check `{name}`"), help);
        None
    }

    /// For every check from when on it fails.
    pub(super) fn held_until(&self, standing: &Standing) -> Vec<Wall> {
        let until = |check: &NamedCheck| check.expected.holds_until(standing);
        self.list.iter().map(until).collect()
    }

    pub(super) fn get(&self, id: CheckId) -> Option<&NamedCheck> {
        usize::try_from(id.0).ok().and_then(|n| self.list.get(n))
    }
}

/// When the login was, and when it ends.
pub(super) fn session(standing: &Standing) -> Option<(Wall, Wall)> {
    let session = standing.session.as_ref()?;
    Some((session.since, session.until.unwrap_or(Wall::NEVER)))
}

/// The kinds of check, each with the fields that belong to it, the one that it needs first.
const KINDS: [&[&str]; 8] = [
    &["os", "os_version"],
    &["kernel"],
    &["client_version"],
    &["disk_encryption"],
    &["firewall"],
    &["process"],
    &["file", "sha256"],
    &["attribute"],
];

/// One check; none if it has a fault.
fn read(node: &Node, faults: &mut Faults<'_>) -> Option<Expected> {
    let before = faults.len();
    let fields = Fields::read(node, "a check", &KINDS.concat(), faults)?;
    let has = |kind: &&&[&str]| kind.iter().any(|field| fields.get(field).is_some());
    let kinds: Vec<&[&str]> = KINDS.iter().filter(has).copied().collect();
    let [kind] = kinds[..] else {
        match kinds[..] {
            [first, second, ..] => {
                let message = format!(
                    "a check looks at one thing, not at `{}` and `{}`",
                    first[0], second[0]
                );
                let help = "make two checks of it; a rule may ask for both";
                faults.add(node.at, message, help);
            }
            // An unknown field has been said already.
            [] | [_] if faults.len() > before => {}
            [] | [_] => faults.add(node.at, "a check without anything to look at", EXAMPLE),
        }
        return None;
    };
    let [needed, ..] = kind else { return None };
    let Some(value) = fields.get(needed) else {
        match *needed {
            "os" => fields.need(
                "os",
                "a version of which system? write `os: debian` as well",
                faults,
            ),
            _ => fields.need(
                needed,
                "the hash of which file? write `file: /etc/…` as well",
                faults,
            ),
        };
        return None;
    };
    let expected = match *needed {
        "os" => {
            let id = word(value, "`os`", faults);
            let version = match fields.get("os_version") {
                Some(node) => Some(comparison(node, "os_version", faults)?),
                None => None,
            };
            Expected::System {
                id: id?.to_owned(),
                version,
            }
        }
        "kernel" => Expected::Kernel(comparison(value, "kernel", faults)?),
        "client_version" => Expected::ClientVersion(comparison(value, "client_version", faults)?),
        "disk_encryption" => {
            on(value, "disk_encryption", faults).then_some(Expected::DiskEncryption)?
        }
        "firewall" => on(value, "firewall", faults).then_some(Expected::Firewall)?,
        "process" => Expected::Process(process(value, faults)?),
        "file" => {
            let path = path(value, faults);
            let sha256 = match fields.get("sha256") {
                Some(node) => Some(sha256(node, faults)?),
                None => None,
            };
            Expected::File {
                path: path?,
                sha256,
            }
        }
        _ => attribute(value, faults)?,
    };
    (faults.len() == before).then_some(expected)
}

fn comparison(node: &Node, field: &str, faults: &mut Faults<'_>) -> Option<Comparison> {
    let text = word(node, &format!("`{field}`"), faults)?;
    match Comparison::parse(text) {
        Ok(comparison) => Some(comparison),
        Err(help) => {
            faults.add(node.at, format!("`{text}` compares no version"), help);
            None
        }
    }
}

/// A check says what must be so: there is nothing but `on`.
fn on(node: &Node, field: &str, faults: &mut Faults<'_>) -> bool {
    let is_on = matches!(&node.value, Value::Text(text) if text == "on");
    if !is_on {
        let message = format!("`{field}` must be `on`");
        faults.add(node.at, message, format!("write `{field}: on`"));
    }
    is_on
}

fn process(node: &Node, faults: &mut Faults<'_>) -> Option<String> {
    let name = word(node, "`process`", faults)?;
    if let Some((_, program)) = name.rsplit_once('/') {
        let message = format!("`{name}` is a path, not the name of a process");
        faults.add(node.at, message, format!("write `process: {program}`"));
        return None;
    }
    if name.len() > MAX_PROCESS {
        let cut = name.char_indices().map(|(at, c)| at + c.len_utf8());
        let cut = cut
            .take_while(|end| *end <= MAX_PROCESS)
            .last()
            .unwrap_or(0);
        let message = format!("the kernel keeps {MAX_PROCESS} bytes of a process's name");
        faults.add(
            node.at,
            message,
            format!("write `process: {}`", &name[..cut]),
        );
        return None;
    }
    Some(name.to_owned())
}

fn path(node: &Node, faults: &mut Faults<'_>) -> Option<String> {
    let path = word(node, "`file`", faults)?;
    if path.starts_with('/') {
        return Some(path.to_owned());
    }
    let message = format!("`{path}` is not an absolute path");
    let help = if path.starts_with('~') {
        "write the path from `/` on; a check is the same for every user"
    } else {
        "write the path from `/` on, such as `/etc/corp.pem`"
    };
    faults.add(node.at, message, help);
    None
}

fn sha256(node: &Node, faults: &mut Faults<'_>) -> Option<String> {
    let text = word(node, "`sha256`", faults)?;
    if text.len() == 64 && text.chars().all(|c| c.is_ascii_hexdigit()) {
        return Some(text.to_ascii_lowercase());
    }
    let message = format!(
        "a SHA-256 has 64 hex digits; this has {} characters",
        text.chars().count()
    );
    faults.add(node.at, message, "write what `sha256sum FILE` prints first");
    None
}

fn attribute(node: &Node, faults: &mut Faults<'_>) -> Option<Expected> {
    const HELP: &str = "write `attribute: { name: managed, value: \"yes\" }`";
    if let Value::Text(_) | Value::Null | Value::List(_) = node.value {
        faults.add(node.at, "`attribute` must be a map", HELP);
        return None;
    }
    let fields = Fields::read(node, "`attribute`", &["name", "value"], faults)?;
    let name = fields.need("name", HELP, faults);
    let value = fields.need("value", HELP, faults);
    let name = name.and_then(|node| word(node, "the name of an attribute", faults));
    let value = value.and_then(|node| word(node, "the value of an attribute", faults));
    Some(Expected::Attribute {
        name: name?.to_owned(),
        value: value?.to_owned(),
    })
}
