//! The course of a run: servers, proxy, load, switchovers, proof.

use std::io::{IsTerminal, Write};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::DemoArgs;
use super::direct_writer::{self, DirectWriter};
use super::figures::{Span, grouped, latency};
use super::load::{Load, Plan, Record, Sample};
use super::marked::Series;
use super::proof::prove;
use super::proxy::{Proxy, SHARD, Settings};
use super::report::{Compared, Ordered, Summary};
use super::servers::{Engine, NodeSet};
use super::workspace::Workspace;

const REPLICAS: usize = 2;
/// Load that is not measured: connections, caches and the allocator settle.
const WARM_UP: Duration = Duration::from_secs(1);
/// From the end of one switchover to the order of the next.
const REST: Duration = Duration::from_millis(1000);
const IN_SYNC_DEADLINE: Duration = Duration::from_secs(20);
const LINE_EVERY: Duration = Duration::from_millis(250);
/// What the direct writer's values take; it is there for the proof, not for the load.
const DIRECT_VALUE_BYTES: usize = 128;

/// Everything that runs. Fields are dropped in this order: clients, proxy, servers.
struct Stage {
    load: Load,
    direct: DirectWriter,
    proxy: Proxy,
    set: NodeSet,
    origin: Instant,
    series: Series,
    direct_series: Series,
}

pub(super) async fn run(args: &DemoArgs) -> anyhow::Result<(Summary, Record)> {
    let engine = Engine::find(args.engine)?;
    check_memory(args)?;
    let version = engine.version();
    let mut stage = set_up(args, &engine).await?;

    stage.watch("warming up", sleep(WARM_UP)).await;
    let begin = stage.now_us();
    stage
        .watch(
            "without a switchover",
            sleep(Duration::from_secs(args.seconds)),
        )
        .await;
    let without = Span {
        from_us: begin,
        to_us: stage.now_us(),
    };

    let mut switchovers = Vec::new();
    for number in 1..=args.switchovers {
        let done = stage.switchover(number).await?;
        let usable = done.report.outcome.starts_with("switched");
        switchovers.push(done);
        if !usable {
            say(&format!(
                "stopping here; the proxy's log ends:\n{}",
                stage.proxy.log_tail()
            ));
            break;
        }
        stage
            .watch(&format!("after switchover {number}"), sleep(REST))
            .await;
    }
    let with = Span {
        from_us: without.to_us,
        to_us: stage.now_us(),
    };

    let Stage {
        load,
        direct,
        set,
        series,
        direct_series,
        proxy,
        ..
    } = stage;
    say("waiting for the last replies");
    let record = load.stop().await?;
    let direct = direct.stop().await?;
    drop(proxy);
    say(&format!(
        "reading {} acknowledged writes back from the master",
        grouped((record.acked.len() + direct.acked.len()) as u64)
    ));
    let master = set
        .master()
        .await
        .context("there is no master, or more than one")?;
    let mut proof = prove(&master, &series, &record.acked).await?;
    proof.add(prove(&master, &direct_series, &direct.acked).await?);

    let mut summary = summarise(args, &record, &direct, switchovers, without, with);
    summary.server = version;
    summary.looked_for = proof.looked_for;
    summary.lost = proof.lost();
    summary.lost_examples = proof.examples;
    Ok((summary, record))
}

async fn set_up(args: &DemoArgs, engine: &Engine) -> anyhow::Result<Stage> {
    let workspace = Workspace::create("pointsman-demo")?;
    let set = NodeSet::start(engine, &workspace, REPLICAS, &[]).await?;
    let addrs = set.addrs();
    say(&format!(
        "{}: {} (master first)",
        engine.version(),
        addrs.join(" ")
    ));
    let binary = std::env::current_exe()?;
    let proxy = Proxy::start(&binary, &workspace, &addrs, &Settings::default()).await?;
    say(&format!(
        "proxy: {} (admin {})",
        proxy.addr, proxy.admin.addr
    ));
    let series = Series::new("demo:w", args.value_bytes as usize);
    let direct_series = Series::new("demo:d", DIRECT_VALUE_BYTES);
    let plan = Plan {
        addr: proxy.addr.clone(),
        connections: args.connections as usize,
        read_only: read_only(args),
        writes_per_s: args.rate,
        reads_per_s: args.reads,
        series: series.clone(),
    };
    let origin = Instant::now();
    let load = Load::start(plan, origin).await?;
    let direct = DirectWriter::start(addrs, direct_series.clone(), args.direct_rate);
    Ok(Stage {
        load,
        direct,
        proxy,
        set,
        origin,
        series,
        direct_series,
    })
}

fn read_only(args: &DemoArgs) -> usize {
    (args.connections / 5) as usize
}

impl Stage {
    fn now_us(&self) -> u64 {
        self.origin.elapsed().as_micros() as u64
    }

    /// Orders one switchover to the next replica that is in sync, and waits for its end.
    async fn switchover(&mut self, number: u32) -> anyhow::Result<Ordered> {
        let addrs = self.set.addrs();
        let master = self
            .set
            .master()
            .await
            .context("there is no master, or more than one")?;
        let first = addrs.first().context("no node")?;
        // To and fro: away from the first node, and back to it.
        let to = if master == *first {
            addrs.get(1).unwrap_or(first)
        } else {
            first
        };
        let ready = self.set.wait_in_sync(&master, IN_SYNC_DEADLINE);
        self.watch(&format!("replicas of {master} catching up"), ready)
            .await?;
        let label = format!("switchover {number}: {master} -> {to}");
        let ordered_us = self.now_us();
        let order = self.proxy.admin.switchover(SHARD, to);
        let report = self.watch(&label, order).await.with_context(|| {
            format!(
                "{label} failed; the proxy's log ends:\n{}",
                self.proxy.log_tail()
            )
        })?;
        let ended_us = self.now_us();
        say(&format!(
            "{label}: {}, held for {:.2} ms",
            report.outcome, report.hold_ms
        ));
        let (slowest_write_ms, slowest_read_ms) = (0.0, 0.0);
        Ok(Ordered {
            report,
            ordered_us,
            ended_us,
            slowest_write_ms,
            slowest_read_ms,
        })
    }

