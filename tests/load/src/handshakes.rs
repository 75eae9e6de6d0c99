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
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
struct Outcome {
    handshakes: u64,
    handshakes_per_s: f64,
    devices: u32,
    devices_done: u32,
    /// Cookies that were answered.
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
    /// When it asked, while it waits.
    asked: Option<Instant>,
    rounds: u32,
}

impl Handshakes {
    pub(crate) fn run(&self, output: Output) -> Result<(), Failure> {
        let mut players = self.players()?;
        let result = self.play(&mut players)?;
        report::print(&result, output)?;
        if result.handshakes == 0 {
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
                    asked: None,
                    rounds: 0,
                })
            })
            .collect()
    }

    fn play(&self, players: &mut [Player]) -> Result<Outcome, Failure> {
        let mut wire = Wire::open(self.to)?;
        let mut result = Outcome {
            devices: self.count,
            ..Outcome::default()
        };
        let mut times = Vec::new();
        let mut idle: VecDeque<usize> = (0..players.len()).collect();
        let mut waiting: VecDeque<(Instant, usize)> = VecDeque::new();
        let mut in_flight = 0;
        let mut replies: Vec<(usize, Vec<u8>)> = Vec::new();
        let begin = Instant::now();
        let end = begin + Duration::from_secs(self.seconds);
        let window = usize::try_from(self.window).unwrap_or(usize::MAX);
        while Instant::now() < end && (in_flight > 0 || !idle.is_empty()) {
            while in_flight < window
                && let Some(number) = idle.pop_front()
            {
                let Some(player) = players.get_mut(number) else {
                    continue;
                };
                let mut ask = [0; CONTROL_ROOM];
                let Some(len) = player.device.ask(&mut ask) else {
                    continue;
                };
                let now = Instant::now();
                player.asked = Some(now);
                waiting.push_back((now, number));
                in_flight += 1;
                wire.send(self.to, player.source, &ask[..len], len)?;
            }
            wire.receive(Duration::from_millis(10), |datagram| {
                let message = Message::parse(datagram);
                let number = message
                    .and_then(Message::peer)
                    .map(|peer| peer.get() as usize);
                let player = number.and_then(|number| Some((number, players.get_mut(number)?)));
                let (Some((number, player)), Some(message)) = (player, message) else {
                    result.bad += 1;
                    return;
                };
                let Some(asked) = player.asked else { return };
                let done = |player: &mut Player| {
                    player.asked = None;
                    player.rounds += 1;
                };
                let is_response = matches!(message, Message::Response { .. });
                let next = result.handshakes + 1;
                if is_response && !next.is_multiple_of(u64::from(self.verify_every)) {
                    done(player);
                } else {
                    let mut reply = vec![0; PACKET_ROOM];
                    match player.device.open(datagram, &mut reply) {
                        Opened::Established { len } => {
                            replies.push((number, reply[..len].to_vec()));
                            done(player);
                        }
                        Opened::Cookie { len } => {
                            result.cookies += 1;
                            replies.push((number, reply[..len].to_vec()));
                            return;
                        }
                        Opened::Answered { .. }
                        | Opened::Packet { .. }
                        | Opened::Keepalive { .. } => return,
                        Opened::Dropped(_) => {
                            result.bad += 1;
                            return;
                        }
                    }
                }
                times.push(asked.elapsed());
                result.handshakes += 1;
                in_flight -= 1;
                if self.rounds == 0 || player.rounds < self.rounds {
                    idle.push_back(number);
                }
            })?;
            for (number, reply) in replies.drain(..) {
                let source = players.get(number).and_then(|player| player.source);
                if !reply.is_empty() {
                    wire.send(self.to, source, &reply, reply.len())?;
                }
            }
            while let Some(&(asked, number)) = waiting.front()
                && asked.elapsed() >= PATIENCE
            {
                waiting.pop_front();
                if let Some(player) = players.get_mut(number)
                    && player.asked == Some(asked)
                {
                    player.asked = None;
                    result.lost += 1;
                    in_flight -= 1;
                    idle.push_back(number);
                }
            }
        }
        let time = begin.elapsed();
        result.devices_done =
            u32::try_from(players.iter().filter(|player| player.rounds > 0).count())
                .unwrap_or(u32::MAX);
        result.handshakes_per_s = per_second(result.handshakes, time);
        result.latency = Latency::of(times);
        result.seconds = time.as_secs_f64();
        Ok(result)
    }
}
