//! Who may ask for more, for a while: the `grants:` of a file, and what a device was given by them.

use super::error::{Faults, Place};
use super::fields::{Fields, word};
use super::nearest::nearest;
use super::read::{Reader, one_of};
use super::rule::{DestinationId, From};
use super::subject::SubjectIndex;
use super::who;
use super::yaml::{Node, Value};
use super::{DestinationView, Failed, Policy, RuleId, Subject, Tuple, Verdict, Who};
use crate::duration;
use crate::standing::Grant;
use postern_proto::now::Wall;
use std::time::Duration;

/// The entries of one file. A denial looks at each of them for one that the device may ask by:
/// some 50 ns each.
pub(super) const MAX_ENTRIES: usize = 256;

/// One entry of `grants:`.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: String,
    /// Line of its name in the file.
    pub(super) line: usize,
    pub(super) from: From,
    pub(super) to: Vec<DestinationId>,
    pub(super) max: Duration,
    pub(super) approvers: Option<From>,
    pub(super) break_glass: bool,
}

/// A grant of a subject, in the numbers of one policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    entry: u32,
    what: Asked,
    since: Wall,
    until: Wall,
    /// Position among the grants of the subject.
    place: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Target(DestinationId),
    Tuple(Tuple),
}

/// An entry of `grants:`: who may ask, and for what.
#[derive(Clone, Copy)]
pub struct GrantEntry<'p> {
    policy: &'p Policy,
    entry: &'p Entry,
    id: RuleId,
}

/// Why a device may not ask.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The policy has no such target, and it is no address and port either.
    #[error("there is no target `{target}`{}", meant(.nearest))]
    NoTarget {
        /// What was asked for.
        target: String,
        /// What was meant.
        nearest: Option<String>,
    },
    /// No entry of `grants:` leads there.
    #[error("nobody may ask for {target}: no entry of `grants:` has it")]
    NotGiven {
        /// What was asked for.
        target: String,
    },
    /// There are entries, but none is for this device now.
    #[error("\"{entry}\" is not for this device: {}", sentence(.failed))]
    NotForYou {
        /// The first of them.
        entry: String,
        /// What it asks for in vain.
        failed: Vec<Failed>,
    },
}

