//! Every call to the disk fails once, in every way; the power goes at every byte.

use super::*;
use crate::line::Line;
use crate::scratch::Scratch;
use crate::segment::first_of;
use crate::testing::{Fail, SimDisk};
use crate::verify::{self, Verified, VerifyError, What};

const SMALL: Settings = Settings { segment_size: 900 };

const WAYS: [Fail; 6] = [
    Fail::With(io::ErrorKind::StorageFull),
    Fail::With(io::ErrorKind::ReadOnlyFilesystem),
    Fail::With(io::ErrorKind::Other),
    Fail::Short(0),
    Fail::Short(1),
    Fail::Short(200),
];

/// Line `n` in a test says its own number, so that a lost or doubled one shows.
fn body(i: u64) -> Vec<u8> {
    format!(r#"{{"schema":2,"kind":"flow","boot":"7","worker":0,"seq":{i}}}"#).into_bytes()
}

/// All bytes of the segments, in order.
fn segments_of(disk: &SimDisk) -> Vec<u8> {
    let files = disk.files();
    let segments = files.iter().filter(|(name, _)| first_of(name).is_some());
    segments.flat_map(|(_, bytes)| bytes.clone()).collect()
}

/// The numbers that the lines say of themselves.
fn said(disk: &SimDisk) -> Vec<u64> {
    let bytes = segments_of(disk);
    let lines = bytes.split(|b| *b == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let json: serde_json::Value = serde_json::from_slice(line).unwrap();
            json["seq"].as_u64().unwrap()
        })
        .collect()
}

fn verified(disk: &SimDisk) -> Result<Verified, VerifyError> {
    let scratch = Scratch::new();
    disk.dump(scratch.path()).unwrap();
    verify::folder(scratch.path(), None, &mut |_| {})
}

fn open(disk: &SimDisk) -> (Spool<SimDisk>, Recovered) {
    Spool::open(disk.clone(), SMALL).unwrap()
}

/// Groups of one to four lines, each synced or not, on a disk that may fail.
struct Work {
    disk: SimDisk,
    spool: Option<Spool<SimDisk>>,
    next: u64,
    synced: u64,
}

impl Work {
    fn new(disk: &SimDisk) -> Work {
        Work {
            disk: disk.clone(),
            spool: None,
            next: 1,
            synced: 0,
        }
    }

    /// One step at a time, so that it can be gone on with after a failure.
    fn run(&mut self, upto: u64) -> Result<(), ()> {
        loop {
            let Some(spool) = &mut self.spool else {
                let (spool, _) = Spool::open(self.disk.clone(), SMALL).map_err(|_| ())?;
                assert_eq!(spool.head().n, self.next - 1);
                self.spool = Some(spool);
                continue;
            };
            if spool.staged() == 0 {
                if self.next > upto {
                    break;
                }
                for _ in 0..=self.next % 4 {
                    assert_eq!(spool.stage(&body(self.next)), Ok(self.next));
                    self.next += 1;
                }
            }
            spool.commit().map_err(|_| ())?;
            if self.next.is_multiple_of(3) {
                spool.sync().map_err(|_| ())?;
                self.synced = spool.synced();
                assert_eq!(self.synced, self.next - 1);
            }
        }
        let spool = self.spool.as_mut().expect("opened above");
        spool.sync().map_err(|_| ())?;
        self.synced = spool.synced();
        Ok(())
    }
}

/// How many calls the whole work takes when nothing fails.
fn calls() -> u64 {
    let disk = SimDisk::new();
    Work::new(&disk).run(30).unwrap();
    assert!(
        disk.files().len() >= 4,
        "several segments: {:?}",
        disk.files().keys()
    );
    disk.calls()
}

