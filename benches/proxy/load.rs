//! The workloads, and one run of one of them: by `redis-benchmark`, or by what it cannot do.

use std::fmt::{self, Display, Formatter};
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use pointsman::cli::demo::marked::Series;
use pointsman::cli::demo::wire::Wire;
use tokio::process::Command;
use tokio::time::{interval, timeout};

use crate::paths::Path;
use crate::usage::{cpu_ns, rss_mb};
use crate::{mixed, paced};

/// Nothing that works takes this long; a path that hangs must not hang the benchmark.
const RUN_DEADLINE: Duration = Duration::from_secs(60);
const LOOK_AT_MEMORY_EVERY: Duration = Duration::from_millis(50);
const KEYS: u32 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    Set,
    Get,
}

/// Who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// `redis-benchmark`: as fast as replies come.
    Benchmark,
    /// As fast as replies come, too: reads, writes and transactions, while others wait.
    Mixed,
    /// Writes at a fixed rate, below what the server can take.
    Paced,
}

#[derive(Clone, Copy, Debug)]
pub struct Workload {
    pub verb: Verb,
    pub sender: Sender,
    connections: u32,
    pipeline: u32,
    value_bytes: usize,
    keys: u32,
    /// Requests of a run, in thousandths of `--requests`, so that all runs take about as long.
    share: u64,
}

const fn small(verb: Verb, connections: u32) -> Workload {
    Workload {
        verb,
        sender: Sender::Benchmark,
        connections,
        pipeline: 1,
        value_bytes: 64,
        keys: KEYS,
        share: 1000,
    }
}

/// In the order of the table.
pub const WORKLOADS: [Workload; 15] = [
    small(Verb::Set, 50),
    small(Verb::Get, 50),
    Workload {
        pipeline: 16,
        share: 8000,
        ..small(Verb::Set, 50)
    },
    Workload {
        pipeline: 16,
        share: 8000,
        ..small(Verb::Get, 50)
    },
    small(Verb::Set, 200),
    small(Verb::Get, 200),
    small(Verb::Set, 500),
    small(Verb::Get, 500),
    Workload {
        value_bytes: 2048,
        ..small(Verb::Set, 50)
    },
    Workload {
        value_bytes: 2048,
        ..small(Verb::Get, 50)
    },
    Workload {
        share: 400,
        ..small(Verb::Set, 1)
    },
    Workload {
        share: 400,
        ..small(Verb::Get, 1)
    },
    Workload {
        value_bytes: 1 << 20,
        keys: 1,
        share: 15,
        ..small(Verb::Get, 4)
    },
    Workload {
        sender: Sender::Mixed,
        ..small(Verb::Get, 50)
    },
    Workload {
        sender: Sender::Paced,
        ..small(Verb::Set, 50)
    },
];

impl Display for Workload {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.sender {
            Sender::Benchmark => {}
            Sender::Mixed => return write!(f, "{}", mixed::NAME),
            Sender::Paced => return write!(f, "{}", paced::NAME),
        }
        let verb = self.verb.upper();
        match self.value_bytes {
            bytes if bytes >= 1 << 20 => write!(f, "{verb} {} MB", bytes >> 20)?,
            bytes if bytes >= 1 << 10 => write!(f, "{verb} {} KB", bytes >> 10)?,
            bytes => write!(f, "{verb} {bytes} B")?,
        }
        match self.connections {
            1 => write!(f, ", 1 connection")?,
            more => write!(f, ", {more} connections")?,
        }
        match self.pipeline {
            1 => Ok(()),
            deep => write!(f, ", pipeline of {deep}"),
        }
    }
}

impl Verb {
    fn upper(self) -> &'static str {
        match self {
            Verb::Set => "SET",
            Verb::Get => "GET",
        }
    }
}

/// What one run showed.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    pub requests_per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub proxy_us: Option<f64>,
    pub server_us: Option<f64>,
    pub proxy_rss_mb: Option<f64>,
}

impl Workload {
    pub fn value_bytes(&self) -> usize {
        self.value_bytes
    }

    pub fn connections(&self) -> usize {
        self.connections as usize
    }

    /// Whether its direct run shows what the server takes at most of small unpipelined writes.
    pub fn is_peak(&self) -> bool {
        let [small, ..] = WORKLOADS;
        self.to_string() == small.to_string()
    }

    /// Whether OK answers all of it.
    pub fn is_plain_write(&self) -> bool {
        self.sender == Sender::Benchmark && self.verb == Verb::Set
    }

    fn requests(&self, of: u64) -> u64 {
        (of * self.share / 1000).max(u64::from(self.connections * self.pipeline))
    }

