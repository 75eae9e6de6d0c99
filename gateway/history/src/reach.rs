//! Effective access, both ways: who can reach a place, and which places somebody can reach, at any
//! moment whose facts are known.
//!
//! A place that is one address and port is judged, so the answer is the verdict itself. A larger
//! one is looked at rule by rule: what each decides there, and what an earlier denying rule takes
//! out of it.

mod cover;
mod grants;
mod place;

pub use place::Place;

use cover::Denials;
use postern_engine::policy::{
    Condition, Failed, Mode, Policy, PolicyHash, RuleView, Subject, Tuple,
};
use postern_engine::record::rfc3339;
use postern_engine::standing::{Grant, Held, Standing};
use postern_proto::now::Wall;
use serde::Serialize;

/// Ways that one answer holds, at under 2 KiB each.
pub const MAX_WAYS: usize = 4096;

/// Subjects that one answer names, at under 2 KiB each.
pub const MAX_ROWS: usize = 10_000;

/// Whether somebody gets there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Access {
    /// Yes.
    Allow,
    /// Not now; yes once conditions hold that change by themselves or by what the user does.
    If,
    /// Not unless an admin changes something.
    Never,
}

/// Who can reach a place.
#[derive(Clone, Debug, Serialize)]
pub struct WhoCan {
    /// The policy that was asked.
    pub policy: PolicyHash,
    /// The moment.
    #[serde(serialize_with = "rfc3339")]
    pub at: Wall,
    /// Those who can, and those who could if; the first come first.
    pub rows: Vec<WhoRow>,
    /// Subjects that cannot, whatever they do themselves.
    pub never: usize,
    /// Rows left out: there is room for [`MAX_ROWS`].
    pub more: usize,
}

/// Somebody who can reach a place, or could if.
#[derive(Clone, Debug, Serialize)]
pub struct WhoRow {
    /// The user; none for a machine.
    pub user: Option<String>,
    /// The device.
    pub device: String,
    /// How.
    #[serde(flatten)]
    pub way: Way,
}

/// Everywhere that somebody can go.
#[derive(Clone, Debug, Serialize)]
pub struct Reach {
    /// Who.
    pub subject: Subject,
    /// The policy that was asked.
    pub policy: PolicyHash,
    /// The moment.
    #[serde(serialize_with = "rfc3339")]
    pub at: Wall,
    /// Why the device reaches nothing at all, whatever the ways below say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<&'static str>,
    /// Every destination of every allowing rule, in the order of the file, then grants.
    pub ways: Vec<Way>,
    /// Ways left out: there is room for [`MAX_WAYS`].
    pub more: usize,
    /// When time alone could change something of it, at the earliest.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "moment")]
    pub until: Option<Wall>,
}

/// One destination of one rule, for one subject.
#[derive(Clone, Debug, Serialize)]
pub struct Way {
    /// Whether it is open.
    pub access: Access,
    /// The rule, or the entry of `grants:`.
    pub rule: String,
    /// Its line.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The policy's name for the destination.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The destination.
    #[serde(flatten)]
    pub to: Place,
    /// What the rule asks for, as the file says it.
    pub asks: String,
    /// What of that does not hold.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Failed>,
    /// Earlier rules that deny a part of it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<Except>,
    /// The grant that opens it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<Granted>,
    /// Why the device reaches nothing at all, which comes before the rule.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<&'static str>,
}

/// A part of a way that an earlier rule denies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Except {
    /// The rule.
    pub rule: String,
    /// Its line.
    pub line: usize,
    /// The part.
    #[serde(flatten)]
    pub part: Place,
}

/// A grant in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Granted {
    /// Names it.
    pub id: String,
    /// Why, in the words of who asked.
    pub reason: String,
    /// Nobody approved it.
    pub break_glass: bool,
    /// Until when.
    #[serde(serialize_with = "rfc3339")]
    pub until: Wall,
}