#[test]
fn after_any_failure_it_goes_on_and_nothing_is_lost_or_doubled() {
    for call in 0..calls() {
        for (way, times) in WAYS.into_iter().flat_map(|way| [(way, 1), (way, 4)]) {
            let disk = SimDisk::new();
            disk.fail(call, call + times, way);
            let mut work = Work::new(&disk);
            let failures = (0..10).take_while(|_| work.run(30).is_err()).count();
            assert!(
                (1..10).contains(&failures),
                "call {call}, {way:?}: {failures}"
            );
            let wanted: Vec<u64> = (1..work.next).collect();
            assert_eq!(said(&disk), wanted, "call {call}, {way:?}");
            // What counts is what the power cannot take.
            let after = disk.power_cut(0);
            assert_eq!(said(&after), wanted, "call {call}, {way:?}");
            assert_eq!(verified(&after).unwrap().last_n, work.next - 1);
            let (spool, found) = open(&after);
            assert_eq!((found.cut, found.damaged), (None, None));
            assert_eq!(spool.head().n, work.next - 1);
        }
    }
}

#[test]
fn whatever_fails_before_the_power_goes_what_was_synced_is_there() {
    for call in 0..calls() {
        for way in WAYS {
            let disk = SimDisk::new();
            disk.fail(call, u64::MAX, way);
            let mut work = Work::new(&disk);
            work.run(30).unwrap_err();
            for keep in [0, 1, 100, 250, usize::MAX] {
                let after = disk.power_cut(keep);
                let (mut spool, found) = open(&after);
                let kept = spool.head().n;
                assert!(kept >= work.synced, "call {call}, {way:?}: {kept}");
                assert_eq!(found.next_n, kept + 1);
                assert_eq!(found.damaged, None);
                spool.stage(&body(kept + 1)).unwrap();
                spool.commit().unwrap();
                spool.sync().unwrap();
                let wanted: Vec<u64> = (1..=kept + 1).collect();
                assert_eq!(said(&after.power_cut(0)), wanted);
                verified(&after).unwrap();
            }
        }
    }
}

#[test]
fn what_is_given_up_is_nowhere() {
    for call in 0..calls() {
        for way in WAYS {
            let disk = SimDisk::new();
            disk.fail(call, call + 2, way);
            let mut work = Work::new(&disk);
            let mut given_up = Vec::new();
            while work.run(30).is_err() {
                let Some(spool) = &mut work.spool else {
                    continue;
                };
                let staged = spool.staged();
                assert_eq!(spool.drop_staged(), staged);
                assert_eq!(spool.staged(), 0);
                let head = spool.head().n;
                assert_eq!(work.next - 1 - staged, head);
                given_up.push((head + 1)..work.next);
                work.next = head + 1;
                // Shorter than what was given up, so that its end must not show.
                if staged > 0 {
                    spool.stage(&body(work.next)).unwrap();
                    work.next += 1;
                }
            }
            assert!(call < 5 || !given_up.is_empty(), "call {call}, {way:?}");
            let wanted: Vec<u64> = (1..work.next).collect();
            assert_eq!(said(&disk.power_cut(0)), wanted, "call {call}, {way:?}");
            verified(&disk).unwrap();
        }
    }
}

#[test]
fn the_power_may_go_at_every_byte() {
    let disk = SimDisk::new();
    let (mut spool, _) = Spool::open(
        disk.clone(),
        Settings {
            segment_size: 1 << 20,
        },
    )
    .unwrap();
    let mut ends = Vec::new();
    for i in 1..=8 {
        spool.stage(&body(i)).unwrap();
        spool.commit().unwrap();
        if i == 3 {
            spool.sync().unwrap();
        }
        ends.push(spool.size().bytes as usize);
    }
    let synced = ends[2];
    assert_eq!(disk.unsynced(), ends[7] - synced);
    for keep in 0..=disk.unsynced() {
        let after = disk.power_cut(keep);
        let whole = ends.iter().filter(|end| **end <= synced + keep).count();
        let (mut spool, found) = open(&after);
        assert_eq!(spool.head().n, whole as u64, "{keep}");
        let torn = (synced + keep - ends[whole - 1]) as u64;
        let cut = found.cut.map(|cut| (cut.segment, cut.at_n, cut.bytes));
        assert_eq!(cut, (torn > 0).then_some((1, whole as u64 + 1, torn)));
        let last = Line::parse(found.last.as_deref().unwrap()).unwrap().n;
        assert_eq!(last, whole as u64);
        for i in 1..=3 {
            spool.stage(&body(whole as u64 + i)).unwrap();
        }
        spool.commit().unwrap();
        assert_eq!(verified(&after).unwrap().last_n, whole as u64 + 3);
    }
}

