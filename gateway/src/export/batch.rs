//! Lines on their way to a sink, byte for byte as they stand in the spool.

/// Lines that were read and not yet delivered. It holds at most the bytes of one batch and one
/// line more.
#[derive(Debug, Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// Number of each line, and where it ends in `bytes`, its `\n` included.
    ends: Vec<(u64, usize)>,
}

/// Some lines in a row, oldest first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lines<'a> {
    bytes: &'a [u8],
    ends: &'a [(u64, usize)],
}

impl Batch {
    /// Takes a line, given without its `\n`.
    pub(super) fn push(&mut self, n: u64, line: &[u8]) {
        self.bytes.extend_from_slice(line);
        self.bytes.push(b'\n');
        self.ends.push((n, self.bytes.len()));
    }

    /// The first `count` lines, or all of them.
    pub(super) fn head(&self, count: usize) -> Lines<'_> {
        let ends = &self.ends[..count.min(self.ends.len())];
        let end = ends.last().map_or(0, |(_, end)| *end);
        Lines {
            bytes: &self.bytes[..end],
            ends,
        }
    }

    /// Forgets the first `count` lines.
    pub(super) fn drop_head(&mut self, count: usize) {
        let count = count.min(self.ends.len());
        let Some((_, cut)) = count.checked_sub(1).map(|last| self.ends[last]) else {
            return;
        };
        self.bytes.drain(..cut);
        self.ends.drain(..count);
        for (_, end) in &mut self.ends {
            *end -= cut;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all lines.
    pub(super) fn size(&self) -> usize {
        self.bytes.len()
    }
}

impl<'a> Lines<'a> {
    /// Lines.
    pub(super) fn len(self) -> usize {
        self.ends.len()
    }

    /// All of them in one piece, each with its `\n`.
    pub(super) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// Number of the last one; 0 if there is none.
    pub(super) fn last_n(self) -> u64 {
        self.ends.last().map_or(0, |(n, _)| *n)
    }

    /// Number and bytes of each, without its `\n`.
    pub(super) fn iter(self) -> impl Iterator<Item = (u64, &'a [u8])> {
        let mut start = 0;
        self.ends.iter().map(move |&(n, end)| {
            let line = &self.bytes[start..end - 1];
            start = end;
            (n, line)
        })
    }
}

#[cfg(test)]
pub(super) fn batch(lines: &[(u64, &str)]) -> Batch {
    let mut batch = Batch::default();
    for (n, line) in lines {
        batch.push(*n, line.as_bytes());
    }
    batch
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_leave_in_the_order_in_which_they_came() {
        let mut batch = batch(&[(3, "a"), (4, "bb"), (7, "ccc")]);
        assert_eq!((batch.head(9).len(), batch.size()), (3, 9));
        assert_eq!(batch.head(2).bytes(), b"a\nbb\n");
        assert_eq!(batch.head(2).last_n(), 4);
        batch.drop_head(2);
        let rest: Vec<_> = batch.head(9).iter().collect();
        assert_eq!(rest, [(7, &b"ccc"[..])]);
        batch.drop_head(5);
        assert!(batch.is_empty() && batch.size() == 0);
        assert_eq!(batch.head(1).last_n(), 0);
    }
}
