//! Congestion marks (RFC 6040), as far as the client has a say.
use super::*;
use postern_proto::ecn;

#[test]
fn a_congestion_mark_reaches_the_program_or_costs_the_packet() {
    let mut world = World::connected();
    for (inner, outcome, arrives) in [
        (Ecn::NotEct, Outcome::Dropped(DropReason::EcnCe), None),
        (Ecn::Ect0, Outcome::Passed, Some(Ecn::Ce)),
    ] {
        let mut packet = udp(TARGET, 22, CLIENT, 5000, b"data");
        ecn::set(&mut packet, inner);
        world
            .gateway
            .send(world.device, &packet, &mut world.gateway_out, world.now)
            .expect("the gateway has a key");
        let (_, datagram) = world.gateway_out.datagrams.pop().expect("sealed");
        let from = world.gateway_at.into();
        let got = world
            .client
            .from_network(from, Ecn::Ce, &datagram, &mut world.out, world.now);
        assert_eq!(got, outcome);
        assert_eq!(
            world.out.packets.pop().map(|packet| Ecn::of(&packet)),
            arrives
        );
    }
    let drops = world.client.status(world.now).drops;
    assert_eq!(drops.get(DropReason::EcnCe), 1);
}

#[test]
fn marks_are_asked_for_once_the_gateway_is_known_to_pass_them_on() {
    let mut world = World::connected();
    let mut packet = udp(CLIENT, 5000, TARGET, 22, b"data");
    ecn::set(&mut packet, Ecn::Ect0);
    let outer = |world: &mut World| {
        let outcome = world
            .client
            .from_tun(&mut packet.clone(), &mut world.out, world.now);
        assert_eq!(outcome, Outcome::Passed);
        *world.out.marks.last().expect("sent")
    };
    assert_eq!(outer(&mut world), Ecn::NotEct, "it may be any WireGuard");
    let mut answer = [0; 1420];
    let len = Message::ProbeAnswer { id: 7 }
        .write(GATEWAY.into(), CLIENT.into(), &mut answer)
        .expect("fits");
    assert_eq!(world.inbound(&answer[..len]), Outcome::Consumed);
    assert_eq!(outer(&mut world), Ecn::Ect0);
}
