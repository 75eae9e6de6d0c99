use super::*;

const NAME: &str = "api.example.com";
const SECOND: Duration = Duration::from_secs(1);

fn start() -> Now {
    Now {
        mono: Mono(5_000_000_000),
        wall: Wall(1_795_323_643_000_000_000),
    }
}

fn pool() -> Pool {
    Pool {
        v4: "100.96.0.0/16".parse().expect("net"),
        v6: "fd00:1::/64".parse().expect("net"),
    }
}

fn addresses(list: &[&str]) -> Vec<IpAddr> {
    let list = list.iter();
    list.map(|one| one.parse().expect("address")).collect()
}

fn found(list: &[&str], seconds: u64) -> Family {
    Family::Found(
        addresses(list),
        SECOND * u32::try_from(seconds).expect("small"),
    )
}

fn failed() -> Family {
    Family::Failed("timed out".to_owned())
}

fn reply(v4: Family, v6: Family) -> Reply {
    Reply { v4, v6 }
}

fn only_v4(list: &[&str], seconds: u64) -> Reply {
    reply(found(list, seconds), Family::Nothing)
}

fn seen(table: &Table, now: Wall) -> NameView {
    table.views(&set(&[NAME]), now).remove(0)
}

fn wanting(names: &[&str]) -> Table {
    let mut table = Table::new(pool(), Vec::new(), start());
    table.want(&set(names), start().mono);
    table
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn meant(table: &Table) -> Option<Vec<IpAddr>> {
    table.answers().remove(NAME)
}

#[test]
fn both_families_are_one_answer_and_the_shorter_time_counts() {
    let mut table = wanting(&[NAME]);
    let now = start();
    assert_eq!(table.next(now.mono).as_deref(), Some(NAME));
    assert_eq!(
        meant(&table),
        None,
        "before the first answer it means nothing"
    );
    let both = reply(
        found(&["192.0.2.2", "192.0.2.1"], 300),
        found(&["2001:db8::1"], 30),
    );
    assert_eq!(table.replied(NAME, both.clone(), now), News::Addresses);
    let all = addresses(&["192.0.2.1", "192.0.2.2", "2001:db8::1"]);
    assert_eq!(meant(&table), Some(all));
    assert_eq!(table.due(), now.mono + 30 * SECOND);
    let later = now.after(30 * SECOND);
    assert_eq!(table.next(later.mono).as_deref(), Some(NAME));
    assert_eq!(
        table.replied(NAME, both, later),
        News::None,
        "the same again"
    );

    let fewer = only_v4(&["192.0.2.1"], 30);
    assert_eq!(table.replied(NAME, fewer, later), News::Addresses);
    assert_eq!(meant(&table), Some(addresses(&["192.0.2.1"])));
}

#[test]
fn an_answer_is_kept_for_five_seconds_to_an_hour() {
    for (ttl, kept) in [(0, 5), (4, 5), (7, 7), (3600, 3600), (86_400, 3600)] {
        let mut table = wanting(&[NAME]);
        table.replied(NAME, only_v4(&["192.0.2.1"], ttl), start());
        assert_eq!(table.due(), start().mono + kept * SECOND, "{ttl}");
    }
}

#[test]
fn a_failure_keeps_the_last_answer_and_is_told_once() {
    for bad in [
        reply(failed(), failed()),
        reply(Family::Nothing, Family::Nothing),
        reply(failed(), Family::Nothing),
        only_v4(&["127.0.0.1"], 60),
    ] {
        let mut table = wanting(&[NAME]);
        table.replied(NAME, only_v4(&["192.0.2.1"], 60), start());
        let mut waits = Vec::new();
        let mut now = start();
        for turn in 0..7 {
            now = now.after(60 * SECOND);
            let news = table.replied(NAME, bad.clone(), now);
            let first = if turn == 0 { News::Failing } else { News::None };
            assert_eq!(news, first, "{bad:?}");
            assert_eq!(meant(&table), Some(addresses(&["192.0.2.1"])), "{bad:?}");
            waits.push(table.due().since(now.mono).as_secs());
        }
        assert_eq!(waits, [5, 10, 20, 40, 60, 60, 60]);
        let view = seen(&table, now.wall);
        assert_eq!((view.age, view.failures), (Some(420), 7));
        assert!(view.failing.is_some(), "{bad:?}");

        let good = only_v4(&["192.0.2.1"], 60);
        assert_eq!(table.replied(NAME, good, now), News::Mended);
        let view = seen(&table, now.wall);
        assert_eq!((view.age, view.failing), (Some(0), None));
    }
}

#[test]
fn half_an_answer_does_not_take_away_the_other_half() {
    let mut table = wanting(&[NAME]);
    let both = reply(found(&["192.0.2.1"], 60), found(&["2001:db8::1"], 60));
    table.replied(NAME, both, start());
    let later = start().after(60 * SECOND);
    let half = reply(found(&["192.0.2.2"], 3), failed());
    assert_eq!(table.replied(NAME, half, later), News::Addresses);
    assert_eq!(
        meant(&table),
        Some(addresses(&["192.0.2.2", "2001:db8::1"]))
    );
    let view = seen(&table, later.wall);
    assert_eq!(
        (view.age, view.failing.as_deref()),
        (Some(60), Some("timed out"))
    );
    assert_eq!(table.due(), later.mono + 5 * SECOND);
}

#[test]
fn what_cannot_be_a_target_is_left_out_and_said() {
    let mut table = wanting(&[NAME]);
    let mixed = only_v4(&["192.0.2.1", "127.0.0.1", "100.96.0.1"], 60);
    table.replied(NAME, mixed, start());
    assert_eq!(meant(&table), Some(addresses(&["192.0.2.1"])));
    let view = seen(&table, start().wall);
    assert_eq!(
        view.refused,
        [
            "127.0.0.1 is a loopback address",
            "100.96.0.1 is inside the tunnel's own pool"
        ]
    );
    assert_eq!(view.failing, None, "the rest is good");
}

#[test]
fn names_and_addresses_are_bounded() {
    let names: Vec<String> = (0..=MAX_NAMES)
        .map(|n| format!("n{n:04}.example.com"))
        .collect();
    let mut table = Table::new(pool(), Vec::new(), start());
    table.want(&names.iter().cloned().collect(), start().mono);
    assert_eq!(table.left_out(), 1);
    let mut asked = 0;
    while let Some(name) = table.next(start().mono) {
        let many = (0..200).map(|n| IpAddr::from([10, 0, 0, n])).collect();
        table.replied(
            &name,
            reply(Family::Found(many, 60 * SECOND), Family::Nothing),
            start(),
        );
        asked += 1;
    }
    assert_eq!(asked, MAX_NAMES);
    assert!(
        table
            .answers()
            .values()
            .all(|one| one.len() == MAX_ADDRESSES)
    );
    let view = table.views(&set(&["n0000.example.com"]), start().wall);
    assert_eq!(view[0].refused, ["136 more than 64"]);

    // Policy after policy with names of its own.
    for round in 0..4 {
        let names = (0..MAX_NAMES).map(|n| format!("r{round}n{n}.example.com"));
        table.want(&names.collect(), start().mono);
        table.forget(start().mono);
        assert!(table.names.len() <= 2 * MAX_NAMES);
    }
}

#[test]
fn a_name_is_remembered_for_a_day_after_the_last_policy_that_knows_it() {
    let mut table = wanting(&[NAME]);
    table.replied(NAME, only_v4(&["192.0.2.1"], 60), start());
    table.want(&BTreeSet::new(), start().mono);
    assert!(table.views(&BTreeSet::new(), start().wall).is_empty());
    let almost = start().after(REMEMBERED - SECOND);
    assert!(table.forget(almost.mono).is_empty());
    assert_eq!(table.next(almost.mono), None, "nobody asks for it");
    table.want(&set(&[NAME]), almost.mono);
    assert_eq!(meant(&table), Some(addresses(&["192.0.2.1"])), "at once");
    assert_eq!(table.next(almost.mono).as_deref(), Some(NAME));

    table.want(&BTreeSet::new(), almost.mono);
    let late = almost.after(REMEMBERED);
    assert_eq!(table.forget(late.mono), [NAME]);
    assert_eq!(meant(&table), None);
}

#[test]
fn a_restart_begins_with_what_the_store_knows() {
    let stored = |list: &[&str]| StoredName {
        name: NAME.to_owned(),
        addresses: addresses(list),
        since: Wall(1),
        until: None,
        checked: start().wall,
        ttl: 60,
    };
    // The pool may be another one since.
    let known = vec![stored(&["192.0.2.1", "100.96.0.9"])];
    let later = start().after(7 * SECOND);
    let mut table = Table::new(pool(), known, later);
    assert_eq!(meant(&table), Some(addresses(&["192.0.2.1"])));
    assert!(table.unknown(&set(&[NAME])).is_empty());
    table.want(&set(&[NAME]), later.mono);
    assert_eq!(seen(&table, later.wall).age, Some(7));
    assert_eq!(
        table.next(later.mono).as_deref(),
        Some(NAME),
        "and is asked at once"
    );
    assert!(table.unnoted(false).is_empty(), "the store has it");
}

#[test]
fn what_the_store_does_not_know_is_owed_until_it_does() {
    let mut table = wanting(&[NAME]);
    table.replied(NAME, only_v4(&["192.0.2.1"], 60), start());
    let owed = table.unnoted(false);
    assert_eq!(owed.len(), 1);
    let later = start().after(60 * SECOND);
    table.replied(NAME, only_v4(&["192.0.2.2"], 60), later);
    table.noted(&owed);
    let still = table.unnoted(false);
    assert_eq!(
        still[0].addresses,
        addresses(&["192.0.2.2"]),
        "it changed meanwhile"
    );
    table.noted(&still);
    assert!(table.unnoted(false).is_empty());
    assert_eq!(table.unnoted(true).len(), 1, "heard again");
}
