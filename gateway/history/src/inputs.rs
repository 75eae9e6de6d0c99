//! What a rule asks for and what it found: the inputs of a verdict, one by one.

use crate::reach::Place;
use postern_engine::duration;
use postern_engine::policy::{
    Condition, DestinationView, Policy, RuleId, RuleView, Subject, Tuple, Who,
};
use postern_engine::standing::Session;
use postern_proto::now::Wall;
use serde::Serialize;

/// One condition of a rule, and what it was judged by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Input {
    /// Which.
    pub condition: Condition,
    /// What the rule asks for.
    pub asks: String,
    /// What there was.
    pub had: String,
    /// Whether it held.
    pub holds: bool,
}

/// Everything that rule or grant `id` asks of `who` and of the destination, and what there was. Empty for
/// the default.
#[must_use]
pub fn inputs(policy: &Policy, id: RuleId, who: &Subject, to: &Tuple, now: Wall) -> Vec<Input> {
    let rule = policy.rules().find(|rule| rule.id() == id);
    let entry = policy.grants().find(|entry| entry.id() == id);
    let (asked, there): (Who<'_>, Vec<DestinationView<'_>>) = match (&rule, &entry) {
        (Some(rule), _) => (rule.who(), rule.to().collect()),
        (None, Some(entry)) => (entry.who(), entry.to().collect()),
        (None, None) => return Vec::new(),
    };
    let missing = policy.missing(id, who, now);
    let fails = |condition| missing.iter().any(|one| one.condition == condition);
    let mut inputs: Vec<Input> = of_subject(&asked, who, now)
        .into_iter()
        .filter(|(_, asks, _)| !asks.is_empty())
        .map(|(condition, asks, had)| Input {
            condition,
            asks,
            had,
            holds: !fails(condition),
        })
        .collect();
    inputs.extend(posture(policy, &asked, who, now));
    inputs.extend(rule.and_then(|rule| window(&rule, now, !fails(Condition::When))));
    inputs.push(destination(&there, to));
    inputs
}

fn of_subject(asked: &Who<'_>, who: &Subject, now: Wall) -> Vec<(Condition, String, String)> {
    let standing = &who.standing;
    let session = standing.session_at(now);
    let user = || {
        who.user
            .clone()
            .unwrap_or_else(|| "nobody: a machine".to_owned())
    };
    let outer = asked.outer.iter().map(ToString::to_string);
    let seen = standing
        .outer
        .map_or_else(|| "not known".to_owned(), |address| address.to_string());
    vec![
        (Condition::User, asked.users.join(", "), user()),
        (
            Condition::Group,
            asked.groups.join(", "),
            or_none(&who.groups),
        ),
        (
            Condition::Device,
            asked.devices.join(", "),
            who.device.clone(),
        ),
        (
            Condition::Label,
            asked.labels.join(", "),
            or_none(&standing.labels),
        ),
        (Condition::Machine, machines(asked), user()),
        (
            Condition::Issuer,
            asked.issuers.join(", "),
            of_login(session, |login| login.issuer.as_deref().map(str::to_owned)),
        ),
        (
            Condition::Amr,
            asked.amr.join(", "),
            of_login(session, |login| {
                (!login.amr.is_empty()).then(|| login.amr.join(", "))
            }),
        ),
        (
            Condition::Acr,
            asked.acr.join(", "),
            of_login(session, |login| login.acr.clone()),
        ),
        (Condition::Outer, outer.collect::<Vec<_>>().join(", "), seen),
        (
            Condition::SessionAge,
            asked.session_age.map_or_else(String::new, |age| {
                format!("a login younger than {}", duration::shown(age))
            }),
            of_login(session, |login| {
                let age = duration::shown(now.since(login.since));
                Some(format!("{age} old, of {}", login.since.rfc3339()))
            }),
        ),
    ]
}

fn machines(asked: &Who<'_>) -> String {
    let alone = Who {
        machines: asked.machines.clone(),
        ..Who::default()
    };
    match asked.machines {
        Some(_) => alone.to_string(),
        None => String::new(),
    }
}

fn posture(policy: &Policy, asked: &Who<'_>, who: &Subject, now: Wall) -> Vec<Input> {
    let checks = policy.checks(&who.standing, now).into_iter();
    checks
        .filter(|check| asked.posture.contains(&check.name.as_str()))
        .map(|check| Input {
            condition: Condition::Posture,
            asks: format!("{}: {}", check.name, check.expected),
            had: check.received,
            holds: check.holds,
        })
        .collect()
}

fn window(rule: &RuleView<'_>, now: Wall, holds: bool) -> Option<Input> {
    Some(Input {
        condition: Condition::When,
        asks: rule.when()?,
        had: now.rfc3339(),
        holds,
    })
}

/// Where the rule leads, of its destinations the one that holds `to`.
fn destination(all: &[DestinationView<'_>], to: &Tuple) -> Input {
    let here = all.iter().find(|there| there.holds(to));
    let shown = |there: &DestinationView<'_>| {
        let place = Place::from(there);
        match there.target() {
            Some(name) => format!("{name} ({place})"),
            None => place.to_string(),
        }
    };
    let asks = match here {
        Some(there) => shown(there),
        None => all.iter().map(shown).collect::<Vec<_>>().join("; "),
    };
    Input {
        condition: Condition::Address,
        asks,
        had: to.to_string(),
        holds: here.is_some(),
    }
}

fn of_login(session: Option<&Session>, what: impl Fn(&Session) -> Option<String>) -> String {
    match session {
        Some(login) => what(login).unwrap_or_else(|| "a login that does not say".to_owned()),
        None => "no login".to_owned(),
    }
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
