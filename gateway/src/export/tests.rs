use super::*;
use crate::config::FileConfig;
use crate::scratch::Scratch;
use postern_spool::{Disk, Settings, Spool, segments};

const PATIENCE: Duration = Duration::from_secs(10);

fn write(spool: &mut Spool, lines: u64) -> u64 {
    for _ in 0..lines {
        spool
            .stage(br#"{"time":"2026-11-22T05:00:43.120Z"}"#)
            .expect("fits");
    }
    spool.commit().expect("written");
    spool.sync().expect("on disk");
    spool.synced()
}

/// Waits for a state that must come; the test harness ends a wait that does not.
fn until(what: impl Fn() -> bool) {
    while !what() {
        std::thread::yield_now();
    }
}

#[test]
fn a_file_follows_the_spool_across_runs() {
    let folder = Scratch::new();
    let mut config = FlowLogConfig::at(folder.path("flows"));
    let copy = folder.path("copy.jsonl");
    config.file = Some(FileConfig::at(copy.clone()));
    let settings = Settings { segment_size: 4096 };
    let disk = Disk::open(&config.dir).expect("a folder");
    let (mut spool, _) = Spool::open(disk, settings).expect("opens");

    let head = SyncedHead::new(write(&mut spool, 30));
    let exporters = Exporters::start(&config, head.clone(), 0).expect("starts");
    let handle = exporters.handle();
    until(|| handle.status(30)[0].position == 30);
    head.publish(write(&mut spool, 20));
    until(|| handle.status(50)[0].lag_records == 0);
    exporters.finish(PATIENCE);
    let status = handle.status(50);
    assert_eq!((status[0].position, status[0].acknowledged), (50, 50));
    assert_eq!(
        handle.acknowledged(),
        Some(50),
        "the cursor is stored at the end"
    );

    // A power cut in the middle of a line of the copy, before any cursor was stored.
    let whole = std::fs::read(&copy).expect("there");
    std::fs::write(&copy, &whole[..whole.len() - 20]).expect("torn");
    std::fs::remove_file(config.dir.join("cursor-file.json")).expect("gone");
    let head = SyncedHead::new(write(&mut spool, 5));
    let exporters = Exporters::start(&config, head, 50).expect("starts");
    let handle = exporters.handle();
    exporters.finish(PATIENCE);
    let status = handle.status(55);
    assert_eq!((status[0].position, status[0].acknowledged), (55, 5));
    let text = std::fs::read_to_string(&copy).expect("there");
    let numbers: Vec<_> = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("whole"))
        .filter_map(|line| line["n"].as_u64())
        .collect();
    let expected: Vec<_> = (1..=49).chain(1..=55).collect();
    assert_eq!(numbers, expected, "whole lines only, each at least once");
}

#[test]
fn a_copy_that_is_ahead_of_its_cursor_is_not_written_twice() {
    let folder = Scratch::new();
    let mut config = FlowLogConfig::at(folder.path("flows"));
    let copy = folder.path("copy.jsonl");
    config.file = Some(FileConfig::at(copy.clone()));
    let disk = Disk::open(&config.dir).expect("a folder");
    let (mut spool, _) = Spool::open(disk, Settings { segment_size: 4096 }).expect("opens");
    let head = SyncedHead::new(write(&mut spool, 30));
    Exporters::start(&config, head, 0)
        .expect("starts")
        .finish(PATIENCE);

    // A kill in the middle of the next batch: three lines and a half are written, and not noted.
    let head = SyncedHead::new(write(&mut spool, 10));
    let more: Vec<_> = segments(&config.dir)
        .expect("listed")
        .iter()
        .flat_map(|segment| std::fs::read(&segment.path).expect("read"))
        .collect();
    let ends: Vec<_> = (0..more.len()).filter(|i| more[*i] == b'\n').collect();
    std::fs::write(&copy, &more[..ends[32] + 40]).expect("written");
    Exporters::start(&config, head, 30)
        .expect("starts")
        .finish(PATIENCE);
    assert!(
        std::fs::read(&copy).expect("read") == more,
        "byte for byte, once"
    );
}

#[test]
fn a_server_that_never_answers_does_not_hold_up_the_end() {
    let folder = Scratch::new();
    let mut config = FlowLogConfig::at(folder.path("flows"));
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/", server.local_addr().expect("bound"));
    config.otlp = Some(crate::config::OtlpConfig {
        push: PushConfig {
            batch_age: Duration::ZERO,
            ..PushConfig::at(url.parse().expect("a URL"))
        },
        headers_file: None,
    });
    let disk = Disk::open(&config.dir).expect("a folder");
    let (mut spool, _) = Spool::open(disk, Settings { segment_size: 4096 }).expect("opens");
    let head = SyncedHead::new(write(&mut spool, 3));
    let exporters = Exporters::start(&config, head, 0).expect("starts");
    let asked = server.accept().expect("it asks");
    let handle = exporters.handle();
    exporters.finish(Duration::from_millis(10));
    let status = handle.status(3);
    assert_eq!((status[0].position, status[0].lag_records), (0, 3));
    drop(asked);
}

#[test]
fn without_exporters_nothing_holds_back_retention() {
    let folder = Scratch::new();
    let config = FlowLogConfig::at(folder.path("flows"));
    let exporters = Exporters::start(&config, SyncedHead::new(9), 0).expect("starts");
    assert_eq!(exporters.handle().acknowledged(), None);
    assert_eq!(exporters.handle().status(9), []);
    exporters.finish(PATIENCE);
}

#[test]
fn a_missing_secret_stops_one_exporter_and_is_found_by_check() {
    let folder = Scratch::new();
    let mut config = FlowLogConfig::at(folder.path("flows"));
    assert!(problems(&config).is_empty());
    let mut push = PushConfig::at("https://loki.example.com/".parse().expect("a URL"));
    push.auth = crate::config::Auth::Bearer {
        token_file: folder.path("token"),
    };
    config.otlp = Some(crate::config::OtlpConfig {
        push,
        headers_file: None,
    });
    config.file = Some(FileConfig::at(folder.path("copy.jsonl")));
    let disk = Disk::open(&config.dir).expect("a folder");
    let settings = Settings { segment_size: 4096 };
    let (mut spool, _) = Spool::open(disk, settings).expect("opens");
    let head = SyncedHead::new(write(&mut spool, 3));
    let exporters = Exporters::start(&config, head, 0).expect("starts");
    let handle = exporters.handle();
    until(|| {
        let status = handle.status(3);
        status[0].failing.is_some() && status[1].lag_records == 0
    });
    let otlp = handle.status(3).remove(0);
    assert_eq!((otlp.name.as_str(), otlp.position), ("otlp", 0));
    assert!(otlp.failing.expect("why").contains("token"));
    assert!(problems(&config)[0].contains("token"));
    exporters.finish(PATIENCE);
}
