//! Bytes arrive whole and in order, whatever the road does.

use super::*;

const SIZE: usize = 150_000;

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64)
        .map(|place| (place.wrapping_mul(seed | 1) >> 3).to_le_bytes()[0])
        .collect()
}

/// What one end still has to say, and what it has heard.
struct End {
    id: Id,
    says: Vec<u8>,
    said: usize,
    heard: Vec<u8>,
}

impl End {
    fn new(id: Id, says: Vec<u8>) -> End {
        End {
            id,
            says,
            said: 0,
            heard: Vec::new(),
        }
    }

    fn work(&mut self, stack: &mut Stack, now: Mono) {
        let mut room = [0; 3000];
        while let Some(read) = stack.read(self.id, &mut room, now).expect("unbroken") {
            assert!(read > 0, "no end was sent");
            self.heard.extend(&room[..read]);
        }
        while self.said < self.says.len() {
            let rest = &self.says[self.said..];
            match stack.write(self.id, rest, now).expect("unbroken") {
                None => break,
                Some(written) => self.said += written,
            }
        }
    }
}

fn transfer(faults: Faults, seed: u64) {
    let mut world = World::new(faults, seed);
    let (ours, theirs) = world.connected();
    let (there, back) = (bytes(seed, SIZE), bytes(seed + 2, SIZE + 999));
    let mut near = End::new(ours, there.clone());
    let mut far = End::new(theirs, back.clone());
    let end = world.now + Duration::from_secs(900);
    while near.heard.len() < back.len() || far.heard.len() < there.len() {
        assert!(world.now < end, "it takes for ever: {faults:?} {seed}");
        near.work(&mut world.client, world.now);
        far.work(&mut world.server, world.now);
        world.step(end);
    }
    assert!(far.heard == there, "what the client said arrived");
    assert!(near.heard == back, "what the server said arrived");
}

#[test]
fn much_both_ways_over_a_good_road() {
    transfer(Faults::default(), 3);
}

#[test]
fn much_both_ways_over_a_bad_road() {
    let faults = Faults {
        lost: 5,
        doubled: 5,
        late: 10,
    };
    transfer(faults, 4);
}

/// Worse than any road that people work over, and the same roads in every run. On a still worse one
/// (a third of all packets late, one in twenty lost) a connection may end by its own patience.
#[test]
fn much_both_ways_over_many_roads() {
    for seed in 1..=24 {
        let faults = Faults {
            lost: seed % 5,
            doubled: seed * 7 % 20,
            late: seed * 3 % 20,
        };
        transfer(faults, seed);
    }
}
