//! Redis' own test suite, run directly and through the proxy: what passes without the proxy must
//! pass with it.
//!
//! `make test-suite` runs all of it. `make test-suite FILES="unit/pause unit/type/list"` runs some
//! files of it; so does `SUITE_FILES="..." cargo test --test redis_suite`, with
//! `scripts/redis-suite.sh` run once before, which fetches the suite. What each file said is kept
//! in `target/redis-suite/logs/{direct,proxied}/`, with the proxy's and the server's log behind it.
//!
//! Each file runs on a server of its own (the suite gives up at the first exception), first
//! directly and then, if any test of it ran at all, through a proxy in front of another server. Two
//! files at a time. The proxy has its default configuration, but passes every command
//! ([`PASS_ALL`]). The suite runs as against a server that is not its own
//! (`--host`), so tests that start servers themselves are left out by the suite: they would not go
//! through the proxy.
//!
//! Tests are compared by name; how often a name passed counts. What fails directly is printed and
//! not compared. A file with a difference is run once more, both ways, because a busy machine makes
//! some of its tests fail that measure time; a difference that stays fails the run. What can't pass
//! is listed in `exclusions.txt` with the reason.
//!
//! [`switching`] runs files of it while the master changes.
//!
//! Without the suite's source the tests do nothing and say so, unless `SUITE_REQUIRED` is set.

#[path = "../support/mod.rs"]
mod support;

mod file;
mod passed;
mod switching;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Arc, Mutex};

use file::{Ran, Suite};
use passed::Exclusions;

/// Files that run at the same time; most of them wait more than they work.
const AT_ONCE: usize = 2;

/// Nothing is refused: what the server answers is compared.
const PASS_ALL: &str = "replicaof = \"pass\"\nfailover = \"pass\"\nshutdown = \"pass\"\n\
     client_pause = \"pass\"\nreplication = \"pass\"\ncluster = \"pass\"\nscript_debug = \"pass\"";

#[tokio::test]
async fn what_passes_directly_passes_through_the_proxy() {
    let suite = match Suite::find() {
        Ok(suite) => Arc::new(suite),
        Err(why) => {
            let required = std::env::var_os("SUITE_REQUIRED").is_some();
            assert!(!required, "{why}");
            return support::say_skipped(&why);
        }
    };
    if ["SUITE_REQUIRED", "SUITE_FILES"]
        .iter()
        .all(|asked| std::env::var_os(asked).is_none())
    {
        return support::say_skipped("it takes minutes: `make test-suite` runs it");
    }
    let exclusions = Arc::new(Exclusions::read(include_str!("exclusions.txt")));
    let files = match std::env::var("SUITE_FILES") {
        Ok(files) if !files.trim().is_empty() => {
            files.split_whitespace().map(str::to_owned).collect()
        }
        _ => suite.all_files(),
    };
    let queue: Arc<Mutex<VecDeque<String>>> = Arc::new(Mutex::new(files.into()));
    let mut workers = Vec::new();
    for _ in 0..AT_ONCE {
        let (suite, exclusions, queue) = (suite.clone(), exclusions.clone(), queue.clone());
        workers.push(tokio::spawn(async move {
            let copy = suite.copy();
            let copy = copy.dir();
            let mut verdicts = Vec::new();
            while let Some(file) = next(&queue) {
                verdicts.push(compare(copy, &file, &exclusions).await);
            }
            verdicts
        }));
    }
    let mut verdicts = Vec::new();
    for worker in workers {
        verdicts.extend(worker.await.expect("a worker"));
    }
    report(&verdicts, &exclusions);
}

fn next(queue: &Mutex<VecDeque<String>>) -> Option<String> {
    queue.lock().expect("the queue").pop_front()
}

/// What came of one file.
struct Verdict {
    file: String,
    /// Tests that passed directly, and were compared.
    compared: usize,
    /// Names of those that did not pass through the proxy.
    missing: Vec<String>,
}

async fn compare(copy: &Path, file: &str, exclusions: &Exclusions) -> Verdict {
    let mut verdict = Verdict {
        file: file.to_owned(),
        compared: 0,
        missing: Vec::new(),
    };
    for again in [false, true] {
        let direct = file::run(copy, file, file::Way::Direct).await;
        if direct.passed.is_empty() {
            say(&format!(
                "{file}: nothing runs on a server that is not the suite's own"
            ));
            return verdict;
        }
        let proxied = file::run(copy, file, file::Way::Proxied).await;
        let missing = direct.passed.missing_in(&proxied.passed);
        verdict.compared = direct.passed.len();
        verdict.missing = exclusions.without(file, missing);
        tell(file, &direct, &proxied, &verdict.missing);
        if verdict.missing.is_empty() || again {
            break;
        }
        say(&format!(
            "{file}: once more, for what a busy machine may have done"
        ));
    }
    verdict
}

fn tell(file: &str, direct: &Ran, proxied: &Ran, missing: &[String]) {
    let mut line = format!(
        "{file}: {} tests pass directly ({:.1} s), {} through the proxy ({:.1} s)",
        direct.passed.len(),
        direct.took.as_secs_f64(),
        proxied.passed.len(),
        proxied.took.as_secs_f64(),
    );
    for (way, ran) in [("directly", direct), ("through the proxy", proxied)] {
        for failed in &ran.failed {
            line.push_str(&format!("\n    fails {way}: {failed}"));
        }
        if ran.timed_out {
            line.push_str(&format!("\n    not over in time {way}"));
        }
    }
    line.push_str(&listed("\n    MISSING through the proxy: ", missing));
    say(&line);
}

fn report(verdicts: &[Verdict], exclusions: &Exclusions) {
    let compared: usize = verdicts.iter().map(|verdict| verdict.compared).sum();
    let differing: Vec<&Verdict> = verdicts
        .iter()
        .filter(|verdict| !verdict.missing.is_empty())
        .collect();
    let missing: usize = differing.iter().map(|verdict| verdict.missing.len()).sum();
    say(&format!(
        "{compared} tests pass directly, {} of them through the proxy; {} are excluded",
        compared - missing - exclusions.used(),
        exclusions.used(),
    ));
    assert!(compared > 0, "no test ran: is a file misspelled?");
    let mut told = String::new();
    for verdict in differing {
        told.push_str(&listed(&format!("\n{}: ", verdict.file), &verdict.missing));
    }
    assert!(
        told.is_empty(),
        "these pass directly and not through the proxy:{told}"
    );
}

/// Each name behind `before`; after an exception they are many, of which the first tell enough.
fn listed(before: &str, names: &[String]) -> String {
    const NAMES_SHOWN_MAX: usize = 20;
    let shown = names.iter().take(NAMES_SHOWN_MAX);
    let mut text: String = shown.map(|name| format!("{before}{name}")).collect();
    if names.len() > NAMES_SHOWN_MAX {
        text.push_str(&format!("{before}... {} in all", names.len()));
    }
    text
}

/// Written past the test runner, which keeps what passing tests print: the run takes minutes.
fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr(), "{text}");
}
