//! Devices with a stack of their own against the server, as they stand at the ends of a tunnel.

use super::*;
use crate::device_api::Caller;
use axum::body::Bytes;
use axum::extract::ConnectInfo;
use axum::routing::{get, post};
use std::net::SocketAddr;
use std::sync::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

const DEVICE: PublicKey = PublicKey([7; 32]);
const MTU: u16 = 1420;

fn outer() -> SocketAddr {
    "198.51.100.11:51820".parse().expect("an address")
}

fn gateway() -> SocketAddr {
    format!("100.64.0.1:{}", device_api::PORT)
        .parse()
        .expect("an address")
}

/// One device, one worker, the server.
struct World {
    device: Net,
    handle: Handle,
    rotated: Arc<Mutex<Vec<(PublicKey, PublicKey)>>>,
    stop: watch::Sender<bool>,
    server: JoinHandle<()>,
    road: JoinHandle<()>,
}

impl World {
    fn start(router: Router, change: impl FnOnce(&mut Server)) -> World {
        let mut ends = Ends::default();
        let (ring, bell) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (rings, sent) = (Arc::clone(&ring), Arc::clone(&bell));
        let mut worker = ends.worker(move || rings.notify_one());
        let addresses = [gateway().ip(), "fd00:64::1".parse().expect("an address")];
        let mut inside = Inside::new(ends, &addresses, MTU, 1);
        let mut http = Server::default();
        change(&mut http);
        inside.handle.http = Arc::new(http);
        let handle = inside.handle();
        let (stop, stopped) = watch::channel(false);
        let rotated = Arc::default();
        let heard: Arc<Mutex<Vec<_>>> = Arc::clone(&rotated);
        let server = tokio::spawn(inside.serve(
            router,
            move |old, new| {
                heard.lock().expect("unpoisoned").push((old, new));
                async {}
            },
            stopped,
        ));
        let outgoing: Arc<Mutex<Vec<Vec<u8>>>> = Arc::default();
        let queue = Arc::clone(&outgoing);
        let stack = Stack::new(Config {
            addresses: vec!["100.64.0.2".parse().expect("an address")],
            mtu: usize::from(MTU),
            seed: 2,
            limits: Limits::CLIENT,
        });
        let device = Net::new(stack, move |_, packet| {
            queue.lock().expect("unpoisoned").push(packet.to_vec());
            sent.notify_one();
        });
        worker.rotated([(PublicKey([1; 32]), PublicKey([2; 32]))]);
        assert!(!worker.has_untold());
        let far = device.clone();
        let road = tokio::spawn(async move {
            let carry = async {
                loop {
                    tokio::select! {
                        () = ring.notified() => {}
                        () = bell.notified() => {}
                    }
                    let packets = std::mem::take(&mut *outgoing.lock().expect("unpoisoned"));
                    worker.packets(packets.into_iter().map(|packet| ControlPacket {
                        key: DEVICE,
                        outer: outer(),
                        packet,
                    }));
                    while worker.answers(|key, packet| {
                        assert_eq!(*key, DEVICE);
                        far.receive(*key, None, packet);
                    }) {}
                }
            };
            tokio::join!(carry, far.run());
        });
        World {
            device,
            handle,
            rotated,
            stop,
            server,
            road,
        }
    }

    async fn connect(&self) -> postern_stack::driver::Stream {
        let connector = self.device.connector(DEVICE);
        connector.connect(gateway()).await.expect("it listens")
    }

    /// Says `request` on a connection of its own and hears all of the answer.
    async fn ask(&self, request: String) -> String {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.expect("written");
        hear(stream).await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.road.abort();
        self.server.abort();
    }
}

async fn hear(mut stream: postern_stack::driver::Stream) -> String {
    let mut heard = String::new();
    stream.read_to_string(&mut heard).await.expect("an end");
    heard
}

fn request(line: &str, body: &str) -> String {
    let len = body.len();
    format!(
        "{line} HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n{body}"
    )
}

fn router() -> Router {
    Router::new()
        .route(
            "/who",
            get(|ConnectInfo(caller): ConnectInfo<Caller>| async move {
                format!("{} {:?}", caller.key, caller.outer)
            }),
        )
        .route(
            "/length",
            post(|body: Bytes| async move { body.len().to_string() }),
        )
        .route("/never", get(std::future::pending::<()>))
}

