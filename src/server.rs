//! Builds everything once and owns the order of start and stop.
//!
//! Start: addresses are bound first, so that a wrong one is told before anything runs; then the
//! workers, then the control path, which finds each shard's master (or finishes an operation
//! that was interrupted) and opens the gates; clients that came earlier wait at them.
//!
//! Stop, on SIGTERM or SIGINT: running operations are undone or finished, then no client is
//! accepted any more, sessions end as soon as nothing of theirs is under way, at the latest after
//! `shutdown_timeout_ms`. A second signal ends the process at once.
//!
//! SIGHUP reads the config again ([`reload`]).
//!
//! **Invariant:** the writing halves of gates and routes are made here and given to the control
//! path alone.

mod reload;

use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context;
use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::listener::{Door, Listener};
use crate::client::pause::Pause;
use crate::client::registry::Registry;
use crate::client::seat::{Limits, Shared};
use crate::config::{
    CommandAnswer, CommandsConfig, Config, MasterlessReads, ProxyConfig, ShardConfig,
};
use crate::resp::command::policy::{Group, Policy, Ruling};
use crate::resp::scan::RequestLimits;
use crate::shard::doubt::{Doubts, doubt};
use crate::shard::failover::{FailoverRequest, failover};
use crate::shard::gate_control::{GateControl, gate};
use crate::shard::route::{RouteControl, route};
use crate::switchover::control::{ShardSeat as ControlSeat, Shards};
use crate::switchover::exec::Site;
use crate::switchover::failover;
use crate::switchover::journal::Journal;
use crate::transport::Acceptor;
use crate::worker::{ShardSeat, Worker};
use crate::{admin, telemetry};
use reload::{Reload, ShardParts};

/// Histograms grow until they are swept.
const UPKEEP_EVERY: Duration = Duration::from_secs(5);

/// Runs the proxy until it is told to end and every client has been let go. `path` is where the
/// config came from.
pub async fn run(config: Config, path: PathBuf) -> anyhow::Result<()> {
    let mut signals = Signals::new().context("cannot listen for signals")?;
    let stop = CancellationToken::new();
    let metrics = telemetry::install();
    let built = Built::new(&config, &stop).await?;
    let tasks = TaskTracker::new();

    let shards = Shards::start(built.seats);
    let guard = admin::Guard::new(config.admin.token.clone());
    let admin_routes = guard.protect(admin::router(Arc::new(shards.clone()), metrics.clone()));
    let admin_stop = CancellationToken::new();
    tasks.spawn(admin::serve(built.admin, admin_routes, admin_stop.clone()));
    tasks.spawn(upkeep(metrics, admin_stop.clone()));
    for (shard, requests) in built.failovers {
        let serving = failover::serve(shards.clone(), shard, requests, admin_stop.clone());
        tasks.spawn(serving);
    }
    for listener in built.listeners {
        tasks.spawn(listener.run(stop.clone()));
    }
    tracing::info!(admin = %built.admin_address, "pointsman serves");

    let mut reload = Reload {
        path,
        current: config,
        guard,
        clients_max: built.clients_max,
        shards: built.parts,
        control: Arc::new(shards.clone()),
    };
    while signals.next().await == Ordered::Reload {
        reload.run().await;
    }
    signals.end_at_once_if_repeated();
    tracing::info!(
        "stopping: operations and clients are let finish; a second signal does not wait"
    );
    shards.stop().await;
    stop.cancel();
    join_all(built.workers).await;
    shards.end();
    admin_stop.cancel();
    tasks.close();
    tasks.wait().await;
    tracing::info!("stopped");
    Ok(())
}

type Seats = Vec<ControlSeat<GateControl, RouteControl>>;

/// Everything that is made before anything runs.
struct Built {
    workers: Vec<Worker>,
    listeners: Vec<Listener>,
    seats: Seats,
    failovers: Vec<(Arc<str>, mpsc::Receiver<FailoverRequest>)>,
    admin: TcpListener,
    admin_address: String,
    clients_max: Arc<AtomicUsize>,
    /// What a reload changes of each shard.
    parts: Vec<ShardParts>,
}

