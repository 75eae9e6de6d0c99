use super::*;
use crate::record::{Detail, State};
use crate::settings::{Limits, OnLogFailure, Shard};
use postern_proto::control::{self, Message};
use postern_proto::ecn::Ecn;
use postern_proto::fate::DropReason;
use postern_proto::now::Wall;
use postern_proto::packet::{PacketView, TcpFlags};
use postern_proto::peers::Inbound;
use postern_proto::{mtu, reply};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

mod control_road;
mod hints;
mod life;
mod path_mtu;
mod rotation;
mod standing;

const POLICY: &str = "
version: 1
targets:
  kube-api: { addresses: [192.0.2.10], ports: [6443/tcp] }
  dns: { addresses: [192.0.2.53], ports: [53/udp, icmp] }
rules:
  - name: kubectl
    action: allow
    from: { groups: [platform] }
    to: [kube-api]
  - name: names
    action: allow
    from: { groups: [platform] }
    to: [dns]
";
const NOTHING: &str = "
version: 1
targets:
  kube-api: { addresses: [192.0.2.10], ports: [6443/tcp] }
rules:
  - name: kubectl
    action: allow
    from: { groups: [nobody] }
    to: [kube-api]
";

#[derive(Default)]
struct Outs {
    datagrams: Vec<(Endpoint, Vec<u8>)>,
    marks: Vec<Ecn>,
    packets: Vec<Vec<u8>>,
    datagram: Vec<u8>,
    packet: Vec<u8>,
    to: Option<Endpoint>,
}

impl Outbox for Outs {
    fn datagram(&mut self, to: Endpoint, room: usize) -> &mut [u8] {
        self.to = Some(to);
        self.datagram.resize(room, 0);
        &mut self.datagram
    }
    fn commit_datagram(&mut self, len: usize, ecn: Ecn) {
        self.marks.push(ecn);
        self.datagrams
            .push((self.to.expect("a slot"), self.datagram[..len].to_vec()));
    }
    fn packet(&mut self) -> &mut [u8] {
        self.packet.resize(mtu::PACKET_ROOM, 0);
        &mut self.packet
    }
    fn commit_packet(&mut self, len: usize) {
        self.packets.push(self.packet[..len].to_vec());
    }
}

struct Laptop {
    peers: Peers,
    gateway: PeerId,
    address: SocketAddr,
    inner: IpAddr,
}

struct World {
    gateway: Gateway,
    now: Now,
    laptops: Vec<Laptop>,
    /// What the targets have received.
    target: Vec<Vec<u8>>,
}

fn ip(text: &str) -> IpAddr {
    text.parse().expect("literal address")
}

fn policy(text: &str) -> Arc<Policy> {
    Arc::new(Policy::parse(text).unwrap_or_else(|errors| panic!("{errors}")))
}

impl World {
    fn new(groups: &[&str]) -> World {
        let key = PrivateKey::from_random([1; 32]);
        let now = Now {
            mono: Mono(1_000_000_000_000),
            wall: Wall(1_800_000_000_000_000_000),
        };
        let settings = Settings {
            name: "gw".into(),
            boot: "b1".into(),
            shard: Shard::default(),
            addresses: vec![ip("100.96.0.1")],
            pools: vec!["100.96.0.0/16".parse().expect("literal")],
            mtu: 1420,
            limits: Limits {
                flows: 64,
                flows_per_device: 32,
                half_open_per_device: 16,
            },
            on_log_failure: OnLogFailure::DenyNew,
            seed: 7,
            stopwatch: || 0,
        };
        let gateway = Gateway::new(settings, &key, policy(POLICY), now);
        let mut world = World {
            gateway,
            now,
            laptops: Vec::new(),
            target: Vec::new(),
        };
        for group in groups {
            world.enrol(|device| device.groups = vec![(*group).to_owned()]);
        }
        world
    }

