//! A file's tree as rules. Every fault is noted and reading goes on.

use super::address::{self, AddressSet};
use super::cases::{self, Case};
use super::error::{Faults, Place};
use super::fields::{Fields, entries, is_word, list, word};
use super::grants::{self, Entry};
use super::host;
use super::nearest::nearest;
use super::port::{self, PortSet};
use super::posture::Checks;
use super::rule::{Action, Destination, DestinationId, From, Mode, Rule};
use super::subject::Names;
use super::when::Windows;
use super::who::{self, ANYONE};
use super::yaml::{Node, Value};
use super::{Answers, DEFAULT_RULE, Target, TargetId};
use foldhash::fast::FixedState;
use hashbrown::HashMap;

/// Stands for every address and port in `to`.
pub(super) const ANYTHING: &str = "anything";

/// What a file says, before it is indexed.
#[derive(Default)]
pub(super) struct Draft {
    pub(super) names: Names,
    pub(super) checks: Checks,
    pub(super) targets: Vec<Target>,
    pub(super) destinations: Vec<Destination>,
    pub(super) rules: Vec<Rule>,
    /// For each rule where it stands, and whether it was read without a fault.
    pub(super) marks: Vec<(Place, bool)>,
    pub(super) grants: Vec<Entry>,
    /// For each grant where it stands.
    pub(super) grant_marks: Vec<Place>,
    pub(super) cases: Vec<Case>,
    /// The time windows of its rules.
    pub(super) windows: Windows,
}

impl Draft {
    /// The destinations of a rule in the order of its `to`.
    pub(super) fn destinations_of(
        &self,
        rule: &Rule,
    ) -> impl Iterator<Item = (DestinationId, &Destination)> {
        rule.to.iter().filter_map(|id| {
            let at = usize::try_from(id.0)
                .ok()
                .and_then(|n| self.destinations.get(n))?;
            Some((*id, at))
        })
    }
}

/// Reads the whole file. At most `most` answers of each name count.
pub(super) fn policy(
    root: &Node,
    answers: &Answers,
    most: usize,
    faults: &mut Faults<'_>,
) -> Draft {
    let mut reader = Reader {
        answers,
        most,
        draft: Draft::default(),
        targets: HashMap::default(),
        target_names: Vec::new(),
        anything: None,
    };
    if matches!(root.value, Value::Null) {
        let help = "a policy starts with `version: 1`, then `targets:` and `rules:`";
        faults.add(Place::default(), "the policy is empty", help);
        return reader.draft;
    }
    let known = [
        "$schema", "version", "targets", "posture", "rules", "grants", "tests",
    ];
    let Some(fields) = Fields::read(root, "the policy", &known, faults) else {
        return reader.draft;
    };
    if let Some(node) = fields.need("version", "write `version: 1` at the top", faults)
        && !matches!(&node.value, Value::Text(version) if version == "1")
    {
        faults.add(
            node.at,
            "this version of Postern reads policies of version 1",
            "write `version: 1`",
        );
    }
    if let Some(node) = fields.get("targets") {
        reader.targets(node, faults);
    }
    if let Some(node) = fields.get("posture") {
        reader.draft.checks = Checks::read(node, faults);
    }
    let example = "write at least one rule: `- { name: …, action: allow, from: …, to: … }`";
    if let Some(node) = fields.need("rules", example, faults) {
        let items = list(node, "rules", "at least one rule", faults);
        items
            .unwrap_or_default()
            .iter()
            .for_each(|item| reader.rule(item, faults));
    }
    if let Some(node) = fields.get("grants") {
        for item in grants::items(node, faults) {
            reader.grant(item, faults);
        }
    }
    reader.names_are_distinct(faults);
    if let Some(node) = fields.get("tests") {
        let items = list(
            node,
            "tests",
            "at least one test, or take the field out",
            faults,
        );
        for item in items.unwrap_or_default() {
            let case = cases::read(item, &reader.draft, faults);
            reader.draft.cases.extend(case);
        }
    }
    reader.draft
}

/// What has been read so far.
pub(super) struct Reader<'a> {
    answers: &'a Answers,
    most: usize,
    pub(super) draft: Draft,
    /// None where the target has a fault: its rules are not faults as well.
    targets: HashMap<String, Option<DestinationId>, FixedState>,
    target_names: Vec<String>,
    anything: Option<DestinationId>,
}

