//! Ten million records, and how long questions about them take.
//!
//! ```text
//! cargo run --release -p postern-spool --example records -- write DIR 10000000
//! cargo run --release -p postern-spool --example records -- ask DIR
//! ```
//!

//! The records spread over the thirty days before 2026-11-22: 240 users, 60 targets, one record in
//! sixteen a refusal.
#![allow(clippy::print_stdout)]

use postern_spool::index::build_missing;
use postern_spool::line::{Hash, seal};
use postern_spool::query::{By, Filter, Of, Segments, State, Verdict, rows, top};
use postern_spool::time::rfc3339;
use std::collections::VecDeque;
use std::error::Error;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::time::Instant;

const SEGMENT: u64 = 64 << 20;
const DAY: u64 = 86_400_000;
/// 2026-11-22T12:00:00Z.
const END: u64 = 1_795_348_800_000;
const DAYS: u64 = 30;

fn main() -> Result<(), Box<dyn Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["write", dir, count] => write(Path::new(dir), count.parse()?),
        ["ask", dir] => ask(Path::new(dir)),
        _ => Err("usage: records write DIR COUNT | records ask DIR".into()),
    }
}

/// Writes `count` sealed records as segments of a spool.
fn write(dir: &Path, count: u64) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(dir)?;
    let mut maker = Maker::new(count);
    let (mut prev, mut written) = (Hash::ZERO, 0);
    let mut file: Option<BufWriter<File>> = None;
    let (mut body, mut line) = (String::new(), Vec::new());
    for n in 1..=count {
        maker.record(n, &mut body);
        line.clear();
        prev = seal(body.as_bytes(), n, prev, &mut line);
        if file.is_none() || written + line.len() as u64 > SEGMENT {
            if let Some(mut file) = file.take() {
                file.flush()?;
            }
            let path = dir.join(postern_spool::segment::name(n));
            file = Some(BufWriter::with_capacity(1 << 20, File::create(path)?));
            written = 0;
        }
        if let Some(file) = &mut file {
            file.write_all(&line)?;
            written += line.len() as u64;
        }
    }
    if let Some(mut file) = file {
        file.flush()?;
    }
    Ok(())
}

/// Asks what people ask, and prints the seconds.
fn ask(dir: &Path) -> Result<(), Box<dyn Error>> {
    let start = Instant::now();
    let built = build_missing(dir)?;
    say("indexes", start, format_args!("{built} built"));
    let user = || Filter {
        user: Some("user017@example.com".into()),
        ..Filter::default()
    };
    let since = |ago| Some(END - ago);
    let hour = Filter {
        since: since(3_600_000),
        ..user()
    };
    let denied = Filter {
        state: Some(State::Denied),
        verdict: Some(Verdict::Deny),
        ..Filter::default()
    };
    let day = Filter {
        since: since(DAY),
        ..Filter::default()
    };
    let all = Filter::default();
    let limit = 1000;
    for (what, filter) in [
        ("list --user X --since 1h", &hour),
        ("list --user X --all", &user()),
        ("list --verdict deny --limit 1000", &denied),
    ] {
        let start = Instant::now();
        let found = rows(&Segments::open(dir)?, filter, limit)?;
        say(
            what,
            start,
            format_args!("{} rows, {:?}", found.rows.len(), found.report),
        );
    }
    for (what, filter, by, of) in [
        ("top --by bytes --of user", &all, By::Bytes, Of::User),
        (
            "top --by denials --of destination",
            &all,
            By::Denials,
            Of::Destination,
        ),
        ("top --by bytes --since 1d", &day, By::Bytes, Of::User),
        (
            "top --by bytes --of target --user X",
            &user(),
            By::Bytes,
            Of::Target,
        ),
    ] {
        let start = Instant::now();
        let found = top(&Segments::open(dir)?, filter, by, of, 20)?;
        let best = found.rows.first().and_then(|row| row.key.clone());
        say(
            what,
            start,
            format_args!(
                "{best:?}, {} attempts, {:?}",
                found.total.attempts, found.report
            ),
        );
    }
    Ok(())
}

/// With the processor's time of all threads since the program's start.
fn say(what: &str, start: Instant, answer: std::fmt::Arguments<'_>) {
    // User and system time in hundredths of a second: proc_pid_stat(5), after the name in brackets.
    let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let times = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .split(' ')
        .skip(12)
        .take(2);
    let cpu: u64 = times.filter_map(|time| time.parse::<u64>().ok()).sum();
    let (seconds, cpu) = (start.elapsed().as_secs_f64(), cpu as f64 / 100.0);
    println!("{seconds:6.2} s ({cpu:.2} s of CPU so far)  {what}: {answer}");
}

