//! Real Sentinels over a shard, and what they say.

use std::process::Command;
use std::sync::Arc;

use pointsman::cli::demo::port::Port;
use pointsman::cli::demo::workspace::Started;

use crate::support::*;

/// What they call the shard.
pub const NAME: &str = "mymaster";
/// After what silence they take a node for down, unless a test says otherwise.
pub const DOWN_AFTER_MS: &str = "500";
/// Of the three Sentinels, how many must agree.
pub const QUORUM: &str = "2";

/// Three Sentinels that know each other and the shard.
pub struct Watchers {
    pub addrs: Vec<String>,
    started: Vec<Started>,
    _ports: [Port; 3],
    _workspace: Arc<Workspace>,
}

impl Watchers {
    /// Returns when each of them has found the two others and all replicas.
    pub async fn over(shard: &Shard) -> Watchers {
        let workspace = Workspace::create("pointsman-test").expect("a temporary directory");
        let master = shard.addr(0);
        let (host, port) = master.rsplit_once(':').unwrap();
        let (mut addrs, mut started) = (Vec::new(), Vec::new());
        let ports = [(); 3].map(|()| Port::reserve().unwrap());
        for own in &ports {
            let config = workspace.dir().join(format!("sentinel-{own}.conf"));
            let text = format!(
                "port {own}\nbind 127.0.0.1\ndir {}\n\
                 sentinel monitor {NAME} {host} {port} {QUORUM}\n\
                 sentinel down-after-milliseconds {NAME} {DOWN_AFTER_MS}\n\
                 sentinel failover-timeout {NAME} 7000\n\
                 sentinel parallel-syncs {NAME} 3\n",
                workspace.dir().display()
            );
            std::fs::write(&config, text).unwrap();
            let mut command = Command::new("redis-sentinel");
            command.arg(&config);
            let name = format!("sentinel-{own}");
            let child = workspace.start(&name, &mut command);
            started.push(child.expect("run `make setup` first"));
            addrs.push(own.addr());
        }
        let watchers = Watchers {
            addrs,
            started,
            _ports: ports,
            _workspace: workspace,
        };
        for addr in &watchers.addrs {
            wait_until("the Sentinel listens", async || {
                Wire::connect(addr).await.is_ok()
            })
            .await;
        }
        watchers.agree(&master, shard.addrs().len() - 1).await;
        watchers
    }

    pub fn kill(&mut self, at: usize) {
        self.started[at].kill();
    }

    /// Falls silent with its connections open (`STOP`), or goes on (`CONT`).
    pub fn signal(&self, at: usize, signal: &str) {
        self.started[at].signal(signal).unwrap();
    }

    /// After what silence they take a node for down.
    pub async fn down_after(&self, ms: &str) {
        for at in 0..self.addrs.len() {
            let order = ["SENTINEL", "SET", NAME, "down-after-milliseconds", ms];
            let set = self.wire(at).await.call(&order).await.unwrap();
            assert!(set.ok(), "{set:?}");
        }
    }

    pub fn pid(&self, at: usize) -> u32 {
        self.started[at].pid()
    }

    pub async fn wire(&self, at: usize) -> Wire {
        let wire = Wire::connect(&self.addrs[at]).await;
        wire.expect("a connection to the Sentinel")
    }

    /// What one of them says of the master, by name of the field.
    pub async fn field(&self, at: usize, name: &str) -> String {
        let told = self
            .wire(at)
            .await
            .call(&["SENTINEL", "MASTER", NAME])
            .await;
        let told = told.unwrap();
        let at = told.items().iter().position(|item| item.text() == name);
        at.map(|at| told.items()[at + 1].text()).unwrap_or_default()
    }

    /// Whom they take for the master.
    pub async fn masters(&self) -> Vec<String> {
        let mut masters = Vec::new();
        for at in 0..self.addrs.len() {
            let mut wire = self.wire(at).await;
            let told = wire
                .call(&["SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME])
                .await;
            let told = told.unwrap();
            let words: Vec<String> = told.items().iter().map(Value::text).collect();
            masters.push(words.join(":"));
        }
        masters
    }

    /// All of them name `master`, find it well, and have found each other and `replicas`.
    pub async fn agree(&self, master: &str, replicas: usize) {
        wait_until("the Sentinels agree", async || {
            for at in 0..self.addrs.len() {
                let others = self.field(at, "num-other-sentinels").await;
                if others != (self.addrs.len() - 1).to_string()
                    || self.field(at, "num-slaves").await != replicas.to_string()
                    || self.field(at, "flags").await != "master"
                {
                    return false;
                }
            }
            self.masters().await.iter().all(|one| one == master)
        })
        .await;
    }

    pub fn lines(&self) -> String {
        format!("sentinels = {:?}\nsentinel_master = {NAME:?}", self.addrs)
    }

    /// The lines of the config that name all of them.
    pub fn settings(&self) -> Settings {
        Settings {
            // A vote that fails costs Sentinel seconds.
            proxy: "hold_budget_ms = 20000".to_owned(),
            shard: self.lines(),
            ..patient()
        }
    }
}
