//! What the proxy tells about itself: metric names, cached handles, the form of the log.
//!
//! **Invariant:** nothing else spells a metric name or installs a recorder or a log subscriber.
//!
//! **Invariant:** the data path holds handles and never looks a metric up. Even so a worker does
//! not touch them per request: it counts in plain cells, which are brought here once a second.
//!
//! Trade-off: the metrics of the data path carry the worker as a label. That multiplies the series
//! by the number of workers and keeps two cores from writing to the same cache line.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;

/// Every metric name, with its labels.
pub mod names {
    /// Gauge `{shard, worker}`: clients connected now.
    pub const SESSIONS: &str = "pointsman_sessions";
    /// Counter `{shard, worker}`: clients accepted since the start.
    pub const CONNECTIONS: &str = "pointsman_connections_total";
    /// Counter `{shard, worker, class=read|write}`: requests passed on to a node.
    pub const REQUESTS: &str = "pointsman_requests_total";
    /// Counter `{shard, reason}`: sessions that ended, by reason.
    pub const SESSIONS_CLOSED: &str = "pointsman_sessions_closed_total";
    /// Gauge `{shard, worker}`: sessions whose write waits at the gate now.
    pub const WRITES_HELD_NOW: &str = "pointsman_writes_held";
    /// Counter `{shard, worker}`: times that a session's requests were refused by a node that was
    /// no master any more, and asked again.
    pub const REFUSED: &str = "pointsman_refused_total";
    /// Counter `{shard, worker}`: bytes read from clients.
    pub const BYTES_IN: &str = "pointsman_bytes_in_total";
    /// Counter `{shard, worker}`: bytes written to clients.
    pub const BYTES_OUT: &str = "pointsman_bytes_out_total";

    /// Counter `{shard, outcome}`: switchovers that ended.
    pub const SWITCHOVERS: &str = "pointsman_switchovers_total";
    /// Histogram `{shard}`: from the first gate closing to the release, in seconds.
    pub const HOLD_SECONDS: &str = "pointsman_hold_seconds";
    /// Histogram `{shard, phase}`: how long each phase took, in seconds.
    pub const PHASE_SECONDS: &str = "pointsman_phase_seconds";
    /// Counter `{shard}`: sessions that had a write waiting at a release.
    pub const WRITES_HELD: &str = "pointsman_writes_held_total";
    /// Counter `{shard}`: what the old master had and the new one does not, in units of offset.
    pub const WRITES_NOT_CARRIED: &str = "pointsman_writes_not_carried_total";
    /// Counter `{shard}`: nodes that had to copy everything to follow the new master.
    pub const FULL_RESYNCS: &str = "pointsman_full_resyncs_total";
    /// Counter `{shard, step=hold|route}`: other proxies that did not do what a switchover asked.
    pub const PROXIES_SILENT: &str = "pointsman_proxies_silent_total";
    /// Counter `{shard, end=routed|released|expired|stuck}`: holds for another proxy's switchover.
    pub const HOLDS_FOR_OTHERS: &str = "pointsman_holds_for_others_total";
}

/// A hold is a matter of milliseconds, so most buckets are there.
const HOLD_BUCKETS_SECONDS: [f64; 18] = [
    0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.25,
    0.5, 1.0, 2.5, 5.0,
];
/// A phase may be a single round trip, or a whole resync.
const PHASE_BUCKETS_SECONDS: [f64; 15] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0,
    10.0,
];

/// Installs the recorder of this process and returns what renders `/metrics`.
///
/// A second call returns the same handle. Nothing is spawned: whoever keeps the handle calls
/// `run_upkeep` every few seconds, without which histograms grow for ever.
pub fn install() -> PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let recorder = with_buckets(PrometheusBuilder::new()).build_recorder();
            let handle = recorder.handle();
            if metrics::set_global_recorder(recorder).is_err() {
                tracing::warn!("another metrics recorder is installed: /metrics stays empty");
            }
            describe();
            handle
        })
        .clone()
}

