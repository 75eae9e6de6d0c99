//! The parts of a packet's road, one by one: `cargo bench -p postern-speed --bench parts`.
#![allow(clippy::unwrap_used)]

use divan::{Bencher, black_box, counter::BytesCount, counter::ItemsCount};
use postern_engine::flow::{Flow, FlowTable};
use postern_engine::hint::Hint;
use postern_engine::policy::{self, Policy, RuleId};
use postern_io::checksum;
use postern_io::join::{Joinable, Joiner};
use postern_io::send_batch::SendBatch;
use postern_io::split::SuperPacket;
use postern_proto::ecn::Ecn;
use postern_proto::flow_key::{FlowKey, Protocol};
use postern_proto::keys::PrivateKey;
use postern_proto::now::{Mono, Now, Wall};
use postern_proto::outbox::Endpoint;
use postern_proto::packet::PacketView;
use postern_proto::peers::{Inbound, PeerId, Peers};
use postern_proto::tunnel::Settings;
use postern_speed::packets::{From, SEGMENTS, Shape};
use postern_speed::wire::{Datagrams, Wire};
use postern_speed::world::{tcp, udp};
use std::net::SocketAddr;
use std::sync::Arc;

const NOW: Now = Now {
    mono: Mono(1_000_000_000_000),
    wall: Wall(1_800_000_000_000_000_000),
};

fn main() {
    divan::main();
}

/// Structure proved, headers read.
#[divan::bench(args = Shape::ALL)]
fn packet_view(bencher: Bencher<'_, '_>, shape: Shape) {
    let flow = if shape == Shape::Small { udp() } else { tcp(0) };
    let read = flow.data(From::Device, shape, 0);
    bencher.bench(|| PacketView::parse(black_box(&read.bytes)).map(|view| view.key_from_device()));
}

/// The Internet checksum.
#[divan::bench(args = [64, 1420])]
fn checksum_of(bencher: Bencher<'_, '_>, len: usize) {
    let bytes = vec![0xa5; len];
    bencher
        .counter(BytesCount::new(len))
        .bench(|| checksum::sum(black_box(&bytes)));
}

/// A known flow among so many, a different one each time.
#[divan::bench(args = [10, 1_000, 100_000])]
fn flow_lookup(bencher: Bencher<'_, '_>, flows: usize) {
    let policy = Arc::new(policy::empty());
    let mut table = FlowTable::new(flows, 7);
    let keys: Vec<FlowKey> = (0..flows).map(key).collect();
    for (id, key) in (1..).zip(&keys) {
        table.insert(flow(*key, id, &policy));
    }
    let mut at = 0;
    bencher.bench_local(|| {
        at = (at + 7_919) % flows;
        let slot = table.find(black_box(&keys[at]))?;
        table.get(slot).map(|flow| flow.id)
    });
}

/// One packet sealed into the send batch.
#[divan::bench(args = [64, 1420])]
fn seal_one(bencher: Bencher<'_, '_>, len: usize) {
    let (mut laptop, _, peer) = tunnel();
    let mut wire = Wire::default();
    let packet = inner(len);
    bencher
        .counter(BytesCount::new(len))
        .bench_local(|| laptop.send(peer, black_box(&packet), &mut wire, NOW));
}

/// One datagram opened into the packet slot.
#[divan::bench(args = [64, 1420])]
fn open_one(bencher: Bencher<'_, '_>, len: usize) {
    let (mut laptop, mut gateway, peer) = tunnel();
    let (mut here, mut there) = (Wire::default(), Wire::default());
    let packet = inner(len);
    bencher
        .counter(BytesCount::new(len))
        .with_inputs(|| {
            here.keep();
            laptop.send(peer, &packet, &mut here, NOW).unwrap();
            here.flush();
            here.take()
        })
        .bench_local_values(|datagrams| receive(&mut gateway, &datagrams, &mut there));
}

/// 64 KiB of one connection apart.
#[divan::bench]
fn split_64_kib(bencher: Bencher<'_, '_>) {
    let read = tcp(0).largest(From::Device);
    bencher
        .counter(BytesCount::new(read.bytes.len()))
        .with_inputs(|| read.clone())
        .bench_local_values(|mut read| {
            let packet = SuperPacket::parse(read.header, &mut read.bytes).unwrap();
            packet.for_each_segment(|segment| {
                black_box(segment);
            });
            read
        });
}

