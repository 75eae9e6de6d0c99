//! The client's packet logic: what may enter the tunnel, what may leave it, and how the gateway is
//! reached. Pure: no socket, no clock, no file; the shell and the simulated world drive it alike.
//!
//! Road out: packet proved, inner source ours, destination in the include list, sealed.
//! Road in: opened, packet proved, source in the include list, destination ours, to the TUN.
//! The gateway's control API is on neither: its packets are for the client itself.

use crate::prefixes::Prefixes;
use postern_proto::control::{self, Message};
use postern_proto::ecn::Ecn;
use postern_proto::fate::{DropCounts, DropReason};
use postern_proto::now::{Mono, Now};
use postern_proto::outbox::{Endpoint, Outbox};
use postern_proto::packet::{PacketView, Transport};
use postern_proto::path_mtu::PathMtu;
use postern_proto::peers::{AddError, Control, Inbound, PeerId, Peers};
use postern_proto::reply;
use postern_proto::tunnel::{REKEY_TIMEOUT, Settings};
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use inside::is_from_control;

mod inside;
mod rotation;
mod talk;
mod types;

pub use inside::CONTROL_PACKETS;
pub use rotation::KeyChange;
pub use types::{Config, Outcome, Refusal, Status};

/// Packets that wait for the first key, so that a SYN is not lost to the handshake. The oldest
/// goes first when there are more.
pub const HELD_PACKETS: usize = 64;
/// Their bytes altogether: with the packets' own bookkeeping below 132 KiB of memory.
pub const HELD_BYTES: usize = 128 * 1024;
/// Refusals that are remembered for `status`, at most 1 KiB each.
pub const REFUSALS: usize = 32;
/// An initiation without an answer for so long moves on to the next endpoint: just before the
/// next initiation is due, so that a cookie is still answered where it came from.
const NEXT_ENDPOINT: Duration = REKEY_TIMEOUT.saturating_sub(Duration::from_millis(500));
/// After giving up (90 s), the next attempt starts by itself.
const TRY_AGAIN: Duration = Duration::from_secs(30);

/// One tunnel to one gateway.
#[derive(Debug)]
pub struct Client {
    peers: Peers,
    gateway: PeerId,
    addresses: Vec<IpAddr>,
    gateway_addresses: Vec<IpAddr>,
    include: Prefixes,
    path: PathMtu,
    version: String,
    endpoints: Vec<SocketAddr>,
    /// Which of them is in use.
    at: usize,
    held: VecDeque<Vec<u8>>,
    held_bytes: usize,
    /// The handshake after which we last said hello.
    greeted: Option<Mono>,
    initiated: u64,
    gave_up: u64,
    unanswered: u64,
    next_endpoint: Mono,
    try_again: Mono,
    drops: DropCounts,
    refusals: VecDeque<Refusal>,
    /// From the control API, for the client itself.
    inside: VecDeque<Vec<u8>>,
    /// The gateway said that something has changed.
    changed: bool,
    /// The other end is Postern's: it said something.
    postern: bool,
    /// No hello and no probes: a throw-away key may do nothing but enrol.
    quiet: bool,
    rotation: rotation::Rotation,
}

impl Client {
    /// A client without endpoints: nothing is sent until [`Client::set_endpoints`]. `seed` must
    /// be random.
    ///
    /// # Errors
    /// The gateway's key is our own.
    pub fn new(config: Config, seed: u64) -> Result<Client, AddError> {
        let settings = Settings {
            psk: config.preshared_key,
            keepalive: config.keepalive,
            mtu: usize::from(config.mtu),
        };
        let mut peers = Peers::new(config.private_key, rotation::FIRST, rotation::BITS, seed);
        let gateway = peers.add(config.gateway_key, &settings, None)?;
        Ok(Client {
            rotation: rotation::Rotation::new(config.gateway_key, &settings),
            peers,
            gateway,
            addresses: config.addresses,
            gateway_addresses: config.gateway_addresses,
            include: Prefixes::new(&config.include),
            path: PathMtu::new(config.mtu),
            version: config.version,
            endpoints: Vec::new(),
            at: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            greeted: None,
            initiated: 0,
            gave_up: 0,
            unanswered: 0,
            next_endpoint: Mono::NEVER,
            try_again: Mono::NEVER,
            drops: DropCounts::default(),
            refusals: VecDeque::new(),
            inside: VecDeque::new(),
            changed: false,
            postern: false,
            quiet: false,
        })
    }

