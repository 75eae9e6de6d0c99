//! Probes on the wire: what leaves, how long it is, and what an answer changes.

use super::*;
use postern_proto::mtu::WIREGUARD_OVERHEAD;
use postern_proto::path_mtu::Known;

/// Carries datagrams for some time, as long as they are not longer than an inner packet of
/// `fits` bytes makes them. The gateway answers probes. Returns the lengths of those that left.
fn carry(world: &mut World, fits: usize, time: Duration) -> Vec<usize> {
    let mut probes = Vec::new();
    let end = world.now.mono + time;
    loop {
        let out = std::mem::take(&mut world.out.datagrams);
        for (_, datagram) in out {
            if datagram.len() > fits + WIREGUARD_OVERHEAD {
                probes.push(datagram.len());
                continue;
            }
            let inbound = world.gateway.receive(
                world.client_at.into(),
                Ecn::NotEct,
                &datagram,
                &mut world.gateway_out,
                world.now,
            );
            if let Inbound::Packet { len, .. } = inbound {
                let packet = world.gateway_out.packet()[..len].to_vec();
                let view = PacketView::parse(&packet).expect("a packet");
                let payload = control::payload(&view, GATEWAY.into());
                if let Some(Ok(Message::Probe { id, .. })) = payload.map(Message::parse) {
                    probes.push(datagram.len());
                    answer(world, id, len);
                }
            }
        }
        for (_, datagram) in std::mem::take(&mut world.gateway_out.datagrams) {
            world.client.from_network(
                world.gateway_at.into(),
                Ecn::NotEct,
                &datagram,
                &mut world.out,
                world.now,
            );
        }
        let next = world.client.next_deadline();
        if world.out.datagrams.is_empty() {
            if next > end {
                world.now = world.now.after(end.since(world.now.mono));
                return probes;
            }
            world.now = world.now.after(next.since(world.now.mono));
        }
        world.client.timeout(&mut world.out, world.now);
    }
}

fn answer(world: &mut World, id: u32, len: usize) {
    let mut packet = [0; PACKET_ROOM];
    let len = Message::ProbeAnswer { id }
        .write_padded(GATEWAY.into(), CLIENT.into(), len, &mut packet)
        .expect("room");
    world
        .gateway
        .send(
            world.device,
            &packet[..len],
            &mut world.gateway_out,
            world.now,
        )
        .expect("a key");
}

#[test]
fn a_handshake_asks_once_and_the_datagram_is_as_long_as_a_full_one() {
    let mut world = World::new(&[endpoint(1)]);
    let probes = carry(&mut world, 1420, Duration::from_secs(8));
    assert_eq!(probes[0], 1420 + WIREGUARD_OVERHEAD);
    assert_eq!(probes.len(), 2, "and one small one, the first time");
    assert!(probes[1] < 200);
    let status = world.client.status(world.now);
    assert_eq!((status.mtu, status.path), (1420, Known::Passes));
}

#[test]
fn a_smaller_path_lowers_the_mtu_and_the_mss_in_both_directions_and_a_roam_asks_again() {
    let mut world = World::new(&[endpoint(1)]);
    carry(&mut world, 1340, Duration::from_secs(8));
    assert_eq!(world.client.mtu(), 1328);

    let mut syn = [0; 64];
    let mut len =
        reply::tcp_reset((CLIENT.into(), 9), (TARGET.into(), 22), 1, None, &mut syn).expect("room");
    syn[33] = 2;
    syn[32] = 6 << 4;
    syn[len..len + 4].copy_from_slice(&[2, 4, 0x05, 0xb4]);
    len += 4;
    syn[3] += 4;
    let sum = u16::from_be_bytes([syn[10], syn[11]]) - 4;
    syn[10..12].copy_from_slice(&sum.to_be_bytes());
    let outcome = world
        .client
        .from_tun(&mut syn[..len], &mut world.out, world.now);
    assert_eq!(outcome, Outcome::Passed);
    assert_eq!(syn[len - 2..len], (1328_u16 - 40).to_be_bytes());

    world.client.moved(&mut world.out, world.now);
    carry(&mut world, 1500, Duration::from_secs(2));
    assert_eq!(world.client.mtu(), 1420);
}

#[test]
fn a_server_that_answers_nothing_keeps_its_mtu_and_no_probe_asks_for_a_key() {
    let mut world = World::connected();
    world.pass(Duration::from_secs(30));
    assert_eq!(world.client.mtu(), 1420);
    assert_eq!(world.client.status(world.now).path, Known::Nothing);
    world.pass(Duration::from_secs(300));
    world.out.datagrams.clear();
    // The key is too old by now. Handshakes are tried, as the gateway is silent; nothing else.
    world.client.refused_as_too_long(world.now);
    world.pass(Duration::from_secs(3600));
    assert!(world.out.datagrams.iter().all(|(_, sent)| sent[0] == 1));
}

#[test]
fn an_answer_that_was_never_asked_for_changes_nothing() {
    let mut world = World::connected();
    let drops = world.client.status(world.now).drops;
    answer(&mut world, 77, 1420);
    answer(&mut world, 0, 1420);
    world.exchange();
    let status = world.client.status(world.now);
    assert_eq!((status.mtu, status.path), (1420, Known::Nothing));
    assert_eq!(status.drops, drops);
}
