//! A tunnel for the control API alone: no TUN, no root, one thread. `join` uses it with a
//! throw-away key, and everything that a device says before (or without) `postern up` with its
//! own.

use crate::api::{Api, Call, CallError};
use crate::line::{self, Line};
use crate::random;
use crate::state::{Client, Config};
use postern_io::clock::Clock;
use postern_proto::ecn::Ecn;
use postern_proto::keys::PublicKey;
use postern_proto::mtu::{DATAGRAM_ROOM, PACKET_ROOM};
use postern_proto::now::Mono;
use postern_proto::outbox::{Endpoint, Outbox};
use postern_stack::driver::Net;
use postern_stack::{Limits, Stack};
use serde::de::DeserializeOwned;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::UdpSocket;
use tokio::sync::{mpsc, oneshot};

/// Packets of the stack that wait to be sealed; more are lost, and TCP sends them again.
const PACKETS: usize = 256;

/// An open tunnel. It ends with the value.
#[derive(Debug)]
pub struct Tunnel {
    line: Line,
    news: Arc<News>,
    _stop: oneshot::Sender<()>,
}

/// What the tunnel's thread tells the one that waits.
#[derive(Debug, Default)]
struct News {
    told: Mutex<Told>,
    bell: Condvar,
}

#[derive(Clone, Copy, Debug, Default)]
struct Told {
    connected: bool,
    changed: bool,
}

