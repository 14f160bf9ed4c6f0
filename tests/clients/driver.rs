//! Starts a program that uses some client library through the proxy, switches the master over again
//! and again while it works, and asks it at the end what it saw.
//!
//! A program is called with arguments of its own, host, port and the engine's name, and then talks
//! by lines:
//!
//! | it reads | it writes |
//! |---|---|
//! | | `ready`, once all its connections are open and each of its activities has done something |
//! | `mark` | `marked`, once each activity has gone on for some steps since it read this |
//! | `stop` | a JSON object: `done` (activity to count), `errors` and `wrong` (lists of texts) |
//!
//! `errors` is what the library reported; `wrong` is what the program found by checking: a lost
//! write, a gap between messages, a counter that is not exact. It ends when its input does.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::support::*;

const SWITCHOVERS: usize = 10;
/// A worker of a job queue may take seconds to come up on a busy machine.
const ANSWER_DEADLINE: Duration = Duration::from_secs(90);
const LOG_BYTES: usize = 6000;

/// What becomes of the connections that are open when the switchovers begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Connections {
    /// They stay, and no other is opened.
    Stay,
    /// The program opens and closes some as it works.
    ComeAndGo,
}

/// How a client program is started, and where its text is.
pub struct Program {
    command: Command,
    connections: Connections,
    not_on_kvrocks: Option<&'static str>,
}

impl Program {
    pub fn new(command: Command) -> Program {
        Program {
            command,
            connections: Connections::Stay,
            not_on_kvrocks: None,
        }
    }

    pub fn connections_come_and_go(self) -> Program {
        Program {
            connections: Connections::ComeAndGo,
            ..self
        }
    }

    pub fn not_on_kvrocks(self, why: &'static str) -> Program {
        Program {
            not_on_kvrocks: Some(why),
            ..self
        }
    }
}

/// What `make test-clients` has set up, beside what cargo builds.
pub fn installed(path: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .parent()
        .expect("a target directory");
    target.join("clients").join(path)
}

pub fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/clients")
        .join(path)
}

/// True when the program can be started. `make test-clients` and `make test` install everything and
/// set a variable that turns a skipped test into a failed one.
pub fn available(needs: &[&Path]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |need: &&Path| {
        need.exists() || std::env::split_paths(&path).any(|directory| directory.join(need).exists())
    };
    let Some(missing) = needs.iter().find(|need| !found(need)) else {
        return true;
    };
    let why = format!(
        "{} is missing; `make test-clients` installs it",
        missing.display()
    );
    assert!(
        std::env::var_os("POINTSMAN_CLIENTS").is_none_or(|value| value != "required"),
        "{why}"
    );
    say_skipped(&why);
    false
}

#[derive(Debug, Deserialize)]
struct Summary {
    done: BTreeMap<String, u64>,
    errors: Vec<String>,
    wrong: Vec<String>,
}

struct Running {
    child: Child,
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
    log: PathBuf,
}

impl Running {
    fn start(mut command: Command, shard: &Shard, proxy: &Proxy, engine: &str) -> Running {
        let (host, port) = proxy.addr.split_once(':').expect("host:port");
        let log = shard.dir().join("client.log");
        let file = std::fs::File::create(&log).expect("a log file");
        let mut child = command
            .args([host, port, engine])
            .current_dir(shard.dir())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .process_group(0)
            .spawn()
            .expect("the client program starts");
        let input = child.stdin.take().expect("a pipe");
        let output = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        Running {
            child,
            input,
            output,
            log,
        }
    }

    async fn hears(&mut self) -> String {
        match timeout(ANSWER_DEADLINE, self.output.next_line()).await {
            Ok(Ok(Some(line))) => line,
            Ok(other) => panic!("the client program ended: {other:?}; {}", self.said()),
            Err(_) => panic!("no word from the client program; {}", self.said()),
        }
    }

    async fn expect(&mut self, word: &str) {
        let line = self.hears().await;
        assert_eq!(line, word, "{}", self.said());
    }

    async fn tell(&mut self, word: &str) {
        let line = format!("{word}\n");
        let told = self.input.write_all(line.as_bytes()).await;
        assert!(told.is_ok(), "the client program is gone; {}", self.said());
    }

