//! The first bytes of one direction of a TCP connection, in order, whatever the order in which
//! they pass.

/// Segments kept that came ahead of a gap. Together they have no more bytes than the stream.
const EARLY: usize = 8;

/// The first `MOST` bytes. Of bytes that are sent twice, those that came first count.
#[derive(Debug)]
pub(super) struct Stream<const MOST: usize> {
    /// Sequence number of the first byte, once known.
    start: Option<u32>,
    heard: Vec<u8>,
    early: Vec<(usize, Box<[u8]>)>,
}

impl<const MOST: usize> Stream<MOST> {
    pub(super) fn new(start: Option<u32>) -> Self {
        Stream {
            start,
            heard: Vec::new(),
            early: Vec::new(),
        }
    }

    /// The first byte will have this number.
    pub(super) fn begins(&mut self, start: u32) {
        self.start.get_or_insert(start);
    }

    /// A segment. One that lies before the beginning (a keep-alive), beyond the end, or too far
    /// ahead of a gap is as good as lost.
    pub(super) fn take_in(&mut self, sequence: u32, payload: &[u8]) {
        let Some(start) = self.start else { return };
        let at = usize::try_from(sequence.wrapping_sub(start)).unwrap_or(usize::MAX);
        let Some(room) = MOST.checked_sub(at).filter(|room| *room > 0) else {
            return;
        };
        let payload = super::clip(payload, room);
        if at > self.heard.len() {
            let waiting: usize = self.early.iter().map(|(_, early)| early.len()).sum();
            if self.early.len() < EARLY && waiting + payload.len() <= MOST {
                self.early.push((at, payload.into()));
            }
            return;
        }
        self.append(at, payload);
        while let Some(next) = self
            .early
            .iter()
            .position(|(at, _)| *at <= self.heard.len())
        {
            let (at, payload) = self.early.swap_remove(next);
            self.append(at, &payload);
        }
    }

    /// The bytes from the first one to the first gap.
    pub(super) fn heard(&self) -> &[u8] {
        &self.heard
    }

    /// There is room, and it is known where the first byte is.
    pub(super) fn takes_more(&self) -> bool {
        self.start.is_some() && self.heard.len() < MOST
    }

    fn append(&mut self, at: usize, payload: &[u8]) {
        let known = self.heard.len().saturating_sub(at);
        self.heard
            .extend_from_slice(payload.get(known..).unwrap_or_default());
    }
}

#[cfg(test)]
impl<const MOST: usize> Stream<MOST> {
    pub(super) fn held(&self) -> usize {
        self.heard.len()
            + self
                .early
                .iter()
                .map(|(_, early)| early.len())
                .sum::<usize>()
    }
}
