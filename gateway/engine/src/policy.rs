//! The policy: who may reach what. One pure function, [`Policy::judge`], is used by the live
//! path, `test` and `explain` alike.
//!
//! | module | what it knows |
//! |---|---|
//! | `yaml` | a file as a tree in which everything knows its place |
//! | `read` | the tree as rules; every fault at once |
//! | `lint` | what is allowed and yet may not be meant |
//! | `schema` | the shape of a file, for editors |
//! | `error`, `nearest` | what is wrong, and what was meant |
//! | `address`, `port` | sets of addresses and ports |
//! | `host` | names of targets, and what they mean |
//! | `posture` | the named checks of a file |
//! | `who` | whom a rule is for: its `from` |
//! | `rule` | the predicate: which condition of a rule fails |
//! | `subject` | who asks, in the numbers of one policy |
//! | `index` | the first rule that applies, at a cost that does not grow with the rules |
//! | `when` | time windows |
//! | `grants` | who may ask for more, for a while; what a device was given |
//! | `state` | what of a device a verdict rests on, and until when |
//! | `explain`, `sentence` | the verdict in words, and the nearest rule that would have allowed |
//! | `view` | the policy as it was written |
//! | `tree` | the file's texts, to compare two files or write one anew |
//! | `missing` | what stands between somebody and a rule |
//! | `tuple`, `cases` | `192.0.2.10:22/tcp`; the `tests:` of a file |

mod address;
mod cases;
mod error;
mod explain;
mod fields;
mod grants;
mod host;
mod index;
mod lint;
mod missing;
mod nearest;
mod port;
mod posture;
mod read;
mod rule;
mod schema;
mod sentence;
mod state;
mod subject;
mod tree;
mod tuple;
mod view;
mod when;
mod who;
mod yaml;

#[cfg(test)]
mod tests;

pub use cases::TestOutcome;
pub use error::{PolicyError, PolicyErrors};
pub use explain::{Explanation, Failed, InShadow, Nearest};
pub(crate) use grants::typed;
pub use grants::{GrantEntry, Refusal};
pub use lint::{Known, PolicyWarning};
pub use postern_proto::device_api::CheckView as Check;
pub use rule::{Condition, Mode};
pub use schema::schema;
pub use subject::SubjectIndex;
pub use tree::Tree;
pub use tuple::{Tuple, TupleError};
pub use view::{DestinationView, Machines, PortRange, RuleView, Who};

use crate::standing::Standing;
use cases::Case;
use error::Place;
use foldhash::quality::FixedState;
use grants::Entry;
use index::Index;
use ipnet::IpNet;
use postern_proto::now::Wall;
use posture::Checks;
use rule::{Action, Destination, DestinationId, From, Rule};
use serde::{Serialize, Serializer};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::BuildHasher;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;
use subject::Names;
use when::Window;

/// The largest file that is read, in bytes. 10 000 rules take some 2 MB.
pub const MAX_SOURCE: usize = 8 << 20;
/// The name of the rule that denies what no other rule matches.
pub const DEFAULT_RULE: &str = "default";

/// A compiled policy. Immutable; share it in an `Arc`.
pub struct Policy {
    hash: PolicyHash,
    names: Names,
    checks: Checks,
    /// Every age that a rule asks for, each once.
    session_ages: Vec<Duration>,
    targets: Vec<Target>,
    destinations: Vec<Destination>,
    rules: Vec<Rule>,
    /// The rules that are enforced.
    index: Index,
    /// For every rule and for the default a number that other policies have for the same name.
    marks: Vec<u64>,
    /// What a verdict says of every rule, and of every destination: they themselves lie far apart.
    actions: Vec<Action>,
    leads_to: Vec<Option<TargetId>>,
    /// All rules, where some are in shadow.
    with_shadow: Option<Index>,
    grants: Vec<Entry>,
    cases: Vec<Case>,
    /// The time windows of its rules, each once.
    windows: Vec<Arc<Window>>,
}

/// SHA-256 of the text that a policy was compiled from.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PolicyHash(pub [u8; 32]);

/// The facts of who asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Subject {
    /// None for a machine.
    pub user: Option<String>,
    /// Sorted.
    pub groups: Vec<String>,
    /// The device's name.
    pub device: String,
    /// How the device stands: its login, what it reported, what an admin said of it.
    #[serde(skip)]
    pub standing: Standing,
}

/// Which rule decided. Rules count from zero in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RuleId {
    /// A rule of the file.
    Rule(u32),
    /// No rule matched, and a grant that rests on this entry of `grants:` allows it.
    Grant(u32),
    /// No rule matched.
    Default,
}

