//! A datagram from a laptop: decrypted, proved, identified, matched or judged, and passed on.
//! Functions stand in the order of the road.

use super::{Gateway, judge::Refusal};
use crate::flow::tcp::TcpState;
use crate::flow::{Slot, tcp::TcpTrack};
use crate::record::CloseReason;
use postern_proto::control::{self, Message};
use postern_proto::ecn::{Ecn, Mode};
use postern_proto::fate::DropReason;
use postern_proto::flow_key::{FlowKey, Protocol};
use postern_proto::keys::PublicKey;
use postern_proto::now::Now;
use postern_proto::outbox::{Endpoint, Outbox};
use postern_proto::packet::{PacketView, Quoted, Transport};
use postern_proto::peers::{Control, Inbound, PeerId};
use postern_proto::reply;

/// What becomes of a proved packet. Decided while the packet is looked at, done afterwards.
pub(super) enum Fate {
    /// To the target; `syn` has its MSS clamped on the way.
    Forward { syn: bool },
    /// No further; an answer of this length is ready, if one is owed.
    Refuse {
        reason: DropReason,
        answer: Option<usize>,
        notice: Option<Box<Message>>,
    },
    /// Its flow is no longer allowed: cut it, then refuse.
    Cut {
        slot: Slot,
        reason: CloseReason,
        answer: Option<usize>,
    },
    /// To the control API.
    Control,
    /// Taken in by the gateway itself.
    Consumed,
    /// A probe of the path, which is answered.
    Probe { id: u32 },
}

impl Gateway {
    /// One datagram from the Internet, whose IP header carried `ecn`.
    pub fn from_network(
        &mut self,
        from: Endpoint,
        ecn: Ecn,
        datagram: &[u8],
        out: &mut impl Outbox,
        now: Now,
    ) {
        let inbound = self.peers.receive(from, ecn, datagram, out, now);
        self.take_in(inbound, out, now);
    }

    /// One initiation that a gate outside has let in; `key` is the device that it claims to come
    /// from.
    pub fn from_door(
        &mut self,
        key: &PublicKey,
        from: Endpoint,
        datagram: &[u8],
        out: &mut impl Outbox,
        now: Now,
    ) {
        let inbound = self.peers.receive_claimed(key, from, datagram, out, now);
        self.take_in(inbound, out, now);
    }

    fn take_in(&mut self, inbound: Inbound, out: &mut impl Outbox, now: Now) {
        match inbound {
            Inbound::Packet { peer, len, roamed } => {
                let another = self.key_in_use(peer, now);
                let moved = (another || roamed) && self.note_place(peer);
                self.take_packet(peer, len, out, now);
                if moved {
                    self.judge_moved(peer, out, now);
                }
                self.tell_untold(peer, out, now);
            }
            // Answers, keepalives and cookies are the tunnel's own affair; it counts them.
            Inbound::Control { what, peer, roamed } => {
                if let Some(peer) = peer {
                    let another = matches!(what, Control::Keepalive | Control::Established)
                        && self.key_in_use(peer, now);
                    if (another || roamed) && self.note_place(peer) {
                        self.judge_moved(peer, out, now);
                    }
                    self.tell_untold(peer, out, now);
                }
            }
            Inbound::Dropped { reason, peer } => {
                self.count_drop(reason);
                // A packet may be authentic and go no further all the same.
                if let Some(peer) = peer
                    && self.note_place(peer)
                {
                    self.judge_moved(peer, out, now);
                }
            }
        }
    }

