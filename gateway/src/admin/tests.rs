mod identity;
mod policy;

use super::client::{Client, ClientError};
use super::*;
use crate::api::*;
use crate::config::Config;
use crate::control::Parts;
use crate::fake_worker::{FakeWorker, flow};
use crate::flow_log::{self, FlowLog, RecordSender};
use crate::init::{FIRST_POLICY, init};
use crate::live_config::LiveConfig;
use crate::policy_watch::{PolicyKeeper, begin};
use crate::scratch::Scratch;
use crate::store::Store;
use postern_io::clock::Clock;
use postern_proto::keys::PrivateKey;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

/// A control plane on a real socket, with a worker that only remembers.
struct World {
    folder: Scratch,
    config: Config,
    control: Arc<Control>,
    fake: FakeWorker,
    client: Client,
    records: RecordSender,
    _log: FlowLog,
    stop: watch::Sender<bool>,
    server: tokio::task::JoinHandle<io::Result<()>>,
}

impl World {
    async fn start() -> World {
        World::with(|_| {}).await
    }

    /// With another configuration.
    async fn with(set: impl FnOnce(&mut Config)) -> World {
        let folder = Scratch::new();
        let endpoint = "vpn.example.com:51820".parse().expect("endpoint");
        let mut config = init(&folder.path("gw"), Some(&endpoint)).expect("made");
        set(&mut config);
        let (workers, fake) = FakeWorker::start();
        let log = FlowLog::start(&config, 1, 1).expect("starts");
        let records = log.sender(0);
        let store = Store::open(&config.store_path(), config.pool)
            .await
            .expect("opens");
        let live = LiveConfig::new(config.clone());
        let begun = begin(&config, &store, Clock::now().wall).await;
        let begun = begun.expect("a good policy");
        let parts = Parts {
            policy: PolicyKeeper::new(begun, live.clone(), store.clone(), workers.clone())
                .with_audit(log.handle().audit()),
            config: live,
            boot: store.next_boot().await.expect("counted"),
            store,
            workers,
            log: log.handle(),
            public_key: PrivateKey::from_random([99; 32]).public(),
        };
        let control = Arc::new(Control::new(parts).await.expect("reads"));
        let listener = bind(&config.admin_socket).expect("binds");
        let (stop, stopped) = watch::channel(false);
        let server = tokio::spawn(serve(listener, control.clone(), stopped));
        let client = Client::new(&config.admin_socket);
        World {
            folder,
            config,
            control,
            fake,
            client,
            records,
            _log: log,
            stop,
            server,
        }
    }

    async fn add(&self, name: &str, seed: u8) -> Result<DeviceAdded, ClientError> {
        let new = NewDevice {
            name: name.into(),
            user: Some("ana@example.com".into()),
            groups: vec!["sre".into()],
            labels: Vec::new(),
            public_key: PrivateKey::from_random([seed; 32]).public(),
            preshared_key: None,
        };
        self.client.post("/v1/devices", &new).await
    }
}

fn refused<T: std::fmt::Debug>(result: Result<T, ClientError>) -> ApiError {
    let error = result.expect_err("refused");
    let ClientError::Refused(refusal) = error else {
        panic!("{error}")
    };
    refusal
}

#[tokio::test]
async fn a_device_is_added_listed_and_revoked() {
    let world = World::start().await;
    let added = world.add("ana", 1).await.expect("added");
    assert_eq!(added.device.addresses[0].to_string(), "100.96.0.2");
    assert_eq!(added.gateway.tunnel_addresses[0].to_string(), "100.96.0.1");
    let include: Vec<_> = added.include.iter().map(ToString::to_string).collect();
    assert!(include.contains(&"192.0.2.10/32".to_owned()), "{include:?}");
    assert_eq!(world.fake.asked().devices, ["ana"]);

    assert!(refused(world.add("ana", 2).await).error.contains("already"));
    let cut: CutView = world
        .client
        .post("/v1/devices/ana/revoke", &())
        .await
        .expect("revoked");
    assert_eq!((cut.flows, world.fake.asked().removed), (7, 1));
    let shown: DeviceView = world
        .client
        .get("/v1/devices/ana")
        .await
        .expect("history stays");
    assert_eq!(shown.state, DeviceState::Revoked);
    assert!(
        refused(world.add("eve", 1).await).error.contains("revoked"),
        "the key is spent"
    );
    let all: Vec<DeviceView> = world.client.get("/v1/devices").await.expect("listed");
    assert_eq!(all.len(), 1);
    let absent = refused(world.client.get::<DeviceView>("/v1/devices/bob").await);
    assert!(absent.error.contains("no device 'bob'") && !absent.help.is_empty());
}

