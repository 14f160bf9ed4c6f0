//! Servers that can be killed and come back with their data, each known to the others by its own
//! address or by that of a relay in front of it.
//!
//! They write every command to their log before they answer. It is not brought to the disk: what
//! dies here is programs, not machines.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use pointsman::cli::demo::port::Port;
use pointsman::cli::demo::servers::EngineKind;
use pointsman::cli::demo::workspace::Started;
use tokio::time::sleep;

use crate::relay::Relay;
use crate::support::{Engine, Role, SOON, Wire, Workspace, field, role, wait_until};

const HOST: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// A node that hangs is not waited for.
const LOOK: Duration = Duration::from_secs(1);

pub struct Node {
    /// What the others and the proxy call it.
    pub name: String,
    /// Where it is reached past every relay.
    pub addr: String,
    pub relay: Option<Relay>,
    engine: Engine,
    workspace: Arc<Workspace>,
    config: PathBuf,
    started: Started,
    _port: Port,
}

impl Node {
    async fn start(engine: &Engine, workspace: &Arc<Workspace>, relayed: bool) -> Node {
        let port = Port::reserve_at(HOST).unwrap();
        let addr = port.addr();
        let dir = workspace.dir().join(format!("node-{port}"));
        std::fs::create_dir_all(&dir).unwrap();
        let own = match engine.kind {
            EngineKind::Redis => {
                "save \"\"\nappendonly yes\nappendfsync no\nrepl-diskless-sync-delay 0\n\
                 repl-backlog-size 64mb\nauto-aof-rewrite-percentage 0\n"
            }
            EngineKind::Kvrocks => "workers 2\nrocksdb.write_buffer_size 16\nlog-dir stdout\n",
        };
        let config = dir.join("node.conf");
        let text = format!("bind {HOST}\nport {port}\ndir {}\n{own}", dir.display());
        std::fs::write(&config, text).unwrap();
        let relay = match relayed {
            true => Some(Relay::start(&addr).await),
            false => None,
        };
        let name = relay.as_ref().map_or(&addr, |relay| &relay.name).clone();
        let started = launch(engine, workspace, &config);
        let node = Node {
            name,
            addr,
            relay,
            engine: engine.clone(),
            workspace: workspace.clone(),
            config,
            started,
            _port: port,
        };
        node.answers().await;
        node
    }

    async fn answers(&self) {
        wait_until("a server answers", async || {
            let Some(mut wire) = self.wire().await else {
                return false;
            };
            let pong = wire.call(&["GET", "probe"]).await;
            pong.is_ok_and(|pong| !pong.text().starts_with("LOADING"))
        })
        .await;
    }

    /// A connection past every relay, with a short deadline; `None` when it is dead.
    pub async fn wire(&self) -> Option<Wire> {
        Some(Wire::connect(&self.addr).await.ok()?.with_deadline(LOOK))
    }

    pub async fn run(&self, line: &str) -> Option<String> {
        let value = self.wire().await?.run(line).await.ok()?;
        Some(value.text())
    }

    pub async fn role(&self) -> Option<Role> {
        role(&mut self.wire().await?).await.ok()
    }

    pub async fn offset(&self) -> Option<u64> {
        let info = self.run("INFO replication").await?;
        let name = match field(&info, "role")? {
            "master" => "master_repl_offset",
            _ => "slave_repl_offset",
        };
        field(&info, name)?.parse().ok()
    }

    pub async fn follow(&self, master: &str) -> bool {
        let (host, port) = master.rsplit_once(':').unwrap();
        let answer = self.run(&format!("SLAVEOF {host} {port}")).await;
        answer.is_some_and(|answer| answer.starts_with("OK"))
    }

    /// The last that it wrote to its log.
    pub fn log_tail(&self) -> String {
        format!("{}:\n{}\n", self.name, self.started.log_tail(12))
    }

    pub fn freeze(&self) {
        self.started.signal("STOP").unwrap();
    }

    pub fn thaw(&self) {
        self.started.signal("CONT").unwrap();
    }

    pub fn has_ended(&mut self) -> bool {
        self.started.ended().is_some()
    }

    pub fn kill(&mut self) {
        self.started.kill();
    }

