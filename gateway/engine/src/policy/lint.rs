//! What is allowed in a policy and yet may not be what somebody meant.

use super::error::{Faults, Place, PolicyError};
use super::index::Builder;
use super::nearest::nearest;
use super::read::{self, Draft};
use super::rule::{Action, Destination, Mode, NameId, Rule};
use super::yaml::{self, Node, Value};
use super::{Answers, Policy};
use ipnet::IpNet;
use postern_proto::now::Wall;
use serde::Serialize;
use std::collections::BTreeSet;
use std::fmt;

/// Prefixes of an allowing rule that are shorter hold more than one network of a site.
const WIDE_V4: u8 = 16;
const WIDE_V6: u8 = 48;

/// Something of a policy file that is worth a second look. The file can be used as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct PolicyWarning(pub PolicyError);

/// Who there is. Of what is None nothing is known, and nothing is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// Groups that some device or provider has.
    pub groups: Option<BTreeSet<String>>,
    /// Users.
    pub users: Option<BTreeSet<String>>,
    /// Names of devices, machines among them.
    pub devices: Option<BTreeSet<String>>,
    /// Labels that some device has.
    pub labels: Option<BTreeSet<String>>,
    /// Issuers that users may log in with.
    pub issuers: Option<BTreeSet<String>>,
}

impl Policy {
    /// What `source`, a file that compiles, is warned of: in the order of the file. Names of
    /// targets count for nothing here, so that no warning comes and goes with their addresses.
    #[must_use]
    pub fn lints(source: &str, known: &Known, now: Wall) -> Vec<PolicyWarning> {
        let mut faults = Faults::new(source);
        let Some(root) = yaml::parse(source, &mut faults) else {
            return Vec::new();
        };
        let draft = read::policy(&root, &Answers::new(), 0, &mut faults);
        if !faults.is_empty() {
            return Vec::new();
        }
        let nodes = items(get(&root, "rules"));
        let mut builder = Builder::new(&draft);
        for ((id, rule), node) in (0u32..).zip(&draft.rules).zip(nodes) {
            unknown(get(node, "from"), known, &mut faults);
            over(rule, node, now, &mut faults);
            if rule.action == Action::Allow {
                wide(rule, node, &draft, &mut faults);
            }
            if rule.mode == Mode::Enforce {
                taken(&builder, id, rule, node, &draft, &mut faults);
                builder.file(id, rule);
            }
        }
        for node in items(get(&root, "grants")) {
            unknown(get(node, "from"), known, &mut faults);
            unknown(get(node, "approvers"), known, &mut faults);
        }
        faults.finish().0.into_iter().map(PolicyWarning).collect()
    }
}

/// Names of `from` that nobody has.
fn unknown(from: Option<&Node>, known: &Known, faults: &mut Faults<'_>) {
    let fields = [
        ("groups", "group", &known.groups),
        ("users", "user", &known.users),
        ("devices", "device", &known.devices),
        ("machines", "device", &known.devices),
        ("labels", "label", &known.labels),
        ("issuers", "issuer", &known.issuers),
    ];
    for (field, kind, known) in fields {
        let Some(known) = known else { continue };
        for node in items(from.and_then(|from| get(from, field))) {
            let Value::Text(name) = &node.value else {
                continue;
            };
            if known.contains(name) {
                continue;
            }
            let (message, all) = match kind {
                "group" => (
                    format!("nobody is in the group `{name}`"),
                    "invite somebody into it",
                ),
                "label" => (
                    format!("no device has the label `{name}`"),
                    "give it to a device",
                ),
                "issuer" => (
                    format!("nobody can log in with the issuer `{name}`"),
                    "add it to gateway.yaml",
                ),
                _ => (format!("there is no {kind} `{name}`"), "invite it"),
            };
            let help = match nearest(name, known.iter().map(String::as_str)) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => format!("{all}, or take it out"),
            };
            faults.add(node.at, message, help);
        }
    }
}

/// A window that does not open again.
fn over(rule: &Rule, node: &Node, now: Wall, faults: &mut Faults<'_>) {
    let over = rule.from.when.as_ref().filter(|window| window.is_over(now));
    if let Some(window) = over {
        let at = get(node, "until")
            .or(get(node, "when"))
            .map_or(node.at, |node| node.at);
        let message = format!(
            "the rule `{}` applies no more: its window is {window}",
            rule.name
        );
        faults.add(at, message, "take it out, or move `until`");
    }
}

/// More than somebody can have meant.
fn wide(rule: &Rule, node: &Node, draft: &Draft, faults: &mut Faults<'_>) {
    let Some(to) = get(node, "to") else { return };
    for (_, at) in draft.destinations_of(rule) {
        let own = at.target.is_none();
        for net in at.literal() {
            let (wide, all) = match net {
                IpNet::V4(_) => (WIDE_V4, "IPv4"),
                IpNet::V6(_) => (WIDE_V6, "IPv6"),
            };
            let name = &rule.name;
            if net.prefix_len() == 0 {
                let message = format!("the rule `{name}` allows every address of {all}");
                faults.add(to.at, message, "name the targets that are meant");
            } else if net.prefix_len() < wide {
                let message =
                    format!("the rule `{name}` allows all of {net}, which is wider than a /{wide}");
                faults.add(to.at, message, "name the networks that are meant");
            } else if let Some(target) = own.then(|| within(*net, draft)).flatten() {
                let message = format!(
                    "the rule `{name}` allows all of {net}, and the target `{target}` is a part of it"
                );
                faults.add(
                    to.at,
                    message,
                    format!("write `to: [{target}]` if that is meant"),
                );
            }
        }
    }
}

