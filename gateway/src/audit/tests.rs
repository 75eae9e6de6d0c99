//! What somebody who changes something, or reads about it later, can rely on.

use super::*;
use crate::config::{Config, Sync};
use crate::flow_log::tests::opens;
use crate::flow_log::{FlowLog, RECORD_QUEUE};
use crate::init::init;
use crate::scratch::Scratch;
use postern_spool::verify;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const AT: Wall = Wall(1_795_323_643_120_000_000);

fn event(outcome: Outcome) -> AuditEvent {
    AuditEvent {
        action: Action::Join,
        outcome,
        actor: Actor::Guest {
            invitation: "k7q2m4xd".into(),
            from: Some("198.51.100.7:4000".parse().expect("literal")),
        },
        object: Object {
            kind: "device",
            name: "ana-laptop".into(),
        },
        reason: None,
        before: None,
        after: Some(json!({ "groups": ["platform"] })),
    }
}

fn world() -> (Scratch, Config) {
    let folder = Scratch::new();
    let mut config = init(&folder.path("gw"), None).expect("made");
    // A change waits for its own sync, not for the next one.
    config.flow_log.sync = Sync::Every(Duration::from_secs(3600));
    (folder, config)
}

fn lines(config: &Config) -> Vec<Value> {
    let path = config.flow_log.dir.join("00000000000000000001.jsonl");
    let text = std::fs::read_to_string(path).expect("readable");
    let line = |line| serde_json::from_str(line).expect("JSON");
    text.lines().map(line).collect()
}

fn audits(config: &Config) -> Vec<Value> {
    let mut lines = lines(config);
    lines.retain(|line| line["kind"] == "audit");
    lines
}

#[tokio::test]
async fn a_written_event_is_a_synced_line() {
    let (_folder, config) = world();
    let log = FlowLog::start(&config, 4, 1).expect("starts");
    let audit = log.handle().audit();
    audit.ready().expect("writable");
    for outcome in [Outcome::Done, Outcome::Refused, Outcome::Refused] {
        audit.write(AT, event(outcome)).await.expect("recorded");
    }
    let status = log.handle().status();
    assert_eq!((status.head, status.synced), (4, 4), "started and three");
    let audit = &status.audit;
    assert_eq!((audit.made, audit.written, audit.lost), (3, 3, 0));
    let counts = audit.events.iter();
    let counts: Vec<_> = counts
        .map(|one| (one.outcome.as_str(), one.count))
        .collect();
    assert_eq!(counts, [("done", 1), ("refused", 2)]);

    let lines = audits(&config);
    let numbers: Vec<_> = lines.iter().map(|line| line["audit"].as_u64()).collect();
    assert_eq!(numbers, [Some(1), Some(2), Some(3)]);
    let first = &lines[0];
    for (field, value) in [
        ("time", "2026-11-22T05:00:43.120Z"),
        ("action", "join"),
        ("outcome", "done"),
        ("actor", "guest"),
        ("invitation", "k7q2m4xd"),
        ("from", "198.51.100.7:4000"),
        ("object_kind", "device"),
        ("object", "ana-laptop"),
        ("boot", "4"),
    ] {
        assert_eq!(first[field], value, "{field}");
    }
    assert_eq!(first["after"]["groups"][0], "platform");
    let _ = log.finish(SOON);
    let whole = verify::folder(&config.flow_log.dir, None, &mut |_| {}).expect("whole");
    assert_eq!((whole.stated_losses, whole.unstated_losses), (0, 0));
}

#[tokio::test]
async fn whoever_stops_waiting_stops_nothing() {
    let (_folder, config) = world();
    let log = FlowLog::start(&config, 4, 1).expect("starts");
    let audit = log.handle().audit();
    // As when a laptop breaks its connection off: asked once, and dropped.
    let mut write = Box::pin(audit.write(AT, event(Outcome::Done)));
    assert!(futures_poll_once(&mut write).await.is_none());
    drop(write);
    while log.handle().status().audit.written < 1 {
        tokio::task::yield_now().await;
    }
    assert_eq!(log.finish(SOON).audit.lost, 0);
    assert_eq!(audits(&config).len(), 1);
}

async fn futures_poll_once<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
    std::future::poll_fn(|context| {
        std::task::Poll::Ready(match std::pin::Pin::new(&mut *future).poll(context) {
            std::task::Poll::Ready(done) => Some(done),
            std::task::Poll::Pending => None,
        })
    })
    .await
}

