//! What was seen against what had to be: after each input, after each step, at the end.

use crate::model::{Denied, Expect, Note};
use crate::net::{Datagram, receiver};
use crate::packet::{self, Key, Packet, Proto, RST, What};
use crate::told::Told;
use crate::world::{Check, World};
use postern_engine::denials::WINDOWS;
use postern_engine::gateway::Gateway;
use postern_engine::record::{Detail, Record};
use postern_engine::settings::Shard;
use postern_proto::fate::{DropCounts, DropReason};
use postern_proto::flow_key::{FlowKey, Protocol};
use postern_proto::now::Mono;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Both ends of a flow that is cut know it after this, when the network loses nothing.
const TOLD_WITHIN: Duration = Duration::from_secs(1);
/// The gateway answers refusals of one device at most so often; a scan is not answered in full.
const ANSWERS: u64 = 300;
/// No MSS that passes the gateway is above this: the tunnel's MTU less the headers.
const MSS_V4: u16 = 1380;

/// What came of one input.
#[derive(Debug, Default)]
pub struct Seen {
    /// Towards the targets.
    pub packets: Vec<Vec<u8>>,
    /// Newly counted drops.
    pub drops: Vec<(DropReason, u64)>,
    /// Records.
    pub records: Vec<Record>,
}

/// What is watched over the whole life of a world.
#[derive(Debug)]
pub struct Watch {
    /// Serialised records, if they are kept.
    pub stream: Vec<u8>,
    /// Flows opened in all runs.
    pub opened_ever: u64,
    /// Records in all runs.
    pub records_ever: u64,
    /// Targets answer in order.
    pub last_from_target: Mono,
    keep: bool,
    drops: DropCounts,
    worker: Shard,
    seq: u64,
    /// Attempts that the records of this run stand for.
    attempts: u64,
    open: BTreeSet<u64>,
    denied: BTreeMap<&'static str, u64>,
    taken: BTreeSet<u64>,
    /// By laptop: the newest datagram that the gateway took, and the key that it names.
    newest: BTreeMap<usize, (u64, Option<u32>)>,
    to_tell: BTreeMap<(usize, Key), Mono>,
    answers: BTreeMap<(usize, u64), u64>,
    back_by: Vec<(usize, Mono)>,
}

impl Watch {
    /// Nothing seen yet.
    #[must_use]
    pub fn new(keep: bool, worker: Shard) -> Self {
        Watch {
            stream: Vec::new(),
            opened_ever: 0,
            records_ever: 0,
            last_from_target: Mono(0),
            keep,
            drops: DropCounts::default(),
            worker,
            seq: 0,
            attempts: 0,
            open: BTreeSet::new(),
            denied: BTreeMap::new(),
            taken: BTreeSet::new(),
            newest: BTreeMap::new(),
            to_tell: BTreeMap::new(),
            answers: BTreeMap::new(),
            back_by: Vec::new(),
        }
    }

    /// A new gateway counts from zero.
    pub fn restarted(&mut self, worker: Shard) {
        self.worker = worker;
        self.drops = DropCounts::default();
        self.seq = 0;
        self.attempts = 0;
        self.open.clear();
        self.denied.clear();
    }

    /// What the gateway has counted since the last call.
    pub fn new_drops(&mut self, gateway: &Gateway) -> Vec<(DropReason, u64)> {
        let now = gateway.counters().drops;
        let new = now
            .iter()
            .zip(self.drops.iter())
            .map(|((reason, now), (_, before))| (reason, now - before));
        let new = new.filter(|(_, count)| *count > 0).collect();
        self.drops = now;
        new
    }

    /// Why the tunnel took a datagram no further, if so.
    pub fn tunnel_fate(&self, drops: &[(DropReason, u64)]) -> Check<Option<DropReason>> {
        match drops
            .iter()
            .filter(|(reason, _)| is_tunnel(*reason))
            .collect::<Vec<_>>()[..]
        {
            [] => Ok(None),
            [(reason, 1)] => Ok(Some(*reason)),
            _ => Err(format!("one datagram, several fates: {drops:?}")),
        }
    }

    /// Sealing may fail only for want of a key.
    pub fn sealing(&self, seen: &Seen) -> Check {
        match seen.drops[..] {
            [] | [(DropReason::NoSession, 1)] => Ok(()),
            _ => Err(format!("sealing for a laptop failed: {:?}", seen.drops)),
        }
    }

