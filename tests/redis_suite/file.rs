//! Runs one file of the suite against one server.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::passed::Passed;
use crate::support::*;

/// The longest file takes 30 s alone on a busy machine.
const FILE_DEADLINE: Duration = Duration::from_secs(240);
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A machine that stood still between two looks is not the file's fault.
const LOOK_COUNTS_MAX: Duration = Duration::from_millis(200);

/// What the suite's own servers are started with (tests/assets/default.conf).
pub const SERVER_OPTIONS: &[&str] = &[
    "--save",
    "900 1",
    "--notify-keyspace-events",
    "KEA",
    "--latency-monitor-threshold",
    "1",
    "--enable-debug-command",
    "yes",
    "--enable-protected-configs",
    "yes",
    "--enable-module-command",
    "yes",
    "--propagation-error-behavior",
    "panic",
    "--repl-backlog-size",
    "1mb",
    "--loglevel",
    "verbose",
];

/// Programs that files of the suite start from `src/`.
const PROGRAMS: &[&str] = &[
    "redis-server",
    "redis-cli",
    "redis-benchmark",
    "redis-check-aof",
    "redis-check-rdb",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Direct,
    Proxied,
    /// Through the proxy, while the master changes.
    Switching,
}

/// What a file said.
pub struct Ran {
    pub passed: Passed,
    /// Tests that failed and exceptions, as the suite tells them.
    pub failed: Vec<String>,
    /// Tests that the suite left out because of their tags.
    pub left_out: Vec<String>,
    pub timed_out: bool,
    pub took: Duration,
}

/// The suite's source.
pub struct Suite {
    source: PathBuf,
}

impl Suite {
    /// An error says why there is none.
    pub fn find() -> Result<Suite, String> {
        let source = home().join("source");
        if !source.join("tests/test_helper.tcl").is_file() {
            let advice = "run scripts/redis-suite.sh, which fetches it";
            return Err(format!("no test suite in {}: {advice}", source.display()));
        }
        match Command::new("tclsh").arg("/dev/null").status() {
            Ok(status) if status.success() => Ok(Suite { source }),
            _ => Err("no tclsh to run the suite with: run scripts/redis-suite.sh".to_owned()),
        }
    }

    /// The list in the suite's own words.
    pub fn all_files(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.source.join("tests/test_helper.tcl"))
            .expect("test_helper.tcl");
        let list = text.split("set ::all_tests {").nth(1);
        let list = list.and_then(|rest| rest.split('}').next());
        let files = list.expect("the list of all tests").split_whitespace();
        files.map(str::to_owned).collect()
    }

    /// A folder to run in: the suite writes into its own.
    pub fn copy(&self) -> Arc<Workspace> {
        let copy = Workspace::create("pointsman-suite").expect("a folder");
        let tests = self.source.join("tests");
        let copied = Command::new("cp")
            .arg("-a")
            .arg(tests)
            .arg(copy.dir())
            .status();
        assert!(
            copied.is_ok_and(|status| status.success()),
            "cp of the suite"
        );
        let src = copy.dir().join("src");
        std::fs::create_dir(&src).expect("a folder");
        // Some files look at their own program, by a path in the source tree.
        let path = std::env::var_os("PATH").unwrap_or_default();
        for program in PROGRAMS {
            let mut places = std::env::split_paths(&path).map(|dir| dir.join(program));
            if let Some(found) = places.find(|file| file.is_file()) {
                std::os::unix::fs::symlink(found, src.join(program)).expect("a link to a program");
            }
        }
        copy
    }
}

fn home() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("target/redis-suite")
}

/// Runs a file against a fresh server, or a fresh proxy in front of one.
pub async fn run(copy: &Path, file: &str, way: Way) -> Ran {
    let shard = Shard::redis_with(0, SERVER_OPTIONS).await;
    let (proxy, addr) = match way {
        Way::Direct => (None, shard.addr(0)),
        Way::Proxied | Way::Switching => {
            let settings = Settings {
                commands: crate::PASS_ALL.into(),
                ..Settings::default()
            };
            let proxy = shard.proxy_with(settings).await;
            let addr = proxy.addr.clone();
            (Some(proxy), addr)
        }
    };
    let mut command = tclsh(copy, "tests/test_helper.tcl", &addr, file);
    command.args(["--tags", "-slow"]);
    let (ran, mut log) = play(command).await;
    if let Some(proxy) = &proxy {
        log.push_str(&format!("\n--- the proxy's log\n{}", proxy.log_tail()));
    }
    keep(way, file, &log);
    ran
}

