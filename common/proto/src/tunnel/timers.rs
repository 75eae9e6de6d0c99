//! When a tunnel has something to do by itself: the timers of the WireGuard paper, section 6, as
//! plain deadlines. Nothing here knows keys or bytes.

use crate::now::Mono;
use std::time::Duration;

/// The initiator of a key replaces it at this age (paper, section 6.1).
pub const REKEY_AFTER_TIME: Duration = Duration::from_secs(120);
/// A key of this age neither sends nor receives (paper, section 6.1).
pub const REJECT_AFTER_TIME: Duration = Duration::from_secs(180);
/// For so long an unanswered handshake is repeated (paper, section 6.1).
pub const REKEY_ATTEMPT_TIME: Duration = Duration::from_secs(90);
/// No two initiations closer than this (paper, section 6.1).
pub const REKEY_TIMEOUT: Duration = Duration::from_secs(5);
/// Data received and nothing sent for so long: an empty packet (paper, section 6.1).
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Data sent and nothing heard for so long: a new handshake (paper, section 6.5).
pub const DEAD_PEER_TIME: Duration =
    Duration::from_secs(KEEPALIVE_TIMEOUT.as_secs() + REKEY_TIMEOUT.as_secs());
/// An initiator that receives under a key of this age replaces it, because it may have nothing
/// to send before the key dies (paper, section 6.2).
pub const REKEY_ON_RECEIVE: Duration =
    Duration::from_secs(REJECT_AFTER_TIME.as_secs() - DEAD_PEER_TIME.as_secs());
/// Without a new key for so long, all key material is forgotten (paper, section 6.3).
pub const FORGET_AFTER: Duration = Duration::from_secs(3 * REJECT_AFTER_TIME.as_secs());
/// Added at random to what both ends might do at the same moment (paper, section 6.4).
const JITTER_NANOS: u64 = 333_000_000;
/// Tries are counted, not seconds: a suspended laptop must not wake up to a handshake that has
/// already been given up.
const MAX_TRIES: u64 = REKEY_ATTEMPT_TIME.as_secs() / REKEY_TIMEOUT.as_secs();

/// What is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Initiate,
    GiveUp,
    Keepalive,
    Forget,
}

/// A handshake that we want, or have asked for and not been answered.
#[derive(Clone, Copy, Debug)]
struct Attempt {
    tries: u64,
    next: Mono,
    /// A cookie has already moved this try forward.
    hurried: bool,
}

/// All the deadlines of one tunnel.
#[derive(Debug)]
pub(super) struct Timers {
    keepalive: Option<Duration>,
    jitter: u64,
    attempt: Option<Attempt>,
    last_initiation: Option<Mono>,
    last_answer: Option<Mono>,
    /// Data came and we have sent nothing since.
    passive: Option<Mono>,
    /// We sent data and have heard nothing since.
    deaf: Option<Mono>,
    persistent: Option<Mono>,
    forget: Option<Mono>,
}

impl Timers {
    pub(super) fn new(keepalive: Option<Duration>, jitter_seed: u64) -> Self {
        Timers {
            keepalive: keepalive.filter(|interval| !interval.is_zero()),
            jitter: jitter_seed,
            attempt: None,
            last_initiation: None,
            last_answer: None,
            passive: None,
            deaf: None,
            persistent: None,
            forget: None,
        }
    }

    /// Another pause, from the next packet on.
    pub(super) fn set_keepalive(&mut self, keepalive: Option<Duration>, now: Mono) {
        self.keepalive = keepalive.filter(|interval| !interval.is_zero());
        self.traversed(now);
    }

    /// The next moment at which [`Timers::due`] has something to say.
    pub(super) fn next(&self) -> Mono {
        // Asked for each packet: no iterator that skips.
        let or_never = |timer: Option<Mono>| timer.unwrap_or(Mono::NEVER);
        self.attempt
            .map_or(Mono::NEVER, |attempt| attempt.next)
            .min(or_never(self.passive))
            .min(or_never(self.deaf))
            .min(or_never(self.persistent))
            .min(or_never(self.forget))
    }

