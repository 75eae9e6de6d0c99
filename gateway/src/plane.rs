//! The data plane, put together: TUN, host, sockets, engines, threads, flow log.
//!
//! The order matters. The flow log opens first, because nothing may pass unrecorded; the TUN
//! comes before the host set-up that names it. Older than all of them is what needs a capability
//! that is dropped before the first thread starts: the sockets, whose port may be a low one, and
//! the program that steers packets to workers. What arrives meanwhile waits in the sockets.

use crate::config::{self, Config};
use crate::flow_log::{FlowLog, FlowLogHandle};
use crate::front_door::thread::DoorThread;
use crate::front_door::{self, FrontDoor, HandOver};
use crate::inside::{Ends, Inside};
use crate::key_file;
use crate::store::Noted;
use crate::worker::DataWorker;
use crate::worker_api::{Caller, Door, WORKER_QUEUE};
use crate::workers::{Workers, owner};
use anyhow::{Context, anyhow};
use ipnet::IpNet;
use postern_engine::gateway::Gateway;
use postern_engine::policy::Policy;
use postern_engine::settings::{Limits, OnLogFailure, Settings, Shard};
use postern_io::clock::Clock;
use postern_io::host::{Egress, GatewayHost, GatewayHostConfig};
use postern_io::poll::Waker;
use postern_io::road;
use postern_io::steer::{MAX_WORKERS, Steering};
use postern_io::tun::{Tun, TunOptions};
use postern_io::udp::{UdpEnd, UdpGroup, UdpOptions};
use postern_proto::keys::PrivateKey;
use std::io;
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

/// Packets or super-packets that the kernel queues towards us: room for a burst. What stands in it
/// is the fair queue's affair.
const TUN_QUEUE: u32 = postern_io::tun::DEFAULT_QUEUE;

/// How long the flow log may take to write what is left when the gateway stops.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// The running data plane.
pub struct Plane {
    /// To all threads.
    pub workers: Workers,
    /// How many of them carry packets.
    pub count: usize,
    /// To the flow log.
    pub log: FlowLogHandle,
    /// Which offloads are in use at the start.
    pub offload: String,
    threads: Vec<Thread>,
    flow_log: FlowLog,
    host: GatewayHost,
}

type Thread = JoinHandle<io::Result<()>>;

/// How the gateway ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Flows are cut, the host is put back.
    Stop,
    /// Flows and the host are left for a successor.
    HandOver,
}

/// What needs privileges, to be had before they are dropped.
pub struct Reserved {
    udp: UdpGroup,
    steering: Steering,
}

/// Opens the gateway's port, and loads what steers packets to its workers.
///
/// # Errors
/// The port is taken, or one of both is not permitted; the words say what to do.
pub fn reserve(config: &Config) -> anyhow::Result<Reserved> {
    let Steered {
        steering,
        workers,
        fewer,
    } = steering(config.workers)?;
    if let Some(error) = fewer {
        tracing::info!(%error, "one worker carries all packets, on one core");
    }
    let udp = UdpGroup::bind(
        &UdpOptions {
            port: config.listen_port,
            // A gateway cannot know every path; fragments beat silence.
            may_fragment: true,
            offload: config.offload,
            ..UdpOptions::default()
        },
        workers,
    )?;
    udp.workers
        .first()
        .into_iter()
        .for_each(warn_of_small_buffers);
    Ok(Reserved { udp, steering })
}

/// What steers packets, and to how many workers.
pub struct Steered {
    steering: Steering,
    workers: usize,
    /// Why there are not as many as cores.
    pub fewer: Option<io::Error>,
}

/// As many workers as are wanted, or as can be had.
///
/// # Errors
/// A number was asked for, and packets cannot be steered to so many.
pub fn steering(wanted: config::Workers) -> anyhow::Result<Steered> {
    let workers = match wanted {
        config::Workers::Exactly(workers) => usize::from(workers),
        config::Workers::Auto => {
            workers_for(std::thread::available_parallelism().map_or(1, NonZero::get))
        }
    };
    let loaded = Steering::load(workers);
    let (steering, workers, fewer) = match (wanted, loaded) {
        (_, Ok(steering)) => (steering, workers, None),
        (config::Workers::Auto, Err(error)) => (Steering::load(1)?, 1, Some(error)),
        (config::Workers::Exactly(_), Err(error)) => {
            return Err(error).context(format!("workers: {workers} (`auto` takes what it can)"));
        }
    };
    Ok(Steered {
        steering,
        workers,
        fewer,
    })
}

