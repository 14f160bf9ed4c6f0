//! What clients cost in memory: idle ones, and ones that push writes while a switchover holds them.
//!
//! The proxy is a process of its own, whose resident memory is read from `/proc`; clients and
//! servers are others. Held clients push twice what the proxy promises to keep of each, and get all
//! of their replies when the writes go on.
//!
//! **Invariant:** it fails when idle clients cost more than the goal, when held ones cost more than
//! `config.toml` promises, and when one of them does not get every reply.
//!
//! `make bench-memory`, or `cargo bench --bench memory -- --help`.

#[path = "support/machine.rs"]
mod machine;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::Parser;
use pointsman::cli::demo::proxy::{Proxy, SHARD, Settings};
use pointsman::cli::demo::servers::{Engine, EngineChoice, NodeSet, field};
use pointsman::cli::demo::wire::{Wire, put_request};
use pointsman::cli::demo::workspace::Workspace;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// For whatever is awaited; the hold must outlast the pushing.
const WITHIN: Duration = Duration::from_secs(120);
const WITHIN_MS: u64 = 120_000;
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Looks in a row without growth after which the proxy has read all that it keeps.
const LOOKS_WITHOUT_GROWTH: u32 = 40;

/// What idle clients may cost, the proxy itself included.
const IDLE_GOAL_KB: u64 = 60 * 1024;
const IDLE_GOAL_CLIENTS: u64 = 10_000;

/// `session_buffer_bytes_max` as it is without a word in the config.
const SESSION_BUFFER_BYTES: u64 = 1 << 20;
/// A session's own state, and the read that went past the limit.
const SESSION_SLACK_BYTES: u64 = 64 << 10;

const VALUE_BYTES: usize = 2048;
const PUSHED_BYTES: usize = 2 << 20;
const OK: &[u8] = b"+OK\r\n";

/// Memory of many clients
#[derive(Parser, Debug)]
#[command(name = "memory")]
struct Args {
    /// Clients that have asked one thing and then nothing
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    idle: u64,
    /// Clients that push writes while they are held
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    held: u64,
    /// What cargo passes to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(Debug, Default, Serialize)]
struct Measured {
    empty_kb: u64,
    idle_clients: u64,
    idle_kb: u64,
    held_clients: u64,
    /// What the held clients have added.
    held_kb: u64,
    promised_kb: u64,
    /// With all of them gone.
    left_kb: u64,
}

#[derive(Serialize)]
struct Kept {
    machine: machine::Machine,
    measured: Measured,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    enough_files(args.idle.max(args.held) + 200)?;
    let engine = Engine::find(EngineChoice::Redis)?;
    let workspace = Workspace::create("pointsman-memory")?;
    let set = NodeSet::start(&engine, &workspace, 1, &[]).await?;
    let clients_max = args.idle.max(args.held) + 100;
    let timeouts = ["drain_timeout_ms", "pause_timeout_ms", "sync_timeout_ms"];
    let settings = Settings {
        proxy: format!("workers = 1\nclients_max = {clients_max}\nhold_budget_ms = {WITHIN_MS}"),
        switchover: timeouts
            .map(|name| format!("{name} = {WITHIN_MS}"))
            .join("\n"),
        ..Settings::default()
    };
    let binary = env!("CARGO_BIN_EXE_pointsman");
    let proxy = Proxy::start(binary.as_ref(), &workspace, &set.addrs(), &settings).await?;
    let mut measured = Measured::default();
    idle(args.idle, &proxy, &mut measured).await?;
    held(args.held, &set, &proxy, &mut measured).await?;
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| word != "--bench")
        .collect();
    let command = format!("cargo bench --bench memory -- {}", words.join(" "));
    let machine = machine::Machine::look(command, &[("redis-server", "--version")]);
    tell(&measured, &machine);
    let kept = Kept { machine, measured };
    println!(
        "{}",
        machine::keep(&kept.machine.date, "memory", &kept)?.display()
    );
    judge(&kept.measured)
}