/// Who of `subjects` can reach `to` at `now`. For one address and port it is the verdict; for a
/// larger place each row is one rule that leads into it.
#[must_use]
pub fn who_can(policy: &Policy, subjects: &[Subject], to: &Place, now: Wall) -> WhoCan {
    let mut answer = WhoCan {
        policy: policy.hash(),
        at: now,
        rows: Vec::new(),
        never: 0,
        more: 0,
    };
    for who in subjects {
        let held = held(&who.standing, now);
        let ways = match to.tuple() {
            Some(tuple) => vec![judged(policy, who, &tuple, now)],
            None => ways(policy, who, Some(to), now),
        };
        let mut never = true;
        for mut way in ways {
            way.hold(held);
            if way.access == Access::Never {
                continue;
            }
            never = false;
            if answer.rows.len() == MAX_ROWS {
                answer.more += 1;
                continue;
            }
            answer.rows.push(WhoRow {
                user: who.user.clone(),
                device: who.device.clone(),
                way,
            });
        }
        answer.never += usize::from(never);
    }
    answer.rows.sort_by(|a, b| a.order().cmp(&b.order()));
    answer
}

/// Where `who` can go at `now`.
#[must_use]
pub fn reach(policy: &Policy, who: &Subject, now: Wall) -> Reach {
    let held = held(&who.standing, now);
    let mut ways = ways(policy, who, None, now);
    for way in &mut ways {
        way.hold(held);
    }
    let more = ways.len().saturating_sub(MAX_WAYS);
    ways.truncate(MAX_WAYS);
    Reach {
        subject: who.clone(),
        policy: policy.hash(),
        at: now,
        held: held.map(|held| held.1),
        ways,
        more,
        until: policy.next_change(who, now),
    }
}

/// Why a device reaches nothing at all at `now`, whatever the policy says.
#[must_use]
pub fn reaches_nothing(standing: &Standing, now: Wall) -> Option<&'static str> {
    held(standing, now).map(|held| held.1)
}

/// Whether the user can end it, and the sentence.
fn held(standing: &Standing, now: Wall) -> Option<(bool, &'static str)> {
    standing.obstacle(now)?;
    Some(match standing.held {
        _ if standing.guest => (false, "this key is for joining and nothing else"),
        Some(Held::Approval) => (
            false,
            "this device waits for an admin's approval, or was denied it",
        ),
        Some(Held::UserDisabled) => (false, "the user of this device is disabled"),
        Some(Held::Login) => (
            true,
            "nobody has logged in on this device yet: `postern login`",
        ),
        None => (true, "the login of this device has ended: `postern login`"),
    })
}

/// What the policy says of one address and port.
fn judged(policy: &Policy, who: &Subject, to: &Tuple, now: Wall) -> Way {
    let explained = policy.explain(who, to, now);
    let verdict = explained.verdict;
    let (rule, conditions) = match explained.nearest {
        Some(nearest) => (nearest.id, nearest.failed),
        None => (verdict.rule(), Vec::new()),
    };
    let access = match (verdict.allows(), conditions.as_slice()) {
        (true, _) => Access::Allow,
        (false, []) => Access::Never,
        (false, failed) => access(failed),
    };
    let asks = policy.rules().find(|view| view.id() == rule);
    Way {
        access,
        rule: policy.rule_name(rule).to_owned(),
        line: policy.rule_line(rule),
        target: explained.target,
        to: Place::from(*to),
        asks: asks.map_or_else(String::new, |view| asks_of(&view)),
        conditions,
        except: Vec::new(),
        grant: verdict
            .grant()
            .and_then(|at| who.standing.grants.get(at))
            .map(Granted::from),
        held: None,
    }
}