    /// One more laptop, which has a session; `change` says how its device differs.
    fn enrol(&mut self, change: impl FnOnce(&mut Device)) -> usize {
        let laptop = self.laptops.len();
        let n = u8::try_from(laptop).expect("few");
        let own = PrivateKey::from_random([10 + n; 32]);
        let mut device = Device {
            name: format!("laptop{n}"),
            user: Some(format!("user{n}")),
            groups: Vec::new(),
            key: own.public(),
            addresses: vec![ip(&format!("100.96.0.{}", n + 2))],
            standing: Default::default(),
        };
        change(&mut device);
        let inner = device.addresses[0];
        self.gateway
            .add_device(device, None, None, &mut Outs::default(), self.now)
            .expect("new");
        self.another(own, n);
        self.laptops[laptop].inner = inner;
        self.connect(laptop);
        laptop
    }

    /// A laptop at `198.51.100.n` that has a key and no session.
    fn another(&mut self, own: PrivateKey, n: u8) -> usize {
        let mut peers = Peers::new(own, 0, 0, u64::from(n));
        let outer: SocketAddr = "203.0.113.1:51820".parse().expect("literal");
        let gateway = PrivateKey::from_random([1; 32]).public();
        let id = peers
            .add(gateway, &Tunnel::default(), Some(outer.into()))
            .expect("one peer");
        self.laptops.push(Laptop {
            peers,
            gateway: id,
            address: format!("198.51.100.{n}:5000").parse().expect("literal"),
            inner: ip(LAPTOP.0),
        });
        self.laptops.len() - 1
    }

    /// The laptop asks for a key.
    fn connect(&mut self, laptop: usize) {
        let mut outs = Outs::default();
        let side = &mut self.laptops[laptop];
        side.peers.initiate(side.gateway, &mut outs, self.now);
        self.deliver(laptop, outs);
    }

    /// Carries datagrams both ways until nothing moves; returns the packets the laptop got.
    fn deliver(&mut self, laptop: usize, mut from_laptop: Outs) -> Vec<Vec<u8>> {
        let mut received = Vec::new();
        loop {
            let mut from_gateway = Outs::default();
            let source = self.laptops[laptop].address;
            for (_, datagram) in std::mem::take(&mut from_laptop.datagrams) {
                self.gateway.from_network(
                    source.into(),
                    Ecn::NotEct,
                    &datagram,
                    &mut from_gateway,
                    self.now,
                );
            }
            self.target.append(&mut from_gateway.packets);
            if from_gateway.datagrams.is_empty() {
                return received;
            }
            received.append(&mut self.laptops_take(from_gateway, &mut from_laptop));
        }
    }

    fn laptops_take(&mut self, from_gateway: Outs, answers: &mut Outs) -> Vec<Vec<u8>> {
        let mut received = Vec::new();
        let gateway: SocketAddr = "203.0.113.1:51820".parse().expect("literal");
        for (to, datagram) in from_gateway.datagrams {
            let side = self
                .laptops
                .iter_mut()
                .find(|side| side.address == to.remote)
                .expect("sent to a laptop");
            match side
                .peers
                .receive(gateway.into(), Ecn::NotEct, &datagram, answers, self.now)
            {
                Inbound::Packet { len, .. } => received.push(answers.packet()[..len].to_vec()),
                Inbound::Control { .. } | Inbound::Dropped { .. } => {}
            }
        }
        received
    }

    fn send(&mut self, laptop: usize, packet: &[u8]) -> Vec<Vec<u8>> {
        let mut outs = Outs::default();
        let side = &mut self.laptops[laptop];
        side.peers
            .send(side.gateway, packet, &mut outs, self.now)
            .expect("has a session");
        self.deliver(laptop, outs)
    }

    /// A packet of a target; what was heard, and by which laptop.
    fn reply_to(&mut self, packet: &[u8]) -> (Vec<Vec<u8>>, Option<usize>) {
        let mut outs = Outs::default();
        let now = self.now;
        let peer = self
            .gateway
            .from_target(packet, 1, packet.len(), &mut outs, now)
            .expect("allowed");
        self.gateway
            .to_device(peer, &mut packet.to_vec(), &mut outs, now);
        let to = outs.datagrams.first().map(|(to, _)| to.remote);
        let by = self.laptops.iter().position(|one| Some(one.address) == to);
        (self.laptops_take(outs, &mut Outs::default()), by)
    }