/// Clients that have asked one thing each, and then nothing.
async fn idle(count: u64, proxy: &Proxy, measured: &mut Measured) -> anyhow::Result<()> {
    Wire::connect(&proxy.addr).await?.run("SET k v").await?;
    measured.empty_kb = resident_kb(proxy)?;
    let mut clients = Vec::new();
    let mut reply = [0; 7];
    for _ in 0..count {
        let mut stream = TcpStream::connect(&proxy.addr).await?;
        stream.write_all(b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n").await?;
        timeout(WITHIN, stream.read_exact(&mut reply)).await??;
        ensure!(
            reply == *b"$1\r\nv\r\n",
            "a client was told {}",
            reply.escape_ascii()
        );
        clients.push(stream);
    }
    measured.idle_clients = count;
    measured.idle_kb = resident_kb(proxy)?;
    drop(clients);
    all_gone(proxy).await
}

/// Clients whose writes a switchover holds: one of them is stuck on the old master, which pauses.
async fn held(
    count: u64,
    set: &NodeSet,
    proxy: &Proxy,
    measured: &mut Measured,
) -> anyhow::Result<()> {
    let before_kb = resident_kb(proxy)?;
    let master = set.nodes.first().context("no master")?;
    let mut direct = master.wire().await?;
    direct
        .run(&format!("CLIENT PAUSE {WITHIN_MS} WRITE"))
        .await?;
    let mut stuck = Wire::connect(&proxy.addr).await?.with_deadline(WITHIN);
    stuck.send(&["SET", "stuck", "1"]).await?;
    until("a write is stuck", async || {
        let info = direct.run("INFO clients").await?.text();
        Ok(field(&info, "blocked_clients") == Some("1"))
    })
    .await?;
    let id = begin_switchover(set, proxy).await?;

    let pipeline: Arc<[u8]> = pipeline().into();
    let replies = pipeline.len() / request().len();
    let mut clients = JoinSet::new();
    for _ in 0..count {
        let stream = TcpStream::connect(&proxy.addr).await?;
        clients.spawn(push(stream, Arc::clone(&pipeline), replies));
    }
    let full_kb = without_growth(proxy).await?;
    ensure!(clients.try_join_next().is_none(), "a write was not held");
    measured.held_clients = count;
    measured.held_kb = full_kb.saturating_sub(before_kb);
    measured.promised_kb = count * (SESSION_BUFFER_BYTES + SESSION_SLACK_BYTES) / 1024;

    direct.run("CLIENT UNPAUSE").await?;
    ensure!(stuck.reply().await?.ok(), "the stuck write failed");
    while let Some(client) = clients.join_next().await {
        client??;
    }
    drop(stuck);
    until("the switchover is over", async || {
        let answer = proxy.admin.get(&format!("/v1/operations/{id}")).await?;
        Ok(answer.json()?["report"]["outcome"] == "switched")
    })
    .await?;
    all_gone(proxy).await?;
    measured.left_kb = resident_kb(proxy)?;
    Ok(())
}

/// Returns the operation's id once writes are held.
async fn begin_switchover(set: &NodeSet, proxy: &Proxy) -> anyhow::Result<String> {
    let target = set.nodes.get(1).context("no replica")?;
    let body = serde_json::json!({ "to": target.addr }).to_string();
    let path = format!("/v1/shards/{SHARD}/switchover?wait=false");
    let answer = proxy.admin.post(&path, body).await?;
    ensure!(answer.status == 202, "{}", answer.body);
    let id = answer.text("id");
    let path = format!("/v1/operations/{id}");
    until("writes are held", async || {
        let answer = proxy.admin.get(&path).await?;
        ensure!(answer.text("state") != "ended", "{}", answer.body);
        Ok(answer.text("phase") == "hold")
    })
    .await?;
    Ok(id)
}

fn request() -> Vec<u8> {
    let mut request = Vec::new();
    put_request(
        &mut request,
        &[b"SET".as_slice(), b"held", &[b'x'; VALUE_BYTES]],
    );
    request
}

fn pipeline() -> Vec<u8> {
    let request = request();
    request.repeat(PUSHED_BYTES.div_ceil(request.len()))
}

/// Sends all, however long it takes, and reads a good reply to each of its requests.
async fn push(stream: TcpStream, pipeline: Arc<[u8]>, replies: usize) -> anyhow::Result<()> {
    let (mut read, mut write) = stream.into_split();
    let mut told = vec![0; replies * OK.len()];
    let sending = write.write_all(&pipeline);
    let reading = read.read_exact(&mut told);
    let (sent, read) = timeout(WITHIN, async { tokio::join!(sending, reading) }).await?;
    sent?;
    read?;
    ensure!(
        told.chunks(OK.len()).all(|reply| reply == OK),
        "a write was refused"
    );
    Ok(())
}

/// Resident memory when it has not grown for a while.
async fn without_growth(proxy: &Proxy) -> anyhow::Result<u64> {
    let (mut most, mut looks) = (0, 0);
    let deadline = Instant::now() + WITHIN / 2;
    while looks < LOOKS_WITHOUT_GROWTH {
        ensure!(Instant::now() < deadline, "it still grows");
        let now = resident_kb(proxy)?;
        looks = if now > most { 0 } else { looks + 1 };
        most = most.max(now);
        sleep(LOOK_EVERY).await;
    }
    Ok(most)
}

async fn all_gone(proxy: &Proxy) -> anyhow::Result<()> {
    until("all clients are gone", async || {
        let metrics = proxy.admin.get("/metrics").await?.body;
        let mut lines = metrics.lines();
        let line = lines.find(|line| line.starts_with("pointsman_sessions{"));
        Ok(line.is_some_and(|line| line.ends_with(" 0")))
    })
    .await
}

async fn until(
    what: &str,
    mut condition: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + WITHIN;
    while !condition().await? {
        ensure!(
            Instant::now() < deadline,
            "still waiting after {WITHIN:?}: {what}"
        );
        sleep(LOOK_EVERY).await;
    }
    Ok(())
}

fn resident_kb(proxy: &Proxy) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{}/status", proxy.pid()))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.and_then(|line| line.split_whitespace().next());
    Ok(number.context("no VmRSS in /proc")?.parse()?)
}

