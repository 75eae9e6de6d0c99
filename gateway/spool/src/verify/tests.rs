use super::*;
use crate::line::{Line, seal};
use crate::scratch::Scratch;
use crate::segment::name;
use proptest::prelude::*;

const RUN: &str = r#""gateway":"gw","boot":"77""#;

/// Lines of a log: what the gateway would write.
fn bodies(count: u64) -> Vec<String> {
    let started = format!(r#"{{"kind":"log",{RUN},"event":"started","workers":2}}"#);
    let record = |i: u64| {
        let (worker, seq) = (i % 2, i / 2 + 1);
        format!(
            r#"{{"schema":2,"kind":"flow",{RUN},"worker":{worker},"seq":{seq},"rule":"r{i}","groups":["a"]}}"#
        )
    };
    std::iter::once(started)
        .chain((0..count).map(record))
        .collect()
}

/// Seals them from `n` = 1 on, each with its `\n`.
fn chain(bodies: &[String]) -> Vec<Vec<u8>> {
    let mut prev = Hash::ZERO;
    let mut lines = Vec::new();
    for (body, n) in bodies.iter().zip(1..) {
        let mut line = Vec::new();
        prev = seal(body.as_bytes(), n, prev, &mut line);
        lines.push(line);
    }
    lines
}

/// Writes lines as segments of `per` lines each, and verifies the folder.
fn judge(lines: &[Vec<u8>], per: usize, anchor: Option<Head>) -> Result<Verified, Fault> {
    let scratch = Scratch::new();
    for (segment, first) in lines.chunks(per).zip((1..).step_by(per)) {
        std::fs::write(scratch.path().join(name(first)), segment.concat()).unwrap();
    }
    judge_folder(scratch.path(), anchor)
}

fn judge_folder(dir: &Path, anchor: Option<Head>) -> Result<Verified, Fault> {
    match folder(dir, anchor, &mut |_| {}) {
        Ok(verified) => Ok(verified),
        Err(VerifyError::Fault(fault)) => {
            assert!(!fault.to_string().is_empty());
            Err(*fault)
        }
        Err(other) => panic!("{other}"),
    }
}

fn what(lines: &[Vec<u8>]) -> (u64, What) {
    let fault = judge(lines, 1000, None).unwrap_err();
    (fault.n, fault.what)
}

#[test]
fn a_good_log_is_summed_up() {
    let lines = chain(&bodies(20));
    let verified = judge(&lines, 5, None).unwrap();
    let last = lines[20].strip_suffix(b"\n").unwrap();
    assert_eq!(
        verified,
        Verified {
            first_n: 1,
            last_n: 21,
            lines: 21,
            repeated: 0,
            head: Head {
                n: 21,
                hash: Hash::of(last)
            },
            prev_of_first: Hash::ZERO,
            bytes: lines.concat().len() as u64,
            stated_losses: 0,
            unstated_losses: 0,
            unfinished: 0,
        }
    );
}

#[test]
fn each_fault_has_its_name() {
    let good = chain(&bodies(10));
    let mut gone = good.clone();
    gone.drain(3..5);
    assert_eq!(what(&gone), (4, What::Missing { to: 5 }));
    let mut twice = good.clone();
    twice.insert(4, good[3].clone());
    assert_eq!(what(&twice), (4, What::Duplicated));
    let mut swapped = good.clone();
    swapped.swap(5, 6);
    assert_eq!(what(&swapped), (6, What::Reordered));
    let mut torn = good.clone();
    torn[5].truncate(40);
    torn[5].push(b'\n');
    assert_eq!(what(&torn), (6, What::Torn));
    let mut changed = good.clone();
    changed[5] = String::from_utf8(good[5].clone())
        .unwrap()
        .replace("r4", "r9")
        .into();
    assert_eq!(what(&changed), (6, What::Checksum));
    let mut forged = good.clone();
    let prev = Line::parse(good[5].strip_suffix(b"\n").unwrap())
        .unwrap()
        .prev;
    forged[5].clear();
    seal(b"{\"forged\":1}", 6, prev, &mut forged[5]);
    assert_eq!(what(&forged), (6, What::Changed));
    let mut other = good.clone();
    other[5] = b"Nov 22 11:00:00 gw sshd[1]: hello\n".to_vec();
    assert_eq!(what(&other), (6, What::NotALine));
    let mut endless = good.clone();
    endless[5] = [vec![b'x'; 200_000], vec![b'\n']].concat();
    assert_eq!(what(&endless), (6, What::NotALine));
    let mut first = good.clone();
    first.remove(0);
    assert_eq!(what(&first), (1, What::Missing { to: 1 }));
}

#[test]
fn a_fault_names_its_file_and_line() {
    let mut lines = chain(&bodies(20));
    lines[12][9] ^= 1;
    let fault = judge(&lines, 5, None).unwrap_err();
    assert!(fault.file.ends_with(name(11)), "{fault}");
    assert_eq!((fault.line, fault.n), (3, 13));
}

#[test]
fn a_missing_or_misnamed_segment_is_found() {
    let lines = chain(&bodies(20));
    let scratch = Scratch::new();
    for (segment, first) in lines.chunks(7).zip([1, 8, 15]) {
        std::fs::write(scratch.path().join(name(first)), segment.concat()).unwrap();
    }
    let path = |first| scratch.path().join(name(first));
    std::fs::rename(path(8), path(9)).unwrap();
    let fault = judge_folder(scratch.path(), None).unwrap_err();
    assert_eq!((fault.n, fault.what), (8, What::Misnamed));
    std::fs::remove_file(path(9)).unwrap();
    let fault = judge_folder(scratch.path(), None).unwrap_err();
    assert_eq!((fault.n, fault.what), (8, What::Missing { to: 14 }));
    // What retention does.
    std::fs::remove_file(path(1)).unwrap();
    let verified = judge_folder(scratch.path(), None).unwrap();
    assert_eq!((verified.first_n, verified.lines), (15, 7));
    assert_ne!(verified.prev_of_first, Hash::ZERO);
    std::fs::remove_file(path(15)).unwrap();
    assert!(matches!(
        folder(scratch.path(), None, &mut |_| {}),
        Err(VerifyError::Nothing(_))
    ));
}

#[test]
fn retention_may_take_the_oldest_segment_at_this_moment() {
    let lines = chain(&bodies(20));
    let scratch = Scratch::new();
    let path = |first| scratch.path().join(name(first));
    for (segment, first) in lines.chunks(7).zip([1, 8, 15]) {
        std::fs::write(path(first), segment.concat()).unwrap();
    }
    // Listed, and gone when it is opened.
    std::fs::remove_file(path(1)).unwrap();
    let files = [1, 8, 15].map(|first| SegmentFile {
        first,
        path: path(first),
        len: 0,
    });
    assert_eq!(walk(&files, None, &mut |_| {}).unwrap().first_n, 8);
    // It, and the one after it, while it is read.
    for (segment, first) in lines.chunks(7).zip([1, 8, 15]) {
        std::fs::write(path(first), segment.concat()).unwrap();
    }
    let mut meanwhile = |_| {
        for first in [1, 8] {
            let _ = std::fs::remove_file(path(first));
        }
    };
    assert_eq!(walk(&files, None, &mut meanwhile).unwrap().first_n, 15);
    // In the middle it is no retention.
    std::fs::write(path(8), lines[7..14].concat()).unwrap();
    let files = [8, 9, 15].map(|first| SegmentFile {
        first,
        path: path(first),
        len: 0,
    });
    assert!(walk(&files, None, &mut |_| {}).is_err());
}

#[test]
fn only_an_anchor_finds_what_is_missing_at_the_end() {
    let lines = chain(&bodies(20));
    let head = judge(&lines, 5, None).unwrap().head;
    assert_eq!(judge(&lines, 5, Some(head)).unwrap().head, head);
    for keep in [1, 5, 19, 20] {
        let last = keep as u64;
        assert_eq!(judge(&lines[..keep], 5, None).unwrap().last_n, last);
        let fault = judge(&lines[..keep], 5, Some(head)).unwrap_err();
        assert_eq!((fault.n, fault.what), (21, What::Shortened { last }));
    }
    // A chain made anew is whole, and another one.
    let mut bodies = bodies(20);
    bodies[3] = "{\"forged\":1}".into();
    let forged = chain(&bodies);
    assert!(judge(&forged, 5, None).is_err(), "a record is missing");
    bodies[3] = r#"{"boot":"77","kind":"flow","worker":0,"seq":2,"rule":"other"}"#.into();
    let forged = chain(&bodies);
    judge(&forged, 5, None).unwrap();
    let fault = judge(&forged, 5, Some(head)).unwrap_err();
    assert_eq!((fault.n, fault.what), (21, What::NotTheAnchor));
}

#[test]
fn a_last_line_without_an_end_is_stated() {
    let lines = chain(&bodies(20));
    let mut torn = lines.clone();
    torn[20].pop();
    let verified = judge(&torn, 5, None).unwrap();
    assert_eq!(verified.last_n, 20);
    assert_eq!(verified.unfinished, torn[20].len() as u64);
    // Nowhere else.
    let mut torn = lines;
    torn[9].pop();
    assert_eq!(judge(&torn, 5, None).unwrap_err().what, What::Torn);
}

#[test]
fn a_missing_record_must_be_stated() {
    let record = |seq: u64| format!(r#"{{"kind":"flow",{RUN},"worker":1,"seq":{seq}}}"#);
    let log = |event: &str| format!(r#"{{"kind":"log",{RUN},{event}}}"#);
    let started = log(r#""event":"started","workers":2"#);
    let lost = |count: u64| log(&format!(r#""event":"lost","worker":1,"count":{count}"#));
    let verdict = |bodies: &[String]| judge(&chain(bodies), 1000, None);
    let gap = [started.clone(), record(1), record(5), record(6)];
    let fault = verdict(&gap).unwrap_err();
    let unstated = |from, to| What::Unstated {
        boot: "77".into(),
        worker: 1,
        from,
        to,
    };
    assert_eq!((fault.line, fault.n, fault.what), (3, 3, unstated(2, 4)));
    // Stated before or after, at once or bit by bit.
    for told in [vec![lost(3)], vec![lost(1), lost(2)]] {
        let before = [&gap[..2], &told[..], &gap[2..]].concat();
        let after = [&gap[..], &told[..]].concat();
        assert_eq!(verdict(&before).unwrap().stated_losses, 3);
        assert_eq!(verdict(&after).unwrap().unstated_losses, 0);
    }
    // Not enough, or of another worker or run.
    for told in [
        lost(2),
        lost(3).replace(r#""worker":1"#, r#""worker":0"#),
        lost(3).replace("77", "78"),
    ] {
        let bodies = [&gap[..], &[told]].concat();
        assert_eq!(verdict(&bodies).unwrap_err().what, unstated(2, 4));
    }
    // Lines that sum up a run.
    let sums = r#""workers":[{"worker":0,"written":0,"lost":0},{"worker":1,"written":3,"lost":3}]"#;
    let stopped = log(&format!(r#""event":"stopped",{sums}"#));
    verdict(&[&gap[..], &[stopped]].concat()).unwrap();
    let crashed = log(&format!(
        r#""event":"crashed-run","crashed_boot":"77",{sums}"#
    ));
    let crashed = crashed.replace(r#""boot":"77","event""#, r#""boot":"78","event""#);
    verdict(&[&gap[..], &[crashed]].concat()).unwrap();
    // The last records of a run are missing: the line that sums it up counts more.
    let stopped = |made: u64, lost: u64| {
        log(&format!(
            r#""event":"stopped","workers":[{{"worker":1,"made":{made},"written":2,"lost":{lost}}}]"#
        ))
    };
    let two = [started.clone(), record(1), record(2)];
    let end = |made, lost| verdict(&[&two[..], &[stopped(made, lost)]].concat());
    assert_eq!(end(2, 0).unwrap().stated_losses, 0);
    assert_eq!(end(5, 3).unwrap().stated_losses, 3);
    let fault = end(5, 0).unwrap_err();
    assert_eq!((fault.n, fault.what), (4, unstated(3, 5)));
    // The first records of a run are missing.
    let fault = verdict(&[started, record(3)]).unwrap_err();
    assert_eq!(fault.what, unstated(1, 2));
    // Order within a worker.
    let fault = verdict(&[record(1), record(2), record(2)]).unwrap_err();
    assert!(
        matches!(fault.what, What::Repeated { seq: 2, .. }),
        "{fault}"
    );
}

#[test]
fn a_missing_audit_event_must_be_stated() {
    let event = |number: u64| format!(r#"{{"kind":"audit",{RUN},"audit":{number}}}"#);
    let log = |event: &str| format!(r#"{{"kind":"log",{RUN},{event}}}"#);
    let started = log(r#""event":"started","worker_count":2"#);
    let verdict = |bodies: &[String]| judge(&chain(bodies), 1000, None);
    let unstated = |from, to| What::UnstatedAudit {
        boot: "77".into(),
        from,
        to,
    };
    let gap = [started.clone(), event(1), event(4)];
    let fault = verdict(&gap).unwrap_err();
    assert_eq!((fault.n, fault.what), (3, unstated(2, 3)));
    let told = log(r#""event":"audit-lost","count":2"#);
    assert_eq!(
        verdict(&[&gap[..], &[told]].concat())
            .unwrap()
            .stated_losses,
        2
    );
    // The last ones: by the line that sums the run up, or the one that explains its crash.
    let two = [started.clone(), event(1), event(2)];
    let stopped = |made: u64, lost: u64| {
        let sums = format!(r#""workers":[],"audit_made":{made},"audit_lost":{lost}"#);
        log(&format!(r#""event":"stopped",{sums}"#))
    };
    let end = |made, lost| verdict(&[&two[..], &[stopped(made, lost)]].concat());
    assert_eq!(end(2, 0).unwrap().stated_losses, 0);
    assert_eq!(end(3, 1).unwrap().stated_losses, 1);
    assert_eq!(end(3, 0).unwrap_err().what, unstated(3, 3));
    let crashed = r#""event":"crashed-run","crashed_boot":"77","workers":[],"audit_made":3"#;
    let crashed = |lost: u64| {
        let said = log(&format!(r#"{crashed},"audit_lost":{lost}"#));
        said.replace(r#""boot":"77","event""#, r#""boot":"78","event""#)
    };
    verdict(&[&two[..], &[crashed(1)]].concat()).unwrap();
    let fault = verdict(&[&two[..], &[crashed(0)]].concat()).unwrap_err();
    assert_eq!(fault.what, unstated(3, 3));
    let fault = verdict(&[started, event(1), event(1)]).unwrap_err();
    assert_eq!(
        fault.what,
        What::RepeatedAudit {
            boot: "77".into(),
            audit: 1
        }
    );
}

#[test]
fn retention_may_take_the_line_that_states_a_loss_before_the_gap() {
    let record = |seq: u64| format!(r#"{{"kind":"flow",{RUN},"worker":1,"seq":{seq}}}"#);
    let log = |event: &str| format!(r#"{{"kind":"log",{RUN},{event}}}"#);
    let lines = chain(&[
        log(r#""event":"started","workers":2"#),
        record(1),
        log(r#""event":"lost","worker":1,"count":3"#),
        record(2),
        record(6),
        record(7),
        record(9),
    ]);
    let scratch = Scratch::new();
    let write = |first: u64, lines: &[Vec<u8>]| {
        std::fs::write(scratch.path().join(name(first)), lines.concat()).unwrap();
    };
    write(4, &lines[3..6]);
    let verified = judge_folder(scratch.path(), None).unwrap();
    assert_eq!((verified.first_n, verified.unstated_losses), (4, 3));
    // Later on a gap is a gap.
    write(7, &lines[6..]);
    let fault = judge_folder(scratch.path(), None).unwrap_err();
    assert!(
        matches!(fault.what, What::Unstated { from: 8, to: 8, .. }),
        "{fault}"
    );
}

#[test]
fn a_part_of_a_log_can_be_verified() {
    let lines = chain(&bodies(20));
    let scratch = Scratch::new();
    let path = scratch.path().join("copy.jsonl");
    std::fs::write(&path, lines[7..15].concat()).unwrap();
    let mut read = 0;
    let verified = file(&path, None, &mut |bytes| read = bytes).unwrap();
    assert_eq!((verified.first_n, verified.last_n), (8, 15));
    assert_eq!((read, verified.unstated_losses), (verified.bytes, 0));
    let head = |n: u64| Head {
        n,
        hash: Hash::of(lines[n as usize - 1].strip_suffix(b"\n").unwrap()),
    };
    file(&path, Some(head(11)), &mut |_| {}).unwrap();
    let early = file(&path, Some(head(3)), &mut |_| {}).unwrap_err();
    assert!(early.to_string().contains("line 3 was removed"), "{early}");
}

/// A copy as an exporter leaves it that delivers lines 4 to 7 again, and 7 once more.
fn delivered_again(lines: &[Vec<u8>]) -> Vec<Vec<u8>> {
    [&lines[2..7], &lines[3..7], &lines[6..]].concat()
}

fn fault_of(lines: &[Vec<u8>]) -> (u64, u64, What) {
    match bytes(&lines.concat(), None) {
        Err(VerifyError::Fault(fault)) => (fault.line, fault.n, fault.what),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_line_of_a_copy_may_come_again() {
    let lines = chain(&bodies(20));
    let again = delivered_again(&lines);
    let scratch = Scratch::new();
    let write = |name: &str| {
        let path = scratch.path().join(name);
        std::fs::write(&path, again.concat()).unwrap();
        path
    };
    let copy = write("copy.jsonl");
    let verified = file(&copy, None, &mut |_| {}).unwrap();
    let once = bytes(&lines[2..].concat(), None).unwrap();
    assert_eq!((verified.lines, verified.repeated), (19, 5));
    assert_eq!(verified.bytes, again.concat().len() as u64);
    let rest = Verified {
        repeated: 0,
        bytes: once.bytes,
        ..verified
    };
    assert_eq!(rest, once);
    // The line of an anchor is still looked for.
    let head = Head {
        n: 5,
        hash: Hash::ZERO,
    };
    assert!(file(&copy, Some(head), &mut |_| {}).is_err());
    // The spool itself writes each line once.
    let segment = write(&name(3));
    let fault = file(&segment, None, &mut |_| {}).unwrap_err().to_string();
    assert!(fault.contains("line 6: the lines from 8 on"), "{fault}");
    std::fs::remove_file(&copy).unwrap();
    assert_eq!(
        judge_folder(scratch.path(), None).unwrap_err().what,
        What::Reordered
    );
}

#[test]
fn what_comes_again_changed_or_elsewhere_is_a_fault() {
    let lines = chain(&bodies(20));
    let again = delivered_again(&lines);
    // Place 5 has line 4 again.
    let mut bent = again.clone();
    bent[5][20] ^= 1;
    assert_eq!(fault_of(&bent), (6, 8, What::Checksum));
    let mut forged = again.clone();
    let prev = Line::parse(lines[3].strip_suffix(b"\n").unwrap())
        .unwrap()
        .prev;
    forged[5].clear();
    seal(b"{\"forged\":1}", 4, prev, &mut forged[5]);
    assert_eq!(fault_of(&forged), (6, 4, What::Differs));
    // Before the first line of the copy.
    let mut early = again.clone();
    early.insert(7, lines[0].clone());
    assert_eq!(fault_of(&early), (8, 8, What::Reordered));
    // A repeat hides no gap.
    let gap = [&lines[2..7], &lines[3..6], &lines[8..]].concat();
    assert_eq!(fault_of(&gap), (9, 8, What::Missing { to: 8 }));
}

#[test]
fn how_far_back_a_line_may_come_again_is_bounded() {
    let lines = chain(&vec!["{}".to_owned(); MAX_SEEN + 1]);
    let with = |n: usize| [&lines[..], &lines[n - 1..n]].concat().concat();
    assert_eq!(bytes(&with(2), None).unwrap().repeated, 1);
    assert!(bytes(&with(1), None).is_err());
}

/// One thing that somebody may do to a log.
#[derive(Clone, Debug)]
enum Tamper {
    Flip(prop::sample::Index, u8),
    DeleteByte(prop::sample::Index),
    InsertByte(prop::sample::Index, u8),
    DeleteLine(prop::sample::Index),
    InsertLine(prop::sample::Index, prop::sample::Index),
    Swap(prop::sample::Index, prop::sample::Index),
}

fn tamper() -> impl Strategy<Value = Tamper> {
    use prop::sample::Index;
    prop_oneof![
        (any::<Index>(), 1_u8..).prop_map(|(at, bits)| Tamper::Flip(at, bits)),
        any::<Index>().prop_map(Tamper::DeleteByte),
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Tamper::InsertByte(at, byte)),
        any::<Index>().prop_map(Tamper::DeleteLine),
        (any::<Index>(), any::<Index>()).prop_map(|(from, to)| Tamper::InsertLine(from, to)),
        (any::<Index>(), any::<Index>()).prop_map(|(a, b)| Tamper::Swap(a, b)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    /// Whatever was done, a fault is named at that place or before; only what is gone from the
    /// very end is gone without one, and that an anchor finds.
    #[test]
    fn tampering_is_found(how in tamper(), count in 2_u64..12) {
        let good = chain(&bodies(count));
        let all = good.concat();
        let mut bytes = all.clone();
        let mut lines = good.clone();
        match how {
            Tamper::Flip(at, bits) => bytes[at.index(all.len())] ^= bits,
            Tamper::DeleteByte(at) => {
                bytes.remove(at.index(all.len()));
            }
            Tamper::InsertByte(at, byte) => bytes.insert(at.index(all.len() + 1), byte),
            Tamper::DeleteLine(at) => {
                lines.remove(at.index(lines.len()));
                bytes = lines.concat();
            }
            Tamper::InsertLine(from, to) => {
                let line = good[from.index(lines.len())].clone();
                lines.insert(to.index(lines.len() + 1), line);
                bytes = lines.concat();
            }
            Tamper::Swap(a, b) => {
                lines.swap(a.index(good.len()), b.index(good.len()));
                bytes = lines.concat();
            }
        }
        let same = bytes.iter().zip(&all).take_while(|(a, b)| a == b).count();
        let place = 1 + all[..same].iter().filter(|b| **b == b'\n').count() as u64;
        prop_assume!(bytes != all);
        let head = judge(&good, 1000, None).unwrap().head;
        match judge(&[bytes.clone()], 1000, None) {
            Err(fault) => prop_assert!(fault.n <= place, "{fault}, and it was at {place}"),
            Ok(verified) => {
                // Bytes behind the last whole line, or fewer lines.
                prop_assert!(verified.unfinished > 0 || all.starts_with(&bytes));
                if verified.last_n < head.n {
                    let fault = judge(&[bytes], 1000, Some(head)).unwrap_err();
                    let last = verified.last_n;
                    prop_assert_eq!(fault.what, What::Shortened { last });
                }
            }
        }
    }

    /// Runs of lines that come again change nothing; one bent byte in them is found.
    #[test]
    fn repeats_prove_what_one_delivery_proves(
        count in 2_usize..12,
        runs in prop::collection::vec((0_usize..12, 1_usize..12), 1..4),
        at: prop::sample::Index,
        bits in 1_u8..,
    ) {
        let good = chain(&bodies(count as u64));
        let mut copy = Vec::new();
        let (mut next, mut repeated) = (0, 0);
        for (back, ahead) in runs {
            let from = next - back.min(next);
            let to = (next + ahead).min(good.len());
            repeated += next - from;
            copy.extend_from_slice(&good[from..to]);
            next = to;
        }
        let once = bytes(&good[..next].concat(), None).unwrap();
        let mut copy = copy.concat();
        let found = bytes(&copy, Some(once.head)).unwrap();
        prop_assert_eq!(found.repeated, repeated as u64);
        prop_assert_eq!((found.lines, found.head), (once.lines, once.head));
        let at = at.index(copy.len());
        copy[at] ^= bits;
        if let Ok(bent) = bytes(&copy, None) {
            // The very last line end.
            prop_assert!(bent.unfinished > 0 && at + 1 == copy.len());
        }
    }

    #[test]
    fn arbitrary_files_are_judged(mut bytes: Vec<u8>) {
        bytes.push(b'\n');
        prop_assert!(judge(&[bytes], 1000, None).is_err());
    }
}
