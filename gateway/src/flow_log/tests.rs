use super::*;
use crate::scratch::Scratch;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

#[derive(Clone, Serialize)]
struct Record {
    seq: u64,
    text: &'static str,
}

fn records(range: std::ops::Range<u64>) -> Vec<Record> {
    range
        .map(|seq| Record {
            seq,
            text: "a flow",
        })
        .collect()
}

fn config(path: &Path) -> FlowLogConfig {
    FlowLogConfig {
        file: Some(file(path)),
        ..FlowLogConfig::at(path.with_file_name("flows"))
    }
}

fn file(path: &Path) -> FileConfig {
    FileConfig::at(path.to_owned())
}

fn seqs(path: &Path) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    assert!(text.is_empty() || text.ends_with('\n'), "no half lines");
    text.lines()
        .map(|line| {
            let value: serde_json::Value = serde_json::from_str(line).expect("one object a line");
            value["seq"].as_u64().expect("a number")
        })
        .collect()
}

/// Waits for a state that must come; the test harness ends a wait that does not.
fn until(what: impl Fn() -> bool) {
    while !what() {
        std::thread::yield_now();
    }
}

#[test]
fn every_record_is_one_line_in_order_and_counted() {
    let folder = Scratch::new();
    let path = folder.path("flows.jsonl");
    let (sender, log) = FlowLog::start(&config(&path)).expect("starts");
    for start in [0, 10, 20] {
        assert!(sender.offer(records(start..start + 10)).is_ok());
    }
    drop(sender);
    let status = log.finish(Duration::from_secs(5));
    assert_eq!(
        (status.offered, status.written, status.lost, status.lag),
        (30, 30, 0, 0)
    );
    assert_eq!(status.failing, None);
    assert_eq!(seqs(&path), (0..30).collect::<Vec<_>>());
    let mode = std::fs::metadata(&path)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(
        mode & 0o027,
        0,
        "nothing for others, no write for the group"
    );
}

#[test]
fn a_full_file_gets_a_number_and_the_oldest_goes() {
    let folder = Scratch::new();
    let path = folder.path("flows.jsonl");
    let mut config = config(&path);
    let bounds = config.file.as_mut().expect("set");
    (bounds.max_size, bounds.max_files) = (100, 3);
    let (sender, log) = FlowLog::start(&config).expect("starts");
    for seq in 0..20 {
        assert!(sender.offer(records(seq..seq + 1)).is_ok());
    }
    drop(sender);
    assert_eq!(log.finish(Duration::from_secs(5)).written, 20);
    let mut kept = Vec::new();
    for name in ["flows.jsonl.2", "flows.jsonl.1", "flows.jsonl"] {
        let file = seqs(&folder.path(name));
        assert!(!file.is_empty(), "{name}");
        assert!(std::fs::metadata(folder.path(name)).expect(name).len() <= 100);
        kept.extend(file);
    }
    let first = kept[0];
    assert_eq!(
        kept,
        (first..20).collect::<Vec<_>>(),
        "the newest, without a gap"
    );
    assert!(!folder.path("flows.jsonl.3").exists());
}

#[test]
fn an_old_file_gets_a_number() {
    let folder = Scratch::new();
    let path = folder.path("flows.jsonl");
    let mut config = config(&path);
    config.file.as_mut().expect("set").max_age = Duration::from_nanos(1);
    let (sender, log) = FlowLog::start(&config).expect("starts");
    for seq in 0..2 {
        assert!(sender.offer(records(seq..seq + 1)).is_ok());
    }
    drop(sender);
    assert_eq!(log.finish(Duration::from_secs(5)).written, 2);
    assert_eq!(
        (seqs(&folder.path("flows.jsonl.1")), seqs(&path)),
        (vec![0], vec![1])
    );
}