/// Makes records one after the other.
struct Maker {
    state: u64,
    step: u64,
    time: u64,
    flows: u64,
    open: VecDeque<Open>,
}

struct Open {
    flow: u64,
    start: u64,
    who: u64,
    place: u64,
    port: u64,
}

impl Maker {
    fn new(count: u64) -> Maker {
        Maker {
            state: 7,
            step: (DAYS * DAY * 1000 / count.max(1)).max(1),
            time: (END - DAYS * DAY) * 1000,
            flows: 0,
            open: VecDeque::new(),
        }
    }

    /// Splitmix64.
    fn below(&mut self, bound: u64) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }

    fn record(&mut self, n: u64, to: &mut String) {
        self.time += self.step;
        let now = self.time / 1000;
        let (who, place) = (self.below(240) * self.below(240) / 240, self.below(60));
        let port = 32_768 + self.below(28_000);
        to.clear();
        if self.below(100) < 6 {
            self.common(to, n, now, "denied", (who, place, port));
            let count = 1 + self.below(4) * self.below(2);
            let _ = write!(
                to,
                ",\"deny_reason\":\"policy\",\"failed_condition\":\"group sre is required; user{who:03}@example.com has platform\",\"nearest_rule\":\"ssh to the nodes\",\"count\":{count},\"start\":\"{0}\",\"end\":\"{0}\"}}",
                rfc3339(now)
            );
        } else if self.open.len() < 2000 && (self.below(2) == 0 || self.open.is_empty()) {
            self.flows += 1;
            let flow = self.flows;
            self.common(to, n, now, "open", (who, place, port));
            let _ = write!(to, ",\"flow\":{flow},\"start\":\"{}\"}}", rfc3339(now));
            self.open.push_back(Open {
                flow,
                start: now,
                who,
                place,
                port,
            });
        } else if let Some(open) = self.open.pop_front() {
            self.common(to, n, now, "closed", (open.who, open.place, open.port));
            let (out, back) = (2000 + self.below(60_000), 4000 + self.below(9_000_000));
            let _ = write!(
                to,
                ",\"flow\":{},\"start\":\"{}\",\"end\":\"{}\",\"duration_ms\":{},\"bytes_out\":{out},\"bytes_in\":{back},\"packets_out\":{},\"packets_in\":{},\"tcp_state\":\"closed\",\"close_reason\":\"fin\",\"app\":\"ssh\",\"ssh_client\":\"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u7\",\"ssh_server\":\"SSH-2.0-OpenSSH_9.6\"}}",
                open.flow,
                rfc3339(open.start),
                rfc3339(now),
                now - open.start,
                out / 120 + 4,
                back / 1300 + 4
            );
        }
    }

    fn common(
        &self,
        to: &mut String,
        n: u64,
        now: u64,
        state: &str,
        (who, place, port): (u64, u64, u64),
    ) {
        let (verdict, rule) = match state {
            "denied" => ("deny", "default".to_owned()),
            _ => ("allow", format!("ssh to cluster {}", place % 15)),
        };
        let _ = write!(
            to,
            "{{\"schema\":4,\"kind\":\"flow\",\"gateway\":\"gw-eu-1\",\"boot\":\"3\",\"worker\":{},\"seq\":{n},\"time\":\"{}\",\"state\":\"{state}\",\"verdict\":\"{verdict}\",\"rule\":\"{rule}\",\"policy\":\"9f2b4c6e1a7d3f5b8c0e2d4f6a8b1c3e5d7f9a0b2c4d6e8f1a3b5c7d9e0f2a4b\",\"user\":\"user{who:03}@example.com\",\"groups\":[\"platform\",\"sre\"],\"device\":\"laptop-{who:03}\",\"device_key\":\"mLxJzV{:02}\",\"facts\":\"{:016x}\",\"client_outer\":\"198.51.100.{}:51820\",\"protocol\":\"tcp\",\"src_address\":\"100.96.0.{who}\",\"src_port\":{port},\"dst_address\":\"192.0.2.{place}\",\"dst_port\":22,\"target\":\"node-{place:02}\",\"egress_address\":\"192.0.2.1\",\"egress_port\":{port}",
            0,
            rfc3339(now),
            who % 100,
            who * 1000 + (now + DAYS * DAY - END) / DAY,
            who,
        );
    }
}
