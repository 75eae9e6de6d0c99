//! How runs end, and what the next one makes of it.

use super::*;
use crate::config::Sync;

/// Lines by what tells them apart: a flow's end, or an event and the run that it is about.
fn story(lines: &[Value]) -> Vec<String> {
    let text = |line: &Value, field: &str| line[field].as_str().unwrap_or("-").to_owned();
    lines
        .iter()
        .filter(|line| line["close_reason"] == "crashed" || line["event"].is_string())
        .map(|line| match line["flow"].as_u64() {
            Some(flow) => format!(
                "flow {flow} of {} by {}",
                text(line, "boot"),
                text(line, "closed_by")
            ),
            None => format!("{} {}", text(line, "event"), text(line, "crashed_boot")),
        })
        .collect()
}

#[test]
fn killed_runs_are_explained_by_the_next_one_that_lives_long_enough() {
    let world = World::new();
    let segment = world.config.flow_log.dir.join("00000000000000000001.jsonl");
    // The first run: three flows open, one of them closed, and one record that never came to disk.
    let log = world.start(1);
    let sender = log.sender(0);
    let four = vec![open(1, 1), open(2, 2), closed(3, 1), open(4, 3)];
    assert!(sender.offer(four).is_ok());
    until(|| log.handle().status().synced == 5);
    let killed = std::fs::read(&segment).expect("written");
    World::finish(log, sender);
    std::fs::write(&segment, killed).expect("as it was");
    let (_, made) = Made::begin(&world.config.data_dir, 1);
    made.set(0, 5);

    // The second one explains it, and is killed after the first closing record.
    let log = world.start(2);
    until(|| log.handle().status().head >= 9);
    assert_eq!(log.finish(SOON).crash_lost, 1);
    let lines = world.lines();
    let run = lines
        .iter()
        .find(|line| line["event"] == "crashed-run")
        .expect("said");
    assert_eq!(
        (run["crashed_boot"].as_str(), run["flows_closed"].as_u64()),
        (Some("1"), Some(2))
    );
    let worker = &run["workers"][0];
    let counts = ["made", "written", "lost"].map(|count| worker[count].as_u64());
    assert_eq!(counts, [Some(5), Some(4), Some(1)]);
    let end = lines
        .iter()
        .find(|line| line["close_reason"] == "crashed")
        .expect("closed");
    assert_eq!(
        (end["user"].as_str(), end["seq"].as_u64()),
        (Some("ana@example.com"), None)
    );
    let text = std::fs::read_to_string(&segment).expect("readable");
    let seven: String = text.split_inclusive('\n').take(7).collect();
    std::fs::write(&segment, seven).expect("cut");

    // So the third one explains both, and says nothing twice.
    let log = world.start(3);
    until(|| log.handle().status().head >= 11);
    let _ = log.finish(SOON);
    assert_eq!(
        story(&world.lines()),
        [
            "started -",
            "started -",
            "flow 2 of 1 by 2",
            "started -",
            "crashed-run 2",
            "flow 3 of 1 by 3",
            "crashed-run 1",
            "stopped -",
        ]
    );
}

fn lines_on(disk: &SimDisk) -> Vec<Value> {
    let files = disk.files();
    let segments = files.iter().filter(|(name, _)| name.ends_with("jsonl"));
    chained(
        &segments
            .flat_map(|(_, bytes)| bytes.clone())
            .collect::<Vec<_>>(),
    )
}

#[test]
fn nothing_stands_behind_the_last_word() {
    let mut world = World::new();
    world.config.flow_log.sync = Sync::Every(Duration::from_secs(60));
    let disk = SimDisk::new();
    let log = FlowLog::start_on(disk.clone(), &world.config, 1, 1).expect("starts");
    let sender = log.sender(0);
    assert!(sender.offer(opens(0..3)).is_ok());
    until(|| log.handle().status().written == 3);
    // The first write from here on is that of the last word.
    let next = disk.calls();
    disk.fail(next, next + 1, Fail::With(std::io::ErrorKind::StorageFull));
    let status = World::finish(log, sender);
    assert_eq!((status.written, status.lost), (3, 0));
    assert_eq!(events(&lines_on(&disk)), ["started", "stopped"]);

    let log = FlowLog::start_on(disk.clone(), &world.config, 2, 1).expect("starts");
    let _ = log.finish(SOON);
    assert_eq!(lines_on(&disk)[5]["previous"], "clean");
}

#[test]
fn a_run_whose_worker_ended_without_its_records_did_not_end_in_order() {
    let world = World::new();
    let log = world.start(1);
    let sender = log.sender(0);
    assert!(sender.offer(opens(0..3)).is_ok());
    // A fourth one was made, and went down with its worker.
    sender.tell(Told {
        made: 4,
        flows: 4,
        ..Told::default()
    });
    assert_eq!(World::finish(log, sender).lag, 1);
    assert_eq!(events(&world.lines()), ["started"]);

    let log = world.start(2);
    until(|| log.handle().status().head >= 9);
    let _ = log.finish(SOON);
    let lines = world.lines();
    let run = lines
        .iter()
        .find(|line| line["event"] == "crashed-run")
        .expect("said");
    assert_eq!(
        (
            run["flows_closed"].as_u64(),
            run["workers"][0]["lost"].as_u64()
        ),
        (Some(3), Some(1))
    );
}

#[test]
fn without_the_thread_that_writes_nothing_is_writable() {
    let world = World::new();
    let log = world.start(1);
    let (sender, handle) = (log.sender(0), log.handle());
    assert!(log.is_alive() && sender.writable());
    let _ = log.finish(SOON);
    let back = sender.offer(opens(0..2)).expect_err("nobody takes them");
    assert_eq!((back.len(), sender.writable()), (2, false));
    let status = handle.status();
    assert!(status.failing.expect("says why").contains("has ended"));
    assert_eq!((status.made, status.written, status.lost), (0, 0, 0));
}

#[test]
fn what_retention_removes_is_said_on_disk_before_it_is_gone() {
    let mut world = World::new();
    world.config.flow_log.segment_size = 2_000;
    let disk = SimDisk::new();
    twenty_groups(&world, &disk);
    world.config.flow_log.keep_size = 6_000;
    let (tail, _) = broadcast::channel(1);
    let made = Made::begin(&world.config.data_dir, 2);
    let shared = Arc::new(Shared::new(1));
    let mut writer =
        writer::Writer::open(disk.clone(), &world.config, 2, made, shared, tail).expect("opens");
    writer.remove_old(Clock::now().wall);
    let after = disk.power_cut(0).files();
    assert!(!after.contains_key("00000000000000000001.jsonl"), "removed");
    let text: Vec<u8> = after.values().flatten().copied().collect();
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains(r#""event":"removed","from_n":1,"#), "{text}");
}
