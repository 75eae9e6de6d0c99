//! Plain counters of one shard. The shell copies them out; nothing here is shared or atomic.

use postern_proto::fate::DropCounts;
use std::collections::BTreeMap;

/// Upper bounds of the verdict histogram in nanoseconds; a last bucket takes the rest.
pub const VERDICT_BUCKETS: [u64; 10] = [
    250, 500, 1_000, 2_000, 4_000, 8_000, 16_000, 64_000, 256_000, 1_000_000,
];

/// Upper bounds of the change-to-cut histogram in microseconds; a last bucket takes the rest.
pub const CUT_BUCKETS: [u64; 10] = [
    100, 500, 1_000, 5_000, 10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000,
];

/// A histogram over fixed bounds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    bounds: &'static [u64],
    /// One count for each bound, and one for what is above all of them.
    pub counts: Vec<u64>,
    /// Sum of all values.
    pub sum: u64,
}

impl Histogram {
    /// Empty.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        Histogram {
            bounds,
            counts: vec![0; bounds.len() + 1],
            sum: 0,
        }
    }

    /// Counts one value.
    pub fn observe(&mut self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket] += 1;
        self.sum = self.sum.saturating_add(value);
    }

    /// The upper bounds.
    #[must_use]
    pub fn bounds(&self) -> &'static [u64] {
        self.bounds
    }

    /// How many values.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

/// What a shard counts, but for its rules ([`crate::rule_counts`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Packets passed on from devices to targets.
    pub packets_out: u64,
    /// Their bytes, inner IP headers included.
    pub bytes_out: u64,
    /// Packets passed on from targets to devices.
    pub packets_in: u64,
    /// Their bytes.
    pub bytes_in: u64,
    /// Packets that went no further, by reason.
    pub drops: DropCounts,
    /// Flows opened.
    pub flows_opened: u64,
    /// Attempts refused, each packet for itself.
    pub attempts_denied: u64,
    /// Flows opened under a grant that nobody had approved.
    pub break_glass_flows: u64,
    /// Flows ended, by close reason.
    pub flows_closed: BTreeMap<&'static str, u64>,
    /// Control messages taken in.
    pub control_messages: u64,
    /// Packets of devices that were handed to the control API.
    pub control_packets_out: u64,
    /// Packets of the control API to devices.
    pub control_packets_in: u64,
    /// How long a verdict took, in nanoseconds.
    pub verdict: Histogram,
    /// From the change to the reset of each flow that it ended, in microseconds.
    pub change_to_cut: Histogram,
}

impl Counters {
    /// Attempts of either outcome: what the records, summed up, must account for.
    #[must_use]
    pub fn attempts(&self) -> u64 {
        self.flows_opened + self.attempts_denied
    }
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            packets_out: 0,
            bytes_out: 0,
            packets_in: 0,
            bytes_in: 0,
            drops: DropCounts::default(),
            flows_opened: 0,
            attempts_denied: 0,
            break_glass_flows: 0,
            flows_closed: BTreeMap::new(),
            control_messages: 0,
            control_packets_out: 0,
            control_packets_in: 0,
            verdict: Histogram::new(&VERDICT_BUCKETS),
            change_to_cut: Histogram::new(&CUT_BUCKETS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_falls_into_the_first_bucket_that_holds_it() {
        let mut histogram = Histogram::new(&[10, 20]);
        for value in [10, 11, 20, 21] {
            histogram.observe(value);
        }
        assert_eq!(histogram.counts, [1, 2, 1]);
        assert_eq!((histogram.sum, histogram.count()), (62, 4));
    }
}