#[test]
fn a_full_disk_is_said_at_once_and_nothing_is_lost_when_it_ends() {
    let folder = Scratch::new();
    let path = folder.path("flows.jsonl");
    std::os::unix::fs::symlink("/dev/full", &path).expect("linked");
    let (sender, log) = FlowLog::start(&config(&path)).expect("starts");
    assert!(sender.writable());
    assert!(sender.offer(records(0..3)).is_ok());
    until(|| !sender.writable());
    let failing = log.handle().status();
    assert!(failing.failing.expect("says why").contains("No space left"));
    assert_eq!((failing.written, failing.lost, failing.lag), (0, 0, 3));

    std::fs::remove_file(&path).expect("removed");
    until(|| sender.writable());
    drop(sender);
    let status = log.finish(Duration::from_secs(5));
    assert_eq!((status.written, status.lost, status.failing), (3, 0, None));
    assert_eq!(seqs(&path), [0, 1, 2]);
}

#[test]
fn what_cannot_be_written_until_the_end_is_counted_as_lost() {
    let folder = Scratch::new();
    let path = folder.path("flows.jsonl");
    std::os::unix::fs::symlink("/dev/full", &path).expect("linked");
    let (sender, log) = FlowLog::start(&config(&path)).expect("starts");
    assert!(sender.offer(records(0..3)).is_ok());
    assert!(sender.offer(records(3..5)).is_ok());
    drop(sender);
    let status = log.finish(Duration::ZERO);
    assert_eq!(
        (status.offered, status.written, status.lost, status.lag),
        (5, 0, 5, 0)
    );
}

#[test]
fn the_queue_is_bounded_and_gives_back_what_it_does_not_take() {
    let folder = Scratch::new();
    let path = folder.path("flows.jsonl");
    std::os::unix::fs::symlink("/dev/full", &path).expect("linked");
    let (sender, log) = FlowLog::start(&config(&path)).expect("starts");
    let mut seq = 0;
    let refused = loop {
        match sender.offer(records(seq..seq + 1)) {
            Ok(()) => seq += 1,
            Err(batch) => break batch,
        }
        assert!(seq < 1000, "it must end");
    };
    assert_eq!(refused.len(), 1);
    assert!(sender.queued() >= count(RECORD_QUEUE));
    sender.lose(1);
    drop(sender);
    let status = log.finish(Duration::ZERO);
    assert_eq!(
        (status.offered, status.lost, status.lag),
        (seq + 1, seq + 1, 0)
    );
}

#[test]
fn a_file_that_is_taken_away_is_made_again() {
    let folder = Scratch::new();
    let path = folder.path("flows.jsonl");
    let mut file = RotatingFile::new(&file(&path));
    let line = b"{\"seq\":1}\n{\"seq\":2}\n";
    // Half of the second line is in the old file when it is found to have moved.
    let mut done = 0;
    file.write(line, &mut done, false).expect("written");
    std::fs::rename(&path, folder.path("moved")).expect("moved");
    let mut done = 15;
    file.write(line, &mut done, true).expect("written");
    assert_eq!(seqs(&path), [2], "whole lines in the new file");
}

#[tokio::test]
async fn listeners_see_lines_and_how_many_they_missed() {
    let folder = Scratch::new();
    let (sender, log) = FlowLog::start(&config(&folder.path("flows.jsonl"))).expect("starts");
    let mut quick = log.handle().subscribe();
    assert!(sender.offer(records(0..1)).is_ok());
    assert_eq!(
        &*quick.recv().await.expect("a line"),
        r#"{"seq":0,"text":"a flow"}"#
    );

    let mut slow = log.handle().subscribe();
    let more = count(TAIL_BACKLOG) + 5;
    assert!(sender.offer(records(1..1 + more)).is_ok());
    drop(sender);
    assert_eq!(log.finish(Duration::from_secs(5)).written, 1 + more);
    match slow.recv().await {
        Err(broadcast::error::RecvError::Lagged(missed)) => assert_eq!(missed, 5),
        other => panic!("expected to be told of the loss, got {other:?}"),
    }
}
