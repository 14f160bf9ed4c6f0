//! The proxy as a child: writes its configuration, starts `pointsman serve`, waits until it is
//! ready.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::time::sleep;

use super::admin::Admin;
use super::port::Port;
use super::workspace::{Started, Workspace};

const READY_DEADLINE: Duration = Duration::from_secs(15);
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOG_LINES: usize = 20;

/// The name of the one shard.
pub const SHARD: &str = "demo";

/// Lines of TOML that are added to the sections of the configuration.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub proxy: String,
    pub admin: String,
    pub switchover: String,
    pub commands: String,
    pub shard: String,
}

/// A running proxy. Killed when dropped.
pub struct Proxy {
    /// Where clients connect.
    pub addr: String,
    /// What it was started with.
    pub config: PathBuf,
    pub admin: Admin,
    started: Started,
    _ports: [Port; 2],
}

impl Proxy {
    /// Returns when the proxy has a master for its shard.
    pub async fn start(
        binary: &Path,
        workspace: &Arc<Workspace>,
        nodes: &[String],
        settings: &Settings,
    ) -> anyhow::Result<Proxy> {
        let mut proxy = Proxy::launch(binary, workspace, nodes, settings)?;
        proxy.wait_ready().await?;
        Ok(proxy)
    }

    /// Starts it and does not wait.
    pub fn launch(
        binary: &Path,
        workspace: &Arc<Workspace>,
        nodes: &[String],
        settings: &Settings,
    ) -> anyhow::Result<Proxy> {
        let (port, admin_port) = (Port::reserve()?, Port::reserve()?);
        let addr = port.addr();
        let admin = Admin {
            addr: admin_port.addr(),
            token: None,
        };
        let text = config_text(workspace.dir(), &addr, &admin.addr, nodes, settings);
        let config = workspace.dir().join(format!("pointsman-{port}.toml"));
        std::fs::write(&config, text)?;
        let mut command = Command::new(binary);
        command.arg("serve").arg("--config").arg(&config);
        let started = workspace
            .start(&format!("proxy-{port}"), &mut command)
            .with_context(|| format!("{} cannot be started", binary.display()))?;
        Ok(Proxy {
            addr,
            config,
            admin,
            started,
            _ports: [port, admin_port],
        })
    }

    pub async fn wait_ready(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY_DEADLINE;
        let mut last = String::from("no answer");
        while Instant::now() < deadline {
            if self.ended() {
                bail!("the proxy ended at once and said:\n{}", self.log_tail());
            }
            match self.admin.get("/readyz").await {
                Ok(answer) if answer.status == 200 => return Ok(()),
                Ok(answer) => last = format!("{}: {}", answer.status, answer.body),
                Err(error) => last = format!("{error:#}"),
            }
            sleep(LOOK_EVERY).await;
        }
        bail!(
            "not ready after {READY_DEADLINE:?} ({last}); its log ends:\n{}",
            self.log_tail()
        )
    }

    pub fn pid(&self) -> u32 {
        self.started.pid()
    }

    pub fn ended(&mut self) -> bool {
        self.started.ended().is_some()
    }

    pub fn signal(&self, signal: &str) -> std::io::Result<()> {
        self.started.signal(signal)
    }

    pub fn kill(&mut self) {
        self.started.kill();
    }

    pub fn log_tail(&self) -> String {
        self.started.log_tail(LOG_LINES)
    }
}

fn config_text(dir: &Path, addr: &str, admin: &str, nodes: &[String], more: &Settings) -> String {
    let nodes: Vec<String> = nodes.iter().map(|node| format!("{node:?}")).collect();
    format!(
        "[proxy]\nstate_dir = {:?}\n{}\n[admin]\nlisten = {admin:?}\n{}\n\n[switchover]\n{}\n\n[commands]\n{}\n\
         [[shard]]\nname = {SHARD:?}\nlisten = {addr:?}\nnodes = [{}]\n{}\n",
        dir.display().to_string(),
        more.proxy,
        more.admin,
        more.switchover,
        more.commands,
        nodes.join(", "),
        more.shard,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configuration_is_toml_with_the_added_lines_in_their_sections() {
        let more = Settings {
            proxy: "workers = 1".into(),
            admin: "allow_remote_without_token = false".into(),
            switchover: "max_lag = 7".into(),
            commands: "shutdown = \"pass\"".into(),
            shard: "password = \"p\"".into(),
        };
        let nodes = ["127.0.0.1:1".to_owned(), "127.0.0.1:2".to_owned()];
        let text = config_text(
            Path::new("/tmp/x"),
            "127.0.0.1:3",
            "127.0.0.1:4",
            &nodes,
            &more,
        );
        let table: toml::Table = text.parse().unwrap();
        assert_eq!(table["proxy"]["workers"].as_integer(), Some(1));
        assert_eq!(table["switchover"]["max_lag"].as_integer(), Some(7));
        assert_eq!(table["commands"]["shutdown"].as_str(), Some("pass"));
        let remote = &table["admin"]["allow_remote_without_token"];
        assert_eq!(remote.as_bool(), Some(false));
        assert_eq!(table["shard"][0]["password"].as_str(), Some("p"));
        assert_eq!(table["shard"][0]["nodes"].as_array().map(Vec::len), Some(2));
    }
}
