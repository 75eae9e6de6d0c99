//! What another policy says otherwise: by rule, target, check and grant, each by its name, and in
//! the words of the two files.

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use postern_engine::policy::Tree;
use serde::Serialize;

/// The sections of a policy that hold named things, in the order in which they are told.
const SECTIONS: [(&str, &str); 4] = [
    ("rules", "rule"),
    ("targets", "target"),
    ("posture", "check"),
    ("grants", "grant"),
];

/// One named thing that is not the same in both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// `rule`, `target`, `check` or `grant`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What happened to it.
    pub change: Change,
    /// What it says otherwise, where it was changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<Field>,
}

/// What happened to a rule, target, check or grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// Only the new one has it.
    Added,
    /// Only the old one has it.
    Removed,
    /// Both have it, and it says something else.
    Changed,
    /// A rule that stands elsewhere among the others, and perhaps says something else as well.
    Moved,
}

/// One field of it, such as `from.groups`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Field {
    /// Its place.
    pub field: String,
    /// What it was; none if it was not there.
    pub was: Option<String>,
    /// What it is; none if it is no longer there.
    pub is: Option<String>,
}

/// Everything that `new` says otherwise than `old`, both the texts of policies. Comments, tests and
/// how a file is laid out are no differences. Empty where one of them is not YAML.
#[must_use]
pub fn diff(old: &str, new: &str) -> Vec<Difference> {
    let (Some(old), Some(new)) = (Tree::read(old), Tree::read(new)) else {
        return Vec::new();
    };
    let mut all = Vec::new();
    for (section, kind) in SECTIONS {
        let (old, new) = (named(old.get(section)), named(new.get(section)));
        compare(kind, &old, &new, &mut all);
    }
    all
}

/// The things of a section by name: a map of them, or a list of maps with `name`.
fn named(section: Option<&Tree>) -> Vec<(&str, &Tree)> {
    let Some(section) = section else {
        return Vec::new();
    };
    let entries = section.entries().iter();
    let items = section.items().iter();
    let entries = entries.map(|(name, value)| (name.as_str(), value));
    let items = items.filter_map(|item| Some((item.get("name")?.text()?, item)));
    entries.chain(items).collect()
}

fn compare(
    kind: &'static str,
    old: &[(&str, &Tree)],
    new: &[(&str, &Tree)],
    all: &mut Vec<Difference>,
) {
    let place = |of: &[(&str, &Tree)]| -> HashMap<String, usize, FixedState> {
        let names = of.iter().map(|(name, _)| (*name).to_owned());
        names.zip(0..).collect()
    };
    let (old_place, new_place) = (place(old), place(new));
    let mut add = |name: &str, change, fields| {
        all.push(Difference {
            kind,
            name: name.to_owned(),
            change,
            fields,
        });
    };
    for (name, _) in old {
        if !new_place.contains_key(*name) {
            add(name, Change::Removed, Vec::new());
        }
    }
    // Only among rules does it matter which comes first.
    let stay = match kind {
        "rule" => {
            let places = new.iter().filter_map(|(name, _)| old_place.get(*name));
            rising(&places.copied().collect::<Vec<_>>())
        }
        _ => (0..old.len()).collect(),
    };
    for (name, is) in new {
        let Some((at, was)) = old_place
            .get(*name)
            .and_then(|at| Some((*at, old.get(*at)?.1)))
        else {
            add(name, Change::Added, Vec::new());
            continue;
        };
        let fields = fields("", was, is);
        if stay.binary_search(&at).is_err() {
            add(name, Change::Moved, fields);
        } else if !fields.is_empty() {
            add(name, Change::Changed, fields);
        }
    }
}

/// The fields in which two maps differ; those of a map within it each by itself.
fn fields(within: &str, was: &Tree, is: &Tree) -> Vec<Field> {
    let names = was.entries().iter().chain(is.entries());
    let mut names: Vec<&str> = names.map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    let mut all = Vec::new();
    for name in names {
        let (was, is) = (was.get(name), is.get(name));
        if was == is {
            continue;
        }
        let field = format!("{within}{name}");
        match (was, is) {
            (Some(was @ Tree::Map(_)), Some(is @ Tree::Map(_))) => {
                all.extend(fields(&format!("{field}."), was, is));
            }
            _ => all.push(Field {
                field,
                was: was.map(Tree::to_string),
                is: is.map(Tree::to_string),
            }),
        }
    }
    all
}

/// The most of `places` that rise as they stand: whatever else there is has moved.
fn rising(places: &[usize]) -> Vec<usize> {
    // For every length the position of the least end of such a row, and what comes before each.
    let mut ends: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = Vec::with_capacity(places.len());
    for (at, place) in places.iter().enumerate() {
        let len = ends.partition_point(|end| places[*end] < *place);
        before.push(len.checked_sub(1).map(|len| ends[len]));
        match ends.get_mut(len) {
            Some(end) => *end = at,
            None => ends.push(at),
        }
    }
    let last = ends.last().copied();
    let row = std::iter::successors(last, |at| before[*at]);
    let mut row: Vec<usize> = row.map(|at| places[at]).collect();
    row.reverse();
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(old: &str, new: &str) -> Vec<String> {
        let differences = diff(old, new).into_iter();
        let told = differences.map(|one| {
            let fields = one.fields.iter().map(|field| {
                let or_nothing = |text: &Option<String>| text.clone().unwrap_or("nothing".into());
                let (was, is) = (or_nothing(&field.was), or_nothing(&field.is));
                format!("; {}: {was} -> {is}", field.field)
            });
            let fields: String = fields.collect();
            format!("{} {} {:?}{fields}", one.kind, one.name, one.change)
        });
        told.collect()
    }

    const OLD: &str = "
version: 1
targets:
  api: { addresses: [192.0.2.10], ports: [443/tcp] }
  gone: { addresses: [192.0.2.11], ports: [443/tcp] }
rules:
  - { name: a, action: allow, from: { groups: [web] }, to: [api] }
  - { name: b, action: allow, from: { groups: [sre], posture: [disk] }, to: [api] }
  - { name: c, action: deny, from: anyone, to: anything }
";

    #[test]
    fn each_change_is_told_by_its_name() {
        let new = "
# Another layout, and a comment.
version: 1
targets: { api: { addresses: [192.0.2.10, 192.0.2.12], ports: [443/tcp] } }
rules:
  - name: c
    action: deny
    from: anyone
    to: anything
  - { name: a, action: allow, from: { groups: [web] }, to: [api] }
  - { name: b, action: allow, from: { groups: [sre, ops] }, to: [api] }
  - { name: d, action: allow, from: anyone, to: [api] }
";
        assert_eq!(
            told(OLD, new),
            [
                "rule c Moved",
                "rule b Changed; from.groups: [sre] -> [sre, ops]; from.posture: [disk] -> nothing",
                "rule d Added",
                "target gone Removed",
                "target api Changed; addresses: [192.0.2.10] -> [192.0.2.10, 192.0.2.12]",
            ]
        );
        assert_eq!(told(OLD, OLD), [""; 0]);
        assert_eq!(told("", OLD).len(), 5);
        assert_eq!(told(OLD, "a: [").len(), 0);
    }

    #[test]
    fn the_fewest_have_moved() {
        assert!(rising(&[]).is_empty());
        assert_eq!(rising(&[2, 0, 1, 3]), [0, 1, 3]);
        assert_eq!(rising(&[3, 2, 1, 0]), [0]);
    }
}
