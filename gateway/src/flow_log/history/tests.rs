use super::*;
use crate::scratch::Scratch;
use postern_spool::line::{Hash, seal};
use postern_spool::segment::name;

/// A segment whose first line is `first`: opening records of run 7, by `seq`, and what stands between.
fn segment(folder: &Scratch, first: u64, bodies: &[String]) {
    let (mut bytes, mut prev) = (Vec::new(), Hash::ZERO);
    for (n, body) in (first..).zip(bodies) {
        prev = seal(body.as_bytes(), n, prev, &mut bytes);
    }
    std::fs::write(folder.path(&name(first)), bytes).expect("written");
}

fn open(seq: u64) -> String {
    format!(
        r#"{{"kind":"flow","boot":"7","worker":0,"seq":{seq},"time":"2026-11-22T05:00:43.120Z","state":"open","flow":{seq}}}"#
    )
}

/// What the next run says of run 7, which made 14 records with worker 0 and 5 with worker 1.
fn explained(folder: &Scratch, head: u64) -> (CrashedRun, Vec<Value>) {
    let mut made = [0; postern_io::steer::MAX_WORKERS];
    (made[0], made[1]) = (14, 5);
    let past = Past {
        folder: folder.path(""),
        head,
        boot: "7".into(),
        left: vec![Left {
            boot: 7,
            made,
            audit: 4,
        }],
        by: "8".into(),
        now: Wall(1_800_000_000_000_000_000),
    };
    let found = read(past).expect("a thread");
    let mut closings = Vec::new();
    for found in found {
        match found {
            Found::Closings(some) => closings.extend(
                some.iter()
                    .map(|closing| serde_json::from_slice(closing).expect("an object")),
            ),
            Found::Run(run) => return (run, closings),
            Found::Unreadable(error) => panic!("{error}"),
        }
    }
    panic!("nothing was said")
}

fn counts(run: &CrashedRun) -> Vec<(u8, Option<u64>, u64, u64)> {
    run.workers
        .iter()
        .map(|own| (own.worker, own.made, own.written, own.lost))
        .collect()
}

#[test]
fn what_retention_has_removed_is_not_lost() {
    let folder = Scratch::new();
    // Lines 1 to 10 are gone, and with them `started` and the records 1 to 8.
    segment(&folder, 11, &[open(9), open(10), open(11), open(12)]);
    let (run, closings) = explained(&folder, 14);
    assert_eq!(counts(&run), [(0, Some(14), 4, 2), (1, Some(5), 0, 0)]);
    assert_eq!((run.flows_closed, closings.len()), (4, 4));
}

#[test]
fn audit_events_that_died_on_the_way_are_counted() {
    let folder = Scratch::new();
    let event = |boot, number: u64| {
        format!(
            r#"{{"kind":"audit","boot":"{boot}","time":"2026-11-22T05:00:43.120Z","audit":{number}}}"#
        )
    };
    // Of run 7, which made four; the first is gone with retention, the last was never written.
    segment(&folder, 11, &[event(7, 2), event(6, 9), event(7, 3)]);
    let (run, _) = explained(&folder, 13);
    assert_eq!(
        run.audit,
        AuditCounts {
            made: Some(4),
            written: 2,
            lost: 1,
        }
    );
}

#[test]
fn a_damaged_line_hides_no_other() {
    let folder = Scratch::new();
    let started =
        r#"{"kind":"log","boot":"7","time":"2026-11-22T05:00:40.000Z","event":"started"}"#;
    segment(
        &folder,
        1,
        &[started.into(), open(1), open(2), open(3), open(4)],
    );
    let path = folder.path(&name(1));
    let text = std::fs::read_to_string(&path).expect("there");
    std::fs::write(&path, text.replace(r#""seq":2"#, r#""seq":x"#)).expect("damaged");
    let (run, closings) = explained(&folder, 5);
    assert_eq!(counts(&run), [(0, Some(14), 3, 11), (1, Some(5), 0, 5)]);
    let flows: Vec<_> = closings.iter().map(|line| line["flow"].as_u64()).collect();
    assert_eq!(flows, [Some(1), Some(3), Some(4)]);
}

#[test]
fn a_run_that_is_explained_by_two_ended_when_it_said_its_last_word_itself() {
    let folder = Scratch::new();
    let closed = r#"{"kind":"flow","boot":"7","worker":0,"time":"2026-11-23T09:00:00.000Z","state":"closed","flow":1,"closed_by":"6"}"#;
    segment(&folder, 1, &[open(1), open(2), closed.into()]);
    let (_, closings) = explained(&folder, 3);
    assert_eq!(closings.len(), 1);
    assert_eq!(closings[0]["end"], "2026-11-22T05:00:43.120Z");
}
