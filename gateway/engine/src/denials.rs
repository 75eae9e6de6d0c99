//! Keeps a scan from flooding the log, and loses no count.
//!
//! The first refusal of a device at a destination for a reason is written at once. Further ones
//! within ten seconds are counted, and written as one record when the window closes. A device
//! that asks for more destinations than [`WINDOWS_PER_DEVICE`] within ten seconds is scanning:
//! the rest is counted in one window for each reason.

use crate::flow::Shadowed;
use crate::identity::Who;
use crate::record::{Outer, Posture, Shadow};
use crate::words::Words;
use postern_proto::fate::DropReason;
use postern_proto::flow_key::{FlowKey, Protocol};
use postern_proto::now::{Mono, Now, Wall};
use postern_proto::peers::PeerId;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// How long refusals are counted before they are written.
pub const WINDOW: Duration = Duration::from_secs(10);
/// Destinations of one device with a window of their own.
pub const WINDOWS_PER_DEVICE: usize = 256;
/// Windows of all devices together; at 600 bytes each, under 10 MB.
pub const WINDOWS: usize = 16_384;
/// Ports that a window remembers by number.
const PORTS: usize = 16;

/// What refusals are counted together by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    peer: PeerId,
    /// None: many destinations.
    destination: Option<IpAddr>,
    protocol: Protocol,
    reason: DropReason,
}

/// One refused packet.
#[derive(Clone, Copy, Debug)]
pub struct Attempt {
    /// The device.
    pub peer: PeerId,
    /// TCP, UDP or ICMP.
    pub protocol: Protocol,
    /// The inner source: address and port (or echo id).
    pub source: (IpAddr, u16),
    /// What was asked for: address and port.
    pub destination: (IpAddr, u16),
    /// Why not.
    pub reason: DropReason,
    /// What rules in `mode: shadow` would have decided.
    pub shadow: Option<Shadowed>,
}

impl Attempt {
    /// A packet of the flow that `key` names, or would have named.
    #[must_use]
    pub fn of(peer: PeerId, key: &FlowKey, reason: DropReason) -> Attempt {
        Attempt {
            peer,
            protocol: key.protocol,
            source: key.client_end(),
            destination: key.target_end(),
            reason,
            shadow: None,
        }
    }
}

/// Why an attempt was refused, in words. Made once for each window.
#[derive(Clone, Debug, Default)]
pub struct Why {
    /// The rule that decided.
    pub rule: String,
    /// The policy that decided.
    pub policy: Arc<str>,
    /// What rules in `mode: shadow` would have decided.
    pub shadow: Option<Shadow>,
    /// The condition that failed.
    pub condition: Option<Words>,
    /// The nearest rule that would have allowed.
    pub nearest: Option<String>,
    /// The policy's name for the destination.
    pub target: Option<String>,
    /// The posture checks of the rule that decided, or of the nearest.
    pub posture: Option<Box<Posture>>,
    /// Where the device was on the Internet.
    pub outer: Option<Outer>,
    /// The port that it is the name of.
    pub port: u16,
}

/// Refusals counted together; what a record is made of.
#[derive(Clone, Debug)]
pub struct Window {
    /// The first of them, or the first after those already written.
    pub attempt: Attempt,
    /// Who asked.
    pub who: Arc<Who>,
    /// Why not.
    pub why: Why,
    /// Attempts at many destinations.
    pub scan: bool,
    /// Attempts not written yet.
    pub count: u64,
    /// The first of those.
    pub first: Wall,
    /// The last of those.
    pub last: Wall,
    /// The ports of those.
    pub ports: Vec<u16>,
    closes: Mono,
}

/// What became of a refusal.
#[derive(Debug)]
pub enum Noted {
    /// The first of its kind: to be written now.
    First(Box<Window>),
    /// Counted; it will be written when its window closes.
    Counted,
}

/// All open windows.
#[derive(Debug, Default)]
pub struct Denials {
    open: BTreeMap<Key, Window>,
    /// Windows by device, scans not included.
    by_peer: BTreeMap<PeerId, usize>,
    next: Option<Mono>,
    /// Attempts counted in windows and written nowhere yet.
    unwritten: u64,
}

