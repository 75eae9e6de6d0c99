//! The last lines by hash: whether one that comes again is the same.

use crate::line::Hash;
use std::collections::VecDeque;

/// How many lines back one may come again: far more than what an exporter delivers in the second
/// between two writes of its cursor. 3.2 MB.
pub const MAX_SEEN: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Seen(VecDeque<Hash>);

impl Seen {
    /// Adds the next line.
    pub(super) fn add(&mut self, hash: Hash) {
        if self.0.len() == MAX_SEEN {
            self.0.pop_front();
        }
        self.0.push_back(hash);
    }

    /// The line so many before the last one; none if it was never there, or too long ago.
    pub(super) fn back(&self, lines: u64) -> Option<Hash> {
        let last = self.0.len().checked_sub(1)?;
        let at = last.checked_sub(usize::try_from(lines).ok()?)?;
        self.0.get(at).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_knows_the_last_lines_and_no_more() {
        let hash = |i: usize| Hash::of(&i.to_be_bytes());
        let mut seen = Seen::default();
        assert_eq!(seen.back(0), None);
        for i in 0..MAX_SEEN + 5 {
            seen.add(hash(i));
        }
        let most = MAX_SEEN as u64;
        assert_eq!(seen.back(0), Some(hash(MAX_SEEN + 4)));
        assert_eq!(seen.back(most - 1), Some(hash(5)));
        assert_eq!((seen.back(most), seen.back(u64::MAX)), (None, None));
        assert_eq!(seen.0.len(), MAX_SEEN);
    }
}
