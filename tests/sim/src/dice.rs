//! Where chance comes from: a seed, or the bytes of a fuzzer.

/// Something that decides.
pub trait Dice {
    /// A number below `sides`; zero for no sides.
    fn roll(&mut self, sides: u64) -> u64;

    /// True once in `sides` rolls.
    fn one_in(&mut self, sides: u64) -> bool {
        self.roll(sides) == 0
    }

    /// A number from `low` to `high`, both included.
    fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.roll(high.saturating_sub(low) + 1)
    }

    /// An index of a list of `len` items.
    fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.roll(len as u64)).unwrap_or(0)
    }

    /// A small number.
    fn small(&mut self, sides: u8) -> u8 {
        u8::try_from(self.roll(u64::from(sides))).unwrap_or(0)
    }

    /// Any byte.
    fn byte(&mut self) -> u8 {
        u8::try_from(self.roll(256)).unwrap_or(0)
    }
}

/// Splitmix64 (Steele, Lea, Flood 2014).
#[derive(Clone, Debug)]
pub struct Seeded(u64);

impl Seeded {
    /// The same seed, the same rolls.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Seeded(seed)
    }

    /// 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 32 bytes, for a key.
    pub fn key(&mut self) -> [u8; 32] {
        let mut key = [0; 32];
        for part in key.chunks_exact_mut(8) {
            part.copy_from_slice(&self.bits().to_le_bytes());
        }
        key
    }
}

impl Dice for Seeded {
    fn roll(&mut self, sides: u64) -> u64 {
        self.bits().checked_rem(sides).unwrap_or(0)
    }
}

/// A fuzzer's bytes, used up from the front; zeros when there are no more.
#[derive(Clone, Debug)]
pub struct Bytes<'a>(pub &'a [u8]);

impl Dice for Bytes<'_> {
    fn roll(&mut self, sides: u64) -> u64 {
        let width = match sides {
            ..=1 => return 0,
            2..=256 => 1,
            257..=65_536 => 2,
            _ => 4,
        };
        let (now, later) = self.0.split_at(width.min(self.0.len()));
        self.0 = later;
        let number = now.iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        number % sides
    }
}
