use super::life::TARGETS;
use super::standing::{last_closed, login, update};
use super::*;
use crate::standing::Held;

/// Gives laptop 0 a next key, which the gateway accepts; returns the laptop's other self, which
/// is elsewhere on the Internet, so that what is sent to either can be told apart.
pub(super) fn next_key(world: &mut World, n: u8) -> usize {
    let own = PrivateKey::from_random([n; 32]);
    let key = *world.laptops[0].peers.our_key();
    let accepted = world.gateway.rotate_device(&key, own.public(), None);
    assert_eq!(accepted, Ok(()));
    world.another(own, n)
}

fn keys(world: &World) -> Vec<PublicKey> {
    let peers = world.gateway.peers().iter();
    peers.map(|peer| *peer.key()).collect()
}

#[test]
fn a_flow_survives_with_bytes_both_ways() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    world.send(0, &tcp(SYN, ("100.96.0.2", 4001), KUBE, 7, 0));
    let old = *world.laptops[0].peers.our_key();
    let next = next_key(&mut world, 50);
    let new = *world.laptops[next].peers.our_key();
    // Nobody uses it yet: nothing has changed.
    world.target.clear();
    world.send(0, &tcp(ACK, LAPTOP, KUBE, 101, 901));
    assert_eq!(world.target.len(), 1);
    assert!(world.gateway.take_rotated().is_empty());

    world.connect(next);
    assert_eq!(world.gateway.take_rotated(), [(old, new)]);
    assert_eq!(keys(&world), [new]);
    let down = tcp(ACK, KUBE, LAPTOP, 901, 101);
    let (heard, by) = world.reply_to(&down);
    assert_eq!((heard, by), (vec![down], Some(next)));
    world.target.clear();
    world.send(next, &tcp(ACK, LAPTOP, KUBE, 101, 901));
    assert_eq!(world.target.len(), 1);
    // The half-open one is still counted, and counted off.
    let half_open = |world: &World| {
        let (_, device) = world.gateway.devices().iter().next().expect("one");
        (device.flows, device.half_open, device.device.key)
    };
    assert_eq!(half_open(&world), (2, 1, new));
    world.reply(&tcp(SYN | ACK, KUBE, ("100.96.0.2", 4001), 9, 8));
    assert_eq!(half_open(&world), (2, 0, new));
    let closed = world.records();
    assert!(closed.iter().all(|record| record.state == State::Open));
    // The record of its end stands by itself: the key is the one in force.
    world.gateway.hand_over(world.now);
    let (record, ..) = last_closed(&mut world);
    assert_eq!(record.who.device_key, Some(new.fingerprint()));
}

#[test]
fn its_own_key_as_the_next_one_takes_the_next_one_back() {
    let mut world = World::new(&["platform"]);
    let own = *world.laptops[0].peers.our_key();
    let next = next_key(&mut world, 50);
    assert_eq!(keys(&world).len(), 2);
    world
        .gateway
        .rotate_device(&own, own, None)
        .expect_err("it has it");
    assert_eq!(keys(&world), [own]);
    world.connect(next);
    assert!(world.gateway.take_rotated().is_empty());
}

#[test]
fn the_old_key_is_dead_and_what_was_under_way_cuts_nothing() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    let next = next_key(&mut world, 50);
    let mut late = Outs::default();
    let (now, old) = (world.now, &mut world.laptops[0]);
    old.peers
        .send(
            old.gateway,
            &tcp(ACK, LAPTOP, KUBE, 101, 901),
            &mut late,
            now,
        )
        .expect("has a session");
    world.connect(next);
    world.target.clear();
    assert!(world.deliver(0, late).is_empty());
    assert!(world.target.is_empty());
    assert_eq!(world.drops(DropReason::UnknownIndex), 1);
    world.tick(Duration::from_secs(6));
    world.connect(0);
    assert_eq!(world.drops(DropReason::UnknownKey), 1, "it meets silence");
    world.send(next, &tcp(ACK, LAPTOP, KUBE, 101, 901));
    assert_eq!(world.target.len(), 1, "the flow lives");
}

