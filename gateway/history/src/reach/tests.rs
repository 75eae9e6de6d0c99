//! Effective access, against the verdict itself.

use super::*;
use postern_engine::standing::Session;
use proptest::prelude::*;

const POLICY: &str = r#"version: 1
targets:
  net: { addresses: [10.0.0.0/24], ports: [1-100/tcp] }
  half: { addresses: [10.0.0.0/25], ports: [1-100/tcp] }
  rest: { addresses: [10.0.0.128/25], ports: [1-50/tcp] }
  last: { addresses: [10.0.0.128/25], ports: [51-100/tcp] }
  db: { addresses: [10.0.1.5], ports: [5432/tcp] }
rules:
  - { name: no halves, action: deny, from: { groups: [half] }, to: [half] }
  - { name: no rest, action: deny, from: { groups: [rest] }, to: [rest] }
  - { name: no last, action: deny, from: { groups: [last] }, to: [last] }
  - { name: the net, action: allow, from: { groups: [staff] }, to: [net] }
  - { name: fresh, action: allow, from: { groups: [staff], session_age: 1h }, to: [db] }
  - { name: others, action: allow, from: { users: [zoe] }, to: [db] }
"#;

fn policy() -> Policy {
    Policy::parse(POLICY).expect("a good policy")
}

fn of(groups: &[&str]) -> Subject {
    Subject {
        user: Some("ana".into()),
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        device: "ana-laptop".into(),
        standing: Standing::default(),
    }
}

fn ways_of(who: &Subject) -> Vec<(String, Access)> {
    let found = reach(&policy(), who, NOW);
    let shown = |way: Way| (way.rule, way.access);
    found.ways.into_iter().map(shown).collect()
}

const NOW: Wall = Wall(1_000_000_000_000_000);

#[test]
fn a_way_is_open_or_closed_or_opens_by_what_the_user_does() {
    assert_eq!(
        ways_of(&of(&["staff"])),
        [
            ("the net".to_owned(), Access::Allow),
            ("fresh".to_owned(), Access::If),
            ("others".to_owned(), Access::Never)
        ]
    );
    let mut fresh = of(&["staff"]);
    fresh.standing.session = Some(Session {
        id: "s".into(),
        method: "oidc".into(),
        issuer: None,
        amr: Vec::new(),
        acr: None,
        since: NOW,
        until: None,
    });
    assert_eq!(ways_of(&fresh)[1].1, Access::Allow);
    let found = reach(&policy(), &fresh, NOW);
    assert_eq!(found.until, Some(Wall(NOW.0 + 3_600_000_000_000)));
}

#[test]
fn a_denial_before_takes_a_part_and_several_may_take_all() {
    let net = |groups: &[&str]| reach(&policy(), &of(groups), NOW).ways.remove(0);
    let part = net(&["half", "staff"]);
    assert_eq!(part.access, Access::Allow);
    assert_eq!(part.except.len(), 1);
    assert!(
        part.between().contains("except 10.0.0.0/25 1-100/tcp"),
        "{}",
        part.between()
    );
    assert_eq!(net(&["half", "rest", "staff"]).access, Access::Allow);
    let all = net(&["half", "last", "rest", "staff"]);
    assert_eq!(all.access, Access::Never);
    assert_eq!(
        all.between(),
        "denied first by rules \"no halves\", \"no rest\", \"no last\""
    );
}

#[test]
fn a_held_device_gets_nowhere_and_the_reason_comes_first() {
    let mut who = of(&["staff"]);
    who.standing.held = Some(Held::Approval);
    let found = reach(&policy(), &who, NOW);
    assert!(found.ways.iter().all(|way| way.access == Access::Never));
    assert!(found.held.is_some_and(|held| held.contains("approval")));
    who.standing.held = None;
    who.standing.session_required = true;
    assert_eq!(ways_of(&who)[0].1, Access::If, "a login mends it");
}

#[test]
fn who_can_lists_those_who_can_first() {
    let to = Place::from("10.0.1.5:5432/tcp".parse::<Tuple>().expect("a tuple"));
    let mut zoe = of(&[]);
    zoe.user = Some("zoe".into());
    zoe.device = "zoe-laptop".into();
    let mut bo = of(&["half"]);
    bo.user = Some("bo".into());
    let found = who_can(&policy(), &[of(&["staff"]), bo, zoe], &to, NOW);
    let rows: Vec<_> = found
        .rows
        .iter()
        .map(|row| (row.device.as_str(), row.way.access, row.way.rule.as_str()))
        .collect();
    assert_eq!(
        rows,
        [
            ("zoe-laptop", Access::Allow, "others"),
            ("ana-laptop", Access::If, "fresh")
        ]
    );
    assert_eq!(found.never, 1);
    assert!(found.rows[1].way.between().contains("younger than 1 h"));
}