    fn reply(&mut self, packet: &[u8]) -> Vec<Vec<u8>> {
        let mut outs = Outs::default();
        if let Some(peer) = self
            .gateway
            .from_target(packet, 1, packet.len(), &mut outs, self.now)
        {
            self.gateway
                .to_device(peer, &mut packet.to_vec(), &mut outs, self.now);
        }
        self.target.append(&mut outs.packets);
        self.laptops_take(outs, &mut Outs::default())
    }

    fn tick(&mut self, step: Duration) -> Vec<Vec<u8>> {
        self.now = self.now.after(step);
        let mut outs = Outs::default();
        self.gateway.timeout(&mut outs, self.now);
        self.target.append(&mut outs.packets);
        self.laptops_take(outs, &mut Outs::default())
    }

    fn records(&mut self) -> Vec<Record> {
        self.gateway.take_records()
    }

    fn drops(&self, reason: DropReason) -> u64 {
        self.gateway.counters().drops.get(reason)
    }
}

fn tcp(flags: u8, from: (&str, u16), to: (&str, u16), seq: u32, ack: u32) -> Vec<u8> {
    let mut packet = vec![0; 64];
    let (from, to) = ((ip(from.0), from.1), (ip(to.0), to.1));
    let len = reply::tcp_reset(from, to, seq, Some(ack), &mut packet).expect("room");
    packet.truncate(len);
    packet[if from.0.is_ipv4() { 33 } else { 53 }] = flags;
    packet
}

fn udp(from: (&str, u16), to: (&str, u16)) -> Vec<u8> {
    let mut packet = vec![0; 64];
    let len = reply::udp((ip(from.0), from.1), (ip(to.0), to.1), b"?", &mut packet).expect("room");
    packet.truncate(len);
    packet
}

const SYN: u8 = 2;
const ACK: u8 = 16;
const LAPTOP: (&str, u16) = ("100.96.0.2", 4000);
const KUBE: (&str, u16) = ("192.0.2.10", 6443);
const SSH: (&str, u16) = ("192.0.2.10", 22);

fn open(world: &mut World) {
    world.send(0, &tcp(SYN, LAPTOP, KUBE, 100, 0));
    assert_eq!(
        world.reply(&tcp(SYN | ACK, KUBE, LAPTOP, 900, 101)).len(),
        1
    );
    world.send(0, &tcp(ACK, LAPTOP, KUBE, 101, 901));
}

fn flags(packet: &[u8]) -> TcpFlags {
    PacketView::parse(packet)
        .expect("valid")
        .tcp()
        .expect("tcp")
        .flags
}

#[test]
fn an_allowed_flow_passes_and_its_records_name_the_rule() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    assert_eq!(world.target.len(), 2);
    world.reply(&tcp(ACK | 1, KUBE, LAPTOP, 901, 101));
    world.send(0, &tcp(ACK | 1, LAPTOP, KUBE, 101, 902));
    world.tick(Duration::from_secs(3));
    let records = world.records();
    assert_eq!(records.len(), 2);
    assert_eq!((records[0].seq, records[0].rule.as_str()), (1, "kubectl"));
    let Detail::Closed(closed) = &records[1].detail else {
        panic!("{:?}", records[1])
    };
    assert_eq!(closed.close_reason, CloseReason::Fin);
    assert_eq!((closed.packets_out, closed.packets_in), (3, 2));
    assert_eq!((closed.bytes_out, closed.bytes_in), (120, 80));
    assert!(world.gateway.flows().is_empty());
}

