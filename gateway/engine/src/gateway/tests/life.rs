//! Rules in shadow, rules that ask where the device is, and grants.

use super::rotation::next_key;
use super::standing::{last_closed, update};
use super::*;
use crate::record::{Decision, Shadow};

pub(super) const TARGETS: &str = "
version: 1
targets:
  kube-api: { addresses: [192.0.2.10], ports: [6443/tcp] }
  nodes: { addresses: [192.0.2.20], ports: [22/tcp] }
";
const NODE: (&str, u16) = ("192.0.2.20", 22);

fn with_rules(rules: &str) -> World {
    let mut world = World::new(&["platform"]);
    put(&mut world, rules);
    world
}

fn put(world: &mut World, rules: &str) {
    world
        .gateway
        .set_policy(policy(&format!("{TARGETS}{rules}")), world.now.mono);
    world.tick(Duration::from_millis(1));
}

fn at(laptop: &mut Laptop, address: &str) {
    laptop.address = address.parse().expect("literal");
}

const SHADOWS: &str = "rules:
  - { name: no more kubectl, action: deny, mode: shadow, from: { groups: [platform] }, to: [kube-api] }
  - { name: kubectl, action: allow, from: { groups: [platform] }, to: [kube-api] }
  - { name: ssh for all, action: allow, mode: shadow, from: { groups: [platform] }, to: [nodes] }
";

#[test]
fn records_say_what_rules_in_shadow_would_have_decided_and_nothing_else_changes() {
    let mut world = with_rules(SHADOWS);
    world.send(0, &tcp(SYN, LAPTOP, KUBE, 100, 0));
    world.send(0, &tcp(SYN, LAPTOP, NODE, 100, 0));
    assert_eq!(world.target.len(), 1);
    put(&mut world, &SHADOWS.replace("no more", "yet no more"));
    world.gateway.shut_down(&mut Outs::default(), world.now);
    let would = |verdict, rule: &str| {
        let rule = rule.to_owned();
        Some(Shadow { verdict, rule })
    };
    let records = world.records();
    let said: Vec<_> = records
        .iter()
        .map(|record| (record.state, record.rule.as_str(), record.shadow.clone()))
        .collect();
    use crate::record::State;
    assert_eq!(
        said,
        [
            (
                State::Open,
                "kubectl",
                would(Decision::Deny, "no more kubectl")
            ),
            (
                State::Denied,
                "default",
                would(Decision::Allow, "ssh for all")
            ),
            (
                State::Closed,
                "kubectl",
                would(Decision::Deny, "yet no more kubectl")
            ),
        ]
    );
    let counts = world.gateway.rule_counts();
    let shadows: Vec<_> = counts.shadows().collect();
    let (ssh, count) = shadows[0];
    assert_eq!(
        (ssh, count.allow.denied, shadows.len()),
        ("ssh for all", 1, 1)
    );
}

#[test]
fn a_device_that_is_held_has_no_shadow() {
    let mut world = with_rules(SHADOWS);
    update(&mut world, 0, |device| {
        device.standing.held = Some(crate::standing::Held::Approval);
    });
    world.send(0, &tcp(SYN, LAPTOP, NODE, 100, 0));
    assert_eq!(world.records()[0].shadow, None);
    assert_eq!(world.gateway.rule_counts().shadows().count(), 0);
}

const OFFICE: &str = "rules:
  - { name: kubectl, action: allow, from: { groups: [platform], outer: [198.51.100.0/24] }, to: [kube-api] }
";

