//! Who could reach a target at a moment, and who did: what a security review asks for, with what
//! it rests on.

use super::records::unreadable;
use super::{PolicyThen, SubjectThen};
use crate::problem::Problem;
use postern_engine::policy::{Policy, Tuple, TupleError};
use postern_engine::record::rfc3339;
use postern_history::Attempt;
use postern_history::attempt::State;
use postern_history::reach::{Place, WhoCan, who_can};
use postern_proto::now::Wall;
use postern_spool::query::{Filter, Kind, Segments};
use postern_spool::{Hash, Head};
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::ops::ControlFlow;
use std::time::Duration;

/// Uses that one report holds, the newest: at under 1 KiB each.
pub const MAX_USES: usize = 10_000;

/// Runs and workers whose records one report counts.
const MAX_RANGES: usize = 1000;

/// Who could, who did, and what it rests on.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// The moment.
    #[serde(serialize_with = "rfc3339")]
    pub at: Wall,
    /// Uses are counted from here on.
    #[serde(serialize_with = "rfc3339")]
    pub from: Wall,
    /// What was asked for.
    pub target: String,
    /// What it meant then.
    #[serde(flatten)]
    pub place: Place,
    /// When that policy came into force.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "moment")]
    pub policy_since: Option<Wall>,
    /// Who could, and under which policy.
    pub could: WhoCan,
    /// Who did: flows that were open at some time from `from` to `at`; the oldest first.
    pub did: Vec<Use>,
    /// Older flows that found no room: there is some for [`MAX_USES`].
    pub did_more: u64,
    /// Who tried and was refused, from `from` to `at`.
    pub refused: Vec<Refused>,
    /// What it rests on.
    pub rests_on: RestsOn,
}

/// A flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Use {
    /// The user; none for a machine, or where the log does not keep it.
    pub user: Option<String>,
    /// The device; none where the log does not keep it.
    pub device: Option<String>,
    /// Where to.
    pub to: Tuple,
    /// The rule that allowed it.
    pub rule: String,
    /// Under which policy.
    pub policy: String,
    /// Its first packet.
    #[serde(serialize_with = "rfc3339")]
    pub start: Wall,
    /// Its last one; none: still open at that moment.
    pub end: Option<String>,
    /// How it ended.
    pub close_reason: Option<String>,
    /// The run.
    pub boot: String,
    /// The flow in it.
    pub flow: u64,
    /// The line of its open record, or of the closing one where that is gone.
    pub n: u64,
}

/// Refusals of one device under one rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Refused {
    /// The user.
    pub user: Option<String>,
    /// The device.
    pub device: Option<String>,
    /// The rule.
    pub rule: String,
    /// Why.
    pub deny_reason: String,
    /// How often.
    pub attempts: u64,
}

/// What can be checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RestsOn {
    /// Devices whose facts of that moment are known.
    pub devices: usize,
    /// First line that was read.
    pub first_n: u64,
    /// The last record by then: an anchor for `flows verify --head`.
    pub head: Option<Head>,
    /// The records of the time from `from` to `at`.
    pub records: Vec<Range>,
    /// Names of targets of which is not known any more what they meant: who got in by them may be
    /// missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names_forgotten: Vec<String>,
    /// Whether the log reaches back to `from`. If not, uses may be missing.
    pub whole: bool,
}

/// The records of one worker in one run, by number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Range {
    /// The run.
    pub boot: String,
    /// The worker.
    pub worker: u8,
    /// The first.
    pub first_seq: u64,
    /// The last.
    pub last_seq: u64,
    /// How many of them were read: without a gap `last_seq - first_seq + 1`.
    pub records: u64,
}

