//! Counts the instructions of a packet's road under valgrind and holds them against the committed
//! counts. `scripts/instructions` builds it and calls it.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)] // It is a command line tool.

use anyhow::{Context as _, bail, ensure};
use postern_speed::callgrind::Cost;
use postern_speed::scenarios::{COUNTED, Count, play};
use postern_speed::table::{self, PerPacket, TOLERANCE};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "usage: postern-speed            compare with the committed counts
       postern-speed --accept   commit to what is counted now
       postern-speed --profile  the dearest functions of each road
       postern-speed --play     what is counted (valgrind runs this)";

/// The file with the committed counts.
const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/instructions.txt");

/// glibc's memcpy for every x86-64, so that the count does not depend on the machine's best one.
const TUNABLES: &str = "glibc.cpu.hwcaps=-AVX512F,-AVX512VL,-AVX2,-AVX_Fast_Unaligned_Load,-ERMS,-FSRM,-Prefer_ERMS,-Prefer_FSRM,-SSSE3,-SSE4_1,-SSE4_2";

/// Functions that `--profile` shows of each road.
const SHOWN: usize = 12;

const NOT_HERE: u8 = 77;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => compare(),
        ["--accept"] => accept(),
        ["--profile"] => profile(),
        ["--play"] => {
            for count in play() {
                println!("{count}");
            }
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprintln!("{USAGE}");
            Ok(ExitCode::from(2))
        }
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::from(2)
    })
}

fn compare() -> anyhow::Result<ExitCode> {
    if let Some(why) = unlike() {
        println!("skip: {why}");
        return Ok(ExitCode::from(NOT_HERE));
    }
    let text = std::fs::read_to_string(COMMITTED).with_context(|| {
        format!("reading {COMMITTED}; `scripts/instructions --accept` makes it")
    })?;
    let committed =
        table::parse(&text).map_err(|faults| anyhow::anyhow!("{COMMITTED}:\n{faults}"))?;
    let (table, faults) = table::compare(&committed, &per_packet(count()?));
    print!("{table}");
    if faults.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    println!();
    for fault in faults {
        println!("FAIL {fault}");
    }
    println!(
        "\nMore than {:.0} % above the committed count, or an allocation, fails. Find what costs:\n  \
         scripts/instructions --profile\nIf it is worth its price, commit to it and say why:\n  scripts/instructions --accept",
        TOLERANCE * 100.0
    );
    let tools = tools();
    if !text.contains(&tools) {
        println!(
            "\nThe committed counts were made with other tools than these ({tools}): accept them on the commit before, then compare."
        );
    }
    Ok(ExitCode::FAILURE)
}

fn accept() -> anyhow::Result<ExitCode> {
    if let Some(why) = unlike() {
        bail!("these counts would hold nowhere else: {why}");
    }
    let now = per_packet(count()?);
    std::fs::write(COMMITTED, table::write(&tools(), &now))
        .with_context(|| format!("writing {COMMITTED}"))?;
    print!("{}", table::compare(&table::Committed::new(), &now).0);
    println!("\nwritten to {COMMITTED}");
    Ok(ExitCode::SUCCESS)
}

fn profile() -> anyhow::Result<ExitCode> {
    for (count, cost) in count()? {
        let packets = count.packets as f64;
        println!("{}: instructions for each packet", count.name);
        for (function, instructions) in cost.functions.iter().take(SHOWN) {
            println!("{:>10.1}  {function}", *instructions as f64 / packets);
        }
        println!();
    }
    Ok(ExitCode::SUCCESS)
}

/// Why counts of this machine cannot be held against those of others.
fn unlike() -> Option<String> {
    #[cfg(target_arch = "x86_64")]
    {
        (!std::arch::is_x86_feature_detected!("avx2")).then(|| {
            "this processor has no AVX2; the committed counts were made with it".to_owned()
        })
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        Some("the committed counts are of x86-64".to_owned())
    }
}

/// Plays everything under valgrind: one profile for each counted region.
fn count() -> anyhow::Result<Vec<(Count, Cost)>> {
    let program = std::env::current_exe().context("finding this program")?;
    let folder = program.with_file_name("instructions");
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let profile = folder.join("profile");
    let output = Command::new("valgrind")
        // An environment of another length would move the stack.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("GLIBC_TUNABLES", TUNABLES)
        .args([
            "--tool=callgrind",
            "--quiet",
            "--dump-line=no",
            "--compress-pos=no",
        ])
        // Toggling the collection would be shorter, but calls would be counted all the time.
        .arg(format!("--dump-before={COUNTED}"))
        .arg(format!("--dump-after={COUNTED}"))
        .arg(format!("--callgrind-out-file={}", profile.display()))
        .arg(&program)
        .arg("--play")
        .output()
        .context("running valgrind; scripts/instructions installs it on Debian")?;
    ensure!(
        output.status.success(),
        "valgrind ended with {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    let counts = String::from_utf8(output.stdout).context("what was played")?;
    let counts = counts.lines().map(Count::parse).collect::<Option<Vec<_>>>();
    let counts = counts.context("what was played makes no sense")?;
    counts
        .into_iter()
        .map(|count| {
            let cost = read(&profile, count.call)?;
            Ok((count, cost))
        })
        .collect()
}

fn read(profile: &Path, call: usize) -> anyhow::Result<Cost> {
    // One profile of what came before each call, and one of the call itself.
    let path = PathBuf::from(format!("{}.{}", profile.display(), 2 * call));
    let text =
        std::fs::read_to_string(&path).with_context(|| format!("reading {}", path.display()))?;
    let cost = Cost::parse(&text).with_context(|| format!("{}: no profile", path.display()))?;
    ensure!(
        cost.cipher > 0,
        "{}: the cipher was not counted",
        path.display()
    );
    Ok(cost)
}

fn per_packet(counts: Vec<(Count, Cost)>) -> Vec<(String, PerPacket)> {
    let per = |(count, cost): (Count, Cost)| {
        let packets = count.packets as f64;
        let cost = PerPacket {
            ours: cost.ours as f64 / packets,
            cipher: cost.cipher as f64 / packets,
            allocations: cost.allocations as f64 / packets,
        };
        (count.name, cost)
    };
    counts.into_iter().map(per).collect()
}

/// The tools that the counts depend on.
fn tools() -> String {
    let version = |program: &str| {
        let output = Command::new(program).arg("--version").output().ok();
        let text = output.and_then(|output| String::from_utf8(output.stdout).ok());
        let words = text.unwrap_or_default();
        words
            .split_whitespace()
            .take(2)
            .collect::<Vec<_>>()
            .join(" ")
    };
    format!("{}, {}", version("rustc"), version("valgrind"))
}
