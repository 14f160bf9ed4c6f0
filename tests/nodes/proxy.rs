//! A proxy without clients: the whole control path, with a gate and a route that only remember.

#![allow(dead_code)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use pointsman::config::{Config, SwitchoverConfig};
use pointsman::shard::doubt::doubt;
use pointsman::switchover::control::{ShardSeat, Shards};
use pointsman::switchover::exec::{Gates, HoldStats, Opening, Routes, Site};
use pointsman::switchover::journal::{Begin, Journal};
use pointsman::switchover::plan::{Dialect, Facts, Terms};
use pointsman::switchover::report::Report;
use pointsman::switchover::view::Control;
use pointsman::topology::engine::Engine;

use super::servers::{self, Server, until};

/// A gate that drains at once, or never.
#[derive(Clone, Default)]
pub struct Gate {
    pub log: Arc<Mutex<Vec<&'static str>>>,
    pub stuck: bool,
    pub unprepared: bool,
    /// Sent to this process when the hold has drained: the server falls silent at the worst time.
    pub stops: Option<u32>,
}

impl Gate {
    fn note(&self, what: &'static str) {
        self.log.lock().unwrap().push(what);
    }
}

impl Gates for Gate {
    async fn hold(&self, _: Duration) -> Result<(), String> {
        self.note("hold");
        if self.stuck {
            std::future::pending::<()>().await;
        }
        if let Some(pid) = self.stops {
            servers::signal(pid, "-STOP");
        }
        Ok(())
    }

    async fn release(&self, to: Opening) -> HoldStats {
        self.note(if to == Opening::Open { "open" } else { "shut" });
        HoldStats {
            writes_held: 3,
            longest_hold: Duration::from_millis(1),
            released_at: None,
        }
    }

    async fn prepare(&self, _: &str, _: Duration) -> Result<(), String> {
        if self.unprepared {
            Err("no lane".to_owned())
        } else {
            Ok(())
        }
    }
}

#[derive(Clone, Default)]
pub struct Route(pub Arc<Mutex<(u64, Option<String>)>>);

impl Routes for Route {
    fn suit(&self, _: Engine) {}

    fn publish(&self, master: Option<&str>, _: &[String]) -> u64 {
        let mut route = self.0.lock().unwrap();
        *route = (route.0 + 1, master.map(str::to_owned));
        route.0
    }

    fn current(&self) -> (u64, Option<String>) {
        self.0.lock().unwrap().clone()
    }
}

pub struct Proxy {
    pub shards: Shards<Gate, Route>,
    pub gate: Gate,
    pub route: Route,
    pub state_dir: tempfile::TempDir,
}

impl Proxy {
    pub fn start(
        servers: &[Server],
        gate: Gate,
        tune: impl FnOnce(&mut SwitchoverConfig),
    ) -> Proxy {
        Proxy::start_in(tempfile::tempdir().unwrap(), servers, gate, tune)
    }

    pub fn start_in(
        state_dir: tempfile::TempDir,
        servers: &[Server],
        gate: Gate,
        tune: impl FnOnce(&mut SwitchoverConfig),
    ) -> Proxy {
        let nodes: Vec<&str> = servers.iter().map(|one| one.name.as_ref()).collect();
        Proxy::before(&nodes, state_dir, gate, tune)
    }

    /// In front of nodes by name.
    pub fn before(
        nodes: &[&str],
        state_dir: tempfile::TempDir,
        gate: Gate,
        tune: impl FnOnce(&mut SwitchoverConfig),
    ) -> Proxy {
        Proxy::with(nodes, "", state_dir, gate, tune)
    }

