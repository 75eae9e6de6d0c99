//! One step, done.

use crate::check::flow_key;
use crate::dice::{Dice, Seeded};
use crate::laptop::ConnState;
use crate::mischief;
use crate::net::{Datagram, Outs, carries_packet};
use crate::packet::{self, ACK, Proto, RST, SYN, Segment};
use crate::policy::Rules;
use crate::steps::{Change, Step, Stop};
use crate::target::{HOSTS, stamped};
use crate::world::{Check, LAPTOPS, World, gateway_address};
use postern_engine::record::CloseReason;
use postern_proto::ecn::Ecn;
use postern_proto::keys::PrivateKey;
use postern_proto::now::Mono;
use postern_proto::peers::Peers;
use postern_proto::tunnel::Settings;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

const TCP_PORTS: [u16; 5] = [6443, 22, 80, 53, 8443];
const UDP_PORTS: [u16; 2] = [53, 161];
/// A laptop that was revoked so long ago has been switched off.
const GIVES_UP: u32 = 60_000;

impl World {
    /// Lets a step happen.
    pub(crate) fn apply(&mut self, step: Step) -> Check {
        match step {
            Step::Connect { laptop, host, port } => {
                let n = which(laptop);
                let target = (
                    self::host(host),
                    TCP_PORTS[usize::from(port) % TCP_PORTS.len()],
                );
                let seq = u32::try_from(self.dice.roll(1 << 32)).unwrap_or(0);
                let syn = self.laptops[n].open(target, seq);
                self.send(n, syn)
            }
            Step::Say { laptop, conn, len } => {
                let n = which(laptop);
                let (conn, stamp) = (self.conn(n, conn), self.stamp());
                match self.laptops[n].say(conn, stamp, usize::from(len)) {
                    Some(packet) => self.send(n, packet),
                    None => Ok(()),
                }
            }
            Step::Push {
                conn,
                len,
                segments,
            } => {
                let open = self.targets.open();
                let Some(key) = open.get(usize::from(conn) % open.len().max(1)).copied() else {
                    return Ok(());
                };
                let payloads: Vec<_> = (0..segments.max(1))
                    .map(|_| stamped(self.stamp(), usize::from(len)))
                    .collect();
                let packets = self.targets.push(&key, &payloads);
                self.target_speaks(packets);
                Ok(())
            }
            Step::Udp {
                laptop,
                host,
                port,
                again,
            } => {
                let n = which(laptop);
                let to = (
                    self::host(host),
                    UDP_PORTS[usize::from(port) % UDP_PORTS.len()],
                );
                let from = self.socket(n, usize::from(host), again);
                let payload = stamped(self.stamp(), 24);
                let from = (self.laptops[n].address(to.0), from);
                self.send(n, packet::udp(from, to, &payload))
            }
            Step::Ping {
                laptop,
                host,
                again,
            } => {
                let n = which(laptop);
                let id = self.socket(n, 8 + usize::from(host), again);
                let to = self::host(host);
                let payload = stamped(self.stamp(), 24);
                self.send(
                    n,
                    packet::echo(self.laptops[n].address(to), to, true, id, &payload),
                )
            }
            Step::Close {
                laptop,
                conn,
                abort,
            } => {
                let n = which(laptop);
                let conn = self.conn(n, conn);
                match self.laptops[n].close(conn, abort) {
                    Some(packet) => self.send(n, packet),
                    None => Ok(()),
                }
            }
            Step::TargetClose { conn, abort } => {
                let open = self.targets.open();
                let Some(key) = open.get(usize::from(conn) % open.len().max(1)) else {
                    return Ok(());
                };
                if let Some(packet) = self.targets.close(key, abort) {
                    self.target_speaks(vec![packet]);
                }
                Ok(())
            }
            Step::Roam { laptop, port_only } => self.roam(which(laptop), port_only),
            Step::Net { loss, twice, late } => {
                self.watch.disturb();
                self.net.behave(loss, twice, late, self.now.mono);
                self.ordered_from = u64::MAX;
                if self.net.is_clean() {
                    self.run_for(Duration::from_secs(5))?;
                    self.ordered_from = self.stamp;
                }
                Ok(())
            }
            Step::Path {
                laptop,
                there,
                back,
                roam,
            } => {
                let n = which(laptop);
                self.watch.disturb();
                self.net.narrow(n, there, back, self.now.mono);
                if roam { self.roam(n, false) } else { Ok(()) }
            }
            Step::Work { laptop } => self.work(which(laptop)),
            Step::Revoke { laptop } => self.revoke(which(laptop)),
            Step::Enrol { laptop } => {
                self.watch.disturb();
                self.enrol(which(laptop))
            }
            Step::Reload { policy, busy_ms } => {
                let (rules, policy) = Rules::draw(u64::from(policy))?;
                self.policy = Arc::new(policy);
                self.kept.keep(&self.policy);
                self.gateway
                    .set_policy(Arc::clone(&self.policy), self.now.mono);
                self.model.reload(rules);
                self.busy_until = self.now.mono + Duration::from_millis(u64::from(busy_ms));
                Ok(())
            }
            Step::Stand {
                laptop,
                change,
                pick,
            } => self.stand(which(laptop), change, pick),
            Step::Rotate {
                laptop,
                lost,
                preshared,
            } => self.rotate(which(laptop), lost, preshared),
            Step::Restart { how } => self.restart(how),
            Step::Kill { nth } => self.kill(usize::from(nth)),
            Step::Wait { ms } => {
                let mut ms = ms;
                if ms > GIVES_UP {
                    self.run_for(Duration::from_secs(5))?;
                    ms -= 5000;
                    for n in 0..LAPTOPS {
                        self.laptops[n].on &= self.model.devices.contains_key(&n);
                    }
                }
                self.run_for(Duration::from_millis(u64::from(ms)))
            }
            Step::Misbehave { laptop, how, pick } => {
                let n = which(laptop) | 1;
                let other = self.laptops[which(pick)].addresses.clone();
                match mischief::packet(&mut self.laptops[n], &other, how, pick) {
                    Some(packet) => self.send(n, packet),
                    None => Ok(()),
                }
            }
            Step::Replay { nth, elsewhere } => {
                let Some(mut datagram) = self
                    .captured
                    .get(usize::from(nth) % self.captured.len().max(1))
                    .cloned()
                else {
                    return Ok(());
                };
                if elsewhere {
                    datagram.from = stranger();
                }
                self.gateway_receives(datagram)
            }
            Step::Flip { laptop, bit } => self.flip(which(laptop), usize::from(bit)),
            Step::Stranger { noise } => self.stranger(noise),
            Step::Unasked { laptop, host, what } => {
                self.unasked(which(laptop), self::host(host), what)
            }
            Step::Log { writable } => {
                self.gateway.set_log_writable(writable);
                self.model.log_writable = writable;
                Ok(())
            }
            Step::Scan { laptop, count } => self.scan(which(laptop), count),
        }
    }

