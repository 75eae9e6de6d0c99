//! What each name means, and when it is asked for again. Pure: replies and the time come in.

use super::address::unfit;
use crate::api::NameView;
use crate::pool::Pool;
use crate::store::StoredName;
use postern_engine::policy::Answers;
use postern_proto::now::{Mono, Now, Wall};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::time::Duration;

/// The most names that are asked for. With [`MAX_ADDRESSES`] each, twice that while the last
/// policy's are remembered, the table takes 2 MiB.
pub const MAX_NAMES: usize = 256;

/// The most addresses of a name; the lowest are taken.
pub const MAX_ADDRESSES: usize = 64;

/// An answer that may be kept for a shorter time is kept for this.
pub const MIN_TTL: Duration = Duration::from_secs(5);

/// And one for a longer time for this.
pub const MAX_TTL: Duration = Duration::from_secs(3600);

/// After a failure it is asked again after this, then after twice as long, up to the next.
const RETRY_MIN: Duration = MIN_TTL;
const RETRY_MAX: Duration = Duration::from_secs(60);

/// What a name meant that no policy names any more is remembered: policies are taken back.
const REMEMBERED: Duration = Duration::from_secs(86_400);

/// What the resolver says of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reply {
    pub(super) v4: Family,
    pub(super) v6: Family,
}

/// What it says of one family of addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Family {
    /// These, for so long.
    Found(Vec<IpAddr>, Duration),
    /// There is none, or no such name.
    Nothing,
    /// No answer, and why.
    Failed(String),
}

/// What a reply was good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum News {
    /// Nothing new.
    None,
    /// The name means something else.
    Addresses,
    /// From now on there is no good answer; what it meant last stays.
    Failing,
    /// There is one again, and it is the old one.
    Mended,
}

#[derive(Debug)]
pub(super) struct Table {
    pool: Pool,
    names: BTreeMap<String, Entry>,
    /// Names for which there is no room.
    left_out: usize,
}

#[derive(Debug)]
struct Entry {
    addresses: Vec<IpAddr>,
    /// Of the last answer; none before the first.
    since: Option<Wall>,
    checked: Option<Wall>,
    ttl: Duration,
    /// Addresses of the last reply that are not used, and why.
    refused: Vec<String>,
    failing: Option<String>,
    failures: u64,
    /// Failures since the last good answer.
    tries: u32,
    /// When it is asked for.
    due: Mono,
    /// Since when no policy names it.
    unwanted: Option<Mono>,
    /// Not in the store as it is here.
    unnoted: bool,
}

impl Table {
    /// By what the store knows.
    pub(super) fn new(pool: Pool, known: Vec<StoredName>, now: Now) -> Table {
        let names = known.into_iter().take(2 * MAX_NAMES).map(|one| {
            let mut entry = Entry::new(now.mono);
            entry.addresses = usable(one.addresses, &pool).0;
            entry.since = Some(one.since);
            entry.checked = Some(one.checked);
            entry.ttl = Duration::from_secs(one.ttl.into());
            entry.unwanted = Some(now.mono);
            (one.name, entry)
        });
        Table {
            pool,
            names: names.collect(),
            left_out: 0,
        }
    }

    /// Which names matter from now on.
    pub(super) fn want(&mut self, wanted: &BTreeSet<String>, now: Mono) {
        self.left_out = wanted.len().saturating_sub(MAX_NAMES);
        let wanted: BTreeSet<&String> = wanted.iter().take(MAX_NAMES).collect();
        for (name, entry) in &mut self.names {
            if wanted.contains(name) {
                if entry.unwanted.take().is_some() {
                    entry.due = now;
                }
            } else if entry.unwanted.is_none() {
                entry.unwanted = Some(now);
            }
        }
        for name in wanted {
            if !self.names.contains_key(name) {
                self.names.insert(name.clone(), Entry::new(now));
            }
        }
    }

    /// A name of a policy that is to come.
    pub(super) fn also_want(&mut self, name: &str, now: Mono) {
        self.names.entry(name.to_owned()).or_insert_with(|| Entry {
            unwanted: Some(now),
            ..Entry::new(now)
        });
    }

