use super::*;

const FROM: Wall = Wall(1_795_323_643_120_000_000);
const TO: Wall = Wall(1_795_323_644_000_000_000);

fn json(event: Event) -> String {
    let event = LogEvent::new(&"gw".into(), &"4".into(), TO, event);
    let line = serde_json::to_string(&event).expect("encodes");
    line.strip_prefix(
        r#"{"schema":4,"kind":"log","gateway":"gw","boot":"4","time":"2026-11-22T05:00:44.000Z","#,
    )
    .unwrap_or_else(|| panic!("the common fields come first: {line}"))
    .to_owned()
}

#[test]
fn a_run_says_how_the_one_before_ended() {
    let started = |previous, previous_boot: Option<&str>| {
        json(Event::Started(Started {
            version: "0.1.0".into(),
            previous,
            previous_boot: previous_boot.map(Arc::from),
            workers: 2,
        }))
    };
    assert_eq!(
        started(Previous::None, None),
        r#""event":"started","version":"0.1.0","previous":"none","worker_count":2}"#
    );
    assert_eq!(
        started(Previous::Clean, Some("3")),
        r#""event":"started","version":"0.1.0","previous":"clean","previous_boot":"3","worker_count":2}"#
    );
    assert_eq!(
        started(Previous::Crashed, Some("3")),
        r#""event":"started","version":"0.1.0","previous":"crashed","previous_boot":"3","worker_count":2}"#
    );
}

#[test]
fn a_crash_names_the_run_and_what_is_known_of_its_workers() {
    let counts = |worker, made, written, lost| WorkerCounts {
        worker,
        made,
        written,
        lost,
    };
    assert_eq!(
        json(Event::CrashedRun(CrashedRun {
            crashed_boot: "3".into(),
            workers: vec![counts(0, None, 40, 0), counts(1, Some(9), 7, 2)],
            flows_closed: 5,
            audit: AuditCounts {
                made: Some(3),
                written: 2,
                lost: 1,
            },
        })),
        r#""event":"crashed-run","crashed_boot":"3","workers":[{"worker":0,"written":40,"lost":0},{"worker":1,"made":9,"written":7,"lost":2}],"flows_closed":5,"audit_made":3,"audit_written":2,"audit_lost":1}"#
    );
    assert_eq!(
        json(Event::Stopped(Stopped {
            workers: vec![counts(0, Some(40), 40, 0)],
            flows_seen: 21,
            flows_written: 21,
            flows_lost: 0,
            audit: AuditCounts::default(),
        })),
        r#""event":"stopped","workers":[{"worker":0,"made":40,"written":40,"lost":0}],"flows_seen":21,"flows_written":21,"flows_lost":0,"audit_written":0,"audit_lost":0}"#
    );
}

#[test]
fn loss_states_whose_how_much_and_when() {
    let lost = |seq: Option<(u64, u64)>| {
        json(Event::Lost(Lost {
            worker: 1,
            count: 3,
            flows: 2,
            first_seq: seq.map(|(first, _)| first),
            last_seq: seq.map(|(_, last)| last),
            from: FROM,
            to: TO,
        }))
    };
    assert_eq!(
        lost(Some((8, 10))),
        r#""event":"lost","worker":1,"count":3,"flows":2,"first_seq":8,"last_seq":10,"from":"2026-11-22T05:00:43.120Z","to":"2026-11-22T05:00:44.000Z"}"#
    );
    assert_eq!(
        lost(None),
        r#""event":"lost","worker":1,"count":3,"flows":2,"from":"2026-11-22T05:00:43.120Z","to":"2026-11-22T05:00:44.000Z"}"#
    );
}

#[test]
fn what_happened_to_the_files_and_the_clock() {
    assert_eq!(
        json(Event::Repaired(Repaired {
            segment: 1,
            cut_bytes: 212,
        })),
        r#""event":"repaired","segment":1,"cut_bytes":212}"#
    );
    assert_eq!(
        json(Event::Damaged(Damaged {
            segment: 1,
            offset: 4096,
            bytes: 512,
        })),
        r#""event":"damaged","segment":1,"offset":4096,"bytes":512}"#
    );
    assert_eq!(
        json(Event::Unwritable(Unwritable {
            from: FROM,
            to: TO,
            error: "No space left on device (os error 28)".into(),
        })),
        r#""event":"unwritable","from":"2026-11-22T05:00:43.120Z","to":"2026-11-22T05:00:44.000Z","error":"No space left on device (os error 28)"}"#
    );
    assert_eq!(
        json(Event::ClockStepped(ClockStepped { from: TO, to: FROM })),
        r#""event":"clock-stepped","from":"2026-11-22T05:00:44.000Z","to":"2026-11-22T05:00:43.120Z"}"#
    );
    assert_eq!(
        json(Event::Removed(Removed {
            from_n: 1,
            to_n: 100,
            why: Removal::Size,
            unacknowledged: 40,
        })),
        r#""event":"removed","from_n":1,"to_n":100,"why":"size","unacknowledged":40}"#
    );
    assert_eq!(
        json(Event::Removed(Removed {
            from_n: 1,
            to_n: 100,
            why: Removal::Age,
            unacknowledged: 0,
        })),
        r#""event":"removed","from_n":1,"to_n":100,"why":"age","unacknowledged":0}"#
    );
}