    fn roam(&mut self, n: usize, port_only: bool) -> Check {
        self.watch.disturb();
        let outer = self.laptops[n].outer;
        let port = outer.port().wrapping_add(101).max(1024);
        let low = u8::try_from(n).unwrap_or(0);
        let ip: IpAddr = if port_only {
            outer.ip()
        } else {
            [198, 18, self.dice.byte(), low].into()
        };
        self.laptops[n].outer = (ip, port).into();
        self.laptops[n].roamed = true;
        if !port_only && self.laptops[n].on {
            let sent = self.laptops[n].moved(self.now)?;
            self.ship(n, sent);
        }
        Ok(())
    }

    fn revoke(&mut self, n: usize) -> Check {
        // Revoked, it cannot ask again: it must have missed nothing before.
        let hears = self.hears(n) && !self.laptops[n].roamed && self.net.clean_since() == Mono(0);
        let mut outs = Outs::default();
        let key = self.laptops[n].public;
        let cut = self.gateway.remove_device(
            &key,
            CloseReason::Revoked,
            self.now.mono,
            &mut outs,
            self.now,
        );
        if cut.is_some() != self.model.devices.contains_key(&n) {
            return Err(format!("revoking laptop {n} found {cut:?}"));
        }
        let expect = self.model.revoke(n, self.now);
        self.laptops[n].keys.next = None;
        self.watch.disturb();
        let told = expect.laptop_told.clone();
        self.settle(outs, expect, None, "revoke")?;
        for (laptop, key) in told.into_iter().filter(|_| hears) {
            self.watch.must_tell(laptop, key, self.now.mono);
        }
        Ok(())
    }

