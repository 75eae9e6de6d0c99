//! Two driven stacks, joined by a queue each way.

use super::*;
use crate::limits::Limits;
use crate::stack::Config;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

const PORT: u16 = 9477;
const KEY: PublicKey = PublicKey([1; 32]);
const QUEUE: usize = 256;

fn net(address: &str, limits: Limits, seed: u64) -> (Net, mpsc::Receiver<Vec<u8>>) {
    let address: IpAddr = address.parse().expect("an address");
    let (to, from) = mpsc::channel(QUEUE);
    let stack = Stack::new(Config {
        addresses: vec![address],
        mtu: 1420,
        seed,
        limits,
    });
    let net = Net::new(stack, move |tag, packet: &[u8]| {
        assert_eq!(*tag, KEY);
        let _ = to.try_send(packet.to_vec());
    });
    (net, from)
}

/// Runs `test` between a client and a server, and says how many packets passed.
async fn between<T>(test: impl AsyncFnOnce(Connector, Net) -> T) -> (T, usize) {
    let (client, mut out) = net("fd00::2", Limits::CLIENT, 2);
    let (server, mut back) = net("fd00::1", Limits::SERVER, 1);
    let passed = AtomicUsize::new(0);
    let road = async {
        loop {
            tokio::select! {
                Some(packet) = out.recv() => server.receive(KEY, None, &packet),
                Some(packet) = back.recv() => client.receive(KEY, None, &packet),
            }
            passed.fetch_add(1, Ordering::Relaxed);
        }
    };
    let result = tokio::select! {
        result = test(client.connector(KEY), server.clone()) => result,
        () = road => unreachable!("it has no end"),
        () = client.run() => unreachable!("it has no end"),
        () = server.run() => unreachable!("it has no end"),
    };
    (result, passed.load(Ordering::Relaxed))
}

fn to() -> SocketAddr {
    "[fd00::1]:9477".parse().expect("an address")
}

#[tokio::test]
async fn streams_carry_bytes_both_ways_and_end() {
    let said: Vec<u8> = (0..200_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let copy = said.clone();
    let (heard, _) = between(async move |connector, server| {
        let mut listener = server.listen(PORT);
        let echo = async {
            let (stream, remote) = listener.accept().await;
            assert_eq!(remote.tag, KEY);
            let (mut from, mut into) = tokio::io::split(stream);
            tokio::io::copy(&mut from, &mut into).await.expect("copied");
            into.shutdown().await.expect("closed");
            std::future::pending::<()>().await;
        };
        let ask = async {
            let stream = connector.connect(to()).await.expect("connected");
            let (mut from, mut into) = tokio::io::split(stream);
            let mut heard = Vec::new();
            let write = async {
                into.write_all(&copy).await.expect("written");
                into.shutdown().await.expect("closed");
            };
            let (read, ()) = tokio::join!(from.read_to_end(&mut heard), write);
            read.expect("read");
            heard
        };
        tokio::select! {
            heard = ask => heard,
            () = echo => unreachable!("it has no end"),
        }
    })
    .await;
    assert!(heard == said, "what came back is what was said");
}

#[tokio::test]
async fn a_closed_port_refuses() {
    let (error, passed) = between(async |connector, _| connector.connect(to()).await).await;
    let error = error.expect_err("nobody listens");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    assert_eq!(passed, 2, "a SYN and a reset");
}

#[tokio::test]
async fn a_dropped_stream_is_the_end_for_the_other() {
    let (read, _) = between(async |connector, server| {
        let mut listener = server.listen(PORT);
        let (theirs, ours) = tokio::join!(listener.accept(), connector.connect(to()));
        drop(theirs);
        let mut heard = Vec::new();
        ours.expect("connected").read_to_end(&mut heard).await
    })
    .await;
    assert_eq!(read.expect("an end in order"), 0);
}

#[tokio::test]
async fn a_cut_tag_breaks_its_streams() {
    let ((read, connections), _) = between(async |connector, server| {
        let mut listener = server.listen(PORT);
        let (theirs, ours) = tokio::join!(listener.accept(), connector.connect(to()));
        let mut ours = ours.expect("connected");
        server.abort_tag(&KEY);
        let read = ours.read(&mut [0; 8]).await;
        drop(theirs);
        (read, server.counters().connections)
    })
    .await;
    let kind = read.expect_err("reset").kind();
    assert_eq!(kind, io::ErrorKind::ConnectionReset);
    assert_eq!(connections, 0);
}

#[tokio::test]
async fn nothing_happens_while_nothing_is_said() {
    let (client, _out) = net("fd00::2", Limits::CLIENT, 2);
    let mut turns = 0;
    let waited = tokio::time::timeout(Duration::from_millis(50), async {
        loop {
            turns += 1;
            assert_eq!(client.turn(), Mono::NEVER, "it asks for no time");
            client.0.work.notified().await;
        }
    })
    .await;
    assert!(waited.is_err() && turns == 1, "and is called once");
}