/// A named target. Targets count from zero in the order of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetId(pub u32);

/// What the policy says. Only a policy can make one, so every permit names its rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    allow: bool,
    rule: RuleId,
    target: Option<TargetId>,
    /// Position in the grants of who asked.
    grant: Option<usize>,
}

/// What the names of targets mean now, by name. A name that is not here means nothing.
pub type Answers = BTreeMap<String, Vec<IpAddr>>;

struct Target {
    name: String,
    destination: DestinationId,
}

impl Policy {
    /// Compiles a policy file: all of it or nothing.
    ///
    /// # Errors
    /// Every fault of the file, each with its place and what to write instead. Text that is not
    /// YAML is one fault.
    pub fn parse(source: &str) -> Result<Policy, PolicyErrors> {
        Policy::compile(source, &Answers::new())
    }

    /// The same, with what the names of its targets mean. The hash is that of the text alone.
    ///
    /// # Errors
    /// As [`Policy::parse`].
    pub fn compile(source: &str, answers: &Answers) -> Result<Policy, PolicyErrors> {
        Policy::with_answers(source, answers, host::MAX_ANSWERS)
    }

    /// The same, with all that the names meant in some time, to judge what happened in it: a name
    /// counts with up to 4096 addresses in place of 64.
    ///
    /// # Errors
    /// As [`Policy::parse`].
    pub fn compile_for_the_past(source: &str, answers: &Answers) -> Result<Policy, PolicyErrors> {
        Policy::with_answers(source, answers, host::MAX_ANSWERS_OF_A_TIME)
    }

    fn with_answers(source: &str, answers: &Answers, most: usize) -> Result<Policy, PolicyErrors> {
        let mut faults = error::Faults::new(source);
        if source.len() > MAX_SOURCE {
            let what = format!(
                "the policy has {} bytes; the most is {MAX_SOURCE}",
                source.len()
            );
            faults.add(
                Place::default(),
                what,
                "name groups and prefixes instead of single members",
            );
            return Err(faults.finish());
        }
        let root = yaml::parse(source, &mut faults);
        let draft = root
            .map(|root| read::policy(&root, answers, most, &mut faults))
            .unwrap_or_default();
        let index = Index::build(&draft, Mode::Enforce, &mut faults);
        let any_shadow = draft.rules.iter().any(|rule| rule.mode == Mode::Shadow);
        let with_shadow = any_shadow.then(|| Index::build(&draft, Mode::Shadow, &mut faults));
        if !faults.is_empty() {
            return Err(faults.finish());
        }
        let rules = draft.rules.iter().map(|rule| &rule.from);
        let asked = rules.chain(draft.grants.iter().map(|entry| &entry.from));
        let ages: BTreeSet<Duration> = asked.filter_map(|from| from.session_age).collect();
        let names = draft.rules.iter().map(|rule| rule.name.as_str());
        Ok(Policy {
            hash: PolicyHash::of(source),
            marks: names.chain([DEFAULT_RULE]).map(mark).collect(),
            actions: draft.rules.iter().map(|rule| rule.action).collect(),
            leads_to: draft.destinations.iter().map(|at| at.target).collect(),
            names: draft.names,
            checks: draft.checks,
            session_ages: ages.into_iter().collect(),
            targets: draft.targets,
            destinations: draft.destinations,
            rules: draft.rules,
            index,
            with_shadow,
            grants: draft.grants,
            cases: draft.cases,
            windows: draft.windows.list,
        })
    }

    /// The hash of the text.
    #[must_use]
    pub fn hash(&self) -> PolicyHash {
        self.hash
    }

    /// The names that its targets have in place of addresses.
    #[must_use]
    pub fn names(&self) -> BTreeSet<&str> {
        let names = self.destinations.iter().flat_map(|at| &at.names);
        names.map(String::as_str).collect()
    }

    /// What this policy needs to know of `who`. Keep it with the device, and make it anew
    /// whenever the policy or the subject changes, how it stands included. Time alone makes it no
    /// older: a report that goes stale, an attribute and a login that end are in it.
    #[must_use]
    pub fn index(&self, who: &Subject) -> SubjectIndex {
        SubjectIndex {
            policy: self.hash,
            names: self.names.of(who),
            login: who
                .standing
                .session
                .as_ref()
                .map_or(Vec::new(), |login| self.names.of_login(login)),
            outer: who.standing.outer.map(|at| at.to_canonical()),
            grants: self.given(&who.standing.grants),
            timeless: false,
            checks: self.checks.held_until(&who.standing),
            session: posture::session(&who.standing),
        }
    }