    /// Other facts about a device.
    fn stand(&mut self, n: usize, change: Change, pick: u8) -> Check {
        let Some(device) = self.model.devices.get(&n) else {
            return Ok(());
        };
        let mut device = device.clone();
        change.apply(&mut device.subject, pick, self.now.wall);
        let mut outs = Outs::default();
        let enrolled = self.enrolled(n, &mut device);
        let cut = self
            .gateway
            .update_device(enrolled, self.now.mono, &mut outs, self.now);
        let expect = self.model.update(n, device.subject, self.now);
        if cut.flows != expect.records.len() as u64 {
            return Err(format!("{change:?} cut {}, expected {expect:?}", cut.flows));
        }
        self.settle(outs, expect, None, "a change of facts")
    }

    /// Stops the gateway.
    pub(crate) fn stop(&mut self, how: Stop) -> Check {
        let mut outs = Outs::default();
        let expect = match how {
            Stop::HandOver => {
                self.gateway.hand_over(self.now);
                self.model.hand_over(self.now)
            }
            Stop::ShutDown => {
                self.gateway.shut_down(&mut outs, self.now);
                self.model.kill(CloseReason::Shutdown, self.now, |_| true)
            }
            Stop::Crash => return Ok(()),
        };
        self.settle(outs, expect, None, "stop")?;
        self.watch.closed(&self.model.denied)
    }

    fn restart(&mut self, how: Stop) -> Check {
        let hear: Vec<usize> = (0..LAPTOPS)
            .filter(|n| self.model.devices.contains_key(n) && self.hears(*n))
            .collect();
        self.stop(how)?;
        self.watch.disturb();
        self.start_gateway()?;
        for n in hear {
            self.watch
                .must_be_back(n, self.now.mono + Duration::from_secs(2));
        }
        Ok(())
    }

    fn kill(&mut self, nth: usize) -> Check {
        let live = self.model.live(|_, _| true);
        let Some(picked) = live.get(nth % live.len().max(1)).copied() else {
            return Ok(());
        };
        let key = flow_key(&picked);
        let mut outs = Outs::default();
        let cut = self
            .gateway
            .kill(self.now.mono, &mut outs, self.now, |flow, _| {
                flow.key == key
            });
        if cut.flows != 1 {
            return Err(format!("killing {picked:?} cut {} flows", cut.flows));
        }
        let expect = self
            .model
            .kill(CloseReason::Killed, self.now, |key| *key == picked);
        self.settle(outs, expect, None, "kill")?;
        if picked.proto == Proto::Tcp
            && self.net.clean_since() == Mono(0)
            && self.targets.holds(&picked)
        {
            return Err(format!("the target still holds {picked:?}, which was cut"));
        }
        Ok(())
    }

    fn flip(&mut self, n: usize, bit: usize) -> Check {
        if !self.laptops[n].on || !self.laptops[n].is_connected(self.now) {
            return Ok(());
        }
        let (from, to) = ((self.laptops[n].addresses[0], 4444), (host(2), 53));
        let sent = self.laptops[n].send(packet::udp(from, to, b"flipped"), self.now)?;
        for (to, ecn, bytes, inner) in sent {
            let mut datagram = self.sealed(n, to.remote, ecn, bytes, inner);
            if carries_packet(&datagram.bytes) {
                let at = bit / 8 % datagram.bytes.len();
                datagram.bytes[at] ^= 1 << (bit % 8);
                datagram.tampered = true;
            }
            self.post(datagram);
        }
        Ok(())
    }

