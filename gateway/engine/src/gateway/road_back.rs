//! A packet from a target: it needs a flow that a device opened. Nothing else comes back.

use super::Gateway;
use crate::denials::Attempt;
use crate::flow::Slot;
use crate::flow::tcp::{TcpState, TcpTrack};
use crate::record::CloseReason;
use postern_proto::fate::DropReason;
use postern_proto::flow_key::{FlowKey, Protocol};
use postern_proto::now::Now;
use postern_proto::outbox::Outbox;
use postern_proto::packet::{PacketView, Quoted, Tcp, TcpFlags, Transport};
use postern_proto::peers::PeerId;
use postern_proto::reply;

enum Fate {
    Forward(PeerId),
    /// No further; an answer of this length towards the target is ready, if one is owed.
    Refuse(DropReason, Option<usize>),
    Cut(Slot, CloseReason, Option<usize>),
    /// It may not resume its flow, which both ends still hold: both are told.
    NoResume {
        peer: PeerId,
        key: FlowKey,
        tcp: Tcp,
        answer: Option<usize>,
    },
    /// Its device has no key that is young enough: ask it for one. The target will send again.
    NoSession(PeerId),
}

impl Gateway {
    /// One packet, or one super-packet that stands for `segments` packets of at most
    /// `segment_len` bytes, from the TUN. It is judged once; on `Some(peer)` the caller passes each of its segments to
    /// [`Gateway::to_device`].
    pub fn from_target(
        &mut self,
        packet: &[u8],
        segments: u32,
        segment_len: usize,
        out: &mut impl Outbox,
        now: Now,
    ) -> Option<PeerId> {
        let fate = match PacketView::parse(packet) {
            Ok(view) => self.fate_of_return(&view, segments.max(1), segment_len, now),
            Err(reason) => Fate::Refuse(reason, None),
        };
        match fate {
            Fate::Forward(peer) => return Some(peer),
            Fate::Refuse(reason, answer) => {
                self.counters.drops.add(reason, u64::from(segments.max(1)));
                self.answer_target(answer, out);
            }
            Fate::Cut(slot, reason, answer) => {
                self.counters
                    .drops
                    .add(DropReason::Policy, u64::from(segments.max(1)));
                self.cut_flow(slot, reason, out, now);
                self.answer_target(answer, out);
            }
            Fate::NoResume {
                peer,
                key,
                tcp,
                answer,
            } => {
                self.counters
                    .drops
                    .add(DropReason::NoFlow, u64::from(segments.max(1)));
                self.answer_target(answer, out);
                let reset = reply::tcp_reset(
                    key.target_end(),
                    key.client_end(),
                    tcp.sequence,
                    Some(tcp.acknowledgment),
                    &mut self.answer,
                );
                self.answer_device(peer, reset, out, now);
            }
            Fate::NoSession(peer) => {
                self.counters
                    .drops
                    .add(DropReason::NoSession, u64::from(segments.max(1)));
                self.peers.initiate(peer, out, now);
            }
        }
        None
    }

    /// One segment of what [`Gateway::from_target`] let pass: encrypted into the send batch. A
    /// SYN has its MSS clamped in place.
    pub fn to_device(&mut self, peer: PeerId, packet: &mut [u8], out: &mut impl Outbox, now: Now) {
        reply::clamp_mss_to(packet, || self.mtu_of(peer, now));
        match self.peers.send(peer, packet, out, now) {
            Ok(()) => {
                self.counters.packets_in += 1;
                self.counters.bytes_in += packet.len() as u64;
            }
            Err(reason) => self.count_drop(reason),
        }
    }

    fn fate_of_return(
        &mut self,
        view: &PacketView<'_>,
        segments: u32,
        segment_len: usize,
        now: Now,
    ) -> Fate {
        let key = match view.transport {
            Transport::Error { about, too_big } => {
                return self.error_from_target(view, about, too_big, now);
            }
            // A device never asked for a request.
            Transport::Echo { request: true, .. } => {
                return Fate::Refuse(DropReason::Unsolicited, None);
            }
            Transport::Echo { request: false, .. } | Transport::Tcp(_) | Transport::Udp { .. } => {
                match view.key_from_target() {
                    Some(key) => key,
                    None => return Fate::Refuse(DropReason::Unsolicited, None),
                }
            }
        };
        let slot = match self.flows.find(&key) {
            Some(slot) => slot,
            None => match self.resume_from_target(&key, view, now) {
                Ok(slot) => slot,
                Err(fate) => return fate,
            },
        };
        let Some(flow) = self.flows.get(slot) else {
            return Fate::Refuse(DropReason::Unsolicited, None);
        };
        if flow.cut.is_some() {
            let answer = match view.tcp() {
                Some(_) => reply::refuse(view, &mut self.answer),
                None => None,
            };
            return Fate::Refuse(DropReason::Cut, answer);
        }
        let peer = flow.peer;
        if let Err(reason) = self.still_allowed(slot, now) {
            return Fate::Cut(slot, reason, reply::refuse(view, &mut self.answer));
        }
        if !self.can_reach(peer, now) {
            return Fate::NoSession(peer);
        }
        if let Some(answer) = self.too_big(peer, view, segment_len, now) {
            return Fate::Refuse(DropReason::TooBig, answer);
        }
        self.note_target_packet(slot, view, segments, now);
        Fate::Forward(peer)
    }