#[test]
fn an_initiation_alone_which_anybody_may_repeat_changes_nothing() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    let next = next_key(&mut world, 50);
    let mut outs = Outs::default();
    let (now, side) = (world.now, &mut world.laptops[next]);
    side.peers.initiate(side.gateway, &mut outs, now);
    let (_, initiation) = outs.datagrams.remove(0);
    let from: SocketAddr = "192.0.2.250:9".parse().expect("literal");
    world
        .gateway
        .from_network(from.into(), Ecn::NotEct, &initiation, &mut outs, now);
    assert_eq!(outs.datagrams.len(), 1, "answered where it came from");
    assert!(world.gateway.take_rotated().is_empty());
    let (heard, by) = world.reply_to(&tcp(ACK, KUBE, LAPTOP, 901, 101));
    assert_eq!((heard.len(), by), (1, Some(0)));
}

#[test]
fn a_next_key_that_is_replaced_or_whose_device_goes_is_gone() {
    let mut world = World::new(&["platform"]);
    let first = next_key(&mut world, 50);
    let second = next_key(&mut world, 51);
    assert_eq!(world.gateway.peers().len(), 2);
    world.connect(first);
    assert_eq!(world.drops(DropReason::UnknownKey), 1);
    assert!(world.gateway.take_rotated().is_empty());
    let key = *world.laptops[0].peers.our_key();
    let (mut outs, now) = (Outs::default(), world.now);
    let gone = world
        .gateway
        .remove_device(&key, CloseReason::Revoked, now.mono, &mut outs, now);
    assert!(gone.is_some());
    world.connect(second);
    assert_eq!(world.drops(DropReason::UnknownKey), 2);
    assert!(world.gateway.peers().is_empty() && world.gateway.next.is_empty());
}

#[test]
fn asking_again_and_again_leaves_one_next_key() {
    let mut world = World::new(&["platform"]);
    for n in 50..150 {
        next_key(&mut world, n);
    }
    assert_eq!(world.gateway.peers().len(), 2);
    let last = world.laptops.len() - 1;
    // The same once more, as after a lost answer.
    let (key, next) = (
        *world.laptops[0].peers.our_key(),
        *world.laptops[last].peers.our_key(),
    );
    assert_eq!(world.gateway.rotate_device(&key, next, None), Ok(()));
    world.connect(last);
    assert_eq!(world.gateway.take_rotated(), [(key, next)]);
}

#[test]
fn a_command_that_names_the_key_before_reaches_its_device() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    let old = *world.laptops[0].peers.our_key();
    for n in 50..60 {
        let next = next_key(&mut world, n);
        world.connect(next);
        world.laptops.swap(0, next);
    }
    assert_eq!(world.gateway.former.len(), 1, "the last one only");
    assert_eq!(world.gateway.peers().len(), 1);
    assert!(world.gateway.find_device(&old).is_none());
    // The control plane has not heard of the last change.
    let next = next_key(&mut world, 99);
    world.connect(next);
    world.gateway.take_rotated();
    let (cut, _) = update(&mut world, 0, |device| {
        device.standing.held = Some(Held::UserDisabled);
    });
    assert_eq!(cut, 1);
    world.target.clear();
    let answer = world.send(next, &tcp(SYN, LAPTOP, KUBE, 1, 0));
    assert!(flags(&answer[0]).has(TcpFlags::RST) && world.target.is_empty());
    let key = *world.laptops[0].peers.our_key();
    let (mut outs, now) = (Outs::default(), world.now);
    let gone = world
        .gateway
        .remove_device(&key, CloseReason::Revoked, now.mono, &mut outs, now);
    assert!(gone.is_some());
    assert!(world.gateway.peers().is_empty() && world.gateway.former.is_empty());
}

