//! `postern up`: sets up, turns the one worker, puts everything back. Poll, process, flush.

use crate::agent::Agent;
use crate::control::{self, Answer, Answerers, Question, Socket};
use crate::instance::{Instance, Lock};
use crate::keeper::Keeper;
use crate::owner::Owner;
use crate::profile;
use crate::report::{Identity, Report};
use crate::resolve::{Resolved, Resolver, literals};
use crate::split_tunnel::{self, Plan, SplitTunnel};
use crate::state::{Client, Config};
use error::io;
use ipnet::IpNet;
use postern_io::clock::Clock;
use postern_io::host::{has_net_admin, routes};
use postern_io::offload::{Switches, offloads};
use postern_io::poll::Waker;
use postern_io::road::{Inputs, Outputs, open};
use postern_io::signal::Signals;
use postern_io::tun::{Tun, TunOptions};
use postern_io::udp::{UdpEnd, UdpOptions};
use postern_proto::now::{Mono, Now};
use postern_proto::profile::{HostPort, Profile};
use set_up::{asked_to_stop, first_look_up, free_interface, give_up_privileges, make_plan, seed};
use std::io::Write as _;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

mod error;
mod inside;
mod path_mtu;
mod set_up;

pub use error::UpError;

/// Initiations without an answer after which the endpoints are looked up again.
const LOOK_UP_AFTER: u64 = 3;
/// Look-ups are at least so far apart.
const LOOK_UP_PAUSE: Duration = Duration::from_secs(15);
/// Route changes come in flocks: one look at the network for all within this time.
const NETWORK_PAUSE: Duration = Duration::from_millis(300);

/// What `postern up` was told.
#[derive(Clone, Debug)]
pub struct UpOptions {
    /// The profile's path, or its name in the user's folder.
    pub profile: PathBuf,
    /// The tunnel's name, if not the profile's.
    pub name: Option<String>,
    /// The interface, if not the first free one.
    pub interface: Option<String>,
    /// Where lock, state file and socket are.
    pub run_dir: PathBuf,
    /// Which of the kernel's offloads may be used.
    pub offload: Switches,
}

/// Brings the tunnel up and keeps it up until a signal or `postern down`.
///
/// # Errors
/// Why it did not come up, or ended by itself. Whatever was changed is put back.
pub fn up(options: &UpOptions) -> Result<(), UpError> {
    let signals = Signals::block().map_err(io("blocking signals"))?;
    let owner = Owner::invoking();
    let path = owner.find_profile(&options.profile);
    let profile = profile::load(&path)?;
    let name = options.name.as_deref().unwrap_or(&profile.name);
    let instance = Instance::new(&options.run_dir, name)?;
    if !has_net_admin() {
        return Err(UpError::NotPermitted);
    }
    let lock = instance.lock(&owner)?;
    let socket =
        Socket::bind(&instance.socket(), &owner).map_err(io("listening on the control socket"))?;
    let keeper = Keeper::start(&path).map_err(io("starting the keeper of the profile"))?;
    give_up_privileges(options)?;

    let waker = Waker::new().map_err(io("making an eventfd"))?;
    let resolver = Resolver::start(profile.gateway.endpoints.clone(), waker.clone())
        .map_err(io("starting the resolver"))?;
    let Some(resolved) = first_look_up(&profile, &resolver, &waker, &signals)? else {
        return Ok(());
    };

    split_tunnel::clean_up(&instance.state_file())?;
    let interface = match &options.interface {
        Some(interface) => interface.clone(),
        None => free_interface()?,
    };
    let plan = make_plan(&profile, &interface, &resolved.endpoints)?;
    for left_out in profile
        .include
        .iter()
        .filter(|net| !plan.routes.contains(net))
    {
        tracing::warn!(
            "include {left_out} is not routed: this device has no tunnel address of its family"
        );
    }
    let mut tunnel = SplitTunnel::announce(&instance.state_file(), &interface, &plan)?;
    let result = ends(options, &profile, interface, &plan)
        .and_then(|ends| {
            let agent =
                Agent::start(&profile, keeper, waker.clone()).map_err(io("starting the agent"))?;
            let parts = (agent, &socket, waker, resolver);
            Worker::set_up(&instance, profile, ends, &tunnel, parts)
        })
        .and_then(|mut worker| {
            worker.resolved(resolved);
            worker.try_next_key();
            worker.run(&signals, &mut tunnel)
        });
    // The interface went with the worker, and its routes with it.
    let removed = tunnel.remove();
    drop::<Socket>(socket);
    drop::<Lock>(lock);
    result?;
    Ok(removed?)
}

