//! Windows as people write them; every fault at once.

use super::super::error::Faults;
use super::super::fields::{Fields, list, word};
use super::super::nearest::nearest;
use super::super::yaml::{Node, Value};
use super::zone::Zone;

use super::{DAYS, Hours, Moment, Window, Written};
use foldhash::fast::FixedState;
use hashbrown::HashMap;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::Offset;
use postern_proto::now::Wall;
use std::collections::BTreeMap;
use std::sync::Arc;

/// The windows of a file, each once, and the zones that they name.
#[derive(Default)]
pub(in super::super) struct Windows {
    /// In the order of the file.
    pub(in super::super) list: Vec<Arc<Window>>,
    known: HashMap<Window, Arc<Window>, FixedState>,
    /// None where there is no such zone.
    zones: BTreeMap<String, Option<Arc<Zone>>>,
}

/// Where no zone is named.
const UTC: &str = "UTC";
const EXAMPLE: &str =
    "write `when: { days: [mon-fri], hours: \"07:00-20:00\", zone: Europe/Berlin }`";

impl Windows {
    /// The `when` of a rule together with its `until`; rules that say the same share it. None
    /// where neither stands there, or one has a fault.
    pub(in super::super) fn read(
        &mut self,
        when: Option<&Node>,
        until: Option<&Node>,
        faults: &mut Faults<'_>,
    ) -> Option<Arc<Window>> {
        let window = self.window(when, until, faults)?;
        if let Some(known) = self.known.get(&window) {
            return Some(known.clone());
        }
        let shared = Arc::new(window.clone());
        self.known.insert(window, shared.clone());
        self.list.push(shared.clone());
        Some(shared)
    }

    fn window(
        &mut self,
        when: Option<&Node>,
        until: Option<&Node>,
        faults: &mut Faults<'_>,
    ) -> Option<Window> {
        let node = when.or(until)?;
        let before = faults.len();
        let known = ["days", "hours", "zone", "from", "until"];
        let fields = match when {
            Some(Node {
                at,
                value: Value::Text(_) | Value::List(_) | Value::Null,
            }) => {
                faults.add(*at, "`when` does not say when", EXAMPLE);
                None
            }
            Some(when) => Fields::read(when, "`when`", &known, faults),
            None => None,
        };
        let get = |name| fields.as_ref().and_then(|fields| fields.get(name));
        let timed = ["days", "hours", "from", "until"]
            .into_iter()
            .any(|name| get(name).is_some());
        if let Some(when) = when
            && fields.is_some()
            && !timed
            && until.is_none()
            && faults.len() == before
        {
            faults.add(when.at, "`when` does not say when", EXAMPLE);
        }
        let zone = match get("zone") {
            Some(node) => self.zone_at(node, faults),
            None => self.zone(UTC),
        };
        let days = get("days").map(|node| days(node, faults));
        let hours = get("hours").map(|node| hours(node, faults));
        let from = get("from").map(|node| moment(node, "from", faults));
        if let (Some(node), Some(_)) = (until, get("until")) {
            let message = "`until` stands in the rule and in its `when`";
            faults.add(node.at, message, "keep one of them");
        }
        let until_at = get("until").or(until);
        let until = until_at.map(|node| moment(node, "until", faults));
        if faults.len() > before {
            return None;
        }
        let window = Window::new(Written {
            days: days.flatten().unwrap_or([true; 7]),
            hours: hours.flatten().unwrap_or_default(),
            zone: zone?,
            from: from.flatten(),
            until: until.flatten(),
        });
        if window.until <= window.since {
            let at = until_at.map_or(node.at, |node| node.at);
            faults.add(
                at,
                "`until` comes before `from`",
                "swap them, or correct the year",
            );
            return None;
        }
        if window.first_open(Wall(0)).is_none() {
            let help = "name days and hours that lie between `from` and `until`";
            faults.add(node.at, format!("the window never opens: {window}"), help);
            return None;
        }
        Some(window)
    }

    fn zone_at(&mut self, node: &Node, faults: &mut Faults<'_>) -> Option<Arc<Zone>> {
        let name = word(node, "`zone`", faults)?;
        let zone = self.zone(name);
        if zone.is_none() {
            faults.add(node.at, no_zone(name), meant_zone(name));
        }
        zone
    }

