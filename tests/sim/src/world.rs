//! The world: laptops, one gateway, targets, one clock. Whatever goes into the gateway goes in
//! here, and is compared with the oracle at once.

use crate::check::Watch;
use crate::dice::{Dice, Seeded};
use crate::laptop::{ConnState, Laptop, Sealed};
use crate::model::{Device, Model};
use crate::net::{Datagram, Net, Outs, receiver};
use crate::packet::{self, Key, Packet};
use crate::policy::{Rules, subject};
use crate::replay::Kept;
use crate::steps::Step;
use crate::target::Targets;
use postern_engine::gateway::Gateway;
use postern_engine::settings::Limits;
use postern_proto::ecn::Ecn;
use postern_proto::fate::DropReason;
use postern_proto::keys::{PrivateKey, PublicKey};
use postern_proto::now::{Mono, Now, Wall};
use postern_proto::outbox::Endpoint;
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

mod gateway;
mod rotation;

/// What can go wrong, in words.
pub type Check<T = ()> = Result<T, String>;

/// Laptops in a world; some are not enrolled at first.
pub const LAPTOPS: usize = 4;
/// Small, so that they are reached.
const LIMITS: Limits = Limits {
    flows: 9,
    flows_per_device: 5,
    half_open_per_device: 3,
};
/// Turns at one moment after which the gateway is taken to spin.
const SPIN: u32 = 5000;

/// The whole world.
pub struct World {
    /// Its clock.
    pub now: Now,
    /// Where its chance comes from.
    pub dice: Seeded,
    pub(crate) seed: u64,
    pub(crate) gateway: Gateway,
    pub(crate) laptops: Vec<Laptop>,
    pub(crate) targets: Targets,
    pub(crate) net: Net,
    pub(crate) model: Model,
    pub(crate) watch: Watch,
    pub(crate) kept: Kept,
    /// Counts the gateway's runs.
    pub(crate) boot: u64,
    pub(crate) booted: Now,
    pub(crate) policy: Arc<postern_engine::policy::Policy>,
    pub(crate) busy_until: Mono,
    pub(crate) captured: Vec<Datagram>,
    pub(crate) stamp: u64,
    /// Stamps up to this may be out of order: the network did not keep it.
    pub(crate) ordered_from: u64,
    pub(crate) last_udp: BTreeMap<(usize, usize), u16>,
    key: PrivateKey,
    queue: BTreeMap<(Mono, u64), Event>,
    next_event: u64,
    next_id: u64,
}

/// What is under way.
enum Event {
    ToGateway(Datagram),
    ToLaptop(Datagram),
    /// From a target, one packet or several that arrive as one.
    FromTarget(Vec<Packet>),
}

/// What a world did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Packets that reached a target or a laptop's program.
    pub packets: u64,
    /// Flows opened.
    pub flows: u64,
    /// Records made.
    pub records: u64,
}

impl World {
    /// The world that `seed` describes, with its tunnels up.
    pub fn new(seed: u64, keep_records: bool) -> Check<World> {
        let mut dice = Seeded::new(seed);
        let now = Now {
            mono: Mono(1_000_000_000_000),
            wall: Wall(1_800_000_000_000_000_000),
        };
        let key = PrivateKey::from_random(dice.key());
        let (rules, policy) = Rules::draw(dice.roll(256))?;
        let policy = Arc::new(policy);
        let mut kept = Kept::default();
        kept.keep(&policy);
        let model = Model::new(Arc::new(rules), own(), LIMITS, now);
        let settings = gateway::settings(1, dice.bits());
        let worker = settings.shard;
        let gateway = Gateway::new(settings, &key, Arc::clone(&policy), now);
        let mut laptops = Vec::new();
        for n in 0..LAPTOPS {
            laptops.push(laptop(
                n,
                PrivateKey::from_random(dice.key()),
                &key.public(),
                &mut dice,
            )?);
        }
        let mut world = World {
            now,
            seed,
            gateway,
            laptops,
            targets: Targets::default(),
            net: Net::new(dice.bits()),
            model,
            watch: Watch::new(keep_records, worker),
            kept,
            boot: 1,
            booted: now,
            policy,
            busy_until: Mono(0),
            captured: Vec::new(),
            stamp: 0,
            ordered_from: 0,
            last_udp: BTreeMap::new(),
            key,
            queue: BTreeMap::new(),
            next_event: 0,
            next_id: 0,
            dice,
        };
        for n in 0..LAPTOPS - 1 {
            world.enrol(n)?;
        }
        world.run_for(Duration::from_millis(500))?;
        Ok(world)
    }

