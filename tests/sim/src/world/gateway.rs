//! What goes into the gateway, and what comes out: compared with the oracle at once.

use super::{Check, Event, LAPTOPS, LIMITS, World, gateway_address, own};
use crate::check::{Seen, flow_key};
use crate::dice::Dice as _;
use crate::laptop::MTU;
use crate::model::Expect;
use crate::net::{Datagram, Outs};
use crate::packet::{self, Packet, What};
use postern_engine::settings::{OnLogFailure, Settings, Shard};
use postern_proto::fate::DropReason;
use postern_proto::now::Mono;
use postern_proto::outbox::Endpoint;
use std::time::Duration;

impl World {
    pub(crate) fn gateway_receives(&mut self, datagram: Datagram) -> Check {
        let mut outs = Outs::default();
        let before = self.endpoint(datagram.laptop);
        self.gateway.from_network(
            datagram.from.into(),
            datagram.ecn,
            &datagram.bytes,
            &mut outs,
            self.now,
        );
        let drops = self.watch.new_drops(&self.gateway);
        let fate = self.watch.tunnel_fate(&drops)?;
        self.rotated(&datagram, fate.is_none())?;
        if !datagram.tampered && self.captured.len() < 64 {
            self.captured.push(datagram.clone());
        }
        let Some(n) = datagram.laptop else {
            return self.strange(outs, &drops, &datagram);
        };
        let after = self.endpoint(Some(n));
        let at = after.map(|after| after.remote.ip());
        let moved = at.is_some_and(|at| self.model.heard_from(n, at));
        let enrolled = self.model.devices.contains_key(&n);
        let copy = self.watch.is_copy(&datagram, fate.is_none());
        if let (Some(packet), None) = (&datagram.inner, fate) {
            if datagram.tampered || copy || !enrolled || !self.is_sealed_right(n, &datagram) {
                let (tampered, epoch) = (datagram.tampered, datagram.epoch);
                return Err(format!(
                    "tunnel: the gateway took a datagram of laptop {n} that it must not \
                     (tampered {tampered}, copy {copy}, enrolled {enrolled}, {epoch:?} against {})",
                    self.epoch(n)
                ));
            }
            if self.watch.is_late(n, &datagram) && before.is_some() && before != after {
                return Err(format!(
                    "roaming: a late datagram moved laptop {n} to {after:?}"
                ));
            }
            let proved = !matches!(packet.what, What::Broken(_));
            if proved
                && self.net.clean_since() == Mono(0)
                && after.is_some_and(|after| after.remote != datagram.from)
            {
                return Err(format!(
                    "roaming: laptop {n} spoke from {}, and is taken to be at {after:?}",
                    datagram.from
                ));
            }
            let Some(packet) = packet.clone().out_of(datagram.ecn.bits()) else {
                let mut expect = Expect {
                    drops: vec![(DropReason::EcnCe, 1)],
                    ..Expect::default()
                };
                self.judge_moved(n, moved, &mut expect);
                return self.settle_with(outs, expect, None, drops, "marked, from a laptop");
            };
            let mut expect = self.model.from_device(n, &packet, self.now);
            self.judge_moved(n, moved, &mut expect);
            return self.settle_with(outs, expect, Some(&packet), drops, "from a laptop");
        }
        // A throw-away key that lives at one place has none for another.
        let busy = fate == Some(DropReason::KeyBusy) && self.model.is_guest(n);
        let good = datagram.inner.is_some() && enrolled && !copy && !busy;
        if good && self.must_arrive(n, &datagram) {
            return Err(format!(
                "the gateway dropped a good datagram of laptop {n}: {fate:?}"
            ));
        }
        if (datagram.tampered || copy) && before != after {
            return Err(format!(
                "roaming: a bad datagram moved laptop {n} to {after:?}"
            ));
        }
        let mut expect = Expect::default();
        self.judge_moved(n, moved, &mut expect);
        self.settle_with(outs, expect, None, drops, "from a laptop, not taken")
    }

    /// A laptop that is heard from elsewhere may have to lose flows.
    fn judge_moved(&mut self, n: usize, moved: bool, expect: &mut Expect) {
        if moved {
            self.model.judge_device(n, self.now, expect);
        }
    }

    /// From somebody who has no key: no packet, no answer but a cookie.
    fn strange(&mut self, outs: Outs, drops: &[(DropReason, u64)], datagram: &Datagram) -> Check {
        let cookie = outs
            .datagrams
            .iter()
            .any(|(to, _)| to.remote == datagram.from);
        if drops.iter().map(|(_, count)| count).sum::<u64>() != u64::from(!cookie) {
            return Err(format!("a stranger's datagram counts as {drops:?}"));
        }
        if let Some((_, answer)) = outs
            .datagrams
            .iter()
            .find(|(to, _)| to.remote == datagram.from)
            && answer.first() != Some(&3)
        {
            return Err("a stranger was answered".into());
        }
        self.settle_with(
            outs,
            Default::default(),
            None,
            Vec::new(),
            "from a stranger",
        )
    }

