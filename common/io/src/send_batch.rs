//! Datagrams that wait for the end of the turn, side by side in one buffer, so that a run of
//! equal ones to one peer leaves in one system call. Encryption writes straight into it.

use postern_proto::ecn::Ecn;
use postern_proto::mtu::DATAGRAM_ROOM;
use postern_proto::outbox::Endpoint;

/// Datagrams in one send: what every kernel with UDP_SEGMENT accepts (UDP_MAX_SEGMENTS).
pub const MAX_SEGMENTS: usize = 64;

/// Bytes in one send; below the 65 507 that fit in one UDP length over IPv4.
pub const MAX_RUN: usize = 65_000;

/// Bytes of the buffer: two full runs. Memory for each worker.
pub const BUFFER: usize = 2 * 65_536;

/// Runs that wait at most; 12 KiB of bookkeeping.
pub const MAX_RUNS: usize = 128;

const _: () = assert!(DATAGRAM_ROOM <= BUFFER);

/// A run of datagrams to one peer with one mark: all of one size, the last may be shorter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run<'a> {
    /// Where to, and from which of our addresses.
    pub to: Endpoint,
    /// What their IP headers carry.
    pub ecn: Ecn,
    /// All of them, one after the other.
    pub bytes: &'a [u8],
    /// Bytes of each but the last.
    pub segment: usize,
}

impl<'a> Run<'a> {
    /// How many datagrams.
    #[must_use]
    pub fn datagrams(&self) -> usize {
        self.bytes.len().div_ceil(self.segment)
    }

    /// One by one.
    pub fn iter(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.bytes.chunks(self.segment)
    }
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    to: Endpoint,
    ecn: Ecn,
    start: usize,
    end: usize,
    segment: usize,
}

/// The buffer with its runs, in the order of their first datagrams.
#[derive(Debug)]
pub struct SendBatch {
    bytes: Box<[u8]>,
    used: usize,
    runs: Vec<Waiting>,
    /// Whose slot was handed out last.
    to: Option<Endpoint>,
}

impl Default for SendBatch {
    fn default() -> Self {
        SendBatch {
            bytes: vec![0; BUFFER].into_boxed_slice(),
            used: 0,
            runs: Vec::with_capacity(MAX_RUNS),
            to: None,
        }
    }
}

impl SendBatch {
    /// Whether a slot of `room` bytes can be had before the batch must be sent.
    #[must_use]
    pub fn has_room(&self, room: usize) -> bool {
        self.runs.len() < MAX_RUNS && room <= BUFFER - self.used
    }

    /// A place to write one datagram into. A slot that was not committed is handed out again.
    /// Shorter than `room` only if there is none left: ask [`SendBatch::has_room`] first.
    pub fn slot(&mut self, to: Endpoint, room: usize) -> &mut [u8] {
        self.to = Some(to);
        let end = self.used.saturating_add(room).min(BUFFER);
        &mut self.bytes[self.used..end]
    }

    /// The first `len` bytes of the last slot are a datagram, to be marked `ecn`. Without a slot, or with a length of
    /// zero, nothing happens.
    pub fn commit(&mut self, len: usize, ecn: Ecn) {
        let Some(to) = self.to.take() else { return };
        let start = self.used;
        let len = len.min(BUFFER - start);
        if len == 0 {
            return;
        }
        self.used += len;
        match self.runs.last_mut() {
            Some(run) if run.accepts(to, ecn, len) => run.end += len,
            _ => self.runs.push(Waiting {
                to,
                ecn,
                start,
                end: start + len,
                segment: len,
            }),
        }
    }