    /// Whether the gateway has taken this datagram before; remembers it if it took it now.
    pub fn is_copy(&mut self, datagram: &Datagram, taken: bool) -> bool {
        if taken {
            !self.taken.insert(datagram.id)
        } else {
            self.taken.contains(&datagram.id)
        }
    }

    /// Whether the gateway has taken a newer datagram of this laptop under the same key; remembers
    /// this one if not.
    pub fn is_late(&mut self, laptop: usize, datagram: &Datagram) -> bool {
        let this = (datagram.id, receiver(&datagram.bytes));
        match self.newest.get(&laptop) {
            Some((id, _)) if *id > this.0 => self.newest[&laptop].1 == this.1,
            Some(_) | None => {
                self.newest.insert(laptop, this);
                false
            }
        }
    }

    /// Compares what was seen with what had to be. Returns what the targets get.
    pub fn compare(
        &mut self,
        expect: &Expect,
        seen: &Seen,
        forwarded: Option<&Packet>,
    ) -> Check<Vec<Packet>> {
        let drops: Vec<_> = seen
            .drops
            .iter()
            .filter(|(reason, _)| !is_tunnel(*reason))
            .copied()
            .collect();
        if drops != expect.drops {
            return Err(format!(
                "drops {drops:?}, expected {:?}{}",
                expect.drops,
                of(forwarded)
            ));
        }
        let mut notes = self.read_records(&seen.records, expect.denied.as_ref())?;
        let mut expected = expect.records.clone();
        notes.sort();
        expected.sort();
        if notes != expected {
            return Err(format!(
                "records {notes:?}, expected {expected:?}{}",
                of(forwarded)
            ));
        }
        let mut packets = seen.packets.iter();
        let mut to_targets = Vec::new();
        if let (true, Some(packet)) = (expect.forward, forwarded) {
            let Some(bytes) = packets.next() else {
                return Err(format!(
                    "an allowed packet was not passed on{}",
                    of(forwarded)
                ));
            };
            if !packet::same_but_mss(packet, bytes) {
                return Err(format!("a packet was changed on its way{}", of(forwarded)));
            }
            let passed = packet::read(bytes)?;
            if packet::mss(&passed).is_some_and(|mss| mss > MSS_V4) {
                return Err(format!(
                    "a SYN asks for an MSS of {:?}{}",
                    packet::mss(&passed),
                    of(forwarded)
                ));
            }
            to_targets.push(passed);
        }
        let mut told = Vec::new();
        for bytes in packets {
            let packet = packet::read(bytes)?;
            told.push(
                cut_notice(&packet, true)
                    .ok_or_else(|| format!("a target got {:?}{}", packet.what, of(forwarded)))?,
            );
            to_targets.push(packet);
        }
        let mut expected = expect.target_told.clone();
        told.sort();
        expected.sort();
        if told != expected {
            return Err(format!(
                "targets were told of {told:?}, expected {expected:?}{}",
                of(forwarded)
            ));
        }
        Ok(to_targets)
    }

    fn read_records(&mut self, records: &[Record], refused: Option<&Denied>) -> Check<Vec<Note>> {
        let mut notes = Vec::new();
        for record in records {
            self.seq += 1;
            self.records_ever += 1;
            self.attempts += record.attempts();
            if (record.worker, record.seq) != (self.worker.index, self.seq) {
                return Err(format!("no record {} before {record:?}", self.seq));
            }
            if self.keep {
                let line = serde_json::to_vec(record).map_err(|error| error.to_string())?;
                self.stream.extend(line);
                self.stream.push(b'\n');
            }
            let key = Key {
                proto: proto(record.protocol),
                client: (record.src_address, record.src_port),
                target: (
                    record.dst_address.unwrap_or([0, 0, 0, 0].into()),
                    record.dst_port,
                ),
            };
            match &record.detail {
                Detail::Open(open) => {
                    self.opened_ever += 1;
                    if !self.open.insert(open.flow) {
                        return Err(format!("flow {} opened twice", open.flow));
                    }
                    let place = u64::from(self.worker.index);
                    if (open.flow - 1) % (1 << self.worker.bits) != place {
                        return Err(format!("flow {} is another worker's", open.flow));
                    }
                    notes.push(Note::Open {
                        key,
                        told: Told::of(record),
                        resumed: open.resumed,
                    });
                }
                Detail::Closed(closed) => {
                    if !self.open.remove(&closed.flow) {
                        return Err(format!("flow {} closed, and was not open", closed.flow));
                    }
                    notes.push(Note::Closed {
                        key,
                        reason: closed.close_reason,
                        out: (closed.packets_out, closed.bytes_out),
                        back: (closed.packets_in, closed.bytes_in),
                        hints: closed.hints.as_deref().cloned(),
                        told: Told::of(record),
                    });
                }
                Detail::Denied(denied) => {
                    *self.denied.entry(denied.deny_reason).or_default() += denied.count;
                    let at_once = denied.count == 1 && denied.start == record.time;
                    let about = |one: &&Denied| one.key == key && one.reason == denied.deny_reason;
                    if let Some(refused) = refused.filter(about).filter(|_| at_once) {
                        agrees(refused, Told::of(record))?;
                    }
                }
            }
        }
        Ok(notes)
    }

