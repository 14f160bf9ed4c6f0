//! Starts a master and its replicas on this machine, and asks them who they are.
//!
//! Everything listens on 127.0.0.1 at reserved ports, keeps its files in the workspace and
//! ends with it. Redis keeps nothing on disk; Kvrocks stores into the workspace.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use clap::ValueEnum;
use tokio::time::sleep;

use super::port::Port;
use super::wire::{Value, Wire};
use super::workspace::{Started, Workspace};

/// How long a server may take until it answers, and a replica until it is in sync.
const START_DEADLINE: Duration = Duration::from_secs(20);
/// How long a node may take to say what it is.
const ROLE_DEADLINE: Duration = Duration::from_secs(2);
/// Between two looks at a server that is not there yet.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// Holds about 3 s of the demo's writes, so that a replica that changes its master resumes.
const BACKLOG_BYTES: &str = "67108864";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineChoice {
    /// Kvrocks when it is installed, otherwise Redis
    Auto,
    Redis,
    Kvrocks,
}

/// A server program found on this machine.
#[derive(Clone, Debug)]
pub struct Engine {
    pub kind: EngineKind,
    pub binary: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EngineKind {
    Redis,
    Kvrocks,
}

impl Engine {
    pub fn find(choice: EngineChoice) -> anyhow::Result<Engine> {
        if choice != EngineChoice::Redis
            && let Some(binary) = program("KVROCKS_BIN", "kvrocks")
        {
            return Ok(Engine {
                kind: EngineKind::Kvrocks,
                binary,
            });
        }
        if choice == EngineChoice::Kvrocks {
            bail!("no kvrocks found: put it on PATH or name the program in KVROCKS_BIN");
        }
        let binary = program("REDIS_SERVER_BIN", "redis-server")
            .context("no redis-server found: install it (apt-get install redis-server)")?;
        Ok(Engine {
            kind: EngineKind::Redis,
            binary,
        })
    }

    /// What the program says about its version, in its own words.
    pub fn version(&self) -> String {
        let output = Command::new(&self.binary).arg("--version").output();
        let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
        let text = text.unwrap_or_default();
        text.lines()
            .next()
            .unwrap_or("version unknown")
            .trim()
            .to_owned()
    }

    fn command(
        &self,
        port: u16,
        workspace: &Workspace,
        extra: &[String],
    ) -> anyhow::Result<Command> {
        let mut command = Command::new(&self.binary);
        match self.kind {
            EngineKind::Redis => {
                command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
                command.args(["--save", "", "--appendonly", "no", "--daemonize", "no"]);
                command.args(["--dir", &workspace.dir().display().to_string()]);
                command.args(["--repl-backlog-size", BACKLOG_BYTES]);
                command.args(["--repl-diskless-sync-delay", "0"]);
                command.args(extra);
            }
            EngineKind::Kvrocks => {
                let dir = workspace.dir().join(format!("kvrocks-{port}"));
                std::fs::create_dir_all(&dir)?;
                let mut text = format!(
                    "bind 127.0.0.1\nport {port}\nworkers 2\ndaemonize no\ndir {0}\nlog-dir {0}\n",
                    dir.display()
                );
                // `--key value` as for Redis, so that tests name options in one way.
                for pair in extra.chunks(2) {
                    text.push_str(pair.join(" ").trim_start_matches("--"));
                    text.push('\n');
                }
                let config = dir.join("kvrocks.conf");
                std::fs::write(&config, text)?;
                command.arg("-c").arg(config);
            }
        }
        Ok(command)
    }
}

fn program(variable: &str, name: &str) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(variable).filter(|value| !value.is_empty()) {
        return Some(PathBuf::from(named));
    }
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|dir| dir.join(name))
        .find(|file| file.is_file())
}

/// One server. Killed when dropped.
pub struct Node {
    pub addr: String,
    started: Started,
    _port: Port,
}