impl Policy {
    /// Every entry of `grants:` in the order of the file.
    pub fn grants(&self) -> impl Iterator<Item = GrantEntry<'_>> {
        (0u32..).zip(&self.grants).map(|(id, entry)| GrantEntry {
            policy: self,
            entry,
            id: RuleId::Grant(id),
        })
    }

    /// The entries by which `who` may ask for `target` now, in the order of the file and at least
    /// one. `target` is the name of a target, or an address and port such as `192.0.2.10:22/tcp`.
    ///
    /// # Errors
    /// Why there is none.
    pub fn may_request(
        &self,
        who: &Subject,
        target: &str,
        now: Wall,
    ) -> Result<Vec<GrantEntry<'_>>, Refusal> {
        let index = self.index(who);
        let there: Vec<_> = self
            .grants()
            .filter(|one| self.asked(one.entry, target).is_some())
            .collect();
        let Some(first) = there.first() else {
            return Err(self.not_given(target));
        };
        let failed = first.entry.from.failing(&index, now).iter();
        let failed = failed
            .map(|condition| self.unmet(condition, &first.entry.from, who, now))
            .collect();
        let entry = first.name().to_owned();
        let open = there.into_iter().filter(|one| one.is_for(&index, now));
        let open: Vec<_> = open.collect();
        match open.is_empty() {
            true => Err(Refusal::NotForYou { entry, failed }),
            false => Ok(open),
        }
    }

    /// May `who` approve what was asked for by this entry? Only a user may, whose device is not
    /// held and who is among the approvers of the entry.
    #[must_use]
    pub fn may_approve(&self, who: &Subject, entry: &str, now: Wall) -> bool {
        let entry = self.grants.iter().find(|one| one.name == entry);
        let approvers = entry.and_then(|entry| entry.approvers.as_ref());
        who.user.is_some()
            && who.standing.obstacle(now).is_none()
            && approvers.is_some_and(|from| from.failing(&self.index(who), now).is_none())
    }

    /// What the grants of a device mean under this policy.
    pub(super) fn given(&self, grants: &[Grant]) -> Vec<Given> {
        let given = |(place, grant): (usize, &Grant)| {
            let mut entries = (0u32..).zip(&self.grants);
            let (id, entry) = entries.find(|(_, entry)| *entry.name == *grant.entry)?;
            if grant.break_glass && !entry.break_glass {
                return None;
            }
            Some(Given {
                entry: id,
                what: self.asked(entry, &grant.target)?,
                since: grant.since,
                until: entry.end_of(grant),
                place,
            })
        };
        grants.iter().enumerate().filter_map(given).collect()
    }

    /// The grants of `who` that live by this entry, each with the target that it is for; none
    /// there: for the one address and port in its words. One lives no longer than the entry's
    /// `max`, and break-glass only while the entry has it. Whether the entry's `from` holds is not
    /// asked.
    #[must_use]
    pub fn live_grants<'p, 'w>(
        &'p self,
        entry: RuleId,
        who: &'w Subject,
        now: Wall,
    ) -> Vec<(&'w Grant, Option<DestinationView<'p>>)> {
        let RuleId::Grant(entry) = entry else {
            return Vec::new();
        };
        let given = self.given(&who.standing.grants).into_iter();
        given
            .filter(|given| given.entry == entry && given.lives(now))
            .filter_map(|given| {
                let target = match given.what {
                    Asked::Target(id) => self.destination_view(id),
                    Asked::Tuple(_) => None,
                };
                Some((who.standing.grants.get(given.place)?, target))
            })
            .collect()
    }

    /// When a grant ends that `verdict` rests on.
    pub(crate) fn grant_end(&self, verdict: &Verdict, grant: &Grant) -> Wall {
        let entry = self.entry(verdict.rule);
        entry.map_or(grant.until, |entry| entry.end_of(grant))
    }

    /// What the first grant says that lives and leads there.
    pub(super) fn granted(&self, who: &SubjectIndex, to: &Tuple, now: Wall) -> Option<Verdict> {
        who.grants.iter().find_map(|given| {
            let entry = self.entry(RuleId::Grant(given.entry))?;
            let at = given.leads_to(self, entry, to, now)?;
            let holds = entry.from.failing(who, now).is_none();
            holds.then_some(Verdict {
                allow: true,
                rule: RuleId::Grant(given.entry),
                target: self.destination(at)?.target,
                grant: Some(given.place),
            })
        })
    }

    /// Does a grant by this entry live that leads there?
    pub(super) fn is_given(&self, id: u32, who: &SubjectIndex, to: &Tuple, now: Wall) -> bool {
        let entry = self.entry(RuleId::Grant(id));
        let mut given = who.grants.iter().filter(|given| given.entry == id);
        entry.is_some_and(|entry| given.any(|one| one.leads_to(self, entry, to, now).is_some()))
    }

    /// The first entry by which `who` may ask for `to`, and what to type.
    pub(super) fn requestable(
        &self,
        who: &SubjectIndex,
        to: &Tuple,
        now: Wall,
    ) -> Option<(&str, String)> {
        const HOUR: Duration = Duration::from_secs(3600);
        let (entry, at) = self.grants.iter().find_map(|entry| {
            let at = self.first_at(&entry.to, to)?;
            entry
                .from
                .failing(who, now)
                .is_none()
                .then_some((entry, at))
        })?;
        let target = self.destination(at).and_then(|at| at.target);
        let target = match target.map(|id| self.target_name(id)) {
            Some(name) => typed(name),
            None => to.to_string(),
        };
        let time = duration::written(entry.max.min(HOUR));
        let command = format!("postern request {target} --for {time} --reason …");
        Some((&entry.name, command))
    }

    pub(super) fn entry(&self, id: RuleId) -> Option<&Entry> {
        match id {
            RuleId::Grant(n) => usize::try_from(n).ok().and_then(|n| self.grants.get(n)),
            RuleId::Rule(_) | RuleId::Default => None,
        }
    }

    /// What somebody means who asks for `target` by this entry, if it is in there. Every target is
    /// in `anything`.
    fn asked(&self, entry: &Entry, target: &str) -> Option<Asked> {
        let mut targets = self.targets.iter();
        if let Some(named) = targets.find(|known| known.name == target) {
            let anything = |id: &DestinationId| {
                let at = self.destination(*id);
                at.is_some_and(|at| at.is_anything())
            };
            let id = named.destination;
            let here = entry.to.contains(&id) || entry.to.iter().any(anything);
            return here.then_some(Asked::Target(id));
        }
        let to: Tuple = target.parse().ok()?;
        self.first_at(&entry.to, &to).map(|_| Asked::Tuple(to))
    }

    fn first_at(&self, places: &[DestinationId], to: &Tuple) -> Option<DestinationId> {
        let here = |id: &&DestinationId| {
            let at = self.destination(**id);
            at.is_some_and(|at| at.failing(to).is_none())
        };
        places.iter().find(here).copied()
    }

    fn not_given(&self, target: &str) -> Refusal {
        let known = self.targets.iter().map(|known| known.name.as_str());
        let target = target.to_owned();
        if self.targets.iter().any(|known| known.name == target) || target.parse::<Tuple>().is_ok()
        {
            return Refusal::NotGiven { target };
        }
        let nearest = nearest(&target, known).map(str::to_owned);
        Refusal::NoTarget { target, nearest }
    }
}

