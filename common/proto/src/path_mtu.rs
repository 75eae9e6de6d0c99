//! What fits through the path to the gateway: packetization layer path MTU discovery (RFC 8899),
//! as the client does it. Pure; docs/adr/010 has the reasons.
//!
//! Sizes are those of inner packets; the outer datagram is larger by what WireGuard, UDP and IP
//! add. An answer proves a size. Silence proves that a size is too large only beside an answer to
//! a smaller one: neither loss nor an outage nor a gateway that knows no probes lowers anything.

use crate::mtu::MIN_MTU;
use crate::now::Mono;
use std::time::Duration;

/// Sizes worth asking about besides the configured one: multiples of what WireGuard pads to, so
/// that a datagram is never larger than what was asked. The upper ones are common jumbo links.
const RUNGS: [u16; 14] = [
    8912, 4432, 2960, 1984, 1440, 1408, 1392, 1376, 1360, 1344, 1328, 1312, 1296, LEAST,
];
const LEAST: u16 = MIN_MTU as u16;

/// How long the answers to each round of probes are waited for.
const ROUND_WAIT: [Duration; 4] = [
    Duration::from_millis(500),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(1),
];
/// Rounds while it is not known whether the gateway answers probes at all.
const FIRST_ROUNDS: usize = 3;

/// A tunnel in use has its MTU confirmed so often.
pub const CONFIRM_EVERY: Duration = Duration::from_secs(5);
/// And at once when nothing came back for so long after a packet that asks for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Larger ones do; bare acknowledgements and their like do not.
const ASKS: usize = 128;
/// But not sooner after the last time.
const PAUSE: Duration = Duration::from_secs(2);
/// And a larger one is tried so often (RFC 8899, section 5.1.1: PMTU_RAISE_TIMER).
pub const RAISE_EVERY: Duration = Duration::from_secs(600);
/// The next try after nothing was answered: whether the path is down, handshakes find out.
const SILENCE: Duration = Duration::from_secs(60);

/// A probe that is to be sent now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Comes back in the answer.
    pub id: u32,
    /// Length of the inner packet, bytes; zero for as short as it gets.
    pub size: u16,
    /// The MTU in use at present, bytes, which the gateway is to know.
    pub mtu: u16,
}

/// What stands behind the MTU in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Nothing: no probe was answered.
    Nothing,
    /// It passes.
    Passes,
    /// Probes pass, but none of [`MIN_MTU`].
    TooSmall,
}

/// The path to one gateway.
#[derive(Clone, Debug)]
pub struct PathMtu {
    configured: u16,
    mtu: u16,
    known: Known,
    /// The gateway has answered a probe before.
    answers: bool,
    state: State,
    next_id: u32,
    /// The first probe of this probing; answers to earlier ones may be about another path.
    first_id: u32,
    /// The first probe that carried the MTU in use.
    mtu_id: u32,
    /// Such a probe was answered: the gateway knows it.
    told: bool,
    used: bool,
    /// An answer to something that was sent is overdue then.
    overdue: Mono,
    /// No probing before that but for a new key or path, or the time.
    rested: Mono,
    raised: Mono,
    refused: Mono,
}

#[derive(Clone, Copy, Debug)]
enum State {
    /// No key, no questions.
    Idle,
    Probing {
        /// Rounds sent.
        rounds: usize,
        /// The largest size that is asked about.
        goal: u16,
        /// The largest that was answered; zero for the smallest probe.
        best: Option<u16>,
        /// The last round asked about all that is larger than what was answered before.
        thorough: bool,
        /// The next round is due.
        until: Mono,
    },
    /// Nothing to do before `next`, and then only if the tunnel is used.
    Done { next: Mono },
}

impl PathMtu {
    /// A path of which nothing is known; `configured` bytes are used and never exceeded.
    #[must_use]
    pub fn new(configured: u16) -> PathMtu {
        PathMtu {
            configured,
            mtu: configured,
            known: Known::Nothing,
            answers: false,
            state: State::Idle,
            next_id: 0,
            first_id: 0,
            mtu_id: 0,
            told: false,
            used: false,
            overdue: Mono::NEVER,
            rested: Mono(0),
            raised: Mono(0),
            refused: Mono(0),
        }
    }

    /// The MTU to use, bytes.
    #[must_use]
    pub fn mtu(&self) -> u16 {
        self.mtu
    }

    /// What stands behind it.
    #[must_use]
    pub fn known(&self) -> Known {
        self.known
    }

    /// Probes made so far.
    #[must_use]
    pub fn probes(&self) -> u32 {
        self.next_id
    }

    /// A new key, or another path: what is in use is confirmed, what is larger is tried.
    pub fn start(&mut self, now: Mono) {
        self.begin(self.configured, now);
    }

    /// A packet of `len` bytes was sent.
    pub fn sent(&mut self, len: usize, now: Mono) {
        self.used = true;
        if len > ASKS && self.overdue == Mono::NEVER {
            self.overdue = now + PATIENCE;
        }
    }

    /// A packet came.
    pub fn heard(&mut self) {
        self.overdue = Mono::NEVER;
    }

