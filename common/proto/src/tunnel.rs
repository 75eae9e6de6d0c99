//! One WireGuard peer: boringtun as the Noise machine, every timer and every key age ours.
//!
//! `Tunn::update_timers` is never called, because its clock cannot be given. What follows from
//! that, read in boringtun 0.7.1: its own clock stays at zero; its sessions never expire; sending
//! uses `sessions[current % 8]`; `current` moves to the session of every data packet that
//! decrypts, and to a session that we asked for when its answer comes. [`Tunnel`] mirrors those
//! eight slots with the age of each and lets nothing reach a key that is too old.
//!
//! Left as it is: a late packet of an older session moves `current` back until the next packet
//! of the newer one. Both keys are good then, and the peer's next packet (at the latest its
//! keepalive, 10 s) moves it forward again.

use crate::fate::DropReason;
use crate::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::mtu;
use crate::now::{Mono, Now};
use boringtun::noise::errors::WireGuardError;
use boringtun::noise::rate_limiter::RateLimiter;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use timers::{Due, Timers};

#[cfg(test)]
pub(crate) mod tests;
mod timers;
mod wire;

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
/// A cookie is worth nothing after this (paper, section 5.4.7).
const COOKIE_TIME: Duration = Duration::from_secs(120);
/// An answer that comes later than this is to an initiation that we have repeated since, or
/// slept over; its key would be younger here than it is there.
const ANSWER_TIME: Duration = Duration::from_secs(3 * REKEY_TIMEOUT.as_secs());
/// Sessions that boringtun keeps, at local index modulo 8.
const SLOTS: usize = 8;

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

/// One peer's keys, handshakes and timers: about 11.5 KiB.
pub struct Tunnel {
    tunn: Tunn,
    ours: PrivateKey,
    limiter: Unlimited,
    mtu: usize,
    timers: Timers,
    sessions: [Option<Session>; SLOTS],
    /// Local index of the session that boringtun would send with.
    current: Option<u32>,
    /// Local index of the youngest session that both ends are known to have.
    newest: Option<u32>,
    /// Our last two initiations: boringtun takes an answer to either.
    asked: [Option<(u32, Mono)>; 2],
    cookie_at: Option<Mono>,
    last_handshake: Option<Now>,
    handshakes: u64,
    sent: Traffic,
    received: Traffic,
}

#[derive(Clone, Copy, Debug)]
struct Session {
    index: u32,
    born: Mono,
    we_asked: bool,
    /// The peer has shown that it has the key.
    confirmed: bool,
    messages: u64,
    highest: Option<u64>,
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
        let tunn = Tunn::new(
            x25519::StaticSecret::from(*ours.expose()),
            x25519::PublicKey::from(peer.0),
            settings.psk.as_ref().map(|psk| psk.0),
            None,
            id.get(),
            Some(Arc::clone(&limiter.0)),
        );
        Tunnel {
            tunn,
            ours: ours.clone(),
            limiter: limiter.clone(),
            mtu: settings.mtu,
            timers: Timers::new(settings.keepalive, jitter_seed),
            sessions: [None; SLOTS],
            current: None,
            newest: None,
            asked: [None; 2],
            cookie_at: None,
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
            Message::Cookie { .. } => self.open_cookie(datagram, out, now),
            Message::Data { receiver, counter } => {
                self.open_data(receiver, counter, datagram, out, now)
            }
        }
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
            ..=1504 => self.encrypt_padded::<1504>(packet, padded, out),
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
        self.timers.restart_attempt(now.mono);
        match self.tick(out, now) {
            Tick::Send(len) => Some(len),
            Tick::Nothing | Tick::GaveUp => None,
        }
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
        self.current
            .and_then(|index| self.session(index))
            .is_some_and(|session| {
                session.is_young(now.mono) && session.messages < REJECT_AFTER_MESSAGES
            })
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

    fn open_initiation(&mut self, datagram: &[u8], out: &mut [u8], now: Now) -> Opened {
        let len = match written(self.tunn.decapsulate(None, datagram, out)) {
            Ok(len) => len,
            Err(reason) => return Opened::Dropped(reason),
        };
        self.blank_stale_mac2(&mut out[..len], now.mono);
        if let Some(index) = wire::sender(&out[..len]) {
            self.remember(index, false, now.mono);
        }
        self.timers.received(now.mono);
        self.timers.sent(now.mono);
        self.timers.answered(now.mono);
        Opened::Answered { len }
    }

