//! The control API's packets are the client's own.
use super::*;
use postern_proto::packet::TcpFlags;

/// A bare segment with right checksums: the answer to a SYN is what this crate can write.
fn segment(from: ([u8; 4], u16), to: ([u8; 4], u16)) -> Vec<u8> {
    let mut syn = vec![0; 40];
    syn[0] = 0x45;
    syn[3] = 40;
    syn[8] = 64;
    syn[9] = 6;
    syn[12..16].copy_from_slice(&to.0);
    syn[16..20].copy_from_slice(&from.0);
    syn[20..22].copy_from_slice(&to.1.to_be_bytes());
    syn[22..24].copy_from_slice(&from.1.to_be_bytes());
    syn[32] = 5 << 4;
    syn[33] = TcpFlags::SYN.0;
    let view = PacketView::parse(&syn).expect("a segment");
    let mut answer = [0; PACKET_ROOM];
    let len = reply::refuse(&view, &mut answer).expect("a reset");
    answer[..len].to_vec()
}

#[test]
fn what_the_control_api_says_is_for_the_client_and_never_for_the_host() {
    let mut world = World::connected();
    let packet = segment((GATEWAY, PORT), (CLIENT, 50_000));
    assert_eq!(world.inbound(&packet), Outcome::Consumed);
    assert_eq!(world.out.packets, Vec::<Vec<u8>>::new());
    assert_eq!(world.client.take_control().collect::<Vec<_>>(), [packet]);

    let other = segment((GATEWAY, 22), (CLIENT, 50_000));
    assert_eq!(world.inbound(&other), Outcome::Passed);
    assert_eq!(world.client.take_control().count(), 0);
}

#[test]
fn no_program_of_the_laptop_reaches_the_control_api() {
    let mut world = World::connected();
    let mut packet = segment((CLIENT, 50_000), (GATEWAY, PORT));
    let outcome = world
        .client
        .from_tun(&mut packet, &mut world.out, world.now);
    assert_eq!(outcome, Outcome::Dropped(DropReason::NotIncluded));
    let outcome = world
        .client
        .send_control(&mut packet, &mut world.out, world.now);
    assert_eq!(outcome, Outcome::Passed);
    assert_eq!(world.exchange(), [packet]);

    let mut elsewhere = segment((CLIENT, 50_000), (TARGET, PORT));
    let outcome = world
        .client
        .send_control(&mut elsewhere, &mut world.out, world.now);
    assert_eq!(outcome, Outcome::Dropped(DropReason::NotIncluded));
}

#[test]
fn what_nobody_takes_is_bounded() {
    let mut world = World::connected();
    let packet = segment((GATEWAY, PORT), (CLIENT, 50_000));
    for _ in 0..CONTROL_PACKETS {
        assert_eq!(world.inbound(&packet), Outcome::Consumed);
    }
    assert_eq!(
        world.inbound(&packet),
        Outcome::Dropped(DropReason::ControlBusy)
    );
}

#[test]
fn the_include_list_changes_while_the_tunnel_is_up() {
    let mut world = World::connected();
    let mut packet = udp(CLIENT, 5000, [198, 51, 100, 9], 22, b"new");
    let mut send = |world: &mut World| {
        world
            .client
            .from_tun(&mut packet, &mut world.out, world.now)
    };
    assert_eq!(send(&mut world), Outcome::Dropped(DropReason::NotIncluded));
    world
        .client
        .set_include(&["198.51.100.9/32".parse().expect("a prefix")]);
    assert_eq!(send(&mut world), Outcome::Passed);
}

#[test]
fn a_notice_of_a_change_is_told_once() {
    let mut world = World::connected();
    assert!(!world.client.take_changed());
    let mut packet = [0; 1420];
    let len = Message::Changed
        .write(GATEWAY.into(), CLIENT.into(), &mut packet)
        .expect("fits");
    assert_eq!(world.inbound(&packet[..len]), Outcome::Consumed);
    assert!(world.client.take_changed());
    assert!(!world.client.take_changed());
}
