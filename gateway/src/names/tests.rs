//! Names, policy, store and workers together, with a server for DNS in the process.

use super::server::Server;
use super::*;
use crate::config::Config;
use crate::fake_worker::FakeWorker;
use crate::policy_watch::begin;
use crate::scratch::Scratch;
use crate::store::StoredName;
use postern_proto::now::Wall;
use std::net::IpAddr;
use std::path::PathBuf;

const POLICY: &str = "\
version: 1
targets:
  api: { names: [api.example.com], ports: [443/tcp] }
rules:
  - { name: to the API, action: allow, from: { groups: [sre] }, to: [api] }
";

struct World {
    _folder: Scratch,
    path: PathBuf,
    server: Server,
    store: Store,
    names: Names,
    keeper: PolicyKeeper,
    fake: FakeWorker,
}

impl World {
    fn views(&self) -> Vec<NameView> {
        self.names.views(&self.keeper.current())
    }

    /// The store knows what the name meant before.
    async fn start(before: Option<&str>) -> World {
        let folder = Scratch::new();
        let server = Server::start().await;
        let path = folder.path("policy.yaml");
        std::fs::write(&path, POLICY).expect("written");
        let config = "pool_v6: fd6a:3c1e:9d20:1::/64\n";
        let mut config = Config::parse(config, &folder.path("gateway.yaml")).expect("good");
        config.resolver = server.config();
        let store = Store::open(&folder.path("postern.db"), config.pool).await;
        let store = store.expect("opened");
        let known: Vec<StoredName> = before
            .map(|address| StoredName {
                name: "api.example.com".to_owned(),
                addresses: vec![address.parse().expect("address")],
                since: Wall(1),
                until: None,
                checked: Wall(1),
                ttl: 60,
            })
            .into_iter()
            .collect();
        store.note_names(&known).await.expect("noted");
        let live = LiveConfig::new(config);
        let names = Names::new(live.clone(), store.clone()).await.expect("read");
        let (workers, fake) = FakeWorker::start();
        let begun = begin(&live.get(), &store, Clock::now().wall).await;
        let begun = begun.expect("a policy").with_answers(names.answers()).await;
        let begun = begun.expect("compiles");
        let keeper = PolicyKeeper::new(begun, live, store.clone(), workers);
        let keeper = keeper.with_names(names.clone());
        World {
            _folder: folder,
            path,
            server,
            store,
            names,
            keeper,
            fake,
        }
    }

    /// Keeps names until it holds.
    async fn until(&self, holds: impl Fn(&World) -> bool) {
        let wait = async {
            while !holds(self) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let kept = async {
            tokio::select! {
                () = self.names.keep(&self.keeper) => unreachable!("never returns"),
                () = wait => {}
            }
        };
        let kept = tokio::time::timeout(Duration::from_secs(10), kept).await;
        kept.expect("it comes to hold");
    }

    fn reaches(&self) -> Vec<String> {
        let all = self.keeper.current().addresses();
        all.iter().map(|net| net.addr().to_string()).collect()
    }
}

#[tokio::test]
async fn another_answer_is_stored_and_in_force() {
    let world = World::start(Some("192.0.2.9")).await;
    assert_eq!(
        world.reaches(),
        ["192.0.2.9"],
        "at once, by what the store knows"
    );
    world
        .server
        .set("api.example.com.", 60, &["192.0.2.1", "127.0.0.1"]);
    world.until(|world| world.reaches() == ["192.0.2.1"]).await;
    assert_eq!(
        world.fake.policies(),
        [world.keeper.current().hash().full()],
        "the workers have it, and its hash is that of the text"
    );
    let stored = world.store.names_now().await.expect("read").remove(0);
    assert_eq!(
        stored.addresses,
        ["192.0.2.1".parse::<IpAddr>().expect("address")]
    );
    let before = world.store.names_at(Wall(2)).await.expect("read");
    assert_eq!(
        before["api.example.com"],
        ["192.0.2.9".parse::<IpAddr>().expect("address")],
        "and what it meant before is known"
    );
}

#[tokio::test]
async fn a_server_that_refuses_changes_nothing_and_is_seen() {
    let world = World::start(Some("192.0.2.9")).await;
    world.server.refuse(true);
    world
        .until(|world| world.views().iter().any(|one| one.failures > 0))
        .await;
    assert_eq!(world.reaches(), ["192.0.2.9"]);
    let view = world.views().remove(0);
    assert!(view.failing.is_some() && view.age.is_some_and(|age| age > 1000));
    assert!(world.fake.policies().is_empty(), "no reason to judge anew");
}

#[tokio::test]
async fn a_name_that_was_never_answered_means_nothing() {
    let world = World::start(None).await;
    world
        .until(|world| world.views().iter().any(|one| one.failures > 0))
        .await;
    assert!(world.reaches().is_empty());
    assert_eq!(world.views()[0].since, None);
}

#[tokio::test]
async fn a_policy_begins_with_the_names_that_are_new_in_it() {
    let world = World::start(Some("192.0.2.9")).await;
    world.server.set("db.example.com.", 60, &["192.0.2.7"]);
    let other = POLICY.replace("api.example.com", "db.example.com");
    std::fs::write(&world.path, other).expect("written");
    let reloaded = world.keeper.reload().await;
    assert!(reloaded.changed, "{:?}", reloaded.policy.errors);
    assert_eq!(world.reaches(), ["192.0.2.7"]);
    let listed = world.views();
    assert!(matches!(&listed[..], [one] if one.name == "db.example.com"));
    let stored = world.store.names_now().await.expect("read");
    assert!(stored.iter().any(|one| one.name == "db.example.com"));
}