    fn zone(&mut self, name: &str) -> Option<Arc<Zone>> {
        if let Some(zone) = self.zones.get(name) {
            return zone.clone();
        }
        let zone = Zone::find(name).map(Arc::new);
        self.zones.insert(name.to_owned(), zone.clone());
        zone
    }
}

/// A moment as a test of the policy has it: `2026-12-01 09:00 Europe/Berlin`, UTC without a zone.
/// Otherwise what is wrong and what to write instead.
pub(in super::super) fn parse_at(text: &str) -> Result<Wall, (String, String)> {
    let (clock, zone) = match text.match_indices(' ').nth(1) {
        Some((space, _)) => (&text[..space], &text[space + 1..]),
        None => (text, UTC),
    };
    let Some(moment) = parse_moment(clock).filter(|moment| !moment.whole_day) else {
        let help = "write `\"2026-12-01 09:00 Europe/Berlin\"`";
        return Err((format!("`{text}` is no date and time"), help.to_owned()));
    };
    let zone = Zone::find(zone).ok_or_else(|| (no_zone(zone), meant_zone(zone)))?;
    let nanos = u64::try_from(zone.first(moment.local)).ok();
    let nanos = nanos.and_then(|seconds| seconds.checked_mul(1_000_000_000));
    let help = "write a year from 1970 to 2500";
    nanos
        .map(Wall)
        .ok_or_else(|| (format!("`{text}` is out of reach"), help.to_owned()))
}

fn no_zone(name: &str) -> String {
    format!("there is no time zone `{name}`")
}

fn meant_zone(name: &str) -> String {
    match Zone::meant(name) {
        Some(meant) => format!("did you mean `{meant}`?"),
        None => "write a name of the IANA database, such as `Europe/Berlin`, or `UTC`".to_owned(),
    }
}

/// `[mon-fri, sun]`
fn days(node: &Node, faults: &mut Faults<'_>) -> Option<[bool; 7]> {
    let items = list(node, "days", "`[mon-fri]`, or take the field out", faults)?;
    let mut days = [false; 7];
    for item in items {
        let Some(text) = word(item, "a day", faults) else {
            continue;
        };
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (day(first), day(last)) {
            (Some(first), Some(last)) => {
                let len = (last + 7 - first) % 7;
                (first..=first + len).for_each(|day| days[day % 7] = true);
            }
            (None, _) | (_, None) => {
                let meant: Option<Vec<&str>> = text.split('-').map(meant_day).collect();
                let help = match meant {
                    Some(meant) if meant.len() <= 2 => format!("did you mean `{}`?", meant.join("-")),
                    Some(_) | None => "write `mon`, `tue`, `wed`, `thu`, `fri`, `sat`, `sun`, or a range such as `mon-fri`".to_owned(),
                };
                faults.add(item.at, format!("`{text}` is no day of the week"), help);
            }
        }
    }
    Some(days)
}

fn day(text: &str) -> Option<usize> {
    DAYS.iter().position(|day| *day == text)
}

/// `Monday`, `Mo` and `mno` mean `mon`.
fn meant_day(text: &str) -> Option<&'static str> {
    let text = text.trim().to_lowercase();
    let long = DAYS.into_iter().find(|day| text.starts_with(day));
    let short = || {
        DAYS.into_iter()
            .find(|day| text.len() == 2 && day.starts_with(&text))
    };
    long.or_else(short).or_else(|| nearest(&text, DAYS))
}

/// `07:00-20:00`, or several of them.
fn hours(node: &Node, faults: &mut Faults<'_>) -> Option<Vec<Hours>> {
    let one = std::slice::from_ref(node);
    let items = match &node.value {
        Value::Text(_) => one,
        Value::Null | Value::List(_) | Value::Map(_) => list(
            node,
            "hours",
            "`\"07:00-20:00\"`, or take the field out",
            faults,
        )?,
    };
    let mut hours = Vec::new();
    for item in items {
        let Some(text) = word(item, "`hours`", faults) else {
            continue;
        };
        match span(text) {
            Some(span) if span.start == span.end => {
                let help = "write `00:00-24:00` for the whole day, or take the field out";
                faults.add(item.at, format!("`{text}` begins when it ends"), help);
            }
            Some(span) => hours.push(span),
            None => {
                let help = match meant_span(text) {
                    Some(meant) => format!("did you mean `\"{meant}\"`?"),
                    None => {
                        "write hours and minutes from 00:00 to 24:00, such as `\"07:00-20:00\"`"
                            .to_owned()
                    }
                };
                faults.add(item.at, format!("`{text}` are no hours"), help);
            }
        }
    }
    Some(hours)
}