/// A spool of 20 lines in one segment, and where each line ends.
fn twenty() -> (SimDisk, Vec<u8>, Vec<usize>) {
    let disk = SimDisk::new();
    let (mut spool, _) = Spool::open(
        disk.clone(),
        Settings {
            segment_size: 1 << 20,
        },
    )
    .unwrap();
    let mut ends = vec![0];
    for i in 1..=20 {
        spool.stage(&body(i)).unwrap();
        spool.commit().unwrap();
        ends.push(spool.size().bytes as usize);
    }
    spool.sync().unwrap();
    let bytes = segments_of(&disk);
    (disk, bytes, ends)
}

#[test]
fn damage_before_whole_lines_is_stated_and_stays_for_verify() {
    let (disk, good, ends) = twenty();
    let flipped = |line: usize| {
        let mut bytes = good.clone();
        bytes[ends[line - 1] + 20] ^= 1;
        bytes
    };
    let without = |line: usize| [&good[..ends[line - 1]], &good[ends[line]..]].concat();
    let zeroed = |line: usize| {
        let mut bytes = good.clone();
        bytes[ends[line - 1]..ends[line] - 1].fill(0);
        bytes
    };
    let torn = |line: usize| {
        let mut bytes = flipped(line);
        bytes.truncate(ends[19] + 30);
        bytes
    };
    for line in [1, 2, 11, 19] {
        let cases = [
            (flipped(line), 20),
            (without(line), 20),
            (zeroed(line), 20),
            (torn(line), 19),
        ];
        for (bytes, last) in cases {
            if line == last {
                continue;
            }
            disk.put(&crate::segment::name(1), &bytes);
            let disk = disk.power_cut(0);
            for reopened in [false, true] {
                let (spool, found) = open(&disk);
                assert_eq!(spool.head().n, last as u64);
                assert_eq!(found.cut, None);
                assert_eq!(found.damaged.is_none(), reopened, "stated once");
                if let Some(damage) = found.damaged {
                    assert_eq!(damage.offset, ends[line - 1] as u64);
                    assert_eq!(damage.offset + damage.bytes, bytes.len() as u64);
                    assert_eq!((damage.from_n, damage.to_n), (line as u64, last as u64));
                }
            }
            let (mut spool, _) = open(&disk);
            spool.stage(&body(last as u64 + 1)).unwrap();
            spool.commit().unwrap();
            assert_eq!(
                disk.files()[&crate::segment::name(1)],
                bytes,
                "the evidence is as it was"
            );
            let Err(VerifyError::Fault(fault)) = verified(&disk) else {
                panic!("damage in line {line} is not found");
            };
            assert_eq!(fault.n, line as u64);
            assert_ne!(fault.what, What::Changed);
        }
    }
}

#[test]
fn a_whole_line_is_never_cut_off() {
    let (disk, good, ends) = twenty();
    for line in [1, 5, 20] {
        let again = &good[ends[line - 1]..ends[line]];
        let bytes = [&good[..], again].concat();
        disk.put(&crate::segment::name(1), &bytes);
        let disk = disk.power_cut(0);
        let (spool, found) = open(&disk);
        assert_eq!((spool.head().n, found.cut), (20, None));
        let damage = found.damaged.map(|damage| damage.offset);
        assert_eq!(damage, Some(ends[20] as u64));
        assert_eq!(disk.files()[&crate::segment::name(1)], bytes);
        assert!(verified(&disk).is_err());
    }
}

#[test]
fn lines_of_another_spool_are_refused_not_cut() {
    let (disk, good, ends) = twenty();
    disk.put(&crate::segment::name(500), &good[..ends[3]]);
    let error = Spool::open(disk.clone(), SMALL).unwrap_err().to_string();
    assert!(error.contains("00500.jsonl holds line 3"), "{error}");
    assert_eq!(disk.files()[&crate::segment::name(500)].len(), ends[3]);
}

