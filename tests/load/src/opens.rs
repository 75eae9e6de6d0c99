//! New flows at a rate: datagrams, each to a destination port that this source port has not asked
//! for before, so that each is a flow of its own.

use crate::lab;
use crate::report::{self, Failure, Output};
use crate::wire::Pace;
use clap::Args;
use serde::Serialize;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

/// One source port asks for so many destination ports.
const PORTS_EACH: u64 = 20_000;

#[derive(Debug, Args)]
pub(crate) struct Opens {
    /// The target and the first of 20 000 ports.
    #[arg(long, value_parser = lab::address)]
    to: SocketAddr,
    /// Flows a second.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// For so long.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
}

#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Opened {
    /// Datagrams that the kernel took.
    sent: u64,
    /// Datagrams that it refused, as it does when a route is gone.
    refused: u64,
}

impl Opens {
    pub(crate) fn run(&self, output: Output) -> Result<(), Failure> {
        let mut opened = Opened::default();
        let mut socket = self.socket()?;
        let mut pace = Pace::new(self.rate);
        let (mut asked, time) = (0, Duration::from_secs(self.seconds));
        while pace.elapsed() < time {
            let due = pace.due(self.rate / 100);
            for _ in 0..due {
                if asked == PORTS_EACH {
                    (socket, asked) = (self.socket()?, 0);
                }
                let port = self
                    .to
                    .port()
                    .saturating_add(u16::try_from(asked).unwrap_or(0));
                match socket.send_to(b"open", SocketAddr::new(self.to.ip(), port)) {
                    Ok(_) => opened.sent += 1,
                    Err(error) if is_passing(&error) => opened.refused += 1,
                    Err(error) => return Err(Failure::io("sending")(error)),
                }
                asked += 1;
            }
            if due == 0 {
                std::thread::sleep(Duration::from_micros(200));
            }
        }
        report::print(&opened, output)
    }

    fn socket(&self) -> Result<UdpSocket, Failure> {
        let any: IpAddr = match self.to {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        UdpSocket::bind((any, 0)).map_err(Failure::io("opening a UDP socket"))
    }
}

/// What a tunnel that comes and goes, or a target that says no, does to a sender.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::PermissionDenied
            | io::ErrorKind::WouldBlock
    )
}