#[test]
fn a_larger_place_is_looked_at_rule_by_rule() {
    let policy = policy();
    let target = policy
        .targets()
        .find(|target| target.target() == Some("half"));
    let half = Place::from(&target.expect("a target"));
    let found = who_can(
        &policy,
        &[of(&["staff"]), of(&["half", "staff"])],
        &half,
        NOW,
    );
    assert_eq!(found.rows.len(), 1);
    assert_eq!(found.rows[0].way.to, half, "the part that was asked for");
    assert_eq!(found.never, 1, "denied all of it");
}

#[test]
fn a_target_is_also_where_its_names_lead() {
    let text = r#"version: 1
targets:
  api: { names: [api.example.com], ports: [443/tcp] }
  old: { names: [old.example.com], ports: [443/tcp] }
rules:
  - { name: no old, action: deny, from: anyone, to: [old] }
  - { name: api, action: allow, from: { groups: [staff] }, to: [api] }
"#;
    let mut answers = postern_engine::policy::Answers::new();
    let at = |text: &str| text.parse().expect("an address");
    answers.insert(
        "api.example.com".into(),
        vec![at("203.0.113.7"), at("203.0.113.8")],
    );
    let can = |answers: &_| {
        let policy = Policy::compile(text, answers).expect("a good policy");
        let api = policy
            .targets()
            .find(|target| target.target() == Some("api"));
        let to = Place::from(&api.expect("a target"));
        who_can(&policy, &[of(&["staff"])], &to, NOW).rows
    };
    let rows = can(&answers);
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].way.access, Access::Allow);
    assert_eq!(
        rows[0].way.to.to_string(),
        "203.0.113.7, 203.0.113.8 443/tcp"
    );
    // A name that is denied first takes its part, and all of it in the end.
    answers.insert("old.example.com".into(), vec![at("203.0.113.8")]);
    let rows = can(&answers);
    assert_eq!(
        rows[0].way.except[0].part.to_string(),
        "203.0.113.8 443/tcp"
    );
    answers.insert(
        "old.example.com".into(),
        vec![at("203.0.113.7"), at("203.0.113.8")],
    );
    assert!(can(&answers).is_empty());
}

proptest! {
    /// A way that is open, but for its exceptions, is where the policy allows; and what the policy
    /// allows lies on an open way.
    #[test]
    fn reach_says_what_the_verdict_says(
        groups in prop::sample::subsequence(vec!["half", "last", "rest", "staff"], 0..=4),
        host in 0u8..=255, port in 1u16..=101,
    ) {
        let (policy, who) = (policy(), of(&groups));
        let to = Tuple {
            address: [10, 0, 0, host].into(),
            port,
            protocol: postern_proto::flow_key::Protocol::Tcp,
        };
        let here = Place::from(to);
        let found = reach(&policy, &who, NOW);
        let open = found.ways.iter().any(|way| {
            way.access == Access::Allow
                && way.to.overlaps(&here)
                && !way.except.iter().any(|except| except.part.overlaps(&here))
        });
        let allowed = policy.judge(&policy.index(&who), &to, NOW).allows();
        prop_assert_eq!(open, allowed);
        let can = who_can(&policy, &[who], &here, NOW);
        prop_assert_eq!(can.rows.iter().any(|row| row.way.access == Access::Allow), allowed);
    }
}

#[test]
fn who_finds_no_room_is_not_counted_among_those_who_cannot() {
    let policy = Policy::parse(
        "{ version: 1, rules: [{ name: ana, action: allow, from: { users: [ana] }, to: anything }] }",
    )
    .expect("a policy");
    let to = Place::from("192.0.2.1:22/tcp".parse::<Tuple>().expect("a tuple"));
    let named = |user: &str| Subject {
        user: Some(user.to_owned()),
        ..Subject::default()
    };
    let mut subjects = vec![named("ana"); MAX_ROWS + 2];
    subjects.push(named("bob"));
    let found = who_can(&policy, &subjects, &to, NOW);
    assert_eq!(
        (found.rows.len(), found.more, found.never),
        (MAX_ROWS, 2, 1)
    );
}