#[test]
fn a_denied_syn_never_reaches_a_target_and_is_answered_at_once() {
    let mut world = World::new(&["platform"]);
    let answers = world.send(0, &tcp(SYN, LAPTOP, SSH, 100, 0));
    assert!(world.target.is_empty());
    assert!(flags(&answers[0]).has(TcpFlags::RST));
    let records = world.records();
    assert_eq!(records[0].state, State::Denied);
    assert_eq!(records[0].rule, "default");
    assert_eq!(records[0].target, None, "no target has that port");
    let Detail::Denied(denied) = &records[0].detail else {
        panic!("{:?}", records[0])
    };
    assert_eq!(denied.nearest_rule.as_deref(), Some("kubectl"));
    assert!(
        denied
            .failed_condition
            .as_ref()
            .expect("words")
            .as_str()
            .contains("22")
    );
}

#[test]
fn identity_decides_not_the_address() {
    let mut world = World::new(&["platform", "guests"]);
    let theirs = world.send(1, &tcp(SYN, ("100.96.0.3", 1), KUBE, 5, 0));
    assert!(flags(&theirs[0]).has(TcpFlags::RST));
    let spoofed = world.send(1, &tcp(SYN, LAPTOP, KUBE, 5, 0));
    assert!(spoofed.is_empty(), "a spoofed packet is never answered");
    assert!(world.target.is_empty());
    assert_eq!(world.drops(DropReason::SpoofedSource), 1);
    let mut records = world.records();
    assert_eq!(records[0].target.as_deref(), Some("kube-api"));
    let last = records.pop().expect("a record");
    assert_eq!(
        (last.who.device.as_deref(), last.src_address),
        (Some("laptop1"), ip("100.96.0.2"))
    );
}

#[test]
fn devices_and_the_gateway_itself_are_no_targets() {
    let mut world = World::new(&["platform", "platform"]);
    world.send(0, &tcp(SYN, LAPTOP, ("100.96.0.3", 22), 5, 0));
    assert_eq!(world.drops(DropReason::DeviceToDevice), 1);
    world.send(0, &tcp(SYN, LAPTOP, ("100.96.0.1", 22), 5, 0));
    assert_eq!(world.drops(DropReason::Policy), 1);
    assert!(world.target.is_empty());
}

#[test]
fn a_target_opens_nothing() {
    let mut world = World::new(&["platform"]);
    assert!(world.reply(&tcp(SYN, KUBE, LAPTOP, 1, 0)).is_empty());
    assert!(world.reply(&udp(("192.0.2.53", 53), LAPTOP)).is_empty());
    assert_eq!(world.drops(DropReason::Unsolicited), 2);
    assert!(world.records().is_empty());
}

#[test]
fn a_congestion_mark_reaches_the_target_or_costs_the_packet_before_it_is_judged() {
    let mut world = World::new(&["platform"]);
    let mut arrive = |mark, packet: &[u8]| {
        let mut outs = Outs::default();
        let side = &mut world.laptops[0];
        side.peers
            .send(side.gateway, packet, &mut outs, world.now)
            .expect("has a session");
        let (_, datagram) = outs.datagrams.remove(0);
        world
            .gateway
            .from_network(side.address.into(), mark, &datagram, &mut outs, world.now);
        outs
    };
    let mut syn = tcp(SYN, LAPTOP, KUBE, 100, 0);
    let outs = arrive(Ecn::Ce, &syn);
    assert!(
        outs.packets.is_empty() && outs.datagrams.is_empty(),
        "lost, and not answered: it is sent again"
    );
    postern_proto::ecn::set(&mut syn, Ecn::Ect0);
    let outs = arrive(Ecn::Ce, &syn);
    assert_eq!(Ecn::of(&outs.packets[0]), Ecn::Ce);
    assert_eq!(world.drops(DropReason::EcnCe), 1);
    assert_eq!(world.records().len(), 1, "one attempt was seen");
}

