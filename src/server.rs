//! Builds everything once and owns the order of start and stop.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::client::listener::{Door, Listener};
use crate::client::registry::Registry;
use crate::client::seat::Limits;
use crate::config::{Config, ProxyConfig};
use crate::resp::scan::RequestLimits;
use crate::shard::gate::{GateControl, GateSeat, GateState, gate};
use crate::shard::route::{RouteControl, RouteReader, route};
use crate::worker::{ShardSeat, Worker};

pub async fn run(config: Config) -> anyhow::Result<()> {
    let count = if config.proxy.workers == 0 { 2 } else { config.proxy.workers };
    let mut per_worker: Vec<Vec<ShardSeat>> = (0..count).map(|_| Vec::new()).collect();
    let mut controls = Vec::new();
    for shard in &config.shards {
        let (gate_control, seats) = gate(count);
        let (route_control, reader) = route();
        for (worker, orders) in per_worker.iter_mut().zip(seats) {
            worker.push(ShardSeat { name: shard.name.clone(), orders, route: reader.clone() });
        }
        controls.push((gate_control, route_control));
    }
    let stop = CancellationToken::new();
    let registry = Registry::default();
    let limits = limits(&config.proxy);
    let mut workers = Vec::new();
    for (i, seats) in per_worker.into_iter().enumerate() {
        workers.push(Worker::start(i, seats, limits.clone(), registry.clone(), stop.clone(), config.proxy.shutdown_timeout)?);
    }
    let next = Arc::new(AtomicU64::new(1));
    for (i, shard) in config.shards.iter().enumerate() {
        let doors: Vec<Door> = workers.iter().map(|w| w.door.clone()).collect();
        let l = Listener::bind(&shard.listen, i, doors, config.proxy.clients_max, next.clone()).await.with_context(|| format!("cannot listen on {}", shard.listen))?;
        tokio::spawn(l.run(stop.clone()));
        controls[i].1.publish(Some(&shard.nodes[0]), &[]);
        controls[i].0.release(GateState::Open).await;
    }
    signal(SignalKind::terminate())?.recv().await;
    stop.cancel();
    for w in workers { let _ = w.thread.join(); }
    Ok(())
}

fn limits(proxy: &ProxyConfig) -> Limits {
    Limits {
        request: RequestLimits {
            inline_bytes_max: proxy.inline_bytes_max,
            elements_max: proxy.elements_max,
            bulk_bytes_max: proxy.bulk_bytes_max,
        },
        pipeline_max: proxy.pipeline_max,
        session_buffer_bytes_max: proxy.session_buffer_bytes_max,
        output_buffer_bytes_max: proxy.output_buffer_bytes_max,
        lanes_max: if proxy.lanes == 0 { 1 } else { proxy.lanes },
        pinned_idle_max: proxy.pinned_idle_max,
        connect_timeout: proxy.connect_timeout,
        hold_budget: proxy.hold_budget,
    }
}