    /// Our own kernel refused a datagram as too long.
    pub fn refused(&mut self, now: Mono) {
        match &mut self.state {
            // What was asked first did not leave: ask about all the others.
            State::Probing {
                rounds: 1, until, ..
            } => *until = now,
            State::Done { .. } if self.refused + PAUSE <= now => {
                self.refused = now;
                self.begin(self.mtu, now);
            }
            State::Idle | State::Probing { .. } | State::Done { .. } => {}
        }
    }

    /// The gateway answered probe `id` by a packet of `size` bytes.
    pub fn answered(&mut self, id: u32, size: u16, now: Mono) {
        // Numbers wrap.
        let place = |id: u32| id.wrapping_sub(self.first_id);
        if place(id) >= place(self.next_id) || size > self.configured {
            return;
        }
        self.answers = true;
        self.told |= place(id) >= place(self.mtu_id);
        let size = if size < LEAST { 0 } else { size };
        if size > 0 {
            self.known = Known::Passes;
            self.use_mtu(self.mtu.max(size));
        }
        if let State::Probing { goal, best, .. } = &mut self.state {
            *best = (*best).max(Some(size));
            if size >= *goal {
                self.finish(Some(size), now);
            }
        }
    }

    /// When [`PathMtu::due`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Mono {
        match self.state {
            State::Probing { until, .. } => until,
            State::Done { next } => {
                let regular = if self.used { next } else { Mono::NEVER };
                regular.min(self.alarm())
            }
            State::Idle => Mono::NEVER,
        }
    }

    /// Silence is suspicious only where probes are answered.
    fn alarm(&self) -> Mono {
        match self.known {
            Known::Nothing => Mono::NEVER,
            Known::Passes | Known::TooSmall => self.overdue.max(self.rested),
        }
    }

    /// Does what is due: hands the probes that are to be sent now to `send`. Without a key
    /// nothing can be asked, and the next one starts anew.
    pub fn due(&mut self, connected: bool, now: Mono, send: impl FnMut(Probe)) {
        if !connected {
            self.state = State::Idle;
        }
        if self.next_deadline() > now {
            return;
        }
        if let State::Done { .. } = self.state {
            let raise = self.raised + RAISE_EVERY <= now;
            self.begin(if raise { self.configured } else { self.mtu }, now);
        }
        self.next_round(now, send);
    }

    fn begin(&mut self, goal: u16, now: Mono) {
        if goal == self.configured {
            self.raised = now;
        }
        self.first_id = self.next_id;
        self.mtu_id = self.next_id;
        self.told = false;
        self.used = false;
        self.overdue = Mono::NEVER;
        self.rested = now + PAUSE;
        self.state = State::Probing {
            rounds: 0,
            goal,
            best: None,
            thorough: false,
            until: now,
        };
    }

    /// Draws the conclusion of the last round and asks about what is still open.
    fn next_round(&mut self, now: Mono, mut send: impl FnMut(Probe)) {
        let State::Probing {
            rounds,
            goal,
            best,
            thorough,
            ..
        } = self.state
        else {
            return;
        };
        if let Some(best) = best.filter(|best| thorough && *best < self.mtu) {
            self.use_mtu(best.max(LEAST));
            self.known = if best < LEAST {
                Known::TooSmall
            } else {
                Known::Passes
            };
        }
        let last = if self.answers {
            ROUND_WAIT.len()
        } else {
            FIRST_ROUNDS
        };
        let Some(wait) = ROUND_WAIT.get(rounds).filter(|_| rounds < last) else {
            self.finish(best, now);
            return;
        };

        let (mtu, told) = (self.mtu, self.told);
        let mut ask = |size| {
            send(Probe {
                id: self.next_id,
                size,
                mtu,
            });
            self.next_id = self.next_id.wrapping_add(1);
        };
        let above = |floor: u16| {
            RUNGS
                .into_iter()
                .filter(move |rung| *rung >= floor && *rung < goal)
        };
        let thorough = match (rounds, best) {
            (0, _) => {
                ask(goal);
                if self.answers {
                    above(mtu).for_each(ask);
                } else {
                    ask(0);
                }
                false
            }
            // Something is there: which sizes pass?
            (_, Some(best)) => {
                ask(goal);
                above(best + 1).for_each(&mut ask);
                if !told {
                    ask(0);
                }
                true
            }
            (1, None) if self.answers => {
                ask(goal);
                above(0).for_each(&mut ask);
                ask(0);
                true
            }
            // Perhaps nothing is.
            (_, None) => {
                ask(0);
                false
            }
        };
        self.state = State::Probing {
            rounds: rounds + 1,
            goal,
            best,
            thorough,
            until: now + *wait,
        };
    }

    fn finish(&mut self, best: Option<u16>, now: Mono) {
        let next = match best {
            Some(_) if !self.told => {
                self.begin(self.mtu, now);
                return;
            }
            Some(_) => now + CONFIRM_EVERY,
            None => {
                self.known = Known::Nothing;
                now + if self.answers { SILENCE } else { RAISE_EVERY }
            }
        };
        self.state = State::Done { next };
    }

    fn use_mtu(&mut self, mtu: u16) {
        if mtu != self.mtu {
            self.mtu = mtu;
            self.mtu_id = self.next_id;
            self.told = false;
        }
    }
}

#[cfg(test)]
mod tests;
