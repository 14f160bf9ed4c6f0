//! The ways to the server that are compared, each a running program on a port the kernel chose.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use pointsman::cli::demo::port::Port;
use pointsman::cli::demo::proxy::{Proxy, Settings};
use pointsman::cli::demo::servers::Node;
use pointsman::cli::demo::wire::Wire;
use pointsman::cli::demo::workspace::{Started, Workspace};
use tokio::time::sleep;

use crate::machine::program;

const POINTSMAN: &str = env!("CARGO_BIN_EXE_pointsman");
const FLOOR: &str = "a bare server";
const READY_DEADLINE: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// One way to the server. The proxy on it is killed when this is dropped.
pub struct Path {
    pub name: &'static str,
    pub addr: String,
    by: By,
}

enum By {
    Nothing,
    Pointsman(Proxy),
    Other(Started),
}

impl Path {
    /// The proxy on the way, if there is one.
    pub fn pid(&self) -> Option<u32> {
        match &self.by {
            By::Nothing => None,
            By::Pointsman(proxy) => Some(proxy.pid()),
            By::Other(started) => Some(started.pid()),
        }
    }

    /// Whether it ends before the server does.
    pub fn is_floor(&self) -> bool {
        self.name == FLOOR
    }

    fn log_tail(&self) -> String {
        match &self.by {
            By::Nothing => String::new(),
            By::Pointsman(proxy) => proxy.log_tail(),
            By::Other(started) => started.log_tail(5),
        }
    }

    /// Returns when PING is answered through it.
    async fn answers(self) -> anyhow::Result<Path> {
        let deadline = Instant::now() + READY_DEADLINE;
        while Instant::now() < deadline {
            if let Ok(mut wire) = Wire::connect(&self.addr).await
                && let Ok(pong) = wire.run("PING").await
                && pong.text() == "PONG"
            {
                return Ok(self);
            }
            sleep(LOOK_EVERY).await;
        }
        bail!(
            "{} does not answer; its log ends:\n{}",
            self.name,
            self.log_tail()
        )
    }
}

/// Starts everything that is installed; says what is not. The first path is the direct one.
pub async fn start(workspace: &Arc<Workspace>, server: &Node) -> anyhow::Result<Vec<Path>> {
    let direct = Path {
        name: "direct",
        addr: server.addr.clone(),
        by: By::Nothing,
    };
    let mut paths = vec![
        direct,
        pointsman("pointsman", "", server).await?,
        pointsman("pointsman, 2 workers", "workers = 2", server).await?,
        floor(workspace).await?,
    ];
    match program("nutcracker") {
        Some(_) => paths.push(nutcracker(workspace, server).await?),
        None => eprintln!("nutcracker is not installed: left out (apt-get install nutcracker)"),
    }
    match program("haproxy") {
        Some(_) => paths.push(haproxy(workspace, server).await?),
        None => eprintln!("haproxy is not installed: left out (apt-get install haproxy)"),
    }
    Ok(paths)
}

async fn pointsman(name: &'static str, more: &str, server: &Node) -> anyhow::Result<Path> {
    // Its own directory: a journal belongs to one proxy.
    let workspace = Workspace::create("pointsman-bench")?;
    let settings = Settings {
        proxy: more.to_owned(),
        ..Settings::default()
    };
    let nodes = [server.addr.clone()];
    let proxy = Proxy::launch(POINTSMAN.as_ref(), &workspace, &nodes, &settings)?;
    let addr = proxy.addr.clone();
    Path {
        name,
        addr,
        by: By::Pointsman(proxy),
    }
    .answers()
    .await
}

async fn floor(workspace: &Arc<Workspace>) -> anyhow::Result<Path> {
    let port = Port::reserve()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--floor", &port.addr()]);
    other(FLOOR, port, workspace, &mut command).await
}

/// It has one thread, whatever the machine has.
async fn nutcracker(workspace: &Arc<Workspace>, server: &Node) -> anyhow::Result<Path> {
    let (port, stats_port) = (Port::reserve()?, Port::reserve()?);
    let addr = port.addr();
    let text = format!(
        "bench:\n  listen: {addr}\n  redis: true\n  preconnect: true\n  server_connections: 1\n  \
         servers:\n   - {}:1\n",
        server.addr
    );
    let file = workspace.dir().join("nutcracker.yml");
    std::fs::write(&file, text)?;
    let mut command = Command::new(program("nutcracker").context("nutcracker went away")?);
    command.arg("--conf-file").arg(file);
    command.args([
        "--stats-addr",
        "127.0.0.1",
        "--stats-port",
        &stats_port.to_string(),
    ]);
    other("nutcracker", port, workspace, &mut command).await
}

/// Copies bytes and knows nothing of Redis; one thread, as many proxies in front of one server run.
async fn haproxy(workspace: &Arc<Workspace>, server: &Node) -> anyhow::Result<Path> {
    let port = Port::reserve()?;
    let addr = port.addr();
    let text = format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         listen bench\n  bind {addr}\n  server redis {}\n",
        server.addr
    );
    let file = workspace.dir().join("haproxy.cfg");
    std::fs::write(&file, text)?;
    let mut command = Command::new(program("haproxy").context("haproxy went away")?);
    command.arg("-db").arg("-f").arg(file);
    other("haproxy", port, workspace, &mut command).await
}

async fn other(
    name: &'static str,
    port: Port,
    workspace: &Arc<Workspace>,
    command: &mut Command,
) -> anyhow::Result<Path> {
    let started = workspace.start(name, command);
    let started = started.with_context(|| format!("{name} cannot be started"))?;
    Path {
        name,
        addr: port.addr(),
        by: By::Other(started),
    }
    .answers()
    .await
}
