use super::*;
use postern_proto::packet::Transport;

const GATEWAY: &str = "100.96.0.1";

/// Room for `extra` bytes more behind a packet's headers; IPv4 only.
fn grown(mut packet: Vec<u8>, extra: usize, may_fragment: bool) -> Vec<u8> {
    packet.resize(packet.len() + extra, 0);
    let len = u16::try_from(packet.len()).expect("a packet");
    packet[2..4].copy_from_slice(&len.to_be_bytes());
    packet[6] = if may_fragment { 0 } else { 0x40 };
    packet[10..12].fill(0);
    let sum: u32 = packet[..20]
        .chunks(2)
        .map(|word| u32::from(word[0]) << 8 | u32::from(word[1]))
        .sum();
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("two carries are rare");
    packet[10..12].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// A segment of the target, `len` bytes with its headers.
fn segment(len: usize, may_fragment: bool) -> Vec<u8> {
    grown(tcp(ACK, KUBE, LAPTOP, 901, 101), len - 40, may_fragment)
}

/// A SYN with an MSS of 1460.
fn syn(flags: u8, from: (&str, u16), to: (&str, u16), ack: u32) -> Vec<u8> {
    let mut packet = grown(tcp(flags, from, to, 100, ack), 4, false);
    packet[32] = 6 << 4;
    packet[40..44].copy_from_slice(&[2, 4, 0x05, 0xb4]);
    packet
}

fn mss(packet: &[u8]) -> u16 {
    u16::from_be_bytes([packet[42], packet[43]])
}

fn probe(world: &mut World, laptop: usize, id: u32, mtu: u16, len: usize) -> Vec<Vec<u8>> {
    let from = world.laptops[laptop].inner;
    let mut packet = vec![0; 2000];
    let len = Message::Probe { id, mtu }
        .write_padded(from, ip(GATEWAY), len, &mut packet)
        .expect("room");
    world.send(laptop, &packet[..len])
}

#[test]
fn a_probe_is_answered_by_a_packet_as_long_and_by_nothing_else() {
    let mut world = World::new(&["platform"]);
    for (id, len) in [(1, 1420), (2, 1280), (3, 0)] {
        let answers = probe(&mut world, 0, id, 1420, len);
        let [answer] = answers.as_slice() else {
            panic!("one answer: {answers:?}");
        };
        let view = PacketView::parse(answer).expect("valid");
        assert_eq!(view.source, ip(GATEWAY));
        let payload = control::payload(&view, ip("100.96.0.2")).expect("control");
        assert_eq!(Message::parse(payload), Ok(Message::ProbeAnswer { id }));
        assert!(answer.len() == len || len == 0 && answer.len() < 120);
    }
    assert_eq!(world.gateway.counters().control_messages, 3);
    assert!(world.target.is_empty());
    assert!(world.records().is_empty());
}

#[test]
fn a_packet_that_the_path_to_the_device_does_not_carry_goes_back_as_too_big() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    assert_eq!(world.reply(&segment(1400, false)).len(), 1);
    probe(&mut world, 0, 1, 1328, 0);
    world.target.clear();

    assert_eq!(world.reply(&segment(1328, false)).len(), 1, "it fits");
    assert!(world.reply(&segment(1329, false)).is_empty());
    let answer = PacketView::parse(&world.target[0]).expect("valid");
    assert_eq!(answer.destination, ip("192.0.2.10"));
    let Transport::Error { about, too_big } = answer.transport else {
        panic!("{answer:?}");
    };
    assert!(too_big && about.is_some_and(|about| about.source == (ip(KUBE.0), KUBE.1)));
    assert_eq!(answer.transport_bytes()[6..8], 1328_u16.to_be_bytes());
    assert_eq!(world.drops(DropReason::TooBig), 1);
    assert_eq!(
        world.reply(&segment(1400, true)).len(),
        1,
        "what may be fragmented passes"
    );

    // What did not pass is not in the record.
    world.reply(&tcp(ACK | 4, KUBE, LAPTOP, 901, 101));
    let records = world.records();
    let Detail::Closed(closed) = &records[1].detail else {
        panic!("{:?}", records[1])
    };
    assert_eq!(closed.packets_in, 5);
}

#[test]
fn a_super_packet_goes_back_as_a_whole_by_one_answer() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    probe(&mut world, 0, 1, 1328, 0);
    world.target.clear();
    let mut outs = Outs::default();
    let whole = segment(40 + 3 * 1340, false);
    let now = world.now;
    let peer = world.gateway.from_target(&whole, 3, 1380, &mut outs, now);
    assert_eq!((peer, outs.packets.len()), (None, 1));
    assert_eq!(world.drops(DropReason::TooBig), 3);
    let whole = segment(40 + 3 * 1288, false);
    let peer = world.gateway.from_target(&whole, 3, 1328, &mut outs, now);
    assert!(peer.is_some());
}

#[test]
fn both_syns_are_clamped_to_the_mtu_of_the_device() {
    let mut world = World::new(&["platform"]);
    for (mtu, expected) in [(1420, 1380), (1328, 1288), (1420, 1380)] {
        probe(&mut world, 0, 1, mtu, 0);
        world.target.clear();
        world.send(0, &syn(SYN, LAPTOP, KUBE, 0));
        assert_eq!(mss(&world.target[0]), expected);
        let got = world.reply(&syn(SYN | ACK, KUBE, LAPTOP, 101));
        assert_eq!(mss(&got[0]), expected);
    }
}

#[test]
fn what_a_client_says_is_bounded_its_own_and_forgotten() {
    let mut world = World::new(&["platform", "platform"]);
    let mtu = |world: &World, laptop: usize| {
        let key = world.gateway.devices().iter().nth(laptop).expect("there").1;
        key.smaller_mtu(1420, world.now.mono)
    };
    probe(&mut world, 0, 1, 1, 0);
    assert_eq!((mtu(&world, 0), mtu(&world, 1)), (Some(1280), None));
    probe(&mut world, 1, 1, 9000, 0);
    assert_eq!(mtu(&world, 1), None);
    probe(&mut world, 0, 2, 1328, 0);
    world.tick(Duration::from_secs(200));
    assert_eq!(mtu(&world, 0), Some(1328));
    world.tick(Duration::from_secs(41));
    assert_eq!(mtu(&world, 0), None);
}

#[test]
fn answers_to_targets_are_limited() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    probe(&mut world, 0, 1, 1280, 0);
    world.target.clear();
    for _ in 0..2000 {
        world.reply(&segment(1400, false));
    }
    assert_eq!(world.drops(DropReason::TooBig), 2000);
    assert_eq!(world.target.len(), 512);
}
