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

/// Named bounds. Worst case memory: a flow with its key, slot and timer is under 400 bytes, so
/// the default table is under 27 MB when full; a denial window is under 600 bytes, 256 of them a
/// device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Live flows in all, cut ones that are still remembered included.
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