/// The sockets and the interface.
fn ends(
    options: &UpOptions,
    profile: &Profile,
    interface: String,
    plan: &Plan,
) -> Result<(UdpEnd, Tun), UpError> {
    let udp = UdpEnd::bind(&UdpOptions {
        offload: options.offload,
        ..UdpOptions::default()
    })?;
    let tun = Tun::open(&TunOptions {
        name: interface,
        mtu: profile.mtu,
        v4: plan.v4.map(|address| (address, 32)),
        v6: plan.v6.map(|address| (address, 128)),
        queue: postern_io::tun::DEFAULT_QUEUE,
        offload: options.offload,
    })?;
    Ok((udp, tun))
}

/// Everything that the loop turns.
struct Worker {
    client: Client,
    identity: Identity,
    inputs: Inputs,
    outputs: Outputs,
    waker: Waker,
    agent: Agent,
    /// It knows that the gateway is reached.
    agent_told: bool,
    v6: bool,
    questions: Receiver<Question>,
    resolver: Resolver,
    /// What the resolver looks up, and what it found.
    look_up: Vec<HostPort>,
    looked_up: Vec<SocketAddr>,
    next_look_up: Mono,
    routes_changed: Arc<AtomicBool>,
    look_at_network: Mono,
    path: Option<routes::HostPath>,
    fit: path_mtu::Fit,
    was_connected: bool,
    ever_connected: bool,
    silence_told: bool,
    clash_told: bool,
    failures_told: Vec<String>,
}

impl Worker {
    fn set_up(
        instance: &Instance,
        profile: Profile,
        (udp, tun): (UdpEnd, Tun),
        tunnel: &SplitTunnel,
        (agent, socket, waker, resolver): (Agent, &Socket, Waker, Resolver),
    ) -> Result<Worker, UpError> {
        let version = env!("CARGO_PKG_VERSION");
        let config = Config::from_profile(&profile, version).ok_or(UpError::OwnKey)?;
        let client = Client::new(config, seed()?).map_err(|_| UpError::OwnKey)?;
        let fit = path_mtu::Fit::new(client.mtu());
        let interface = tun.name().to_owned();
        let v6 = tun.has_v6();
        tunnel.make_routes(v6)?;
        let (inputs, outputs) = open(udp, Some(tun)).map_err(io("setting up the sockets"))?;

        let answerers = Answerers {
            waker: waker.clone(),
            line: agent.line.clone(),
            rotations: agent.rotations.clone(),
        };
        let questions =
            control::serve(socket, answerers).map_err(io("starting the control thread"))?;
        let routes_changed = Arc::new(AtomicBool::new(false));
        let (flag, wake) = (Arc::clone(&routes_changed), waker.clone());
        routes::watch_routes(interface.clone(), move || {
            if !flag.swap(true, Ordering::AcqRel) {
                wake.wake();
            }
        })?;
        let look_up = profile.gateway.endpoints.clone();
        let identity = Identity {
            name: instance.name().to_owned(),
            interface,
            profile,
        };
        Ok(Worker {
            client,
            identity,
            inputs,
            outputs,
            waker,
            agent,
            agent_told: false,
            v6,
            questions,
            resolver,
            look_up,
            looked_up: Vec::new(),
            next_look_up: Mono(0),
            routes_changed,
            look_at_network: Mono::NEVER,
            path: None,
            fit,
            was_connected: false,
            ever_connected: false,
            silence_told: false,
            clash_told: false,
            failures_told: Vec::new(),
        })
    }

