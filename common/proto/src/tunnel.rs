//! One WireGuard peer: boringtun as the Noise machine, every timer and every key age ours.
//!
//! A boringtun machine sends with whatever session it last received with. In one machine, packets
//! of the old key that are in flight at a rekey would move the sender back to it, the answers
//! under the old key would move the other end back, and two busy ends would swap keys for ever,
//! until the older dies under them. So there are two machines: *home* takes the peer's
//! initiations, because it knows the peer's last timestamp; and when we replace a living key, we
//! ask from the machine that does not hold it. Packets of the old key then arrive in one machine
//! while we send from the other. One steady end is enough to keep both steady.
//!
//! A machine is large and costs two curve operations to make, so home is made by the first
//! handshake: a peer that never connects costs neither. Once made it stays, for the timestamp.
//!
//! Left as it is: an end that answers may, after a late packet of the older key, send under that
//! key until the next packet comes (at the latest the peer's keepalive, 10 s). Both keys are
//! good then.

use crate::fate::DropReason;
use crate::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::mtu;
use crate::now::{Mono, Now};
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::x25519;
use machine::{Machine, Session};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use timers::{Due, Timers};

mod machine;
mod open;
#[cfg(test)]
pub(crate) mod tests;
mod timers;
mod wire;

pub(crate) use machine::handshake_fate;
pub use timers::{
    DEAD_PEER_TIME, FORGET_AFTER, KEEPALIVE_TIMEOUT, REJECT_AFTER_TIME, REKEY_AFTER_TIME,
    REKEY_ATTEMPT_TIME, REKEY_ON_RECEIVE, REKEY_TIMEOUT,
};
pub use wire::{Message, PeerId};

/// Room that a handshake message, or any answer of [`Tunnel::open`] and [`Tunnel::tick`], needs.
pub const CONTROL_ROOM: usize = wire::INITIATION_LEN;

/// An initiator replaces a key after so many packets (paper, section 6.1).
const REKEY_AFTER_MESSAGES: u64 = 1 << 60;
/// No counter at or above this is sent or accepted (paper, section 6.1).
const REJECT_AFTER_MESSAGES: u64 = u64::MAX - (1 << 13);

/// What the first handshake of a peer costs in memory, in bytes.
#[cfg(test)]
pub(crate) const MACHINE_SIZE: usize = size_of::<Machine>();

/// So many tries of an attempt may be from the spare machine.
const SPARE_TRIES: u64 = 5;

/// What a tunnel is made of besides the two keys.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Mixed into every handshake when present.
    pub psk: Option<PresharedKey>,
    /// An empty packet after so long a silence; also keeps trying handshakes for ever.
    pub keepalive: Option<Duration>,
    /// Inner MTU in bytes: the largest packet that is sealed, and where padding stops.
    pub mtu: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            psk: None,
            keepalive: None,
            mtu: mtu::DEFAULT_MTU,
        }
    }
}

/// boringtun's handshake counter, set so high that it never interferes: [`crate::gate`] limits.
/// One for all tunnels of a private key.
#[derive(Clone)]
pub struct Unlimited(Arc<RateLimiter>);

impl Unlimited {
    /// For tunnels whose own public key is `ours`.
    #[must_use]
    pub fn new(ours: &PublicKey) -> Self {
        let ours = x25519::PublicKey::from(ours.0);
        Unlimited(Arc::new(RateLimiter::new(&ours, u64::MAX)))
    }
}

impl fmt::Debug for Unlimited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Unlimited")
    }
}

/// What a datagram turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// An IP packet, in `out[..len]`, cut to the length in its header; `len` is 20 or more.
    Packet {
        /// Bytes.
        len: usize,
        /// The newest packet of the newest key: where it came from is where the peer is.
        newest: bool,
    },
    /// An empty packet.
    Keepalive {
        /// As above.
        newest: bool,
    },
    /// The peer asked for a key. `out[..len]` answers, to where the question came from.
    Answered {
        /// Bytes.
        len: usize,
    },
    /// The peer answered us. `out[..len]` confirms the key and must be sent.
    Established {
        /// Bytes.
        len: usize,
    },
    /// The peer is under load and wants proof of our address: send `out[..len]` unless zero.
    Cookie {
        /// Bytes.
        len: usize,
    },
    /// Nothing of use.
    Dropped(DropReason),
}

