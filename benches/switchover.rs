//! How long writes wait when the master changes: switchovers to and fro under load, each ordered
//! through the admin API, on a shard of one master and two replicas.
//!
//! Every figure is also given in PING round trips to the master, taken under the same load just
//! before the switchover: a phase is a number of round trips, and those depend on the machine.
//!
//! Keys are never written twice, so that each write can be looked for at the end; servers are
//! replaced after a few switchovers, so that memory has a bound. Values of several sizes are run
//! one after the other, the large ones less often, and drawn on one page.
//!
//! **Invariant:** a run in which an acknowledged write is missing, a client saw an error or a
//! switchover ended otherwise than `switched` fails and is not kept.
//!
//! `make bench-switchover`, or `cargo bench --bench switchover -- --help`.

#[path = "support/figures.rs"]
mod figures;
#[path = "support/holds.rs"]
mod holds;
#[path = "support/machine.rs"]
mod machine;
#[path = "support/page.rs"]
mod page;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::Parser;
use pointsman::cli::demo::admin::Report;
use pointsman::cli::demo::figures::{Span, latency};
use pointsman::cli::demo::load::{Load, Plan};
use pointsman::cli::demo::marked::Series;
use pointsman::cli::demo::proof::prove;
use pointsman::cli::demo::proxy::{Proxy, SHARD, Settings};
use pointsman::cli::demo::servers::{Engine, EngineChoice, NodeSet};
use pointsman::cli::demo::wire::Wire;
use pointsman::cli::demo::workspace::Workspace;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::sleep;

use figures::percentile;
use machine::Machine;

const REPLICAS: usize = 2;
/// Bytes of a value where none are named.
const USUAL: u32 = 2048;
/// So many values on their way make no replica one that lags too far behind.
const VALUES_BEHIND: u32 = 16;
/// Switchovers on one set of servers.
const PER_SET: u32 = 5;
const WARM_UP: Duration = Duration::from_secs(1);
/// From the end of one switchover to the order of the next.
const REST: Duration = Duration::from_millis(500);
/// How long before a switchover writes are looked at for comparison: the PINGs come in between.
const BEFORE: Duration = Duration::from_millis(150);
const IN_SYNC_DEADLINE: Duration = Duration::from_secs(20);
const PINGS: usize = 200;

/// Benchmark of switchovers under load
#[derive(Parser, Debug)]
#[command(name = "switchover")]
struct Args {
    /// How many switchovers, to and fro
    #[arg(short = 'n', long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1000))]
    switchovers: u32,
    /// Writes per second through the proxy
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    rate: u64,
    /// Bytes of each value; several, with commas between them, are run one after the other
    #[arg(long, default_value = "2048", value_delimiter = ',', value_parser = clap::value_parser!(u32).range(48..=1_048_576))]
    value_bytes: Vec<u32>,
    /// Most bytes of values per second, in MiB: large values are written less often than --rate
    /// says
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    mib_per_s_max: u64,
    /// Client connections
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(2..=10_000))]
    connections: u32,
    /// Other proxies in front of the same servers, without clients
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=16))]
    others: u32,
    /// Which servers to start
    #[arg(long, value_enum, default_value_t = EngineChoice::Redis)]
    engine: EngineChoice,
    /// Two switchovers, to see that it works; the result is not kept
    #[arg(long)]
    quick: bool,
    /// What cargo passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    /// Writes per second of values of this size.
    fn rate_of(&self, value_bytes: u32) -> u64 {
        let bound = (self.mib_per_s_max << 20) / u64::from(value_bytes);
        self.rate.min(bound).max(1)
    }

    /// What the result is kept as: runs that differ in their load do not replace one another. The
    /// page of several sizes is about no size.
    fn name(&self, value_bytes: Option<u32>) -> String {
        let usual = Args::parse_from(["switchover"]);
        let mut name = "switchover".to_owned();
        if self.engine != usual.engine {
            name += "-kvrocks";
        }
        if value_bytes.is_none() {
            name += "-sizes";
        }
        for (letter, value, usual) in [
            (
                "c",
                u64::from(self.connections),
                u64::from(usual.connections),
            ),
            (
                "v",
                u64::from(value_bytes.unwrap_or(USUAL)),
                u64::from(USUAL),
            ),
            ("r", self.rate, usual.rate),
            ("m", self.mib_per_s_max, usual.mib_per_s_max),
            ("o", u64::from(self.others), u64::from(usual.others)),
        ] {
            if value != usual {
                name += &format!("-{letter}{value}");
            }
        }
        name
    }
}

/// One switchover.
#[derive(Clone, Debug, Serialize)]
struct Done {
    /// Median of the PINGs just before.
    ping_ms: f64,
    /// The slowest write that was on its way meanwhile, from the moment it was due.
    slowest_write_ms: f64,
    /// The slowest write in as much time shortly before.
    slowest_before_ms: f64,
    report: Report,
}