impl Denials {
    /// Counts a refusal. `explain` is called for the first that a record stands for: at most twice
    /// for each window.
    pub fn note(
        &mut self,
        attempt: Attempt,
        who: &Arc<Who>,
        now: Now,
        explain: impl FnOnce() -> Why,
    ) -> Noted {
        let mut key = Key {
            peer: attempt.peer,
            destination: Some(attempt.destination.0),
            protocol: attempt.protocol,
            reason: attempt.reason,
        };
        if !self.open.contains_key(&key) && !self.has_room(attempt.peer) {
            key.destination = None;
        }
        let port = attempt.destination.1;
        if let Some(window) = self.open.get_mut(&key) {
            if window.count == 0 {
                window.first = now.wall;
                window.attempt = attempt;
                // Since the record before, the policy, the facts, the place and the time may all
                // have changed: a record is true of the first attempt that it stands for.
                window.who = who.clone();
                window.why = explain();
            }
            window.count += 1;
            self.unwritten += 1;
            window.last = now.wall;
            if window.ports.len() < PORTS && !window.ports.contains(&port) {
                window.ports.push(port);
            }
            return Noted::Counted;
        }
        let window = Window {
            attempt,
            who: who.clone(),
            why: explain(),
            scan: key.destination.is_none(),
            count: 1,
            first: now.wall,
            last: now.wall,
            ports: vec![port],
            closes: now.mono + WINDOW,
        };
        self.next = Some(
            self.next
                .map_or(window.closes, |next| next.min(window.closes)),
        );
        if key.destination.is_some() {
            *self.by_peer.entry(key.peer).or_default() += 1;
        }
        let first = Box::new(window.clone());
        self.open.insert(
            key,
            Window {
                count: 0,
                ports: Vec::new(),
                ..window
            },
        );
        Noted::First(first)
    }

    /// Gives all windows of one device to another that has none.
    pub fn give(&mut self, from: PeerId, to: PeerId) {
        let keys: Vec<Key> = self
            .open
            .keys()
            .filter(|key| key.peer == from)
            .copied()
            .collect();
        for key in keys {
            if let Some(mut window) = self.open.remove(&key) {
                window.attempt.peer = to;
                self.open.insert(Key { peer: to, ..key }, window);
            }
        }
        if let Some(windows) = self.by_peer.remove(&from) {
            self.by_peer.insert(to, windows);
        }
    }

    /// Closes the windows whose time is over; `write` gets those with something unwritten.
    pub fn close(&mut self, now: Mono, mut write: impl FnMut(Window)) {
        if self.next.is_none_or(|next| next > now) {
            return;
        }
        self.drain(|window| window.closes <= now, &mut write);
        self.next = self.open.values().map(|window| window.closes).min();
    }

    /// Closes all windows.
    pub fn close_all(&mut self, mut write: impl FnMut(Window)) {
        self.drain(|_| true, &mut write);
        self.next = None;
    }

    /// When [`Denials::close`] should be called again.
    #[must_use]
    pub fn next_deadline(&self) -> Mono {
        self.next.unwrap_or(Mono::NEVER)
    }

    /// Attempts that no record stands for yet.
    #[must_use]
    pub fn unwritten(&self) -> u64 {
        self.unwritten
    }

    /// Windows open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// No window is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    fn has_room(&self, peer: PeerId) -> bool {
        self.open.len() < WINDOWS
            && self.by_peer.get(&peer).copied().unwrap_or(0) < WINDOWS_PER_DEVICE
    }

    fn drain(&mut self, over: impl Fn(&Window) -> bool, write: &mut impl FnMut(Window)) {
        let keys: Vec<Key> = self
            .open
            .iter()
            .filter(|(_, window)| over(window))
            .map(|(key, _)| *key)
            .collect();
        for key in keys {
            let Some(window) = self.open.remove(&key) else {
                continue;
            };
            if let Some(count) = self.by_peer.get_mut(&key.peer).filter(|_| !window.scan) {
                *count -= 1;
                if *count == 0 {
                    self.by_peer.remove(&key.peer);
                }
            }
            if window.count > 0 {
                self.unwritten -= window.count;
                write(window);
            }
        }
    }
}