    fn said(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let from = text.len().saturating_sub(LOG_BYTES);
        format!("its log ends:\n{}", String::from_utf8_lossy(&text[from..]))
    }
}

impl Drop for Running {
    /// Ends the program with whatever it started.
    fn drop(&mut self) {
        if let Some(pid) = self.child.id() {
            let group = format!("-{pid}");
            let _ = std::process::Command::new("kill")
                .args(["-KILL", "--", &group])
                .status();
        }
    }
}

pub async fn check_on_redis(program: Option<Program>) {
    if let Some(program) = program {
        check(program, &Shard::redis(1).await, "redis").await;
    }
}

pub async fn check_on_kvrocks(program: Option<Program>) {
    let Some(program) = program else { return };
    if let Some(why) = program.not_on_kvrocks {
        return say_skipped(why);
    }
    // Off unless asked for; libraries that want RESP3 do not take less.
    if let Some(shard) = Shard::kvrocks_with(1, &["--resp3-enabled", "yes"]).await {
        check(program, &shard, "kvrocks").await;
    }
}

/// Ten switchovers under the program's load: it sees no error, loses nothing and keeps its
/// connections, and each of its activities goes on after each of them.
async fn check(program: Program, shard: &Shard, engine: &str) {
    let proxy = shard.proxy().await;
    let mut running = Running::start(program.command, shard, &proxy, engine);
    running.expect("ready").await;
    let before = sessions(&proxy).await;
    for round in 0..SWITCHOVERS {
        let report = switched(&proxy, &shard.addr((round + 1) % 2)).await;
        assert_eq!(report.outcome, "switched", "{report:?}; {}", running.said());
        assert_eq!(report.writes_not_carried, 0, "{report:?}");
        running.tell("mark").await;
        running.expect("marked").await;
        shard.in_sync(&report.to).await;
    }
    let after = sessions(&proxy).await;
    running.tell("stop").await;
    let line = running.hears().await;
    let summary: Summary = serde_json::from_str(&line)
        .unwrap_or_else(|error| panic!("{error}: {line}; {}", running.said()));
    eprintln!("{summary:?}\n{}", proxy.log_tail());
    assert!(
        summary.errors.is_empty(),
        "{:?}; {}",
        summary.errors,
        running.said()
    );
    assert!(
        summary.wrong.is_empty(),
        "{:?}; {}",
        summary.wrong,
        running.said()
    );
    for (activity, count) in &summary.done {
        assert!(*count >= SWITCHOVERS as u64, "{activity} only did {count}");
    }
    assert!(!summary.done.is_empty());
    if program.connections == Connections::Stay {
        assert_eq!(before, after, "connections came or went");
    }
    closed_only_by_clients(&proxy).await;
}

/// Orders a switchover until one is made. With the proxy's own limits one may be refused or undone
/// while a busy replica is too far behind; clients must not notice that either.
async fn switched(proxy: &Proxy, to: &str) -> Report {
    let mut report = Report::default();
    wait_until("a switchover is made", async || {
        report = switchover(proxy, to).await;
        !["refused", "rolled_back"].contains(&report.outcome.as_str())
    })
    .await;
    report
}

/// The ids of all sessions but the one that asks. An id is never given twice: the same ids before
/// and after mean that nobody left, was cut off or came again.
async fn sessions(proxy: &Proxy) -> BTreeSet<u64> {
    let mut wire = client(proxy).await;
    let own = wire.run("CLIENT ID").await.expect("an id").text();
    let list = wire.run("CLIENT LIST").await.expect("a list").text();
    let ids = list.lines().filter_map(|line| {
        let id = line
            .split(' ')
            .find_map(|field| field.strip_prefix("id="))?;
        (id != own).then(|| id.parse().expect("a number"))
    });
    ids.collect()
}

/// Sessions that ended did so because their client wanted it.
async fn closed_only_by_clients(proxy: &Proxy) {
    let page = proxy.admin.get("/metrics").await.expect("metrics").body;
    for line in page.lines() {
        if let Some(labels) = line.strip_prefix("pointsman_sessions_closed_total") {
            let by_client = ["client_gone", "quit"]
                .iter()
                .any(|reason| labels.contains(reason));
            assert!(by_client, "{line}");
        }
    }
}