    /// One thing that is due. To be asked until it says `None`. `usable`: a key can send.
    pub(super) fn due(&mut self, now: Mono, usable: bool) -> Option<Due> {
        if is_due(self.deaf, now) {
            self.deaf = None;
            self.want_handshake_soon(now);
        }
        if is_due(self.persistent, now) {
            self.persistent = self.keepalive.map(|interval| now + interval);
            if usable {
                return Some(Due::Keepalive);
            }
            self.want_handshake(now);
        }
        if let Some(attempt) = self.attempt
            && attempt.next <= now
        {
            if attempt.tries >= MAX_TRIES {
                self.attempt = None;
                self.passive = None;
                return Some(Due::GiveUp);
            }
            self.initiating(attempt.tries + 1, false, now);
            return Some(Due::Initiate);
        }
        if is_due(self.passive, now) {
            self.passive = None;
            if usable {
                return Some(Due::Keepalive);
            }
        }
        if is_due(self.forget, now) {
            self.forget = None;
            return Some(Due::Forget);
        }
        None
    }

    /// A handshake is needed before anything can be sent.
    pub(super) fn want_handshake(&mut self, now: Mono) {
        self.start(now);
    }

    /// A handshake is needed and the other end may be thinking the same: a random moment later,
    /// so that one asks and the other answers.
    pub(super) fn want_handshake_soon(&mut self, now: Mono) {
        if self.attempt.is_none() {
            let later = now + self.draw();
            self.start(later);
        }
    }

    /// Somebody asks for a handshake: forget how often we tried already.
    pub(super) fn restart_attempt(&mut self, at: Mono) {
        self.start(at);
        if let Some(attempt) = &mut self.attempt {
            attempt.tries = 0;
        }
    }

    /// A cookie came. True if the initiation is to be repeated at once: each try once, so that a
    /// peer that answers everything with cookies cannot make us spin.
    pub(super) fn cookie(&mut self, now: Mono) -> bool {
        let Some(attempt) = self
            .attempt
            .filter(|attempt| attempt.tries > 0 && !attempt.hurried)
        else {
            return false;
        };
        self.initiating(attempt.tries, true, now);
        true
    }

    /// We answered the peer's initiation. Ours waits: the peer's is as good.
    pub(super) fn answered(&mut self, now: Mono) {
        self.last_answer = Some(now);
        self.forget = Some(now + FORGET_AFTER);
        if let Some(attempt) = &mut self.attempt {
            attempt.next = attempt.next.max(now + REKEY_TIMEOUT);
        }
    }

    /// A new key is in use, whoever asked for it.
    pub(super) fn established(&mut self, now: Mono) {
        self.attempt = None;
        self.forget = Some(now + FORGET_AFTER);
    }

    /// Something that the peer can authenticate was sent.
    pub(super) fn sent(&mut self, now: Mono) {
        self.passive = None;
        self.traversed(now);
    }

    /// A packet that deserves an answer was sent.
    pub(super) fn sent_data(&mut self, now: Mono) {
        self.sent(now);
        self.deaf.get_or_insert(now + DEAD_PEER_TIME);
    }

    /// Something authenticated was received.
    pub(super) fn received(&mut self, now: Mono) {
        self.deaf = None;
        self.traversed(now);
    }

    /// A packet that deserves an answer was received.
    pub(super) fn received_data(&mut self, now: Mono) {
        self.received(now);
        self.passive.get_or_insert(now + KEEPALIVE_TIMEOUT);
    }

    /// True while a handshake is wanted or under way.
    pub(super) fn is_handshaking(&self) -> bool {
        self.attempt.is_some()
    }

    /// How many initiations of this attempt have been sent, with the one that is due now.
    pub(super) fn tries(&self) -> u64 {
        self.attempt.map_or(0, |attempt| attempt.tries)
    }

    fn start(&mut self, at: Mono) {
        if self.attempt.is_some() {
            return;
        }
        let free = |last: Option<Mono>| last.map_or(at, |last| last + REKEY_TIMEOUT);
        let next = at
            .max(free(self.last_initiation))
            .max(free(self.last_answer));
        self.attempt = Some(Attempt {
            tries: 0,
            next,
            hurried: false,
        });
    }

    fn initiating(&mut self, tries: u64, hurried: bool, now: Mono) {
        let next = now + REKEY_TIMEOUT + self.draw();
        self.attempt = Some(Attempt {
            tries,
            next,
            hurried,
        });
        self.last_initiation = Some(now);
    }

    fn traversed(&mut self, now: Mono) {
        self.persistent = self.keepalive.map(|interval| now + interval);
    }

    /// Splitmix64 (Steele, Lea, Flood 2014): spreads well, needs no secrecy.
    fn draw(&mut self) -> Duration {
        self.jitter = self.jitter.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.jitter;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Duration::from_nanos((z ^ (z >> 31)) % JITTER_NANOS)
    }
}

fn is_due(timer: Option<Mono>, now: Mono) -> bool {
    timer.is_some_and(|at| at <= now)
}
