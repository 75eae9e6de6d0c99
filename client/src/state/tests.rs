//! A client and, as its gateway, a bare set of peers: two ends in memory.
use super::*;
use postern_proto::control::PORT;
use postern_proto::keys::PrivateKey;
use postern_proto::mtu::PACKET_ROOM;
use postern_proto::now::Wall;

mod ecn;
mod inside;
mod path;
mod rotation;

const CLIENT: [u8; 4] = [100, 96, 0, 2];
const GATEWAY: [u8; 4] = [100, 96, 0, 1];
const TARGET: [u8; 4] = [192, 0, 2, 10];

#[derive(Default)]
struct Sent {
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    /// The outer mark of each datagram ever sent.
    marks: Vec<Ecn>,
    packets: Vec<Vec<u8>>,
    slot: Vec<u8>,
    to: Option<SocketAddr>,
    packet: Vec<u8>,
}

impl Outbox for Sent {
    fn datagram(&mut self, to: Endpoint, room: usize) -> &mut [u8] {
        self.to = Some(to.remote);
        self.slot.resize(room, 0);
        &mut self.slot
    }
    fn commit_datagram(&mut self, len: usize, ecn: Ecn) {
        self.marks.push(ecn);
        let to = self.to.take().expect("a slot was handed out");
        self.datagrams.push((to, self.slot[..len].to_vec()));
    }
    fn packet(&mut self) -> &mut [u8] {
        self.packet.resize(PACKET_ROOM, 0);
        &mut self.packet
    }
    fn commit_packet(&mut self, len: usize) {
        self.packets.push(self.packet[..len].to_vec());
    }
}

struct World {
    client: Client,
    out: Sent,
    gateway: Peers,
    device: PeerId,
    gateway_out: Sent,
    now: Now,
    client_at: SocketAddr,
    /// Where the gateway listens; datagrams to elsewhere are lost.
    gateway_at: SocketAddr,
}

fn endpoint(last: u8) -> SocketAddr {
    SocketAddr::from(([203, 0, 113, last], 51_820))
}

fn config() -> (Config, PrivateKey) {
    let gateway = PrivateKey::from_random([1; 32]);
    let config = Config {
        private_key: PrivateKey::from_random([2; 32]),
        gateway_key: gateway.public(),
        preshared_key: None,
        addresses: vec![CLIENT.into()],
        gateway_addresses: vec![GATEWAY.into()],
        include: vec!["192.0.2.10/32".parse().expect("a prefix")],
        mtu: 1420,
        keepalive: None,
        version: "0.1.0".to_owned(),
    };
    (config, gateway)
}

impl World {
    fn new(endpoints: &[SocketAddr]) -> World {
        let (config, key) = config();
        let device_key = config.private_key.public();
        let mut gateway = Peers::new(key, 0, 0, 7);
        let device = gateway
            .add(device_key, &Settings::default(), None)
            .expect("room");
        let now = Now {
            mono: Mono(1_000_000_000_000),
            wall: Wall(1_800_000_000_000_000_000),
        };
        let mut world = World {
            client: Client::new(config, 5).expect("two keys"),
            out: Sent::default(),
            gateway,
            device,
            gateway_out: Sent::default(),
            now,
            client_at: SocketAddr::from(([198, 51, 100, 7], 4000)),
            gateway_at: endpoint(1),
        };
        world
            .client
            .set_endpoints(endpoints.to_vec(), &mut world.out, now);
        world
    }

    fn connected() -> World {
        let mut world = World::new(&[endpoint(1)]);
        world.exchange();
        assert!(world.client.is_connected(world.now));
        world
    }

    /// Carries datagrams until both are silent; returns the inner packets that the gateway got.
    fn exchange(&mut self) -> Vec<Vec<u8>> {
        let mut got = Vec::new();
        loop {
            let out = std::mem::take(&mut self.out.datagrams);
            let back = std::mem::take(&mut self.gateway_out.datagrams);
            if out.is_empty() && back.is_empty() {
                return got;
            }
            for (to, datagram) in out {
                if to == self.gateway_at {
                    let from = self.client_at.into();
                    let inbound = self.gateway.receive(
                        from,
                        Ecn::NotEct,
                        &datagram,
                        &mut self.gateway_out,
                        self.now,
                    );
                    if let Inbound::Packet { len, .. } = inbound {
                        got.push(self.gateway_out.packet()[..len].to_vec());
                    }
                }
            }
            for (_, datagram) in back {
                let from = self.gateway_at.into();
                self.client
                    .from_network(from, Ecn::NotEct, &datagram, &mut self.out, self.now);
            }
        }
    }