impl Built {
    async fn new(config: &Config, stop: &CancellationToken) -> anyhow::Result<Self> {
        let listen = &config.admin.listen;
        let admin = TcpListener::bind(listen)
            .await
            .with_context(|| format!("cannot listen on {listen} (admin.listen)"))?;
        let admin_address = admin
            .local_addr()
            .map_or_else(|_| listen.clone(), |at| at.to_string());

        let worker_count = config.proxy.worker_count();
        let mut per_worker: Vec<Vec<ShardSeat>> = (0..worker_count).map(|_| Vec::new()).collect();
        let (mut seats, mut failovers, mut parts) = (Vec::new(), Vec::new(), Vec::new());
        for shard in &config.shards {
            let (gates, orders) = gate(worker_count);
            let (routes, reader) = route();
            let sessions = Arc::new(AtomicUsize::new(0));
            let (desk, requests) = failover();
            let (doubt, doubts) = doubt();
            failovers.push((Arc::from(shard.name.as_str()), requests));
            let site = Arc::new(site(config, shard, gates, routes, doubts)?);
            let handshake = config.proxy.tls_handshake_timeout;
            let acceptor = Acceptor::new(shard.tls.clone(), handshake);
            let shared = Shared {
                sessions_live: Arc::clone(&sessions),
                registry: Registry::default(),
                pause: Pause::default(),
                failover: desk,
                doubt,
                scripts: Arc::default(),
                cursors: Arc::default(),
                dialer: site.credentials.dialer.clone(),
                acceptor: acceptor.clone(),
            };
            for (seats, orders) in per_worker.iter_mut().zip(orders) {
                let (name, route) = (shard.name.clone(), reader.clone());
                seats.push(ShardSeat {
                    name,
                    orders,
                    route,
                    shared: shared.clone(),
                });
            }
            let renewed = Arc::clone(&site);
            parts.push(ShardParts {
                acceptor,
                renew: Box::new(move |shard, new| renewed.renew(shard, &new.switchover)),
            });
            seats.push(ControlSeat {
                site,
                listen: shard.listen.clone(),
                sessions: Arc::new(move || sessions.load(Ordering::Relaxed) as u64),
            });
        }

        let limits = limits(&config.proxy, policy(&config.commands));
        let mut workers = Vec::with_capacity(worker_count);
        for (index, shards) in per_worker.into_iter().enumerate() {
            let within = config.proxy.shutdown_timeout;
            let worker = Worker::start(index, shards, limits.clone(), stop.clone(), within)
                .context("cannot start a worker thread")?;
            workers.push(worker);
        }
        let clients_max = Arc::new(AtomicUsize::new(config.proxy.clients_max));
        let listeners = listeners(config, &workers, &parts, &clients_max).await?;
        Ok(Self {
            workers,
            listeners,
            seats,
            failovers,
            admin,
            admin_address,
            clients_max,
            parts,
        })
    }
}

/// Where operations on a shard work.
fn site(
    config: &Config,
    shard: &ShardConfig,
    gates: GateControl,
    routes: RouteControl,
    doubts: Doubts,
) -> anyhow::Result<Site<GateControl, RouteControl>> {
    let (proxy, switchover) = (&config.proxy, &config.switchover);
    let journal = Journal::open(&proxy.state_dir, &shard.name)
        .with_context(|| format!("cannot use the journal of shard {}", shard.name))?;
    Ok(Site::new(
        shard, proxy, switchover, journal, gates, routes, doubts,
    ))
}