    /// May `who` open a flow to `to` now? The first rule that applies decides; where none does, a
    /// grant that lives allows; all else is a denial.
    ///
    /// The cost depends on the lengths that prefixes have, on those that cover the address and on
    /// the names that `who` has, such as groups, not on the number of rules. Rules that name nobody
    /// (`outer`, `issuers`, `amr`, `acr`, `posture`, `session_age` or `when` alone) are filed under
    /// everybody: of those for the same prefix and port each is tried until one applies.
    #[must_use]
    pub fn judge(&self, who: &SubjectIndex, to: &Tuple, now: Wall) -> Verdict {
        let denied = Verdict {
            allow: false,
            rule: RuleId::Default,
            target: None,
            grant: None,
        };
        if who.policy != self.hash {
            return denied;
        }
        let to = to.canonical();
        self.first(&self.index, who, &to, now)
            .or_else(|| self.granted(who, &to, now))
            .unwrap_or(denied)
    }

    /// What the verdict would be if the rules in `mode: shadow` were in force, where one of those
    /// decides it.
    #[must_use]
    pub fn shadow(&self, who: &SubjectIndex, to: &Tuple, now: Wall) -> Option<Verdict> {
        let index = self.with_shadow.as_ref()?;
        if who.policy != self.hash {
            return None;
        }
        let verdict = self.first(index, who, &to.canonical(), now)?;
        let decides = self.rule(verdict.rule)?.mode == Mode::Shadow;
        decides.then_some(verdict)
    }

    /// What the first rule of an index that applies says.
    fn first(&self, index: &Index, who: &SubjectIndex, to: &Tuple, now: Wall) -> Option<Verdict> {
        let hit = index.first(who, to, now)?;
        debug_assert!(self.applies(hit, who, to, now), "the index proves all");
        let (id, destination) = hit;
        Some(Verdict {
            allow: *self.actions.get(id as usize)? == Action::Allow,
            rule: RuleId::Rule(id),
            target: *self.leads_to.get(destination.0 as usize)?,
            grant: None,
        })
    }

    /// The name of a rule or of the entry behind a grant, `default` where nothing matched.
    #[must_use]
    pub fn rule_name(&self, id: RuleId) -> &str {
        let rule = self.rule(id).map(|rule| &rule.name);
        let name = rule.or_else(|| self.entry(id).map(|entry| &entry.name));
        name.map_or(DEFAULT_RULE, String::as_str)
    }

    /// Names a rule across policies, as its name does: for whoever follows many at once.
    #[must_use]
    pub(crate) fn rule_mark(&self, id: RuleId) -> Option<u64> {
        let place = match id {
            RuleId::Rule(n) => usize::try_from(n).ok().filter(|n| *n < self.rules.len())?,
            RuleId::Grant(_) => return Some(mark(self.rule_name(id))),
            RuleId::Default => self.rules.len(),
        };
        self.marks.get(place).copied()
    }

    /// The line of the file where a rule or an entry stands; none for the default.
    #[must_use]
    pub fn rule_line(&self, id: RuleId) -> Option<usize> {
        let rule = self.rule(id).map(|rule| rule.line);
        rule.or_else(|| self.entry(id).map(|entry| entry.line))
    }

    /// Every rule in the order of the file, then every entry of `grants:`, the default last.
    pub fn rule_names(&self) -> impl Iterator<Item = (RuleId, &str)> {
        let rules = (0u32..).zip(&self.rules);
        let rules = rules.map(|(id, rule)| (RuleId::Rule(id), rule.name.as_str()));
        let grants = (0u32..).zip(&self.grants);
        let grants = grants.map(|(id, entry)| (RuleId::Grant(id), entry.name.as_str()));
        let default = [(RuleId::Default, DEFAULT_RULE)];
        rules.chain(grants).chain(default)
    }

    /// The name of a target.
    #[must_use]
    pub fn target_name(&self, id: TargetId) -> &str {
        let target = usize::try_from(id.0).ok().and_then(|i| self.targets.get(i));
        target.map_or("", |target| &target.name)
    }

