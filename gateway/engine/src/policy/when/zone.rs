//! Time zones: what a clock in a place shows, from the IANA database that the program carries.

use super::super::nearest::nearest;
use super::DAY;
use jiff::Timestamp;
use jiff::tz::TimeZoneDatabase;
use std::hash::{Hash, Hasher};

/// Seconds since 1970 at 2200-01-01 UTC. Changes are laid out up to here, some 7 kB a zone: a look-up in the rules of
/// the database would cost more than a verdict. From then on a zone keeps its last offset.
const LAID_OUT_UNTIL: i64 = 7_258_118_400;

/// A zone, laid out.
#[derive(Debug)]
pub(super) struct Zone {
    pub(super) name: String,
    /// From when on (seconds since 1970) the clock is how many seconds ahead of UTC. Sorted.
    offsets: Vec<(i64, i64)>,
}

impl Zone {
    /// By its name in the IANA database.
    pub(super) fn find(name: &str) -> Option<Zone> {
        let zone = TimeZoneDatabase::bundled().get(name).ok();
        let zone = zone.filter(|zone| zone.iana_name() == Some(name))?;
        let start = Timestamp::UNIX_EPOCH;
        let mut offsets = vec![(i64::MIN, i64::from(zone.to_offset(start).seconds()))];
        for change in zone.following(start) {
            let (at, offset) = (change.timestamp().as_second(), change.offset().seconds());
            if at >= LAID_OUT_UNTIL {
                break;
            }
            // A change of the name or of what is called summer time moves no clock.
            if offsets
                .last()
                .is_none_or(|last| last.1 != i64::from(offset))
            {
                offsets.push((at, offset.into()));
            }
        }
        Some(Zone {
            name: name.to_owned(),
            offsets,
        })
    }

    /// For a name that no zone has: the zone whose name, or whose city, is the nearest.
    pub(super) fn meant(name: &str) -> Option<String> {
        let database = TimeZoneDatabase::bundled();
        let known: Vec<String> = database.available().map(|zone| zone.to_string()).collect();
        let city = |zone: &str| Some(zone.rsplit_once('/')?.1.to_lowercase());
        let lower = name.to_lowercase();
        let same = known.iter().find(|zone| zone.to_lowercase() == lower);
        let same = same.or_else(|| {
            known
                .iter()
                .find(|zone| city(zone).as_ref() == Some(&lower))
        });
        let places = known
            .iter()
            .map(String::as_str)
            .filter(|zone| zone.contains('/'));
        same.map(String::as_str)
            .or_else(|| nearest(name, places))
            .map(str::to_owned)
    }

    /// Seconds that the clock is ahead of UTC.
    pub(super) fn offset(&self, t: i64) -> i64 {
        self.span(t).0
    }

    /// The same, and when it changes next.
    pub(super) fn span(&self, t: i64) -> (i64, i64) {
        let after = self.offsets.partition_point(|(since, _)| *since <= t);
        let offset = after.checked_sub(1).and_then(|i| self.offsets.get(i));
        let end = self
            .offsets
            .get(after)
            .map_or(i64::MAX, |(since, _)| *since);
        (offset.map_or(0, |(_, offset)| *offset), end)
    }

    /// The first moment at which the clock shows `local`, or a later time if it leaves that out.
    pub(super) fn first(&self, local: i64) -> i64 {
        // No clock is a day from UTC.
        let mut t = local - DAY;
        loop {
            let (offset, end) = self.span(t);
            if local <= t + offset {
                return t;
            }
            if local - offset < end {
                return local - offset;
            }
            t = end;
        }
    }
}

impl PartialEq for Zone {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Zone {}

impl Hash for Zone {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}
