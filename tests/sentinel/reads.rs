//! Reads while Sentinel replaces a master that died.

use crate::support::*;
use crate::watchers::{DOWN_AFTER_MS, Watchers};
use crate::writers::{WRITERS, Writers};

/// Kills the master under load, in a shard whose reads do `reads` without one. The readers see
/// neither an error nor a closed connection, and where it `goes_on` they are answered before there
/// is another master.
async fn check(reads: &str, goes_on: bool) {
    let mut shard = Shard::redis(2).await;
    Readers::prepare(&shard).await;
    let watchers = Watchers::over(&shard).await;
    let settings = Settings {
        proxy: format!("hold_budget_ms = 20000\nreads_without_master = \"{reads}\""),
        ..watchers.settings()
    };
    let proxy = shard.proxy_with(settings).await;
    let writers = Writers::start(&proxy).await;
    let readers = Readers::start(&proxy).await;
    let old = shard.addr(0);
    if goes_on {
        // The failover waits until the readers have been seen to go on.
        watchers.down_after("600000").await;
    }

    shard.set.nodes[0].kill();
    if goes_on {
        let acked = writers.acked();
        // A pipeline more may have been on its way.
        readers.more(40).await;
        assert_eq!(status(&proxy).await["master"], old);
        assert_eq!(watchers.masters().await, vec![old.clone(); 3]);
        assert!(writers.acked() <= acked + WRITERS as u64);
        watchers.down_after(DOWN_AFTER_MS).await;
    }

    wait_until("another master", async || {
        let status = status(&proxy).await;
        let master = status["master"].as_str().unwrap_or_default();
        status["gate"] == "open" && !master.is_empty() && master != old
    })
    .await;
    readers.go_on().await;
    readers.finish().await;
    writers.go_on().await;
    assert!(writers.closed() <= WRITERS as u64);
    writers.finish().await;
}

#[tokio::test]
async fn readers_go_on_before_there_is_another_master_where_replicas_may_be_read() {
    check("replica", true).await;
}

#[tokio::test]
async fn readers_wait_for_another_master_where_replicas_may_not_be_read() {
    check("hold", false).await;
}
