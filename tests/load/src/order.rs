//! Numbered datagrams to an echo and back. Each end numbers what it sends and says what it saw,
//! so that what came late (RFC 4737), twice or not at all is known for each direction.
//!
//! A flow is a source port of the sender. Up: `sequence`, then zeros. Down: the same bytes, with
//! what the echo knows of the flow after the sequence.

use crate::lab;
use crate::report::{self, Failure, Output};
use crate::wire::Pace;
use clap::{Args, Subcommand};
use serde::Serialize;
use socket2::SockRef;
use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// What the kernel is asked to queue: an end that is scheduled away loses nothing.
const SOCKET_BUFFER: usize = 4 * 1024 * 1024;
/// Flows that the echo remembers.
const MAX_FLOWS: usize = 1024;
/// Datagrams of one flow at most: two maps of a bit each.
const MAX_SEQUENCE: u64 = 1 << 26;
/// Silence after which nothing more is expected.
const DRAIN: Duration = Duration::from_millis(500);
/// Sequence up, sequence down, seen, late, twice.
const WORDS: usize = 5;

#[derive(Debug, Subcommand)]
pub(crate) enum Order {
    /// Send back what comes, with what was seen of its order.
    Echo(Echo),
    /// Send, receive, and say what came late, twice or not at all.
    Run(Run),
}

#[derive(Debug, Args)]
pub(crate) struct Echo {
    /// Where to listen.
    #[arg(long, value_parser = lab::address)]
    listen: SocketAddr,
    /// Ends after so long.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The echo.
    #[arg(long, value_parser = lab::address)]
    to: SocketAddr,
    /// Source ports.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=64))]
    flows: u32,
    /// Datagrams a second, all flows together.
    #[arg(long, default_value_t = 5000, value_parser = clap::value_parser!(u64).range(1..=200_000))]
    rate: u64,
    /// For so long.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Bytes of each datagram.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(WORDS as i64 * 8..=1372))]
    size: u16,
}

/// All flows together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
struct Seen {
    sent: u64,
    up_received: u64,
    up_late: u64,
    up_twice: u64,
    down_received: u64,
    down_late: u64,
    down_twice: u64,
}

/// The order of one direction of one flow.
#[derive(Default)]
struct Track {
    received: u64,
    late: u64,
    twice: u64,
    next: u64,
    seen: Vec<u64>,
}

impl Track {
    fn take(&mut self, sequence: u64) {
        if sequence >= MAX_SEQUENCE {
            return;
        }
        let (word, bit) = ((sequence / 64) as usize, 1 << (sequence % 64));
        if self.seen.len() <= word {
            self.seen.resize(word + 1, 0);
        }
        if self.seen[word] & bit != 0 {
            self.twice += 1;
            return;
        }
        self.seen[word] |= bit;
        self.received += 1;
        if sequence < self.next {
            self.late += 1;
        } else {
            self.next = sequence + 1;
        }
    }
}

impl Order {
    pub(crate) fn run(&self, output: Output) -> Result<(), Failure> {
        match self {
            Order::Echo(echo) => echo.run(),
            Order::Run(run) => report::print(&run.run()?, output),
        }
    }
}

impl Echo {
    fn run(&self) -> Result<(), Failure> {
        let socket = UdpSocket::bind(self.listen).map_err(Failure::io("listening"))?;
        report::print(
            &serde_json::json!({"listening": self.listen.to_string()}),
            Output::Text,
        )?;
        serve(&socket, Duration::from_secs(self.seconds))
    }
}

fn serve(socket: &UdpSocket, time: Duration) -> Result<(), Failure> {
    prepare(socket).map_err(Failure::io("listening"))?;
    let mut flows: HashMap<SocketAddr, (Track, u64)> = HashMap::new();
    let mut bytes = [0; 2048];
    let end = Instant::now() + time;
    while Instant::now() < end {
        let (len, from) = match socket.recv_from(&mut bytes) {
            Ok(received) => received,
            Err(error) if is_patience(&error) => continue,
            Err(error) => return Err(Failure::io("receiving")(error)),
        };
        if len < WORDS * 8 || (flows.len() >= MAX_FLOWS && !flows.contains_key(&from)) {
            continue;
        }
        let (track, sent) = flows.entry(from).or_default();
        track.take(word(&bytes, 0));
        let say = [*sent, track.received, track.late, track.twice];
        for (place, value) in (1..).zip(say) {
            set_word(&mut bytes, place, value);
        }
        *sent += 1;
        // A full queue loses it, as any network may.
        let _ = socket.send_to(&bytes[..len], from);
    }
    Ok(())
}