/// The handles of one worker for one shard, looked up once.
#[derive(Clone)]
pub struct WorkerMetrics {
    pub sessions: Gauge,
    pub connections: Counter,
    pub requests_read: Counter,
    pub requests_write: Counter,
    pub writes_held: Gauge,
    pub refused: Counter,
    pub bytes_in: Counter,
    pub bytes_out: Counter,
    shard: String,
}

impl WorkerMetrics {
    pub fn new(shard: &str, worker: usize) -> Self {
        let labels = [("shard", shard.to_owned()), ("worker", worker.to_string())];
        let class = |class: &str| {
            let [shard, worker] = labels.clone();
            metrics::counter!(
                names::REQUESTS,
                &[shard, worker, ("class", class.to_owned())]
            )
        };
        WorkerMetrics {
            sessions: metrics::gauge!(names::SESSIONS, &labels),
            connections: metrics::counter!(names::CONNECTIONS, &labels),
            requests_read: class("read"),
            requests_write: class("write"),
            writes_held: metrics::gauge!(names::WRITES_HELD_NOW, &labels),
            refused: metrics::counter!(names::REFUSED, &labels),
            bytes_in: metrics::counter!(names::BYTES_IN, &labels),
            bytes_out: metrics::counter!(names::BYTES_OUT, &labels),
            shard: shard.to_owned(),
        }
    }

    /// Counts sessions that ended. Looks the counter up, which once a second may cost.
    pub fn sessions_closed(&self, reason: &'static str, count: u64) {
        let labels = [("shard", self.shard.clone()), ("reason", reason.to_owned())];
        metrics::counter!(names::SESSIONS_CLOSED, &labels).increment(count);
    }
}

/// What is counted about the switchovers of one shard.
#[derive(Clone)]
pub struct SwitchoverMetrics {
    pub hold_seconds: Histogram,
    pub writes_held: Counter,
    pub writes_not_carried: Counter,
    pub full_resyncs: Counter,
    shard: String,
}

impl SwitchoverMetrics {
    pub fn new(shard: &str) -> Self {
        let labels = [("shard", shard.to_owned())];
        SwitchoverMetrics {
            hold_seconds: metrics::histogram!(names::HOLD_SECONDS, &labels),
            writes_held: metrics::counter!(names::WRITES_HELD, &labels),
            writes_not_carried: metrics::counter!(names::WRITES_NOT_CARRIED, &labels),
            full_resyncs: metrics::counter!(names::FULL_RESYNCS, &labels),
            shard: shard.to_owned(),
        }
    }

    /// Counts the end of a switchover by its outcome.
    pub fn ended(&self, outcome: &'static str) {
        let labels = [
            ("shard", self.shard.clone()),
            ("outcome", outcome.to_owned()),
        ];
        metrics::counter!(names::SWITCHOVERS, &labels).increment(1);
    }

    /// Counts other proxies that did not do what a switchover asked.
    pub fn proxies_silent(&self, step: &'static str, count: u64) {
        let labels = [("shard", self.shard.clone()), ("step", step.to_owned())];
        metrics::counter!(names::PROXIES_SILENT, &labels).increment(count);
    }

    /// Counts a hold for another proxy's switchover by its end.
    pub fn stood_by(&self, end: &'static str) {
        let labels = [("shard", self.shard.clone()), ("end", end.to_owned())];
        metrics::counter!(names::HOLDS_FOR_OTHERS, &labels).increment(1);
    }

    /// Records how long one phase took.
    pub fn phase(&self, name: &str, took: Duration) {
        let labels = [("shard", self.shard.clone()), ("phase", name.to_owned())];
        metrics::histogram!(names::PHASE_SECONDS, &labels).record(took);
    }
}

/// Writes log lines for people to standard error, in colours when it is a terminal.
///
/// The first call in a process wins; tests start more than one proxy.
pub fn log_as_text(level: &str) {
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(level))
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    let _ = lines.try_init();
}

