//! How whoever made an attempt stood then: the facts that its record names, where it names some.

mod cache;
mod rows;

use crate::attempt::Attempt;
use crate::facts::FactsText;
use cache::Cache;
use postern_engine::policy::{Policy, Subject, SubjectIndex};
use postern_engine::standing::{Session, Standing};
use postern_proto::now::Wall;
use rows::InMemory;
pub use rows::{Facts, InForce, NoFacts, Row};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Memory for devices in different states that are kept ready, bytes. Usually some 2 KiB each:
/// 24 000. More are looked up again.
pub const MAX_READY: usize = 64 << 20;

/// What begins the names that a log holds in place of those of users and devices.
pub(crate) const PSEUDONYM: &str = "h:";

/// A moment that is known to the millisecond lies somewhere in it.
pub(crate) const WITHIN: Duration = Duration::from_nanos(999_999);

/// How devices stood, ready to be asked under one policy. Holds no more than [`MAX_READY`] of it,
/// whatever there is to look up.
#[derive(Debug)]
pub struct Past {
    facts: Box<dyn Facts>,
    ready: Cache<Id, Ready>,
}

/// The 64 bits by which records name facts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Id(u64);

/// How somebody stood in a while; none: nobody knows.
#[derive(Debug)]
struct Ready {
    since: Wall,
    until: Wall,
    stood: Option<Arc<Stood>>,
}

/// Somebody at some time.
#[derive(Clone, Debug)]
pub(crate) struct Stood {
    pub(crate) who: Subject,
    pub(crate) index: SubjectIndex,
    /// For the policy in force, where it is asked.
    in_force: OnceLock<SubjectIndex>,
    /// The facts are known. Else only what the record itself says.
    pub(crate) facts: bool,
    /// Memory that it takes, bytes.
    pub(crate) weight: usize,
}

impl Stood {
    /// `length` is that of all the texts in it.
    fn new(who: Subject, facts: bool, length: usize, policy: &Policy) -> Arc<Stood> {
        Arc::new(Stood {
            weight: weight(&who, length),
            index: policy.index(&who),
            who,
            in_force: OnceLock::new(),
            facts,
        })
    }

    /// All that a verdict of `policy` rests on is known. Where on the Internet the device was is no
    /// fact of the store, and privacy may have taken it out of the record.
    pub(crate) fn exact(&self, policy: &Policy) -> bool {
        self.facts && (self.who.standing.outer.is_some() || !policy.asks_outer())
    }

    /// For the policy in force, which must be the same in every call.
    pub(crate) fn index_in(&self, in_force: &Policy) -> &SubjectIndex {
        self.in_force.get_or_init(|| in_force.index(&self.who))
    }
}

impl Past {
    /// In any order. Several may have one id: the same facts at different times.
    #[must_use]
    pub fn new(rows: impl IntoIterator<Item = Row>) -> Past {
        Past::looked_up(InMemory::new(rows), MAX_READY)
    }

    /// Looked up when they are asked for. At most `bound` bytes of it are kept.
    #[must_use]
    pub fn looked_up(facts: impl Facts + 'static, bound: usize) -> Past {
        Past {
            facts: Box::new(facts),
            ready: Cache::new(bound),
        }
    }

    /// Who made the attempt, for `policy`, which must be the same in every call. None if the record
    /// says nothing at all of that.
    pub(crate) fn stood(
        &mut self,
        attempt: &Attempt,
        policy: &Policy,
    ) -> Result<Option<Arc<Stood>>, NoFacts> {
        if let Some(stood) = self.by_facts(attempt, policy)? {
            return Ok(Some(stood));
        }
        let length = attempt.groups.iter().map(String::len).sum();
        let who = by_record(attempt);
        Ok(who.map(|who| Stood::new(who, false, length, policy)))
    }