#[test]
fn only_a_client_that_passes_marks_on_gets_them() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    let mut data = tcp(ACK, KUBE, LAPTOP, 901, 101);
    postern_proto::ecn::set(&mut data, Ecn::Ect0);
    let outer = |world: &mut World| {
        let mut outs = Outs::default();
        let peer = world
            .gateway
            .from_target(&data, 1, data.len(), &mut outs, world.now)
            .expect("allowed");
        world
            .gateway
            .to_device(peer, &mut data.clone(), &mut outs, world.now);
        outs.marks
    };
    assert_eq!(outer(&mut world), [Ecn::NotEct], "it may be any WireGuard");
    let hello = Message::Hello {
        version: 1,
        client: "0.1.0".into(),
    };
    let mut packet = [0; 256];
    let len = hello
        .write(ip(LAPTOP.0), ip("100.96.0.1"), &mut packet)
        .expect("room");
    world.send(0, &packet[..len]);
    assert_eq!(outer(&mut world), [Ecn::Ect0]);
}

#[test]
fn udp_and_its_error_belong_to_one_flow() {
    let mut world = World::new(&["platform"]);
    let query = udp(LAPTOP, ("192.0.2.53", 53));
    world.send(0, &query);
    let mut error = [0; reply::REPLY_ROOM];
    let view = PacketView::parse(&query).expect("valid");
    let len = reply::prohibit(&view, &mut error).expect("room");
    assert_eq!(
        world.reply(&error[..len]).len(),
        1,
        "the error reaches the laptop"
    );
    let records = world.records();
    let Detail::Closed(closed) = &records[1].detail else {
        panic!("{records:?}")
    };
    assert_eq!(closed.close_reason, CloseReason::Error);
    assert!(
        world.reply(&error[..len]).is_empty(),
        "there is no flow any more"
    );
}

#[test]
fn a_policy_change_cuts_silent_flows_on_both_sides() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    world.target.clear();
    let changed = world.now.mono;
    world.gateway.set_policy(policy(NOTHING), changed);
    assert_eq!(
        world.gateway.next_deadline(),
        Mono(0),
        "a sweep does not wait"
    );
    let to_laptop = world.tick(Duration::from_millis(3));
    assert!(flags(&to_laptop[0]).has(TcpFlags::RST));
    assert!(flags(&world.target[0]).has(TcpFlags::RST));
    let closing = world.records().pop().expect("a record");
    let Detail::Closed(closed) = &closing.detail else {
        panic!("{closing:?}")
    };
    assert_eq!(closed.close_reason, CloseReason::Policy);
    assert!(closed.failed_condition.is_some());
    assert_eq!(world.gateway.counters().change_to_cut.count(), 1);
    // No byte passes afterwards, and both ends are told again.
    world.target.clear();
    let again = world.send(0, &tcp(ACK, LAPTOP, KUBE, 101, 901));
    assert!(flags(&again[0]).has(TcpFlags::RST));
    assert!(world.target.is_empty());
    world.reply(&tcp(ACK, KUBE, LAPTOP, 901, 101));
    assert!(flags(&world.target[0]).has(TcpFlags::RST));
}

#[test]
fn a_change_that_still_allows_lets_flows_live() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    let wider = POLICY.replace("- name: names", "- name: other names");
    world.gateway.set_policy(policy(&wider), world.now.mono);
    assert!(world.tick(Duration::from_millis(3)).is_empty());
    assert!(!world.gateway.is_sweeping());
    world.target.clear();
    world.send(0, &tcp(ACK, LAPTOP, KUBE, 101, 901));
    assert_eq!(world.target.len(), 1);
}

#[test]
fn revoking_a_device_cuts_it_and_silences_it() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    let key = world
        .gateway
        .devices()
        .iter()
        .next()
        .expect("one device")
        .1
        .device
        .key;
    let mut outs = Outs::default();
    let now = world.now;
    let cut = world
        .gateway
        .remove_device(&key, CloseReason::Revoked, now.mono, &mut outs, now)
        .expect("known");
    assert_eq!(cut.flows, 1);
    assert_eq!(
        (outs.datagrams.len(), outs.packets.len()),
        (1, 1),
        "both sides are told"
    );
    world.target.clear();
    assert!(world.send(0, &tcp(SYN, LAPTOP, KUBE, 1, 0)).is_empty());
    assert!(world.target.is_empty());
    let closing = world.records().pop().expect("a record");
    let Detail::Closed(closed) = &closing.detail else {
        panic!("{closing:?}")
    };
    assert_eq!(closed.close_reason, CloseReason::Revoked);
}