    /// Shows the load's figures while `work` goes on.
    async fn watch<T>(&self, label: &str, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let mut lines = interval(LINE_EVERY);
        lines.set_missed_tick_behavior(MissedTickBehavior::Delay);
        lines.tick().await;
        let mut before = (Instant::now(), self.load.live().acked.load(Relaxed));
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = lines.tick() => before = self.show_line(label, before),
            }
        }
    }

    fn show_line(&self, label: &str, (then, acked_then): (Instant, u64)) -> (Instant, u64) {
        let live = self.load.live();
        let (now, acked) = (Instant::now(), live.acked.load(Relaxed));
        let rate = (acked - acked_then) as f64 / now.duration_since(then).as_secs_f64();
        let slowest_ms = live.slowest_us.swap(0, Relaxed) as f64 / 1000.0;
        live_line(&format!(
            "{:>5.1} s  {:>7} writes/s  slowest {slowest_ms:>6.2} ms  errors {}  \
             past the proxy {}  {label}",
            self.origin.elapsed().as_secs_f64(),
            grouped(rate.round() as u64),
            grouped(live.errors.load(Relaxed)),
            grouped(self.direct.acked()),
        ));
        (now, acked)
    }
}

fn summarise(
    args: &DemoArgs,
    record: &Record,
    direct: &direct_writer::Record,
    mut switchovers: Vec<Ordered>,
    without: Span,
    with: Span,
) -> Summary {
    let mut windows = Vec::new();
    for done in &mut switchovers {
        let window = Span {
            from_us: done.ordered_us,
            to_us: done.ended_us,
        };
        let slowest = |samples: &[Sample]| {
            latency(samples.iter().filter(|sample| window.touched(sample))).max_ms
        };
        done.slowest_write_ms = slowest(&record.writes);
        done.slowest_read_ms = slowest(&record.reads_alone);
        windows.push(window);
    }
    let compare = |samples: &[Sample]| Compared {
        without: latency(samples.iter().filter(|sample| without.began(sample))),
        with: latency(samples.iter().filter(|sample| with.began(sample))),
        inside: latency(
            samples
                .iter()
                .filter(|sample| windows.iter().any(|window| window.touched(sample))),
        ),
    };
    let late: Vec<Sample> = record
        .late_us
        .iter()
        .map(|&latency_us| Sample {
            due_us: 0,
            latency_us,
        })
        .collect();
    let late = latency(late.iter());
    Summary {
        server: String::new(),
        nodes: REPLICAS + 1,
        connections: args.connections as usize,
        connections_read_only: read_only(args),
        writes_per_s: args.rate,
        reads_per_s: args.reads,
        value_bytes: args.value_bytes as usize,
        writes_acked: record.acked.len() as u64,
        direct_writes_acked: direct.acked.len() as u64,
        direct_writes_refused: direct.refused,
        reads_answered: (record.reads_alone.len() + record.reads_mixed.len()) as u64,
        client_errors: record.errors,
        error_texts: record.error_texts.clone(),
        unanswered: record.unanswered,
        looked_for: 0,
        lost: 0,
        lost_examples: Vec::new(),
        switchovers_wanted: args.switchovers as usize,
        switchovers,
        writes: compare(&record.writes),
        reads_alone: compare(&record.reads_alone),
        reads_mixed: compare(&record.reads_mixed),
        generator_late_p99_ms: late.p99_ms,
        generator_late_max_ms: late.max_ms,
    }
}

/// Refuses a run that would not fit, instead of letting the kernel end something at random.
fn check_memory(args: &DemoArgs) -> anyhow::Result<()> {
    let seconds = args.seconds + 3 + u64::from(args.switchovers) * 2;
    // A key, its entry and the allocator take about 200 bytes beside the value.
    let per_write = u64::from(args.value_bytes) * 5 / 4 + 200;
    let needed = seconds * args.rate * per_write * (REPLICAS as u64 + 1);
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text.lines().find_map(|line| {
        let kib = line
            .strip_prefix("MemAvailable:")?
            .trim()
            .strip_suffix("kB")?;
        Some(kib.trim().parse::<u64>().ok()? * 1024)
    });
    if let Some(available) = available
        && needed > available
    {
        bail!(
            "the servers would need about {} MB and {} MB are free: lower --rate, --seconds, \
             --switchovers or --value-bytes",
            needed >> 20,
            available >> 20
        );
    }
    Ok(())
}

/// A line that stays.
fn say(text: &str) {
    let clear = if std::io::stderr().is_terminal() {
        "\r\x1b[K"
    } else {
        ""
    };
    let _ = writeln!(std::io::stderr(), "{clear}{text}");
}

/// A line that the next one replaces; only on a terminal.
fn live_line(text: &str) {
    if std::io::stderr().is_terminal() {
        let _ = write!(std::io::stderr(), "\r\x1b[K{text}");
    }
}
