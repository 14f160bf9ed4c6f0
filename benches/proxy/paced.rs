//! Writes at three fifths of what the server takes at most: what clients wait for when nothing is
//! overloaded. Latency counts from the moment a request was due.

use std::time::{Duration, Instant};

use anyhow::bail;
use pointsman::cli::demo::figures::latency;
use pointsman::cli::demo::load::{Load, Plan};
use pointsman::cli::demo::marked::Series;
use tokio::time::sleep;

use crate::load::{Seen, Workload};

pub const NAME: &str = "SET 64 B at 60 % of direct's peak rate, 50 connections";
pub const SHARE: f64 = 0.6;
const LASTS: Duration = Duration::from_millis(1200);

pub async fn run(addr: &str, workload: &Workload, peak: f64) -> anyhow::Result<Seen> {
    let plan = Plan {
        addr: addr.to_owned(),
        connections: workload.connections(),
        read_only: 0,
        writes_per_s: (peak * SHARE) as u64,
        reads_per_s: 0,
        series: Series::new("paced", workload.value_bytes()),
    };
    let load = Load::start(plan, Instant::now()).await?;
    let begin = Instant::now();
    sleep(LASTS).await;
    let record = load.stop().await?;
    let took = begin.elapsed();
    if record.errors + record.unanswered > 0 {
        bail!("{} errors: {:?}", record.errors, record.error_texts);
    }
    let seen = latency(record.writes.iter());
    Ok(Seen {
        requests: seen.count,
        requests_per_s: seen.count as f64 / took.as_secs_f64(),
        p50_ms: seen.p50_ms,
        p99_ms: seen.p99_ms,
    })
}
