use super::super::error::Faults;
use super::super::yaml;
use super::*;
use jiff::civil::{DateTime, Weekday};
use jiff::tz::{TimeZone, TimeZoneDatabase};
use proptest::prelude::*;

fn window(source: &str) -> Arc<Window> {
    let mut faults = Faults::new(source);
    let node = yaml::parse(source, &mut faults).unwrap();
    let window = Windows::default().read(Some(&node), None, &mut faults);
    let Some(window) = window else {
        panic!("{}", faults.finish());
    };
    assert!(faults.is_empty());
    window
}

fn zone(name: &str) -> TimeZone {
    TimeZoneDatabase::bundled().get(name).unwrap()
}

/// A moment of RFC 3339.
fn at(text: &str) -> Wall {
    let moment: Timestamp = text.parse().unwrap();
    Wall(u64::try_from(moment.as_nanosecond()).unwrap())
}

/// When the window opens and closes from `start` on, at most `count` moments.
fn changes(window: &Window, start: &str, count: usize) -> Vec<String> {
    let mut now = at(start);
    let mut found = Vec::new();
    for _ in 0..count {
        let Some(change) = window.next_change(now) else {
            break;
        };
        let opens = window.is_open(change);
        assert_ne!(opens, window.is_open(Wall(change.0 - 1)));
        let moment = Timestamp::from_second(seconds(change)).unwrap();
        found.push(format!(
            "{} {moment}",
            if opens { "opens" } else { "closes" }
        ));
        now = change;
    }
    found
}

#[test]
fn a_working_week_opens_and_closes_by_the_clock_there() {
    let office = window("{days: [mon-fri], hours: '07:00-20:00', zone: Europe/Berlin}");
    // Friday, 2026-10-23: summer time ends on the Sunday.
    assert_eq!(
        changes(&office, "2026-10-23T12:00:00Z", 3),
        [
            "closes 2026-10-23T18:00:00Z",
            "opens 2026-10-26T06:00:00Z",
            "closes 2026-10-26T19:00:00Z"
        ]
    );
}

#[test]
fn an_hour_that_a_day_leaves_out_does_not_come() {
    let night = window("{hours: '02:00-03:00', zone: Europe/Berlin}");
    assert_eq!(
        changes(&night, "2026-03-28T00:00:00Z", 4),
        [
            "opens 2026-03-28T01:00:00Z",
            "closes 2026-03-28T02:00:00Z",
            "opens 2026-03-30T00:00:00Z",
            "closes 2026-03-30T01:00:00Z"
        ]
    );
    let sundays = window("{days: [sun], hours: '02:30-02:45', zone: Europe/Berlin}");
    assert_eq!(
        changes(&sundays, "2026-03-22T12:00:00Z", 1),
        ["opens 2026-04-05T00:30:00Z"]
    );
    let around = window("{hours: '01:30-02:30', zone: Europe/Berlin}");
    assert_eq!(
        changes(&around, "2026-03-29T00:00:00Z", 2),
        ["opens 2026-03-29T00:30:00Z", "closes 2026-03-29T01:00:00Z"]
    );
}

#[test]
fn an_hour_that_a_day_has_twice_counts_twice() {
    let night = window("{hours: '02:00-03:00', zone: Europe/Berlin}");
    assert_eq!(
        changes(&night, "2026-10-24T12:00:00Z", 2),
        ["opens 2026-10-25T00:00:00Z", "closes 2026-10-25T02:00:00Z"]
    );
    let quarter = window("{hours: '02:30-02:45', zone: Europe/Berlin}");
    assert_eq!(
        changes(&quarter, "2026-10-24T12:00:00Z", 4),
        [
            "opens 2026-10-25T00:30:00Z",
            "closes 2026-10-25T00:45:00Z",
            "opens 2026-10-25T01:30:00Z",
            "closes 2026-10-25T01:45:00Z"
        ]
    );
}

#[test]
fn a_day_that_begins_at_one_begins_there() {
    // Beirut puts its clocks forward at midnight.
    let sundays = window("{days: [sun], zone: Asia/Beirut}");
    assert_eq!(
        changes(&sundays, "2026-03-28T12:00:00Z", 2),
        ["opens 2026-03-28T22:00:00Z", "closes 2026-03-29T21:00:00Z"]
    );
    let once = window("{from: 2026-03-29, until: 2026-03-29, zone: Asia/Beirut}");
    assert_eq!(
        changes(&once, "2026-03-01T00:00:00Z", 9),
        ["opens 2026-03-28T22:00:00Z", "closes 2026-03-29T21:00:00Z"]
    );
}

