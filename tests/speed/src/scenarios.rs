//! What the guard counts: each road through each end with each shape of packet, and what opens a
//! flow. Everything that must be there is made before; then one function is counted.

use crate::packets::{From, Read, Shape};
use crate::wire::Datagrams;
use crate::world::{World, tcp, udp};
use std::fmt;
use std::hint::black_box;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Rules and open flows besides those that are counted.
const RULES: usize = 1_000;
const FLOWS: usize = 200;

/// Reads and receives for each count.
const ROUNDS: usize = 20;

/// What callgrind is told to look for.
pub const COUNTED: &str = "postern_speed::scenarios::counted_region";

/// One count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Count {
    /// The call of the counted function that it is about, from 1.
    pub call: usize,
    /// Its name in the table.
    pub name: String,
    /// Packets that passed; flows, where flows were opened.
    pub packets: u64,
}

impl Count {
    /// Reads what `Display` writes.
    #[must_use]
    pub fn parse(line: &str) -> Option<Count> {
        let mut fields = line.split(' ');
        Some(Count {
            call: fields.next()?.parse().ok()?,
            name: fields.next()?.to_owned(),
            packets: fields.next()?.parse().ok()?,
        })
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.call, self.name, self.packets)
    }
}

/// Does everything that is counted, in order.
///
/// # Panics
/// When a packet is refused: then it is not the road that is counted.
#[must_use]
pub fn play() -> Vec<Count> {
    let mut world = World::new(RULES, FLOWS);
    let mut meter = Meter::default();
    for shape in Shape::ALL {
        // The first time, what grows on demand grows.
        both_ways(&mut Meter::default(), &mut world, shape, 0);
        both_ways(&mut meter, &mut world, shape, 1);
    }
    new_flows(&mut meter, &mut world);
    assert_eq!(world.drops(), 0, "a packet was refused");
    meter.counts
}

/// From laptop to target and back. `turn` counts the calls, for sequence numbers that go on.
fn both_ways(meter: &mut Meter, world: &mut World, shape: Shape, turn: usize) {
    let flow = if shape == Shape::Small { udp() } else { tcp(7) };
    let reads = |from| -> Vec<Read> {
        (0..ROUNDS)
            .map(|round| flow.data(from, shape, turn * ROUNDS + round))
            .collect()
    };
    let packets = ROUNDS * shape.segments();
    let name = |road: &str| format!("{road}-{}", format!("{shape:?}").to_lowercase());

    // Sealed twice: once to be counted, once to have something to open.
    let mut out = reads(From::Device);
    meter.count(name("laptop-out"), packets, || {
        out.iter_mut().for_each(|read| world.laptop.send(read));
    });
    let out: Vec<Datagrams> = reads(From::Device)
        .into_iter()
        .map(|read| world.laptop.sealed([read]))
        .collect();
    meter.count(name("gateway-in"), packets, || {
        out.iter()
            .for_each(|datagrams| world.gateway.receive(datagrams));
    });

    let mut back = reads(From::Target);
    meter.count(name("gateway-back"), packets, || {
        back.iter_mut().for_each(|read| world.gateway.send(read));
    });
    let back: Vec<Datagrams> = reads(From::Target)
        .into_iter()
        .map(|read| world.gateway.sealed([read]))
        .collect();
    meter.count(name("laptop-in"), packets, || {
        back.iter()
            .for_each(|datagrams| world.laptop.receive(datagrams));
    });
}

/// SYNs that are judged, remembered and recorded.
fn new_flows(meter: &mut Meter, world: &mut World) {
    let syns: Vec<Read> = (FLOWS..FLOWS + ROUNDS)
        .map(|number| tcp(number).syn())
        .collect();
    let syns = world.laptop.sealed(syns);
    let mut records = 0;
    meter.count("gateway-new-flow".to_owned(), ROUNDS, || {
        world.gateway.receive(&syns);
        records = world.gateway.take_records();
    });
    assert_eq!(records, ROUNDS, "each flow has its record");
}

#[derive(Default)]
struct Meter {
    counts: Vec<Count>,
}

impl Meter {
    fn count(&mut self, name: String, packets: usize, mut work: impl FnMut()) {
        let call = CALLS.fetch_add(1, Ordering::Relaxed) + 1;
        counted_region(&mut work);
        self.counts.push(Count {
            call,
            name,
            packets: packets as u64,
        });
    }
}

/// How often the counted function was called: callgrind numbers its profiles by it.
static CALLS: AtomicUsize = AtomicUsize::new(0);

/// What callgrind counts: this function and what it calls.
#[inline(never)]
fn counted_region(work: &mut dyn FnMut()) {
    work();
    // Not a tail call: the function is left only when the work is done.
    black_box(work);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_road_of_every_shape_has_its_name() {
        let mut names: Vec<String> = play().into_iter().map(|count| count.name).collect();
        assert_eq!(names.len(), 4 * Shape::ALL.len() + 1);
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 4 * Shape::ALL.len() + 1);
    }
}