#[test]
fn what_is_counted_and_what_is_due_go_with_the_device() {
    let mut world = World::new(&["platform"]);
    let session = login(&world);
    update(&mut world, 0, |device| {
        device.standing.session = Some(session);
        device.standing.session_required = true;
    });
    world.tick(Duration::from_secs(3595));
    world.connect(0);
    open(&mut world);
    world.send(0, &tcp(SYN, LAPTOP, SSH, 1, 0));
    world.send(0, &tcp(SYN, LAPTOP, SSH, 1, 0));
    let next = next_key(&mut world, 50);
    world.connect(next);
    world.send(next, &tcp(SYN, LAPTOP, SSH, 1, 0));
    let heard = world.tick(Duration::from_secs(5));
    assert!(flags(&heard[0]).has(TcpFlags::RST), "the login has ended");
    assert_eq!(world.gateway.closed(CloseReason::Session), 1);
    world.tick(Duration::from_secs(10));
    let records = world.records();
    let denied = records
        .iter()
        .filter(|record| record.state == State::Denied);
    assert_eq!(denied.map(Record::attempts).sum::<u64>(), 3);
    assert_eq!(world.gateway.denial_windows(), 0);
}

#[test]
fn only_a_free_key_can_be_the_next() {
    let mut world = World::new(&["platform", "platform"]);
    let (mine, theirs) = (
        *world.laptops[0].peers.our_key(),
        *world.laptops[1].peers.our_key(),
    );
    let gateway = PrivateKey::from_random([1; 32]).public();
    for taken in [mine, theirs, gateway] {
        assert!(world.gateway.rotate_device(&mine, taken, None).is_err());
    }
    let stranger = PrivateKey::from_random([77; 32]).public();
    assert!(
        world
            .gateway
            .rotate_device(&stranger, stranger, None)
            .is_err()
    );
    assert_eq!(world.gateway.peers().len(), 2);
}

/// Two changes in a row that the control plane has not heard of would leave it with a key that
/// names no device: nobody could cut it off.
#[test]
fn the_key_before_gets_no_next_key_and_is_no_new_device() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    let old = *world.laptops[0].peers.our_key();
    let next = next_key(&mut world, 50);
    world.connect(next);
    let third = PrivateKey::from_random([51; 32]).public();
    assert!(world.gateway.rotate_device(&old, third, None).is_err());
    let (mut outs, now) = (Outs::default(), world.now);
    let device = world.gateway.devices().iter().next().expect("one").1;
    let mut device = device.device.clone();
    device.key = old;
    let added = world.gateway.add_device(device, None, None, &mut outs, now);
    assert!(added.is_err());
    let gone = world
        .gateway
        .remove_device(&old, CloseReason::Revoked, now.mono, &mut outs, now);
    assert_eq!(gone, Some(Cut { flows: 1 }));
    assert!(world.gateway.peers().is_empty());
}

#[test]
fn a_next_key_that_comes_from_elsewhere_is_judged_by_where_it_is() {
    let mut world = World::new(&["platform"]);
    let rule = "{ name: kubectl, action: allow, from: { groups: [platform], outer: [OFFICE] }, \
                to: [kube-api] }";
    let source = |office: &str| format!("{TARGETS}rules: [{}]\n", rule.replace("OFFICE", office));
    let place = |world: &World| {
        let (_, device) = world.gateway.devices().iter().next().expect("one");
        device.device.standing.outer.expect("heard")
    };
    let office = place(&world).to_string();
    world
        .gateway
        .set_policy(policy(&source(&office)), world.now.mono);
    world.tick(Duration::from_millis(1));
    open(&mut world);
    let next = next_key(&mut world, 50);
    world.connect(next);
    assert_ne!(place(&world).to_string(), office);
    let (_, reason, _) = last_closed(&mut world);
    assert_eq!(reason, CloseReason::Policy);
}
