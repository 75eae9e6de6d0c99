//! A packet's whole road through one end, without system calls: `cargo bench -p postern-speed
//! --bench road`. One iteration is one turn: one read from the TUN, or the datagrams of one.

use divan::{Bencher, counter::BytesCount, counter::ItemsCount};
use postern_speed::packets::{Flow, From, Shape};
use postern_speed::world::{World, tcp, udp};

const RULES: usize = 1_000;
const FLOWS: usize = 1_000;

fn main() {
    divan::main();
}

fn flow(shape: Shape) -> Flow {
    if shape == Shape::Small { udp() } else { tcp(7) }
}

fn bytes(shape: Shape) -> BytesCount {
    BytesCount::new(shape.segments() * shape.packet_len())
}

/// The laptop: admitted, split, sealed into the send batch.
#[divan::bench(args = Shape::ALL)]
fn laptop_out(bencher: Bencher<'_, '_>, shape: Shape) {
    let mut laptop = World::new(RULES, FLOWS).laptop;
    let read = flow(shape).data(From::Device, shape, 0);
    bencher
        .counter(bytes(shape))
        .with_inputs(|| read.clone())
        .bench_local_refs(|read| laptop.send(read));
}

/// The gateway: opened, judged, joined.
#[divan::bench(args = Shape::ALL)]
fn gateway_in(bencher: Bencher<'_, '_>, shape: Shape) {
    let World {
        mut laptop,
        mut gateway,
    } = World::new(RULES, FLOWS);
    let read = flow(shape).data(From::Device, shape, 0);
    bencher
        .counter(bytes(shape))
        .with_inputs(|| laptop.sealed([read.clone()]))
        .bench_local_refs(|datagrams| gateway.receive(datagrams));
}

/// The gateway: judged, split, sealed into the send batch.
#[divan::bench(args = Shape::ALL)]
fn gateway_back(bencher: Bencher<'_, '_>, shape: Shape) {
    let mut gateway = World::new(RULES, FLOWS).gateway;
    let read = flow(shape).data(From::Target, shape, 0);
    bencher
        .counter(bytes(shape))
        .with_inputs(|| read.clone())
        .bench_local_refs(|read| gateway.send(read));
}

/// The laptop: opened, checked, joined.
#[divan::bench(args = Shape::ALL)]
fn laptop_in(bencher: Bencher<'_, '_>, shape: Shape) {
    let World {
        mut laptop,
        mut gateway,
    } = World::new(RULES, FLOWS);
    let read = flow(shape).data(From::Target, shape, 0);
    bencher
        .counter(bytes(shape))
        .with_inputs(|| gateway.sealed([read.clone()]))
        .bench_local_refs(|datagrams| laptop.receive(datagrams));
}

/// The gateway: opened, judged by so many rules, remembered, recorded; 100 flows at a time.
#[divan::bench(args = [10, 1_000, 10_000], sample_count = 50, sample_size = 1)]
fn new_flows_100(bencher: Bencher<'_, '_>, rules: usize) {
    const COUNT: usize = 100;
    let World {
        mut laptop,
        mut gateway,
    } = World::new(rules, 0);
    let mut next = 0;
    bencher
        .counter(ItemsCount::new(COUNT))
        .with_inputs(|| {
            next += COUNT;
            laptop.sealed((next - COUNT..next).map(|number| tcp(number).syn()))
        })
        .bench_local_refs(|syns| {
            gateway.receive(syns);
            gateway.take_records()
        });
}
