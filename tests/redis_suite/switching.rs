//! The suite's files through the proxy while its master changes all the time.
//!
//! `make test-suite-switching` runs it: two servers, one proxy in front, the files of [`FILES`] one
//! after the other, and a switchover to and fro every two seconds (`SUITE_SWITCH_MS`), each
//! awaited. `FILES="unit/multi unit/other"` names others. What each file said is kept in
//! `target/redis-suite/logs/switching/`.
//!
//! Every test has to pass that is not in `switching.txt`, where each has its reason.
//! `switching.tcl` keeps the two servers configured alike. What became of the switchovers is
//! counted and printed: one that was refused or undone is no failure, since no client may notice;
//! one that lost a write is.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::file::{self, Ran, Suite, Way};
use crate::passed::Exclusions;
use crate::support::*;
use crate::{PASS_ALL, say};

const FILES: &str = "unit/type/string unit/type/incr unit/type/list unit/type/list-2 \
     unit/type/list-3 unit/type/set unit/type/zset unit/type/hash unit/type/stream \
     unit/type/stream-cgroups unit/keyspace unit/expire unit/sort unit/bitops unit/bitfield \
     unit/pubsub unit/protocol unit/quit";
const SWITCH_EVERY_MS: u64 = 2000;
/// A replica is not attached at once when the server has no time for it.
const AFTER_REFUSAL: Duration = Duration::from_millis(100);

#[tokio::test]
async fn the_suite_passes_while_the_master_changes() {
    let suite = match Suite::find() {
        Ok(suite) => suite,
        Err(why) => {
            let required = std::env::var_os("SUITE_REQUIRED").is_some();
            assert!(!required, "{why}");
            return say_skipped(&why);
        }
    };
    let Ok(asked) = std::env::var("SUITE_SWITCHING") else {
        return say_skipped("it takes minutes: `make test-suite-switching` runs it");
    };
    let files = Some(asked).filter(|files| !files.trim().is_empty());
    let files = files.unwrap_or_else(|| FILES.to_owned());
    let every = std::env::var("SUITE_SWITCH_MS").ok();
    let every = every.map_or(SWITCH_EVERY_MS, |ms| ms.parse().expect("milliseconds"));

    let shard = Shard::redis_with(1, file::SERVER_OPTIONS).await;
    let proxy = shard.proxy_with(settings()).await;
    let over = CancellationToken::new();
    let switching = tokio::spawn(switch_to_and_fro(
        proxy.admin.clone(),
        shard.addrs(),
        Duration::from_millis(every),
        over.clone(),
    ));
    let copy = suite.copy();
    let left_out = Exclusions::read(include_str!("switching.txt"));
    let mut told = Told::default();
    for file in files.split_whitespace() {
        told.take(
            file,
            play(copy.dir(), file, &shard, &proxy, &left_out).await,
        );
    }
    over.cancel();
    let reports = switching.await.expect("the switchovers");
    told.finish(&reports);
}

fn settings() -> Settings {
    Settings {
        commands: PASS_ALL.into(),
        switchover: format!("{}\nmax_lag = 67108864", patient().switchover),
        ..patient()
    }
}

/// Orders one switchover after the other, the first at once.
async fn switch_to_and_fro(
    admin: Admin,
    nodes: Vec<String>,
    every: Duration,
    over: CancellationToken,
) -> Vec<Report> {
    let mut reports = Vec::new();
    let mut at = 1;
    while !over.is_cancelled() {
        let next = Instant::now() + every;
        let report = admin.switchover(SHARD, &nodes[at % nodes.len()]).await;
        let report = report.unwrap_or_else(|error| panic!("{error:#}"));
        let switched = report.outcome == "switched";
        reports.push(report);
        if switched {
            at += 1;
            let _ = over.run_until_cancelled(sleep_until(next)).await;
        } else {
            sleep(AFTER_REFUSAL).await;
        }
    }
    reports
}

async fn play(copy: &Path, file: &str, shard: &Shard, proxy: &Proxy, out: &Exclusions) -> Ran {
    let script = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/redis_suite/switching.tcl"
    );
    let mut command = file::tclsh(copy, script, &proxy.addr, file);
    command.args(["--tags", "-slow -needs:repl"]);
    for test in out.of(file) {
        command.args(["--skiptest", test]);
    }
    command.env("SWITCHING_NODES", shard.addrs().join(" "));
    let (mut ran, log) = file::play(command).await;
    ran.left_out.extend(out.of(file).map(str::to_owned));
    let log = format!("{log}\n--- the proxy's log\n{}", proxy.log_tail());
    file::keep(Way::Switching, file, &log);
    ran
}

/// What the files said together.
#[derive(Default)]
struct Told {
    passed: usize,
    left_out: usize,
    failed: Vec<String>,
}

impl Told {
    fn take(&mut self, file: &str, ran: Ran) {
        let (passed, seconds) = (ran.passed.len(), ran.took.as_secs_f64());
        say(&format!("{file}: {passed} tests pass ({seconds:.1} s)"));
        for test in &ran.left_out {
            say(&format!("    left out: {test}"));
        }
        for failed in &ran.failed {
            say(&format!("    FAILS: {failed}"));
            self.failed.push(format!("{file}: {failed}"));
        }
        if ran.timed_out {
            self.failed.push(format!("{file}: not over in time"));
        }
        self.passed += passed;
        self.left_out += ran.left_out.len();
    }

    fn finish(self, reports: &[Report]) {
        let mut outcomes: BTreeMap<&str, usize> = BTreeMap::new();
        let mut reasons: BTreeMap<String, usize> = BTreeMap::new();
        let mut resyncs: BTreeMap<&str, usize> = BTreeMap::new();
        for report in reports {
            *outcomes.entry(report.outcome.as_str()).or_default() += 1;
            for replica in &report.replicas {
                *resyncs.entry(replica.resync.as_str()).or_default() += 1;
            }
            if report.outcome != "switched" {
                let why = format!("{}: {}", report.outcome, report.reasons.join("; "));
                *reasons.entry(why).or_default() += 1;
            }
        }
        for (why, times) in reasons {
            say(&format!("{times} times {why}"));
        }
        say(&format!(
            "{} tests pass while the master changes, {} are left out (tests/redis_suite/switching.txt \
             says why); {} switchovers: {}; resynchronisations: {}",
            self.passed,
            self.left_out,
            reports.len(),
            counted(&outcomes),
            counted(&resyncs),
        ));
        assert!(self.failed.is_empty(), "{}", self.failed.join("\n"));
        assert!(self.passed > 0, "no test ran: is a file misspelled?");
        let harmless = ["switched", "rolled_back", "refused"];
        let harm = |report: &&Report| !harmless.contains(&report.outcome.as_str());
        let harm: Vec<&Report> = reports.iter().filter(harm).collect();
        assert!(harm.is_empty(), "{harm:?}");
        let switched = reports.iter().filter(|one| one.outcome == "switched");
        let switched = switched.count();
        assert!(switched * 2 > reports.len(), "too few took place");
    }
}

fn counted(counts: &BTreeMap<&str, usize>) -> String {
    let counts = counts.iter().map(|(what, count)| format!("{count} {what}"));
    counts.collect::<Vec<_>>().join(", ")
}
