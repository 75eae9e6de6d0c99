//! For tests only: the control API on a loopback port, for a fuzzer of OpenAPI files. The very
//! router, control plane, store and log of the gateway, without budgets and without a tunnel:
//! whoever connects is taken for one fixed key. tests/control-api/run.sh starts it.
//!
//!     device_api device|guest FOLDER
//!
//! Prints its address and serves until its standard input ends.
#![allow(clippy::print_stdout)]

use anyhow::{Context, bail};
use axum::extract::connect_info::MockConnectInfo;
use postern_gateway::control::{Control, Parts};
use postern_gateway::device_api::{Caller, router_without_limits};
use postern_gateway::flow_log::FlowLog;
use postern_gateway::init::init;
use postern_gateway::live_config::LiveConfig;
use postern_gateway::policy_watch::{self, PolicyKeeper};
use postern_gateway::store::{Enrolment, Kind, NewInvitation, Require, Store};
use postern_gateway::worker_api::{
    Caller as Thread, Cut, DoorCommand, WORKER_QUEUE, WorkerCommand,
};
use postern_gateway::workers::Workers;
use postern_gateway::{config::Config, front_door::FrontDoor};
use postern_io::clock::Clock;
use postern_proto::keys::PrivateKey;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;

const POLICY: &str = "version: 1
posture:
  walled: { firewall: on }
  watched: { process: falcon-sensor }
  pinned: { file: /etc/ca.pem, sha256: \"0000000000000000000000000000000000000000000000000000000000000000\" }
targets:
  nodes: { addresses: [192.0.2.10], ports: [22/tcp] }
rules:
  - { name: ssh, action: allow, from: { groups: [sre], posture: [walled] }, to: [nodes] }
grants:
  - { name: nodes for a while, from: { groups: [sre] }, to: [nodes], max: 365d, approvers: { groups: [sre] }, break_glass: true }
";

/// Nothing listens there: a login can be begun, and no mail arrives.
const LOGIN: &str = "
login:
  email:
    server: 127.0.0.1:9
    tls: none
    from: postern@example.com
    allow: [\"*@example.com\"]
";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [who, folder] = words.as_slice() else {
        bail!("usage: device_api device|guest FOLDER");
    };
    let key = PrivateKey::from_random([1; 32]).public();
    let config = prepare(Path::new(folder))?;
    let store = Store::open(&config.store_path(), config.pool).await?;
    match who.as_str() {
        "device" => {
            let device = Enrolment::new("bo-laptop", Some("bo"), &["sre".into()], key, None)?;
            store.add_device(device, 1).await?;
        }
        "guest" => {
            let open = NewInvitation {
                kind: Kind::Open,
                user: None,
                groups: Vec::new(),
                labels: Vec::new(),
                name: None,
                require: Require::Approval,
                uses: 100_000,
                keys: vec![key],
                expires: u64::MAX >> 1,
                made_by: "root".into(),
            };
            store.add_invitation(&open, 1).await?;
        }
        _ => bail!("usage: device_api device|guest FOLDER"),
    }
    let log = FlowLog::start(&config, 1, 1).context("flow log")?;
    let begun = policy_watch::begin(&config, &store, Clock::now().wall).await?;
    let live = LiveConfig::new(config);
    let workers = data_plane();
    let control = Control::new(Parts {
        policy: PolicyKeeper::new(begun, live.clone(), store.clone(), workers.clone()),
        config: live,
        boot: 1,
        store,
        workers,
        log: log.handle(),
        public_key: PrivateKey::from_random([2; 32]).public(),
    })
    .await?;
    let caller = Caller { key, outer: None };
    let app = router_without_limits(Arc::new(control)).layer(MockConnectInfo(caller));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?);
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        drop(ended);
    });
    axum::serve(listener, app)
        .with_graceful_shutdown(async move {
            let _ = end.await;
        })
        .await?;
    Ok(())
}

fn prepare(folder: &Path) -> anyhow::Result<Config> {
    let endpoint = "vpn.example.com:51820".parse()?;
    let config = init(&folder.join("gw"), Some(&endpoint))?;
    let text = std::fs::read_to_string(&config.path)?;
    std::fs::write(&config.path, text + LOGIN)?;
    std::fs::write(&config.policy, POLICY)?;
    Ok(Config::load(&config.path)?)
}

/// A worker and a door that take everything and carry nothing.
fn data_plane() -> Workers {
    let (to_worker, commands) = sync_channel(WORKER_QUEUE);
    std::thread::spawn(move || {
        while let Ok(command) = commands.recv() {
            obey(command);
        }
    });
    let (to_door, commands) = sync_channel::<DoorCommand>(WORKER_QUEUE);
    std::thread::spawn(move || {
        let mut door = FrontDoor::new(&PrivateKey::from_random([2; 32]), 1, 7);
        while let Ok(command) = commands.recv() {
            if command.obey(&mut door).is_break() {
                return;
            }
        }
    });
    Workers::new(
        vec![Thread::new(to_worker, || {})],
        Thread::new(to_door, || {}),
    )
}

/// Whoever stopped waiting is no error.
fn obey(command: WorkerCommand) {
    let nothing = Cut { flows: 0 };
    match command {
        WorkerCommand::AddDevice { done, .. } | WorkerCommand::RotateDevice { done, .. } => {
            let _ = done.send(Ok(()));
        }
        WorkerCommand::RemoveDevice { done, .. }
        | WorkerCommand::UpdateDevice { done, .. }
        | WorkerCommand::SetPolicy { done, .. }
        | WorkerCommand::KillFlows { done, .. }
        | WorkerCommand::Stop { done, .. } => {
            let _ = done.send(nothing);
        }
        WorkerCommand::ListFlows { done, .. } => {
            let _ = done.send(Vec::new());
        }
        WorkerCommand::Snapshot { done } => {
            let _ = done.send(Default::default());
        }
        WorkerCommand::Tell { .. } => {}
    }
}
