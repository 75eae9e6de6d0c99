//! What each message of the peer does to a tunnel.

use super::machine::{Inner, Machine, Session};
use super::timers::{REKEY_ON_RECEIVE, REKEY_TIMEOUT};
use super::{Opened, REJECT_AFTER_MESSAGES, Tunnel};
use crate::fate::DropReason;
use crate::now::Now;

impl Tunnel {
    pub(super) fn open_initiation(
        &mut self,
        datagram: &[u8],
        out: &mut [u8],
        now: Now,
    ) -> Result<Opened, DropReason> {
        let len = match &mut self.home {
            Some(home) => home.answer(datagram, out, now.mono)?,
            None => {
                // Kept only for a peer that proved itself: others leave nothing behind.
                let mut home = self.new_machine(self.id.get());
                let len = home.answer(datagram, out, now.mono)?;
                self.home = Some(Box::new(home));
                len
            }
        };
        self.timers.received(now.mono);
        self.timers.sent(now.mono);
        self.timers.answered(now.mono);
        Ok(Opened::Answered { len })
    }

    pub(super) fn open_response(
        &mut self,
        index: u32,
        datagram: &[u8],
        out: &mut [u8],
        now: Now,
    ) -> Result<Opened, DropReason> {
        let machine = self.machine_mut(index).ok_or(DropReason::UnknownIndex)?;
        let len = machine.finish(index, datagram, out, now.mono)?;
        self.confirm(index, now);
        self.timers.received(now.mono);
        self.timers.sent(now.mono);
        Ok(Opened::Established { len })
    }

    pub(super) fn open_cookie(
        &mut self,
        index: u32,
        datagram: &[u8],
        out: &mut [u8],
        now: Now,
    ) -> Result<Opened, DropReason> {
        let machine = self.machine_mut(index).ok_or(DropReason::UnknownIndex)?;
        machine.take_cookie(datagram, out, now.mono)?;
        let mut len = 0;
        if self.timers.cookie(now.mono)
            && let Some(machine) = self.machine_mut(index)
            && let Some(initiation) = machine.ask(out, now.mono)
        {
            self.timers.sent(now.mono);
            len = initiation;
        }
        Ok(Opened::Cookie { len })
    }

    pub(super) fn open_data(
        &mut self,
        index: u32,
        counter: u64,
        datagram: &[u8],
        out: &mut [u8],
        now: Now,
    ) -> Result<Opened, DropReason> {
        let machine = self.machine_mut(index).ok_or(DropReason::UnknownIndex)?;
        let session = *machine.session(index).ok_or(DropReason::UnknownIndex)?;
        if !session.is_young(now.mono) || counter >= REJECT_AFTER_MESSAGES {
            return Err(DropReason::KeyExpired);
        }
        let inner = machine.decrypt(index, datagram, out)?;
        if let Some(session) = machine.session_mut(index) {
            session.highest = session.highest.max(Some(counter));
        }
        if !session.confirmed {
            self.confirm(index, now);
        }
        match inner {
            Inner::Nothing => self.timers.received(now.mono),
            Inner::Packet(_) | Inner::NotIp(_) => self.timers.received_data(now.mono),
        }
        if self
            .newest_age(now.mono)
            .is_some_and(|age| age >= REKEY_ON_RECEIVE)
        {
            self.timers.want_handshake(now.mono);
        }
        let newest = self.is_newest(&session, counter);
        match inner {
            Inner::Nothing => Ok(Opened::Keepalive { newest }),
            Inner::Packet(len) => {
                self.received.packets += 1;
                self.received.bytes += len as u64;
                Ok(Opened::Packet { len, newest })
            }
            Inner::NotIp(reason) => Err(reason),
        }
    }

    /// Whether the peer has sent nothing later, as far as we have heard: a key that it has not
    /// used yet says nothing about where it is. Crossed handshakes make two keys of the same age;
    /// both count as the newest.
    fn is_newest(&self, session: &Session, counter: u64) -> bool {
        session.highest.is_none_or(|highest| counter > highest)
            && (self.newest == Some(session.index)
                || self
                    .machines()
                    .flat_map(Machine::sessions)
                    .filter(|other| other.highest.is_some())
                    .all(|other| session.born + REKEY_TIMEOUT >= other.born))
    }

    /// Both ends have this key. Besides it, the one before goes on receiving.
    fn confirm(&mut self, index: u32, now: Now) {
        let newest = self.newest.and_then(|index| self.session(index)).copied();
        let Some(session) = self
            .machine_mut(index)
            .and_then(|machine| machine.session_mut(index))
        else {
            return;
        };
        session.confirmed = true;
        let born = session.born;
        if newest.is_none_or(|newest| newest.born <= born) {
            self.newest = Some(index);
        }
        // Of two crossed keys, neither makes the one before them superfluous.
        if let Some(before) = newest
            && born - before.born >= REKEY_TIMEOUT
        {
            for machine in self.home.iter_mut().chain(&mut self.spare) {
                machine.drop_older(before.born);
            }
        }
        self.last_handshake = Some(now);
        self.handshakes += 1;
        self.timers.established(now.mono);
    }
}