#[test]
fn a_device_that_leaves_the_place_that_a_rule_asks_for_loses_what_it_had_at_once() {
    let mut world = with_rules(OFFICE);
    let silent = ("100.96.0.2", 4001);
    for from in [LAPTOP, silent] {
        world.send(0, &tcp(SYN, from, KUBE, 100, 0));
        world.reply(&tcp(SYN | ACK, KUBE, from, 900, 101));
    }
    // Facts from the control plane do not know where it is.
    let (cut, _) = update(&mut world, 0, |device| device.standing.outer = None);
    assert_eq!(cut, 0);
    // Another port of the same address is no other place.
    at(&mut world.laptops[0], "198.51.100.0:6000");
    world.target.clear();
    world.send(0, &tcp(ACK, LAPTOP, KUBE, 101, 901));
    assert_eq!(world.target.len(), 1);
    world.records();

    at(&mut world.laptops[0], "203.0.113.99:5000");
    world.target.clear();
    let heard = world.send(0, &tcp(ACK, LAPTOP, KUBE, 101, 901));
    assert!(!heard.is_empty() && heard.iter().all(|packet| flags(packet).has(TcpFlags::RST)));
    assert_eq!(world.target.len(), 2, "both targets hear of it");
    assert!(
        world
            .target
            .iter()
            .all(|packet| flags(packet).has(TcpFlags::RST))
    );
    for record in world.records() {
        let Detail::Closed(closed) = &record.detail else {
            panic!("{record:?}")
        };
        assert_eq!(closed.close_reason, CloseReason::Policy);
    }
    world.send(0, &tcp(SYN, ("100.96.0.2", 4002), KUBE, 100, 0));
    assert_eq!(world.target.len(), 2, "nor does anything new pass");

    // Back again, on a socket for both families.
    at(&mut world.laptops[0], "[::ffff:198.51.100.0]:5000");
    world.send(0, &tcp(SYN, ("100.96.0.2", 4003), KUBE, 100, 0));
    assert_eq!(world.target.len(), 3);
}

#[test]
fn a_keepalive_from_elsewhere_is_enough() {
    let mut world = with_rules(OFFICE);
    world.send(0, &tcp(SYN, LAPTOP, KUBE, 100, 0));
    world.reply(&tcp(SYN | ACK, KUBE, LAPTOP, 900, 101));
    at(&mut world.laptops[0], "203.0.113.99:5000");
    // The first message after an answer to a handshake is one.
    world.now = world.now.after(Duration::from_secs(130));
    world.connect(0);
    let (_, reason, _) = last_closed(&mut world);
    assert_eq!(reason, CloseReason::Policy);
}

const GRANTS: &str = "rules: [{ name: kubectl, action: allow, from: { groups: [nobody] }, to: [kube-api] }]
grants:
  - { name: nodes in an emergency, from: { groups: [platform] }, to: [nodes], max: 4h, break_glass: true }
";

/// A grant of a minute ago that lasts for another 100 seconds.
fn grant(world: &World) -> crate::standing::Grant {
    crate::standing::Grant {
        id: "g1".into(),
        entry: "nodes in an emergency".into(),
        target: "nodes".into(),
        reason: "INC-42".into(),
        break_glass: true,
        since: Wall(world.now.wall.0 - 60_000_000_000),
        until: Wall(world.now.wall.0 + 100_000_000_000),
    }
}

/// A flow to a node lives under a grant, and its record says so.
fn granted() -> World {
    let mut world = with_rules(GRANTS);
    let grant = grant(&world);
    update(&mut world, 0, |device| device.standing.grants = vec![grant]);
    world.send(0, &tcp(SYN, LAPTOP, NODE, 100, 0));
    world.reply(&tcp(SYN | ACK, NODE, LAPTOP, 900, 101));
    let open = serde_json::to_value(&world.records()[0]).expect("encodes");
    assert_eq!(open["rule"], "nodes in an emergency");
    assert_eq!(open["grant"], "g1");
    assert_eq!(open["grant_reason"], "INC-42");
    assert_eq!(open["break_glass"], true);
    assert_eq!(world.gateway.counters().break_glass_flows, 1);
    world.target.clear();
    world
}

#[test]
fn a_grant_ends_by_cutting_its_flows() {
    let mut world = granted();
    world.tick(Duration::from_secs(99));
    assert!(world.records().is_empty(), "it lives");
    world.tick(Duration::from_secs(1));
    let (record, reason, words) = last_closed(&mut world);
    assert_eq!(reason, CloseReason::GrantEnded);
    assert_eq!(record.rule, "nodes in an emergency");
    assert_eq!(record.grant.expect("named").id.as_ref(), "g1");
    let words = words.expect("words");
    assert!(words.contains("the grant g1 ended at 20"), "{words}");
    assert!(words.ends_with("run `postern request nodes`"), "{words}");
    assert!(flags(&world.target[0]).has(TcpFlags::RST));
    world.send(0, &tcp(SYN, ("100.96.0.2", 5000), NODE, 1, 0));
    assert_eq!(world.target.len(), 1, "nothing new passes");
}

