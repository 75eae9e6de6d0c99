//! Time windows: `when: { days: [mon-fri], hours: "07:00-20:00", zone: Europe/Berlin }`.
//!
//! A window is what the clock on the wall in its zone shows, and nothing else: it is open while
//! that clock shows one of its hours on one of its days. An hour that the clock shows twice counts
//! twice, and one that it leaves out does not come. A window over midnight belongs to the day on
//! which it begins.

mod read;
#[cfg(test)]
mod tests;
mod zone;

pub(super) use read::Windows;
pub(super) use read::parse_at;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::Offset;
use postern_proto::now::Wall;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;
use zone::Zone;

/// Seconds.
const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;
const WEEK: i64 = 7 * DAY;

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const SHOWN_DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// When a rule applies. Two windows are equal if the file says the same of both.
#[derive(Clone, Debug)]
pub(super) struct Window {
    written: Written,
    /// Seconds since Monday 00:00 on the clock there: disjoint, sorted, joined.
    week: Vec<(i64, i64)>,
    /// Seconds since 1970: not before, and not from then on.
    since: i64,
    until: i64,
}

/// A window as the file has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Written {
    /// Monday first; all where the file names none.
    days: [bool; 7],
    /// Of a day; empty: all of it.
    hours: Vec<Hours>,
    zone: Arc<Zone>,
    from: Option<Moment>,
    /// A day is meant to its end.
    until: Option<Moment>,
}

/// Minutes since midnight: `22:00-06:00` ends on the next day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Hours {
    start: u16,
    end: u16,
}

/// What the clock shows: seconds since 1970 as if it were in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Moment {
    local: i64,
    whole_day: bool,
}

impl Window {
    fn new(written: Written) -> Window {
        let zone = &written.zone;
        let since = written.from.map(|from| zone.first(from.local));
        let until = written.until.map(|until| match until.whole_day {
            true => zone.first(until.local + DAY),
            false => zone.first(until.local),
        });
        Window {
            week: week(&written),
            since: since.unwrap_or(i64::MIN),
            until: until.unwrap_or(i64::MAX),
            written,
        }
    }

    /// Is it open? Costs two short binary searches.
    pub(super) fn is_open(&self, now: Wall) -> bool {
        self.is_open_at(seconds(now))
    }

    /// The first moment after `after` at which it opens or closes.
    pub(super) fn next_change(&self, after: Wall) -> Option<Wall> {
        let change = self.change_after(seconds(after))?;
        let nanos = u64::try_from(change).ok()?.checked_mul(1_000_000_000)?;
        Some(Wall(nanos))
    }

    /// It is closed, and stays so.
    pub(super) fn is_over(&self, now: Wall) -> bool {
        !self.is_open(now) && self.next_change(now).is_none()
    }

    /// The first moment from `start` on at which it is open.
    pub(super) fn first_open(&self, start: Wall) -> Option<Wall> {
        if self.is_open(start) {
            Some(start)
        } else {
            self.next_change(start)
        }
    }

    /// Why it is open or not: `open mon-fri 07:00-20:00 Europe/Berlin; it is Sat 03:12 there, it
    /// opens Mon 07:00`.
    pub(super) fn sentence(&self, now: Wall) -> String {
        let (now, open) = (seconds(now), self.is_open(now));
        let change = self.change_after(now);
        // Without a date, a day of the week means the next one.
        let dated = change.is_none_or(|change| change >= now + 6 * DAY);
        let shown = |t: i64| {
            Clock {
                local: t + self.written.zone.offset(t),
                dated,
            }
            .to_string()
        };
        let then = match (open, change) {
            (true, Some(change)) => format!("it closes {}", shown(change)),
            (false, Some(change)) => format!("it opens {}", shown(change)),
            (true, None) => "it stays open".to_owned(),
            (false, None) => "it opens no more".to_owned(),
        };
        format!("open {self}; it is {} there, {then}", shown(now))
    }

    fn is_open_at(&self, t: i64) -> bool {
        self.since <= t && t < self.until && self.shows(t)
    }

    /// The clock shows one of its hours, whatever the date.
    fn shows(&self, t: i64) -> bool {
        let second = second_of_week(t + self.written.zone.offset(t));
        let after = self.week.partition_point(|(start, _)| *start <= second);
        let last = after.checked_sub(1).and_then(|i| self.week.get(i));
        last.is_some_and(|(_, end)| second < *end)
    }

    fn change_after(&self, t: i64) -> Option<i64> {
        if t >= self.until {
            return None;
        }
        let open = self.is_open_at(t);
        let (t, change) = if t >= self.since {
            (t, None)
        } else if self.is_open_at(self.since) {
            (t, Some(self.since))
        } else {
            (self.since, None)
        };
        let change = change.or_else(|| self.shown_change_after(t));
        match change.filter(|change| *change < self.until) {
            Some(change) => Some(change),
            None => Some(self.until).filter(|until| open && *until < i64::MAX),
        }
    }

