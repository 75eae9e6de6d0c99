//! What a device sees of the API, and what the gateway's store, data plane and log see of it.

mod described;
mod doors;
mod grants;
mod logins;

use super::*;
use crate::config::Config;
use crate::control::Parts;
use crate::fake_worker::FakeWorker;
use crate::flow_log::FlowLog;
use crate::init::init;
use crate::live_config::LiveConfig;
use crate::login::Proven;
use crate::policy_watch::{PolicyKeeper, begin};
use crate::scratch::Scratch;
use crate::store::{Enrolment, Join, Kind as InvitationKind, NewInvitation, Require, Store};
use axum::body::{Body, to_bytes};
use axum::extract::connect_info::MockConnectInfo;
use axum::http::HeaderMap;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use postern_io::clock::Clock;
use postern_proto::keys::{PrivateKey, PublicKey};
use serde_json::{Value, json};
use std::path::PathBuf;

const POLICY: &str = "version: 1
posture:
  walled: { firewall: on }
  watched: { process: falcon-sensor }
targets:
  nodes: { addresses: [192.0.2.10], ports: [22/tcp] }
  wiki: { addresses: [192.0.2.80], ports: [443/tcp] }
rules:
  - { name: ssh, action: allow, from: { groups: [sre], posture: [walled] }, to: [nodes] }
  - { name: wiki, action: allow, from: { groups: [staff] }, to: [wiki] }
";

/// A gateway without a data plane: `bo-laptop` is bo's, `robot` is a machine, `borrowed` joined by
/// an open invitation and waits for its first login, and one throw-away key of that is left.
struct World {
    _folder: Scratch,
    config: Config,
    control: Arc<Control>,
    fake: FakeWorker,
    router: Router,
    log: Option<FlowLog>,
}

fn key(seed: u8) -> PublicKey {
    PrivateKey::from_random([seed; 32]).public()
}

const BO: u8 = 1;
const ROBOT: u8 = 2;
const BORROWED: u8 = 3;
const GUEST: u8 = 4;

impl World {
    async fn start() -> World {
        let folder = Scratch::new();
        let endpoint = "vpn.example.com:51820".parse().expect("endpoint");
        let config = init(&folder.path("gw"), Some(&endpoint)).expect("made");
        std::fs::write(&config.policy, POLICY).expect("written");
        let (workers, fake) = FakeWorker::start();
        let log = FlowLog::start(&config, 1, 1).expect("starts");
        let store = Store::open(&config.store_path(), config.pool)
            .await
            .expect("opens");
        enrol(&store).await;
        let live = LiveConfig::new(config.clone());
        let begun = begin(&config, &store, Clock::now().wall).await;
        let begun = begun.expect("a good policy");
        let parts = Parts {
            policy: PolicyKeeper::new(begun, live.clone(), store.clone(), workers.clone()),
            config: live,
            boot: 1,
            store,
            workers,
            log: log.handle(),
            public_key: key(99),
        };
        let control = Arc::new(Control::new(parts).await.expect("reads"));
        World {
            router: router(control.clone()),
            _folder: folder,
            config,
            control,
            fake,
            log: Some(log),
        }
    }

    async fn get(&self, who: u8, path: &str) -> (u16, Value) {
        let (status, _, body) = self.ask(who, "GET", path, None).await;
        (status, body)
    }

    async fn post(&self, who: u8, path: &str, body: Value) -> (u16, Value) {
        let text = body.to_string();
        let (status, _, body) = self.ask(who, "POST", path, Some(text.as_bytes())).await;
        (status, body)
    }

    async fn ask(
        &self,
        who: u8,
        method: &str,
        path: &str,
        body: Option<&[u8]>,
    ) -> (u16, HeaderMap, Value) {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = Body::from(body.unwrap_or(&[]).to_vec());
        self.send(who, request.body(body).expect("a request")).await
    }

    async fn send(&self, who: u8, request: Request) -> (u16, HeaderMap, Value) {
        let caller = Caller {
            key: key(who),
            outer: "198.51.100.7:1000".parse().ok(),
        };
        let router = self.router.clone().layer(MockConnectInfo(caller));
        let answered = TowerToHyperService::new(router).call(request).await;
        let response = answered.expect("infallible");
        let (head, body) = response.into_parts();
        let bytes = to_bytes(body, 1 << 20).await.expect("a body");
        assert_eq!(head.headers["content-type"], "application/json");
        assert_eq!(head.headers["cache-control"], "no-store");
        let body = match bytes.is_empty() {
            true => Value::Null,
            false => serde_json::from_slice(&bytes).expect("JSON"),
        };
        (head.status.as_u16(), head.headers, body)
    }

    /// The audit lines of the log on disk.
    fn audited(&self) -> Vec<Value> {
        let folder = &self.config.flow_log.dir;
        let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
            .expect("a folder")
            .flatten()
            .map(|file| file.path())
            .filter(|path| path.extension().is_some_and(|kind| kind == "jsonl"))
            .collect();
        files.sort();
        let text: String = files
            .iter()
            .map(|path| std::fs::read_to_string(path).expect("readable"))
            .collect();
        text.lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|line: &Value| line["kind"] == "audit")
            .collect()
    }
}

async fn enrol(store: &Store) {
    let people = Enrolment::new("bo-laptop", Some("bo"), &["staff".into()], key(BO), None);
    store
        .add_device(people.expect("clean"), 1)
        .await
        .expect("added");
    let machine = Enrolment::new("robot", None, &[], key(ROBOT), None);
    store
        .add_device(machine.expect("clean"), 1)
        .await
        .expect("added");
    let open = NewInvitation {
        kind: InvitationKind::Open,
        user: None,
        groups: Vec::new(),
        labels: Vec::new(),
        name: None,
        require: Require::Login,
        uses: 9,
        keys: vec![key(GUEST)],
        expires: u64::MAX >> 1,
        made_by: "root".into(),
    };
    store.add_invitation(&open, 1).await.expect("made");
    let join = Join {
        guest: key(GUEST),
        key: key(BORROWED),
        name: Some("borrowed".into()),
        hostname: None,
        kem: None,
        approval: false,
    };
    store.join(&join, || 2).await.expect("joined");
}

fn proven(user: &str, groups: &[&str]) -> Proven {
    Proven {
        user: user.into(),
        issuer: "https://idp.example.com".into(),
        subject: format!("sub-of-{user}"),
        method: "oidc",
        groups: groups.iter().map(|group| (*group).to_owned()).collect(),
        amr: vec!["pwd".into()],
        acr: None,
        at: Clock::now().wall,
    }
}