    /// One packet of a target, at once.
    pub(crate) fn gateway_gets(&mut self, packet: &Packet) -> Check {
        self.target_sends(std::slice::from_ref(packet))
    }

    pub(super) fn target_sends(&mut self, packets: &[Packet]) -> Check {
        let Some(first) = packets.first() else {
            return Ok(());
        };
        let whole = together(packets);
        let segments = u32::try_from(packets.len()).unwrap_or(1);
        let lengths = packets.iter().map(|packet| packet.bytes.len());
        let largest = lengths.max().unwrap_or(0);
        let mut outs = Outs::default();
        let reach: Vec<bool> = (0..LAPTOPS).map(|n| self.key_since(n).is_some()).collect();
        let reaches = |n: usize| reach.get(n).copied().unwrap_or(false);
        let expect =
            self.model
                .from_target(&whole, u64::from(segments), largest, self.now, reaches);
        let peer = self
            .gateway
            .from_target(&whole.bytes, segments, largest, &mut outs, self.now);
        if peer.is_some() != expect.forward {
            return Err(format!(
                "from a target: {:?} was passed on: {}; expected: {expect:?}",
                first.what,
                peer.is_some()
            ));
        }
        let Some(peer) = peer else {
            return self.settle(outs, expect, None, "from a target");
        };
        let laptop = expect.to.unwrap_or(usize::MAX);
        if self
            .gateway
            .devices()
            .get(peer)
            .map(|device| device.device.key)
            != self.laptops.get(laptop).map(|laptop| laptop.public)
        {
            return Err(format!(
                "from a target: passed on to somebody else than laptop {laptop}"
            ));
        }
        self.settle(outs, expect, None, "from a target")?;
        for packet in packets {
            let mut outs = Outs::default();
            self.gateway
                .to_device(peer, &mut packet.bytes.clone(), &mut outs, self.now);
            let seen = Seen {
                drops: self.watch.new_drops(&self.gateway),
                ..Seen::default()
            };
            self.watch.sealing(&seen)?;
            self.ship_from_gateway(outs, Some((laptop, packet)))?;
        }
        Ok(())
    }

    /// Compares what an input brought about with what it had to, then lets it take effect.
    pub(crate) fn settle(
        &mut self,
        outs: Outs,
        expect: Expect,
        forwarded: Option<&Packet>,
        what: &str,
    ) -> Check {
        let drops = self.watch.new_drops(&self.gateway);
        self.settle_with(outs, expect, forwarded, drops, what)
    }

    fn settle_with(
        &mut self,
        mut outs: Outs,
        expect: Expect,
        forwarded: Option<&Packet>,
        drops: Vec<(DropReason, u64)>,
        what: &str,
    ) -> Check {
        self.asked(expect.asks, forwarded)?;
        let records = self.gateway.take_records();
        let packets = std::mem::take(&mut outs.packets);
        let seen = Seen {
            packets,
            drops,
            records,
        };
        let to_targets = self
            .watch
            .compare(&expect, &seen, forwarded)
            .map_err(|fault| format!("{what}: {fault}"))?;
        let flows = self.gateway.flows();
        self.model
            .make_room(|key| flows.find(&flow_key(key)).is_none())?;
        for (laptop, key) in &expect.laptop_told {
            if self.hears(*laptop) {
                self.watch.must_tell(*laptop, *key, self.now.mono);
            }
        }
        self.ship_from_gateway(outs, None)?;
        for packet in to_targets {
            let answers = self.targets.receive(&packet, self.ordered_from)?;
            for answer in answers {
                self.target_speaks(vec![answer]);
            }
        }
        Ok(())
    }

    /// What goes to the control API comes from the key that decrypted it, unchanged.
    fn asked(&mut self, asks: bool, packet: Option<&Packet>) -> Check {
        let asked: Vec<_> = self.gateway.take_control().collect();
        let expected = packet.filter(|_| asks);
        if asked.len() != usize::from(expected.is_some()) {
            return Err(format!(
                "{} packets to the control API, {expected:?}",
                asked.len()
            ));
        }
        let (Some(asked), Some(packet)) = (asked.first(), expected) else {
            return Ok(());
        };
        let by = self
            .laptops
            .iter()
            .find(|laptop| laptop.public == asked.key);
        if asked.packet != packet.bytes || !by.is_some_and(|by| by.addresses.contains(&packet.from))
        {
            return Err(format!("{asked:?} went to the control API, not {packet:?}"));
        }
        Ok(())
    }

