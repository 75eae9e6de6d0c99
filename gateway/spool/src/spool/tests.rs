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
