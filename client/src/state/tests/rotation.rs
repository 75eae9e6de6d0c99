//! Another key for the same device.
use super::*;
use crate::state::KeyChange;

fn other() -> PrivateKey {
    PrivateKey::from_random([9; 32])
}

fn try_key(world: &mut World) {
    world
        .client
        .try_key(other(), None, 11, &mut world.out, world.now)
        .expect("a key of its own");
}

#[test]
fn a_new_key_takes_over_when_the_gateway_answers_it_and_nothing_on_its_way_is_lost() {
    let mut world = connected_with_traffic();
    let first = world.device;
    let late = sealed(&mut world, b"late");
    world.device = world
        .gateway
        .add(other().public(), &Settings::default(), None)
        .expect("room");
    try_key(&mut world);
    assert_eq!(
        world.client.take_key_change(),
        None,
        "the old key serves until then"
    );
    assert!(world.client.is_connected(world.now));
    world.exchange();

    assert_eq!(world.client.take_key_change(), Some(KeyChange::InUse));
    assert_eq!(*world.client.our_key(), other().public());
    let mut packet = udp(CLIENT, 5000, TARGET, 22, b"out");
    world
        .client
        .from_tun(&mut packet, &mut world.out, world.now);
    let sent = world.gateway.peer(world.device).expect("there").received();
    world.exchange();
    let after = world.gateway.peer(world.device).expect("there").received();
    assert_eq!(after.packets - sent.packets, 1, "out under the new key");
    assert_eq!(
        world.inbound(&udp(TARGET, 22, CLIENT, 5000, b"in")),
        Outcome::Passed
    );

    let from = world.gateway_at.into();
    let outcome = world
        .client
        .from_network(from, Ecn::NotEct, &late, &mut world.out, world.now);
    assert_eq!(
        outcome,
        Outcome::Passed,
        "it was on its way under the old key"
    );
    world.pass(Duration::from_secs(6));
    world.device = first;
    let late = sealed(&mut world, b"too late");
    let outcome = world
        .client
        .from_network(from, Ecn::NotEct, &late, &mut world.out, world.now);
    assert!(matches!(outcome, Outcome::Dropped(_)), "{outcome:?}");
}

#[test]
fn a_key_that_nobody_answers_is_given_up_and_the_old_one_stays() {
    let mut world = connected_with_traffic();
    let before = *world.client.our_key();
    try_key(&mut world);
    for _ in 0..14 {
        world.exchange();
        world.pass(Duration::from_secs(5));
        // The old key lives as long as it is used.
        let mut packet = udp(CLIENT, 5000, TARGET, 22, b"out");
        world
            .client
            .from_tun(&mut packet, &mut world.out, world.now);
    }
    assert_eq!(world.client.take_key_change(), Some(KeyChange::GivenUp));
    assert_eq!(*world.client.our_key(), before);
    assert!(world.client.is_connected(world.now));
}

#[test]
fn of_two_keys_the_one_that_the_gateway_knows_is_found_after_a_crash() {
    let mut world = World::new(&[endpoint(1)]);
    world.gateway.remove(world.device);
    world.device = world
        .gateway
        .add(other().public(), &Settings::default(), None)
        .expect("room");
    try_key(&mut world);
    world.exchange();
    assert_eq!(world.client.take_key_change(), Some(KeyChange::InUse));
    assert!(world.client.is_connected(world.now));
}

fn connected_with_traffic() -> World {
    let mut world = World::connected();
    assert_eq!(
        world.inbound(&udp(TARGET, 22, CLIENT, 5000, b"in")),
        Outcome::Passed
    );
    world
}

/// What the gateway seals for the device, still on its way.
fn sealed(world: &mut World, payload: &[u8]) -> Vec<u8> {
    let packet = udp(TARGET, 22, CLIENT, 5000, payload);
    world
        .gateway
        .send(world.device, &packet, &mut world.gateway_out, world.now)
        .expect("the gateway has a key");
    world.gateway_out.datagrams.pop().expect("sealed").1
}
