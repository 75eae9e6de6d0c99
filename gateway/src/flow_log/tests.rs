use super::*;
use crate::init::init;
use crate::scratch::Scratch;
use postern_engine::identity::Who;
use postern_engine::record::{
    CloseReason, Closed, Decision, Denied, Detail, Kind, Opened, SCHEMA, State,
};
use postern_proto::flow_key::Protocol;
use postern_proto::now::Wall;
use postern_spool::line::{Hash, Line};
use postern_spool::testing::{Fail, SimDisk};
use serde_json::Value;

mod ending;

const SOON: Duration = Duration::from_secs(30);

fn record(worker: u8, seq: u64, state: State, detail: Detail) -> Record {
    Record {
        schema: SCHEMA,
        kind: Kind::Flow,
        gateway: "gw".into(),
        boot: "1".into(),
        worker,
        seq,
        time: Wall(1_800_000_000_000_000_000 + seq * 1_000_000),
        state,
        verdict: Decision::Allow,
        rule: "a rule".into(),
        policy: "9f2b".into(),
        shadow: None,
        grant: None,
        who: Arc::new(Who {
            user: Some("ana@example.com".into()),
            groups: vec!["sre".into()],
            device: Some("ana-laptop".into()),
            device_key: Some("mLxJzVxg".into()),
            ..Who::default()
        }),
        session_age_s: None,
        posture: None,
        client_outer: None,
        protocol: Protocol::Tcp,
        src_address: [100, 96, 0, 2].into(),
        src_port: 40_000,
        dst_address: Some([192, 0, 2, 10].into()),
        dst_port: 22,
        target: None,
        egress: None,
        detail,
    }
}

fn open(seq: u64, flow: u64) -> Record {
    let start = Wall(1_800_000_000_000_000_000);
    let resumed = false;
    let opened = Opened {
        flow,
        start,
        resumed,
    };
    record(0, seq, State::Open, Detail::Open(opened))
}

fn closed(seq: u64, flow: u64) -> Record {
    let start = Wall(1_800_000_000_000_000_000);
    let detail = Detail::Closed(Closed {
        flow,
        start,
        end: start,
        duration_ms: 0,
        resumed: false,
        bytes_out: 1,
        bytes_in: 2,
        packets_out: 1,
        packets_in: 1,
        tcp_state: None,
        close_reason: CloseReason::Fin,
        failed_condition: None,
        hints: None,
    });
    record(0, seq, State::Closed, detail)
}

fn denied(seq: u64, count: u64) -> Record {
    let start = Wall(1_800_000_000_000_000_000);
    let detail = Detail::Denied(Denied {
        deny_reason: "policy",
        failed_condition: None,
        nearest_rule: None,
        count,
        start,
        end: start,
        dst_ports: Vec::new(),
        scan: false,
    });
    record(0, seq, State::Denied, detail)
}

pub(crate) fn opens(range: std::ops::Range<u64>) -> Vec<Record> {
    range.map(|seq| open(seq + 1, seq + 1)).collect()
}

/// Waits for a state that must come; the test harness ends a wait that does not.
fn until(what: impl Fn() -> bool) {
    while !what() {
        std::thread::sleep(Duration::from_millis(1));
    }
}

struct World {
    _folder: Scratch,
    config: Config,
}

impl World {
    fn new() -> World {
        let folder = Scratch::new();
        let config = init(&folder.path("gw"), None).expect("made");
        World {
            _folder: folder,
            config,
        }
    }

    fn start(&self, boot: u64) -> FlowLog {
        FlowLog::start(&self.config, boot, 1).expect("starts")
    }

    /// All lines, each checked against the one before it.
    fn lines(&self) -> Vec<Value> {
        let mut names: Vec<_> = std::fs::read_dir(&self.config.flow_log.dir)
            .expect("there")
            .map(|entry| entry.expect("readable").path())
            .filter(|path| path.extension().is_some_and(|end| end == "jsonl"))
            .collect();
        names.sort();
        let text: String = names
            .iter()
            .map(|name| std::fs::read_to_string(name).expect("readable"))
            .collect();
        chained(text.as_bytes())
    }

