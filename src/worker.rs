//! One thread of the data path: its runtime, its sessions, its lanes, its half of each gate.
//!
//! Workers share nothing but the routes they read; a session lives and dies on one of them, so a
//! request never crosses a thread. What a request costs: `make bench`, benches/results.
//!
//! **Invariant:** nothing on a worker blocks its thread.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::busy_poll::busy_poll;
use crate::client::listener::{Door, Handover, Place};
use crate::client::registry::{ORDERS_MAX, Order};
use crate::client::seat::{Limits, Seat, Shared};
use crate::client::session::Session;
use crate::shard::gate::{Gate, GateOrder};
use crate::shard::gate_control::GateSeat;
use crate::shard::route::RouteReader;
use crate::telemetry::WorkerMetrics;
use crate::transport::{HandshakeError, Stream};
use crate::upstream::identity::Identity;

/// Connections handed over and not taken up yet, per worker.
const HANDOVER_MAX: usize = 4096;
/// How often counters reach the metrics.
const COUNTERS_EVERY: Duration = Duration::from_secs(1);

/// What one worker needs of one shard.
#[derive(Debug)]
pub struct ShardSeat {
    pub name: String,
    pub orders: GateSeat,
    pub route: RouteReader,
    pub shared: Shared,
}

/// A running worker, as the acceptor and the server see it.
#[derive(Debug)]
pub struct Worker {
    pub door: Door,
    pub thread: JoinHandle<()>,
}

impl Worker {
    /// Starts the thread. It ends when `stop` is cancelled and its sessions have ended, at the
    /// latest `stop_within` after.
    pub fn start(
        index: usize,
        shards: Vec<ShardSeat>,
        limits: Limits,
        stop: CancellationToken,
        stop_within: Duration,
    ) -> io::Result<Self> {
        let (handover, arrivals) = mpsc::channel(HANDOVER_MAX);
        let sessions = Arc::new(AtomicUsize::new(0));
        let runtime_and_run = move || {
            let built = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default());
            let runtime = match built {
                Ok(runtime) => runtime,
                Err(error) => {
                    tracing::error!(worker = index, %error, "worker has no runtime");
                    return;
                }
            };
            let core = Core {
                index,
                limits,
                stop,
                stop_within,
            };
            runtime.block_on(core.run(shards, arrivals));
        };
        let thread = std::thread::Builder::new()
            .name(format!("worker-{index}"))
            .spawn(runtime_and_run)?;
        Ok(Self {
            door: Door { handover, sessions },
            thread,
        })
    }
}

/// The inside of a worker.
struct Core {
    index: usize,
    limits: Limits,
    stop: CancellationToken,
    stop_within: Duration,
}

impl Core {
    async fn run(self, shards: Vec<ShardSeat>, mut arrivals: mpsc::Receiver<Handover>) {
        let tasks = TaskTracker::new();
        let mut seats = Vec::with_capacity(shards.len());
        for ShardSeat {
            name,
            orders,
            route,
            shared,
        } in shards
        {
            let gate = Gate::shut(Arc::clone(&orders.everywhere));
            let (door, session_orders) = mpsc::channel(ORDERS_MAX);
            let (lost, lost_identities) = mpsc::channel(ORDERS_MAX);
            let limits = self.limits.clone();
            let seat = Seat::new(gate, &route, limits, shared, door, lost);
            let metrics = WorkerMetrics::new(&name, self.index);
            // All end with the runtime: orders must be obeyed while sessions drain.
            tokio::task::spawn_local(obey(Rc::clone(&seat), orders.orders));
            tokio::task::spawn_local(obey_sessions(Rc::clone(&seat), session_orders));
            tokio::task::spawn_local(prove_again(Rc::clone(&seat), lost_identities));
            tokio::task::spawn_local(report(Rc::clone(&seat), metrics));
            let longest = seat.limits.busy_poll;
            if !longest.is_zero() {
                tokio::task::spawn_local(busy_poll(Rc::clone(&seat), longest));
            }
            seats.push(seat);
        }
        loop {
            tokio::select! {
                // Both are cancel-safe: a connection is taken whole or not at all.
                arrival = arrivals.recv() => match arrival {
                    Some(arrival) => self.welcome(&tasks, &seats, arrival),
                    None => break,
                },
                () = self.stop.cancelled() => break,
            }
        }
        for seat in &seats {
            seat.stop();
        }
        tasks.close();
        if tokio::time::timeout(self.stop_within, tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                worker = self.index,
                left = tasks.len(),
                "sessions cut at shutdown"
            );
        }
    }

    fn welcome(&self, tasks: &TaskTracker, seats: &[Rc<Seat>], arrival: Handover) {
        let Some(seat) = seats.get(arrival.shard) else {
            return;
        };
        let stream = match TcpStream::from_std(arrival.stream) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(%error, "a client connection could not be taken up");
                return;
            }
        };
        let (id, seat, place) = (arrival.id, Rc::clone(seat), arrival.place);
        if !seat.acceptor.is_tls() {
            let session = Session::new(id, &seat, Stream::Plain(stream));
            tasks.spawn_local(async move {
                session.run().await;
                drop(place);
            });
            return;
        }
        let stop = self.stop.clone();
        tasks.spawn_local(async move {
            // A handshake that is cut off by the end leaves nothing behind.
            let shaken = tokio::select! {
                shaken = shake_hands(&seat, stream, place) => shaken,
                () = stop.cancelled() => None,
            };
            if let Some((stream, place)) = shaken {
                Session::new(id, &seat, stream).run().await;
                drop(place);
            }
        });
    }
}

