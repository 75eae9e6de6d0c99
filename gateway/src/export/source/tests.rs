use super::super::driver::Source;
use super::*;
use crate::scratch::Scratch;
use postern_spool::{Disk, Settings, Spool};

fn spool(dir: &Path, lines: u64) -> Spool {
    let settings = Settings { segment_size: 1024 };
    let (mut spool, _) = Spool::open(Disk::open(dir).expect("a folder"), settings).expect("opens");
    for i in 0..lines {
        let body = format!("{{\"i\":{i}}}");
        spool.stage(body.as_bytes()).expect("fits");
        spool.commit().expect("written");
    }
    spool.sync().expect("on disk");
    spool
}

fn open(dir: &Path, name: &'static str, head: u64) -> Result<(SpoolSource, u64, u64), ReadError> {
    SpoolSource::open(dir, name, head, Newer::default())
}

fn rest(source: &mut SpoolSource, head: u64) -> Vec<u64> {
    let mut batch = Batch::default();
    source.fill(&mut batch, head, 1 << 20).expect("read");
    batch.head(usize::MAX).iter().map(|(n, _)| n).collect()
}

#[test]
fn an_exporter_goes_on_behind_its_cursor() {
    let folder = Scratch::new();
    let dir = folder.path("flows");
    spool(&dir, 20);
    let (mut source, position, missed) = open(&dir, "loki", 20).expect("opens");
    assert_eq!((position, missed), (0, 0));
    let mut batch = Batch::default();
    source.fill(&mut batch, 12, 1 << 20).expect("read");
    let (n, line) = batch.head(12).iter().last().expect("twelve");
    source.store(n, line).expect("stored");

    let (mut again, position, missed) = open(&dir, "loki", 20).expect("opens");
    assert_eq!((position, missed), (12, 0));
    assert_eq!(rest(&mut again, 20), (13..=20).collect::<Vec<_>>());
    let (_, other, _) = open(&dir, "otlp", 20).expect("opens");
    assert_eq!(other, 0, "each has its own");
}

#[test]
fn an_exporter_goes_on_behind_its_note_in_the_same_boot() {
    let folder = Scratch::new();
    let dir = folder.path("flows");
    spool(&dir, 20);
    let open = |boot: &str, sink: Option<Cursor>| {
        let boot = Some(boot.to_owned());
        SpoolSource::open(&dir, "file", 20, Newer { boot, sink }).expect("opens")
    };
    let mut batch = Batch::default();
    let (mut source, position, _) = open("a", None);
    assert_eq!(position, 0);
    source.fill(&mut batch, 20, 1 << 20).expect("read");
    let line = |n: usize| batch.head(n).iter().last().expect("so many");
    let at = |n: usize| Cursor {
        n: line(n).0,
        hash: Hash::of(line(n).1),
    };
    source.note(5, line(5).1).expect("noted");
    assert_eq!(open("b", Some(at(9))).1, 0, "after a power cut");
    let foreign = Cursor {
        hash: Hash([7; 32]),
        ..at(9)
    };
    assert_eq!(open("a", Some(foreign)).1, 5, "a line of another log");
    assert_eq!(open("b", None).1, 5, "it is on disk now");

    let (mut source, ..) = open("a", None);
    source.note(7, line(7).1).expect("noted");
    assert_eq!(open("a", Some(at(4))).1, 7, "the sink was begun anew");
    source.store(7, line(7).1).expect("stored");
    assert_eq!(open("a", Some(at(9))).1, 9, "the sink has more");

    source.store(10, line(10).1).expect("stored");
    assert_eq!((open("a", None).1, open("b", None).1), (10, 10));
    source.note(15, line(15).1).expect("noted");
    assert_eq!((open("b", None).1, open("a", None).1), (10, 15));
    // Set back by hand.
    at(3).store(&dir, "file").expect("stored");
    assert_eq!(open("a", None).1, 3);
    std::fs::remove_file(dir.join("cursor-file.json")).expect("removed");
    assert_eq!(open("a", None).1, 0);
}

#[test]
fn what_retention_took_is_counted() {
    let folder = Scratch::new();
    let dir = folder.path("flows");
    spool(&dir, 40);
    let (mut source, ..) = open(&dir, "loki", 40).expect("opens");
    let mut batch = Batch::default();
    source.fill(&mut batch, 2, 1 << 20).expect("read");
    let (n, line) = batch.head(2).iter().last().expect("two");
    source.store(n, line).expect("stored");
    let segments = segments(&dir).expect("listed");
    let oldest = segments[2].first;
    for gone in &segments[..2] {
        std::fs::remove_file(&gone.path).expect("removed");
    }
    let (mut again, position, missed) = open(&dir, "loki", 40).expect("opens");
    assert_eq!((position, missed), (oldest - 1, oldest - 1 - 2));
    assert_eq!(rest(&mut again, 40), (oldest..=40).collect::<Vec<_>>());
}

#[test]
fn a_cursor_of_another_log_begins_anew() {
    let folder = Scratch::new();
    let dir = folder.path("flows");
    spool(&dir, 5);
    for (n, hash) in [(3, Hash([7; 32])), (99, Hash::ZERO)] {
        Cursor { n, hash }.store(&dir, "loki").expect("stored");
        let (mut source, position, missed) = open(&dir, "loki", 5).expect("opens");
        assert_eq!((position, missed), (0, 0));
        assert_eq!(rest(&mut source, 5), [1, 2, 3, 4, 5]);
    }
    std::fs::write(dir.join("cursor-loki.json"), "half a curs").expect("written");
    let (_, position, _) = open(&dir, "loki", 5).expect("opens");
    assert_eq!(position, 0);
}

#[test]
fn a_damaged_line_is_missed_and_the_next_one_is_not() {
    let folder = Scratch::new();
    let dir = folder.path("flows");
    spool(&dir, 4);
    let path = segments(&dir).expect("listed")[0].path.clone();
    let text = std::fs::read_to_string(&path).expect("read");
    std::fs::write(&path, text.replace("{\"i\":1,", "{\"i\":7,")).expect("written");
    let (mut source, ..) = open(&dir, "loki", 4).expect("opens");
    assert_eq!(rest(&mut source, 4), [1], "what is good first");
    let trouble = source.fill(&mut Batch::default(), 4, 1 << 20);
    assert!(
        matches!(trouble, Err(Trouble::Missed { from: 2, to: 2, .. })),
        "{trouble:?}"
    );
    assert_eq!(rest(&mut source, 4), [3, 4]);
}

#[test]
fn refused_lines_are_kept_up_to_a_bound() {
    let folder = Scratch::new();
    let dir = folder.path("flows");
    spool(&dir, 1);
    let (mut source, ..) = open(&dir, "loki", 1).expect("opens");
    source.park(b"{\"n\":1}").expect("kept");
    source.park(b"{\"n\":2}").expect("kept");
    let path = dir.join("parked-loki.jsonl");
    let kept = std::fs::read_to_string(&path).expect("there");
    assert_eq!(kept, "{\"n\":1}\n{\"n\":2}\n");
    let file = OpenOptions::new().write(true).open(&path).expect("opens");
    file.set_len(LARGEST_PARKED - 3).expect("grown");
    source.park(b"{\"n\":3}").expect("counted only");
    let size = std::fs::metadata(&path).expect("there").len();
    assert_eq!(size, LARGEST_PARKED - 3);
}