    /// The gateway sends an inner packet to the client; what became of it.
    fn inbound(&mut self, packet: &[u8]) -> Outcome {
        self.gateway
            .send(self.device, packet, &mut self.gateway_out, self.now)
            .expect("the gateway has a key");
        let (_, datagram) = self.gateway_out.datagrams.pop().expect("sealed");
        let from = self.gateway_at.into();
        self.client
            .from_network(from, Ecn::NotEct, &datagram, &mut self.out, self.now)
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now.mono + time;
        while self.client.next_deadline() <= end {
            let step = self.client.next_deadline().since(self.now.mono);
            self.now = self.now.after(step);
            self.client.timeout(&mut self.out, self.now);
        }
        self.now = self.now.after(end.since(self.now.mono));
    }
}

fn udp(from: [u8; 4], from_port: u16, to: [u8; 4], to_port: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = [0; 1420];
    let len = reply::udp(
        (from.into(), from_port),
        (to.into(), to_port),
        payload,
        &mut packet,
    )
    .expect("fits");
    packet[..len].to_vec()
}

fn is_hello(packet: &[u8]) -> bool {
    let view = PacketView::parse(packet).expect("a packet");
    control::payload(&view, GATEWAY.into())
        .is_some_and(|payload| matches!(Message::parse(payload), Ok(Message::Hello { .. })))
}

#[test]
fn the_first_packet_waits_for_the_key_and_arrives_after_the_hello() {
    let mut world = World::new(&[endpoint(1)]);
    let mut packets: Vec<Vec<u8>> = (0..3)
        .map(|n| udp(CLIENT, 5000 + n, TARGET, 22, b"first"))
        .collect();
    for packet in &mut packets {
        assert_eq!(
            world.client.from_tun(packet, &mut world.out, world.now),
            Outcome::Held
        );
    }
    let got = world.exchange();
    assert!(is_hello(&got[0]));
    assert_eq!(got[1..], packets);
    assert_eq!(world.client.status(world.now).held, 0);
    assert_eq!(
        world
            .client
            .from_tun(&mut packets[0], &mut world.out, world.now),
        Outcome::Passed
    );
}

#[test]
fn what_waits_is_bounded_and_the_oldest_goes_first() {
    let mut world = World::new(&[endpoint(9)]); // nobody there
    for n in 0..200_u16 {
        let mut packet = udp(CLIENT, 1000 + n, TARGET, 22, &[0; 1200]);
        assert_eq!(
            world
                .client
                .from_tun(&mut packet, &mut world.out, world.now),
            Outcome::Held
        );
        assert!(world.client.held_bytes <= HELD_BYTES && world.client.held.len() <= HELD_PACKETS);
    }
    let status = world.client.status(world.now);
    assert_eq!(
        status.held as u64 + status.drops.get(DropReason::NoSession),
        200
    );
    world.out.datagrams.clear();
    world
        .client
        .set_endpoints(vec![endpoint(1)], &mut world.out, world.now);
    world.pass(Duration::from_secs(6));
    let got = world.exchange();
    let last = PacketView::parse(got.last().expect("some")).expect("a packet");
    assert!(
        matches!(
            last.transport,
            Transport::Udp {
                source_port: 1199,
                ..
            }
        ),
        "the newest survive: {last:?}"
    );
}

#[test]
fn only_our_source_to_the_include_list_goes_out() {
    let mut world = World::connected();
    let stranger = [192, 0, 2, 11];
    for (mut packet, reason) in [
        (
            udp([10, 0, 0, 1], 1, TARGET, 22, b"x"),
            DropReason::SpoofedSource,
        ),
        (udp(CLIENT, 1, stranger, 22, b"x"), DropReason::NotIncluded),
        (
            udp(CLIENT, 1, [224, 0, 0, 251], 5353, b"x"),
            DropReason::NotUnicast,
        ),
        (vec![0x45, 0, 0], DropReason::Truncated),
    ] {
        let outcome = world
            .client
            .from_tun(&mut packet, &mut world.out, world.now);
        assert_eq!(outcome, Outcome::Dropped(reason));
        assert_eq!(world.client.status(world.now).drops.get(reason), 1);
    }
    assert!(world.out.datagrams.is_empty());
    assert_eq!(
        world.out.packets.len(),
        1,
        "ours to elsewhere is refused at once"
    );
    let answer = PacketView::parse(&world.out.packets[0]).expect("an ICMP error");
    assert_eq!(answer.destination, IpAddr::from(CLIENT));

    let mut to_gateway = udp(CLIENT, 1, GATEWAY, 80, b"x");
    let outcome = world
        .client
        .from_tun(&mut to_gateway, &mut world.out, world.now);
    assert_eq!(outcome, Outcome::Passed);
}

