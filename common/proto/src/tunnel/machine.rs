//! boringtun's `Tunn` and a mirror of what it holds, so that nothing reaches a key that our clock
//! calls too old. The only file that names `Tunn`.
//!
//! Its `update_timers` is never called, because its clock cannot be given. Read in boringtun
//! 0.7.1, what follows: its own clock stays at zero; its sessions never expire; a session lives
//! in slot local index modulo 8 until another takes the slot; it sends with `sessions[current %
//! 8]`, whatever that is; and `current` moves to the session of every data packet that decrypts,
//! older ones too, and to a session that we asked for when its answer comes.

use super::timers::{REJECT_AFTER_TIME, REKEY_TIMEOUT};
use super::{REJECT_AFTER_MESSAGES, Unlimited, wire};
use crate::fate::DropReason;
use crate::keys::{PresharedKey, PrivateKey, PublicKey};
use crate::mtu;
use crate::now::Mono;
use boringtun::noise::errors::WireGuardError;
use boringtun::noise::{Tunn, TunnResult};
use boringtun::x25519;
use std::sync::Arc;
use std::time::Duration;

/// Sessions that boringtun keeps.
const SLOTS: usize = 8;
/// A cookie is worth nothing after this (paper, section 5.4.7).
const COOKIE_TIME: Duration = Duration::from_secs(120);
/// An answer that comes later than this is to an initiation that we have repeated since, or
/// slept over; its key would be younger here than it is there.
const ANSWER_TIME: Duration = Duration::from_secs(3 * REKEY_TIMEOUT.as_secs());

/// What we know of a session in boringtun.
#[derive(Clone, Copy, Debug)]
pub(super) struct Session {
    pub(super) index: u32,
    pub(super) born: Mono,
    pub(super) we_asked: bool,
    /// The peer has shown that it has the key.
    pub(super) confirmed: bool,
    /// Sent.
    pub(super) messages: u64,
    /// Counter of the newest packet received.
    pub(super) highest: Option<u64>,
}

impl Session {
    pub(super) fn is_young(&self, now: Mono) -> bool {
        now - self.born < REJECT_AFTER_TIME
    }
}

/// What was inside a data message whose tag is right.
pub(super) enum Inner {
    Nothing,
    Packet(usize),
    NotIp(DropReason),
}

pub(super) struct Machine {
    tunn: Tunn,
    sessions: [Option<Session>; SLOTS],
    /// Local index of the session that boringtun sends with.
    current: Option<u32>,
    /// Our last two initiations: boringtun takes an answer to either.
    asked: [Option<(u32, Mono)>; 2],
    cookie_at: Option<Mono>,
}

impl Machine {
    /// `index` has 24 bits.
    pub(super) fn new(
        ours: &PrivateKey,
        peer: &PublicKey,
        psk: Option<&PresharedKey>,
        index: u32,
        limiter: &Unlimited,
    ) -> Self {
        let tunn = Tunn::new(
            x25519::StaticSecret::from(*ours.expose()),
            x25519::PublicKey::from(peer.0),
            psk.map(|psk| psk.0),
            None,
            index,
            Some(Arc::clone(&limiter.0)),
        );
        Machine {
            tunn,
            sessions: [None; SLOTS],
            current: None,
            asked: [None; 2],
            cookie_at: None,
        }
    }

    pub(super) fn session(&self, index: u32) -> Option<&Session> {
        self.sessions[slot(index)]
            .as_ref()
            .filter(|session| session.index == index)
    }

    pub(super) fn session_mut(&mut self, index: u32) -> Option<&mut Session> {
        self.sessions[slot(index)]
            .as_mut()
            .filter(|session| session.index == index)
    }

