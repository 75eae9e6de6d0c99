//! A segment of the flow log: bytes as they come, or a true chain with one byte bent.

use postern_spool::line::{Hash, seal};
use postern_spool::segment;
use postern_spool::testing::SimDisk;
use postern_spool::{Line, Settings, Spool, verify};
use std::collections::HashSet;

/// The first byte says what the rest is: an even one, a segment as it is; an odd one, where to
/// bend (two bytes) and how (one), and then what lines say, one after the other.
pub fn spool_line(data: &[u8]) {
    match data {
        [kind, high, low, bits, bodies @ ..] if kind % 2 == 1 => {
            let good = chain(bodies);
            judge(&good);
            let mut bent = good.clone();
            let at = usize::from(u16::from_be_bytes([*high, *low])) % good.len().max(1);
            if *bits == 0 || good.is_empty() {
                return;
            }
            bent[at] ^= bits;
            assert!(!judge(&bent), "a bent byte is not found");
        }
        [_, segment @ ..] => {
            judge(segment);
        }
        [] => {}
    }
}

/// A chain of what lies between line breaks, made objects.
fn chain(bodies: &[u8]) -> Vec<u8> {
    let mut prev = Hash::ZERO;
    let mut lines = Vec::new();
    for (body, n) in bodies.split(|byte| *byte == b'\n').zip(1..) {
        prev = seal(&[b"{", body, b"}"].concat(), n, prev, &mut lines);
    }
    lines
}

/// Whether every line follows the one before, to the end.
fn judge(bytes: &[u8]) -> bool {
    let good = verify::bytes(bytes, None).is_ok_and(|found| found.unfinished == 0);
    if good {
        slowly(bytes);
    }
    go_on(bytes);
    good
}

/// What a verified chain is, read as simply as possible.
fn slowly(bytes: &[u8]) {
    let mut before: Option<(u64, Hash)> = None;
    let mut seen = HashSet::new();
    for bytes in bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
    {
        let line = Line::parse(bytes).expect("a verified line");
        if !seen.insert(bytes) {
            continue;
        }
        if let Some((n, hash)) = before {
            assert_eq!((line.n, line.prev), (n + 1, hash));
        }
        let tail = format!(r#""n":{},"prev":"{}","crc":"#, line.n, line.prev).len() + 11;
        let body = bytes[..bytes.len() - tail]
            .strip_suffix(b",")
            .unwrap_or(b"{");
        let mut again = Vec::new();
        seal(&[body, b"}"].concat(), line.n, line.prev, &mut again);
        assert_eq!(again.strip_suffix(b"\n"), Some(bytes), "sealed otherwise");
        before = Some((line.n, line.hash()));
    }
}

/// A writer that finds this goes on after it, or refuses it; and finds its own lines again.
fn go_on(bytes: &[u8]) {
    let settings = Settings { segment_size: 4096 };
    let disk = SimDisk::new();
    disk.put(&segment::name(1), bytes);
    let Ok((mut spool, found)) = Spool::open(disk.clone(), settings) else {
        return;
    };
    assert!(
        found.cut.is_some() || found.damaged.is_some() || disk.files()[&segment::name(1)] == bytes,
        "changed without a word"
    );
    let n = spool.stage(b"{}").expect("the first line");
    assert_eq!(n, found.next_n);
    spool.commit().expect("a good disk");
    spool.sync().expect("a good disk");
    let (spool, found) = Spool::open(disk.power_cut(0), settings).expect("it was opened before");
    assert_eq!(spool.head().n, n);
    assert_eq!((found.cut, found.damaged), (None, None), "stated twice");
}