#[test]
fn only_the_include_list_comes_in_and_only_to_us() {
    let mut world = World::connected();
    let stranger = [192, 0, 2, 11];
    assert_eq!(
        world.inbound(&udp(TARGET, 22, CLIENT, 1, b"x")),
        Outcome::Passed
    );
    assert_eq!(
        world.inbound(&udp(GATEWAY, 80, CLIENT, 1, b"x")),
        Outcome::Passed
    );
    assert_eq!(world.out.packets.len(), 2);
    for packet in [
        udp(stranger, 22, CLIENT, 1, b"x"),
        udp(TARGET, 22, [100, 96, 0, 3], 1, b"x"),
    ] {
        assert_eq!(
            world.inbound(&packet),
            Outcome::Dropped(DropReason::NotIncluded)
        );
    }
    assert_eq!(world.out.packets.len(), 2);
}

#[test]
fn a_router_may_report_about_our_packets_only() {
    let mut world = World::connected();
    let error = |about: &[u8]| {
        let view = PacketView::parse(about).expect("a packet");
        let mut out = [0; 256];
        let len = reply::prohibit(&view, &mut out).expect("an error");
        let mut packet = out[..len].to_vec();
        packet[12..16].copy_from_slice(&[198, 18, 0, 1]); // a router on the way
        packet
    };
    let ours = error(&udp(CLIENT, 9, TARGET, 22, b"x"));
    let theirs = error(&udp(CLIENT, 9, [192, 0, 2, 11], 22, b"x"));
    assert_eq!(world.inbound(&ours), Outcome::Passed);
    assert_eq!(
        world.inbound(&theirs),
        Outcome::Dropped(DropReason::NotIncluded)
    );
}

#[test]
fn refusals_are_remembered_counted_and_never_reach_the_host() {
    let mut world = World::connected();
    let refused = |port| Message::Refused {
        protocol: "tcp".to_owned(),
        address: TARGET.into(),
        port,
        reason: "policy".to_owned(),
        rule: "default".to_owned(),
        condition: String::new(),
    };
    let mut tell = |message: &Message| {
        let mut packet = [0; 1420];
        let len = message
            .write(GATEWAY.into(), CLIENT.into(), &mut packet)
            .expect("fits");
        assert_eq!(world.inbound(&packet[..len]), Outcome::Consumed);
    };
    tell(&refused(1));
    tell(&refused(1));
    for port in 2..40 {
        tell(&refused(port));
    }
    let status = world.client.status(world.now);
    assert_eq!(status.refusals.len(), REFUSALS);
    assert_eq!(status.refusals.last().expect("some").message, refused(39));
    assert!(world.out.packets.is_empty());

    // From a target the same bytes are a packet like any other.
    let forged = udp(TARGET, PORT, CLIENT, PORT, b"{\"type\":\"cut\"}");
    assert_eq!(world.inbound(&forged), Outcome::Passed);
    assert_eq!(world.client.status(world.now).refusals.len(), REFUSALS);
}

#[test]
fn a_stock_server_s_answer_to_the_hello_stays_inside() {
    let mut world = World::new(&[endpoint(1)]);
    let got = world.exchange();
    assert!(is_hello(&got[0]));
    let view = PacketView::parse(&got[0]).expect("a packet");
    let mut out = [0; 256];
    let len = reply::prohibit(&view, &mut out).expect("an error");
    assert_eq!(world.inbound(&out[..len]), Outcome::Consumed);
    assert!(world.out.packets.is_empty());
}

#[test]
fn endpoints_are_tried_in_turn() {
    let mut world = World::new(&[endpoint(8), endpoint(9), endpoint(1)]);
    let mut first = Vec::new();
    for _ in 0..3 {
        first.push(world.out.datagrams.last().expect("an initiation").0);
        world.exchange();
        world.pass(Duration::from_secs(6));
    }
    assert_eq!(first, [endpoint(8), endpoint(9), endpoint(1)]);
    assert!(world.client.is_connected(world.now));
    assert_eq!(world.client.endpoint(), Some(endpoint(1)));
}

