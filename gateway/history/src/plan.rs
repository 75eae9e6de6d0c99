//! What another policy would have done: recorded attempts, judged again.
//!
//! Each attempt is judged at its own time, by the facts of that time: a window of the new policy
//! was open or closed then. Only what a policy decides is judged again. A refusal for another
//! reason (a full table, a device that waits for approval) would have been one under any policy.

mod tally;
mod unsure;

use crate::attempt::{Attempt, State};
use crate::live::Live;
use crate::past::{NoFacts, Past, Stood, WITHIN};
use postern_engine::policy::{Policy, PolicyHash, SubjectIndex, Tuple, Verdict};
use postern_proto::now::Wall;
use serde::Serialize;
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
pub use tally::MAX_PAIRS;
use tally::Tally;
use unsure::the_same_rule_may_hold;
pub(crate) use unsure::unsure;

/// Judges recorded attempts under one policy.
#[derive(Debug)]
pub struct Replay<'p> {
    policy: &'p Policy,
    in_force: Option<&'p Policy>,
    past: Past,
    since: Wall,
    /// Flows that were judged as open ones, by number and beginning: one that closes meanwhile has
    /// a record as well.
    live: HashSet<(u64, Wall)>,
    tally: Tally,
    plan: Plan,
}

/// What would have been different.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The policy that judged.
    pub policy: PolicyHash,
    /// Attempts that were judged again.
    pub attempts: u64,
    /// Allowed then, and denied now.
    pub newly_denied: Change,
    /// Denied then, and allowed now.
    pub newly_allowed: Change,
    /// Allowed then, and denied now; but the policy in force denies it already.
    pub already_denied: u64,
    /// Denied then, and allowed now; but the policy in force allows it already.
    pub already_allowed: u64,
    /// The same verdict.
    pub unchanged: u64,
    /// How many of these another rule decides.
    pub by_another_rule: u64,
    /// How many of all rest on what the record itself says, because their facts are not there.
    pub approximate: u64,
    /// Attempts that were not judged.
    pub not_judged: NotJudged,
    /// Of all these, the flows that began before and are open; none: they are not known.
    pub open_flows: Option<OpenFlows>,
    /// What rules in `mode: shadow` would decide, if they were enforced.
    pub shadow: Vec<ShadowShare>,
    /// The largest change first; then by name. At most [`SHOWN`], as all lists here.
    pub by_user: Vec<Share>,
    /// The same.
    pub by_device: Vec<Share>,
    /// From which rule to which.
    pub by_rule: Vec<RuleShare>,
    /// Newly denied ones first, the most frequent first.
    pub examples: Vec<Example>,
}

/// Rows of each list of a [`Plan`].
pub const SHOWN: usize = 100;

/// Attempts that get another verdict.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Change {
    /// How many.
    pub attempts: u64,
    /// Different pairs of a user (a device, for machines) and a destination. At most
    /// [`MAX_PAIRS`] of both changes together are told apart.
    pub pairs: u64,
}

/// Attempts that no policy decides again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NotJudged {
    /// Of records that stand for many addresses.
    pub scans: u64,
    /// Of records that say nothing of who it was, or nothing of what a rule asks for.
    pub unknown: u64,
    /// Of records that say nothing of what a rule asks for, where the policy in force asks the same.
    pub alike: u64,
    /// How many of `unknown` and `alike` were allowed: they may be newly denied.
    pub allowed: u64,
    /// Refused for another reason than the policy, by `deny_reason`.
    pub refused: BTreeMap<String, u64>,
}

/// Flows that began before the time that is looked at and are open: each is one attempt of now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct OpenFlows {
    /// How many.
    pub flows: u64,
    /// How many of them would be denied.
    pub newly_denied: u64,
    /// Of how many nobody can say.
    pub not_judged: u64,
    /// There may be more, which were not looked at.
    pub more: bool,
}

