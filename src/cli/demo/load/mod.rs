//! The clients of the demo: writes and reads at a fixed rate over many connections, each reply
//! checked and timed.
//!
//! The load is open: requests fall due on a fixed grid of slots and are sent whether or not earlier
//! ones were answered, as independent users would. Latency counts from the moment a request was
//! due, not from the moment it left, so neither a hold nor a stall of this program hides waiting
//! time. How late the program itself was is measured and reported too.
//!
//! **Invariant:** a write is in [`Record::acked`] if and only if its own `+OK` was read.
//!
//! Everything runs on one thread beside one that only keeps time (tokio's timer is too coarse: it
//! rounds to 1 ms). Requests of a slot go out one connection after the other, a slot has few, and
//! a whole batch of replies shares one look at the clock, so that the load takes little from the
//! programs it shares the machine with.

mod connection;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tokio::sync::{Notify, oneshot};
use tokio::task::LocalSet;

use super::marked::Series;
use connection::{Connection, Tally};

/// The grid on which requests fall due.
const SLOT: Duration = Duration::from_micros(500);
/// Requests a connection gets in a row before the next one has its turn. Two in one packet, as
/// clients send that share a connection among threads; it halves what the load costs the machine.
const PIPELINE: u64 = 2;
/// How long replies may take after the last request was sent.
const DRAIN_DEADLINE: Duration = Duration::from_secs(15);
/// A connection that owes this many seconds' worth of replies gets no further request.
const OWED_S_MAX: u64 = 10;
/// Texts of errors kept; all are counted.
const ERRORS_KEPT_MAX: usize = 20;

#[derive(Clone, Debug)]
pub struct Plan {
    pub addr: String,
    pub connections: usize,
    /// How many of the connections never write.
    pub read_only: usize,
    pub writes_per_s: u64,
    /// Half of them go to the connections that only read.
    pub reads_per_s: u64,
    pub series: Series,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Write,
    /// A read on a connection that never writes.
    ReadAlone,
    /// A read on a connection that also writes; it waits behind a held write in front of it.
    ReadMixed,
}

#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// When the request was due, counted from the origin.
    pub due_us: u32,
    pub latency_us: u32,
}

/// What the clients saw.
#[derive(Debug, Default)]
pub struct Record {
    pub writes: Vec<Sample>,
    pub reads_alone: Vec<Sample>,
    pub reads_mixed: Vec<Sample>,
    /// Numbers of the acknowledged writes, in the order of their replies.
    pub acked: Vec<u64>,
    /// Error replies, wrong values, lost connections, requests that could not be sent.
    pub errors: u64,
    pub error_texts: Vec<String>,
    /// Requests whose reply never came: their connection broke, or the load ended first.
    pub unanswered: u64,
    /// How late after its time the generator worked off a slot.
    pub late_us: Vec<u32>,
}

impl Record {
    fn error(&mut self, text: String) {
        self.errors += 1;
        if self.error_texts.len() < ERRORS_KEPT_MAX {
            self.error_texts.push(text);
        }
    }

    fn samples(&mut self, kind: Kind) -> &mut Vec<Sample> {
        match kind {
            Kind::Write => &mut self.writes,
            Kind::ReadAlone => &mut self.reads_alone,
            Kind::ReadMixed => &mut self.reads_mixed,
        }
    }
}

/// What can be seen of a load while it runs.
#[derive(Debug, Default)]
pub struct Live {
    pub acked: AtomicU64,
    pub errors: AtomicU64,
    /// The slowest write since somebody last took this value away.
    pub slowest_us: AtomicU64,
}

/// A running load. Dropping it ends it without a record.
pub struct Load {
    live: Arc<Live>,
    stop: Arc<AtomicBool>,
    record: oneshot::Receiver<Record>,
}