impl Run {
    fn run(&self) -> Result<Seen, Failure> {
        let any = match self.to {
            SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
            SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
        };
        let mut flows = Vec::new();
        for _ in 0..self.flows {
            let socket = UdpSocket::bind(any)
                .and_then(|socket| prepare(&socket).map(|()| socket))
                .and_then(|socket| socket.connect(self.to).map(|()| socket))
                .and_then(|socket| socket.set_nonblocking(true).map(|()| socket))
                .map_err(Failure::io("opening a UDP socket"))?;
            flows.push(Flow {
                socket,
                sent: 0,
                down: Track::default(),
                up: [0; 3],
            });
        }
        let mut pace = Pace::new(self.rate);
        let mut bytes = vec![0; usize::from(self.size)];
        let time = Duration::from_secs(self.seconds);
        while pace.elapsed() < time {
            let due = pace.due(self.flows.into());
            let count = usize::try_from(due).unwrap_or(0);
            for flow in flows.iter_mut().take(count) {
                set_word(&mut bytes, 0, flow.sent);
                match flow.socket.send(&bytes) {
                    Ok(_) => flow.sent += 1,
                    Err(error) if is_patience(&error) => {}
                    Err(error) => return Err(Failure::io("sending")(error)),
                }
            }
            // The next flow is first in turn.
            flows.rotate_left(count % (self.flows as usize));
            flows
                .iter_mut()
                .try_for_each(|flow| flow.receive().map(drop))?;
            if due == 0 {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        let mut quiet = Instant::now();
        while quiet.elapsed() < DRAIN {
            for flow in &mut flows {
                if flow.receive()? > 0 {
                    quiet = Instant::now();
                }
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(flows.iter().fold(Seen::default(), Flow::add))
    }
}

struct Flow {
    socket: UdpSocket,
    sent: u64,
    down: Track,
    /// What the echo said last: seen, late, twice.
    up: [u64; 3],
}

impl Flow {
    /// How many came.
    fn receive(&mut self) -> Result<u64, Failure> {
        let mut bytes = [0; 2048];
        let mut count = 0;
        loop {
            match self.socket.recv(&mut bytes) {
                Ok(len) if len >= WORDS * 8 => {
                    self.down.take(word(&bytes, 1));
                    for (place, value) in (2..).zip(&mut self.up) {
                        *value = (*value).max(word(&bytes, place));
                    }
                    count += 1;
                }
                Ok(_) => {}
                Err(error) if is_patience(&error) => return Ok(count),
                Err(error) => return Err(Failure::io("receiving")(error)),
            }
        }
    }

    fn add(sum: Seen, flow: &Flow) -> Seen {
        Seen {
            sent: sum.sent + flow.sent,
            up_received: sum.up_received + flow.up[0],
            up_late: sum.up_late + flow.up[1],
            up_twice: sum.up_twice + flow.up[2],
            down_received: sum.down_received + flow.down.received,
            down_late: sum.down_late + flow.down.late,
            down_twice: sum.down_twice + flow.down.twice,
        }
    }
}

fn prepare(socket: &UdpSocket) -> io::Result<()> {
    let options = SockRef::from(socket);
    options.set_recv_buffer_size(SOCKET_BUFFER)?;
    options.set_send_buffer_size(SOCKET_BUFFER)?;
    socket.set_read_timeout(Some(Duration::from_millis(100)))
}

/// Nothing there, no room, or a refusal of something earlier: none is the end.
fn is_patience(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, TimedOut, WouldBlock};
    [WouldBlock, TimedOut, ConnectionRefused].contains(&error.kind())
}

fn word(bytes: &[u8], place: usize) -> u64 {
    let bytes = bytes.get(place * 8..).and_then(<[u8]>::first_chunk);
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn set_word(bytes: &mut [u8], place: usize, value: u64) {
    if let Some(room) = bytes.get_mut(place * 8..place * 8 + 8) {
        room.copy_from_slice(&value.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_and_twice_are_told_apart() {
        let mut track = Track::default();
        for sequence in [0, 1, 3, 2, 3, 70, 69, 4] {
            track.take(sequence);
        }
        assert_eq!((track.received, track.late, track.twice), (7, 3, 1));
    }

    #[test]
    fn loopback_keeps_order() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let listen = socket.local_addr().expect("bound");
        let echo = std::thread::spawn(move || serve(&socket, Duration::from_secs(2)));
        let run = Run {
            to: listen,
            flows: 3,
            rate: 3000,
            seconds: 1,
            size: 100,
        };
        let seen = run.run().expect("a run");
        assert!(seen.sent > 1000 && seen.up_received > 0, "{seen:?}");
        assert!(seen.up_received >= seen.down_received, "{seen:?}");
        assert_eq!(
            [seen.up_late, seen.up_twice, seen.down_late, seen.down_twice],
            [0; 4]
        );
        echo.join().expect("no panic").expect("no error");
    }
}
