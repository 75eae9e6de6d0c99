//! The verdict in words, and the nearest rule that would have allowed.

use super::rule::{Action, Conditions, Mode, Rule};
use super::{Check, Condition, Policy, PolicyHash, RuleId, Subject, SubjectIndex, Tuple, Verdict};
use crate::words::Words;
use postern_proto::now::Wall;
use serde::Serialize;
use std::fmt;

/// Destinations that the search for the nearest rule looks at, those with the longest prefix first.
/// A device that scans must not make its own denials expensive: 1024 take some 50 µs.
const SEARCH: usize = 1024;
/// The same where no rule allows anything at the address: whichever is nearest, it leads elsewhere.
const SEARCH_ELSEWHERE: usize = 256;

/// Why a verdict is what it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Explanation {
    /// The verdict itself.
    #[serde(skip)]
    pub verdict: Verdict,
    /// May the flow be opened?
    pub allow: bool,
    /// The rule that decided.
    pub rule: String,
    /// The line of that rule; none for the default.
    pub line: Option<usize>,
    /// The target of that rule.
    pub target: Option<String>,
    /// The policy that judged.
    pub policy: PolicyHash,
    /// Who asked.
    pub subject: Subject,
    /// Where to.
    pub to: Tuple,
    /// Where a grant decided: its id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<String>,
    /// For a denial, the allowing rule that fails the least; none if no rule allows anything.
    pub nearest: Option<Nearest>,
    /// Where no rule matched, the entry of `grants:` by which the subject may ask.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requestable: Option<String>,
    /// What to type to ask by that entry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ask: Option<String>,
    /// Where a rule in shadow would decide.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<InShadow>,
}

/// What a rule in `mode: shadow` would say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct InShadow {
    /// Would the flow be opened?
    pub allow: bool,
    /// That rule.
    pub rule: String,
    /// Its line.
    pub line: Option<usize>,
}

/// A rule that would have allowed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Nearest {
    /// Its name.
    pub rule: String,
    /// Its line.
    pub line: usize,
    /// Its place.
    #[serde(skip)]
    pub id: RuleId,
    /// What failed, at least one.
    pub failed: Vec<Failed>,
}

/// A condition that failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failed {
    /// For programs.
    pub condition: Condition,
    /// For people: `group sre is required; ana@example.com has platform`.
    pub sentence: Words,
    /// For posture, the checks that fail.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
}

impl Nearest {
    /// What failed, in one line.
    #[must_use]
    pub fn sentence(&self) -> Words {
        let mut all = Words::default();
        for (place, one) in self.failed.iter().enumerate() {
            all.say(if place > 0 { "; " } else { "" })
                .append(&one.sentence);
        }
        all
    }
}

impl Policy {
    /// The verdict of [`Policy::judge`] and why. Slower than that, yet bounded: where more than
    /// some thousand destinations hold the address, the nearest rule is the nearest of those.
    #[must_use]
    pub fn explain(&self, who: &Subject, to: &Tuple, now: Wall) -> Explanation {
        let index = self.index(who);
        let verdict = self.judge(&index, to, now);
        let nearest = if verdict.allows() {
            None
        } else {
            self.nearest(&index, who, to, verdict, now)
        };
        let requestable = match verdict.rule() {
            RuleId::Default => self.requestable(&index, &to.canonical(), now),
            RuleId::Rule(_) | RuleId::Grant(_) => None,
        };
        let (requestable, ask) = requestable.unzip();
        let grant = verdict.grant().and_then(|at| who.standing.grants.get(at));
        let shadow = self.shadow(&index, to, now);
        Explanation {
            verdict,
            allow: verdict.allows(),
            rule: self.rule_name(verdict.rule()).to_owned(),
            line: self.rule_line(verdict.rule()),
            target: verdict.target().map(|id| self.target_name(id).to_owned()),
            policy: self.hash(),
            subject: who.clone(),
            to: *to,
            grant: grant.map(|grant| grant.id.to_string()),
            nearest,
            requestable: requestable.map(str::to_owned),
            ask,
            shadow: shadow.map(|shadow| InShadow {
                allow: shadow.allows(),
                rule: self.rule_name(shadow.rule()).to_owned(),
                line: self.rule_line(shadow.rule()),
            }),
        }
    }

