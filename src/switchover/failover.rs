//! Clients' `FAILOVER` as switchovers, where the operator has allowed it (`commands.failover`).
//!
//! The replies are those of Redis: as soon as the operation has begun, or an error that says why it
//! has not. What becomes of it is in its report, as for every other operation.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::shard::failover::{Failover, FailoverRequest};
use crate::switchover::control::Shards;
use crate::switchover::exec::{Gates, Routes};
use crate::switchover::view::{AbortAnswer, Control, NodeRole, NodeStatus, StartError};

/// Serves one shard until the proxy stops.
pub async fn serve<G: Gates, R: Routes>(
    shards: Shards<G, R>,
    shard: Arc<str>,
    mut requests: mpsc::Receiver<FailoverRequest>,
    stop: CancellationToken,
) {
    loop {
        let request = tokio::select! {
            // Cancel-safe: a request is taken whole or not at all.
            request = requests.recv() => request,
            () = stop.cancelled() => None,
        };
        let Some(FailoverRequest { failover, answer }) = request else {
            return;
        };
        let answered = match failover {
            Failover::Begin { to, timeout } => begin(&shards, &shard, to, timeout),
            Failover::Abort => abort(&shards, &shard),
        };
        // A client that has left does not want to know.
        let _ = answer.send(answered);
    }
}

fn begin<G: Gates, R: Routes>(
    shards: &Shards<G, R>,
    shard: &str,
    to: Option<(String, u16)>,
    timeout: Option<Duration>,
) -> Result<(), String> {
    let status = shards.status(shard).ok_or("there is no such shard")?;
    let target = match &to {
        Some((host, port)) => {
            let named = format!("{host}:{port}");
            let found = status.nodes.iter().find(|node| node.node == named);
            match found {
                Some(node) if status.master.as_ref() != Some(&node.node) => node.node.clone(),
                _ => return Err("FAILOVER target HOST and PORT is not a replica.".to_owned()),
            }
        }
        None => closest(&status.nodes, status.master.as_deref())
            .ok_or("FAILOVER requires connected replicas.")?,
    };
    match shards.begin_within(shard, &target, timeout) {
        Ok(id) => {
            tracing::info!(
                shard,
                operation = id,
                target,
                "a client ordered a switchover"
            );
            Ok(())
        }
        Err(StartError::Busy { .. }) => Err("FAILOVER already in progress.".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// The replica with the smallest lag whose link is up.
fn closest(nodes: &[NodeStatus], master: Option<&str>) -> Option<String> {
    let replicas = nodes.iter().filter(|node| {
        let follows = node.role == NodeRole::Replica && node.link.as_deref() == Some("up");
        follows && Some(node.node.as_str()) != master
    });
    let nearest = replicas.min_by_key(|node| node.lag_bytes.unwrap_or(i64::MAX));
    nearest.map(|node| node.node.clone())
}

fn abort<G: Gates, R: Routes>(shards: &Shards<G, R>, shard: &str) -> Result<(), String> {
    let running = shards.status(shard).and_then(|status| status.operation);
    let none = "No failover in progress.";
    match running.map(|id| shards.abort(&id)) {
        Some(AbortAnswer::Aborting | AbortAnswer::Leaving) => Ok(()),
        Some(AbortAnswer::TooLate) => {
            Err("the target is master already: the failover can only be finished".to_owned())
        }
        Some(AbortAnswer::Ended | AbortAnswer::Unknown) | None => Err(none.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(name: &str, role: NodeRole, link: &str, lag: Option<i64>) -> NodeStatus {
        NodeStatus {
            node: name.into(),
            role,
            link: Some(link.into()),
            offset: None,
            lag_bytes: lag,
            seen_ms_ago: Some(0),
            error: None,
        }
    }

    #[test]
    fn without_a_target_the_replica_that_is_closest_is_taken() {
        let nodes = [
            node("m:1", NodeRole::Master, "up", Some(0)),
            node("far:1", NodeRole::Replica, "up", Some(900)),
            node("near:1", NodeRole::Replica, "up", Some(3)),
            node("broken:1", NodeRole::Replica, "down", Some(0)),
            node("silent:1", NodeRole::Unknown, "up", Some(0)),
        ];
        assert_eq!(closest(&nodes, Some("m:1")).as_deref(), Some("near:1"));
        assert_eq!(closest(&nodes[..1], Some("m:1")), None);
    }
}
