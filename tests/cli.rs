//! Claims about the command line: exit codes, what is printed where, against a scripted proxy.

mod scripted;

use std::path::PathBuf;
use std::process::{Command, Output};

use pointsman::cli::demo::port::Port;
use pointsman::switchover::report::{Outcome, Report};
use pointsman::switchover::view::{AbortAnswer, StartError};
use scripted::{B, ID, Served};

/// A config file of its own for each test.
struct Site {
    dir: tempfile::TempDir,
}

impl Site {
    /// A config whose admin address is the one given.
    fn new(admin: &str) -> Self {
        Self::with(&format!(
            "[admin]\nlisten = \"{admin}\"\n[[shard]]\nname = \"main\"\n\
             listen = \"127.0.0.1:6380\"\nnodes = [\"127.0.0.1:7001\", \"127.0.0.1:7002\"]\n"
        ))
    }

    fn with(config: &str) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join("config.toml"), config).expect("it is written");
        Site { dir }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("config.toml")
    }

    /// Runs the binary in the directory of the config, and waits for its end.
    fn run(&self, args: &[&str]) -> Ended {
        let output = Command::new(env!("CARGO_BIN_EXE_pointsman"))
            .args(args)
            .current_dir(self.dir.path())
            .output()
            .expect("the binary runs");
        Ended::from(output)
    }
}

#[derive(Debug)]
struct Ended {
    code: i32,
    out: String,
    err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        Ended {
            code: output.status.code().expect("it was not killed"),
            out: String::from_utf8(output.stdout).expect("it is text"),
            err: String::from_utf8(output.stderr).expect("it is text"),
        }
    }
}

fn served() -> (Served, Site) {
    let served = Served::start();
    let site = Site::new(&served.address.to_string());
    (served, site)
}

#[test]
fn bad_usage_ends_with_2() {
    let site = Site::new("127.0.0.1:9400");
    for args in [
        &[][..],
        &["bogus"],
        &["switchover"],
        &["switchover", "--to", "nowhere"],
        &["switchover", "--to", "a:1", "--shard", "other"],
        &["abort", "no/id"],
        &["status", "--bogus"],
    ] {
        let ended = site.run(args);
        assert_eq!(ended.code, 2, "{args:?}: {ended:?}");
        assert!(ended.out.is_empty() && !ended.err.is_empty(), "{ended:?}");
    }
}

#[test]
fn a_bad_config_ends_with_2_and_all_its_problems() {
    let site = Site::with("[proxy]\nworker = 1\n[admin]\nlisten = 3\n");
    for command in ["serve", "check", "status", "abort"] {
        let ended = site.run(&[command]);
        assert_eq!(ended.code, 2, "{ended:?}");
        for place in [
            "config.toml:2:1:",
            "config.toml:4:10:",
            "3 problems in the config file",
        ] {
            assert!(ended.err.contains(place), "{place} is not in {}", ended.err);
        }
    }
}

#[test]
fn a_missing_config_ends_with_2_and_names_the_file() {
    let site = Site::new("127.0.0.1:9400");
    let ended = site.run(&["status", "--config", "other.toml"]);
    assert_eq!(ended.code, 2);
    assert!(
        ended.err.contains("cannot read the config file other.toml"),
        "{}",
        ended.err
    );
}

#[test]
fn a_proxy_that_is_not_running_ends_with_1_and_advice() {
    let nobody = Port::reserve().expect("a port");
    let admin = nobody.addr();
    let site = Site::new(&admin);
    for args in [
        &["status"][..],
        &["switchover", "--to", B],
        &["abort"],
        &["abort", ID],
    ] {
        let ended = site.run(args);
        let expected = format!(
            "pointsman: no pointsman answers at {admin}: \
             is `pointsman serve --config config.toml` running?"
        );
        assert_eq!(ended.code, 1, "{ended:?}");
        assert!(ended.err.starts_with(&expected), "{}", ended.err);
    }
}

