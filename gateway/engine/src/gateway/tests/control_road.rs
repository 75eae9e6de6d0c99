use super::*;
use postern_proto::{device_api, invitation};
use std::net::Ipv6Addr;

const API: (&str, u16) = ("100.96.0.1", device_api::PORT);
const GUEST: &str = "fd70:6f73:7465:726e::77";

/// Makes laptop 0 one that has nothing but a throw-away key.
fn guest() -> World {
    let mut world = World::new(&[]);
    world.enrol(|device| {
        device.addresses = vec![ip(GUEST)];
        device.user = None;
        device.groups = vec!["platform".to_owned()];
        device.standing.guest = true;
    });
    world
}

fn enrolment() -> (String, u16) {
    (invitation::GATEWAY.to_string(), device_api::PORT)
}

#[test]
fn the_control_api_gets_the_packet_with_the_key_that_decrypted_it_and_no_target_does() {
    let mut world = World::new(&["platform", "platform"]);
    let syn = tcp(SYN, LAPTOP, API, 100, 0);
    world.send(0, &syn);
    let taken: Vec<_> = world.gateway.take_control().collect();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].key, world.laptops[0].peers.our_key().to_owned());
    assert_eq!(taken[0].outer, world.laptops[0].address);
    assert_eq!(taken[0].packet, syn);
    assert!(world.target.is_empty() && world.gateway.flows().is_empty());
    assert!(world.records().is_empty(), "an API has its own audit");
    // With the address of another it is nobody's.
    world.send(1, &syn);
    assert_eq!(world.gateway.take_control().count(), 0);
    assert_eq!(world.drops(DropReason::SpoofedSource), 1);
}

#[test]
fn only_that_port_of_the_gateway_is_the_control_api() {
    let mut world = World::new(&["platform"]);
    for to in [
        (API.0, 22),
        ("192.0.2.10", device_api::PORT),
        ("100.96.0.3", device_api::PORT),
    ] {
        world.send(0, &tcp(SYN, LAPTOP, to, 100, 0));
    }
    let (address, port) = enrolment();
    assert!(
        !is_v4(&address),
        "a device with IPv4 alone cannot even name it"
    );
    assert_eq!(port, API.1);
    assert_eq!(world.gateway.take_control().count(), 0);
    assert!(world.target.is_empty());
}

fn is_v4(text: &str) -> bool {
    text.parse::<Ipv6Addr>().is_err()
}

#[test]
fn the_api_answers_its_device_and_speaks_as_nobody_else() {
    let mut world = World::new(&["platform", "platform"]);
    let key = *world.laptops[0].peers.our_key();
    let say = |world: &mut World, packet: &[u8]| {
        let mut outs = Outs::default();
        world
            .gateway
            .send_control(&key, packet, &mut outs, world.now);
        world.laptops_take(outs, &mut Outs::default())
    };
    let answer = tcp(SYN | ACK, API, LAPTOP, 1, 101);
    assert_eq!(say(&mut world, &answer), [answer]);
    for (from, to) in [
        (KUBE, LAPTOP),
        ((API.0, 22), LAPTOP),
        (API, ("100.96.0.3", 4000)),
    ] {
        assert!(say(&mut world, &tcp(ACK, from, to, 1, 101)).is_empty());
    }
    assert!(say(&mut world, &udp(API, LAPTOP)).is_empty());
    assert_eq!(world.drops(DropReason::BadControl), 4);
}

#[test]
fn a_guest_reaches_the_enrolment_api_and_nothing_else() {
    let mut world = guest();
    let (api, port) = enrolment();
    world.send(0, &tcp(SYN, (GUEST, 4000), (&api, port), 1, 0));
    assert_eq!(world.gateway.take_control().count(), 1);
    let wide = "
version: 1
targets:
  all: { addresses: [\"2001:db8::/32\", \"fd70:6f73:7465::/48\"], ports: [1-65535/tcp] }
rules:
  - { name: everybody, action: allow, from: anyone, to: [all] }
";
    world.gateway.set_policy(policy(wide), world.now.mono);
    for (to, port) in [
        ("2001:db8::10", 6443),
        (api.as_str(), 22),
        ("fd70:6f73:7465:726e::78", port),
    ] {
        let answers = world.send(0, &tcp(SYN, (GUEST, 4000), (to, port), 1, 0));
        assert!(flags(&answers[0]).has(TcpFlags::RST), "{to} {port}");
    }
    world.send(0, &udp((GUEST, 4000), (&api, port)));
    assert!(world.target.is_empty());
    assert_eq!(world.gateway.take_control().count(), 0);
    assert_eq!(world.drops(DropReason::NotEnrolled), 4);
    let records = world.records();
    assert!(!records.is_empty());
    for record in records {
        let Detail::Denied(denied) = &record.detail else {
            panic!("{record:?}")
        };
        assert_eq!(denied.deny_reason, "not-enrolled");
    }
}

#[test]
fn nothing_grows_when_a_guest_floods_and_others_are_heard() {
    let mut world = guest();
    world.enrol(|device| device.addresses = vec![ip("100.96.0.9")]);
    let (api, port) = enrolment();
    for n in 0..2000 {
        world.send(0, &tcp(SYN, (GUEST, 1000 + n), (&api, port), 1, 0));
        world.send(0, &tcp(SYN, (GUEST, 1000 + n), ("2001:db8::10", n), 1, 0));
    }
    let waiting = world.gateway.control_waiting();
    assert!((1..=CONTROL_QUEUE / 2).contains(&waiting), "{waiting}");
    assert!(world.gateway.flows().is_empty());
    assert!(world.gateway.denial_windows() < 300);
    assert!(world.records().len() < 300);
    assert_eq!(
        world.drops(DropReason::ControlBusy),
        2000 - u64::try_from(waiting).expect("few")
    );
    world.send(1, &tcp(SYN, ("100.96.0.9", 1), API, 1, 0));
    let last = world.gateway.take_control().last().expect("some");
    assert_eq!(&last.key, world.laptops[1].peers.our_key());
}

#[test]
fn two_laptops_never_share_a_throw_away_key() {
    let mut world = guest();
    let (api, port) = enrolment();
    let other = world.another(PrivateKey::from_random([10; 32]), 99);
    let ask = |world: &mut World, laptop| {
        world.send(laptop, &tcp(SYN, (GUEST, 4000), (&api, port), 1, 0));
        let taken: Vec<_> = world.gateway.take_control().collect();
        taken.into_iter().map(|packet| packet.outer).next()
    };
    let [first, second] = [0, other].map(|one| world.laptops[one].address);
    world.connect(other);
    assert_eq!(world.drops(DropReason::KeyBusy), 1, "and not answered");
    assert_eq!(ask(&mut world, 0), Some(first));
    world.tick(Duration::from_millis(9_999));
    world.connect(other);
    assert_eq!(world.drops(DropReason::KeyBusy), 2);
    // The first has gone: its place is free, and now it is the other that cannot be disturbed.
    world.tick(Duration::from_secs(6));
    world.connect(other);
    assert_eq!(ask(&mut world, other), Some(second));
    assert_eq!(ask(&mut world, 0), None);
    assert_eq!(world.drops(DropReason::KeyBusy), 3);
}

#[test]
fn a_device_may_be_somewhere_else_at_once() {
    let mut world = World::new(&["platform"]);
    let other = world.another(PrivateKey::from_random([10; 32]), 99);
    world.connect(other);
    world.send(other, &tcp(SYN, LAPTOP, KUBE, 1, 0));
    assert_eq!(world.target.len(), 1);
    assert_eq!(world.drops(DropReason::KeyBusy), 0);
}