impl Reader<'_> {
    fn targets(&mut self, node: &Node, faults: &mut Faults<'_>) {
        for (name, at, node) in entries(node, "`targets`", faults).unwrap_or_default() {
            if !is_word(name, at, "the name of a target", faults) {
                continue;
            }
            if name == ANYTHING {
                let message = "a target cannot be called `anything`: that word means every target";
                faults.add(at, message, "give it another name");
            }
            let id = TargetId(count(&self.draft.targets));
            let destination = self.destination(node, "a target", Some(id), faults);
            self.targets.insert(name.to_owned(), destination);
            self.target_names.push(name.to_owned());
            if let Some(destination) = destination {
                self.draft.targets.push(Target {
                    name: name.to_owned(),
                    destination,
                });
            }
        }
    }

    /// `{addresses: […], ports: […]}`
    fn destination(
        &mut self,
        node: &Node,
        what: &'static str,
        target: Option<TargetId>,
        faults: &mut Faults<'_>,
    ) -> Option<DestinationId> {
        let fields = Fields::read(node, what, &["addresses", "names", "ports"], faults)?;
        let names = fields.get("names");
        let addresses = match names {
            Some(_) => fields.get("addresses"),
            None => fields.need("addresses", "write `addresses: [192.0.2.10]`", faults),
        };
        let ports = fields.need("ports", "write `ports: [22/tcp]`", faults);
        let addresses =
            addresses.map(|node| each(node, "addresses", "`[192.0.2.10]`", address::parse, faults));
        let names =
            names.map(|node| each(node, "names", "`[api.example.com]`", host::parse, faults));
        let ports = ports.and_then(|node| each(node, "ports", "`[22/tcp]`", port::parse, faults));
        let mut names = names.unwrap_or(Some(Vec::new()))?;
        names.sort_unstable();
        names.dedup();
        // Without names there must be addresses.
        let mut addresses = addresses.unwrap_or(Some(Vec::new()))?;
        let literal = addresses.len();
        if names.is_empty() && literal == 0 {
            return None;
        }
        addresses.extend(host::resolved(&names, self.answers, self.most));
        Some(self.add(Destination {
            target,
            names,
            literal,
            addresses: AddressSet::new(addresses),
            ports: PortSet::new(ports?),
        }))
    }

    fn add(&mut self, destination: Destination) -> DestinationId {
        let id = DestinationId(count(&self.draft.destinations));
        self.draft.destinations.push(destination);
        id
    }

    fn rule(&mut self, node: &Node, faults: &mut Faults<'_>) {
        let known = ["name", "action", "mode", "from", "to", "when", "until"];
        let before = faults.len();
        let Some(fields) = Fields::read(node, "a rule", &known, faults) else {
            return;
        };
        let name_at = fields.need("name", "write `name: ` and what the rule is for", faults);
        let name = name_at.and_then(|node| word(node, "the name of a rule", faults));
        let action = fields
            .need("action", "write `action: allow` or `action: deny`", faults)
            .and_then(|node| one_of(node, "action", &ACTIONS, faults));
        let mode = fields
            .get("mode")
            .and_then(|node| one_of(node, "mode", &MODES, faults));
        let from = fields
            .need(
                "from",
                "write `from: { groups: [platform] }`, or `from: anyone`",
                faults,
            )
            .and_then(|node| who::read(node, "from", &mut self.draft, faults));
        let to = fields
            .need(
                "to",
                "write `to: [kube-api]` with the names of targets, or `to: anything`",
                faults,
            )
            .and_then(|node| self.place(node, faults));
        let (when, until) = (fields.get("when"), fields.get("until"));
        let when = self.draft.windows.read(when, until, faults);
        let at = name_at.map_or(node.at, |node| node.at);
        is_not_default(name.unwrap_or_default(), "a rule", at, faults);
        // A rule with a fault keeps its name and its place: tests may refer to it.
        let sound = faults.len() == before && to.is_some();
        self.draft.marks.push((at, sound));
        self.draft.rules.push(Rule {
            name: name.unwrap_or_default().to_owned(),
            line: at.line,
            action: action.unwrap_or(Action::Deny),
            mode: mode.unwrap_or_default(),
            from: From {
                when,
                ..from.unwrap_or_default()
            },
            to: to.unwrap_or_default(),
        });
    }

    fn grant(&mut self, node: &Node, faults: &mut Faults<'_>) {
        if let Some((at, entry)) = grants::read(node, self, faults) {
            is_not_default(&entry.name, "a grant", at, faults);
            self.draft.grant_marks.push(at);
            self.draft.grants.push(entry);
        }
    }

    /// `[nodes, { addresses: […], ports: […] }]`, or `anything`.
    pub(super) fn place(
        &mut self,
        node: &Node,
        faults: &mut Faults<'_>,
    ) -> Option<Vec<DestinationId>> {
        match &node.value {
            Value::Text(text) if text == ANYTHING => Some(vec![self.anything()]),
            Value::Text(text)
                if ["any", "all", "everything", "*", ANYONE].contains(&text.as_str()) =>
            {
                faults.add(
                    node.at,
                    format!("`{text}` does not say where"),
                    "write `to: anything`",
                );
                None
            }
            Value::Map(_) => Some(vec![self.destination(node, "`to`", None, faults)?]),
            Value::Null | Value::Text(_) | Value::List(_) => {
                let items = list(node, "to", "the name of a target", faults)?;
                let known: Vec<_> = items
                    .iter()
                    .map(|item| self.destination_or_target(item, faults))
                    .collect();
                // In the order of the file, targets first: so the target of a verdict is settled.
                let mut known = known.into_iter().collect::<Option<Vec<_>>>()?;
                known.sort_unstable();
                known.dedup();
                Some(known)
            }
        }
    }

    fn destination_or_target(
        &mut self,
        node: &Node,
        faults: &mut Faults<'_>,
    ) -> Option<DestinationId> {
        if matches!(node.value, Value::Map(_)) {
            return self.destination(node, "`to`", None, faults);
        }
        let name = word(node, "the name of a target", faults)?;
        if let Some(known) = self.targets.get(name) {
            return *known;
        }
        let help = if name == ANYTHING {
            "write `to: anything`, without the list".to_owned()
        } else if let Some(meant) = nearest(name, self.target_names.iter().map(String::as_str)) {
            format!("did you mean `{meant}`?")
        } else if address::parse(name).is_ok() {
            format!("write `{{ addresses: [{name}], ports: [22/tcp] }}` for an address")
        } else {
            format!(
                "name it in `targets:`, `{name}: {{ addresses: [192.0.2.10], ports: [22/tcp] }}`"
            )
        };
        faults.add(node.at, format!("there is no target `{name}`"), help);
        None
    }

    fn anything(&mut self) -> DestinationId {
        if let Some(id) = self.anything {
            return id;
        }
        let (addresses, ports) = (AddressSet::anything(), PortSet::anything());
        let id = self.add(Destination {
            target: None,
            names: Vec::new(),
            literal: addresses.written().len(),
            addresses,
            ports,
        });
        self.anything = Some(id);
        id
    }

    fn names_are_distinct(&self, faults: &mut Faults<'_>) {
        let rules = self.draft.rules.iter().zip(&self.draft.marks);
        let rules = rules.map(|(rule, (at, _))| ("rules", rule.name.as_str(), *at));
        let grants = self.draft.grants.iter().zip(&self.draft.grant_marks);
        let grants = grants.map(|(grant, at)| ("grants", grant.name.as_str(), *at));
        let mut seen: HashMap<&str, (&str, usize), FixedState> = HashMap::default();
        for (kind, name, at) in rules.chain(grants) {
            if name.is_empty() {
                continue;
            }
            if let Some((other, first)) = seen.insert(name, (kind, at.line)) {
                let two = if other == kind {
                    format!("two {kind}")
                } else {
                    "a rule and a grant".to_owned()
                };
                let message = format!("{two} are called `{name}`, the first on line {first}");
                let help = "a record names its rule: give each its own name";
                faults.add(at, message, help);
            }
        }
    }
}