    fn run(&mut self, signals: &Signals, tunnel: &mut SplitTunnel) -> Result<(), UpError> {
        self.outputs.flush();
        loop {
            let look_up = if self.wants_look_up() {
                self.next_look_up
            } else {
                Mono::NEVER
            };
            let deadline = self
                .client
                .next_deadline()
                .min(self.look_at_network)
                .min(look_up);
            let ready = self
                .inputs
                .wait(
                    &self.waker,
                    Some(signals.as_fd()),
                    deadline,
                    Clock::now().mono,
                )
                .map_err(io("waiting"))?;
            let now = Clock::now();
            if ready.signalled && asked_to_stop(signals) {
                return Ok(());
            }

            let Worker {
                client,
                inputs,
                outputs,
                ..
            } = self;
            inputs.udp(ready, now.mono, |from, ecn, datagram| {
                client.from_network(from, ecn, datagram, outputs, now);
            });
            let read = inputs.tun(ready, now.mono, |packet| {
                if client.admit(packet.packet(), outputs).is_ok() {
                    packet.for_each_segment(|segment| {
                        client.seal(segment, outputs, now);
                    });
                }
            });
            if read.is_err() {
                return Err(UpError::InterfaceGone(self.identity.interface.clone()));
            }
            if ready.woken && self.messages(now) {
                return Ok(());
            }
            if ready.woken {
                self.obey_agent(tunnel, now);
            }
            self.client.timeout(&mut self.outputs, now);
            self.tell_agent();
            if self.look_at_network <= now.mono {
                self.look_at_network = Mono::NEVER;
                self.network_changed(now);
            }
            self.outputs.flush();
            self.fit_the_path(now);
            self.watch(now);
        }
    }

    /// Messages of the other threads; true when one of them is to stop.
    fn messages(&mut self, now: Now) -> bool {
        while let Ok(question) = self.questions.try_recv() {
            let answer = match question.what {
                control::Worker::Status => {
                    let status = self.client.status(now);
                    let offload = offloads(&self.inputs, &self.outputs);
                    let heard = self.agent.heard();
                    let report = Report::new(&self.identity, &status, offload, heard, now);
                    Answer::Status(Box::new(report))
                }
                control::Worker::Down => Answer::Stopping,
            };
            let _ = question.answer.try_send(answer);
            if question.what == control::Worker::Down {
                tracing::info!("stopping: asked to by `postern down`");
                return true;
            }
        }
        while let Ok(resolved) = self.resolver.results.try_recv() {
            self.resolved(resolved);
        }
        if self.routes_changed.swap(false, Ordering::AcqRel) && self.look_at_network == Mono::NEVER
        {
            self.look_at_network = now.mono + NETWORK_PAUSE;
        }
        false
    }

    fn resolved(&mut self, resolved: Resolved) {
        let now = Clock::now();
        if resolved.failures != self.failures_told {
            for failure in &resolved.failures {
                tracing::warn!("cannot look up the gateway yet: {failure}; trying again");
            }
            self.failures_told = resolved.failures;
        }
        let swallowed = |at: &&SocketAddr| {
            let include = &self.identity.profile.include;
            include.iter().any(|net| net.contains(&at.ip()))
        };
        if let Some(endpoint) = resolved.endpoints.iter().find(swallowed) {
            tracing::warn!("the endpoint {endpoint} is on the include list and cannot be used");
        }
        // A name that cannot be looked up right now does not make the known address wrong.
        if !resolved.endpoints.is_empty() {
            self.looked_up.clone_from(&resolved.endpoints);
            let mut endpoints = resolved.endpoints;
            // The one that answered last, where the gateway names others since.
            for at in literals(&self.identity.profile.gateway.endpoints) {
                if !endpoints.contains(&at) {
                    endpoints.push(at);
                }
            }
            self.client.set_endpoints(endpoints, &mut self.outputs, now);
        }
        self.next_look_up = now.mono + LOOK_UP_PAUSE;
        self.path = self.path_now();
    }

