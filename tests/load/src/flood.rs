//! Somebody without a key who knows the gateway's public key asks for handshakes as fast as told.
//! The only answer that may come is a cookie.

use crate::device::{Device, splitmix};
use crate::lab;
use crate::report::{self, Failure, Output, per_second};
use crate::wire::{Pace, Wire};
use clap::{Args, ValueEnum};
use ipnet::IpNet;
use postern_proto::keys::PublicKey;
use postern_proto::tunnel::{CONTROL_ROOM, Message};
use serde::Serialize;
use std::net::SocketAddr;
use std::time::Duration;

/// Different initiations, sent over and over. They cost the gateway as much as new ones do: it
/// finds out who asks before it knows that it has seen the message.
const DIFFERENT: u32 = 256;
/// Sent between two looks at what came back.
const BURST: u64 = 64;
/// After the end, for what is still on its way.
const DRAIN: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(crate) struct Flood {
    /// The gateway.
    #[arg(long, value_parser = lab::address)]
    to: SocketAddr,
    /// Its public key: what makes the first MAC right.
    #[arg(long, value_name = "KEY")]
    gateway_key: PublicKey,
    /// What is sent.
    #[arg(long, value_enum, default_value_t)]
    kind: Kind,
    /// Datagrams a second.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// For so long.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// From so many ports.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    ports: u32,
    /// From the hosts of this prefix in turn. The host must own them: `ip route add local PREFIX
    /// dev lo`.
    #[arg(long, value_name = "PREFIX", value_parser = lab::prefix)]
    from: Option<IpNet>,
    /// Keys and garbage come from this number.
    #[arg(long, default_value_t = 666)]
    seed: u64,
}

/// What a stranger may send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Initiations with a right first MAC, of keys that nobody enrolled.
    #[default]
    Strangers,
    /// The same with one bit of the first MAC wrong.
    BadMac,
    /// Random bytes with the type and length of an initiation.
    Garbage,
}

/// What was sent and what came back.
#[derive(Debug, Default, Serialize)]
struct Answers {
    sent: u64,
    sent_per_s: f64,
    cookies: u64,
    responses: u64,
    other: u64,
    seconds: f64,
}

impl Flood {
    pub(crate) fn run(&self, output: Output) -> Result<(), Failure> {
        let messages = self.messages()?;
        let mut wires = (0..self.ports)
            .map(|_| Wire::open(self.to))
            .collect::<Result<Vec<_>, _>>()?;
        let sources = lab::sources(self.from);
        let mut next_message = messages.iter().cycle();
        let mut next_source = sources.iter().cycle();
        let mut answers = Answers::default();
        let mut pace = Pace::new(self.rate);
        let time = Duration::from_secs(self.seconds);
        while pace.elapsed() < time {
            let due = pace.due(BURST);
            let ports = wires.len();
            for (number, message) in (0..due).zip(&mut next_message) {
                let port = usize::try_from(answers.sent + number).unwrap_or(0) % ports;
                let source = next_source.next().copied().flatten();
                if let Some(wire) = wires.get(port) {
                    wire.send(self.to, source, message, message.len())?;
                }
            }
            answers.sent += due;
            // With nothing due, the first port waits for both.
            let mut patience = Duration::from_micros(if due == 0 { 500 } else { 0 });
            for wire in &mut wires {
                wire.receive(patience, |datagram| answers.count(datagram))?;
                patience = Duration::ZERO;
            }
        }
        let time = pace.elapsed();
        let end = time + DRAIN;
        while pace.elapsed() < end {
            for wire in &mut wires {
                wire.receive(Duration::from_millis(1), |datagram| answers.count(datagram))?;
            }
        }
        answers.sent_per_s = per_second(answers.sent, time);
        answers.seconds = time.as_secs_f64();
        report::print(&answers, output)
    }

    fn messages(&self) -> Result<Vec<[u8; CONTROL_ROOM]>, Failure> {
        (0..DIFFERENT)
            .map(|number| {
                let mut message = [0; CONTROL_ROOM];
                Device::new(self.seed, number, &self.gateway_key)?.ask(&mut message);
                match self.kind {
                    Kind::Strangers => {}
                    // The two MACs are the last 32 bytes (paper, section 5.4.4).
                    Kind::BadMac => message[CONTROL_ROOM - 32] ^= 1,
                    Kind::Garbage => {
                        let mut state = self.seed ^ u64::from(number) << 32;
                        message[4..]
                            .iter_mut()
                            .for_each(|byte| *byte = splitmix(&mut state).to_le_bytes()[0]);
                    }
                }
                Ok(message)
            })
            .collect()
    }
}

impl Answers {
    fn count(&mut self, datagram: &[u8]) {
        *match Message::parse(datagram) {
            Some(Message::Cookie { .. }) => &mut self.cookies,
            Some(Message::Response { .. }) => &mut self.responses,
            Some(Message::Initiation | Message::Data { .. }) | None => &mut self.other,
        } += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::key;
    use postern_proto::fate::DropReason;
    use postern_proto::gate::{Admission, Gate};
    use postern_proto::now::Mono;

    /// What the gateway's gate says to the first message of a kind.
    fn fate(kind: Kind) -> Admission {
        let ours = key(5, 0);
        let flood = Flood {
            to: ([127, 0, 0, 1], 1).into(),
            gateway_key: ours.public(),
            kind,
            rate: 1,
            seconds: 1,
            ports: 1,
            from: None,
            seed: 1,
        };
        let messages = flood.messages().expect("messages");
        Gate::new(&ours, 0).admit(&messages[0], [10, 0, 0, 1].into(), Mono(1))
    }

    #[test]
    fn each_kind_is_what_it_is_called() {
        assert_eq!(
            fate(Kind::Strangers),
            Admission::Claimed(key(1, 0).public())
        );
        assert_eq!(fate(Kind::BadMac), Admission::Refused(DropReason::BadMac));
        assert_eq!(fate(Kind::Garbage), Admission::Refused(DropReason::BadMac));
    }

    #[test]
    fn only_cookies_count_as_cookies() {
        let mut answers = Answers::default();
        let mut cookie = [0; 64];
        cookie[0] = 3;
        answers.count(&cookie);
        let mut response = [0; 92];
        response[0] = 2;
        answers.count(&response);
        answers.count(b"hello");
        assert_eq!(
            (answers.cookies, answers.responses, answers.other),
            (1, 1, 1)
        );
    }
}
