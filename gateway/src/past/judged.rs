//! A record judged again: the policy that it names, the facts that it names, at its own moment.

use super::records::{Found, Recorded};
use super::rule_text::rule_text;
use super::{meant, policy_of, then};
use crate::problem::Problem;
use crate::store::{FactsRow, Store};
use postern_engine::policy::{Explanation, Nearest, Policy, RuleId, Subject, Tuple};
use postern_engine::record::rfc3339;
use postern_history::attempt::State;
use postern_history::inputs::{Input, inputs};
use postern_history::reach::{Granted, reaches_nothing};
use postern_proto::fate::DropReason;
use postern_proto::now::Wall;
use serde::Serialize;
use serde_json::Value;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Records carry milliseconds, so the moment of a verdict lies in the one that follows.
const ROUNDED: Duration = Duration::from_nanos(999_999);

/// What a record says, what the same inputs give now, and the inputs.
#[derive(Clone, Debug, Serialize)]
pub struct Judged {
    /// Whether both are the same.
    pub agrees: bool,
    /// What was recorded.
    pub recorded: Said,
    /// What it gives again.
    pub again: Said,
    /// Where the record is.
    pub record: Place,
    /// Who asked.
    pub subject: Subject,
    /// Where to.
    pub to: Tuple,
    /// The policy, 64 hex digits.
    pub policy: String,
    /// The rule that decided, as the file had it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule_text: Option<RuleText>,
    /// What it asked for, and what there was.
    pub inputs: Vec<Input>,
    /// Of a refusal: the allowing rule that came nearest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nearest: Option<Near>,
    /// Why the device reached nothing, whatever the policy said.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held: Option<&'static str>,
    /// The grant that allowed it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grant: Option<Granted>,
    /// The facts.
    pub facts: Facts,
    /// Where the device was on the Internet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outer: Option<IpAddr>,
    /// How the flow ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end: Option<End>,
}

/// A verdict.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Said {
    /// May the flow be opened?
    pub allow: bool,
    /// The rule that decided.
    pub rule: String,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny_reason: Option<String>,
}

/// Where a record is, and what names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The flow; none for a refusal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow: Option<u64>,
    /// The run.
    pub boot: String,
    /// The worker.
    pub worker: u8,
    /// The number of the record there.
    pub seq: u64,
    /// The number of the line.
    pub n: u64,
    /// The line's hash: with `n` an anchor for `flows verify`.
    pub hash: String,
    /// When it was judged.
    #[serde(serialize_with = "rfc3339")]
    pub start: Wall,
    /// Attempts that it stands for.
    pub count: u64,
}

/// A rule as the file had it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RuleText {
    /// Its line.
    pub line: usize,
    /// Its lines.
    pub text: Vec<String>,
}

/// The allowing rule that came nearest.
#[derive(Clone, Debug, Serialize)]
pub struct Near {
    /// What failed of it.
    #[serde(flatten)]
    pub rule: Nearest,
    /// As the file had it.
    pub text: Vec<String>,
    /// What it asked for, and what there was.
    pub inputs: Vec<Input>,
}

/// The facts that a verdict rests on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Facts {
    /// Names them.
    pub id: Arc<str>,
    /// From when they held.
    #[serde(serialize_with = "rfc3339")]
    pub since: Wall,
}

/// How a flow ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct End {
    /// The number of the line.
    pub n: u64,
    /// When.
    pub time: String,
    /// How.
    pub close_reason: String,
    /// What no longer held.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failed_condition: Option<String>,
    /// The rule that allowed it last, if it was judged again and another one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_rule: Option<String>,
}