#[test]
fn a_window_over_midnight_belongs_to_the_day_on_which_it_begins() {
    let nights = window("{days: [fri, sun], hours: '22:00-06:00'}");
    assert_eq!(
        changes(&nights, "2026-11-20T12:00:00Z", 4),
        [
            "opens 2026-11-20T22:00:00Z",
            "closes 2026-11-21T06:00:00Z",
            "opens 2026-11-22T22:00:00Z",
            "closes 2026-11-23T06:00:00Z"
        ]
    );
}

#[test]
fn a_weekend_that_wraps_is_one_window() {
    let weekend = window("{days: [sat-mon]}");
    assert_eq!(
        changes(&weekend, "2026-11-20T12:00:00Z", 3),
        [
            "opens 2026-11-21T00:00:00Z",
            "closes 2026-11-24T00:00:00Z",
            "opens 2026-11-28T00:00:00Z"
        ]
    );
}

#[test]
fn hours_that_fill_the_day_never_close() {
    let always = window("{hours: ['00:00-12:00', '12:00-24:00'], zone: Europe/Berlin}");
    assert!(always.is_open(at("2026-03-29T01:00:00Z")));
    assert_eq!(always.next_change(Wall(0)), None);
}

#[test]
fn from_and_until_bound_the_hours() {
    let window = window(
        "{days: [mon-fri], hours: '07:00-20:00', zone: Europe/Berlin,
          from: 2026-12-01 09:00, until: 2026-12-02}",
    );
    assert_eq!(
        changes(&window, "2026-11-22T00:00:00Z", 9),
        [
            "opens 2026-12-01T08:00:00Z",
            "closes 2026-12-01T19:00:00Z",
            "opens 2026-12-02T06:00:00Z",
            "closes 2026-12-02T19:00:00Z"
        ]
    );
    assert!(!window.is_over(at("2026-12-02T18:59:59Z")));
    assert!(window.is_over(at("2026-12-02T19:00:00Z")));
}

#[test]
fn a_date_and_time_is_the_first_moment_at_which_the_clock_shows_it() {
    let twice = window("{until: 2026-10-25 02:30, zone: Europe/Berlin}");
    assert_eq!(
        changes(&twice, "2026-10-01T00:00:00Z", 9),
        ["closes 2026-10-25T00:30:00Z"]
    );
    let never = window("{from: 2026-03-29 02:30, zone: Europe/Berlin}");
    assert_eq!(
        changes(&never, "2026-03-01T00:00:00Z", 9),
        ["opens 2026-03-29T01:00:00Z"]
    );
}

#[test]
fn until_holds_to_the_end_of_its_day_in_the_zone() {
    let window = window("{until: 2027-01-31, zone: America/New_York}");
    assert!(window.is_open(Wall(0)));
    assert_eq!(
        changes(&window, "2026-11-22T00:00:00Z", 9),
        ["closes 2027-02-01T05:00:00Z"]
    );
}

#[test]
fn a_window_reads_as_the_file_has_it() {
    for (source, shown) in [
        (
            "{days: [mon-fri], hours: '07:00-20:00', zone: Europe/Berlin, until: 2027-01-31}",
            "mon-fri 07:00-20:00 Europe/Berlin until 2027-01-31",
        ),
        ("{days: [fri-mon]}", "fri-mon UTC"),
        ("{days: [sat, sun, wed]}", "wed, sat, sun UTC"),
        (
            "{days: [mon-sun], hours: ['22:00-06:00', '12:00-13:30']}",
            "22:00-06:00, 12:00-13:30 UTC",
        ),
        ("{until: 2027-01-31 18:00}", "until 2027-01-31 18:00 UTC"),
        (
            "{from: 2026-12-01, until: 2027-01-31, zone: Asia/Tokyo}",
            "from 2026-12-01 until 2027-01-31 Asia/Tokyo",
        ),
    ] {
        assert_eq!(window(source).to_string(), shown);
    }
}

#[test]
fn the_sentence_says_what_the_clock_there_shows_and_what_comes() {
    let office = window("{days: [mon-fri], hours: '07:00-20:00', zone: Europe/Berlin}");
    let open = "open mon-fri 07:00-20:00 Europe/Berlin";
    assert_eq!(
        office.sentence(at("2026-11-21T02:12:00Z")),
        format!("{open}; it is Sat 03:12 there, it opens Mon 07:00")
    );
    assert_eq!(
        office.sentence(at("2026-11-23T18:59:59Z")),
        format!("{open}; it is Mon 19:59 there, it closes Mon 20:00")
    );
    let once = window("{from: 2026-12-01, until: 2027-01-31}");
    assert_eq!(
        once.sentence(at("2026-11-22T18:00:00Z")),
        "open from 2026-12-01 until 2027-01-31 UTC; it is 2026-11-22 18:00 there, it opens \
         2026-12-01 00:00"
    );
    assert_eq!(
        once.sentence(at("2027-02-03T18:00:00Z")),
        "open from 2026-12-01 until 2027-01-31 UTC; it is 2027-02-03 18:00 there, it opens no more"
    );
}