/// Every destination of every allowing rule, of which a part lies `within`.
fn ways(policy: &Policy, who: &Subject, within: Option<&Place>, now: Wall) -> Vec<Way> {
    let mut denials = Denials::default();
    let mut ways = Vec::new();
    let in_force = policy.rules().filter(|rule| rule.mode() == Mode::Enforce);
    for rule in in_force {
        let leads_there = |to: &Place| within.is_none_or(|within| within.overlaps(to));
        let mut destinations = rule
            .to()
            .map(|to| (to.target(), Place::from(&to)))
            .filter(|(_, to)| leads_there(to))
            .peekable();
        if destinations.peek().is_none() {
            continue;
        }
        let missing = policy.missing(rule.id(), who, now);
        if !rule.allows() {
            if missing.is_empty() {
                denials.add(&rule, destinations.map(|(_, to)| to));
            }
            continue;
        }
        for (target, to) in destinations {
            let to = within.map_or_else(|| to.clone(), |within| to.within(within));
            let except = denials.of(&to);
            let mut conditions = missing.clone();
            if denials.cover(&to) {
                conditions.push(denied_first(&except));
            }
            ways.push(Way {
                access: access(&conditions),
                rule: rule.name().to_owned(),
                line: Some(rule.line()),
                target: target.map(str::to_owned),
                to,
                asks: asks_of(&rule),
                conditions,
                except,
                grant: None,
                held: None,
            });
        }
    }
    ways.extend(grants::ways(policy, who, within, &denials, now));
    ways
}

fn asks_of(rule: &RuleView<'_>) -> String {
    rule.who().to_string()
}

fn denied_first(by: &[Except]) -> Failed {
    let names: Vec<String> = by.iter().map(|one| format!("\"{}\"", one.rule)).collect();
    let rules = if names.len() == 1 { "rule" } else { "rules" };
    Failed {
        condition: Condition::DeniedFirst,
        sentence: format!("denied first by {rules} {}", names.join(", ")).into(),
        checks: Vec::new(),
    }
}

fn access(failed: &[Failed]) -> Access {
    if failed.is_empty() {
        Access::Allow
    } else if failed.iter().all(|one| passes(one.condition)) {
        Access::If
    } else {
        Access::Never
    }
}

/// Whether a condition comes to hold by itself, or by what the user does.
fn passes(condition: Condition) -> bool {
    match condition {
        Condition::Issuer
        | Condition::Amr
        | Condition::Acr
        | Condition::Outer
        | Condition::Posture
        | Condition::SessionAge
        | Condition::When
        | Condition::Grant => true,
        Condition::DeniedFirst
        | Condition::Group
        | Condition::User
        | Condition::Device
        | Condition::Label
        | Condition::Machine
        | Condition::Port
        | Condition::Address => false,
    }
}

impl Way {
    /// The device is held: a login may be all that is missing, an approval is not the user's.
    fn hold(&mut self, held: Option<(bool, &'static str)>) {
        if let Some((passes, sentence)) = held {
            let least = if passes { Access::If } else { Access::Never };
            self.access = self.access.max(least);
            self.held = Some(sentence);
        }
    }

    /// Everything that stands between, in words.
    #[must_use]
    pub fn between(&self) -> String {
        let held = self.held.map(str::to_owned);
        let failed = self.conditions.iter().map(|one| one.sentence.to_string());
        let except = self
            .except
            .iter()
            .filter(|_| self.access != Access::Never)
            .map(|one| format!("except {}: denied by rule \"{}\"", one.part, one.rule));
        let grant = self.grant.iter().map(|grant| {
            let how = if grant.break_glass {
                "break-glass"
            } else {
                "grant"
            };
            format!(
                "{how} {} until {}: {}",
                grant.id,
                grant.until.rfc3339(),
                grant.reason
            )
        });
        let all: Vec<String> = held
            .into_iter()
            .chain(failed)
            .chain(except)
            .chain(grant)
            .collect();
        all.join("; ")
    }
}

impl WhoRow {
    fn order(&self) -> (Access, Option<&str>, &str, Option<usize>) {
        let way = &self.way;
        (way.access, self.user.as_deref(), &self.device, way.line)
    }
}

impl From<&Grant> for Granted {
    fn from(grant: &Grant) -> Granted {
        Granted {
            id: grant.id.to_string(),
            reason: grant.reason.to_string(),
            break_glass: grant.break_glass,
            until: grant.until,
        }
    }
}

fn moment<S: serde::Serializer>(at: &Option<Wall>, to: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => rfc3339(at, to),
        None => to.serialize_none(),
    }
}

#[cfg(test)]
mod tests;