    fn finish(log: FlowLog, sender: RecordSender) -> FlowLogStatus {
        drop(sender);
        log.finish(SOON)
    }
}

fn chained(text: &[u8]) -> Vec<Value> {
    let (mut n, mut prev) = (0, Hash::ZERO);
    text.split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|bytes| {
            let line = Line::parse(bytes).expect("whole");
            assert_eq!((line.n, line.prev), (n + 1, prev));
            (n, prev) = (line.n, line.hash());
            serde_json::from_slice(bytes).expect("one object a line")
        })
        .collect()
}

fn events(lines: &[Value]) -> Vec<&str> {
    lines
        .iter()
        .filter_map(|line| line["event"].as_str())
        .collect()
}

fn seqs(lines: &[Value]) -> Vec<u64> {
    lines
        .iter()
        .filter_map(|line| line["seq"].as_u64())
        .collect()
}

/// A whole run of twenty records, each written by itself.
fn twenty_groups(world: &World, disk: &SimDisk) {
    let log = FlowLog::start_on(disk.clone(), &world.config, 1, 1).expect("starts");
    let sender = log.sender(0);
    for seq in 0..20 {
        assert!(sender.offer(opens(seq..seq + 1)).is_ok());
        until(|| log.handle().status().written == seq + 1);
    }
    World::finish(log, sender);
}

#[test]
fn every_record_is_one_line_of_the_chain_between_a_start_and_a_stop() {
    let world = World::new();
    let log = world.start(1);
    let sender = log.sender(0);
    for start in [0, 10, 20] {
        assert!(sender.offer(opens(start..start + 10)).is_ok());
    }
    sender.tell(Told {
        made: 30,
        flows: 30,
        ..Told::default()
    });
    let status = World::finish(log, sender);
    assert_eq!(
        (status.made, status.written, status.lost, status.lag),
        (30, 30, 0, 0)
    );
    assert_eq!((status.flows_seen, status.flows_written), (30, 30));
    assert_eq!((status.failing, status.head, status.synced), (None, 32, 32));
    let lines = world.lines();
    assert_eq!(seqs(&lines), (1..=30).collect::<Vec<_>>());
    assert_eq!(
        (lines[0]["event"].as_str(), lines[0]["previous"].as_str()),
        (Some("started"), Some("none"))
    );
    assert_eq!(lines[31]["event"], "stopped");
    assert_eq!(lines[31]["workers"][0]["written"], 30);

    let log = world.start(2);
    assert_eq!(log.finish(SOON).head, 34);
    assert_eq!(world.lines()[32]["previous"], "clean");
}

#[test]
fn attempts_are_counted_as_records_stand_for_them() {
    let world = World::new();
    let log = world.start(1);
    let sender = log.sender(0);
    assert!(
        sender
            .offer(vec![open(1, 1), closed(2, 1), denied(3, 1), denied(4, 832)])
            .is_ok()
    );
    sender.tell(Told {
        made: 4,
        flows: 840,
        in_windows: 6,
        in_worker: 0,
    });
    until(|| log.handle().status().written == 4);
    let status = log.handle().status();
    assert_eq!(status.flows_written, 834);
    assert_eq!(status.flows_waiting.window, 6);
    assert_eq!(
        status.flows_seen,
        status.flows_written + status.flows_lost + status.flows_waiting.window
    );
    World::finish(log, sender);
}