impl Entry {
    /// Its `max` may have become shorter since.
    fn end_of(&self, grant: &Grant) -> Wall {
        grant.until.min(grant.since + self.max)
    }
}

impl Given {
    /// The moments at which time makes it begin and end.
    pub(super) fn moments(&self) -> [Wall; 2] {
        [self.since, self.until]
    }

    fn lives(&self, now: Wall) -> bool {
        self.since <= now && now < self.until
    }

    /// The destination of the entry that has `to`, if this lives and leads there.
    fn leads_to(
        &self,
        policy: &Policy,
        entry: &Entry,
        to: &Tuple,
        now: Wall,
    ) -> Option<DestinationId> {
        let lives = self.lives(now);
        match self.what {
            Asked::Target(id) if lives => policy.first_at(&[id], to),
            Asked::Tuple(asked) if lives && asked == *to => policy.first_at(&entry.to, to),
            Asked::Target(_) | Asked::Tuple(_) => None,
        }
    }
}

impl<'p> GrantEntry<'p> {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> RuleId {
        self.id
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &'p str {
        &self.entry.name
    }

    /// The line of its name in the file.
    #[must_use]
    pub fn line(&self) -> usize {
        self.entry.line
    }

    /// The longest that a grant may last.
    #[must_use]
    pub fn max(&self) -> Duration {
        self.entry.max
    }

    /// May it be used without anybody's approval?
    #[must_use]
    pub fn break_glass(&self) -> bool {
        self.entry.break_glass
    }

    /// Are there users who may approve? Admins at the gateway always may.
    #[must_use]
    pub fn has_approvers(&self) -> bool {
        self.entry.approvers.is_some()
    }

    /// Who may ask; it must hold while the grant lives.
    #[must_use]
    pub fn who(&self) -> Who<'p> {
        self.policy.who(&self.entry.from)
    }

    /// Who may approve.
    #[must_use]
    pub fn approvers(&self) -> Option<Who<'p>> {
        let approvers = self.entry.approvers.as_ref();
        approvers.map(|from| self.policy.who(from))
    }

    /// What may be asked for, targets first.
    pub fn to(&self) -> impl Iterator<Item = DestinationView<'p>> + use<'p> {
        let GrantEntry { policy, entry, .. } = *self;
        let view = move |id: &DestinationId| policy.destination_view(*id);
        entry.to.iter().filter_map(view)
    }

    fn is_for(&self, who: &SubjectIndex, now: Wall) -> bool {
        self.entry.from.failing(who, now).is_none()
    }
}