/// The first target that lies in `net` and is less.
fn within(net: IpNet, draft: &Draft) -> Option<&str> {
    let inside = |at: &&Destination| {
        let nets = at.literal();
        !nets.is_empty() && nets.iter().all(|part| net.contains(part) && *part != net)
    };
    let at = draft
        .destinations
        .iter()
        .filter(|at| at.target.is_some())
        .find(inside)?;
    let target = usize::try_from(at.target?.0).ok()?;
    draft.targets.get(target).map(|target| target.name.as_str())
}

/// Names and targets of a rule for which an earlier rule of the other action always decides.
fn taken(
    builder: &Builder<'_>,
    id: u32,
    rule: &Rule,
    node: &Node,
    draft: &Draft,
    faults: &mut Faults<'_>,
) {
    let from = get(node, "from");
    for (field, names) in [
        ("users", &rule.from.users),
        ("groups", &rule.from.groups),
        ("devices", &rule.from.devices),
        ("labels", &rule.from.labels),
    ] {
        for name in names.iter().filter(|_| names.len() > 1) {
            let shown = draft.names.shown(*name);
            let covered = builder.is_covered_for(rule, &[*name]);
            let by = || other(id, rule, &[*name], &rule.to, draft);
            let Some(by) = covered.then(by).flatten() else {
                continue;
            };
            let at = text(from.and_then(|from| get(from, field)), shown).unwrap_or(node.at);
            said(at, &format!("`{shown}`"), rule, by, faults);
        }
    }
    for (destination, at) in draft.destinations_of(rule).filter(|_| rule.to.len() > 1) {
        let target = at
            .target
            .and_then(|id| draft.targets.get(usize::try_from(id.0).ok()?));
        let Some(target) = target else { continue };
        let names: Vec<&[NameId]> = rule.from.asked().collect();
        let covered = match names[..] {
            [] => builder.is_place_covered(rule, at, &[]),
            [..] => names.iter().any(|names| {
                names
                    .iter()
                    .all(|name| builder.is_place_covered(rule, at, &[*name]))
            }),
        };
        let first: Vec<NameId> = names
            .iter()
            .filter_map(|names| names.first())
            .copied()
            .collect();
        let by = || other(id, rule, &first, &[destination], draft);
        let Some(by) = covered.then(by).flatten() else {
            continue;
        };
        let at = text(get(node, "to"), &target.name).unwrap_or(node.at);
        said(
            at,
            &format!("the target `{}`", target.name),
            rule,
            by,
            faults,
        );
    }
}

fn said(at: Place, what: &str, rule: &Rule, by: &Rule, faults: &mut Faults<'_>) {
    let does = match by.action {
        Action::Allow => "allows",
        Action::Deny => "denies",
    };
    let message = format!(
        "the rule `{}` never decides for {what}: `{}` on line {} {does} it first",
        rule.name, by.name, by.line
    );
    faults.add(at, message, "take it out here, or move the rule up");
}

/// The first earlier rule that takes packets of `names` to `places`, if its action is the other.
fn other<'d>(
    id: u32,
    rule: &Rule,
    names: &[NameId],
    places: &[super::DestinationId],
    draft: &'d Draft,
) -> Option<&'d Rule> {
    let nets = |places: &[super::DestinationId]| -> Vec<&'d Destination> {
        let at = places
            .iter()
            .filter_map(|id| draft.destinations.get(usize::try_from(id.0).ok()?));
        at.collect()
    };
    let here = nets(places);
    let overlaps = |earlier: &Rule| {
        nets(&earlier.to).iter().any(|there| {
            here.iter().any(|here| {
                let nets = here.literal().iter();
                let mut shared =
                    nets.filter(|net| there.literal().iter().any(|wide| wide.contains(*net)));
                shared.next().is_some()
                    && here.ports.ranges().iter().any(|a| {
                        let ports = there.ports.ranges().iter();
                        let mut same = ports.filter(|b| a.protocol == b.protocol);
                        same.any(|b| a.low <= b.high && b.low <= a.high)
                    })
            })
        })
    };
    let is_for = |earlier: &Rule| {
        let mut asked = earlier.from.asked();
        earlier.from == rule.from
            || !earlier.from.asks_state()
                && asked.all(|asked| asked.iter().any(|name| names.contains(name)))
    };
    let earlier = (0..id).zip(&draft.rules).map(|(_, rule)| rule);
    earlier
        .filter(|earlier| earlier.mode == Mode::Enforce)
        .find(|earlier| is_for(earlier) && overlaps(earlier))
        .filter(|earlier| earlier.action != rule.action)
}

fn get<'n>(node: &'n Node, name: &str) -> Option<&'n Node> {
    let Value::Map(map) = &node.value else {
        return None;
    };
    let is = |key: &Node| matches!(&key.value, Value::Text(text) if text == name);
    map.iter().find(|(key, _)| is(key)).map(|(_, value)| value)
}

fn items(node: Option<&Node>) -> &[Node] {
    match node.map(|node| &node.value) {
        Some(Value::List(items)) => items,
        Some(Value::Null | Value::Text(_) | Value::Map(_)) | None => &[],
    }
}

/// Where the text stands in a list.
fn text(list: Option<&Node>, text: &str) -> Option<Place> {
    let is = |node: &&Node| matches!(&node.value, Value::Text(here) if here == text);
    items(list).iter().find(is).map(|node| node.at)
}

impl fmt::Display for PolicyWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.show("warning", f)
    }
}