    /// Forgets what nobody has wanted for long, or what there is no room for. Which.
    pub(super) fn forget(&mut self, now: Mono) -> Vec<String> {
        let mut old: Vec<(Mono, String)> = self
            .names
            .iter()
            .filter_map(|(name, entry)| Some((entry.unwanted?, name.clone())))
            .collect();
        old.sort();
        let excess = old.len().saturating_sub(MAX_NAMES);
        let gone = |(place, (since, _)): &(usize, (Mono, String))| {
            *place < excess || now.since(*since) >= REMEMBERED
        };
        let gone = old.into_iter().enumerate().filter(gone);
        let gone: Vec<String> = gone.map(|(_, (_, name))| name).collect();
        for name in &gone {
            self.names.remove(name);
        }
        gone
    }

    /// A name that is due, and is being asked for from now on.
    pub(super) fn next(&mut self, now: Mono) -> Option<String> {
        let (name, entry) = self
            .names
            .iter_mut()
            .filter(|(_, entry)| entry.unwanted.is_none() && entry.due <= now)
            .min_by_key(|(_, entry)| entry.due)?;
        // Should no reply ever come.
        entry.due = now + RETRY_MAX;
        Some(name.clone())
    }

    /// When the next one is due.
    pub(super) fn due(&self) -> Mono {
        let wanted = self.names.values().filter(|entry| entry.unwanted.is_none());
        wanted.map(|entry| entry.due).min().unwrap_or(Mono::NEVER)
    }

    /// Names of `wanted` that were never answered.
    pub(super) fn unknown(&self, wanted: &BTreeSet<String>) -> BTreeSet<String> {
        let unknown = wanted.iter().take(MAX_NAMES).filter(|name| {
            let entry = self.names.get(*name);
            entry.is_none_or(|entry| entry.checked.is_none())
        });
        unknown.cloned().collect()
    }

    /// Takes in what the resolver says.
    pub(super) fn replied(&mut self, name: &str, reply: Reply, now: Now) -> News {
        let pool = self.pool;
        let Some(entry) = self.names.get_mut(name) else {
            return News::None;
        };
        let heard = Heard::of(reply, &entry.addresses, &pool);
        entry.refused = heard.refused;
        let mut news = News::None;
        let answered = heard.answer.is_some();
        if let Some((addresses, ttl)) = heard.answer {
            entry.ttl = ttl.clamp(MIN_TTL, MAX_TTL);
            if addresses != entry.addresses || entry.since.is_none() {
                entry.addresses = addresses;
                entry.since = Some(now.wall);
                entry.unnoted = true;
                news = News::Addresses;
            }
            if heard.problem.is_none() {
                entry.checked = Some(now.wall);
            }
        }
        let failed_before = entry.failing.is_some();
        entry.failing = heard.problem;
        if entry.failing.is_some() {
            entry.failures += 1;
            let mut wait = RETRY_MIN
                .saturating_mul(1 << entry.tries.min(8))
                .min(RETRY_MAX);
            if answered {
                wait = wait.min(entry.ttl);
            }
            entry.tries = entry.tries.saturating_add(1);
            entry.due = now.mono + wait;
            if news == News::None && !failed_before {
                news = News::Failing;
            }
        } else {
            entry.tries = 0;
            entry.due = now.mono + entry.ttl;
            if news == News::None && failed_before {
                news = News::Mended;
            }
        }
        news
    }

    /// What every name means.
    pub(super) fn answers(&self) -> Answers {
        let known = self.names.iter().filter(|(_, one)| one.since.is_some());
        known
            .map(|(name, entry)| (name.clone(), entry.addresses.clone()))
            .collect()
    }

    /// What the store does not know; with `all`, also what was heard again.
    pub(super) fn unnoted(&self, all: bool) -> Vec<StoredName> {
        let names = self.names.iter();
        names
            .filter(|(_, entry)| entry.unnoted || (all && entry.unwanted.is_none()))
            .filter_map(|(name, entry)| {
                Some(StoredName {
                    name: name.clone(),
                    addresses: entry.addresses.clone(),
                    since: entry.since?,
                    until: None,
                    checked: entry.checked.or(entry.since)?,
                    ttl: u32::try_from(entry.ttl.as_secs()).unwrap_or(u32::MAX),
                })
            })
            .collect()
    }