#[tokio::test]
async fn a_handler_knows_whose_key_asks_and_from_where() {
    let world = World::start(router(), |_| ());
    let answer = world.ask(request("GET /who", "")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let expected = format!("{DEVICE} {:?}", Some(outer()));
    assert!(answer.ends_with(&expected), "{answer}");
    assert_eq!(world.handle.facts().stack.opened, 1);
}

#[tokio::test]
async fn bodies_have_a_bound() {
    let world = World::start(router(), |_| ());
    let most = "x".repeat(device_api::MAX_BODY);
    let answer = world.ask(request("POST /length", &most)).await;
    assert!(
        answer.ends_with(&device_api::MAX_BODY.to_string()),
        "{answer}"
    );
    let answer = world.ask(request("POST /length", &(most + "x"))).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn who_dribbles_a_head_is_let_go() {
    let world = World::start(router(), |http| http.head_time = Duration::from_millis(80));
    let mut stream = world.connect().await;
    stream
        .write_all(b"GET /who HTTP/1.1\r\nx-")
        .await
        .expect("written");
    let answer = tokio::time::timeout(Duration::from_secs(5), hear(stream)).await;
    let answer = answer.expect("it ends");
    assert!(!answer.contains("200"), "{answer}");
    world.device.drained().await;
}

#[tokio::test]
async fn who_dribbles_a_body_is_answered_and_let_go() {
    let world = World::start(router(), |http| {
        http.request_time = Duration::from_millis(80);
    });
    let whole = request("POST /length", "only a part of it");
    let (part, _) = whole.split_at(whole.len() - 4);
    let answer = tokio::time::timeout(Duration::from_secs(5), world.ask(part.to_owned())).await;
    let answer = answer.expect("it ends");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert_eq!(world.handle.facts().too_slow, 1);
}

#[tokio::test]
async fn a_device_has_a_few_requests_at_once() {
    let world = World::start(router(), |_| ());
    let mut open = Vec::new();
    for _ in 0..MAX_IN_FLIGHT {
        let mut stream = world.connect().await;
        let never = request("GET /never", "");
        stream.write_all(never.as_bytes()).await.expect("written");
        open.push(stream);
    }
    while world.handle.facts().in_flight < MAX_IN_FLIGHT as u64 {
        tokio::task::yield_now().await;
    }
    let answer = world.ask(request("GET /who", "")).await;
    assert!(answer.starts_with("HTTP/1.1 429"), "{answer}");
    drop(open);
    while world.handle.facts().in_flight > 0 {
        tokio::task::yield_now().await;
    }
    let answer = world.ask(request("GET /who", "")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(world.handle.facts().busy, 1);
}

#[tokio::test]
async fn what_was_asked_is_answered_before_the_end() {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, goes) = (Arc::clone(&begun), Arc::clone(&go));
    let slow = get(async move || {
        begins.notify_one();
        goes.notified().await;
        "at last"
    });
    let mut world = World::start(Router::new().route("/slow", slow), |_| ());
    let mut stream = world.connect().await;
    let whole = request("GET /slow", "");
    stream.write_all(whole.as_bytes()).await.expect("written");
    begun.notified().await;
    world.stop.send(true).expect("it listens");
    tokio::task::yield_now().await;
    go.notify_one();
    let answer = hear(stream).await;
    assert!(answer.ends_with("at last"), "{answer}");
    let ended = tokio::time::timeout(Duration::from_secs(5), &mut world.server).await;
    ended.expect("it ends").expect("in order");
}

#[tokio::test]
async fn a_key_that_is_cut_has_no_connection_left() {
    let world = World::start(router(), |_| ());
    let mut stream = world.connect().await;
    world.handle.cut(&DEVICE);
    let broken = stream.read(&mut [0; 8]).await.expect_err("a reset");
    assert_eq!(broken.kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_rotation_is_heard_of() {
    let world = World::start(router(), |_| ());
    world.ask(request("GET /who", "")).await;
    let heard = world.rotated.lock().expect("unpoisoned").clone();
    assert_eq!(heard, [(PublicKey([1; 32]), PublicKey([2; 32]))]);
}

#[test]
fn packets_are_dropped_and_rotations_kept_while_nobody_takes_them() {
    let mut ends = Ends::default();
    let mut worker = ends.worker(|| ());
    let packet = || ControlPacket {
        key: DEVICE,
        outer: outer(),
        packet: vec![0; 40],
    };
    worker.packets((0..PACKET_QUEUE + 3).map(|_| packet()));
    let keys = |n: u8| (PublicKey([n; 32]), PublicKey([n + 1; 32]));
    let most = u8::try_from(ROTATED_QUEUE).expect("small");
    worker.rotated((0..most + 2).map(keys));
    assert!(worker.has_untold());
    let mut rotated = ends.rotated;
    for number in 0..most {
        assert_eq!(rotated.try_recv(), Ok(keys(number)));
    }
    worker.rotated([]);
    assert!(!worker.has_untold());
    assert_eq!(rotated.try_recv(), Ok(keys(most)));
    let lost = ends.answers.lost().incoming.load(Ordering::Relaxed);
    assert_eq!(lost, 3);
}