#[tokio::test]
async fn every_change_is_on_disk_when_it_is_answered() {
    let world = World::start().await;
    world.add("ana", 1).await.expect("added");
    refused(world.add("ana", 2).await);
    let revoke = |name: &str| format!("/v1/devices/{name}/revoke");
    let _: CutView = world.client.post(&revoke("ana"), &()).await.expect("done");
    refused(world.client.post::<CutView>(&revoke("bob"), &()).await);
    let select = FlowFilter {
        user: Some("ana@example.com".into()),
        ..FlowFilter::default()
    };
    let killed = world.client.post::<CutView>("/v1/flows/kill", &select);
    killed.await.expect("cut");
    std::fs::write(&world.config.policy, format!("{FIRST_POLICY}\n# a word\n")).expect("written");
    let reload = || world.client.post::<Reloaded>("/v1/policy/reload", &());
    assert!(reload().await.expect("read").changed);
    std::fs::write(&world.config.policy, "rules: [").expect("written");
    for _ in 0..2 {
        assert!(!reload().await.expect("read").policy.ok);
    }
    let config = std::fs::read_to_string(&world.config.path).expect("there");
    for more in ["require_approval: true", "require_approval: perhaps"] {
        std::fs::write(&world.config.path, format!("{config}\n{more}\n")).expect("written");
        reload().await.expect("read");
    }

    let segment = world.config.flow_log.dir.join("00000000000000000001.jsonl");
    let text = std::fs::read_to_string(segment).expect("readable");
    let lines: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .filter(|line: &serde_json::Value| line["kind"] == "audit")
        .collect();
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            let text = |field: &str| line[field].as_str().unwrap_or("-");
            assert!(line["uid"].is_u64(), "{line}");
            format!(
                "{} {} {}",
                text("action"),
                text("object_kind"),
                text("outcome")
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "device-add device done",
            "device-add device refused",
            "device-revoke device done",
            "device-revoke device refused",
            "flows-kill flow done",
            "policy-load policy done",
            "policy-load policy refused",
            "config-load config done",
            "config-load config refused",
        ]
    );
    assert_eq!(lines[0]["after"]["groups"][0], "sre");
    assert_eq!(lines[2]["before"]["state"], "active");
    assert_eq!(lines[2]["after"]["flows_cut"], 7);
    assert_ne!(lines[5]["before"]["policy"], lines[5]["after"]["policy"]);
    assert!(lines[6]["reason"].is_string());
    assert_eq!(lines[7]["after"]["fields"][0], "require_approval");
    assert!(lines[8]["reason"].is_string());
}

#[tokio::test]
async fn what_the_worker_refuses_is_not_stored() {
    let world = World::start().await;
    world.fake.asked().refuse = true;
    assert!(refused(world.add("ana", 1).await).error.contains("full"));
    world
        .add("ana", 1)
        .await
        .expect("the name and the key are still free");
}

#[tokio::test]
async fn without_an_endpoint_nobody_is_enrolled() {
    let world = World::start().await;
    let text = std::fs::read_to_string(&world.config.path).expect("there");
    let without: String = text
        .lines()
        .filter(|l| !l.starts_with("endpoint"))
        .map(|l| format!("{l}\n"))
        .collect();
    std::fs::write(&world.config.path, without).expect("written");
    world.control.config.reload();
    let error = refused(world.add("ana", 1).await);
    assert!(error.help.contains("endpoint: HOST:PORT"), "{error:?}");
    assert!(world.fake.asked().devices.is_empty());
}

#[tokio::test]
async fn flows_are_listed_and_killed_by_filter() {
    let world = World::start().await;
    let flow = flow();
    world.fake.asked().flows = vec![
        flow.clone(),
        FlowView {
            id: 2,
            device: "bob".into(),
            ..flow
        },
    ];
    let to = FlowFilter {
        to: "192.0.2.0/24".parse().ok(),
        ..FlowFilter::default()
    };
    let list = |filter: FlowFilter| {
        let client = world.client.clone();
        async move {
            client
                .post::<Vec<FlowView>>("/v1/flows/list", &filter)
                .await
                .expect("listed")
        }
    };
    assert_eq!(list(FlowFilter::default()).await.len(), 2);
    assert_eq!(list(to).await.len(), 2);
    let bob = FlowFilter {
        device: Some("bob".into()),
        ..FlowFilter::default()
    };
    assert_eq!(list(bob.clone()).await[0].id, 2);

    let all = world
        .client
        .post::<CutView>("/v1/flows/kill", &FlowFilter::default())
        .await;
    assert!(refused(all).error.contains("no flow is selected"));
    assert_eq!(world.fake.asked().killed, 0);
    let cut: CutView = world
        .client
        .post("/v1/flows/kill", &bob)
        .await
        .expect("killed");
    assert_eq!(cut.flows, 7);
}

