//! What must become of a packet, from either side.

use super::track::{State, Track};
use super::{Expect, Model, key_of};
use crate::packet::{ACK, Key, Packet, Proto, RST, SYN, Segment, What};
use postern_engine::record::CloseReason;
use postern_proto::device_api;
use postern_proto::fate::DropReason;
use postern_proto::invitation;
use postern_proto::now::Now;
use std::net::IpAddr;

impl Model {
    /// A packet that a laptop's key decrypted.
    pub fn from_device(&mut self, laptop: usize, packet: &Packet, now: Now) -> Expect {
        let mut expect = Expect::default();
        if let What::Broken(reason) = packet.what {
            return expect.drop(reason);
        }
        let key = key_of(packet, true);
        let owns = self
            .devices
            .get(&laptop)
            .is_some_and(|device| device.addresses.contains(&packet.from));
        if !owns {
            if let Some(key) = key {
                expect.denied = self.deny_of(laptop, key, DropReason::SpoofedSource, now);
            }
            return expect.drop(DropReason::SpoofedSource);
        }
        let guest = self.is_guest(laptop);
        let api = match guest {
            true => packet.to == IpAddr::V6(invitation::GATEWAY),
            false => self.own.contains(&packet.to),
        };
        if api
            && packet
                .segment()
                .is_some_and(|one| one.to == device_api::PORT)
        {
            expect.asks = true;
            return expect;
        }
        if guest {
            if let Some(key) = key {
                expect.denied = self.deny_of(laptop, key, DropReason::NotEnrolled, now);
            } else if matches!(packet.what, What::Control(_) | What::Probe(_)) {
                self.deny(DropReason::NotEnrolled);
            }
            // The answer to a ping is an attempt, and like a reset nothing that is answered.
            let pong = matches!(packet.what, What::Echo { request: false, .. });
            if let Some(key) = key.filter(|_| !pong) {
                expect.answer(laptop, key, packet.segment());
            }
            return expect.drop(DropReason::NotEnrolled);
        }
        let key = match (packet.what, key) {
            (What::Control(true), _) => {
                self.control += 1;
                return expect;
            }
            (What::Probe(mtu), _) => {
                self.control += 1;
                self.note_mtu(laptop, mtu, now);
                return expect;
            }
            (What::Control(false), _) => return expect.drop(DropReason::BadControl),
            (What::Error { proto, from, to }, _) => {
                let key = Key {
                    proto,
                    client: to,
                    target: from,
                };
                let about_it = from.0 == packet.to && to.0 == packet.from && proto != Proto::Icmp;
                if !about_it || !self.is_live(&key) {
                    return expect.drop(DropReason::OtherIcmp);
                }
                if let Some(reason) = self.not_allowed_now(key, now.wall) {
                    self.cut(key, reason, now, &mut expect);
                    return expect.drop(DropReason::Policy);
                }
                self.count(key, packet, true, 1, now);
                expect.forward = true;
                return expect;
            }
            (What::Echo { request: false, .. }, _) | (_, None) => {
                return expect.drop(DropReason::OtherIcmp);
            }
            (_, Some(key)) => key,
        };
        let segment = packet.segment();
        let opens = segment.is_some_and(|segment| segment.opens());
        let Some(flow) = self.flows.get(&key) else {
            return self.new_flow(laptop, key, packet, segment, now, expect);
        };
        if flow.cut.is_some() {
            if !opens && segment.is_some() {
                expect.answer(laptop, key, segment);
                return expect.drop(DropReason::Cut);
            }
            self.flows.remove(&key);
            return self.new_flow(laptop, key, packet, segment, now, expect);
        }
        if opens && flow.tcp.is_some_and(|tcp| tcp.state == State::Closed) {
            self.close(key, CloseReason::Fin, now, &mut expect);
            return self.new_flow(laptop, key, packet, segment, now, expect);
        }
        if let Some(reason) = self.not_allowed_now(key, now.wall) {
            self.cut(key, reason, now, &mut expect);
            expect.answer(laptop, key, segment);
            return expect.drop(DropReason::Policy);
        }
        self.count(key, packet, true, 1, now);
        self.follow(key, segment, true, now, &mut expect);
        expect.forward = true;
        expect
    }

    fn new_flow(
        &mut self,
        laptop: usize,
        key: Key,
        packet: &Packet,
        segment: Option<Segment>,
        now: Now,
        mut expect: Expect,
    ) -> Expect {
        let resumes = segment.is_some_and(|segment| !segment.opens());
        if resumes
            && (segment.is_some_and(|segment| segment.has(RST)) || now.mono > self.resume_until)
        {
            expect.answer(laptop, key, segment);
            return expect.drop(DropReason::NoFlow);
        }
        let opens = segment.is_some_and(|segment| segment.opens());
        let obstacle = self.obstacle(laptop, &key, opens, now);
        if let Some(reason) = obstacle {
            let reason = if resumes && reason == DropReason::Policy {
                DropReason::NoFlow
            } else {
                reason
            };
            expect.denied = self.deny_of(laptop, key, reason, now);
            expect.answer(laptop, key, segment);
            return expect.drop(reason);
        }
        self.open(
            laptop,
            key,
            segment.map(Track::from_device),
            resumes,
            now,
            &mut expect,
        );
        self.count(key, packet, true, 1, now);
        expect.forward = true;
        expect
    }