#[tokio::test]
async fn after_the_end_of_the_log_nothing_is_ready_and_a_loss_is_counted() {
    let (_folder, config) = world();
    let log = FlowLog::start(&config, 4, 1).expect("starts");
    let handle = log.handle();
    let _ = log.finish(SOON);
    assert_eq!(handle.audit().ready(), Err(Unrecorded));
    let written = handle.audit().write(AT, event(Outcome::Done)).await;
    assert_eq!(written, Err(Unrecorded));
    let audit = handle.status().audit;
    assert_eq!((audit.made, audit.written, audit.lost), (1, 0, 1));
}

/// What a killed process leaves: the count in shared memory, and no line.
#[tokio::test]
async fn an_event_that_died_with_its_process_is_stated_by_the_next_run() {
    let (_folder, config) = world();
    let segment = config.flow_log.dir.join("00000000000000000001.jsonl");
    let log = FlowLog::start(&config, 1, 1).expect("starts");
    let audit = log.handle().audit();
    audit
        .write(AT, event(Outcome::Done))
        .await
        .expect("recorded");
    let killed = std::fs::read(&segment).expect("written");
    audit
        .write(AT, event(Outcome::Done))
        .await
        .expect("recorded");
    let counts = std::fs::read_dir(&config.data_dir).expect("there");
    let counts: Vec<_> = counts
        .map(|entry| entry.expect("readable").path())
        .filter(|path| path.extension().is_some_and(|end| end == "made"))
        .collect();
    let [path] = counts.as_slice() else {
        panic!("one run, one file: {counts:?}")
    };
    let count = std::fs::read(path).expect("kept");
    let _ = log.finish(SOON);
    std::fs::write(&segment, killed).expect("as it was");
    std::fs::write(path, count).expect("as it was");

    let log = FlowLog::start(&config, 2, 1).expect("starts");
    while log.handle().status().head < 4 {
        tokio::task::yield_now().await;
    }
    let _ = log.finish(SOON);
    let run = lines(&config);
    let run = run
        .iter()
        .find(|line| line["event"] == "crashed-run")
        .expect("said");
    let counts = ["audit_made", "audit_written", "audit_lost"].map(|count| run[count].as_u64());
    assert_eq!(counts, [Some(2), Some(1), Some(1)]);
    let whole = verify::folder(&config.flow_log.dir, None, &mut |_| {}).expect("whole");
    assert_eq!(whole.stated_losses, 1);
}

#[tokio::test]
async fn what_is_too_long_is_left_out_and_the_event_is_written() {
    let (_folder, config) = world();
    let log = FlowLog::start(&config, 4, 1).expect("starts");
    let long = AuditEvent {
        reason: Some("é".repeat(100_000)),
        after: Some(json!({ "text": "x".repeat(100_000) })),
        before: Some(json!(["x"])),
        ..event(Outcome::Failed)
    };
    let audit = log.handle().audit();
    audit.write(AT, long).await.expect("recorded");
    let line = &audits(&config)[0];
    assert_eq!(line["after"], json!({ "left_out_bytes": 100_011 }));
    assert_eq!(line["before"], json!({ "value": ["x"] }));
    assert!(line["reason"].as_str().expect("there").len() < 2000);
    let _ = log.finish(SOON);
}

#[tokio::test]
async fn a_full_channel_is_waited_for_and_then_counted() {
    let (_folder, config) = world();
    let disk = postern_spool::testing::SimDisk::new();
    let log = FlowLog::start_on(disk.clone(), &config, 1, 1).expect("starts");
    let sender = log.sender(0);
    let (audit, handle) = (log.handle().audit(), log.handle());
    let broken = postern_spool::testing::Fail::With(std::io::ErrorKind::StorageFull);
    disk.fail(disk.calls(), u64::MAX, broken);
    assert!(sender.offer(opens(0..1)).is_ok());
    while audit.ready().is_ok() {
        tokio::task::yield_now().await;
    }
    for n in 1..=RECORD_QUEUE as u64 {
        assert!(sender.offer(opens(n..n + 1)).is_ok(), "{n}");
    }
    let started = std::time::Instant::now();
    assert_eq!(audit.write(AT, event(Outcome::Done)).await, Err(Unrecorded));
    assert!(started.elapsed() >= PATIENCE);
    assert_eq!(handle.status().audit.lost, 1);
    // The disk comes back: the log itself says that an event is missing.
    disk.heal();
    audit.ready().expect_err("not before it is written again");
    while audit.ready().is_err() {
        tokio::task::yield_now().await;
    }
    audit
        .write(AT, event(Outcome::Done))
        .await
        .expect("recorded");
    drop(sender);
    let status = log.finish(SOON);
    assert_eq!((status.audit.made, status.audit.written), (2, 1));
    let text: Vec<u8> = disk.files().into_values().flatten().collect();
    let text = String::from_utf8_lossy(&text);
    assert!(
        text.contains(r#""event":"audit-lost","count":1,"first_audit":1,"last_audit":1"#),
        "{text}"
    );
}
