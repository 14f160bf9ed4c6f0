//! A thousand switchovers in a row through one proxy, under load: does anything grow, does anything
//! get lost?
//!
//! The same proxy and servers serve from beginning to end. After every round of switchovers each
//! acknowledged write is looked for on the master, the keys are deleted, and the proxy's resident
//! memory and open files are read from `/proc`.
//!
//! **Invariant:** it fails at the first switchover that does not end `switched`, the first error
//! that a client sees, the first acknowledged write that is missing, and when memory or open files
//! have grown between the rounds at the beginning and those at the end.
//!
//! `make soak`, or `cargo bench --bench soak -- --help`.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use pointsman::cli::demo::load::{Load, Plan};
use pointsman::cli::demo::marked::Series;
use pointsman::cli::demo::proof::prove;
use pointsman::cli::demo::proxy::{Proxy, SHARD, Settings};
use pointsman::cli::demo::servers::{Engine, EngineChoice, NodeSet};
use pointsman::cli::demo::wire::Wire;
use pointsman::cli::demo::workspace::Workspace;
use tokio::time::sleep;

const REPLICAS: usize = 2;
const IN_SYNC_WITHIN: Duration = Duration::from_secs(20);
/// From the end of one switchover to the order of the next.
const REST: Duration = Duration::from_millis(20);
/// What may be added between the first third of the rounds and the last one: allocators keep what a
/// busier moment needed.
const GROWTH_KB_MAX: u64 = 2048;

/// Many switchovers in a row
#[derive(Parser, Debug)]
#[command(name = "soak")]
struct Args {
    /// How many switchovers
    #[arg(short = 'n', long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(3..=1_000_000))]
    switchovers: u32,
    /// Switchovers between two looks
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    round: u32,
    /// Writes per second through the proxy; half as many reads
    #[arg(long, default_value_t = 3000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// Client connections
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(6..=10_000))]
    connections: u32,
    /// Which servers to start
    #[arg(long, value_enum, default_value_t = EngineChoice::Redis)]
    engine: EngineChoice,
    /// What cargo passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What the proxy occupies, by `/proc`.
#[derive(Clone, Copy, Debug)]
struct Footprint {
    resident_kb: u64,
    files: u64,
}

#[derive(Debug, Default)]
struct Soaked {
    requests: u64,
    looked_for: u64,
    hold_ms: Vec<f64>,
    footprints: Vec<Footprint>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let engine = Engine::find(args.engine)?;
    println!("{}", engine.version());
    let workspace = Workspace::create("pointsman-soak")?;
    let set = NodeSet::start(&engine, &workspace, REPLICAS, &[]).await?;
    // What is looked for is growth, not speed: a server that got no time is waited for.
    let lines = ["sync_timeout_ms", "drain_timeout_ms", "pause_timeout_ms"];
    let settings = Settings {
        switchover: lines.map(|name| format!("{name} = 3000")).join("\n"),
        ..Settings::default()
    };
    let binary = env!("CARGO_BIN_EXE_pointsman");
    let proxy = Proxy::start(binary.as_ref(), &workspace, &set.addrs(), &settings).await?;
    let began = Instant::now();
    let mut soaked = Soaked::default();
    while soaked.hold_ms.len() < args.switchovers as usize {
        let left = args.switchovers - soaked.hold_ms.len() as u32;
        round(&args, &set, &proxy, left.min(args.round), &mut soaked).await?;
        let footprint = footprint(proxy.pid())?;
        soaked.footprints.push(footprint);
        println!(
            "{:6} switchovers, {:9} writes looked for, {:6} kB resident, {:4} open files",
            soaked.hold_ms.len(),
            soaked.looked_for,
            footprint.resident_kb,
            footprint.files
        );
    }
    tell(&mut soaked, began.elapsed())
}

/// Some switchovers under a load of their own.
async fn round(
    args: &Args,
    set: &NodeSet,
    proxy: &Proxy,
    count: u32,
    soaked: &mut Soaked,
) -> anyhow::Result<()> {
    let series = Series::new(&format!("soak:{}", soaked.footprints.len()), 256);
    let plan = Plan {
        addr: proxy.addr.clone(),
        connections: args.connections as usize,
        read_only: 5,
        writes_per_s: args.rate,
        reads_per_s: args.rate / 2,
        series: series.clone(),
    };
    let load = Load::start(plan, Instant::now()).await?;
    for _ in 0..count {
        let from = set.master().await.context("there is not one master")?;
        set.wait_in_sync(&from, IN_SYNC_WITHIN).await?;
        let addrs = set.addrs();
        let at = addrs.iter().position(|addr| *addr == from);
        let at = at.context("the master is a stranger")?;
        let to = addrs.get((at + 1) % addrs.len()).context("no other node")?;
        let report = proxy.admin.switchover(SHARD, to).await?;
        if report.outcome != "switched" {
            bail!("{report:?}\n{}", proxy.log_tail());
        }
        soaked.hold_ms.push(report.hold_ms);
        sleep(REST).await;
    }
    let record = load.stop().await?;
    if record.errors + record.unanswered > 0 {
        let errors = &record.error_texts;
        bail!(
            "clients saw errors or no reply: {errors:?}, {}",
            record.unanswered
        );
    }
    let master = set.master().await.context("there is not one master")?;
    let proof = prove(&master, &series, &record.acked).await?;
    if proof.lost() > 0 {
        bail!("acknowledged writes are lost: {:?}", proof.examples);
    }
    soaked.looked_for += proof.looked_for;
    let reads = record.reads_alone.len() + record.reads_mixed.len();
    soaked.requests += (record.writes.len() + reads) as u64;
    Wire::connect(&proxy.addr).await?.run("FLUSHALL").await?;
    Ok(())
}

fn footprint(pid: u32) -> anyhow::Result<Footprint> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(Footprint {
        resident_kb: number.context("no VmRSS in /proc")?.parse()?,
        files: std::fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
    })
}

fn tell(soaked: &mut Soaked, took: Duration) -> anyhow::Result<()> {
    soaked.hold_ms.sort_by(f64::total_cmp);
    let holds = &soaked.hold_ms;
    let at = |part: f64| holds.get((holds.len() as f64 * part) as usize);
    println!(
        "{} switchovers in {:.0} s, all switched; {} requests without an error, {} acknowledged \
         writes looked for, none missing; hold p50 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        holds.len(),
        took.as_secs_f64(),
        soaked.requests,
        soaked.looked_for,
        at(0.5).copied().unwrap_or_default(),
        at(0.99).copied().unwrap_or_default(),
        holds.last().copied().unwrap_or_default(),
    );
    let third = soaked.footprints.len().div_ceil(3);
    let most = |some: &[Footprint], what: fn(&Footprint) -> u64| {
        some.iter().map(what).max().unwrap_or_default()
    };
    let first = soaked.footprints.get(..third).unwrap_or_default();
    let last = soaked.footprints.get(soaked.footprints.len() - third..);
    let last = last.unwrap_or_default();
    let memory = [first, last].map(|some| most(some, |one| one.resident_kb));
    let files = [first, last].map(|some| most(some, |one| one.files));
    println!(
        "resident at most {} kB in the first third and {} kB in the last, open files {} and {}",
        memory[0], memory[1], files[0], files[1]
    );
    if memory[1] > memory[0] + GROWTH_KB_MAX || files[1] > files[0] + 8 {
        bail!("the proxy grows");
    }
    Ok(())
}