    /// The decrypted packet of `len` bytes that stands in the packet slot of `out`.
    fn take_packet(&mut self, peer: PeerId, len: usize, out: &mut impl Outbox, now: Now) {
        let packet = &*out.packet();
        let fate = match packet
            .get(..len)
            .ok_or(DropReason::TooLong)
            .and_then(PacketView::parse)
        {
            Ok(view) => self.fate_of(peer, &view, now),
            Err(reason) => Fate::Refuse {
                reason,
                answer: None,
                notice: None,
            },
        };
        match fate {
            Fate::Forward { syn } => {
                if syn {
                    let mtu = self.mtu_of(peer, now);
                    reply::clamp_mss(&mut out.packet()[..len], mtu);
                }
                out.commit_packet(len);
                self.counters.packets_out += 1;
                self.counters.bytes_out += len as u64;
            }
            Fate::Refuse {
                reason,
                answer,
                notice,
            } => {
                self.count_drop(reason);
                self.answer_device(peer, answer, out, now);
                if let Some(notice) = notice {
                    self.tell_device(peer, &notice, out, now);
                }
            }
            Fate::Cut {
                slot,
                reason,
                answer,
            } => {
                self.count_drop(DropReason::Policy);
                self.cut_flow(slot, reason, out, now);
                self.answer_device(peer, answer, out, now);
            }
            Fate::Control => {
                let packet = out.packet().get(..len).unwrap_or_default();
                self.queue_control(peer, packet);
            }
            Fate::Consumed => self.counters.control_messages += 1,
            Fate::Probe { id } => {
                self.counters.control_messages += 1;
                self.answer_probe(peer, id, len, out, now);
            }
        }
    }

    fn fate_of(&mut self, peer: PeerId, view: &PacketView<'_>, now: Now) -> Fate {
        // Who: the key has spoken; the source must be the device's own address.
        let Some(device) = self.devices.get(peer) else {
            return Fate::Refuse {
                reason: DropReason::UnknownKey,
                answer: None,
                notice: None,
            };
        };
        if !device.owns(view.source) {
            return self.refuse_spoofed(peer, view, now);
        }
        if self.is_for_control(device, view) {
            return self.fate_of_control(peer, now);
        }
        if device.device.standing.guest {
            return self.refuse_guest(peer, view, now);
        }
        for address in &self.settings.addresses {
            if let Some(message) = control::payload(view, *address) {
                return self.take_message(peer, message, now);
            }
        }
        // Which flow.
        let key = match view.transport {
            Transport::Error { about, .. } => return self.error_from_device(view, about, now),
            Transport::Echo { request: false, .. } => {
                return Fate::Refuse {
                    reason: DropReason::OtherIcmp,
                    answer: None,
                    notice: None,
                };
            }
            Transport::Tcp(_) | Transport::Udp { .. } | Transport::Echo { .. } => {
                match view.key_from_device() {
                    Some(key) => key,
                    None => return Fate::Consumed,
                }
            }
        };
        match self.flows.find(&key) {
            Some(slot) => self.known_flow(peer, slot, key, view, now),
            None => self.new_flow(peer, key, view, now),
        }
    }

    fn known_flow(
        &mut self,
        peer: PeerId,
        slot: Slot,
        key: FlowKey,
        view: &PacketView<'_>,
        now: Now,
    ) -> Fate {
        let opens = view.tcp().is_some_and(|tcp| tcp.flags.opens());
        let Some(flow) = self.flows.get(slot) else {
            return self.new_flow(peer, key, view, now);
        };
        let over = flow.tcp.is_some_and(|tcp| tcp.state >= TcpState::Closed);
        if flow.cut.is_some() {
            // A new SYN is a new attempt, and so is a datagram of a protocol without SYN;
            // anything else is a late segment of what was cut.
            if !opens && key.protocol == Protocol::Tcp {
                return Fate::Refuse {
                    reason: DropReason::Cut,
                    answer: reply::refuse(view, &mut self.answer),
                    notice: None,
                };
            }
            self.flows.remove(slot);
            return self.new_flow(peer, key, view, now);
        }
        if opens && over {
            self.close_flow(slot, CloseReason::Fin, now);
            return self.new_flow(peer, key, view, now);
        }
        if let Err(reason) = self.still_allowed(slot, now) {
            return Fate::Cut {
                slot,
                reason,
                answer: reply::refuse(view, &mut self.answer),
            };
        }
        self.note_device_packet(slot, view, now);
        Fate::Forward {
            syn: view.tcp().is_some_and(|tcp| tcp.flags.opens()),
        }
    }

