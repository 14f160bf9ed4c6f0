//! What a run of the demo showed: one summary, for the terminal, for `--json` and for the page.

use std::fmt::{self, Display, Formatter};

use serde::Serialize;

use super::admin::Report;
use super::figures::{Latency, grouped};

#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    pub server: String,
    pub nodes: usize,
    pub connections: usize,
    pub connections_read_only: usize,
    pub writes_per_s: u64,
    pub reads_per_s: u64,
    pub value_bytes: usize,
    pub writes_acked: u64,
    pub direct_writes_acked: u64,
    /// Refused by an old master; the direct writer then looked for the new one.
    pub direct_writes_refused: u64,
    pub reads_answered: u64,
    pub client_errors: u64,
    pub error_texts: Vec<String>,
    pub unanswered: u64,
    pub looked_for: u64,
    pub lost: u64,
    pub lost_examples: Vec<String>,
    pub switchovers_wanted: usize,
    pub switchovers: Vec<Ordered>,
    pub writes: Compared,
    pub reads_alone: Compared,
    pub reads_mixed: Compared,
    /// How late the load generator itself was, included in every latency.
    pub generator_late_p99_ms: f64,
    pub generator_late_max_ms: f64,
}

/// The same load in three stretches.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Compared {
    /// Before the first switchover.
    pub without: Latency,
    /// From the first order to the end, the time in between included.
    pub with: Latency,
    /// Only requests that were on their way while a switchover was in progress.
    pub inside: Latency,
}

/// One switchover as ordered and as seen from outside.
#[derive(Clone, Debug, Serialize)]
pub struct Ordered {
    pub report: Report,
    pub ordered_us: u64,
    pub ended_us: u64,
    /// The slowest write and the slowest lone read that were on their way meanwhile.
    pub slowest_write_ms: f64,
    pub slowest_read_ms: f64,
}

impl Summary {
    /// Why the demo failed; empty when it did not.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if self.lost > 0 {
            failures.push(format!(
                "{} acknowledged writes are lost",
                grouped(self.lost)
            ));
            failures.extend(
                self.lost_examples
                    .iter()
                    .map(|example| format!("  {example}")),
            );
        }
        if self.client_errors > 0 {
            failures.push(format!(
                "clients saw {} errors",
                grouped(self.client_errors)
            ));
            failures.extend(
                self.error_texts
                    .iter()
                    .take(5)
                    .map(|text| format!("  {text}")),
            );
        }
        if self.unanswered > 0 {
            failures.push(format!(
                "{} requests had no reply",
                grouped(self.unanswered)
            ));
        }
        for (number, done) in self.switchovers.iter().enumerate() {
            if done.report.outcome != "switched" {
                let why = done.report.reasons.join("; ");
                failures.push(format!(
                    "switchover {}: {} {why}",
                    number + 1,
                    done.report.outcome
                ));
            }
        }
        if self.switchovers.len() < self.switchovers_wanted {
            let (done, wanted) = (self.switchovers.len(), self.switchovers_wanted);
            failures.push(format!("only {done} of {wanted} switchovers took place"));
        }
        if self.writes_acked == 0 {
            failures.push("no write was acknowledged, so nothing is shown".into());
        }
        failures
    }
}

impl Display for Summary {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (writes, bytes) = (grouped(self.writes_per_s), grouped(self.value_bytes as u64));
        writeln!(
            f,
            "{} switchovers under {writes} writes/s of {bytes} bytes and {} reads/s, {} clients\n\
             {}",
            self.switchovers.len(),
            grouped(self.reads_per_s),
            self.connections,
            self.server
        )?;
        writeln!(f)?;
        writeln!(
            f,
            "  writes acknowledged  {} through the proxy, {} straight to the master",
            grouped(self.writes_acked),
            grouped(self.direct_writes_acked)
        )?;
        writeln!(
            f,
            "  errors to clients    {} (in {} requests)",
            grouped(self.client_errors + self.unanswered),
            grouped(self.writes_acked + self.reads_answered)
        )?;
        writeln!(
            f,
            "  writes lost          {} ({} read back from the master, every byte compared)",
            grouped(self.lost),
            grouped(self.looked_for)
        )?;
        self.write_switchovers(f)?;
        self.write_latencies(f)?;
        match self.failures().as_slice() {
            [] => writeln!(f, "\nNothing was lost and no client noticed."),
            failures => writeln!(f, "\nFAILED: {}", failures.join("\n")),
        }
    }
}

impl Summary {
    fn write_switchovers(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if self.switchovers.is_empty() {
            return Ok(());
        }
        writeln!(
            f,
            "\n  switchover, ms        hold  slowest write  slowest read  held  phases"
        )?;
        for (number, done) in self.switchovers.iter().enumerate() {
            let report = &done.report;
            writeln!(
                f,
                "  {:>2} {:<14} {:>8.2} {:>14.2} {:>13.2} {:>5}  {}",
                number + 1,
                report.outcome,
                report.hold_ms,
                done.slowest_write_ms,
                done.slowest_read_ms,
                report.writes_held,
                phases(report)
            )?;
        }
        let resyncs: Vec<&str> = self
            .switchovers
            .iter()
            .flat_map(|done| {
                done.report
                    .replicas
                    .iter()
                    .map(|replica| replica.resync.as_str())
            })
            .collect();
        let full = resyncs.iter().filter(|resync| **resync == "full").count();
        writeln!(
            f,
            "  replicas resumed {} times, {full} in full",
            resyncs.len()
        )
    }

    fn write_latencies(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "\n  latency, ms                           p50      p99    p99.9      max"
        )?;
        let kinds = [
            ("writes", &self.writes),
            ("reads beside writes", &self.reads_mixed),
            ("reads alone", &self.reads_alone),
        ];
        for (name, compared) in kinds {
            let stretches = [
                ("without", &compared.without),
                ("with switchovers", &compared.with),
                ("while switching", &compared.inside),
            ];
            for (at, (stretch, latency)) in stretches.into_iter().enumerate() {
                if latency.count == 0 {
                    continue;
                }
                writeln!(
                    f,
                    "  {:<19}  {stretch:<16} {:>6.2} {:>8.2} {:>8.2} {:>8.2}",
                    if at == 0 { name } else { "" },
                    latency.p50_ms,
                    latency.p99_ms,
                    latency.p999_ms,
                    latency.max_ms
                )?;
            }
        }
        writeln!(
            f,
            "  (from the moment a request was due; the load generator itself was late by {:.2} ms \
             at p99, {:.2} ms at most)",
            self.generator_late_p99_ms, self.generator_late_max_ms
        )
    }
}

/// `fence 0.41, prove 0.20, ...`
pub fn phases(report: &Report) -> String {
    let parts = report
        .phases
        .iter()
        .map(|phase| format!("{} {:.2}", phase.name, phase.ms));
    parts.collect::<Vec<_>>().join(", ")
}
