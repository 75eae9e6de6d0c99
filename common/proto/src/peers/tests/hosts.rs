//! Two processes that hand each other datagrams.

use super::*;

/// An outbox on vectors.
pub(super) struct Sink {
    pub(super) slot: Vec<u8>,
    pub(super) to: Endpoint,
    pub(super) packet: Vec<u8>,
    pub(super) sent: Vec<(Endpoint, Vec<u8>)>,
    /// The mark of each datagram ever sent.
    pub(super) marks: Vec<Ecn>,
}

impl Sink {
    pub(super) fn new() -> Sink {
        let to = at("0.0.0.0:0");
        Sink {
            slot: Vec::new(),
            to,
            packet: vec![0; mtu::PACKET_ROOM],
            sent: Vec::new(),
            marks: Vec::new(),
        }
    }

    pub(super) fn take(&mut self) -> Vec<(Endpoint, Vec<u8>)> {
        std::mem::take(&mut self.sent)
    }
}

impl Outbox for Sink {
    fn datagram(&mut self, to: Endpoint, room: usize) -> &mut [u8] {
        self.to = to;
        self.slot = vec![0; room];
        &mut self.slot
    }
    fn commit_datagram(&mut self, len: usize, ecn: Ecn) {
        self.marks.push(ecn);
        self.sent.push((self.to, self.slot[..len].to_vec()));
    }
    fn packet(&mut self) -> &mut [u8] {
        &mut self.packet
    }
    fn commit_packet(&mut self, _: usize) {
        panic!("only the caller commits packets");
    }
}

/// One process with its address.
pub(super) struct Host {
    pub(super) peers: Peers,
    pub(super) at: Endpoint,
    pub(super) out: Sink,
    pub(super) seen: Vec<Inbound>,
}

impl Host {
    pub(super) fn new(key: u8, address: &str) -> Host {
        let peers = Peers::new(private(key), 0, 0, 0xfeed + u64::from(key));
        Host {
            peers,
            at: at(address),
            out: Sink::new(),
            seen: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, key: u8, endpoint: Option<&str>) -> PeerId {
        let settings = Settings::default();
        self.peers
            .add(private(key).public(), &settings, endpoint.map(at))
            .unwrap()
    }

    pub(super) fn send(&mut self, to: PeerId, now: Now) -> Result<(), DropReason> {
        self.peers.send(to, &ip(60), &mut self.out, now)
    }

    pub(super) fn receive(&mut self, from: Endpoint, datagram: &[u8], now: Now) -> Inbound {
        self.receive_marked(from, Ecn::NotEct, datagram, now)
    }

    pub(super) fn receive_marked(
        &mut self,
        from: Endpoint,
        ecn: Ecn,
        datagram: &[u8],
        now: Now,
    ) -> Inbound {
        let inbound = self.peers.receive(from, ecn, datagram, &mut self.out, now);
        self.seen.push(inbound);
        inbound
    }
}

pub(super) fn at(address: &str) -> Endpoint {
    Endpoint::from(address.parse::<std::net::SocketAddr>().unwrap())
}

pub(super) const LAPTOP: &str = "192.0.2.7:40000";
pub(super) const GATEWAY: &str = "203.0.113.1:51820";

/// A laptop that knows where the gateway is, a gateway that knows its key.
pub(super) fn pair() -> (Host, PeerId, Host, PeerId) {
    let (mut laptop, mut gateway) = (Host::new(1, LAPTOP), Host::new(2, GATEWAY));
    let to_gateway = laptop.add(2, Some(GATEWAY));
    let to_laptop = gateway.add(1, None);
    (laptop, to_gateway, gateway, to_laptop)
}

/// Delivers until nothing is on the wire.
pub(super) fn settle(one: &mut Host, other: &mut Host, now: Now) {
    loop {
        let (there, back) = (one.out.take(), other.out.take());
        if there.is_empty() && back.is_empty() {
            return;
        }
        for (to, datagram) in there {
            assert_eq!(to.remote, other.at.remote);
            other.receive(one.at, &datagram, now);
        }
        for (to, datagram) in back {
            if to.remote == one.at.remote {
                one.receive(other.at, &datagram, now);
            }
        }
    }
}

pub(super) fn connected() -> (Host, PeerId, Host, PeerId) {
    let (mut laptop, to_gateway, mut gateway, to_laptop) = pair();
    laptop.peers.initiate(to_gateway, &mut laptop.out, START);
    settle(&mut laptop, &mut gateway, START);
    assert!(gateway.peers.peer(to_laptop).unwrap().is_established(START));
    laptop.seen.clear();
    gateway.seen.clear();
    (laptop, to_gateway, gateway, to_laptop)
}