/// Of one user or device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Share {
    /// As records name them; none for a machine's user, and for names that are not kept.
    pub name: Option<String>,
    /// Attempts.
    #[serde(flatten)]
    pub sums: Sums,
}

/// Of one pair of rules.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct RuleShare {
    /// What decided.
    pub was: String,
    /// What decides now.
    pub is: String,
    /// Attempts.
    #[serde(flatten)]
    pub sums: Sums,
}

/// Attempts by what becomes of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Sums {
    /// Allowed then, and denied now.
    pub newly_denied: u64,
    /// Denied then, and allowed now.
    pub newly_allowed: u64,
    /// The same, as then or as the policy in force has it.
    pub unchanged: u64,
}

/// What one rule in `mode: shadow` would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ShadowShare {
    /// Its name.
    pub rule: String,
    /// What it would decide.
    pub allow: bool,
    /// What the enforced rules decide.
    pub live: bool,
    /// Attempts.
    pub attempts: u64,
}

/// One change, as it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Example {
    /// Which change.
    pub change: Kind,
    /// When it happened last.
    #[serde(serialize_with = "postern_engine::record::rfc3339")]
    pub time: Wall,
    /// How often, to the same destination.
    pub attempts: u64,
    /// How many of these are flows that are open, and began before the time that is looked at.
    pub open: u64,
    /// The user, as the record names them.
    pub user: Option<String>,
    /// The device.
    pub device: Option<String>,
    /// Where to.
    pub to: Tuple,
    /// The rule that decided.
    pub was: String,
    /// The rule that decides now.
    pub is: String,
    /// Newly denied: the rule that comes nearest, and what it asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<String>,
}

/// How a verdict changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Allowed then, and denied now.
    NewlyDenied,
    /// Denied then, and allowed now.
    NewlyAllowed,
}