fn span(text: &str) -> Option<Hours> {
    let (start, end) = text.split_once('-')?;
    let (start, end) = (minute(start)?, minute(end)?);
    (start < 24 * 60).then_some(Hours { start, end })
}

/// `HH:MM` as minutes since midnight; `24:00` is the end of the day.
fn minute(text: &str) -> Option<u16> {
    let (hour, minute) = text.split_once(':')?;
    let two = |digits: &str| {
        let well = digits.len() == 2 && digits.bytes().all(|c| c.is_ascii_digit());
        digits.parse::<u16>().ok().filter(|_| well)
    };
    let (hour, minute) = (two(hour)?, two(minute)?);
    let all = hour * 60 + minute;
    (minute < 60 && all <= 24 * 60).then_some(all)
}

/// `7-20`, `7:00 - 20:00` and `07.00-20.00` mean `07:00-20:00`; `9am-5pm` means `09:00-17:00`.
fn meant_span(text: &str) -> Option<Hours> {
    let text = text
        .to_lowercase()
        .replace(['–', '—'], "-")
        .replace(" to ", "-");
    let (start, end) = text.split_once('-')?;
    let meant = |text: &str| {
        let text = text.trim();
        let (text, later) = match (text.strip_suffix("am"), text.strip_suffix("pm")) {
            (Some(text), _) => (text.trim(), 0),
            (_, Some(text)) => (text.trim(), 12),
            (None, None) => (text, 0),
        };
        let (hour, rest) = text.split_once([':', '.', 'h']).unwrap_or((text, "00"));
        let hour = hour.parse::<u16>().ok().filter(|hour| *hour <= 24)?;
        let rest = if rest.is_empty() { "00" } else { rest };
        minute(&format!(
            "{:02}:{rest}",
            if hour < 12 { hour + later } else { hour }
        ))
    };
    let span = Hours {
        start: meant(start)?,
        end: meant(end)?,
    };
    (span.start < 24 * 60 && span.start != span.end).then_some(span)
}

/// `2027-01-31`, or `2027-01-31 18:00`.
fn moment(node: &Node, what: &str, faults: &mut Faults<'_>) -> Option<Moment> {
    let text = word(node, &format!("`{what}`"), faults)?;
    let parsed = parse_moment(text);
    if parsed.is_none() {
        let zoned = text.ends_with('Z') || text.contains('+');
        let help = match (meant_moment(text), zoned) {
            (_, true) => {
                "write the time as the clock in `zone` shows it: `2027-01-31 18:00`".to_owned()
            }
            (Some(meant), false) => format!("did you mean `{meant}`?"),
            (None, false) => {
                "write a date, `2027-01-31`, or a date and a time, `2027-01-31 18:00`".to_owned()
            }
        };
        faults.add(
            node.at,
            format!("`{text}` is neither a date nor a date and a time"),
            help,
        );
    }
    parsed
}

fn parse_moment(text: &str) -> Option<Moment> {
    let (day, time) = match text.split_once(' ') {
        Some((day, time)) => (day, Some(minute(time).filter(|minute| *minute < 24 * 60)?)),
        None => (text, None),
    };
    let shaped = day.len() == 10 && day.bytes().filter(|c| *c == b'-').count() == 2;
    let day = day.parse::<Date>().ok().filter(|_| shaped)?;
    let start = DateTime::from_parts(day, Time::midnight());
    let start = Offset::UTC.to_timestamp(start).ok()?.as_second();
    Some(Moment {
        local: start + i64::from(time.unwrap_or(0)) * 60,
        whole_day: time.is_none(),
    })
}

/// `2027-1-5`, `2027/01/05`, `31.01.2027` and `2027-01-31T18:00:00`.
fn meant_moment(text: &str) -> Option<Moment> {
    let (day, time) = text.split_once(['T', ' ']).unwrap_or((text, ""));
    let mut parts: Vec<&str> = day.split(['-', '/', '.']).collect();
    if day.contains('.') {
        parts.reverse();
    }
    let [year, month, day] = parts[..] else {
        return None;
    };
    let date = format!("{year:0>4}-{month:0>2}-{day:0>2}");
    let time: String = time.trim().chars().take(5).collect();
    parse_moment(format!("{date} {time}").trim_end())
}
