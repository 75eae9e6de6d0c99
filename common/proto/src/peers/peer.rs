//! One peer: its tunnel, where it is, and what it is owed.

use super::{BUSY, Control, Handshakes, Inbound, PeerId};
use crate::ecn::{self, Ecn};
use crate::fate::DropReason;
use crate::keys::PublicKey;
use crate::now::{Mono, Now};
use crate::outbox::{Endpoint, Outbox};
use crate::tunnel::{CONTROL_ROOM, Message, Opened, Tick, Traffic, Tunnel};

/// One peer as [`super::Peers`] sees it.
#[derive(Debug)]
pub struct Peer {
    pub(super) id: PeerId,
    pub(super) key: PublicKey,
    pub(super) tunnel: Tunnel,
    pub(super) endpoint: Option<Endpoint>,
    pub(super) ecn_mode: ecn::Mode,
    /// It is never in two places.
    pub(super) one_place: bool,
    /// When something that it alone can have sent came.
    pub(super) heard: Option<Mono>,
    /// When its entry in the set of deadlines fires.
    pub(super) armed: Mono,
}

impl Peer {
    /// Its number here.
    #[must_use]
    pub fn id(&self) -> PeerId {
        self.id
    }

    /// Its identity.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// Where it was last heard from, or was configured to be.
    #[must_use]
    pub fn endpoint(&self) -> Option<Endpoint> {
        self.endpoint
    }

    /// When its last key came into use.
    #[must_use]
    pub fn last_handshake(&self) -> Option<Now> {
        self.tunnel.last_handshake()
    }

    /// A packet could be sent to it.
    #[must_use]
    pub fn is_established(&self, now: Now) -> bool {
        self.tunnel.is_established(now)
    }

    /// Packets to it.
    #[must_use]
    pub fn sent(&self) -> Traffic {
        self.tunnel.sent()
    }

    /// Packets from it.
    #[must_use]
    pub fn received(&self) -> Traffic {
        self.tunnel.received()
    }
}

impl Peer {
    pub(super) fn receive_data<O: Outbox + ?Sized>(
        &mut self,
        from: Endpoint,
        outer: Ecn,
        datagram: &[u8],
        out: &mut O,
        now: Now,
    ) -> Inbound {
        let peer = self.id;
        if self.is_elsewhere(from, now) {
            return self.busy();
        }
        let slot = out.packet();
        match self.tunnel.open(datagram, slot, now) {
            Opened::Packet { len, newest } => {
                self.heard = Some(now.mono);
                let roamed = self.tells_place(newest) && self.moved(from);
                // Only now: a mark on what anybody could have sent means nothing.
                match ecn::pass_on(slot.get_mut(..len).unwrap_or_default(), outer) {
                    Ok(()) => Inbound::Packet { peer, len, roamed },
                    Err(reason) => Inbound::Dropped {
                        reason,
                        peer: Some(peer),
                    },
                }
            }
            Opened::Keepalive { newest } => {
                self.heard = Some(now.mono);
                let roamed = self.tells_place(newest) && self.moved(from);
                Inbound::Control {
                    what: Control::Keepalive,
                    peer: Some(peer),
                    roamed,
                }
            }
            Opened::Dropped(reason) => Inbound::Dropped {
                reason,
                peer: Some(peer),
            },
            Opened::Answered { .. } | Opened::Established { .. } | Opened::Cookie { .. } => {
                Inbound::Dropped {
                    reason: DropReason::NotWireguard,
                    peer: Some(peer),
                }
            }
        }
    }

    pub(super) fn receive_handshake<O: Outbox + ?Sized>(
        &mut self,
        from: Endpoint,
        datagram: &[u8],
        out: &mut O,
        now: Now,
    ) -> Inbound {
        if self.is_elsewhere(from, now) {
            return self.busy();
        }
        // Nothing in a cookie proves who sent it: the repeated initiation goes to the peer.
        let is_cookie = matches!(Message::parse(datagram), Some(Message::Cookie { .. }));
        let to = if is_cookie {
            self.endpoint.unwrap_or(from)
        } else {
            from
        };
        let opened = self
            .tunnel
            .open(datagram, out.datagram(to, CONTROL_ROOM), now);
        let (what, len) = match opened {
            Opened::Answered { len } => (Control::Answered, len),
            Opened::Established { len } => (Control::Established, len),
            Opened::Cookie { len } => (Control::CookieTaken, len),
            Opened::Dropped(reason) => {
                return Inbound::Dropped {
                    reason,
                    peer: Some(self.id),
                };
            }
            Opened::Packet { .. } | Opened::Keepalive { .. } => {
                return Inbound::Dropped {
                    reason: DropReason::NotWireguard,
                    peer: Some(self.id),
                };
            }
        };
        if len > 0 {
            out.commit_datagram(len, Ecn::NotEct);
        }
        let roamed = what == Control::Established && self.moved(from);
        Inbound::Control {
            what,
            peer: Some(self.id),
            roamed,
        }
    }

    fn is_elsewhere(&self, from: Endpoint, now: Now) -> bool {
        let lives = self.heard.is_some_and(|heard| now.mono - heard < BUSY);
        let there = |at: Endpoint| at.remote == from.remote;
        self.one_place && lives && !self.endpoint.is_some_and(there)
    }

    fn busy(&self) -> Inbound {
        Inbound::Dropped {
            reason: DropReason::KeyBusy,
            peer: Some(self.id),
        }
    }

    /// A late datagram says where the peer was, which is more than nothing.
    fn tells_place(&self, newest: bool) -> bool {
        newest || self.endpoint.is_none()
    }

    fn moved(&mut self, from: Endpoint) -> bool {
        let before = self.endpoint.replace(from);
        before.is_none_or(|before| before.remote != from.remote)
    }

    pub(super) fn run_timers<O: Outbox + ?Sized>(
        &mut self,
        out: &mut O,
        now: Now,
        handshakes: &mut Handshakes,
    ) {
        let mut nowhere = [0; CONTROL_ROOM];
        loop {
            let slot = match self.endpoint {
                Some(endpoint) => out.datagram(endpoint, CONTROL_ROOM),
                None => &mut nowhere,
            };
            match self.tunnel.tick(slot, now) {
                Tick::Send(len) if self.endpoint.is_some() => {
                    out.commit_datagram(len, Ecn::NotEct);
                    handshakes.initiated += u64::from(len == CONTROL_ROOM);
                }
                Tick::Send(_) => {}
                Tick::GaveUp => handshakes.gave_up += 1,
                Tick::Nothing => return,
            }
        }
    }
}