    /// Sets where the gateway may be, in the order in which to try. Endpoints that the tunnel
    /// itself would swallow are left out. A gateway that answers where it is, stays there.
    pub fn set_endpoints(
        &mut self,
        mut endpoints: Vec<SocketAddr>,
        out: &mut impl Outbox,
        now: Now,
    ) {
        endpoints.retain(|endpoint| !self.include.contains(endpoint.ip()));
        if endpoints == self.endpoints {
            return;
        }
        self.endpoints = endpoints;
        self.at = 0;
        if self.unanswered > 0 || !self.is_connected(now) {
            self.use_endpoint();
            self.connect(out, now);
        }
    }

    /// Asks for a key now: at the start, and when the network changed.
    pub fn connect(&mut self, out: &mut impl Outbox, now: Now) {
        self.peers.initiate(self.gateway, out, now);
        self.settle(out, now);
    }

    /// The laptop has another address: a live session says so at once, for the gateway follows
    /// whatever it can authenticate; a new handshake may have to wait for its turn.
    pub fn moved(&mut self, out: &mut impl Outbox, now: Now) {
        let gateway = self.peers.peer(self.gateway);
        if gateway.is_some_and(|gateway| gateway.is_established(now)) {
            self.greet(out, now);
            self.path.start(now.mono);
        }
        self.connect(out, now);
    }

    /// Takes a datagram from the network, whose IP header carried `ecn`.
    pub fn from_network(
        &mut self,
        from: Endpoint,
        ecn: Ecn,
        datagram: &[u8],
        out: &mut impl Outbox,
        now: Now,
    ) -> Outcome {
        // Answering there would go into the tunnel, and that datagram again, without end.
        if self.include.contains(from.remote.ip()) {
            return self.dropped(DropReason::NotIncluded);
        }
        let inbound = self.receive(from, ecn, datagram, out, now);
        let outcome = match inbound {
            Inbound::Packet { len, .. } => {
                self.heard();
                self.deliver(len, out, now)
            }
            Inbound::Control { what, .. } => {
                match what {
                    Control::Keepalive | Control::Answered | Control::Established => self.heard(),
                    Control::CookieSent | Control::CookieTaken => {}
                }
                Outcome::Consumed
            }
            Inbound::Dropped { reason, .. } => self.dropped(reason),
        };
        self.settle(out, now);
        outcome
    }

    /// Takes one packet from the TUN: [`Client::admit`], then [`Client::seal`].
    pub fn from_tun(&mut self, packet: &mut [u8], out: &mut impl Outbox, now: Now) -> Outcome {
        match self.admit(packet, out) {
            Ok(()) => self.seal(packet, out, now),
            Err(reason) => Outcome::Dropped(reason),
        }
    }

    /// Whether a packet (or a super-packet as a whole) from the TUN may enter the tunnel. One of
    /// ours that may not is answered at once, so that no program waits for a timeout.
    ///
    /// # Errors
    /// Why it may not; counted.
    pub fn admit(&mut self, packet: &[u8], out: &mut impl Outbox) -> Result<(), DropReason> {
        let verdict = PacketView::parse(packet).and_then(|view| {
            if !self.addresses.contains(&view.source) {
                Err(DropReason::SpoofedSource)
            } else if self.beyond(view.destination) && !self.is_for_control(&view) {
                Ok(())
            } else {
                if let Some(len) = reply::refuse(&view, out.packet()) {
                    out.commit_packet(len);
                }
                Err(DropReason::NotIncluded)
            }
        });
        verdict.inspect_err(|&reason| self.drops.add(reason, 1))
    }