#[test]
fn every_zone_of_the_database_is_laid_out_as_it_runs() {
    for name in TimeZoneDatabase::bundled().available() {
        let name = name.to_string();
        let Some(laid_out) = Zone::find(&name) else {
            panic!("{name}");
        };
        let zone = zone(&name);
        // Every hundred days, and where it changes.
        let days = (0..80_000).step_by(100).map(|day| day * DAY + 1234);
        let changes = zone.following(Timestamp::UNIX_EPOCH).take(300);
        let changes = changes.map(|change| change.timestamp().as_second());
        let before = changes.clone().map(|t| t - 1);
        for t in days
            .chain(changes)
            .chain(before)
            .filter(|t| *t < 7_258_118_400)
        {
            let there = zone.to_offset(Timestamp::from_second(t).unwrap());
            assert_eq!(
                laid_out.offset(t),
                i64::from(there.seconds()),
                "{name} at {t}"
            );
        }
    }
}

/// What is asked of the naive evaluator: a minute on the clock.
fn naive(written: &Written, tz: &TimeZone, t: i64) -> bool {
    let clock = tz.to_datetime(Timestamp::from_second(t).unwrap());
    let on = |day: Weekday| written.days[usize::try_from(day.to_monday_zero_offset()).unwrap()];
    let minute = u16::try_from(i32::from(clock.hour()) * 60 + i32::from(clock.minute())).unwrap();
    let today = on(clock.weekday());
    let yesterday = on(clock.date().yesterday().unwrap().weekday());
    let shown = written.hours.is_empty() && today
        || written
            .hours
            .iter()
            .any(|hours| match hours.start < hours.end {
                true => today && hours.start <= minute && minute < hours.end,
                false => today && minute >= hours.start || yesterday && minute < hours.end,
            });
    let date = |moment: Moment| -> DateTime { date_time(moment.local) };
    // Dates only: from the first to the last day, as the calendar there shows it.
    shown
        && written
            .from
            .is_none_or(|from| date(from).date() <= clock.date())
        && written
            .until
            .is_none_or(|until| clock.date() <= date(until).date())
}

fn hours() -> impl Strategy<Value = Vec<Hours>> {
    let one = (0u16..48, 0u16..=48).prop_filter("of some length", |(a, b)| a != b);
    let one = one.prop_map(|(a, b)| Hours {
        start: a * 30,
        end: b * 30,
    });
    proptest::collection::vec(one, 0..3)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Every minute of ten days around a change of the clocks.
    #[test]
    fn agrees_with_the_clock_minute_by_minute(
        name in proptest::sample::select(&[
            "Europe/Berlin", "America/New_York", "America/Santiago", "Asia/Beirut", "Africa/Cairo",
            "America/Havana", "Australia/Lord_Howe", "Africa/Casablanca", "Pacific/Chatham",
            "Asia/Kolkata", "Atlantic/Azores", "UTC",
        ][..]),
        change in 0usize..8,
        days: [bool; 7],
        hours in hours(),
        from in proptest::option::of(-6i64..4),
        until in proptest::option::of(-4i64..6),
    ) {
        prop_assume!(days.contains(&true));
        let tz = zone(name);
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let middle = tz.following(start).nth(change).map_or(start, |change| change.timestamp());
        let middle = middle.as_second();
        let day = |offset: i64| Moment { local: (middle / DAY + offset) * DAY, whole_day: true };
        let written = Written {
            days,
            hours,
            zone: Arc::new(Zone::find(name).unwrap()),
            from: from.map(day),
            until: until.map(day),
        };
        let window = Window::new(written.clone());
        let (first, last) = (middle - 5 * DAY, middle + 5 * DAY);
        let wall = |t: i64| Wall(u64::try_from(t).unwrap() * 1_000_000_000);
        let mut promised = window.next_change(wall(first));
        let mut was = window.is_open(wall(first));
        for t in (first..last).step_by(60) {
            let open = window.is_open(wall(t));
            prop_assert_eq!(open, naive(&written, &tz, t), "{} at {}", window, t);
            if t > first {
                prop_assert_eq!(open != was, promised == Some(wall(t)), "{} at {}", window, t);
            }
            if open != was {
                promised = window.next_change(wall(t));
            }
            was = open;
        }
    }
}