    /// Whether what it acknowledges is on its disk. Behind a full copy Redis writes its log anew,
    /// and a crash before the end of that loses what came meanwhile, with or without a proxy.
    pub async fn is_durable(&self) -> bool {
        if self.engine.kind == EngineKind::Kvrocks {
            return true;
        }
        let info = self.run("INFO persistence").await.unwrap_or_default();
        let idle = |name| field(&info, name) == Some("0");
        idle("aof_rewrite_in_progress") && idle("aof_rewrite_scheduled") && idle("loading")
    }

    pub async fn durable(&self) {
        wait_until("the log is written", async || self.is_durable().await).await;
    }

    /// Started again as it was told last, or with the role that its supervisor gives it.
    pub async fn restart(&mut self, gives: Option<NewRole<'_>>) {
        if let Some(given) = gives {
            let text = std::fs::read_to_string(&self.config).unwrap();
            let kept = text
                .lines()
                .filter(|line| !line.starts_with("replicaof") && !line.starts_with("slaveof"));
            let mut text: String = kept.map(|line| format!("{line}\n")).collect();
            if let NewRole::Replica(master) = given {
                text += &format!("slaveof {}\n", master.replace(':', " "));
            }
            std::fs::write(&self.config, text).unwrap();
        }
        self.started = launch(&self.engine, &self.workspace, &self.config);
        self.answers().await;
    }
}

#[derive(Clone, Copy, Debug)]
pub enum NewRole<'a> {
    Master,
    Replica(&'a str),
}

fn launch(engine: &Engine, workspace: &Arc<Workspace>, config: &std::path::Path) -> Started {
    let mut command = Command::new(&engine.binary);
    if engine.kind == EngineKind::Kvrocks {
        command.arg("-c");
    }
    command.arg(config);
    let name = config.parent().unwrap().file_name().unwrap();
    workspace
        .start(&name.to_string_lossy(), &mut command)
        .unwrap()
}

/// A master and its replicas.
pub struct Nodes {
    pub all: Vec<Node>,
}

impl Nodes {
    pub async fn start(
        engine: &Engine,
        workspace: &Arc<Workspace>,
        count: usize,
        relayed: bool,
    ) -> Nodes {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(Node::start(engine, workspace, relayed).await);
        }
        let nodes = Nodes { all };
        for replica in &nodes.all[1..] {
            assert!(replica.follow(&nodes.all[0].name).await);
        }
        wait_until("replicas are in sync", async || {
            nodes.followers_of(&nodes.all[0].name).await.is_empty()
        })
        .await;
        nodes
    }

    pub fn names(&self) -> Vec<String> {
        self.all.iter().map(|node| node.name.clone()).collect()
    }

    pub fn at(&self, name: &str) -> usize {
        let found = self.all.iter().position(|node| node.name == name);
        found.unwrap_or_else(|| panic!("no node {name}"))
    }

    /// The only node that says that it is master.
    pub async fn master(&self) -> Option<&Node> {
        let mut found = None;
        for node in &self.all {
            if node.role().await == Some(Role::Master) && found.replace(node).is_some() {
                return None;
            }
        }
        found
    }

    /// Those that do not follow `master` and have not received all of it, with what they say.
    pub async fn followers_of(&self, master: &str) -> Vec<String> {
        let mut astray = Vec::new();
        let expected = Role::Replica {
            master: master.to_owned(),
            connected: true,
        };
        let end = self.all[self.at(master)].offset().await;
        for node in self.all.iter().filter(|node| node.name != master) {
            let role = node.role().await;
            let offset = node.offset().await;
            if role.as_ref() != Some(&expected) || offset < end {
                let name = &node.name;
                astray.push(format!("{name}: {role:?} at {offset:?}, master at {end:?}"));
            }
        }
        astray
    }

    /// The value of every key on every node, by what `ask` says.
    pub async fn wires(&self) -> Vec<Wire> {
        let mut wires = Vec::new();
        for node in &self.all {
            wires.push(node.wire().await.expect("a node").with_deadline(SOON));
        }
        wires
    }
}

/// Waits a moment between two looks.
pub async fn pause() {
    sleep(Duration::from_millis(10)).await;
}