#[test]
fn several_shards_have_to_be_told_apart() {
    let (served, _) = served();
    let site = Site::with(&format!(
        "[admin]\nlisten = \"{}\"\n\
         [[shard]]\nname = \"main\"\nlisten = \"127.0.0.1:6380\"\nnodes = [\"a:1\"]\n\
         [[shard]]\nname = \"more\"\nlisten = \"127.0.0.1:6381\"\nnodes = [\"b:1\"]\n",
        served.address
    ));

    let ended = site.run(&["switchover", "--to", B]);
    assert_eq!(ended.code, 2);
    assert!(
        ended
            .err
            .contains("name one of them with --shard: main, more"),
        "{}",
        ended.err
    );
    assert_eq!(
        site.run(&["switchover", "--to", B, "--shard", "main"]).code,
        0
    );
}

#[test]
fn status_shows_every_node() {
    let (_served, site) = served();

    let ended = site.run(&["status"]);

    let expected = "\
main, clients connect to 127.0.0.1:6380: redis 7.0.15, epoch 3, gate open, 2 sessions
  NODE            ROLE     LINK  OFFSET  BEHIND  SEEN
  127.0.0.1:7001  master   -     123456       -  12 ms ago
  127.0.0.1:7002  replica  up    123456       0  12 ms ago
";
    assert_eq!((ended.code, ended.out.as_str()), (0, expected));
    assert_eq!(site.run(&["status", "--shard", "main"]).out, expected);
    assert_eq!(site.run(&["status", "--shard", "other"]).code, 2);
}

#[test]
fn status_as_json_is_what_the_api_says() {
    let (served, site) = served();

    let ended = site.run(&[
        "--json",
        "status",
        "--config",
        site.config().to_str().expect("text"),
    ]);

    let printed: serde_json::Value = serde_json::from_str(&ended.out).expect("it is JSON");
    let api: serde_json::Value = serde_json::from_str(&served.get("/v1/shards").1).expect("JSON");
    assert_eq!((ended.code, printed), (0, api));
}

#[test]
fn the_exit_code_of_a_switchover_tells_whether_the_master_has_moved() {
    for (outcome, code, text) in [
        (
            Outcome::Switched,
            0,
            "switched: 127.0.0.1:7001 -> 127.0.0.1:7002",
        ),
        (
            Outcome::SwitchedWithLeak,
            0,
            "NOT CARRIED to the new master: 7",
        ),
        (
            Outcome::RolledBack,
            1,
            "rolled back: 127.0.0.1:7001 is master as before",
        ),
        (Outcome::Refused, 1, "  - the target is 5000 behind"),
        (Outcome::Unknown, 1, "unknown which node is master"),
    ] {
        let (served, site) = served();
        served
            .control
            .change(|script| script.outcome = Some(outcome));

        let ended = site.run(&["switchover", "--to", B]);

        assert_eq!(ended.code, code, "{ended:?}");
        assert!(ended.out.contains(text), "{}", ended.out);
        for phase in ["  preflight       4.500 ms", "  hold            0.750 ms"] {
            assert_eq!(ended.out.matches(phase).count(), 1, "{}", ended.out);
        }
    }
}

#[test]
fn phases_are_shown_while_the_operation_runs() {
    let (served, site) = served();
    served.control.change(|script| script.outcome = None);
    let mut running = Command::new(env!("CARGO_BIN_EXE_pointsman"))
        .args(["switchover", "--to", B])
        .current_dir(site.dir.path())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("the binary runs");
    let out = running.stdout.take().expect("it is piped");

    let lines = std::io::BufRead::lines(std::io::BufReader::new(out));
    let mut seen = Vec::new();
    for line in lines {
        seen.push(line.expect("it is text"));
        if seen.last().is_some_and(|line| line.starts_with("  fence")) {
            // Only now does the operation end, so everything so far was printed before.
            served
                .control
                .change(|script| script.outcome = Some(Outcome::Switched));
        }
    }

    assert!(running.wait().expect("it ends").success());
    assert_eq!(
        seen.first().map(String::as_str),
        Some(&*format!("switchover {ID} of main to {B}"))
    );
    assert!(
        seen.iter().any(|line| line.starts_with("switched: ")),
        "{seen:?}"
    );
}