#[test]
fn a_full_disk_is_said_at_once_and_nothing_is_lost_when_it_ends() {
    let world = World::new();
    let disk = SimDisk::new();
    let log = FlowLog::start_on(disk.clone(), &world.config, 1, 1).expect("starts");
    let sender = log.sender(0);
    assert!(sender.writable());
    disk.fail(0, u64::MAX, Fail::With(std::io::ErrorKind::StorageFull));
    assert!(sender.offer(opens(0..3)).is_ok());
    until(|| !sender.writable());
    let failing = log.handle().status();
    assert!(
        failing
            .failing
            .expect("says why")
            .contains("no storage space")
    );
    assert_eq!((failing.written, failing.lost, failing.lag), (0, 0, 3));

    disk.heal();
    until(|| sender.writable());
    let status = World::finish(log, sender);
    assert_eq!((status.written, status.lost, status.failing), (3, 0, None));
    let files = disk.files();
    let (_, segment) = files
        .iter()
        .find(|(name, _)| name.ends_with("jsonl"))
        .expect("one");
    let lines = chained(segment);
    assert_eq!(seqs(&lines), [1, 2, 3]);
    assert_eq!(events(&lines), ["started", "unwritable", "stopped"]);
}

#[test]
fn what_cannot_be_written_until_the_end_is_counted_as_lost() {
    let world = World::new();
    let disk = SimDisk::new();
    let log = FlowLog::start_on(disk.clone(), &world.config, 1, 1).expect("starts");
    let sender = log.sender(0);
    disk.fail(0, u64::MAX, Fail::With(std::io::ErrorKind::StorageFull));
    assert!(sender.offer(opens(0..3)).is_ok());
    assert!(sender.offer(opens(3..5)).is_ok());
    drop(sender);
    let status = log.finish(Duration::ZERO);
    assert_eq!(
        (status.made, status.written, status.lost, status.lag),
        (5, 0, 5, 0)
    );
    assert_eq!(status.flows_lost, 5);
}

#[test]
fn the_queue_is_bounded_and_what_is_thrown_away_is_stated_when_it_can_be() {
    let world = World::new();
    let disk = SimDisk::new();
    let log = FlowLog::start_on(disk.clone(), &world.config, 1, 1).expect("starts");
    let sender = log.sender(0);
    disk.fail(0, u64::MAX, Fail::With(std::io::ErrorKind::StorageFull));
    let mut seq = 0;
    let refused = loop {
        match sender.offer(opens(seq..seq + 1)) {
            Ok(()) => seq += 1,
            Err(batch) => break batch,
        }
        assert!(seq < 100_000, "it must end");
    };
    assert_eq!(refused.len(), 1);
    assert!(log.handle().queued() >= RECORD_QUEUE as u64);
    sender.lose(&refused);
    disk.heal();
    let status = World::finish(log, sender);
    assert_eq!(
        (status.made, status.written, status.lost, status.lag),
        (seq + 1, seq, 1, 0)
    );
    let files = disk.files();
    let (_, segment) = files
        .iter()
        .find(|(name, _)| name.ends_with("jsonl"))
        .expect("one");
    let lines = chained(segment);
    let lost = lines
        .iter()
        .find(|line| line["event"] == "lost")
        .expect("stated");
    assert_eq!(
        (lost["count"].as_u64(), lost["first_seq"].as_u64()),
        (Some(1), Some(seq + 1))
    );
}

#[test]
fn a_disk_that_does_not_sync_is_no_log() {
    let world = World::new();
    let disk = SimDisk::new();
    let log = FlowLog::start_on(disk.clone(), &world.config, 1, 1).expect("starts");
    let sender = log.sender(0);
    until(|| log.handle().status().synced == 1);
    disk.fail(0, u64::MAX, Fail::With(std::io::ErrorKind::Other));
    assert!(sender.offer(opens(0..3)).is_ok());
    until(|| !sender.writable());
    assert_eq!(log.handle().status().synced, 1);
    disk.heal();
    until(|| sender.writable());
    let status = World::finish(log, sender);
    assert_eq!(
        (status.written, status.lost, status.synced),
        (3, 0, status.head)
    );
}