#[test]
fn a_killed_flow_does_not_resume_but_a_new_attempt_is_judged() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    let mut outs = Outs::default();
    let now = world.now;
    assert_eq!(
        world
            .gateway
            .kill(now.mono, &mut outs, now, |_, _| true)
            .flows,
        1
    );
    world.target.clear();
    world.send(0, &tcp(ACK, LAPTOP, KUBE, 101, 901));
    assert!(world.target.is_empty());
    world.send(0, &tcp(SYN, LAPTOP, KUBE, 5000, 0));
    assert_eq!(world.target.len(), 1);
}

#[test]
fn a_segment_without_a_flow_resumes_one_only_if_allowed() {
    let mut world = World::new(&["platform", "guests"]);
    world.send(0, &tcp(ACK, LAPTOP, KUBE, 101, 901));
    assert_eq!(
        world.target.len(),
        1,
        "the gateway was restarted under a live connection"
    );
    let records = world.records();
    let Detail::Open(opened) = &records[0].detail else {
        panic!("{records:?}")
    };
    assert!(opened.resumed);
    assert_eq!(world.reply(&tcp(ACK, KUBE, LAPTOP, 901, 101)).len(), 1);
    world.target.clear();
    let refused = world.send(1, &tcp(ACK, ("100.96.0.3", 9), KUBE, 101, 901));
    assert!(flags(&refused[0]).has(TcpFlags::RST));
    assert!(world.target.is_empty());
    assert_eq!(world.drops(DropReason::NoFlow), 1);
}

#[test]
fn a_target_that_speaks_first_after_a_restart_is_judged_too() {
    let mut world = World::new(&["platform"]);
    assert_eq!(world.reply(&tcp(ACK, KUBE, LAPTOP, 901, 101)).len(), 1);
    let told = world.reply(&tcp(ACK, SSH, LAPTOP, 901, 101));
    assert!(
        flags(&told[0]).has(TcpFlags::RST),
        "the laptop still holds it"
    );
    assert!(
        flags(&world.target[0]).has(TcpFlags::RST),
        "and so does the target"
    );
    assert_eq!(world.drops(DropReason::NoFlow), 1);
    world.tick(TCP_IDLE + Duration::from_secs(1));
    assert!(
        world
            .reply(&tcp(ACK, KUBE, ("100.96.0.2", 4001), 901, 101))
            .is_empty()
    );
}

#[test]
fn a_reset_is_good_for_a_device_that_missed_the_syn_ack() {
    let mut world = World::new(&["platform"]);
    world.send(0, &tcp(SYN, LAPTOP, KUBE, 100, 0));
    world.reply(&tcp(SYN | ACK, KUBE, LAPTOP, 900, 101));
    world.gateway.set_policy(policy(NOTHING), world.now.mono);
    let to_laptop = world.tick(Duration::from_millis(3));
    let view = PacketView::parse(&to_laptop[0]).expect("valid");
    let reset = view.tcp().expect("tcp");
    assert!(reset.flags.has(TcpFlags::RST) && reset.flags.has(TcpFlags::ACK));
    assert_eq!(
        (reset.sequence, reset.acknowledgment),
        (901, 101),
        "one for an open connection, the other for one that is opening"
    );
}

#[test]
fn a_target_that_speaks_to_a_device_without_a_key_resumes_nothing() {
    let mut world = World::new(&["platform"]);
    world.tick(Duration::from_secs(200));
    assert!(
        world
            .reply(&tcp(ACK | 1, KUBE, LAPTOP, 901, 101))
            .is_empty()
    );
    assert_eq!(world.drops(DropReason::NoSession), 1);
    assert!(world.gateway.flows().is_empty() && world.records().is_empty());
}

