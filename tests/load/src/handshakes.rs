//! Devices of a seed shake hands in a closed loop: a window of them at a time, each as soon as
//! another is done. Every handshake is a whole one: initiation, response, the first packet under
//! the new key; and a cookie is answered as WireGuard demands.

use crate::device::{Device, MAX_DEVICES};
use crate::lab;
use crate::report::{self, Failure, Latency, Output, per_second};
use crate::wire::Wire;
use clap::Args;
use ipnet::IpNet;
use postern_proto::keys::PublicKey;
use postern_proto::mtu::PACKET_ROOM;
use postern_proto::tunnel::{CONTROL_ROOM, Message, Opened};
use serde::Serialize;
use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

/// An initiation without an answer for so long is lost; a laptop would wait 5 s.
const PATIENCE: Duration = Duration::from_secs(1);
/// In so long everybody who is asked for a cookie has one.
const WARM_UP: Duration = Duration::from_secs(3);

#[derive(Debug, Args)]
pub(crate) struct Handshakes {
    /// The gateway.
    #[arg(long, value_parser = lab::address)]
    to: SocketAddr,
    /// Its public key.
    #[arg(long, value_name = "KEY")]
    gateway_key: PublicKey,
    /// So many devices.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MAX_DEVICES as i64))]
    count: u32,
    /// Their keys come from this number.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// So many at a time.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    window: u32,
    /// At most so long.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// At most so many handshakes of each device; 0 for no end but the time's.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=100_000))]
    rounds: u32,
    /// Devices come from the hosts of this prefix in turn. The host must own them: `ip route add
    /// local PREFIX dev lo`.
    #[arg(long, value_name = "PREFIX", value_parser = lab::prefix)]
    from: Option<IpNet>,
    /// Prove every so many-th response with the ciphers and confirm it; of others look at the
    /// type and the index only, so that one core of load is a match for more of gateway.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    verify_every: u32,
    /// Make so many initiations of each device before the clock starts, cookies included, and play
    /// those: then load costs next to nothing, and no response is proved. A cookie lasts for 18.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=18))]
    prepare: u32,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    handshakes: u64,
    handshakes_per_s: f64,
    devices: u32,
    devices_done: u32,
    /// Cookies that came.
    cookies: u64,
    /// Initiations without an answer for a second.
    lost: u64,
    /// Answers that were none: a tag that is wrong, an index of nobody.
    bad: u64,
    latency: Latency,
    seconds: f64,
}

struct Player {
    device: Device,
    source: Option<IpAddr>,
    /// Made before.
    ready: VecDeque<[u8; CONTROL_ROOM]>,
    /// When it asked, while it waits.
    asked: Option<Instant>,
    rounds: u32,
    has_cookie: bool,
}

/// One run of the loop.
struct Play<'a> {
    to: SocketAddr,
    wire: Wire,
    players: &'a mut [Player],
    idle: VecDeque<usize>,
    /// Who waits since when, oldest first; done ones are still in it.
    waiting: VecDeque<(Instant, usize)>,
    in_flight: usize,
    times: Vec<Duration>,
    outcome: Outcome,
    /// Every so many-th response is opened; 0 for none.
    verify_every: u64,
    rounds: u32,
    /// Over as soon as everybody has a cookie.
    for_cookies: bool,
}

impl Handshakes {
    pub(crate) fn run(&self, output: Output) -> Result<(), Failure> {
        let mut players = self.players()?;
        let seconds = Duration::from_secs(self.seconds);
        let mut play = Play::new(self.to, &mut players)?;
        if self.prepare > 0 {
            play.for_cookies = true;
            play.run(self.window, WARM_UP)?;
            self.make_ready(&mut players);
            play = Play::new(self.to, &mut players)?;
        } else {
            play.verify_every = self.verify_every.into();
        }
        play.rounds = match (self.prepare, self.rounds) {
            (0, rounds) | (rounds, 0) => rounds,
            (ready, rounds) => ready.min(rounds),
        };
        play.run(self.window, seconds)?;
        report::print(&play.outcome, output)?;
        if play.outcome.handshakes == 0 {
            return Err(Failure::Other(format!(
                "{} answered nobody: are the devices enrolled, and the key the gateway's?",
                self.to
            )));
        }
        Ok(())
    }

    fn players(&self) -> Result<Vec<Player>, Failure> {
        let sources = lab::sources(self.from);
        (0..self.count)
            .zip(sources.iter().cycle())
            .map(|(number, source)| {
                Ok(Player {
                    device: Device::new(self.seed, number, &self.gateway_key)?,
                    source: *source,
                    ready: VecDeque::new(),
                    asked: None,
                    rounds: 0,
                    has_cookie: false,
                })
            })
            .collect()
    }