/// Judges a record again.
///
/// # Errors
/// The record does not name its facts, or its facts, its policy or what names meant is not known
/// any more.
pub async fn judge_again(store: &Store, found: &Found) -> Result<Judged, Problem> {
    let Some(record) = found.first() else {
        return Err(Problem::absent("there is no record", "name another one"));
    };
    let attempt = &record.attempt;
    let Some(to) = attempt.to else {
        return Err(Problem::absent(
            format!("line {} stands for a scan of many addresses", record.n),
            "`policy explain --at` answers for one of them",
        ));
    };
    let row = facts_of(store, record).await?;
    let since = row.since;
    let mut who = then(row)?.subject;
    who.standing.outer = attempt.outer;
    let mut policy = policy_of(store, &attempt.policy, attempt.start).await?;
    let recorded = Said {
        allow: attempt.allow,
        rule: attempt.rule.clone(),
        deny_reason: attempt.deny_reason.clone(),
    };
    let judge = |policy: &Policy| {
        let at = [attempt.start, attempt.start + ROUNDED];
        let [first, second] = at.map(|at| Again::judge(policy, &who, &to, at));
        if !first.agrees(&recorded) && second.agrees(&recorded) {
            second
        } else {
            first
        }
    };
    let mut again = judge(&policy.policy);
    if !again.agrees(&recorded) && !policy.policy.names().is_empty() {
        for answers in meant::near(store, attempt.start + ROUNDED).await? {
            let Ok(other) = Policy::compile(&policy.source, &answers) else {
                continue;
            };
            let said = judge(&other);
            if said.agrees(&recorded) {
                (policy.policy, again) = (other, said);
                break;
            }
        }
    }
    if !again.agrees(&recorded) {
        policy.known()?;
    }
    let Again {
        at,
        explained,
        obstacle,
    } = &again;
    let text = |line| rule_text(&policy.source, line);
    let decided = explained.verdict.rule();
    let held = obstacle.and_then(|_| reaches_nothing(&who.standing, *at));
    let asked_of = |id: RuleId| inputs(&policy.policy, id, &who, &to, *at);
    Ok(Judged {
        agrees: again.agrees(&recorded),
        again: again.said(),
        recorded,
        record: Place {
            flow: attempt.flow,
            boot: attempt.boot.clone(),
            worker: attempt.seq.0,
            seq: attempt.seq.1,
            n: record.n,
            hash: record.hash.to_string(),
            start: attempt.start,
            count: attempt.count,
        },
        rule_text: explained
            .line
            .filter(|_| held.is_none())
            .map(|line| RuleText {
                line,
                text: text(line),
            }),
        inputs: if held.is_none() {
            asked_of(decided)
        } else {
            Vec::new()
        },
        nearest: explained
            .nearest
            .clone()
            .filter(|_| held.is_none())
            .map(|rule| Near {
                text: text(rule.line),
                inputs: asked_of(rule.id),
                rule,
            }),
        held,
        grant: explained
            .verdict
            .grant()
            .filter(|_| held.is_none())
            .and_then(|at| who.standing.grants.get(at))
            .map(Granted::from),
        facts: Facts {
            id: attempt.facts.as_deref().unwrap_or_default().into(),
            since,
        },
        outer: attempt.outer,
        policy: attempt.policy.clone(),
        end: found.end().map(|end| ended(end, record)),
        subject: who,
        to,
    })
}

/// A verdict made again.
struct Again {
    at: Wall,
    explained: Explanation,
    obstacle: Option<DropReason>,
}

impl Again {
    fn judge(policy: &Policy, who: &Subject, to: &Tuple, at: Wall) -> Again {
        Again {
            at,
            explained: policy.explain(who, to, at),
            obstacle: who.standing.obstacle(at),
        }
    }

    fn said(&self) -> Said {
        match self.obstacle {
            Some(obstacle) => Said {
                allow: false,
                rule: "default".to_owned(),
                deny_reason: Some(obstacle.as_str().to_owned()),
            },
            None => Said {
                allow: self.explained.allow,
                rule: self.explained.rule.clone(),
                deny_reason: (!self.explained.allow)
                    .then(|| DropReason::Policy.as_str().to_owned()),
            },
        }
    }

    /// A refusal for a full table, a log that cannot be written and the like is none of the
    /// policy's: there, the rule that decided must be the same.
    fn agrees(&self, recorded: &Said) -> bool {
        const OF_POLICY: [DropReason; 5] = [
            DropReason::Policy,
            DropReason::NotEnrolled,
            DropReason::NotApproved,
            DropReason::LoginRequired,
            DropReason::UserDisabled,
        ];
        let said = self.said();
        let other = recorded
            .deny_reason
            .as_deref()
            .is_some_and(|reason| OF_POLICY.iter().all(|own| own.as_str() != reason));
        if other {
            said.rule == recorded.rule
        } else {
            said == *recorded
        }
    }
}

/// The facts that a record names, of the time that holds its moment, or of the nearest.
async fn facts_of(store: &Store, record: &Recorded) -> Result<FactsRow, Problem> {
    let attempt = &record.attempt;
    let Some(id) = attempt.facts.as_deref() else {
        return Err(Problem::absent(
            format!("line {} does not name the facts that it rests on", record.n),
            "records before schema 4 do not, nor do those of devices that have not joined",
        ));
    };
    let rows = store.facts_by_id(id).await?;
    let apart = |row: &FactsRow| {
        let late = attempt.start.since(row.until.unwrap_or(Wall::NEVER));
        late.max(row.since.since(attempt.start))
    };
    rows.into_iter().min_by_key(apart).ok_or_else(|| {
        Problem::absent(
            format!("facts {id} are not known any more"),
            "facts are kept as long as a record of that time is",
        )
    })
}

fn ended(end: &Recorded, first: &Recorded) -> End {
    let text = |field: &str| end.record.get(field).and_then(Value::as_str);
    let again = end.attempt.rule != first.attempt.rule && first.attempt.state == State::Open;
    End {
        n: end.n,
        time: text("end").unwrap_or_default().to_owned(),
        close_reason: text("close_reason").unwrap_or_default().to_owned(),
        failed_condition: text("failed_condition").map(str::to_owned),
        last_rule: again.then(|| end.attempt.rule.clone()),
    }
}