#[test]
fn a_summary_explains_the_port_that_it_names() {
    let mut world = World::new(&["guests"]);
    world.send(0, &tcp(SYN, LAPTOP, KUBE, 100, 0));
    world.send(0, &tcp(SYN, LAPTOP, SSH, 100, 0));
    world.tick(Duration::from_secs(11));
    let records = world.records();
    let told: Vec<_> = records
        .iter()
        .map(|record| {
            let Detail::Denied(denied) = &record.detail else {
                panic!("{record:?}")
            };
            let words = denied.failed_condition.as_ref().expect("words").as_str();
            let target = record.target.as_deref();
            (record.dst_port, target, words.contains("22"))
        })
        .collect();
    assert_eq!(told, [(6443, Some("kube-api"), false), (22, None, true)]);
}

#[test]
fn a_scan_is_summed_up_without_losing_a_count() {
    let mut world = World::new(&["platform"]);
    let mut attempts = 0;
    for host in 1..=254_u16 {
        for port in [21, 22, 23] {
            world.send(
                0,
                &tcp(SYN, LAPTOP, (&format!("198.18.0.{host}"), port), 1, 0),
            );
            attempts += 1;
        }
    }
    for host in 1..=254_u16 {
        world.send(
            0,
            &tcp(SYN, LAPTOP, (&format!("198.18.1.{host}"), 80), 1, 0),
        );
        attempts += 1;
    }
    world.tick(Duration::from_secs(11));
    let records = world.records();
    assert_eq!(records.iter().map(Record::attempts).sum::<u64>(), attempts);
    assert!(records.len() < 600, "{} records", records.len());
    assert_eq!(world.drops(DropReason::Policy), attempts);
    assert_eq!(world.gateway.denial_windows(), 0);
}

#[test]
fn bounds_hold_and_say_which_one() {
    let mut world = World::new(&["platform"]);
    for port in 0..20 {
        world.send(0, &tcp(SYN, ("100.96.0.2", 5000 + port), KUBE, 1, 0));
    }
    assert_eq!(world.gateway.flows().len(), 16);
    assert_eq!(world.drops(DropReason::DeviceQuota), 4);
    world.tick(Duration::from_secs(60));
    assert!(
        world.gateway.flows().is_empty(),
        "unanswered flows make room again"
    );
    assert_eq!(
        world
            .gateway
            .devices()
            .iter()
            .next()
            .expect("one")
            .1
            .half_open,
        0
    );
}

#[test]
fn a_device_that_slept_is_woken_to_hear_that_its_flow_was_cut() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    world.tick(Duration::from_secs(600));
    world.gateway.set_policy(policy(NOTHING), world.now.mono);
    let now = world.now;
    let mut outs = Outs::default();
    world.gateway.timeout(&mut outs, now);
    assert_eq!(
        outs.datagrams.len(),
        1,
        "there is no key: the gateway asks for one"
    );
    let mut answers = Outs::default();
    assert!(world.laptops_take(outs, &mut answers).is_empty());
    let heard = world.deliver(0, answers);
    assert!(flags(&heard[0]).has(TcpFlags::RST), "no time has passed");
}

#[test]
fn what_was_cut_stays_cut_for_as_long_as_anything_may_resume() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    let (mut outs, now) = (Outs::default(), world.now);
    world.gateway.kill(now.mono, &mut outs, now, |_, _| true);
    world.target.clear();
    world.tick(Duration::from_secs(100));
    world.send(0, &tcp(ACK, LAPTOP, KUBE, 101, 901));
    assert!(world.target.is_empty());
}