impl Node {
    /// Returns when the server answers PING; `extra` are options like `--requirepass`, `secret`.
    pub async fn start(
        engine: &Engine,
        workspace: &Arc<Workspace>,
        extra: &[String],
    ) -> anyhow::Result<Node> {
        let port = Port::reserve()?;
        let mut command = engine.command(port.number(), workspace, extra)?;
        let started = workspace
            .start(&format!("node-{port}"), &mut command)
            .with_context(|| format!("{} cannot be started", engine.binary.display()))?;
        let mut node = Node {
            addr: port.addr(),
            started,
            _port: port,
        };
        node.answers().await?;
        Ok(node)
    }

    async fn answers(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + START_DEADLINE;
        while Instant::now() < deadline {
            if self.started.ended().is_some() {
                let said = self.started.log_tail(5);
                bail!("the server ended at once and said: {said}");
            }
            if let Ok(mut wire) = Wire::connect(&self.addr).await
                && wire.call(&["PING"]).await.is_ok()
            {
                return Ok(());
            }
            sleep(LOOK_EVERY).await;
        }
        bail!("{} did not answer within {START_DEADLINE:?}", self.addr)
    }

    pub async fn wire(&self) -> anyhow::Result<Wire> {
        Wire::connect(&self.addr)
            .await
            .with_context(|| format!("node {}", self.addr))
    }

    /// One command on a connection of its own.
    pub async fn run(&self, line: &str) -> anyhow::Result<Value> {
        Ok(self.wire().await?.run(line).await?)
    }

    pub fn pid(&self) -> u32 {
        self.started.pid()
    }

    pub fn ended(&mut self) -> bool {
        self.started.ended().is_some()
    }

    /// Stops the program where it stands, as a machine that hangs would look from outside.
    pub fn freeze(&self) -> std::io::Result<()> {
        self.started.signal("STOP")
    }

    pub fn thaw(&self) -> std::io::Result<()> {
        self.started.signal("CONT")
    }

    pub fn kill(&mut self) {
        self.started.kill();
    }
}

/// What a node says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    Master,
    Replica { master: String, connected: bool },
}

pub async fn role(wire: &mut Wire) -> anyhow::Result<Role> {
    let answer = wire.call(&["ROLE"]).await?;
    let texts: Vec<String> = answer.items().iter().map(Value::text).collect();
    match texts
        .iter()
        .map(String::as_str)
        .collect::<Vec<_>>()
        .as_slice()
    {
        ["master", ..] => Ok(Role::Master),
        ["slave", host, port, state, ..] => Ok(Role::Replica {
            master: format!("{host}:{port}"),
            connected: *state == "connected",
        }),
        _ => bail!("ROLE answered {answer:?}"),
    }
}

/// The one node that says it is master within that time; `None` while there is none, or more than
/// one.
pub async fn find_master(nodes: &[String], within: Duration) -> Option<String> {
    let mut master = None;
    for node in nodes {
        let Ok(wire) = Wire::connect(node).await else {
            continue;
        };
        let mut wire = wire.with_deadline(within);
        if matches!(role(&mut wire).await, Ok(Role::Master)) && master.replace(node).is_some() {
            return None;
        }
    }
    master.cloned()
}