    /// Makes every key that is going to be read exist, with a value of the right size.
    pub async fn fill(&self, server: &str) -> anyhow::Result<()> {
        if self.verb == Verb::Set {
            return Ok(());
        }
        let mut wire = Wire::connect(server).await?;
        let value = Series::new("bench", self.value_bytes).value(0);
        for key in 0..self.keys {
            let key = format!("key:{key:012}");
            let set: [&[u8]; 3] = [b"SET", key.as_bytes(), &value];
            // The replies are few bytes and wait in buffers; a round trip for each key would take
            // longer than a run.
            wire.send(&set).await?;
        }
        for _ in 0..self.keys {
            let reply = wire.reply().await?;
            if !reply.ok() {
                bail!("the server did not take a key: {}", reply.text());
            }
        }
        Ok(())
    }

    /// One run over `path`; the values per request are of this run alone. `peak`: what the server
    /// can take of small writes, in requests per second.
    pub async fn run(
        &self,
        path: &Path,
        server_pid: u32,
        of: u64,
        peak: f64,
    ) -> anyhow::Result<Measured> {
        let requests = self.requests(of);
        let proxy_before = path.pid().and_then(cpu_ns);
        let server_before = cpu_ns(server_pid);
        let run = async {
            match self.sender {
                Sender::Benchmark => self.by_benchmark(path, requests).await,
                Sender::Mixed => mixed::run(&path.addr, self.connections(), requests).await,
                Sender::Paced => paced::run(&path.addr, self, peak).await,
            }
        };
        let (seen, proxy_rss_mb) = timeout(RUN_DEADLINE, watched(path, run))
            .await
            .with_context(|| format!("not over after {RUN_DEADLINE:?}"))?;
        let seen = seen?;
        let per_request = |before: Option<u64>, after: Option<u64>| {
            Some((after? - before?) as f64 / 1000.0 / seen.requests as f64)
        };
        Ok(Measured {
            requests_per_s: seen.requests_per_s,
            p50_ms: seen.p50_ms,
            p99_ms: seen.p99_ms,
            proxy_us: per_request(proxy_before, path.pid().and_then(cpu_ns)),
            server_us: per_request(server_before, cpu_ns(server_pid)),
            proxy_rss_mb,
        })
    }

    async fn by_benchmark(&self, path: &Path, requests: u64) -> anyhow::Result<Seen> {
        let output = self.benchmark(path, requests).await?;
        let text = String::from_utf8_lossy(&output.stdout);
        let line = text
            .lines()
            .find(|line| line.starts_with(&format!("\"{}\"", self.verb.upper())));
        let Some(line) = line.filter(|_| output.status.success()) else {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("redis-benchmark failed: {} {}", text.trim(), said.trim());
        };
        // "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95","p99","max"
        let figure = |at: usize| {
            let field = line.split(',').nth(at).unwrap_or_default();
            let number = field.trim_matches('"').parse::<f64>();
            number.with_context(|| format!("redis-benchmark said {line}"))
        };
        Ok(Seen {
            requests,
            requests_per_s: figure(1)?,
            p50_ms: figure(4)?,
            p99_ms: figure(6)?,
        })
    }

    async fn benchmark(&self, path: &Path, requests: u64) -> anyhow::Result<Output> {
        let port = path.addr.rsplit_once(':').map_or("", |(_, port)| port);
        let mut command = Command::new("redis-benchmark");
        command.args(["-h", "127.0.0.1", "-p", port, "--csv"]);
        command.args(["-t", &self.verb.upper().to_lowercase()]);
        command.args([
            "-n",
            &requests.to_string(),
            "-c",
            &self.connections.to_string(),
        ]);
        command.args([
            "-P",
            &self.pipeline.to_string(),
            "-d",
            &self.value_bytes.to_string(),
        ]);
        command.args(["-r", &self.keys.to_string()]);
        command.stdin(Stdio::null()).kill_on_drop(true);
        let output = command.output().await;
        output.context("redis-benchmark cannot be started")
    }
}

/// What the sender saw.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    pub requests: u64,
    pub requests_per_s: f64,
    pub p50_ms: f64,
    pub p99_ms: f64,
}

/// Watches the proxy's memory while `run` goes on; gives the most that was seen.
async fn watched<T>(path: &Path, run: impl Future<Output = T>) -> (T, Option<f64>) {
    tokio::pin!(run);
    let mut looks = interval(LOOK_AT_MEMORY_EVERY);
    let mut peak = None;
    loop {
        tokio::select! {
            done = &mut run => return (done, peak),
            _ = looks.tick() => {
                let now = path.pid().and_then(rss_mb);
                // No figure is less than any figure.
                if now > peak {
                    peak = now;
                }
            }
        }
    }
}
