use super::*;
use crate::line::{Hash, Line};
use crate::reader::{Lines, Reader};
use crate::scratch::Scratch;
use std::path::Path;

const SMALL: Settings = Settings { segment_size: 2000 };

fn body(i: u64) -> Vec<u8> {
    let time = crate::time::rfc3339(1_795_323_643_000 + i * 1000);
    format!(r#"{{"kind":"flow","boot":"7","worker":0,"seq":{i},"time":"{time}"}}"#).into_bytes()
}

fn lines(dir: &Path, from: u64, upto: u64) -> Vec<Vec<u8>> {
    let mut reader = Reader::open(dir, from).unwrap();
    let mut lines = Lines::default();
    let mut all = Vec::new();
    loop {
        reader.read(upto, 7, 4000, &mut lines).unwrap();
        if lines.is_empty() {
            return all;
        }
        all.extend(lines.iter().map(|line| line.bytes.to_vec()));
    }
}

#[test]
fn the_chain_goes_through_segments_and_restarts() {
    let scratch = Scratch::new();
    let mut next = 1;
    for _ in 0..3 {
        let disk = Disk::open(scratch.path()).unwrap();
        let (mut spool, found) = Spool::open(disk, SMALL).unwrap();
        assert_eq!(found.next_n, next);
        assert_eq!((found.cut, found.damaged), (None, None));
        for _ in 0..10 {
            for _ in 0..3 {
                assert_eq!(spool.stage(&body(next)), Ok(next));
                next += 1;
            }
            assert_eq!(spool.staged(), 3);
            spool.commit().unwrap();
            assert_eq!(spool.committed().iter().filter(|b| **b == b'\n').count(), 3);
            assert_eq!(spool.head().n, next - 1);
            assert!(spool.synced() < spool.head().n);
        }
        spool.sync().unwrap();
        assert_eq!(spool.synced(), next - 1);
        assert!(spool.size().segments >= 3);
        assert_eq!(spool.size().oldest_ms, 1_795_323_644_000);
    }
    let all = lines(scratch.path(), 1, u64::MAX);
    assert_eq!(all.len() as u64, next - 1);
    let mut prev = Hash::ZERO;
    for (i, bytes) in all.iter().enumerate() {
        let line = Line::parse(bytes).unwrap();
        assert_eq!((line.n, line.prev), (i as u64 + 1, prev));
        prev = line.hash();
    }
    assert_eq!(lines(scratch.path(), 50, 60), all[49..60]);
}

#[test]
fn one_folder_has_one_writer() {
    let scratch = Scratch::new();
    let first = Disk::open(scratch.path()).unwrap();
    let second = Disk::open(scratch.path()).unwrap_err().to_string();
    assert!(
        second.contains(scratch.path().to_str().unwrap()) && second.contains("another process"),
        "{second}"
    );
    drop(first);
    Disk::open(scratch.path()).unwrap();
}

#[test]
fn retention_goes_by_size_and_by_age_and_never_takes_the_end() {
    let scratch = Scratch::new();
    let disk = Disk::open(scratch.path()).unwrap();
    let (mut spool, _) = Spool::open(disk, SMALL).unwrap();
    for i in 1..=60 {
        spool.stage(&body(i)).unwrap();
        spool.commit().unwrap();
    }
    let all = crate::segment::segments(scratch.path()).unwrap();
    assert!(all.len() > 5);
    crate::index::build_missing(scratch.path()).unwrap();
    let last_of = |segment: usize| all[segment + 1].first - 1;
    let time_of = |n: u64| 1_795_323_643_000 + n * 1000;
    let never = u64::MAX;
    // Nothing is too large or too old.
    assert_eq!(
        spool
            .retain(never, 5000, None, time_of(last_of(0)) + 5000)
            .unwrap(),
        None
    );
    // Too old, and an exporter has not got it.
    let now = time_of(last_of(0)) + 5001;
    let behind = Some(last_of(0) - 1);
    assert_eq!(spool.retain(never, 5000, behind, now).unwrap(), None);
    let removed = spool.retain(never, 5000, Some(last_of(0)), now).unwrap();
    let wanted = Removed {
        from_n: 1,
        to_n: last_of(0),
        why: Why::Age,
        unacknowledged: 0,
    };
    assert_eq!(removed, Some(wanted));
    assert_eq!(spool.retain(never, 5000, None, now).unwrap(), None);
    assert!(!all[0].path.exists() && !all[0].index_path().exists());
    assert_eq!(spool.size().oldest_n, all[1].first);
    assert_eq!(spool.size().oldest_ms, time_of(all[1].first));
    // Too large: whoever has it, and what nobody has is counted.
    let bytes = spool.size().bytes - 1;
    let removed = spool.retain(bytes, never, behind, now).unwrap().unwrap();
    assert_eq!(
        (removed.why, removed.unacknowledged),
        (Why::Size, last_of(1) - last_of(0))
    );
    let removed = spool
        .retain(0, never, Some(last_of(2) - 2), now)
        .unwrap()
        .unwrap();
    assert_eq!(removed.unacknowledged, 2);
    while spool.retain(0, 0, None, never).unwrap().is_some() {}
    assert_eq!(spool.size().segments, 1);
    assert_eq!(spool.head().n, 60);
    let verified = crate::verify::folder(scratch.path(), None, &mut |_| {}).unwrap();
    assert_eq!(verified.head, spool.head());
}

#[test]
fn a_segment_that_cannot_be_read_does_not_stay_for_ever() {
    let scratch = Scratch::new();
    let disk = Disk::open(scratch.path()).unwrap();
    let (mut spool, _) = Spool::open(disk, SMALL).unwrap();
    for i in 1..=60 {
        spool.stage(&body(i)).unwrap();
        spool.commit().unwrap();
    }
    let all = crate::segment::segments(scratch.path()).unwrap();
    std::fs::write(&all[0].path, vec![0; all[0].len as usize]).unwrap();
    let last = 1_795_323_643_000 + (all[2].first - 1) * 1000;
    let kept = spool.retain(u64::MAX, 5000, None, last + 5000).unwrap();
    assert_eq!(kept, None);
    let removed = spool.retain(u64::MAX, 5000, None, last + 5001).unwrap();
    assert_eq!(removed.map(|removed| removed.from_n), Some(1));
}

#[test]
fn files_are_for_their_owner_and_group() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let dir = scratch.path().join("data/flows");
    let disk = Disk::open(&dir).unwrap();
    let (mut spool, _) = Spool::open(disk, SMALL).unwrap();
    spool.stage(&body(1)).unwrap();
    spool.commit().unwrap();
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&dir) & 0o027, 0);
    for file in std::fs::read_dir(&dir).unwrap() {
        assert_eq!(mode(&file.unwrap().path()) & 0o137, 0);
    }
}