    fn nearest(
        &self,
        index: &SubjectIndex,
        who: &Subject,
        to: &Tuple,
        verdict: Verdict,
        now: Wall,
    ) -> Option<Nearest> {
        let to = to.canonical();
        let here = self.index.allowing(to.address);
        let (_, id, failing) = match self.nearest_of(here, SEARCH, index, &to, verdict, now) {
            Some(found) => found,
            // No rule allows anything at this address.
            None => {
                let all = (0u32..).take(self.rules.len());
                self.nearest_of(all, SEARCH_ELSEWHERE, index, &to, verdict, now)?
            }
        };
        let rule = self.rule(RuleId::Rule(id))?;
        let denied_by = self.rule_name(verdict.rule());
        let failed = |condition| match condition {
            Condition::DeniedFirst => Failed {
                condition,
                sentence: format!("denied first by rule \"{denied_by}\"").into(),
                checks: Vec::new(),
            },
            Condition::Port | Condition::Address => self.elsewhere(condition, &rule.to, &to),
            Condition::User
            | Condition::Group
            | Condition::Device
            | Condition::Label
            | Condition::Machine
            | Condition::Issuer
            | Condition::Amr
            | Condition::Acr
            | Condition::Outer
            | Condition::Posture
            | Condition::SessionAge
            | Condition::When
            | Condition::Grant => self.unmet(condition, &rule.from, who, now),
        };
        let failed = failing.iter().map(failed).collect();
        Some(Nearest {
            rule: rule.name.clone(),
            line: rule.line,
            id: RuleId::Rule(id),
            failed,
        })
    }

    /// Cost, number and failing conditions of the rule that fails the least.
    fn nearest_of(
        &self,
        ids: impl Iterator<Item = u32>,
        search: usize,
        who: &SubjectIndex,
        to: &Tuple,
        verdict: Verdict,
        now: Wall,
    ) -> Option<(u32, u32, Conditions)> {
        let mut looked_at = 0;
        let mut best: Option<(u32, u32, Conditions)> = None;
        for id in ids {
            let Some(rule) = self.rule(RuleId::Rule(id)) else {
                continue;
            };
            if rule.action == Action::Deny || rule.mode == Mode::Shadow {
                looked_at += 1;
                continue;
            }
            let reached = RuleId::Rule(id) < verdict.rule();
            let failing = self
                .failing(rule, who, to, now)
                .unless(reached, Condition::DeniedFirst);
            let cost = failing.iter().map(cost).sum::<u32>();
            if best.is_none_or(|(least, first, _)| (cost, id) < (least, first)) {
                best = Some((cost, id, failing));
            }
            looked_at += rule.to.len();
            if looked_at > search {
                break;
            }
        }
        best
    }

    /// What fails of a rule at the one of its destinations that comes closest.
    fn failing(&self, rule: &Rule, who: &SubjectIndex, to: &Tuple, now: Wall) -> Conditions {
        let there = rule
            .to
            .iter()
            .filter_map(|id| self.destination(*id))
            .map(|destination| destination.failing(to))
            .min_by_key(|failing| failing.iter().map(cost).sum::<u32>());
        rule.from.failing(who, now).and(there.unwrap_or_default())
    }
}

/// How far away a rule is that fails `condition`. What the user can mend is nearest, the identity is nearer than the port, and any
/// rule for the address is nearer than a rule for another one.
fn cost(condition: Condition) -> u32 {
    match condition {
        Condition::DeniedFirst => 1,
        Condition::Grant => 2,
        Condition::SessionAge => 3,
        Condition::Posture | Condition::Amr | Condition::Acr => 4,
        Condition::When => 5,
        Condition::Outer => 6,
        Condition::Issuer => 8,
        Condition::Group => 10,
        Condition::User | Condition::Label => 11,
        Condition::Device | Condition::Machine => 12,
        Condition::Port => 15,
        Condition::Address => 100,
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.user, self.device.as_str()) {
            (Some(user), "") => f.write_str(user)?,
            (Some(user), device) => write!(f, "{user} on {device}")?,
            (None, "") => f.write_str("a device without a user")?,
            (None, device) => f.write_str(device)?,
        }
        if !self.groups.is_empty() {
            write!(f, " ({})", self.groups.join(", "))?;
        }
        Ok(())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let action = if self.allow { "allow" } else { "deny" };
        write!(f, "{action}: {} to {}", self.subject, self.to)?;
        write!(f, "\n  rule: {}", self.rule)?;
        if let Some(line) = self.line {
            write!(f, " (line {line})")?;
        }
        if let Some(target) = &self.target {
            write!(f, "\n  target: {target}")?;
        }
        if let Some(grant) = &self.grant {
            write!(f, "\n  grant: {grant}")?;
        }
        write!(f, "\n  policy: {}", self.policy)?;
        if let Some(nearest) = &self.nearest {
            let Nearest { rule, line, .. } = nearest;
            write!(
                f,
                "\n  nearest rule that would have allowed: {rule} (line {line})"
            )?;
            for failed in &nearest.failed {
                write!(f, "\n    - {}", failed.sentence)?;
            }
        }
        if let Some(ask) = &self.ask {
            write!(f, "\n  you may ask: {ask}")?;
        }
        if let Some(InShadow { allow, rule, line }) = &self.shadow {
            let action = if *allow { "allow" } else { "deny" };
            write!(f, "\n  in shadow: {action} by {rule}")?;
            if let Some(line) = line {
                write!(f, " (line {line})")?;
            }
        }
        Ok(())
    }
}
