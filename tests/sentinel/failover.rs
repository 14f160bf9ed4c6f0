//! Sentinel changes the master, ordered or because it died.

use crate::support::*;
use crate::watchers::{NAME, Watchers};
use crate::writers::{WRITERS, Writers};

/// The sum of a counter over all its labels but `label`.
pub async fn metric(proxy: &Proxy, name: &str, label: &str) -> u64 {
    let page = proxy.admin.get("/metrics").await.unwrap().body;
    let lines = page
        .lines()
        .filter(|line| line.starts_with(name) && line.contains(label));
    lines
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<u64>().ok())
        .sum()
}

/// The proxy and every Sentinel have the same master, which is not `old`; who it is.
async fn another_than(old: &str, proxy: &Proxy, watchers: &Watchers) -> String {
    let mut found = String::new();
    wait_until("another master", async || {
        let status = status(proxy).await;
        found = status["master"].as_str().unwrap_or_default().to_owned();
        let agreed = watchers.masters().await.iter().all(|one| *one == found);
        agreed && found != old && status["gate"] == "open"
    })
    .await;
    found
}

/// No write was answered with an error; of each writer a connection was closed at most once for
/// every master that was left, and every one of them was counted.
pub async fn check_writers(writers: Writers, proxy: &Proxy, masters_left: usize) {
    writers.go_on().await;
    let closed = writers.closed();
    assert!(closed <= (masters_left * WRITERS) as u64, "{closed} closed");
    wait_until("closed sessions are counted", async || {
        let ambiguous = "reason=\"ambiguous_write\"";
        metric(proxy, "pointsman_sessions_closed_total", ambiguous).await == closed
    })
    .await;
    let slowest = writers.finish().await;
    println!("{closed} of {WRITERS} writers' connections closed, slowest write {slowest:?}");
}

#[tokio::test]
async fn a_failover_that_is_ordered_of_sentinel_is_followed_without_an_error() {
    let shard = Shard::redis(2).await;
    let watchers = Watchers::over(&shard).await;
    let proxy = shard.proxy_with(watchers.settings()).await;
    let writers = Writers::start(&proxy).await;

    let ordered = watchers
        .wire(0)
        .await
        .call(&["SENTINEL", "FAILOVER", NAME])
        .await
        .unwrap();
    assert!(ordered.ok(), "{ordered:?}");

    another_than(&shard.addr(0), &proxy, &watchers).await;
    check_writers(writers, &proxy, 1).await;
}

#[tokio::test]
async fn writes_wait_while_sentinel_replaces_a_master_that_died() {
    let mut shard = Shard::redis(2).await;
    let watchers = Watchers::over(&shard).await;
    let proxy = shard.proxy_with(watchers.settings()).await;
    let writers = Writers::start(&proxy).await;

    shard.set.nodes[0].kill();

    another_than(&shard.addr(0), &proxy, &watchers).await;
    check_writers(writers, &proxy, 1).await;
}

#[tokio::test]
async fn a_proxy_that_starts_beside_two_masters_takes_the_one_that_sentinel_names() {
    let shard = Shard::redis(2).await;
    let watchers = Watchers::over(&shard).await;
    // Sentinel leaves a replica that calls itself master alone for some seconds.
    let promoted = shard.wire(1).await.run("REPLICAOF NO ONE").await.unwrap();
    assert!(promoted.ok(), "{promoted:?}");

    let proxy = shard.proxy_with(watchers.settings()).await;

    let status = status(&proxy).await;
    assert_eq!(status["master"], shard.addr(0), "{status}");
    let stray = role(&mut shard.wire(1).await).await.unwrap();
    assert!(
        matches!(stray, Role::Master),
        "the proxy waited for {stray:?}"
    );
}