/// What people call a destination: the name of a target, or `192.0.2.10:22/tcp`.
///
/// # Errors
/// The policy has no such target.
pub fn place_of(policy: &Policy, text: &str) -> Result<Place, Problem> {
    if let Some(target) = policy
        .targets()
        .find(|target| target.target() == Some(text))
    {
        return Ok(Place::from(&target));
    }
    text.parse::<Tuple>()
        .map(Place::from)
        .map_err(|error: TupleError| {
            let names: Vec<&str> = policy.target_names().map(|(_, name)| name).collect();
            let (shown, more) = names.split_at(names.len().min(20));
            let more = if more.is_empty() { "" } else { ", …" };
            Problem::refused(
                format!("'{text}' is no target of the policy, and {}", error.what),
                format!("{}; its targets are {}{more}", error.help, shown.join(", ")),
            )
        })
}

/// Makes the report.
///
/// # Errors
/// There is no such target, or the log cannot be read.
pub fn report(
    policy: &PolicyThen,
    subjects: Vec<SubjectThen>,
    segments: &Segments,
    target: &str,
    at: Wall,
    window: Duration,
) -> Result<Report, Problem> {
    let place = place_of(&policy.policy, target)?;
    let from = Wall(at.0.saturating_sub(u64::try_from(window.as_nanos()).unwrap_or(u64::MAX)));
    let mut read = Read::new(&place, from);
    let filter = Filter {
        kind: Some(Kind::Flow),
        until: Some(at.millis().saturating_add(1)),
        ..Filter::default()
    };
    segments
        .each(&filter, 0, |line, fields| {
            read.line(line, fields.n, fields.time.as_deref());
            ControlFlow::Continue(())
        })
        .map_err(unreadable)?;
    let mut subjects: Vec<_> = subjects.into_iter().map(|then| then.subject).collect();
    for who in &mut subjects {
        who.standing.outer = read.outer.get(&who.device).copied();
    }
    let could = who_can(&policy.policy, &subjects, &place, at);
    let mut did: Vec<Use> = read.uses.into_values().collect();
    did.sort_by_key(|one| (one.start, one.n));
    Ok(Report {
        at,
        from,
        target: target.to_owned(),
        policy_since: policy.since,
        could,
        did,
        did_more: read.more,
        refused: read
            .refused
            .into_iter()
            .map(|((user, device, rule, deny_reason), attempts)| Refused {
                user,
                device,
                rule,
                deny_reason,
                attempts,
            })
            .collect(),
        rests_on: RestsOn {
            devices: subjects.len(),
            first_n: read.first_n,
            head: read.head,
            records: read.ranges.into_values().collect(),
            names_forgotten: policy.forgotten.clone(),
            whole: segments.first_n() == Some(1)
                || read.first_time.is_some_and(|first| first <= from.rfc3339()),
        },
        place,
    })
}

/// User, device, rule and reason of refusals.
type Refusal = (Option<String>, Option<String>, String, String);

/// What was read of the log so far.
struct Read<'p> {
    place: &'p Place,
    from_text: String,
    first_n: u64,
    first_time: Option<String>,
    head: Option<Head>,
    uses: HashMap<(String, u64), Use>,
    more: u64,
    refused: BTreeMap<Refusal, u64>,
    ranges: BTreeMap<(String, u8), Range>,
    /// Where each device was on the Internet last.
    outer: HashMap<String, IpAddr>,
}

impl<'p> Read<'p> {
    fn new(place: &'p Place, from: Wall) -> Self {
        Read {
            place,
            from_text: from.rfc3339(),
            first_n: 0,
            first_time: None,
            head: None,
            uses: HashMap::new(),
            more: 0,
            refused: BTreeMap::new(),
            ranges: BTreeMap::new(),
            outer: HashMap::new(),
        }
    }

    fn line(&mut self, line: &[u8], n: u64, time: Option<&str>) {
        if self.first_n == 0 {
            self.first_n = n;
            self.first_time = time.map(str::to_owned);
        }
        let Some(attempt) = Attempt::read(line) else {
            return;
        };
        if time.is_some_and(|time| time >= self.from_text.as_str()) {
            self.count(&attempt);
        }
        if self.head.is_none_or(|head| head.n < n) {
            self.head = Some(Head {
                n,
                hash: Hash::of(line),
            });
        }
        if let (Some(device), Some(outer)) = (&attempt.device, attempt.outer) {
            match self.outer.get_mut(device) {
                Some(known) => *known = outer,
                None => drop(self.outer.insert(device.clone(), outer)),
            }
        }
        let there = |to: Tuple| self.place.overlaps(&Place::from(to));
        if attempt.tuples().any(there) {
            self.attempt(attempt, line, n, time);
        }
    }