    /// Seals one admitted packet towards the gateway, or holds it until there is a key.
    pub fn seal(&mut self, packet: &mut [u8], out: &mut impl Outbox, now: Now) -> Outcome {
        reply::clamp_mss(packet, self.mtu().into());
        let outcome = match self.peers.send(self.gateway, packet, out, now) {
            Ok(()) => {
                self.path.sent(packet.len(), now.mono);
                Outcome::Passed
            }
            Err(DropReason::NoSession) => {
                self.hold(packet);
                Outcome::Held
            }
            Err(reason) => self.dropped(reason),
        };
        self.settle(out, now);
        outcome
    }

    /// Does whatever is due.
    pub fn timeout(&mut self, out: &mut impl Outbox, now: Now) {
        if self.next_endpoint <= now.mono {
            self.next_endpoint = Mono::NEVER;
            self.at = (self.at + 1) % self.endpoints.len().max(1);
            self.use_endpoint();
        }
        if self.try_again <= now.mono {
            self.try_again = Mono::NEVER;
            self.peers.initiate(self.gateway, out, now);
        }
        self.peers.timeout(out, now);
        self.turn_rotation(out, now);
        self.settle(out, now);
        self.probe(out, now);
    }

    /// When [`Client::timeout`] wants to be called; it may then find nothing to do.
    #[must_use]
    pub fn next_deadline(&self) -> Mono {
        self.peers
            .next_deadline()
            .min(self.next_endpoint)
            .min(self.try_again)
            .min(self.path.next_deadline())
            .min(self.rotation.next_deadline())
    }

    /// A packet could be sent now.
    #[must_use]
    pub fn is_connected(&self, now: Now) -> bool {
        self.peers
            .peer(self.gateway)
            .is_some_and(|peer| peer.is_established(now))
    }

    /// Initiations since the gateway was last heard.
    #[must_use]
    pub fn unanswered(&self) -> u64 {
        self.unanswered
    }

    /// Where the gateway is, or is tried next.
    #[must_use]
    pub fn endpoint(&self) -> Option<SocketAddr> {
        self.peers
            .peer(self.gateway)?
            .endpoint()
            .map(|endpoint| endpoint.remote)
    }

    /// Every address at which the gateway may be tried.
    #[must_use]
    pub fn endpoints(&self) -> &[SocketAddr] {
        &self.endpoints
    }

    /// How the client stands.
    #[must_use]
    pub fn status(&self, now: Now) -> Status {
        let peer = self.peers.peer(self.gateway);
        Status {
            connected: self.is_connected(now),
            endpoint: self.endpoint(),
            last_handshake: peer.and_then(|peer| peer.last_handshake()),
            unanswered: self.unanswered,
            sent: peer.map(|peer| peer.sent()).unwrap_or_default(),
            received: peer.map(|peer| peer.received()).unwrap_or_default(),
            held: self.held.len(),
            mtu: self.mtu(),
            path: self.path.known(),
            drops: self.drops.clone(),
            refusals: self.refusals.iter().cloned().collect(),
        }
    }

    /// Whether an address is reached through the tunnel.
    fn beyond(&self, address: IpAddr) -> bool {
        self.include.contains(address) || self.gateway_addresses.contains(&address)
    }

    /// Judges the opened packet in the outbox's packet slot.
    fn deliver(&mut self, len: usize, out: &mut impl Outbox, now: Now) -> Outcome {
        let packet = out.packet();
        let Some(packet) = packet.get_mut(..len) else {
            return self.dropped(DropReason::TooLong);
        };
        let view = match PacketView::parse(packet) {
            Ok(view) => view,
            Err(reason) => return self.dropped(reason),
        };
        if !self.addresses.contains(&view.destination) || !self.may_come(&view) {
            return self.dropped(DropReason::NotIncluded);
        }
        if self.gateway_addresses.contains(&view.source) {
            if let Some(payload) = control::payload(&view, view.destination) {
                if let Ok(message) = Message::parse(payload) {
                    self.told(message, len, now);
                }
                return Outcome::Consumed;
            }
            if is_about_our_hello(&view) {
                return Outcome::Consumed;
            }
            if is_from_control(&view) {
                let packet = packet.to_vec();
                return self.keep_inside(packet);
            }
        }
        reply::clamp_mss(packet, self.path.mtu().into());
        out.commit_packet(len);
        self.path.heard();
        Outcome::Passed
    }

