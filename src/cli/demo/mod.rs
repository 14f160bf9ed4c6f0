//! `pointsman demo`: shows a switchover under load on one machine, and proves that nothing is lost.
//!
//! Starts a master and two replicas, the proxy in front of them, clients that write and read
//! through the proxy and one writer that goes past it. First some seconds without a switchover,
//! then the same load with several, to and fro. At the end every acknowledged write is read back
//! from the master and compared.
//!
//! **Invariant:** exit code 0 means that no acknowledged write is missing, no client saw an error
//! and every switchover ended as `switched`.
//!
//! Keys are never written twice, so that each write can be found; what is stored grows with time:
//! about rate x bytes x seconds on each of the three servers. With the default settings it runs for
//! about 20 s and the servers hold 0.4 GB each.

pub mod admin;
mod chart;
mod course;
pub mod direct_writer;
pub mod figures;
mod html;
pub mod load;
pub mod marked;
pub mod port;
pub mod proof;
pub mod proxy;
pub mod report;
pub mod servers;
pub mod wire;
pub mod workspace;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use servers::EngineChoice;

#[derive(Args, Clone, Debug)]
pub struct DemoArgs {
    /// Which servers to start; auto takes Kvrocks when `kvrocks` is on PATH or KVROCKS_BIN names it
    #[arg(long, value_enum, default_value_t = EngineChoice::Auto)]
    pub engine: EngineChoice,
    /// How many switchovers, to and fro
    #[arg(long, default_value_t = 5, value_parser = count(0, 1000))]
    pub switchovers: u32,
    /// Writes per second through the proxy
    #[arg(long, default_value_t = 10_000, value_parser = per_second(1))]
    pub rate: u64,
    /// Reads per second through the proxy
    #[arg(long, default_value_t = 5_000, value_parser = per_second(0))]
    pub reads: u64,
    /// Writes per second straight to the master
    #[arg(long, default_value_t = 500, value_parser = per_second(1))]
    pub direct_rate: u64,
    /// Bytes of each value
    #[arg(long, default_value_t = 2048, value_parser = count(48, 1_048_576))]
    pub value_bytes: u32,
    /// Client connections; a fifth of them only read
    #[arg(long, default_value_t = 50, value_parser = count(2, 10_000))]
    pub connections: u32,
    /// Seconds of load before the first switchover
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub seconds: u64,
    /// Where to write the page with the picture
    #[arg(long, default_value = "pointsman-demo.html")]
    pub html: PathBuf,
    /// Print the figures as JSON
    #[arg(long)]
    pub json: bool,
}

fn per_second(least: u64) -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(least..=1_000_000)
}

fn count(least: i64, most: i64) -> clap::builder::RangedI64ValueParser<u32> {
    clap::value_parser!(u32).range(least..=most)
}

/// Returns when everything it started is gone. Exit code 1 when the demo failed, 130 or 143 after
/// Ctrl-C or SIGTERM.
pub async fn run(args: DemoArgs) -> anyhow::Result<ExitCode> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    // Dropping the course ends everything it started, so a signal needs no code of its own.
    tokio::select! {
        done = show(&args) => done,
        _ = interrupt.recv() => Ok(ExitCode::from(130)),
        _ = terminate.recv() => Ok(ExitCode::from(143)),
        _ = hangup.recv() => Ok(ExitCode::from(129)),
    }
}

async fn show(args: &DemoArgs) -> anyhow::Result<ExitCode> {
    let (summary, record) = course::run(args).await?;
    let page = html::page(&summary, &record.writes);
    std::fs::write(&args.html, page)
        .with_context(|| format!("cannot write {}", args.html.display()))?;
    let text = match args.json {
        true => serde_json::to_string_pretty(&summary)? + "\n",
        false => format!("{summary}\nThe picture: {}\n", args.html.display()),
    };
    // A reader that went away changes nothing about the result.
    let _ = std::io::stdout().write_all(text.as_bytes());
    Ok(if summary.failures().is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}
