//! The log checked without our code: `docs/observability/verify.py` agrees with [`verify`].

use postern_spool::{Disk, Head, Settings, Spool, segments, verify};
use std::path::{Path, PathBuf};
use std::process::Command;

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// 40 lines in several segments.
fn log(name: &str) -> (Scratch, Head) {
    let dir = std::env::temp_dir().join(format!("postern-by-hand-{name}-{}", std::process::id()));
    let scratch = Scratch(dir);
    let disk = Disk::open(&scratch.0).expect("a good disk");
    let (mut spool, _) = Spool::open(disk, Settings { segment_size: 2000 }).expect("a good disk");
    for i in 0..40 {
        let body = format!(r#"{{"user":"j\u00f6rg","text":"{}"}}"#, "é\\\"".repeat(i));
        spool.stage(body.as_bytes()).expect("a good disk");
        spool.commit().expect("a good disk");
    }
    (scratch, spool.head())
}

/// Exit status and output of the script.
fn script(args: &[&str]) -> (Option<i32>, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/observability/verify.py");
    let ran = Command::new("python3")
        .arg(script)
        .args(args)
        .output()
        .expect("python3");
    let text = [ran.stdout, ran.stderr].concat();
    (
        ran.status.code(),
        String::from_utf8_lossy(&text).into_owned(),
    )
}

#[test]
fn a_good_log_is_whole() {
    let (scratch, head) = log("good");
    let dir = scratch.0.to_str().unwrap();
    let anchor = format!("{}:{}", head.n, head.hash);
    let whole = format!("whole, up to line 40\n{anchor}\n");
    assert_eq!(script(&[dir]), (Some(0), whole.clone()));
    assert_eq!(script(&["--head", &anchor, dir]), (Some(0), whole));
    assert_eq!(script(&[]).0, Some(2));
    assert_eq!(script(&["--head"]).0, Some(2));
    assert_eq!(script(&["--head", "x:y", dir]).0, Some(2));
    // A part of it, as an exporter carries it.
    let third = segments(&scratch.0).unwrap()[2].path.clone();
    assert_eq!(script(&[third.to_str().unwrap()]).0, Some(0));
}

#[test]
fn a_copy_may_have_lines_twice_and_only_the_same() {
    let (scratch, head) = log("twice");
    let all = segments(&scratch.0).unwrap();
    let log: String = all
        .iter()
        .map(|segment| std::fs::read_to_string(&segment.path).unwrap())
        .collect();
    let lines: Vec<&str> = log.split_inclusive('\n').collect();
    let again = [&lines[..7], &lines[4..7], &lines[6..]].concat();
    let (copy, segment) = (
        scratch.0.join("copy"),
        scratch.0.join(format!("{:020}.jsonl", 1)),
    );
    let judge = |path: &Path, lines: &[&str]| {
        std::fs::write(path, lines.concat()).unwrap();
        let ours = verify::file(path, None, &mut |_| {});
        (ours, script(&[path.to_str().unwrap()]))
    };
    let (ours, (status, theirs)) = judge(&copy, &again);
    assert_eq!(ours.unwrap().repeated, 4);
    let whole = format!(
        "whole, up to line 40; 4 lines came again, byte for byte\n{}:{}\n",
        head.n, head.hash
    );
    assert_eq!((status, theirs), (Some(0), whole));

    let (bent, mut forged) = (lines[5].replacen("user", "uses", 1), Vec::new());
    let prev = postern_spool::Line::parse(lines[5].trim_end().as_bytes()).unwrap();
    postern_spool::line::seal(b"{}", prev.n, prev.prev, &mut forged);
    let forged = String::from_utf8(forged).unwrap();
    let with = |line| [&again[..8], &[line], &again[9..]].concat();
    let earlier = [&lines[3..7], &lines[..1], &lines[7..]].concat();
    for (path, broken) in [
        (&copy, with(&bent)),
        (&copy, with(&forged)),
        (&copy, earlier),
        (&segment, again.clone()),
    ] {
        let (ours, (status, theirs)) = judge(path, &broken);
        let ours = ours.unwrap_err().to_string();
        let place = |text: &str| text.split(": ").next().unwrap().to_owned();
        assert_eq!(
            (status, place(&theirs)),
            (Some(1), place(&ours)),
            "{theirs}"
        );
    }
}

#[test]
fn what_we_find_it_finds_in_the_same_line() {
    let (scratch, head) = log("broken");
    let dir = scratch.0.to_str().unwrap();
    let all = segments(&scratch.0).unwrap();
    let path = &all[1].path;
    let good = std::fs::read_to_string(path).unwrap();
    let lines: Vec<&str> = good.split_inclusive('\n').collect();
    assert!(lines.len() > 3);
    let flipped = good.replacen("user", "uses", 1);
    let gone = [&lines[..1], &lines[2..]].concat().concat();
    let swapped = [&[lines[1], lines[0]], &lines[2..]].concat().concat();
    let torn = good[..good.len() - 5].to_owned();
    let crc = good.replacen("\"crc\":\"", "\"crc\":\"A", 1);
    for broken in [flipped, gone, swapped, torn, crc, "x\n".into()] {
        std::fs::write(path, &broken).unwrap();
        let ours = verify::folder(&scratch.0, None, &mut |_| {})
            .unwrap_err()
            .to_string();
        let (status, theirs) = script(&[dir]);
        assert_eq!(status, Some(1), "{theirs}");
        let place = |text: &str| text.split(": ").next().unwrap().to_owned();
        assert_eq!(place(&theirs), place(&ours), "{theirs}{ours}");
    }
    std::fs::write(path, &good).unwrap();
    // The first line of the oldest segment.
    let oldest = &all[0].path;
    let good = std::fs::read_to_string(oldest).unwrap();
    let (_, rest) = good.split_once('\n').unwrap();
    std::fs::write(oldest, rest).unwrap();
    assert!(verify::folder(&scratch.0, None, &mut |_| {}).is_err());
    assert_eq!(script(&[dir]).0, Some(1));
    std::fs::write(oldest, &good).unwrap();
    std::fs::remove_file(&all.last().unwrap().path).unwrap();
    assert_eq!(script(&[dir]).0, Some(0), "only an anchor knows");
    let anchor = format!("{}:{}", head.n, head.hash);
    let (status, text) = script(&["--head", &anchor, dir]);
    assert_eq!(status, Some(1));
    assert!(text.contains("the log ends with line"), "{text}");
}
