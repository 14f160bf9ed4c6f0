//! One proxy, and an operator who knows nothing of it.

use pointsman::cli::demo::servers::plain_role_change;

use crate::crowd::{Crowd, Kinds};
use crate::support::*;

/// The proxy has found out that `master` is the master.
pub async fn followed(proxy: &Proxy, master: &str) {
    wait_until("the proxy follows", async || {
        let status = status(proxy).await;
        status["master"] == master && status["gate"] == "open"
    })
    .await;
}

pub async fn change_by_hand(shard: &Shard, from: usize, to: usize) {
    let (from, to) = (shard.addr(from), shard.addr(to));
    plain_role_change(&shard.addrs(), &from, &to).await.unwrap();
    shard.in_sync(&to).await;
}

/// Redis' own command, which waits for the replica by itself.
pub async fn change_by_failover(shard: &Shard, from: usize, to: usize) {
    let to = shard.addr(to);
    let (host, port) = to.rsplit_once(':').unwrap();
    let mut wire = shard.wire(from).await;
    let begun = wire.call(&["FAILOVER", "TO", host, port]).await.unwrap();
    assert!(begun.ok(), "{begun:?}");
    wait_until("the failover ends", async || {
        shard.master().await.as_ref() == Some(&to)
    })
    .await;
    for node in shard.addrs().iter().filter(|node| **node != to) {
        follow(node, &to).await.unwrap();
    }
    shard.in_sync(&to).await;
}

#[tokio::test]
async fn roles_changed_with_replicaof_are_not_noticed_by_clients() {
    let shard = Shard::redis(2).await;
    let proxy = shard.proxy().await;
    let crowd = Crowd::start(&[&proxy], Kinds::Plain).await;
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        change_by_hand(&shard, from, to).await;
        followed(&proxy, &shard.addr(to)).await;
        crowd.go_on().await;
    }
    crowd.finish(&shard.addr(0)).await;
}

#[tokio::test]
async fn redis_own_failover_is_not_noticed_by_clients() {
    let shard = Shard::redis(2).await;
    let proxy = shard.proxy().await;
    let crowd = Crowd::start(&[&proxy], Kinds::Plain).await;
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        change_by_failover(&shard, from, to).await;
        followed(&proxy, &shard.addr(to)).await;
        crowd.go_on().await;
    }
    crowd.finish(&shard.addr(0)).await;
}
