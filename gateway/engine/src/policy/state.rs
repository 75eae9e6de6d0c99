//! What of a device a policy's verdicts rest on, and until when they stand.

use super::posture::{CheckId, NamedCheck};
use super::rule::From;
use super::{Check, Condition, Policy, RuleId, Subject, SubjectIndex, Tuple};
use crate::posture::Expected;
use crate::standing::Standing;
use postern_proto::facts::Watched;
use postern_proto::now::Wall;
use std::time::Duration;

impl Policy {
    /// What devices must look at for the checks of this policy, beyond what each reports anyway.
    #[must_use]
    pub fn watched(&self) -> Watched {
        let mut watched = Watched::default();
        for check in &self.checks.list {
            match &check.expected {
                Expected::Process(name) => {
                    watched.processes.insert(name.clone());
                }
                Expected::File { path, .. } => {
                    watched.files.insert(path.clone());
                }
                Expected::System { .. }
                | Expected::Kernel(_)
                | Expected::ClientVersion(_)
                | Expected::DiskEncryption
                | Expected::Firewall
                | Expected::Attribute { .. } => {}
            }
        }
        watched
    }

    /// Does some rule or grant ask where a device is on the Internet?
    #[must_use]
    pub fn asks_outer(&self) -> bool {
        let rules = self.rules.iter().map(|rule| &rule.from);
        let grants = self.grants.iter().map(|entry| &entry.from);
        rules.chain(grants).any(From::asks_outer)
    }

    /// How a device that stands so does in every check of this policy, in the order of the file.
    #[must_use]
    pub fn checks(&self, standing: &Standing, now: Wall) -> Vec<Check> {
        let view = |check| view(check, standing, now);
        self.checks.list.iter().map(view).collect()
    }

    /// The checks that a rule asks for, and whether each holds for `who`.
    pub fn posture_of<'p>(
        &'p self,
        id: RuleId,
        who: &'p SubjectIndex,
        now: Wall,
    ) -> impl Iterator<Item = (&'p str, bool)> {
        let asked = self.from(id).map_or(&[][..], |from| &from.posture);
        let named = |id: &CheckId| Some((*id, self.checks.get(*id)?));
        let holds = who.policy == self.hash();
        asked
            .iter()
            .filter_map(named)
            .map(move |(id, check)| (check.name.as_str(), holds && who.shows(id, now)))
    }

    /// The earliest moment after `now` at which time alone could change what `who` may reach: a
    /// login grows too old for some rule or ends, a report goes stale, an attribute ends, a time
    /// window opens or closes, a grant begins or ends.
    #[must_use]
    pub fn next_change(&self, who: &Subject, now: Wall) -> Option<Wall> {
        let own = self.next_own_change(who, now);
        own.into_iter().chain(self.next_window(now)).min()
    }

    /// What of it is the same for everybody: a window of some rule opens or closes.
    #[must_use]
    pub(crate) fn next_window(&self, now: Wall) -> Option<Wall> {
        let windows = self.windows.iter();
        windows.filter_map(|window| window.next_change(now)).min()
    }

    /// What of it is the subject's alone.
    #[must_use]
    pub(crate) fn next_own_change(&self, who: &Subject, now: Wall) -> Option<Wall> {
        let session = who.standing.session.as_ref();
        let ages = session.into_iter().flat_map(|session| {
            let ages = self.session_ages.iter();
            ages.map(|age: &Duration| session.since + *age)
        });
        let ends = session.and_then(|session| session.until);
        let checks = self.checks.held_until(&who.standing);
        let given = self.given(&who.standing.grants);
        let given = given.iter().flat_map(|given| given.moments());
        ages.chain(ends)
            .chain(checks)
            .chain(given)
            .filter(|moment| now < *moment && *moment < Wall::NEVER)
            .min()
    }

    /// What a rule no longer finds in `who`, whom it was for: why a flow to `to` that it allowed is
    /// cut.
    /// Of several a login comes first, then posture. None if the rule is for `who` still.
    #[must_use]
    pub fn lost(&self, id: RuleId, who: &SubjectIndex, to: &Tuple, now: Wall) -> Option<Condition> {
        const ORDER: [Condition; 13] = [
            Condition::SessionAge,
            Condition::Issuer,
            Condition::Amr,
            Condition::Acr,
            Condition::Posture,
            Condition::Grant,
            Condition::When,
            Condition::Outer,
            Condition::Group,
            Condition::User,
            Condition::Device,
            Condition::Label,
            Condition::Machine,
        ];
        let given = match id {
            RuleId::Grant(entry) => self.is_given(entry, who, &to.canonical(), now),
            RuleId::Rule(_) | RuleId::Default => true,
        };
        let failing = self.from(id)?.failing(who, now);
        let failing = failing.unless(given, Condition::Grant);
        ORDER.into_iter().find(|lost| failing.has(*lost))
    }

    /// The checks that `from` asks for and that fail.
    pub(super) fn failing_checks(&self, from: &From, standing: &Standing, now: Wall) -> Vec<Check> {
        let asked = from.posture.iter();
        asked
            .filter_map(|id| self.checks.get(*id))
            .map(|check| view(check, standing, now))
            .filter(|check| !check.holds)
            .collect()
    }
}

fn view(check: &NamedCheck, standing: &Standing, now: Wall) -> Check {
    Check {
        name: check.name.clone(),
        holds: now < check.expected.holds_until(standing),
        expected: check.expected.to_string(),
        received: check.expected.received(standing, now),
    }
}