impl<'p> Replay<'p> {
    /// Ready to judge what began at `since` or later, and flows that ended since.
    #[must_use]
    pub fn new(policy: &'p Policy, past: Past, since: Wall) -> Replay<'p> {
        Replay {
            policy,
            in_force: None,
            past,
            since,
            live: HashSet::new(),
            tally: Tally::default(),
            plan: Plan {
                policy: policy.hash(),
                ..Plan::default()
            },
        }
    }

    /// With the policy in force: what it has changed already is no change of the other.
    #[must_use]
    pub fn instead_of(self, in_force: &'p Policy) -> Replay<'p> {
        Replay {
            in_force: Some(in_force),
            ..self
        }
    }

    /// Flows that are open, before any record is judged. Those that began since have a record.
    ///
    /// # Errors
    /// How a device stands cannot be looked up.
    pub fn live(&mut self, live: &Live) -> Result<(), NoFacts> {
        let (denied, unknown) = (
            self.plan.newly_denied.attempts,
            self.plan.not_judged.allowed,
        );
        let (since, mut flows) = (self.since, 0);
        for flow in live.flows.iter().filter(|flow| flow.opened < since) {
            flows += 1;
            self.attempt(&flow.attempt)?;
            let number = flow.attempt.flow.into_iter();
            self.live.extend(number.map(|number| (number, flow.opened)));
        }
        self.plan.open_flows = Some(OpenFlows {
            flows,
            newly_denied: self.plan.newly_denied.attempts - denied,
            not_judged: self.plan.not_judged.allowed - unknown,
            more: live.more,
        });
        Ok(())
    }

    /// One record, in the order of the log. Each attempt counts once, whatever records it has.
    ///
    /// # Errors
    /// How the device stood cannot be looked up.
    pub fn attempt(&mut self, attempt: &Attempt) -> Result<(), NoFacts> {
        if !counts(attempt, self.since) || self.was_live(attempt) {
            return Ok(());
        }
        if let Some(reason) = refused_for(attempt) {
            let sum = self
                .plan
                .not_judged
                .refused
                .entry(reason.to_owned())
                .or_default();
            *sum = sum.saturating_add(attempt.count);
            return Ok(());
        }
        let asked = u64::try_from(attempt.tuples().count()).unwrap_or(u64::MAX);
        if asked == 0 && !attempt.allow {
            let scans = &mut self.plan.not_judged.scans;
            *scans = scans.saturating_add(attempt.count);
            return Ok(());
        }
        let stood = self.past.stood(attempt, self.policy)?;
        let Some(stood) = stood.filter(|_| asked > 0) else {
            self.plan.not_judged.unknown(attempt.allow, attempt.count);
            return Ok(());
        };
        // Which of several ports was asked for how often is not recorded.
        let (each, rest) = (attempt.count / asked, attempt.count % asked);
        for (to, place) in attempt.tuples().zip(0..) {
            let count = each + if place == 0 { rest } else { 0 };
            self.judge(attempt, &to, &stood, count);
        }
        Ok(())
    }

    /// It closed after it was judged as an open one.
    fn was_live(&self, attempt: &Attempt) -> bool {
        let flow = attempt.flow.map(|flow| (flow, attempt.start));
        attempt.state == State::Closed && flow.is_some_and(|flow| self.live.contains(&flow))
    }

    /// The sums.
    #[must_use]
    pub fn finish(self) -> Plan {
        self.tally.finish(self.policy, self.plan)
    }

    fn judge(&mut self, attempt: &Attempt, to: &Tuple, stood: &Arc<Stood>, count: u64) {
        let (verdict, at) = verdict_of(self.policy, &stood.index, to, attempt);
        let outcome = self.outcome(attempt, to, stood, (verdict, at));
        let not = &mut self.plan.not_judged;
        match outcome {
            Outcome::Unknown => return not.unknown(attempt.allow, count),
            Outcome::Alike => return not.alike(attempt.allow, count),
            Outcome::Same | Outcome::Already | Outcome::Changed(_) => {}
        }
        let plan = &mut self.plan;
        plan.attempts = plan.attempts.saturating_add(count);
        if !stood.exact(self.policy) {
            plan.approximate = plan.approximate.saturating_add(count);
        }
        let rule = self.policy.rule_name(verdict.rule());
        let sum = match outcome {
            Outcome::Changed(Kind::NewlyDenied) => &mut plan.newly_denied.attempts,
            Outcome::Changed(Kind::NewlyAllowed) => &mut plan.newly_allowed.attempts,
            Outcome::Already if attempt.allow => &mut plan.already_denied,
            Outcome::Already => &mut plan.already_allowed,
            Outcome::Same | Outcome::Unknown | Outcome::Alike => {
                if rule != attempt.rule {
                    plan.by_another_rule = plan.by_another_rule.saturating_add(count);
                }
                &mut plan.unchanged
            }
        };
        let kind = match outcome {
            Outcome::Changed(kind) => Some(kind),
            Outcome::Same | Outcome::Already | Outcome::Unknown | Outcome::Alike => None,
        };
        *sum = sum.saturating_add(count);
        self.tally.add(attempt, rule, kind, count);
        if let Some(kind) = kind {
            self.tally.change(attempt, to, kind, rule, at, stood, count);
        }
        if let Some(shadow) = self.policy.shadow(&stood.index, to, at) {
            let name = self.policy.rule_name(shadow.rule());
            self.tally
                .shadow(name, shadow.allows(), verdict.allows(), count);
        }
    }

    /// `now` is what the policy says, and the moment within the attempt's millisecond.
    fn outcome(
        &self,
        attempt: &Attempt,
        to: &Tuple,
        stood: &Stood,
        now: (Verdict, Wall),
    ) -> Outcome {
        let (verdict, at) = now;
        if verdict.allows() == attempt.allow {
            return Outcome::Same;
        }
        let in_force = self.in_force.map(|policy| {
            let (verdict, at) = verdict_of(policy, stood.index_in(policy), to, attempt);
            (policy, verdict, at)
        });
        if verdict.allows() {
            return match in_force {
                // What held the device back is no matter of the policy.
                _ if stood.who.standing.obstacle(at).is_some() => Outcome::Same,
                Some((_, already, _)) if already.allows() => Outcome::Already,
                Some(_) | None => Outcome::Changed(Kind::NewlyAllowed),
            };
        }
        let unsure_now = unsure(self.policy, stood, to, at)
            || !stood.exact(self.policy) && the_same_rule_may_hold(self.policy, stood, to, attempt);
        match in_force.filter(|(_, already, _)| !already.allows()) {
            Some((policy, _, then)) if unsure_now => {
                let said = |policy: &Policy, at| policy.explain(&stood.who, to, at).nearest;
                let asked = |policy, at| said(policy, at).map(|near| (near.rule, near.failed));
                match asked(self.policy, at) == asked(policy, then) {
                    true => Outcome::Alike,
                    false => Outcome::Unknown,
                }
            }
            Some((policy, _, then)) if !unsure(policy, stood, to, then) => Outcome::Already,
            Some(_) | None if unsure_now => Outcome::Unknown,
            Some(_) | None => Outcome::Changed(Kind::NewlyDenied),
        }
    }
}

/// What becomes of an attempt.
#[derive(Clone, Copy, Debug)]
enum Outcome {
    /// What was recorded.
    Same,
    /// Another verdict, and the policy in force has it too.
    Already,
    /// Another verdict, by this policy alone.
    Changed(Kind),
    /// Nobody can say.
    Unknown,
    /// Nobody can say; but the policy in force asks the same.
    Alike,
}

impl Plan {
    /// Something that was used would no longer be allowed.
    #[must_use]
    pub fn breaks(&self) -> bool {
        self.newly_denied.attempts > 0
    }

    /// Allowed attempts that may no longer be: the newly denied, and those of which nobody can say.
    #[must_use]
    pub fn may_break(&self) -> u64 {
        let denied = self.newly_denied.attempts;
        denied.saturating_add(self.not_judged.allowed)
    }
}

impl NotJudged {
    fn unknown(&mut self, allowed: bool, count: u64) {
        self.unknown = self.unknown.saturating_add(count);
        self.add(allowed, count);
    }

    fn alike(&mut self, allowed: bool, count: u64) {
        self.alike = self.alike.saturating_add(count);
        self.add(allowed, count);
    }

    fn add(&mut self, allowed: bool, count: u64) {
        if allowed {
            self.allowed = self.allowed.saturating_add(count);
        }
    }
}

/// Flows by their first record, refusals, and by their last the flows that began before: they were
/// used since.
pub(crate) fn counts(attempt: &Attempt, since: Wall) -> bool {
    match attempt.state {
        // One that a later run took up has its first record in an earlier one.
        State::Open => attempt.start >= since && !attempt.resumed,
        State::Closed => attempt.start < since,
        State::Denied | State::Live => true,
    }
}

/// Why it was refused, if not by the policy.
fn refused_for(attempt: &Attempt) -> Option<&str> {
    attempt
        .deny_reason
        .as_deref()
        .filter(|reason| *reason != "policy")
}

/// The verdict at the attempt's time, and the moment within it: the one at which it agrees with
/// what is recorded, if there is one, since something may have ended within that millisecond.
pub(crate) fn verdict_of(
    policy: &Policy,
    who: &SubjectIndex,
    to: &Tuple,
    attempt: &Attempt,
) -> (Verdict, Wall) {
    let first = policy.judge(who, to, attempt.start);
    if first.allows() != attempt.allow {
        let end = attempt.start + WITHIN;
        let last = policy.judge(who, to, end);
        if last.allows() == attempt.allow {
            return (last, end);
        }
    }
    (first, attempt.start)
}

#[cfg(test)]
mod tests;