    /// A laptop must hear of a flow, soon.
    pub fn must_tell(&mut self, laptop: usize, key: Key, now: Mono) {
        let answers = self.answers.entry((laptop, now.0 >> 30)).or_default();
        *answers += 1;
        if *answers < ANSWERS {
            self.to_tell
                .entry((laptop, key))
                .or_insert(now + TOLD_WITHIN);
        }
    }

    /// A laptop got a packet; `live` says whether a program still holds that flow to be open.
    pub fn laptop_told(&mut self, laptop: usize, packet: &Packet, live: impl Fn(&Key) -> bool) {
        if let Some(key) = cut_notice(packet, false).filter(|key| !live(key)) {
            self.to_tell.remove(&(laptop, key));
        }
    }

    /// A laptop must have a tunnel again, soon.
    pub fn must_be_back(&mut self, laptop: usize, by: Mono) {
        self.back_by.push((laptop, by));
    }

    /// When the next laptop must be back.
    #[must_use]
    pub fn next_back(&self) -> Option<Mono> {
        self.back_by.iter().map(|(_, by)| *by).min()
    }

    /// The laptops that must be back now.
    pub fn back_now(&mut self, now: Mono) -> Vec<usize> {
        let (due, later) = self.back_by.drain(..).partition(|(_, by)| *by <= now);
        self.back_by = later;
        let due: Vec<(usize, Mono)> = due;
        due.into_iter().map(|(n, _)| n).collect()
    }

    /// Something happened that excuses silence.
    pub fn disturb(&mut self) {
        self.to_tell.clear();
        self.back_by.clear();
    }

    /// Nobody waits for longer than promised.
    pub fn overdue(&self, now: Mono) -> Check {
        match self.to_tell.iter().find(|(_, by)| **by < now) {
            Some(((laptop, key), _)) => Err(format!(
                "laptop {laptop} was not told within a second of {key:?}"
            )),
            None => Ok(()),
        }
    }

    /// A run of the gateway is over, and all its records are written.
    pub fn closed(&self, denied: &BTreeMap<&'static str, u64>) -> Check {
        if !self.open.is_empty() {
            return Err(format!("flows {:?} have no closing record", self.open));
        }
        if self.denied != *denied {
            return Err(format!(
                "denied attempts by record: {:?}, by count: {denied:?}",
                self.denied
            ));
        }
        Ok(())
    }
}