    /// What the policy calls a destination, whether or not a rule allows it: the first target in
    /// the order of the file that has the address and the port. Looks at every target.
    #[must_use]
    pub fn target_at(&self, to: &Tuple) -> Option<&str> {
        let to = to.canonical();
        let at = |target: &&Target| {
            self.destination(target.destination).is_some_and(|here| {
                here.addresses.contains(to.address) && here.ports.contains(to.protocol, to.port)
            })
        };
        self.targets
            .iter()
            .find(at)
            .map(|target| target.name.as_str())
    }

    /// Every target in the order of the file.
    pub fn target_names(&self) -> impl Iterator<Item = (TargetId, &str)> {
        (0u32..)
            .zip(&self.targets)
            .map(|(id, target)| (TargetId(id), target.name.as_str()))
    }

    /// Every address that a target names, or that an allowing rule or a grant names itself: what devices
    /// send to the gateway unless the gateway's configuration says otherwise. Sorted, joined,
    /// and never a default route.
    #[must_use]
    pub fn addresses(&self) -> Vec<IpNet> {
        let targets = self.targets.iter().map(|target| target.destination);
        let allowed = self
            .rules
            .iter()
            .filter(|rule| rule.action == Action::Allow && rule.mode == Mode::Enforce);
        let written = targets
            .chain(allowed.flat_map(|rule| rule.to.iter().copied()))
            .chain(
                self.grants
                    .iter()
                    .flat_map(|entry| entry.to.iter().copied()),
            )
            .filter_map(|id| self.destination(id))
            .flat_map(|destination| destination.addresses.written().iter().copied());
        address::route_list(written.collect())
    }

    /// The number of rules, the default not counted.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// True where nothing but the default is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The whole predicate, for one rule and one of its destinations.
    fn applies(&self, (rule, at): index::Hit, who: &SubjectIndex, to: &Tuple, now: Wall) -> bool {
        match (self.rule(RuleId::Rule(rule)), self.destination(at)) {
            (Some(rule), Some(at)) => rule.from.failing(who, now).and(at.failing(to)).is_none(),
            (None, _) | (_, None) => false,
        }
    }

    fn rule(&self, id: RuleId) -> Option<&Rule> {
        match id {
            RuleId::Rule(n) => usize::try_from(n).ok().and_then(|n| self.rules.get(n)),
            RuleId::Grant(_) | RuleId::Default => None,
        }
    }

    /// What a rule or an entry asks of who asks.
    fn from(&self, id: RuleId) -> Option<&From> {
        let rule = self.rule(id).map(|rule| &rule.from);
        rule.or_else(|| self.entry(id).map(|entry| &entry.from))
    }

    fn destination(&self, id: DestinationId) -> Option<&Destination> {
        usize::try_from(id.0)
            .ok()
            .and_then(|n| self.destinations.get(n))
    }
}

fn mark(name: &str) -> u64 {
    FixedState::default().hash_one(name)
}

/// The policy that denies everything.
#[must_use]
pub fn empty() -> Policy {
    Policy {
        hash: PolicyHash::of(""),
        marks: vec![mark(DEFAULT_RULE)],
        names: Names::default(),
        checks: Checks::default(),
        session_ages: Vec::new(),
        targets: Vec::new(),
        destinations: Vec::new(),
        rules: Vec::new(),
        index: Index::default(),
        actions: Vec::new(),
        leads_to: Vec::new(),
        with_shadow: None,
        grants: Vec::new(),
        cases: Vec::new(),
        windows: Vec::new(),
    }
}

impl Verdict {
    /// May the flow be opened?
    #[must_use]
    pub fn allows(&self) -> bool {
        self.allow
    }

    /// The rule that decided.
    #[must_use]
    pub fn rule(&self) -> RuleId {
        self.rule
    }

    /// The first of the rule's targets, in the order of the file, that has the address and port; none for the default and for
    /// rules that name addresses themselves.
    #[must_use]
    pub fn target(&self) -> Option<TargetId> {
        self.target
    }

    /// Where a grant decided: its position among the grants of who asked.
    #[must_use]
    pub fn grant(&self) -> Option<usize> {
        self.grant
    }
}

impl PolicyHash {
    /// Of the text of a policy.
    #[must_use]
    pub fn of(source: &str) -> Self {
        PolicyHash(Sha256::digest(source.as_bytes()).into())
    }

    /// All 64 hex digits.
    #[must_use]
    pub fn full(&self) -> String {
        self.0.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl fmt::Display for PolicyHash {
    /// The first 12 hex digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0[..6]
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PolicyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PolicyHash({self})")
    }
}

impl Serialize for PolicyHash {
    /// As the records have it: 64 hex digits.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.full())
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Policy({}, {} rules)", self.hash, self.rules.len())
    }
}