impl Tunnel {
    /// Opens one; it connects by itself, and again when it must. `quiet`: it says nothing that it
    /// is not asked to say.
    ///
    /// # Errors
    /// No socket, no thread, or the gateway's key is our own.
    pub fn open(config: Config, endpoints: Vec<SocketAddr>, quiet: bool) -> io::Result<Tunnel> {
        let gateway = config.gateway_key;
        let family = |v4| move |address: &&std::net::IpAddr| address.is_ipv4() == v4;
        let at = config
            .gateway_addresses
            .iter()
            .find(|at| {
                config
                    .addresses
                    .iter()
                    .any(|own| family(at.is_ipv4())(&own))
            })
            .copied()
            .ok_or_else(|| io::Error::other("no tunnel address of the gateway's family"))?;
        let stack = Stack::new(postern_stack::Config {
            addresses: config.addresses.clone(),
            mtu: usize::from(config.mtu),
            seed: random::seed()?,
            limits: Limits::CLIENT,
        });
        let mut client = Client::new(config, random::seed()?).map_err(io::Error::other)?;
        if quiet {
            client.keep_quiet();
        }
        let (sender, packets) = mpsc::channel(PACKETS);
        let net = Net::new(stack, move |_, packet| {
            let _ = sender.try_send(packet.to_vec());
        });
        let api = Api::new(net.connector(gateway), at);
        let (line, calls) = Line::new();
        let (stop, stopped) = oneshot::channel::<()>();
        let news = Arc::new(News::default());
        let road = Road {
            client,
            gateway,
            sockets: [
                socket(Ipv4Addr::UNSPECIFIED.into())?,
                socket(Ipv6Addr::UNSPECIFIED.into())?,
            ],
            packets,
            net: net.clone(),
            news: Arc::clone(&news),
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new()
            .name("tunnel".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = net.run() => {}
                        () = line::answer(api, calls) => {}
                        _ = road.carry(endpoints) => {}
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Tunnel {
            line,
            news,
            _stop: stop,
        })
    }

    /// Waits until the gateway has answered; false when it has not in time.
    #[must_use]
    pub fn wait_connected(&self, patience: Duration) -> bool {
        self.wait(patience, |told| told.connected).connected
    }

    /// Waits until the gateway says that something has changed, or for so long.
    pub fn wait_changed(&self, patience: Duration) {
        self.wait(patience, |told| std::mem::take(&mut told.changed));
    }

    /// Makes a call.
    ///
    /// # Errors
    /// [`CallError`].
    pub fn ask<T: DeserializeOwned>(&self, call: Call) -> Result<T, CallError> {
        self.line.ask(call)
    }

    fn wait(&self, patience: Duration, mut until: impl FnMut(&mut Told) -> bool) -> Told {
        let end = Instant::now() + patience;
        let mut told = self
            .news
            .told
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        while !until(&mut told) {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            told = self
                .news
                .bell
                .wait_timeout(told, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        *told
    }
}

/// A host without one family does with the other.
fn socket(address: std::net::IpAddr) -> io::Result<Option<std::net::UdpSocket>> {
    match std::net::UdpSocket::bind(SocketAddr::new(address, 0)) {
        Ok(socket) => {
            socket.set_nonblocking(true)?;
            Ok(Some(socket))
        }
        Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => Ok(None),
        Err(error) if address.is_ipv6() && error.raw_os_error().is_some() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The loop between the sockets, the client's logic and the stack.
struct Road {
    client: Client,
    gateway: PublicKey,
    sockets: [Option<std::net::UdpSocket>; 2],
    packets: mpsc::Receiver<Vec<u8>>,
    net: Net,
    news: Arc<News>,
}

impl Road {
    async fn carry(self, endpoints: Vec<SocketAddr>) -> io::Result<()> {
        let Road {
            mut client,
            gateway,
            sockets: [v4, v6],
            mut packets,
            net,
            news,
        } = self;
        let v4 = v4.map(UdpSocket::from_std).transpose()?;
        let v6 = v6.map(UdpSocket::from_std).transpose()?;
        let mut out = Sending::default();
        let (mut room4, mut room6) = (vec![0; DATAGRAM_ROOM], vec![0; DATAGRAM_ROOM]);
        client.set_endpoints(endpoints, &mut out, Clock::now());
        loop {
            out.send(v4.as_ref(), v6.as_ref()).await;
            let wait = due(client.next_deadline());
            tokio::select! {
                (from, len) = receive(v4.as_ref(), &mut room4) => {
                    let datagram = room4.get(..len).unwrap_or_default();
                    client.from_network(from.into(), Ecn::NotEct, datagram, &mut out, Clock::now());
                }
                (from, len) = receive(v6.as_ref(), &mut room6) => {
                    let datagram = room6.get(..len).unwrap_or_default();
                    client.from_network(from.into(), Ecn::NotEct, datagram, &mut out, Clock::now());
                }
                Some(mut packet) = packets.recv() => {
                    client.send_control(&mut packet, &mut out, Clock::now());
                }
                () = tokio::time::sleep(wait) => client.timeout(&mut out, Clock::now()),
            }
            for packet in client.take_control() {
                net.receive(gateway, None, &packet);
            }
            let changed = client.take_changed();
            let connected = client.is_connected(Clock::now());
            let mut told = news.told.lock().unwrap_or_else(PoisonError::into_inner);
            if changed || connected != told.connected {
                told.changed |= changed;
                told.connected = connected;
                news.bell.notify_all();
            }
        }
    }
}

/// Until a deadline that is far away, long enough.
fn due(deadline: Mono) -> Duration {
    const LONG: Duration = Duration::from_secs(3600);
    deadline.since(Clock::now().mono).min(LONG)
}

/// An error of the socket is one datagram that did not come.
async fn receive(socket: Option<&UdpSocket>, room: &mut [u8]) -> (SocketAddr, usize) {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    loop {
        if let Ok((len, from)) = socket.recv_from(room).await {
            return (from, len);
        }
    }
}

/// Datagrams on their way out. There is no TUN: packets for it go nowhere.
struct Sending {
    datagrams: Vec<(SocketAddr, Vec<u8>)>,
    to: Option<SocketAddr>,
    slot: Vec<u8>,
    packet: Vec<u8>,
}

impl Default for Sending {
    fn default() -> Self {
        Sending {
            datagrams: Vec::new(),
            to: None,
            slot: Vec::new(),
            packet: vec![0; PACKET_ROOM],
        }
    }
}

impl Sending {
    /// What a socket refuses is lost, as on any network.
    async fn send(&mut self, v4: Option<&UdpSocket>, v6: Option<&UdpSocket>) {
        for (to, datagram) in self.datagrams.drain(..) {
            let socket = if to.is_ipv4() { v4 } else { v6 };
            if let Some(socket) = socket
                && let Err(error) = socket.send_to(&datagram, to).await
            {
                tracing::debug!(%to, %error, "a datagram was not sent");
            }
        }
    }
}

impl Outbox for Sending {
    fn datagram(&mut self, to: Endpoint, room: usize) -> &mut [u8] {
        self.to = Some(to.remote);
        self.slot.resize(room, 0);
        &mut self.slot
    }

    fn commit_datagram(&mut self, len: usize, _: Ecn) {
        if let (Some(to), Some(datagram)) = (self.to.take(), self.slot.get(..len)) {
            self.datagrams.push((to, datagram.to_vec()));
        }
    }

    fn packet(&mut self) -> &mut [u8] {
        &mut self.packet
    }

    fn commit_packet(&mut self, _: usize) {}
}