    /// From where we send to, or an error of a router on the way about a packet of ours: path MTU
    /// discovery depends on it.
    fn may_come(&self, view: &PacketView<'_>) -> bool {
        let about_ours = match view.transport {
            Transport::Error {
                about: Some(about), ..
            } => self.addresses.contains(&about.source.0) && self.beyond(about.destination.0),
            Transport::Error { about: None, .. }
            | Transport::Tcp(_)
            | Transport::Udp { .. }
            | Transport::Echo { .. } => false,
        };
        about_ours || self.beyond(view.source)
    }

    /// After anything that may have changed the tunnel: greets under a new key, sends what waits,
    /// and looks after handshakes that nobody answers.
    fn settle(&mut self, out: &mut impl Outbox, now: Now) {
        let Some(peer) = self.peers.peer(self.gateway) else {
            return;
        };
        let last = peer.last_handshake().map(|now| now.mono);
        let connected = peer.is_established(now);
        if connected && self.greeted != last {
            self.greeted = last;
            self.greet(out, now);
            self.path.start(now.mono);
        }
        if connected {
            while let Some(packet) = self.held.pop_front() {
                self.held_bytes -= packet.len();
                if let Err(reason) = self.peers.send(self.gateway, &packet, out, now) {
                    self.drops.add(reason, 1);
                }
            }
        }

        let handshakes = self.peers.handshakes();
        if handshakes.initiated > self.initiated {
            self.unanswered += handshakes.initiated - self.initiated;
            self.initiated = handshakes.initiated;
            // While a key still works, one lost initiation is no reason to move.
            if !connected || self.unanswered >= 2 {
                self.next_endpoint = now.mono + NEXT_ENDPOINT;
            }
        }
        if handshakes.gave_up > self.gave_up {
            self.gave_up = handshakes.gave_up;
            self.drops
                .add(DropReason::NoSession, self.held.len() as u64);
            self.held.clear();
            self.held_bytes = 0;
            self.try_again = now.mono + TRY_AGAIN;
        }
    }

    fn hold(&mut self, packet: &[u8]) {
        while self.held.len() >= HELD_PACKETS || self.held_bytes + packet.len() > HELD_BYTES {
            let Some(oldest) = self.held.pop_front() else {
                break;
            };
            self.held_bytes -= oldest.len();
            self.drops.add(DropReason::NoSession, 1);
        }
        self.held_bytes += packet.len();
        self.held.push_back(packet.to_vec());
    }

    fn heard(&mut self) {
        self.unanswered = 0;
        self.next_endpoint = Mono::NEVER;
        self.try_again = Mono::NEVER;
    }

    fn use_endpoint(&mut self) {
        if let Some(&endpoint) = self.endpoints.get(self.at) {
            self.peers.set_endpoint(self.gateway, endpoint.into());
            self.rotation.set_endpoint(endpoint.into());
        }
    }

    fn dropped(&mut self, reason: DropReason) -> Outcome {
        self.drops.add(reason, 1);
        Outcome::Dropped(reason)
    }
}

/// A server that knows no control messages answers the hello with port-unreachable.
fn is_about_our_hello(view: &PacketView<'_>) -> bool {
    match view.transport {
        Transport::Error {
            about: Some(about), ..
        } => {
            about.destination == (view.source, control::PORT)
                && about.source == (view.destination, control::PORT)
        }
        Transport::Error { about: None, .. }
        | Transport::Tcp(_)
        | Transport::Udp { .. }
        | Transport::Echo { .. } => false,
    }
}

#[cfg(test)]
mod tests;
