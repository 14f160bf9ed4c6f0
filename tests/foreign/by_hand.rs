//! One proxy, and an operator who knows nothing of it.

use pointsman::cli::demo::servers::plain_role_change;

use pointsman::cli::demo::wire::Wire;

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
    let crowd = Crowd::start(&[&proxy], Kinds::All).await;
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
    let crowd = Crowd::start(&[&proxy], Kinds::All).await;
    for (from, to) in [(0, 1), (1, 2), (2, 0)] {
        change_by_failover(&shard, from, to).await;
        followed(&proxy, &shard.addr(to)).await;
        crowd.go_on().await;
    }
    crowd.finish(&shard.addr(0)).await;
}

/// The same on Kvrocks: fence, wait, promote. Its feed to the target is ended by hand, since it would
/// not follow its own replica before.
async fn change_kvrocks_by_hand(shard: &Shard, from: usize, to: usize) {
    let (mut old, mut target) = (shard.wire(from).await, shard.wire(to).await);
    let sink = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = sink.local_addr().unwrap().port().to_string();
    let fenced = old.call(&["SLAVEOF", "127.0.0.1", &port]).await.unwrap();
    assert!(fenced.ok(), "{fenced:?}");
    let offset = async |wire: &mut Wire| {
        let info = wire.run("INFO replication").await.unwrap().text();
        field(&info, "slave_repl_offset").map(str::to_owned)
    };
    wait_until("the target has everything", async || {
        // A command that was woken just before still pops behind the fence.
        offset(&mut target).await == offset(&mut old).await
    })
    .await;
    target.run("SLAVEOF NO ONE").await.unwrap();
    let to = shard.addr(to);
    for node in shard.addrs().iter().filter(|node| **node != to) {
        wait_until("the others follow", async || {
            old.run("CLIENT KILL TYPE slave").await.unwrap();
            follow(node, &to).await.is_ok()
        })
        .await;
    }
    shard.in_sync(&to).await;
}

#[tokio::test]
async fn roles_changed_by_hand_on_kvrocks_are_not_noticed_by_clients() {
    let Some(shard) = Shard::kvrocks(1).await else {
        return;
    };
    let proxy = shard.proxy().await;
    let crowd = Crowd::start(&[&proxy], Kinds::All).await;
    for (from, to) in [(0, 1), (1, 0)] {
        change_kvrocks_by_hand(&shard, from, to).await;
        followed(&proxy, &shard.addr(to)).await;
        crowd.go_on().await;
    }
    crowd.finish(&shard.addr(0)).await;
}