    fn new_flow(&mut self, peer: PeerId, key: FlowKey, view: &PacketView<'_>, now: Now) -> Fate {
        let resumes = match view.tcp() {
            Some(tcp) if tcp.flags.opens() => false,
            Some(tcp) => {
                let alive = !tcp.flags.has(postern_proto::packet::TcpFlags::RST);
                if !alive || now.mono > self.resume_until {
                    return Fate::Refuse {
                        reason: DropReason::NoFlow,
                        answer: reply::refuse(view, &mut self.answer),
                        notice: None,
                    };
                }
                true
            }
            None => false,
        };
        match self.open_flow(
            peer,
            key,
            view.tcp().map(TcpTrack::from_device),
            resumes,
            now,
        ) {
            Ok(slot) => {
                if let Some(flow) = self.flows.get_mut(slot) {
                    flow.count_out(view.bytes().len() as u64, 1, now);
                    if !resumes {
                        flow.hint = self.hints.opened_by(view);
                    }
                }
                self.record_open(slot, now);
                Fate::Forward {
                    syn: !resumes && view.tcp().is_some(),
                }
            }
            Err(Refusal { reason, notice }) => Fate::Refuse {
                reason,
                answer: reply::refuse(view, &mut self.answer),
                notice,
            },
        }
    }

    /// Counts a packet of a live flow and follows its state.
    fn note_device_packet(&mut self, slot: Slot, view: &PacketView<'_>, now: Now) {
        let Some(flow) = self.flows.get_mut(slot) else {
            return;
        };
        flow.count_out(view.bytes().len() as u64, 1, now);
        if let (Some(track), Some(tcp)) = (&mut flow.tcp, view.tcp()) {
            if flow.hint.is_open() {
                self.hints.passes_out(&mut flow.hint, view);
            }
            let before = track.state;
            track.device_sent(tcp);
            if track.state != before {
                self.tcp_state_changed(slot, before, now);
            }
        }
    }

    /// An ICMP error passes if and only if it is about a live flow and goes to its target.
    fn error_from_device(
        &mut self,
        view: &PacketView<'_>,
        about: Option<Quoted>,
        now: Now,
    ) -> Fate {
        let refused = Fate::Refuse {
            reason: DropReason::OtherIcmp,
            answer: None,
            notice: None,
        };
        let Some(about) = about.filter(|about| {
            about.source.0 == view.destination && about.destination.0 == view.source
        }) else {
            return refused;
        };
        // An error about an echo request of the target: no flow of ours carries one.
        if about.protocol == Protocol::Icmp {
            return refused;
        }
        let key = FlowKey::new(about.protocol, about.destination, about.source);
        match self.flows.find(&key) {
            Some(slot) if self.flows.get(slot).is_some_and(|flow| flow.cut.is_none()) => {
                if let Err(reason) = self.still_allowed(slot, now) {
                    return Fate::Cut {
                        slot,
                        reason,
                        answer: None,
                    };
                }
                if let Some(flow) = self.flows.get_mut(slot) {
                    flow.count_out(view.bytes().len() as u64, 1, now);
                }
                Fate::Forward { syn: false }
            }
            Some(_) | None => refused,
        }
    }

    fn take_message(&mut self, peer: PeerId, bytes: &[u8], now: Now) -> Fate {
        match (Message::parse(bytes), self.devices.get_mut(peer)) {
            (Ok(Message::Hello { version: 1, client }), Some(device)) => {
                device.client_version = Some(client.chars().take(32).collect());
                self.peers.set_ecn_mode(peer, Mode::Normal);
                Fate::Consumed
            }
            (Ok(Message::Probe { id, mtu }), Some(_)) => {
                self.note_mtu(peer, mtu, now);
                Fate::Probe { id }
            }
            (Ok(_) | Err(_), _) => Fate::Refuse {
                reason: DropReason::BadControl,
                answer: None,
                notice: None,
            },
        }
    }
}
