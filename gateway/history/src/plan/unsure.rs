//! Whether a denial may be none, because too little is known of who it was.

use crate::attempt::Attempt;
use crate::past::{PSEUDONYM, Stood};
use postern_engine::policy::{Condition, Mode, Policy, RuleView, Tuple};
use postern_proto::now::Wall;

/// A denial may be none: something would have to hold of which neither the record nor the facts
/// say anything.
pub(crate) fn unsure(policy: &Policy, stood: &Stood, to: &Tuple, at: Wall) -> bool {
    if stood.exact(policy) {
        return false;
    }
    let said = policy.explain(&stood.who, to, at);
    let failed = said.nearest.map(|nearest| nearest.failed);
    failed.unwrap_or_default().iter().any(|failed| {
        let hidden = |name: &str| name.starts_with(PSEUDONYM);
        match failed.condition {
            Condition::Outer => stood.who.standing.outer.is_none(),
            _ if stood.facts => false,
            Condition::User => stood.who.user.as_deref().is_none_or(hidden),
            Condition::Device => stood.who.device.is_empty() || hidden(&stood.who.device),
            Condition::Posture
            | Condition::Label
            | Condition::Amr
            | Condition::Acr
            | Condition::Grant => true,
            Condition::Group
            | Condition::Machine
            | Condition::Issuer
            | Condition::SessionAge
            | Condition::When
            | Condition::DeniedFirst
            | Condition::Port
            | Condition::Address => false,
        }
    })
}

/// The rule that allowed it is there still, leads there, and asks for something that a record
/// without facts does not say: another one may be nearer and yet this one would allow it.
pub(super) fn the_same_rule_may_hold(
    policy: &Policy,
    stood: &Stood,
    to: &Tuple,
    attempt: &Attempt,
) -> bool {
    let same = |rule: &RuleView<'_>| {
        rule.allows() && rule.mode() == Mode::Enforce && rule.name() == attempt.rule
    };
    let Some(rule) = policy.rules().find(same) else {
        return false;
    };
    let asked = rule.who();
    let who = &stood.who;
    let hidden = |name: Option<&str>| name.is_none_or(|name| name.starts_with(PSEUDONYM));
    let in_a_group =
        asked.groups.is_empty() || who.groups.iter().any(|one| asked.groups.contains(&&**one));
    let unknown = !asked.posture.is_empty()
        || !asked.labels.is_empty()
        || !asked.amr.is_empty()
        || !asked.acr.is_empty()
        || !asked.outer.is_empty() && who.standing.outer.is_none()
        || !asked.users.is_empty() && hidden(who.user.as_deref())
        || !asked.devices.is_empty()
            && hidden(
                Some(&who.device)
                    .filter(|name| !name.is_empty())
                    .map(|name| &**name),
            );
    unknown && in_a_group && rule.to().any(|at| at.holds(to))
}
