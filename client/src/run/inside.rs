//! Between the worker and the agent: packets of the control API both ways, and what the gateway
//! changes while the tunnel is up.

use super::Worker;
use super::set_up::{make_plan, seed};
use crate::agent::Order;
use crate::resolve::{Resolver, with_proven};
use crate::split_tunnel::SplitTunnel;
use postern_io::clock::Clock;
use postern_proto::keys::{PresharedKey, PrivateKey};
use postern_proto::now::{Mono, Now};
use postern_proto::profile::{HostPort, Profile};
use std::collections::BTreeSet;
use std::net::SocketAddr;

impl Worker {
    /// After every turn: what came for the agent.
    pub(super) fn tell_agent(&mut self) {
        let gateway = self.identity.profile.gateway.public_key;
        for packet in self.client.take_control() {
            self.agent.net.receive(gateway, None, &packet);
        }
        if self.client.take_changed() {
            self.agent.tell_news();
        }
        if let Some(change) = self.client.take_key_change() {
            self.agent.tell_key(change);
        }
        let reached = self.was_connected && self.client.is_postern();
        if reached && !self.agent_told {
            self.agent.tell_news();
        }
        self.agent_told = reached;
    }

    /// After a wake-up: what the agent has for us.
    pub(super) fn obey_agent(&mut self, tunnel: &mut SplitTunnel, now: Now) {
        while let Ok(mut packet) = self.agent.packets.try_recv() {
            self.client
                .send_control(&mut packet, &mut self.outputs, now);
        }
        while let Ok(order) = self.agent.orders.try_recv() {
            match order {
                Order::Apply(profile, answer) => {
                    self.apply(*profile, tunnel, now);
                    // It fails when the agent has ended.
                    let _ = answer.send(Box::new(self.identity.profile.clone()));
                }
                Order::TryKey(private, preshared) => self.try_key(private, preshared, now),
            }
        }
    }

    /// A rotation that was under way when the last process ended: one of the two keys is known.
    pub(super) fn try_next_key(&mut self) {
        let profile = &self.identity.profile;
        if let Some(private) = profile.next_private_key.clone() {
            let preshared = profile.next_preshared_key.clone();
            self.try_key(private, preshared, Clock::now());
        }
    }

    fn try_key(&mut self, private: PrivateKey, preshared: Option<PresharedKey>, now: Now) {
        let tried = seed().map_err(|error| error.to_string()).and_then(|seed| {
            self.client
                .try_key(private, preshared, seed, &mut self.outputs, now)
                .map_err(|error| error.to_string())
        });
        if let Err(error) = tried {
            tracing::warn!(error, "the new key cannot be tried");
        }
    }

    /// What cannot be applied stays as it was.
    fn apply(&mut self, mut wanted: Profile, tunnel: &mut SplitTunnel, now: Now) {
        let before = self.identity.profile.clone();
        if wanted.include != before.include
            && let Err(why) = self.change_routes(&wanted, tunnel)
        {
            tracing::warn!("the gateway changed the include list, and the old one stays: {why}");
            wanted.include.clone_from(&before.include);
        }
        if wanted.gateway.endpoints != before.gateway.endpoints {
            let list = std::mem::take(&mut wanted.gateway.endpoints);
            // While nothing answers there is no saying which endpoint to hold on to.
            let answers = self.client.is_connected(now) && self.client.unanswered() == 0;
            wanted.gateway.endpoints = match self.client.endpoint() {
                Some(answered) if answers && self.look_up(&list) => {
                    with_proven(list, answered, &self.looked_up)
                }
                Some(_) | None => before.gateway.endpoints,
            };
        }
        if (wanted.mtu, wanted.keepalive) != (before.mtu, before.keepalive) {
            let (mtu, keepalive) = (wanted.mtu, wanted.keepalive);
            self.client.set_link(mtu, keepalive, &mut self.outputs, now);
            tracing::info!(mtu, ?keepalive, "the gateway changed the link");
        }
        self.identity.profile = wanted;
    }

    /// Whether these endpoints are the ones to look up from now on.
    fn look_up(&mut self, list: &[HostPort]) -> bool {
        if self.look_up == list {
            return true;
        }
        match Resolver::start(list.to_vec(), self.waker.clone()) {
            Ok(resolver) => {
                self.resolver = resolver;
                self.resolver.ask();
                self.look_up = list.to_vec();
                self.looked_up.clear();
                true
            }
            Err(error) => {
                tracing::warn!(%error, "the gateway's new endpoints wait");
                false
            }
        }
    }

    fn change_routes(&mut self, wanted: &Profile, tunnel: &mut SplitTunnel) -> Result<(), String> {
        // Those not in use now as well: one of them may be all that answers tomorrow.
        let endpoints: Vec<SocketAddr> = self
            .client
            .endpoint()
            .into_iter()
            .chain(self.client.endpoints().iter().copied())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let plan = make_plan(wanted, &self.identity.interface, &endpoints)
            .map_err(|error| error.to_string())?;
        tunnel
            .change(&plan.routes, self.v6)
            .map_err(|error| error.to_string())?;
        self.client.set_include(&wanted.include);
        // Our own routes changed: no reason to look at the network.
        self.look_at_network = Mono::NEVER;
        let through = super::count(&wanted.include);
        tracing::info!("the gateway changed the include list: {through} through the tunnel");
        Ok(())
    }
}
