use super::*;
use crate::scratch::Scratch;
use crate::segment::name;
use crate::spool::{Settings, Spool};
use crate::storage::Disk;
use std::fs;

fn open(dir: &Path) -> Spool {
    let disk = Disk::open(dir).unwrap();
    Spool::open(disk, Settings { segment_size: 1500 })
        .unwrap()
        .0
}

fn write(spool: &mut Spool, lines: u64) {
    for _ in 0..lines {
        let n = spool.head().n + 1;
        spool.stage(format!(r#"{{"i":{n}}}"#).as_bytes()).unwrap();
        spool.commit().unwrap();
    }
}

fn next(reader: &mut Reader, upto: u64) -> Result<Vec<u64>, ReadError> {
    let mut lines = Lines::default();
    reader.read(upto, 1000, 1 << 20, &mut lines)?;
    Ok(lines.iter().map(|line| line.n).collect())
}

#[test]
fn a_reader_follows_the_writer() {
    let scratch = Scratch::new();
    let mut reader = Reader::open(scratch.path(), 1).unwrap();
    assert_eq!(next(&mut reader, u64::MAX).unwrap(), [0; 0]);
    let mut spool = open(scratch.path());
    assert_eq!(next(&mut reader, u64::MAX).unwrap(), [0; 0]);
    let mut wanted = 1;
    for round in 1..20 {
        write(&mut spool, round);
        let head = spool.head().n;
        let seen = next(&mut reader, u64::MAX).unwrap();
        assert_eq!(seen, (wanted..=head).collect::<Vec<_>>());
        assert_eq!(next(&mut reader, u64::MAX).unwrap(), [0; 0]);
        wanted = head + 1;
    }
    assert!(spool.size().segments > 10);
}

#[test]
fn limits_are_kept() {
    let scratch = Scratch::new();
    let mut spool = open(scratch.path());
    write(&mut spool, 50);
    let mut reader = Reader::open(scratch.path(), 5).unwrap();
    assert_eq!(next(&mut reader, 4).unwrap(), [0; 0]);
    assert_eq!(next(&mut reader, 7).unwrap(), [5, 6, 7]);
    let mut lines = Lines::default();
    reader.read(50, 4, 1 << 20, &mut lines).unwrap();
    assert_eq!((lines.len(), lines.last().unwrap().n), (4, 11));
    // A line that is too long comes alone.
    reader.read(50, 100, 1, &mut lines).unwrap();
    assert_eq!((lines.len(), reader.next_n()), (1, 13));
    let two = 2 * lines.bytes().len();
    reader.read(50, 100, two + 20, &mut lines).unwrap();
    assert_eq!(lines.len(), 2);
    let bytes: Vec<u8> = lines
        .iter()
        .flat_map(|line| [line.bytes, b"\n"].concat())
        .collect();
    assert_eq!(bytes, lines.bytes());
    assert_eq!(next(&mut reader, u64::MAX).unwrap().len(), 36);
}

#[test]
fn half_a_line_is_not_there_yet_and_may_become_another() {
    let scratch = Scratch::new();
    let mut spool = open(scratch.path());
    write(&mut spool, 3);
    let path = scratch.path().join(name(1));
    let three = fs::read(&path).unwrap();
    let mut reader = Reader::open(scratch.path(), 1).unwrap();
    fs::write(&path, [&three[..], b"{\"i\":4,\"other"].concat()).unwrap();
    assert_eq!(next(&mut reader, u64::MAX).unwrap(), [1, 2, 3]);
    fs::write(&path, &three).unwrap();
    write(&mut spool, 1);
    assert_eq!(next(&mut reader, u64::MAX).unwrap(), [4]);
}

#[test]
fn what_lies_behind_the_limit_is_read_again() {
    let scratch = Scratch::new();
    let mut spool = open(scratch.path());
    write(&mut spool, 6);
    let path = scratch.path().join(name(1));
    let six = fs::read(&path).unwrap();
    let mut reader = Reader::open(scratch.path(), 1).unwrap();
    // Lines 4 to 6 were read from disk, and not given out: they may be given up.
    assert_eq!(next(&mut reader, 3).unwrap(), [1, 2, 3]);
    let third = six
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'\n')
        .nth(2)
        .unwrap()
        .0;
    drop(spool);
    fs::write(&path, &six[..=third]).unwrap();
    let mut spool = open(scratch.path());
    spool.stage(b"{\"other\":4}").unwrap();
    spool.commit().unwrap();
    let mut lines = Lines::default();
    reader.read(6, 10, 1 << 20, &mut lines).unwrap();
    assert_eq!(lines.len(), 1);
    assert!(lines.last().unwrap().bytes.starts_with(b"{\"other\":4"));
}

#[test]
fn removed_lines_are_said_to_be_removed() {
    let scratch = Scratch::new();
    let mut spool = open(scratch.path());
    write(&mut spool, 50);
    let mut behind = Reader::open(scratch.path(), 1).unwrap();
    while spool.retain(3000, u64::MAX, None, 0).unwrap().is_some() {}
    let oldest = spool.size().oldest_n;
    assert!(oldest > 20);
    let removed = |result: Result<_, ReadError>| match result {
        Err(ReadError::Removed { oldest }) => oldest,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        removed(Reader::open(scratch.path(), 1).map(|_| vec![])),
        oldest
    );
    // What it holds open it can still read.
    let first = next(&mut behind, u64::MAX).unwrap();
    assert_eq!(first[0], 1);
    assert_eq!(removed(next(&mut behind, u64::MAX)), oldest);
    let mut reader = Reader::open(scratch.path(), oldest).unwrap();
    assert_eq!(next(&mut reader, u64::MAX).unwrap().last(), Some(&50));
}

#[test]
fn damage_is_named_once_and_can_be_skipped() {
    let scratch = Scratch::new();
    let mut spool = open(scratch.path());
    write(&mut spool, 50);
    let all = segments(scratch.path()).unwrap();
    let (second, third, fourth) = (all[1].first, all[2].first, all[3].first);
    // One byte in the first line of the second segment; the third one is gone.
    let mut bytes = fs::read(&all[1].path).unwrap();
    bytes[3] ^= 1;
    fs::write(&all[1].path, bytes).unwrap();
    fs::remove_file(&all[2].path).unwrap();
    let mut reader = Reader::open(scratch.path(), 1).unwrap();
    let mut seen = Vec::new();
    let mut damage = Vec::new();
    loop {
        match next(&mut reader, u64::MAX) {
            Ok(lines) if lines.is_empty() => break,
            Ok(lines) => seen.extend(lines),
            Err(ReadError::Damaged { n, what }) => {
                assert!(!what.is_empty());
                let again = next(&mut reader, u64::MAX).unwrap_err();
                assert!(
                    matches!(again, ReadError::Damaged { n: m, .. } if m == n),
                    "{again}"
                );
                damage.push((n, reader.skip().unwrap()));
            }
            Err(other) => panic!("{other}"),
        }
    }
    assert_eq!(damage, [(second, Some(second + 1)), (third, Some(fourth))]);
    let wanted: Vec<u64> = (1..=50)
        .filter(|n| *n != second && !(third..fourth).contains(n))
        .collect();
    assert_eq!(seen, wanted);
}

#[test]
fn damage_before_the_next_line_is_not_its_own() {
    let scratch = Scratch::new();
    let mut spool = open(scratch.path());
    write(&mut spool, 50);
    let second = &segments(scratch.path()).unwrap()[1];
    let mut bytes = fs::read(&second.path).unwrap();
    let end = bytes.iter().position(|b| *b == b'\n').unwrap();
    bytes[end + 4] ^= 1;
    fs::write(&second.path, bytes).unwrap();
    let mut reader = Reader::open(scratch.path(), second.first + 2).unwrap();
    let seen = next(&mut reader, u64::MAX).unwrap();
    assert_eq!(seen, (second.first + 2..=50).collect::<Vec<_>>());
    let mut reader = Reader::open(scratch.path(), second.first + 1).unwrap();
    let error = next(&mut reader, u64::MAX).unwrap_err();
    assert!(
        matches!(error, ReadError::Damaged { n, .. } if n == second.first + 1),
        "{error}"
    );
    assert_eq!(reader.skip().unwrap(), Some(second.first + 2));
}

#[test]
fn damage_at_the_end_stays_until_a_line_follows() {
    for from in [1, 5] {
        let scratch = Scratch::new();
        let mut spool = open(scratch.path());
        write(&mut spool, 5);
        let path = scratch.path().join(name(1));
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() - 40;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        let mut reader = Reader::open(scratch.path(), from).unwrap();
        if from == 1 {
            assert_eq!(next(&mut reader, 5).unwrap(), [1, 2, 3, 4]);
        }
        for _ in 0..3 {
            let error = next(&mut reader, 5).unwrap_err();
            assert!(matches!(error, ReadError::Damaged { n: 5, .. }), "{error}");
            assert_eq!(reader.skip().unwrap(), None);
        }
        write(&mut spool, 1);
        assert!(next(&mut reader, 6).is_err());
        assert_eq!(reader.skip().unwrap(), Some(6));
        assert_eq!(next(&mut reader, 6).unwrap(), [6]);
    }
}

#[test]
fn garbage_without_an_end_costs_one_line() {
    let scratch = Scratch::new();
    let mut spool = open(scratch.path());
    write(&mut spool, 10);
    let path = scratch.path().join(name(1));
    let good = fs::read(&path).unwrap();
    let mut ends = (0..good.len()).filter(|at| good[*at] == b'\n');
    let five = ends.nth(4).unwrap() + 1;
    let bytes = [&good[..five], &vec![0; 600_000][..], &good[five..]].concat();
    fs::write(&path, bytes).unwrap();
    let mut reader = Reader::open(scratch.path(), 1).unwrap();
    assert_eq!(next(&mut reader, 10).unwrap(), [1, 2, 3, 4, 5]);
    assert!(next(&mut reader, 10).is_err());
    assert_eq!(reader.skip().unwrap(), Some(7));
    assert_eq!(next(&mut reader, 10).unwrap(), [7, 8, 9, 10]);
}

#[test]
fn an_empty_segment_in_the_middle_is_damage() {
    let scratch = Scratch::new();
    let mut spool = open(scratch.path());
    write(&mut spool, 50);
    let all = segments(scratch.path()).unwrap();
    fs::write(&all[1].path, b"").unwrap();
    let mut reader = Reader::open(scratch.path(), all[1].first).unwrap();
    let error = next(&mut reader, 50).unwrap_err();
    assert!(
        matches!(error, ReadError::Damaged { n, .. } if n == all[1].first),
        "{error}"
    );
    assert_eq!(reader.skip().unwrap(), Some(all[2].first));
}

#[test]
fn half_a_first_line_is_not_there_yet() {
    let scratch = Scratch::new();
    let path = scratch.path().join(name(1));
    fs::write(&path, b"{\"i\":1,\"n").unwrap();
    let mut reader = Reader::open(scratch.path(), 1).unwrap();
    assert_eq!(next(&mut reader, u64::MAX).unwrap(), [0; 0]);
    let mut spool = open(scratch.path());
    write(&mut spool, 1);
    assert_eq!(next(&mut reader, u64::MAX).unwrap(), [1]);
}

#[test]
fn a_torn_end_before_another_segment_is_damage() {
    let scratch = Scratch::new();
    let mut spool = open(scratch.path());
    write(&mut spool, 30);
    let first = &segments(scratch.path()).unwrap()[0].path;
    let mut bytes = fs::read(first).unwrap();
    bytes.truncate(bytes.len() - 10);
    fs::write(first, bytes).unwrap();
    let mut reader = Reader::open(scratch.path(), 1).unwrap();
    let seen = next(&mut reader, u64::MAX).unwrap();
    let n = seen.last().unwrap() + 1;
    let error = next(&mut reader, u64::MAX).unwrap_err();
    assert!(
        matches!(error, ReadError::Damaged { n: m, .. } if m == n),
        "{error}"
    );
    assert_eq!(reader.skip().unwrap(), Some(n + 1));
    assert_eq!(next(&mut reader, u64::MAX).unwrap().last(), Some(&30));
}

#[test]
fn reading_beside_a_busy_writer_sees_every_line_once() {
    let scratch = Scratch::new();
    let dir = scratch.path().to_owned();
    let mut spool = open(&dir);
    let readers: Vec<_> = (0..2)
        .map(|_| {
            let mut reader = Reader::open(&dir, 1).unwrap();
            std::thread::spawn(move || {
                let mut wanted = 1;
                while wanted <= 2000 {
                    for n in next(&mut reader, u64::MAX).unwrap() {
                        assert_eq!(n, wanted);
                        wanted += 1;
                    }
                    std::thread::yield_now();
                }
            })
        })
        .collect();
    write(&mut spool, 2000);
    for reader in readers {
        reader.join().unwrap();
    }
}
