//! The running gateway: everything started in order, served until a signal, ended in order.
//!
//! Signals: `SIGTERM` and `SIGINT` stop (flows are cut, the host is put back); `SIGUSR1` hands
//! over to a successor (flows and host are left); `SIGHUP` reads policy and configuration again.

use crate::audit::Actor;
use crate::config::Config;
use crate::control::{Control, Parts, guests};
use crate::device_api;
use crate::inside::Inside;
use crate::key_file;
use crate::live_config::LiveConfig;
use crate::names::Names;
use crate::plane::{self, Ending, Plane};
use crate::policy_watch::{self, PolicyKeeper};
use crate::store::{Noted, Store, Terms};
use crate::{admin, metrics};
use anyhow::Context;
use postern_io::clock::Clock;
use postern_io::host;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, UnixListener};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// How often it is checked that all threads are still at work.
const PULSE: Duration = Duration::from_millis(500);

/// Runs the gateway until it is told to end.
///
/// # Errors
/// What could not be had at the start, or failed on the way, in words that say what to do.
pub fn run(config: Config) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("tokio runtime")?
        .block_on(serve(config))
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let key = key_file::read(&config.key_file)?;
    let reserved = plane::reserve(&config)?;
    // Capabilities belong to threads, so this comes before the first one that is started.
    host::drop_privileges()?;
    let store = Store::open(&config.store_path(), config.pool).await?;
    let boot = store.next_boot().await?;
    let live = LiveConfig::new(config.clone());
    let names = Names::new(live.clone(), store.clone()).await?;
    // By the last good answers, at once: a resolver that is away keeps nobody out.
    let begun = policy_watch::begin(&config, &store, Clock::now().wall).await?;
    let begun = begun.with_answers(names.answers()).await?;
    let policy = begun.policy.clone();
    let terms = Terms::of(&config);
    let now = Clock::now().wall;
    let devices = store.active_devices(now.seconds(), &terms).await?;
    let known = devices.len();
    let mut devices = store.noted_all(devices, now).await?;
    devices.extend(guests(&store).await?.into_iter().map(Noted::guest));
    // Listeners first: a second gateway on the same data must change nothing on the host.
    let admin_socket = admin::bind(&config.admin_socket)?;
    let metrics_socket = match config.metrics {
        Some(at) => Some(TcpListener::bind(at).await.with_context(|| {
            format!("metrics: cannot listen on {at}; set another address, or none, in gateway.yaml")
        })?),
        None => None,
    };
    let (plane, inside) = Plane::start(&config, reserved, &key, &policy, devices, boot)?;
    tracing::info!(
        port = config.listen_port,
        interface = config.interface,
        workers = plane.count,
        offload = plane.offload,
        devices = known,
        policy = %policy.hash(),
        public_key = %key.public(),
        boot,
        "gateway is up"
    );
    let workers = plane.workers.clone();
    let keeper = PolicyKeeper::new(begun, live.clone(), store.clone(), workers)
        .with_audit(plane.log.audit())
        .with_names(names.clone());
    let control = Control::new(Parts {
        config: live,
        policy: keeper,
        store,
        workers: plane.workers.clone(),
        log: plane.log.clone(),
        boot,
        public_key: key.public(),
    })
    .await?
    .with_inside(inside.handle())
    .with_names(names);
    control.resume_rotations().await?;
    control.tell_untold_grants().await?;
    let control = Arc::new(control);
    let ending = attend(&control, &plane, inside, admin_socket, metrics_socket).await;
    control.remember_last().await;
    control.store.clone().close().await;
    let ended = plane.end(*ending.as_ref().unwrap_or(&Ending::Stop)).await;
    let cut = ended.as_ref().copied().unwrap_or(0);
    tracing::info!(flows_cut = cut, "gateway is down");
    ending?;
    ended.map(|_| ())
}

/// Serves until a signal says how to end.
async fn attend(
    control: &Arc<Control>,
    plane: &Plane,
    inside: Inside,
    admin_socket: UnixListener,
    metrics_socket: Option<TcpListener>,
) -> anyhow::Result<Ending> {
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    let admin = admin::serve(admin_socket, Arc::clone(control), stopped.clone());
    tasks.spawn(async move { admin.await.context("admin socket") });
    let (devices, stop_inside) = (Arc::clone(control), stopped.clone());
    tasks.spawn(async move {
        let api = device_api::router(Arc::clone(&devices));
        let rotated = |old, new| {
            let devices = Arc::clone(&devices);
            async move { devices.rotated(&old, &new).await }
        };
        inside.serve(api, rotated, stop_inside).await;
        Ok(())
    });
    if let Some(listener) = metrics_socket {
        let metrics = metrics::serve(listener, Arc::clone(control), stopped);
        tasks.spawn(async move { metrics.await.context("metrics") });
    }
    let audit = control.log.audit();
    let ending = tokio::select! {
        signalled = signals(control) => signalled,
        () = pulse(plane) => Err(anyhow::anyhow!("a thread of the data plane has stopped")),
        () = control.policy.watch() => Err(anyhow::anyhow!("the policy watch ended")),
        () = control.config.watch(&audit) => Err(anyhow::anyhow!("the configuration watch ended")),
        () = control.keep_time() => Err(anyhow::anyhow!("the janitor ended")),
        () = control.keep_names() => Err(anyhow::anyhow!("the names' keeper ended")),
        () = control.remember() => Err(anyhow::anyhow!("the store keeper ended")),
        Some(task) = tasks.join_next() => match task {
            Ok(Ok(())) => Err(anyhow::anyhow!("a server ended before it was told to")),
            Ok(Err(error)) => Err(error),
            Err(error) => Err(error.into()),
        },
    };
    // Nobody may listen: all servers may have ended already.
    let _ = stop.send(true);
    let _ = tokio::time::timeout(Duration::from_secs(2), async {
        while tasks.join_next().await.is_some() {}
    })
    .await;
    ending
}

async fn signals(control: &Control) -> anyhow::Result<Ending> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hand_over = signal(SignalKind::user_defined1())?;
    let mut reload = signal(SignalKind::hangup())?;
    loop {
        tokio::select! {
            _ = terminate.recv() => return Ok(Ending::Stop),
            _ = interrupt.recv() => return Ok(Ending::Stop),
            _ = hand_over.recv() => return Ok(Ending::HandOver),
            _ = reload.recv() => {
                control.config.reload_by(Actor::Gateway, &control.log.audit()).await;
                control.policy.reload().await;
            }
        }
    }
}

/// Returns when a thread is no longer at work.
async fn pulse(plane: &Plane) {
    while plane.is_alive() {
        tokio::time::sleep(PULSE).await;
    }
}