    fn open_response(&mut self, index: u32, datagram: &[u8], out: &mut [u8], now: Now) -> Opened {
        let asked = self
            .asked
            .iter()
            .flatten()
            .find(|(asked, _)| *asked == index);
        let Some(&(_, asked_at)) = asked else {
            return Opened::Dropped(DropReason::UnknownIndex);
        };
        if now.mono - asked_at >= ANSWER_TIME {
            return Opened::Dropped(DropReason::BadHandshake);
        }
        let len = match written(self.tunn.decapsulate(None, datagram, out)) {
            Ok(len) => len,
            Err(reason) => return Opened::Dropped(reason),
        };
        self.asked = self
            .asked
            .map(|asked| asked.filter(|(asked, _)| *asked != index));
        self.remember(index, true, now.mono);
        self.current = Some(index);
        self.confirm(index, now);
        self.timers.received(now.mono);
        self.timers.sent(now.mono);
        Opened::Established { len }
    }

    fn open_cookie(&mut self, datagram: &[u8], out: &mut [u8], now: Now) -> Opened {
        match self.tunn.decapsulate(None, datagram, out) {
            TunnResult::Done => {}
            TunnResult::Err(error) => return Opened::Dropped(handshake_fate(&error)),
            TunnResult::WriteToNetwork(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => {
                return Opened::Dropped(DropReason::BadHandshake);
            }
        }
        self.cookie_at = Some(now.mono);
        let len = if self.timers.cookie(now.mono) {
            self.write_initiation(out, now.mono).unwrap_or(0)
        } else {
            0
        };
        Opened::Cookie { len }
    }

    fn open_data(
        &mut self,
        index: u32,
        counter: u64,
        datagram: &[u8],
        out: &mut [u8],
        now: Now,
    ) -> Opened {
        let Some(session) = self.session(index).copied() else {
            return Opened::Dropped(DropReason::UnknownIndex);
        };
        if !session.is_young(now.mono) || counter >= REJECT_AFTER_MESSAGES {
            return Opened::Dropped(DropReason::KeyExpired);
        }
        let packet = match self.tunn.decapsulate(None, datagram, out) {
            TunnResult::Done => None,
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                Some(Ok(packet.len()))
            }
            // It was decrypted, and is then not an IP packet of the length that it claims.
            TunnResult::Err(WireGuardError::InvalidPacket) => {
                let inner = &out[..datagram.len() - mtu::WIREGUARD_OVERHEAD];
                Some(Err(wire::why_not_ip(inner)))
            }
            TunnResult::Err(error) => return Opened::Dropped(data_fate(&error)),
            TunnResult::WriteToNetwork(_) => return Opened::Dropped(DropReason::BadTag),
        };
        self.current = Some(index);
        if !session.confirmed {
            self.confirm(index, now);
        }
        let newest = self.is_newest(&session, counter);
        if let Some(session) = self.session_mut(index) {
            session.highest = session.highest.max(Some(counter));
        }
        let fate = match packet {
            None => {
                self.timers.received(now.mono);
                Opened::Keepalive { newest }
            }
            Some(packet) => {
                self.timers.received_data(now.mono);
                match packet {
                    Ok(len) if len >= wire::MIN_IP_LEN => {
                        self.received.packets += 1;
                        self.received.bytes += len as u64;
                        Opened::Packet { len, newest }
                    }
                    Ok(_) => Opened::Dropped(DropReason::BadLength),
                    Err(reason) => Opened::Dropped(reason),
                }
            }
        };
        if self
            .newest_age(now.mono)
            .is_some_and(|age| age >= REKEY_ON_RECEIVE)
        {
            self.timers.want_handshake(now.mono);
        }
        fate
    }

