//! What a worker has made and the log's channel has not taken. It never waits: records stay here up
//! to a bound, and beyond it the oldest are lost and counted.

use super::tally::{Told, of};
use super::{RECORD_BATCH, RecordSender};
use postern_engine::record::Record;
use std::collections::VecDeque;

/// A worker's end of the log, with the records that wait for it.
#[derive(Debug)]
pub struct Outgoing {
    sender: RecordSender,
    waiting: VecDeque<Record>,
    /// Attempts that those stand for.
    flows: u64,
}

impl Outgoing {
    /// Nothing waits yet.
    #[must_use]
    pub fn new(sender: RecordSender) -> Self {
        Outgoing {
            sender,
            waiting: VecDeque::new(),
            flows: 0,
        }
    }

    /// Takes records in, and hands over what the channel takes; at most `most` wait afterwards.
    pub fn hand_in(&mut self, made: Vec<Record>, most: usize) {
        self.flows += of(&made).1;
        self.waiting.extend(made);
        while !self.waiting.is_empty() {
            let some = self.waiting.len().min(RECORD_BATCH);
            let batch: Vec<Record> = self.waiting.drain(..some).collect();
            let flows = of(&batch).1;
            if let Err(back) = self.sender.offer(batch) {
                back.into_iter()
                    .rev()
                    .for_each(|record| self.waiting.push_front(record));
                break;
            }
            self.flows -= flows;
        }
        self.lose_down_to(most);
    }

    /// Throws the oldest away until `most` are left; they are counted and stated as lost.
    pub fn lose_down_to(&mut self, most: usize) {
        let over = self.waiting.len().saturating_sub(most);
        if over > 0 {
            let lost: Vec<Record> = self.waiting.drain(..over).collect();
            self.flows -= of(&lost).1;
            self.sender.lose(&lost);
        }
    }

    /// Says what the worker has done so far; what waits here is added to it.
    pub fn tell(&self, told: Told) {
        self.sender.tell(Told {
            in_worker: self.flows,
            ..told
        });
    }

    /// Records that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// None waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Whether records reach the log at this moment. One atomic load.
    #[must_use]
    pub fn writable(&self) -> bool {
        self.sender.writable()
    }
}
