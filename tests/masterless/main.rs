//! What becomes of reads while there is no master: a real one is killed under load, and another one
//! is promoted later.

#[path = "../support/mod.rs"]
mod support;

mod elsewhere;
mod frozen;
mod frozen_scan;
mod lost;
mod way;
#[path = "../sentinel/writers.rs"]
mod writers;

use crate::support::*;

/// A proxy whose reads do `reads` without a master, and whose clients have the patience of the
/// tests.
async fn proxy(shard: &Shard, reads: &str) -> Proxy {
    let patience = SOON.as_millis();
    let lines = format!("hold_budget_ms = {patience}\nreads_without_master = \"{reads}\"");
    shard.proxy_with(proxy_settings(&lines)).await
}

/// The proxy has looked at the nodes with everything that was written in them.
async fn known(proxy: &Proxy) {
    wait_until("the nodes have been looked at", async || {
        let status = status(proxy).await;
        let nodes = status["nodes"].as_array().unwrap();
        nodes.iter().all(|node| node["offset"].as_u64() > Some(0))
    })
    .await;
}

/// The proxy has found that this node does not answer.
async fn missed(proxy: &Proxy, node: &str) {
    wait_until("the proxy misses the node", async || {
        let status = status(proxy).await;
        let nodes = status["nodes"].as_array().unwrap();
        nodes
            .iter()
            .any(|one| one["node"] == node && one["error"].is_string())
    })
    .await;
}

/// Makes a node master, and gives it a key before anybody sees that it is one.
async fn promote(shard: &Shard, node: usize, key: &str, value: &str) {
    let mut wire = shard.wire(node).await;
    let mut both = Vec::new();
    put_request(&mut both, &["REPLICAOF", "NO", "ONE"]);
    put_request(&mut both, &["SET", key, value]);
    wire.send_raw(&both).await.unwrap();
    for _ in 0..2 {
        assert!(wire.reply().await.unwrap().ok());
    }
}

async fn followed(proxy: &Proxy, master: &str) {
    wait_until("the proxy follows", async || {
        let status = status(proxy).await;
        status["master"] == master && status["gate"] == "open"
    })
    .await;
}

/// The second node is master in place of the first, and the others and the proxy follow it.
async fn replaced(shard: &Shard, proxy: &Proxy) {
    promote(shard, 1, "which", "the new master").await;
    for other in 2..shard.set.nodes.len() {
        follow(&shard.addr(other), &shard.addr(1)).await.unwrap();
    }
    followed(proxy, &shard.addr(1)).await;
}