impl Load {
    /// Returns when all connections are there and the first request is about to be sent.
    pub async fn start(plan: Plan, origin: Instant) -> anyhow::Result<Load> {
        if plan.read_only >= plan.connections {
            bail!("{} connections leave none to write on", plan.connections);
        }
        let live = Arc::new(Live::default());
        let stop = Arc::new(AtomicBool::new(false));
        let (ready_tx, ready) = oneshot::channel();
        let (record_tx, record) = oneshot::channel();
        let (live_there, stop_there) = (live.clone(), stop.clone());
        std::thread::Builder::new()
            .name("load".into())
            .spawn(move || {
                let built = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                let Ok(runtime) = built else { return };
                let local = LocalSet::new();
                let ended = local.block_on(
                    &runtime,
                    generate(plan, origin, live_there, stop_there, ready_tx),
                );
                if let Some(done) = ended {
                    // Nobody waits any more when the load was dropped.
                    let _ = record_tx.send(done);
                }
            })?;
        ready.await.context("the load ended before it began")??;
        Ok(Load { live, stop, record })
    }

    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Sends nothing more and returns when every owed reply is there, or the deadline passed.
    pub async fn stop(mut self) -> anyhow::Result<Record> {
        self.stop.store(true, Relaxed);
        (&mut self.record)
            .await
            .context("the load generator failed")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

async fn generate(
    plan: Plan,
    origin: Instant,
    live: Arc<Live>,
    stop: Arc<AtomicBool>,
    ready: oneshot::Sender<anyhow::Result<()>>,
) -> Option<Record> {
    let per_connection = (plan.writes_per_s + plan.reads_per_s) / plan.connections.max(1) as u64;
    let owed_max = (OWED_S_MAX * per_connection * 2 + 100) as usize;
    let tally = Rc::new(Tally::new(plan.series.clone(), origin, live));
    let mut connections = Vec::with_capacity(plan.connections);
    for number in 0..plan.connections {
        match Connection::open(&plan.addr, number, owed_max).await {
            Ok(connection) => connections.push(Rc::new(connection)),
            Err(error) => {
                let text = format!("cannot open connection {number} to {}", plan.addr);
                let _ = ready.send(Err(anyhow::Error::from(error).context(text)));
                return None;
            }
        }
    }
    for connection in &connections {
        tokio::task::spawn_local(connection.clone().read_replies(tally.clone()));
    }
    let mut issuer = Issuer::new(&plan, connections.clone(), tally.clone());
    let slots = Arc::new(Notify::new());
    let begin = Instant::now();
    keep_time(begin, slots.clone(), stop.clone()).ok()?;
    let _ = ready.send(Ok(()));
    while !stop.load(Relaxed) {
        slots.notified().await;
        issuer.work_off(begin, Instant::now());
    }
    drain(&connections).await;
    for connection in &connections {
        connection.give_up(&tally);
    }
    Some(tally.take_record())
}

async fn drain(connections: &[Rc<Connection>]) {
    let deadline = Instant::now() + DRAIN_DEADLINE;
    while connections.iter().any(|connection| connection.owes()) && Instant::now() < deadline {
        connections.iter().for_each(|connection| connection.flush());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Wakes the load at every slot. A thread, because it sleeps to 0.1 ms where tokio sleeps to 1 ms.
fn keep_time(begin: Instant, slots: Arc<Notify>, stop: Arc<AtomicBool>) -> std::io::Result<()> {
    std::thread::Builder::new()
        .name("load-clock".into())
        .spawn(move || {
            let mut number = 0u32;
            while !stop.load(Relaxed) {
                let passed = (begin.elapsed().as_micros() / SLOT.as_micros()) as u32;
                number = (number + 1).max(passed);
                let due = begin + SLOT * number;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                slots.notify_one();
            }
            slots.notify_one();
        })?;
    Ok(())
}

/// Turns time into requests.
struct Issuer {
    writers: Vec<Rc<Connection>>,
    readers: Vec<Rc<Connection>>,
    tally: Rc<Tally>,
    writes_per_s: u64,
    reads_per_s: u64,
    slot: u32,
    writes: u64,
    reads: u64,
}

impl Issuer {
    fn new(plan: &Plan, mut connections: Vec<Rc<Connection>>, tally: Rc<Tally>) -> Issuer {
        let readers = connections.split_off(plan.connections - plan.read_only);
        Issuer {
            writers: connections,
            readers,
            tally,
            writes_per_s: plan.writes_per_s,
            reads_per_s: plan.reads_per_s,
            slot: 0,
            writes: 0,
            reads: 0,
        }
    }

    /// Sends what fell due up to `now`, slot by slot, each with its own due time.
    fn work_off(&mut self, begin: Instant, now: Instant) {
        while begin + SLOT * (self.slot + 1) <= now {
            self.slot += 1;
            let due = begin + SLOT * self.slot;
            self.tally.note_late(now.saturating_duration_since(due));
            let slots_us = u64::from(self.slot) * SLOT.as_micros() as u64;
            while self.writes < slots_us * self.writes_per_s / 1_000_000 {
                pick(&self.writers, self.writes / PIPELINE).write(self.writes, due, &self.tally);
                self.writes += 1;
            }
            while self.reads < slots_us * self.reads_per_s / 1_000_000 {
                self.read(due);
                self.reads += 1;
            }
        }
        for connection in self.writers.iter().chain(&self.readers) {
            connection.flush();
        }
    }

    /// Reads a write that is known to be acknowledged: it must be there, unchanged.
    fn read(&self, due: Instant) {
        let Some(number) = self.tally.any_acked() else {
            return;
        };
        let alone = self.reads.is_multiple_of(2) && !self.readers.is_empty();
        let (from, kind) = match alone {
            true => (&self.readers, Kind::ReadAlone),
            false => (&self.writers, Kind::ReadMixed),
        };
        pick(from, self.reads / 2 / PIPELINE).read(number, kind, due, &self.tally);
    }
}

fn pick(connections: &[Rc<Connection>], turn: u64) -> &Connection {
    &connections[(turn % connections.len() as u64) as usize]
}

#[cfg(test)]
mod tests;