    /// The laptop has another network, or none: the gateway shall learn at once where we are.
    fn network_changed(&mut self, now: Now) {
        let path = self.path_now();
        if path != self.path {
            tracing::info!(
                from = %path.as_ref().map_or("nowhere".to_owned(), |path| path.source.to_string()),
                "the way to the gateway changed"
            );
            self.path = path;
            if self.path.is_some() {
                self.client.moved(&mut self.outputs, now);
            }
        }
        let endpoints: Vec<SocketAddr> = self.client.endpoint().into_iter().collect();
        match make_plan(&self.identity.profile, &self.identity.interface, &endpoints) {
            Err(UpError::Clash(clashes)) if !self.clash_told => {
                self.clash_told = true;
                for clash in clashes {
                    tracing::warn!("on this network: {clash}");
                }
            }
            Ok(_) => self.clash_told = false,
            Err(_) => {}
        }
    }

    fn path_now(&self) -> Option<routes::HostPath> {
        routes::path_to(self.client.endpoint()?).ok()
    }

    /// Says once when the tunnel comes up or is lost, and looks the endpoints up again.
    fn watch(&mut self, now: Now) {
        let connected = self.client.is_connected(now);
        let unanswered = self.client.unanswered();
        if connected && !self.was_connected {
            self.say_connected();
        }
        let lost = unanswered >= LOOK_UP_AFTER;
        if lost && !self.silence_told {
            self.say_silent();
        }
        self.silence_told = lost;
        self.was_connected = (connected || self.was_connected) && !lost;
        if self.wants_look_up() && self.next_look_up <= now.mono {
            self.next_look_up = now.mono + LOOK_UP_PAUSE;
            self.resolver.ask();
        }
    }

    fn wants_look_up(&self) -> bool {
        self.client.unanswered() >= LOOK_UP_AFTER || self.client.endpoint().is_none()
    }

    fn say_silent(&self) {
        if self.ever_connected {
            tracing::info!("the gateway does not answer; trying again until it does");
        } else {
            // A gateway is silent to strangers, so this is all that can be known from here.
            tracing::warn!(
                "the gateway does not answer; trying on. Is the endpoint right, does the network let UDP through, and is this device enrolled and not revoked?"
            );
        }
    }

    fn say_connected(&mut self) {
        let at = self
            .client
            .endpoint()
            .map_or_else(String::new, |at| at.to_string());
        if self.ever_connected {
            tracing::info!("connected again to {at}");
            return;
        }
        self.ever_connected = true;
        let through = count(&self.identity.profile.include);
        // Nobody reads it: the tunnel is up all the same.
        let _ = writeln!(
            std::io::stdout(),
            "connected to {at}: {through} through the tunnel"
        );
    }
}

/// `nothing yet`, `4 addresses`, `1 network`, `4 addresses and 1 network`.
fn count(include: &[IpNet]) -> String {
    let singles = include
        .iter()
        .filter(|net| net.prefix_len() == net.max_prefix_len())
        .count();
    let many = |count: usize, one: &str, more: &str| match count {
        0 => None,
        1 => Some(format!("1 {one}")),
        _ => Some(format!("{count} {more}")),
    };
    if include.is_empty() {
        return "nothing yet".to_owned();
    }
    let addresses = many(singles, "address", "addresses");
    let networks = many(include.len() - singles, "network", "networks");
    addresses
        .into_iter()
        .chain(networks)
        .collect::<Vec<_>>()
        .join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_connected_line_counts_in_words() {
        let count = |texts: &[&str]| {
            count(
                &texts
                    .iter()
                    .map(|text| text.parse().expect("a prefix"))
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(count(&[]), "nothing yet");
        assert_eq!(count(&["192.0.2.10/32"]), "1 address");
        assert_eq!(count(&["192.0.2.10/32", "2001:db8::1/128"]), "2 addresses");
        assert_eq!(
            count(&["192.0.2.10/32", "10.0.0.0/24"]),
            "1 address and 1 network"
        );
    }
}