/// What [`Tunnel::tick`] found to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// Nothing, until [`Tunnel::next_deadline`].
    Nothing,
    /// Send `out[..n]` to the peer, then ask again.
    Send(usize),
    /// The peer did not answer for [`REKEY_ATTEMPT_TIME`]. Quiet until something is to be sent.
    GaveUp,
}

/// Inner bytes and packets, without padding and keepalives.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets that a key carried.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// One peer's keys, handshakes and timers: less than 1 KiB before its first handshake, 12 KiB
/// after it, and twice that once we have replaced a living key.
pub struct Tunnel {
    ours: PrivateKey,
    peer: PublicKey,
    psk: Option<PresharedKey>,
    id: PeerId,
    limiter: Unlimited,
    mtu: usize,
    timers: Timers,
    home: Option<Box<Machine>>,
    spare: Option<Box<Machine>>,
    /// Local index of the youngest key that both ends are known to have. We send from its machine.
    newest: Option<u32>,
    last_handshake: Option<Now>,
    handshakes: u64,
    sent: Traffic,
    received: Traffic,
}

impl Tunnel {
    /// A tunnel without a key. It does nothing until something is sent or received.
    /// `jitter_seed` spreads its retries; it need not be secret, but should differ by peer.
    #[must_use]
    pub fn new(
        ours: &PrivateKey,
        peer: &PublicKey,
        settings: &Settings,
        id: PeerId,
        jitter_seed: u64,
        limiter: &Unlimited,
    ) -> Self {
        Tunnel {
            home: None,
            spare: None,
            ours: ours.clone(),
            peer: *peer,
            psk: settings.psk.clone(),
            id,
            limiter: limiter.clone(),
            mtu: settings.mtu,
            timers: Timers::new(settings.keepalive, jitter_seed),
            newest: None,
            last_handshake: None,
            handshakes: 0,
            sent: Traffic::default(),
            received: Traffic::default(),
        }
    }

    /// Takes a datagram that came for this peer. Decrypts or answers into `out`, which needs
    /// [`mtu::PACKET_ROOM`]; a smaller one drops what does not fit. Whether an initiation may
    /// cost us the work is for [`crate::gate`] to say before.
    pub fn open(&mut self, datagram: &[u8], out: &mut [u8], now: Now) -> Opened {
        let Some(message) = Message::parse(datagram) else {
            return Opened::Dropped(DropReason::NotWireguard);
        };
        // boringtun panics when its output does not fit.
        if out.len() < CONTROL_ROOM.max(datagram.len()) {
            return Opened::Dropped(DropReason::TooLong);
        }
        match message {
            Message::Initiation => self.open_initiation(datagram, out, now),
            Message::Response { receiver } => self.open_response(receiver, datagram, out, now),
            Message::Cookie { receiver } => self.open_cookie(receiver, datagram, out, now),
            Message::Data { receiver, counter } => {
                self.open_data(receiver, counter, datagram, out, now)
            }
        }
        .unwrap_or_else(Opened::Dropped)
    }

    /// Changes [`Settings::keepalive`] and [`Settings::mtu`].
    pub fn adjust(&mut self, keepalive: Option<Duration>, mtu: usize, now: Now) {
        self.mtu = mtu;
        self.timers.set_keepalive(keepalive, now.mono);
    }

    /// Bytes that [`Tunnel::seal`] needs for a packet of `len` bytes.
    #[must_use]
    pub fn sealed_len(&self, len: usize) -> usize {
        self.padded(len) + mtu::WIREGUARD_OVERHEAD
    }

