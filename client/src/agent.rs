//! What a running tunnel says to the gateway by itself: it fetches its configuration, reports
//! facts, warns before a login ends, and renews its key. One thread with the control API's own
//! stack; the worker hands it packets and takes its packets and orders, and never waits for it.

use crate::api::{Api, Call, CallError};
use crate::facts;
use crate::keeper::Keeper;
use crate::line::{self, Line};
use crate::random;
use crate::state::KeyChange;
use duties::Duties;
use postern_io::clock::Clock;
use postern_io::poll::Waker;
use postern_proto::device_api::{
    CheckView, ClientConfig, DeviceStatus, PostureReport, RotateAnswer, RotateRequest,
};
use postern_proto::facts::Watched;
use postern_proto::kem::KemSecret;
use postern_proto::keys::{PresharedKey, PrivateKey};
use postern_proto::profile::Profile;
use postern_stack::driver::Net;
use postern_stack::{Limits, Stack};
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Notify, mpsc, oneshot};

mod duties;

/// Packets of the stack that wait for the worker; more are lost, and TCP sends them again.
const PACKETS: usize = 256;
/// Orders that wait for the worker.
const ORDERS: usize = 4;
/// A new key is in use within this time, or something is wrong.
const ROTATION: Duration = Duration::from_secs(90);
/// The inner MTU of the control API's own packets: every path carries it.
const MTU: usize = postern_proto::mtu::MIN_MTU;

/// What the worker is to do.
#[derive(Debug)]
pub enum Order {
    /// Apply this profile; the answer is what is in force then.
    Apply(Box<Profile>, oneshot::Sender<Box<Profile>>),
    /// Try another key.
    TryKey(PrivateKey, Option<PresharedKey>),
}

/// What the gateway said last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// How the device stands.
    pub device: Option<DeviceStatus>,
    /// Why the last call brought nothing.
    pub trouble: Option<String>,
}

/// The worker's end.
#[derive(Debug)]
pub struct Agent {
    /// Takes the packets of the control API.
    pub net: Net,
    /// Takes calls.
    pub line: Line,
    /// Takes wishes for a new key; the answer comes when it is in use.
    pub rotations: Rotations,
    /// Packets to send.
    pub packets: Receiver<Vec<u8>>,
    /// What to do.
    pub orders: Receiver<Order>,
    heard: Arc<Mutex<Heard>>,
    news: Arc<Notify>,
    keys: mpsc::Sender<KeyChange>,
}

/// Where a new key can be wished for. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Rotations(mpsc::Sender<SyncSender<Result<(), String>>>);

impl Rotations {
    /// Where nobody hears the wish.
    #[cfg(test)]
    pub(crate) fn nowhere() -> Rotations {
        Rotations(mpsc::channel(1).0)
    }

    /// Waits until the key is in use. Not on a tokio thread.
    ///
    /// # Errors
    /// Why the old key stays, in words.
    pub fn rotate(&self) -> Result<(), String> {
        let (answer, answered) = sync_channel(1);
        let busy = "a rotation is under way already";
        self.0.try_send(answer).map_err(|_| busy.to_owned())?;
        answered
            .recv_timeout(ROTATION * 2)
            .unwrap_or_else(|_| Err("the tunnel is ending".to_owned()))
    }
}