#[tokio::test]
async fn listeners_see_lines_and_how_many_they_missed() {
    let world = World::new();
    let log = world.start(1);
    let sender = log.sender(0);
    let mut quick = log.handle().subscribe();
    assert!(sender.offer(opens(0..1)).is_ok());
    let line = quick.recv().await.expect("a line");
    let line: Value = serde_json::from_str(&line).expect("an object");
    assert_eq!(
        (line["seq"].as_u64(), line["n"].as_u64()),
        (Some(1), Some(2))
    );

    let mut slow = log.handle().subscribe();
    let more = TAIL_BACKLOG as u64 + 4;
    assert!(sender.offer(opens(1..1 + more)).is_ok());
    // The last word is a line as well.
    assert_eq!(World::finish(log, sender).written, 1 + more);
    match slow.recv().await {
        Err(broadcast::error::RecvError::Lagged(missed)) => assert_eq!(missed, 5),
        other => panic!("expected to be told of the loss, got {other:?}"),
    }
}

#[test]
fn a_slow_disk_makes_nobody_wait_and_loses_nothing() {
    let world = World::new();
    let disk = SimDisk::new();
    let log = FlowLog::start_on(disk.clone(), &world.config, 1, 1).expect("starts");
    let sender = log.sender(0);
    disk.slow(Duration::from_millis(50));
    let (mut seq, mut refused) = (0, 0);
    while refused == 0 {
        match sender.offer(opens(seq..seq + 1)) {
            Ok(()) => seq += 1,
            Err(_) => refused += 1,
        }
    }
    assert!(sender.writable(), "slow is not broken");
    let status = World::finish(log, sender);
    assert_eq!((status.written, status.lost), (seq, 0));
}

#[test]
fn a_clock_that_was_set_is_said_and_one_that_drifts_is_not() {
    let world = World::new();
    let disk = SimDisk::new();
    let shared = Arc::new(Shared::new(1));
    let (tail, _) = broadcast::channel(1);
    let mut writer = writer::Writer::open(
        disk.clone(),
        &world.config,
        1,
        Made::begin(&world.config.data_dir, 1),
        shared,
        tail,
    )
    .expect("opens");
    let mut now = Clock::now();
    for (passed, stepped) in [
        (10_000, 10_500),
        (1_000, 3_601_000),
        (1_000, 1_000),
        (1_000, -7_000_i64),
    ] {
        now.mono = now.mono + Duration::from_millis(passed);
        now.wall = Wall(now.wall.0.saturating_add_signed(stepped * 1_000_000));
        writer.look_at_the_clock(now);
    }
    writer.write();
    let files = disk.files();
    let (_, segment) = files
        .iter()
        .find(|(name, _)| name.ends_with("jsonl"))
        .expect("one");
    assert_eq!(
        events(&chained(segment)),
        ["started", "clock-stepped", "clock-stepped"]
    );
}

#[test]
fn a_start_on_a_full_disk_first_makes_the_room_that_keep_size_allows() {
    let mut world = World::new();
    world.config.flow_log.segment_size = 2_000;
    let disk = SimDisk::new();
    twenty_groups(&world, &disk);
    world.config.flow_log.keep_size = 6_000;
    let open = |disk: &SimDisk| {
        let (tail, _) = broadcast::channel(1);
        let made = Made::begin(&world.config.data_dir, 2);
        let shared = Arc::new(Shared::new(1));
        writer::Writer::open(disk.clone(), &world.config, 2, made, shared, tail).map(|_| ())
    };
    // The last call of a start is the first write.
    let usual = disk.power_cut(usize::MAX);
    open(&usual).expect("opens");
    let first = "00000000000000000001.jsonl";
    assert!(usual.files().contains_key(first), "nothing is removed yet");

    let full = disk.power_cut(usize::MAX);
    let write = usual.calls() - 1;
    full.fail(
        write,
        write + 1,
        Fail::With(std::io::ErrorKind::StorageFull),
    );
    open(&full).expect("opens");
    let files = full.files();
    assert!(!files.contains_key(first), "removed");
    let text: Vec<u8> = files.values().flatten().copied().collect();
    assert!(String::from_utf8_lossy(&text).contains(r#""event":"removed""#));
}