fn is_not_default(name: &str, what: &str, at: Place, faults: &mut Faults<'_>) {
    if name == DEFAULT_RULE {
        let message =
            format!("{what} cannot be called `default`: so the records call the absence of a rule");
        faults.add(at, message, "give it another name");
    }
}

const ACTIONS: [(&str, Action); 2] = [("allow", Action::Allow), ("deny", Action::Deny)];

const MODES: [(&str, Mode); 2] = [("enforce", Mode::Enforce), ("shadow", Mode::Shadow)];

/// One of a few words.
pub(super) fn one_of<T: Copy>(
    node: &Node,
    what: &str,
    known: &[(&'static str, T)],
    faults: &mut Faults<'_>,
) -> Option<T> {
    let text = word(node, &format!("`{what}`"), faults)?;
    if let Some((_, value)) = known.iter().find(|(name, _)| *name == text) {
        return Some(*value);
    }
    let words: Vec<String> = known.iter().map(|(name, _)| format!("`{name}`")).collect();
    let help = match nearest(text, known.iter().map(|(name, _)| *name)) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => format!("write {}", words.join(" or ")),
    };
    faults.add(node.at, format!("`{what}` cannot be `{text}`"), help);
    None
}

/// Every item of a list parsed; `None` if one has a fault.
pub(super) fn each<T>(
    node: &Node,
    what: &str,
    example: &str,
    parse: impl Fn(&str) -> Result<T, (String, String)>,
    faults: &mut Faults<'_>,
) -> Option<Vec<T>> {
    let items = list(node, what, example, faults)?;
    let mut parsed = Vec::with_capacity(items.len());
    for item in items {
        let Some(text) = word(item, &format!("an item of `{what}`"), faults) else {
            continue;
        };
        match parse(text) {
            Ok(value) => parsed.push(value),
            Err((message, help)) => faults.add(item.at, message, help),
        }
    }
    (parsed.len() == items.len()).then_some(parsed)
}

/// Lists are bounded by the nodes of a file, far below.
fn count<T>(list: &[T]) -> u32 {
    u32::try_from(list.len()).unwrap_or(u32::MAX)
}
