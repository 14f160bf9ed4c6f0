//! Starts servers on ports the kernel chose, the proxy in front of them as a child, and clients
//! that check what they are told. Everything ends with the test, by process id, however it ends.
//!
//! The tests know the proxy by its program, its configuration, its listeners and its admin API, and
//! by nothing else. Without redis-server they fail and say so; `make test` installs it.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code, unused_imports)]

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub use pointsman::cli::demo::admin::{Admin, Answer, OtherProxy, Report};
pub use pointsman::cli::demo::proxy::{Proxy, SHARD, Settings};
pub use pointsman::cli::demo::servers::{
    Engine, EngineChoice, Node, NodeSet, Role, field, find_master, follow, in_sync, role,
};
pub use pointsman::cli::demo::wire::{Ending, Value, Wire, WireError, put_request};
pub use pointsman::cli::demo::workspace::Workspace;

mod clients;
mod readers;

pub use clients::{Checked, Clients};
pub use readers::Readers;

/// Long enough for a busy machine, short enough to end a test run that hangs.
pub const SOON: Duration = Duration::from_secs(20);

/// A master and replicas in sync, and the directory they live in.
pub struct Shard {
    pub set: NodeSet,
    workspace: Arc<Workspace>,
}

impl Shard {
    pub async fn redis(replicas: usize) -> Shard {
        Shard::redis_with(replicas, &[]).await
    }

    /// `options` as on the command line of redis-server.
    pub async fn redis_with(replicas: usize, options: &[&str]) -> Shard {
        let engine = Engine::find(EngineChoice::Redis).expect("run `make setup` first");
        Shard::start(&engine, replicas, options).await
    }

    /// `None`, with a line that says so, where there is no Kvrocks.
    pub async fn kvrocks(replicas: usize) -> Option<Shard> {
        Shard::kvrocks_with(replicas, &[]).await
    }

    /// `options` as pairs of `--key` and value.
    pub async fn kvrocks_with(replicas: usize, options: &[&str]) -> Option<Shard> {
        match Engine::find(EngineChoice::Kvrocks) {
            Ok(engine) => Some(Shard::start(&engine, replicas, options).await),
            Err(error) => {
                say_skipped(&error.to_string());
                None
            }
        }
    }

    async fn start(engine: &Engine, replicas: usize, options: &[&str]) -> Shard {
        let workspace = Workspace::create("pointsman-test").expect("a temporary directory");
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let set = NodeSet::start(engine, &workspace, replicas, &options).await;
        Shard {
            set: set.expect("servers in sync"),
            workspace,
        }
    }

    /// Where the servers and the proxy leave their logs; gone with the shard.
    pub fn dir(&self) -> &Path {
        self.workspace.dir()
    }

    pub fn addrs(&self) -> Vec<String> {
        self.set.addrs()
    }

    pub fn addr(&self, node: usize) -> String {
        self.set.nodes[node].addr.clone()
    }

    pub async fn master(&self) -> Option<String> {
        self.set.master().await
    }

    pub async fn wire(&self, node: usize) -> Wire {
        self.set.nodes[node]
            .wire()
            .await
            .expect("a connection to the node")
    }

    /// The proxy in front of all nodes, ready.
    pub async fn proxy(&self) -> Proxy {
        self.proxy_with(Settings::default()).await
    }