/// The largest number of workers that can be steered to and has a core each.
fn workers_for(cores: usize) -> usize {
    1 << cores.clamp(1, MAX_WORKERS).ilog2()
}

impl Plane {
    /// Puts it together and starts it; the server inside its tunnels is ready to serve.
    ///
    /// # Errors
    /// What could not be had, and what to do about it. What had been changed by then is put back.
    pub fn start(
        config: &Config,
        reserved: Reserved,
        key: &PrivateKey,
        policy: &Arc<Policy>,
        devices: Vec<Noted>,
        boot: u64,
    ) -> anyhow::Result<(Plane, Inside)> {
        let count = reserved.udp.workers.len();
        let flow_log = FlowLog::start(config, boot, count).context("flow log")?;
        match Parts::start(config, reserved, key, policy, devices, boot, &flow_log) {
            Ok(parts) => {
                let plane = Plane {
                    workers: parts.workers,
                    count,
                    log: flow_log.handle(),
                    offload: parts.offload,
                    threads: parts.threads,
                    flow_log,
                    host: parts.host,
                };
                Ok((plane, parts.inside))
            }
            Err(error) => {
                // This run ends in order: it is no crash that the next one must explain.
                let _ = flow_log.finish(LOG_PATIENCE);
                Err(error)
            }
        }
    }

    /// Whether every thread is still at work.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.threads.iter().any(JoinHandle::is_finished) && self.flow_log.is_alive()
    }

    /// Ends every thread, waits for the last record to be on disk, and puts the host back or
    /// leaves it. Returns how many flows were cut.
    ///
    /// # Errors
    /// A thread had ended before, or the host could not be put back.
    pub async fn end(self, ending: Ending) -> anyhow::Result<u64> {
        let cut = self.workers.stop(ending == Ending::HandOver).await;
        let mut worked = Ok(());
        for thread in self.threads {
            let ended = match thread.join() {
                Ok(ended) => ended.context("the interface is gone"),
                Err(_) => Err(anyhow!("a thread of the data plane panicked")),
            };
            worked = worked.and(ended);
        }
        let status = self.flow_log.finish(LOG_PATIENCE);
        if status.lost > 0 {
            tracing::error!(lost = status.lost, "records were lost");
        }
        match ending {
            Ending::Stop => self.host.tear_down()?,
            Ending::HandOver => self.host.leave(),
        }
        worked?;
        Ok(cut?.flows)
    }
}

/// The plane without its log.
struct Parts {
    workers: Workers,
    offload: String,
    threads: Vec<Thread>,
    host: GatewayHost,
    inside: Inside,
}

impl Parts {
    fn start(
        config: &Config,
        Reserved { udp, steering }: Reserved,
        key: &PrivateKey,
        policy: &Arc<Policy>,
        devices: Vec<Noted>,
        boot: u64,
        flow_log: &FlowLog,
    ) -> anyhow::Result<Parts> {
        let count = udp.workers.len();
        let tuns = Tun::open_queues(&tun_options(config), count)?;
        if let Some(tun) = tuns.first() {
            steering.attach(tun).context("write `workers: 1`")?;
        }
        let host = GatewayHost::set_up(&host_config(config))?;
        let mut door = FrontDoor::new(key, count, random()?);
        let mut workers = Vec::with_capacity(count);
        let mut ends = Ends::default();
        let (mut callers, mut queues) = (Vec::new(), Vec::new());
        for (place, (udp, tun)) in udp.workers.into_iter().zip(tuns).enumerate() {
            let road = road::open(udp, Some(tun)).context("sockets")?;
            let waker = Waker::new().context("eventfd")?;
            let (commands, receiver) = sync_channel(WORKER_QUEUE);
            let (to_worker, handed) = front_door::queue(waker.clone());
            let settings = settings(config, boot, shard(place, count))?;
            let gateway = Gateway::new(settings, key, Arc::clone(policy), Clock::now());
            let (rings, answered) = (waker.clone(), waker.clone());
            callers.push(Caller::new(commands, move || rings.wake()));
            queues.push(to_worker);
            workers.push(DataWorker::new(
                gateway,
                road,
                waker,
                receiver,
                handed,
                ends.worker(move || answered.wake()),
                flow_log.sender(shard(place, count).index),
            ));
        }
        for device in devices.into_iter().map(Noted::into_record) {
            let refused = |name: &str, why: String| anyhow!("device {name}: {why}");
            let (name, key) = (device.name.clone(), device.key);
            let place = owner(device.v4, count);
            if let Some(worker) = workers.get_mut(place) {
                worker.add(device).map_err(|why| refused(&name, why))?;
            }
            door.enrol(key, place)
                .map_err(|full| refused(&name, full.to_string()))?;
        }
        let offload = workers
            .first()
            .map_or_else(String::new, DataWorker::offload);
        let mut threads = Vec::with_capacity(count + 1);
        for (place, worker) in workers.into_iter().enumerate() {
            threads.push(spawn(format!("worker-{place}"), || worker.run())?);
        }
        let (caller, thread) = open_door(door, udp.door, queues)?;
        threads.push(thread);
        let (v4, v6) = config.pool.gateway();
        let own = [IpAddr::V4(v4), IpAddr::V6(v6)];
        Ok(Parts {
            workers: Workers::new(callers, caller),
            offload,
            threads,
            host,
            inside: Inside::new(ends, &own, config.mtu, random()?),
        })
    }
}

