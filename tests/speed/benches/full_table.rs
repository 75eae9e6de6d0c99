//! What the policy and the flow table cost the packets of known flows as both grow:
//! `cargo bench -p postern-speed --bench full_table`.
//!
//! Two gateways take the same turns alternately, so that whatever else the machine does meets
//! both: one with 10 rules and one flow, one with 10 000 rules and 100 000 flows, of which each
//! turn meets another. A turn is one super-packet of 45, or 45 datagrams of it. What is printed is
//! the median of each, and the median of the ratios of turns that were neighbours.
#![allow(clippy::print_stdout)]

use postern_speed::packets::{From, SEGMENTS, Shape};
use postern_speed::wire::Datagrams;
use postern_speed::world::{World, tcp};
use std::hint::black_box;
use std::time::Instant;

const SMALL: (usize, usize) = (10, 1);
const LARGE: (usize, usize) = (10_000, 100_000);
const TURNS: usize = 4_000;
/// Packets in a turn; the flow changes with each turn.
const BURSTS: [usize; 2] = [SEGMENTS, 1];

fn main() {
    // Without --bench, only that it builds and runs is asked.
    let asked = std::env::args().any(|argument| argument == "--bench");
    let (large, turns) = if asked { (LARGE, TURNS) } else { ((20, 20), 4) };
    let mut worlds = [World::new(SMALL.0, SMALL.1), World::new(large.0, large.1)];
    let flows = [SMALL.1, large.1];
    println!(
        "{:<28} {:>14} {:>14} {:>8} {:>16}",
        "ns for one packet",
        format!("{} / {}", SMALL.0, SMALL.1),
        format!("{} / {}", large.0, large.1),
        "ratio",
        "[10th-90th]"
    );
    for burst in BURSTS {
        let shape = if burst == 1 {
            Shape::Full
        } else {
            Shape::Super
        };
        let mut walk = 0;
        let pairs = (0..turns).map(|turn| {
            walk = (walk + 7_919) % flows[1];
            // Who goes first changes, too.
            let mut times = [0.0; 2];
            for place in [turn % 2, 1 - turn % 2] {
                let World { laptop, gateway } = &mut worlds[place];
                let flow = tcp(walk % flows[place]);
                let sealed: Datagrams = laptop.sealed([flow.data(From::Device, shape, turn)]);
                let started = Instant::now();
                gateway.receive(black_box(&sealed));
                times[place] = started.elapsed().as_secs_f64() * 1e9 / burst as f64;
            }
            times
        });
        print(&format!("in, {burst} of a flow in a row"), pairs.collect());

        let mut walk = 0;
        let pairs = (0..turns).map(|turn| {
            walk = (walk + 7_919) % flows[1];
            let mut times = [0.0; 2];
            for place in [turn % 2, 1 - turn % 2] {
                let flow = tcp(walk % flows[place]);
                let mut read = flow.data(From::Target, shape, turn);
                let started = Instant::now();
                worlds[place].gateway.send(black_box(&mut read));
                times[place] = started.elapsed().as_secs_f64() * 1e9 / burst as f64;
            }
            times
        });
        print(
            &format!("back, {burst} of a flow in a row"),
            pairs.collect(),
        );
    }
    assert!(worlds.iter().all(|world| world.drops() == 0));
}

fn print(name: &str, pairs: Vec<[f64; 2]>) {
    let sorted = |values: &mut dyn Iterator<Item = f64>| {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let median = |values: &[f64]| values[values.len() / 2];
    let small = sorted(&mut pairs.iter().map(|pair| pair[0]));
    let large = sorted(&mut pairs.iter().map(|pair| pair[1]));
    let ratios = sorted(&mut pairs.iter().map(|pair| pair[1] / pair[0]));
    let tenth = ratios.len() / 10;
    println!(
        "{name:<28} {:>14.0} {:>14.0} {:>8.3} {:>16}",
        median(&small),
        median(&large),
        median(&ratios),
        format!(
            "[{:.2}-{:.2}]",
            ratios[tenth],
            ratios[ratios.len() - 1 - tenth]
        ),
    );
}