impl World {
    /// After each step: tables, bounds, counters, deadlines.
    pub fn check(&mut self) -> Check {
        let flows = self.gateway.flows();
        let mut live: Vec<Key> = flows
            .iter()
            .filter(|(_, flow)| flow.cut.is_none())
            .map(|(_, flow)| key(&flow.key))
            .collect();
        live.sort();
        let expected = self.model.live(|_, _| true);
        if live != expected {
            return Err(format!("live flows {live:?}, expected {expected:?}"));
        }
        let (len, bound) = (flows.len(), flows.capacity());
        if len > bound || len != self.model.flows.len() {
            return Err(format!(
                "{len} flows of at most {bound} in the table, expected {}",
                self.model.flows.len()
            ));
        }
        let counters = self.gateway.counters();
        let closed: u64 = counters.flows_closed.values().sum();
        if counters.flows_opened != closed + live.len() as u64 {
            return Err(format!(
                "{} flows opened, {closed} closed, {} live",
                counters.flows_opened,
                live.len()
            ));
        }
        if counters.control_messages != self.model.control {
            return Err(format!(
                "{} control messages, expected {}",
                counters.control_messages, self.model.control
            ));
        }
        if self.gateway.devices().len() != self.model.devices.len()
            || self.gateway.peers().len() != self.model.devices.len() + self.next_keys()
        {
            return Err("devices, keys and enrolments differ".into());
        }
        for n in self.model.devices.keys() {
            let peer = self.gateway.peers().find(&self.laptops[*n].public);
            let Some(device) = peer.and_then(|peer| self.gateway.devices().get(peer)) else {
                return Err(format!(
                    "laptop {n} is enrolled, and the gateway does not know it"
                ));
            };
            let expected = (self.model.live_of(*n), self.model.half_open_of(*n));
            if (device.flows, device.half_open) != expected {
                return Err(format!(
                    "laptop {n} has {} flows, {} half-open, expected {expected:?}",
                    device.flows, device.half_open
                ));
            }
        }
        if self.gateway.denial_windows() > WINDOWS || self.gateway.records_waiting() > 0 {
            return Err("a bound does not hold, or records wait".into());
        }
        if self.gateway.records_made() != self.watch.seq {
            return Err(format!(
                "{} records made, {} taken",
                self.gateway.records_made(),
                self.watch.seq
            ));
        }
        let waiting = self.gateway.attempts_in_windows();
        if counters.attempts() != self.watch.attempts + waiting {
            return Err(format!(
                "{} attempts seen, {} recorded, {waiting} in windows",
                counters.attempts(),
                self.watch.attempts
            ));
        }
        if self.gateway.next_deadline() > self.model.next_deadline() {
            return Err("a flow ends before the gateway wants to be called".into());
        }
        Ok(())
    }
}

impl World {
    /// Whoever had a tunnel before the gateway was started again must have one by now.
    pub(crate) fn check_back(&mut self) -> Check {
        for n in self.watch.back_now(self.now.mono) {
            let peers = self.gateway.peers();
            let peer = peers
                .find(&self.laptops[n].public)
                .and_then(|id| peers.peer(id));
            if !peer.is_some_and(|peer| peer.is_established(self.now))
                || !self.laptops[n].is_connected(self.now)
            {
                return Err(format!(
                    "laptop {n} has no tunnel 2 s after the gateway started again"
                ));
            }
        }
        Ok(())
    }
}

/// What the tunnel itself refuses; the packet was never seen.
fn is_tunnel(reason: DropReason) -> bool {
    reason <= DropReason::TooLong
}

/// The record of a refusal says what it must.
fn agrees(refused: &Denied, mut told: Told) -> Check {
    let expected = &refused.told;
    if expected.posture.is_empty() {
        told.posture.clear();
    }
    if told != *expected {
        return Err(format!("the record of {refused:?} says {told:?}"));
    }
    Ok(())
}

/// The flow of which a packet says that it is no more.
fn cut_notice(packet: &Packet, to_target: bool) -> Option<Key> {
    match packet.what {
        What::Tcp(segment) if segment.has(RST) => crate::model::key_of(packet, to_target),
        What::Error { proto, from, to } => {
            let (client, target) = if to_target { (to, from) } else { (from, to) };
            Some(Key {
                proto,
                client,
                target,
            })
        }
        What::Tcp(_)
        | What::Udp { .. }
        | What::Echo { .. }
        | What::Control(_)
        | What::Probe(_)
        | What::Broken(_) => None,
    }
}

fn key(key: &FlowKey) -> Key {
    let target = (key.target(), key.target_port);
    Key {
        proto: proto(key.protocol),
        client: (key.client(), key.client_port),
        target,
    }
}

/// The engine's form of a key.
#[must_use]
pub fn flow_key(key: &Key) -> FlowKey {
    let protocol = match key.proto {
        Proto::Tcp => Protocol::Tcp,
        Proto::Udp => Protocol::Udp,
        Proto::Icmp => Protocol::Icmp,
    };
    FlowKey::new(protocol, key.client, key.target)
}

fn proto(protocol: Protocol) -> Proto {
    match protocol {
        Protocol::Tcp => Proto::Tcp,
        Protocol::Udp => Proto::Udp,
        Protocol::Icmp => Proto::Icmp,
    }
}

fn of(packet: Option<&Packet>) -> String {
    packet
        .map(|packet| format!(", for {} > {} {:?}", packet.from, packet.to, packet.what))
        .unwrap_or_default()
}