    /// Plays `steps`, and stops the gateway at the end.
    pub fn play(&mut self, steps: &[Step]) -> Check<Tally> {
        for (n, step) in steps.iter().enumerate() {
            self.apply(*step)
                .and_then(|()| self.check())
                .map_err(|what| format!("step {n}, {step:?}: {what}"))?;
        }
        self.end().map_err(|what| format!("at the end: {what}"))
    }

    /// The serialised records, if they were kept.
    #[must_use]
    pub fn records(&self) -> &[u8] {
        &self.watch.stream
    }

    fn end(&mut self) -> Check<Tally> {
        self.busy_until = Mono(0);
        self.run_for(Duration::from_secs(2))?;
        self.check()?;
        self.stop(crate::steps::Stop::ShutDown)?;
        self.kept.replay(&self.watch.stream)?;
        let laptops: u64 = self.laptops.iter().map(|laptop| laptop.received).sum();
        Ok(Tally {
            packets: self.targets.received + laptops,
            flows: self.watch.opened_ever,
            records: self.watch.records_ever,
        })
    }

    // --- time

    /// Lets time pass, and everything happen that is due.
    pub(crate) fn run_for(&mut self, time: Duration) -> Check {
        let end = self.now.mono + time;
        let mut spin = (self.now.mono, 0);
        loop {
            let event = self
                .queue
                .first_key_value()
                .map_or(Mono::NEVER, |((at, _), _)| *at);
            let gateway = self.gateway.next_deadline().max(self.busy_until);
            let laptop = self
                .laptops
                .iter()
                .map(Laptop::next_deadline)
                .min()
                .unwrap_or(Mono::NEVER);
            let next = event.min(gateway).min(laptop);
            if let Some(by) = self.watch.next_back().filter(|by| *by <= next.min(end)) {
                self.advance(by);
                self.check_back()?;
                continue;
            }
            if next > end {
                break;
            }
            self.advance(next);
            spin = if spin.0 == self.now.mono {
                (spin.0, spin.1 + 1)
            } else {
                (self.now.mono, 0)
            };
            if spin.1 > SPIN {
                return Err(format!(
                    "spin: deadlines do not move on at {:?} (gateway {gateway:?}, laptops {laptop:?})",
                    self.now.mono
                ));
            }
            if gateway <= self.now.mono {
                self.gateway_timeout()?;
            } else if laptop <= self.now.mono {
                self.laptop_timeouts()?;
            } else if let Some((_, event)) = self.queue.pop_first() {
                self.happen(event)?;
            }
            self.watch.overdue(self.now.mono)?;
        }
        self.advance(end);
        Ok(())
    }

    fn advance(&mut self, to: Mono) {
        self.now = self.now.after(to.since(self.now.mono));
    }

    fn gateway_timeout(&mut self) -> Check {
        let mut outs = Outs::default();
        // All that is due at this moment, in as many turns as it takes.
        for _ in 0..SPIN {
            self.gateway.timeout(&mut outs, self.now);
            if self.gateway.next_deadline() > self.now.mono {
                break;
            }
        }
        let expect = self.model.timeout(self.now);
        self.settle(outs, expect, None, "timeout")
    }

    fn laptop_timeouts(&mut self) -> Check {
        for n in 0..self.laptops.len() {
            if self.laptops[n].next_deadline() <= self.now.mono {
                let sent = self.laptops[n].timeout(self.now)?;
                self.ship(n, sent);
            }
        }
        Ok(())
    }

    fn happen(&mut self, event: Event) -> Check {
        match event {
            Event::ToGateway(datagram) => self.gateway_receives(datagram),
            Event::ToLaptop(datagram) => self.laptop_receives(datagram),
            Event::FromTarget(packets) => self.target_sends(&packets),
        }
    }

    // --- laptops