    /// Since when the gateway has its present key for a laptop.
    fn key_since(&self, n: usize) -> Option<Mono> {
        let peers = self.gateway.peers();
        let peer = peers.peer(peers.find(&self.laptops[n].public)?)?;
        peer.last_handshake()
            .filter(|_| peer.is_established(self.now))
            .map(|last| last.mono)
    }

    /// Both ends have the present key, and the gateway knows where the laptop is.
    pub(crate) fn is_in_touch(&self, n: usize) -> bool {
        let laptop = &self.laptops[n];
        laptop.on
            && laptop.keys.agree()
            && laptop.is_connected(self.now)
            && self
                .endpoint(Some(n))
                .is_some_and(|endpoint| endpoint.remote == laptop.outer)
            && self.key_since(n).is_some()
    }

    /// Nothing that the gateway sends to this laptop now can be lost.
    pub(crate) fn hears(&self, n: usize) -> bool {
        let laptop = &self.laptops[n];
        self.net.clean_since() <= self.now.mono
            && laptop.on
            && laptop.keys.agree()
            && self
                .endpoint(Some(n))
                .is_some_and(|endpoint| endpoint.remote == laptop.outer)
            && laptop.is_connected(self.now)
            && self
                .key_since(n)
                .is_some_and(|since| self.now.mono.since(since) < Duration::from_secs(170))
    }

    /// Lets a packet (or several as one) of a target travel to the gateway.
    pub(crate) fn target_speaks(&mut self, packets: Vec<Packet>) {
        let at = self.now.mono + Duration::from_micros(200 + self.dice.roll(800));
        let at = at.max(self.watch.last_from_target);
        self.watch.last_from_target = at;
        let packets = packets.into_iter().map(Packet::with_some_ecn).collect();
        self.at(at, Event::FromTarget(packets));
    }

    pub(crate) fn ship_from_gateway(
        &mut self,
        outs: Outs,
        inner: Option<(usize, &Packet)>,
    ) -> Check {
        for ((to, bytes), ecn) in outs.datagrams.into_iter().zip(outs.marks) {
            let carries = crate::net::carries_packet(&bytes);
            let inner = inner.filter(|_| carries).map(|(_, packet)| packet);
            packet::marked_as(inner, ecn)?;
            let laptop = self
                .laptops
                .iter()
                .position(|laptop| laptop.outer == to.remote);
            self.next_id += 1;
            let epoch = laptop.map(|n| {
                let since = self.key_since(n).unwrap_or(Mono(0));
                (self.epoch_for(n, &bytes), since)
            });
            let datagram = Datagram {
                id: self.next_id,
                from: gateway_address(),
                to: to.remote,
                ecn,
                bytes,
                laptop,
                inner: inner.cloned(),
                tampered: false,
                epoch,
                sealed: self.now.mono,
            };
            let len = datagram.bytes.len();
            for at in self.net.carry(laptop, false, len, self.now.mono) {
                let mut arrives = datagram.clone();
                arrives.mark(&mut self.net);
                self.at(at, Event::ToLaptop(arrives));
            }
        }
        Ok(())
    }

    /// Where the gateway takes a laptop to be.
    pub(crate) fn endpoint(&self, n: Option<usize>) -> Option<Endpoint> {
        let peers = self.gateway.peers();
        peers
            .peer(peers.find(&self.laptops.get(n?)?.public)?)?
            .endpoint()
    }
}

/// Segments of one connection as a TUN with offload hands them over.
fn together(packets: &[Packet]) -> Packet {
    let payload: Vec<u8> = packets.iter().flat_map(packet::payload).copied().collect();
    match (packets, packets[0].what) {
        ([_, _, ..], packet::What::Tcp(segment)) => {
            packet::tcp(packets[0].from, packets[0].to, segment, &payload, None)
        }
        _ => packets[0].clone(),
    }
}

/// The world has one worker, of a gateway of 1, 2, 4 or 8. After a restart they may be others.
fn shard(seed: u64) -> Shard {
    let bits = (seed % 4) as u8;
    let index = (seed >> 8) as u8 & ((1 << bits) - 1);
    Shard { index, bits }
}

pub(super) fn settings(boot: u64, seed: u64) -> Settings {
    Settings {
        name: "gw".into(),
        boot: format!("b{boot}").into(),
        shard: shard(seed),
        addresses: own(),
        pools: ["100.96.0.0/16", "fd00:96::/64"]
            .iter()
            .filter_map(|pool| pool.parse().ok())
            .collect(),
        mtu: usize::from(MTU),
        limits: LIMITS,
        on_log_failure: OnLogFailure::DenyNew,
        seed,
        stopwatch: || 0,
    }
}
