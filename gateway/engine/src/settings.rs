//! What the engine must be told once.

use ipnet::IpNet;
use std::net::IpAddr;
use std::sync::Arc;

/// Fixed for the life of a gateway process.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The gateway's name in records.
    pub name: Arc<str>,
    /// Names this run of the gateway in records; sequence numbers start again with each.
    pub boot: Arc<str>,
    /// Which of the gateway's shards this engine is.
    pub shard: Shard,
    /// The gateway's own addresses inside the tunnel.
    pub addresses: Vec<IpAddr>,
    /// Where device addresses come from. No target may lie in them.
    pub pools: Vec<IpNet>,
    /// Inner MTU.
    pub mtu: usize,
    /// Table sizes.
    pub limits: Limits,
    /// What happens to new flows while records cannot be written.
    pub on_log_failure: OnLogFailure,
    /// Random, so that nobody outside can aim at one hash bucket.
    pub seed: u64,
    /// Reads a clock in nanoseconds, only to measure how long a verdict took; nothing is decided
    /// by it.
    pub stopwatch: fn() -> u64,
}

/// One of the `1 << bits` engines of a gateway. Each has devices of its own; nothing is shared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shard {
    /// From 0.
    pub index: u8,
    /// Lowest bits of each peer's number that are the shard's: datagrams are steered by them.
    pub bits: u8,
}

impl Shard {
    /// The `nth` flow (from 0) of this shard: 1, 2, 3... for the only shard of a gateway, and in
    /// no other shard of the same gateway for one of several.
    #[must_use]
    pub fn flow_id(self, nth: u64) -> u64 {
        (nth << self.bits) + u64::from(self.index) + 1
    }
}

/// Named bounds. Worst case memory: a flow with its key, slot and timer is under 400 bytes, so
/// the default table is under 27 MB when full; a denial window is under 600 bytes, 256 of them a
/// device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Live flows of the shard, cut ones that are still remembered included.
    pub flows: usize,
    /// Live flows of one device.
    pub flows_per_device: usize,
    /// TCP flows of one device that no target has answered yet.
    pub half_open_per_device: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            flows: 65_536,
            flows_per_device: 4096,
            half_open_per_device: 512,
        }
    }
}

/// Loss is never silent: either nothing new happens, or what was lost is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLogFailure {
    /// New flows are refused with reason `log-unavailable`.
    DenyNew,
    /// New flows are allowed; their records may be lost, and the loss is counted.
    Allow,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flow_numbers_are_those_of_one_counter_and_belong_to_one_shard() {
        let alone = Shard::default();
        assert_eq!([0, 1, 2].map(|nth| alone.flow_id(nth)), [1, 2, 3]);
        let of_four = |index| (0..3).map(move |nth| Shard { index, bits: 2 }.flow_id(nth));
        let mut all: Vec<u64> = (0..4).flat_map(of_four).collect();
        all.sort_unstable();
        assert_eq!(all, (1..=12).collect::<Vec<_>>());
    }
}
