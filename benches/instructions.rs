//! Instructions per request, counted by valgrind: the same on a busy machine as on a quiet one.
//!
//! The parts (scanner, command table, gate) run here, under valgrind, once with some requests and
//! once with twice as many: the difference is what the requests cost, without start and end. The
//! whole proxy is counted the same way while `redis-benchmark` sends through it, instructions of
//! the program itself, not of the kernel. It also counts what the proxy does meanwhile by the
//! clock, which is less than a hundredth, and how many requests one wake-up brings depends a little
//! on the machine: compare to a few per cent.
//!
//! `make bench-instructions`; with a part of a name, only those.

#[path = "support/machine.rs"]
#[allow(dead_code)]
mod machine;

use std::hint::black_box;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bytes::BytesMut;
use pointsman::cli::demo::port::Port;
use pointsman::cli::demo::servers::{Engine, EngineChoice, Node};
use pointsman::cli::demo::wire::Wire;
use pointsman::cli::demo::workspace::Workspace;
use pointsman::resp::command::classify;
use pointsman::resp::scan::{
    Reply, ReplyScanner, Request, RequestLimits, RequestScanner, write_request,
};
use pointsman::shard::gate::{Gate, GateState};
use tokio::time::{sleep, timeout};

/// Tells a copy of this program which part to run, and how often.
const PART: &str = "POINTSMAN_BENCH_PART";
const PART_REQUESTS: u64 = 100_000;
const PROXY_REQUESTS: u64 = 20_000;
/// Programs run some fifty times slower when they are counted.
const SLOW: Duration = Duration::from_secs(120);
/// Frames that one read brings.
const BATCH: usize = 16;

const LIMITS: RequestLimits = RequestLimits {
    inline_bytes_max: 65_536,
    elements_max: 1_048_576,
    bulk_bytes_max: 536_870_912,
};