    /// Encrypts one IP packet into `out`, padded with zeros to a multiple of 16 but never above
    /// the MTU. Returns the length of the datagram.
    ///
    /// # Errors
    /// `TooBig` above the MTU (or above `out`), `Truncated` if empty, `NoSession` without a key
    /// young enough; then [`Tunnel::tick`] has a handshake to send.
    pub fn seal(&mut self, packet: &[u8], out: &mut [u8], now: Now) -> Result<usize, DropReason> {
        if packet.is_empty() {
            return Err(DropReason::Truncated);
        }
        if packet.len() > self.mtu || out.len() < self.sealed_len(packet.len()) {
            return Err(DropReason::TooBig);
        }
        if !self.is_established(now) {
            self.timers.want_handshake(now.mono);
            return Err(DropReason::NoSession);
        }
        let padded = self.padded(packet.len());
        let len = match padded {
            _ if padded == packet.len() => self.encrypt(packet, out),
            ..=128 => self.encrypt_padded::<128>(packet, padded, out),
            129..=1504 => self.encrypt_padded::<1504>(packet, padded, out),
            _ => self.encrypt_padded::<{ mtu::PACKET_ROOM }>(packet, padded, out),
        }
        .ok_or(DropReason::NoSession)?;
        self.sent.packets += 1;
        self.sent.bytes += packet.len() as u64;
        self.timers.sent_data(now.mono);
        self.keep_fresh(now.mono);
        Ok(len)
    }

    /// Asks for a new key now, or as soon as the last initiation is 5 s old; starts the 90 s of
    /// trying anew. `Some(len)`: send `out[..len]`.
    pub fn initiate(&mut self, out: &mut [u8], now: Now) -> Option<usize> {
        self.initiate_at(now.mono);
        match self.tick(out, now) {
            Tick::Send(len) => Some(len),
            Tick::Nothing | Tick::GaveUp => None,
        }
    }

    /// The same at a later moment: [`Tunnel::tick`] then sends it.
    pub fn initiate_at(&mut self, at: Mono) {
        self.timers.restart_attempt(at);
    }

    /// Does one thing that is due. To be called until it says `Nothing`; `out` needs
    /// [`CONTROL_ROOM`], and with less nothing is done.
    pub fn tick(&mut self, out: &mut [u8], now: Now) -> Tick {
        if out.len() < CONTROL_ROOM {
            return Tick::Nothing;
        }
        while let Some(due) = self.timers.due(now.mono, self.is_established(now)) {
            let sent = match due {
                Due::Initiate => self.write_initiation(out, now.mono),
                Due::Keepalive => self.write_keepalive(out, now.mono),
                Due::GiveUp => return Tick::GaveUp,
                Due::Forget => {
                    self.forget();
                    None
                }
            };
            if let Some(len) = sent {
                return Tick::Send(len);
            }
        }
        Tick::Nothing
    }

    /// When [`Tunnel::tick`] has something to do; [`Mono::NEVER`] if nothing is planned.
    #[must_use]
    pub fn next_deadline(&self) -> Mono {
        self.timers.next()
    }

    /// A packet can be sealed at this moment.
    #[must_use]
    pub fn is_established(&self, now: Now) -> bool {
        self.sender()
            .is_some_and(|machine| machine.current(now.mono).is_some())
    }

    /// A handshake is wanted or under way.
    #[must_use]
    pub fn is_handshaking(&self) -> bool {
        self.timers.is_handshaking()
    }

    /// When the last key came into use.
    #[must_use]
    pub fn last_handshake(&self) -> Option<Now> {
        self.last_handshake
    }

    /// How many keys have come into use.
    #[must_use]
    pub fn handshakes(&self) -> u64 {
        self.handshakes
    }

    /// Packets sealed.
    #[must_use]
    pub fn sent(&self) -> Traffic {
        self.sent
    }

    /// Packets opened.
    #[must_use]
    pub fn received(&self) -> Traffic {
        self.received
    }