/// 45 segments together, each copied into its slot first, as decryption writes it there.
#[divan::bench]
fn join_45(bencher: Bencher<'_, '_>) {
    let mut read = tcp(0).data(From::Target, Shape::Super, 0);
    let mut segments = Vec::new();
    SuperPacket::parse(read.header, &mut read.bytes)
        .unwrap()
        .for_each_segment(|segment| segments.push(segment.to_vec()));
    let mut joiner = Joiner::new(Joinable {
        tcp: true,
        udp: true,
    });
    bencher.counter(ItemsCount::new(SEGMENTS)).bench_local(|| {
        for segment in &segments {
            joiner.slot()[..segment.len()].copy_from_slice(segment);
            joiner.commit(segment.len());
        }
        joiner.drain(|joined| {
            black_box(joined.slices);
        });
    });
}

/// The bookkeeping of the send batch alone.
#[divan::bench]
fn send_batch_45(bencher: Bencher<'_, '_>) {
    let mut batch = SendBatch::default();
    let to = Endpoint::from(SocketAddr::from(([203, 0, 113, 1], 51_820)));
    bencher.counter(ItemsCount::new(SEGMENTS)).bench_local(|| {
        for _ in 0..SEGMENTS {
            black_box(batch.slot(to, 1452));
            batch.commit(1452, Ecn::NotEct);
        }
        batch.drain(|run| {
            black_box(run);
        });
    });
}

fn key(number: usize) -> FlowKey {
    let flow = tcp(number);
    let (device, target) = (flow.device, flow.target);
    FlowKey::new(
        Protocol::Tcp,
        (device.0.into(), device.1),
        (target.0.into(), target.1),
    )
}

fn flow(key: FlowKey, id: u64, policy: &Arc<Policy>) -> Flow {
    Flow {
        key,
        id,
        peer: PeerId::new(0).unwrap(),
        rule: RuleId::Rule(0),
        target: None,
        policy: Arc::clone(policy),
        policy_hash: "".into(),
        grant: None,
        shadow: None,
        who: Default::default(),
        judged_at: 1,
        started: NOW,
        last: NOW,
        bytes_out: 0,
        bytes_in: 0,
        packets_out: 0,
        packets_in: 0,
        tcp: None,
        resumed: false,
        hint: Hint::default(),
        cut: None,
    }
}

/// Bytes that the tunnel takes for an IPv4 packet.
fn inner(len: usize) -> Vec<u8> {
    let mut packet = vec![0; len];
    packet[0] = 0x45;
    packet[2..4].copy_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
    packet
}

/// Two ends with a key.
fn tunnel() -> (Peers, Peers, PeerId) {
    let keys = [1, 2].map(|byte| PrivateKey::from_random([byte; 32]));
    let [mut laptop, mut gateway] = keys.clone().map(|key| Peers::new(key, 0, 0, 7));
    let peer = laptop
        .add(keys[1].public(), &Settings::default(), Some(endpoint()))
        .unwrap();
    gateway
        .add(keys[0].public(), &Settings::default(), None)
        .unwrap();
    let mut wire = Wire::default();
    wire.keep();
    laptop.initiate(peer, &mut wire, NOW);
    wire.flush();
    // Initiation, response, and the keepalive that confirms it.
    for turn in 0..3 {
        let end = if turn == 1 { &mut laptop } else { &mut gateway };
        let datagrams = wire.take();
        wire.keep();
        receive(end, &datagrams, &mut wire);
        wire.flush();
    }
    (laptop, gateway, peer)
}

fn endpoint() -> Endpoint {
    Endpoint::from(SocketAddr::from(([203, 0, 113, 1], 51_820)))
}

fn receive(peers: &mut Peers, datagrams: &Datagrams, wire: &mut Wire) -> Option<Inbound> {
    let receive = |datagram| peers.receive(endpoint(), Ecn::NotEct, datagram, wire, NOW);
    datagrams.iter().map(receive).last()
}