    pub(super) fn sessions(&self) -> impl Iterator<Item = &Session> + '_ {
        self.sessions.iter().flatten()
    }

    /// The session that [`Machine::encrypt`] will use, if it may.
    pub(super) fn current(&self, now: Mono) -> Option<&Session> {
        self.session(self.current?)
            .filter(|session| session.is_young(now) && session.messages < REJECT_AFTER_MESSAGES)
    }

    /// Takes no more packets of proven sessions older than one born at `born` and those that
    /// crossed with it.
    pub(super) fn drop_older(&mut self, born: Mono) {
        for slot in &mut self.sessions {
            *slot =
                slot.filter(|session| !session.confirmed || session.born + REKEY_TIMEOUT >= born);
        }
    }

    /// Drops every session key, and keeps the peer's last timestamp, so that no old initiation is
    /// taken. Setting the same private key again is boringtun's only way to empty its slots; it
    /// costs two curve operations. boringtun neither overwrites the memory that held the keys
    /// nor drops the ephemeral key of an initiation that nobody answered.
    pub(super) fn forget(&mut self, ours: &PrivateKey, limiter: &Unlimited) {
        let secret = x25519::StaticSecret::from(*ours.expose());
        let public = x25519::PublicKey::from(&secret);
        self.tunn
            .set_static_private(secret, public, Some(Arc::clone(&limiter.0)));
        self.sessions = [None; SLOTS];
        self.current = None;
    }

    /// Writes an initiation.
    pub(super) fn ask(&mut self, out: &mut [u8], now: Mono) -> Option<usize> {
        let len = written(self.tunn.format_handshake_initiation(out, true)).ok()?;
        self.blank_stale_mac2(&mut out[..len], now);
        let index = wire::sender(&out[..len])?;
        self.asked = [Some((index, now)), self.asked[0]];
        Some(len)
    }

    /// Takes an initiation and writes the answer.
    pub(super) fn answer(
        &mut self,
        initiation: &[u8],
        out: &mut [u8],
        now: Mono,
    ) -> Result<usize, DropReason> {
        let len = written(self.tunn.decapsulate(None, initiation, out))?;
        self.blank_stale_mac2(&mut out[..len], now);
        let index = wire::sender(&out[..len]).ok_or(DropReason::BadHandshake)?;
        self.remember(index, false, now);
        Ok(len)
    }

    /// Takes the answer to our initiation `index` and writes the packet that confirms it.
    pub(super) fn finish(
        &mut self,
        index: u32,
        response: &[u8],
        out: &mut [u8],
        now: Mono,
    ) -> Result<usize, DropReason> {
        let asked = self
            .asked
            .iter()
            .flatten()
            .find(|(asked, _)| *asked == index);
        let &(_, asked_at) = asked.ok_or(DropReason::UnknownIndex)?;
        if now - asked_at >= ANSWER_TIME {
            return Err(DropReason::BadHandshake);
        }
        let len = written(self.tunn.decapsulate(None, response, out))?;
        self.asked = self
            .asked
            .map(|asked| asked.filter(|(asked, _)| *asked != index));
        self.remember(index, true, now);
        self.current = Some(index);
        Ok(len)
    }

    /// Keeps a cookie for what is sent in the next two minutes.
    pub(super) fn take_cookie(
        &mut self,
        reply: &[u8],
        out: &mut [u8],
        now: Mono,
    ) -> Result<(), DropReason> {
        match self.tunn.decapsulate(None, reply, out) {
            TunnResult::Done => {
                self.cookie_at = Some(now);
                Ok(())
            }
            TunnResult::Err(error) => Err(handshake_fate(&error)),
            TunnResult::WriteToNetwork(_)
            | TunnResult::WriteToTunnelV4(..)
            | TunnResult::WriteToTunnelV6(..) => Err(DropReason::BadHandshake),
        }
    }

    /// Decrypts a data message for session `index` into `out`, which is as long as the datagram.
    pub(super) fn decrypt(
        &mut self,
        index: u32,
        datagram: &[u8],
        out: &mut [u8],
    ) -> Result<Inner, DropReason> {
        let inner = match self.tunn.decapsulate(None, datagram, out) {
            TunnResult::Done => Inner::Nothing,
            TunnResult::WriteToTunnelV4(packet, _) | TunnResult::WriteToTunnelV6(packet, _) => {
                if packet.len() < wire::MIN_IP_LEN {
                    Inner::NotIp(DropReason::BadLength)
                } else {
                    Inner::Packet(packet.len())
                }
            }
            // It was decrypted, and is then not an IP packet of the length that it claims.
            TunnResult::Err(WireGuardError::InvalidPacket) => {
                let len = datagram.len().saturating_sub(mtu::WIREGUARD_OVERHEAD);
                Inner::NotIp(wire::why_not_ip(&out[..len]))
            }
            TunnResult::Err(error) => return Err(data_fate(&error)),
            TunnResult::WriteToNetwork(_) => return Err(DropReason::BadTag),
        };
        self.current = Some(index);
        Ok(inner)
    }

    /// Encrypts as it is, with the current session. `None` without one: boringtun must never be
    /// asked then, for it would keep the packet.
    pub(super) fn encrypt(&mut self, packet: &[u8], out: &mut [u8]) -> Option<usize> {
        self.session_mut(self.current?)?.messages += 1;
        written(self.tunn.encapsulate(packet, out)).ok()
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

    /// boringtun forgets a cookie only in `update_timers`. The second MAC is the last thing in a
    /// message and nothing covers it, so an old one is simply taken off.
    fn blank_stale_mac2(&mut self, message: &mut [u8], now: Mono) {
        if self.cookie_at.is_some_and(|at| now - at >= COOKIE_TIME)
            && let Some(mac2) = message.last_chunk_mut::<16>()
        {
            mac2.fill(0);
        }
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
