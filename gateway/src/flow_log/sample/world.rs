//! Two laptops and the engine that the samples come from.

use super::*;

/// What went through is in its records.
pub(super) struct World {
    pub(super) gateway: Gateway,
    pub(super) now: Now,
    laptops: Vec<(Peers, PeerId, SocketAddr)>,
}

impl World {
    pub(super) fn new() -> World {
        let key = PrivateKey::from_random([1; 32]);
        let now = Now {
            mono: Mono(1_000_000_000_000),
            wall: START,
        };
        let settings = Settings {
            name: "gw".into(),
            boot: "4".into(),
            shard: Shard::default(),
            addresses: vec![ip("100.96.0.1")],
            pools: vec!["100.96.0.0/16".parse().expect("literal")],
            mtu: 1420,
            limits: Limits::default(),
            on_log_failure: OnLogFailure::DenyNew,
            seed: 7,
            stopwatch: || 0,
        };
        let mut world = World {
            gateway: Gateway::new(settings, &key, policy(POLICY), now),
            now,
            laptops: Vec::new(),
        };
        let devices = [
            ("ana-laptop", Some("ana@example.com"), "platform"),
            ("ci-runner", None, "robots"),
        ];
        for (n, (name, user, group)) in (0_u8..).zip(devices) {
            let own = PrivateKey::from_random([10 + n; 32]);
            let device = Device {
                name: name.to_owned(),
                user: user.map(str::to_owned),
                groups: vec![group.to_owned()],
                key: own.public(),
                addresses: vec![ip(&format!("100.96.0.{}", n + 2))],
                standing: Standing {
                    session: user.map(|_| login()),
                    reported: user.map(|_| report()),
                    facts: Some(
                        if n == 0 {
                            "5d0fc91a3b7e2248"
                        } else {
                            "a81e6c05f3924b7d"
                        }
                        .into(),
                    ),
                    ..Standing::default()
                },
            };
            let added = world
                .gateway
                .add_device(device, None, None, &mut Outs::default(), now);
            added.expect("new");
            let mut peers = Peers::new(own, 0, 0, u64::from(n));
            let there: SocketAddr = GATEWAY.parse().expect("literal");
            let tunnel = postern_proto::tunnel::Settings::default();
            let id = peers.add(key.public(), &tunnel, Some(there.into()));
            let here = format!("198.51.100.{}:51820", n + 7);
            let laptop = (peers, id.expect("one peer"), here.parse().expect("literal"));
            world.laptops.push(laptop);
            world.handshake(usize::from(n));
        }
        world
    }

    pub(super) fn handshake(&mut self, laptop: usize) {
        let mut out = Outs::default();
        let (peers, gateway, _) = &mut self.laptops[laptop];
        peers.initiate(*gateway, &mut out, self.now);
        while !out.datagrams.is_empty() {
            let back = self.deliver(laptop, out);
            out = Outs::default();
            let from: SocketAddr = GATEWAY.parse().expect("literal");
            let (peers, ..) = &mut self.laptops[laptop];
            for datagram in back.datagrams {
                peers.receive(from.into(), Ecn::NotEct, &datagram, &mut out, self.now);
            }
        }
    }

    fn deliver(&mut self, laptop: usize, sent: Outs) -> Outs {
        let mut out = Outs::default();
        let from = self.laptops[laptop].2;
        for datagram in sent.datagrams {
            let gateway = &mut self.gateway;
            gateway.from_network(from.into(), Ecn::NotEct, &datagram, &mut out, self.now);
        }
        out
    }

    pub(super) fn send(
        &mut self,
        laptop: usize,
        from: (&str, u16),
        to: (&str, u16),
        flags: u8,
        seq: u32,
        ack: u32,
    ) {
        let mut out = Outs::default();
        let (peers, gateway, _) = &mut self.laptops[laptop];
        let sent = peers.send(
            *gateway,
            &tcp(from, to, flags, seq, ack),
            &mut out,
            self.now,
        );
        sent.expect("has a session");
        self.deliver(laptop, out);
    }

    pub(super) fn reply(
        &mut self,
        from: (&str, u16),
        to: (&str, u16),
        flags: u8,
        seq: u32,
        ack: u32,
    ) {
        let packet = tcp(from, to, flags, seq, ack);
        let mut out = Outs::default();
        let gateway = &mut self.gateway;
        gateway.from_target(&packet, 1, packet.len(), &mut out, self.now);
    }

    pub(super) fn wait(&mut self, step: Duration) {
        self.now = self.now.after(step);
        self.gateway.timeout(&mut Outs::default(), self.now);
    }
}

#[derive(Default)]
pub(super) struct Outs {
    datagrams: Vec<Vec<u8>>,
    datagram: Vec<u8>,
    packet: Vec<u8>,
}

impl Outbox for Outs {
    fn datagram(&mut self, _: Endpoint, room: usize) -> &mut [u8] {
        self.datagram.resize(room, 0);
        &mut self.datagram
    }
    fn commit_datagram(&mut self, len: usize, _: Ecn) {
        self.datagrams.push(self.datagram[..len].to_vec());
    }
    fn packet(&mut self) -> &mut [u8] {
        self.packet.resize(mtu::PACKET_ROOM, 0);
        &mut self.packet
    }
    fn commit_packet(&mut self, _: usize) {}
}