#[test]
fn a_grant_that_is_revoked_cuts_and_another_takes_over() {
    let mut world = granted();
    let second = crate::standing::Grant {
        id: "g2".into(),
        ..grant(&world)
    };
    let (cut, _) = update(&mut world, 0, |device| {
        device.standing.grants = vec![second]
    });
    assert_eq!(cut, 0);
    let (cut, _) = update(&mut world, 0, |device| device.standing.grants.clear());
    assert_eq!(cut, 1);
    let (record, reason, words) = last_closed(&mut world);
    assert_eq!(reason, CloseReason::GrantEnded);
    assert_eq!(record.grant.expect("named").id.as_ref(), "g2");
    assert_eq!(words.as_deref(), Some("the grant g2 was revoked"));
}

#[test]
fn a_grant_that_time_ended_was_not_revoked_whoever_is_first_to_say_so() {
    let mut world = granted();
    world.now.wall = world.now.wall + Duration::from_secs(100);
    // The control plane has put it away before the worker looked at its clock.
    let (cut, _) = update(&mut world, 0, |device| device.standing.grants.clear());
    assert_eq!(cut, 1);
    let (_, reason, words) = last_closed(&mut world);
    assert_eq!(reason, CloseReason::GrantEnded);
    let words = words.expect("words");
    assert!(words.contains("the grant g1 ended at 20"), "{words}");

    let mut world = granted();
    put(&mut world, &GRANTS.replace("max: 4h", "max: 2m"));
    world.tick(Duration::from_secs(61));
    let (_, reason, words) = last_closed(&mut world);
    assert_eq!(reason, CloseReason::GrantEnded);
    let words = words.expect("words");
    assert!(words.contains("the grant g1 ended at 20"), "{words}");
}

#[test]
fn a_grant_whose_entry_is_gone_ends_with_the_policy() {
    let mut world = granted();
    put(
        &mut world,
        "rules: [{ name: kubectl, action: allow, from: { groups: [nobody] }, to: [kube-api] }]\n",
    );
    let (record, reason, _) = last_closed(&mut world);
    assert_eq!(reason, CloseReason::Policy);
    assert_eq!(record.grant.expect("named").id.as_ref(), "g1");
}

#[test]
fn a_record_of_later_refusals_says_how_it_was_at_the_first_of_them() {
    let mut world = World::new(&["guests"]);
    let port = |n| tcp(SYN, ("100.96.0.2", n), KUBE, 100, 0);
    world.send(0, &port(4000));
    update(&mut world, 0, |device| {
        device.standing.facts = Some("after".into());
    });
    at(&mut world.laptops[0], "203.0.113.99:5000");
    world.send(0, &port(4001));
    at(&mut world.laptops[0], "203.0.113.100:5000");
    world.send(0, &port(4002));
    world.tick(Duration::from_secs(11));
    let records = world.records();
    let said = records.iter().map(|record| {
        let facts = record.who.facts.as_deref();
        (facts, record.client_outer.clone(), record.attempts())
    });
    let outer = |at: &str| at.parse().ok().map(crate::record::Outer::Address);
    let first = (None, outer("198.51.100.0:5000"), 1);
    let later = (Some("after"), outer("203.0.113.99:5000"), 2);
    assert_eq!(said.collect::<Vec<_>>(), [first, later]);
}

#[test]
fn a_next_key_is_heard_from_where_it_is() {
    let mut world = with_rules(OFFICE);
    world.send(0, &tcp(SYN, LAPTOP, KUBE, 100, 0));
    world.reply(&tcp(SYN | ACK, KUBE, LAPTOP, 900, 101));
    world.records();
    let next = next_key(&mut world, 50);
    at(&mut world.laptops[next], "203.0.113.99:5000");
    world.connect(next);
    let (record, reason, _) = last_closed(&mut world);
    assert_eq!(reason, CloseReason::Policy, "{record:?}");
}
