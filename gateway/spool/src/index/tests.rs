use super::*;
use crate::scratch::Scratch;
use crate::spool::{Settings, Spool};
use crate::storage::Disk;
use std::fs;

fn spool(dir: &Path, bodies: impl Iterator<Item = String>) -> Vec<SegmentFile> {
    let disk = Disk::open(dir).unwrap();
    let (mut spool, _) = Spool::open(disk, Settings { segment_size: 2000 }).unwrap();
    for body in bodies {
        spool.stage(body.as_bytes()).unwrap();
        spool.commit().unwrap();
    }
    segments(dir).unwrap()
}

fn record(i: u64) -> String {
    let user = ["ana", "bo\\u0062"][i as usize % 2];
    format!(
        r#"{{"kind":"flow","time":"2026-11-22T05:00:{:02}.000Z","user":"{user}","device":"d{i}","verdict":"allow","groups":["x"]}}"#,
        59 - i
    )
}

#[test]
fn an_index_says_what_a_segment_holds() {
    let scratch = Scratch::new();
    let all = spool(scratch.path(), (0..30).map(record));
    let index = Index::load_or_build(&all[0]).unwrap();
    assert_eq!((index.first_n, index.last_n), (1, all[1].first - 1));
    assert_eq!(index.lines, index.last_n);
    // The clock ran backwards: neither end is the extreme one.
    assert_eq!(index.max_time, millis("2026-11-22T05:00:59.000Z"));
    assert_eq!(
        index.max_time.unwrap() - index.min_time.unwrap(),
        (index.lines - 1) * 1000
    );
    let set = |values: &[&str]| Some(values.iter().map(|value| value.to_string()).collect());
    assert_eq!(index.users, set(&["ana", "bob"]));
    assert_eq!(index.verdicts, set(&["allow"]));
    assert_eq!(index.targets, set(&[]));
    assert_eq!(index.devices.as_ref().unwrap().len() as u64, index.lines);
    // It was stored, and is the same.
    assert_eq!(Index::load(&all[0]), Some(index));
    assert_eq!(Index::load(&all[1]), None);
}

#[test]
fn all_but_the_last_segment_get_one() {
    let scratch = Scratch::new();
    let all = spool(scratch.path(), (0..30).map(record));
    assert_eq!(build_missing(scratch.path()).unwrap(), all.len() - 1);
    assert_eq!(build_missing(scratch.path()).unwrap(), 0);
    assert_eq!(Index::load(all.last().unwrap()), None);
    // One whose segment is gone goes too; what is not ours stays.
    fs::remove_file(&all[0].path).unwrap();
    let other = scratch.path().join("mine.index");
    fs::write(&other, "").unwrap();
    assert_eq!(build_missing(scratch.path()).unwrap(), 0);
    assert!(!all[0].index_path().exists() && all[1].index_path().exists());
    assert!(other.exists());
}

#[test]
fn an_index_that_does_not_fit_is_built_anew() {
    let scratch = Scratch::new();
    let all = spool(scratch.path(), (0..30).map(record));
    let good = Index::load_or_build(&all[0]).unwrap();
    let of_another = Index::load_or_build(&all[1]).unwrap();
    let stale = Index {
        bytes: good.bytes - 1,
        ..good.clone()
    };
    let older = Index {
        version: VERSION + 1,
        ..good.clone()
    };
    let json = |index: &Index| serde_json::to_vec(index).unwrap();
    for wrong in [
        vec![],
        b"{".to_vec(),
        json(&of_another),
        json(&stale),
        json(&older),
    ] {
        fs::write(all[0].index_path(), wrong).unwrap();
        assert_eq!(Index::load(&all[0]), None);
        assert_eq!(Index::load_or_build(&all[0]).unwrap(), good);
    }
}

#[test]
fn too_many_values_are_none() {
    let scratch = Scratch::new();
    let disk = Disk::open(scratch.path()).unwrap();
    let (mut spool, _) = Spool::open(
        disk,
        Settings {
            segment_size: 1 << 30,
        },
    )
    .unwrap();
    for i in 0..=MAX_VALUES {
        let body = format!(r#"{{"device":"d{i}","rule":"r{}"}}"#, i % MAX_VALUES);
        spool.stage(body.as_bytes()).unwrap();
    }
    spool.commit().unwrap();
    let index = Index::build(&segments(scratch.path()).unwrap()[0]).unwrap();
    assert_eq!(index.devices, None);
    assert_eq!(index.rules.unwrap().len(), MAX_VALUES);
    assert_eq!((index.min_time, index.max_time), (None, None));
}