type Part = (&'static str, fn(u64));

const PARTS: [Part; 6] = [
    ("scan a request, SET of 64 B", |count| {
        scan_requests(&["SET", "key:000000000001", &"v".repeat(64)], count);
    }),
    ("scan a request, GET", |count| {
        scan_requests(&["GET", "key:000000000001"], count);
    }),
    ("scan a reply, +OK", |count| scan_replies("+OK\r\n", count)),
    ("scan a reply, 64 B", |count| {
        scan_replies(&format!("$64\r\n{}\r\n", "v".repeat(64)), count);
    }),
    ("judge a command, SET", |count| {
        let words: [&[u8]; 3] = [b"SET", b"key", b"value"];
        for _ in 0..count {
            let words = black_box(&words);
            black_box(classify(words[0], |at| words.get(at).copied(), words.len()));
        }
    }),
    ("admit a write at the gate, and end it", |count| {
        let gate = Gate::shut(Arc::default());
        gate.release(GateState::Open);
        for _ in 0..count {
            if black_box(&gate).is_open() {
                gate.admit_writes(1);
            }
            gate.write_ended(1);
        }
    }),
];

/// Through the whole proxy: the name, and how `redis-benchmark` is called.
const THROUGH: [(&str, &[&str]); 4] = [
    (
        "the proxy, SET of 64 B, 50 connections",
        &["-t", "set", "-d", "64"],
    ),
    (
        "the proxy, GET of 64 B, 50 connections",
        &["-t", "get", "-d", "64"],
    ),
    (
        "the proxy, SET of 64 B, pipeline of 16",
        &["-t", "set", "-d", "64", "-P", "16"],
    ),
    (
        "the proxy, GET of 64 B, pipeline of 16",
        &["-t", "get", "-d", "64", "-P", "16"],
    ),
];

fn scan_requests(words: &[&str], count: u64) {
    let mut frame = BytesMut::new();
    write_request(&mut frame, words);
    let input = frame.repeat(BATCH);
    let mut scanner = RequestScanner::default();
    for _ in 0..count / BATCH as u64 {
        let mut at = 0;
        while let Ok(Request::Complete { len, .. }) = scanner.scan(black_box(&input[at..]), &LIMITS)
        {
            at += len;
        }
    }
}

fn scan_replies(frame: &str, count: u64) {
    let input = frame.repeat(BATCH).into_bytes();
    let mut scanner = ReplyScanner::default();
    for _ in 0..count / BATCH as u64 {
        let mut at = 0;
        while at < input.len()
            && let Ok(Reply::Complete { len, .. }) = scanner.scan(black_box(&input[at..]))
        {
            at += len;
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    if let Ok(part) = std::env::var(PART) {
        let (name, count) = part.rsplit_once('*').context("a part and a count")?;
        let (_, run) = PARTS
            .iter()
            .find(|one| one.0 == name)
            .context("no such part")?;
        run(count.parse()?);
        return Ok(ExitCode::SUCCESS);
    }
    if machine::program("valgrind").is_none() {
        bail!("valgrind is not installed: apt-get install valgrind");
    }
    let only = std::env::args().skip(1).find(|arg| !arg.starts_with("--"));
    let wanted = |name: &str| only.as_deref().is_none_or(|text| name.contains(text));
    println!("| instructions | per request |\n|---|--:|");
    for (name, _) in PARTS.iter().filter(|part| wanted(part.0)) {
        let counted = |count: u64| count_part(name, count);
        print_row(name, counted, PART_REQUESTS)?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let workspace = Workspace::create("pointsman-bench")?;
        let server = Node::start(&Engine::find(EngineChoice::Redis)?, &workspace, &[]).await?;
        for (name, args) in THROUGH.iter().filter(|one| wanted(one.0)) {
            let once = count_proxy(&workspace, &server, args, PROXY_REQUESTS).await?;
            let twice = count_proxy(&workspace, &server, args, 2 * PROXY_REQUESTS).await?;
            println!(
                "| {name} | {} |",
                twice.saturating_sub(once) / PROXY_REQUESTS
            );
        }
        Ok(ExitCode::SUCCESS)
    })
}

fn print_row(
    name: &str,
    counted: impl Fn(u64) -> anyhow::Result<u64>,
    count: u64,
) -> anyhow::Result<()> {
    let more = counted(2 * count)?.saturating_sub(counted(count)?);
    println!("| {name} | {} |", more / count);
    Ok(())
}

fn valgrind() -> Command {
    let mut command = Command::new("valgrind");
    command.args([
        "--tool=cachegrind",
        "--cache-sim=no",
        "--cachegrind-out-file=/dev/null",
    ]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    command
}

/// What valgrind says at the end: `I   refs:      1,234`.
fn instructions(said: &str) -> anyhow::Result<u64> {
    let mut figures = said.lines().filter_map(|line| line.split_once("refs:"));
    let figure = figures.find(|(what, _)| what.trim_end().ends_with('I'));
    let (_, figure) = figure.with_context(|| format!("valgrind counted nothing: {said}"))?;
    let digits: String = figure.chars().filter(char::is_ascii_digit).collect();
    digits.parse().context("valgrind's count")
}

fn count_part(name: &str, count: u64) -> anyhow::Result<u64> {
    let mut command = valgrind();
    command.arg(std::env::current_exe()?);
    command.env(PART, format!("{name}*{count}"));
    let output = command.output().context("valgrind cannot be started")?;
    instructions(&String::from_utf8_lossy(&output.stderr))
}

/// What the proxy has executed when `count` requests have gone through it and it has ended.
async fn count_proxy(
    workspace: &Arc<Workspace>,
    server: &Node,
    args: &[&str],
    count: u64,
) -> anyhow::Result<u64> {
    let (port, admin_port) = (Port::reserve()?, Port::reserve()?);
    let state = workspace.dir().display();
    let text = format!(
        "[proxy]\nworkers = 1\nstate_dir = \"{state}\"\n[admin]\nlisten = \"127.0.0.1:{admin_port}\"\n\
         [[shard]]\nname = \"main\"\nlisten = \"127.0.0.1:{port}\"\nnodes = [\"{}\"]\n",
        server.addr
    );
    let config = workspace.dir().join(format!("instructions-{port}.toml"));
    std::fs::write(&config, text)?;
    let mut command = valgrind();
    command.arg(env!("CARGO_BIN_EXE_pointsman"));
    command.arg("serve").arg("--config").arg(&config);
    let mut started = workspace.start(&format!("counted-{port}"), &mut command)?;
    let answers = async || match Wire::connect(&port.addr()).await {
        Ok(mut wire) => wire.run("PING").await.is_ok(),
        Err(_) => false,
    };
    until("the proxy answers", answers).await?;
    let mut load = tokio::process::Command::new("redis-benchmark");
    load.args(["-p", &port.to_string(), "-c", "50", "-r", "1000"]);
    load.args(args).args(["-n", &count.to_string(), "-q"]);
    load.stdin(Stdio::null()).stdout(Stdio::null());
    let done = load.kill_on_drop(true).status();
    if !timeout(SLOW, done).await??.success() {
        bail!("redis-benchmark failed");
    }
    started.signal("TERM")?;
    until("the proxy ends", async || started.ended().is_some()).await?;
    instructions(&started.log_tail(30))
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) -> anyhow::Result<()> {
    let holds = async {
        while !holds().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SLOW, holds)
        .await
        .with_context(|| format!("{what}: not within {SLOW:?}"))
}
