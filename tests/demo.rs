//! The demo as a program: what it ends with, what it leaves behind (nothing).

mod support;

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use support::*;

/// A short demo whose temporary files lie in `temp`.
fn demo(temp: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pointsman"));
    command.args([
        "demo", "--engine", "redis", "--rate", "1000", "--reads", "500",
    ]);
    command
        .args(["--connections", "10", "--html"])
        .arg(temp.join("page.html"))
        .args(more);
    command.env("TMPDIR", temp).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Programs whose working directory is below `temp`.
fn programs_in(temp: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let cwd = std::fs::read_link(entry.path().join("cwd"));
        if cwd.is_ok_and(|cwd| cwd.starts_with(temp)) {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}

fn directories_in(temp: &Path) -> usize {
    std::fs::read_dir(temp)
        .unwrap()
        .flatten()
        .filter(|entry| entry.path().is_dir())
        .count()
}

#[tokio::test]
async fn a_demo_that_shows_no_loss_ends_with_0_and_leaves_only_its_page() {
    let temp = tempfile::tempdir().unwrap();
    let more = ["--seconds", "1", "--switchovers", "2", "--json"];
    let Output {
        status,
        stdout,
        stderr,
    } = demo(temp.path(), &more).output().unwrap();
    let said = String::from_utf8_lossy(&stderr);
    let json: serde_json::Value = serde_json::from_slice(&stdout).expect(&said);
    assert!(status.success(), "{said}\n{json:#}");
    for name in ["lost", "client_errors", "unanswered"] {
        assert_eq!(json[name], 0, "{name}");
    }
    let acked = json["writes_acked"].as_u64().unwrap();
    let direct = json["direct_writes_acked"].as_u64().unwrap();
    assert!(acked > 1000 && direct > 100, "{json:#}");
    assert_eq!(json["looked_for"].as_u64(), Some(acked + direct));
    assert_eq!(json["switchovers"].as_array().map(Vec::len), Some(2));
    let page = std::fs::read_to_string(temp.path().join("page.html")).unwrap();
    assert_eq!(page.matches("<svg").count(), 3);
    assert!(
        !page.contains("http://") && !page.contains("https://"),
        "the page needs the network"
    );
    assert_eq!(
        (programs_in(temp.path()), directories_in(temp.path())),
        (vec![], 0)
    );
}

/// Sends `signal` to a demo in full run and returns how it ended.
async fn interrupted(signal: &str) -> Option<i32> {
    let temp = tempfile::tempdir().unwrap();
    let mut child = KilledOnDrop(demo(temp.path(), &["--seconds", "60"]).spawn().unwrap());
    // Three servers, the proxy; the tether stays outside the directory.
    wait_until("servers and proxy run", async || {
        programs_in(temp.path()).len() >= 4
    })
    .await;
    let pid = child.0.id().to_string();
    assert!(
        Command::new("kill")
            .args([&format!("-{signal}"), &pid])
            .status()
            .unwrap()
            .success()
    );
    let mut code = None;
    wait_until("the demo ends", async || {
        match child.0.try_wait().unwrap() {
            Some(status) => {
                code = status.code();
                true
            }
            None => false,
        }
    })
    .await;
    wait_until("everything is gone", async || {
        programs_in(temp.path()).is_empty() && directories_in(temp.path()) == 0
    })
    .await;
    code
}

struct KilledOnDrop(Child);

impl Drop for KilledOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn ctrl_c_ends_everything() {
    assert_eq!(interrupted("INT").await, Some(130));
}

#[tokio::test]
async fn a_termination_ends_everything() {
    assert_eq!(interrupted("TERM").await, Some(143));
}

#[tokio::test]
async fn even_a_killed_demo_leaves_nothing_behind() {
    assert_eq!(interrupted("KILL").await, None);
}