    /// A packet (or `segments` of them in one, of at most `len` bytes) from a target. `reaches`:
    /// there is a key for a laptop.
    pub fn from_target(
        &mut self,
        packet: &Packet,
        segments: u64,
        len: usize,
        now: Now,
        reaches: impl Fn(usize) -> bool,
    ) -> Expect {
        let mut expect = Expect::default();
        if let What::Error { proto, from, to } = packet.what {
            let key = Key {
                proto,
                client: from,
                target: to,
            };
            if from.0 != packet.to || !self.is_live(&key) {
                return expect.drop_many(DropReason::Unsolicited, segments);
            }
            if let Some(reason) = self.not_allowed_now(key, now.wall) {
                self.cut(key, reason, now, &mut expect);
                return expect.drop_many(DropReason::Policy, segments);
            }
            if !self
                .flows
                .get(&key)
                .is_some_and(|flow| reaches(flow.device))
            {
                return expect.drop_many(DropReason::NoSession, segments);
            }
            self.count(key, packet, false, 1, now);
            if let Some(flow) = self.flows.get(&key) {
                expect.to = Some(flow.device);
                let nobody_there = match flow.tcp {
                    Some(tcp) => tcp.state == State::SynSent,
                    None => flow.back.0 == 1,
                };
                if nobody_there {
                    self.close(key, CloseReason::Error, now, &mut expect);
                }
            }
            expect.forward = true;
            return expect;
        }
        let key = match (packet.what, key_of(packet, false)) {
            (What::Echo { request: true, .. }, _) | (_, None) => {
                return expect.drop_many(DropReason::Unsolicited, segments);
            }
            (_, Some(key)) => key,
        };
        let segment = packet.segment();
        if !self.flows.contains_key(&key) {
            if let Some(laptop) = self.must_not_resume(key, segment, now) {
                self.deny(DropReason::NoFlow);
                if reaches(laptop) {
                    expect.laptop_told.push((laptop, key));
                }
                expect.target_told.push(key);
                return expect.drop_many(DropReason::NoFlow, segments);
            }
            let Some(laptop) = self.may_resume(key, segment, now) else {
                return expect.drop_many(DropReason::Unsolicited, segments);
            };
            if !reaches(laptop) {
                return expect.drop_many(DropReason::NoSession, segments);
            }
            let track = segment.map(Track::from_target);
            self.open(laptop, key, track, true, now, &mut expect);
        }
        let Some(flow) = self.flows.get(&key) else {
            return expect;
        };
        let device = flow.device;
        if flow.cut.is_some() {
            if segment.is_some_and(|segment| !segment.has(RST)) {
                expect.target_told.push(key);
            }
            return expect.drop_many(DropReason::Cut, segments);
        }
        if let Some(reason) = self.not_allowed_now(key, now.wall) {
            self.cut(key, reason, now, &mut expect);
            if segment.is_none_or(|segment| !segment.has(RST)) && key.proto != Proto::Icmp {
                expect.target_told.push(key);
            }
            return expect.drop_many(DropReason::Policy, segments);
        }
        if !reaches(device) {
            return expect.drop_many(DropReason::NoSession, segments);
        }
        if self.is_too_big(device, packet, len, now) {
            expect.target_told.push(key);
            return expect.drop_many(DropReason::TooBig, segments);
        }
        self.count(key, packet, false, segments, now);
        self.follow(key, segment, false, now, &mut expect);
        expect.forward = true;
        expect.to = Some(device);
        expect
    }

    /// The laptop that holds a connection of which a target speaks in the middle.
    fn may_resume(&self, key: Key, segment: Option<Segment>, now: Now) -> Option<usize> {
        self.tries_to_resume(key, segment, now)
            .filter(|owner| self.obstacle(*owner, &key, false, now).is_none())
    }

    fn must_not_resume(&self, key: Key, segment: Option<Segment>, now: Now) -> Option<usize> {
        self.tries_to_resume(key, segment, now)
            .filter(|owner| self.obstacle(*owner, &key, false, now).is_some())
    }

    fn tries_to_resume(&self, key: Key, segment: Option<Segment>, now: Now) -> Option<usize> {
        let middle = segment
            .is_some_and(|segment| segment.has(ACK) && !segment.has(SYN) && !segment.has(RST));
        let owner = self
            .devices
            .iter()
            .find(|(_, device)| device.addresses.contains(&key.client.0))?;
        (middle && now.mono <= self.resume_until).then_some(*owner.0)
    }
}