    /// The next moment at which what the clock shows begins or ceases to fit.
    fn shown_change_after(&self, t: i64) -> Option<i64> {
        let (shows, mut t) = (self.shows(t), t);
        // As long as the zone keeps its offset, the clock runs straight to the next edge.
        loop {
            let (offset, end) = self.written.zone.span(t);
            let edge = t + self.to_edge(second_of_week(t + offset))?;
            if edge < end {
                return Some(edge);
            }
            if self.shows(end) != shows {
                return Some(end);
            }
            t = end;
        }
    }

    /// Seconds on the clock until the hours next begin or end; none if they are the whole week.
    fn to_edge(&self, second: i64) -> Option<i64> {
        let edges = self.week.iter().flat_map(|(start, end)| [*start, *end]);
        // The end of the week is no edge if the next one goes on.
        let joined = self.week.first().is_some_and(|first| first.0 == 0)
            && self.week.last().is_some_and(|last| last.1 == WEEK);
        let edges = edges.filter(|edge| !(joined && edge % WEEK == 0));
        let ahead = edges.map(|edge| match (edge - second).rem_euclid(WEEK) {
            0 => WEEK,
            ahead => ahead,
        });
        ahead.min()
    }
}

impl PartialEq for Window {
    fn eq(&self, other: &Self) -> bool {
        self.written == other.written
    }
}

impl Eq for Window {}

impl Hash for Window {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.written.hash(state);
    }
}

impl fmt::Display for Window {
    /// `mon-fri 07:00-20:00 Europe/Berlin until 2027-01-31`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Written {
            days,
            hours,
            zone,
            from,
            until,
        } = &self.written;
        let mut parts = Vec::new();
        if days.contains(&false) {
            parts.push(shown_days(days));
        }
        if !hours.is_empty() {
            let hours: Vec<String> = hours.iter().map(Hours::to_string).collect();
            parts.push(hours.join(", "));
        }
        let weekly = !parts.is_empty();
        if weekly {
            parts.push(zone.name.to_owned());
        }
        parts.extend(from.map(|from| format!("from {from}")));
        parts.extend(until.map(|until| format!("until {until}")));
        if !weekly {
            parts.push(zone.name.to_owned());
        }
        f.write_str(&parts.join(" "))
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Hours { start, end } = self;
        let (from, to) = (start / 60, end / 60);
        write!(f, "{from:02}:{:02}-{to:02}:{:02}", start % 60, end % 60)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = date_time(self.local);
        match self.whole_day {
            true => shown.date().fmt(f),
            false => write!(
                f,
                "{} {:02}:{:02}",
                shown.date(),
                shown.hour(),
                shown.minute()
            ),
        }
    }
}

/// `Sat 03:12`, or `2026-11-21 03:12`.
struct Clock {
    local: i64,
    dated: bool,
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = date_time(self.local);
        let day = usize::try_from(second_of_week(self.local) / DAY).ok();
        match day
            .and_then(|day| SHOWN_DAYS.get(day))
            .filter(|_| !self.dated)
        {
            Some(day) => f.write_str(day)?,
            None => shown.date().fmt(f)?,
        }
        write!(f, " {:02}:{:02}", shown.hour(), shown.minute())
    }
}

/// The hours of every day as one week.
fn week(written: &Written) -> Vec<(i64, i64)> {
    let mut week = Vec::new();
    for (start, _) in (0..)
        .step_by(86_400)
        .zip(written.days)
        .filter(|(_, on)| *on)
    {
        if written.hours.is_empty() {
            week.push((start, start + DAY));
        }
        for hours in &written.hours {
            let (from, to) = (i64::from(hours.start) * 60, i64::from(hours.end) * 60);
            let end = start + if to > from { to } else { to + DAY };
            week.push((start + from, end.min(WEEK)));
            if end > WEEK {
                week.push((0, end - WEEK));
            }
        }
    }
    week.sort_unstable();
    let mut joined: Vec<(i64, i64)> = Vec::new();
    for (start, end) in week {
        match joined.last_mut().filter(|last| start <= last.1) {
            Some(last) => last.1 = last.1.max(end),
            None => joined.push((start, end)),
        }
    }
    joined
}

/// `mon-wed, fri`: three and more in a row as a range, over the end of the week too.
fn shown_days(days: &[bool; 7]) -> String {
    let mut shown = Vec::new();
    let on = |day: usize| days[day % 7];
    for start in (0..7).filter(|day| on(*day) && !on(day + 6)) {
        let len = (0..7).take_while(|step| on(start + step)).count();
        match len {
            1 | 2 => shown.extend((start..start + len).map(|day| DAYS[day % 7].to_owned())),
            _ => shown.push(format!("{}-{}", DAYS[start], DAYS[(start + len - 1) % 7])),
        }
    }
    shown.join(", ")
}

fn seconds(now: Wall) -> i64 {
    i64::try_from(now.seconds()).unwrap_or(i64::MAX)
}

/// 1970 began on a Thursday.
fn second_of_week(local: i64) -> i64 {
    (local + 3 * DAY).rem_euclid(WEEK)
}

fn date_time(local: i64) -> DateTime {
    let moment = Timestamp::from_second(local).unwrap_or(Timestamp::MAX);
    Offset::UTC.to_datetime(moment)
}