impl Agent {
    /// Starts the thread. It says nothing before [`Agent::tell_news`]. `waker` wakes the worker.
    ///
    /// # Errors
    /// No thread, no randomness, or no address to speak from.
    pub fn start(profile: &Profile, keeper: Keeper, waker: Waker) -> io::Result<Agent> {
        let stack = Stack::new(postern_stack::Config {
            addresses: profile.addresses.clone(),
            mtu: MTU,
            seed: random::seed()?,
            limits: Limits::CLIENT,
        });
        let (sender, packets) = sync_channel(PACKETS);
        let wake = waker.clone();
        let net = Net::new(stack, move |_, packet| {
            if sender.try_send(packet.to_vec()).is_ok() {
                wake.wake();
            }
        });
        let gateway = &profile.gateway;
        let at = gateway
            .tunnel_addresses
            .iter()
            .find(|at| {
                profile
                    .addresses
                    .iter()
                    .any(|own| own.is_ipv4() == at.is_ipv4())
            })
            .ok_or_else(|| io::Error::other("no tunnel address of the gateway's family"))?;
        let api = Api::new(net.connector(gateway.public_key), *at);
        let (line, calls) = Line::new();
        let (rotations, wished) = mpsc::channel(1);
        let (keys, key_changes) = mpsc::channel(4);
        let (order, orders) = sync_channel(ORDERS);
        let heard = Arc::new(Mutex::new(Heard::default()));
        let news = Arc::new(Notify::new());
        let attendant = Attendant {
            api: api.clone(),
            profile: profile.clone(),
            keeper,
            order,
            waker,
            heard: Arc::clone(&heard),
            duties: Duties::new(),
            watched: None,
            refused: None,
            key_changes,
        };
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let (driven, told) = (net.clone(), Arc::clone(&news));
        std::thread::Builder::new()
            .name("agent".to_owned())
            .spawn(move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = driven.run() => {}
                        () = line::answer(api, calls) => {}
                        () = attendant.attend(&told, wished) => {}
                    }
                });
            })?;
        Ok(Agent {
            net,
            line,
            rotations: Rotations(rotations),
            packets,
            orders,
            heard,
            news,
            keys,
        })
    }

    /// The gateway may have something new: it connected, or said so.
    pub fn tell_news(&self) {
        self.news.notify_one();
    }

    /// What became of the key that was tried.
    pub fn tell_key(&self, change: KeyChange) {
        // It fails when the thread is gone, and then nobody waits.
        let _ = self.keys.try_send(change);
    }

    /// What the gateway said last.
    #[must_use]
    pub fn heard(&self) -> Heard {
        self.heard
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// The thread's own.
struct Attendant {
    api: Api,
    /// What is in force, and in the file if there is one.
    profile: Profile,
    keeper: Keeper,
    order: SyncSender<Order>,
    waker: Waker,
    heard: Arc<Mutex<Heard>>,
    duties: Duties,
    watched: Option<Watched>,
    /// The version of a configuration that does not fit this host.
    refused: Option<String>,
    key_changes: mpsc::Receiver<KeyChange>,
}

impl Attendant {
    async fn attend(
        mut self,
        news: &Notify,
        mut wished: mpsc::Receiver<SyncSender<Result<(), String>>>,
    ) {
        loop {
            let now = Clock::now();
            let wait = self.duties.deadline(now).since(now.mono);
            tokio::select! {
                () = news.notified() => self.refresh().await,
                Some(answer) = wished.recv() => {
                    let _ = answer.send(self.rotate().await);
                }
                Some(change) = self.key_changes.recv() => self.key_changed(change).await,
                () = tokio::time::sleep(wait.min(Duration::from_secs(3600))) => self.turn().await,
                else => return,
            }
        }
    }

    /// What is due by time.
    async fn turn(&mut self) {
        self.warn();
        if self.duties.look_due(Clock::now().mono)
            && let Err(error) = self.report().await
        {
            self.failed(error);
        }
        let since = self.profile.key_since.or(self.enrolled());
        if self.duties.rotation_due(since, Clock::now()) {
            match self.rotate().await {
                Ok(()) => {}
                Err(error) => {
                    tracing::warn!(%error, "the key could not be renewed; the old one stays, and it is tried again in an hour");
                    self.duties.rotation_failed(Clock::now().mono);
                }
            }
        }
    }

    /// Since when the gateway knows the key: a profile of `device add` does not say it.
    fn enrolled(&self) -> Option<u64> {
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner);
        heard.device.as_ref().map(|device| device.key_since)
    }

    async fn refresh(&mut self) {
        if let Err(error) = self.fetch().await {
            self.failed(error);
        }
        self.warn();
    }

    /// How the device stands, and what to apply.
    async fn fetch(&mut self) -> Result<(), CallError> {
        let status: DeviceStatus = self.api.call(&Call::Device).await?;
        let config: ClientConfig = self.api.call(&Call::Config).await?;
        self.duties.stands(&status);
        self.hear(|heard| {
            if heard.device.as_ref().map(|before| before.state) != Some(status.state) {
                tracing::info!(state = ?status.state, "how this device stands");
            }
            heard.device = Some(status);
            heard.trouble = None;
        });
        let look = self.watched.as_ref() != Some(&config.watched);
        self.watched = Some(config.watched.clone());
        self.duties.configured(&config, look, Clock::now().mono);
        self.apply(config).await;
        Ok(())
    }

    async fn report(&mut self) -> Result<(), CallError> {
        let Some(watched) = self.watched.clone() else {
            return self.fetch().await;
        };
        // A blocking thread that died has found nothing out.
        let facts = tokio::task::spawn_blocking(move || facts::gather(&watched))
            .await
            .unwrap_or_default();
        if !self.duties.report_due(&facts, Clock::now().mono) {
            return Ok(());
        }
        let call = Call::Report(PostureReport {
            facts: facts.clone(),
        });
        let checks: Vec<CheckView> = self.api.call(&call).await?;
        self.duties.reported(facts, Clock::now().mono);
        for check in checks.iter().filter(|check| !check.holds) {
            tracing::debug!(
                check = check.name,
                expected = check.expected,
                received = check.received,
                "a posture check fails"
            );
        }
        self.fetch().await
    }

    /// Applies what changed, and keeps it.
    async fn apply(&mut self, config: ClientConfig) {
        let mut wanted = self.profile.clone();
        wanted.include.clone_from(&config.include);
        wanted.gateway.endpoints.clone_from(&config.endpoints);
        wanted.mtu = config.mtu;
        wanted.keepalive = config
            .keepalive
            .map(|seconds| Duration::from_secs(seconds.into()));
        if same(&wanted, &self.profile) || self.refused.as_ref() == Some(&config.version) {
            return;
        }
        let problems = wanted.check();
        if !problems.is_empty() {
            self.refused = Some(config.version);
            tracing::warn!(
                ?problems,
                "the gateway sent a configuration that cannot be used; the one before stays"
            );
            return;
        }
        let (answer, applied) = oneshot::channel();
        self.give(Order::Apply(Box::new(wanted.clone()), answer));
        let Ok(in_force) = applied.await else {
            return;
        };
        // Said once, and tried again when the gateway has another. Endpoints are asked about at
        // every fetch, until a new one has answered and the old one can go.
        wanted
            .gateway
            .endpoints
            .clone_from(&in_force.gateway.endpoints);
        self.refused = (!same(&in_force, &wanted)).then_some(config.version);
        if !same(&in_force, &self.profile) {
            self.profile = *in_force;
            self.keep();
        }
    }

    async fn rotate(&mut self) -> Result<(), String> {
        if !self.keeper.keeps() {
            return Err("the profile is not a file that can be written".to_owned());
        }
        let words = |error: io::Error| format!("no random bytes: {error}");
        let private = PrivateKey::from_random(random::bytes().map_err(words)?);
        let kem = KemSecret::from_random(random::bytes().map_err(words)?);
        let call = Call::Rotate(RotateRequest {
            public_key: private.public(),
            kem_key: Some(kem.encapsulation_key()),
        });
        let answer: RotateAnswer = self
            .api
            .call(&call)
            .await
            .map_err(|error| error.to_string())?;
        let preshared = match answer.kem_ciphertext {
            Some(ciphertext) => Some(kem.open(&ciphertext).map_err(|error| error.to_string())?),
            None => None,
        };
        // On the disk before its first use: from then on the gateway may know no other.
        let mut profile = self.profile.clone();
        profile.next_private_key = Some(private.clone());
        profile.next_preshared_key = preshared.clone();
        self.keeper
            .save(&profile)
            .map_err(|error| format!("the new key cannot be kept: {error}"))?;
        self.profile = profile;
        // What an earlier key came to is no answer to this one.
        while self.key_changes.try_recv().is_ok() {}
        self.give(Order::TryKey(private, preshared));
        match tokio::time::timeout(ROTATION, self.key_changes.recv()).await {
            Ok(Some(KeyChange::InUse)) => {
                self.key_changed(KeyChange::InUse).await;
                Ok(())
            }
            Ok(Some(KeyChange::GivenUp)) => {
                self.key_changed(KeyChange::GivenUp).await;
                Err("the gateway did not answer the new key; the old one stays".to_owned())
            }
            Ok(None) | Err(_) => Err(
                "the gateway answers neither key now; whichever it answers first will be used"
                    .to_owned(),
            ),
        }
    }

    async fn key_changed(&mut self, change: KeyChange) {
        let next = self.profile.next_private_key.take();
        let preshared = self.profile.next_preshared_key.take();
        match (change, next) {
            (KeyChange::InUse, Some(next)) => {
                tracing::info!(key = next.public().fingerprint(), "a new key is in use");
                self.profile.private_key = Some(next);
                self.profile.preshared_key = preshared;
                self.profile.key_since = Some(Clock::now().wall.seconds());
                // What is shown of the key comes from here.
                let (answer, applied) = oneshot::channel();
                self.give(Order::Apply(Box::new(self.profile.clone()), answer));
                let _ = applied.await;
            }
            (KeyChange::GivenUp, Some(_)) => {
                tracing::warn!("the gateway does not answer the new key; the old one stays");
            }
            (KeyChange::InUse | KeyChange::GivenUp, None) => return,
        }
        self.keep();
    }

    fn keep(&self) {
        if self.keeper.keeps()
            && let Err(error) = self.keeper.save(&self.profile)
        {
            tracing::warn!(%error, "the profile cannot be written; what changed is lost at the next start");
        }
    }

    fn give(&self, order: Order) {
        // It is full when the worker hangs; the answer then never comes, and nothing is kept.
        let _ = self.order.try_send(order);
        self.waker.wake();
    }

    fn warn(&mut self) {
        if let Some(left) = self.duties.warning(Clock::now().wall) {
            tracing::warn!(
                "the login ends in {} min; `postern login` renews it without dropping a connection",
                left.as_secs().div_ceil(60)
            );
        }
    }

    fn failed(&mut self, error: CallError) {
        tracing::debug!(%error, "the control API");
        self.duties.failed(Clock::now().mono);
        self.hear(|heard| heard.trouble = Some(error.to_string()));
    }

    fn hear(&self, write: impl FnOnce(&mut Heard)) {
        write(&mut self.heard.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// In what the gateway may change.
fn same(one: &Profile, other: &Profile) -> bool {
    let part = |profile: &Profile| {
        (
            profile.include.clone(),
            profile.gateway.endpoints.clone(),
            profile.mtu,
            profile.keepalive,
        )
    };
    part(one) == part(other)
}