    /// The store knows these now.
    pub(super) fn noted(&mut self, noted: &[StoredName]) {
        for one in noted {
            if let Some(entry) = self.names.get_mut(&one.name)
                && entry.since == Some(one.since)
            {
                entry.unnoted = false;
            }
        }
    }

    /// Names of the policy for which there is no room.
    pub(super) fn left_out(&self) -> usize {
        self.left_out
    }

    /// Why a name has no good answer now.
    pub(super) fn problem(&self, name: &str) -> Option<&str> {
        self.names.get(name)?.failing.as_deref()
    }

    /// These names, as listings show them.
    pub(super) fn views(&self, names: &BTreeSet<String>, now: Wall) -> Vec<NameView> {
        let known = names
            .iter()
            .filter_map(|name| self.names.get_key_value(name));
        known
            .map(|(name, entry)| NameView {
                name: name.clone(),
                addresses: entry.addresses.clone(),
                since: entry.since.map(Wall::seconds),
                age: entry.checked.map(|checked| now.since(checked).as_secs()),
                ttl: entry.ttl.as_secs(),
                failing: entry.failing.clone(),
                refused: entry.refused.clone(),
                failures: entry.failures,
            })
            .collect()
    }
}

impl Entry {
    fn new(now: Mono) -> Entry {
        Entry {
            addresses: Vec::new(),
            since: None,
            checked: None,
            ttl: MIN_TTL,
            refused: Vec::new(),
            failing: None,
            failures: 0,
            tries: 0,
            due: now,
            unwanted: None,
            unnoted: false,
        }
    }
}

/// A reply, weighed against what the name meant before.
struct Heard {
    /// What the name means now, if the reply says so.
    answer: Option<(Vec<IpAddr>, Duration)>,
    refused: Vec<String>,
    /// Why the reply is not the whole truth.
    problem: Option<String>,
}

impl Heard {
    fn of(reply: Reply, before: &[IpAddr], pool: &Pool) -> Heard {
        let mut heard = Heard {
            answer: None,
            refused: Vec::new(),
            problem: None,
        };
        let mut found = Vec::new();
        let mut shortest: Option<Duration> = None;
        let mut kept = Vec::new();
        for (family, is_own) in [
            (reply.v4, IpAddr::is_ipv4 as fn(&IpAddr) -> bool),
            (reply.v6, IpAddr::is_ipv6),
        ] {
            match family {
                Family::Found(addresses, ttl) => {
                    found.extend(addresses.into_iter().filter(is_own));
                    shortest = Some(shortest.map_or(ttl, |other| other.min(ttl)));
                }
                Family::Nothing => {}
                // Half an answer must not take away the other half.
                Family::Failed(why) => {
                    kept.extend(before.iter().copied().filter(is_own));
                    heard.problem = Some(why);
                }
            }
        }
        let (mut usable, refused) = usable(found, pool);
        heard.refused = refused;
        let Some(ttl) = shortest.filter(|_| !usable.is_empty()) else {
            if heard.problem.is_none() {
                heard.problem = Some(match heard.refused.first() {
                    Some(first) => format!("no address of it can be a target: {first}"),
                    None => "the resolver says that it has no address".to_owned(),
                });
            }
            return heard;
        };
        usable.extend(kept);
        usable.sort_unstable();
        usable.dedup();
        if usable.len() > MAX_ADDRESSES {
            let more = usable.len() - MAX_ADDRESSES;
            heard
                .refused
                .push(format!("{more} more than {MAX_ADDRESSES}"));
            usable.truncate(MAX_ADDRESSES);
        }
        heard.answer = Some((usable, ttl));
        heard
    }
}

/// Sorted, and what is not used and why; not more than so many of those.
fn usable(addresses: Vec<IpAddr>, pool: &Pool) -> (Vec<IpAddr>, Vec<String>) {
    let (mut usable, mut refused) = (Vec::new(), Vec::new());
    for address in addresses {
        match unfit(address, pool) {
            None => usable.push(address),
            Some(why) if refused.len() < MAX_ADDRESSES => {
                refused.push(format!("{address} is {why}"))
            }
            Some(_) => {}
        }
    }
    usable.sort_unstable();
    usable.dedup();
    (usable, refused)
}

#[cfg(test)]
mod tests;