/// How `script` runs one file of the suite against the server at `addr`; options may follow.
pub fn tclsh(copy: &Path, script: &str, addr: &str, file: &str) -> Command {
    let (host, port) = addr.rsplit_once(':').expect("host:port");
    let base = base_port().to_string();
    // A workspace starts programs in its own folder, and the suite has to run in its own.
    let mut command = Command::new("sh");
    command.args(["-c", "cd \"$0\" && exec tclsh \"$@\""]);
    command
        .arg(copy)
        .args([script, "--host", host, "--port", port]);
    command.args(["--clients", "1", "--baseport", &base, "--single", file]);
    // Colours would be in the way of reading what it says.
    command.env("TERM", "dumb");
    command
}

/// Runs the suite to its end and reads what it said, which comes back as well.
pub async fn play(mut command: Command) -> (Ran, String) {
    let began = Instant::now();
    let workspace = Workspace::create("pointsman-suite").expect("a folder");
    let mut started = workspace
        .start("suite", &mut command)
        .expect("tclsh starts");
    let (mut timed_out, mut waited) = (false, Duration::ZERO);
    while started.ended().is_none() {
        let looked = Instant::now();
        if waited > FILE_DEADLINE {
            timed_out = true;
            // The suite has a process of its own for the tests; both are one group.
            let group = format!("-{}", started.pid());
            let _ = Command::new("kill").args(["-9", "--", &group]).status();
            started.kill();
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
        waited += looked.elapsed().min(LOOK_COUNTS_MAX);
    }
    let took = began.elapsed();
    let said = std::fs::read(workspace.dir().join("suite.log")).unwrap_or_default();
    let said = String::from_utf8_lossy(&said).into_owned();
    let mut ran = judge(&said);
    ran.timed_out = timed_out;
    ran.took = took;
    (ran, said)
}

/// A port from the kernel with what the suite wants around it: it takes one of the 32 below the one
/// it is given, whose sum with 10000 is a port as well.
fn base_port() -> u16 {
    loop {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        if port < 55_000 {
            return port + 32;
        }
    }
}

pub fn keep(way: Way, file: &str, log: &str) {
    let way = match way {
        Way::Direct => "direct",
        Way::Proxied => "proxied",
        Way::Switching => "switching",
    };
    let dir = home().join("logs").join(way);
    let name = format!("{}.log", file.replace('/', "_"));
    let kept = std::fs::create_dir_all(&dir).and_then(|()| std::fs::write(dir.join(name), log));
    kept.expect("a log is kept");
}

/// Reads lines like `[ok]: name of the test (12 ms)`.
fn judge(said: &str) -> Ran {
    let mut ran = Ran {
        passed: Passed::default(),
        failed: Vec::new(),
        left_out: Vec::new(),
        timed_out: false,
        took: Duration::ZERO,
    };
    for line in said.lines() {
        if let Some(rest) = line.strip_prefix("[ok]: ") {
            let name = rest.rsplit_once(" (").map_or(rest, |(name, _)| name);
            ran.passed.add(name);
        } else if line.starts_with("[err]: ") || line.starts_with("[exception]: ") {
            ran.failed.push(line.to_owned());
        } else if let Some((name, "needs:repl")) = line
            .strip_prefix("[ignore]: ")
            .and_then(|rest| rest.strip_suffix(" denied")?.rsplit_once(": Tag: "))
        {
            ran.left_out.push(name.to_owned());
        }
    }
    ran
}

#[test]
fn what_the_suite_says_is_read() {
    let ran = judge(
        "[ok]: A (b) c (12 ms)\n[err]: D in tests/x.tcl\n[exception]: oh\n[ready]: 1\n\
               [ignore]: E: Tag: needs:repl denied\n[ignore]: F: Tag: slow denied\n",
    );
    assert_eq!(ran.passed.len(), 1);
    assert_eq!(ran.left_out, ["E"]);
    let mut named = Passed::default();
    named.add("A (b) c");
    assert!(named.missing_in(&ran.passed).is_empty());
    assert_eq!(ran.failed.len(), 2);
}