    /// A program on a laptop sends.
    pub(crate) fn send(&mut self, n: usize, packet: Packet) -> Check {
        if !self.laptops[n].on {
            return Ok(());
        }
        let sent = self.laptops[n].send(packet.with_some_ecn(), self.now)?;
        self.ship(n, sent);
        Ok(())
    }

    /// Puts what a laptop sent on its way.
    pub(crate) fn ship(&mut self, n: usize, sent: Vec<Sealed>) {
        for (to, ecn, bytes, inner) in sent {
            let datagram = self.sealed(n, to.remote, ecn, bytes, inner);
            self.post(datagram);
        }
    }

    /// What a laptop sealed, ready to go.
    pub(crate) fn sealed(
        &mut self,
        n: usize,
        to: SocketAddr,
        ecn: Ecn,
        bytes: Vec<u8>,
        inner: Option<Packet>,
    ) -> Datagram {
        self.next_id += 1;
        let laptop = &self.laptops[n];
        let epoch = receiver(&bytes).and_then(|index| laptop.known.get(&index).copied());
        Datagram {
            id: self.next_id,
            from: laptop.outer,
            to,
            ecn,
            bytes,
            laptop: Some(n),
            inner,
            tampered: false,
            epoch,
            sealed: self.now.mono,
        }
    }

    /// Hands a datagram for the gateway to the network.
    pub(crate) fn post(&mut self, datagram: Datagram) {
        let len = datagram.bytes.len();
        for at in self.net.carry(datagram.laptop, true, len, self.now.mono) {
            let mut arrives = datagram.clone();
            arrives.mark(&mut self.net);
            self.at(at, Event::ToGateway(arrives));
        }
    }

    fn laptop_receives(&mut self, datagram: Datagram) -> Check {
        let Some(n) = self
            .laptops
            .iter()
            .position(|laptop| laptop.on && laptop.outer == datagram.to)
        else {
            return Ok(());
        };
        let epoch = datagram.epoch.map_or(0, |(epoch, _)| epoch);
        let laptop = &mut self.laptops[n];
        let did = laptop.receive(
            datagram.from,
            datagram.ecn,
            &datagram.bytes,
            self.ordered_from,
            self.now,
        )?;
        // A packet that a mark costs has proved its key all the same.
        if matches!(did.dropped, None | Some(DropReason::EcnCe)) {
            laptop.learn(&datagram.bytes, epoch, self.now.mono);
        }
        let comes_out = datagram
            .inner
            .clone()
            .map(|inner| inner.out_of(datagram.ecn.bits()));
        if let Some(got) = &did.got {
            if comes_out.is_some_and(|inner| {
                inner.is_none_or(|inner| !packet::same_but_mss(&inner, &got.bytes))
            }) {
                return Err(format!(
                    "laptop {n} got {:?}, which is not what the gateway sealed, marked {:?}",
                    got.what, datagram.ecn
                ));
            }
            let conns = &self.laptops[n].conns;
            let live = |key: &Key| {
                conns
                    .iter()
                    .any(|conn| conn.key == *key && conn.state != ConnState::Reset)
            };
            self.watch.laptop_told(n, got, live);
        } else if comes_out.flatten().is_some()
            && (self.must_arrive(n, &datagram) || did.dropped == Some(DropReason::EcnCe))
        {
            return Err(format!(
                "laptop {n} did not take a packet that the network did not lose"
            ));
        }
        self.ship(n, did.sent);
        for packet in did.answers {
            self.send(n, packet)?;
        }
        Ok(())
    }

    /// Nothing excuses the loss of a datagram: the network has been clean long enough for the
    /// tunnel to be in order, and the key is the device's present one and young.
    fn must_arrive(&self, n: usize, datagram: &Datagram) -> bool {
        let quiet = self.net.clean_since() == Mono(0)
            || self.net.clean_since() + Duration::from_secs(400) < self.now.mono;
        quiet
            && !datagram.tampered
            && datagram.epoch.is_some_and(|(epoch, since)| {
                self.is_good(n, datagram, epoch)
                    && self.now.mono.since(since) < Duration::from_secs(175)
            })
    }

    // --- enrolment