/// A client's TLS handshake; `None` when it came to nothing, which is logged and counted. Who is
/// told of that finds the place free.
async fn shake_hands(seat: &Seat, stream: TcpStream, place: Place) -> Option<(Stream, Place)> {
    let peer = stream.peer_addr();
    match seat.acceptor.accept(stream).await {
        Ok(stream) => Some((stream, place)),
        Err(error) => {
            drop(place);
            let client = peer.map_or_else(|_| "?".to_owned(), |peer| peer.to_string());
            match error {
                HandshakeError::Gone => tracing::debug!(client, %error, "client went away"),
                _ => tracing::warn!(client, %error, "client connection closed"),
            }
            let mut closed = seat.counts.closed.borrow_mut();
            *closed.entry("tls_handshake").or_default() += 1;
            None
        }
    }
}

/// Carries out the orders of the control path to one gate.
async fn obey(seat: Rc<Seat>, mut orders: mpsc::Receiver<GateOrder>) {
    while let Some(order) = orders.recv().await {
        match order {
            GateOrder::Hold { drained } => seat.gate.hold(drained),
            GateOrder::Move { moved } => seat.gate.move_receivers(seat.epoch(), moved),
            GateOrder::Release { to, done } => {
                // The control path may have stopped listening; the gate is what matters.
                let _ = done.send(seat.gate.release(to));
                seat.leave_former_master();
            }
            GateOrder::Prepare { node, done } => {
                let seat = Rc::clone(&seat);
                // Dialling takes time; a release must not wait behind it. Ends by its deadlines.
                tokio::task::spawn_local(async move {
                    let _ = done.send(seat.prepare(&node).await);
                });
            }
        }
    }
}

/// Carries out what sessions want done to sessions of this worker.
async fn obey_sessions(seat: Rc<Seat>, mut orders: mpsc::Receiver<Order>) {
    while let Some(order) = orders.recv().await {
        seat.obey(&order);
    }
}

/// Ends sessions whose user the master knows no more.
async fn prove_again(seat: Rc<Seat>, mut lost: mpsc::Receiver<Identity>) {
    while let Some(identity) = lost.recv().await {
        seat.prove_again(&identity).await;
    }
}

/// Brings the counters to the metrics.
async fn report(seat: Rc<Seat>, metrics: WorkerMetrics) {
    let mut ticks = interval(COUNTERS_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        seat.tick();
        let counts = &seat.counts;
        metrics.sessions.set(counts.sessions.get() as f64);
        metrics.connections.increment(counts.connections.take());
        metrics.requests_read.increment(counts.reads.take());
        metrics.requests_write.increment(counts.writes.take());
        metrics.refused.increment(counts.refused.take());
        metrics.bytes_in.increment(counts.bytes_in.take());
        metrics.bytes_out.increment(counts.bytes_out.take());
        metrics.writes_held.set(seat.gate.writes_held() as f64);
        for (reason, count) in counts.closed.borrow_mut().drain() {
            metrics.sessions_closed(reason, count);
        }
    }
}