    fn encrypt(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        self.machine_mut(self.newest?)?.encrypt(packet, out)
    }

    fn encrypt_padded<const ROOM: usize>(
        &mut self,
        packet: &[u8],
        padded: usize,
        out: &mut [u8],
    ) -> Option<usize> {
        let mut zeros = [0u8; ROOM];
        zeros.get_mut(..packet.len())?.copy_from_slice(packet);
        self.encrypt(zeros.get(..padded)?, out)
    }

    fn write_keepalive(&mut self, out: &mut [u8], now: Mono) -> Option<usize> {
        let len = self.encrypt(&[], out)?;
        self.timers.sent(now);
        self.keep_fresh(now);
        Some(len)
    }

    /// Late tries are from home whatever it holds: a spare that was made after the wall clock had
    /// been set back has timestamps that the peer calls old.
    fn write_initiation(&mut self, out: &mut [u8], now: Mono) -> Option<usize> {
        let home = self.home.as_deref();
        let from_spare = self.timers.tries() <= SPARE_TRIES
            && self.newest.is_some_and(|index| !wire::is_spare(index))
            && home.is_some_and(|home| home.current(now).is_some());
        let number = if from_spare {
            wire::spare(self.id)
        } else {
            self.id.get()
        };
        if self.machine(number << 8).is_none() {
            let made = Some(Box::new(self.new_machine(number)));
            if from_spare {
                self.spare = made;
            } else {
                self.home = made;
            }
        }
        let len = self.machine_mut(number << 8)?.ask(out, now)?;
        self.timers.sent(now);
        Some(len)
    }

    /// The initiator replaces its key in time, by age or by use.
    fn keep_fresh(&mut self, now: Mono) {
        let worn = self
            .sender()
            .and_then(|machine| machine.current(now))
            .is_some_and(|session| session.messages >= REKEY_AFTER_MESSAGES);
        if worn
            || self
                .newest_age(now)
                .is_some_and(|age| age >= REKEY_AFTER_TIME)
        {
            self.timers.want_handshake_soon(now);
        }
    }

    /// Age of the newest key, if it is ours to replace.
    fn newest_age(&self, now: Mono) -> Option<Duration> {
        let session = self.session(self.newest?)?;
        session.we_asked.then(|| now - session.born)
    }

    /// `number` is that of home or of spare.
    fn new_machine(&self, number: u32) -> Machine {
        let psk = self.psk.as_ref();
        Machine::new(&self.ours, &self.peer, psk, number, &self.limiter)
    }

    fn forget(&mut self) {
        if let Some(home) = &mut self.home {
            home.forget(&self.ours, &self.limiter);
        }
        self.spare = None;
        self.newest = None;
    }

    fn padded(&self, len: usize) -> usize {
        len.next_multiple_of(mtu::PADDING).min(self.mtu)
    }

    fn machines(&self) -> impl Iterator<Item = &Machine> + '_ {
        self.home.iter().chain(&self.spare).map(Box::as_ref)
    }

    /// The machine of the newest key.
    fn sender(&self) -> Option<&Machine> {
        self.machine(self.newest?)
    }

    fn session(&self, index: u32) -> Option<&Session> {
        self.machine(index)?.session(index)
    }

    fn machine(&self, index: u32) -> Option<&Machine> {
        if wire::is_spare(index) {
            self.spare.as_deref()
        } else {
            self.home.as_deref()
        }
    }

    fn machine_mut(&mut self, index: u32) -> Option<&mut Machine> {
        if wire::is_spare(index) {
            self.spare.as_deref_mut()
        } else {
            self.home.as_deref_mut()
        }
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sessions = self.machines().flat_map(Machine::sessions);
        f.debug_struct("Tunnel")
            .field("id", &self.id)
            .field("sessions", &sessions.collect::<Vec<_>>())
            .field("newest", &self.newest)
            .field("timers", &self.timers)
            .finish_non_exhaustive()
    }
}