    /// A gateway in the place of the last one: same key, same devices, same policy file.
    pub(crate) fn start_gateway(&mut self) -> Check {
        let endpoints: Vec<(usize, Option<Endpoint>)> = self
            .model
            .devices
            .keys()
            .map(|n| (*n, self.endpoint(Some(*n))))
            .collect();
        self.boot += 1;
        self.booted = self.now;
        let settings = gateway::settings(self.boot, self.dice.bits());
        let worker = settings.shard;
        self.gateway = Gateway::new(settings, &self.key, Arc::clone(&self.policy), self.now);
        let devices = std::mem::take(&mut self.model.devices);
        self.model = Model::new(Arc::clone(&self.model.rules), own(), LIMITS, self.now);
        self.watch.restarted(worker);
        self.busy_until = Mono(0);
        for (n, endpoint) in endpoints {
            if let Some(device) = devices.get(&n) {
                self.add_device(n, device.clone(), endpoint)?;
                self.add_next_key(n)?;
            }
        }
        Ok(())
    }

    /// Enrols a laptop and lets it connect.
    pub(crate) fn enrol(&mut self, n: usize) -> Check {
        if self.model.devices.contains_key(&n) {
            return Ok(());
        }
        let key = self.laptops[n].key.clone();
        let old = &self.laptops[n];
        let (enrolled, outer, received) = (old.enrolled + 1, old.outer, old.received);
        let mut fresh = laptop(n, key, &self.key.public(), &mut self.dice)?;
        (fresh.enrolled, fresh.outer, fresh.received) = (enrolled, outer, received);
        // Ports go on where they were, so that no flow is taken for an older one.
        for _ in 0..enrolled * 1000 {
            fresh.port();
        }
        self.laptops[n] = fresh;
        let who = subject(n, self.seed, self.now.wall);
        let device = Device::new(self.laptops[n].addresses.clone(), who);
        self.add_device(n, device, None)?;
        let sent = self.laptops[n].connect(gateway_address(), self.now)?;
        self.ship(n, sent);
        Ok(())
    }

    fn add_device(&mut self, n: usize, mut device: Device, endpoint: Option<Endpoint>) -> Check {
        let enrolled = self.enrolled(n, &mut device);
        let preshared = self.laptops[n].keys.preshared.clone();
        let mut outs = Outs::default();
        self.gateway
            .add_device(enrolled, preshared.as_ref(), endpoint, &mut outs, self.now)
            .map_err(|error| error.to_string())?;
        self.model.add(n, device, self.now);
        if let Some(endpoint) = endpoint {
            self.model.heard_from(n, endpoint.remote.ip());
        }
        self.settle(outs, Default::default(), None, "adding a device")
    }

    /// A device as the store knows it.
    pub(crate) fn enrolled(
        &mut self,
        n: usize,
        device: &mut Device,
    ) -> postern_engine::identity::Device {
        let mut enrolled = postern_engine::identity::Device {
            name: device.subject.device.clone(),
            user: device.subject.user.clone(),
            groups: device.subject.groups.clone(),
            key: self.laptops[n].public,
            addresses: device.addresses.clone(),
            standing: device.subject.standing.clone(),
        };
        self.kept.note(&mut enrolled, self.now.wall);
        device.subject.standing.facts = enrolled.standing.facts.clone();
        enrolled
    }

    fn at(&mut self, at: Mono, event: Event) {
        self.next_event += 1;
        self.queue
            .insert((at.max(self.now.mono), self.next_event), event);
    }
}

/// Where the gateway is on the Internet.
#[must_use]
pub fn gateway_address() -> SocketAddr {
    ([198, 51, 100, 1], 51_820).into()
}

/// The gateway's own addresses inside the tunnel.
fn own() -> Vec<IpAddr> {
    vec![
        [100, 96, 0, 1].into(),
        [0xfd00, 0x96, 0, 0, 0, 0, 0, 1].into(),
    ]
}

fn laptop(n: usize, key: PrivateKey, gateway: &PublicKey, dice: &mut Seeded) -> Check<Laptop> {
    let keepalive = dice.one_in(24).then(|| Duration::from_secs(25));
    Laptop::new(
        n,
        key,
        (gateway, gateway_address()),
        n % 2 == 1,
        keepalive,
        dice.bits(),
    )
}
