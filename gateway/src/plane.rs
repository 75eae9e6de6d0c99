//! The data plane, put together: TUN, host, sockets, engine, worker thread, flow log.
//!
//! The order matters. The flow log opens first, because nothing may pass unrecorded; the TUN
//! comes before the host set-up that names it. The socket is older than all of them: its port may
//! need a capability that is dropped before the first thread starts. What arrives meanwhile
//! waits in its buffer.

use crate::config::{self, Config};
use crate::flow_log::{FlowLog, FlowLogHandle};
use crate::key_file;
use crate::worker::DataWorker;
use crate::worker_api::{DeviceRecord, WORKER_QUEUE, Worker};
use anyhow::{Context, anyhow};
use ipnet::IpNet;
use postern_engine::gateway::Gateway;
use postern_engine::policy::Policy;
use postern_engine::settings::{Limits, OnLogFailure, Settings};
use postern_io::clock::Clock;
use postern_io::host::{Egress, GatewayHost, GatewayHostConfig};
use postern_io::offload;
use postern_io::poll::Waker;
use postern_io::tun::{Tun, TunOptions};
use postern_io::udp::{UdpEnd, UdpOptions};
use postern_proto::keys::PrivateKey;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

/// Packets or super-packets that the kernel queues towards us. Measured: 128 makes a round trip
/// beside a bulk upload no shorter, 64 and less make TCP send again.
const TUN_QUEUE: u32 = 500;

/// How long the flow log may take to write what is left when the gateway stops.
const LOG_PATIENCE: Duration = Duration::from_secs(5);

/// The running data plane.
pub struct Plane {
    /// To the worker.
    pub worker: Worker,
    /// To the flow log.
    pub log: FlowLogHandle,
    /// Which offloads are in use at the start.
    pub offload: String,
    thread: JoinHandle<io::Result<()>>,
    flow_log: FlowLog,
    host: GatewayHost,
}

/// How the gateway ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Flows are cut, the host is put back.
    Stop,
    /// Flows and the host are left for a successor.
    HandOver,
}

/// Opens the gateway's port.
///
/// # Errors
/// It is taken, or not permitted; the words say what to do.
pub fn bind(config: &Config) -> anyhow::Result<UdpEnd> {
    let udp = UdpEnd::bind(&UdpOptions {
        port: config.listen_port,
        // A gateway cannot know every path; fragments beat silence.
        may_fragment: true,
        ..UdpOptions::default()
    })?;
    warn_of_small_buffers(&udp);
    Ok(udp)
}

impl Plane {
    /// Puts it together and starts it.
    ///
    /// # Errors
    /// What could not be had, and what to do about it. What had been changed by then is put back.
    pub fn start(
        config: &Config,
        udp: UdpEnd,
        key: &PrivateKey,
        policy: Arc<Policy>,
        devices: Vec<DeviceRecord>,
        boot: u64,
    ) -> anyhow::Result<Plane> {
        let (records, flow_log) = FlowLog::start(&config.flow_log).context("flow log")?;
        let tun = Tun::open(&tun_options(config))?;
        let host = GatewayHost::set_up(&host_config(config))?;
        let road = postern_io::road::open(udp, Some(tun)).context("sockets")?;
        let offload = offload::in_words(&offload::offloads(&road.0, &road.1));
        let waker = Waker::new().context("eventfd")?;
        let (commands, receiver) = sync_channel(WORKER_QUEUE);
        let now = Clock::now();
        let gateway = Gateway::new(settings(config, boot)?, key, policy, now);
        let mut data = DataWorker::new(gateway, road, waker.clone(), receiver, records);
        for device in devices {
            let name = device.name.clone();
            data.add(device)
                .map_err(|error| anyhow!("device {name}: {error}"))?;
        }
        let thread = std::thread::Builder::new()
            .name("worker".to_owned())
            .spawn(move || data.run())
            .context("worker thread")?;
        let worker = Worker::new(commands, Arc::new(move || waker.wake()));
        let log = flow_log.handle();
        Ok(Plane {
            worker,
            log,
            offload,
            thread,
            flow_log,
            host,
        })
    }

    /// Whether the worker is still at work.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        !self.thread.is_finished()
    }

    /// Ends the worker, waits for the last record to be on disk, and puts the host back or leaves
    /// it. Returns how many flows were cut.
    ///
    /// # Errors
    /// The worker had ended before, or the host could not be put back.
    pub async fn end(self, ending: Ending) -> anyhow::Result<u64> {
        let cut = self.worker.stop(ending == Ending::HandOver).await;
        let worked = match self.thread.join() {
            Ok(worked) => worked.context("the interface is gone"),
            Err(_) => Err(anyhow!("the worker thread panicked")),
        };
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

fn settings(config: &Config, boot: u64) -> anyhow::Result<Settings> {
    let pool = &config.pool;
    let (v4, v6) = pool.gateway();
    let random: [u8; 8] = key_file::random().context("random numbers")?;
    let limits = &config.limits;
    Ok(Settings {
        name: config.name.as_str().into(),
        boot: boot.to_string().into(),
        addresses: vec![IpAddr::V4(v4), IpAddr::V6(v6)],
        pools: vec![IpNet::V4(pool.v4), IpNet::V6(pool.v6)],
        mtu: usize::from(config.mtu),
        limits: Limits {
            flows: limits.flows as usize,
            flows_per_device: limits.flows_per_device as usize,
            half_open_per_device: limits.half_open_per_device as usize,
        },
        on_log_failure: match config.on_log_failure {
            config::OnLogFailure::DenyNew => OnLogFailure::DenyNew,
            config::OnLogFailure::Allow => OnLogFailure::Allow,
        },
        seed: u64::from_ne_bytes(random),
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
