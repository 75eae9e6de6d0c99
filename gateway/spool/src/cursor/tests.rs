use super::*;
use crate::scratch::Scratch;
use crate::spool::{Settings, Spool};
use crate::storage::Disk;
use std::fs;

fn spool(dir: &Path, lines: u64, text: &str) -> Spool {
    let disk = Disk::open(dir).unwrap();
    let (mut spool, _) = Spool::open(disk, Settings { segment_size: 1500 }).unwrap();
    for _ in 0..lines {
        spool
            .stage(format!(r#"{{"text":"{text}"}}"#).as_bytes())
            .unwrap();
        spool.commit().unwrap();
    }
    spool
}

#[test]
fn a_cursor_is_read_back() {
    let scratch = Scratch::new();
    assert_eq!(Cursor::load(scratch.path(), "loki").unwrap(), None);
    for n in [0, 1, u64::MAX] {
        let cursor = Cursor {
            n,
            hash: Hash([7; 32]),
        };
        cursor.store(scratch.path(), "loki").unwrap();
        assert_eq!(Cursor::load(scratch.path(), "loki").unwrap(), Some(cursor));
    }
    assert_eq!(Cursor::load(scratch.path(), "otlp").unwrap(), None);
    assert_eq!(
        fs::read_dir(scratch.path()).unwrap().count(),
        1,
        "nothing is left over"
    );
}

#[test]
fn garbage_is_refused_with_what_to_do() {
    let scratch = Scratch::new();
    let hash = Hash::ZERO.to_string();
    for garbage in [
        String::new(),
        "\0\0\0\0".into(),
        "41".into(),
        format!(r#"{{"n":-1,"hash":"{hash}"}}"#),
        format!(r#"{{"n":1,"hash":"{}"}}"#, &hash[1..]),
        format!(r#"{{"n":1,"hash":"{hash}","at":2}}"#),
    ] {
        fs::write(path(scratch.path(), "loki"), garbage).unwrap();
        let error = Cursor::load(scratch.path(), "loki")
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("cursor-loki.json is not a cursor") && error.contains("remove it"),
            "{error}"
        );
    }
    fs::write(path(scratch.path(), "loki"), [0xff, 0xfe]).unwrap();
    assert!(matches!(
        Cursor::load(scratch.path(), "loki"),
        Err(CursorError::Garbage { .. })
    ));
}

#[test]
fn a_cursor_knows_its_spool() {
    let scratch = Scratch::new();
    let mut mine = spool(&scratch.path().join("a"), 30, "a");
    let dir = scratch.path().join("a");
    let end = Cursor::from(mine.head());
    assert_eq!(end.standing(&dir, 30).unwrap(), Standing::Good);
    assert_eq!(
        Cursor::default().standing(&dir, 30).unwrap(),
        Standing::Good
    );
    assert_eq!(end.standing(&dir, 29).unwrap(), Standing::Ahead);
    // Another spool, as long as this one, and a shorter one.
    let _other = spool(&scratch.path().join("b"), 30, "b");
    let other = scratch.path().join("b");
    assert_eq!(end.standing(&other, 30).unwrap(), Standing::Replaced);
    let _short = spool(&scratch.path().join("c"), 3, "c");
    assert_eq!(
        end.standing(&scratch.path().join("c"), 3).unwrap(),
        Standing::Ahead
    );
    // Retention went past it, or just up to it.
    while mine.retain(0, u64::MAX, None, 0).unwrap().is_some() {}
    let oldest = mine.size().oldest_n;
    let at = |n| Cursor {
        n,
        hash: Hash([1; 32]),
    };
    assert_eq!(
        at(3).standing(&dir, 30).unwrap(),
        Standing::Removed { oldest }
    );
    assert_eq!(
        Cursor::default().standing(&dir, 30).unwrap(),
        Standing::Removed { oldest }
    );
    assert_eq!(at(oldest - 1).standing(&dir, 30).unwrap(), Standing::Good);
}