fn open_door(
    door: FrontDoor,
    udp: UdpEnd,
    workers: Vec<HandOver>,
) -> anyhow::Result<(Door, Thread)> {
    let (inputs, outputs) = road::open(udp, None).context("sockets")?;
    let waker = Waker::new().context("eventfd")?;
    let (sender, commands) = sync_channel(WORKER_QUEUE);
    let rings = waker.clone();
    let thread = DoorThread {
        door,
        inputs,
        outputs,
        waker,
        commands,
        workers,
    };
    let thread = spawn("front-door".to_owned(), || thread.run())?;
    Ok((Caller::new(sender, move || rings.wake()), thread))
}

fn spawn(
    name: String,
    run: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> anyhow::Result<Thread> {
    let thread = std::thread::Builder::new().name(name.clone()).spawn(run);
    thread.with_context(|| format!("thread {name}"))
}

fn shard(place: usize, count: usize) -> Shard {
    Shard {
        index: u8::try_from(place).unwrap_or(u8::MAX),
        bits: u8::try_from(count.ilog2()).unwrap_or(u8::MAX),
    }
}

/// What the host set-up needs to know; `check` uses it too.
#[must_use]
pub fn host_config(config: &Config) -> GatewayHostConfig {
    GatewayHostConfig {
        interface: config.interface.clone(),
        pool_v4: Some(config.pool.v4),
        pool_v6: Some(config.pool.v6),
        egress: match config.egress {
            config::Egress::Masquerade => Egress::Masquerade,
            config::Egress::Routed => Egress::Routed,
        },
        state_file: config.data_dir.join("host-state.json"),
    }
}

fn tun_options(config: &Config) -> TunOptions {
    let pool = &config.pool;
    let (v4, v6) = pool.gateway();
    TunOptions {
        name: config.interface.clone(),
        mtu: config.mtu,
        v4: Some((v4, pool.v4.prefix_len())),
        v6: Some((v6, pool.v6.prefix_len())),
        queue: TUN_QUEUE,
        offload: config.offload,
    }
}

fn random() -> anyhow::Result<u64> {
    let random: [u8; 8] = key_file::random().context("random numbers")?;
    Ok(u64::from_ne_bytes(random))
}

fn settings(config: &Config, boot: u64, shard: Shard) -> anyhow::Result<Settings> {
    let pool = &config.pool;
    let (v4, v6) = pool.gateway();
    let limits = &config.limits;
    Ok(Settings {
        name: config.name.as_str().into(),
        boot: boot.to_string().into(),
        shard,
        addresses: vec![IpAddr::V4(v4), IpAddr::V6(v6)],
        pools: vec![IpNet::V4(pool.v4), IpNet::V6(pool.v6)],
        mtu: usize::from(config.mtu),
        limits: Limits {
            flows: limits.flows as usize >> shard.bits,
            flows_per_device: limits.flows_per_device as usize,
            half_open_per_device: limits.half_open_per_device as usize,
        },
        on_log_failure: match config.on_log_failure {
            config::OnLogFailure::DenyNew => OnLogFailure::DenyNew,
            config::OnLogFailure::Allow => OnLogFailure::Allow,
        },
        seed: random()?,
        stopwatch: || Clock::now().mono.0,
    })
}

fn warn_of_small_buffers(udp: &UdpEnd) {
    let granted = udp.buffers().receive;
    if granted < postern_io::udp::SOCKET_BUFFER / 4 {
        tracing::warn!(
            granted,
            wanted = postern_io::udp::SOCKET_BUFFER,
            "small receive buffer: bursts will be lost; raise net.core.rmem_max"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_a_power_of_two_and_no_more_than_cores() {
        let found = [0, 1, 2, 3, 4, 7, 8, 9, 64].map(workers_for);
        assert_eq!(found, [1, 1, 2, 2, 4, 4, 8, 8, 8]);
    }
}