    fn make_ready(&self, players: &mut [Player]) {
        for player in players {
            player.asked = None;
            player.rounds = 0;
            for _ in 0..self.prepare {
                let mut message = [0; CONTROL_ROOM];
                if player.device.ask(&mut message).is_some() {
                    player.ready.push_back(message);
                }
            }
        }
    }
}

impl<'a> Play<'a> {
    fn new(to: SocketAddr, players: &'a mut [Player]) -> Result<Play<'a>, Failure> {
        Ok(Play {
            to,
            wire: Wire::open(to)?,
            idle: (0..players.len()).collect(),
            players,
            waiting: VecDeque::new(),
            in_flight: 0,
            times: Vec::new(),
            outcome: Outcome::default(),
            verify_every: 0,
            rounds: 0,
            for_cookies: false,
        })
    }

    fn run(&mut self, window: u32, time: Duration) -> Result<(), Failure> {
        let begin = Instant::now();
        let mut came: Vec<Vec<u8>> = Vec::new();
        while begin.elapsed() < time && !self.is_over() {
            while self.in_flight < window as usize
                && let Some(number) = self.idle.pop_front()
            {
                self.ask(number)?;
            }
            self.wire.receive(Duration::from_millis(10), |datagram| {
                came.push(datagram.to_vec());
            })?;
            for datagram in came.drain(..) {
                self.take(&datagram)?;
            }
            self.give_up();
        }
        let time = begin.elapsed();
        let outcome = &mut self.outcome;
        outcome.devices = u32::try_from(self.players.len()).unwrap_or(u32::MAX);
        let done = self.players.iter().filter(|player| player.rounds > 0);
        outcome.devices_done = u32::try_from(done.count()).unwrap_or(u32::MAX);
        outcome.handshakes_per_s = per_second(outcome.handshakes, time);
        outcome.latency = Latency::of(std::mem::take(&mut self.times));
        outcome.seconds = time.as_secs_f64();
        Ok(())
    }

    fn is_over(&self) -> bool {
        let nobody = self.in_flight == 0 && self.idle.is_empty();
        nobody || self.for_cookies && self.players.iter().all(|player| player.has_cookie)
    }

    fn ask(&mut self, number: usize) -> Result<(), Failure> {
        let Some(player) = self.players.get_mut(number) else {
            return Ok(());
        };
        let message = player.ready.pop_front().or_else(|| {
            let mut message = [0; CONTROL_ROOM];
            player.device.ask(&mut message).map(|_| message)
        });
        let Some(message) = message else {
            return Ok(());
        };
        let now = Instant::now();
        player.asked = Some(now);
        self.waiting.push_back((now, number));
        self.in_flight += 1;
        self.wire
            .send(self.to, player.source, &message, message.len())
    }

    fn take(&mut self, datagram: &[u8]) -> Result<(), Failure> {
        let message = Message::parse(datagram);
        let number = message
            .and_then(Message::peer)
            .map(|peer| peer.get() as usize);
        let player = number.and_then(|number| Some((number, self.players.get_mut(number)?)));
        let (Some((number, player)), Some(message)) = (player, message) else {
            self.outcome.bad += 1;
            return Ok(());
        };
        let Some(asked) = player.asked else {
            return Ok(());
        };
        let is_response = matches!(message, Message::Response { .. });
        let next = self.outcome.handshakes + 1;
        let verify = self.verify_every > 0 && next.is_multiple_of(self.verify_every);
        if !is_response || verify {
            let mut reply = [0; PACKET_ROOM];
            let (len, done) = match player.device.open(datagram, &mut reply) {
                Opened::Established { len } => (len, true),
                Opened::Cookie { len } => {
                    self.outcome.cookies += 1;
                    player.has_cookie = true;
                    (len, false)
                }
                Opened::Answered { .. } | Opened::Packet { .. } | Opened::Keepalive { .. } => {
                    (0, false)
                }
                Opened::Dropped(_) => {
                    self.outcome.bad += 1;
                    (0, false)
                }
            };
            if let Some(reply) = reply.get(..len).filter(|reply| !reply.is_empty()) {
                self.wire.send(self.to, player.source, reply, len)?;
            }
            if !done {
                return Ok(());
            }
        }
        player.asked = None;
        player.rounds += 1;
        self.times.push(asked.elapsed());
        self.outcome.handshakes += 1;
        self.in_flight -= 1;
        if self.rounds == 0 || player.rounds < self.rounds {
            self.idle.push_back(number);
        }
        Ok(())
    }

    /// Those who had no answer for too long try anew.
    fn give_up(&mut self) {
        while let Some(&(asked, number)) = self.waiting.front()
            && asked.elapsed() >= PATIENCE
        {
            self.waiting.pop_front();
            if let Some(player) = self.players.get_mut(number)
                && player.asked == Some(asked)
            {
                player.asked = None;
                self.outcome.lost += 1;
                self.in_flight -= 1;
                self.idle.push_back(number);
            }
        }
    }
}
