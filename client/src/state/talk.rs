//! What the client and the gateway say to each other inside the tunnel: hello, probes of the path
//! and their answers, refusals.

use super::{Client, REFUSALS, Refusal};
use postern_proto::control::Message;
use postern_proto::ecn::Mode;
use postern_proto::mtu::PACKET_ROOM;
use postern_proto::now::Now;
use postern_proto::outbox::Outbox;
use postern_proto::path_mtu::Probe;
use std::net::IpAddr;

impl Client {
    /// The inner MTU to use at present, bytes: the interface should have it.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.path.mtu()
    }

    /// The other end is Postern's gateway, so it may have a control API.
    #[must_use]
    pub fn is_postern(&self) -> bool {
        self.postern
    }

    /// Says nothing of its own accord: for a throw-away key, which may do nothing but enrol.
    pub fn keep_quiet(&mut self) {
        self.quiet = true;
    }

    /// Probes sent so far; the number wraps.
    #[must_use]
    pub fn probes(&self) -> u32 {
        self.path.probes()
    }

    /// Our own kernel refused a datagram as too long: the path is smaller than was thought.
    pub fn refused_as_too_long(&mut self, now: Now) {
        self.path.refused(now.mono);
    }

    /// Tells the gateway that this client understands control messages. A stock WireGuard server
    /// sees one UDP datagram to a closed port.
    pub(super) fn greet(&mut self, out: &mut impl Outbox, now: Now) {
        let hello = Message::Hello {
            version: 1,
            client: self.version.clone(),
        };
        self.say(&hello, 0, out, now);
    }

    /// Sends the probes that are due. Under a key only: a probe is no reason to ask for one.
    pub(super) fn probe(&mut self, out: &mut impl Outbox, now: Now) {
        if self.path.next_deadline() > now.mono {
            return;
        }
        let mut path = self.path.clone();
        path.due(
            self.is_connected(now),
            now.mono,
            |Probe { id, size, mtu }| {
                self.say(&Message::Probe { id, mtu }, size, out, now);
            },
        );
        self.path = path;
    }

    /// The gateway said something, in a packet of `len` bytes.
    pub(super) fn told(&mut self, message: Message, len: usize, now: Now) {
        self.postern = true;
        // Which passes congestion marks on.
        self.peers.set_ecn_mode(self.gateway, Mode::Normal);
        match message {
            Message::Hello { .. } | Message::Probe { .. } => {}
            Message::Changed => self.changed = true,
            Message::ProbeAnswer { id } => {
                let size = u16::try_from(len).unwrap_or(u16::MAX);
                self.path.answered(id, size, now.mono);
            }
            Message::Refused { .. } | Message::Cut { .. } => self.remember(message, now),
        }
    }

    fn remember(&mut self, message: Message, now: Now) {
        if let Some(last) = self.refusals.back_mut()
            && last.message == message
        {
            last.at = now.wall;
            last.count += 1;
            return;
        }
        if self.refusals.len() == REFUSALS {
            self.refusals.pop_front();
        }
        self.refusals.push_back(Refusal {
            at: now.wall,
            count: 1,
            message,
        });
    }

    /// Sends a message to the gateway itself, padded to `len` bytes if it is a probe.
    fn say(&mut self, message: &Message, len: u16, out: &mut impl Outbox, now: Now) {
        if self.quiet {
            return;
        }
        let mut packet = [0; PACKET_ROOM];
        let written = self
            .control_pair()
            .and_then(|(from, to)| message.write_padded(from, to, len.into(), &mut packet));
        if let Some(len) = written
            && let Err(reason) = self.peers.send(self.gateway, &packet[..len], out, now)
        {
            self.drops.add(reason, 1);
        }
    }

    /// Our address and the gateway's of one family.
    fn control_pair(&self) -> Option<(IpAddr, IpAddr)> {
        self.gateway_addresses.iter().find_map(|to| {
            let mut own = self.addresses.iter();
            let from = own.find(|from| from.is_ipv4() == to.is_ipv4())?;
            Some((*from, *to))
        })
    }
}