    fn attempt(&mut self, attempt: Attempt, line: &[u8], n: u64, time: Option<&str>) {
        match (attempt.state, attempt.flow, attempt.to) {
            (State::Denied, _, _) => {
                if time.is_some_and(|time| time >= self.from_text.as_str()) {
                    let who = (
                        attempt.user,
                        attempt.device,
                        attempt.rule,
                        attempt.deny_reason.unwrap_or_default(),
                    );
                    if self.refused.len() < MAX_USES || self.refused.contains_key(&who) {
                        *self.refused.entry(who).or_default() += attempt.count;
                    }
                }
            }
            (State::Open, Some(flow), Some(to)) => {
                let key = (attempt.boot.clone(), flow);
                self.uses.insert(key, used(attempt, flow, to, n));
                self.make_room();
            }
            (State::Closed, Some(flow), Some(to)) => {
                let key = (attempt.boot.clone(), flow);
                let record: Value = serde_json::from_slice(line).unwrap_or_default();
                let text = |field: &str| record[field].as_str().map(str::to_owned);
                let end = text("end");
                if end
                    .as_deref()
                    .is_none_or(|end| end < self.from_text.as_str())
                {
                    self.uses.remove(&key);
                    return;
                }
                // The rule of the closing record is the one that allowed it last.
                let mut last = used(attempt, flow, to, n);
                last.end = end;
                last.close_reason = text("close_reason");
                if let Some(open) = self.uses.get(&key) {
                    last.n = open.n;
                    if last.rule != open.rule {
                        last.rule = format!("{}, then {}", open.rule, last.rule);
                    }
                }
                self.uses.insert(key, last);
                self.make_room();
            }
            (State::Open | State::Closed | State::Live, _, _) => {}
        }
    }

    fn count(&mut self, attempt: &Attempt) {
        let (worker, seq) = attempt.seq;
        // A later run wrote it for one that crashed: it has no number.
        if seq == 0 {
            return;
        }
        let key = (attempt.boot.clone(), worker);
        if self.ranges.len() >= MAX_RANGES && !self.ranges.contains_key(&key) {
            return;
        }
        let range = self.ranges.entry(key).or_insert_with(|| Range {
            boot: attempt.boot.clone(),
            worker,
            first_seq: seq,
            last_seq: seq,
            records: 0,
        });
        range.first_seq = range.first_seq.min(seq);
        range.last_seq = range.last_seq.max(seq);
        range.records += 1;
    }

    /// Of the flows that ended before the time in question nothing is kept, so what does not fit
    /// is older than the rest.
    fn make_room(&mut self) {
        if self.uses.len() <= 2 * MAX_USES {
            return;
        }
        let mut ages: Vec<(Wall, (String, u64))> = self
            .uses
            .iter()
            .map(|(key, one)| (one.start, key.clone()))
            .collect();
        ages.sort_unstable();
        for (_, key) in ages.into_iter().take(MAX_USES) {
            self.uses.remove(&key);
            self.more += 1;
        }
    }
}

fn used(attempt: Attempt, flow: u64, to: Tuple, n: u64) -> Use {
    Use {
        user: attempt.user,
        device: attempt.device,
        to,
        rule: attempt.rule,
        policy: attempt.policy,
        start: attempt.start,
        end: None,
        close_reason: None,
        boot: attempt.boot,
        flow,
        n,
    }
}

fn moment<S: Serializer>(at: &Option<Wall>, to: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => rfc3339(at, to),
        None => to.serialize_none(),
    }
}