    fn stranger(&mut self, noise: u8) -> Check {
        let mut bytes = Vec::new();
        if noise == 0 {
            let key = PrivateKey::from_random(self.dice.key());
            let mut peers = Peers::new(key, 0, 0, 1);
            let gateway = self.gateway.peers().our_key();
            let id = peers
                .add(
                    *gateway,
                    &Settings::default(),
                    Some(gateway_address().into()),
                )
                .map_err(|error| error.to_string())?;
            let mut outs = Outs::default();
            peers.initiate(id, &mut outs, self.now);
            bytes.extend(
                outs.datagrams
                    .pop()
                    .map(|(_, bytes)| bytes)
                    .unwrap_or_default(),
            );
        } else {
            let mut dice = Seeded::new(u64::from(noise));
            let len = [148, 92, 64, 32, 48, dice.index(300)][dice.index(6)];
            bytes.extend((0..len).map(|_| dice.byte()));
            if let Some(start) = bytes.first_chunk_mut() {
                *start = [dice.small(6), 0, 0, 0];
            }
        }
        let datagram = Datagram {
            id: 0,
            from: stranger(),
            to: gateway_address(),
            ecn: Ecn::from_traffic_class(noise.to_be_bytes()[0]),
            bytes,
            laptop: None,
            inner: None,
            tampered: true,
            epoch: None,
            sealed: self.now.mono,
        };
        self.gateway_receives(datagram)
    }

    fn unasked(&mut self, n: usize, host: IpAddr, what: u8) -> Check {
        let to = self.laptops[n].address(host);
        let segment = |flags, from| Segment {
            from,
            to: 4444,
            flags,
            seq: 77,
            ack: 88,
            payload: 0,
        };
        let segment = |flags, from| packet::tcp(host, to, segment(flags, from), &[], None);
        let packet = match what % 8 {
            0 => segment(SYN, 9999),
            1 => segment(SYN, 22),
            2 => segment(SYN | ACK, 22),
            3 => segment(RST | ACK, 6443),
            4 => packet::udp((host, 53), (to, 4444), b"unasked"),
            5 => packet::echo(host, to, true, 7, b"unasked"),
            6 => packet::echo(host, to, false, 7, b"unasked"),
            _ => {
                let about = packet::udp((to, 4444), (host, 9999), b"never sent");
                match packet::unreachable(&about) {
                    Some(packet) => packet,
                    None => return Ok(()),
                }
            }
        };
        let before = self.watch.opened_ever;
        self.gateway_gets(&packet)?;
        if self.watch.opened_ever > before {
            return Err(format!("{:?} of a target opened a flow", packet.what));
        }
        Ok(())
    }

    fn scan(&mut self, n: usize, count: u8) -> Check {
        if !self.laptops[n].is_connected(self.now) {
            return Ok(());
        }
        for last in 1..=count {
            let to: IpAddr = [192, 0, 2, last].into();
            let from = self.laptops[n].addresses[0];
            let segment = Segment {
                from: 3000,
                to: 20 + u16::from(last % 5),
                flags: SYN,
                seq: 5,
                ack: 0,
                payload: 0,
            };
            self.send(n, packet::tcp(from, to, segment, &[], None))?;
        }
        Ok(())
    }

    /// A connection of a laptop, the newest first.
    fn conn(&self, n: usize, conn: u8) -> usize {
        let conns = &self.laptops[n].conns;
        let live: Vec<usize> = (0..conns.len())
            .rev()
            .filter(|at| conns[*at].state != ConnState::Reset)
            .collect();
        live.get(usize::from(conn) % live.len().max(1))
            .copied()
            .unwrap_or(usize::MAX)
    }

    /// A port or an echo id: the last one of this kind again, or a fresh one.
    fn socket(&mut self, n: usize, kind: usize, again: bool) -> u16 {
        if let Some(port) = self.last_udp.get(&(n, kind)).filter(|_| again) {
            return *port;
        }
        let port = self.laptops[n].port();
        self.last_udp.insert((n, kind), port);
        port
    }

    pub(crate) fn stamp(&mut self) -> u64 {
        self.stamp += 1;
        self.stamp
    }
}

fn which(laptop: u8) -> usize {
    usize::from(laptop) % LAPTOPS
}

fn host(host: u8) -> IpAddr {
    HOSTS[usize::from(host) % HOSTS.len()]
        .parse()
        .unwrap_or(IpAddr::from([192, 0, 2, 10]))
}

fn stranger() -> SocketAddr {
    ([192, 0, 2, 200], 9).into()
}
