use super::*;
use crate::scratch::Scratch;
use crate::spool::{Settings, Spool};
use crate::storage::Disk;

const START: u64 = 1_795_323_643_000;

/// A log of one record a second, in several segments.
fn log(dir: &Path, count: u64) {
    let settings = Settings { segment_size: 3000 };
    let (mut spool, _) = Spool::open(Disk::open(dir).unwrap(), settings).unwrap();
    for i in 0..count {
        let time = rfc3339(START + i * 1000);
        let body = format!(r#"{{"kind":"flow","gateway":"gw-1","time":"{time}"}}"#);
        spool.stage(body.as_bytes()).unwrap();
        spool.commit().unwrap();
    }
    spool.sync().unwrap();
    crate::index::build_missing(dir).unwrap();
}

#[test]
fn a_bundle_proves_its_lines_on_another_machine() {
    let scratch = Scratch::new();
    let (dir, out) = (scratch.path().join("flows"), scratch.path().join("bundle"));
    log(&dir, 100);
    let made = export(&dir, START + 30_000, START + 60_000, &out, START + 900_000).unwrap();
    assert_eq!((made.first_n, made.last_n, made.count), (31, 60, 30));
    assert_eq!(made.gateway.as_deref(), Some("gw-1"));
    assert_eq!(made.head.n, 100);
    assert!(is_bundle(&out) && !is_bundle(&dir));
    std::fs::remove_dir_all(&dir).unwrap();
    let (proof, verified) = verify(&out, None, &mut |_| {}).unwrap();
    assert_eq!((proof, verified.lines), (made, 30));
}

#[test]
fn a_bundle_is_for_its_owner_and_group() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    let (dir, out) = (scratch.path().join("flows"), scratch.path().join("bundle"));
    log(&dir, 10);
    export(&dir, START, START + 60_000, &out, START).unwrap();
    for path in [out.clone(), out.join(RECORDS)] {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o027, 0, "{}", path.display());
    }
}

#[test]
fn a_bundle_is_never_written_over_and_never_empty() {
    let scratch = Scratch::new();
    let (dir, out) = (scratch.path().join("flows"), scratch.path().join("bundle"));
    log(&dir, 10);
    let none = export(&dir, START + 30_000, START + 60_000, &out, START).unwrap_err();
    assert!(none.to_string().contains("no record from 2026-"), "{none}");
    export(&dir, START, START + 60_000, &out, START).unwrap();
    assert!(matches!(
        export(&dir, START, START + 60_000, &out, START),
        Err(ProofError::File { .. })
    ));
}

#[test]
fn a_broken_log_gives_no_bundle() {
    let scratch = Scratch::new();
    let (dir, out) = (scratch.path().join("flows"), scratch.path().join("bundle"));
    log(&dir, 100);
    let segment = &segments(&dir).unwrap()[2];
    let mut bytes = std::fs::read(&segment.path).unwrap();
    bytes[20] ^= 1;
    std::fs::write(&segment.path, bytes).unwrap();
    let error = export(&dir, START, START + 99_000, &out, START).unwrap_err();
    let n = segment.first;
    assert!(
        error.to_string().contains(&format!("line {n} is damaged")),
        "{error}"
    );
}

#[test]
fn any_change_of_a_bundle_is_found() {
    let scratch = Scratch::new();
    let (dir, out) = (scratch.path().join("flows"), scratch.path().join("bundle"));
    log(&dir, 20);
    export(&dir, START + 5000, START + 15_000, &out, START).unwrap();
    let proof = std::fs::read_to_string(out.join(PROOF)).unwrap();
    let records = std::fs::read_to_string(out.join(RECORDS)).unwrap();
    let broken = |proof: &str, records: &str| {
        std::fs::write(out.join(PROOF), proof).unwrap();
        std::fs::write(out.join(RECORDS), records).unwrap();
        verify(&out, None, &mut |_| {})
            .map(|_| ())
            .map_err(|error| error.to_string())
    };
    assert_eq!(broken(&proof, &records), Ok(()));
    for (from, to) in [
        ("\"first_n\": 6", "\"first_n\": 5"),
        ("\"last_n\": 15", "\"last_n\": 16"),
        ("\"count\": 10", "\"count\": 11"),
        ("\"proof\": 1", "\"proof\": 2"),
        ("\"sha256\": \"", "\"sha256\": \"0"),
        ("\"n\": 20", "\"n\": 15"),
        ("\"n\": 20", "\"n\": 3"),
        ("\"gateway\"", "\"gate\""),
        ("gw-1", "gw-9"),
    ] {
        let changed = proof.replacen(from, to, 1);
        assert_ne!(changed, proof, "{from}");
        broken(&changed, &records).unwrap_err();
    }
    let end = records.trim_end().rfind('\n').unwrap() + 1;
    let begin = records.find('\n').unwrap() + 1;
    let error = broken(&proof, &records[..end]).unwrap_err();
    assert!(
        error.contains("says last_n 15, and records.jsonl has 14"),
        "{error}"
    );
    broken(&proof, &records[begin..]).unwrap_err();
    broken(&proof, &records.replace("gw-1", "gw-2")).unwrap_err();
    let error = broken(&proof, &format!("{records}{}", &records[end..])).unwrap_err();
    assert!(error.contains("lines that came again 0"), "{error}");
    broken(&proof, &format!("{records}{{")).unwrap_err();
}
