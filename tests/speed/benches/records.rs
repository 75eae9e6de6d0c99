//! Flows that open and close at a rate, through engine and flow log to a disk, on one core: what
//! is lost, how far the log is behind, and what it costs.
//!
//! ```text
//! cargo bench -p postern-speed --bench records -- [FLOWS A SECOND] [SECONDS] [FOLDER]
//! ```
//!
//! The tunnel is left out: it is measured by itself. Each flow is a SYN and the target's RST, so
//! that each makes an opening and a closing record.

// What it measured is what it is for.
#![allow(clippy::print_stdout)]

use anyhow::Context;
use postern_gateway::flow_log::{FlowLog, Outgoing, Told};
use postern_gateway::init;
use postern_speed::world::{World, tcp};
use rustix::thread::{CpuSet, sched_setaffinity};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often a worker's turn ends at this load.
const TURN: Duration = Duration::from_millis(1);

/// Flows in one turn, at most.
const BATCH: u64 = 64;

fn main() -> anyhow::Result<()> {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let rate: u64 = words.next().map_or(Ok(20_000), |word| word.parse())?;
    let seconds: u64 = words.next().map_or(Ok(10), |word| word.parse())?;
    let folder = words.next().map_or_else(
        || std::env::temp_dir().join(format!("postern-records-{}", std::process::id())),
        PathBuf::from,
    );
    one_core()?;
    let config = init::init(
        &folder.join("gateway"),
        Some(&"gw.example.com:51820".parse()?),
    )?;
    let log = FlowLog::start(&config, 1, 1)?;
    let result = run(&log, rate, Duration::from_secs(seconds));
    let status = log.finish(Duration::from_secs(30));
    let (cpu, memory) = (cpu_seconds()?, memory_mib()?);
    std::fs::remove_dir_all(&folder)?;
    let Load {
        flows,
        behind,
        took,
    } = result;
    println!(
        "flows opened and closed      {flows} in {:.1} s: {:.0} a second",
        took.as_secs_f64(),
        flows as f64 / took.as_secs_f64()
    );
    println!(
        "records made, written, lost  {} {} {}",
        status.made, status.written, status.lost
    );
    println!("furthest behind              {behind} records");
    println!(
        "processor                    {cpu:.2} s, {:.1} µs a flow, world included",
        cpu * 1e6 / flows as f64
    );
    println!("peak memory                  {memory:.1} MiB, world included");
    anyhow::ensure!(
        status.lost == 0 && status.written == status.made,
        "records were lost"
    );
    Ok(())
}

struct Load {
    flows: u64,
    behind: u64,
    took: Duration,
}

fn run(log: &FlowLog, rate: u64, time: Duration) -> Load {
    let mut world = World::new(1000, 0);
    let mut outgoing = Outgoing::new(log.sender(0));
    let engine = world.gateway.engine();
    // Records and attempts of the world's own making.
    let before = (engine.records_made(), engine.attempts());
    let handle = log.handle();
    let (mut flows, mut behind) = (0, 0);
    let mut turn = Instant::now();
    let begun = turn;
    while begun.elapsed() < time || world.gateway.engine().flows().len() > 1 || !outgoing.is_empty()
    {
        let so_far = u64::try_from(begun.elapsed().min(time).as_micros()).unwrap_or(u64::MAX);
        let due = (rate * so_far / 1_000_000).min(flows + BATCH);
        if due == flows {
            std::thread::sleep(TURN);
        }
        for number in flows..due {
            open_and_close(&mut world, number);
        }
        flows = due;
        world.gateway.pass(turn.elapsed());
        turn = Instant::now();
        let engine = world.gateway.engine();
        outgoing.hand_in(engine.take_records(), engine.flows().capacity());
        outgoing.tell(Told {
            made: engine.records_made() - before.0,
            flows: engine.attempts() - before.1,
            in_windows: engine.attempts_in_windows(),
            ..Told::default()
        });
        behind = behind.max(handle.status().lag);
    }
    Load {
        flows,
        behind,
        took: time,
    }
}

/// A SYN through the tunnel and a RST back. Ports are used again when the flow before is over.
fn open_and_close(world: &mut World, number: u64) {
    let flow = tcp(usize::try_from(number % 1_000_000).unwrap_or(0));
    let there = world.laptop.sealed([flow.syn()]);
    world.gateway.receive(&there);
    world.gateway.send(&mut flow.reset());
}

/// This thread, and those that it starts, on the first core.
fn one_core() -> anyhow::Result<()> {
    let mut first = CpuSet::new();
    first.set(0);
    Ok(sched_setaffinity(None, &first)?)
}

fn cpu_seconds() -> anyhow::Result<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Ok(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}

fn memory_mib() -> anyhow::Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmHWM:")?
                .split_whitespace()
                .next()?
                .parse::<f64>()
                .ok()
        })
        .context("VmHWM")?;
    Ok(peak / 1024.0)
}