#[test]
fn a_gateway_that_moves_is_found_at_its_next_endpoint() {
    let mut world = World::new(&[endpoint(1), endpoint(2)]);
    world.exchange();
    world.gateway_at = endpoint(2);
    let mut packet = udp(CLIENT, 1, TARGET, 22, b"x");
    for _ in 0..30 {
        world
            .client
            .from_tun(&mut packet, &mut world.out, world.now);
        world.exchange();
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(world.client.endpoint(), Some(endpoint(2)));
    assert_eq!(world.client.unanswered(), 0);
}

#[test]
fn after_giving_up_it_tries_again_by_itself() {
    let mut world = World::new(&[endpoint(1)]);
    let mut packet = udp(CLIENT, 1, TARGET, 22, b"x");
    world
        .client
        .from_tun(&mut packet, &mut world.out, world.now);
    world.pass(Duration::from_secs(100));
    assert_eq!(
        world.client.status(world.now).held,
        0,
        "nobody waits for 90 seconds"
    );
    world.out.datagrams.clear();
    world.pass(Duration::from_secs(60));
    assert!(!world.out.datagrams.is_empty());
    world.exchange();
    assert!(world.client.is_connected(world.now));
}

#[test]
fn the_tunnel_never_carries_itself() {
    let mut world = World::connected();
    let inside = SocketAddr::from((TARGET, 51_820));
    world
        .client
        .set_endpoints(vec![inside], &mut world.out, world.now);
    assert_eq!(world.client.endpoint(), Some(endpoint(1)), "left out");

    world
        .gateway
        .send(
            world.device,
            &udp(TARGET, 1, CLIENT, 1, b"x"),
            &mut world.gateway_out,
            world.now,
        )
        .expect("key");
    let (_, datagram) = world.gateway_out.datagrams.pop().expect("sealed");
    let outcome = world.client.from_network(
        inside.into(),
        Ecn::NotEct,
        &datagram,
        &mut world.out,
        world.now,
    );
    assert_eq!(outcome, Outcome::Dropped(DropReason::NotIncluded));
    assert_eq!(world.client.endpoint(), Some(endpoint(1)));
}

#[test]
fn the_segment_size_of_a_syn_is_clamped_both_ways() {
    let syn = |from: [u8; 4], to: [u8; 4]| {
        let mut packet = vec![
            0x45, 0, 0, 44, 0, 0, 0x40, 0, 64, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, // IPv4
            0x10, 0, 0, 22, 0, 0, 0, 1, 0, 0, 0, 0, 0x60, 2, 0xff, 0xff, 0, 0, 0, 0, // TCP
            2, 4, 0x23, 0x28, // MSS 9000
        ];
        packet[12..16].copy_from_slice(&from);
        packet[16..20].copy_from_slice(&to);
        packet
    };
    let mss = |packet: &[u8]| u16::from_be_bytes([packet[42], packet[43]]);
    let mut world = World::connected();
    let mut out = syn(CLIENT, TARGET);
    assert_eq!(
        world.client.from_tun(&mut out, &mut world.out, world.now),
        Outcome::Passed
    );
    assert_eq!(mss(&world.exchange()[0]), 1380);
    assert_eq!(world.inbound(&syn(TARGET, CLIENT)), Outcome::Passed);
    assert_eq!(mss(&world.out.packets[0]), 1380);
}

#[test]
fn every_new_key_is_greeted_once() {
    let mut world = World::connected();
    let mut hellos = 0;
    let mut packet = udp(CLIENT, 1, TARGET, 22, b"x");
    for _ in 0..130 {
        world
            .client
            .from_tun(&mut packet, &mut world.out, world.now);
        hellos += world
            .exchange()
            .iter()
            .filter(|packet| is_hello(packet))
            .count();
        world.pass(Duration::from_secs(1));
    }
    assert_eq!(hellos, 1, "one rekey at 120 s");
}

#[test]
fn garbage_is_silent() {
    let mut world = World::connected();
    let from = Endpoint::from(endpoint(66));
    for garbage in [&[0_u8; 148][..], b"", &[4; 64], &[1, 0, 0, 0]] {
        let outcome =
            world
                .client
                .from_network(from, Ecn::NotEct, garbage, &mut world.out, world.now);
        assert!(matches!(outcome, Outcome::Dropped(_)), "{outcome:?}");
    }
    assert!(world.out.datagrams.is_empty() && world.out.packets.is_empty());
    assert_eq!(world.client.endpoint(), Some(endpoint(1)));
}