#[test]
fn what_was_cut_makes_room_for_what_is_new() {
    let mut world = World::new(&["platform", "platform"]);
    let syn = |n: u16| {
        tcp(
            SYN,
            (if n < 32 { "100.96.0.2" } else { "100.96.0.3" }, 5000 + n),
            KUBE,
            1,
            0,
        )
    };
    let answer = |n: u16| {
        tcp(
            SYN | ACK,
            KUBE,
            (if n < 32 { "100.96.0.2" } else { "100.96.0.3" }, 5000 + n),
            9,
            2,
        )
    };
    for n in 0..64 {
        world.send(usize::from(n >= 32), &syn(n));
        world.reply(&answer(n));
    }
    assert!(world.gateway.flows().is_full());
    let (mut outs, now) = (Outs::default(), world.now);
    assert_eq!(
        world
            .gateway
            .kill(now.mono, &mut outs, now, |_, _| true)
            .flows,
        64
    );
    assert!(!world.gateway.flows().is_full());
    world.send(0, &tcp(SYN, ("100.96.0.2", 7000), KUBE, 1, 0));
    assert_eq!(world.drops(DropReason::TableFull), 0);
    assert_eq!(world.gateway.flows().len(), 64, "never more than its bound");
    world.tick(TCP_IDLE + Duration::from_secs(1));
    assert_eq!(world.gateway.flows().len(), 0);
}

#[test]
fn a_packet_that_no_tunnel_can_carry_is_not_counted_as_passed() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    let passed = world.gateway.counters().packets_in;
    world.now = world.now.after(Duration::from_secs(200));
    let mut outs = Outs::default();
    let segment = tcp(ACK, KUBE, LAPTOP, 901, 101);
    let now = world.now;
    assert_eq!(
        world
            .gateway
            .from_target(&segment, 1, segment.len(), &mut outs, now),
        None
    );
    assert_eq!(outs.datagrams.len(), 1, "the device is asked for a key");
    assert_eq!(world.gateway.counters().packets_in, passed);
    assert_eq!(world.drops(DropReason::NoSession), 1);
}

#[test]
fn nothing_new_is_allowed_while_records_cannot_be_written() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    world.target.clear();
    world.gateway.set_log_writable(false);
    let refused = world.send(0, &tcp(SYN, ("100.96.0.2", 4001), KUBE, 1, 0));
    assert!(flags(&refused[0]).has(TcpFlags::RST));
    world.send(0, &tcp(ACK, LAPTOP, KUBE, 101, 901));
    assert_eq!(world.target.len(), 1, "what was allowed goes on");
}

#[test]
fn a_postern_client_is_told_why() {
    let mut world = World::new(&["platform"]);
    let hello = Message::Hello {
        version: 1,
        client: "0.1.0".into(),
    };
    let mut packet = [0; 256];
    let len = hello
        .write(ip("100.96.0.2"), ip("100.96.0.1"), &mut packet)
        .expect("room");
    world.send(0, &packet[..len]);
    let answers = world.send(0, &tcp(SYN, LAPTOP, SSH, 100, 0));
    assert_eq!(answers.len(), 2, "a reset and a notice");
    let view = PacketView::parse(&answers[1]).expect("valid");
    let told = Message::parse(control::payload(&view, world.laptops[0].inner).expect("control"));
    let Ok(Message::Refused { port, rule, .. }) = told else {
        panic!("{told:?}")
    };
    assert_eq!((port, rule.as_str()), (22, "default"));
    let garbage = {
        let (from, to) = (
            (ip("100.96.0.2"), control::PORT),
            (ip("100.96.0.1"), control::PORT),
        );
        let len = reply::udp(from, to, b"{}", &mut packet).expect("room");
        packet[..len].to_vec()
    };
    world.send(0, &garbage);
    assert_eq!(world.drops(DropReason::BadControl), 1);
}

#[test]
fn stopping_tells_both_ends_and_handing_over_tells_neither() {
    let mut world = World::new(&["platform"]);
    open(&mut world);
    world.gateway.hand_over(world.now);
    assert_eq!(world.records().len(), 2);
    assert!(world.gateway.flows().is_empty());
    open(&mut world);
    let mut outs = Outs::default();
    let now = world.now;
    world.gateway.shut_down(&mut outs, now);
    assert_eq!((outs.datagrams.len(), outs.packets.len()), (1, 1));
}