/// The name of a target as it is typed in a shell.
pub(crate) fn typed(name: &str) -> String {
    match name.contains(|c: char| c.is_whitespace() || "'\"\\$`".contains(c)) {
        true => format!("'{}'", name.replace('\'', r"'\''")),
        false => name.to_owned(),
    }
}

fn meant(nearest: &Option<String>) -> String {
    let meant = nearest.as_ref();
    meant.map_or(String::new(), |name| format!("; did you mean `{name}`?"))
}

fn sentence(failed: &[Failed]) -> String {
    let said = failed.iter().map(|one| one.sentence.as_str());
    said.collect::<Vec<_>>().join("; ")
}

/// Reads one entry, and says where its name stands.
pub(super) fn read(
    node: &Node,
    reader: &mut Reader,
    faults: &mut Faults<'_>,
) -> Option<(Place, Entry)> {
    let known = ["name", "from", "to", "max", "approvers", "break_glass"];
    let fields = Fields::read(node, "a grant", &known, faults)?;
    let name_at = fields.need("name", "write `name: ` and what it is for", faults);
    let name = name_at.and_then(|node| word(node, "the name of a grant", faults));
    let help = "write `from: { groups: [sre] }`: who may ask, while it holds";
    let from = fields
        .need("from", help, faults)
        .and_then(|node| who::read(node, "from", &mut reader.draft, faults));
    let to = fields
        .need(
            "to",
            "write `to: [nodes]` with the names of targets",
            faults,
        )
        .and_then(|node| reader.place(node, faults));
    let max = fields
        .need("max", "write the longest time, such as `max: 4h`", faults)
        .and_then(|node| time(node, faults));
    let approvers = fields
        .get("approvers")
        .and_then(|node| who::read(node, "approvers", &mut reader.draft, faults));
    let break_glass = fields.get("break_glass").and_then(|node| {
        let known = [("true", true), ("false", false)];
        one_of(node, "break_glass", &known, faults)
    });
    let at = name_at.map_or(node.at, |node| node.at);
    let entry = Entry {
        name: name.unwrap_or_default().to_owned(),
        line: at.line,
        from: from.unwrap_or_default(),
        to: to.unwrap_or_default(),
        max: max.unwrap_or_default(),
        approvers,
        break_glass: break_glass.unwrap_or_default(),
    };
    Some((at, entry))
}

/// The items of `grants:`. None at all is as good as no `grants:`.
pub(super) fn items<'n>(node: &'n Node, faults: &mut Faults<'_>) -> &'n [Node] {
    let items = match &node.value {
        Value::List(items) => items,
        Value::Null => return &[],
        Value::Text(_) | Value::Map(_) => {
            let help = "write `- { name: …, from: …, to: …, max: 4h }`, one below the other";
            faults.add(node.at, "`grants` must be a list", help);
            return &[];
        }
    };
    if let Some(item) = items.get(MAX_ENTRIES) {
        let message = format!("there are more than {MAX_ENTRIES} grants");
        faults.add(
            item.at,
            message,
            "one entry may be for many groups and targets",
        );
    }
    &items[..items.len().min(MAX_ENTRIES)]
}

fn time(node: &Node, faults: &mut Faults<'_>) -> Option<Duration> {
    let text = word(node, "`max`", faults)?;
    let time = duration::parse(text).filter(|time| !time.is_zero());
    if time.is_none() {
        let message = format!("`{text}` is no time");
        let help = "write a number and its unit: `30m`, `4h` or `2d`";
        faults.add(node.at, message, help);
    }
    time
}