    pub async fn proxy_with(&self, settings: Settings) -> Proxy {
        let binary = Path::new(env!("CARGO_BIN_EXE_pointsman"));
        let started = Proxy::start(binary, &self.workspace, &self.addrs(), &settings).await;
        started.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// Replicas follow `master` and have resumed.
    pub async fn in_sync(&self, master: &str) {
        let synced = self.set.wait_in_sync(master, SOON).await;
        synced.unwrap_or_else(|error| panic!("{error:#}"));
    }
}

/// Settings of the `[switchover]` section.
pub fn switchover_settings(lines: &str) -> Settings {
    Settings {
        switchover: lines.into(),
        ..Settings::default()
    }
}

/// Deadlines for a machine that runs many tests at once. What is tested is what happens, not how
/// quickly: with the shipped 100 ms a switchover is rightly undone when a server gets no time.
pub fn patient() -> Settings {
    let lines = ["sync", "drain", "follow", "pause"];
    switchover_settings(
        &lines
            .map(|name| format!("{name}_timeout_ms = 10000"))
            .join("\n"),
    )
}

/// Settings of the `[proxy]` section.
pub fn proxy_settings(lines: &str) -> Settings {
    Settings {
        proxy: lines.into(),
        ..Settings::default()
    }
}

/// A client of the proxy.
pub async fn client(proxy: &Proxy) -> Wire {
    Wire::connect(&proxy.addr)
        .await
        .expect("a connection to the proxy")
}

/// Orders a switchover and returns its report, however it ended.
pub async fn switchover(proxy: &Proxy, to: &str) -> Report {
    let report = proxy.admin.switchover(SHARD, to).await;
    report.unwrap_or_else(|error| panic!("{error:#}; the proxy's log ends:\n{}", proxy.log_tail()))
}

/// Orders a switchover and returns its id at once.
pub async fn begin_switchover(proxy: &Proxy, to: &str) -> String {
    let body = serde_json::json!({ "to": to }).to_string();
    let path = format!("/v1/shards/{SHARD}/switchover?wait=false");
    let answer = proxy.admin.post(&path, body).await.expect("an answer");
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.text("id")
}

pub async fn operation(proxy: &Proxy, id: &str) -> Answer {
    proxy
        .admin
        .get(&format!("/v1/operations/{id}"))
        .await
        .expect("an answer")
}

/// Waits for the end of an operation that was begun without waiting.
pub async fn ended(proxy: &Proxy, id: &str) -> Report {
    let mut report = None;
    wait_until("the operation ends", async || {
        let json = operation(proxy, id).await.json().unwrap_or_default();
        report = serde_json::from_value(json["report"].clone()).ok();
        json["state"] == "ended" && report.is_some()
    })
    .await;
    report.expect("a report")
}

/// Waits until an operation has come to `phase`.
pub async fn in_phase(proxy: &Proxy, id: &str, phase: &str) {
    wait_until(&format!("phase {phase}"), async || {
        let answer = operation(proxy, id).await;
        assert_ne!(
            answer.text("state"),
            "ended",
            "over before {phase}: {}",
            answer.body
        );
        answer.text("phase") == phase
    })
    .await;
}

/// Keeps writes on the first node without their replies for `ms`, as a pause that somebody else set
/// does. Returns when both the direct writer and a client of the proxy wait; needs [`Clients`].
pub async fn stick_writes(shard: &Shard, ms: u32) {
    let mut wire = shard.wire(0).await;
    assert!(
        wire.run(&format!("CLIENT PAUSE {ms} WRITE"))
            .await
            .unwrap()
            .ok()
    );
    wait_until("writes wait for the pause to end", async || {
        let info = wire.run("INFO clients").await.unwrap().text();
        field(&info, "blocked_clients").is_some_and(|count| !matches!(count, "0" | "1"))
    })
    .await;
}

/// The shard as the admin API shows it.
pub async fn status(proxy: &Proxy) -> serde_json::Value {
    let answer = proxy
        .admin
        .get(&format!("/v1/shards/{SHARD}"))
        .await
        .expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json().expect("JSON")
}

/// Looks until `condition` holds; fails with `what` when it does not within [`SOON`].
pub async fn wait_until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + SOON;
    while !condition().await {
        assert!(
            Instant::now() < deadline,
            "still waiting after {SOON:?}: {what}"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Says why a test does nothing. Written past the test runner, which keeps what passing tests
/// print.
pub fn say_skipped(why: &str) {
    use std::io::Write;
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {why}");
}