    /// With more lines for the shard.
    pub fn with(
        nodes: &[&str],
        lines: &str,
        state_dir: tempfile::TempDir,
        gate: Gate,
        tune: impl FnOnce(&mut SwitchoverConfig),
    ) -> Proxy {
        let nodes: Vec<String> = nodes.iter().map(|one| format!("\"{one}\"")).collect();
        let nodes = nodes.join(", ");
        let text = format!(
            "[admin]\nlisten = \"127.0.0.1:7000\"\n[[shard]]\nname = \"a\"\n\
             listen = \"127.0.0.1:7001\"\nnodes = [{nodes}]\n{lines}"
        );
        let mut config = Config::parse(&text, "config.toml").unwrap();
        // Machines that run tests are busy; a hold there may take long.
        config.switchover.pause_timeout = Duration::from_secs(10);
        config.switchover.sync_timeout = Duration::from_secs(5);
        tune(&mut config.switchover);
        let journal = Journal::open(state_dir.path(), "a").unwrap();
        let route = Route::default();
        let (own_gate, own_route) = (gate.clone(), route.clone());
        let shard = &config.shards[0];
        let site = Site::new(
            shard,
            &config.proxy,
            &config.switchover,
            journal,
            own_gate,
            own_route,
            doubt().1,
        );
        let seat = ShardSeat {
            site: Arc::new(site),
            listen: shard.listen.clone(),
            sessions: Arc::new(|| 0),
        };
        Proxy {
            shards: Shards::start(vec![seat]),
            gate,
            route,
            state_dir,
        }
    }

    pub async fn ready(self) -> Proxy {
        until("a route", async || self.route.current().1.is_some()).await;
        self
    }

    pub async fn switchover(&self, to: &Server) -> Report {
        self.order(to, false).await
    }

    pub async fn order(&self, to: &Server, dry_run: bool) -> Report {
        self.order_to(&to.name, dry_run).await
    }

    pub async fn order_to(&self, to: &str, dry_run: bool) -> Report {
        let (shard, to) = ("a".to_owned(), to.to_owned());
        let id = self.shards.switchover(shard, to, dry_run).await.unwrap();
        let report = self.shards.wait(id).await.unwrap();
        until("the shard to be free", async || {
            self.shards.status("a").unwrap().operation.is_none()
        })
        .await;
        report
    }

    pub fn log(&self) -> Vec<&'static str> {
        self.gate.log.lock().unwrap().clone()
    }
}

pub fn master(proxy: &Proxy) -> String {
    proxy.route.current().1.unwrap_or_default()
}

/// The operation that [`begun`] is about.
pub const CUT_OFF: &str = "20261122T000000Z-0001";

/// Starts a proxy that finds `begin` in its journal and no end to it.
pub fn after_crash(servers: &[Server], begin: &Begin) -> Proxy {
    let state_dir = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(state_dir.path(), "a").unwrap();
    journal.begin(begin).unwrap();
    drop(journal);
    Proxy::start_in(state_dir, servers, Gate::default(), |_| {})
}

/// What came of the operation that was cut off.
pub async fn recovered(proxy: &Proxy) -> Report {
    proxy.shards.wait(CUT_OFF.to_owned()).await.unwrap()
}

/// What the journal of a proxy that died has: an operation from the first server to the second.
pub fn begun(servers: &[Server]) -> Begin {
    Begin {
        operation: CUT_OFF.to_owned(),
        shard: "a".to_owned(),
        from: servers[0].name.to_string(),
        to: servers[1].name.to_string(),
        others: servers[2..]
            .iter()
            .map(|one| one.name.to_string())
            .collect(),
        engine: "redis".to_owned(),
        role_command: "REPLICAOF".to_owned(),
        sink_host: "127.0.0.1".to_owned(),
        sink_port: 1,
        replica_read_only: "yes".to_owned(),
        facts: Facts {
            dialect: Dialect::Redis,
            knows_pause: true,
            lag: 0,
            lag_small: 1,
            old_is_down: false,
        },
        terms: Terms::default(),
        started_at_ms: 0,
        old_life: None,
        target_offset: 0,
        sentinel_terms: Vec::new(),
    }
}
