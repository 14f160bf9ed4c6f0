//! What the proxy costs, end to end: the same load straight to a server, through Pointsman and,
//! where they are installed, through nutcracker (twemproxy) and haproxy in tcp mode. Beside them
//! runs a bare server that says OK to small writes: what it costs, every proxy costs.
//!
//! All paths lead to one server and run one after the other, in rounds: each workload of a round is
//! run over every path before the next, and each round begins with another path. A ratio is formed
//! between runs of the same round, seconds apart, so that a machine that is slow for a minute is
//! slow for all of them. Absolute rates are of one machine; CPU per request and ratios carry over.
//!
//! **Invariant:** what it starts ends with it, whatever ends it; every run and the whole have a
//! deadline.
//!
//! `make bench`, or `cargo bench --bench proxy -- --help`.

#[path = "../support/figures.rs"]
mod figures;
mod floor;
mod load;
#[path = "../support/machine.rs"]
mod machine;
mod mixed;
mod paced;
#[path = "../support/page.rs"]
mod page;
mod paths;
mod report;
mod table;
mod usage;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use pointsman::cli::demo::servers::{Engine, EngineChoice, Node};
use pointsman::cli::demo::wire::Wire;
use pointsman::cli::demo::workspace::Workspace;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};

use load::{Sender, WORKLOADS, Workload};
use machine::Machine;
use paths::Path;
use table::{Row, Run};

/// End-to-end benchmark of the proxy
#[derive(Parser, Debug)]
#[command(name = "proxy")]
struct Args {
    /// How often every workload is run over every path
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rounds: u32,
    /// Requests of a run of small values without pipelining; the others take about as long
    #[arg(long, default_value_t = 20_000, value_parser = clap::value_parser!(u64).range(1..=10_000_000))]
    requests: u64,
    /// No further round begins after so many seconds
    #[arg(long, default_value_t = 240)]
    seconds_max: u64,
    /// One round of few requests, to see that it works; its result is not kept
    #[arg(long)]
    quick: bool,
    /// Only workloads whose name contains this text, for example "SET 64 B, 50"; not kept
    #[arg(long)]
    only: Option<String>,
    /// Be the bare server, at this address
    #[arg(long, hide = true)]
    floor: Option<String>,
    /// What cargo passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// What is kept.
#[derive(Serialize)]
struct Outcome {
    machine: Machine,
    rounds: u32,
    requests: u64,
    medians: Vec<Row>,
    runs: Vec<Run>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let mut args = Args::parse();
    if let Some(addr) = &args.floor {
        match floor::serve(addr).await? {}
    }
    if args.quick {
        args.rounds = 1;
        args.requests = args.requests.min(3000);
    }
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // Dropping the comparison ends everything it started.
    tokio::select! {
        done = compare(&args) => done.map(|()| ExitCode::SUCCESS),
        _ = interrupt.recv() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
        _ = hangup.recv() => Ok(ExitCode::from(129)),
    }
}

async fn compare(args: &Args) -> anyhow::Result<()> {
    let command = std::env::args().skip(1).filter(|arg| arg != "--bench");
    let command = command.fold("make bench".to_owned(), |all, arg| all + " " + &arg);
    let machine = Machine::look(
        command,
        &[
            ("redis-server", "--version"),
            ("nutcracker", "--version"),
            ("haproxy", "-v"),
            ("rustc", "--version"),
        ],
    );
    let workloads: Vec<Workload> = WORKLOADS
        .into_iter()
        .filter(|one| {
            args.only
                .as_ref()
                .is_none_or(|text| one.to_string().contains(text))
        })
        .collect();
    let workspace = Workspace::create("pointsman-bench")?;
    let server = Node::start(&Engine::find(EngineChoice::Redis)?, &workspace, &[]).await?;
    let paths = paths::start(&workspace, &server).await?;

    let (rounds, runs) = rounds(args, &workloads, &paths, &server).await?;
    let names: Vec<&'static str> = paths.iter().map(|path| path.name).collect();
    let medians = table::rows(&runs, &workloads, &names);
    print!("{}", table::markdown(&medians));
    println!("\nMedians of {rounds} rounds, {}.", machine.line());
    if !args.quick && args.only.is_none() {
        let date = machine.date.clone();
        let outcome = Outcome {
            machine,
            rounds,
            requests: args.requests,
            medians,
            runs,
        };
        let file = machine::keep(&date, "proxy", &outcome)?;
        let page = file.with_extension("html");
        std::fs::write(
            &page,
            report::page(&outcome.medians, &outcome.machine.line()),
        )?;
        eprintln!(
            "kept in {}, to look at in {}",
            file.display(),
            page.display()
        );
    }
    Ok(())
}

/// Returns how many rounds there was time for.
async fn rounds(
    args: &Args,
    workloads: &[Workload],
    paths: &[Path],
    server: &Node,
) -> anyhow::Result<(u32, Vec<Run>)> {
    let begin = Instant::now();
    let budget = Duration::from_secs(args.seconds_max);
    let mut runs = Vec::new();
    let mut longest = Duration::ZERO;
    for round in 0..args.rounds {
        let round_begin = Instant::now();
        if round > 0 && begin.elapsed() + longest > budget {
            eprintln!("no time for more than {round} rounds within {budget:?}");
            return Ok((round, runs));
        }
        let mut peak = 0.0;
        for workload in workloads {
            let mut together = Vec::new();
            if workload.sender == Sender::Paced && peak == 0.0 {
                peak = find_peak(paths, server, args.requests).await?;
            }
            workload
                .fill(&server.addr)
                .await
                .with_context(|| format!("filling for {workload}"))?;
            for turn in 0..paths.len() {
                let Some(path) = paths.get((turn + round as usize) % paths.len()) else {
                    continue;
                };
                if path.is_floor() && !workload.is_plain_write() {
                    continue;
                }
                progress(&format!("round {}: {workload}: {}", round + 1, path.name));
                let measured = workload.run(path, server.pid(), args.requests, peak).await;
                match measured {
                    Ok(measured) => {
                        together.push(Run::new(round + 1, workload, path.name, measured));
                    }
                    // One path that cannot do one workload does not spoil the others' table.
                    Err(error) => eprintln!("\n{workload}: {}: {error:#}", path.name),
                }
            }
            table::compare(&mut together);
            if workload.is_peak()
                && let Some(direct) = together.iter().find(|run| run.path == "direct")
            {
                peak = direct.requests_per_s;
            }
            if workload.sender == Sender::Paced {
                // Every write had a key of its own.
                Wire::connect(&server.addr).await?.run("FLUSHALL").await?;
            }
            runs.append(&mut together);
        }
        longest = longest.max(round_begin.elapsed());
    }
    progress("");
    Ok((args.rounds, runs))
}

/// What the server takes of small writes, when that is not among the workloads.
async fn find_peak(paths: &[Path], server: &Node, requests: u64) -> anyhow::Result<f64> {
    let direct = paths.first().context("no path")?;
    let [small, ..] = WORKLOADS;
    let measured = small.run(direct, server.pid(), requests, 0.0).await?;
    Ok(measured.requests_per_s)
}

/// A line that the next one replaces; only on a terminal.
fn progress(text: &str) {
    let mut out = std::io::stderr();
    if out.is_terminal() {
        let _ = write!(out, "\r\x1b[K{text}");
    }
}