    /// Nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Hands over every run in order and starts anew.
    pub fn drain(&mut self, mut send: impl FnMut(Run<'_>)) {
        for run in self.runs.drain(..) {
            let bytes = &self.bytes[run.start..run.end];
            send(Run {
                to: run.to,
                ecn: run.ecn,
                bytes,
                segment: run.segment,
            });
        }
        self.used = 0;
        self.to = None;
    }
}

impl Waiting {
    fn accepts(&self, to: Endpoint, ecn: Ecn, len: usize) -> bool {
        let so_far = self.end - self.start;
        self.to == to
            && self.ecn == ecn
            && len <= self.segment
            // A shorter one was the last of its run.
            && so_far.is_multiple_of(self.segment)
            && so_far / self.segment < MAX_SEGMENTS
            && so_far + len <= MAX_RUN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::SocketAddr;

    fn peer(number: u8) -> Endpoint {
        SocketAddr::from(([192, 0, 2, number], 51820)).into()
    }

    fn put(batch: &mut SendBatch, to: Endpoint, datagram: &[u8]) {
        put_marked(batch, to, Ecn::NotEct, datagram);
    }

    fn put_marked(batch: &mut SendBatch, to: Endpoint, ecn: Ecn, datagram: &[u8]) {
        batch.slot(to, datagram.len())[..datagram.len()].copy_from_slice(datagram);
        batch.commit(datagram.len(), ecn);
    }

    fn sizes(batch: &mut SendBatch) -> Vec<(Endpoint, Vec<usize>)> {
        let mut runs = Vec::new();
        batch.drain(|run| runs.push((run.to, run.iter().map(<[u8]>::len).collect())));
        runs
    }

    #[test]
    fn a_shorter_one_ends_its_run_and_a_longer_one_starts_another() {
        let mut batch = SendBatch::default();
        for len in [100, 100, 40, 40, 100] {
            put(&mut batch, peer(1), &vec![7; len]);
        }
        assert_eq!(
            sizes(&mut batch),
            [
                (peer(1), vec![100, 100, 40]),
                (peer(1), vec![40]),
                (peer(1), vec![100])
            ]
        );
        assert!(batch.is_empty());
    }

    #[test]
    fn a_run_has_one_destination_and_one_source() {
        let mut batch = SendBatch::default();
        let elsewhere = Endpoint {
            local: Some([192, 0, 2, 9].into()),
            ..peer(1)
        };
        for to in [peer(1), peer(2), elsewhere] {
            put(&mut batch, to, &[1; 10]);
        }
        assert_eq!(sizes(&mut batch).len(), 3);
    }

    #[test]
    fn a_run_has_one_mark() {
        let mut batch = SendBatch::default();
        for ecn in [Ecn::Ect0, Ecn::Ect0, Ecn::Ce, Ecn::Ect0, Ecn::NotEct] {
            put_marked(&mut batch, peer(1), ecn, &[1; 10]);
        }
        let mut runs = Vec::new();
        batch.drain(|run| runs.push((run.ecn, run.datagrams())));
        assert_eq!(
            runs,
            [
                (Ecn::Ect0, 2),
                (Ecn::Ce, 1),
                (Ecn::Ect0, 1),
                (Ecn::NotEct, 1)
            ]
        );
    }

    #[test]
    fn an_uncommitted_slot_leaves_nothing_behind() {
        let mut batch = SendBatch::default();
        batch.slot(peer(1), 100).fill(9);
        put(&mut batch, peer(2), &[1, 2, 3]);
        batch.commit(50, Ecn::NotEct); // no slot was asked for
        let mut seen = Vec::new();
        batch.drain(|run| seen.push((run.to, run.bytes.to_vec())));
        assert_eq!(seen, [(peer(2), vec![1, 2, 3])]);
    }

    proptest! {
        /// Whatever is put in comes out once, in order, to the right peer, with its mark, in runs
        /// that the kernel accepts.
        #[test]
        fn nothing_is_lost_changed_or_reordered(
            datagrams in prop::collection::vec((0u8..3, prop_oneof![9 => Just(2u8), 1 => 0u8..4], prop_oneof![Just(1452usize), Just(40), 1usize..1500]), 0..300)
        ) {
            let mut batch = SendBatch::default();
            let (mut put_in, mut came_out) = (Vec::new(), Vec::new());
            let mut collect = |run: Run<'_>| {
                assert!(run.datagrams() <= MAX_SEGMENTS && run.bytes.len() <= MAX_RUN);
                let sizes: Vec<_> = run.iter().map(<[u8]>::len).collect();
                let (last, others) = sizes.split_last().unwrap();
                assert!(others.iter().all(|size| *size == run.segment) && *last <= run.segment);
                came_out.extend(run.iter().map(|datagram| (run.to, run.ecn, datagram.to_vec())));
            };
            for (number, (to, ecn, len)) in datagrams.into_iter().enumerate() {
                let datagram: Vec<u8> = (0..len).map(|at| (at + number) as u8).collect();
                if !batch.has_room(DATAGRAM_ROOM) {
                    batch.drain(&mut collect);
                }
                prop_assert!(batch.slot(peer(to), DATAGRAM_ROOM).len() == DATAGRAM_ROOM);
                let ecn = Ecn::from_traffic_class(ecn);
                put_marked(&mut batch, peer(to), ecn, &datagram);
                put_in.push((peer(to), ecn, datagram));
            }
            batch.drain(&mut collect);
            prop_assert_eq!(put_in, came_out);
        }
    }
}