#[test]
fn a_dry_run_says_that_nothing_was_touched() {
    let (served, site) = served();

    let ended = site.run(&["switchover", "--to", B, "--dry-run"]);

    assert_eq!(ended.code, 0);
    assert!(ended.out.contains("nothing was touched"), "{}", ended.out);
    assert_eq!(
        served.control.orders(),
        [("main".to_owned(), B.to_owned(), true)]
    );
}

#[test]
fn a_switchover_as_json_is_its_report_and_nothing_else() {
    let (_served, site) = served();
    let ended = site.run(&["switchover", "--json", "--to", B]);
    let report: Report = serde_json::from_str(&ended.out).expect("it is a report");
    assert_eq!((ended.code, report.id.as_str()), (0, ID));
}

#[test]
fn a_busy_shard_is_told_as_the_proxy_tells_it() {
    let (served, site) = served();
    let busy = StartError::Busy { id: ID.to_owned() };
    served.control.change(|script| script.start = Err(busy));

    let ended = site.run(&["switchover", "--to", B]);

    assert_eq!(ended.code, 1);
    assert!(
        ended
            .err
            .contains(&format!("operation {ID} is running on this shard")),
        "{ended:?}"
    );
}

#[test]
fn an_abort_returns_when_the_old_master_is_back() {
    let (served, site) = served();
    let nothing = site.run(&["abort"]);
    assert_eq!(nothing.code, 1);
    assert!(
        nothing
            .err
            .contains("no operation is running on shard main"),
        "{nothing:?}"
    );
    served.control.change(|script| {
        script.outcome = None;
        script.orders.push(("main".to_owned(), B.to_owned(), false));
        script.abort = AbortAnswer::TooLate;
    });

    let late = site.run(&["abort", ID]);
    assert_eq!(late.code, 1);
    assert!(late.err.contains("has promoted its target"), "{late:?}");

    served
        .control
        .change(|script| script.abort = AbortAnswer::Aborting);
    let ended = site.run(&["abort"]);
    assert_eq!(ended.code, 0, "{ended:?}");
    assert!(
        ended
            .out
            .contains("rolled back: 127.0.0.1:7001 is master as before"),
        "{ended:?}"
    );
}

#[test]
fn what_goes_on_in_the_background_is_given_up() {
    let (served, site) = served();
    served.control.change(|script| {
        script.outcome = Some(Outcome::Switched);
        script.orders.push(("main".to_owned(), B.to_owned(), false));
        script.abort = AbortAnswer::Leaving;
    });
    let given_up = site.run(&["abort", ID]);
    assert_eq!(given_up.code, 0, "{given_up:?}");
    assert!(
        given_up
            .out
            .contains("what was left to do is left as it is"),
        "{given_up:?}"
    );
}

#[test]
fn somebody_else_at_the_admin_address_is_not_taken_for_the_proxy() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let site = Site::new(&listener.local_addr().expect("it is bound").to_string());
    let stranger = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("somebody asks");
        let mut head = [0; 1024];
        let _ = std::io::Read::read(&mut stream, &mut head);
        let answer = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 2\r\n\r\nno";
        std::io::Write::write_all(&mut stream, answer).expect("it is sent");
    });

    let ended = site.run(&["status"]);

    stranger.join().expect("it has answered");
    assert_eq!(ended.code, 1);
    assert!(
        ended
            .err
            .contains("and is no pointsman: check [admin] listen"),
        "{ended:?}"
    );
}

#[test]
fn help_names_every_command_and_the_exit_codes() {
    let site = Site::new("127.0.0.1:9400");
    let ended = site.run(&["--help"]);
    assert_eq!(ended.code, 0);
    for text in [
        "serve",
        "check",
        "status",
        "switchover",
        "abort",
        "demo",
        "2 bad usage",
    ] {
        assert!(ended.out.contains(text), "{text} is not in {}", ended.out);
    }
}
