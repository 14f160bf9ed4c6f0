//! A writer that knows nothing of the proxy: it writes straight to the master, and looks for the
//! new one when it is refused.
//!
//! It stands for the clients that a switchover cannot hold. Refusals are its daily bread and no
//! errors; what counts is that nothing it was told is written gets lost. It sends a small pipeline,
//! waits for all replies, and counts as acknowledged only what was answered `+OK`.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use super::marked::Series;
use super::servers::find_master;
use super::wire::{Flat, Wire, WireError};

const PIPELINE: u64 = 4;
/// Long enough for a write that a pause holds back, short enough to notice a dead master.
const REPLY_DEADLINE: Duration = Duration::from_secs(5);
/// A node that hangs is not asked for longer whether it is the master.
const LOOK: Duration = Duration::from_millis(500);
const LOOK_AGAIN: Duration = Duration::from_millis(2);

#[derive(Debug, Default)]
pub struct Record {
    pub acked: Vec<u64>,
    /// Writes answered with an error, nearly always READONLY.
    pub refused: u64,
    /// How often it had to look for the master again.
    pub moves: u64,
    /// Writes whose connection broke before the reply; neither acknowledged nor refused.
    pub unanswered: u64,
}

pub struct DirectWriter {
    stop: CancellationToken,
    acked: Arc<AtomicU64>,
    task: JoinHandle<Record>,
}

impl DirectWriter {
    /// Writes `per_s` writes a second of `series` until it is stopped.
    pub fn start(nodes: Vec<String>, series: Series, per_s: u64) -> DirectWriter {
        let stop = CancellationToken::new();
        let acked = Arc::new(AtomicU64::new(0));
        let task = tokio::spawn(write(nodes, series, per_s, stop.clone(), acked.clone()));
        DirectWriter { stop, acked, task }
    }

    /// Acknowledged writes so far.
    pub fn acked(&self) -> u64 {
        self.acked.load(Relaxed)
    }

    pub async fn stop(mut self) -> anyhow::Result<Record> {
        self.stop.cancel();
        Ok((&mut self.task).await?)
    }
}

impl Drop for DirectWriter {
    fn drop(&mut self) {
        self.stop.cancel();
        self.task.abort();
    }
}

async fn write(
    nodes: Vec<String>,
    series: Series,
    per_s: u64,
    stop: CancellationToken,
    acked: Arc<AtomicU64>,
) -> Record {
    let mut record = Record::default();
    let mut next = 0;
    let period_us = 1_000_000 * PIPELINE / per_s.max(1);
    let mut turns = interval(Duration::from_micros(period_us.max(1)));
    // What could not be sent while no master took writes is not made up for afterwards.
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    'looking: while !stop.is_cancelled() {
        let Some(mut wire) = connect_master(&nodes).await else {
            sleep(LOOK_AGAIN).await;
            continue;
        };
        record.moves += 1;
        while !stop.is_cancelled() {
            turns.tick().await;
            let refused_before = record.refused;
            let sent = pipeline(&mut wire, &series, next, &mut record).await;
            next += PIPELINE;
            acked.store(record.acked.len() as u64, Relaxed);
            if sent.is_err() || record.refused != refused_before {
                continue 'looking;
            }
        }
    }
    record
}

async fn connect_master(nodes: &[String]) -> Option<Wire> {
    let master = find_master(nodes, LOOK).await?;
    Some(
        Wire::connect(&master)
            .await
            .ok()?
            .with_deadline(REPLY_DEADLINE),
    )
}

async fn pipeline(
    wire: &mut Wire,
    series: &Series,
    from: u64,
    record: &mut Record,
) -> Result<(), WireError> {
    let mut request = Vec::new();
    for number in from..from + PIPELINE {
        series.put_set(&mut request, number);
    }
    record.unanswered += PIPELINE;
    wire.send_raw(&request).await?;
    for number in from..from + PIPELINE {
        let acknowledged = wire.flat(|reply| reply == Flat::Line(b'+', b"OK")).await?;
        record.unanswered -= 1;
        match acknowledged {
            true => record.acked.push(number),
            false => record.refused += 1,
        }
    }
    Ok(())
}