#[tokio::test]
async fn a_listener_sees_records_and_is_let_go_at_the_end() {
    let world = World::start().await;
    let (seen, mut lines) = tokio::sync::mpsc::unbounded_channel();
    let client = world.client.clone();
    let tail = tokio::spawn(async move {
        client
            .lines("/v1/flows/tail", |line| seen.send(line.to_owned()).is_ok())
            .await
    });
    // The listener is there once a line arrives; until then lines go to nobody.
    let line = loop {
        let _full = world.records.offer(flow_log::tests::opens(0..1));
        let patience = Duration::from_millis(20);
        if let Ok(Some(line)) = tokio::time::timeout(patience, lines.recv()).await {
            break line;
        }
    };
    assert!(line.contains(r#""device":"ana-laptop""#), "{line}");
    world.stop.send(true).expect("served");
    tail.await.expect("no panic").expect("a clean end");
    world.server.await.expect("no panic").expect("a clean end");
    assert!(
        !world.config.admin_socket.exists(),
        "nothing is left behind"
    );
}

#[tokio::test]
async fn the_policy_is_explained_and_reloaded() {
    let world = World::start().await;
    world.add("ana", 1).await.expect("added");
    let ask = |device: Option<&str>, to: &str| ExplainRequest {
        device: device.map(str::to_owned),
        user: None,
        groups: Vec::new(),
        to: to.to_owned(),
    };
    let client = &world.client;
    let yes: Explained = client
        .post("/v1/policy/explain", &ask(Some("ana"), "192.0.2.10:22/tcp"))
        .await
        .expect("said");
    assert!(
        yes.allow,
        "the device's groups come from the store: {}",
        yes.text
    );
    let no: Explained = client
        .post("/v1/policy/explain", &ask(Some("ana"), "192.0.2.10:23/tcp"))
        .await
        .expect("said");
    assert!(
        !no.allow && no.explanation["nearest"]["rule"].is_string(),
        "{}",
        no.explanation
    );
    let odd = client
        .post::<Explained>("/v1/policy/explain", &ask(None, "nowhere"))
        .await;
    assert!(!refused(odd).help.is_empty());

    std::fs::write(&world.config.policy, "version: 1\nrules: nonsense\n").expect("written");
    let bad: Reloaded = client
        .post("/v1/policy/reload", &())
        .await
        .expect("answered");
    assert!(!bad.changed && !bad.policy.ok && !bad.policy.errors.is_empty());
    std::fs::write(&world.config.policy, format!("{FIRST_POLICY}# more\n")).expect("written");
    let good: Reloaded = client
        .post("/v1/policy/reload", &())
        .await
        .expect("answered");
    assert_eq!((good.changed, good.policy.ok, good.cut), (true, true, 7));
}

#[tokio::test]
async fn status_tells_everything_at_a_glance() {
    let world = World::start().await;
    world.add("ana", 1).await.expect("added");
    world.fake.asked().snapshot.open_flows = 3;
    let status: Status = world.client.get("/v1/status").await.expect("said");
    assert_eq!(
        (status.state.as_str(), status.boot, status.devices),
        ("ready", 1, 1)
    );
    assert_eq!((status.open_flows, status.policy.generation), (3, 1));
}

#[tokio::test]
async fn every_refusal_has_the_same_shape() {
    let world = World::start().await;
    let nowhere = refused(world.client.get::<Status>("/v1/nonsense").await);
    assert!(nowhere.error.contains("no such path"));
    let garbage = refused(
        world
            .client
            .post::<DeviceAdded>("/v1/devices", &"text")
            .await,
    );
    assert!(garbage.error.contains("does not read"));
    let unknown = serde_json::json!({"dvice": "ana"});
    let filter = refused(
        world
            .client
            .post::<CutView>("/v1/flows/kill", &unknown)
            .await,
    );
    assert!(
        filter.error.contains("dvice"),
        "a typing error must not select everything"
    );
}

#[tokio::test]
async fn the_socket_is_closed_to_others_and_never_taken_from_a_living_gateway() {
    let world = World::start().await;
    let path = &world.config.admin_socket;
    let mode = std::fs::metadata(path).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(matches!(bind(path), Err(BindError::Running(_))));
    world.add("ana", 1).await.expect("still served");

    let stale = world.folder.path("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).expect("binds"));
    bind(&stale).expect("nobody answers, so it is taken over");

    let file = world.folder.path("precious");
    std::fs::write(&file, "data").expect("written");
    assert!(matches!(bind(&file), Err(BindError::NoSocket(_))));
    assert!(file.exists());

    let nobody = Client::new(&world.folder.path("absent.sock"));
    assert!(matches!(
        nobody.get::<Status>("/v1/status").await,
        Err(ClientError::NotRunning(_))
    ));
}

#[tokio::test]
async fn health_follows_the_worker_and_the_log() {
    let world = World::start().await;
    world.control.ready().await.expect("ready");
    let text = crate::metrics::Metrics::new()
        .expect("one name, one metric")
        .render(world.control.facts().await)
        .expect("well formed");
    assert!(text.contains("postern_policy_reload_success 1"), "{text}");
    assert!(text.contains("postern_devices 0"), "{text}");
}