/// Writes log lines for machines to standard error, one JSON object each.
///
/// The first call in a process wins; tests start more than one proxy.
pub fn log_as_json(level: &str) {
    let lines = tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_env_filter(filter(level))
        .with_writer(std::io::stderr);
    let _ = lines.try_init();
}

/// Our own lines at the level asked for, those of the libraries only when they warn.
fn filter(level: &str) -> EnvFilter {
    let others = if level == "error" { "error" } else { "warn" };
    EnvFilter::new(format!("{others},pointsman={level}"))
}

/// The only way in which setting buckets fails is an empty list, and none of ours is.
fn with_buckets(mut builder: PrometheusBuilder) -> PrometheusBuilder {
    let lists: [(&str, &[f64]); 2] = [
        (names::HOLD_SECONDS, &HOLD_BUCKETS_SECONDS),
        (names::PHASE_SECONDS, &PHASE_BUCKETS_SECONDS),
    ];
    for (name, buckets) in lists {
        let matcher = Matcher::Full(name.to_owned());
        match builder.set_buckets_for_metric(matcher, buckets) {
            Ok(with) => builder = with,
            Err(_) => return PrometheusBuilder::new(),
        }
    }
    builder
}

fn describe() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};
    describe_gauge!(names::SESSIONS, "Clients connected now");
    describe_counter!(names::CONNECTIONS, "Clients accepted since the start");
    describe_counter!(names::REQUESTS, "Requests passed on to a node, by class");
    describe_counter!(names::SESSIONS_CLOSED, "Sessions that ended, by reason");
    describe_gauge!(
        names::WRITES_HELD_NOW,
        "Sessions whose write waits at the gate now"
    );
    describe_counter!(names::BYTES_IN, "Bytes read from clients");
    describe_counter!(names::BYTES_OUT, "Bytes written to clients");
    describe_counter!(names::SWITCHOVERS, "Switchovers that ended, by outcome");
    describe_histogram!(
        names::HOLD_SECONDS,
        "From the first gate closing to the release"
    );
    describe_histogram!(
        names::PHASE_SECONDS,
        "How long each phase of a switchover took"
    );
    describe_counter!(
        names::WRITES_HELD,
        "Sessions that had a write waiting at a release"
    );
    describe_counter!(
        names::WRITES_NOT_CARRIED,
        "What the old master had and the new one does not, in units of offset"
    );
    describe_counter!(
        names::FULL_RESYNCS,
        "Nodes that had to copy everything to follow"
    );
    describe_counter!(
        names::PROXIES_SILENT,
        "Other proxies that did not do what a switchover asked, by step"
    );
    describe_counter!(
        names::HOLDS_FOR_OTHERS,
        "Holds for another proxy's switchover, by their end"
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn handles_reach_the_rendered_page() {
        let handle = install();
        let worker = WorkerMetrics::new("telemetry-test", 1);
        worker.sessions.increment(2.0);
        worker.requests_write.increment(3);
        worker.sessions_closed("client_left", 1);
        let switchover = SwitchoverMetrics::new("telemetry-test");
        switchover.ended("switched");
        switchover.hold_seconds.record(Duration::from_millis(4));
        switchover.phase("fence", Duration::from_micros(400));

        let page = install().render();

        for line in [
            r#"pointsman_sessions{shard="telemetry-test",worker="1"} 2"#,
            r#"pointsman_requests_total{shard="telemetry-test",worker="1",class="write"} 3"#,
            r#"pointsman_sessions_closed_total{shard="telemetry-test",reason="client_left"} 1"#,
            r#"pointsman_switchovers_total{shard="telemetry-test",outcome="switched"} 1"#,
            r#"pointsman_hold_seconds_bucket{shard="telemetry-test",le="0.005"} 1"#,
            r#"pointsman_hold_seconds_bucket{shard="telemetry-test",le="0.003"} 0"#,
            r#"pointsman_phase_seconds_count{shard="telemetry-test",phase="fence"} 1"#,
            "# HELP pointsman_sessions Clients connected now",
        ] {
            assert!(page.contains(line), "{line} is missing in\n{page}");
        }
        handle.run_upkeep();
    }
}