#[test]
fn a_crash_between_two_segments_is_nothing() {
    let (disk, good, ends) = twenty();
    disk.put(&crate::segment::name(21), b"");
    let (mut spool, found) = open(&disk);
    assert_eq!((found.cut, found.damaged, found.next_n), (None, None, 21));
    assert_eq!(found.last.as_deref(), Some(&good[ends[19]..ends[20] - 1]));
    // The segment before holds the only line that the next one can be chained to.
    assert_eq!(spool.retain(0, 0, None, u64::MAX).unwrap(), None);
    spool.stage(&body(21)).unwrap();
    spool.commit().unwrap();
    assert_eq!(verified(&disk).unwrap().last_n, 21);
    // All of it is torn.
    disk.put(&crate::segment::name(21), b"{\"schema\":2,");
    let (mut spool, found) = open(&disk);
    assert_eq!(found.cut.map(|cut| (cut.at_n, cut.bytes)), Some((21, 12)));
    spool.stage(&body(21)).unwrap();
    spool.commit().unwrap();
    assert_eq!(verified(&disk).unwrap().last_n, 21);
}

#[test]
fn a_segment_that_was_begun_is_gone_on_with() {
    for call in 0..6 {
        let disk = SimDisk::new();
        let (mut spool, _) = open(&disk);
        for i in 1..=4 {
            spool.stage(&body(i)).unwrap();
            spool.commit().unwrap();
        }
        // Too much for this segment; what is written in its place is not.
        for i in 5..=8 {
            spool.stage(&body(i)).unwrap();
        }
        disk.fail(
            disk.calls() + call,
            u64::MAX,
            Fail::With(io::ErrorKind::Other),
        );
        let _ = spool.commit().and_then(|()| spool.sync());
        disk.heal();
        spool.drop_staged();
        let last = spool.head().n + 1;
        spool.stage(&body(last)).unwrap();
        spool.commit().unwrap();
        spool.sync().unwrap();
        for disk in [disk.power_cut(0), disk] {
            let (spool, found) = open(&disk);
            assert_eq!((spool.head().n, found.damaged), (last, None), "call {call}");
            assert_eq!(said(&disk), (1..=last).collect::<Vec<_>>());
            verified(&disk).unwrap();
        }
    }
}

#[test]
fn a_disk_that_cannot_be_used_says_why() {
    for (kind, advice) in [
        (io::ErrorKind::StorageFull, "make room"),
        (io::ErrorKind::ReadOnlyFilesystem, "mount it writable"),
        (io::ErrorKind::PermissionDenied, "let the gateway's user"),
    ] {
        for call in 0..4 {
            let disk = SimDisk::new();
            disk.fail(call, u64::MAX, Fail::With(kind));
            let error = Spool::open(disk, SMALL).unwrap_err().to_string();
            assert!(
                error.contains(advice) && error.starts_with("cannot "),
                "{error}"
            );
        }
    }
}

#[test]
fn what_cannot_be_a_line_is_refused() {
    let (mut spool, _) = open(&SimDisk::new());
    let long = format!(r#"{{"text":"{}"}}"#, "x".repeat(MAX_LINE));
    assert_eq!(
        spool.stage(long.as_bytes()),
        Err(Unfit::TooLong(long.len()))
    );
    for body in [&b""[..], b"{", b"[]", b"{\"a\":\n1}", b"{}\n"] {
        assert_eq!(spool.stage(body), Err(Unfit::NotAnObject));
    }
    assert_eq!(spool.staged(), 0);
    // The longest that fits can be read.
    let fits = format!(r#"{{"text":"{}"}}"#, "x".repeat(MAX_LINE - 160));
    let mut full = 0;
    while spool.stage(fits.as_bytes()).is_ok() {
        full += 1;
    }
    assert_eq!(spool.stage(fits.as_bytes()), Err(Unfit::Full));
    assert!(full > 200 && spool.staged_bytes() <= MAX_STAGED);
    spool.commit().unwrap();
    assert_eq!(spool.head().n, full);
    // Unsynced bytes are bounded as well: this commit synced the one before.
    spool.stage(b"{}").unwrap();
    spool.commit().unwrap();
    assert_eq!(spool.synced(), full);
}