async fn listeners(
    config: &Config,
    workers: &[Worker],
    parts: &[ShardParts],
    clients_max: &Arc<AtomicUsize>,
) -> anyhow::Result<Vec<Listener>> {
    let next_id = Arc::new(AtomicU64::new(1));
    let mut listeners = Vec::with_capacity(config.shards.len());
    for (index, (shard, parts)) in config.shards.iter().zip(parts).enumerate() {
        let doors: Vec<Door> = workers.iter().map(|worker| worker.door.clone()).collect();
        let listener = Listener::bind(
            &shard.listen,
            index,
            doors,
            Arc::clone(clients_max),
            parts.acceptor.clone(),
            Arc::clone(&next_id),
        )
        .await
        .with_context(|| format!("cannot listen on {} (shard {})", shard.listen, shard.name))?;
        let address = listener
            .local_addr()
            .map(|at| at.to_string())
            .unwrap_or_default();
        tracing::info!(shard = shard.name, address, nodes = ?shard.nodes, "clients are welcome");
        listeners.push(listener);
    }
    Ok(listeners)
}

fn policy(commands: &CommandsConfig) -> Policy {
    let ruling = |answer| match answer {
        CommandAnswer::Refuse => Ruling::Refuse,
        CommandAnswer::Pass => Ruling::Pass,
        CommandAnswer::Switchover => Ruling::Switchover,
    };
    Policy::default()
        .with(Group::Replicaof, ruling(commands.replicaof))
        .with(Group::Failover, ruling(commands.failover))
        .with(Group::Shutdown, ruling(commands.shutdown))
        .with(Group::ClientPause, ruling(commands.client_pause))
        .with(Group::Replication, ruling(commands.replication))
        .with(Group::Cluster, ruling(commands.cluster))
        .with(Group::ScriptDebug, ruling(commands.script_debug))
}

fn limits(proxy: &ProxyConfig, policy: Policy) -> Limits {
    Limits {
        request: RequestLimits {
            inline_bytes_max: proxy.inline_bytes_max,
            elements_max: proxy.elements_max,
            bulk_bytes_max: proxy.bulk_bytes_max,
        },
        pipeline_max: proxy.pipeline_max,
        session_buffer_bytes_max: proxy.session_buffer_bytes_max,
        upload_buffer_bytes_max: proxy.upload_buffer_bytes_max,
        output_buffer_bytes_max: proxy.output_buffer_bytes_max,
        lanes_max: proxy.lanes,
        pinned_idle_max: proxy.pinned_idle_max,
        connect_timeout: proxy.connect_timeout,
        busy_poll: proxy.busy_poll,
        hold_budget: proxy.hold_budget,
        reads_budget: match proxy.reads_without_master {
            MasterlessReads::Hold | MasterlessReads::Replica => proxy.hold_budget,
            MasterlessReads::Error => Duration::ZERO,
        },
        reads_stand_in: proxy.reads_without_master == MasterlessReads::Replica,
        policy,
    }
}

/// Threads are joined off the runtime: sessions may take their time.
async fn join_all(workers: Vec<Worker>) {
    for worker in workers {
        let joined = tokio::task::spawn_blocking(move || worker.thread.join()).await;
        if !matches!(joined, Ok(Ok(()))) {
            tracing::error!("a worker ended in a panic");
        }
    }
}

async fn upkeep(metrics: PrometheusHandle, stop: CancellationToken) {
    let mut ticks = interval(UPKEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            _ = ticks.tick() => metrics.run_upkeep(),
            () = stop.cancelled() => return,
        }
    }
}

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ordered {
    Reload,
    Stop,
}

/// The signals that end the proxy, or have it read its config again.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// From now on a signal to end ends the process at once.
    fn end_at_once_if_repeated(mut self) {
        // Ends with the process, one way or the other.
        tokio::spawn(async move {
            while self.next().await == Ordered::Reload {
                tracing::warn!("config not reloaded: the proxy is stopping");
            }
            tracing::warn!("second signal: ending at once");
            process::exit(1);
        });
    }

    async fn next(&mut self) -> Ordered {
        tokio::select! {
            _ = self.terminate.recv() => Ordered::Stop,
            _ = self.interrupt.recv() => Ordered::Stop,
            _ = self.hangup.recv() => Ordered::Reload,
        }
    }
}