    fn by_facts(
        &mut self,
        attempt: &Attempt,
        policy: &Policy,
    ) -> Result<Option<Arc<Stood>>, NoFacts> {
        let Some((name, id)) = attempt.facts.as_deref().zip(attempt.facts_id()) else {
            return Ok(None);
        };
        // Facts that came into force within the millisecond of the attempt may be its own.
        let at = attempt.start + WITHIN;
        let known = self.ready.get(&Id(id));
        let known = known.filter(|ready| (ready.since..ready.until).contains(&at));
        let ready = match known {
            Some(ready) if ready.is_at(attempt.outer) => return Ok(ready.stood.clone()),
            Some(ready) => ready.moved(attempt.outer, policy),
            None => Ready::new(self.facts.at(name, at)?, at, attempt.outer, policy),
        };
        let stood = ready.stood.clone();
        self.ready.put(Id(id), ready, weight_of(stood.as_deref()));
        Ok(stood)
    }
}

impl Ready {
    fn new(found: Option<InForce>, at: Wall, outer: Option<IpAddr>, policy: &Policy) -> Ready {
        let Some(InForce { row, next }) = found else {
            return Ready {
                since: Wall(0),
                until: Wall::NEVER,
                stood: None,
            };
        };
        let who = FactsText::read(&row.text, row.reported).ok();
        Ready {
            // What came before the first row goes by that.
            since: if row.since <= at { row.since } else { Wall(0) },
            until: next.unwrap_or(Wall::NEVER),
            stood: who.map(|mut who| {
                who.standing.outer = outer;
                Stood::new(who, true, row.text.len(), policy)
            }),
        }
    }

    fn is_at(&self, outer: Option<IpAddr>) -> bool {
        let stood = self.stood.as_ref();
        stood.is_none_or(|stood| stood.who.standing.outer == outer)
    }

    /// The same, seen from another place on the Internet.
    fn moved(&self, outer: Option<IpAddr>, policy: &Policy) -> Ready {
        let moved = |stood: &Arc<Stood>| {
            let mut moved = Stood::clone(stood);
            moved.who.standing.outer = outer;
            moved.index = policy.index(&moved.who);
            moved.in_force = OnceLock::new();
            Arc::new(moved)
        };
        Ready {
            since: self.since,
            until: self.until,
            stood: self.stood.as_ref().map(moved),
        }
    }
}

/// An entry that says that nobody knows has some weight, too.
fn weight_of(stood: Option<&Stood>) -> usize {
    size_of::<Ready>() + stood.map_or(0, |stood| stood.weight)
}

/// Texts, what each takes besides, and what two policies with 64 checks make of it.
fn weight(who: &Subject, length: usize) -> usize {
    let standing = &who.standing;
    let names = who.groups.len() + standing.labels.len();
    let more = standing.grants.len() + standing.attributes.len();
    size_of::<Stood>() + 1024 + 2 * length + 64 * names + 256 * more
}

/// As far as a record says it by itself: names, and the login.
fn by_record(attempt: &Attempt) -> Option<Subject> {
    if attempt.user.is_none() && attempt.device.is_none() && attempt.groups.is_empty() {
        return None;
    }
    let session = attempt.session_age.map(|age| Session {
        id: "".into(),
        method: "".into(),
        issuer: attempt.issuer.as_deref().map(Arc::from),
        amr: Vec::new(),
        acr: None,
        since: Wall(
            attempt
                .start
                .0
                .saturating_sub(u64::try_from(age.as_nanos()).unwrap_or(u64::MAX)),
        ),
        until: None,
    });
    // Machines do not log in: it had a user, whom privacy dropped.
    let logged_in = attempt.session_age.is_some() || attempt.issuer.is_some();
    let dropped = logged_in.then(|| PSEUDONYM.to_owned());
    Some(Subject {
        user: attempt.user.clone().or(dropped),
        groups: attempt.groups.clone(),
        device: attempt.device.clone().unwrap_or_default(),
        standing: Standing {
            session,
            outer: attempt.outer,
            ..Standing::default()
        },
    })
}