    fn note_target_packet(&mut self, slot: Slot, view: &PacketView<'_>, segments: u32, now: Now) {
        let Some(flow) = self.flows.get_mut(slot) else {
            return;
        };
        // Each segment of a super-packet gets the headers that it shares.
        let bytes = view.bytes().len() as u64;
        let headers = match view.tcp() {
            Some(tcp) => bytes.saturating_sub(u64::from(tcp.payload)),
            None if view.source.is_ipv6() => 48,
            None => 28,
        };
        flow.count_in(
            bytes + headers * u64::from(segments - 1),
            u64::from(segments),
            now,
        );
        if let (Some(track), Some(tcp)) = (&mut flow.tcp, view.tcp()) {
            if flow.hint.is_open() {
                self.hints.passes_back(&mut flow.hint, view);
            }
            let before = track.state;
            track.target_sent(tcp);
            if track.state != before {
                self.tcp_state_changed(slot, before, now);
            }
        }
    }

    /// After a restart a target may speak first on a connection that both ends still hold. It is
    /// judged as if the device had spoken; a SYN never is. While the device has no key, nothing
    /// is remembered: what it never got must not count.
    fn resume_from_target(
        &mut self,
        key: &FlowKey,
        view: &PacketView<'_>,
        now: Now,
    ) -> Result<Slot, Fate> {
        let unsolicited = || Fate::Refuse(DropReason::Unsolicited, None);
        let tcp = view.tcp().ok_or_else(unsolicited)?;
        let resumes = tcp.flags.has(TcpFlags::ACK)
            && !tcp.flags.has(TcpFlags::SYN)
            && !tcp.flags.has(TcpFlags::RST);
        if !resumes || now.mono > self.resume_until {
            return Err(unsolicited());
        }
        let peer = self.devices.owner(key.client()).ok_or_else(unsolicited)?;
        if !self.would_allow(peer, key, now) {
            self.deny(Attempt::of(peer, key, DropReason::NoFlow), now);
            return Err(Fate::NoResume {
                peer,
                key: *key,
                tcp: *tcp,
                answer: reply::refuse(view, &mut self.answer),
            });
        }
        if !self.can_reach(peer, now) {
            return Err(Fate::NoSession(peer));
        }
        let slot = self
            .open_flow(peer, *key, Some(TcpTrack::from_target(tcp)), true, now)
            .map_err(|_| unsolicited())?;
        self.record_open(slot, now);
        Ok(slot)
    }

    /// An ICMP error comes from any router on the way; it must be about a packet that a device
    /// sent in a live flow, and go to that device.
    fn error_from_target(
        &mut self,
        view: &PacketView<'_>,
        about: Option<Quoted>,
        too_big: bool,
        now: Now,
    ) -> Fate {
        let refused = Fate::Refuse(DropReason::Unsolicited, None);
        let Some(about) = about.filter(|about| about.source.0 == view.destination) else {
            return refused;
        };
        let key = FlowKey::new(about.protocol, about.source, about.destination);
        let Some(slot) = self.flows.find(&key) else {
            return refused;
        };
        if self.flows.get(slot).is_none_or(|flow| flow.cut.is_some()) {
            return refused;
        }
        if let Err(reason) = self.still_allowed(slot, now) {
            return Fate::Cut(slot, reason, None);
        }
        let Some(peer) = self.flows.get(slot).map(|flow| flow.peer) else {
            return refused;
        };
        if !self.can_reach(peer, now) {
            return Fate::NoSession(peer);
        }
        let Some(flow) = self.flows.get_mut(slot) else {
            return refused;
        };
        flow.count_in(view.bytes().len() as u64, 1, now);
        // Nobody is there: the attempt is over, and its record should not wait for a timeout.
        let unanswered = match flow.tcp {
            Some(track) => track.state == TcpState::SynSent,
            None => flow.packets_in == 1 && key.protocol != Protocol::Tcp,
        };
        if unanswered && !too_big {
            self.close_flow(slot, CloseReason::Error, now);
        }
        Fate::Forward(peer)
    }

    /// What is counted as passed on must have a tunnel to pass through.
    pub(super) fn can_reach(&self, peer: PeerId, now: Now) -> bool {
        self.peers
            .peer(peer)
            .is_some_and(|peer| peer.is_established(now))
    }

    fn answer_target(&mut self, answer: Option<usize>, out: &mut impl Outbox) {
        let Some(answer) = answer.and_then(|len| self.answer.get(..len)) else {
            return;
        };
        if let Some(room) = out.packet().get_mut(..answer.len()) {
            room.copy_from_slice(answer);
            out.commit_packet(answer.len());
        }
    }
}