/// Whether every other node follows `master` and has received all that it sent.
pub async fn in_sync(nodes: &[String], master: &str) -> anyhow::Result<bool> {
    for node in nodes.iter().filter(|node| *node != master) {
        let mut wire = Wire::connect(node).await?;
        let expected = Role::Replica {
            master: master.to_owned(),
            connected: true,
        };
        if role(&mut wire).await? != expected {
            return Ok(false);
        }
        let info = wire.call(&["INFO", "replication"]).await?.text();
        if field(&info, "master_link_status") != Some("up") {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The value of `name:value` in an INFO text.
pub fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
        .map(str::trim)
}

/// A master and its replicas. The first node is master at the start.
pub struct NodeSet {
    pub engine: Engine,
    pub nodes: Vec<Node>,
}

impl NodeSet {
    /// Returns when every replica is in sync.
    pub async fn start(
        engine: &Engine,
        workspace: &Arc<Workspace>,
        replicas: usize,
        extra: &[String],
    ) -> anyhow::Result<NodeSet> {
        let mut nodes = Vec::new();
        for _ in 0..=replicas {
            nodes.push(Node::start(engine, workspace, extra).await?);
        }
        let set = NodeSet {
            engine: engine.clone(),
            nodes,
        };
        let addrs = set.addrs();
        let Some((master, others)) = addrs.split_first() else {
            bail!("no node")
        };
        for replica in others {
            follow(replica, master).await?;
        }
        set.wait_in_sync(master, START_DEADLINE).await?;
        Ok(set)
    }

    pub fn addrs(&self) -> Vec<String> {
        self.nodes.iter().map(|node| node.addr.clone()).collect()
    }

    pub async fn master(&self) -> Option<String> {
        find_master(&self.addrs(), ROLE_DEADLINE).await
    }

    pub async fn wait_in_sync(&self, master: &str, within: Duration) -> anyhow::Result<()> {
        let deadline = Instant::now() + within;
        while !in_sync(&self.addrs(), master).await.unwrap_or(false) {
            if Instant::now() > deadline {
                bail!("the replicas of {master} are not in sync after {within:?}");
            }
            sleep(LOOK_EVERY).await;
        }
        Ok(())
    }
}

/// Orders `replica` to follow `master`.
pub async fn follow(replica: &str, master: &str) -> anyhow::Result<()> {
    let (host, port) = master.rsplit_once(':').context("address without a port")?;
    let answer = Wire::connect(replica)
        .await?
        .call(&["SLAVEOF", host, port])
        .await?;
    if !answer.text().starts_with("OK") {
        bail!("{replica} does not follow {master}: {}", answer.text());
    }
    Ok(())
}

/// Changes roles with nothing but the servers' own commands: fence, wait, promote, demote.
///
/// What a person would type. It protects nobody; tests use it where there is no proxy, to see that
/// the clients here notice what a role change does to them.
pub async fn plain_role_change(nodes: &[String], from: &str, to: &str) -> anyhow::Result<()> {
    let mut old = Wire::connect(from).await?;
    let mut target = Wire::connect(to).await?;
    // Nothing listens at port 1; the old master refuses writes from here on.
    old.call(&["SLAVEOF", "127.0.0.1", "1"]).await?;
    let fenced = offset(&mut old).await?;
    let deadline = Instant::now() + START_DEADLINE;
    while offset(&mut target).await? != fenced {
        if Instant::now() > deadline {
            bail!("{to} did not reach offset {fenced} of {from}");
        }
        sleep(Duration::from_millis(1)).await;
    }
    target.call(&["SLAVEOF", "NO", "ONE"]).await?;
    for node in nodes.iter().filter(|node| *node != to) {
        follow(node, to).await?;
    }
    Ok(())
}

async fn offset(wire: &mut Wire) -> anyhow::Result<u64> {
    let info = wire.call(&["INFO", "replication"]).await?.text();
    let name = if field(&info, "role") == Some("slave") {
        "slave_repl_offset"
    } else {
        "master_repl_offset"
    };
    let text = field(&info, name).or_else(|| field(&info, "master_repl_offset"));
    text.and_then(|text| text.parse().ok())
        .context("INFO without an offset")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_info_field_is_found_by_its_whole_name() {
        let info = "# Replication\r\nrole:slave\r\nmaster_repl_offset:12\r\n";
        assert_eq!(field(info, "role"), Some("slave"));
        assert_eq!(field(info, "master_repl"), None);
        assert_eq!(field(info, "master_repl_offset"), Some("12"));
    }

    #[tokio::test]
    async fn a_role_change_moves_the_master_and_the_replicas_follow() {
        let engine = Engine::find(EngineChoice::Redis).unwrap();
        let workspace = Workspace::create("pointsman-test").unwrap();
        let set = NodeSet::start(&engine, &workspace, 2, &[]).await.unwrap();
        let addrs = set.addrs();
        assert_eq!(
            set.master().await.as_deref(),
            addrs.first().map(String::as_str)
        );
        plain_role_change(&addrs, &addrs[0], &addrs[1])
            .await
            .unwrap();
        assert_eq!(set.master().await, Some(addrs[1].clone()));
        set.wait_in_sync(&addrs[1], START_DEADLINE).await.unwrap();
    }
}