/// The proxy inherits our limit, so what is enough here is enough there.
fn enough_files(needed: u64) -> anyhow::Result<()> {
    let limits = std::fs::read_to_string("/proc/self/limits")?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().next());
    let soft: u64 = soft.context("no limit of open files in /proc")?.parse()?;
    if soft < needed {
        bail!("{needed} open files are needed and {soft} allowed: `ulimit -n {needed}`");
    }
    Ok(())
}

fn tell(measured: &Measured, machine: &machine::Machine) {
    let mb = |kb: u64| kb as f64 / 1024.0;
    let each = |kb: u64, count: u64| kb as f64 / count as f64;
    let idle = measured.idle_kb.saturating_sub(measured.empty_kb);
    println!("without clients          {:8.1} MB", mb(measured.empty_kb));
    println!(
        "{:6} idle clients      {:8.1} MB in all, {:.2} KB each",
        measured.idle_clients,
        mb(measured.idle_kb),
        each(idle, measured.idle_clients)
    );
    println!(
        "{:6} held clients      {:8.1} MB more, {:.1} KB each, of {:.1} MB promised",
        measured.held_clients,
        mb(measured.held_kb),
        each(measured.held_kb, measured.held_clients),
        mb(measured.promised_kb)
    );
    println!("when they have left      {:8.1} MB", mb(measured.left_kb));
    println!("{}", machine.line());
}

fn judge(measured: &Measured) -> anyhow::Result<()> {
    let goal = IDLE_GOAL_KB * measured.idle_clients.max(IDLE_GOAL_CLIENTS) / IDLE_GOAL_CLIENTS;
    ensure!(
        measured.idle_kb <= goal,
        "idle clients cost more than {goal} KB"
    );
    ensure!(
        measured.held_kb <= measured.promised_kb,
        "held clients cost more than config.toml promises"
    );
    Ok(())
}