    /// Encrypts as it is. `None` if boringtun has no key after all.
    fn encrypt(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        let index = self.current?;
        self.session_mut(index)?.messages += 1;
        written(self.tunn.encapsulate(packet, out)).ok()
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

    fn write_initiation(&mut self, out: &mut [u8], now: Mono) -> Option<usize> {
        let len = written(self.tunn.format_handshake_initiation(out, true)).ok()?;
        self.blank_stale_mac2(&mut out[..len], now);
        let index = wire::sender(&out[..len])?;
        self.asked = [Some((index, now)), self.asked[0]];
        self.timers.sent(now);
        Some(len)
    }

    /// boringtun forgets a cookie only in `update_timers`. The second MAC is the last thing in a
    /// message and nothing covers it, so an old one is simply taken off.
    fn blank_stale_mac2(&mut self, message: &mut [u8], now: Mono) {
        if self.cookie_at.is_some_and(|at| now - at >= COOKIE_TIME)
            && let Some(mac2) = message.last_chunk_mut::<16>()
        {
            mac2.fill(0);
        }
    }

    /// The initiator replaces its key in time, by age or by use.
    fn keep_fresh(&mut self, now: Mono) {
        let worn = self
            .current
            .and_then(|index| self.session(index))
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

    /// Crossed handshakes make two keys of the same age; both count as the newest.
    fn is_newest(&self, session: &Session, counter: u64) -> bool {
        let youngest = self.newest.and_then(|index| self.session(index));
        session.highest.is_none_or(|highest| counter > highest)
            && youngest.is_none_or(|youngest| session.born + REKEY_TIMEOUT >= youngest.born)
    }

    fn remember(&mut self, index: u32, we_asked: bool, born: Mono) {
        self.sessions[slot(index)] = Some(Session {
            index,
            born,
            we_asked,
            confirmed: false,
            messages: 0,
            highest: None,
        });
    }

    /// Both ends have this key.
    fn confirm(&mut self, index: u32, now: Now) {
        let Some(session) = self.session_mut(index) else {
            return;
        };
        session.confirmed = true;
        let born = session.born;
        let newest = self.newest.and_then(|index| self.session(index));
        if newest.is_none_or(|newest| newest.born <= born) {
            self.newest = Some(index);
        }
        self.last_handshake = Some(now);
        self.handshakes += 1;
        self.timers.established(now.mono);
    }

    /// Drops every session key. The peer's last timestamp stays, so that no old initiation is
    /// taken. Setting the same private key again is boringtun's only way to empty its slots;
    /// it costs two curve operations, once after nine idle minutes. boringtun does not overwrite
    /// the memory that held the keys.
    fn forget(&mut self) {
        let secret = x25519::StaticSecret::from(*self.ours.expose());
        let public = x25519::PublicKey::from(&secret);
        self.tunn
            .set_static_private(secret, public, Some(Arc::clone(&self.limiter.0)));
        self.sessions = [None; SLOTS];
        self.current = None;
        self.newest = None;
    }

    fn padded(&self, len: usize) -> usize {
        len.next_multiple_of(mtu::PADDING).min(self.mtu)
    }

    fn session(&self, index: u32) -> Option<&Session> {
        self.sessions[slot(index)]
            .as_ref()
            .filter(|session| session.index == index)
    }

    fn session_mut(&mut self, index: u32) -> Option<&mut Session> {
        self.sessions[slot(index)]
            .as_mut()
            .filter(|session| session.index == index)
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("sessions", &self.sessions)
            .field("current", &self.current)
            .field("timers", &self.timers)
            .finish_non_exhaustive()
    }
}

impl Session {
    fn is_young(&self, now: Mono) -> bool {
        now - self.born < REJECT_AFTER_TIME
    }
}

fn slot(index: u32) -> usize {
    index as usize % SLOTS
}

/// The length of a message that boringtun wrote for the network.
fn written(result: TunnResult<'_>) -> Result<usize, DropReason> {
    match result {
        TunnResult::WriteToNetwork(message) => Ok(message.len()),
        TunnResult::Err(error) => Err(handshake_fate(&error)),
        TunnResult::Done | TunnResult::WriteToTunnelV4(..) | TunnResult::WriteToTunnelV6(..) => {
            Err(DropReason::BadHandshake)
        }
    }
}

/// Why a handshake message or cookie came to nothing.
pub(crate) fn handshake_fate(error: &WireGuardError) -> DropReason {
    use WireGuardError::*;
    match error {
        InvalidMac => DropReason::BadMac,
        InvalidPacket | IncorrectPacketLength | WrongPacketType => DropReason::NotWireguard,
        WrongIndex | NoCurrentSession => DropReason::UnknownIndex,
        UnderLoad => DropReason::RateLimited,
        DestinationBufferTooSmall => DropReason::TooLong,
        UnexpectedPacket
        | WrongKey
        | InvalidTai64nTimestamp
        | WrongTai64nTimestamp
        | InvalidAeadTag
        | InvalidCounter
        | DuplicateCounter
        | LockFailed
        | ConnectionExpired => DropReason::BadHandshake,
    }
}

/// Why a data message came to nothing.
fn data_fate(error: &WireGuardError) -> DropReason {
    use WireGuardError::*;
    match error {
        InvalidCounter | DuplicateCounter => DropReason::Replayed,
        WrongIndex | NoCurrentSession => DropReason::UnknownIndex,
        InvalidPacket | IncorrectPacketLength | WrongPacketType => DropReason::NotWireguard,
        DestinationBufferTooSmall => DropReason::TooLong,
        ConnectionExpired => DropReason::KeyExpired,
        InvalidAeadTag
        | UnexpectedPacket
        | WrongKey
        | InvalidTai64nTimestamp
        | WrongTai64nTimestamp
        | InvalidMac
        | LockFailed
        | UnderLoad => DropReason::BadTag,
    }
}