/// What is kept.
#[derive(Serialize)]
struct Outcome {
    machine: Machine,
    writes_per_s: u64,
    value_bytes: u32,
    connections: u32,
    others: u32,
    writes_looked_for: u64,
    rows: Vec<Row>,
    switchovers: Vec<Done>,
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    name: String,
    p50_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    p50_round_trips: f64,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let mut args = Args::parse();
    if args.quick {
        args.switchovers = args.switchovers.min(2);
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // Dropping the run ends everything it started.
    tokio::select! {
        done = run(&args) => done.map(|()| ExitCode::SUCCESS),
        _ = interrupt.recv() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
        _ = hangup.recv() => Ok(ExitCode::from(129)),
    }
}

async fn run(args: &Args) -> anyhow::Result<()> {
    let command = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let command = command.fold("make bench-switchover".to_owned(), |all, arg| {
        all + " " + &arg
    });
    let engine = Engine::find(args.engine)?;
    let mut machine = Machine::look(command, &[("rustc", "--version")]);
    let server = engine.version();
    machine
        .versions
        .push(server.split(" sha=").next().unwrap_or(&server).to_owned());
    let mut outcomes = Vec::new();
    for &value_bytes in &args.value_bytes {
        let outcome = of_size(args, &engine, &machine, value_bytes).await?;
        if !args.quick {
            let name = args.name(Some(value_bytes));
            let file = machine::keep(&machine.date, &name, &outcome)?;
            eprintln!("kept in {}", file.display());
        }
        outcomes.push(outcome);
    }
    let page = holds::page(&outcomes, &machine.line());
    let size = Some(&args.value_bytes).filter(|sizes| sizes.len() == 1);
    let name = args.name(size.and_then(|sizes| sizes.first().copied()));
    let file = machine::keep_page(&machine.date, &name, &page, args.quick)?;
    eprintln!("pictures in {}", file.display());
    Ok(())
}

/// All switchovers with values of one size.
async fn of_size(
    args: &Args,
    engine: &Engine,
    machine: &Machine,
    value_bytes: u32,
) -> anyhow::Result<Outcome> {
    let mut done = Vec::new();
    let mut looked_for = 0;
    while done.len() < args.switchovers as usize {
        let left = args.switchovers - done.len() as u32;
        let count = left.min(PER_SET);
        let (some, looked) = on_one_set(args, engine, value_bytes, count).await?;
        done.extend(some);
        looked_for += looked;
    }
    let rows = rows(&done);
    println!(
        "\n| of {} switchovers | p50 ms | p99 ms | max ms | p50 round trips |",
        done.len()
    );
    println!("|---|--:|--:|--:|--:|");
    for row in &rows {
        println!(
            "| {} | {:.2} | {:.2} | {:.2} | {:.1} |",
            row.name, row.p50_ms, row.p99_ms, row.max_ms, row.p50_round_trips
        );
    }
    println!(
        "\n{} SET/s of {} B on {} connections, {} other proxies; {looked_for} acknowledged writes \
         looked for, none missing, no errors; {}.",
        args.rate_of(value_bytes),
        value_bytes,
        args.connections,
        args.others,
        machine.line()
    );
    Ok(Outcome {
        machine: machine.clone(),
        writes_per_s: args.rate_of(value_bytes),
        value_bytes,
        connections: args.connections,
        others: args.others,
        writes_looked_for: looked_for,
        rows,
        switchovers: done,
    })
}

/// Some switchovers on fresh servers, and how many writes were looked for at the end.
async fn on_one_set(
    args: &Args,
    engine: &Engine,
    value_bytes: u32,
    count: u32,
) -> anyhow::Result<(Vec<Done>, u64)> {
    let workspace = Workspace::create("pointsman-bench")?;
    let set = NodeSet::start(engine, &workspace, REPLICAS, &[]).await?;
    let binary = env!("CARGO_BIN_EXE_pointsman");
    let mut settings = Settings::default();
    let on_way = value_bytes.saturating_mul(VALUES_BEHIND);
    if on_way > 1 << 20 {
        settings.switchover = format!("max_lag = {on_way}");
    }
    let proxy = Proxy::start(binary.as_ref(), &workspace, &set.addrs(), &settings).await?;
    let mut others = Vec::new();
    for _ in 0..args.others {
        let workspace = Workspace::create("pointsman-bench")?;
        let other = Proxy::start(binary.as_ref(), &workspace, &set.addrs(), &settings).await?;
        others.push((other, workspace));
    }
    let series = Series::new("bench:w", value_bytes as usize);
    let plan = Plan {
        addr: proxy.addr.clone(),
        connections: args.connections as usize,
        read_only: 0,
        writes_per_s: args.rate_of(value_bytes),
        reads_per_s: 0,
        series: series.clone(),
    };
    let origin = Instant::now();
    let load = Load::start(plan, origin).await?;
    sleep(WARM_UP).await;
    let mut done = Vec::new();
    let mut spans = Vec::new();
    for _ in 0..count {
        let (ping_ms, report, span) = one(&set, &proxy, origin).await?;
        let (held, outcome) = (report.hold_ms, report.outcome.clone());
        eprintln!(
            "{} -> {}: {outcome}, held for {held:.2} ms",
            report.from, report.to
        );
        if outcome != "switched" {
            bail!(
                "{}; the proxy's log ends:\n{}",
                report.reasons.join("; "),
                proxy.log_tail()
            );
        }
        let routed = report.proxies.routed.len();
        if routed != others.len() {
            bail!(
                "{routed} of {} other proxies followed in time",
                others.len()
            );
        }
        done.push(Done {
            ping_ms,
            slowest_write_ms: 0.0,
            slowest_before_ms: 0.0,
            report,
        });
        spans.push(span);
        sleep(REST).await;
    }
    let record = load.stop().await?;
    for (done, span) in done.iter_mut().zip(spans) {
        let touched = record.writes.iter().filter(|sample| span.touched(sample));
        done.slowest_write_ms = latency(touched).max_ms;
        let before = span.earlier(BEFORE);
        let touched = record.writes.iter().filter(|sample| before.touched(sample));
        done.slowest_before_ms = latency(touched).max_ms;
    }
    if record.errors + record.unanswered > 0 {
        bail!(
            "clients saw {} errors: {:?}",
            record.errors,
            record.error_texts
        );
    }
    let master = set
        .master()
        .await
        .context("there is no master, or more than one")?;
    let proof = prove(&master, &series, &record.acked).await?;
    if proof.lost() > 0 {
        bail!(
            "{} acknowledged writes are lost: {:?}",
            proof.lost(),
            proof.examples
        );
    }
    Ok((done, proof.looked_for))
}

/// Away from the first node, or back to it.
async fn one(set: &NodeSet, proxy: &Proxy, origin: Instant) -> anyhow::Result<(f64, Report, Span)> {
    let master = set
        .master()
        .await
        .context("there is no master, or more than one")?;
    set.wait_in_sync(&master, IN_SYNC_DEADLINE).await?;
    let addrs = set.addrs();
    let to = addrs
        .iter()
        .find(|addr| **addr != master)
        .context("no node to switch to")?;
    let ping_ms = ping_ms(&master).await?;
    let now_us = || origin.elapsed().as_micros() as u64;
    let from_us = now_us();
    let report = proxy.admin.switchover(SHARD, to).await?;
    Ok((
        ping_ms,
        report,
        Span {
            from_us,
            to_us: now_us(),
        },
    ))
}

async fn ping_ms(node: &str) -> anyhow::Result<f64> {
    let mut wire = Wire::connect(node).await?;
    let mut taken = Vec::with_capacity(PINGS);
    for _ in 0..PINGS {
        let begin = Instant::now();
        wire.call(&["PING"]).await?;
        taken.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    percentile(taken, 0.5).context("no PING was answered")
}

/// What clients saw first, then the phases in the order in which they happen.
fn rows(done: &[Done]) -> Vec<Row> {
    let mut rows = vec![
        row("slowest write of a client", done, |one| {
            Some(one.slowest_write_ms)
        }),
        row("the same without, in equal time", done, |one| {
            Some(one.slowest_before_ms)
        }),
        row("longest hold of a session", done, |one| {
            Some(one.report.longest_hold_ms)
        }),
        row("hold, first gate to release", done, |one| {
            Some(one.report.hold_ms)
        }),
        row("order to end", done, |one| Some(one.report.total_ms)),
        row("PING", done, |one| Some(one.ping_ms)),
    ];
    let mut names: Vec<&str> = Vec::new();
    for phase in done.iter().flat_map(|one| &one.report.phases) {
        if !names.contains(&phase.name.as_str()) {
            names.push(&phase.name);
        }
    }
    rows.extend(names.into_iter().map(|name| {
        let of = |one: &Done| {
            let phase = one.report.phases.iter().find(|phase| phase.name == name)?;
            Some(phase.ms)
        };
        row(&format!("phase {name}"), done, of)
    }));
    rows
}

fn row(name: &str, done: &[Done], figure: impl Fn(&Done) -> Option<f64>) -> Row {
    let at = |part| percentile(done.iter().filter_map(&figure), part).unwrap_or_default();
    let round_trips = done
        .iter()
        .filter_map(|one| Some(figure(one)? / one.ping_ms));
    Row {
        name: name.to_owned(),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        max_ms: at(1.0),
        p50_round_trips: percentile(round_trips, 0.5).unwrap_or_default(),
    }
}
