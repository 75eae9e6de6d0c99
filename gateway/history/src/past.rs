//! How whoever made an attempt stood then: the facts that its record names, where it names some.

use crate::attempt::Attempt;
use crate::facts::FactsText;
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use postern_engine::policy::{Policy, Subject, SubjectIndex};
use postern_engine::standing::{Session, Standing};
use postern_proto::now::Wall;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Devices in different states that are kept ready, at some 2 KiB each: 40 MiB. More are made anew.
const MAX_READY: usize = 20_000;

/// What begins the names that a log holds in place of those of users and devices.
pub(crate) const PSEUDONYM: &str = "h:";

/// A moment that is known to the millisecond lies somewhere in it.
pub(crate) const WITHIN: Duration = Duration::from_nanos(999_999);

/// How a device stood from some moment on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What records call it.
    pub id: Arc<str>,
    /// As [`FactsText`] wrote it.
    pub text: Arc<str>,
    /// From when.
    pub since: Wall,
    /// When the device reported last, and until when that counts.
    pub reported: Option<(Wall, Wall)>,
}

/// The facts of a time, ready to be asked under one policy.
#[derive(Debug)]
pub struct Past {
    /// The earliest of an id first.
    rows: HashMap<Arc<str>, Vec<Row>, FixedState>,
    ready: HashMap<Key, Option<Arc<Stood>>, FixedState>,
}

/// Which row of facts, seen from which place on the Internet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    facts: Arc<str>,
    row: usize,
    outer: Option<IpAddr>,
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
}

impl Stood {
    fn new(who: Subject, facts: bool, policy: &Policy) -> Arc<Stood> {
        Arc::new(Stood {
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
        let mut by_id: HashMap<Arc<str>, Vec<Row>, FixedState> = HashMap::default();
        for row in rows {
            by_id.entry(row.id.clone()).or_default().push(row);
        }
        for rows in by_id.values_mut() {
            rows.sort_by_key(|row| row.since);
        }
        Past {
            rows: by_id,
            ready: HashMap::default(),
        }
    }

    /// Who made the attempt, for `policy`, which must be the same in every call. None if the record
    /// says nothing at all of that.
    pub(crate) fn stood(&mut self, attempt: &Attempt, policy: &Policy) -> Option<Arc<Stood>> {
        if let Some(stood) = self.by_facts(attempt, policy) {
            return Some(stood);
        }
        let who = by_record(attempt)?;
        Some(Stood::new(who, false, policy))
    }

    fn by_facts(&mut self, attempt: &Attempt, policy: &Policy) -> Option<Arc<Stood>> {
        let (facts, rows) = self.rows.get_key_value(attempt.facts.as_deref()?)?;
        // Facts that came into force within the millisecond of the attempt may be its own.
        let began = rows.partition_point(|row| row.since <= attempt.start + WITHIN);
        let key = Key {
            facts: facts.clone(),
            row: began.saturating_sub(1),
            outer: attempt.outer,
        };
        if let Some(known) = self.ready.get(&key) {
            return known.clone();
        }
        let row = rows.get(key.row)?;
        let stood = FactsText::read(&row.text, row.reported)
            .ok()
            .map(|mut who| {
                who.standing.outer = attempt.outer;
                Stood::new(who, true, policy)
            });
        if self.ready.len() >= MAX_READY {
            self.ready.clear();
        }
        self.ready.insert(key, stood.clone());
        stood
    }
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
