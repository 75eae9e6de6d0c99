//! The outbox of one end: the batches of the real road, emptied into nothing, or into a vector
//! for the other end.

use postern_io::join::{Joinable, Joiner};
use postern_io::send_batch::SendBatch;
use postern_proto::ecn::Ecn;
use postern_proto::outbox::{Endpoint, Outbox};
use std::hint::black_box;

/// Datagrams side by side.
#[derive(Clone, Debug, Default)]
pub struct Datagrams {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Datagrams {
    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let starts = std::iter::once(0).chain(self.ends.iter().copied());
        starts
            .zip(&self.ends)
            .map(|(start, end)| &self.bytes[start..*end])
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// None.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    fn push(&mut self, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.ends.push(self.bytes.len());
    }
}

/// What an end writes into.
#[derive(Debug)]
pub struct Wire {
    batch: SendBatch,
    joiner: Joiner,
    /// Where datagrams go; nowhere while they are measured.
    kept: Option<Datagrams>,
    /// Packets that went to the TUN.
    pub packets: u64,
    /// Writes to the TUN that they took.
    pub writes: u64,
    /// Datagrams that went to the network.
    pub datagrams: u64,
    /// Sends that they took.
    pub sends: u64,
}

impl Default for Wire {
    fn default() -> Self {
        Wire {
            batch: SendBatch::default(),
            joiner: Joiner::new(Joinable {
                tcp: true,
                udp: true,
            }),
            kept: None,
            packets: 0,
            writes: 0,
            datagrams: 0,
            sends: 0,
        }
    }
}

impl Wire {
    /// The end of a turn.
    pub fn flush(&mut self) {
        self.send();
        self.write();
    }

    /// From now on, datagrams are kept.
    pub fn keep(&mut self) {
        self.kept = Some(Datagrams::default());
    }

    /// The datagrams kept since [`Wire::keep`]; no more are.
    pub fn take(&mut self) -> Datagrams {
        self.kept.take().unwrap_or_default()
    }

    fn send(&mut self) {
        self.batch.drain(|run| {
            self.sends += 1;
            self.datagrams += run.datagrams() as u64;
            match &mut self.kept {
                Some(kept) => run.iter().for_each(|datagram| kept.push(datagram)),
                None => {
                    black_box(run);
                }
            }
        });
    }

    fn write(&mut self) {
        self.joiner.drain(|joined| {
            self.writes += 1;
            self.packets += joined.members() as u64;
            black_box(joined.slices);
        });
    }
}

impl Outbox for Wire {
    fn datagram(&mut self, to: Endpoint, room: usize) -> &mut [u8] {
        if !self.batch.has_room(room) {
            self.send();
        }
        self.batch.slot(to, room)
    }

    fn commit_datagram(&mut self, len: usize, ecn: Ecn) {
        self.batch.commit(len, ecn);
    }

    fn packet(&mut self) -> &mut [u8] {
        if !self.joiner.has_room() {
            self.write();
        }
        self.joiner.slot()
    }

    fn commit_packet(&mut self, len: usize) {
        self.joiner.commit(len);
    }
}
